"""Every cell of failover.md §4 that a status or a fault of the way can reach (T-FO-13)."""

import pytest

from proxy.model.exchange import ErrorSeen
from proxy.model.failover import Outcome
from proxy.routing.outcomes import CONSEQUENCES, judge_refusal, judge_transport, told_unsent

# fmt: off
REFUSALS = [
    # status type code message outcome
    (429, "rate_limit_error", "", "slow down", Outcome.RATE_LIMITED),
    (429, "", "rate_limit_exceeded", "", Outcome.RATE_LIMITED),
    (429, "", "insufficient_quota", "", Outcome.QUOTA),
    (402, "billing_error", "", "", Outcome.QUOTA),
    (400, "ServiceQuotaExceededException", "", "", Outcome.QUOTA),
    (429, "ModelNotReadyException", "", "", Outcome.UPSTREAM_5XX),
    (500, "api_error", "", "", Outcome.UPSTREAM_5XX),
    (502, "", "", "<html>", Outcome.UPSTREAM_5XX),
    (503, "", "", "", Outcome.UPSTREAM_5XX),
    (504, "timeout_error", "", "", Outcome.UPSTREAM_5XX),
    (520, "", "", "", Outcome.UPSTREAM_5XX),
    (529, "overloaded_error", "", "", Outcome.UPSTREAM_5XX),
    (408, "ModelTimeoutException", "", "", Outcome.UPSTREAM_5XX),
    (424, "ModelErrorException", "", "", Outcome.UPSTREAM_5XX),
    (404, "not_found_error", "", "", Outcome.MODEL_MISSING),
    (400, "", "model_not_found", "", Outcome.MODEL_MISSING),
    (400, "", "", "No such model: x", Outcome.MODEL_MISSING),
    (301, "", "", "", Outcome.MISCONFIGURED),
    (400, "invalid_request_error", "", "Invalid beta flag", Outcome.MISCONFIGURED),
    (400, "invalid_request_error", "", "Extra inputs are not permitted", Outcome.MISCONFIGURED),
    (400, "", "context_length_exceeded", "", Outcome.CONTEXT_WINDOW),
    (400, "invalid_request_error", "", "Prompt is too long: 9 > 8", Outcome.CONTEXT_WINDOW),
    (400, "ValidationException", "", "Input is too long", Outcome.CONTEXT_WINDOW),
    (400, "", "content_policy_violation", "", Outcome.REFUSAL),
    (400, "", "content_filter", "", Outcome.REFUSAL),
    (400, "invalid_request_error", "", "messages: required", Outcome.CALLER),
    (409, "", "", "", Outcome.CALLER),
    (413, "request_too_large", "", "", Outcome.CALLER),
    (422, "", "", "", Outcome.CALLER),
]
WAYS = [
    # phase            bytes  content  outcome
    ("dns",             0,    False,   Outcome.CONNECT),
    ("refused",         0,    False,   Outcome.CONNECT),
    ("tls",             0,    False,   Outcome.CONNECT),
    ("connect_timeout", 0,    False,   Outcome.CONNECT),
    ("blocked_address", 0,    False,   Outcome.CONNECT),
    ("reset",           0,    False,   Outcome.CONNECT),
    ("eof",             0,    False,   Outcome.CONNECT),
    ("reset",           40,   False,   Outcome.BAD_ANSWER),
    ("bad_http",        40,   False,   Outcome.BAD_ANSWER),
    ("first_content",   0,    False,   Outcome.NO_ANSWER),
    ("first_content",   90,   False,   Outcome.NO_ANSWER),
    ("unary",           0,    False,   Outcome.NO_ANSWER),
    ("idle",            90,   False,   Outcome.NO_ANSWER),
    ("idle",            90,   True,    Outcome.STALL),
    ("total",           90,   True,    Outcome.STALL),
    ("reset",           90,   True,    Outcome.CUT),
    ("eof",             90,   True,    Outcome.CUT),
    ("caller",          90,   True,    Outcome.CANCELLED),
]
# fmt: on


@pytest.mark.parametrize(("status", "kind", "code", "message", "outcome"), REFUSALS)
def test_t_fo_13_refusals(
    status: int, kind: str, code: str, message: str, outcome: Outcome
) -> None:
    error = ErrorSeen(status, kind, code, message)
    assert judge_refusal(error, own_credential=True) is outcome


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(("own", "outcome"), [(True, Outcome.AUTH), (False, Outcome.CALLER)])
def test_a_401_blames_whose_credential_it_was(status: int, own: bool, outcome: Outcome) -> None:
    assert judge_refusal(ErrorSeen(status), own_credential=own) is outcome


@pytest.mark.parametrize(("phase", "size", "content", "outcome"), WAYS)
def test_t_fo_13_ways(phase: str, size: int, content: bool, outcome: Outcome) -> None:
    assert judge_transport(phase, response_bytes=size, content_sent=content) is outcome


def test_a_whole_answer_that_ends_too_early_is_cut() -> None:
    for phase, outcome in (
        ("eof", Outcome.CUT),
        ("reset", Outcome.CUT),
        ("idle", Outcome.NO_ANSWER),
    ):
        found = judge_transport(phase, response_bytes=9, content_sent=False, answering=True)
        assert found is outcome
    assert (told_unsent(Outcome.CUT), told_unsent(Outcome.STALL)) == ("upstream_error", "timeout")
    assert told_unsent(Outcome.RATE_LIMITED) == "rate_limited"


def test_every_outcome_has_a_consequence() -> None:
    assert set(CONSEQUENCES) == set(Outcome)


def test_a_block_and_a_caller_never_go_elsewhere() -> None:
    final = {o for o, c in CONSEQUENCES.items() if not c.elsewhere}
    assert final == {
        Outcome.CONTEXT_WINDOW, Outcome.REFUSAL, Outcome.CALLER, Outcome.CANCELLED,
        Outcome.BLOCKED, Outcome.INTERNAL, Outcome.SUCCESS,
    }  # fmt: skip
