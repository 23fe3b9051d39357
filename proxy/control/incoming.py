"""What clients say of events, in either form, made into one: check, fold, hide, hash.

The flat form and the form with `payload` are the same event (events.md §2).  Known members are
checked and kept as they were sent; unknown ones go to `ext`.  Nothing here waits or stores.
"""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic import ValidationError as PydanticError

from proxy.control.problems import FieldError
from proxy.control.validation import Where, errors_of, field_of, pointer_of, unfit
from proxy.model.documents import Instant, Severity
from proxy.model.events import (
    CHANGE_TYPE,
    CLASSIFICATIONS,
    EVENT_ID,
    REQUEST_COMPLETED,
    ROUTE_ID,
    RUNTIME_TYPE,
    RUNTIME_TYPES,
    TYPE_OF_OUTCOME,
    NewEvent,
    change_severity,
    change_type,
    classification_of,
    derived,
    iso,
    parse_time,
)
from proxy.model.exchange import Json
from proxy.wire import jsonbody

Family = Literal["runtime", "change"]
EVENT_BYTES: Final = 64 * 1024
FUTURE_MS: Final = 300_000
Members = dict[str, Json]
WORD: Final = r"^[a-z][a-z0-9_]{0,63}$"

# members of the flat form that belong into `payload`
RUNTIME_PAYLOAD: Final = (
    "model", "provider", "latency_ms", "tokens", "cost", "ttft_ms", "user_id", "endpoint_id",
    "outcome", "status_code",
)  # fmt: skip
CHANGE_PAYLOAD: Final = (
    "change_id", "summary", "impact", "old_value", "new_value", "effective_date",
)  # fmt: skip
CHANGE_TOP: Final = ("source_url", "classification", "severity", "affected_assets")
# ours to say: ignored when sent, so that an event that was read can be sent again
READ_ONLY: Final = ("seq", "received_at", "source", "late")


def _date(value: str) -> str:
    if parse_time(f"{value}T00:00:00Z") is None:
        raise ValueError("must be a date, YYYY-MM-DD")
    return value


def _http(value: str) -> str:
    if not value.lower().startswith(("http://", "https://")) or any(c.isspace() for c in value):
        raise ValueError("must be an http or https URL")
    return value


