"""Token counts: from each dialect into disjoint buckets and out again (wire.md §9).

Invariant: the sum of all buckets is the same after any write and read.
"""

from collections.abc import Callable, Mapping
from typing import Final, Literal

from proxy.model.exchange import Dialect, Json, Usage
from proxy.wire.jsonbody import Object

Source = Dialect | Literal["bedrock_invoke_metrics"]
_MOST: Final = 2**53  # what every JSON reader keeps exact


def _count(raw: Object, name: str) -> int:
    """A count; 0 for what is none."""
    value = raw.get(name)
    if type(value) is int:
        return value if 0 <= value <= _MOST else max(0, min(value, _MOST))
    if type(value) is float and value == value:
        return int(max(0, min(value, _MOST)))
    return 0


def _object(raw: Object, name: str) -> Object:
    value = raw.get(name)
    return value if type(value) is dict else {}


# --- in


def _of_openai(raw: Object) -> Usage:
    return _inclusive(
        _count(raw, "prompt_tokens"), raw.get("prompt_tokens_details"),
        _count(raw, "completion_tokens"), raw.get("completion_tokens_details"),
    )  # fmt: skip


def _of_responses(raw: Object) -> Usage:
    return _inclusive(
        _count(raw, "input_tokens"), raw.get("input_tokens_details"),
        _count(raw, "output_tokens"), raw.get("output_tokens_details"),
    )  # fmt: skip


def _inclusive(taken: int, served: Json, output: int, spent: Json) -> Usage:
    """OpenAI's way: the input holds what caches served and stored."""
    reasoning = _count(spent, "reasoning_tokens") if type(spent) is dict else 0
    if type(served) is not dict:
        return Usage(taken, 0, 0, 0, output, reasoning)
    read, write = _count(served, "cached_tokens"), _count(served, "cache_write_tokens")
    return Usage(max(0, taken - read - write), read, write, 0, output, reasoning)


def _of_anthropic(raw: Object) -> Usage:
    return merge_anthropic(Usage(), raw)


def merge_anthropic(before: Usage, raw: Object) -> Usage:
    """Anthropic's stream counts cumulatively: a later usage overwrites what it names."""
    usage = Usage(
        before.input,
        before.cache_read,
        before.cache_write_5m,
        before.cache_write_1h,
        before.output,
        before.reasoning,
    )
    if raw.get("input_tokens") is not None:
        usage.input = _count(raw, "input_tokens")
    if raw.get("cache_read_input_tokens") is not None:
        usage.cache_read = _count(raw, "cache_read_input_tokens")
    by_ttl = raw.get("cache_creation")
    if raw.get("cache_creation_input_tokens") is not None or type(by_ttl) is dict:
        long = _count(by_ttl, "ephemeral_1h_input_tokens") if type(by_ttl) is dict else 0
        short = _count(by_ttl, "ephemeral_5m_input_tokens") if type(by_ttl) is dict else 0
        total = max(_count(raw, "cache_creation_input_tokens"), long + short)
        usage.cache_write_1h, usage.cache_write_5m = long, total - long
    if raw.get("output_tokens") is not None:
        usage.output = _count(raw, "output_tokens")
    details = raw.get("output_tokens_details")
    if type(details) is dict:
        usage.reasoning = _count(details, "thinking_tokens")
    return usage


def _of_metrics(raw: Object) -> Usage:
    return Usage(
        _count(raw, "inputTokenCount"),
        _count(raw, "cacheReadInputTokenCount"),
        _count(raw, "cacheWriteInputTokenCount"),
        0,
        _count(raw, "outputTokenCount"),
    )


def _of_converse(raw: Object) -> Usage:
    written = _count(raw, "cacheWriteInputTokens")
    details = raw.get("cacheDetails")
    long = sum(
        _count(entry, "inputTokens")
        for entry in (details if type(details) is list else [])
        if type(entry) is dict and entry.get("ttl") == "1h"
    )
    long = min(long, written)
    return Usage(
        _count(raw, "inputTokens"),
        _count(raw, "cacheReadInputTokens"),
        written - long,
        long,
        _count(raw, "outputTokens"),
    )


