"""The head of an answer, and what its record says of a fault."""

from proxy.gateway.answer import STREAM, Answer
from proxy.gateway.blocks import policy_line
from proxy.gateway.turn import Gateway, Turn
from proxy.model.errors import ProxyError
from proxy.model.records import RequestRecord
from proxy.wire.headers import REQUEST_ID, down, down_lines, render, upstream_request_id


def begin(turn: Turn, answer: Answer, gateway: Gateway, *, length: int | None) -> None:
    """Say the head, unless the caller has got one already."""
    record = turn.record
    if turn.exchange.stream:
        gateway.early.over(turn)
    if turn.early:
        record.status_code = 200
        return
    waited_ms = 0.0
    for attempt in record.attempts:
        waited_ms += attempt.latency_ms
    overhead_ms = (gateway.clock.monotonic() - turn.started) * 1000 - waited_ms
    lines = b"%b%bx-parapet-overhead-ms: %.2f\r\n" % (
        passed_down(answer),
        own_lines(turn, answer),
        overhead_ms if overhead_ms > 0 else 0.0,
    )
    turn.caller.begin(answer.status, lines, length=length)


def passed_down(answer: Answer) -> bytes:
    """The provider's headers, as lines.  In another envelope the dialect's own name of the request
    id gets the provider's id (wire.md §3.1), and frames have become events."""
    if answer.plan.level == "L0":
        return down_lines(answer.headers, decoded=answer.decoded)
    reframed = answer.mode == STREAM and answer.plan.framing != "sse"
    headers = down(
        answer.headers,
        decoded=answer.decoded,
        content_type=b"text/event-stream" if reframed else None,
    )
    request_id = upstream_request_id(answer.headers)
    if request_id is not None:
        headers.append((REQUEST_ID[answer.dialect], request_id))
    return render(headers)


def own_lines(turn: Turn, answer: Answer) -> bytes:
    """The `x-parapet-` headers (architecture.md: laws)."""
    record = turn.record
    lines = b"x-parapet-request-id: %b\r\n%b%bx-parapet-attempts: %d\r\n" % (
        record.request_id.encode("ascii"),
        turn.head_lines,
        answer.candidate.head_lines,
        len(record.attempts),
    )
    if record.decisions:
        lines += b"x-parapet-failover: %b\r\n" % record.decisions[-1].reason_code.encode("ascii")
    if record.dropped:
        lines += b"x-parapet-dropped: %b\r\n" % ",".join(record.dropped).encode("ascii")
    return lines + policy_line(turn)


def note_fault(record: RequestRecord, fault: ProxyError) -> None:
    record.error_class = record.error_class or (
        str(record.attempts[-1].outcome) if record.attempts else fault.kind
    )
    record.error_code = fault.public_code
    record.error_message = fault.told[:256]
