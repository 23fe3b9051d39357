"""Small documents for tests: one workspace, one route, two endpoints, and a gateway over fakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from proxy.gateway.early import Early
from proxy.gateway.flights import Flights
from proxy.gateway.pipeline import serve
from proxy.gateway.snapshot import build_guards, build_rules
from proxy.gateway.turn import Gateway
from proxy.model.exchange import Inbound, RawHeaders
from proxy.model.failover import Conditions, FailoverPolicy, RequestFailover
from proxy.model.observations import RequestFinished
from proxy.model.policy import PolicyPack, Rule
from proxy.model.records import RequestRecord
from proxy.model.tenancy import (
    ApiKey,
    Endpoint,
    GuardSettings,
    Route,
    SnapshotDoc,
    Timeouts,
    WorkspaceRules,
)
from proxy.spool.record import is_critical, line_of
from proxy.wire.headers import walk
from tests.kit.fakes import (
    CountingIds,
    FakeClock,
    InLine,
    Notebook,
    RecordingDownstream,
    ScriptedUpstream,
    ScriptedUpstreams,
    Step,
)

JSON: RawHeaders = [(b"content-type", b"application/json")]
SSE: RawHeaders = [(b"content-type", b"text/event-stream")]

ANTHROPIC = Endpoint(
    id="anthropic-claude", provider="anthropic", base_url="http://127.0.0.1:1", api_key="k1",
    allow_private=True,
)  # fmt: skip
BEDROCK = Endpoint(
    id="bedrock-claude", provider="bedrock", base_url="http://127.0.0.1:2", api_key="k2",
    region="us-east-1", allow_private=True,
)  # fmt: skip
OPENAI = Endpoint(
    id="openai", provider="openai", base_url="http://127.0.0.1:3/v1", api_key="k3",
    allow_private=True,
)  # fmt: skip
SPARE = Endpoint(
    id="spare", provider="openai", base_url="http://127.0.0.1:4/v1", api_key="k4",
    allow_private=True,
)  # fmt: skip


def pack(*rules: Rule, **members: object) -> PolicyPack:
    return PolicyPack.model_validate(
        {"policy_pack_id": "test-pack", "rules": [r.model_dump() for r in rules], **members}
    )


SECRET_RULE = Rule(
    rule_id="test.key", pattern=r"\bKEY[0-9]{4,}", action="redact", severity="high",
    keywords=["key"],
)  # fmt: skip
BLOCK_RULE = Rule(
    rule_id="launch", kind="terms", pattern=["launch code"], action="block", severity="critical"
)


def policy(primary: str, *fallbacks: str, route_id: str = "chat", **more: object) -> FailoverPolicy:
    """Each endpoint is asked once, unless told otherwise: a second time comes after a pause."""
    more = {"same_endpoint_retries": 0, **more}
    return FailoverPolicy(
        id="test-failover",
        route_id=route_id,
        primary_endpoint=primary,
        fallback_endpoints=list(fallbacks),
        conditions=Conditions(latency_threshold_ms=2000),
        request_failover=RequestFailover.model_validate(more),
    )


@dataclass
class World:
    """A gateway whose upstreams follow scripts; `ask` runs one request to its end."""

    gateway: Gateway
    clock: FakeClock
    notes: Notebook
    upstreams: dict[str, ScriptedUpstream]

    async def ask(
        self,
        body: bytes,
        path: str = "/v1/chat/completions",
        headers: RawHeaders | None = None,
        method: str = "POST",
    ) -> RecordingDownstream:
        caller = RecordingDownstream(request_body=body)
        await serve(self.inbound(path, headers, method), caller, self.gateway)
        return caller

    def inbound(
        self, path: str, headers: RawHeaders | None = None, method: str = "POST"
    ) -> Inbound:
        sent = headers if headers is not None else [(b"content-type", b"application/json")]
        headers, marks = walk(sent)
        request_id = self.gateway.ids.new("req-")
        return Inbound(request_id, method, path, headers, peer="127.0.0.1", marks=marks)

    @property
    def record(self) -> RequestRecord:
        """The one record that was told since the last look."""
        told = [what.record for what in self.notes.seen if isinstance(what, RequestFinished)]
        assert len(told) == 1, told
        self.notes.seen.clear()
        return told[0]


def world(
    endpoints: Sequence[Endpoint] = (OPENAI,),
    *,
    scripts: dict[str, Sequence[Sequence[Step]]] | None = None,
    failover: FailoverPolicy | None = None,
    packs: Sequence[PolicyPack] = (),
    keys: Sequence[ApiKey] = (),
    routes: Sequence[Route] | None = None,
    timeouts: Timeouts | None = None,
    policy_header: Literal["off", "verdict", "rules"] = "off",
    upstreams: dict[str, ScriptedUpstream] | None = None,
) -> World:
    """One route `chat` over the first endpoint, unless told otherwise.  `upstreams`: those that do
    not follow `scripts`."""
    chosen = list(routes) if routes is not None else [
        Route(
            id="chat", endpoint=endpoints[0].id,
            policy_packs=[p.policy_pack_id for p in packs], timeouts=timeouts or Timeouts(),
        )
    ]  # fmt: skip
    document = SnapshotDoc(
        version=1,
        sha256="",
        data_auth="keys" if keys else "open",
        guard=GuardSettings(policy_header=policy_header),
        workspaces=[
            WorkspaceRules(
                id="default",
                endpoints=list(endpoints),
                routes=chosen,
                failover_policies=[failover] if failover else [],
                policies=list(packs),
                keys=list(keys),
            )
        ],
    )
    fakes = {e.id: ScriptedUpstream(*(scripts or {}).get(e.id, [])) for e in endpoints}
    fakes |= upstreams or {}
    rules = build_rules(
        document,
        build_guards(document, warm=False),
        ScriptedUpstreams(fakes),
        lambda secret: secret if isinstance(secret, str) else None,
    )
    clock, notes = FakeClock(), Notebook()
    flights = Flights(clock, lambda: 0.5, notes.tell)
    flights.keep(rules)
    gateway = Gateway(
        rules=lambda: rules,
        clock=clock,
        ids=CountingIds(),
        journal=notes,
        line_of=line_of,
        is_critical=is_critical,
        observe=notes,
        off_loop=InLine(),
        server_key=b"k" * 32,
        flights=flights,
        early=Early(),
    )
    return World(gateway, clock, notes, fakes)
