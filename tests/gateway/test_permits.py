"""T-GR-25: tools that are declared, forced, called, streamed; models and limits.

Nothing of a denied call leaves."""

import asyncio
import json
from collections.abc import Callable

import pytest

from proxy.model.policy import PolicyPack
from proxy.model.tenancy import ApiKey
from proxy.spool.expand import events_of
from proxy.spool.record import line_of
from tests.kit.builders import ANTHROPIC, JSON, OPENAI, SPARE, World, policy, world
from tests.kit.fakes import RecordingDownstream, Step
from tests.kit.shapes import (
    CHAT,
    DONE,
    MESSAGES,
    ROLE,
    begun,
    chat,
    chunk,
    docs_of,
    ended,
    event,
    piece,
    told,
)

Doc = dict[str, object]
EXPORT: Doc = {"resource": "export-*", "roles_any": ["admin"]}
SEARCH: Doc = {"resource": "search", "args": [{"path": "$.limit", "max": 100}]}
GITHUB: Doc = {"resource": "mcp:github/*", "decision": "deny"}
ENTRIES = [EXPORT, SEARCH, GITHUB]
ARGUMENTS = "s3cr3t-arguments"


def guard(
    action: str = "block",
    on_declared: str = "strip",
    default: str = "allow",
    *more: Doc,
    **members: object,
) -> PolicyPack:
    config = {"default": default, "on_declared": on_declared, "tools": ENTRIES}
    rule = {"rule_id": "tools", "kind": "tool_permission", "action": action, "config": config}
    return PolicyPack.model_validate(
        {"policy_pack_id": "test-pack", "rules": [rule, *more], **members}
    )


def rules(*said: Doc) -> PolicyPack:
    return PolicyPack.model_validate({"policy_pack_id": "test-pack", "rules": list(said)})


def tool(name: str) -> Doc:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


def asked(**more: object) -> bytes:
    return json.dumps(json.loads(CHAT) | more).encode()


def claude(**more: object) -> bytes:
    messages = [{"role": "user", "content": "hello"}]
    return json.dumps({"model": "claude", "max_tokens": 9, "messages": messages} | more).encode()


FINE: list[Step] = [(200, JSON), b'{"choices":[{"index":0,"message":{"content":"hi"}}]}', None]
FINE_CLAUDE: list[Step] = [(200, JSON), b'{"content":[{"type":"text","text":"hi"}]}', None]


def openai(found: PolicyPack, *script: list[Step]) -> World:
    return world((OPENAI,), scripts={"openai": list(script or [FINE])}, packs=[found])


def anthropic(found: PolicyPack, *script: list[Step]) -> World:
    scripts = {"anthropic-claude": list(script or [FINE_CLAUDE])}
    return world((ANTHROPIC,), scripts=scripts, packs=[found])


def sent(w: World, endpoint: str = "openai") -> Doc:
    (outgoing,) = w.upstreams[endpoint].sent
    found: Doc = json.loads(outgoing.body)
    return found


def permissions(w: World) -> list[Doc]:
    """The permission decisions that the one request is told with."""
    record = w.record
    found = [each.body for each in events_of(line_of(record)[:-1]).events]
    payloads = [e["payload"] for e in found if e["type"] == "runtime.permission.decision"]
    return [p for p in payloads if isinstance(p, dict)]


# --- declared


async def test_a_declared_tool_is_stripped_before_the_model_sees_it() -> None:
    w = openai(guard())
    caller = await w.ask(asked(tools=[tool("export-tool"), tool("search")], seed=1.5))
    assert caller.status == 200
    body = sent(w)
    assert body["tools"] == [tool("search")]
    assert body["seed"] == 1.5
    (denied,) = permissions(w)
    seed = {
        "request_id": denied["request_id"], "resource": "export-tool", "action": "declare",
        "decision": "denied", "reason": "role_restriction", "role_required": "admin",
    }  # fmt: skip
    assert {name: denied[name] for name in seed} == seed
    assert denied["role"] == "anonymous"


async def test_the_last_tool_takes_its_choice_with_it() -> None:
    w = openai(guard())
    await w.ask(
        asked(tools=[tool("export-tool")], tool_choice="required", parallel_tool_calls=False)
    )
    assert sent(w) == json.loads(CHAT)


