"""The events of a Chat Completions stream, as they are written (wire.md §3.4)."""

from typing import Final

from proxy.model.exchange import Json, Seen
from proxy.wire import jsonbody
from proxy.wire.dialect import Lane, Object

FRAME: Final = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
# member of a delta -> its lane's part and the last number of its lane
TEXTS: Final[dict[str, Lane]] = {
    "content": (0, "text", 0),
    "refusal": (0, "refusal", 0),
    "reasoning_content": (0, "reasoning", 0),
    "reasoning": (0, "reasoning", 1),
}
LEGACY: Final = -1  # the place of the old `function_call`
_TOLD: Final = frozenset({"content", "tokens", "token_logprobs", "top_logprobs", "text_offset"})
_REPEATS: Final = ("logprobs", "token_ids")  # members that say the text again, token by token


def repeats_other(choice: Object, said: Json) -> bool:
    """The choice has log probabilities whose tokens, joined, are not what it `said`; or token ids,
    of which nobody here knows what they say."""
    if choice.get("token_ids") is not None:
        return True
    found = choice.get("logprobs")
    if found is None:
        return False
    if type(found) is not dict or any(found.get(name) for name in found if name not in _TOLD):
        return True
    tokens = found.get("tokens")  # of the legacy completions
    if tokens is None:
        entries = found.get("content")
        tokens = [e.get("token") if type(e) is dict else None for e in _list(entries)]
    texts = [token for token in _list(tokens) if type(token) is str]
    return len(texts) != len(_list(tokens)) or "".join(texts) != (said or "")


def _list(value: Json) -> list[Json]:
    return value if type(value) is list else [] if value is None else [value]


def written(doc: Object, name: str = "") -> bytes:
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + jsonbody.dumps_event(doc) + b"\n\n"


def chunk(frame: Object, at: int, delta: Object, reason: str | None = None) -> bytes:
    choice: Json = {"index": at, "delta": delta, "finish_reason": reason}
    return written({**frame, "choices": [choice]})


def choices_in(doc: Object | None) -> list[Object]:
    choices = doc.get("choices") if doc is not None else None
    return [c for c in choices if type(c) is dict] if type(choices) is list else []


def choices_of(doc: Object) -> list[Object]:
    """Those of a whole answer, each in its place."""
    choices = doc.get("choices")
    if type(choices) is not list:
        return []
    return [choice if type(choice) is dict else {} for choice in choices]


def rendered(seen: Seen) -> bytes:
    """An event with other texts in it: what repeats them goes."""
    assert seen.doc is not None, "an event without a document was changed"
    for choice in choices_in(seen.doc):
        for name in _REPEATS:
            if choice.get(name) is not None:
                choice[name] = None
    return written(seen.doc, seen.name)


def unfinished(seen: Seen) -> bytes:
    """An event that was blocked: its texts, and nothing of how anything ends."""
    assert seen.doc is not None, "an event without a document has no texts"
    for choice in choices_in(seen.doc):
        choice["finish_reason"] = None
    seen.doc.pop("usage", None)
    return rendered(seen)


def tail_delta(lane: Lane, text: str) -> Object | None:
    """The delta that goes on with a lane; None for one of unknown kind."""
    _, part, place = lane
    if part == "tool_args":
        function: Json = {"arguments": text}
        if place == LEGACY:
            return {"function_call": function}
        return {"tool_calls": [{"index": place, "function": function}]}
    if part == "tool_name":
        name: Json = {"name": text}
        return {"tool_calls": [{"index": place, "function": name}]}
    if part == "text" and place == 1:
        return {"audio": {"transcript": text}}
    for member, (_, named, number) in TEXTS.items():
        if named == part and number == place:
            return {member: text}
    return None
