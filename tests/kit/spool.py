"""Records and spools for tests."""

from collections.abc import Iterable
from pathlib import Path

from proxy.model.exchange import Usage
from proxy.model.failover import FailoverDecision, Outcome
from proxy.model.policy import PolicyResult
from proxy.model.records import Attempt, RequestRecord
from proxy.spool.record import line_of
from proxy.spool.segment import Lane, segment_path, spool_dir

AT_MS = 1_710_513_000_000  # 2024-03-15T14:30:00Z


def a_record(number: int = 1, workspace_id: str = "default", **changes: object) -> RequestRecord:
    """A request that went well."""
    record = RequestRecord(f"req-{number}", f"evt-{number}", AT_MS)
    record.workspace_id, record.route_id = workspace_id, "prod-chat"
    record.requested_model, record.model = "claude", "claude-3-opus"
    record.provider, record.endpoint_id = "anthropic", "anthropic-claude"
    record.attempts = [Attempt("anthropic-claude", Outcome.SUCCESS, 200, 1248.5)]
    record.outcome, record.status_code, record.upstream_status = "success", 200, 200
    record.usage, record.cost_nano = Usage(input=512, output=256), 21_400_000
    record.policy_profile = "safety-v2@2.1.0"
    record.latency_ms, record.finished_at_ms = 1250.0, AT_MS + 1250
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def a_blocked_record(number: int = 1, workspace_id: str = "default") -> RequestRecord:
    """The seed's violation."""
    result = PolicyResult(
        "safety-v1", "violation", "hate_speech", 0.95, "block", AT_MS, severity="high"
    )
    return a_record(
        number, workspace_id, outcome="blocked", status_code=400, policy_results=[result]
    )


def a_failover_record(number: int = 1, workspace_id: str = "default") -> RequestRecord:
    """The seed's failover."""
    decision = FailoverDecision(
        "latency-failover", "latency > 2000ms", "anthropic-claude", "bedrock-claude", AT_MS,
        "latency", skipped=[("gemini", "no_credential")],
    )  # fmt: skip
    return a_record(number, workspace_id, failover=True, decisions=[decision])


def write_segment(
    state_dir: Path, slot: str, lane: Lane, number: int, lines: Iterable[bytes]
) -> Path:
    """A segment as a worker would have left it."""
    directory = spool_dir(state_dir) / slot
    directory.mkdir(parents=True, exist_ok=True)
    path = segment_path(directory, lane, number)
    with path.open("ab") as file:
        file.write(b"".join(lines))
    return path


def lines_of(numbers: Iterable[int], workspace_id: str = "default") -> list[bytes]:
    return [line_of(a_record(number, workspace_id)) for number in numbers]
