"""The front door: what a path means, which headers go where, where a credential stands."""

import pytest

from proxy.model.exchange import Credential, RawHeaders, Surface
from proxy.wire.headers import (
    UpFilter,
    down,
    down_lines,
    find_credential,
    render,
    up_untouched,
    upstream_request_id,
    without_key,
)
from proxy.wire.paths import PathFault, read_target

CHAT, CLAUDE = "openai_chat", "anthropic_messages"
# fmt: off
PATHS = [
    # method, target, dialect, operation, route, model
    ("POST", "/v1/chat/completions", CHAT, "chat", None, None),
    ("POST", "/chat/completions", CHAT, "chat", None, None),
    ("POST", "/v1beta/chat/completions", CHAT, "chat", None, None),
    ("POST", "/openai/v1/chat/completions", CHAT, "chat", None, None),
    ("POST", "/r/prod-chat/v1/chat/completions", CHAT, "chat", "prod-chat", None),
    ("POST", "/r/prod-chat/chat/completions", CHAT, "chat", "prod-chat", None),
    ("POST", "/v1/completions", CHAT, "completions", None, None),
    ("POST", "/v1/embeddings", CHAT, "embeddings", None, None),
    ("POST", "/openai/deployments/d%2Fe/chat/completions", CHAT, "chat", None, "d/e"),
    ("POST", "/openai/v1/deployments/d/embeddings", CHAT, "embeddings", None, "d"),
    ("POST", "/v1/messages?beta=true", CLAUDE, "messages", None, None),
    ("POST", "/r/a/anthropic/v1/messages", CLAUDE, "messages", "a", None),
    ("POST", "/v1/messages/count_tokens", CLAUDE, "count_tokens", None, None),
    ("GET", "/v1/models", CHAT, "models", None, None),
    ("GET", "/v1/models/a%2Fb", CHAT, "model", None, "a/b"),
    ("GET", "/v1/models/a/b", CHAT, "model", None, "a/b"),
    ("GET", "/v1beta/models", "gemini", "models", None, None),
    ("POST", "/v1/files", CHAT, "pass", None, None),
    ("GET", "/v1/chat/completions", CHAT, "pass", None, None),
    ("POST", "/v1/threads/t/messages", CHAT, "pass", None, None),
    ("POST", "/v1/messages/batches", CLAUDE, "pass", None, None),
    ("POST", "/v1/responses", "openai_responses", "pass", None, None),
    ("POST", "/v1beta/models/g:generateContent", "gemini", "pass", None, None),
    ("POST", "/model/arn%3Aaws%2Fx/invoke", "bedrock_converse", "pass", None, None),
    ("GET", "/", CHAT, "pass", None, None),
]
FAULTS = [
    ("/v1/v1/messages", "adds /v1 itself"), ("/r/prod-chat/v1/v1/messages", "/r/prod-chat"),
    ("//v1/messages", "empty segment"), ("/v1//messages", "empty segment"),
    ("/v1/../messages", "dot segment"), ("/./v1/messages", "dot segment"),
    ("/v1/%2e%2e/messages", "dot segment"), ("/v1/%2E/messages", "dot segment"),
    ("/v1/a%2f..%2fb", "dot segment"), ("/v1/..%5cb", "dot segment"),
    ("/v1/a%0d%0ab", "control"), ("/r/", "no route"), ("/r/NOT A/v1", "not a path"),
    ("/r/Bad/v1/messages", "no route"), ("*", "not a path"), ("http://x/v1", "not a path"),
    ("", "not a path"), ("/a\r\nb", "not a path"), ("/é", "not a path"),
]
# fmt: on


@pytest.mark.parametrize(("method", "target", "dialect", "operation", "route", "model"), PATHS)
def test_what_a_path_means(
    method: str, target: str, dialect: str, operation: str, route: str | None, model: str | None
) -> None:
    found = read_target(method, target)
    assert isinstance(found, Surface)
    assert (found.dialect, found.operation, found.route_id, found.model) == (
        dialect,
        operation,
        route,
        model,
    )


@pytest.mark.parametrize(("target", "says"), FAULTS)
def test_what_is_not_normalised_matches_nothing(target: str, says: str) -> None:
    found = read_target("POST", target)
    assert isinstance(found, PathFault)
    assert says in found.message


def test_the_rest_of_the_path_and_the_query_stay_as_they_were_sent() -> None:
    found = read_target("POST", "/r/a/model/x%3A0/invoke?a=%2F&b")
    assert isinstance(found, Surface)
    assert (found.path, found.query) == ("/model/x%3A0/invoke", "a=%2F&b")


def test_headers_tell_whose_list_of_models_is_wanted() -> None:
    claude, google = (b"anthropic-version", b"2023-06-01"), (b"x-goog-api-key", b"k")
    for header, dialect in ((claude, CLAUDE), (google, "gemini")):
        found = read_target("GET", "/v1/models", [header])
        assert isinstance(found, Surface)
        assert found.dialect == dialect


# --- headers

UP: RawHeaders = [
    (b"content-type", b"application/json"),
    (b"user-agent", b"sdk"),
    (b"x-stainless-lang", b"python"),
    (b"anthropic-beta", b"a"),
    (b"anthropic-beta", b"b"),
    (b"traceparent", b"00"),
]
NOT_UP: RawHeaders = [
    (b"host", b"x"),
    (b"connection", b"x-custom"),
    (b"content-length", b"5"),
    (b"content-encoding", b"gzip"),
    (b"transfer-encoding", b"chunked"),
    (b"te", b"trailers"),
    (b"proxy-anything", b"x"),
    (b"accept-encoding", b"br"),
    (b"authorization", b"Bearer canary"),
    (b"x-api-key", b"canary"),
    (b"api-key", b"canary"),
    (b"x-goog-api-key", b"canary"),
    (b"x-parapet-key", b"canary"),
    (b"x-parapet-route", b"x"),
    (b"x-amz-security-token", b"canary"),
    (b"x-forwarded-for", b"x"),
    (b"cookie", b"canary"),
    (b"via", b"x"),
    (b"openai-organization", b"org"),
    (b"user-agent", b"a\r\nx-evil: 1"),
]


