"""T-LOG-01 and T-SEC-06: lines that cannot be forged and hold no secret."""

import base64
import io
import json
import logging
from typing import Any
from urllib.parse import quote

import pytest

from proxy.model.observations import (
    GuardAskingEnded,
    GuardOverflowed,
    RequestFinished,
    RetryBudgetSpent,
    SnapshotApplied,
    SnapshotRejected,
    SpoolDropped,
    SpoolLost,
    StreamEventDropped,
    StreamRecovery,
    UpstreamStale,
)
from proxy.model.records import RequestRecord
from proxy.telemetry.logs import Log
from proxy.telemetry.redaction import Redactor

SECRET = "canary/secret+value=1"


def lines(stream: io.StringIO) -> list[Any]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object() -> None:
    stream = io.StringIO()
    log = Log(stream, process="worker-0")
    log.info("config.applied", {"version": 3, "list": [1, "a"], "path": io, "event": "forged"})
    (line,) = lines(stream)
    assert line.pop("at").endswith("Z")
    assert line.pop("path").startswith("<module")
    assert line == {
        "level": "info", "event": "config.applied", "process": "worker-0", "version": 3,
        "list": [1, "a"],
    }  # fmt: skip
    assert repr(log) == "<Log INFO>"


NASTY = 'a\r\nb\x1b[31mred\x9b2J\u2028\x00\x7f"}\n{"level":"error"'


def test_control_characters_leave_escaped() -> None:
    stream = io.StringIO()
    log = Log(stream)
    log.warning("x", {"value": NASTY, NASTY: 1})
    log.warning(NASTY)
    text = stream.getvalue()
    assert text.count("\n") == 2
    assert all(character.isprintable() or character == "\n" for character in text)
    assert lines(stream)[0]["value"] == NASTY


def test_a_surrogate_and_a_long_text_do_not_break_a_line() -> None:
    stream = io.StringIO()
    log = Log(stream)
    log.info("x", {"name": "\udcff", "long": "y" * 10_000})
    (line,) = lines(stream)
    assert line["name"] == "\\udcff"
    assert len(line["long"]) == 2001


def test_a_fault_comes_with_its_trace_and_without_secrets() -> None:
    stream = io.StringIO()
    log = Log(stream, redactor=Redactor([SECRET]))
    try:
        raise ValueError(f"bad {SECRET}")
    except ValueError as fault:
        log.tell("control.crashed", {"request_id": "r1"}, fault)
        log.crash("spooler", fault)
        log.bug(fault)
    first, second, third = lines(stream)
    assert SECRET not in stream.getvalue()
    assert (first["level"], first["request_id"]) == ("error", "r1")
    assert first["fault"] == "ValueError('bad ***')"
    assert any("test_logs.py" in row for row in first["trace"])
    assert (second["event"], second["task"]) == ("task.crashed", "spooler")
    assert third["event"] == "request.crashed"


def test_libraries_speak_through_the_same_log() -> None:
    stream = io.StringIO()
    log = Log(stream, redactor=Redactor([SECRET]))
    log.adopt("parapet.test.library")
    logging.getLogger("parapet.test.library").warning("took %s", SECRET)
    (line,) = lines(stream)
    assert (line["logger"], line["event"]) == ("parapet.test.library", "took ***")


# fmt: off
OBSERVED = [
    (RequestFinished(RequestRecord("r", "e", 0)), None),
    (UpstreamStale("a"),                          None),
    (RetryBudgetSpent("fo-1"),                    None),
    (StreamEventDropped("a"),                     None),
    (StreamRecovery("prefill", "recovered"),      None),
    (GuardAskingEnded(0.2),                       None),
    (GuardOverflowed("p", "r"),                   "guard.overflowed"),
    (SpoolLost("disk full"),                      "spool.lost"),
    (SpoolDropped("plain", 7),                    "spool.dropped"),
    (SnapshotApplied(3),                          "snapshot.applied"),
    (SnapshotRejected(4, "why"),                  "snapshot.rejected"),
]
# fmt: on


@pytest.mark.parametrize(("what", "event"), OBSERVED)
def test_what_of_the_data_path_is_worth_a_line(what: Any, event: str | None) -> None:
    stream = io.StringIO()
    Log(stream).observe(what)
    assert [line["event"] for line in lines(stream)] == ([event] if event else [])


# fmt: off
SHAPES = [
    "Authorization: Bearer abcdefgh12345678",
    "authorization=Basic dXNlcjpwYXNz",
    '{"Authorization": "Bearer abcdefgh12345678"}',
    "Proxy-Authorization: Basic dXNlcjpwYXNz",
    "x-api-key: abcdefgh12345678", '"x-goog-api-key":"abcdefgh12345678"',
    "used sk-ant-api03-abcdefgh12345678", "whsec_abcdefgh12345678", "AKIAABCDEFGH12345678",
    "ppt_abcdefghijkl_abcdefgh12345678", "AIzaabcdefgh12345678",
    "https://hooks.slack.com/services/T000/B000/abcdefgh12345678",
    "redis://user:abcdefgh12345678@host:6379/0", "redis://:abcdefgh12345678@host",
]
PLAIN = ["https://host:8080/path", "the task-force", "event sk-1", "bearer of news", "a@b.c: x",
         "skipped 3 rules", "2024-03-15T14:30:00Z"]
# fmt: on


@pytest.mark.parametrize("text", SHAPES)
def test_shapes_of_secrets_are_masked(text: str) -> None:
    shown = Redactor().redact(text)
    assert "***" in shown
    for secret in ("abcdefgh12345678", "dXNlcjpwYXNz", "ABCDEFGH12345678"):
        assert secret not in shown


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_stays(text: str) -> None:
    assert Redactor().redact(text) == text


def test_t_sec_06_known_values_go_raw_encoded_and_in_base64() -> None:
    redactor = Redactor([SECRET, "short"])
    encoded = base64.b64encode(SECRET.encode()).decode()
    for form in (SECRET, quote(SECRET, safe=""), encoded):
        assert redactor.redact(f"<{form}>").replace("=", "") == "<***>"
    assert redactor.redact("short") == "short"
    redactor.know(["another-secret"])
    assert redactor.redact(f"another-secret {SECRET}") == f"*** {SECRET}"
    assert repr(redactor) == "<Redactor>"
