"""Coordination of several machines over Redis (storage.md §1, §4).

Nothing here must last, so nothing here is waited for: a question is asked once and has 50 ms, and
what got no answer is decided by this process alone, as is all for the second after it.  While the
breaker is open nobody asks.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, TypeVar

from redis import exceptions as fault

from proxy.model.batch import StoreUnavailable
from proxy.model.coord import NS, WINDOW_S, NodeBeat, Quota, quota_of, step_of
from proxy.model.exchange import Json
from proxy.model.ports import Clock
from proxy.runtime.ids import base62, fraction
from proxy.runtime.tasks import spawn
from proxy.storage.coord import LEASE_S, LocalCoord
from proxy.storage.redis.client import LISTENING_S, close_client
from proxy.storage.redis.keys import CHANGES, NODES, NODES_SAY, Keys
from proxy.storage.redis.server import HINT_S, Server, Tell, Work
from proxy.wire import jsonbody

ALONE_S: Final = 1.0  # after a question without an answer
LIVE_S: Final = 5.0  # how long a beat counts
NODES_MAX: Final = 1000
POLL_S: Final = 0.05  # for the end of a request on another machine
RELISTEN_S: Final = 1.0
DEAF_AFTER: Final = 5  # attempts to listen: a server that is away is known by then
LEFT_MAX: Final = 1000  # marks that could not be taken back
_WINDOW_NS: Final = WINDOW_S * NS
_AWAY: Final = (fault.RedisError, TimeoutError, OSError)

T = TypeVar("T")


class RedisCoord:
    """`process` names this one among all, and the one that takes its place after a crash: so what
    the one before had marked is its own.  `ears`: a client of its own that listens.

    `hint_s`, `lease_s`: how long a question and a mark may last.
    """

    def __init__(
        self,
        server: Server,
        ears: Any,
        clock: Clock,
        tell: Tell,
        *,
        process: str = "",
        hint_s: float = HINT_S,
        lease_s: float = LEASE_S,
    ) -> None:
        self._server = server
        self._ears = ears
        self._clock = clock
        self._tell = tell
        self._hint_s = hint_s
        self._lease_ms = int(lease_s * 1000)
        self._local = LocalCoord(clock, lease_s)
        self._process = process or base62(16)
        self._alone_until_s = 0.0
        self._alive: dict[str, NodeBeat] = {}
        self._left: set[tuple[str, bytes]] = set()
        self._bell = asyncio.Event()
        self._also: dict[str, Callable[[], None]] = {}
        self._unheard, self._deaf = 0, False
        self._listening: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<RedisCoord {len(self._alive)} nodes, {self._local!r}>"

    def also(self, channel: str, heard: Callable[[], None]) -> None:
        """Listen on another channel, too; to be said before the start."""
        self._also[channel] = heard

    async def start(self) -> None:
        """After the store, whose server this is."""
        self._listening = spawn(self._listen(), name="notices")

    async def close(self) -> None:
        """Before the store."""
        self._closed = True
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
        with contextlib.suppress(*_AWAY):
            await close_client(self._ears)
        with contextlib.suppress(StoreUnavailable):
            await self._server.hint(self._leave, self._hint_s)

    # --- rate limits

    async def take(self, workspace_id: str, rate_class: str, owner: str, limit: int) -> Quota:
        key = Keys(workspace_id).bucket(rate_class, owner)
        try:
            allowed, used = await self._run("gcra", key, step_of(limit, _WINDOW_NS), _WINDOW_NS)
        except StoreUnavailable:
            share = max(1, limit // max(1, len(self._alive)))
            return await self._local.take(workspace_id, rate_class, owner, share)
        self._local.buckets.at_least(rate_class, owner, int(used))  # should Redis go away
        return quota_of(limit, _WINDOW_NS, int(used), allowed=allowed == 1)

    # --- requests under way

    async def begin(self, workspace_id: str, key: bytes, fingerprint: bytes) -> bytes | None:
        running = await self._local.begin(workspace_id, key, fingerprint)
        if running is not None:
            return running
        mark = Keys(workspace_id).mark(key)
        try:
            held = await self._run("mark", mark, self._process, fingerprint, self._lease_ms)
        except StoreUnavailable:
            return None  # it is marked in this process at least
        except asyncio.CancelledError:
            await self._local.end(workspace_id, key)
            self._leave_behind(workspace_id, key)
            raise
        if held is None:
            return None
        await self._local.end(workspace_id, key)
        return bytes(held)

    async def ended(self, workspace_id: str, key: bytes, within_s: float) -> bool:
        if self._local.holds(workspace_id, key):
            return await self._local.ended(workspace_id, key, within_s)
        mark = Keys(workspace_id).mark(key)
        until_s = self._clock.monotonic() + within_s
        while self._clock.monotonic() < until_s:
            await self._clock.sleep(POLL_S)
            with contextlib.suppress(StoreUnavailable):
                if not await self._ask(lambda client: client.execute_command("EXISTS", mark)):
                    return True
        return False

    async def end(self, workspace_id: str, key: bytes) -> None:
        await self._local.end(workspace_id, key)
        self._leave_behind(workspace_id, key)
        await self._unmark(workspace_id, key)

    def _leave_behind(self, workspace_id: str, key: bytes) -> None:
        """To be unmarked, with a beat if not before; the mark has its time to live in any case."""
        if len(self._left) < LEFT_MAX:
            self._left.add((workspace_id, key))

    async def _unmark(self, workspace_id: str, key: bytes) -> None:
        with contextlib.suppress(StoreUnavailable):
            if not self._local.holds(workspace_id, key):
                await self._run("unmark", Keys(workspace_id).mark(key), self._process)
            self._left.discard((workspace_id, key))

    # --- notices

    async def notify(self) -> None:
        with contextlib.suppress(StoreUnavailable):  # the others look once a second, too
            await self._server.hint(
                lambda client: client.execute_command("PUBLISH", CHANGES, self._process),
                self._hint_s,
            )

    async def noticed(self) -> None:
        await self._bell.wait()
        self._bell.clear()

    async def _listen(self) -> None:
        """For ever; a connection that ends is made anew."""
        while not self._closed:
            try:
                await self._hear()
            except _AWAY as why:
                self._unheard += 1
                away = self._server.breaker.open  # of which is told already
                if self._unheard >= DEAF_AFTER and not self._deaf and not away:
                    self._deaf = True
                    self._tell("redis.deaf", {"detail": f"{type(why).__name__}: {why}"[:200]})
            await self._clock.sleep(RELISTEN_S * (0.8 + 0.4 * fraction()))

    async def _hear(self) -> None:
        async with self._subscribed() as heard:
            while not self._closed:
                said = await heard.get_message(timeout=LISTENING_S)
                if said is None:
                    continue
                if said["type"] == "subscribe":
                    self._hears()
                elif said["type"] == "message" and said["data"] != self._process.encode():
                    self._also.get(said["channel"].decode(), self._bell.set)()

    @contextlib.asynccontextmanager
    async def _subscribed(self) -> AsyncIterator[Any]:
        heard = self._ears.pubsub()
        try:
            await heard.subscribe(CHANGES, *self._also)
            yield heard
        finally:
            await heard.aclose()

    def _hears(self) -> None:
        """From now on; something may have been said before."""
        self._bell.set()
        self._unheard = 0
        if self._deaf:
            self._deaf = False
            self._tell("redis.hears", {"detail": "notices of changes arrive again"})

    # --- nodes

    async def beat(self, node: NodeBeat) -> None:
        if self._closed:
            return
        self._alive[self._process] = node
        says: dict[str, Json] = {"node_id": node.node_id, "file_sha256": node.file_sha256}
        with contextlib.suppress(StoreUnavailable):
            told = await self._server.hint(
                self._server.script(
                    "beat",
                    (NODES, NODES_SAY),
                    (self._process, jsonbody.dumps(says), int(LIVE_S * 1000), NODES_MAX),
                ),
                self._hint_s,
            )
            rows = zip(told[::3], told[1::3], told[2::3], strict=True)
            self._alive = {name.decode(): _beat_of(says, int(at)) for name, at, says in rows}
            for left in list(self._left):
                await self._unmark(*left)

    def nodes(self) -> Sequence[NodeBeat]:
        return sorted(self._alive.values(), key=lambda node: (node.node_id, node.file_sha256))

    async def _leave(self, client: Any) -> None:
        await client.execute_command("ZREM", NODES, self._process)
        await client.execute_command("HDEL", NODES_SAY, self._process)

    # --- asking

    async def _run(self, name: str, key: bytes, *arguments: Any) -> Any:
        """Raises StoreUnavailable."""
        return await self._ask(self._server.script(name, (key,), arguments))

    async def _ask(self, work: Work[T]) -> T:
        """Raises StoreUnavailable, at once for a second after it did."""
        if self._clock.monotonic() < self._alone_until_s:
            raise StoreUnavailable("storage-unavailable", "Redis did not answer in time")
        try:
            return await self._server.hint(work, self._hint_s)
        except StoreUnavailable:
            self._alone_until_s = self._clock.monotonic() + ALONE_S
            raise


def _beat_of(says: bytes, at_ms: int) -> NodeBeat:
    """What another version says may lack something."""
    try:
        said = jsonbody.loads(says)
    except jsonbody.JsonError:
        said = {}
    told = said if isinstance(said, dict) else {}
    return NodeBeat(str(told.get("node_id", "")), str(told.get("file_sha256", "")), at_ms)
