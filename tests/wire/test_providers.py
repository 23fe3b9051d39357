"""Envelopes: the bytes that go to each provider for one exchange."""

import json

import pytest

from proxy.model.documents import Secret
from proxy.model.exchange import Credential, Exchange, Inbound, Plan, RawHeaders, Refused, Surface
from proxy.model.tenancy import Endpoint
from proxy.wire import jsonbody
from proxy.wire.dialects.registry import reader_of, request_view
from proxy.wire.paths import read_target
from proxy.wire.providers.bedrock_stream import ClaudeFramer
from proxy.wire.providers.models import model_for
from proxy.wire.providers.registry import Adapter, adapter_of
from proxy.wire.sse import SseFramer

OPUS, BEDROCK_OPUS = "claude-3-opus-20240229", "anthropic.claude-3-opus-20240229-v1:0"
BODY = b'{"model": "gpt-4o", "big": 123456789012345678901, "messages": []}'
CALLER: RawHeaders = [
    (b"host", b"proxy"),
    (b"authorization", b"Bearer sk-caller"),
    (b"content-type", b"application/json"),
    (b"content-length", b"9"),
    (b"user-agent", b"sdk/1"),
    (b"accept-encoding", b"gzip"),
    (b"x-parapet-route", b"r"),
]


def shown(secret: Secret | None) -> str | None:
    return secret if isinstance(secret, str) else None


def endpoint(provider: str, **members: object) -> Endpoint:
    given = {"id": "e", "provider": provider, "api_key": "sk-own", **members}
    return Endpoint.model_validate({k: v for k, v in given.items() if v is not None})


def exchange(
    target: str, body: bytes = BODY, headers: RawHeaders | None = None, method: str = "POST"
) -> Exchange:
    surface = read_target(method, target, headers)
    assert isinstance(surface, Surface)
    inbound = Inbound("req-1", method, target, CALLER if headers is None else headers, body)
    if reader_of(surface) is None:
        return Exchange(surface, inbound, body, None, surface.model)
    doc = jsonbody.read_object(body)
    return Exchange(surface, inbound, body, doc, *request_view(surface, doc))


def planned(
    adapter: Adapter,
    sent: Exchange,
    credential: Credential = Credential(None, "sk-caller"),  # noqa: B008
    *,
    same_origin: bool = True,
    inject_usage: bool = False,
    aliases: dict[str, str] | None = None,
) -> Plan | Refused:
    return adapter.plan(
        sent, credential, same_origin=same_origin, inject_usage=inject_usage, aliases=aliases or {}
    )


def plan(adapter: Adapter, sent: Exchange, **more: object) -> Plan:
    found = planned(adapter, sent, **more)  # type: ignore[arg-type]
    assert isinstance(found, Plan), found
    return found


def head_of(found: Plan) -> tuple[str, dict[str, str]]:
    head = found.outgoing.head.decode("latin-1")
    assert head.endswith("\r\n\r\n")
    line, *lines = head[:-4].split("\r\n")
    names = [each.partition(": ")[0] for each in lines]
    assert len(names) == len(set(names)), names
    return line, dict(each.split(": ", 1) for each in lines)


def test_openai_gets_the_callers_bytes_with_another_model() -> None:
    adapter = adapter_of(endpoint("openai", models={"gpt-4o": "gpt-4o-2024"}), shown)
    found = plan(adapter, exchange("/v1/chat/completions"))
    line, headers = head_of(found)
    assert line == "POST /v1/chat/completions HTTP/1.1"
    assert headers == {
        "host": "api.openai.com",
        "accept-encoding": "identity",
        "authorization": "Bearer sk-own",
        "content-type": "application/json",
        "user-agent": "sdk/1",
        "content-length": str(len(found.outgoing.body)),
    }
    assert found.outgoing.body == BODY.replace(b'"gpt-4o"', b'"gpt-4o-2024"')
    assert (found.level, found.model, found.dropped) == ("L0", "gpt-4o-2024", [])
    assert adapter.target() == ("https", "api.openai.com", 443, "/v1")
    assert isinstance(adapter.framer(), SseFramer)


