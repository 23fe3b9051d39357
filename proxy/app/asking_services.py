"""What services outside say of the texts of a replay, asked as the data path asks them.

The same calls, addresses, credentials, timeouts and breakers; a text that a pack's own rules block
is sent nowhere.  Nothing is kept when it is over.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from proxy.gateway.asking import Asking
from proxy.gateway.checks import Check, Checks, Reachable, Resolve, build_checks
from proxy.gateway.opinions import Opinions
from proxy.gateway.turn import UnderWay
from proxy.guardrails.checks.external.words import Asker, Opinion, Question
from proxy.guardrails.engine import Guard
from proxy.guardrails.external import ExternalRule
from proxy.guardrails.matching import Break
from proxy.guardrails.replay import Heard, Sample, judged_alone
from proxy.model.exchange import Leaf
from proxy.model.ports import Clock, Observe, Upstream
from proxy.model.tenancy import Endpoint
from proxy.runtime.clock import SystemClock
from proxy.runtime.tasks import spawn
from proxy.settings.schema import Workspace
from proxy.upstream.transports import Transports
from proxy.wire.providers.adapter import Adapter
from proxy.wire.providers.registry import adapter_of

ROUTE: str = "replay"  # the route that services are told
Said = tuple[ExternalRule, Leaf, Opinion | Break]


def _nobody(_: object) -> None:
    """Nothing is counted."""


@dataclass(slots=True)
class _Desk:
    clock: Clock
    observe: Observe = _nobody
    opinions: Opinions = field(default_factory=Opinions)
    answers: set[UnderWay] = field(default_factory=set)


@dataclass(slots=True)
class _Endpoint:
    doc: Endpoint
    adapter: Adapter
    upstream: Upstream


def ask_services(
    workspace: Workspace,
    resolve: Resolve,
    guards: tuple[Guard, Guard],
    samples: Sequence[Sample],
) -> tuple[Heard, Heard]:
    """What they say for each of the guards.  Raises ValueError for a rule that names an endpoint
    that is not there."""
    return asyncio.run(_ask(workspace, resolve, guards, samples))


async def _ask(
    workspace: Workspace,
    resolve: Resolve,
    guards: tuple[Guard, Guard],
    samples: Sequence[Sample],
) -> tuple[Heard, Heard]:
    desk = _Desk(SystemClock())
    transports = Transports(desk.clock, desk.observe)
    sweeping = spawn(transports.sweeper.run(), name="sweeper of a replay")
    try:
        endpoints: dict[str, Reachable] = {}
        wanted = {rule.config.endpoint for guard in guards for rule in guard.outside}
        for each in workspace.endpoints:
            if each.id in wanted:
                upstream = transports.of(workspace.id, each)
                endpoints[each.id] = _Endpoint(each, adapter_of(each, resolve), upstream)
        heard = []
        for guard in guards:
            checks = build_checks(guard, workspace.id, endpoints, transports, resolve)
            heard.append(await _heard(guard, checks, samples, desk))
        return heard[0], heard[1]
    finally:
        sweeping.cancel()
        await transports.close()


async def _heard(
    guard: Guard, checks: Checks | None, samples: Sequence[Sample], desk: _Desk
) -> Heard:
    found: dict[int, Sequence[Said]] = {}
    for place, sample in enumerate(samples):
        every = _checks_of(checks, sample) if checks is not None else []
        if not every:
            continue
        judged = judged_alone(guard, sample.leaves, sample.text, sample.direction, sample.part)
        if judged.block is None:
            said = [await _said(check, sample, desk) for check in every]
            found[place] = [each for answers in said for each in answers]
    return found


def _checks_of(checks: Checks, sample: Sample) -> list[Check]:
    if sample.direction == "request":
        return [*checks.preflight, *checks.parallel, *checks.aside]
    return [*checks.holding, *checks.post]


async def _said(check: Check, sample: Sample, desk: _Desk) -> list[Said]:
    covers = check.rule.reach.covers
    leaves = [
        leaf
        for leaf in sample.leaves
        if covers(sample.direction, leaf.part, leaf.role, leaf.latest) and leaf.text.strip()
    ]
    asked = [Question(leaf.text, sample.direction, leaf.part, leaf.role, "") for leaf in leaves]
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asking = Asking(check, asked, Asker(ROUTE, sample.id), desk, lambda _: over.set_result(None))
    asking.start()
    try:
        await over
    finally:
        asking.cancel()
    return [
        (check.rule, leaf, answer if answer is not None else Break("cancelled"))
        for leaf, answer in zip(leaves, asking.answers, strict=True)
    ]
