"""The codecs: SSE and the AWS event stream, cut at every byte (T-W-18), and Claude's frames."""

import json

import pytest

from proxy.model.exchange import WireEvent
from proxy.wire.eventstream import BadFrame, FrameDecoder, encode_frame
from proxy.wire.providers.bedrock_stream import ClaudeFramer
from proxy.wire.sse import SseFramer, bare
from tests.wire.streams import GOLDEN, STREAMS, as_frames, events, frame, framed, recorded

SSE = json.loads((GOLDEN / "sse.json").read_text())["cases"]
FRAMES = json.loads((GOLDEN / "eventstream.json").read_text())


def told(found: list[WireEvent]) -> list[dict[str, str | None]]:
    return [
        {"event": event.name or None, "data": event.data.decode("utf-8", "replace")}
        for event in found
        if b"data" in event.raw  # comments come out too, for passing on
    ]


@pytest.mark.parametrize("case", SSE, ids=[case["name"] for case in SSE])
def test_sse_vectors_cut_anywhere(case: dict) -> None:
    data = bytes.fromhex(case["hex"])
    whole = events(data)
    assert told(whole) == case["events"]
    for cut in range(len(data) + 1):
        assert events(data, cut) == whole
    assert events(data, *range(len(data))) == whole


@pytest.mark.parametrize("name", STREAMS)
def test_recorded_streams_cut_anywhere(name: str) -> None:
    data = recorded(name)
    whole = events(data)
    assert b"".join(event.raw for event in whole) == data
    assert events(data, *range(len(data))) == whole
    for cut in range(0, len(data), 7):
        assert events(data, cut) == whole


def test_a_comment_is_passed_on_and_an_event_without_data_is_not() -> None:
    found = events(b": hb\n\nevent: ping\n\n\n\ndata: a\n\n")
    assert [event.raw for event in found] == [b": hb\n\n", b"data: a\n\n"]


def test_what_has_no_blank_line_counts_and_is_completed() -> None:
    framer = SseFramer()
    assert framer.feed(b"data: a") == []
    assert framer.pending == 7
    assert framer.finish() == [WireEvent("", b"a", b"data: a\n\n")]
    assert framer.pending == 0


@pytest.mark.parametrize("rest", [b"data", b"data:", b"data: ", b"event: end\ndata:", b"data:\n"])
def test_data_that_had_only_begun_to_come_is_no_event(rest: bytes) -> None:
    framer = SseFramer()
    assert framer.feed(rest) == []
    assert framer.finish() == []


@pytest.mark.parametrize("piece", [b"data: ", b"x", b"y\n", b"z\r"])
def test_an_event_has_a_limit(piece: bytes) -> None:
    framer = SseFramer(limit_bytes=100)
    with pytest.raises(ValueError, match="more than 100"):
        feed_often(framer, piece)


def feed_often(framer: SseFramer, piece: bytes) -> None:
    for _ in range(200):
        framer.feed(piece)


def test_a_large_event_costs_no_more_than_its_size() -> None:
    framer = SseFramer()
    for _ in range(500):
        framer.feed(b"x" * 16_000)
    assert framer.pending == 8_000_000


# --- the AWS event stream


@pytest.mark.parametrize("case", FRAMES["frames"], ids=[c["name"] for c in FRAMES["frames"]])
def test_frames_that_are_accepted(case: dict) -> None:
    (found,) = FrameDecoder().feed(bytes.fromhex(case["hex"]))
    shown = {k: {"hex": v.hex()} if isinstance(v, bytes) else v for k, v in found.headers.items()}
    assert (shown, found.payload.decode()) == (case["headers"], case["payload"])
    if all(isinstance(value, str) for value in case["headers"].values()):
        assert encode_frame(case["headers"], found.payload).hex() == case["hex"]


@pytest.mark.parametrize("case", FRAMES["invalid"], ids=[c["name"] for c in FRAMES["invalid"]])
def test_frames_that_are_refused(case: dict) -> None:
    with pytest.raises(BadFrame):
        FrameDecoder().feed(bytes.fromhex(case["hex"]))


def test_frames_cut_anywhere() -> None:
    data = bytes.fromhex(FRAMES["stream"]["hex"])
    whole = FrameDecoder().feed(data)
    assert len(whole) == len(FRAMES["stream"]["frames"])
    for cut in range(len(data) + 1):
        decoder = FrameDecoder()
        found = decoder.feed(data[:cut])
        ends = decoder.pending == 0
        assert found + decoder.feed(data[cut:]) == whole
        assert decoder.pending == 0
        if 0 < cut < len(data):
            assert ends == (len(found) > 0 and cut in _ends(data))


