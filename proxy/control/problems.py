"""Every answer that is an error, as RFC 9457 problem details (control-api.md §5).

One table holds slug, status, title and what a reader of `/problems/{slug}` is told; nothing else
in the control API knows a status of an error.  A problem never echoes the value of a member.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.model.exchange import Json

MAX_ERRORS: Final = 50


@dataclass(slots=True, frozen=True)
class Kind:
    """One sort of problem."""

    status: int
    title: str
    about: str


# fmt: off
KINDS: Final[Mapping[str, Kind]] = {
    "malformed-json": Kind(400, "Body is not readable",
        "The body is empty, not valid JSON, not UTF-8, or not valid gzip. `offset` is the byte "
        "where reading stopped."),
    "invalid-header": Kind(400, "Malformed request",
        "The request line, a header field or the framing of the request breaks its grammar."),
    "invalid-idempotency-key": Kind(400, "Invalid Idempotency-Key",
        "An Idempotency-Key is a bare token or a quoted string of 1 to 255 visible ASCII "
        "characters."),
    "idempotency-key-missing": Kind(400, "Idempotency-Key is required",
        "This server requires an Idempotency-Key on ingest."),
    "unauthenticated": Kind(401, "Authentication required",
        "Send a valid key as `Authorization: Bearer <key>`."),
    "forbidden": Kind(403, "Not allowed",
        "`reason` says why: scope_missing and role_restriction (see `required_scopes`), "
        "workspace_mismatch (the key is not bound to that workspace), ip_not_allowed."),
    "not-found": Kind(404, "Not found", "There is nothing under this path or id."),
    "method-not-allowed": Kind(405, "Method not allowed", "`Allow` lists the methods."),
    "not-acceptable": Kind(406, "Not acceptable",
        "`Accept` excludes every media type that this operation can answer with."),
    "request-timeout": Kind(408, "Request took too long",
        "The request head was not complete in time, or the body came too slowly."),
    "conflict": Kind(409, "Conflict", "The request contradicts the present state."),
    "already-exists": Kind(409, "Already exists", "The id or unique name is taken."),
    "in-use": Kind(409, "In use", "Something refers to it; see `referenced_by`."),
    "version-conflict": Kind(409, "Version conflict",
        "The version is published already, or not above the active one."),
    "event-id-conflict": Kind(409, "Event id was used for another event",
        "An event with this event_id and other content was accepted before."),
    "idempotency-in-progress": Kind(409, "Request is still running",
        "A request with the same Idempotency-Key has not finished. Repeat it after `Retry-After`."),
    "invalid-state-transition": Kind(409, "Invalid state transition",
        "The resource cannot go from its present state to the one asked for."),
    "managed-by-file": Kind(409, "Managed by the configuration file",
        "Edit the file at `location` and reload."),
    "precondition-failed": Kind(412, "Precondition failed",
        "If-Match or If-None-Match does not hold; see `current_etag`."),
    "precondition-required": Kind(428, "Precondition required", "Send If-Match."),
    "content-too-large": Kind(413, "Body is too large", "`limit` is the bound in bytes."),
    "uri-too-long": Kind(414, "Request line is too long", "`limit` is the bound in bytes."),
    "unsupported-media-type": Kind(415, "Unsupported media type",
        "Content-Type or Content-Encoding is not one that this operation takes."),
    "header-fields-too-large": Kind(431, "Header fields are too large",
        "A field or the number of fields is over its limit."),
    "validation-error": Kind(422, "Request validation failed",
        "`errors` lists every member, parameter or header that is wrong."),
    "idempotency-key-reused": Kind(422, "Idempotency-Key was used for another request",
        "The same key came with another path, query or body."),
    "unknown-reference": Kind(422, "Unknown reference",
        "The document names something that does not exist, and references are strict."),
    "quota-exceeded": Kind(429, "Too many requests",
        "A rate limit is used up; `Retry-After` says when to go on."),
    "internal": Kind(500, "Internal error",
        "A fault of the server; quote `request_id` when reporting it."),
    "not-implemented": Kind(501, "Not implemented",
        "The operation is documented, its machinery is not part of this version."),
    "unavailable": Kind(503, "Unavailable", "The request could not be finished in time."),
    "draining": Kind(503, "Shutting down", "The process is stopping; repeat the request."),
    "overloaded": Kind(503, "Overloaded", "Too much is under way; repeat the request later."),
    "storage-unavailable": Kind(503, "Storage is unavailable",
        "Nothing was changed. Repeat the request with the same Idempotency-Key."),
    "spool-full": Kind(503, "Spool is full", "Events cannot be kept now. Repeat the request."),
    "query-timeout": Kind(503, "Query took too long",
        "Narrow it by `since`, `until` or a filter."),
}
# fmt: on


@dataclass(slots=True)
class FieldError:
    """One thing that is wrong.  `pointer` (body) or `parameter` (query, header) says where."""

    code: str
    detail: str
    field: str = ""
    pointer: str | None = None
    place: str = "body"
    extra: dict[str, Json] | None = None

    def doc(self) -> dict[str, Json]:
        doc: dict[str, Json] = {}
        if self.place == "body":
            doc["pointer"] = self.pointer or "#"
        else:
            doc["in"] = self.place
            doc["parameter"] = self.field
        doc |= {"field": self.field, "code": self.code, "detail": self.detail}
        return doc | (self.extra or {})


class Problem(Exception):
    """Ends a request with the problem `slug`.  `close`: the connection is not used again."""

    def __init__(
        self,
        slug: str,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        extra: Mapping[str, Json] | None = None,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(f"{slug}: {detail}")
        self.slug = slug
        self.kind = KINDS[slug]
        self.detail = detail or self.kind.about
        self.errors = list(errors)
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})
        self.close = close

    def doc(self, public_url: str, instance: str, request_id: str) -> dict[str, Json]:
        doc: dict[str, Json] = {
            "type": f"{public_url}/problems/{self.slug}",
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "instance": instance[:256],
            "request_id": request_id,
        }
        if self.errors:
            doc["errors"] = [error.doc() for error in self.errors[:MAX_ERRORS]]
            if len(self.errors) > MAX_ERRORS:
                doc["errors_truncated"] = True
        return doc | self.extra


def invalid(errors: Sequence[FieldError]) -> Problem:
    """422 with all that is wrong."""
    count = len(errors)
    detail = "1 field is invalid" if count == 1 else f"{count} fields are invalid"
    return Problem("validation-error", detail, errors=errors)


def retry_later(slug: str, detail: str = "", seconds: int = 1, *, close: bool = False) -> Problem:
    """A problem that passes: `Retry-After` and its twin in the body."""
    return Problem(
        slug,
        detail,
        extra={"retry_after_seconds": seconds},
        headers={"Retry-After": str(seconds)},
        close=close,
    )
