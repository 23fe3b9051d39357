"""Reading a log: entries by `seq`, and filters over what each entry is searched by.

Redis has no index for a filter, so the entries between the bounds are read in chunks and looked at
here, 50,000 at most; beyond that the page is partial.  Without a filter nothing is looked at: `seq`
has no gaps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from proxy.model.batch import LogFilter, LogPage, StoredEvent
from proxy.storage.redis.keys import Keys
from proxy.storage.redis.server import Server
from proxy.wire import jsonbody

READ_ENTRIES: Final = 50_000  # by one question; above it the page is partial
PAGE_ENTRIES: Final = 1_000
CHUNK_ENTRIES: Final = 250  # in one answer: it must arrive within the time-out
ROLLUP_ROWS: Final = 200_000
ROLLUP_FIELDS: Final = 2_000  # in one answer
SCAN_FIELDS: Final = 100  # in one answer; a document may be large

Entry = tuple[bytes, list[bytes]]  # id, names and values in turn
SEARCHED: Final = 5
BODY: Final = 7


@dataclass(slots=True, frozen=True)
class Bounds:
    """Defaults are what runs; tests make them small."""

    read_entries: int = READ_ENTRIES
    chunk_entries: int = CHUNK_ENTRIES


DEFAULT: Final = Bounds()


async def documents(server: Server, keys: Keys, kind: str) -> list[tuple[str, int, bytes]]:
    """All of a kind, by id.  A document that changes meanwhile is seen before or after."""
    found = await fields_of(server, keys.documents(kind), SCAN_FIELDS)
    rows = [(doc_id.decode(), *document_of(value)) for doc_id, value in found.items()]
    return sorted(rows)


async def fields_of(server: Server, name: bytes, count: int) -> dict[bytes, bytes]:
    """A hash, piece by piece.  A field that changes meanwhile is seen before or after."""
    cursor, found = b"0", dict[bytes, bytes]()
    while True:
        cursor, some = await server.call("HSCAN", name, cursor, "COUNT", count)
        found |= zip(some[::2], some[1::2], strict=True)
        if cursor == b"0":
            return found


def document_of(value: bytes) -> tuple[int, bytes]:
    """(revision, body)"""
    revision, _, body = value.partition(b":")
    return int(revision), body


def seq_of(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


async def page(
    server: Server, keys: Keys, log: str, query: LogFilter, bounds: Bounds = DEFAULT
) -> LogPage:
    """Entries that fit, in order of `seq`."""
    stream = keys.log(log)
    head, oldest = await server.together(
        ("GET", keys.seq(log)), ("XRANGE", stream, "-", "+", "COUNT", 1)
    )
    if not oldest:
        return LogPage([], 0)
    low = max(seq_of(oldest[0][0]), (query.after_seq or 0) + 1)
    high = int(head)
    if query.before_seq is not None:
        high = min(high, query.before_seq - 1)
    search = _Search(query)
    limit = max(0, min(query.limit, PAGE_ENTRIES))
    if search.looks:
        return await _searched(server, stream, query, search, low, high, limit, bounds)
    total = max(0, high - low + 1)
    if query.newest_first:
        high -= query.offset
    else:
        low += query.offset
    found: list[Entry] = []
    if limit and low <= high:
        found = await _read(server, stream, low, high, limit, newest_first=query.newest_first)
    entries = [StoredEvent(seq_of(entry_id), fields[BODY]) for entry_id, fields in found]
    more = len(entries) == limit and bool(entries) and total > query.offset + len(entries)
    return LogPage(entries, total, entries[-1].seq if more else None)


async def _searched(
    server: Server,
    stream: bytes,
    query: LogFilter,
    search: "_Search",
    low: int,
    high: int,
    limit: int,
    bounds: Bounds,
) -> LogPage:
    """Chunk by chunk from one end to the other."""
    entries: list[StoredEvent] = []
    matches = read = 0
    while low <= high:
        if read >= bounds.read_entries:
            edge = high + 1 if query.newest_first else low - 1
            onward = entries[-1].seq if entries and len(entries) == limit else edge
            return LogPage(entries, None, onward, partial=True)
        chunk = await _read(
            server, stream, low, high, bounds.chunk_entries, newest_first=query.newest_first
        )
        if not chunk:
            break
        for entry_id, fields in chunk:
            if search.fits(fields[SEARCHED]):
                matches += 1
                if matches > query.offset and len(entries) < limit:
                    entries.append(StoredEvent(seq_of(entry_id), fields[BODY]))
        read += len(chunk)
        last = seq_of(chunk[-1][0])
        low, high = (low, last - 1) if query.newest_first else (last + 1, high)
    more = bool(entries) and len(entries) == limit and matches > query.offset + len(entries)
    return LogPage(entries, matches, entries[-1].seq if more else None)


async def _read(
    server: Server, stream: bytes, low: int, high: int, count: int, *, newest_first: bool
) -> list[Entry]:
    """At most `count` entries, over as many answers as it takes."""
    found: list[Entry] = []
    while len(found) < count and low <= high:
        wanted = min(CHUNK_ENTRIES, count - len(found))
        first, last = (high, low) if newest_first else (low, high)
        command = "XREVRANGE" if newest_first else "XRANGE"
        chunk = await server.call(command, stream, f"{first}-0", f"{last}-0", "COUNT", wanted)
        found += chunk
        if len(chunk) < wanted:
            break
        end = seq_of(chunk[-1][0])
        low, high = (low, end - 1) if newest_first else (end + 1, high)
    return found


class _Search:
    """A filter over what an entry is searched by (`encode.entry_fields`)."""

    def __init__(self, query: LogFilter) -> None:
        self._since, self._until = query.since_ms, query.until_ms
        places: list[tuple[int, Sequence[object] | None]] = [
            (3, query.route_ids),
            (4, query.providers),
            (5, query.models),
            (6, query.severities),
            (7, query.outcomes),
            (8, query.request_ids),
            (9, query.incident_ids),
        ]
        self._any_of = [
            (place, frozenset(values)) for place, values in places if values is not None
        ]
        single = [values[0] for _, values in places if values is not None and len(values) == 1]
        # every entry that fits has this text; most of the others are not even parsed
        self._needle = max(map(jsonbody.dumps, single), key=len, default=b"")
        self._types = query.types
        self._exact = frozenset(query.types or ())
        self._below = tuple(one[:-1] for one in query.types or () if one.endswith(".*"))
        timed = self._since is not None or self._until is not None
        self.looks = bool(self._any_of) or self._types is not None or timed

    def fits(self, searched: bytes) -> bool:
        if self._needle not in searched:
            return False
        said = jsonbody.loads(searched)
        assert isinstance(said, list), "we wrote it"
        at_ms, kind = said[0], said[1]
        assert isinstance(at_ms, int), "we wrote it"
        assert isinstance(kind, str), "we wrote it"
        return (
            all(said[place] in values for place, values in self._any_of)
            and (
                self._types is None
                or kind in self._exact
                or kind.startswith(self._below or ("\0",))
            )
            and (self._since is None or at_ms >= self._since)
            and (self._until is None or at_ms < self._until)
        )


async def rollup(
    server: Server, keys: Keys, since_minute: int, until_minute: int
) -> list[tuple[int, str, int, int]]:
    """(minute, series, counter, n), half-open, by minute.  Raises StoreUnavailable."""
    hours = await server.call(
        "ZRANGEBYSCORE", keys.rollups(), since_minute // 60, (until_minute - 1) // 60
    )
    rows: list[tuple[int, str, int, int]] = []
    for hour in hours:
        sums = await fields_of(server, keys.rollup(int(hour)), ROLLUP_FIELDS)
        for field, n in sums.items():
            minute, counter, series = field.decode().split("/", 2)
            if since_minute <= int(minute) < until_minute:
                rows.append((int(minute), series, int(counter), int(n)))
        if len(rows) > ROLLUP_ROWS:
            break
    return sorted(rows)[:ROLLUP_ROWS]