# fmt: off
STRIPPED = [
    # sent                                                     what goes on of it
    ({"functions": [{"name": "export-x"}, {"name": "ok"}]},    {"functions": [{"name": "ok"}]}),
    ({"functions": [{"name": "export-x"}], "function_call": "auto"}, {}),
    ({"tools": [{"type": "custom", "custom": {"name": "export-x"}}]}, {}),
    ({"tools": [{"type": "mcp", "server_label": "github"}]},   {}),
    ({"tools": [{"type": "mcp", "server_label": "jira"}]},
     {"tools": [{"type": "mcp", "server_label": "jira"}]}),
    ({"tools": [tool("export-x"), tool("ok")],
      "tool_choice": {"type": "allowed_tools", "allowed_tools": {
          "mode": "auto", "tools": [tool("export-x"), tool("ok")]}}},
     {"tools": [tool("ok")],
      "tool_choice": {"type": "allowed_tools", "allowed_tools": {
          "mode": "auto", "tools": [tool("ok")]}}}),
    ({"tools": [tool("export-x"), tool("ok")],
      "tool_choice": {"type": "allowed_tools", "allowed_tools": {
          "mode": "auto", "tools": [tool("export-x")]}}},
     {"tools": [tool("ok")], "tool_choice": "none"}),
]
STRIPPED_CLAUDE = [
    ({"tools": [{"name": "export-x", "input_schema": {}}, {"name": "ok", "input_schema": {}}]},
     {"tools": [{"name": "ok", "input_schema": {}}]}),
    ({"tools": [{"name": "export-x"}], "tool_choice": {"type": "any"}}, {}),
    ({"tools": [{"type": "export-20250305", "name": "hosted"}]}, {}),
    ({"mcp_servers": [{"name": "github", "url": "u"}, {"name": "jira", "url": "u"}]},
     {"mcp_servers": [{"name": "jira", "url": "u"}]}),
    ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "github"}, {"name": "ok"}],
      "mcp_servers": [{"name": "github", "url": "u"}]},
     {"tools": [{"name": "ok"}]}),
    ({"mcp_servers": [{"name": "github", "tool_configuration": {"allowed_tools": ["a", "b"]}}]},
     {}),
]
# fmt: on


@pytest.mark.parametrize(("more", "left"), STRIPPED)
async def test_what_is_stripped_of_a_chat(more: Doc, left: Doc) -> None:
    w = openai(guard())
    assert (await w.ask(asked(**more))).status == 200
    assert sent(w) == json.loads(asked(**left))


@pytest.mark.parametrize(("more", "left"), STRIPPED_CLAUDE)
async def test_what_is_stripped_of_messages(more: Doc, left: Doc) -> None:
    w = anthropic(guard())
    assert (await w.ask(claude(**more), MESSAGES)).status == 200
    assert sent(w, "anthropic-claude") == json.loads(claude(**left))


async def test_of_an_mcp_server_single_tools_are_switched_off() -> None:
    entry: Doc = {"resource": "mcp:jira/delete", "decision": "deny"}
    config = {"tools": [entry]}
    w = anthropic(rules({"rule_id": "t", "kind": "tool_permission", "action": "block",
                         "config": config}))  # fmt: skip
    configs: Doc = {"delete": {"enabled": True, "defer_loading": True}, "read": {}}
    toolset: Doc = {"type": "mcp_toolset", "mcp_server_name": "jira", "configs": configs}
    server: Doc = {"name": "jira", "url": "u"}
    old: Doc = {"name": "old", "url": "u", "tool_configuration": {"allowed_tools": ["delete"]}}
    await w.ask(claude(tools=[toolset], mcp_servers=[server, old]), MESSAGES)
    left = sent(w, "anthropic-claude")
    assert left["mcp_servers"] == [server, old]
    assert left["tools"] == [toolset | {"configs": {"delete": {"enabled": False}, "read": {}}}]


async def test_on_declared_block() -> None:
    w = openai(guard(on_declared="block"))
    caller = await w.ask(asked(tools=[tool("search"), tool("export-tool")]))
    assert (caller.status, w.upstreams["openai"].sent) == (403, [])
    error = json.loads(caller.received)["error"]
    assert error["type"] == "permission_error"
    assert error["message"] == "The tool 'export-tool' needs the role admin, not anonymous."
    record = w.record
    assert (record.outcome, record.error_class) == ("blocked", "forbidden")
    (result,) = record.policy_results
    assert (result.rule_matched, result.action_taken, result.detector) == (
        "tools", "block", "tool_permission",
    )  # fmt: skip


async def test_on_declared_allow() -> None:
    w = openai(guard(on_declared="allow"))
    body = asked(tools=[tool("export-tool")])
    assert (await w.ask(body)).status == 200
    (outgoing,) = w.upstreams["openai"].sent
    assert outgoing.body == body
    assert w.record.policy_results == []


