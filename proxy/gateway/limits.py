"""Between stages 3 and 4: the limits of the key and of the route (`routing/limits.py`).

What a request is likely to use is taken before anybody is asked, and settled when its record is
closed.  Who is over a limit is told so in his own dialect, with what limit, whose, and when to come
again; no endpoint is asked, and none is blamed.
"""

from typing import Final

from proxy.gateway.ask import OFF_LOOP_BYTES
from proxy.gateway.snapshot import Rules
from proxy.gateway.turn import Gateway, Turn
from proxy.model.coord import NS, WINDOW_S, Quota
from proxy.model.errors import RateLimited
from proxy.model.events import BUDGET_EXCEEDED, RATE_LIMITED
from proxy.model.exchange import Json
from proxy.model.observations import LimitReached
from proxy.model.records import RequestRecord
from proxy.model.tenancy import Limits
from proxy.routing.limits import Hold, LimitName, Moment, Name, Refusal, duration, saying
from proxy.wire.usage import estimate_input

# where callers say how long an answer may be, the newer name of a dialect first
_MOST_OUTPUT: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_CHOICES_MOST: Final = 128
_OUTPUT_PART: Final = 4  # of a minute's tokens, one answer's promise takes no more than this part
_TELL_NS: Final = 60 * NS  # one event per limit and minute: each request has its own besides
_PATIENCE_NS: Final = 60 * NS  # who would have to wait longer is told not to try again by himself
_USED_ANYWAY: Final = frozenset({"client_cancelled", "interrupted", "timeout"})
_CODES: Final[dict[LimitName, str]] = {
    "concurrency": "concurrency_exceeded",
    "daily_cost_usd": "daily_budget_exceeded",
}


def limited_names(rules: Rules) -> set[Name]:
    """Everything in these rules that has a limit."""
    names: set[Name] = {("key", "", each.doc.id) for each in rules.keys.values() if each.limits}
    for space in rules.workspaces.values():
        names |= {("route", space.id, each.doc.id) for each in space.routes.values() if each.limits}
    return names


async def claim(turn: Turn, gateway: Gateway) -> None:
    """Take what the request needs of its limits.  Raises RateLimited."""
    wanted: list[tuple[Name, Limits]] = []
    key, route = turn.visit.key, turn.route
    if key is not None and key.limits is not None:
        wanted.append((("key", "", key.doc.id), key.limits))
    if route.limits is not None:
        wanted.append((("route", turn.record.workspace_id, route.doc.id), route.limits))
    tpm = [limits.tpm for _, limits in wanted if limits.tpm is not None]
    asked = said = 0
    if tpm and turn.exchange.surface.operation != "count_tokens":
        asked = await _asked_tokens(turn, gateway)
        said = min(_promised(turn.exchange.doc), min(tpm) // _OUTPUT_PART)
    moment = _now(gateway)
    limiter = gateway.limiter
    claimed = limiter.claim(wanted, moment, asked + said, asked)
    turn.limit_lines = _lines(*limiter.quotas(wanted, moment))
    if isinstance(claimed, Hold):
        turn.hold = claimed
        return
    gateway.observe(LimitReached(turn.record.workspace_id, claimed.name[0], claimed.limit))
    _tell(claimed, turn, gateway, moment)
    raise _fault(claimed)


def settle(hold: Hold, record: RequestRecord, gateway: Gateway) -> None:
    """The record is closed: what was used is known.  Of a call that broke off without telling its
    usage, the input counts."""
    usage, tokens = record.usage, 0
    if usage is not None:
        tokens = usage.all_input + usage.output
    elif record.attempts and record.outcome in _USED_ANYWAY:
        tokens = hold.asked_tokens
    hold.settle(_now(gateway), tokens, record.cost_nano or 0)


def _now(gateway: Gateway) -> Moment:
    return Moment(int(gateway.clock.monotonic() * NS), gateway.clock.now_ms())


async def _asked_tokens(turn: Turn, gateway: Gateway) -> int:
    doc = turn.exchange.doc
    if doc is None:
        return 0
    if len(turn.exchange.body) > OFF_LOOP_BYTES:
        return await gateway.off_loop.run(lambda: estimate_input(doc))
    return estimate_input(doc)


def _promised(doc: dict[str, Json] | None) -> int:
    """The longest answer that the request asks for; 0: it does not say."""
    if doc is None:
        return 0
    longest = next((found for name in _MOST_OUTPUT if (found := _count(doc.get(name)))), 0)
    return longest * min(max(1, _count(doc.get("n"))), _CHOICES_MOST)


def _count(value: Json) -> int:
    return value if type(value) is int and value > 0 else 0


def _lines(requests: Quota | None, tokens: Quota | None) -> bytes:
    lines = ""
    for quota, unit in ((requests, "requests"), (tokens, "tokens")):
        if quota is not None:
            lines += (
                f"x-parapet-ratelimit-limit-{unit}: {quota.limit}\r\n"
                f"x-parapet-ratelimit-remaining-{unit}: {quota.remaining}\r\n"
                f"x-parapet-ratelimit-reset-{unit}: {duration(quota.full_ns)}\r\n"
            )
    return lines.encode("ascii")


def _fault(refusal: Refusal) -> RateLimited:
    wait_s = max(1, refusal.wait_ns) / NS
    fault = RateLimited(
        f"A limit is used up, {saying(refusal)}. Try again in {duration(refusal.wait_ns)}.",
        retry_after_s=wait_s,
        code=_CODES.get(refusal.limit, ""),
    )
    fault.final = refusal.wait_ns > _PATIENCE_NS
    return fault


def _tell(refusal: Refusal, turn: Turn, gateway: Gateway, moment: Moment) -> None:
    """An event of its own, at most once a minute for a limit."""
    told = gateway.limiter.meter(refusal.name, moment).told_at_ns
    last_ns = told.get(refusal.limit)
    if last_ns is not None and moment.now_ns - last_ns < _TELL_NS:
        return
    told[refusal.limit] = moment.now_ns
    scope, _, doc_id = refusal.name
    budget = refusal.limit == "daily_cost_usd"
    payload: dict[str, Json] = {
        "limit": refusal.most,
        "window_seconds": WINDOW_S,
        "scope": scope,
        "retry_after_seconds": -(-refusal.wait_ns // NS),
        "id": doc_id,
        "kind": refusal.limit,
    }
    if budget:
        payload = {
            "budget_id": f"{scope}/{doc_id}",
            "limit": refusal.most,
            "used": round(refusal.used, 6),
            "period": "day",
        }
    kind = BUDGET_EXCEEDED if budget else RATE_LIMITED
    gateway.event(turn.record.workspace_id, kind, turn.route.doc.id, payload)
