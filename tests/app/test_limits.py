"""A day's cost is counted with the events, and known again by whoever begins anew."""

from pathlib import Path

from proxy.app.limits import LimitsOfNode, LimitsOfWorker, moment_of
from proxy.model.batch import Batch, Count
from proxy.model.tenancy import ApiKey, Limits, Route, SnapshotDoc, WorkspaceRules
from proxy.routing.limits import Hold, Limiter, Name
from proxy.storage.sqlite.engine import SqliteStore
from tests.kit.store import HandClock

BUDGET = Limits(daily_cost_usd=1)
ROUTE: Name = ("route", "default", "chat")
KEY: Name = ("key", "", "team")


def rules() -> SnapshotDoc:
    team = ApiKey(id="team", secret_sha256="0" * 64, workspaces=["*"], limits=BUDGET)
    routes = [Route(id="chat", endpoint="e", limits=BUDGET), Route(id="free", endpoint="e")]
    return SnapshotDoc(
        version=1,
        sha256="",
        workspaces=[
            WorkspaceRules(id="default", routes=routes, keys=[team]),
            WorkspaceRules(id="other", routes=routes[1:]),
        ],
    )


async def test_what_was_spent_is_known_after_a_restart(tmp_path: Path) -> None:
    clock = HandClock()
    store = SqliteStore(tmp_path / "parapet.db", clock)
    await store.start()
    try:
        node = LimitsOfNode(store, clock, lambda: 1)
        node.keep(rules())
        now_ms = clock.now_ms()
        for number, (workspace_id, route_id, nano) in enumerate(
            [("default", "chat", 400_000_000), ("default", "chat", 100), ("other", "free", 70)]
        ):
            spent = [(route_id, "team", now_ms, nano)]
            ops = tuple(node.counts(workspace_id, spent))
            await store.commit(workspace_id, Batch(f"cm-{number}", ops))

        again = LimitsOfNode(store, clock, lambda: 1)
        again.keep(rules())
        limiter = Limiter()
        worker = LimitsOfWorker(limiter, "run", clock)
        moment = moment_of(clock)
        assert isinstance(limiter.claim([(KEY, BUDGET), (ROUTE, BUDGET)], moment, 0, 0), Hold)
        said = worker._meters.report(moment)
        assert said is not None
        again.take(0, said)
        await again.look()
        worker.take(again.take(0, said))
        known = {name: limiter.known(name) for name in (KEY, ROUTE)}
        assert {name: meter.others_nano for name, meter in known.items() if meter} == {
            KEY: 400_000_170,
            ROUTE: 400_000_100,
        }
    finally:
        await store.close()


def test_only_what_has_a_budget_is_counted() -> None:
    node = LimitsOfNode(None, HandClock(), lambda: 1)  # type: ignore[arg-type]
    node.keep(rules())
    spent = [
        ("free", None, 86_400_000, 5),
        ("free", "team", 86_400_000, 5),
        ("chat", None, 86_400_000, 7),
        ("chat", "team", 86_399_999, 11),
        ("chat", "team", 86_400_000, 0),
    ]
    assert list(node.counts("default", spent)) == [
        Count(1440, "spent/key/team", {0: 5}),
        Count(1440, "spent/route/chat", {0: 7}),
        Count(0, "spent/route/chat", {0: 11}),
        Count(0, "spent/key/team", {0: 11}),
    ]