@pytest.mark.parametrize(
    ("action", "mode", "taken", "message"),
    [("log", "enforce", "log", None), ("flag", "enforce", "flag", None),
     ("block", "shadow", "none", "would redact")],
)  # fmt: skip
async def test_what_is_only_told_changes_no_byte(
    action: str, mode: str, taken: str, message: str | None
) -> None:
    w = openai(guard(action=action, mode=mode))
    body = asked(tools=[tool("export-tool")])
    assert (await w.ask(body)).status == 200
    (outgoing,) = w.upstreams["openai"].sent
    assert outgoing.body == body
    record = w.record
    (result,) = record.policy_results
    assert (result.action_taken, result.message) == (taken, message)
    assert result.enforced is (mode == "enforce")
    assert record.permissions == []
    assert record.flagged is (action == "flag")


SECRET = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # "secret"


@pytest.mark.parametrize(("role", "left"), [("admin", ["export-tool"]), ("app", None)])
async def test_the_role_is_that_of_the_callers_key(role: str, left: list[str] | None) -> None:
    key = ApiKey.model_validate({"id": "ab12", "role": role, "secret_sha256": SECRET})
    w = world((OPENAI,), scripts={"openai": [FINE]}, packs=[guard()], keys=[key])
    shown = [(b"authorization", b"Bearer ppt_ab12_secret")]
    caller = await w.ask(asked(tools=[tool("export-tool")]), headers=shown)
    assert caller.status == 200
    tools = sent(w).get("tools")
    assert tools == ([tool(name) for name in left] if left else None)
    assert [p["role"] for p in permissions(w)] == ([] if left else ["app"])


# --- forced

# fmt: off
FORCED = [
    {"tools": [tool("export-x"), tool("ok")],
     "tool_choice": {"type": "function", "function": {"name": "export-x"}}},
    {"tools": [tool("ok")], "tool_choice": {"type": "custom", "custom": {"name": "export-x"}}},
    {"tools": [tool("ok")], "tool_choice": {"type": "function", "name": "export-x"}},
    {"tools": [tool("ok")], "tool_choice": {"type": "mcp", "server_label": "github", "name": "a"}},
    {"tools": [tool("export-x")], "tool_choice": {"type": "allowed_tools", "allowed_tools": {
        "mode": "required", "tools": [tool("export-x")]}}},
    {"functions": [{"name": "export-x"}], "function_call": {"name": "export-x"}},
]
# fmt: on


@pytest.mark.parametrize("more", FORCED)
async def test_a_forced_choice_of_a_denied_tool_is_a_block(more: Doc) -> None:
    w = openai(guard(action="redact", on_declared="strip"))
    caller = await w.ask(asked(**more))
    assert (caller.status, w.upstreams["openai"].sent) == (403, [])
    assert permissions(w)[0]["action"] == "execute"


async def test_a_forced_choice_in_messages() -> None:
    w = anthropic(guard())
    more = {"tools": [{"name": "export-x"}], "tool_choice": {"type": "tool", "name": "export-x"}}
    caller = await w.ask(claude(**more), MESSAGES)
    assert caller.status == 403
    assert json.loads(caller.received)["error"]["type"] == "permission_error"


# --- the history


async def test_calls_of_the_history_are_only_told() -> None:
    w = openai(guard())
    made = {"role": "assistant", "tool_calls": [call_of("export-x"), call_of("search")]}
    body = asked(messages=[{"role": "user", "content": "hi"}, made])
    assert (await w.ask(body)).status == 200
    (outgoing,) = w.upstreams["openai"].sent
    assert outgoing.body == body
    record = w.record
    (result,) = record.policy_results
    assert (result.action_taken, result.count, result.message) == ("log", 1, "in the history")
    assert record.permissions == []


# --- called


def call_of(name: str, arguments: str = "{}", call_id: str = "t1") -> Doc:
    return {"id": call_id, "type": "function",
            "function": {"name": name, "arguments": arguments}}  # fmt: skip


def chat_answer(*calls: Doc, content: str | None = None, **more: object) -> list[Step]:
    message = {"role": "assistant", "content": content, "tool_calls": list(calls), **more}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return [(200, JSON), json.dumps({"choices": [choice]}).encode(), None]


DENIED = call_of("export-tool", json.dumps({"to": ARGUMENTS}))
NOTICE = "[tool call export-tool denied]"


async def test_a_call_that_is_blocked() -> None:
    w = openai(guard(), chat_answer(call_of("search"), DENIED))
    caller = await w.ask(CHAT)
    assert caller.status == 400
    assert json.loads(caller.received)["error"]["code"] == "content_filter"
    assert ARGUMENTS.encode() not in caller.received
    record = w.record
    assert (record.outcome, record.truncated_by_policy) == ("blocked", True)
    assert record.attempts[0].outcome == "blocked"
    assert [d.resource for d in record.permissions] == ["export-tool"]


