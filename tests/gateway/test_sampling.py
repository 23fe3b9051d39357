"""A sampled rule looks at both directions of a request or at none of it."""

import pytest

from proxy.guardrails.sampling import draw_of
from proxy.model.policy import Rule
from tests.kit.builders import OPENAI, pack, world
from tests.kit.shapes import STREAM, chat, chunk

WATCHER = Rule(
    rule_id="hello", kind="terms", pattern=["hello"], action="block", mode="shadow", sample_pct=50
)


@pytest.mark.parametrize("number", range(1, 9))
async def test_request_and_stream_share_the_number(number: int) -> None:
    answer = chat(chunk({"content": "hel"}), chunk({"content": "lo"}), chunk({}, "stop"))
    w = world((OPENAI,), scripts={"openai": [answer]}, packs=[pack(WATCHER)])
    for _ in range(2 * number):
        w.gateway.ids.new("")
    await w.ask(STREAM)
    record = w.record
    seen = [result.direction for result in record.policy_results]
    looked = draw_of(record.request_id) < 50
    assert sorted(seen) == (["request", "response"] if looked else [])
