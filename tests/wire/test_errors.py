"""Faults told in each dialect (T-W-20), and errors of providers read in any shape."""

import json

import pytest

from proxy.model import errors as faults
from proxy.model.errors import ProxyError
from proxy.model.exchange import ErrorSeen, RawHeaders
from proxy.wire.errors import ANTHROPIC, BEDROCK, GEMINI, OPENAI, render_error
from proxy.wire.failures import read_error, retry_hint, stream_error

KINDS = {
    cls.kind: cls
    for cls in vars(faults).values()
    if isinstance(cls, type) and issubclass(cls, ProxyError) and "kind" in vars(cls)
}


def told(dialect: str, fault: ProxyError) -> tuple[int, dict[str, str], dict]:
    status, headers, body = render_error(dialect, fault, "req-1")  # type: ignore[arg-type]
    return status, {k.decode(): v.decode() for k, v in headers}, json.loads(body)


def test_every_kind_has_a_row_in_every_dialect() -> None:
    for table in (OPENAI, ANTHROPIC, BEDROCK, GEMINI):
        assert table.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_dialect_tells_it_in_its_own_shape_t_w_20(kind: str) -> None:
    fault = KINDS[kind]("What is wrong.", retry_after_s=1.2)
    status, headers, body = told("openai_chat", fault)
    assert status == OPENAI[kind][0]
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert headers["x-request-id"] == "req-1"
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("2", "1200")
    status, headers, body = told("anthropic_messages", fault)
    assert (body["type"], body["error"]["type"]) == ("error", ANTHROPIC[kind][1])
    assert (status, body["request_id"], headers["request-id"]) == (
        ANTHROPIC[kind][0],
        "req-1",
        "req-1",
    )
    status, headers, body = told("bedrock_converse", fault)
    assert (status, headers["x-amzn-errortype"]) == BEDROCK[kind]
    assert "What is wrong." in body["message"]
    status, headers, body = told("gemini", fault)
    assert (body["error"]["code"], body["error"]["status"]) == GEMINI[kind]
    assert headers["content-type"] == "application/json"


SAID = [
    # fault, dialect, status, type, code
    (faults.NoSuchRoute("m"), "openai", 404, "invalid_request_error", "model_not_found"),
    (faults.Forbidden("m"), "openai", 403, "permission_error", None),
    (
        faults.Forbidden("m", code="unscannable_endpoint"),
        "openai",
        403,
        "permission_error",
        "unscannable_endpoint",
    ),
    (faults.NoEndpoint("m"), "openai", 503, "server_error", "failover_exhausted"),
    (faults.UpstreamAuth("m"), "openai", 502, "server_error", "upstream_error"),
    (faults.NoEndpoint("m"), "anthropic", 529, "overloaded_error", None),
    (faults.UpstreamTimeout("m"), "anthropic", 504, "timeout_error", None),
    (faults.UpstreamAuth("m"), "anthropic", 500, "api_error", None),
]


@pytest.mark.parametrize(("fault", "dialect", "status", "kind", "code"), SAID)
def test_what_is_said(
    fault: ProxyError, dialect: str, status: int, kind: str, code: str | None
) -> None:
    full = {"openai": "openai_chat", "anthropic": "anthropic_messages"}[dialect]
    found, _, body = told(full, fault)
    assert (found, body["error"]["type"], body["error"].get("code")) == (status, kind, code)


def test_a_block_t_gr_10() -> None:
    fault = faults.Blocked("The request was blocked by a content policy.")
    message = "The request was blocked by a content policy. (request req-1)"
    status, headers, body = told("openai_chat", fault)
    assert (status, headers["x-should-retry"]) == (400, "false")
    assert body == {
        "error": {
            "message": message,
            "type": "policy_violation",
            "param": None,
            "code": "content_filter",
        }
    }
    _, _, body = told("anthropic_messages", fault)
    assert body == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": message},
        "request_id": "req-1",
    }
    _, _, body = told("gemini", fault)
    assert body["error"]["details"][0]["reason"] == "POLICY_VIOLATION"
    _, headers, body = told("bedrock_converse", fault)
    assert (headers["x-amzn-errortype"], body) == ("ValidationException", {"message": message})


def test_the_end_of_a_chain_says_so_in_the_strongest_form() -> None:
    fault = faults.UpstreamBroken("m")
    assert "x-should-retry" not in told("openai_chat", fault)[1]
    fault.final = True
    assert told("openai_chat", fault)[1]["x-should-retry"] == "false"
    status, headers, _ = told("bedrock_converse", fault)
    assert (status, headers["x-amzn-errortype"]) == (424, "ModelErrorException")
    limited = faults.UpstreamRateLimited("m")
    limited.final = True
    assert told("bedrock_converse", limited)[0] == 429


def test_a_prompt_too_long_is_told_in_the_words_that_clients_look_for() -> None:
    fault = faults.ContextWindow("210000 tokens of 200000")
    assert told("anthropic_messages", fault)[2]["error"]["message"].startswith("prompt is too long")
    assert told("bedrock_converse", fault)[2]["message"].startswith("Input is too long")


# --- read