async def test_a_call_that_is_removed() -> None:
    w = openai(guard(action="redact"), chat_answer(DENIED))
    caller = await w.ask(CHAT)
    (choice,) = json.loads(caller.received)["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"] == {"role": "assistant", "content": NOTICE}
    (denied,) = permissions(w)
    seed = {
        "resource": "export-tool", "action": "execute", "decision": "denied",
        "reason": "role_restriction", "role_required": "admin",
    }  # fmt: skip
    assert {name: denied[name] for name in seed} == seed


async def test_of_parallel_calls_the_others_stay() -> None:
    other = call_of("search", '{"limit": 5}', "t2")
    w = openai(guard(action="redact"), chat_answer(DENIED, other, DENIED, content="Let me see."))
    caller = await w.ask(CHAT)
    (choice,) = json.loads(caller.received)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"] == [other]
    assert choice["message"]["content"] == f"Let me see.\n{NOTICE}\n{NOTICE}"
    assert [p["count"] for p in permissions(w)] == [2]


@pytest.mark.parametrize("arguments", ['{"limit": 101}', '{"limit": 1, "limit": 1}', "{", "[]"])
async def test_arguments_that_are_rejected(arguments: str) -> None:
    w = openai(guard(action="redact"), chat_answer(call_of("search", arguments)))
    caller = await w.ask(CHAT)
    (choice,) = json.loads(caller.received)["choices"]
    assert "tool_calls" not in choice["message"]
    assert [p["reason"] for p in permissions(w)] == ["argument_rejected"]


async def test_a_legacy_call_is_removed() -> None:
    message = {"content": None, "function_call": {"name": "export-tool", "arguments": ARGUMENTS}}
    choice = {"index": 0, "message": message, "finish_reason": "function_call"}
    script: list[Step] = [(200, JSON), json.dumps({"choices": [choice]}).encode(), None]
    caller = await openai(guard(action="redact"), script).ask(CHAT)
    (left,) = json.loads(caller.received)["choices"]
    assert left == {"index": 0, "message": {"content": NOTICE}, "finish_reason": "stop"}


def used(name: str, **more: object) -> Doc:
    return {"type": "tool_use", "id": "t1", "name": name, "input": {"to": ARGUMENTS}, **more}


async def test_calls_of_messages_are_removed_with_their_results() -> None:
    content = [
        {"type": "text", "text": "hi"},
        used("export-tool"),
        used("delete", type="mcp_tool_use", id="m1", server_name="github"),
        {"type": "mcp_tool_result", "tool_use_id": "m1", "content": ARGUMENTS},
    ]
    body = json.dumps({"content": content, "stop_reason": "tool_use"}).encode()
    w = anthropic(guard(action="redact"), [(200, JSON), body, None])
    caller = await w.ask(claude(), MESSAGES)
    answer = json.loads(caller.received)
    assert answer["stop_reason"] == "end_turn"
    assert [block["text"] for block in answer["content"]] == [
        "hi", NOTICE, "[tool call mcp:github/delete denied]",
    ]  # fmt: skip
    assert ARGUMENTS.encode() not in caller.received
    assert w.record.finish_reason == "end_turn"


async def test_a_notice_is_a_text_like_others() -> None:
    hides: Doc = {"rule_id": "x", "pattern": "export-[a-z]+", "action": "redact", "label": "X"}
    w = openai(guard("redact", "strip", "allow", hides), chat_answer(DENIED))
    caller = await w.ask(CHAT)
    (choice,) = json.loads(caller.received)["choices"]
    assert choice["message"]["content"] == "[tool call [X] denied]"


async def test_a_name_that_is_no_name_is_not_repeated() -> None:
    strange = call_of("export-" + "a secret " * 9)
    w = openai(guard(action="redact"), chat_answer(strange))
    caller = await w.ask(CHAT)
    assert b"secret" not in caller.received
    record = w.record
    assert b"secret" not in line_of(record)
    assert [d.resource for d in record.permissions] == ["?"]


# --- streamed


def fragment(index: int, name: str = "", arguments: str = "") -> Doc:
    function: Doc = {"arguments": arguments}
    if name:
        function["name"] = name
    begun: Doc = {"id": f"t{index}", "type": "function"} if name else {}
    return {"tool_calls": [{"index": index, **begun, "function": function}]}


def export_stream() -> list[Step]:
    secret = json.dumps({"to": ARGUMENTS})
    return chat(
        chunk({"content": "Let me"}), chunk({"content": " see."}),
        chunk(fragment(0, "export-tool")), chunk(fragment(1, "search", '{"li')),
        chunk(fragment(0, "", secret[:7])), chunk(fragment(1, "", 'mit": 5}')),
        chunk(fragment(0, "", secret[7:])),
        chunk({}, "tool_calls"),
    )  # fmt: skip