# fmt: off
TARGETS = [
    # endpoint, the caller's target, the upstream's
    (endpoint("openai"), "/r/a/v1/embeddings", "/v1/embeddings"),
    (endpoint("openai"), "/chat/completions", "/v1/chat/completions"),
    (endpoint("openai"), "/openai/deployments/d/chat/completions?api-version=1",
     "/v1/chat/completions"),
    (endpoint("openai-compatible", base_url="http://h:1/x"), "/v1/completions?a=b",
     "/x/completions?a=b"),
    (endpoint("azure-openai", base_url="https://a.example"), "/v1/chat/completions",
     "/openai/v1/chat/completions"),
    (endpoint("azure-openai", base_url="https://a.example/openai/v1"), "/v1/chat/completions",
     "/openai/v1/chat/completions"),
    (endpoint("azure-openai", base_url="https://a.example", azure_api="deployments"),
     "/v1/chat/completions", "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"),
    (endpoint("anthropic"), "/v1/messages?beta=true", "/v1/messages?beta=true"),
    (endpoint("anthropic", base_url="https://p.example/v1"), "/messages/count_tokens",
     "/v1/messages/count_tokens"),
    (endpoint("anthropic", base_url="https://p.example/x"), "/v1/messages", "/x/v1/messages"),
]
# fmt: on


@pytest.mark.parametrize(("own", "target", "upstream"), TARGETS)
def test_where_a_request_goes(own: Endpoint, target: str, upstream: str) -> None:
    line, _ = head_of(plan(adapter_of(own, shown), exchange(target)))
    assert line == f"POST {upstream} HTTP/1.1"


def test_listings_and_unknown_paths_are_passed_on() -> None:
    openai, claude = endpoint("openai"), endpoint("anthropic")
    line, _ = head_of(
        plan(adapter_of(openai, shown), exchange("/v1/models/a%2Fb", b"", method="GET"))
    )
    assert line == "GET /v1/models/a%2Fb HTTP/1.1"
    version: RawHeaders = [(b"anthropic-version", b"2023-06-01")]
    listing = exchange("/v1/models?limit=2", b"", version, method="GET")
    line, headers = head_of(plan(adapter_of(claude, shown), listing))
    assert line == "GET /v1/models?limit=2 HTTP/1.1"
    assert "content-length" not in headers
    files = plan(adapter_of(openai, shown), exchange("/r/a/v1/files?x=1", b"raw"))
    line, headers = head_of(files)
    assert line == "POST /v1/files?x=1 HTTP/1.1"
    assert (headers["accept-encoding"], headers["authorization"]) == ("gzip", "Bearer sk-own")
    assert (files.outgoing.body, files.outgoing.replayable) == (b"raw", False)


# fmt: off
CREDENTIALS = [
    # provider            own key  caller's  same   header                              or refused
    ("openai",            "sk-own", "sk-c",  True,  ("authorization", "Bearer sk-own")),
    ("openai",            "sk-own", "sk-c",  False, ("authorization", "Bearer sk-own")),
    ("openai",            None,     "sk-c",  True,  ("authorization", "Bearer sk-c")),
    ("openai",            None,     "sk-c",  False, "no_credential"),
    ("openai",            None,     None,    True,  None),
    ("anthropic",         "sk-own", "sk-c",  True,  ("x-api-key", "sk-own")),
    ("anthropic",         None,     "sk-c",  True,  ("x-api-key", "sk-c")),
    ("anthropic",         None,     "sk-c",  False, "no_credential"),
    ("azure-openai",      None,     "sk-c",  True,  ("api-key", "sk-c")),
    ("openai-compatible", None,     "sk-c",  False, None),
    ("openai-compatible", None,     "sk-c",  True,  ("authorization", "Bearer sk-c")),
    ("openai",            None,     "a\r\nb", True, None),
]
# fmt: on


@pytest.mark.parametrize(("provider", "own", "theirs", "same", "header"), CREDENTIALS)
def test_whose_credential_goes_up_t_sec_08(
    provider: str, own: str | None, theirs: str | None, same: bool, header: tuple | str | None
) -> None:
    adapter = adapter_of(endpoint(provider, api_key=own, base_url="https://h.example/v1"), shown)
    target = "/v1/messages" if provider == "anthropic" else "/v1/chat/completions"
    found = planned(adapter, exchange(target), Credential("ppt_a_b", theirs), same_origin=same)
    if isinstance(header, str):
        assert found == Refused(header)
        return
    assert isinstance(found, Plan)
    _, headers = head_of(found)
    names = {"authorization", "x-api-key", "api-key"} & headers.keys()
    assert {name: headers[name] for name in names} == ({header[0]: header[1]} if header else {})
    assert "ppt_" not in found.outgoing.head.decode()
    assert adapter.has_credential == (own is not None)


