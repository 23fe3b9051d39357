"""Where rows are played: one provider, one Parapet, a route and a policy for each lane."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.callers import Ask, Caller
from tests.chaos.dialects import BY_NAME, Dialect
from tests.chaos.layout import ALIVE, endpoint_id, policy_id, settings, spare_id
from tests.chaos.profile import Profile
from tests.chaos.rows import Row
from tests.kit.httpclient import post
from tests.kit.lanes import Lanes, prompt
from tests.kit.processes import Parapet
from tests.kit.provider import FakeProvider
from tests.kit.replies import Script, ok

ALIVE_WITHIN_S = 10.0
READY_WITHIN_S = 60.0
_EVENT_WITHIN_S = 15.0
_POLL_S = 0.2
_PAGE = 100


@dataclass
class Stage:
    """What a row needs to be played.  `dozing`: a provider that closes idle connections."""

    profile: Profile
    parapet: Parapet
    provider: FakeProvider
    lanes: Lanes
    dozing: FakeProvider
    callers: dict[type[Caller], Caller]
    workers: int

    def caller(self, dialect: Dialect) -> Caller:
        return self.callers[dialect.caller]

    def open(self, row: Row, dialect: Dialect, lane: str) -> None:
        """Lays out the row's script in that lane."""
        scripts: dict[str, Script] = {
            endpoint_id("wall", dialect.primary): row.primary(dialect, self.profile)
        }
        for role in row.spares:
            spare = row.answers(dialect, self.profile)
            scripts[spare_id(role, dialect.fallback, lane)] = spare
        self.lanes.open(lane, scripts)

    async def event(self, lane: str, count: int = 1) -> list[dict[str, Any]]:
        """The events of the lane's requests, once there are as many; what there is, else."""
        until = time.monotonic() + _EVENT_WITHIN_S
        while True:
            found = await self.told(lane)
            done = [each for each in found if each["type"].startswith(_ENDS)]
            if len(done) >= count or time.monotonic() > until:
                return found
            await asyncio.sleep(_POLL_S)

    async def told(self, lane: str) -> list[dict[str, Any]]:
        """All events of a lane, the newest last."""
        found: list[dict[str, Any]] = []
        while True:
            page = len(found) // _PAGE + 1
            path = f"/v1/workspaces/default/events?limit={_PAGE}&page={page}&sort=created_at:asc"
            answer = await self.parapet.control("GET", f"{path}&route_id={lane}")
            assert answer.status == 200, answer.text
            found += answer.json["data"]
            if len(found) < page * _PAGE:
                return found

    async def decisions(self, lane: str, scope: str = "endpoint") -> list[dict[str, Any]]:
        """What the policy of the lane has decided, the newest last."""
        path = f"/v1/workspaces/default/failover-policies/{policy_id(lane)}/decisions?limit=100"
        answer = await self.parapet.control("GET", path)
        assert answer.status == 200, answer.text
        found = [each for each in answer.json["data"] if each.get("scope") == scope]
        return list(reversed(found))

    async def decided(self, lane: str, within_s: float) -> bool:
        """Whether the policy decides in time."""
        until = time.monotonic() + within_s
        while True:
            if await self.decisions(lane):
                return True
            if time.monotonic() > until:
                return False
            await asyncio.sleep(_POLL_S)

    async def policy(self, lane: str) -> dict[str, Any]:
        """The policy of the lane as the API tells it."""
        path = f"/v1/workspaces/default/failover-policies/{policy_id(lane)}"
        answer = await self.parapet.control("GET", path)
        assert answer.status == 200, answer.text
        return dict(answer.json)

    async def is_alive(self) -> bool:
        """Whether a healthy call on the same instance is answered in time."""
        body = {"model": ALIVE, "messages": [{"role": "user", "content": prompt(ALIVE)}]}
        headers = {"x-parapet-route": ALIVE}
        url = self.parapet.url + "/v1/chat/completions"
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            answer = await post(url, body, headers, within_s=ALIVE_WITHIN_S)
            return answer.status == 200
        return False

    def ask(self, lane: str, row: Row, mark: str = "") -> Ask:
        return Ask(lane, row.stream, row.tools, mark=mark)


_ENDS = ("runtime.request.", "runtime.stream.interrupted", "runtime.policy.blocked")


@contextlib.asynccontextmanager
async def staged(
    rows: Sequence[tuple[Row, Dialect]], profile: Profile, state_dir: Path, *, workers: int = 1
) -> AsyncIterator[Stage]:
    """A Parapet and its provider, ready to play these rows; both are gone afterwards."""
    async with (
        FakeProvider() as provider,
        FakeProvider(idle_close_s=profile.idle_close_s) as dozing,
    ):
        lanes = Lanes(provider)
        lanes.open(ALIVE, {"*": ok()})
        config = settings(rows, profile, provider.url, dozing.url)
        config["server"] = {"workers": workers}
        parapet = Parapet(config, state_dir, single=False)
        callers: dict[type[Caller], Caller] = {}
        try:
            await parapet.start(ready=False)
            await parapet.ready(READY_WITHIN_S)
            for kind in {dialect.caller for dialect in BY_NAME.values()}:
                callers[kind] = kind(parapet.url)
            yield Stage(profile, parapet, provider, lanes, dozing, callers, workers)
        finally:
            for caller in callers.values():
                await caller.close()
            await parapet.kill()