def heard(caller: RecordingDownstream) -> tuple[str, list[tuple[object, ...]], object]:
    """(text, calls by index, finish reason) of a streamed chat."""
    text, calls, finish = "", {}, None
    for doc in json.loads(json.dumps(docs_of(caller))):
        for choice in doc["choices"]:
            text += choice["delta"].get("content") or ""
            finish = choice["finish_reason"] or finish
            for each in choice["delta"].get("tool_calls", []):
                known = calls.setdefault(each["index"], ["", ""])
                known[0] += each["function"].get("name", "")
                known[1] += each["function"].get("arguments", "")
    return text, [(at, *calls[at]) for at in sorted(calls)], finish


async def test_a_streamed_call_is_removed_and_the_others_move_up() -> None:
    w = openai(guard(action="redact"), export_stream())
    caller = await w.ask(asked(stream=True))
    text, calls, finish = heard(caller)
    assert text == f"Let me see.\n{NOTICE}"
    assert calls == [(0, "search", '{"limit": 5}')]
    assert finish == "tool_calls"
    assert ARGUMENTS.encode() not in caller.received
    assert caller.received.endswith(DONE)
    assert [p["resource"] for p in permissions(w)] == ["export-tool"]


async def test_the_last_streamed_call_takes_the_finish_reason_with_it() -> None:
    call = chunk(fragment(0, "export-tool", json.dumps({"to": ARGUMENTS})))
    w = openai(guard(action="redact"), chat(call, chunk({}, "tool_calls")))
    caller = await w.ask(asked(stream=True))
    assert heard(caller) == (NOTICE, [], "stop")
    assert w.record.finish_reason == "stop"


async def test_choices_lose_their_calls_on_their_own() -> None:
    both = {"id": "c", "choices": [
        {"index": at, "delta": fragment(0, name, "{}"), "finish_reason": "tool_calls"}
        for at, name in enumerate(["export-a", "search"])
    ]}  # fmt: skip
    opened = chunk({"role": "assistant", "content": ""}, None, 1)
    event = b"data: " + json.dumps(both).encode() + b"\n\n"
    w = openai(guard(action="redact"), chat(opened, event))
    caller = await w.ask(asked(stream=True, n=2))
    ends = {
        c["index"]: c["finish_reason"]
        for doc in json.loads(json.dumps(docs_of(caller))) for c in doc["choices"]
        if c["finish_reason"]
    }  # fmt: skip
    assert ends == {0: "stop", 1: "tool_calls"}


async def test_a_streamed_call_that_is_blocked_ends_the_stream() -> None:
    w = openai(guard(), export_stream())
    caller = await w.ask(asked(stream=True))
    text, calls, finish = heard(caller)
    assert (text, calls, finish) == ("Let me see.", [], "content_filter")
    assert ARGUMENTS.encode() not in caller.received
    record = w.record
    assert (record.outcome, record.attempts[0].outcome) == ("blocked", "blocked")


async def test_a_call_that_is_blocked_before_any_content_is_a_400() -> None:
    call = chunk(fragment(0, "export-tool", "{}"))
    caller = await openai(guard(), chat(call, chunk({}, "tool_calls"))).ask(asked(stream=True))
    assert caller.status == 400


def claude_stream() -> list[Step]:
    secret = json.dumps({"to": ARGUMENTS})
    call: Doc = {"type": "tool_use", "id": "t1", "name": "export-tool", "input": {}}
    server: Doc = {"type": "mcp_tool_use", "id": "m1", "name": "delete", "server_name": "github",
                   "input": {}}  # fmt: skip
    result: Doc = {"type": "mcp_tool_result", "tool_use_id": "m1",
                   "content": [{"type": "text", "text": ARGUMENTS}]}  # fmt: skip
    after = told(
        begun(0, {"type": "text", "text": ""}),
        piece(0, {"type": "text_delta", "text": "hi"}), ended(0),
        begun(1, call),
        piece(1, {"type": "input_json_delta", "partial_json": secret[:9]}),
        piece(1, {"type": "input_json_delta", "partial_json": secret[9:]}), ended(1),
        begun(2, server), piece(2, {"type": "input_json_delta", "partial_json": secret}), ended(2),
        begun(3, result), ended(3),
        begun(4, {"type": "text", "text": ""}),
        piece(4, {"type": "text_delta", "text": "bye"}), ended(4),
    )  # fmt: skip
    last: Doc = {"type": "message_delta", "delta": {"stop_reason": "tool_use"},
                 "usage": {"output_tokens": 5}}  # fmt: skip
    return [*after[:-3], event(last), *after[-2:]]


