"""From the outcomes of a chain to the one fault that the caller is told (failover.md §8.6)."""

from collections.abc import Mapping, Sequence
from typing import Final

from proxy.model.errors import (
    ClientAuth,
    ContextWindow,
    Forbidden,
    InvalidRequest,
    ModelMissing,
    NoEndpoint,
    ProxyError,
    TooLarge,
    Unreadable,
    UpstreamAuth,
    UpstreamBroken,
    UpstreamOverloaded,
    UpstreamQuota,
    UpstreamRateLimited,
    UpstreamTimeout,
)
from proxy.model.failover import Outcome
from proxy.model.records import Attempt

_FAULTS: Final[Mapping[Outcome, tuple[type[ProxyError], str]]] = {
    Outcome.CONNECT: (UpstreamBroken, "could not be reached"),
    Outcome.STALE: (UpstreamBroken, "closed the connection"),
    Outcome.NO_ANSWER: (UpstreamTimeout, "did not answer in time"),
    Outcome.UPSTREAM_5XX: (UpstreamBroken, "failed"),
    Outcome.BAD_ANSWER: (UpstreamBroken, "gave an answer that cannot be used"),
    Outcome.CUT: (UpstreamBroken, "broke off its answer"),
    Outcome.STALL: (UpstreamTimeout, "stopped in the middle of its answer"),
    Outcome.RATE_LIMITED: (UpstreamRateLimited, "is limiting the rate of requests"),
    Outcome.QUOTA: (UpstreamQuota, "has no quota left"),
    Outcome.AUTH: (UpstreamAuth, "refused its configured credential"),
    Outcome.MODEL_MISSING: (ModelMissing, "does not know the model"),
    Outcome.MISCONFIGURED: (UpstreamBroken, "refused how it is configured here"),
    Outcome.CONTEXT_WINDOW: (ContextWindow, "says that the prompt is too long"),
    Outcome.REFUSAL: (InvalidRequest, "refused the request"),
    Outcome.CALLER: (InvalidRequest, "refused the request"),
}
_OVERLOADED: Final = frozenset({503, 529})
# reasons of a skip: what time heals, and what holds for this request wherever it goes
_PASSING: Final = frozenset({"forced", "open", "ramping", "probing", "rate_limited"})
_FOR_GOOD: Final = frozenset({"pinned_state", "different_embedding_model"})


_CALLER_STATUS: Final[Mapping[int, type[ProxyError]]] = {
    401: ClientAuth,
    403: Forbidden,
    404: ModelMissing,
    413: TooLarge,
    422: Unreadable,
}


def fault_of(attempt: Attempt, status: int = 0) -> ProxyError:
    """The fault of one attempt, in our words."""
    kind, words = _FAULTS.get(attempt.outcome, (UpstreamBroken, "failed"))
    if attempt.outcome is Outcome.UPSTREAM_5XX and attempt.upstream_status in _OVERLOADED:
        kind, words = UpstreamOverloaded, "is overloaded"
    if attempt.outcome is Outcome.CALLER:
        kind = _CALLER_STATUS.get(status, kind)
    text = f"The endpoint {attempt.endpoint_id!r} {words}"
    if attempt.why:
        text += f" ({attempt.why})"
    return kind(text + ".", retry_after_s=attempt.retry_after_s)


def nothing_admits(skipped: Sequence[tuple[str, str]], left_s: float = 1.0) -> ProxyError:
    """No endpoint could take the request.  `left_s`: until one may."""
    reasons = ", ".join(f"{endpoint_id}: {reason}" for endpoint_id, reason in skipped)
    mute = [reason for _, reason in skipped if reason.startswith("cannot express")]
    passing = [reason for _, reason in skipped if reason in _PASSING]
    if mute and all(reason in mute or reason in _FOR_GOOD for _, reason in skipped):
        fault: ProxyError = InvalidRequest(
            f"No endpoint of this route takes this request: {reasons}."
        )
    elif passing and all(reason == "rate_limited" for reason in passing):
        fault = UpstreamRateLimited(
            f"Every endpoint of this route limits the rate of requests: {reasons}.",
            retry_after_s=left_s,
        )
    else:
        fault = NoEndpoint(
            f"No endpoint of this route admits the request: {reasons}.", retry_after_s=left_s
        )
    fault.final = True
    return fault
