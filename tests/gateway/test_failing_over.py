"""Requests under a failover policy: who is asked, how often and when (failover.md §8)."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from proxy.model.exchange import RawHeaders
from proxy.model.failover import FailoverPolicy
from proxy.model.ports import Call, TransportFault
from proxy.routing.effects import Recovered, Switched
from proxy.routing.states import Reason, State
from proxy.runtime.tasks import spawn
from tests.kit.builders import JSON, OPENAI, SPARE, World, policy, world
from tests.kit.fakes import RecordingDownstream, ScriptedUpstream, Step

BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}]}'
OK: list[Step] = [(200, JSON), b'{"choices":[],"model":"m"}', None]
BAD: list[Step] = [(500, JSON), b'{"error":{"message":"oh"}}', None]
RESET: list[Step] = [TransportFault("reset")]
REFUSED: list[Step] = [TransportFault("connect")]


def limited(*hint: str) -> list[Step]:
    headers: RawHeaders = [*JSON, *((b"retry-after", each.encode()) for each in hint)]
    return [(429, headers), b'{"error":{"message":"slow down"}}', None]


def between(
    primary: Sequence[Sequence[Step]], spare: Sequence[Sequence[Step]] = (), **more: object
) -> World:
    said: FailoverPolicy = policy("openai", "spare", **{"same_endpoint_retries": 1, **more})
    return world([OPENAI, SPARE], scripts={"openai": primary, "spare": spare}, failover=said)


async def asked(w: World, body: bytes = BODY) -> tuple[RecordingDownstream, float]:
    """One request, and how long it took on a clock that goes on by itself."""
    began = w.clock.monotonic()
    task = spawn(w.ask(body), name="caller")
    while not task.done():
        for _ in range(20):
            await asyncio.sleep(0)
        if not task.done():
            w.clock.advance(0.01)
            w.gateway.flights.sweep()
    return await task, w.clock.monotonic() - began


def sent(w: World) -> tuple[int, int]:
    return len(w.upstreams["openai"].sent), len(w.upstreams["spare"].sent)


# fmt: off
ROWS = [
    # primary                        spare  status  attempts  seconds at least, at most
    ("S01", [limited("2"), OK],      [],    200,    (2, 0),   2.0, 2.4),
    ("S02", [limited()],             [OK],  200,    (1, 1),   0.0, 0.1),
    ("long hint", [limited("30")],   [OK],  200,    (1, 1),   0.0, 0.1),
    ("S03", [BAD, OK],               [],    200,    (2, 0),   0.05, 0.2),
    ("S04", [BAD, BAD],              [OK],  200,    (2, 1),   0.05, 0.3),
    ("S05", [RESET, OK],             [],    200,    (2, 0),   0.05, 0.2),
    ("both", [BAD, BAD],             [BAD],       502, (2, 1), 0.05, 0.3),
]
# fmt: on


@pytest.mark.parametrize(
    ("name", "primary", "spare", "status", "attempts", "least_s", "most_s"),
    ROWS,
    ids=[row[0] for row in ROWS],
)
async def test_attempts(
    name: str,
    primary: list[list[Step]],
    spare: list[list[Step]],
    status: int,
    attempts: tuple[int, int],
    least_s: float,
    most_s: float,
) -> None:
    w = between(primary, spare)
    caller, took_s = await asked(w)
    assert (caller.status, sent(w)) == (status, attempts)
    assert least_s <= took_s <= most_s
    assert caller.header("x-parapet-attempts") == str(sum(attempts))


async def test_r14_three_refusals_and_nobody_asks_it_again() -> None:
    w = between([REFUSED] * 9, [OK] * 20)
    for _ in range(10):
        caller, _ = await asked(w)
        assert caller.status == 200
    assert sent(w) == (3, 10)
    told = [effect for effect in w.notes.effects if isinstance(effect, Switched)]
    assert [(each.before, each.after, each.reason.code) for each in told] == [
        ("openai", "spare", "hard_failure")
    ]


async def test_what_opens_while_a_request_waits_is_not_asked_once_more() -> None:
    w = between([REFUSED] * 9, [OK] * 9)
    answers = await asyncio.gather(*(asked(w) for _ in range(3)))
    assert {caller.status for caller, _ in answers} == {200}
    assert sent(w) == (3, 3)


CUT: list[Step] = [(200, JSON), b'{"choices', TransportFault("reset", response_bytes=9)]


@pytest.mark.parametrize(
    ("first", "waits_s"),
    [(limited("2"), 2.0), (CUT, 0.0)],
    ids=["limited", "cut short"],
)
async def test_who_must_go_to_an_open_endpoint_is_asked_once_more_there(
    first: list[Step], waits_s: float
) -> None:
    w = between([first, OK], [OK])
    standing = w.gateway.rules().workspaces["default"].routes["chat"].standing
    assert standing is not None
    standing.breakers["openai"].open(w.clock.monotonic(), Reason("error_rate"))
    caller, took_s = await asked(w, BODY[:-1] + b',"previous_response_id":"r"}')
    assert (caller.status, sent(w)) == (200, (2, 0))
    assert waits_s <= took_s <= waits_s + 0.5


async def test_what_is_bound_to_a_primary_that_is_not_there_goes_to_nobody() -> None:
    w = world([OPENAI, SPARE], scripts={"openai": [OK]}, failover=policy("gone", "openai", "spare"))
    caller, _ = await asked(w, BODY[:-1] + b',"previous_response_id":"r"}')
    assert (caller.status, sent(w)) == (503, (0, 0))
    caller, _ = await asked(w)
    assert (caller.status, sent(w)) == (200, (1, 0))


async def test_the_primary_is_back_by_probes_and_a_ramp() -> None:
    w = between([REFUSED] * 3 + [OK] * 300, [OK] * 300)
    for _ in range(90):
        caller, _ = await asked(w)
        assert caller.status == 200
        for _ in range(5):
            w.clock.advance(0.1)
            w.gateway.flights.sweep()
    standing = w.gateway.rules().workspaces["default"].routes["chat"].standing
    assert standing is not None
    assert standing.breakers["openai"].state is State.CLOSED
    assert any(isinstance(effect, Recovered) for effect in w.notes.effects)
    assert standing.budget.in_flight == standing.budget.charged == 0


async def test_r24_when_nothing_is_left_the_caller_is_told_at_once_and_until_when() -> None:
    w = between([REFUSED] * 3, [REFUSED] * 3, same_endpoint_retries=0)
    for _ in range(3):
        assert (await asked(w))[0].status == 502
    caller, took_s = await asked(w)
    assert (caller.status, took_s) == (503, 0)
    assert sent(w) == (3, 3)
    wait = caller.header("retry-after")
    assert wait is not None
    assert 1 <= int(wait) <= 6


class Breaks(ScriptedUpstream):
    """At the second attempt, by a fault of our own."""

    def start(self, *args: Any, **said: Any) -> Call:
        if self.sent:
            raise RuntimeError("our own fault")
        return super().start(*args, **said)


async def test_our_own_fault_in_a_retry_gives_back_what_it_took_of_the_budget() -> None:
    w = between([BAD])
    w.upstreams["openai"].__class__ = Breaks
    with pytest.raises(RuntimeError):
        await asked(w)
    standing = w.gateway.rules().workspaces["default"].routes["chat"].standing
    assert standing is not None
    assert (standing.budget.in_flight, standing.budget.charged) == (0, 0)
