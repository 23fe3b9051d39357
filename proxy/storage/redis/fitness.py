"""Is it the server that we know, and would it keep what it acknowledges? (storage.md §4)"""

from proxy.storage.redis.server import Server, Tell


async def run_id_of(server: Server) -> str:
    """Another one after each start of the server.  Raises StoreUnavailable."""
    return (await _info(server, "server")).get("run_id", "")


async def trouble_of(server: Server, tell: Tell) -> str | None:
    """Why nothing may be stored there; None when all is well.  Raises StoreUnavailable."""
    policy = (await _info(server, "memory")).get("maxmemory_policy", "unknown")
    trouble = None
    if policy != "noeviction":
        trouble = (
            f"Redis has maxmemory-policy {policy}: it would drop what must be kept; "
            "set maxmemory-policy noeviction"
        )
        tell("redis.unfit", {"detail": trouble})
    if (await _info(server, "persistence")).get("aof_enabled") != "1":
        detail = "appendonly is off: a crash of Redis loses all since its last save"
        tell("redis.not_durable", {"detail": detail})
    return trouble


async def _info(server: Server, section: str) -> dict[str, str]:
    """What INFO says: `name:value` by line."""
    text = await server.call("INFO", section)
    lines = (line.partition(":") for line in text.decode().splitlines())
    return {name: value for name, colon, value in lines if colon}
