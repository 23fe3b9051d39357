"""The words of the frame: an operation, a request on its way through the checks, a reply.

`routes.py` is the table of operations, `middleware.py` runs the checks; a resource's file has
handlers, which take a `Passage` and give a `Reply`.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from proxy.control.audit import Actor, Audit
from proxy.control.config import ControlConfig, Principal
from proxy.control.contract import Contract
from proxy.control.intake import EventIntake
from proxy.control.key_uses import KeyUses
from proxy.control.parsed import Parsed
from proxy.control.ratelimit import RateClass
from proxy.control.readiness import StatusSource
from proxy.model.exchange import Json
from proxy.model.ports import Clock, Coord, Ids, Store
from proxy.routing.standings import NoStandings, Standings
from proxy.spool.keeper import Keeper
from proxy.telemetry.exposition import Registry
from proxy.wire import jsonbody

KIB = 1024
CONTROL_BODY_BYTES = 256 * KIB
INGEST_BODY_BYTES = 1024 * KIB
JSON = "application/json"
PROBLEM = "application/problem+json"
EVENT_STREAM = "text/event-stream"

Scope = str  # a scope of control-api.md §2, or one of these:
PUBLIC, ANY_KEY, SERVER_ADMIN, METRICS = "none", "any-key", "server-admin", "metrics"


class Query(BaseModel):
    """Base of what an operation takes behind `?`: an unknown parameter is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(slots=True, frozen=True)
class Operation:
    """One row of the table.  `takes` are the media types of the body, empty: none is read.

    `sends` and `tells` are the models of the body and of the answer with status `success`, as the
    API's description shows them (of a list: of one entry); the summary is the first line of the
    handler's docstring.  `also` are further statuses with that answer.  `cached`: it has an entity
    tag and may be 304.  `built` False: the machinery is not there, the answer is 501;
    `lacks` says of which part.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    template: str
    operation_id: str
    scope: Scope
    rate_class: RateClass
    handler: "Handler"
    idempotent: bool = False
    body_cap: int = CONTROL_BODY_BYTES
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = (JSON,)
    query: type[Query] = Query
    sends: object = None
    tells: object = None
    success: int = 200
    also: tuple[int, ...] = ()
    cached: bool = False
    built: bool = True
    lacks: str = ""


@dataclass(slots=True)
class Reply:
    """An answer: `body` is JSON already written, or text of `media`."""

    status: int
    body: bytes = b""
    media: str = JSON
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, status: int, doc: Json, headers: Mapping[str, str] | None = None) -> "Reply":
        return cls(status, jsonbody.dumps(doc), headers=dict(headers or {}))


@dataclass(slots=True)
class Passage:
    """One request on its way.  What a check finds out is kept here for those after it.

    `headers` go on every answer, whatever the way out.  `config` is the one in force when the
    request came.
    """

    request: web.BaseRequest
    request_id: str
    address: str
    config: ControlConfig
    headers: dict[str, str]
    operation: Operation | None = None
    params: dict[str, str] = field(default_factory=dict)
    principal: Principal | None = None
    workspace_id: str | None = None
    query: Query = field(default_factory=Query)
    media: str = ""
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.request.rel_url.raw_path

    @property
    def caller(self) -> Principal:
        assert self.principal is not None, "the operation is public"
        return self.principal

    @property
    def actor(self) -> Actor:
        caller = self.caller
        return Actor(caller.key_id, caller.name, caller.role, self.address, self.request_id)

    @property
    def workspace(self) -> str:
        assert self.workspace_id is not None, "the operation has no workspace"
        return self.workspace_id


class Reload(Protocol):
    """Reads the configuration file again.  Returns what is wrong in it; empty: it is in force."""

    async def __call__(self) -> list[Json]: ...


Tell = Callable[[str, dict[str, Json], BaseException | None], None]


async def _nothing_to_apply() -> None:
    pass


@dataclass(slots=True, frozen=True)
class ControlDeps:
    """All that the control API stands on; `app.py` fills it.

    `config` gives the configuration in force, `tell(event, fields, fault)` writes a log line.
    `apply` brings what was committed into force and returns when it is (in this process; workers
    follow); it never raises.  `server_key` (32 bytes) signs cursors and hides user ids.  `keeper`
    takes events while the store is away; None: then they are refused.  `standings`: how endpoints
    stand, policy by policy.
    """

    store: Store
    coord: Coord
    clock: Clock
    ids: Ids
    intake: EventIntake
    config: Callable[[], ControlConfig]
    metrics: Registry
    status: StatusSource
    reload: Reload
    server_key: bytes
    tell: Tell
    apply: Callable[[], Awaitable[None]] = _nothing_to_apply
    contract: Contract = field(default_factory=Contract)
    audit: Audit = field(default_factory=Audit)
    parsed: Parsed = field(default_factory=Parsed)
    key_uses: KeyUses = field(default_factory=KeyUses)
    keeper: Keeper | None = None
    standings: Standings = field(default_factory=NoStandings)


Handler = Callable[[Passage, ControlDeps], Awaitable[Reply | web.StreamResponse]]
