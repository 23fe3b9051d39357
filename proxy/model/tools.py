"""Tools in words: what a request declares, what a model calls, and what was decided about it.

Names are those of guardrails.md §5.9: a tool's own name, `mcp:<server>/<tool>` for one of an MCP
server (`mcp:<server>/*` for all of them), the `type` of a hosted one.
"""

from dataclasses import dataclass
from typing import Literal

from proxy.model.exchange import Json

Path = tuple[str | int, ...]
DenialReason = Literal["role_restriction", "tool_not_allowed", "argument_rejected"]


@dataclass(slots=True, frozen=True)
class Tool:
    """A tool that a request offers or forces.  `names`: what it is called, the name that is told
    first.  `path` leads to what would be taken out of the body."""

    names: tuple[str, ...]
    path: Path


@dataclass(slots=True, frozen=True)
class Call:
    """A call that a model made.  `args`: what it was given, parsed; not `readable`: it is no JSON
    with one meaning.  `call_id` may be empty."""

    names: tuple[str, ...]
    args: Json
    path: Path = ()
    readable: bool = True
    call_id: str = ""


@dataclass(slots=True)
class PermissionDecision:
    """A tool that was denied (events.md §5.2).  `role_required` None: no role would help."""

    resource: str
    action: Literal["declare", "execute"]
    reason: DenialReason
    role_required: str | None
    role: str
    policy_id: str
    timestamp_ms: int = 0
    count: int = 1
