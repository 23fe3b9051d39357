"""How the endpoints of every policy stand: what the control process knows and an operator changes.

`app/standings.py` is the one of a node; who asks (control API, metrics) knows this alone.
"""

from collections.abc import Iterable
from typing import Protocol

from proxy.routing.standing import Standing


class Standings(Protocol):
    """Of all workspaces, by the ids of workspace and policy.  Windows hold the node's sums.

    Only active policies stand anywhere: one that is paused or unknown has None, and can neither be
    forced nor released (False)."""

    def of(self, workspace_id: str, policy_id: str) -> Standing | None: ...

    def all(self) -> Iterable[Standing]: ...

    def force(
        self, workspace_id: str, policy_id: str, endpoint_id: str, ttl_s: float, reason: str
    ) -> bool:
        """All traffic of the policy to that endpoint for `ttl_s` seconds, whatever happens; workers
        and nodes follow.  False: no such policy, or no such endpoint in it."""
        ...

    def release(self, workspace_id: str, policy_id: str, reason: str) -> bool:
        """Take back what was forced.  False: nothing was."""
        ...


class NoStandings:
    """Of a control process without policies."""

    def of(self, workspace_id: str, policy_id: str) -> Standing | None:
        return None

    def all(self) -> Iterable[Standing]:
        return ()

    def force(
        self, workspace_id: str, policy_id: str, endpoint_id: str, ttl_s: float, reason: str
    ) -> bool:
        return False

    def release(self, workspace_id: str, policy_id: str, reason: str) -> bool:
        return False
