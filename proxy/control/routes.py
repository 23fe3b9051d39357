"""The one table of the control API: every path, its scope, its rate class, its handler.

Whoever adds an operation adds a row here and nothing elsewhere in the frame.
"""

from functools import partial
from typing import Final, NamedTuple

from proxy.alerting.alert import Alert
from proxy.alerting.digest import Digest
from proxy.control.alert_rules import ALERT_RULE, AlertRulesQuery
from proxy.control.alerts import ALERTS, AlertsQuery
from proxy.control.answers import (
    AuditRow,
    ChainChecked,
    ChangeSent,
    EventTold,
    Health,
    IngestAnswer,
    Node,
    Readiness,
    RuntimeSent,
)
from proxy.control.attempts import (
    DEAD_LETTER,
    Attempt,
    DeadLetter,
    DeadLettersQuery,
    list_attempts,
)
from proxy.control.correlations import CORRELATION, CorrelationsQuery
from proxy.control.deliveries import DELIVERY, DeliveriesQuery
from proxy.control.described import (
    get_changelog,
    get_docs,
    get_docs_file,
    get_openapi,
    get_schema,
    list_schemas,
)
from proxy.control.digests import DIGESTS, DigestOrder, DigestsQuery, make_digest
from proxy.control.documents import (
    create,
    get_document,
    list_documents,
    not_yet,
    patch,
    remove,
    replace,
)
from proxy.control.dry_run import Asked, Explained, explain_request
from proxy.control.events import EventsQuery, get_event, list_events
from proxy.control.failover import (
    FAILOVER_POLICY,
    FailoverQuery,
    list_decisions,
)
from proxy.control.forcing import Force, Release, force_failover, release_failover
from proxy.control.frame import (
    ANY_KEY,
    CONTROL_BODY_BYTES,
    INGEST_BODY_BYTES,
    JSON,
    METRICS,
    PUBLIC,
    SERVER_ADMIN,
    Handler,
    Operation,
    Query,
)
from proxy.control.incident_parts import (
    Note,
    NoteText,
    add_note,
    get_blast_radius,
    get_timeline,
    list_correlations,
    list_notes,
)
from proxy.control.incidents import (
    INCIDENTS,
    IncidentDetail,
    IncidentEdit,
    IncidentsQuery,
    Merge,
    Resolve,
    acknowledge,
    get_incident,
    merge,
    patch_incident,
    reopen,
    resolve,
)
from proxy.control.ingest import NDJSON, post_change, post_runtime
from proxy.control.keys import KEY, KeysQuery, Rotation, keeps_an_admin, revoke_key, rotate_key
from proxy.control.kinds import Kind
from proxy.control.logs import LogQuery
from proxy.control.objects import Changes, FailoverDecisionTold, RouteExposure, SchemaList
from proxy.control.policies import (
    PACK_BODY_BYTES,
    POLICY,
    Activation,
    PoliciesQuery,
    PolicyQuery,
    PolicyVersion,
    VersionsQuery,
    activate_policy,
    get_policy,
    get_version,
    list_versions,
)
from proxy.control.policy_checks import (
    Coverage,
    Evaluated,
    Evaluation,
    evaluate_policy,
    policies_coverage,
)
from proxy.control.policy_replay import Replay, Replayed, replay_policy
from proxy.control.rotation import rotate_secret
from proxy.control.routing import (
    ENDPOINT,
    ROUTE,
    EndpointSeen,
    EndpointsQuery,
    RoutesQuery,
    endpoint_health,
    route_exposure,
)
from proxy.control.status import (
    healthz,
    metrics,
    problem_page,
    readyz,
    reload,
    status,
)
from proxy.control.stream import MEDIA, StreamQuery, stream_events
from proxy.control.trail import list_audit, verify_audit
from proxy.control.watchers import WATCHER, WatcherDiff, WatchersQuery, list_diffs
from proxy.control.wire import ListQuery
from proxy.control.workspaces import WORKSPACE, RemovalQuery, remove_workspace
from proxy.incidents.incident import BlastRadius, Correlation, Entry, Incident