async def test_a_streamed_call_of_messages_is_removed_with_its_result() -> None:
    w = anthropic(guard(action="redact"), claude_stream())
    caller = await w.ask(claude(stream=True), MESSAGES)
    docs = json.loads(json.dumps(docs_of(caller)))
    starts = [doc["index"] for doc in docs if doc["type"] == "content_block_start"]
    texts = [doc["delta"].get("text") for doc in docs if doc["type"] == "content_block_delta"]
    (reason,) = [doc["delta"]["stop_reason"] for doc in docs if doc["type"] == "message_delta"]
    assert starts == [0, 1, 2, 3]
    assert texts == ["hi", NOTICE, "[tool call mcp:github/delete denied]", "bye"]
    assert reason == "end_turn"
    assert ARGUMENTS.encode() not in caller.received


Scripted = Callable[..., World]
STREAMS: list[tuple[Scripted, list[Step], bytes, str]] = [
    (openai, export_stream(), asked(stream=True), "/v1/chat/completions"),
    (anthropic, claude_stream(), claude(stream=True), MESSAGES),
]


EVERY_FIFTH, EVERY = (
    pytest.param(5, marks=pytest.mark.thorough),
    pytest.param(1, marks=pytest.mark.exhaustive),
)


@pytest.mark.parametrize("step", [EVERY_FIFTH, EVERY])
@pytest.mark.parametrize("action", ["redact", "block"])
@pytest.mark.parametrize(("scripted", "script", "body", "path"), STREAMS, ids=["chat", "messages"])
async def test_the_cut_of_a_stream_changes_nothing(
    scripted: Scripted, script: list[Step], body: bytes, path: str, action: str, step: int
) -> None:
    """At every byte in two, and byte by byte: the same text leaves, and none of the call."""
    head, *rest, end = script
    whole = b"".join(part for part in rest if isinstance(part, bytes))
    cuts = [[whole[:at], whole[at:]] for at in range(1, len(whole), step)]
    cuts.append([whole[at : at + 1] for at in range(len(whole))])
    seen = set()
    w = scripted(guard(action=action), *([head, *cut, end] for cut in cuts))
    for _ in cuts:
        caller = await w.ask(body, path)
        assert ARGUMENTS.encode() not in caller.received
        seen.add((caller.status, *map(str, docs_of(caller))) if action == "redact" else "")
        record = w.record
        assert "export-tool" in [decision.resource for decision in record.permissions]
        await asyncio.sleep(0)
    assert len(seen) == 1


@pytest.mark.parametrize("found", [guard(mode="shadow"), guard(action="log")])
@pytest.mark.parametrize(("scripted", "script", "body", "path"), STREAMS, ids=["chat", "messages"])
async def test_what_only_watches_changes_no_byte_of_a_stream(
    scripted: Scripted, script: list[Step], body: bytes, path: str, found: PolicyPack
) -> None:
    w = scripted(found, script)
    caller = await w.ask(body, path)
    came = b"".join(part for part in script if isinstance(part, bytes))
    assert caller.received == came
    record = w.record
    results = [r for r in record.policy_results if r.direction == "response"]
    assert {r.applies_to for r in results} == {"tool_name"}
    assert {r.action_taken for r in results} <= {"none", "log"}
    assert record.permissions == []


async def test_a_watched_call_with_bad_arguments_is_told() -> None:
    script = chat(chunk(fragment(0, "search", '{"limit"')), chunk(fragment(0, "", ": 900}")),
                  chunk({}, "tool_calls"))  # fmt: skip
    w = openai(guard(action="log"), script)
    await w.ask(asked(stream=True))
    (result,) = w.record.policy_results
    assert (result.applies_to, result.action_taken) == ("tool_args", "log")


async def test_the_end_of_a_text_leaves_before_the_notice() -> None:
    """A rule of texts holds the end of the text; the notice does not overtake it."""
    hides: Doc = {"rule_id": "x", "pattern": "see[0-9]+", "action": "redact"}
    script = chat(chunk({"content": "Let me see"}), chunk(fragment(0, "export-tool", "{}")),
                  chunk({}, "tool_calls"))  # fmt: skip
    w = openai(guard("redact", "strip", "allow", hides), script)
    caller = await w.ask(asked(stream=True))
    assert heard(caller)[0] == f"Let me see\n{NOTICE}"


