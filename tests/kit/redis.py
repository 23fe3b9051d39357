"""A real `redis-server` of a test's own, and a way to it that can be cut.

    with RedisServer(tmp_path) as server:
        async with Cutter(server.port) as cutter:
            ...                       # store at cutter.url
            cutter.cut_next()         # the next script is sent, its answer never arrives

The server listens on a loopback port, writes an append-only file, and dies with the test.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

from proxy.model.exchange import Json
from tests.kit.processes import free_ports

STARTED_WITHIN_S = 10.0


PATIENT = 10.0  # for stores whose half second is not what a test is about


def silent(event: str, fields: dict[str, Json]) -> None:
    """A log that nobody reads."""


class RedisServer:
    """`start` and `kill` may alternate: the data are kept in `home`."""

    def __init__(self, home: Path, *, options: tuple[str, ...] = ()) -> None:
        self._home = home
        self._copy = home.with_name(f"{home.name}.copy")
        self._options = ("--appendonly", "yes", *options)
        self._process: subprocess.Popen[bytes] | None = None
        (self.port,) = free_ports(1)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(
        self, more: tuple[str, ...] = (), until: tuple[bytes, ...] = (b"+PONG", b"-NOAUTH")
    ) -> None:
        """With `more` options; it is there when it answers a PING like that."""
        self._home.mkdir(parents=True, exist_ok=True)
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(self._home), "--loglevel", "warning", *self._options, *more]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        limit = time.monotonic() + STARTED_WITHIN_S
        while time.monotonic() < limit:
            with contextlib.suppress(OSError):
                if self.command("PING").startswith(until):
                    return
            time.sleep(0.01)
        raise AssertionError("redis-server did not start")

    def kill(self) -> None:
        if self._process is not None:
            self.signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def remember(self) -> None:
        """What is on its disk now."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._home, self._copy)

    def lose(self) -> None:
        """It crashes and has lost all that came after `remember`."""
        self.kill()
        shutil.rmtree(self._home)
        shutil.copytree(self._copy, self._home)
        self.start()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def freeze(self) -> None:
        """Stop it, and wait until it has stopped; SIGCONT lets it go on."""
        self.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def command(self, *words: str) -> bytes:
        """Up to 64 KiB of the plain answer."""
        said = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), 2) as connection:
            connection.settimeout(5)
            connection.sendall(f"*{len(words)}\r\n{said}".encode())
            return connection.recv(65_536)


class Cutter:
    """Forwards to a server, and on demand closes a connection instead of giving an answer back.

    `cuts` counts what was cut after the server had answered, so after it had done the work.
    `delay_s`: how much later than said every answer arrives.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._armed = False
        self._open: set[asyncio.StreamWriter] = set()
        self.cuts = 0
        self.delay_s = 0.0
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut_next(self) -> None:
        """The next script is done; whoever sent it hears nothing."""
        self._armed = True

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for writer in list(self._open):
            writer.close()
        await self._listener.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._open |= {writer, onward}
        to_cut = asyncio.Event()

        async def forth() -> None:
            while data := await reader.read(1 << 16):
                if self._armed and b"EVALSHA" in data:
                    self._armed = False
                    to_cut.set()
                onward.write(data)

        async def back() -> None:
            while data := await there.read(1 << 16):
                if to_cut.is_set():
                    self.cuts += 1
                    return
                await asyncio.sleep(self.delay_s)
                writer.write(data)

        async with self._closing(writer, onward):
            ways = [asyncio.ensure_future(way()) for way in (forth, back)]  # noqa: TID251
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _closing(self, *writers: asyncio.StreamWriter) -> AsyncIterator[None]:
        try:
            yield
        finally:
            for writer in writers:
                self._open.discard(writer)
                writer.close()
