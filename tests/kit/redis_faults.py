"""What can become of a Redis under way, as a table: how it is broken, and how it is mended.

Each fault is a real one of a real server; the answers that clients get are the server's own.
"""

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.kit.processes import free_ports
from tests.kit.redis import RedisServer

Fault = Callable[[RedisServer], AbstractContextManager[None]]


@contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


@contextmanager
def killed(server: RedisServer) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def loading(server: RedisServer) -> Iterator[None]:
    """It starts anew and reads its file, for longer than the block takes.  It looks at its clients
    after every 1024 commands that it has read."""
    ballast = "for n = 1, 1000 do redis.call('SET', 'ballast:' .. ARGV[1] .. ':' .. n, 'x') end"
    for number in range(40):
        server.command("EVAL", ballast, "0", str(number))
    server.kill()
    server.start(("--key-load-delay", "150"), until=(b"-LOADING",))
    try:
        yield
    finally:
        server.kill()
        server.start()


@contextmanager
def read_only(server: RedisServer) -> Iterator[None]:
    """A replica now, of a primary that is not there."""
    (nobody,) = free_ports(1)
    server.command("REPLICAOF", "127.0.0.1", str(nobody))
    try:
        yield
    finally:
        server.command("REPLICAOF", "NO", "ONE")


@contextmanager
def full(server: RedisServer) -> Iterator[None]:
    server.command("CONFIG", "SET", "maxmemory", "1")
    try:
        yield
    finally:
        server.command("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def locked(server: RedisServer) -> Iterator[None]:
    """It wants a password that nobody told us, also from those who are there."""
    with _line(server) as say:
        say("CONFIG SET requirepass secret")
        say("AUTH secret")
        say("CLIENT KILL TYPE normal SKIPME yes")
        try:
            yield
        finally:
            say('CONFIG SET requirepass ""')


@contextmanager
def crowded(server: RedisServer) -> Iterator[None]:
    """It takes no more clients."""
    with _line(server) as say:
        say("CONFIG SET maxclients 1")
        say("CLIENT KILL TYPE normal SKIPME yes")
        try:
            yield
        finally:
            say("CONFIG SET maxclients 1000")


@contextmanager
def forgetful(server: RedisServer) -> Iterator[None]:
    """It has no script any more; nobody should notice."""
    server.command("SCRIPT", "FLUSH")
    yield


FAULTS: dict[str, Fault] = {
    "SIGSTOP": frozen,
    "kill": killed,
    "LOADING": loading,
    "READONLY": read_only,
    "OOM": full,
    "NOAUTH": locked,
    "MAXCLIENTS": crowded,
}


@contextmanager
def _line(server: RedisServer) -> Iterator[Callable[[str], None]]:
    """A connection that stays; every answer must be +OK or a number."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port), 2)) as wire:
        wire.settimeout(5)

        def say(command: str) -> None:
            wire.sendall(command.encode() + b"\r\n")
            answer = wire.recv(1024)
            assert answer[:1] in b"+:", answer
            time.sleep(0.01)

        yield say
