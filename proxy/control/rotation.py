"""POST …/deliveries/{targetId}/rotate-secret: a new secret for a webhook (control-api.md §12.5).

The secret before stands beside the target for 24 hours, in which messages carry both signatures;
it is never shown.  A webhook that has lost its secret gets one.  A retry with the same
Idempotency-Key changes nothing and gets the mask.
"""

from typing import Final

from proxy.control.conditions import check_matching
from proxy.control.deliveries import DELIVERY, with_secret
from proxy.control.documents import insistent, write
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.idempotency import Ticket, once
from proxy.control.kinds import Object, Revision, Stored, one_of
from proxy.control.problems import Problem
from proxy.control.shown import SHOWN_ONCE, show
from proxy.model.batch import Op

OVERLAP_MS: Final = 24 * 3600 * 1000


async def rotate_secret(passage: Passage, deps: ControlDeps) -> Reply:
    """Give a webhook a new secret, shown once; the old one signs along for 24 hours."""

    async def act(ticket: Ticket) -> Reply:
        return await insistent(lambda: _rotate(passage, deps, ticket))

    return await once(passage, deps, act)


async def _rotate(passage: Passage, deps: ControlDeps, ticket: Ticket) -> Reply:
    ticket.recorded = False
    one = await one_of(DELIVERY, passage, deps)
    check_matching(passage.request, one.etag)
    if one.location:
        raise Problem("managed-by-file", extra={"location": one.location})
    config = one.said["config"]
    assert isinstance(config, dict), "the model says so"
    if one.said["type"] != "webhook":
        raise Problem("conflict", "only a webhook has a secret of ours")
    before = config.get("secret")
    if before is not None and not isinstance(before, str):
        raise Problem("conflict", "the secret is a reference: change what it names")
    said, secret = with_secret(one.said, config)
    beside: Object = {}
    if before is not None:
        until_ms = deps.clock.now_ms() + OVERLAP_MS
        beside = {"previous_secret": before, "previous_secret_until": until_ms}

    def recorded(changed: Stored) -> tuple[Op, ...]:
        kept: Object = {
            **changed.representation(DELIVERY, passage, deps),
            "warnings": [SHOWN_ONCE],
        }
        return ticket.ops(Reply.json(200, kept, {"ETag": changed.etag}))

    changed = await write(
        DELIVERY, passage, deps, one, Revision(said, beside), "rotate_secret", recorded
    )
    shown = changed.representation(DELIVERY, passage, deps)
    show(shown, secret)
    return Reply.json(200, shown, {"ETag": changed.etag})
