"""The one table of the control API: every path, its scope, its rate class, its handler.

Whoever adds an operation adds a row here and nothing elsewhere in the frame.  Matching is by
segments of the raw path, each decoded alone, so that `%2F` never becomes a separator.
"""

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from proxy.control import alert_rules as rules
from proxy.control import deliveries as targets
from proxy.control import watchers
from proxy.control.events import EventsQuery, get_event, list_events
from proxy.control.frame import (
    ANY_KEY,
    INGEST_BODY_BYTES,
    JSON,
    METRICS,
    PUBLIC,
    SERVER_ADMIN,
    Operation,
)
from proxy.control.ingest import NDJSON, post_change, post_runtime
from proxy.control.status import (
    healthz,
    list_workspaces,
    metrics,
    problem_page,
    readyz,
    reload,
    status,
)
from proxy.control.stream import MEDIA, StreamQuery, stream_events
from proxy.control.trail import list_audit, verify_audit
from proxy.control.wire import ListQuery

W: Final = "/v1/workspaces/{workspace}"
TEXT: Final = "text/plain"
READ: Final = "control-read"
WRITE: Final = "control-write"
INGEST: Final = "ingest"
STREAM: Final = "stream"
TEST: Final = "test"
PATCHES: Final = ("application/merge-patch+json", JSON)

# fmt: off
OPERATIONS: Final[tuple[Operation, ...]] = (
    # method, path, operation id, scope, rate class, handler
    Operation("GET", "/healthz", "healthz", PUBLIC, READ, healthz),
    Operation("GET", "/readyz", "readyz", PUBLIC, READ, readyz),
    Operation("GET", "/metrics", "metrics", METRICS, READ, metrics, gives=(TEXT,)),
    Operation("GET", "/problems/{slug}", "getProblem", PUBLIC, READ, problem_page, gives=(TEXT,)),
    Operation("GET", "/v1/status", "getStatus", ANY_KEY, READ, status),
    Operation("POST", "/v1/admin/reload", "reload", SERVER_ADMIN, WRITE, reload, idempotent=True),
    Operation("GET", "/v1/workspaces", "listWorkspaces", "workspaces:read", READ, list_workspaces,
              query=ListQuery),
    Operation("POST", "/v1/ingest/runtime", "ingestRuntime", "ingest:write", INGEST, post_runtime,
              idempotent=True, body_cap=INGEST_BODY_BYTES, takes=(JSON, NDJSON)),
    Operation("POST", "/v1/ingest/change", "ingestChange", "ingest:write", INGEST, post_change,
              idempotent=True, body_cap=INGEST_BODY_BYTES, takes=(JSON, NDJSON)),
    Operation("GET", W + "/events", "listEvents", "events:read", READ, list_events,
              query=EventsQuery),
    Operation("GET", W + "/events/stream", "streamEvents", "events:read", STREAM, stream_events,
              gives=(MEDIA,), query=StreamQuery),
    Operation("GET", W + "/events/{eventId}", "getEvent", "events:read", READ, get_event),
    Operation("GET", W + "/alert-rules", "listAlertRules", "alerts:read", READ, rules.list_rules,
              query=rules.AlertRulesQuery),
    Operation("POST", W + "/alert-rules", "createAlertRule", "alerts:write", WRITE,
              rules.create_rule, idempotent=True, takes=(JSON,)),
    Operation("GET", W + "/alert-rules/{ruleId}", "getAlertRule", "alerts:read", READ,
              rules.get_rule),
    Operation("PUT", W + "/alert-rules/{ruleId}", "putAlertRule", "alerts:write", WRITE,
              rules.put_rule, takes=(JSON,)),
    Operation("PATCH", W + "/alert-rules/{ruleId}", "patchAlertRule", "alerts:write", WRITE,
              rules.patch_rule, takes=PATCHES),
    Operation("DELETE", W + "/alert-rules/{ruleId}", "deleteAlertRule", "alerts:write", WRITE,
              rules.delete_rule),
    Operation("POST", W + "/alert-rules/{ruleId}/test", "testAlertRule", "alerts:write", TEST,
              rules.test_rule, idempotent=True),
    Operation("GET", W + "/deliveries", "listDeliveries", "deliveries:read", READ,
              targets.list_targets, query=targets.DeliveriesQuery),
    Operation("POST", W + "/deliveries", "createDelivery", "deliveries:write", WRITE,
              targets.create_target, idempotent=True, takes=(JSON,)),
    Operation("GET", W + "/deliveries/{targetId}", "getDelivery", "deliveries:read", READ,
              targets.get_target),
    Operation("PUT", W + "/deliveries/{targetId}", "putDelivery", "deliveries:write", WRITE,
              targets.put_target, takes=(JSON,)),
    Operation("PATCH", W + "/deliveries/{targetId}", "patchDelivery", "deliveries:write", WRITE,
              targets.patch_target, takes=PATCHES),
    Operation("DELETE", W + "/deliveries/{targetId}", "deleteDelivery", "deliveries:write", WRITE,
              targets.delete_target),
    Operation("POST", W + "/deliveries/{targetId}/verify", "verifyDelivery", "deliveries:write",
              TEST, targets.verify_target, idempotent=True),
    Operation("GET", W + "/watchers", "listWatchers", "watchers:read", READ,
              watchers.list_watchers, query=watchers.WatchersQuery),
    Operation("POST", W + "/watchers", "createWatcher", "watchers:write", WRITE,
              watchers.create_watcher, idempotent=True, takes=(JSON,)),
    Operation("GET", W + "/watchers/{watcherId}", "getWatcher", "watchers:read", READ,
              watchers.get_watcher),
    Operation("PUT", W + "/watchers/{watcherId}", "putWatcher", "watchers:write", WRITE,
              watchers.put_watcher, takes=(JSON,)),
    Operation("PATCH", W + "/watchers/{watcherId}", "patchWatcher", "watchers:write", WRITE,
              watchers.patch_watcher, takes=PATCHES),
    Operation("DELETE", W + "/watchers/{watcherId}", "deleteWatcher", "watchers:write", WRITE,
              watchers.delete_watcher),
    Operation("POST", W + "/watchers/{watcherId}/run", "runWatcher", "watchers:write", TEST,
              watchers.run_watcher, idempotent=True),
    Operation("GET", W + "/audit", "listAudit", "audit:read", READ, list_audit, query=ListQuery),
    Operation("GET", W + "/audit/verify", "verifyAudit", "audit:read", READ, verify_audit),
    Operation("GET", "/v1/audit", "listServerAudit", SERVER_ADMIN, READ, list_audit,
              query=ListQuery),
    Operation("GET", "/v1/audit/verify", "verifyServerAudit", SERVER_ADMIN, READ, verify_audit),
)
# fmt: on