def test_a_secret_that_cannot_stand_in_a_header_is_refused_without_saying_it() -> None:
    with pytest.raises(ValueError, match="e: api_key") as told:
        adapter_of(endpoint("openai", api_key="sk\r\nx: y"), shown)
    assert "sk" not in str(told.value).replace("api_key", "")
    assert adapter_of(endpoint("openai", api_key="sk-own\n"), shown).has_credential


# fmt: off
MODELS = [
    # endpoint's models            asked      primary's models     gets
    ({"claude": BEDROCK_OPUS},     "claude",  {"claude": OPUS},    BEDROCK_OPUS),
    ({"claude": BEDROCK_OPUS},     OPUS,      {"claude": OPUS},    BEDROCK_OPUS),
    ({"claude": BEDROCK_OPUS},     "other",   {"claude": OPUS},    "other"),
    ({},                           OPUS,      {"claude": OPUS},    OPUS),
    ({"a": "x", "b": "y"},         "m",       {"b": "m", "a": "m"}, "y"),
    ({"a": "x"},                   "m",       {"b": "m", "a": "m"}, "x"),
    ({OPUS: "z", "claude": "y"},   OPUS,      {"claude": OPUS},    "z"),
    ({"x": "y", "y": "z"},         "x",       {},                  "y"),
]
# fmt: on


@pytest.mark.parametrize(("models", "asked", "primary", "gets"), MODELS)
def test_which_model_an_endpoint_is_asked_for(
    models: dict, asked: str, primary: dict, gets: str
) -> None:
    assert model_for(endpoint("bedrock", models=models, region="r"), asked, primary) == gets


# fmt: off
USAGE = [
    # body members                                          inject injected  stream_options sent
    ('"stream":true', True, True, {"include_usage": True}),
    ('"stream":true',                                       False, False,    None),
    ('"stream":false',                                      True,  False,    None),
    ('"stream":true,"stream_options":null', True, True, {"include_usage": True}),
    ('"stream":true,"stream_options":{"a":1}', True, True, {"a": 1, "include_usage": True}),
    ('"stream":true,"stream_options":{"include_usage":true}', True, False, {"include_usage": True}),
    ('"stream":true,"stream_options":{"include_usage":false}', True, False,
     {"include_usage": False}),
    ('"stream":true,"stream_options":"x"',                  True,  False,    "x"),
]
# fmt: on


@pytest.mark.parametrize(("members", "inject", "injected", "options"), USAGE)
def test_the_usage_of_a_stream_is_asked_for_t_w_12(
    members: str, inject: bool, injected: bool, options: object
) -> None:
    sent = exchange("/v1/chat/completions", f'{{"model":"m",{members}}}'.encode())
    found = plan(adapter_of(endpoint("openai"), shown), sent, inject_usage=inject)
    assert found.usage_injected == injected
    assert json.loads(found.outgoing.body).get("stream_options") == options


def test_who_refuses_stream_options_is_not_asked() -> None:
    sent = exchange("/v1/chat/completions", b'{"model":"m","stream":true}')
    for members in (
        {"profile": "mistral"},
        {"capabilities": {"supports_stream_usage": False}},
        {"drop_params": ["stream_options"]},
    ):
        own = endpoint("openai-compatible", base_url="https://h.example/v1", **members)
        assert not plan(adapter_of(own, shown), sent, inject_usage=True).usage_injected


def test_an_endpoints_own_settings() -> None:
    own = endpoint(
        "openai",
        extra_headers={"X-Team": "red", "User-Agent": "house", "Host": "evil"},
        extra_body={"service_tier": "flex"},
        drop_params=["seed"],
        rename_params={"max_tokens": "max_completion_tokens"},
        forward_headers=["X-Trace", "Authorization"],
    )
    body = b'{"model":"m","seed":1,"max_tokens":5,"big":123456789012345678901}'
    sent = exchange("/v1/chat/completions", body, [*CALLER, (b"x-trace", b"t")])
    found = plan(adapter_of(own, shown), sent)
    assert found.outgoing.body == (
        b'{"model":"m","max_completion_tokens":5,"big":123456789012345678901,"service_tier":"flex"}'
    )
    assert found.dropped == ["seed"]
    _, headers = head_of(found)
    assert (headers["x-team"], headers["user-agent"], headers["x-trace"]) == ("red", "house", "t")
    assert (headers["authorization"], headers["host"]) == ("Bearer sk-own", "api.openai.com")