async def test_a_call_without_an_end_is_judged_all_the_same() -> None:
    """Some servers send no finish reason: what was held comes with the trailer."""
    script: list[Step] = [(200, [(b"content-type", b"text/event-stream")]), ROLE,
                          chunk({"content": "x"}), chunk(fragment(0, "export-tool", ARGUMENTS)),
                          DONE, None]  # fmt: skip
    w = openai(guard(action="redact"), script)
    caller = await w.ask(asked(stream=True))
    assert ARGUMENTS.encode() not in caller.received


# --- models


def access(action: str = "block", **config: object) -> PolicyPack:
    return rules({"rule_id": "models", "kind": "model_access", "action": action, "config": config})


async def test_a_model_that_is_refused() -> None:
    w = openai(access(deny=["gpt-4*"]))
    caller = await w.ask(CHAT)
    assert (caller.status, w.upstreams["openai"].sent) == (403, [])
    assert json.loads(caller.received)["error"]["message"] == (
        "The model 'gpt-4o' is not allowed here."
    )
    record = w.record
    assert (record.outcome, record.permissions) == ("blocked", [])
    assert [r.detector for r in record.policy_results] == ["model_access"]


async def test_the_role_that_is_needed_is_named() -> None:
    caller = await openai(access(deny=["gpt-4*"], roles_any=["admin"])).ask(CHAT)
    assert b"'gpt-4o' needs the role admin, not anonymous." in caller.received


BROKEN: list[Step] = [(500, JSON), b"{}", None]


async def test_an_endpoint_that_a_rule_refuses_is_skipped_and_never_used() -> None:
    primary = OPENAI.model_copy(update={"models": {"gpt-4o": "gpt-real"}})
    fallback = SPARE.model_copy(update={"models": {"gpt-4o": "cheap"}})
    w = world(
        (primary, fallback), packs=[access(deny=["cheap"])],
        scripts={"openai": [BROKEN], "spare": [FINE]}, failover=policy("openai", "spare"),
    )  # fmt: skip
    caller = await w.ask(CHAT)
    assert caller.status == 502
    assert not w.upstreams["spare"].sent


async def test_a_refused_primary_gives_way() -> None:
    primary = OPENAI.model_copy(update={"models": {"gpt-4o": "dear"}})
    w = world(
        (primary, SPARE), packs=[access(deny=["dear"])],
        scripts={"openai": [FINE], "spare": [FINE]}, failover=policy("openai", "spare"),
    )  # fmt: skip
    caller = await w.ask(CHAT)
    assert caller.status == 200
    assert not w.upstreams["openai"].sent
    record = w.record
    assert record.endpoint_id == "spare"
    assert [r.message for r in record.policy_results] == ["endpoint openai skipped"]


async def test_all_endpoints_refused_is_a_403() -> None:
    w = world(
        (OPENAI, SPARE), packs=[access(providers=["anthropic"])],
        scripts={"openai": [FINE], "spare": [FINE]}, failover=policy("openai", "spare"),
    )  # fmt: skip
    caller = await w.ask(CHAT)
    assert caller.status == 403
    assert b"gpt-4o" in caller.received
    assert w.record.outcome == "blocked"


async def test_a_list_of_models_is_no_use_of_one() -> None:
    w = openai(access(roles_any=["admin"]))
    caller = await w.ask(b"", "/v1/models", method="GET")
    assert caller.status == 200


# --- limits


def limits(action: str = "block", **config: object) -> PolicyPack:
    return rules({"rule_id": "limits", "kind": "limits", "action": action, "config": config})


def image(count: int) -> list[Doc]:
    part = {"type": "image_url", "image_url": {"url": "https://a/b.png"}}
    return [{"role": "user", "content": [part] * count}]


# fmt: off
OVER = [
    # limits                       request
    ({"max_input_chars": 4},       {}),
    ({"max_messages": 0},          {}),
    ({"max_tools": 1},             {"tools": [tool("a"), tool("b")]}),
    ({"max_tools": 1},             {"tools": [tool("a")], "functions": [{"name": "b"}]}),
    ({"max_images": 1},            {"messages": image(2)}),
    ({"max_output_tokens": 9},     {"max_tokens": 10}),
    ({"max_output_tokens": 9},     {"max_tokens": 1, "max_completion_tokens": 10}),
    ({"max_output_tokens": 9},     {"max_tokens": "10"}),
    ({"n_max": 4},                 {"n": 5}),
    ({"n_max": 4},                 {"n": 1e300}),
]
# fmt: on


@pytest.mark.parametrize(("config", "more"), OVER)
async def test_a_request_over_a_limit_is_blocked(config: Doc, more: Doc) -> None:
    w = openai(limits(**config))
    caller = await w.ask(asked(**more))
    assert (caller.status, w.upstreams["openai"].sent) == (400, [])
    (result,) = w.record.policy_results
    assert (result.message, result.detector) == (next(iter(config)), "limits")


