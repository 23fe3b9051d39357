"""What holds for every test: no blocking call on the loop, no outside network."""

import ipaddress
import sys
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from tests.kit.redis import RedisServer


@pytest.fixture(autouse=True, scope="session")
def never_block_the_loop() -> Iterator[BlockBuster]:
    with blockbuster_ctx("proxy") as guard:
        guard.functions["os.write"].can_block_in("proxy/spool/writer.py", {"append"})
        guard.functions["threading.Lock.acquire"].can_block_in(
            "coverage/collector.py", {"lock_data"}
        )
        yield guard


@pytest.fixture(scope="session")
def _redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests of a process."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(_redis_server: RedisServer) -> RedisServer:
    """A real Redis, empty.  A test that asks for it has the mark `redis`."""
    _redis_server.command("FLUSHALL")
    return _redis_server


def _only_loopback(event: str, args: tuple[object, ...]) -> None:
    if event != "socket.connect":
        return
    address = args[1]
    if isinstance(address, tuple) and not ipaddress.ip_address(address[0]).is_loopback:
        raise OSError(f"a test reached for {address[0]}")


sys.addaudithook(_only_loopback)
