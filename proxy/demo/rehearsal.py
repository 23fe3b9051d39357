"""The self-test: plays the demo's scenes against the running demo and tells how each went."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

from proxy.demo.story import HEADERS, SCENES, Pen, Place, Scene
from proxy.runtime.clock import SystemClock
from proxy.wire import jsonbody

EVENTS_WITHIN_S = 10.0
_POLL_S = 0.1
_COUNTERS = "parapet_"
Line = Callable[[str], None]
Event = dict[str, Any]


@dataclass(slots=True)
class Played:
    """One answer, as far as it came."""

    scene: Scene
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    took_s: float = 0.0
    fault: str = ""

    @property
    def request_id(self) -> str:
        return self.headers.get("x-parapet-request-id", "")

    @property
    def text(self) -> str:
        """What the model said, streamed or not."""
        if not self.scene.stream:
            return "".join(block.get("text", "") for block in _object(self.body).get("content", []))
        said = ""
        for event in _sse(self.body):
            said += event.get("delta", {}).get("text", "")
        return said


class Rehearsal:
    """Plays, prints and counts what went wrong."""

    def __init__(self, place: Place, pen: Pen, line: Line) -> None:
        self._place = place
        self._pen = pen
        self._line = line
        self._clock = SystemClock()
        self._failed = 0

    async def run(self) -> int:
        """0 when everything was as it must be, else 1."""
        async with ClientSession(timeout=ClientTimeout(total=30)) as session:
            self._line("")
            played = [await self._scene(n, scene, session) for n, scene in enumerate(SCENES, 1)]
            await self._events(len(SCENES) + 1, played, session)
            await self._metrics(len(SCENES) + 2, session)
        verdict = self._pen("all as it must be", "green")
        if self._failed:
            verdict = self._pen(f"{self._failed} not as it must be", "red")
        self._line(f"  {verdict}\n")
        return int(self._failed > 0)

    async def _scene(self, number: int, scene: Scene, session: ClientSession) -> Played:
        self._title(number, scene.title)
        played = await self._play(scene, session)
        if played.fault:
            self._say(played.fault)
        else:
            told = ("endpoint", "attempts", "failover")
            named = [(name, played.headers.get(f"x-parapet-{name}")) for name in told]
            facts = [f"{name} {value}" for name, value in named if value]
            self._say(" · ".join([f"{played.status} in {played.took_s:.2f} s", *facts]))
            self._say(f"“{played.text}”")
        for true, what in _judge(played):
            self._check(true, what)
        self._line("")
        return played

    async def _play(self, scene: Scene, session: ClientSession) -> Played:
        played, began = Played(scene), self._clock.monotonic()
        url = f"http://{self._place.data}/v1/messages"
        try:
            async with session.post(url, data=scene.body, headers=HEADERS) as answer:
                played.status = answer.status
                played.headers = {name.lower(): value for name, value in answer.headers.items()}
                played.body = await answer.read()
        except (ClientError, TimeoutError) as fault:
            played.fault = f"{type(fault).__name__}: {fault}"
        played.took_s = self._clock.monotonic() - began
        return played

    async def _events(self, number: int, played: list[Played], session: ClientSession) -> None:
        self._title(number, "The events of all three")
        for each in played:
            wanted = each.scene.expected.event
            found = await self._await_events(each, session)
            for event in found:
                self._say(f"{each.scene.name:<8}{event['type']:<28}{_gist(event)}")
            requests = [e for e in found if e["type"].startswith("runtime.request.")]
            self._check(len(requests) == 1, f"{each.scene.name}: one request, one event")
            if wanted is not None:
                self._check(_holds(found, wanted), f"{each.scene.name}: {wanted[0]} {wanted[1]}")
        self._line("")

    async def _await_events(self, played: Played, session: ClientSession) -> list[Event]:
        """The events of one request, once those that are expected are there."""
        if not played.request_id:
            return []
        wanted = ("runtime.request.completed", "")
        until = self._clock.monotonic() + EVENTS_WITHIN_S
        while True:
            found = await self._read_events(played.request_id, session)
            more = played.scene.expected.event
            if _holds(found, wanted) and (more is None or _holds(found, more)):
                return found
            if self._clock.monotonic() > until:
                return found
            await asyncio.sleep(_POLL_S)

    async def _read_events(self, request_id: str, session: ClientSession) -> list[Event]:
        url = f"http://{self._place.control}/v1/workspaces/default/events"
        query = {"request_id": request_id}
        try:
            key = self._place.key_file.read_text().strip()
            bearer = {"authorization": f"Bearer {key}"}
            async with session.get(url, params=query, headers=bearer) as answer:
                data = _object(await answer.read()).get("data", [])
        except (ClientError, TimeoutError, OSError):
            return []
        return sorted(data, key=lambda event: int(event.get("seq", 0)))

    async def _metrics(self, number: int, session: ClientSession) -> None:
        self._title(number, "The counters")
        try:
            async with session.get(f"http://{self._place.control}/metrics") as answer:
                text = await answer.text()
        except (ClientError, TimeoutError) as fault:
            text = f"{type(fault).__name__}: {fault}"
        rows = [row for row in text.splitlines() if row.startswith(_COUNTERS)]
        self._check(bool(rows), f"{len(rows)} series of {_COUNTERS}…")
        self._line("")

    def _title(self, number: int, title: str) -> None:
        self._line(f"  {self._pen(str(number), 'dim')}  {self._pen(title, 'bold')}")

    def _say(self, text: str) -> None:
        self._line("     " + text)

    def _check(self, true: bool, what: str) -> None:
        self._failed += not true
        mark = self._pen("✓", "green") if true else self._pen("✗", "red")
        self._line(f"     {mark} {self._pen(what, 'dim')}")


def _judge(played: Played) -> Iterator[tuple[bool, str]]:
    """What must be true of the answer."""
    expected, text = played.scene.expected, played.text
    yield played.status == 200, "answered"
    yield text.endswith(expected.says), f"ends with “{expected.says}”"
    endpoint = played.headers.get("x-parapet-endpoint")
    yield endpoint == expected.endpoint, f"from {expected.endpoint}"
    if expected.hides != "\0":
        whole = played.body.decode(errors="replace")
        leaked = any(part in whole for part in (expected.hides, expected.hides[:8]))
        yield not leaked and "[" in text, "no piece of the key, a placeholder in its place"
    yield played.took_s <= expected.longest_s, f"within {expected.longest_s:g} s"


def _holds(events: list[Event], wanted: tuple[str, str]) -> bool:
    kind, word = wanted
    return any(event["type"] == kind and word in jsonbody.dumps(event).decode() for event in events)


def _gist(event: Event) -> str:
    """The members of the payload that tell the story."""
    payload = event.get("payload", {})
    match event["type"]:
        case "runtime.policy.result":
            rule = f"{payload.get('policy_id')}/{payload.get('rule_matched')}"
            return f"{rule} → {payload.get('action_taken')}"
        case "runtime.failover.decision":
            way = f"{payload.get('original_endpoint')} → {payload.get('selected_fallback')}"
            return f"{payload.get('trigger_condition')}: {way}"
        case _:
            tokens = payload.get("tokens") or {}
            spent = f"{tokens.get('input')} + {tokens.get('output')} tokens"
            return f"{payload.get('endpoint_id')}, {payload.get('latency_ms'):.0f} ms, {spent}"


def _object(body: bytes) -> dict[str, Any]:
    try:
        found: object = jsonbody.loads(body)
    except jsonbody.JsonError:
        return {}
    return found if isinstance(found, dict) else {}


def _sse(body: bytes) -> Iterator[dict[str, Any]]:
    for line in body.split(b"\n"):
        if line.startswith(b"data: "):
            yield _object(line.removeprefix(b"data: "))