def test_of_two_models_in_a_body_only_the_routed_one_is_sent() -> None:
    sent = exchange("/v1/chat/completions", b'{"model":"cheap","model":"dear"}')
    found = plan(adapter_of(endpoint("openai"), shown), sent)
    assert found.outgoing.body == b'{"model":"dear"}'


# --- Anthropic's versions and betas

CLAUDE_BODY = json.dumps(
    {
        "model": OPUS,
        "max_tokens": 5,
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "text",
                        "text": "hi",
                        "cache_control": {"type": "ephemeral", "ttl": "1h", "scope": "global"},
                    }
                ],
            }
        ],
        "stream": True,
        "service_tier": "auto",
        "anthropic_beta": ["interleaved-thinking-2025-05-14"],
    }
).encode()
BETAS: RawHeaders = [
    (b"anthropic-version", b"2026-10-21"),
    (b"anthropic-beta", b"context-1m-2025-08-07, made-up-2030-01-01"),
    (b"anthropic-beta", b"effort-2025-11-24"),
]
# fmt: off
VERSIONS = [
    # endpoint's   caller's       sent          level
    (None,         None,          "2023-06-01", "L0"),
    (None,         "2026-10-21",  "2026-10-21", "L0"),
    ("2023-06-01", "2026-10-21",  "2023-06-01", "L1"),
    ("2023-06-01", "2023-06-01",  "2023-06-01", "L0"),
    ("2023-06-01", None,          "2023-06-01", "L0"),
]
# fmt: on


@pytest.mark.parametrize(("own", "theirs", "sent", "level"), VERSIONS)
def test_which_api_version_is_asked_for(
    own: str | None, theirs: str | None, sent: str, level: str
) -> None:
    adapter = adapter_of(endpoint("anthropic", anthropic_version=own), shown)
    headers = [(b"anthropic-version", theirs.encode())] if theirs else []
    found = plan(adapter, exchange("/v1/messages", CLAUDE_BODY, headers))
    assert head_of(found)[1]["anthropic-version"] == sent
    assert found.level == level


def test_betas_pass_or_are_filtered() -> None:
    sent = exchange("/v1/messages", CLAUDE_BODY, BETAS)
    free = plan(adapter_of(endpoint("anthropic"), shown), sent).outgoing.head
    assert free.count(b"anthropic-beta: ") == 2
    own = endpoint("anthropic", betas=["effort-2025-11-24"])
    found = plan(adapter_of(own, shown), sent)
    assert head_of(found)[1]["anthropic-beta"] == "effort-2025-11-24"
    assert "anthropic-beta:made-up-2030-01-01" in found.dropped


# --- Claude on Bedrock


def bedrock(**members: object) -> Adapter:
    given = {"region": "us-east-1", "models": {"claude": BEDROCK_OPUS}, **members}
    return adapter_of(endpoint("bedrock", **given), shown)


def test_a_failover_to_bedrock_loses_nothing_but_what_it_refuses_t_w_16() -> None:
    sent = exchange("/v1/messages", CLAUDE_BODY, [*CALLER, *BETAS])
    found = plan(bedrock(), sent, aliases={"claude": OPUS}, same_origin=False)
    line, headers = head_of(found)
    path = "/model/anthropic.claude-3-opus-20240229-v1%3A0/invoke-with-response-stream"
    assert line == f"POST {path} HTTP/1.1"
    assert headers == {
        "host": "bedrock-runtime.us-east-1.amazonaws.com",
        "accept-encoding": "identity",
        "authorization": "Bearer sk-own",
        "accept": "application/json",
        "content-type": "application/json",
        "user-agent": "sdk/1",
        "content-length": str(len(found.outgoing.body)),
    }
    body = json.loads(found.outgoing.body)
    assert body.keys() == {"anthropic_version", "max_tokens", "messages", "anthropic_beta"}
    assert body["anthropic_version"] == "bedrock-2023-05-31"
    assert body["anthropic_beta"] == [
        "context-1m-2025-08-07",
        "effort-2025-11-24",
        "interleaved-thinking-2025-05-14",
    ]
    assert body["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral"}
    assert sorted(found.dropped) == [
        "anthropic-beta:made-up-2030-01-01",
        "cache_control.scope",
        "cache_control.ttl",
        "service_tier",
    ]
    assert (found.level, found.framing, found.model) == ("L1", "claude_frames", BEDROCK_OPUS)
    assert isinstance(bedrock().framer(), ClaudeFramer)


