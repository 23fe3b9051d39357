"""What a guarded request measures of its guard, for the metrics."""

from proxy.model.records import HELD_BOUNDS
from tests.gateway.test_pipeline import CHAT, OK, STREAM, streamed
from tests.kit.builders import SECRET_RULE, World, pack, world


class Ticking:
    """A clock that a millisecond passes on whenever it is asked."""

    def __init__(self, clock: object) -> None:
        self._clock = clock
        self._ticks = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._clock, name)

    def monotonic(self) -> float:
        self._ticks += 1
        return self._ticks / 1000


def guarded(*packs: object, **scripts: object) -> World:
    w = world(packs=list(packs), scripts=scripts)  # type: ignore[arg-type]
    w.gateway.clock = Ticking(w.gateway.clock)  # type: ignore[assignment]
    return w


async def test_a_stream_measures_itself_and_what_it_holds() -> None:
    w = guarded(pack(SECRET_RULE), openai=[streamed("hel", "lo KE", "Y1", "2")])
    await w.ask(STREAM)
    record = w.record
    assert record.guard_request_s > 0
    assert record.guard_lane_s > 0
    assert record.guard_unary_s == 0
    assert record.held_counts is not None
    assert len(record.held_counts) == len(HELD_BOUNDS) + 2
    assert sum(record.held_counts[:-1]) > 4
    assert record.held_counts[-1] > 0, "the start of a key was held"


async def test_a_whole_answer_is_timed() -> None:
    w = guarded(pack(SECRET_RULE), openai=[OK])
    await w.ask(CHAT)
    record = w.record
    assert record.guard_unary_s > 0
    assert (record.guard_lane_s, record.held_counts) == (0, None)


async def test_without_packs_nothing_is_measured() -> None:
    w = guarded(openai=[streamed("hello")])
    await w.ask(STREAM)
    record = w.record
    assert (record.guard_request_s, record.guard_lane_s, record.held_counts) == (0, 0, None)
