"""What one answer hands on to the one that goes on with it."""

from dataclasses import dataclass

from proxy.gateway.texts import Texts
from proxy.gateway.waiting import LaneKey
from proxy.guardrails.placeholders import Restoration
from proxy.model.exchange import Exchange


@dataclass(slots=True)
class GoingOn:
    """The request that is sent for it, and where the guard stands in its text.  `texts`: None where
    nothing is handed on; then the answer is looked at from its beginning.  `discarded`: the text
    that came after what the caller has, and that he never got."""

    exchange: Exchange
    texts: Texts | None = None
    lane: LaneKey = (0, "text", 0)
    restoration: Restoration | None = None
    discarded: str = ""
