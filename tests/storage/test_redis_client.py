"""No client of Redis is built without its limits: the library's own would wait for a minute."""

import ast
from pathlib import Path
from typing import Any

import pytest

from proxy.storage.redis.client import (
    BULK_S,
    SOCKET_S,
    new_bulk_client,
    new_client,
    new_listening_client,
)

ROOT = Path(__file__).parents[2] / "proxy"
URLS = [
    "redis://h",
    "redis://user:pass@h:6380/3",
    "rediss://h/1?ssl_ca_certs=/ca.pem",
    "redis+sentinel://user:pass@a:26380,b/main/2",
]
BUILDERS = {"Redis", "from_url", "from_pool", "StrictRedis", "ConnectionPool", "Sentinel",
            "BlockingConnectionPool", "RedisCluster"}  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_every_limit_is_said(url: str) -> None:
    pool = new_client(url).connection_pool
    kept: dict[str, Any] = pool.connection_kwargs
    assert (kept["socket_timeout"], kept["socket_connect_timeout"]) == (SOCKET_S, SOCKET_S)
    assert kept["retry"].get_retries() == 0
    assert kept["retry_on_error"] == []
    assert kept["health_check_interval"] == 15
    assert pool.max_connections == 16
    if "sentinel" in url:
        for watcher in pool.sentinel_manager.sentinels:
            of_watcher = watcher.connection_pool.connection_kwargs
            assert of_watcher["socket_timeout"] == SOCKET_S
            assert of_watcher["retry"].get_retries() == 0
            assert of_watcher.get("password") is None  # that is the server's
    else:
        assert pool.timeout == 0.1


@pytest.mark.parametrize("url", URLS)
def test_the_client_of_the_command_line_has_limits_too(url: str) -> None:
    kept = new_bulk_client(url).connection_pool.connection_kwargs
    assert (kept["socket_timeout"], kept["socket_connect_timeout"]) == (BULK_S, BULK_S)
    assert kept["retry"].get_retries() == 0


@pytest.mark.parametrize("url", URLS)
def test_who_listens_has_a_pool_of_his_own_and_limits_too(url: str) -> None:
    pool = new_listening_client(url).connection_pool
    kept: dict[str, Any] = pool.connection_kwargs
    assert (kept["socket_timeout"], kept["socket_connect_timeout"]) == (1.0, SOCKET_S)
    assert (kept["retry"].get_retries(), kept["retry_on_error"]) == (0, [])
    assert pool.max_connections == 2


def test_where_a_url_leads() -> None:
    kept = new_client("redis://us%40er:p%2Fw@h:6380/3").connection_pool.connection_kwargs
    assert [kept[name] for name in ("host", "port", "db", "username", "password")] == [
        "h", 6380, 3, "us@er", "p/w",
    ]  # fmt: skip
    pool = new_client("redis+sentinel://a:26380,b/main/2").connection_pool
    places = [w.connection_pool.connection_kwargs for w in pool.sentinel_manager.sentinels]
    assert [(p["host"], p["port"]) for p in places] == [("a", 26380), ("b", 26379)]
    assert (pool.service_name, pool.connection_kwargs["db"]) == ("main", 2)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h?socket_timeout=600",
        "redis://h?max_connections=9999",
        "redis+sentinel://h:26379",
        "redis+sentinel://h:x/main",
    ],
)
def test_what_a_url_may_not_say(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        new_client(url)


def test_clients_are_built_in_one_file() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "storage" / "redis").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and (getattr(node.func, "attr", "") or getattr(node.func, "id", "")) in BUILDERS
    }
    assert found == {"storage/redis/client.py"}


def test_keys_are_made_in_one_file() -> None:
    """`parapet:` stands nowhere else: not in a script, not in an f-string."""
    found = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.py", "*.lua")
        for path in (ROOT / "storage").rglob(pattern)
        if "parapet:" in path.read_text()
    }
    assert found == {"storage/redis/keys.py"}
