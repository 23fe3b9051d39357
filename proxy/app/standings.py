"""How the endpoints of every policy stand on this node: kept by the control process."""

from collections.abc import Callable, Iterable

from proxy.model.ports import Clock
from proxy.model.tenancy import SnapshotDoc
from proxy.routing.breaker import State
from proxy.routing.standing import Effect, Standing
from proxy.runtime.ids import fraction

Publish = Callable[[SnapshotDoc], None]
Tell = Callable[[Standing, Effect, int], None]  # the last one: when, in ms since 1970


class NodeStandings:
    """`routing.standings.Standings` of one node.  `tell` is given every change once."""

    def __init__(self, clock: Clock, tell: Tell, chance: Callable[[], float] = fraction) -> None:
        self._clock = clock
        self._tell = tell
        self._chance = chance
        self._standings: dict[tuple[str, str], Standing] = {}

    def __repr__(self) -> str:
        return f"<NodeStandings of {len(self._standings)} policies>"

    # --- routing.standings.Standings

    def of(self, workspace_id: str, policy_id: str) -> Standing | None:
        return self._standings.get((workspace_id, policy_id))

    def all(self) -> Iterable[Standing]:
        return list(self._standings.values())

    def force(
        self, workspace_id: str, policy_id: str, endpoint_id: str, ttl_s: float, reason: str
    ) -> bool:
        standing = self.of(workspace_id, policy_id)
        if standing is None or endpoint_id not in standing.breakers:
            return False
        now = self._clock.monotonic()
        self._changed(standing, standing.force(endpoint_id, now, ttl_s=ttl_s, said=reason))
        return True

    def release(self, workspace_id: str, policy_id: str, reason: str) -> bool:
        standing = self.of(workspace_id, policy_id)
        forced = (State.FORCED_OPEN, State.FORCED_CLOSED)
        if standing is None or not any(b.state in forced for b in standing.breakers.values()):
            return False
        self._changed(standing, standing.release(self._clock.monotonic(), said=reason))
        return True

    # --- policies

    def before(self, publish: Publish) -> Publish:
        """`publish`, before which the policies of the snapshot are known here."""

        def keep_and_publish(snapshot: SnapshotDoc) -> None:
            self.keep(snapshot)
            publish(snapshot)

        return keep_and_publish

    def keep(self, snapshot: SnapshotDoc) -> None:
        """The active policies of that snapshot, each with what was known of it."""
        before, self._standings = self._standings, {}
        now = self._clock.monotonic()
        for rules in snapshot.workspaces:
            policies = {p.route_id: p for p in rules.failover_policies if p.status == "active"}
            for policy in policies.values():
                name = (rules.id, policy.effective_id)
                standing = before.get(name)
                if standing is None:
                    standing = Standing(policy, self._chance, rules.id)
                self._standings[name] = standing
                if standing.policy != policy:
                    self._changed(standing, standing.edit(policy, now))

    # ----

    def _changed(self, standing: Standing, effects: Iterable[Effect]) -> None:
        at_ms = self._clock.now_ms()
        for effect in effects:
            self._tell(standing, effect, at_ms)