W: Final = "/v1/workspaces/{workspace}"
INCIDENT: Final = W + "/incidents/{incidentId}"
TEXT: Final = "text/plain"
READ: Final = "control-read"
WRITE: Final = "control-write"
INGEST: Final = "ingest"
STREAM: Final = "stream"
TEST: Final = "test"
PATCHES: Final = ("application/merge-patch+json", JSON)


class Reading(NamedTuple):
    """How one document is read, where that takes more than its id."""

    handler: Handler
    query: type[Query]


# fmt: off
def _documents(
    place: str,
    name: str,
    scope: str,
    kind: Kind,
    query: type[Query],
    body_cap: int = CONTROL_BODY_BYTES,
    reading: Reading | None = None,
) -> tuple[Operation, ...]:
    """The operations that every kind of document has."""
    many, one = f"{W}/{place}", f"{W}/{place}/{{{kind.parameter}}}"
    read, write = f"{scope}:read", f"{scope}:write"
    names = name[:-1] + "ies" if name.endswith("y") else name + "s"
    return (
        Operation("GET", many, f"list{names}", read, READ, partial(list_documents, kind),
                  query=query),
        Operation("POST", many, f"create{name}", write, WRITE, partial(create, kind),
                  idempotent=True, takes=(JSON,), body_cap=body_cap, success=201),
        Operation("GET", one, f"get{name}", read, READ,
                  reading.handler if reading else partial(get_document, kind),
                  query=reading.query if reading else Query, tells=kind if reading else None),
        Operation("PUT", one, f"put{name}", write, WRITE, partial(replace, kind), takes=(JSON,),
                  body_cap=body_cap),
        Operation("PATCH", one, f"patch{name}", write, WRITE, partial(patch, kind),
                  takes=PATCHES, body_cap=body_cap),
        Operation("DELETE", one, f"delete{name}", write, WRITE, partial(remove, kind),
                  success=204),
    )


def _all() -> tuple[Operation, ...]:
    return OPERATIONS


