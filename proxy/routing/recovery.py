"""A stream that died after its content went out: can another answer go on with it, and how the two
texts meet (failover.md §10).

R is the text that the caller has.  A *prefill* continues R; a *restart* says the whole answer again
and is silent while it is byte for byte R.  A `Seam` takes the second answer's text piece by piece
and says what of it is new.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from proxy.model.failover import FailoverPolicy, Outcome
from proxy.model.records import Attempt
from proxy.model.recovery import Asked, Misfit, Released
from proxy.routing.failover import MOST_ON_ONE, Now, Send

Manner = Literal["prefill", "restart"]

REFUSED_STATUSES: Final = frozenset({400, 404, 413, 422})  # of a continuation: it cannot be had
PREFILL_OFF_S: Final = 600.0
DIED: Final = frozenset({Outcome.CUT, Outcome.STALL})  # after content


def hindrance(released: Released, asked: Asked) -> str:
    """Why the stream cannot be resumed; empty: it can (failover.md §10.1)."""
    if released.beside:
        return released.beside
    if asked.choices > 1:
        return "several choices"
    if asked.logprobs:
        return "logprobs"
    return ""


def manner_of(released: Released, asked: Asked, *, supports_prefill: bool, carries: bool) -> Manner:
    """How the endpoint goes on.  `carries`: what is known of R's end (the guard's lane, the
    placeholders in it) can be handed on."""
    if not supports_prefill or not carries or released.closed:
        return "restart"
    if asked.thinks or asked.tool_forced:
        return "restart"
    return "prefill" if released.text.strip() else "restart"


def once_more(
    died: Attempt,
    order: Sequence[str],
    tried: Sequence[Attempt],
    refused: Mapping[int, str],
    policy: FailoverPolicy,
    now: Now,
) -> Send | None:
    """The endpoint whose stream `died`, where nothing else admits; never after silence."""
    if died.outcome is not Outcome.CUT or died.endpoint_id not in order or not now.has_budget:
        return None
    place = order.index(died.endpoint_id)
    before = sum(attempt.endpoint_id == died.endpoint_id for attempt in tried)
    late = now.left_s <= now.least_s or len(tried) >= policy.max_attempts
    if late or before >= MOST_ON_ONE or place in refused:
        return None
    return Send(place, now.apart_s, True)


class PrefillSeam:
    """`cut`: the whitespace at R's end, which the provider did not see.  A continuation may say it
    again, once.  `discarded`: what came after R and was thrown away; where both are of one word,
    the continuation must go on with that word."""

    __slots__ = ("_cut", "_in_word", "fault", "passed")

    def __init__(self, text: str, discarded: str = "") -> None:
        self._cut = text[len(text.rstrip()) :]
        self._in_word = text[-1:].isalnum() and discarded[:1].isalnum()
        self.passed = False
        self.fault: Misfit = ""

    def __repr__(self) -> str:
        return f"<PrefillSeam {'passed' if self.passed else 'open'}{self.fault}>"

    def take(self, piece: str) -> str:
        """What of a piece of text is new."""
        if self.passed or self.fault:
            return "" if self.fault else piece
        while self._cut and piece and piece[0] == self._cut[0]:
            self._cut, piece = self._cut[1:], piece[1:]
        if not piece:
            return ""
        if self._in_word and not piece[0].isalnum():
            self.fault = "misfit"
            return ""
        self.passed = True
        return piece

    def ends(self) -> None:
        """Something else than text comes, or the end."""
        if self._in_word and not self.passed:
            self.fault = "misfit"
        self.passed = not self.fault


class RestartSeam:
    """Silent while the second answer is R; any difference, or an end before R is covered, is a
    divergence."""

    __slots__ = ("_at", "_text", "fault", "passed")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.passed = not text
        self.fault: Misfit = ""

    def __repr__(self) -> str:
        return f"<RestartSeam {self._at}/{len(self._text)}{self.fault}>"

    def take(self, piece: str) -> str:
        if self.passed or self.fault:
            return "" if self.fault else piece
        size = min(len(piece), len(self._text) - self._at)
        if not self._text.startswith(piece[:size], self._at):
            self.fault = "diverged"
            return ""
        self._at += size
        self.passed = self._at == len(self._text)
        return piece[size:]

    def ends(self) -> None:
        if not self.passed:
            self.fault = "diverged"
