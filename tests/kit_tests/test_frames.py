"""The kit's frames, judged by botocore."""

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer

from tests.kit.frames import (
    chunk,
    event,
    exception,
    message,
    read_messages,
    read_sse,
    spoilt_crc,
    spoilt_prelude,
    sse,
)

MESSAGES = [
    event("chunk", b'{"a": 1}'),
    exception("throttlingException", b'{"message": "slow down"}'),
    message({}, b""),
    message({":message-type": "event", "name": "h\u00e9"}, b"\x00" * 1000),
    chunk(b'{"type": "ping"}'),
]


@pytest.mark.parametrize("whole", MESSAGES)
def test_botocore_reads_what_the_kit_writes(whole: bytes) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(whole)
    (theirs,) = list(buffer)
    (ours,) = read_messages(whole)
    assert theirs.payload == ours.payload
    assert theirs.headers == ours.headers


@pytest.mark.parametrize("spoil", [spoilt_crc, spoilt_prelude])
def test_spoilt_messages_are_refused_by_both(spoil) -> None:  # type: ignore[no-untyped-def]
    whole = spoil(chunk(b"{}"))
    buffer = EventStreamBuffer()
    buffer.add_data(whole)
    with pytest.raises(ChecksumMismatch):
        list(buffer)
    with pytest.raises(ValueError, match="checksum"):
        read_messages(whole)


def test_a_cut_inside_a_message_is_told_at_every_byte() -> None:
    whole = chunk(b"{}")
    for end in range(1, len(whole)):
        with pytest.raises(ValueError, match="cut at"):
            read_messages(whole[:end])
    assert read_messages(b"") == []


def test_the_event_inside_a_chunk() -> None:
    first, second = read_messages(chunk(b"one") + chunk(b"two"))
    assert (first.inner, second.inner) == (b"one", b"two")


def test_sse_is_read_as_it_is_written() -> None:
    body = b": hb\n\n" + sse('{"a": 1}', "named") + sse("[DONE]") + b"data:x\r\ndata: y\r\n\r\n"
    assert [(found.name, found.data) for found in read_sse(body)] == [
        ("named", '{"a": 1}'),
        (None, "[DONE]"),
        (None, "x\ny"),
    ]
