"""Who calls, who answers, and how the faults are worded there (failover.md §12.1).

A row of scenarios is played once per dialect.  Responses, Gemini and Bedrock callers join as a row
of `DIALECTS` when their dialects exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.chaos.callers import AnthropicMessages, Caller, OpenAIChat
from tests.chaos.words import TEXT
from tests.kit.replies import ok, status
from tests.kit.reply import Reply

CLAUDE = "claude-3-opus-20240229"
HEALTHY = {"openai": "gpt-4o", "anthropic": CLAUDE, "bedrock": f"anthropic.{CLAUDE}-v1:0"}
"""The model of the fallbacks, by provider."""


@dataclass(frozen=True)
class Faults:
    """The same faults in the words of one provider."""

    overloaded: Reply
    too_long: Reply
    refused: Reply
    refusal: tuple[str, str]  # (class that the SDK raises or empty, finish reason)
    overloaded_type: str
    pings: bool


_OPENAI = Faults(
    overloaded=status(503, message="The engine is overloaded."),
    too_long=status(
        400,
        message="This model's maximum context length is 8192 tokens.",
        error_code="context_length_exceeded",
    ),
    refused=status(
        400, message="Rejected by our safety system.", error_code="content_policy_violation"
    ),
    refusal=("BadRequestError", ""),
    overloaded_type="server_error",
    pings=False,
)
_ANTHROPIC = Faults(
    overloaded=status(529, "overloaded_error", message="Overloaded"),
    too_long=status(400, message="prompt is too long: 250000 tokens > 200000 maximum"),
    refused=ok(TEXT, stop="refusal"),
    refusal=("", "refusal"),
    overloaded_type="overloaded_error",
    pings=True,
)
_BEDROCK = replace(
    _ANTHROPIC,
    overloaded=status(503),
    overloaded_type="serviceUnavailableException",
)


@dataclass(frozen=True, eq=False)
class Dialect:
    """`primary` and `fallback` are providers.  `same_grammar`: both write the caller's own, so the
    model's name in the body is judged."""

    name: str
    caller: type[Caller]
    primary: str
    fallback: str
    faults: Faults

    def __str__(self) -> str:
        return self.name


DIALECTS = (
    Dialect("chat", OpenAIChat, "openai", "openai", _OPENAI),
    Dialect("messages", AnthropicMessages, "anthropic", "anthropic", _ANTHROPIC),
    Dialect("seed", AnthropicMessages, "anthropic", "bedrock", _ANTHROPIC),
    Dialect("invoke", AnthropicMessages, "bedrock", "anthropic", _BEDROCK),
    Dialect("crossed", OpenAIChat, "openai", "anthropic", _OPENAI),
)
BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
PUBLIC: Sequence[str] = ("chat", "messages", "seed")
FRAMED: Sequence[str] = (*PUBLIC, "invoke")
CROSSED: Sequence[str] = ("crossed",)
