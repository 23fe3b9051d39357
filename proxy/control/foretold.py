"""The words of a dry run: where a request would go, why, and what is not known without one.

What no control process knows (loads and pins of a worker, the body of a request) stands in
`depends_on`; nothing is guessed."""

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Final, Literal

from pydantic import BaseModel, Field

from proxy.control.kinds import Object
from proxy.control.standing import EndpointHealth
from proxy.model.failover import FailoverPolicy
from proxy.model.tenancy import Endpoint
from proxy.routing import window as fields
from proxy.routing.foretelling import Foretold, Order, Place
from proxy.routing.standing import Standing
from proxy.settings.risks import has_credential

On = Literal[
    "load", "sticky", "ramping", "probing", "pinned_state", "reroute", "rate_limited", "model"
]  # fmt: skip
_DIGITS: Final = 4
_TTL: Final = "{ttl_s} s after the last request"


class Candidate(BaseModel):
    """One endpoint.  They stand tier by tier; within a tier that is not `alone` or ordered by a
    known key, as in the policy's document."""

    endpoint_id: str
    provider: str | None
    model: str | None = Field(description="the provider's name of it; null: none was given")
    status: EndpointHealth
    admits: bool | None = Field(
        description="null: a part of the requests (`ramping`), or one at a time (`probing`)"
    )
    reason: str | None = Field(description="what speaks against it; null: nothing")
    let_in: bool = Field(description="asked although something speaks against it: nobody admits")
    admits_in_ms: int | None = Field(
        description="to the next probe, or the end of what holds it; null: not a matter of time"
    )
    tier: int | None = Field(description="1 is asked first; null: there is no such endpoint")
    weight: int | None = Field(description="in a tier with others; elsewhere it has no effect")
    ramp_percent: int | None = Field(description="of the requests, while it comes back")
    expected_share: float | None = Field(
        description="0 to 1: of such requests, those that ask it first, by weight and ramp, probes "
        "left out; loads shift it; null: not known"
    )
    observed_share: float | None = Field(
        description="0 to 1: of the policy's samples on this node in the last window_seconds; "
        "null: there are none"
    )


class TierTold(BaseModel):
    """Endpoints that are asked before those of the next tier."""

    tier: int
    endpoints: list[str]
    order: Order = Field(
        description="by_load: weighted choice, least in flight with peak-EWMA latency; by_key: one "
        "key, one order; alone: there is nothing to choose"
    )
    sentence: str


class StickyTold(BaseModel):
    """What keeps requests at one member of a tier, and on one side of a ramp."""

    key: Literal["user", "api_key", "conversation"]
    ttl_seconds: int
    value_given: bool = Field(description="false: which value the request has is not known here")
    ramp_position: int | None = Field(
        description="0 to 99, the hash of the value: a ramp lets it in when its percent is greater"
    )
    sentence: str


class DependsOn(BaseModel):
    """Something that is not known here and may change the answer."""

    on: On
    sentence: str


# --- shapes


def candidate(
    endpoint: Endpoint,
    model: str | None,
    status: str,
    place: Place,
    observed: float | None,
    admits_in_s: float | None,
) -> Candidate:
    told: Object = {
        "endpoint_id": endpoint.id,
        "provider": endpoint.provider,
        "model": model,
        "status": status,
        "admits": place.admits,
        "reason": place.reason or None,
        "let_in": place.let_in,
        "admits_in_ms": None if admits_in_s is None else max(0, round(admits_in_s * 1000)),
        "tier": place.tier,
        "weight": endpoint.weight,
        "ramp_percent": place.ramp_percent,
        "expected_share": place.share,
        "observed_share": observed,
    }
    return Candidate.model_validate(told)


def missing(endpoint_id: str, model: str | None) -> Candidate:
    """The workspace has no endpoint of that id."""
    return Candidate(
        endpoint_id=endpoint_id, provider=None, model=model, status="unknown", admits=False,
        reason="unknown", let_in=False, admits_in_ms=None, tier=None, weight=None,
        ramp_percent=None, expected_share=0.0, observed_share=None,
    )  # fmt: skip


def observed_of(standing: Standing, now: float) -> dict[str, float]:
    """The share of each endpoint in what this node's workers have counted of late."""
    seen = {}
    for name, breaker in standing.breakers.items():
        breaker.window.advance(now)
        seen[name] = breaker.window.totals[fields.OUTCOMES]
    total = sum(seen.values())
    return {name: round(count / total, _DIGITS) for name, count in seen.items()} if total else {}


def tiers_told(told: Foretold, weights: Mapping[str, int], key: str) -> list[TierTold]:
    """`key`: see `foretell`."""
    return [
        TierTold(
            tier=number,
            endpoints=list(tier.members),
            order=tier.order,
            sentence=_order_sentence(tier.order, tier.members, weights, known=bool(key)),
        )
        for number, tier in enumerate(told.tiers, start=1)
    ]


def _order_sentence(
    order: Order, members: Sequence[str], weights: Mapping[str, int], *, known: bool
) -> str:
    if order == "alone":
        return f"{members[0]} alone"
    by_weight = " : ".join(f"{name} {weights[name]}" for name in members)
    load = (
        f"no fixed order: two are drawn by weight ({by_weight}), and the second is taken if it has "
        "clearly less in flight times latency"
    )
    if order == "by_load":
        return load
    if known:
        return "the hash of the key makes the order: " + ", ".join(members)
    return f"one key has one order, and keys share by weight; a request without the key has {load}"


