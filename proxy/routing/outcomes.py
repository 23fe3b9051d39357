"""How an attempt is judged: one table of consequences, and the reading of a provider's refusal.

Every upstream attempt ends in exactly one `Outcome` (failover.md §4).  The table says who may try
again; `judge_refusal` reads status and error (failover.md §4.1), whatever the dialect.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxy.model.exchange import ErrorSeen
from proxy.model.failover import Outcome

YES, NO = True, False


@dataclass(frozen=True, slots=True)
class Consequence:
    """`sample`: it counts at all; `error`: against the endpoint.  `again`: the same endpoint may be
    asked once more; `elsewhere`: another may.  `config`: what must be mended, and by whom, is
    known.  `told_as`: the outcome in the request event when it is the last attempt's."""

    sample: bool
    error: bool
    again: bool
    elsewhere: bool
    told_as: str
    config: str = ""
    hard: bool = False


# fmt: off
CONSEQUENCES: Final[Mapping[Outcome, Consequence]] = {
    #                                    sample error again elsewhere  told as
    Outcome.CONNECT:         Consequence(YES,   YES,  YES,  YES,       "upstream_error", hard=YES),
    Outcome.STALE:           Consequence(NO,    NO,   YES,  YES,       "upstream_error"),
    Outcome.NO_ANSWER:       Consequence(YES,   YES,  NO,   YES,       "timeout"),
    Outcome.UPSTREAM_5XX:    Consequence(YES,   YES,  YES,  YES,       "upstream_error"),
    Outcome.BAD_ANSWER:      Consequence(YES,   YES,  YES,  YES,       "upstream_error"),
    Outcome.CUT:             Consequence(YES,   YES,  NO,   YES,       "interrupted"),
    Outcome.STALL:           Consequence(YES,   YES,  NO,   YES,       "interrupted"),
    Outcome.RATE_LIMITED:    Consequence(YES,   NO,   NO,   YES,       "rate_limited"),
    Outcome.QUOTA:           Consequence(YES,   NO,   NO,   YES,       "rate_limited",
                                         "quota"),
    Outcome.AUTH:            Consequence(YES,   NO,   NO,   YES,       "upstream_error",
                                         "auth"),
    Outcome.MODEL_MISSING:   Consequence(YES,   NO,   NO,   YES,       "upstream_error",
                                         "model_not_found"),
    Outcome.MISCONFIGURED:   Consequence(YES,   NO,   NO,   YES,       "upstream_error",
                                         "misconfigured"),
    Outcome.CONTEXT_WINDOW:  Consequence(NO,    NO,   NO,   NO,        "invalid_request"),
    Outcome.REFUSAL:         Consequence(NO,    NO,   NO,   NO,        "invalid_request"),
    Outcome.CALLER:          Consequence(NO,    NO,   NO,   NO,        "invalid_request"),
    Outcome.CANCELLED:       Consequence(NO,    NO,   NO,   NO,        "client_cancelled"),
    Outcome.BLOCKED:         Consequence(NO,    NO,   NO,   NO,        "blocked"),
    Outcome.INTERNAL:        Consequence(NO,    NO,   NO,   NO,        "gateway_error"),
    Outcome.SUCCESS:         Consequence(YES,   NO,   NO,   NO,        "success"),
}
# fmt: on

SERVER_STATUSES = frozenset({408, 424, 500, 502, 503, 504, *range(520, 530)})
QUOTA_CODES = frozenset({"insufficient_quota", "billing_error", "ServiceQuotaExceededException"})
MISSING_CODES = frozenset({"model_not_found"})
REFUSAL_CODES = frozenset({"content_policy_violation", "content_filter"})
CONTEXT_CODES = frozenset({"context_length_exceeded"})
CONTEXT_TEXTS = ("prompt is too long", "input is too long", "too many tokens", "too many input")
MISCONFIGURED_TEXTS = ("invalid beta flag", "extra inputs are not permitted", "extraneous key")
NOT_READY = "ModelNotReadyException"
NO_SUCH_MODEL_TEXTS = ("no such model", "model does not exist", "model identifier is invalid")


def judge_refusal(error: ErrorSeen, *, own_credential: bool) -> Outcome:
    """The class of an answer that is not 2xx, or of an error inside a 200 stream before content.

    `own_credential`: the endpoint's key was used, not the caller's, so a 401 is not his fault.
    """
    status, codes = error.status, {error.code, error.type}
    if status == 402 or codes & QUOTA_CODES:
        return Outcome.QUOTA
    if status == 429:
        return Outcome.UPSTREAM_5XX if NOT_READY in codes else Outcome.RATE_LIMITED
    if status in SERVER_STATUSES or status >= 500:
        return Outcome.UPSTREAM_5XX
    if status in (401, 403) or "API_KEY_INVALID" in codes:
        return Outcome.AUTH if own_credential else Outcome.CALLER
    if status < 400:
        return Outcome.MISCONFIGURED if status >= 300 else Outcome.BAD_ANSWER
    return _judge_400s(error, codes)


def _judge_400s(error: ErrorSeen, codes: set[str]) -> Outcome:
    text = error.message.lower()
    if error.status == 404 or codes & MISSING_CODES:
        return Outcome.MODEL_MISSING
    if error.status == 400:
        if codes & REFUSAL_CODES:
            return Outcome.REFUSAL
        if codes & CONTEXT_CODES or any(hint in text for hint in CONTEXT_TEXTS):
            return Outcome.CONTEXT_WINDOW
        if any(hint in text for hint in MISCONFIGURED_TEXTS):
            return Outcome.MISCONFIGURED
        if any(hint in text for hint in NO_SUCH_MODEL_TEXTS):
            return Outcome.MODEL_MISSING
    return Outcome.CALLER


def told_unsent(outcome: Outcome) -> str:
    """The outcome in the request event of one whose caller got nothing of any answer: then no
    answer was interrupted."""
    unsent = {Outcome.CUT: "upstream_error", Outcome.STALL: "timeout"}
    return unsent.get(outcome, CONSEQUENCES[outcome].told_as)


_PHASES: Final[Mapping[str, Outcome]] = {
    "first_content": Outcome.NO_ANSWER,
    "unary": Outcome.NO_ANSWER,
    "idle": Outcome.NO_ANSWER,
    "total": Outcome.NO_ANSWER,
    "caller": Outcome.CANCELLED,
    "bad_http": Outcome.BAD_ANSWER,
}


def judge_transport(
    phase: str, *, response_bytes: int, content_sent: bool, answering: bool = False
) -> Outcome:
    """The class of a fault on the way (`TransportFault.phase`).  `answering`: a whole answer had
    begun to come, of which its caller gets nothing."""
    if phase == "caller":
        return Outcome.CANCELLED
    if content_sent:
        return Outcome.STALL if phase in ("idle", "total") else Outcome.CUT
    if phase in _PHASES:
        return _PHASES[phase]
    if answering:
        return Outcome.CUT
    return Outcome.BAD_ANSWER if response_bytes else Outcome.CONNECT
