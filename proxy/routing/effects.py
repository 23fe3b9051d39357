"""What has changed about the endpoints of a policy: told once, by whoever keeps it."""

from dataclasses import dataclass
from typing import Final, TypeGuard

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


def finds_down(effect: Effect) -> TypeGuard[StateChanged]:
    """Attempts of this policy have shown that nobody is at the endpoint."""
    return _is_down(effect) and not is_derived(effect)


def is_derived(effect: Effect) -> bool:
    """Attempts of another policy have: every process finds that by itself (failover.md §2)."""
    if not isinstance(effect, StateChanged) or not _is_down(effect):
        return False
    why = effect.change.reason
    return why is not None and not why.samples


def _is_down(effect: Effect) -> bool:
    if not isinstance(effect, StateChanged) or effect.change.after is not State.OPEN:
        return False
    why = effect.change.reason
    return why is not None and why.code == "hard_failure"
