"""What a request costs inside the pipeline, stage by stage, without sockets.

    .venv/bin/python -m benchmarks.micro.pipeline [--pack] [--policy] [--limits]

The upstream answers at once and the caller is memory, so what is left is our own work: look, match,
admit, read, ask, reach, relay, tell.  For comparing two versions of the code on one machine; the
figure of record is `python -m benchmarks`.
"""

import argparse
import asyncio
import gc
import hashlib
import json
from random import random
from time import perf_counter_ns as now_ns

from proxy.gateway.admission import admit
from proxy.gateway.ask import ask
from proxy.gateway.early import Early
from proxy.gateway.flights import Flights
from proxy.gateway.limits import claim, settle
from proxy.gateway.noting import tell_permits
from proxy.gateway.reach import reach
from proxy.gateway.read import read
from proxy.gateway.relay import relay
from proxy.gateway.snapshot import Rules, build_guards, build_rules
from proxy.gateway.tell import open_record, tell
from proxy.gateway.turn import Gateway
from proxy.model.exchange import Inbound, Outgoing, RawHeaders
from proxy.model.failover import Conditions, FailoverPolicy
from proxy.model.ports import Call, Sink
from proxy.model.tenancy import ApiKey, Endpoint, Limits, Route, SnapshotDoc, WorkspaceRules
from proxy.routing.effects import Effect
from proxy.routing.standing import Standing
from proxy.runtime.clock import SystemClock
from proxy.runtime.ids import UlidIds
from proxy.settings.packs import builtin_packs
from proxy.spool.record import is_critical, line_of
from proxy.telemetry.metrics import Totals
from proxy.wire.headers import walk
from tests.kit.fakes import FakeCall, InLine, RecordingDownstream

STAGES = ("look", "admit", "read", "ask", "reach", "relay", "tell", "end")
ROUNDS, REQUESTS = 12, 500
MANY = Limits(rpm=2**50, tpm=2**50, concurrency=1000, daily_cost_usd=1e9)
TEXT = "The quick {n} brown fox jumps over the lazy dog and goes on. "
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
        "choices": [{"index": 0, "logprobs": None, "finish_reason": "stop",
                     "message": {"role": "assistant", "refusal": None,
                                 "content": "The answer is forty two and so on. " * 22}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
).encode()  # fmt: skip
ANSWER_HEAD: RawHeaders = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(ANSWER)).encode()),
    (b"x-request-id", b"req_1"),
    (b"openai-processing-ms", b"12"),
]
ASKED_HEAD: RawHeaders = [
    (b"Host", b"127.0.0.1:8080"),
    (b"Content-Type", b"application/json"),
    (b"Authorization", b"Bearer ppt_bench_" + b"s" * 40),
    (b"Content-Length", b"1000"),
    (b"User-Agent", b"bench"),
    (b"Accept", b"*/*"),
]


class AtOnce:
    """An upstream whose answer is there before anybody waits for it."""

    def start(
        self, outgoing: Outgoing, sink: Sink, *, connect_s: float, due: float, phase: str
    ) -> Call:
        sink.head(200, ANSWER_HEAD)
        sink.data(ANSWER)
        sink.end()
        return FakeCall(due, phase)


class Everywhere:
    def of(self, workspace_id: str, endpoint: Endpoint) -> AtOnce:
        return AtOnce()


def untold(_standing: Standing, _effect: Effect) -> None:
    """What changes about endpoints is of no interest."""


class Nowhere:
    """A journal that keeps nothing."""

    def append(self, line: bytes, *, critical: bool) -> None:
        return None


POLICY = FailoverPolicy(
    route_id="chat",
    primary_endpoint="openai",
    fallback_endpoints=["spare"],
    conditions=Conditions(latency_threshold_ms=2000, error_rate_threshold=0.1),
)


