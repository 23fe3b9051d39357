"""Clients of the server, every limit said (storage.md §4).

The library's own defaults wait for seconds and try again ten times, so one call to a frozen server
would hold its caller for about a minute.  What the URL says after `?` cannot lift a limit.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import redis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry as PlainRetry

CONNECTIONS: Final = 16
TURN_S: Final = 0.1  # for a free connection
SOCKET_S: Final = 0.2
LISTENERS: Final = 2  # connections of a client that listens
LISTENING_S: Final = 1.0
BULK_S: Final = 10.0  # of a command that moves a workspace: nobody waits for it
HEALTH_S: Final = 15
SENTINEL_PORT: Final = 26379
_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")


def limits(socket_s: float = SOCKET_S, connect_s: float = SOCKET_S) -> dict[str, Any]:
    """What every connection of the server is made with."""
    return {
        "socket_timeout": socket_s,
        "socket_connect_timeout": connect_s,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "health_check_interval": HEALTH_S,
        "protocol": 2,
        "driver_info": None,  # one round trip less per connection
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def new_client(
    url: str,
    connections: int = CONNECTIONS,
    socket_s: float = SOCKET_S,
    connect_s: float = SOCKET_S,
) -> Any:
    """A `redis.asyncio.Redis`; it connects with its first command.  Raises ValueError."""
    kept = {**limits(socket_s, connect_s), "max_connections": connections}
    if url.startswith("redis+sentinel://"):
        client: Any = _behind_sentinels(url, kept)
    else:
        client = Redis.from_pool(BlockingConnectionPool(timeout=TURN_S, **_said(url), **kept))
    client.response_callbacks.clear()  # answers as the server gives them, whatever its version
    return client


def new_listening_client(url: str) -> Any:
    """The same for who waits for messages: a pool of its own, with more patience."""
    return new_client(url, LISTENERS, LISTENING_S)


async def close_client(client: Any) -> None:
    """Every connection, those to the sentinels too."""
    pool = client.connection_pool
    await client.aclose()
    await pool.disconnect()
    if isinstance(pool, SentinelConnectionPool):
        manager: Any = pool.sentinel_manager
        await manager.aclose()


def new_bulk_client(url: str) -> Any:
    """A `redis.Redis`: without an event loop, for the command line.  Raises ValueError."""
    options: dict[str, Any] = {
        "socket_timeout": BULK_S,
        "socket_connect_timeout": BULK_S,
        "retry": PlainRetry(NoBackoff(), 0),
        "retry_on_error": [],
        "protocol": 2,
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if url.startswith("redis+sentinel://"):
        hosts, service, said = _sentinels(url)
        sentinel: Any = redis.Sentinel  # published without types
        watchers = sentinel(hosts, sentinel_kwargs=options, **said, **options)
        client: Any = watchers.master_for(service)
    else:
        said = _said(url)
        secure = said.pop("connection_class", None) is not None
        client = redis.Redis(**said, **options, ssl=secure)
    client.response_callbacks.clear()
    return client


def _said(url: str) -> dict[str, Any]:
    """Host, port, database, credentials, TLS files."""
    found: Mapping[str, Any] = parse_url(url)
    known = ("host", "port", "db", "username", "password", "connection_class", *_TLS)
    odd = sorted(set(found) - set(known))
    if odd:
        raise ValueError(f"store: {', '.join(odd)} cannot be set in the URL")
    return dict(found)


def _behind_sentinels(url: str, kept: dict[str, Any]) -> Any:
    hosts, service, said = _sentinels(url)
    watching = {**limits(), "max_connections": CONNECTIONS}
    sentinel: Any = Sentinel  # published without types
    return sentinel(hosts, sentinel_kwargs=watching, **said).master_for(service, **said, **kept)


def _sentinels(url: str) -> tuple[list[tuple[str, int]], str, dict[str, Any]]:
    """`redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db]`"""
    parts = urlsplit(url)
    credentials, _, places = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not places:
        raise ValueError("store: redis+sentinel://host:port/service[/db] names a service")
    hosts = []
    for place in places.split(","):
        host, colon, port = place.rpartition(":") if not place.endswith("]") else (place, "", "")
        hosts.append((host.strip("[]"), int(port)) if colon else (place.strip("[]"), SENTINEL_PORT))
    said: dict[str, Any] = {"db": int(database or 0)}
    if credentials:
        user, _, password = credentials.partition(":")
        said |= {"username": unquote(user) or None, "password": unquote(password)}
    return hosts, service, said
