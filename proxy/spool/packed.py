"""Plain lines stay as they are: the log keeps them packed, and whoever reads the event unpacks it.

Nearly every event is that of a request that simply succeeded, and is written long before anybody
reads it, if ever.  So of such a line only the members are looked at that the log is searched by;
the rest becomes an event when it is asked for.  A line with policy results, decisions or a failure
is expanded at once, and so is one that `line_of` does not write.

Stored form: `[[schema_version, received_at, source], <the line's array>]`; every other event is
stored as an object.
"""

from typing import Any, Final, cast

from proxy.model.events import REQUEST_COMPLETED, NewEvent
from proxy.model.exchange import Json
from proxy.spool import expand
from proxy.spool.expand import LAST_MS, BadLine, Expanded
from proxy.spool.record import time_text
from proxy.wire import jsonbody

# where the members of a line stand, in the order of `record.line_of`
_LENGTH: Final = 49
_ASKED: Final = 18  # the model that was asked for
_UNPLAIN: Final = slice(43, 47)  # failure, policy results, decisions, denials

_TEXT: Final = {str}
_TEXT_OR_NONE: Final = {str, type(None)}
_NOTHING: Final = [None] * 4


def read_line(line: bytes) -> Expanded:
    """A line, without its LF, as events on their way into the log.  Raises BadLine."""
    doc = expand.array_of(line)
    if len(doc) == _LENGTH and doc[_UNPLAIN] == _NOTHING:
        searched = _searched(doc)
        if searched is not None:
            event = NewEvent(searched, cast(int, doc[4]), packed=line[9:])
            return expand.asked_with(Expanded(cast(str, doc[1]), [event]), doc)
    return expand.of_array(doc)


def stored(event: NewEvent, stamp: bytes) -> bytes:
    """What the log keeps of a packed event.  `stamp`: the JSON of what the store's side says."""
    return b"[%b,%b]" % (stamp, event.packed)


def unpacked(body: bytes) -> bytes:
    """An event as JSON object, of what the log keeps of it.

    A packed line that passed its checksum and yet makes no event is told by what it is searched by,
    so that one of them does not cost a page of others.
    """
    if body[:1] != b"[":
        return body
    stamp, doc = cast("list[Any]", jsonbody.loads(body))
    try:
        (event,) = expand.of_array(doc).events
        told = event.body
    except BadLine:
        told = {**(_searched(doc) or {}), "timestamp": time_text(doc[4])}
    version, received_at, source = stamp
    return jsonbody.dumps(
        {
            **told,
            "workspace_id": doc[1],
            "schema_version": version,
            "received_at": received_at,
            "source": source,
        }
    )


def _searched(doc: list[Json]) -> dict[str, Json] | None:
    """The members that the log is searched by.  None: not those of a plain line."""
    (
        _, workspace_id, event_id, request_id, at_ms, outcome, route_id, _, _, _, model, provider,
    ) = doc[:12]  # fmt: skip
    if (
        outcome != "success"
        or type(at_ms) is not int
        or not 0 <= at_ms < LAST_MS
        or {type(workspace_id), type(event_id), type(request_id), type(route_id)} != _TEXT
        or not {type(provider), type(model), type(doc[_ASKED])} <= _TEXT_OR_NONE
    ):
        return None
    return {
        "event_id": event_id,
        "type": REQUEST_COMPLETED,
        "route_id": route_id,
        "request_id": request_id,
        "payload": {"model": model or doc[_ASKED], "provider": provider, "outcome": outcome},
    }
