"""Units of the intake: keys, times, changes, pointers, pages — without a socket."""

import statistics
import time

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proxy.control.auth import verify
from proxy.control.config import ADMIN, ControlConfig
from proxy.control.incoming import Reader
from proxy.control.intake import EventIntake
from proxy.control.validation import CODES, errors_of
from proxy.control.wire import Order, arranged, read_sort
from proxy.model.batch import Cursor, StoreConflict
from proxy.model.events import NewEvent
from proxy.model.exchange import Json
from proxy.model.failover import FailoverPolicy
from proxy.telemetry.exposition import Registry
from proxy.wire import jsonbody
from tests.control.world import ADMIN_KEY, CHANGE, SECRET, WORKSPACES
from tests.kit.fakes import CountingIds, FakeClock
from tests.kit.store import MemoryStore

CONFIG = ControlConfig.of(WORKSPACES, ADMIN_KEY, "http://control.test")
NOW_MS = FakeClock().now_ms()

# fmt: off
CREDENTIALS = [
    (ADMIN_KEY,                          "admin"),
    (ADMIN_KEY + "x",                    None),
    (f"ppt_viewer000000_{SECRET}",       "viewer000000"),
    (f"ppt_viewer000000_{SECRET}x",      None),
    (f"ppt_viewer000000_{SECRET[:-1]}",  None),
    (f"ppt_expired00000_{SECRET}",       None),
    (f"ppt_nobody000000_{SECRET}",       None),
    (f"PPT_viewer000000_{SECRET}",       None),
    (f"ppt_viewer000000_{SECRET}\n",     None),
    ("ppt__",                            None),
    ("",                                 None),
    ("\udcff",                           None),
]
# fmt: on


@pytest.mark.parametrize(("credential", "owner"), CREDENTIALS)
def test_t_sec_01_whose_key_it_is(credential: str, owner: str | None) -> None:
    found = verify(CONFIG, credential, NOW_MS)
    assert (found.key_id if found else None) == owner


def test_t_sec_02_an_unknown_id_takes_as_long_as_a_wrong_secret() -> None:
    unknown, wrong = f"ppt_nobody000000_{SECRET}", f"ppt_viewer000000_{'t' * 40}"

    def elapsed_ns(credential: str) -> int:
        started = time.perf_counter_ns()
        verify(CONFIG, credential, NOW_MS)
        return time.perf_counter_ns() - started

    def difference() -> float:
        pairs = [(elapsed_ns(unknown), elapsed_ns(wrong)) for _ in range(5000)]
        one, other = (statistics.median(times) for times in zip(*pairs, strict=True))
        return abs(one - other) / one

    assert min(difference() for _ in range(3)) < 0.05  # the least: this machine is shared


def test_without_an_admin_key_nobody_is_admin() -> None:
    config = ControlConfig.of(WORKSPACES, None, "http://x")
    assert verify(config, "no key has this digest", NOW_MS) is None
    assert verify(CONFIG, ADMIN_KEY, NOW_MS) == ADMIN


def test_an_expiry_or_network_that_cannot_be_read_closes_the_key() -> None:
    key = (
        WORKSPACES[0]
        .keys[0]
        .model_copy(update={"expires_at": "soon", "allowed_cidrs": ["nonsense"]})
    )
    config = ControlConfig.of([WORKSPACES[0].model_copy(update={"keys": [key]})], None, "http://x")
    assert verify(config, f"ppt_{key.id}_{SECRET}", NOW_MS) is None
    assert not config.keys[key.id].principal.admits("10.0.0.1")


# --- errors