def test_bedrock_unary_and_the_members_bytes_stay() -> None:
    body = (
        b'{"model":"claude","max_tokens":5,"messages": [ ],"metadata":{"n":123456789012345678901}}'
    )
    found = plan(bedrock(), exchange("/v1/messages", body))
    assert head_of(found)[0].split(" ")[1].endswith("/invoke")
    assert found.framing == "sse"
    assert found.outgoing.body == (
        b'{"anthropic_version":"bedrock-2023-05-31","max_tokens":5,"messages":[ ],'
        b'"metadata":{"n":123456789012345678901}}'
    )


def test_a_longer_cache_stays_where_the_model_has_it() -> None:
    adapter = bedrock(capabilities={"ttl_1h": True})
    found = plan(adapter, exchange("/v1/messages", CLAUDE_BODY), aliases={"claude": OPUS})
    content = json.loads(found.outgoing.body)["messages"][0]["content"]
    assert content[0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}


ARN = "arn:aws:bedrock:us-east-1:1:application-inference-profile/x"
# fmt: off
REFUSED = [
    (bedrock(), "/v1/messages/count_tokens", b'{"model":"claude"}', "count_tokens"),
    (bedrock(), "/v1/chat/completions", b'{"model":"claude"}', "openai_chat"),
    (bedrock(), "/v1/messages", b'{"model":"meta.x"}', "meta.x"),
    (bedrock(), "/v1/messages", b'{}', "without model"),
    (bedrock(bedrock_api="converse"), "/v1/messages", b'{"model":"claude"}', "anthropic_messages"),
    (bedrock(api_key=None, access_key_id="AKIA"), "/v1/messages", b'{"model":"claude"}',
     "signature"),
    (adapter_of(endpoint("openai"), shown), "/v1/messages", b'{"model":"m"}', "anthropic_messages"),
    (adapter_of(endpoint("anthropic"), shown), "/v1/chat/completions", b'{"model":"m"}',
     "openai_chat"),
    (adapter_of(endpoint("gemini"), shown), "/v1/chat/completions", b'{"model":"m"}',
     "openai_chat"),
    (adapter_of(endpoint("vertex"), shown), "/v1/messages", b'{"model":"m"}', "anthropic_messages"),
]
# fmt: on


@pytest.mark.parametrize(("adapter", "target", "body", "what"), REFUSED)
def test_what_an_endpoint_cannot_be_told(
    adapter: Adapter, target: str, body: bytes, what: str
) -> None:
    found = planned(adapter, exchange(target, body))
    assert isinstance(found, Refused)
    assert found.reason.startswith("cannot express ")
    assert what in found.reason


def test_a_body_that_cannot_be_taken_apart_is_refused() -> None:
    deep = b'{"model":"m","model":"n","x":' + b"[" * 1000 + b"]" * 1000 + b"}"
    found = planned(bedrock(bedrock_api="invoke"), exchange("/v1/messages", deep))
    assert found == Refused("cannot express the body")


def test_an_inference_profile_has_to_be_called_claude_by_the_settings() -> None:
    adapter = bedrock(bedrock_api="invoke", models={"claude": ARN})
    line, _ = head_of(plan(adapter, exchange("/v1/messages", b'{"model":"claude"}')))
    assert "application-inference-profile%2Fx/invoke " in line


# fmt: off
VIEWS = [
    # target, body, model, stream, usage, user
    ("/v1/chat/completions", {"model": "m", "stream": True, "user": "u"}, "m", True, False, "u"),
    ("/v1/chat/completions", {"stream_options": {"include_usage": True}}, None, False, True, None),
    ("/v1/chat/completions", {"model": 5, "stream": "yes", "user": 5}, None, False, False, None),
    ("/openai/deployments/d/chat/completions", {"model": None, "safety_identifier": "s"}, "d",
     False, False, "s"),
    ("/v1/messages", {"model": "m", "metadata": {"user_id": "u"}}, "m", False, True, "u"),
]
# fmt: on


@pytest.mark.parametrize(("target", "doc", "model", "stream", "usage", "user"), VIEWS)
def test_what_the_gateway_asks_of_a_body(
    target: str, doc: dict, model: str | None, stream: bool, usage: bool, user: str | None
) -> None:
    surface = read_target("POST", target)
    assert isinstance(surface, Surface)
    assert request_view(surface, doc) == (model, stream, usage, user)
