"""The way to the server: one question at a time per connection, never longer than half a second.

A question that is cut off is asked once more: every question here may be asked twice with one
effect (a commit by its id).  When that fails too, the caller gets StoreUnavailable; after three
failures in a row the breaker opens, nobody waits any more, and a probe a second finds out when the
server is back.  Each change is told in one line.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from importlib.resources import files
from typing import Any, Final, TypeVar

from redis import exceptions as fault

from proxy.model.batch import StoreUnavailable
from proxy.model.exchange import Json
from proxy.model.ports import Clock
from proxy.runtime.ids import fraction
from proxy.storage.redis.breaker import Breaker
from proxy.storage.redis.client import CONNECTIONS, TURN_S, close_client
from proxy.storage.redis.keys import PROBE

ANSWER_S: Final = 0.38  # for a question and its repetition; with the turn below half a second
HINT_S: Final = 0.05  # for a question whose answer may be lost
WITHIN_S: Final = 0.2  # for what nodes tell each other
AT_ONCE: Final = 200  # scripts in one round trip
PROBE_S: Final = 1.0
SCRIPTS: Final = (
    "commit", "trim", "forget", "ob_claim", "lease_take", "lease_renew", "lease_free",
    "gcra", "mark", "unmark", "beat", "standing", "holds",
)  # fmt: skip
PROBE_MS: Final = 60_000
_AWAY: Final = (fault.ConnectionError, fault.TimeoutError, TimeoutError, OSError)
_SILENT: Final = (fault.TimeoutError, TimeoutError)

T = TypeVar("T")
Tell = Callable[[str, dict[str, Json]], None]
Work = Callable[[Any], Awaitable[T]]  # of a `redis.asyncio.Redis`


class _Lost(Exception):
    """Nobody knows whether the server did it."""


class Server:
    """`write_trouble`: why the server takes no writes although it answers, None when it does."""

    def __init__(self, client: Any, clock: Clock, tell: Tell, answer_s: float = ANSWER_S) -> None:
        self._client = client
        self._answer_s = answer_s
        self._clock = clock
        self._tell = tell
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._scripts: dict[str, tuple[str, str]] = {}
        self.breaker = Breaker()
        self.write_trouble: str | None = None
        self.under_way = 0
        self._doubted = False  # a hint had no answer, and nothing else since

    def __repr__(self) -> str:
        return f"<Server {self.breaker!r}>"

    def load_scripts(self) -> None:
        """Blocks."""
        self._scripts = {name: _script(name) for name in SCRIPTS}

    async def ask(self, work: Work[T]) -> T:
        """Do `work`, which may be done twice.  Raises StoreUnavailable."""
        if self.breaker.open:
            raise _away()
        async with self._turn():
            spent_s = HINT_S if self._doubted else 0.0  # by whoever asks now, most likely
            until = asyncio.get_running_loop().time() + self._answer_s - spent_s
            try:
                return await self._try(work, until)
            except _Lost:
                if self.breaker.open:
                    raise _away() from None
            try:
                return await self._try(work, until)
            except _Lost:
                raise _away() from None

    async def call(self, *command: Any) -> Any:
        """One command and its plain answer.  Raises StoreUnavailable."""
        return await self.ask(lambda client: client.execute_command(*command))

    async def together(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Commands of one workspace at one moment.  Raises StoreUnavailable."""

        async def work(client: Any) -> list[Any]:
            async with client.pipeline(transaction=True) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                answers: list[Any] = await pipe.execute()
                return answers

        return await self.ask(work)

    async def run(self, name: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        """Run a script.  Raises StoreUnavailable."""
        return await self.ask(self.script(name, keys, arguments))

    def script(self, name: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Work[Any]:
        """The work of running it."""
        text, command = self.text(name), self.called(name, keys, arguments)

        async def work(client: Any) -> Any:
            try:
                return await client.execute_command(*command)
            except fault.NoScriptError:
                await client.execute_command("SCRIPT LOAD", text)
                return await client.execute_command(*command)

        return work

    def called(self, name: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> tuple[Any, ...]:
        """The command that runs it, where its `text` is known."""
        return ("EVALSHA", self._scripts[name][1], len(keys), *keys, *arguments)

    def text(self, name: str) -> str:
        return self._scripts[name][0]

    async def hint(self, work: Work[T], within_s: float) -> T:
        """Do `work` once, and soon: for what may be lost.  That it took too long says nothing
        about the server, which others allow more time.  Raises StoreUnavailable."""
        if self.breaker.open:
            raise _away()
        until = asyncio.get_running_loop().time() + within_s
        async with self._turn(within_s):
            try:
                return await self._try(work, until, patient=False)
            except _Lost:
                raise _away() from None

    async def hint_all(
        self, name: str, calls: Sequence[tuple[Sequence[bytes], Sequence[Any]]]
    ) -> list[Any]:
        """Run a script for each of `calls` (keys and arguments), many in one round trip: what nodes
        tell each other, see `hint`.  Raises StoreUnavailable."""
        commands = [self.called(name, keys, arguments) for keys, arguments in calls]
        answers: list[Any] = []
        for first in range(0, len(commands), AT_ONCE):
            some = commands[first : first + AT_ONCE]

            async def work(client: Any, some: Sequence[Any] = some) -> list[Any]:
                try:
                    return await _piped(client, some)
                except fault.NoScriptError:
                    await client.execute_command("SCRIPT LOAD", self.text(name))
                    return await _piped(client, some)

            answers += await self.hint(work, WITHIN_S)
        return answers

    async def probe(self) -> bool:
        """Write something small, the breaker or no breaker.  True: the server took it."""
        until = asyncio.get_running_loop().time() + self._answer_s
        trouble = None
        try:
            await self._try(
                lambda client: client.execute_command("SET", PROBE, "1", "PX", PROBE_MS), until
            )
        except _Lost:
            return False
        except StoreUnavailable as refused:
            trouble = refused.detail
        if trouble != self.write_trouble:
            self.write_trouble = trouble
            self._tell("redis.refuses_writes" if trouble else "redis.takes_writes",
                       {"detail": trouble or "again"})  # fmt: skip
        return trouble is None

    async def keep_probing(self, well: Callable[[], Awaitable[None]]) -> None:
        """For ever; `well` after each probe that the server took."""
        while True:
            await self._clock.sleep(PROBE_S * (0.8 + 0.4 * fraction()))
            if await self.probe():
                await well()

    async def close(self) -> None:
        with contextlib.suppress(*_AWAY):
            await close_client(self._client)

    @contextlib.asynccontextmanager
    async def _turn(self, within_s: float = TURN_S) -> AsyncIterator[None]:
        """A connection of ours is free, soon or not at all: that says nothing about the server."""
        try:
            async with asyncio.timeout(within_s):
                await self._turns.acquire()
        except TimeoutError:
            raise StoreUnavailable("overloaded", "too many questions to Redis") from None
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1
            self._turns.release()

    async def _try(self, work: Work[T], until: float, *, patient: bool = True) -> T:
        began = self._clock.monotonic()
        try:
            with _no_cancellation_lost():
                async with asyncio.timeout_at(until):
                    answer = await work(self._client)
        except fault.DataError as why:
            raise ValueError(f"this cannot be stored: {why}") from why
        except (fault.RedisError, TimeoutError, OSError) as why:
            if not _no_answer(why):
                self._closed()
                refused = f"Redis refused: {why}"[:200]
                raise StoreUnavailable("storage-unavailable", refused) from why
            now, silent = self._clock.monotonic(), isinstance(why, _SILENT)
            counts = patient or not silent
            self._doubted = self._doubted or not counts
            if counts and self.breaker.failed(now, now - began if silent else 0.0):
                self._tell("redis.away", {"detail": f"{type(why).__name__}: {why}"[:200]})
            raise _Lost from why
        self._closed()
        return answer

    def _closed(self) -> None:
        self._doubted = False
        since = self.breaker.open_since_s
        if self.breaker.succeeded() and since is not None:
            away_s = round(self._clock.monotonic() - since, 1)
            self._tell("redis.back", {"away_seconds": away_s})


@contextlib.contextmanager
def _no_cancellation_lost() -> Iterator[None]:
    """The library sends by `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that
    comes when the sending is done; here it is found again."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


async def _piped(client: Any, commands: Sequence[Any]) -> list[Any]:
    async with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        answers: list[Any] = await pipe.execute()
        return answers


def _no_answer(why: Exception) -> bool:
    """Nothing was said of the question.  A server that wants a password hangs up on a long question
    with a `Protocol error`; that is none of ours."""
    return isinstance(why, _AWAY) or str(why).startswith("Protocol error")


def _away() -> StoreUnavailable:
    return StoreUnavailable("storage-unavailable", "Redis does not answer")


def _script(name: str) -> tuple[str, str]:
    text = files("proxy.storage.redis").joinpath("lua", f"{name}.lua").read_text("utf-8")
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