def gateway_with(packs: list[str], limits: Limits, policies: list[FailoverPolicy]) -> Gateway:
    found = [builtin_packs()[name].effective for name in packs]
    document = SnapshotDoc(
        version=1,
        sha256="",
        data_auth="keys",
        workspaces=[
            WorkspaceRules(
                id="default",
                endpoints=[
                    Endpoint(id=name, provider="openai", base_url="http://127.0.0.1:1/v1",
                             api_key="k", allow_private=True)
                    for name in ("openai", "spare")
                ],
                routes=[Route(id="chat", endpoint="openai", policy_packs=packs, limits=limits)],
                policies=found,
                failover_policies=policies,
                keys=[
                    ApiKey(id="bench", secret_sha256=hashlib.sha256(b"s" * 40).hexdigest(),
                           limits=limits)
                ],
            )
        ],
    )  # fmt: skip
    rules = build_rules(
        document, build_guards(document), Everywhere(), lambda s: s if isinstance(s, str) else None
    )
    return gateway_over(rules)


def gateway_over(rules: Rules) -> Gateway:
    """A gateway whose journal keeps nothing."""
    clock = SystemClock()
    flights = Flights(clock, random, untold)
    flights.keep(rules)
    return Gateway(
        rules=lambda: rules, clock=clock, ids=UlidIds(), journal=Nowhere(),
        line_of=line_of, is_critical=is_critical, observe=Totals("bench").count, off_loop=InLine(),
        server_key=b"k" * 32, flights=flights, early=Early(),
    )  # fmt: skip


async def one(body: bytes, gateway: Gateway, spent: list[int]) -> None:
    """`gateway.pipeline.serve`, with a mark after every stage."""
    caller = RecordingDownstream(request_body=body)
    a = now_ns()
    headers, marks = walk(ASKED_HEAD)
    inbound = Inbound(
        gateway.ids.new("req-"), "POST", "/v1/chat/completions", headers, peer="127.0.0.1",
        marks=marks,
    )  # fmt: skip
    started, rules = gateway.clock.monotonic(), gateway.rules()
    record = open_record(inbound, gateway)
    b = now_ns()
    visit = admit(rules, inbound, record.received_at_ms)
    c = now_ns()
    inbound.body = await caller.body(rules.doc.max_body_bytes)
    turn = await read(visit, inbound, record, caller, gateway, started)
    d = now_ns()
    if turn.limited:
        await claim(turn, gateway)
    if turn.route.asks:
        await ask(turn, rules, gateway)
    e = now_ns()
    answer = await reach(turn, rules, gateway)
    f = now_ns()
    assert answer is not None
    await relay(turn, answer, rules, gateway)
    g = now_ns()
    turn.land(gateway.clock.monotonic())
    tell_permits(turn, gateway)
    tell(record, caller, gateway, rules, started)
    if turn.hold is not None:
        settle(turn.hold, record, gateway)
    h = now_ns()
    caller.end()
    i = now_ns()
    assert caller.status == 200, caller.received
    for place, part in enumerate((b - a, c - b, d - c, e - d, f - e, g - f, h - g, i - h)):
        spent[place] += part


async def measure(packs: list[str], limits: Limits, policies: list[FailoverPolicy]) -> list[float]:
    gateway = gateway_with(packs, limits, policies)
    best: list[float] = []
    for round_ in range(ROUNDS):
        spent = [0] * len(STAGES)
        for number in range(REQUESTS):
            text = TEXT.format(n=round_ * REQUESTS + number) * 16
            message = {"role": "user", "content": text}
            body = json.dumps({"model": "gpt-4o-mini", "messages": [message]}).encode()
            await one(body, gateway, spent)
        found = [part / REQUESTS / 1000 for part in spent]
        if not best or sum(found) < sum(best):
            best = found
    return best


def main() -> None:
    arguments = argparse.ArgumentParser(description="µs per stage of a request, best round.")
    arguments.add_argument("--pack", action="store_true", help="with secrets-core on the route")
    arguments.add_argument("--policy", action="store_true", help="under a failover policy")
    arguments.add_argument("--limits", action="store_true", help="four of the route and the key")
    said = arguments.parse_args()
    packs = ["secrets-core"] if said.pack else []
    limits, policies = MANY if said.limits else Limits(), [POLICY] if said.policy else []
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    spent = asyncio.run(measure(packs, limits, policies))
    print("  ".join(f"{name} {part:.1f}" for name, part in zip(STAGES, spent, strict=True)))
    print(f"total {sum(spent):.1f} µs per request")


if __name__ == "__main__":
    main()
