"""Workspaces out of a Redis and into one (`storage/moving.py`).

Rows are loaded beside the workspace, under keys of their own, and take its place in one transaction
of the server: an import that was interrupted has changed nothing, and the next one begins anew.  An
export is not of one moment while other machines write.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from redis import exceptions as fault

from proxy.model.batch import Append
from proxy.model.events import EVENTS_LOG
from proxy.model.ports import Clock
from proxy.storage.chain import CHAINED_LOGS, links
from proxy.storage.moving import (
    Deleted,
    Document,
    Entry,
    Head,
    MovingFault,
    Position,
    Recognition,
    Record,
    Row,
    Sum,
    Waiting,
)
from proxy.storage.redis.client import new_bulk_client
from proxy.storage.redis.encode import counter_of, entry_fields, member_of, pair_of
from proxy.storage.redis.keys import BEHIND, WORKSPACES, Keys, number_of
from proxy.storage.redis.outbox import FIELDS, row_of
from proxy.storage.redis.query import BODY, SEARCHED, document_of, seq_of
from proxy.wire import jsonbody

READ: Final = 500  # in one answer
WRITTEN: Final = 1_000  # commands sent at once
RECEIVED: Final = 1


class RedisServerAt:
    """`Movable` over the server at `url`."""

    def __init__(self, url: str, clock: Clock) -> None:
        try:
            self._client = new_bulk_client(url)
        except ValueError as why:
            raise MovingFault(str(why)) from why
        self._clock = clock

    def dump(self, workspace_id: str, *, records: bool) -> Iterator[Row]:
        with self._asking():
            yield from _Dump(self._client, Keys(workspace_id), self._clock.now_ms()).rows(
                records=records
            )

    def load(self, workspace_id: str, rows: Iterable[Row], *, replace: bool) -> None:
        with self._asking():
            _Load(self._client, workspace_id, self._clock.now_ms()).run(rows, replace=replace)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except fault.RedisError as why:
            raise MovingFault(f"Redis: {why}") from why
        finally:
            self._client.close()


class _Dump:
    def __init__(self, client: Any, keys: Keys, now_ms: int) -> None:
        self._client = client
        self._keys = keys
        self._now_ms = now_ms

    def rows(self, *, records: bool) -> Iterator[Row]:
        keys = self._keys
        for kind in self._members(keys.kinds()):
            yield from self._documents(kind)
        for member, revision in sorted(self._hash(keys.gone())):
            kind, _, doc_id = member.decode().partition("\0")
            at_ms = self._ask("ZSCORE", keys.gone_at(), member)
            yield Deleted(kind, doc_id, int(revision), int(float(at_ms or self._now_ms)))
        for log in self._members(keys.logs()):
            seq = int(self._ask("GET", keys.seq(log)) or 0)
            yield from self._entries(log, seq)
            yield Head(log, seq)
        yield from self._outbox()
        for name, value in sorted(self._hash(keys.cursors())):
            yield Position(name.decode(), int(value))
        yield from self._sums()
        yield from self._recognitions()
        if records:
            yield from self._records()

    def _documents(self, kind: str) -> Iterator[Row]:
        held = dict(self._hash(self._keys.held(kind)))
        for doc_id, value in sorted(self._hash(self._keys.documents(kind))):
            revision, body = document_of(value)
            said = jsonbody.loads(held.get(doc_id, b"[]"))
            assert isinstance(said, list), "we wrote it"
            pairs = sorted(str(pair).split("\0", 1) for pair in said)
            unique = tuple((name, value) for name, value in pairs)
            yield Document(kind, doc_id.decode(), revision, body, unique)

    def _entries(self, log: str, head: int) -> Iterator[Row]:
        after = 0
        while True:
            found = self._ask(
                "XRANGE", self._keys.log(log), f"{after + 1}-0", f"{head}-0", "COUNT", READ
            )
            for entry_id, parts in found:
                after = seq_of(entry_id)
                said: Any = jsonbody.loads(parts[SEARCHED])
                at_ms, kind, event_id, route, provider, model, severity, outcome, *ids = said
                yield Entry(
                    log, after, int(parts[RECEIVED]), at_ms, kind, event_id or None, route,
                    provider, model, severity, outcome, ids[0], ids[1], parts[BODY],
                )  # fmt: skip
            if len(found) < READ:
                return

    def _outbox(self) -> Iterator[Row]:
        keys = self._keys
        for number in map(int, self._ask("ZRANGE", keys.all_rows(), 0, -1)):
            said = self._ask("HMGET", keys.row(number), *FIELDS)
            if said[0] is None:
                continue
            row = row_of(number, said)
            yield Waiting(
                row.id, row.target, row.group, row.kind, row.payload, row.due_ms, row.attempts,
                row.token,
            )  # fmt: skip

    def _sums(self) -> Iterator[Row]:
        for hour in self._ask("ZRANGE", self._keys.rollups(), 0, -1):
            rows = []
            for field, n in self._hash(self._keys.rollup(int(hour))):
                minute, counter, series = field.decode().split("/", 2)
                rows.append((int(minute), series, int(counter), int(n)))
            yield from (Sum(*row) for row in sorted(rows))

    def _recognitions(self) -> Iterator[Row]:
        for name in sorted(self._named(self._keys.recognitions())):
            value = self._ask("GET", name)
            if value is None:
                continue
            expires, seq, received, content = value.decode().split(":")
            if int(expires) > self._now_ms:
                key = bytes.fromhex(name.decode().rpartition(":")[2])
                yield Recognition(
                    key, int(seq), bytes.fromhex(content), int(received), int(expires)
                )

    def _records(self) -> Iterator[Row]:
        for name in sorted(self._named(self._keys.records())):
            said = self._ask("HMGET", name, "x", "f", "s", "h", "b")
            expires, fingerprint, status, headers, body = said
            if expires is not None and int(expires) > self._now_ms:
                key = bytes.fromhex(name.decode().rpartition(":")[2])
                yield Record(key, fingerprint, int(status), headers, body, int(expires))

    def _ask(self, *command: Any) -> Any:
        return self._client.execute_command(*command)

    def _members(self, name: bytes) -> list[str]:
        return sorted(each.decode() for each in self._ask("SMEMBERS", name))

    def _hash(self, name: bytes) -> list[tuple[bytes, bytes]]:
        found: dict[bytes, bytes] = {}
        for some in _scanned(lambda at: self._ask("HSCAN", name, at, "COUNT", READ)):
            found |= zip(some[::2], some[1::2], strict=True)
        return list(found.items())

    def _named(self, pattern: str) -> set[bytes]:
        return _matching(self._client, pattern)


class _Load:
    def __init__(self, client: Any, workspace_id: str, now_ms: int) -> None:
        self._client = client
        self._workspace_id = workspace_id
        self._now_ms = now_ms
        self._keys = Keys(workspace_id, staged=True)
        self._waiting: list[tuple[Any, ...]] = []
        self._groups: set[bytes] = set()  # of the outbox, with a row before the next one

    def run(self, rows: Iterable[Row], *, replace: bool) -> None:
        place = Keys(self._workspace_id)
        staged = _matching(self._client, self._keys.everything())
        self._drop(staged)  # what an interrupted import left
        there = _matching(self._client, place.everything()) - staged
        there -= {place.lease(), place.lease_token()}
        alive = {place.kinds(), place.gone(), place.logs(), place.cursors(), place.rollups()}
        if there & alive and not replace:
            raise MovingFault(
                f"workspace {self._workspace_id} is not empty; --replace puts the file in its place"
            )
        try:
            for row in rows:
                self._write(row)
                if len(self._waiting) >= WRITTEN:
                    self._send()
            self._send()
        except BaseException:
            self._drop(_matching(self._client, self._keys.everything()))
            raise
        self._switch(place, there)

    def _switch(self, place: Keys, there: set[bytes]) -> None:
        """The one moment at which the workspace changes."""
        before, after = self._keys.everything()[:-1].encode(), place.everything()[:-1].encode()
        with self._client.pipeline(transaction=True) as pipe:
            for name in there:
                pipe.execute_command("UNLINK", name)
            for name in _matching(self._client, self._keys.everything()):
                pipe.execute_command("RENAME", name, after + name.removeprefix(before))
            pipe.execute_command("SADD", WORKSPACES, self._workspace_id)
            answers = pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, fault.ResponseError) and "no such key" not in str(answer):
                raise answer  # a key that is not there any more has just expired

    def _drop(self, names: set[bytes]) -> None:
        for name in names:
            self._client.execute_command("UNLINK", name)

    def _send(self) -> None:
        with self._client.pipeline(transaction=False) as pipe:
            for command in self._waiting:
                pipe.execute_command(*command)
            pipe.execute()
        self._waiting.clear()

    def _write(self, row: Row) -> None:
        keys, put = self._keys, self._waiting.append
        match row:
            case Document(kind, doc_id, revision, body, unique):
                put(("HSET", keys.documents(kind), doc_id, b"%d:%b" % (revision, body)))
                put(("SADD", keys.kinds(), kind))
                pairs = [pair_of(*pair) for pair in unique]
                for pair in pairs:
                    put(("HSET", keys.unique(kind), pair, doc_id))
                if pairs:
                    put(("HSET", keys.held(kind), doc_id, jsonbody.dumps(pairs)))
            case Deleted(kind, doc_id, revision, at_ms):
                put(("HSET", keys.gone(), member_of(kind, doc_id), revision))
                put(("ZADD", keys.gone_at(), at_ms, member_of(kind, doc_id)))
            case Entry():
                self._entry(row)
            case Head(log, seq):
                put(("SET", keys.seq(log), seq))
                put(("SADD", keys.logs(), log))
            case Waiting():
                self._post(row)
            case Position(name, value):
                put(("HSET", keys.cursors(), name, value))
            case Sum(minute, series, counter, n):
                hour = minute // 60
                put(("HSET", keys.rollup(hour), counter_of(minute, counter, series), n))
                put(("ZADD", keys.rollups(), hour, hour))
            case Recognition(key, seq, content, received, expires):
                memory = f"{expires}:{seq}:{received}:{content.hex()}"
                put(("SET", keys.dedupe(key), memory, "PX", self._left_ms(expires)))
            case Record(key, fingerprint, status, headers, body, expires):
                record = keys.idempotency(key)
                said = ("f", fingerprint, "s", status, "h", headers, "b", body, "x", expires)
                put(("HSET", record, *said))
                put(("PEXPIRE", record, self._left_ms(expires)))

    def _entry(self, row: Entry) -> None:
        keys, put = self._keys, self._waiting.append
        op = Append(
            row.log, row.body, row.event_id or "", at_ms=row.at_ms, type=row.type,
            route_id=row.route_id, provider=row.provider, model=row.model, severity=row.severity,
            outcome=row.outcome, request_id=row.request_id, incident_id=row.incident_id,
        )  # fmt: skip
        known, searched, body = entry_fields(op, row.received_ms)
        said = ("r", row.received_ms, "k", known, "m", searched, "b", body)
        put(("XADD", keys.log(row.log), f"{row.seq}-0", *said))
        if row.log == EVENTS_LOG and known:
            put(("HSET", keys.by_id(row.log), known, row.seq))
        if row.log in CHAINED_LOGS:
            put(("SET", keys.tip(row.log), links(row.body)[2]))

    def _post(self, row: Waiting) -> None:
        """Rows come by number: the first of a group is the one that may be claimed."""
        keys, put = self._keys, self._waiting.append
        values = (
            row.target, row.group, row.kind, row.payload, row.due_ms, row.attempts, "", row.token,
        )  # fmt: skip
        pairs = zip(FIELDS, values, strict=True)
        put(("HSET", keys.row(row.number), *(each for pair in pairs for each in pair)))
        member, group = number_of(row.number), keys.group(row.target, row.group)
        behind = group in self._groups
        if row.group:
            put(("ZADD", group, row.number, member))
            self._groups.add(group)
        put(("ZADD", keys.all_rows(), row.number, member))
        put(("ZADD", keys.waiting(), BEHIND if behind else row.due_ms, member))

    def _left_ms(self, expires_ms: int) -> int:
        return max(1, expires_ms - self._now_ms)


def _matching(client: Any, pattern: str) -> set[bytes]:
    found: set[bytes] = set()
    for some in _scanned(
        lambda at: client.execute_command("SCAN", at, "MATCH", pattern, "COUNT", 1000)
    ):
        found.update(some)
    return found


def _scanned(step: Callable[[bytes], tuple[bytes, list[bytes]]]) -> Iterator[list[bytes]]:
    cursor = b"0"
    while True:
        cursor, some = step(cursor)
        yield some
        if cursor == b"0":
            return
