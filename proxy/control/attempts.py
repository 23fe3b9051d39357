"""What became of messages: attempts per target, and what was given up (control-api.md §12.5).

Nothing is sent yet, so both are empty unless something was stored.  An attempt is an entry of the
log `attempts` whose `type` is the target's id; a dead letter is a document.
"""

from typing import Final

from pydantic import BaseModel, ConfigDict, TypeAdapter

from proxy.control.deliveries import DELIVERY
from proxy.control.frame import ControlDeps, Passage, Reply
from proxy.control.kinds import Kind, Object, one_of
from proxy.control.logs import LogQuery, log_reply
from proxy.control.wire import Instant, ListQuery, within
from proxy.model.batch import LogFilter
from proxy.storage.aging import DEAD_LETTER as DEAD_LETTER_NAME

ATTEMPTS_LOG: Final = "attempts"
SHOWN_CHARS: Final = 2048  # of a payload; the whole is kept for the next attempt


class Attempt(BaseModel):
    """One try to send one message to one target."""

    model_config = ConfigDict(frozen=True, extra="allow")

    attempt_id: str
    target_id: str
    webhook_id: str | None = None
    attempt: int
    status: str
    response_status: int | None = None
    latency_ms: float | None = None
    error: str | None = None
    at: str


class DeadLetter(BaseModel):
    """A message that was given up.  `payload`: what would have been sent."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    target_id: str
    webhook_id: str | None = None
    reason: str
    attempts: int
    payload: str = ""
    replayed_at: str | None = None


class DeadLettersQuery(ListQuery):
    target_id: list[str] | None = None
    since: Instant | None = None
    until: Instant | None = None


def _keep(doc: Object, query: ListQuery) -> bool:
    assert isinstance(query, DeadLettersQuery), "the table says so"
    return (query.target_id is None or doc["target_id"] in query.target_id) and within(
        doc["created_at"], query.since, query.until
    )


def _listed(doc: Object) -> Object:
    return {**doc, "payload": str(doc.get("payload") or "")[:SHOWN_CHARS]}


DEAD_LETTER: Final = Kind(
    name=DEAD_LETTER_NAME,
    noun="dead letter",
    parameter="deadLetterId",
    adapter=TypeAdapter(DeadLetter),
    id_of=lambda said, _: str(said["id"]),
    keep=_keep,
    sorts=("created_at", "target_id"),
    conditional_get=False,
    ours=True,
    listed=_listed,
)


async def list_attempts(passage: Passage, deps: ControlDeps) -> Reply:
    """What was tried to reach the target, newest first."""
    query = passage.query
    assert isinstance(query, LogQuery), "the table says so"
    target = await one_of(DELIVERY, passage, deps)
    narrowed = LogFilter(types=(target.id,))
    return await log_reply(passage, deps, passage.workspace, ATTEMPTS_LOG, query, narrowed=narrowed)
