"""Many scripts on one provider: whose request gets what."""

import asyncio
import time

from tests.kit.httpclient import Answer, post
from tests.kit.lanes import Lanes, prompt
from tests.kit.provider import FakeProvider
from tests.kit.replies import ok, status
from tests.kit_tests.asking import VERSION


async def asked(provider: FakeProvider, lane: str, endpoint: str, **more: object) -> Answer:
    body = {"model": "m", "messages": [{"role": "user", "content": prompt(lane)}], **more}
    return await post(f"{provider.url}/{endpoint}/v1/chat/completions", body)


async def test_lanes_and_endpoints_have_scripts_of_their_own() -> None:
    async with FakeProvider() as provider:
        lanes = Lanes(provider)
        lanes.open("one", {"wall": [status(500), ok()], "*": ok()})
        lanes.open("two", {"wall": status(503)})
        first, other = await asyncio.gather(
            asked(provider, "one", "wall"), asked(provider, "two", "wall")
        )
        again = await asked(provider, "one", "wall")
        spare = await asked(provider, "one", "wall-ok")
        assert (first.status, other.status) == (500, 503)
        assert (again.status, spare.status) == (200, 200)
        assert [len(lanes.asked("one", name)) for name in ("wall", "wall-ok")] == [2, 1]
        assert len(lanes.asked("one")) == 3


async def test_the_lane_stands_in_any_dialect() -> None:
    async with FakeProvider() as provider:
        Lanes(provider).open("one", {"claude": ok("Ahoy.")})
        body = {"model": "c", "max_tokens": 9, "messages": [
            {"role": "user", "content": [{"type": "text", "text": prompt("one")}]}
        ]}  # fmt: skip
        answer = await post(f"{provider.url}/claude/v1/messages", body, VERSION)
        assert answer.json["content"][0]["text"] == "Ahoy."


async def test_who_is_in_no_lane_is_told() -> None:
    async with FakeProvider() as provider:
        Lanes(provider)
        assert (await asked(provider, "nowhere", "wall")).status == 404


async def test_headers_first_and_events_later() -> None:
    async with FakeProvider(ok().first_event_after(0.3)) as provider:
        began = time.monotonic()
        answer = await asked(provider, "any", "wall", stream=True)
        assert answer.head_at - began < 0.2
        assert answer.pieces[0].at - began >= 0.3
