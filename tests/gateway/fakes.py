"""A handler that does what the path says, and a transport in memory, for tests of the front."""

import asyncio
from collections.abc import Callable
from typing import Any

from proxy.gateway.downstream import HttpDownstream
from proxy.gateway.front import FrontProtocol
from proxy.gateway.listener import FrontServer
from proxy.model.errors import ProxyError
from proxy.model.exchange import Inbound


class Kitchen:
    """Serves by path:

    `/echo` the body back · `/wait` reads the body, then waits for `go` · `/stream` begins an
    answer, then waits · `/unread` refuses without reading the body · `/late` waits, then reads.
    """

    def __init__(self, limit_bytes: int = 1 << 20) -> None:
        self.limit_bytes = limit_bytes
        self.seen: list[Inbound] = []
        self.cancelled: list[str] = []
        self.left: list[bool] = []
        self.go = asyncio.Event()
        self.called = asyncio.Event()
        self.over = asyncio.Event()

    @property
    def targets(self) -> list[str]:
        return [inbound.target for inbound in self.seen]

    async def handle(self, inbound: Inbound, caller: HttpDownstream) -> None:
        self.seen.append(inbound)
        self.called.set()
        try:
            await self._serve(inbound, caller)
        except ProxyError as fault:
            answer(caller, 413 if fault.kind == "too_large" else 400, str(fault).encode())
        except asyncio.CancelledError:
            self.cancelled.append(inbound.target)
            self.left.append(caller.gone)
            raise
        finally:
            caller.end()
            caller.over()
            self.over.set()

    async def _serve(self, inbound: Inbound, caller: HttpDownstream) -> None:
        match inbound.target.split("?")[0]:
            case "/unread":
                answer(caller, 401, b"no")
                return
            case "/late":
                await self.go.wait()
        inbound.body = await caller.body(self.limit_bytes)
        match inbound.target.split("?")[0]:
            case "/wait":
                await self.go.wait()
            case "/stream":
                caller.begin(200, b"", length=None)
                caller.write(b"first")
                await self.go.wait()
                caller.write(b"second")
                return
        answer(caller, 200, inbound.body or inbound.target.encode())


def answer(caller: HttpDownstream, status: int, body: bytes) -> None:
    caller.begin(status, b"content-type: text/plain\r\n", length=len(body))
    caller.hold(body)
    caller.end()


class Pipe(asyncio.Transport):
    """What was written, whether reading is paused, how it ended."""

    def __init__(self, protocol: FrontProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self.paused = False
        self.eof = False
        self.ended = False
        self.unsent_bytes = 0
        protocol.connection_made(self)

    @property
    def closed(self) -> bool:
        """Nothing more will be said."""
        return self.eof or self.ended

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return None

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "written after the end"
        self.written += data

    def write_eof(self) -> None:
        self.eof = True

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    async def push(self, *pieces: bytes) -> bytes:
        """The pieces come one by one; what was written by the time that everything is quiet."""
        for piece in pieces:
            if not self.ended:
                self.protocol.data_received(piece)
            await quiet(2)
        await quiet()
        return bytes(self.written)


async def quiet(turns: int = 8) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def piped(handle: Callable[..., Any]) -> tuple[Pipe, FrontServer]:
    server = FrontServer(handle, asyncio.get_running_loop())
    return Pipe(server()), server
