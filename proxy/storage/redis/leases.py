"""Leases among the nodes that share a Redis.  Their time goes by the server's clock alone."""

from proxy.storage.redis.keys import Keys
from proxy.storage.redis.server import Server


class RedisLeases:
    """`model.ports.Leases`."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def take(self, name: str, node: str, ttl_s: float) -> int | None:
        keys = Keys(name)
        names = [keys.lease(), keys.lease_token()]
        token = await self._server.run("lease_take", names, [node, _ms(ttl_s)])
        return int(token) if token is not None else None

    async def renew(self, name: str, node: str, token: int, ttl_s: float) -> bool:
        said = [f"{node}:{token}", _ms(ttl_s)]
        return bool(await self._server.run("lease_renew", [Keys(name).lease()], said))

    async def free(self, name: str, node: str, token: int) -> None:
        await self._server.run("lease_free", [Keys(name).lease()], [f"{node}:{token}"])


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
