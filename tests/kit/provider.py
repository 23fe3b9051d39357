"""A provider on loopback that does what a test's script says: real HTTP/1.1, real SSE, real frames.

Raw `asyncio`, so that it can also do what no HTTP server would.  It speaks OpenAI (chat, legacy
completions, embeddings, models), Anthropic Messages (and count_tokens, models) and Bedrock
InvokeModel for Claude, under any path prefix.  The journal tells what arrived and how it ended.

    async with FakeProvider([status(500), ok("Hello.")]) as provider:
        ...
        assert [entry.end for entry in provider.journal] == ["served", "served"]
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from tests.kit.connection import Connection, Gone
from tests.kit.grammars import grammar_of
from tests.kit.openai_answers import Models
from tests.kit.player import Played, play
from tests.kit.replies import Casting, Script, ok, raw
from tests.kit.reply import Reply
from tests.kit.script import Request

End = Literal["open", "served", "cut", "client gone"]


@dataclass
class Entry:
    """One request in the journal.  Times are `time.monotonic()`."""

    request: Request
    model: str = ""
    end: End = "open"
    end_at: float | None = None
    sent_at: float | None = None  # the first byte of the answer
    sent_bytes: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def at(self) -> float:
        return self.request.at

    @property
    def json(self) -> dict[str, Any]:
        return self.request.json

    @property
    def headers(self) -> dict[str, str]:
        return self.request.headers

    def sent(self, count: int) -> None:
        if self.sent_at is None:
            self.sent_at = time.monotonic()
        self.sent_bytes += count

    def ends(self, how: End) -> None:
        if self.end == "open":
            self.end, self.end_at = how, time.monotonic()
            self.over.set()


class FakeProvider:
    """Plays `script`, which may be changed at any time, and keeps the journal.

    `idle_close_s`: connections that wait that long for their next request are closed.
    `strict`: what the real provider would refuse (a missing `max_tokens`, an extraneous key) gets
    its 400, whatever the script says.  `reads_body=False`: answers as soon as the head is in.
    """

    def __init__(
        self,
        script: Script | Mapping[str, Script] | None = None,
        *,
        idle_close_s: float | None = None,
        strict: bool = True,
        reads_body: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.script = ok() if script is None else script
        self.journal: list[Entry] = []
        self.accepted = 0
        self.port = 0
        self._idle_close_s = idle_close_s
        self._strict = strict
        self._reads_body = reads_body
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._live: dict[Connection, asyncio.Task[None]] = {}
        self._arrived = asyncio.Condition()
        self._faults: list[BaseException] = []

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.down()
        if self._faults and fault is None:
            raise self._faults[0]

    def __repr__(self) -> str:
        return f"<FakeProvider :{self.port} {len(self.journal)} asked, {len(self._live)} open>"

    @property
    def script(self) -> Script | Mapping[str, Script]:
        return self._script

    @script.setter
    def script(self, script: Script | Mapping[str, Script]) -> None:
        self._script, self._casting = script, Casting(script)

    def play(self, script: Script | Mapping[str, Script]) -> None:
        """Begins anew: another script, an empty journal."""
        self.script = script
        self.journal.clear()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._live)

    def of(self, model: str) -> list[Entry]:
        """The entries of one model."""
        return [entry for entry in self.journal if entry.model == model]

    async def up(self) -> None:
        """Listens, again on the same port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._accept), "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuses connections from now on, and drops those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._live.values())
        for entry in self.journal:
            entry.ends("cut")
        for connection in list(self._live):
            connection.abort()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close_idle(self) -> int:
        """Closes the connections that wait for a request, as a provider does after a while."""
        idle = [connection for connection in self._live if connection.idle]
        for connection in idle:
            connection.close()
        return len(idle)

    async def arrived(self, count: int = 1, within_s: float = 5.0) -> Entry:
        """Waits for the `count`-th request of the journal."""
        async with asyncio.timeout(within_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.journal) >= count)
        return self.journal[count - 1]

    async def settled(self, within_s: float = 5.0) -> list[Entry]:
        """Waits until no request is under way."""
        async with asyncio.timeout(within_s):
            for entry in self.journal:
                await entry.over.wait()
        return self.journal

    # --- one connection

    def _accept(self, connection: Connection) -> None:
        self.accepted += 1
        connection.number = self.accepted
        task = asyncio.get_running_loop().create_task(
            self._serve(connection), name=f"fake-provider-{self.accepted}"
        )
        self._live[connection] = task
        task.add_done_callback(lambda _: self._live.pop(connection))

    async def _serve(self, connection: Connection) -> None:
        try:
            with contextlib.suppress(Gone, TimeoutError):
                while await self._exchange(connection) == "kept":
                    pass
        except Exception as fault:  # noqa: BLE001 - `__aexit__` raises it, where the test sees it
            self._faults.append(fault)
        finally:
            connection.close()

    async def _exchange(self, connection: Connection) -> Played:
        async with asyncio.timeout(self._idle_close_s if connection.asked else None):
            head = await connection.read_head()
        request = Request(
            number=len(self.journal) + 1,
            connection=connection.number,
            at=head.at,
            method=head.method,
            target=head.target,
            raw_headers=head.headers,
            body=await connection.read_body(head) if self._reads_body else b"",
            reused=connection.asked > 1,
        )
        entry = Entry(request)
        connection.on_gone = lambda: entry.ends("client gone")
        self.journal.append(entry)
        async with self._arrived:
            self._arrived.notify_all()
        played = await self._play(connection, entry)
        entry.ends("cut" if played == "cut" else "served")
        return played if self._reads_body else "closed"

    async def _play(self, connection: Connection, entry: Entry) -> Played:
        request = entry.request
        grammar = grammar_of(request)
        if grammar is None:
            lost = raw(b"nothing is served here\n", "text/plain", 404)
            return await play(lost, connection, request, Models(), entry.sent)
        entry.model = grammar.model(request)
        refused = grammar.refuse(request) if self._strict and self._reads_body else None
        reply = self._casting.reply(entry.model, request) if refused is None else Reply(refused)
        return await play(reply, connection, request, grammar, entry.sent)