SHAPES = [
    # body, type, code, message
    (b'{"error":{"message":"m","type":"t","code":"c","param":null}}', "t", "c", "m"),
    (b'{"type":"error","error":{"type":"t","message":"m"}}', "t", "", "m"),
    (b'{"error":"m"}', "", "", "m"),
    (b'{"message":"m"}', "", "", "m"),
    (b'{"Message":"m"}', "", "", "m"),
    (b'{"detail":"m"}', "", "", "m"),
    (b'{"detail":[{"loc":["a"],"msg":"m"},{"msg":"n"}]}', "", "", "m; n"),
    (b'{"object":"error","message":"m","type":"t","code":400}', "t", "400", "m"),
    (b'[{"error":{"code":404,"message":"m","status":"NOT_FOUND"}}]', "NOT_FOUND", "404", "m"),
    (b'{"error":{"message":{"not":"text"},"code":true}}', "", "", ""),
    (b"<html><body>502</body></html>", "", "", ""),
    (b"plain words", "", "", "plain words"),
    (b'"a text"', "", "", "a text"),
    (b"", "", "", ""),
    (b"\xff\xfe", "", "", "\ufffd\ufffd"),
    (b"[]", "", "", "[]"),
]


@pytest.mark.parametrize(("body", "kind", "code", "message"), SHAPES)
def test_an_error_is_read_in_any_shape(body: bytes, kind: str, code: str, message: str) -> None:
    assert read_error("openai", 400, [], body) == ErrorSeen(400, kind, code, message)


DEEP = b'{"detail":' + b"[" * 1000 + b"]" * 1000 + b"}"


def test_an_error_is_bounded() -> None:
    for body in (b"x" * 10_000_000, b'{"message":"' + b"x" * 50_000 + b'"}', DEEP, b"[" * 100_000):
        assert len(read_error("openai", 500, [], body).message) <= 2000


def test_bedrock_says_its_type_in_a_header_or_behind_a_hash() -> None:
    headers: RawHeaders = [(b"x-amzn-errortype", b"ThrottlingException:http://x/")]
    seen = read_error("bedrock", 429, headers, b'{"message":"m"}')
    assert (seen.type, seen.message) == ("ThrottlingException", "m")
    seen = read_error("bedrock", 400, [], b'{"__type":"com.aws#ValidationException"}')
    assert seen.type == "ValidationException"


NOW = 1_792_000_000_000
HINTS = [
    ([(b"retry-after-ms", b"1500"), (b"retry-after", b"9")], 1.5),
    ([(b"retry-after", b"9")], 9.0),
    ([(b"retry-after", b"0.5")], 0.5),
    ([(b"retry-after", b"Wed, 14 Oct 2026 17:46:50 GMT")], 10.0),
    ([(b"retry-after", b"Wed, 14 Oct 2020 17:46:50 GMT")], 0.0),
    ([(b"retry-after", b"soon")], None),
    ([(b"retry-after", b"-5")], None),
    ([(b"retry-after", b"9" * 400)], None),
    ([(b"retry-after", b"inf")], None),
    ([(b"retry-after", b"Wed, 99 Oct 99999 99:99:99 GMT")], None),
    ([(b"x-ratelimit-remaining-requests", b"0"), (b"x-ratelimit-reset-requests", b"12ms")], 0.012),
    ([(b"x-ratelimit-remaining-tokens", b"0"), (b"x-ratelimit-reset-tokens", b"6m0s")], 360.0),
    ([(b"x-ratelimit-remaining-tokens", b"5"), (b"x-ratelimit-reset-tokens", b"6m0s")], None),
    (
        [
            (b"anthropic-ratelimit-tokens-remaining", b"0"),
            (b"anthropic-ratelimit-tokens-reset", b"2026-10-14T17:46:50Z"),
        ],
        10.0,
    ),
    ([(b"x-ratelimit-remaining-tokens", b"0"), (b"x-ratelimit-reset-tokens", b"soon")], None),
    ([(b"x-ratelimit-remaining-tokens", b"0"), (b"x-ratelimit-reset-tokens", b"-6m")], None),
    ([(b"x-ratelimit-remaining-tokens", b"0")], None),
    (
        [
            (b"anthropic-ratelimit-tokens-remaining", b"0"),
            (b"anthropic-ratelimit-tokens-reset", b"2026-99-99T17:46:50Z"),
        ],
        None,
    ),
    ([], None),
]


@pytest.mark.parametrize(("headers", "seconds"), HINTS)
def test_t_fo_22_how_long_to_wait(headers: RawHeaders, seconds: float | None) -> None:
    assert retry_hint(headers, NOW) == seconds
    assert read_error("openai", 429, headers, b"", NOW).retry_after_s == seconds


def test_t_fo_22_google_says_it_in_the_body() -> None:
    body = b'{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"retryDelay":"12s"}]}}'
    seen = read_error("gemini", 429, [], body)
    assert (seen.type, seen.retry_after_s) == ("RESOURCE_EXHAUSTED", 12.0)


def test_an_error_inside_a_stream_has_the_status_of_its_type() -> None:
    for kind, status in (("overloaded_error", 529), ("insufficient_quota", 429), ("new", 500)):
        assert stream_error({"error": {"type": kind, "message": "m"}}).status == status
    assert stream_error({"error": {"code": 503, "status": "UNAVAILABLE"}}).status == 503
    assert stream_error({"error": {"code": "context_length_exceeded"}}).status == 400
