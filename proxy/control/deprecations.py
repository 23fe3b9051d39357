"""Members and parameters on their way out: what the description says of them, and what a request
that still uses one is told (control-api.md §11, RFC 9745, RFC 8594).

To deprecate something, add a row to `DEPRECATED`, an entry to `data/changelog.json` and a line to
CHANGELOG.md.  A row stays at least 90 days before what it names may go.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from email.utils import format_datetime
from typing import Final, Literal

from proxy.model.exchange import Json
from proxy.wire import jsonbody

CHANGELOG_LINK: Final = '</v1/changelog>; rel="deprecation"'
NOTICE_DAYS: Final = 90


@dataclass(slots=True, frozen=True)
class Deprecated:
    """One member or parameter.

    `pointer` is a JSON Pointer into the body (`*` is every item of a list), or the name of a
    parameter.  `use` is what replaces it, `removed_in` the version without it, `sunset` the day
    from which it may be gone: at least 90 days after `since`.
    """

    operation_id: str
    place: Literal["body", "query"]
    pointer: str
    use: str
    since: date
    removed_in: str
    sunset: date

    def __post_init__(self) -> None:
        if (self.sunset - self.since).days < NOTICE_DAYS:
            raise ValueError(f"{self.pointer}: {NOTICE_DAYS} days of notice are promised")

    @property
    def text(self) -> str:
        """The first line of its description."""
        return f"DEPRECATED: Use {self.use} instead. Will be removed in v{self.removed_in}"

    @property
    def path(self) -> tuple[str, ...]:
        steps = self.pointer.split("/")[1:] if self.place == "body" else [self.pointer]
        return tuple(step.replace("~1", "/").replace("~0", "~") for step in steps)

    def warning(self) -> Json:
        where: dict[str, Json] = (
            {"pointer": f"#{self.pointer}"} if self.place == "body" else {"parameter": self.pointer}
        )
        return {**where, "code": "deprecated", "detail": self.text}


DEPRECATED: Final[tuple[Deprecated, ...]] = ()


def used(
    table: Sequence[Deprecated], operation_id: str, query: Mapping[str, object], body: Json
) -> list[Deprecated]:
    """What of the table a request uses."""
    return [
        each
        for each in table
        if each.operation_id == operation_id
        and (each.pointer in query if each.place == "query" else any(_holders(body, each.path)))
    ]


def _holders(value: Json, path: tuple[str, ...]) -> Iterator[bool]:
    """True for each place that the path leads to."""
    if not path:
        yield True
        return
    step, rest = path[0], path[1:]
    if isinstance(value, dict) and step in value:
        yield from _holders(value[step], rest)
    elif isinstance(value, list) and step == "*":
        for item in value:
            yield from _holders(item, rest)


def named_in(
    table: Sequence[Deprecated], operation_id: str, query: Mapping[str, object], body: bytes
) -> list[Deprecated]:
    """The same of a request as it came; a body that is not one JSON text uses nothing."""
    if not any(each.operation_id == operation_id for each in table):
        return []
    try:
        sent = jsonbody.loads(body) if body else None
    except ValueError:
        sent = None
    return used(table, operation_id, query, sent)


def warned(body: bytes, found: Sequence[Deprecated]) -> bytes:
    """The answer, an object, with what is deprecated among its warnings."""
    doc = jsonbody.loads(body)
    if not isinstance(doc, dict):
        return body
    before = doc.get("warnings")
    told = [*(before if isinstance(before, list) else []), *(each.warning() for each in found)]
    return jsonbody.dumps({**doc, "warnings": told})


def headers_of(found: Sequence[Deprecated]) -> dict[str, str]:
    """`Deprecation` is the earliest day of those used, `Sunset` the first after which one goes."""
    if not found:
        return {}
    return headers_for(min(each.since for each in found), min(each.sunset for each in found))


def headers_for(since: date, sunset: date) -> dict[str, str]:
    return {
        "Deprecation": f"@{int(_midnight(since).timestamp())}",
        "Sunset": format_datetime(_midnight(sunset), usegmt=True),
        "Link": CHANGELOG_LINK,
    }


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
