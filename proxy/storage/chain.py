"""The hash chain of a log: `hash = sha256(prev_hash || the row without its hash)`.

A row that is changed, dropped or put in later breaks the chain (control-api.md §12.9).  Whoever
writes a row chains it to the end that it knows; an engine that other machines write to as well
finds the true end and chains the row anew (`follow`).
"""

import hashlib
from typing import Final

from proxy.model.exchange import Json
from proxy.wire import jsonbody

GENESIS: Final = "0" * 64
CHAINED_LOGS: Final = frozenset({"audit"})
Row = dict[str, Json]


def row_hash(row: Row) -> str:
    """The hash of a row, which tells of the row before it as well."""
    told = {name: value for name, value in row.items() if name != "hash"}
    return hashlib.sha256(str(row["prev_hash"]).encode() + jsonbody.dumps_sorted(told)).hexdigest()


def links(body: bytes) -> tuple[int, str, str]:
    """(seq, prev_hash, hash) of a row."""
    row = _read(body)
    seq = row["seq"]
    assert isinstance(seq, int), "we wrote it"
    return seq, str(row["prev_hash"]), str(row["hash"])


def follow(body: bytes, seq: int, head: str) -> bytes:
    """The same row as the one after `seq`, whose hash is `head`."""
    row = _read(body) | {"audit_id": f"aud-{seq + 1}", "seq": seq + 1, "prev_hash": head}
    return jsonbody.dumps({**row, "hash": row_hash(row)})


def _read(body: bytes) -> Row:
    row = jsonbody.loads(body)
    assert isinstance(row, dict), "we wrote it"
    return row
