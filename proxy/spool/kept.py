"""Lines of class `api`: events of the API that were accepted while the store was away.

A line holds events of one request with all that they bring into the log: who sent them, when, for
how long they are recognised, and the record of the request's Idempotency-Key, if it had one.  Its
JSON is `["api", 1, workspace, source, dedupe_ttl_s, received_ms, [[at_ms, hash, body], …], idem]`,
framed as every line; a request whose events do not fit into one line has several, and the record
stands in the last.
"""

from binascii import crc32
from collections.abc import Iterator, Sequence
from typing import Any, Final

from proxy.model.batch import Idem
from proxy.model.events import Came, NewEvent
from proxy.model.exchange import Json
from proxy.spool.expand import BadLine, Expanded
from proxy.spool.record import framed
from proxy.wire import jsonbody

FORMAT: Final = ["api", 1]
LINE_BYTES: Final = 256 << 10  # about; a reader takes lines of four times that


def lines_of(workspace_id: str, came: Came, events: Sequence[NewEvent], idem: Idem | None) -> bytes:
    """The lines of one request.  Raises ValueError for text that is none."""
    head = jsonbody.dumps(
        [*FORMAT, workspace_id, came.source, came.dedupe_ttl_s, came.received_ms]
    )[:-1]
    last = b"null" if idem is None else jsonbody.dumps(_written(idem))
    parts = list(_parts(events))
    ends = [b"null"] * (len(parts) - 1) + [last]
    return b"".join(
        framed(b"%b,[%b],%b]" % (head, part, end)) for part, end in zip(parts, ends, strict=True)
    )


def _parts(events: Sequence[NewEvent]) -> Iterator[bytes]:
    found: list[bytes] = []
    held = 0
    for event in events:
        each = jsonbody.dumps([event.at_ms, event.content_hash.hex(), event.body])
        if found and held + len(each) > LINE_BYTES:
            yield b",".join(found)
            found, held = [], 0
        found.append(each)
        held += len(each)
    yield b",".join(found)


def read_line(line: bytes) -> Expanded:
    """A line, without its LF.  Raises BadLine."""
    body = line[9:]
    if line[8:9] != b" " or line[:8] != b"%08x" % crc32(body):
        raise BadLine("checksum")
    try:
        doc: Any = jsonbody.loads(body)
        if doc[:2] != FORMAT:
            raise BadLine("not of this version")
        workspace_id, source, ttl_s, received_ms, events, idem = doc[2:]
        came = Came(source, received_ms, ttl_s)
        found = [
            NewEvent(said, at_ms, bytes.fromhex(content_hash), came=came)
            for at_ms, content_hash, said in events
        ]
        return Expanded(workspace_id, found, idem=None if idem is None else _read(idem))
    except (TypeError, ValueError, KeyError, IndexError) as fault:
        raise BadLine(str(fault)) from fault


def _written(idem: Idem) -> list[Json]:
    return [
        idem.key.hex(), idem.fingerprint.hex(), idem.status, idem.headers.decode(),
        idem.body.decode(), idem.ttl_s,
    ]  # fmt: skip


def _read(said: Any) -> Idem:
    key, fingerprint, status, headers, body, ttl_s = said
    return Idem(
        bytes.fromhex(key), bytes.fromhex(fingerprint), status, headers.encode(), body.encode(),
        ttl_s,
    )  # fmt: skip
