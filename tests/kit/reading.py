"""What a caller makes of a stream, read as strictly as it may be: one start, one end, every block
closed, one id.  Raises AssertionError where a client could stumble."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Said:
    """`whole`: it ended as its dialect says.  `error`: the in-band error that ended it."""

    text: str = ""
    whole: bool = False
    error: dict[str, Any] | None = None
    models: list[str] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    tools: list[str] = field(default_factory=list)
    comments: int = 0


def events(body: bytes) -> list[tuple[str, str]]:
    """(name, data) of every event; comments have no data."""
    found = []
    for block in body.decode().split("\n\n"):
        name, data = "", ""
        for line in block.split("\n"):
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data = line[6:]
        if block:
            found.append((name, data))
    assert not body or body.endswith(b"\n\n"), body[-80:]
    return found


def read_chat(body: bytes) -> Said:
    said, ids, roles, finished, done = Said(), set[str](), 0, 0, 0
    for _, data in events(body):
        assert not done, "something follows [DONE]"
        assert said.error is None, "something follows the error"
        if not data:
            said.comments += 1
            continue
        if data == "[DONE]":
            done += 1
            continue
        doc = json.loads(data)
        if doc.get("error"):
            said.error = doc["error"]
            continue
        ids.add(doc["id"])
        said.models.append(doc["model"])
        if doc.get("usage"):
            assert said.usage is None, "two usages"
            said.usage = doc["usage"]
        for choice in doc["choices"]:
            assert not finished, "something follows the finish"
            delta = choice["delta"]
            roles += "role" in delta
            said.text += delta.get("content") or ""
            said.tools += [json.dumps(call) for call in delta.get("tool_calls") or []]
            finished += choice["finish_reason"] is not None
    assert len(ids) <= 1, ids
    assert roles <= 1, "two beginnings"
    said.whole = bool(finished and done)
    assert not (said.whole and said.error)
    return said


def read_messages(body: bytes) -> Said:
    said, open_at, next_at, began, ended, stopped = Said(), None, 0, 0, False, False
    for name, data in events(body):
        assert not stopped, "something follows message_stop"
        assert said.error is None, "something follows the error"
        if not data:
            said.comments += 1
            continue
        doc = json.loads(data)
        assert name == doc["type"]
        match doc["type"]:
            case "message_start":
                began += 1
                said.models.append(doc["message"]["model"])
            case "content_block_start":
                assert open_at is None, "a block inside a block"
                assert doc["index"] == next_at, "a gap between indexes"
                open_at, next_at = next_at, next_at + 1
                if doc["content_block"]["type"] == "tool_use":
                    said.tools.append(doc["content_block"]["name"])
            case "content_block_delta":
                assert doc["index"] == open_at, "a delta of a block that is not open"
                said.text += doc["delta"].get("text", "")
            case "content_block_stop":
                assert doc["index"] == open_at
                open_at = None
            case "message_delta":
                assert open_at is None, "a block that never ended"
                assert not ended, "two ends"
                ended, said.usage = True, doc["usage"]
            case "message_stop":
                stopped = True
            case "error":
                said.error = doc["error"]
            case _:
                pass
    assert began <= 1, "two beginnings"
    said.whole = ended and stopped
    assert not (said.whole and said.error)
    return said
