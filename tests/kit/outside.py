"""A gateway whose endpoints follow scripts and whose checks outside are asked over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from proxy.gateway.early import Early
from proxy.gateway.flights import Flights
from proxy.gateway.opinions import Opinions
from proxy.gateway.snapshot import Rules, build_guards, build_rules
from proxy.gateway.turn import Gateway
from proxy.model.documents import EnvRef, Secret
from proxy.model.failover import FailoverPolicy
from proxy.model.observations import GuardAsked
from proxy.model.policy import PolicyPack
from proxy.model.ports import Upstream
from proxy.model.tenancy import Endpoint, Route, SnapshotDoc, WorkspaceRules
from proxy.runtime.clock import SystemClock
from proxy.runtime.tasks import spawn
from proxy.spool.record import is_critical, line_of
from proxy.upstream.transports import Transports
from tests.kit.builders import OPENAI, World
from tests.kit.fakes import CountingIds, FakeClock, InLine, Notebook, ScriptedUpstream, Step

ENVIRON = {"GUARD_KEY": "gk-12345678"}


def external(adapter: str, where: str | None, /, **members: Any) -> dict[str, Any]:
    """A rule of kind external; what its config says stands in `config`."""
    config = {"adapter": adapter, **members.pop("config", {})}
    if where is not None:
        config |= {"url": where, "allow_private": True}
    rule = {"rule_id": f"ext.{adapter}", "kind": "external", "action": "block", "severity": "high"}
    return {**rule, **members, "config": config}


def pack_of(*rules: Mapping[str, Any], **members: Any) -> PolicyPack:
    return PolicyPack.model_validate({"policy_pack_id": "outside", "rules": list(rules), **members})


def resolved(secret: Secret | None) -> str | None:
    if isinstance(secret, EnvRef):
        return ENVIRON.get(secret.env)
    return secret if isinstance(secret, str) else None


@dataclass
class OutsideWorld(World):
    """`asked`: what the observer was told of checks.  The time is the machine's."""

    transports: Transports = field(kw_only=True)
    rules: Rules = field(kw_only=True)

    @property
    def opinions(self) -> Opinions:
        return self.gateway.opinions

    @property
    def asked(self) -> list[str]:
        return [what.result for what in self.notes.seen if isinstance(what, GuardAsked)]


class _Upstreams:
    """Endpoints of `scripted` follow a script, everything else is called for real."""

    def __init__(self, scripted: dict[str, ScriptedUpstream], transports: Transports) -> None:
        self._scripted = scripted
        self._transports = transports

    def of(self, workspace_id: str, endpoint: Endpoint) -> Upstream:
        return self._scripted.get(endpoint.id) or self._transports.of(workspace_id, endpoint)


@asynccontextmanager
async def outside_world(
    *packs: PolicyPack,
    scripts: Sequence[Sequence[Step]] = (),
    endpoints: Sequence[Endpoint] = (),
    primary: Endpoint = OPENAI,
    failover: FailoverPolicy | None = None,
    guard: Mapping[str, Any] | None = None,
    route: Mapping[str, Any] | None = None,
) -> AsyncIterator[OutsideWorld]:
    """One route `chat` over a scripted endpoint, `primary`; `endpoints` are real ones besides."""
    clock, notes = SystemClock(), Notebook()
    transports = Transports(clock, notes)
    sweeping = spawn(transports.sweeper.run(), name="test sweeper")
    document = SnapshotDoc.model_validate(
        {
            "version": 1,
            "sha256": "",
            "guard": guard or {},
            "workspaces": [
                WorkspaceRules(
                    id="default",
                    endpoints=[primary, *endpoints],
                    routes=[
                        Route(
                            id="chat",
                            endpoint=primary.id,
                            policy_packs=[pack.policy_pack_id for pack in packs],
                            **(route or {}),
                        )
                    ],
                    failover_policies=[failover] if failover else [],
                    policies=list(packs),
                )
            ],
        }
    )
    scripted = {primary.id: ScriptedUpstream(*scripts)}
    rules = build_rules(
        document, build_guards(document), _Upstreams(scripted, transports), resolved
    )
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
    try:
        yield OutsideWorld(
            gateway,
            FakeClock(),
            notes,
            scripted,
            transports=transports,
            rules=rules,
        )
    finally:
        sweeping.cancel()
        await transports.close()
        await asyncio.sleep(0)