Text = Annotated[str, StringConstraints(max_length=4096)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Date = Annotated[str, AfterValidator(_date), Field(json_schema_extra={"format": "date"})]
Amount = Annotated[float, Field(ge=0)]
Whole = Annotated[int, Field(ge=0)]


def _known(pattern: str, values: Iterable[str], max_length: int = 64) -> Any:
    """A word of an enumeration that may become longer."""
    known: Json = [*values]
    return Field(
        pattern=pattern, max_length=max_length, json_schema_extra={"x-extensible-enum": known}
    )


RuntimeType = Annotated[str, _known(RUNTIME_TYPE, RUNTIME_TYPES, 128)]
Outcome = Annotated[str, _known(WORD, TYPE_OF_OUTCOME)]
Classification = Annotated[str, _known(WORD, CLASSIFICATIONS)]


class _Open(BaseModel):
    """Known members are checked as they are, others are let through."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class TokensIn(_Open):
    input: Whole | None = None
    output: Whole | None = None
    cached_input: Whole | None = None
    cache_write_input: Whole | None = None
    reasoning: Whole | None = None
    total: Whole | None = None
    estimated: bool | None = None


class RuntimePayloadIn(_Open):
    """The members of payload R (events.md §3.2) that a client may send, those that are sent."""

    latency_ms: Amount | None = None
    tokens: TokensIn | None = None
    cost: Amount | None = None
    model: Name | None = None
    provider: Name | None = None
    ttft_ms: Amount | None = None
    user_id: Name | None = None
    endpoint_id: Name | None = None
    outcome: Outcome | None = None
    status_code: Annotated[int, Field(ge=100, le=999)] | None = None


class _EnvelopeIn(_Open):
    request_id: Name | None = None
    trace_id: Name | None = None
    policy_profile: Text | list[Name] | None = None
    schema_version: Literal["1.0"] = "1.0"
    ext: dict[str, object] | None = None


class RuntimeEventIn(_EnvelopeIn):
    event_id: Annotated[str, StringConstraints(pattern=EVENT_ID)]
    route_id: Annotated[str, StringConstraints(pattern=ROUTE_ID)]
    timestamp: Instant
    type: RuntimeType = REQUEST_COMPLETED
    payload: RuntimePayloadIn = Field(default_factory=RuntimePayloadIn)


class ChangePayloadIn(_Open):
    change_id: Name
    summary: Text | None = None
    impact: Text | None = None
    old_value: Text | None = None
    new_value: Text | None = None
    effective_date: Date | None = None


class ChangeEventIn(_EnvelopeIn):
    provider: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    event_id: Annotated[str, StringConstraints(pattern=EVENT_ID)] | None = None
    timestamp: Instant | None = None
    classification: Classification | None = None
    type: Annotated[str, StringConstraints(pattern=CHANGE_TYPE, max_length=128)] | None = None
    severity: Severity | None = None
    source_url: Annotated[str, StringConstraints(max_length=2048), AfterValidator(_http)] | None = (
        None
    )
    affected_assets: Annotated[list[Name], Field(max_length=200)] | None = None
    payload: ChangePayloadIn


@dataclass(slots=True)
class Read:
    """One item of a body: an event, or what is wrong with it."""

    index: int
    where: Where = ()
    event: NewEvent | None = None
    errors: list[FieldError] = field(default_factory=list)
    warnings: list[Json] = field(default_factory=list)
    event_id: str | None = None


@dataclass(slots=True, frozen=True)
class Reader:
    """Reads items for one workspace.  `routes` are those it has, for warnings."""

    family: Family
    workspace_id: str
    routes: frozenset[str]
    server_key: bytes
    now_ms: int

    def read(self, index: int, item: Json, where: Where) -> Read:
        """`where` is the item's place in the body."""
        errors = unfit(item, where)
        if errors:
            return Read(index, where, errors=errors)
        if not isinstance(item, dict):
            return Read(index, where, errors=[_error(where, "wrong_type", "must be an object")])
        found = Read(index, where, event_id=_shown(item.get("event_id")))
        members = {
            name: value
            for name, value in item.items()
            if name not in READ_ONLY and name != "workspace_id"
        }
        flat, mirrored = _FORMS[self.family]
        payload = _folded(members, flat, mirrored, where, found.errors)
        found.errors += self._check({**members, "payload": payload}, members, item, where)
        if found.errors:
            return found
        if not isinstance(payload, dict):
            raise AssertionError("the model has checked it")
        if self.family == "runtime":
            self._finish_runtime(members, payload, where, found)
        else:
            self._finish_change(members, payload, where, found)
        return found

    def _check(
        self, folded: Members, members: Members, sent: Members, where: Where
    ) -> list[FieldError]:
        model: type[BaseModel] = RuntimeEventIn if self.family == "runtime" else ChangeEventIn
        try:
            model.model_validate(folded)
        except PydanticError as fault:
            errors = list(errors_of(fault, folded))
            for error in errors:
                _place(error, sent, where)
            return errors
        if self.family == "change" and not (members.get("classification") or members.get("type")):
            place = (*where, "classification")
            return [_error(place, "missing", "is required unless type is given")]
        return []

    def _finish_runtime(
        self, members: Members, payload: Members, where: Where, found: Read
    ) -> None:
        at_ms = parse_time(str(members["timestamp"]))
        assert at_ms is not None, "the model has checked it"
        if at_ms > self.now_ms + FUTURE_MS:
            found.errors.append(_future(where))
            return
        body, ext = _split(members, _RUNTIME_TOP)
        self._hide_user(payload)
        self._hide_user(ext)
        body["timestamp"] = iso(at_ms)
        body["payload"] = payload
        _close(body, ext)
        content_hash = _hash(body)
        body.setdefault("type", REQUEST_COMPLETED)
        if body["route_id"] not in self.routes:
            found.warnings.append(_unknown_route(str(body["route_id"]), where))
        found.event = NewEvent(_ordered(body, _TOP), at_ms, content_hash)

    def _finish_change(self, members: Members, payload: Members, where: Where, found: Read) -> None:
        stamp = members.get("timestamp")
        at_ms = parse_time(stamp) if isinstance(stamp, str) else None
        if at_ms is not None and at_ms > self.now_ms + FUTURE_MS:
            found.errors.append(_future(where))
            return
        body, ext = _split(members, _CHANGE_TOP)
        if at_ms is not None:
            body["timestamp"] = iso(at_ms)
        self._hide_user(payload)
        self._hide_user(ext)
        body["payload"] = payload
        _close(body, ext)
        content_hash = _hash(body)
        at_ms = self.now_ms if at_ms is None else at_ms
        provider, change_id = str(body["provider"]), str(payload["change_id"])
        found.event_id = str(
            body.setdefault("event_id", derived("evt-", 20, self.workspace_id, provider, change_id))
        )
        body.setdefault("timestamp", iso(at_ms))
        if "type" not in body:
            body["type"] = change_type(str(body["classification"]))
        body.setdefault("classification", classification_of(str(body["type"])))
        body.setdefault(
            "severity",
            change_severity(
                str(body["classification"]),
                at_ms,
                old_value=_shown(payload.get("old_value")),
                new_value=_shown(payload.get("new_value")),
                effective_date=_shown(payload.get("effective_date")),
            ),
        )
        body.setdefault("affected_assets", [])
        for name in CHANGE_TOP:
            if name in body:
                payload[name] = body[name]
        found.event = NewEvent(_ordered(body, _TOP), at_ms, content_hash)

    def _hide_user(self, payload: Members) -> None:
        """SECURITY: who the user is stays with the client; only a keyed hash is stored."""
        user = payload.pop("user_id", None)
        if isinstance(user, str):
            digest = hmac.digest(self.server_key, user.encode(), hashlib.sha256)
            payload["user_id_hash"] = digest.hex()[:16]


_RUNTIME_TOP: Final = frozenset(RuntimeEventIn.model_fields) - {"ext", "payload"}
_CHANGE_TOP: Final = frozenset(ChangeEventIn.model_fields) - {"ext", "payload"}
_FORMS: Final[dict[Family, tuple[Sequence[str], Sequence[str]]]] = {
    "runtime": (RUNTIME_PAYLOAD, ()),
    "change": (CHANGE_PAYLOAD, CHANGE_TOP),
}
_TOP: Final = (
    "event_id", "type", "timestamp", "route_id", "provider", *CHANGE_TOP, "request_id", "trace_id",
    "policy_profile", "payload", "ext",
)  # fmt: skip


def _folded(
    members: Members,
    flat: Sequence[str],
    mirrored: Sequence[str],
    where: Where,
    errors: list[FieldError],
) -> Json:
    """Take `payload` out of `members` and put it together with the flat members.

    `mirrored` members belong at top level, and are taken out of `payload` where they stand there.
    """
    sent = members.pop("payload", None)
    if sent is not None and not isinstance(sent, dict):
        return sent  # the model says what is wrong
    payload = dict(sent or {})
    differs = "differs from the one in payload"
    for name in flat:
        if name in members:
            value = members.pop(name)
            if payload.setdefault(name, value) != value:
                errors.append(_error((*where, name), "conflicting_value", differs))
    for name in mirrored:
        if name in payload:
            value = payload.pop(name)
            if members.setdefault(name, value) != value:
                errors.append(_error((*where, name), "conflicting_value", differs))
    return _ordered(payload, flat)


def _ordered(members: Members, names: Sequence[str]) -> Members:
    """Known members first, in one order, so that both forms are stored alike."""
    first = {name: members[name] for name in names if name in members}
    return first | members


def _split(members: Members, known: frozenset[str]) -> tuple[Members, Members]:
    """(what we know, what goes to `ext`)"""
    body: Members = {
        name: value for name, value in members.items() if name in known and value is not None
    }
    body.pop("schema_version", None)
    profile = body.get("policy_profile")
    if isinstance(profile, list):
        body["policy_profile"] = ",".join(str(pack) for pack in profile)
    ext = members.get("ext")
    unknown = {
        name: value for name, value in members.items() if name not in known and name != "ext"
    }
    return body, ext | unknown if isinstance(ext, dict) else unknown


def _close(body: Members, ext: Members) -> None:
    if ext:
        body["ext"] = ext


def _hash(body: Members) -> bytes:
    """Over what the client said, folded, without what the server fills in."""
    return hashlib.sha256(jsonbody.dumps_sorted(body)).digest()


def _place(error: FieldError, sent: Members, where: Where) -> None:
    """Where a folded member stands in what was sent."""
    parts = error.field.split(".")
    inner = sent.get("payload")
    if parts[0] == "payload" and len(parts) > 1:
        nested = isinstance(inner, dict) and parts[1] in inner
        if not nested and (parts[1] in sent or not isinstance(inner, dict)):
            parts = parts[1:]
    elif parts[0] not in sent and isinstance(inner, dict) and parts[0] in inner:
        parts = ["payload", *parts]
    place = (*where, *parts)
    error.field, error.pointer = field_of(place), pointer_of(place)


def _error(where: Where, code: str, detail: str) -> FieldError:
    return FieldError(code, detail, field_of(where), pointer_of(where))


def _future(where: Where) -> FieldError:
    place = (*where, "timestamp")
    return _error(place, "timestamp_in_future", "is more than 300 seconds in the future")


def _unknown_route(route_id: str, where: Where) -> Json:
    return {
        "pointer": pointer_of((*where, "route_id")),
        "code": "unknown_reference",
        "detail": f"no route '{route_id[:64]}'",
    }


def _shown(value: Json) -> str | None:
    return value if isinstance(value, str) else None
