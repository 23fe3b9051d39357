"""R39, T-ST-11: a policy is published again and again under load.  Each request meets one version
from end to end, none is an error, and a version is in force everywhere a second after its answer.
"""

import asyncio
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from proxy.runtime.tasks import spawn
from tests.kit.httpclient import post
from tests.kit.processes import Parapet, endpoint, running, workspace
from tests.kit.provider import FakeProvider
from tests.kit.replies import ok

pytestmark = pytest.mark.process

PACKS = "/v1/workspaces/default/policies"
LIVE_S = 1.0
LATE_S = 0.5  # of a machine that does other things as well
PLENTY = {"control_read": 100_000, "control_write": 100_000}


def pack(number: int) -> dict[str, Any]:
    """Two rules that write down which version it was."""
    rules = [
        {
            "rule_id": word,
            "kind": "terms",
            "pattern": [word],
            "action": "replace",
            "replacement": f"v{number}",
        }
        for word in ("apple", "pear")
    ]
    return {"policy_pack_id": "mark", "route_ids": ["chat"], "rules": rules}


async def publish(parapet: Parapet, times: int, pause_s: float) -> list[tuple[float, int]]:
    """When each version was answered."""
    told = []
    for number in range(1, times + 1):
        answer = await parapet.control("PUT", f"{PACKS}/mark", {"rules": pack(number)["rules"]})
        assert answer.status == 200, answer.text
        told.append((time.monotonic(), number))
        await asyncio.sleep(pause_s)
    return told


async def asked(parapet: Parapet, number: int) -> tuple[float, int, int]:
    """(when it began, its number, status)"""
    body = {"model": "m", "messages": [{"role": "user", "content": f"apple {number} pear"}]}
    began = time.monotonic()
    answer = await post(f"{parapet.url}/v1/chat/completions", body, {"x-parapet-route": "chat"})
    return began, number, answer.status


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("times", "per_s"), [(60, 40), pytest.param(1000, 150, marks=pytest.mark.long)]
)
async def test_r39_policy_updates_under_load(tmp_path: Path, times: int, per_s: int) -> None:
    async with FakeProvider(ok()) as provider:
        only = endpoint("main", "openai", provider.url + "/v1")
        route = {"id": "chat", "endpoint": "main"}
        config = {**workspace([only], [route]), "control": {"rate_limits": PLENTY}}
        async with running(config, tmp_path / "state", single=False) as parapet:
            assert (await parapet.control("POST", PACKS, pack(0))).status == 201
            await asyncio.sleep(LIVE_S)
            publishing = spawn(publish(parapet, times, 0.02), name="publishing")
            requests: list[asyncio.Task[tuple[float, int, int]]] = []
            began = time.monotonic()
            for number in count():
                if publishing.done():
                    break
                await asyncio.sleep(max(0.0, began + number / per_s - time.monotonic()))
                requests.append(spawn(asked(parapet, number), name="caller"))
            told = await publishing
            made = await asyncio.gather(*requests)
            assert [status for *_, status in made if status != 200] == []

            seen = dict(_seen(entry.json) for entry in provider.journal)
            assert len(seen) == len(made)
            assert len(set(seen.values())) > times // 4, "the change happened under load"
            for start, number, _ in made:
                due = [n for at, n in told if at <= start - LIVE_S - LATE_S]
                assert seen[number] >= max(due, default=0), "a version that was a second old"
            status = (await parapet.control("GET", "/v1/status")).json
            assert all(worker["connected"] for worker in status["workers"])


def _seen(body: Any) -> tuple[int, int]:
    """(number of the request, version): both rules are of one version."""
    first, number, second = body["messages"][0]["content"].split()
    assert first == second, "one request, one version"
    return int(number), int(first.removeprefix("v"))