def test_t_err_02_pointers_resolve_whatever_the_union() -> None:
    body: Json = {
        "route_id": "R!", "primary_endpoint": "a", "fallback_endpoints": ["b", {"id": 3}],
        "conditions": {"error_rate_threshold": 2, "window_seconds": "x"}, "tipo": 1,
    }  # fmt: skip
    with pytest.raises(ValidationError) as caught:
        FailoverPolicy.model_validate(body)
    told = [
        (e.pointer, e.code, (e.extra or {}).get("limit")) for e in errors_of(caught.value, body)
    ]
    assert told == [
        ("#/route_id", "pattern", None),
        ("#/fallback_endpoints/1", "wrong_type", None),
        ("#/conditions/error_rate_threshold", "less_than_equal", 1.0),
        ("#/conditions/window_seconds", "wrong_type", None),
        ("#/tipo", "extra_forbidden", None),
    ]


class _Odd(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str | list[str] = Field("", max_length=3)


def test_no_value_is_echoed_and_every_code_is_ours() -> None:
    secret = "sk-very-secret-value"
    with pytest.raises(ValidationError) as caught:
        _Odd.model_validate({"name": {"a/b~c": secret}, "x~/y": secret})
    errors = list(errors_of(caught.value, {"name": {"a/b~c": secret}, "x~/y": secret}))
    assert secret not in str([error.doc() for error in errors])
    assert {error.code for error in errors} <= {code.code for code in CODES.values()}
    assert errors[-1].pointer == "#/x~0~1y"


# --- order


# fmt: off
ROWS: list[dict[str, Json]] = [
    {"id": "c", "severity": "high", "n": 1}, {"id": "a", "severity": "low", "n": None},
    {"id": "b", "severity": "high", "n": 2}, {"id": "d", "severity": "info", "n": None},
]
ORDERS = [
    ("severity:asc",         "dabc"),
    ("severity:desc",        "bcad"),
    ("severity:desc,n:desc", "bcad"),
    ("n:asc",                "cbad"),
    ("n:desc",               "bcad"),
    ("n",                    "cbad"),
]
# fmt: on


@pytest.mark.parametrize(("sort", "ids"), ORDERS)
def test_t_pg_06_severity_by_rank_nulls_last_ties_by_id(sort: str, ids: str) -> None:
    orders = read_sort(sort, ("severity", "n"), Order("id", False))
    found = arranged(ROWS, orders, lambda row, name: row.get(name))
    assert "".join(str(row["id"]) for row in found) == ids


# --- the one way in


async def test_the_spool_uses_the_same_door() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    registry = Registry("1")
    intake = EventIntake(store, clock, CountingIds(), registry)
    event = NewEvent(
        {"event_id": "e1", "type": "runtime.request.completed", "route_id": "r",
         "timestamp": "2024-03-15T14:30:00Z", "payload": {"model": "m", "outcome": "success"}},
        clock.now_ms(),
    )  # fmt: skip
    bell = intake.bell("default")
    moved = Cursor("spool/n/0/plain", 0, 10)
    outcomes = await intake.accept("default", [event], source="proxy/n/0", also=(moved,))
    assert [outcome.status for outcome in outcomes] == ["accepted"]
    assert bell.is_set()
    assert await store.cursor("default", "spool/n/0/plain") == 10
    with pytest.raises(StoreConflict):
        await intake.accept("default", [event], source="proxy/n/0", also=(moved,))
    assert await store.head("default", "events") == 1
    assert b'events_ingested_total{source="proxy",result="accepted"} 1' in registry.render()
    assert repr(intake) == "<EventIntake 0 workspaces waited for>"


@pytest.mark.parametrize("user", ["u-1", None, 5])
@pytest.mark.parametrize("flat", [True, False])
def test_a_change_hides_its_user_too(user: Json, flat: bool) -> None:
    reader = Reader("change", "default", frozenset(), b"k" * 32, 1_710_513_000_000)
    item: dict[str, Json] = {**CHANGE, **({"user_id": user} if flat else {})}
    if not flat:
        item["payload"] = {"user_id": user}
    found = reader.read(0, item, ())
    assert found.event is not None
    told = jsonbody.dumps(found.event.body)
    assert b"u-1" not in told
    assert (b"user_id_hash" in told) == isinstance(user, str)
    assert b'"user_id"' not in told
