"""Changes of endpoint by policy: a log of their own beside the events, and the last one of each
policy (failover.md §1, storage.md §6).

Both are written in the commit of the event.  The log has every decision that came in; the last one
is of the gateways of this installation, whose policies are those in force.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from proxy.model.batch import ANY, Append, Op
from proxy.model.events import FAILOVER_DECISION, NewEvent
from proxy.model.exchange import Json
from proxy.storage.documents import document
from proxy.wire import jsonbody

DECISIONS_LOG: Final = "decisions"
POLICY_STATE: Final = "failover_policy.state"
MAX_ID: Final = 128


def decision_ops(
    events: Sequence[NewEvent], appends: Sequence[Append], *, own: bool, at_ms: int
) -> list[Op]:
    """What is written beside decisions among `events`; `appends` write the events themselves.

    `own`: they come from our gateways."""
    found: list[Op] = []
    last: dict[str, dict[str, Json]] = {}
    for event, append in zip(events, appends, strict=True):
        if append.type != FAILOVER_DECISION:
            continue
        payload = event.body.get("payload")
        policy_id = payload.get("failover_policy_id") if isinstance(payload, dict) else None
        if not isinstance(payload, dict) or type(policy_id) is not str or len(policy_id) > MAX_ID:
            continue
        body = jsonbody.dumps(payload)
        found.append(replace(append, log=DECISIONS_LOG, body=body, type=policy_id))
        last[policy_id] = payload
    if own:
        found += (
            document(POLICY_STATE, policy_id, {"last_decision": payload}, at_ms, ANY)
            for policy_id, payload in last.items()
        )
    return found
