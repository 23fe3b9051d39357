"""What has changed about the endpoints of a policy: told once, by whoever keeps it."""

from dataclasses import dataclass
from typing import Final

from proxy.routing.states import Change, Reason, State

FLAP_HOLD: Final = "flap_hold"  # the reason that is told of a return that is not made


@dataclass(frozen=True, slots=True)
class StateChanged:
    """One endpoint's breaker went from one state to another."""

    endpoint_id: str
    change: Change


@dataclass(frozen=True, slots=True)
class Switched:
    """The active endpoint changed; `after` None: no endpoint is left."""

    before: str | None
    after: str | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Recovered:
    """Traffic is back at a better endpoint; `before` None: there was none at all."""

    before: str | None
    after: str
    outage_s: float
    requests: int  # that went to fallbacks meanwhile


@dataclass(frozen=True, slots=True)
class Flapping:
    """A return was not made, and none will be before `until`."""

    endpoint_id: str
    until: float


Effect = StateChanged | Switched | Recovered | Flapping


def is_limit(changed: StateChanged) -> bool:
    """The endpoint's own key is held, or is so no more."""
    return State.LIMITED in (changed.change.before, changed.change.after)
