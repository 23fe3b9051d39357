"""Plain lines in the log: kept as they came, told as every other event (storage.md §5)."""

import pytest

from proxy.model.exchange import Json
from proxy.model.records import RequestRecord
from proxy.spool.expand import BadLine, events_of
from proxy.spool.packed import read_line, stored, unpacked
from proxy.spool.record import framed, line_of
from proxy.wire import jsonbody
from tests.kit.spool import AT_MS, a_blocked_record, a_failover_record, a_record

STAMP = ["1.0", "2024-03-15T14:30:02Z", "proxy/n1/0"]


def kept(line: bytes) -> bytes:
    (event,) = read_line(line).events
    return stored(event, jsonbody.dumps(STAMP))


PLAIN = [
    a_record(),
    a_record(7, "acme"),
    a_record(model=None, provider=None, trace_id="t", ttft_ms=12.5),
    a_record(scanned_chars=5, total_chars=9, flagged=True, dropped=["n"]),
]


@pytest.mark.parametrize("record", PLAIN)
def test_a_plain_line_is_kept_as_it_came_and_told_in_full(record: RequestRecord) -> None:
    line = line_of(record)[:-1]
    assert line[9:] in kept(line)
    full = events_of(line)
    assert jsonbody.loads(unpacked(kept(line))) == {
        **full.events[0].body,
        "workspace_id": full.workspace_id,
        "schema_version": "1.0",
        "received_at": "2024-03-15T14:30:02Z",
        "source": "proxy/n1/0",
    }


@pytest.mark.parametrize("record", PLAIN)
def test_it_is_searched_by_what_it_tells(record: RequestRecord) -> None:
    line = line_of(record)[:-1]
    packed, full = read_line(line), events_of(line)
    assert (packed.workspace_id, packed.events[0].at_ms) == (full.workspace_id, AT_MS + 1250)
    told, searched = full.events[0].body, packed.events[0].body
    payload, inner = told["payload"], searched["payload"]
    assert isinstance(payload, dict)
    assert isinstance(inner, dict)
    assert {name: told[name] for name in searched if name != "payload"} == {
        name: value for name, value in searched.items() if name != "payload"
    }
    assert {name: payload[name] for name in inner} == inner


@pytest.mark.parametrize("record", [a_blocked_record(), a_failover_record()])
def test_what_is_more_than_a_success_is_expanded_at_once(record: RequestRecord) -> None:
    line = line_of(record)[:-1]
    assert read_line(line) == events_of(line)
    assert not any(event.packed for event in read_line(line).events)


def test_other_events_are_kept_as_objects() -> None:
    assert unpacked(b'{"event_id":"evt-1"}') == b'{"event_id":"evt-1"}'


def forged(at: int, value: Json) -> bytes:
    doc = jsonbody.loads(line_of(a_record())[9:])
    assert isinstance(doc, list)
    doc[at] = value
    return framed(jsonbody.dumps(doc))[:-1]


@pytest.mark.parametrize(("at", "value"), [(1, 7), (2, None), (4, "soon"), (6, ["r"])])
def test_a_line_that_cannot_be_searched_is_bad(at: int, value: Json) -> None:
    with pytest.raises(BadLine):
        read_line(forged(at, value))


@pytest.mark.parametrize(("at", "value"), [(7, "slow"), (8, [1]), (17, None), (17, [[]])])
def test_a_line_that_makes_no_event_is_told_by_what_it_is_searched_by(at: int, value: Json) -> None:
    told = jsonbody.loads(unpacked(kept(forged(at, value))))
    assert isinstance(told, dict)
    assert (told["event_id"], told["type"]) == ("evt-1", "runtime.request.completed")
    assert told["timestamp"] == "2024-03-15T14:30:01.250Z"
