"""A workspace as a file, the same from every engine (`parapet store export`, `import`).

JSON lines: a header, a row a line, and an end that counts the rows and has the SHA-256 of all lines
before it, so that half a file is not taken for a whole one.  Bytes are text where they are UTF-8,
else {"base64": …}.  Rows come in this order: documents, deletions, then each log with its entries
by `seq` and its head, then the outbox by number, cursors, sums, recognitions, idempotency records.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from proxy.model.exchange import Json
from proxy.wire import jsonbody

FORMAT: Final = "parapet-workspace"
VERSION: Final = 1
TOLD_EVERY: Final = 20_000
LINE_BYTES: Final = 256 << 20  # no row is larger


class MovingFault(Exception):
    """It cannot be done; the message is for the operator, and nothing has changed."""


@dataclass(slots=True, frozen=True)
class Document:
    kind: str
    id: str
    revision: int
    body: bytes
    unique: tuple[tuple[str, str], ...]


@dataclass(slots=True, frozen=True)
class Deleted:
    """So that its revision is not given twice."""

    kind: str
    id: str
    revision: int
    at_ms: int


@dataclass(slots=True, frozen=True)
class Entry:
    log: str
    seq: int
    received_ms: int
    at_ms: int
    type: str
    event_id: str | None
    route_id: str | None
    provider: str | None
    model: str | None
    severity: int | None
    outcome: str | None
    request_id: str | None
    incident_id: str | None
    body: bytes


@dataclass(slots=True, frozen=True)
class Head:
    """The last `seq` of a log, also of one whose entries are gone."""

    log: str
    seq: int


@dataclass(slots=True, frozen=True)
class Waiting:
    """A row of the outbox; whoever had claimed it has it no more.  `token`: the last one given."""

    number: int
    target: str
    group: str
    kind: str
    payload: bytes
    due_ms: int
    attempts: int
    token: int


@dataclass(slots=True, frozen=True)
class Position:
    name: str
    value: int


@dataclass(slots=True, frozen=True)
class Sum:
    minute: int
    series: str
    counter: int
    n: int


@dataclass(slots=True, frozen=True)
class Recognition:
    """`key`: recognition.event_key; `content`: the first 16 bytes of the content's hash."""

    key: bytes
    seq: int
    content: bytes
    received_ms: int
    expires_ms: int


@dataclass(slots=True, frozen=True)
class Record:
    """A finished idempotency record."""

    key: bytes
    fingerprint: bytes
    status: int
    headers: bytes
    body: bytes
    expires_ms: int


Row = Document | Deleted | Entry | Head | Waiting | Position | Sum | Recognition | Record
_NAMES: Final[dict[str, type[Row]]] = {
    "document": Document,
    "deleted": Deleted,
    "entry": Entry,
    "head": Head,
    "outbox": Waiting,
    "position": Position,
    "sum": Sum,
    "recognition": Recognition,
    "record": Record,
}
_NAME_OF: Final = {kind: name for name, kind in _NAMES.items()}
_BYTES: Final = {
    kind: frozenset(each.name for each in fields(kind) if each.type is bytes)
    for kind in _NAMES.values()
}


class Movable(Protocol):
    """What an engine offers: rows out, rows in.  Both block."""

    def dump(self, workspace_id: str, *, records: bool) -> Iterator[Row]:
        """Everything of a workspace; without `records` no idempotency records.  Raises
        MovingFault."""
        ...

    def load(self, workspace_id: str, rows: Iterable[Row], *, replace: bool) -> None:
        """All of it or nothing.  `replace`: what is there goes, else a workspace that has anything
        is refused.  Raises MovingFault."""
        ...


def write_file(
    file: BinaryIO, workspace_id: str, rows: Iterable[Row], told: Callable[[int], None]
) -> int:
    """How many rows."""
    digest, count = hashlib.sha256(), 0

    def write(doc: dict[str, Json]) -> None:
        line = jsonbody.dumps(doc) + b"\n"
        digest.update(line)
        file.write(line)

    write({"format": FORMAT, "version": VERSION, "workspace": workspace_id})
    for row in rows:
        write({_NAME_OF[type(row)]: _written(row)})
        count += 1
        if count % TOLD_EVERY == 0:
            told(count)
    write({"end": {"rows": count, "sha256": digest.hexdigest()}})
    return count


def check_file(path: Path) -> tuple[str, int]:
    """(workspace, rows) of a file that is whole.  Raises MovingFault."""
    digest, count, last = hashlib.sha256(), -1, b""
    workspace_id = ""
    with path.open("rb") as file:
        for line in iter(lambda: file.readline(LINE_BYTES), b""):
            if count < 0:
                workspace_id = _workspace_of(path, line)
            else:
                digest.update(last)
            last, count = line, count + 1
    end = _line(path, last).get("end") if count > 0 else None
    if end != {"rows": count - 1, "sha256": digest.hexdigest()}:
        raise MovingFault(f"{path} is not whole: its end or its checksum is wrong")
    return workspace_id, count - 1


def read_file(path: Path, told: Callable[[int], None]) -> Iterator[Row]:
    """The rows of a file that was checked.  Raises MovingFault for a row that is none."""
    with path.open("rb") as file:
        file.readline(LINE_BYTES)
        for count, line in enumerate(iter(lambda: file.readline(LINE_BYTES), b""), start=1):
            ((name, value),) = _line(path, line).items() or (("", None),)
            if name == "end":
                return
            yield _read(path, name, value)
            if count % TOLD_EVERY == 0:
                told(count)


def _workspace_of(path: Path, line: bytes) -> str:
    header = _line(path, line)
    workspace_id = header.get("workspace")
    if header.get("format") != FORMAT or not isinstance(workspace_id, str):
        raise MovingFault(f"{path} is not an export of a workspace")
    if header.get("version") != VERSION:
        raise MovingFault(f"{path} has version {header.get('version')}, this program {VERSION}")
    return workspace_id


def _line(path: Path, line: bytes) -> dict[str, Json]:
    try:
        doc = jsonbody.loads(line)
    except ValueError as why:
        raise MovingFault(f"{path} is not whole: {why}") from why
    if not isinstance(doc, dict):
        raise MovingFault(f"{path} is not an export of a workspace")
    return doc


def _written(row: Row) -> dict[str, Json]:
    doc: dict[str, Json] = {}
    for each in fields(row):
        value = getattr(row, each.name)
        doc[each.name] = _text(value) if isinstance(value, bytes) else value
    return doc


def _text(value: bytes) -> Json:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _read(path: Path, name: str, value: Json) -> Row:
    kind = _NAMES.get(name)
    if kind is None or not isinstance(value, dict):
        raise MovingFault(f"{path}: a row of an unknown sort, {name!r}")
    members: dict[str, Any] = dict(value)
    try:
        for member in _BYTES[kind]:
            members[member] = _bytes(members[member])
        if kind is Document:
            members["unique"] = tuple((str(a), str(b)) for a, b in members["unique"])
        return kind(**members)
    except (KeyError, TypeError, ValueError, binascii.Error) as why:
        raise MovingFault(f"{path}: a row that cannot be read, {why}") from why


def _bytes(value: Any) -> bytes:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else str(value).encode()
