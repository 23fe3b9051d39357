"""What a failover policy costs a request whose primary is well, and what it costs when idle.

    .venv/bin/python -m benchmarks.micro.failover

Requests go round all routes, by turns through routes with a policy and through the same routes
without one; the upstream answers at once, so what is left is our own work: choosing, the attempt,
the answer's judgement and its sample.  Bars (failover.md §11): 5 µs a request, 1 µs a sample, flat
from 10 to 10,000 routes, in the compiled build.
"""

import argparse
import asyncio
import gc
from collections.abc import Sequence
from random import random
from statistics import median
from time import perf_counter_ns as now_ns

from benchmarks.micro.pipeline import Everywhere, gateway_over, untold
from proxy.gateway.admission import admit
from proxy.gateway.flights import Flights
from proxy.gateway.reach import reach
from proxy.gateway.read import read
from proxy.gateway.snapshot import build_guards, build_rules
from proxy.gateway.tell import open_record
from proxy.gateway.turn import Gateway
from proxy.model.exchange import Inbound
from proxy.model.failover import Conditions, FailoverPolicy, Outcome
from proxy.model.tenancy import Endpoint, Route, SnapshotDoc, WorkspaceRules
from proxy.routing.standing import Standing
from proxy.wire.headers import walk
from tests.kit.fakes import RecordingDownstream

SIZES = (10, 1_000, 10_000)
BODY = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello"}]}'
SAMPLES = 50_000


def policy(route_id: str) -> FailoverPolicy:
    return FailoverPolicy(
        route_id=route_id,
        primary_endpoint="first",
        fallback_endpoints=["second"],
        conditions=Conditions(latency_threshold_ms=2000, error_rate_threshold=0.1),
    )


def gateway_with(routes: int, *, policies: bool) -> Gateway:
    names = [f"route-{number}" for number in range(routes)]
    document = SnapshotDoc(
        version=1,
        sha256="",
        workspaces=[
            WorkspaceRules(
                id="default",
                endpoints=[
                    Endpoint(id=name, provider="openai", base_url="http://127.0.0.1:1/v1",
                             api_key="k", allow_private=True)
                    for name in ("first", "second")
                ],
                routes=[Route(id=name, endpoint="first") for name in names],
                failover_policies=[policy(name) for name in names] if policies else [],
            )
        ],
    )  # fmt: skip
    rules = build_rules(
        document, build_guards(document), Everywhere(), lambda s: s if isinstance(s, str) else None
    )
    return gateway_over(rules)


async def one(gateway: Gateway, route: int) -> int:
    """Nanoseconds of `reach`, and of the landing."""
    caller = RecordingDownstream(request_body=BODY)
    started, rules = gateway.clock.monotonic(), gateway.rules()
    headers, marks = walk([(b"content-type", b"application/json")])
    target = f"/r/route-{route}/v1/chat/completions"
    inbound = Inbound(gateway.ids.new("req-"), "POST", target, headers, peer="::1", marks=marks)
    record = open_record(inbound, gateway)
    visit = admit(rules, inbound, record.received_at_ms)
    inbound.body = BODY
    turn = await read(visit, inbound, record, caller, gateway, started)
    began = now_ns()
    answer = await reach(turn, rules, gateway)
    turn.land(gateway.clock.monotonic())
    took = now_ns() - began
    assert answer is not None
    return took


async def per_request(routes: int, requests: int) -> tuple[float, float]:
    """(µs without a policy, with one): medians, both taken by turns."""
    plain, watched = (gateway_with(routes, policies=each) for each in (False, True))
    for view in watched.rules().workspaces["default"].routes.values():
        assert view.standing is not None
        view.standing.breakers["first"].good(watched.clock.monotonic(), True)
    spent: dict[bool, list[int]] = {False: [], True: []}
    for number in range(requests):
        for own, gateway in ((False, plain), (True, watched)):
            spent[own].append(await one(gateway, number * 7 % routes))
    return median(spent[False]) / 1000, median(spent[True]) / 1000


def per_sample() -> float:
    standing = Standing(policy("chat"), lambda: 0.5)
    now, best = 1000.0, float("inf")
    for _ in range(5):
        began = now_ns()
        for _ in range(SAMPLES):
            now += 0.001
            standing.observe("first", now, Outcome.SUCCESS, began=now, quick=True)
        best = min(best, (now_ns() - began) / SAMPLES / 1000)
    return best


def sweeps(routes: int) -> tuple[float, float]:
    """(the longest sweep with traffic on every route, when all have been idle), in ms."""
    rules, found, clock = gateway_with(routes, policies=True).rules(), [], Hand()
    flights = Flights(clock, random, untold)
    flights.keep(rules)
    for busy in (True, False):
        longest = 0
        for _ in range(30 if busy else 20):
            if busy:
                for view in rules.workspaces["default"].routes.values():
                    assert view.standing is not None
                    flights.asked(view.standing, clock.now)
            clock.now += 0.1 if busy else 60.0
            began = now_ns()
            flights.sweep()
            longest = max(longest, now_ns() - began)
        found.append(longest / 1e6)
        for _ in range(200):
            clock.now += 0.1 if busy else 60.0
            flights.sweep()
        clock.now += 3600
        for _ in range(20):
            clock.now += 1
            flights.sweep()
    return found[0], found[1]


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--requests", type=int, default=6000, help="a size (default: 6000)")
    said = parser.parse_args(arguments)
    gc.set_threshold(50_000, 20, 50)
    print(f"{'routes':>8}{'without':>12}{'policy':>12}{'costs':>12}{'busy sweep':>14}{'idle':>10}")
    for routes in SIZES:
        gc.collect()
        gc.freeze()
        without, watched = asyncio.run(per_request(routes, said.requests))
        busy_ms, idle_ms = sweeps(routes)
        print(
            f"{routes:8}{without:9.2f} µs{watched:9.2f} µs{watched - without:9.2f} µs"
            f"{busy_ms:11.2f} ms{idle_ms:7.2f} ms"
        )
    print(f"{per_sample():.2f} µs a sample")


if __name__ == "__main__":
    main()