async def test_a_request_within_its_limits_is_not_touched() -> None:
    found = limits(max_input_chars=5, max_messages=1, max_tools=0, max_images=0, n_max=1,
                   max_output_tokens=9)  # fmt: skip
    w = openai(found)
    assert (await w.ask(asked(max_tokens=9, n=1))).status == 200
    assert w.record.policy_results == []


# fmt: off
CLAMPS = [
    ({"max_tokens": 500},                  {"max_tokens": 100}),
    ({"max_completion_tokens": 500},       {"max_completion_tokens": 100}),
    ({"max_tokens": None},                 {"max_tokens": None, "max_completion_tokens": 100}),
    ({},                                   {"max_completion_tokens": 100}),
    ({"max_tokens": 50},                   {"max_tokens": 50}),
]
# fmt: on


@pytest.mark.parametrize(("more", "left"), CLAMPS)
async def test_an_answers_length_is_clamped_in_the_bytes(more: Doc, left: Doc) -> None:
    w = openai(limits("replace", max_output_tokens=100))
    assert (await w.ask(asked(**more))).status == 200
    assert sent(w) == json.loads(asked(**left))
    results = w.record.policy_results
    if left != more:
        assert [(r.action_taken, r.message) for r in results] == [
            ("replace", "max_output_tokens clamped to 100")
        ]
    else:
        assert results == []


async def test_a_clamp_and_a_stripped_tool_go_together() -> None:
    clamp: Doc = {"rule_id": "l", "kind": "limits", "action": "replace",
                  "config": {"max_output_tokens": 5}}  # fmt: skip
    w = anthropic(guard("block", "strip", "allow", clamp))
    await w.ask(claude(tools=[{"name": "export-x"}, {"name": "ok"}]), MESSAGES)
    left = sent(w, "anthropic-claude")
    assert (left["max_tokens"], left["tools"]) == (5, [{"name": "ok"}])


# --- order


async def test_a_block_stops_before_the_next_group() -> None:
    texts: Doc = {"rule_id": "hello", "pattern": "hello", "action": "block"}
    model: Doc = {"rule_id": "m", "kind": "model_access", "action": "block",
                  "config": {"deny": ["*"]}}  # fmt: skip
    w = openai(guard("block", "block", "deny", texts, model))
    caller = await w.ask(asked(tools=[tool("x")]))
    assert caller.status == 403
    assert [r.rule_matched for r in w.record.policy_results] == ["m"]


async def test_a_text_in_a_tool_that_went_is_not_judged() -> None:
    looks: Doc = {"rule_id": "x", "pattern": "hush", "action": "block",
                  "scope": {"parts": ["tool_def"]}}  # fmt: skip
    w = openai(guard("block", "strip", "allow", looks))
    gone = {"type": "function", "function": {"name": "export-x", "description": "hush"}}
    assert (await w.ask(asked(tools=[gone]))).status == 200


# --- hostile


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{}]}, {"tools": [{"type": "function"}]}, {"tools": [{"function": {}}]},
        {"tools": [{"function": {"name": 5}}]}, {"tools": [{"type": 5}]},
        {"tools": [{"type": "mcp", "server_label": 5, "allowed_tools": [5, None]}]},
        {"functions": [{"name": None}]},
    ],
)  # fmt: skip
async def test_a_tool_that_nobody_understands_is_denied_by_default(more: Doc) -> None:
    w = openai(guard(default="deny"))
    assert (await w.ask(asked(**more))).status == 200
    assert sent(w) == json.loads(CHAT)


@pytest.mark.parametrize("value", [5, "x", True, [5], [None], {"a": 1}])
@pytest.mark.parametrize("member", ["tools", "functions", "tool_choice", "function_call"])
async def test_other_types_break_nothing(member: str, value: object) -> None:
    w = openai(guard(default="deny"))
    assert (await w.ask(asked(**{member: value}))).status in (200, 403, 422)


@pytest.mark.parametrize("value", [5, "x", True, [5], [None], {"a": 1}])
@pytest.mark.parametrize("member", ["tools", "tool_choice", "mcp_servers"])
async def test_other_types_break_nothing_in_messages(member: str, value: object) -> None:
    w = anthropic(guard(default="deny"))
    assert (await w.ask(claude(**{member: value}), MESSAGES)).status in (200, 403, 422)


async def test_headers_of_a_403() -> None:
    caller = await openai(access(deny=["*"])).ask(CHAT)
    assert b"x-should-retry: false" in caller.head