def sticky_told(policy: FailoverPolicy, told: Foretold, key: str) -> StickyTold | None:
    """None: it is off."""
    sticky = policy.sticky
    if not sticky.enabled:
        return None
    applies = any(tier.order == "by_key" for tier in told.tiers)
    where = "its member of a tier" if applies else "its side of a ramp (no tier has two members)"
    return StickyTold(
        key=sticky.key,
        ttl_seconds=sticky.ttl_seconds,
        value_given=bool(key),
        ramp_position=told.ramp_position,
        sentence=f"a request keeps {where} by its {sticky.key}"
        + ("" if key else ", which is not known here"),
    )


# --- sentences


def sentence_of(told: Foretold, fault: str | None) -> str:
    """Where it would go, and why, in one sentence."""
    if fault is not None:
        return f"the route serves nobody: {fault}"
    if not told.first:
        said = ", ".join(map(_left_out, told.places))
        return f"no endpoint admits ({said}): the caller gets an error at once"
    asked = [place for place in told.places if place.name in told.first]
    takers = [place for place in asked if place.share != 0]
    probed = [place.name for place in asked if place.share == 0]
    parts = []
    if takers:
        parts.append(", ".join(_taker(place, alone=len(takers) == 1) for place in takers))
    if probed:
        parts.append("one request at a time probes " + " and ".join(probed))
    if not takers:
        parts.append("the others get an error at once")
    passed = _passed_over(told, takers)
    return "; ".join([*parts, *passed])


def _taker(place: Place, *, alone: bool) -> str:
    if place.let_in:
        return f"{place.name} although {place.reason}: nobody admits"
    if alone:
        return place.name
    share = "a part" if place.share is None else f"{place.share * 100:.0f} %"
    return f"{place.name} {share}"


_LEFT_OUT: Final = {"forced": "is kept out by an operator", "no_credential": "has no credential"}


def _left_out(place: Place) -> str:
    """Why it is not asked, as far as a reason in one word says it."""
    words = _LEFT_OUT.get(place.reason, place.reason)
    return f"{place.name} {words if ' ' in words else f'is {words}'}"


def _passed_over(told: Foretold, takers: Sequence[Place]) -> list[str]:
    """Those that come before all who are asked."""
    first = min((place.tier for place in takers), default=0)
    over = [
        _left_out(place)
        for place in told.places
        if place.tier <= first and place.share == 0 and place.reason not in ("", "probing")
    ]
    return [", ".join(over)] if over else []


def unknowns(
    policy: FailoverPolicy | None,
    told: Foretold,
    docs: Mapping[str, Endpoint],
    key: str,
    model: str | None,
    reroutes: Sequence[str],
) -> Iterator[DependsOn]:
    """What may change the answer and is not known here.  `reroutes`: endpoints to which a rule of
    the route's packs may send a request."""
    if policy is not None:
        yield from _of_choice(policy, told, docs, key)
    if reroutes:
        yield DependsOn(
            on="reroute",
            sentence="the body: a rule of its packs may send it to " + " or ".join(reroutes),
        )
    if model is None:
        yield DependsOn(
            on="model", sentence="the model: holds and rules are by model, and none was given"
        )


def _of_choice(
    policy: FailoverPolicy, told: Foretold, docs: Mapping[str, Endpoint], key: str
) -> Iterator[DependsOn]:
    asked = [place for place in told.places if place.name in told.first]
    takers = [place.tier for place in asked if place.share != 0]
    shared = {told.tiers[tier - 1].order for tier in takers if takers.count(tier) > 1 or key}
    if "by_load" in shared:
        yield DependsOn(
            on="load",
            sentence="what each member has in flight, and its latency of late: each worker knows "
            "its own alone",
        )
    yield from _of_key(policy, told, shared, key)
    if any(place.reason == "probing" and place.share == 0 for place in asked):
        yield DependsOn(
            on="probing", sentence="which request is the probe: the permit to send it is a worker's"
        )
    if len(told.places) > 1:
        yield DependsOn(
            on="pinned_state",
            sentence="the body: what is bound to a provider's state (previous_response_id, "
            f"conversation, file ids, …) goes to {policy.primary_endpoint} alone, whatever its "
            "breaker says",
        )
    bare = [place.name for place in asked if not has_credential(docs[place.name])]
    if bare:
        yield DependsOn(
            on="rate_limited",
            sentence="a 429 to the caller's own key: the worker that got it skips "
            + " and ".join(bare),
        )


def _of_key(
    policy: FailoverPolicy, told: Foretold, shared: Set[Order], key: str
) -> Iterator[DependsOn]:
    sticky = policy.sticky
    ramps = any(place.admits is None and place.reason == "ramping" for place in told.places)
    if sticky.enabled and "by_key" in shared:
        said = f"the {sticky.key} of the request: its hash says which member comes first"
        if key:
            said = f"whether its worker has sent it to another member: it stays there for {_TTL}"
        yield DependsOn(on="sticky", sentence=said.format(ttl_s=sticky.ttl_seconds))
    if ramps:
        by = f"its {sticky.key}, or of its id where it has none" if sticky.enabled else "its id"
        yield DependsOn(on="ramping", sentence=f"its side of the ramp, by the hash of {by}")
