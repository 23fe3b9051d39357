"""What the operations answer with, for the API's description.

Documents of a workspace are described by their `Kind`; here is everything else.  An answer may
have more members than these, now and later: a client ignores what it does not know.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from proxy.control.incoming import ChangeEventIn, ChangePayloadIn, RuntimeEventIn, RuntimePayloadIn
from proxy.model.documents import Severity

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Told(BaseModel):
    """Base of an answer: open, since members are added over time."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Warned(Told):
    """Something that was accepted and is worth a look."""

    code: str
    detail: str
    pointer: str | None = Field(None, description="JSON Pointer into the body that was sent")


class FieldFault(Told):
    """One thing that is wrong with a request."""

    code: str = Field(description="stable, for programs")
    detail: str = Field(description="for people")
    field: str | None = Field(None, description="the member, with dots, or the parameter")
    pointer: str | None = Field(None, description="JSON Pointer into the body that was sent")
    in_: str | None = Field(None, alias="in", description="query or header; absent: body")
    parameter: str | None = None


class ProblemTold(Told):
    """Problem details (RFC 9457).  `type` leads to a page that explains it."""

    model_config = ConfigDict(title="Problem", extra="allow")

    type: str = Field(description="the kind of problem, as a URL")
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    instance: str = Field(description="the path that was asked for")
    request_id: str
    errors: list[FieldFault] | None = Field(None, description="all that is wrong, at most 50")
    errors_truncated: bool | None = None


class Health(Told):
    status: Literal["ok", "stuck"]
    loop_lag_seconds: float


class Readiness(Told):
    status: Literal["ready", "not_ready", "degraded"]
    config: bool
    storage: bool
    workers: bool
    draining: bool
    degraded: list[str]


class ConfigFile(Told):
    """The configuration file: what is in force, and what is wrong with the newest."""

    hash: str
    valid: bool
    error: str | None
    loaded_at: Time | None
    warnings: list[str]
    restart_required: list[str]


class Worker(Told):
    slot: int
    config_version: int
    connected: bool
    restarts: int
    rejected: str | None


class Process(Told):
    role: str
    slot: int
    pid: int


class Spool(Told):
    bytes: int
    lag_seconds: float


class LivingNode(Told):
    """A node that was alive within the last seconds; `file_hash` of its configuration file."""

    node_id: str
    file_hash: str
    last_beat_at: Time | None


class Node(Told):
    """The state of this node, and which others it knows of."""

    node_id: str
    version: str
    uptime_seconds: float
    config: ConfigFile
    config_version: int
    workers: list[Worker]
    processes: list[Process]
    leader: bool
    store: str
    redis: dict[str, object] | None
    spool: Spool
    shadowed: list[str]
    refused: list[str]
    nodes: list[LivingNode]
    warnings: list[str]


class RuntimeEventSent(RuntimeEventIn, RuntimePayloadIn):
    """A runtime event: flat, or with `payload`; unknown members are kept in `ext`."""


class ChangePayloadSent(ChangePayloadIn):
    """What a change event says, but for what stands beside `payload`."""

    change_id: Annotated[str, Field(min_length=1, max_length=256)] | None = None  # type: ignore[assignment]


class ChangeEventSent(ChangeEventIn, ChangePayloadIn):
    """A change event: flat, or with `payload`; unknown members are kept in `ext`."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                {
                    "anyOf": [
                        {"required": ["change_id"], "properties": {"change_id": {"minLength": 1}}},
                        {
                            "required": ["payload"],
                            "properties": {
                                "payload": {"type": "object", "required": ["change_id"]}
                            },
                        },
                    ]
                },
                {
                    "anyOf": [
                        {
                            "required": ["classification"],
                            "properties": {"classification": {"type": "string"}},
                        },
                        {"required": ["type"], "properties": {"type": {"type": "string"}}},
                    ]
                },
            ]
        }
    )

    change_id: Annotated[str, Field(min_length=1, max_length=256)] | None = None  # type: ignore[assignment]
    payload: ChangePayloadSent | None = None  # type: ignore[assignment]


class _EachAlone:
    """Of a list whose items are judged one by one: it is taken when one of them is good."""

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        schema["contains"] = schema.pop("items")
        return schema


_SEVERAL: Final = Field(
    min_length=1, max_length=1000, description="each is judged alone, and told of alone"
)
RuntimeList = Annotated[list[RuntimeEventSent], _SEVERAL, _EachAlone()]
ChangeList = Annotated[list[ChangeEventSent], _SEVERAL, _EachAlone()]


class RuntimeEvents(BaseModel):
    """Several at once; `workspace_id` where the key has more than one."""

    model_config = ConfigDict(extra="forbid")

    events: RuntimeList
    workspace_id: str | None = None


class ChangeEvents(BaseModel):
    """Several at once; `workspace_id` where the key has more than one."""

    model_config = ConfigDict(extra="forbid")

    events: ChangeList
    workspace_id: str | None = None


RuntimeSent = RuntimeEventSent | RuntimeList | RuntimeEvents
ChangeSent = ChangeEventSent | ChangeList | ChangeEvents


Durability = Annotated[
    Literal["local"],
    Field(description="on this machine's disk; stored, and `duplicate` known, when Redis is back"),
]


class Ingested(Told):
    """What became of one event."""

    event_id: str
    status: Literal["accepted", "duplicate"]
    duplicate: bool | None
    seq: int | None
    received_at: Time
    durability: Durability | None = None
    warnings: list[Warned] | None = None


class IngestedItem(Told):
    """What became of one event of several."""

    index: int
    status: Literal["accepted", "duplicate", "rejected"]
    event_id: str | None = None
    duplicate: bool | None = None
    seq: int | None = None
    received_at: Time | None = None
    durability: Durability | None = None
    warnings: list[Warned] | None = None
    errors: list[FieldFault] | None = None


class IngestedItems(Told):
    accepted: int
    duplicates: int
    rejected: int
    results: list[IngestedItem]


IngestAnswer = Ingested | IngestedItems


class EventTold(Told):
    """An event as the log holds it; members of `payload` are those of its type."""

    model_config = ConfigDict(title="Event", extra="allow", frozen=True)

    event_id: str
    type: str
    timestamp: Time
    payload: dict[str, object]
    seq: int
    workspace_id: str
    schema_version: str
    received_at: Time
    source: str
    route_id: str | None = None
    provider: str | None = None
    classification: str | None = None
    severity: Severity | None = None
    request_id: str | None = None
    trace_id: str | None = None
    ext: dict[str, object] | None = None


class AuditActor(Told):
    key_id: str
    name: str
    role: str | None
    ip: str


class AuditResource(Told):
    type: str
    id: str


class AuditChange(Told):
    path: str
    old: object
    new: object


class AuditRow(Told):
    """One change, or one refusal, in the chain."""

    audit_id: str
    seq: int
    timestamp: Time
    actor: AuditActor
    action: str
    resource: AuditResource
    outcome: Literal["success", "denied", "failed"]
    request_id: str
    changes: list[AuditChange]
    count: int
    prev_hash: str
    hash: str


class ChainChecked(Told):
    """Whether the chain of the audit holds; `broken_at`: the first row that does not follow."""

    ok: bool
    checked: int
    head: str | None = None
    broken_at: int | None = None