def _of_gemini(raw: Object) -> Usage:
    read, thoughts = _count(raw, "cachedContentTokenCount"), _count(raw, "thoughtsTokenCount")
    fresh = max(0, _count(raw, "promptTokenCount") - read) + _count(raw, "toolUsePromptTokenCount")
    return Usage(fresh, read, output=_count(raw, "candidatesTokenCount") + thoughts,
                 reasoning=thoughts)  # fmt: skip


_READERS: Final[Mapping[Source, Callable[[Object], Usage]]] = {
    "openai_chat": _of_openai,
    "openai_responses": _of_responses,
    "anthropic_messages": _of_anthropic,
    "bedrock_invoke_metrics": _of_metrics,
    "bedrock_converse": _of_converse,
    "gemini": _of_gemini,
}


def read_usage(source: Source, raw: Json) -> Usage | None:
    """The buckets; None where there is no usage."""
    return _READERS[source](raw) if type(raw) is dict and raw else None


# --- out


def _writes(usage: Usage) -> int:
    return usage.cache_write_5m + usage.cache_write_1h


def _as_openai(usage: Usage) -> Object:
    cached: Object = {"cached_tokens": usage.cache_read, "cache_write_tokens": _writes(usage)}
    return {
        "prompt_tokens": usage.all_input,
        "completion_tokens": usage.output,
        "total_tokens": usage.all_input + usage.output,
        "prompt_tokens_details": cached,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _as_responses(usage: Usage) -> Object:
    cached: Object = {"cached_tokens": usage.cache_read, "cache_write_tokens": _writes(usage)}
    return {
        "input_tokens": usage.all_input,
        "input_tokens_details": cached,
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.all_input + usage.output,
    }


def _as_anthropic(usage: Usage) -> Object:
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": _writes(usage),
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output,
    }


def _as_converse(usage: Usage) -> Object:
    return {
        "inputTokens": usage.input,
        "outputTokens": usage.output,
        "totalTokens": usage.all_input + usage.output,
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": _writes(usage),
    }


def _as_gemini(usage: Usage) -> Object:
    thoughts = min(usage.reasoning, usage.output)
    return {
        "promptTokenCount": usage.all_input,
        "cachedContentTokenCount": usage.cache_read,
        "candidatesTokenCount": usage.output - thoughts,
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": usage.all_input + usage.output,
    }


_WRITERS: Final[Mapping[Dialect, Callable[[Usage], Object]]] = {
    "openai_chat": _as_openai,
    "openai_responses": _as_responses,
    "anthropic_messages": _as_anthropic,
    "bedrock_converse": _as_converse,
    "gemini": _as_gemini,
}


def write_usage(dialect: Dialect, usage: Usage) -> Object:
    return _WRITERS[dialect](usage)


def event_tokens(usage: Usage) -> dict[str, int]:
    """The `tokens` of a runtime event."""
    return {
        "input": usage.all_input,
        "output": usage.output,
        "cached_input": usage.cache_read,
        "cache_write_input": _writes(usage),
        "reasoning": usage.reasoning,
        "total": usage.all_input + usage.output,
    }


# --- estimates (§9.3)

_PER_MESSAGE, _PER_TOOL, _PER_IMAGE = 4, 8, 1000
_IMAGES: Final = frozenset({"image", "image_url", "input_image"})


def estimate_bytes(size: int) -> int:
    """Tokens in so many UTF-8 bytes of text."""
    return -(-size // 4)


def estimate_input(doc: Object) -> int:
    """Tokens of a whole request in any dialect with messages; at least 1."""
    total = 0
    for name in ("messages", "system", "prompt", "input", "instructions"):
        total += _estimate(doc.get(name))
    messages, tools = doc.get("messages"), doc.get("tools")
    total += _PER_MESSAGE * len(messages) if type(messages) is list else 0
    if type(tools) is list:
        total += sum(_PER_TOOL + _estimate(tool) for tool in tools)
    return max(1, total)


def _estimate(value: Json) -> int:
    total = 0
    todo: list[Json] = [value]
    while todo:
        node = todo.pop()
        if type(node) is str:
            total += estimate_bytes(len(node.encode("utf-8", "replace")))
        elif type(node) is list:
            todo += node
        elif type(node) is dict:
            kind = node.get("type")
            if type(kind) is str and kind in _IMAGES:
                total += _PER_IMAGE
            else:
                todo += [child for name, child in node.items() if name not in ("type", "role")]
    return total
