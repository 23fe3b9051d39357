"""Who may be asked where nobody admits (failover.md §6).

One function for the gateway, which asks, and for the dry run, which only says who would be asked.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from proxy.routing.standing import Standing

_CLOSED_BY_US: Final = ("open", "probing", "ramping")
_RETURNS: Final = ("probing", "ramping")


def let_in(
    standing: Standing,
    order: Sequence[str],
    refused: Mapping[str, str],
    now: float,
    primary: str,
) -> str:
    """The endpoint that is asked though its breaker does not admit it; "" when there is none.

    `order`: those that the request has not asked, all of them refused.  `refused`: why.  One that
    is on its way back and shows that it is well comes first; then `primary`, as if nothing were
    known of it, if the policy wants that ("" where the request has asked somebody already).
    """
    for name in order:
        if shows_well(standing, name, refused[name], now):
            return name
    if primary and standing.policy.on_exhausted == "try_primary":
        return primary if refused.get(primary) in _CLOSED_BY_US else ""
    return ""


def shows_well(standing: Standing, name: str, why: str, now: float) -> bool:
    """It is refused because it is only on its way back, and may take what nobody else takes."""
    return why in _RETURNS and standing.may_be_last(name, now)