@dataclass(slots=True)
class _Node:
    """One segment of the table's tree.  A literal wins over a parameter."""

    literals: dict[str, "_Node"] = field(default_factory=dict)
    parameter: tuple[str, "_Node"] | None = None
    methods: dict[str, Operation] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Found:
    """What a path leads to: an operation per method, and the path's parameters."""

    methods: dict[str, Operation]
    params: dict[str, str]

    @property
    def allow(self) -> str:
        names = {*self.methods, "OPTIONS"} | ({"HEAD"} if "GET" in self.methods else set())
        return ", ".join(sorted(names))

    def operation(self, method: str) -> Operation | None:
        return self.methods.get("GET" if method == "HEAD" else method)


class Table:
    """The operations by path."""

    def __init__(self, operations: tuple[Operation, ...] = OPERATIONS) -> None:
        self._root = _Node()
        for operation in operations:
            node = self._root
            for part in operation.template.strip("/").split("/"):
                if part.startswith("{"):
                    if node.parameter is None:
                        node.parameter = (part[1:-1], _Node())
                    assert node.parameter[0] == part[1:-1], "one name per place"
                    node = node.parameter[1]
                else:
                    node = node.literals.setdefault(part, _Node())
            assert operation.method not in node.methods, "one operation per method and path"
            node.methods[operation.method] = operation

    def find(self, raw_path: str) -> Found | None:
        node, params = self._root, {}
        for part in raw_path.removeprefix("/").split("/"):
            literal = node.literals.get(part)
            if literal is not None:
                node = literal
                continue
            if node.parameter is None:
                return None
            name, node = node.parameter
            try:
                params[name] = unquote_to_bytes(part).decode()
            except UnicodeDecodeError:
                return None
            if not params[name]:
                return None
        return Found(node.methods, params) if node.methods else None
