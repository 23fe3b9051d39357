"""What one plain event of a stream costs between the transport and the caller, without sockets.

    .venv/bin/python -m benchmarks.micro.events

In µs: on a route alone, under a failover policy with `stream_recovery: off`, and with `resume`,
where what the caller has is kept for the case that the stream dies; each also with a pack that
looks at the answer.  For comparing two versions of the code on one machine.
"""

import asyncio
import gc
from time import perf_counter_ns as now_ns

from proxy.gateway.pipeline import serve
from proxy.model.policy import PolicyPack
from proxy.model.tenancy import Route
from proxy.runtime.tasks import spawn
from tests.kit.builders import OPENAI, SECRET_RULE, SPARE, SSE, pack, policy, world
from tests.kit.fakes import RecordingDownstream
from tests.kit.shapes import ROLE, STREAM, chunk

EVENTS, ROUNDS = 2_000, 40
PACK = pack(SECRET_RULE)
PIECES = [chunk({"content": f" word{number}"}) for number in range(EVENTS)]


async def one_round(mode: str | None, packs: list[PolicyPack]) -> float:
    """µs per event.  Mode None: there is no policy."""
    recovery = "off" if mode in (None, "off") else "resume"
    route = Route.model_validate(
        {
            "id": "chat", "endpoint": "openai", "stream_recovery": recovery,
            "policy_packs": [each.policy_pack_id for each in packs],
        }
    )  # fmt: skip
    failover = policy("openai", "spare") if mode is not None else None
    w = world([OPENAI, SPARE], routes=[route], failover=failover, packs=packs)
    caller = RecordingDownstream(request_body=STREAM)
    task = spawn(serve(w.inbound("/v1/chat/completions"), caller, w.gateway), name="caller")
    await asyncio.sleep(0)
    sink = w.upstreams["openai"].sinks[0]
    sink.head(200, SSE)
    for piece in (ROLE, *PIECES[:3]):
        sink.data(piece)
    for _ in range(20):
        await asyncio.sleep(0)
    feed = sink.data
    began = now_ns()
    for piece in PIECES:
        feed(piece)
    spent = (now_ns() - began) / EVENTS / 1000
    assert len(caller.pieces) >= EVENTS, "all of it has left"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return spent


async def measure() -> None:
    for packs in ([], [PACK]):
        best = dict.fromkeys((None, "off", "resume"), 1e9)
        for _ in range(ROUNDS):
            for mode, before in best.items():
                best[mode] = min(before, await one_round(mode, packs))
        named = {None: "no policy", "off": "off", "resume": "resume"}
        found = "  ".join(f"{named[mode]} {spent:.2f}" for mode, spent in best.items())
        print(f"{'guarded' if packs else 'plain':8} {found} µs per event")


if __name__ == "__main__":
    gc.collect()
    gc.freeze()
    asyncio.run(measure())