def _ends(data: bytes) -> set[int]:
    ends, at = set(), 0
    while at < len(data):
        at += int.from_bytes(data[at : at + 4], "big")
        ends.add(at)
    return ends


# --- Claude by InvokeModel


@pytest.mark.parametrize("name", [name for name in STREAMS if name.startswith("anthropic")])
def test_claude_frames_become_the_events_that_anthropic_sends(name: str) -> None:
    direct = [event for event in events(recorded(name)) if event.name != "ping"]
    data = as_frames(recorded(name))
    found = framed(ClaudeFramer(), data)
    assert [event.raw for event in found] == [event.raw for event in direct]
    assert b"inputTokenCount" in found[-1].data  # the usage stays for the reader
    for cut in range(0, len(data), 11):
        assert framed(ClaudeFramer(), data, cut) == found


def test_half_a_frame_at_the_end_is_pending() -> None:
    framer = ClaudeFramer()
    framer.feed(frame({"type": "ping"})[:-1])
    assert framer.pending > 0
    assert framer.finish() == []


# fmt: off
EXCEPTIONS = [
    # exception             original status   Anthropic's type
    ("throttlingException",         None, "rate_limit_error"),
    ("validationException",         None, "invalid_request_error"),
    ("serviceUnavailableException", None, "overloaded_error"),
    ("modelTimeoutException",       None, "api_error"),
    ("internalServerException",     None, "api_error"),
    ("modelStreamErrorException",   500,  "api_error"),
    ("modelStreamErrorException",   400,  "invalid_request_error"),
    ("somethingNewException",       None, "api_error"),
]
# fmt: on


@pytest.mark.parametrize(("name", "original", "kind"), EXCEPTIONS)
def test_exception_frames_become_errors_t_w_07(name: str, original: int | None, kind: str) -> None:
    headers = {":message-type": "exception", ":exception-type": name}
    body = json.dumps({"message": "said", "originalStatusCode": original}).encode()
    (event,) = ClaudeFramer().feed(encode_frame(headers, body))
    told = json.loads(event.data)
    assert event.name == "error"
    assert told == {"type": "error", "error": {"type": kind, "message": "said"}}
    assert event.raw == b"event: error\ndata: " + event.data + b"\n\n"


def test_an_exception_without_words_is_told_by_its_name() -> None:
    headers = {":message-type": "exception", ":exception-type": "throttlingException"}
    (event,) = ClaudeFramer().feed(encode_frame(headers, b"not json"))
    assert json.loads(event.data)["error"]["message"] == "throttlingException"


def test_an_error_frame_is_read_too() -> None:
    headers = {":message-type": "error", ":error-code": "InternalError", ":error-message": "bad"}
    (event,) = ClaudeFramer().feed(encode_frame(headers, b""))
    assert json.loads(event.data)["error"] == {"type": "api_error", "message": "bad"}


def test_a_frame_that_holds_no_event_is_a_cut() -> None:
    headers = {":message-type": "event", ":event-type": "chunk"}
    for payload in (b"", b"{}", b'{"bytes":"%%%"}', b"[]"):
        with pytest.raises(ValueError):  # noqa: PT011
            ClaudeFramer().feed(encode_frame(headers, payload))


def test_unknown_frames_are_skipped() -> None:
    headers = {":message-type": "event", ":event-type": "xPolicy"}
    assert ClaudeFramer().feed(encode_frame(headers, b"{}")) == []


# fmt: off
BARE = [
    # as it came                                    without what is no data
    (b"data: {}\n\n",                               b"data: {}\n\n"),
    (b"event: ping\ndata: {}\n\n",                  b"event: ping\ndata: {}\n\n"),
    (b": a word\n\n",                               b":\n\n"),
    (b"id: a\ndata: {}\n\n",                        b"data: {}\n\n"),
    (b": a\ndata: {}\n\n",                          b"data: {}\n\n"),
    (b"retry: 1\nevent: ping\ndata: {}\nnew: b\n\n", b"event: ping\ndata: {}\n\n"),
    (b"data: {\ndata: }\n\n",                       b"data: {\ndata: }\n\n"),
    (b"data: {}\r\n\r\n",                           b"data: {}\n\n"),
    (b"event: A secret 1\ndata: {}\n\n",            b"data: {}\n\n"),
]
# fmt: on


@pytest.mark.parametrize(("came", "left"), BARE)
def test_a_bare_event_is_its_data_and_its_name(came: bytes, left: bytes) -> None:
    framer = SseFramer()
    (event,) = framer.feed(came) + framer.finish()
    assert bare(event) == left
