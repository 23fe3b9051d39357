"""What a row may look at besides the answer.  Each tells what falls short, in a few words."""

from collections.abc import Iterator

from tests.chaos.dialects import HEALTHY
from tests.chaos.rows import Check, Evidence
from tests.kit.provider import Entry


def gap(least_s: float, most_s: float) -> Check:
    """Between the first two attempts at the primary."""

    def check(seen: Evidence) -> Iterator[str]:
        if len(seen.primary) < 2:
            return
        found = seen.primary[1].at - seen.primary[0].at
        if not least_s <= found <= most_s:
            yield f"gap {found:.2f} s, not {least_s:g} to {most_s:g}"

    return check


def adds(most_s: float) -> Check:
    """From the first failure at the primary to the fallback's request."""

    def check(seen: Evidence) -> Iterator[str]:
        if not (seen.primary and seen.fallbacks):
            return
        failed_at = seen.primary[0].end_at or seen.primary[0].at
        found = seen.fallbacks[0].at - failed_at
        if found > most_s:
            yield f"adds {found * 1000:.0f} ms, more than {most_s * 1000:.0f}"

    return check


def usage(seen: Evidence) -> Iterator[str]:
    if not seen.said.usage:
        yield "no usage"


def classes(*wanted: str) -> Check:
    """How the attempts are told in the event of the request; a stale connection is not told."""

    def check(seen: Evidence) -> Iterator[str]:
        found = tuple(each["class"] for each in seen.attempts)
        stale = sum(map(_is_stale, seen.primary))
        if found != wanted[stale:]:
            yield f"classes {', '.join(found) or 'none'}, not {', '.join(wanted)}"

    return check


def decided(*codes: str) -> Check:
    """The reason of the move, in a decision of its own and in the answer's header."""

    def check(seen: Evidence) -> Iterator[str]:
        found = [each["payload"].get("reason_code") for each in seen.decisions]
        if not set(codes) & set(found):
            yield f"decisions {found}, none of {'/'.join(codes)}"
        header = seen.said.headers.get("x-parapet-failover")
        if seen.said.judge == "raw" and header not in codes:
            yield f"x-parapet-failover {header}"

    return check


def resumed(*manners: str) -> Check:
    """A splice is told: the request as recovered, the decision with where and how."""

    def check(seen: Evidence) -> Iterator[str]:
        if not seen.payload.get("recovered"):
            yield "the event does not say recovered"
        told = [each["payload"] for each in seen.decisions]
        at = [each["resumed_at_chars"] for each in told if each.get("resumed_at_chars")]
        if not at:
            yield "no decision says resumed_at_chars"
        ways = {str(each.get("recovery")) for each in told}
        if manners and not ways & set(manners):
            yield f"recovery {', '.join(sorted(ways)) or 'none'}, not {'/'.join(manners)}"

    return check


def dropped(count: int) -> Check:
    def check(seen: Evidence) -> Iterator[str]:
        if seen.payload.get("events_dropped", 0) != count:
            yield f"events_dropped {seen.payload.get('events_dropped', 0)}, not {count}"

    return check


def outcome(wanted: str) -> Check:
    def check(seen: Evidence) -> Iterator[str]:
        if seen.payload.get("outcome") != wanted:
            yield f"outcome {seen.payload.get('outcome')}, not {wanted}"

    return check


def ends_soon(most_s: float) -> Check:
    """After the primary has ended."""

    def check(seen: Evidence) -> Iterator[str]:
        ended = seen.primary[-1].end_at if seen.primary else None
        if ended is not None and seen.said.ended - ended > most_s:
            yield f"ends {seen.said.ended - ended:.1f} s after the provider"

    return check


def names_the_fallback(seen: Evidence) -> Iterator[str]:
    """The model in the body is the one that answered; so is the endpoint in the header."""
    if seen.said.model != HEALTHY[seen.dialect.fallback]:
        yield f"model {seen.said.model!r}"
    named = seen.said.headers.get("x-parapet-endpoint", "")
    if seen.said.judge == "raw" and not named.startswith("wall-"):
        yield f"x-parapet-endpoint {named!r}"


def costs_where_answered(seen: Evidence) -> Iterator[str]:
    """Only the attempt that answered has a cost."""
    costs = [each.get("cost") for each in seen.attempts]
    if not costs or not costs[-1] or any(costs[:-1]):
        yield f"costs {costs}"


def quoted(*words: str) -> Check:
    """One of these words of the provider is in the error."""

    def check(seen: Evidence) -> Iterator[str]:
        found = f"{seen.said.error} {seen.said.message}"
        if not any(each in found for each in words):
            yield f"the error does not say {' or '.join(map(repr, words))}"

    return check


def stops_with(reason: str) -> Check:
    def check(seen: Evidence) -> Iterator[str]:
        if seen.said.stop != reason:
            yield f"stop {seen.said.stop!r}, not {reason!r}"

    return check


def _is_stale(entry: Entry) -> bool:
    """Reset on a reused connection before a byte of the answer: not counted (failover.md §8.5)."""
    return entry.request.reused and entry.end == "cut" and not entry.sent_bytes


def told_as_seen(seen: Evidence) -> Iterator[str]:
    """T-FO-73: the event and the header count the attempts that the providers saw.  A header that
    left before the last attempt cannot."""
    saw = sum(not _is_stale(entry) for found in seen.asked.values() for entry in found)
    if seen.payload.get("attempts") != saw or len(seen.attempts) != saw:
        yield f"the event tells {seen.payload.get('attempts')} attempts, {saw} arrived"
    header = seen.said.headers.get("x-parapet-attempts")
    broken = seen.said.status == 200 and bool(seen.said.error)
    late = seen.payload.get("recovered") or seen.said.took_s > 10 or broken
    if seen.said.judge == "raw" and header is not None and int(header) != saw and not late:
        yield f"x-parapet-attempts {header}, {saw} arrived"
    if seen.said.judge == "raw" and header is None and seen.said.status == 200 and not late:
        yield "no x-parapet-attempts"
