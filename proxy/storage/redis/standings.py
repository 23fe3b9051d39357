"""How endpoints stand, between nodes (failover.md §11).

Nothing here must last: a question is asked once and has 200 ms; without an answer a node goes by
what it knows.  All times go by the server's clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from proxy.storage.redis.holds import RedisHolds
from proxy.storage.redis.keys import STANDINGS, Keys
from proxy.storage.redis.server import WITHIN_S, Server

BUCKETS: Final = 60


@dataclass(frozen=True, slots=True)
class Said:
    """One endpoint: how this node says it stands, and what it has counted since it last said so.

    `care`: of equal versions the greater one is believed.  `anew`: that state forgets all counts.
    `state`: the rest of it, for other nodes."""

    endpoint_id: str
    version: int
    care: int
    step: int
    left_ms: int
    ago_ms: int
    opened_ago_ms: int
    anew: bool
    state: bytes
    counts: Sequence[int]


@dataclass(frozen=True, slots=True)
class Heard:
    """One endpoint as the nodes know it now; `believed`: it is what this node has just said, and
    another state than before."""

    endpoint_id: str
    believed: bool
    version: int
    left_ms: int
    ago_ms: int
    opened_ago_ms: int
    state: bytes
    sums: list[int]


@dataclass(frozen=True, slots=True)
class Policy:
    """Of one policy, whose windows are of `window_s`."""

    workspace_id: str
    policy_id: str
    window_s: int
    said: Sequence[Said]


@dataclass(frozen=True, slots=True)
class Probe:
    """The leave to probe an endpoint, as `owner` has it or wants it."""

    workspace_id: str
    policy_id: str
    endpoint_id: str
    owner: str

    @property
    def key(self) -> bytes:
        return Keys(self.workspace_id).probe(self.policy_id, self.endpoint_id)


class RedisStandings:
    """`model.ports` has no word for it: the control process of a node alone uses it."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self.name = name  # of this node, among all
        self.holds = RedisHolds(server, name)
        self.heard: Callable[[], None] = _nobody

    def ring(self) -> None:
        """Another node has said something new."""
        self.heard()

    async def exchange(self, policies: Sequence[Policy]) -> list[list[Heard]]:
        """Say and hear, policy by policy.  Raises StoreUnavailable."""
        calls = [self._call(each) for each in policies]
        answers = await self._server.hint_all("standing", calls)
        return [_heard(each, answer) for each, answer in zip(policies, answers, strict=True)]

    async def take_probe(self, probe: Probe, lease_ms: int) -> bool:
        """The leave to probe, of one node at a time.  False: another one has it.  Raises
        StoreUnavailable."""
        command = ("SET", probe.key, probe.owner, "NX", "PX", lease_ms)
        return await self._server.hint(
            lambda client: client.execute_command(*command), WITHIN_S
        ) is not None  # fmt: skip

    async def keep_probe(self, probe: Probe, lease_ms: int) -> bool:
        """False: it is somebody else's by now.  Raises StoreUnavailable."""
        work = self._server.script("lease_renew", [probe.key], [probe.owner, lease_ms])
        return bool(await self._server.hint(work, WITHIN_S))

    async def free_probe(self, probe: Probe) -> None:
        """Raises StoreUnavailable."""
        work = self._server.script("lease_free", [probe.key], [probe.owner])
        await self._server.hint(work, WITHIN_S)

    def _call(self, policy: Policy) -> tuple[Sequence[bytes], list[Any]]:
        keys = Keys(policy.workspace_id)
        names = [keys.states(policy.policy_id)]
        width = max(1, -(-policy.window_s // BUCKETS))
        said: list[Any] = [width, -(-policy.window_s // width), STANDINGS, self.name]
        for each in policy.said:
            names.append(keys.counts(policy.policy_id, each.endpoint_id))
            said += [
                each.endpoint_id, each.version, each.care, each.step, each.left_ms, each.ago_ms,
                each.opened_ago_ms, int(each.anew), each.state, *each.counts,
            ]  # fmt: skip
        return names, said


def _nobody() -> None:
    """Nobody listens yet."""


def _heard(policy: Policy, answer: Sequence[Any]) -> list[Heard]:
    found = []
    for said, told in zip(policy.said, answer, strict=True):
        believed, version, left_ms, ago_ms, opened_ago_ms, state, *sums = told
        heard = Heard(
            said.endpoint_id,
            believed == 1,
            int(version),
            int(left_ms),
            int(ago_ms),
            int(opened_ago_ms),
            state,
            [int(each) for each in sums],
        )
        found.append(heard)
    return found