def test_only_what_is_listed_goes_up_t_sec_11() -> None:
    chosen = UpFilter()
    for _ in range(2):  # the second time from what it knows
        assert chosen.lines(UP + NOT_UP + [(b"x-custom", b"c")]) == render(UP)


def test_an_endpoint_may_ask_for_more_but_never_for_credentials() -> None:
    headers = [*NOT_UP, (b"x-custom", b"c")]
    wanted = frozenset(name for name, _ in headers) - {b"user-agent"}
    lines = UpFilter(besides=wanted).lines(headers)
    assert lines == b"accept-encoding: br\r\nopenai-organization: org\r\nx-custom: c\r\n"
    account: RawHeaders = [(b"openai-organization", b"o")]
    assert UpFilter(account=True).lines(account) == b"openai-organization: o\r\n"
    assert UpFilter(account=True, without={b"openai-organization"}).lines(account) == b""


def test_names_are_remembered_within_a_bound() -> None:
    chosen = UpFilter()
    for number in range(1000):
        assert chosen.lines([(b"x-%d" % number, b"v"), (b"accept", b"a")]) == b"accept: a\r\n"


def test_a_path_that_is_passed_on_keeps_its_headers_but_those() -> None:
    lines = up_untouched([*UP, *NOT_UP, (b"x-custom", b"c"), (b"range", b"r")])
    assert lines == render(UP) + b"accept-encoding: br\r\nrange: r\r\n"
    assert b"canary" not in lines


def test_what_comes_down() -> None:
    headers: RawHeaders = [
        (b"content-type", b"application/json"),
        (b"content-length", b"5"),
        (b"content-encoding", b"gzip"),
        (b"connection", b"close, x-hop"),
        (b"x-hop", b"1"),
        (b"set-cookie", b"c"),
        (b"server", b"s"),
        (b"date", b"d"),
        (b"cf-ray", b"c"),
        (b"x-parapet-route", b"spoofed"),
        (b"x-request-id", b"req_1"),
    ]
    assert down(headers, decoded=True) == [
        (b"content-type", b"application/json"),
        (b"x-request-id", b"req_1"),
    ]
    assert (b"content-length", b"5") in down(headers, length=True)
    assert (b"content-type", b"x") in down(headers, content_type=b"x")
    assert upstream_request_id(headers) == b"req_1"
    for some in (headers, headers[:3], headers[4:]):
        for decoded in (False, True, False):  # what was decided once is remembered
            assert down_lines(some, decoded=decoded) == render(down(some, decoded=decoded))


# --- credentials

KEY = "ppt_abcd_secret"
SURFACE = Surface("openai_chat", "chat", "/v1/chat/completions")
AWS = b"AWS4-HMAC-SHA256 Credential=%b/20260101/us-east-1/bedrock/aws4_request, Signature=00"
# fmt: off
CREDENTIALS = [
    # headers                                                            parapet provider conflict
    ([(b"authorization", b"Bearer " + KEY.encode())],                    KEY,  None,   False),
    ([(b"authorization", b"bearer  sk-1 ")],                             None, "sk-1", False),
    ([(b"x-api-key", KEY.encode())],                                     KEY,  None,   False),
    ([(b"api-key", KEY.encode())],                                       KEY,  None,   False),
    ([(b"x-goog-api-key", KEY.encode())],                                KEY,  None,   False),
    ([(b"authorization", AWS % KEY.encode())],                           KEY,  None,   False),
    ([(b"authorization", AWS % b"AKIA123")],                             None, None,   False),
    ([(b"x-parapet-key", KEY.encode()), (b"x-api-key", b"sk-1")],        KEY,  "sk-1", False),
    ([(b"x-parapet-key", b"typo"), (b"x-api-key", b"sk-1")],             "typo", "sk-1", False),
    ([(b"authorization", b"Bearer sk-1"), (b"x-api-key", b"sk-1")],      None, "sk-1", False),
    ([(b"authorization", b"Bearer sk-1"), (b"x-api-key", b"sk-2")],      None, "sk-2", True),
    ([(b"x-parapet-key", b"ppt_a_b"), (b"x-api-key", b"ppt_c_d")],       "ppt_c_d", None, True),
    ([(b"authorization", b"Basic eDp5")],                                None, None,   False),
    ([(b"authorization", b"Bearer ")],                                   None, None,   False),
    ([],                                                                 None, None,   False),
]
# fmt: on


@pytest.mark.parametrize(("headers", "own", "theirs", "conflict"), CREDENTIALS)
def test_where_a_credential_stands_t_sec_08(
    headers: RawHeaders, own: str | None, theirs: str | None, conflict: bool
) -> None:
    assert find_credential(headers, SURFACE) == Credential(own, theirs, conflict)


def test_geminis_callers_may_send_it_in_the_query() -> None:
    query = f"alt=sse&key={KEY}"
    surface = Surface("gemini", "pass", "/v1beta/models/g:generateContent", query)
    assert find_credential([], surface) == Credential(KEY)
    assert without_key(query) == "alt=sse"
    assert find_credential([], Surface("openai_chat", "chat", "/", query)) == Credential()
