"""Stage 7: exactly one record per request, on disk before the last write of the answer.

Nothing here awaits, and nothing here may fail a request: a spool that cannot be written is counted
by the spool itself.
"""

import re
from typing import Final

from proxy.gateway.snapshot import Rules
from proxy.gateway.turn import Gateway
from proxy.model.exchange import Inbound, Usage
from proxy.model.observations import RequestFinished
from proxy.model.ports import Downstream
from proxy.model.records import RequestRecord

_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
MODEL_CHARS: Final = 256  # of a model's name in an event: callers choose it


def open_record(inbound: Inbound, gateway: Gateway) -> RequestRecord:
    """The record that every later stage fills."""
    record = RequestRecord(inbound.request_id, gateway.ids.new("evt-"), gateway.clock.now_ms())
    marks = inbound.marks
    if b"traceparent" in marks:
        found = _TRACEPARENT.fullmatch(marks[b"traceparent"])
        record.trace_id = found[1].decode("ascii") if found else None
    count = marks.get(b"x-stainless-retry-count", b"")
    if count.isdigit():
        record.client_retry_count = int(count[:4])
    return record


def tell(
    record: RequestRecord, caller: Downstream, gateway: Gateway, rules: Rules, started: float
) -> None:
    """Close the record, write it to the spool, count it."""
    now = gateway.clock.monotonic()
    record.finished_at_ms = gateway.clock.now_ms()
    record.latency_ms = (now - started) * 1000
    record.response_bytes = caller.bytes_sent
    if record.model is not None and len(record.model) > MODEL_CHARS:
        record.model = record.model[:MODEL_CHARS]
    if record.attempts:
        waited_ms = 0.0
        for attempt in record.attempts:
            waited_ms += attempt.latency_ms
        record.upstream_latency_ms = waited_ms
        record.overhead_ms = max(0.0, record.latency_ms - waited_ms)
        _price(record, rules)
    if record.policy_results:
        time_results(record)
    gateway.journal.append(gateway.line_of(record), critical=gateway.is_critical(record))
    gateway.observe(RequestFinished(record))


def time_results(record: RequestRecord) -> None:
    """What the guard took over the texts of a request, or of its answer, stands in each result of
    them that has no time of its own (a check outside has)."""
    taken_s = {
        "request": record.guard_request_s,
        "response": record.guard_unary_s + record.guard_lane_s,
    }
    for result in record.policy_results:
        if not result.elapsed_us:
            result.elapsed_us = round(taken_s[result.direction] * 1e6)


def _price(record: RequestRecord, rules: Rules) -> None:
    """Usage and cost belong to the attempt that answered; the record has the sum."""
    usage, last = record.usage, record.attempts[-1]
    if usage is None or record.endpoint_id is None:
        return
    for attempt in record.attempts:
        if attempt.usage is not None:
            _price_each(record, rules)
            return
    endpoint = rules.workspaces[record.workspace_id].endpoints[record.endpoint_id].doc
    record.cost_nano, record.cost_basis, record.price_version = rules.prices.cost(
        endpoint.provider, record.model or "", usage, endpoint.pricing
    )
    last.cost_nano = record.cost_nano
    last.tokens = _tokens(usage)


def _price_each(record: RequestRecord, rules: Rules) -> None:
    """A stream that several attempts have answered: each at the price of its endpoint."""
    endpoints = rules.workspaces[record.workspace_id].endpoints
    costs: list[int | None] = []
    for attempt in record.attempts:
        if attempt.usage is None:
            continue
        endpoint = endpoints[attempt.endpoint_id].doc
        attempt.cost_nano, record.cost_basis, record.price_version = rules.prices.cost(
            endpoint.provider, attempt.model or "", attempt.usage, endpoint.pricing
        )
        attempt.tokens = _tokens(attempt.usage)
        costs.append(attempt.cost_nano)
    known = [cost for cost in costs if cost is not None]
    record.cost_nano = sum(known) if len(known) == len(costs) else None


def _tokens(usage: Usage) -> dict[str, int | bool]:
    tokens: dict[str, int | bool] = {"input": usage.all_input, "output": usage.output}
    if usage.estimated:
        tokens["estimated"] = True
    return tokens