OPERATIONS: Final[tuple[Operation, ...]] = (
    # method, path, operation id, scope, rate class, handler
    Operation("GET", "/healthz", "healthz", PUBLIC, READ, healthz, tells=Health,
              also=(503,)),
    Operation("GET", "/readyz", "readyz", PUBLIC, READ, readyz, tells=Readiness,
              also=(503,)),
    Operation("GET", "/metrics", "metrics", METRICS, READ, metrics, gives=(TEXT,)),
    Operation("GET", "/problems/{slug}", "getProblem", PUBLIC, READ, problem_page, gives=(TEXT,)),
    Operation("GET", "/v1/status", "getStatus", ANY_KEY, READ, status, tells=Node),
    Operation("POST", "/v1/admin/reload", "reload", SERVER_ADMIN, WRITE, reload, idempotent=True,
              tells=Node),
    Operation("GET", "/v1/workspaces", "listWorkspaces", "workspaces:read", READ,
              partial(list_documents, WORKSPACE), query=ListQuery),
    Operation("POST", "/v1/workspaces", "createWorkspace", SERVER_ADMIN, WRITE,
              partial(create, WORKSPACE), idempotent=True, takes=(JSON,), success=201),
    Operation("GET", W, "getWorkspace", "workspaces:read", READ, partial(get_document, WORKSPACE)),
    Operation("PUT", W, "putWorkspace", "workspaces:write", WRITE, partial(replace, WORKSPACE),
              takes=(JSON,)),
    Operation("PATCH", W, "patchWorkspace", "workspaces:write", WRITE, partial(patch, WORKSPACE),
              takes=PATCHES),
    Operation("DELETE", W, "deleteWorkspace", SERVER_ADMIN, WRITE, remove_workspace,
              query=RemovalQuery, success=204),
    Operation("GET", "/v1/keys", "listKeys", "keys:read", READ, partial(list_documents, KEY),
              query=KeysQuery),
    Operation("POST", "/v1/keys", "createKey", "keys:write", WRITE, partial(create, KEY),
              idempotent=True, takes=(JSON,), success=201),
    Operation("GET", "/v1/keys/{keyId}", "getKey", "keys:read", READ, partial(get_document, KEY)),
    Operation("PATCH", "/v1/keys/{keyId}", "patchKey", "keys:write", WRITE,
              partial(patch, KEY, allow=keeps_an_admin), takes=PATCHES),
    Operation("DELETE", "/v1/keys/{keyId}", "revokeKey", "keys:write", WRITE, revoke_key,
              success=204),
    Operation("POST", "/v1/keys/{keyId}/rotate", "rotateKey", "keys:write", WRITE, rotate_key,
              idempotent=True, takes=(JSON,), sends=Rotation, tells=KEY),
    Operation("POST", "/v1/ingest/runtime", "ingestRuntime", "ingest:write", INGEST, post_runtime,
              idempotent=True, body_cap=INGEST_BODY_BYTES, takes=(JSON, NDJSON), success=202,
              sends=RuntimeSent, tells=IngestAnswer),
    Operation("POST", "/v1/ingest/change", "ingestChange", "ingest:write", INGEST, post_change,
              idempotent=True, body_cap=INGEST_BODY_BYTES, takes=(JSON, NDJSON), success=202,
              sends=ChangeSent, tells=IngestAnswer),
    Operation("GET", W + "/events", "listEvents", "events:read", READ, list_events,
              query=EventsQuery, tells=EventTold),
    Operation("GET", W + "/events/stream", "streamEvents", "events:read", STREAM, stream_events,
              gives=(MEDIA,), query=StreamQuery),
    Operation("GET", W + "/events/{eventId}", "getEvent", "events:read", READ, get_event,
              tells=EventTold),
    *_documents("endpoints", "Endpoint", "routes", ENDPOINT, EndpointsQuery),
    Operation("GET", W + "/endpoints/{endpointId}/health", "getEndpointHealth", "routes:read",
              READ, endpoint_health, tells=EndpointSeen),
    *_documents("routes", "Route", "routes", ROUTE, RoutesQuery),
    Operation("GET", W + "/routes/{routeId}/exposure", "getRouteExposure", "routes:read", READ,
              route_exposure, tells=RouteExposure),
    *_documents("policies", "Policy", "policies", POLICY, PoliciesQuery, PACK_BODY_BYTES,
                Reading(get_policy, PolicyQuery)),
    Operation("GET", W + "/policies/{policyId}/versions", "listPolicyVersions", "policies:read",
              READ, list_versions, query=VersionsQuery, tells=PolicyVersion),
    Operation("GET", W + "/policies/{policyId}/versions/{version}", "getPolicyVersion",
              "policies:read", READ, get_version, tells=PolicyVersion),
    Operation("GET", W + "/policies/coverage", "getPoliciesCoverage", "policies:read", READ,
              policies_coverage, tells=Coverage),
    Operation("POST", W + "/policies/{policyId}/evaluate", "evaluatePolicy", "policies:read", TEST,
              evaluate_policy, takes=(JSON,), body_cap=PACK_BODY_BYTES, sends=Evaluation,
              tells=Evaluated),
    Operation("POST", W + "/policies/{policyId}/replay", "replayPolicy", "policies:read", TEST,
              replay_policy, takes=(JSON,), body_cap=PACK_BODY_BYTES, sends=Replay,
              tells=Replayed),
    Operation("POST", W + "/policies/{policyId}/activate", "activatePolicy", "policies:write",
              WRITE, activate_policy, idempotent=True, takes=(JSON,), sends=Activation,
              tells=POLICY),
    *_documents("failover-policies", "FailoverPolicy", "failover", FAILOVER_POLICY, FailoverQuery),
    Operation("GET", W + "/failover-policies/{policyId}/decisions", "listFailoverDecisions",
              "failover:read", READ, list_decisions, query=LogQuery,
              tells=FailoverDecisionTold),
    Operation("POST", W + "/explain", "explain", "failover:read", TEST, explain_request,
              takes=(JSON,), sends=Asked, tells=Explained),
    Operation("POST", W + "/failover-policies/{policyId}/force", "forceFailover",
              "failover:write", WRITE, force_failover, idempotent=True, takes=(JSON,),
              sends=Force, tells=FAILOVER_POLICY),
    Operation("POST", W + "/failover-policies/{policyId}/release", "releaseFailover",
              "failover:write", WRITE, release_failover, idempotent=True, takes=(JSON,),
              sends=Release, tells=FAILOVER_POLICY),
    *_documents("alert-rules", "AlertRule", "alerts", ALERT_RULE, AlertRulesQuery),
    Operation("POST", W + "/alert-rules/{ruleId}/test", "testAlertRule", "alerts:write", TEST,
              partial(not_yet, ALERT_RULE, "alerts are not sent in this version"),
              idempotent=True, built=False),
    *_documents("deliveries", "Delivery", "deliveries", DELIVERY, DeliveriesQuery),
    Operation("POST", W + "/deliveries/{targetId}/verify", "verifyDelivery", "deliveries:write",
              TEST, partial(not_yet, DELIVERY, "messages are not sent in this version"),
              idempotent=True, built=False),
    *_documents("watchers", "Watcher", "watchers", WATCHER, WatchersQuery),
    Operation("POST", W + "/watchers/{watcherId}/run", "runWatcher", "watchers:write", TEST,
              partial(not_yet, WATCHER, "nothing is watched in this version"), idempotent=True,
              built=False),
    Operation("GET", W + "/alerts", "listAlerts", "alerts:read", READ,
              partial(list_documents, ALERTS), query=AlertsQuery, tells=Alert),
    Operation("GET", W + "/alerts/{alertId}", "getAlert", "alerts:read", READ,
              partial(get_document, ALERTS), tells=Alert),
    Operation("POST", W + "/deliveries/{targetId}/rotate-secret", "rotateDeliverySecret",
              "deliveries:write", WRITE, rotate_secret, idempotent=True,
              tells=DELIVERY),
    Operation("GET", W + "/deliveries/{targetId}/attempts", "listDeliveryAttempts",
              "deliveries:read", READ, list_attempts, query=LogQuery, tells=Attempt),
    Operation("GET", W + "/dead-letters", "listDeadLetters", "deliveries:read", READ,
              partial(list_documents, DEAD_LETTER), query=DeadLettersQuery,
              tells=DeadLetter),
    Operation("POST", W + "/dead-letters/{deadLetterId}/replay", "replayDeadLetter",
              "deliveries:write", WRITE,
              partial(not_yet, DEAD_LETTER, "messages are not sent in this version"),
              idempotent=True, success=202, built=False),
    Operation("DELETE", W + "/dead-letters/{deadLetterId}", "deleteDeadLetter",
              "deliveries:write", WRITE, partial(remove, DEAD_LETTER), success=204),
    Operation("GET", W + "/watchers/{watcherId}/diffs", "listWatcherDiffs", "watchers:read", READ,
              list_diffs, query=LogQuery, tells=WatcherDiff),
    Operation("GET", W + "/incidents", "listIncidents", "incidents:read", READ,
              partial(list_documents, INCIDENTS), query=IncidentsQuery, tells=Incident),
    Operation("GET", INCIDENT, "getIncident", "incidents:read", READ, get_incident,
              tells=IncidentDetail),
    Operation("PATCH", INCIDENT, "patchIncident", "incidents:write", WRITE, patch_incident,
              takes=PATCHES, sends=IncidentEdit, tells=IncidentDetail),
    Operation("POST", INCIDENT + "/acknowledge", "acknowledgeIncident", "incidents:write", WRITE,
              acknowledge, idempotent=True, tells=IncidentDetail),
    Operation("POST", INCIDENT + "/resolve", "resolveIncident", "incidents:write", WRITE, resolve,
              idempotent=True, takes=(JSON,), sends=Resolve, tells=IncidentDetail),
    Operation("POST", INCIDENT + "/reopen", "reopenIncident", "incidents:write", WRITE, reopen,
              idempotent=True, tells=IncidentDetail),
    Operation("POST", INCIDENT + "/merge", "mergeIncident", "incidents:write", WRITE, merge,
              idempotent=True, takes=(JSON,), sends=Merge, tells=IncidentDetail),
    Operation("POST", INCIDENT + "/notes", "addIncidentNote", "incidents:write", WRITE, add_note,
              idempotent=True, takes=(JSON,), sends=NoteText, tells=Note, success=201),
    Operation("GET", INCIDENT + "/notes", "listIncidentNotes", "incidents:read", READ, list_notes,
              query=LogQuery, tells=Note),
    Operation("GET", INCIDENT + "/timeline", "getIncidentTimeline", "incidents:read", READ,
              get_timeline, query=ListQuery, tells=Entry),
    Operation("GET", INCIDENT + "/blast-radius", "getIncidentBlastRadius", "incidents:read", READ,
              get_blast_radius, tells=BlastRadius),
    Operation("GET", INCIDENT + "/correlations", "listIncidentCorrelations", "incidents:read",
              READ, list_correlations, query=ListQuery, tells=Correlation),
    Operation("GET", W + "/correlations", "listCorrelations", "incidents:read", READ,
              partial(list_documents, CORRELATION), query=CorrelationsQuery,
              tells=Correlation),
    Operation("GET", W + "/correlations/{correlationId}", "getCorrelation", "incidents:read", READ,
              partial(get_document, CORRELATION), tells=Correlation),
    Operation("GET", W + "/digests", "listDigests", "digests:read", READ,
              partial(list_documents, DIGESTS), query=DigestsQuery, tells=Digest),
    Operation("POST", W + "/digests", "createDigest", "digests:write", WRITE, make_digest,
              idempotent=True, takes=(JSON,), sends=DigestOrder, tells=Digest, success=201,
              also=(200,), lacks="deliver: true"),
    Operation("GET", W + "/digests/{digestId}", "getDigest", "digests:read", READ,
              partial(get_document, DIGESTS), tells=Digest),
    Operation("GET", W + "/audit", "listAudit", "audit:read", READ, list_audit, query=LogQuery,
              tells=AuditRow),
    Operation("GET", W + "/audit/verify", "verifyAudit", "audit:read", READ, verify_audit,
              tells=ChainChecked),
    Operation("GET", "/v1/audit", "listServerAudit", SERVER_ADMIN, READ, list_audit,
              query=LogQuery, tells=AuditRow),
    Operation("GET", "/v1/audit/verify", "verifyServerAudit", SERVER_ADMIN, READ, verify_audit,
              tells=ChainChecked),
    Operation("GET", "/openapi.json", "getOpenapi", PUBLIC, READ, partial(get_openapi, _all),
              tells={"type": "object"}, cached=True),
    Operation("GET", "/docs", "getDocs", PUBLIC, READ, partial(get_docs, _all),
              gives=("text/html",), cached=True),
    Operation("GET", "/docs/app.js", "getDocsScript", PUBLIC, READ,
              partial(get_docs_file, "app.js", "text/javascript"), gives=("text/javascript",),
              cached=True),
    Operation("GET", "/docs/style.css", "getDocsStyle", PUBLIC, READ,
              partial(get_docs_file, "style.css", "text/css"), gives=("text/css",), cached=True),
    Operation("GET", "/v1/schemas", "listSchemas", PUBLIC, READ, list_schemas, tells=SchemaList),
    Operation("GET", "/v1/schemas/{name}", "getSchema", PUBLIC, READ, get_schema,
              tells={"type": "object"}, cached=True),
    Operation("GET", "/v1/changelog", "getChangelog", PUBLIC, READ, get_changelog, tells=Changes,
              gives=(JSON, TEXT)),
)
# fmt: on
