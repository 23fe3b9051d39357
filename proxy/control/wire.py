"""Lists on the wire: pages, order, filters, cursors, `Link` (control-api.md §8).

Documents are filtered, ordered and cut here, over what the store's `scan` gives, so that every
engine answers alike.  Logs are ordered by `seq` alone and can be walked by a signed cursor.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, TypeVar
from urllib.parse import quote

from pydantic import BeforeValidator, Field

from proxy.control.frame import Passage, Query, Reply
from proxy.control.problems import FieldError, Problem, invalid
from proxy.model.documents import SEVERITY_RANK
from proxy.model.documents import Instant as Instant
from proxy.model.events import parse_time
from proxy.model.exchange import Json
from proxy.wire import jsonbody

DEFAULT_LIMIT: Final = 25
MAX_LIMIT: Final = 100
LOG_WINDOW: Final = 10_000  # beyond it a log is walked by cursor
CURSOR_S: Final = 24 * 3600
Item = TypeVar("Item")


def _digits(value: object) -> object:
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        raise ValueError("must be an integer")
    return value


Count = Annotated[int, BeforeValidator(_digits)]


class ListQuery(Query):
    """What every list takes.  `sorts`: what it can be ordered by, where no kind says it."""

    sorts: ClassVar[tuple[str, ...]] = ()

    page: Count = Field(1, ge=1, le=1_000_000_000)
    limit: Count = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    sort: str | None = Field(None, max_length=256)


def within(at: Json, since: str | None, until: str | None) -> bool:
    """Whether a time lies in [since, until); what has no time lies nowhere but in all times."""
    if since is None and until is None:
        return True
    at_ms = parse_time(at) if isinstance(at, str) else None
    if at_ms is None:
        return False
    since_ms = parse_time(since) if since else None
    until_ms = parse_time(until) if until else None
    return (since_ms is None or at_ms >= since_ms) and (until_ms is None or at_ms < until_ms)


@dataclass(slots=True, frozen=True)
class Order:
    field: str
    descending: bool


def read_sort(text: str | None, allowed: Sequence[str], default: Order) -> list[Order]:
    """`field:dir[,field:dir]`.  Raises Problem 422 with what is allowed."""
    if text is None:
        return [default]
    orders: list[Order] = []
    for part in text.split(","):
        field, _, direction = part.partition(":")
        if field not in allowed or direction not in ("", "asc", "desc"):
            error = FieldError(
                "unknown_value",
                "must be field:asc or field:desc",
                "sort",
                place="query",
                extra={"allowed": [*allowed]},
            )
            raise invalid([error])
        orders.append(Order(field, direction == "desc"))
    return orders


def arranged(
    items: Iterable[Item],
    orders: Sequence[Order],
    value_of: Callable[[Item, str], Json],
) -> list[Item]:
    """In order, severities by rank, nulls last in both directions, ties by id."""
    found = sorted(items, key=lambda item: str(value_of(item, "id")))
    for order in reversed(orders):
        present = [item for item in found if value_of(item, order.field) is not None]
        absent = [item for item in found if value_of(item, order.field) is None]
        present.sort(key=_key(order.field, value_of), reverse=order.descending)
        found = present + absent
    return found


def _key(field: str, value_of: Callable[[Item, str], Json]) -> Callable[[Item], float | str]:
    def of(item: Item) -> float | str:
        value = value_of(item, field)
        if field == "severity":
            return SEVERITY_RANK.get(str(value), -1)
        if isinstance(value, str) and field.endswith("_at"):
            return value.removesuffix("Z")  # or a fraction would come before the whole second
        return value if isinstance(value, (int, float)) else str(value)

    return of


def whole(item: dict[str, Json]) -> dict[str, Json]:
    """A list that shows all of each document."""
    return item


def page_reply(
    passage: Passage,
    query: ListQuery,
    items: Sequence[Item],
    listed: Callable[[Item], dict[str, Json]],
) -> Reply:
    """One page of documents that are all at hand.  `listed`: what a list shows of one."""
    total = len(items)
    first = (query.page - 1) * query.limit
    pages = -(-total // query.limit)
    doc: dict[str, Json] = {
        "data": [listed(item) for item in items[first : first + query.limit]],
        "page": query.page,
        "limit": query.limit,
        "total": total,
        "total_pages": pages,
    }
    headers = {"X-Total-Count": str(total), "Link": page_links(passage, query.page, pages)}
    return Reply.json(200, doc, headers)


def page_links(passage: Passage, page: int, pages: int | None, *, following: bool = False) -> str:
    """`Link` of a numbered page; `pages` None: the end is not known or has no number, so there is
    no `last`, and a `next` only if there is a `following` page."""
    links = [("first", 1)]
    if page > 1:
        links.append(("prev", page - 1))
    if pages is not None:
        if page < pages:
            links.append(("next", page + 1))
        if pages:
            links.append(("last", pages))
    elif following:
        links.append(("next", page + 1))
    return ", ".join(
        f'<{_address(passage, {"page": str(number)})}>; rel="{rel}"' for rel, number in links
    )


def cursor_links(passage: Passage, cursor: str | None) -> str:
    """`Link` of a page that was reached by cursor: the way back to the start, and on."""
    links = [f'<{_address(passage, {})}>; rel="first"']
    if cursor is not None:
        links.append(f'<{_address(passage, {"cursor": cursor})}>; rel="next"')
    return ", ".join(links)


def _address(passage: Passage, position: Mapping[str, str]) -> str:
    """This request's URL at another position, all other parameters kept."""
    url = passage.request.rel_url
    kept = [(name, value) for name, value in url.query.items() if name not in ("page", "cursor")]
    pairs = [*kept, *position.items()]
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    return f"{_base(passage)}{url.raw_path}" + (f"?{query}" if query else "")


def _base(passage: Passage) -> str:
    host = passage.request.headers.get("Host", "")
    if host and host in passage.config.control.allowed_hosts:
        return f"{passage.request.scheme}://{host}"
    return passage.config.public_url


def make_cursor(key: bytes, scope: str, seq: int, now_ms: int) -> str:
    """An opaque position in one list, good for 24 hours and for that list alone."""
    position: Json = [seq, now_ms // 1000 + CURSOR_S]
    body = jsonbody.dumps(position)
    return base64.urlsafe_b64encode(_tag(key, scope, body) + body).decode().rstrip("=")


def read_cursor(key: bytes, scope: str, cursor: str, now_ms: int) -> int:
    """The `seq` in a cursor.  Raises Problem 422 when it is forged, foreign or too old."""
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except (binascii.Error, ValueError):
        raw = b""
    tag, body = raw[:16], raw[16:]
    # SECURITY: nothing in a cursor is believed before its signature is checked.
    if not hmac.compare_digest(tag, _tag(key, scope, body)):
        raise _bad_cursor("does not belong to this list")
    position = jsonbody.loads(body)
    assert isinstance(position, list), "we signed it"
    seq, expires_s = position
    assert isinstance(seq, int), "we signed it"
    assert isinstance(expires_s, int), "we signed it"
    if expires_s * 1000 < now_ms:
        raise _bad_cursor("is older than 24 hours")
    return seq


def _tag(key: bytes, scope: str, body: bytes) -> bytes:
    return hmac.digest(key, f"cursor\0{scope}\0".encode() + body, hashlib.sha256)[:16]


def _bad_cursor(detail: str) -> Problem:
    return invalid([FieldError("invalid_cursor", detail, "cursor", place="query")])
