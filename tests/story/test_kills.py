"""Control is killed again and again, its Redis killed or frozen, while clients ingest and change
things (T-ST-01, T-ST-04, T-IDM-05), over each store.

Clients say everything until they hear that it is done: a lost answer and a 5xx are followed by the
same request with the same key.  The book holds what they heard; in the end the store must hold
exactly that, once, with one row of an unbroken audit for each change.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.kit.httpclient import Answer, request
from tests.kit.processes import Parapet, endpoint, workspace
from tests.kit.redis import RedisServer
from tests.kit.redis_faults import Fault, frozen, killed

pytestmark = pytest.mark.process

W = "/v1/workspaces/default"
RULES, KEYS = W + "/alert-rules", "/v1/keys"
INGEST = ("/v1/ingest/runtime", "/v1/ingest/change")
LOST = (OSError, TimeoutError, asyncio.IncompleteReadError, IndexError)
PLENTY = {"control_read": 100_000, "control_write": 100_000, "ingest": 100_000}


@dataclass(frozen=True)
class Setup:
    """Which store, and what becomes of it in turn with kills of control."""

    store: Literal["sqlite", "redis"]
    fault: Fault | None = None


RARE = (pytest.mark.redis, pytest.mark.exhaustive)
SETUPS = [
    pytest.param(Setup("sqlite"), id="control-over-sqlite"),
    pytest.param(Setup("redis"), id="control-over-redis", marks=RARE),
    pytest.param(Setup("redis", killed), id="redis-killed", marks=RARE),
    pytest.param(Setup("redis", frozen), id="redis-frozen", marks=RARE),
]


@pytest.fixture(params=SETUPS)
def setup(request: pytest.FixtureRequest) -> Setup:
    chosen: Setup = request.param
    return chosen


@pytest.fixture
def server(setup: Setup, tmp_path: Path) -> Iterator[RedisServer | None]:
    """It keeps what it acknowledged."""
    if setup.store == "sqlite":
        yield None
        return
    with RedisServer(tmp_path / "redis", options=("--appendfsync", "always")) as running:
        yield running


@pytest.fixture
async def parapet(server: RedisServer | None, tmp_path: Path) -> AsyncIterator[Parapet]:
    config = workspace(
        [endpoint("main", "openai", "http://127.0.0.1:9/v1")],
        [{"id": "chat", "endpoint": "main"}],
    )
    store = {"store": server.url} if server is not None else {}
    running = Parapet(
        {**config, **store, "control": {"rate_limits": PLENTY}}, tmp_path / "state", single=False
    )
    try:
        yield await running.start()
    finally:
        await running.kill()


@dataclass
class Asked:
    """A request with an Idempotency-Key, and the first answer that was heard."""

    path: str
    body: bytes
    media: str
    key: str
    answer: Answer


@dataclass
class Book:
    """What clients were told is done."""

    events: list[str] = field(default_factory=list)
    rules: dict[str, float] = field(default_factory=dict)  # id -> threshold
    keys: dict[str, str] = field(default_factory=dict)  # id -> status
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)  # (action, id)
    asked: list[Asked] = field(default_factory=list)
    secrets: list[tuple[str, str]] = field(default_factory=list)  # (key id, key), newest last
    retries: int = 0
    unheard: int = 0  # answers that told of an effect whose first answer was lost
    local: int = 0  # events that were kept while the store was away

    @property
    def summary(self) -> str:
        """What was done, for people."""
        return (
            f"{len(self.events)} events, {self.changes.total()} changes, {len(self.asked)} keyed "
            f"requests, {self.retries} retries, {self.unheard} effects whose answer was lost, "
            f"{self.local} events kept while the store was away"
        )


class Client:
    """One that insists."""

    def __init__(self, parapet: Parapet, book: Book, name: str) -> None:
        self.book = book
        self.name = name
        self.chance = random.Random(name)
        self._parapet = parapet
        self._key = parapet.admin_key

    async def insist(
        self, method: str, path: str, body: object = None, key: str = "", lines: bool = False
    ) -> tuple[Answer, bool]:
        """The first answer that is heard whole and settles it; whether it took more than one try"""
        data = b"" if body is None else json.dumps(body).encode()
        if lines and isinstance(body, list):
            data = b"\n".join(json.dumps(each).encode() for each in body)
        media = "application/x-ndjson" if lines else "application/json"
        headers = {"authorization": f"Bearer {self._key}"}
        headers |= {"content-type": media} if data else {}
        headers |= {"idempotency-key": key} if key else {}
        headers |= {"x-parapet-workspace": "default"} if path in INGEST else {}
        for again in itertools.count():
            self.book.retries += again > 0
            try:
                answer = await request(
                    method, self._parapet.control_url + path, data, headers, within_s=20
                )
            except LOST:
                await asyncio.sleep(0.02)
                continue
            if not answer.whole or answer.status >= 500:
                await asyncio.sleep(0.05)
                continue
            if key:
                assert (answer.headers.get("idempotent-replayed") is None) or again, answer.text
                self.book.unheard += "idempotent-replayed" in answer.headers
                self.book.asked.append(Asked(path, data, media, key, answer))
            return answer, again > 0
        raise AssertionError("unreachable")


async def sends_events(client: Client, turn: int) -> None:
    """One, or several in a list or as lines; every other time with a key."""
    book, chance = client.book, client.chance
    key = f"{client.name}-{turn}" if turn % 2 else ""
    change = chance.random() < 0.3
    count = 1 if chance.random() < 0.5 else chance.randint(2, 8)
    ids = [f"evt-{client.name}-{turn}-{n}" for n in range(count)]
    told: dict[str, Any] = {"timestamp": "2024-03-15T14:30:00Z"}
    if change:
        told |= {"provider": "anthropic", "classification": "pricing_change"}
    events = [
        {"event_id": i, **({"change_id": i} if change else {"route_id": "chat"}), **told}
        for i in ids
    ]
    alone = count == 1
    answer, again = await client.insist(
        "POST", INGEST[change], events[0] if alone else events, key,
        lines=not alone and chance.random() < 0.3,
    )  # fmt: skip
    assert answer.status == 202, answer.text
    results = [answer.json] if alone else answer.json["results"]
    assert [each["event_id"] for each in results] == ids
    if not alone:
        counts = [answer.json[name] for name in ("accepted", "duplicates", "rejected")]
        assert (sum(counts), counts[2]) == (count, 0)
        assert counts[1] == sum(each["duplicate"] is True for each in results)
    if key or not again:  # a request that repeats itself under its key is told the same again
        assert [each["status"] for each in results] == ["accepted"] * count
    book.local += sum(each.get("durability") == "local" for each in results)
    book.events += ids
    await asyncio.sleep(chance.random() * 0.03)


async def changes_rules(client: Client, turn: int) -> None:
    """Made with a key or with an id of its own, changed, and sometimes removed."""
    book, chance = client.book, client.chance
    name = f"{client.name}-{turn}"
    condition: dict[str, object] = {"metric": "latency", "threshold_ms": 1000}
    rule: dict[str, object] = {"name": name, "condition": condition}
    if turn % 2:
        answer, _ = await client.insist("POST", RULES, rule, key=name)
        assert answer.status == 201, answer.text
        rule_id = answer.json["id"]
    else:
        rule_id = f"rule-{name}"
        answer, again = await client.insist("POST", RULES, {"id": rule_id, **rule})
        assert answer.status == 201 or (again and answer.status == 409), answer.text
    book.rules[rule_id] = 1000
    book.changes["alert_rule.create", rule_id] += 1
    path = f"{RULES}/{rule_id}"
    for threshold in (2000, 3000):
        if chance.random() < 0.5:
            new = {"condition": {**condition, "threshold_ms": threshold}}
            answer, _ = await client.insist(chance.choice(["PUT", "PATCH"]), path, new)
            assert answer.status == 200, answer.text
            assert answer.json["condition"]["threshold_ms"] == threshold
            book.rules[rule_id] = threshold
            book.changes["alert_rule.update", rule_id] += 1
    if chance.random() < 0.3:
        answer, again = await client.insist("DELETE", path)
        assert answer.status == 204 or (again and answer.status == 404), answer.text
        del book.rules[rule_id]
        book.changes["alert_rule.delete", rule_id] += 1
    await asyncio.sleep(chance.random() * 0.1)


async def changes_keys(client: Client, turn: int) -> None:
    """Made and rotated with a key, and sometimes revoked."""
    book, chance = client.book, client.chance
    name = f"{client.name}-{turn}"
    new = {"name": name, "role": "viewer", "workspaces": ["default"]}
    answer, _ = await client.insist("POST", KEYS, new, key=name)
    assert answer.status == 201, answer.text
    key_id = answer.json["key_id"]
    book.keys[key_id] = "active"
    book.changes["key.create", key_id] += 1
    if chance.random() < 0.5:
        path = f"{KEYS}/{key_id}/rotate"
        answer, _ = await client.insist("POST", path, {"grace_seconds": 60}, key=f"{name}-r")
        assert answer.status == 200, answer.text
        book.changes["key.rotate", key_id] += 1
    if answer.json["key"] != "***":  # the answer that shows it was not lost
        book.secrets.append((key_id, answer.json["key"]))
    if chance.random() < 0.3:
        answer, again = await client.insist("DELETE", f"{KEYS}/{key_id}")
        assert answer.status == 204 or (again and answer.status == 404), answer.text
        book.keys[key_id] = "revoked"
        book.changes["key.revoke", key_id] += 1
    await asyncio.sleep(chance.random() * 0.2)


WORK: list[Callable[[Client, int], Awaitable[None]]] = [
    sends_events, sends_events, sends_events, sends_events, changes_rules, changes_rules,
    changes_keys,
]  # fmt: skip


# --- the killer


def control_pid(parapet: Parapet) -> int | None:
    """Of the control process, whether it answers yet or not."""
    listed = Path(f"/proc/{parapet.pid}/task/{parapet.pid}/children").read_text()
    for pid in map(int, listed.split()):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"_control" in words:
            return pid
    return None


async def break_redis(server: RedisServer, fault: Fault, chance: random.Random) -> None:
    await asyncio.sleep(chance.random())
    broken = fault(server)
    await asyncio.to_thread(broken.__enter__)
    await asyncio.sleep(chance.random() * 1.5)
    await asyncio.to_thread(broken.__exit__, None, None, None)


async def kill_again_and_again(
    parapet: Parapet, server: RedisServer | None, setup: Setup, times: int
) -> None:
    """At random moments; control every fifth time in its start, whenever that is."""
    chance = random.Random(times)
    for number in range(times):
        if server is not None and setup.fault is not None and number % 2 == 0:
            await break_redis(server, setup.fault, chance)
            continue
        if number % 5 == 4:
            await asyncio.sleep(0.1 + chance.random() * 0.6)
        else:
            await parapet.ready(30)
            await asyncio.sleep(chance.random() * 0.5)
        until = time.monotonic() + 30
        while (pid := control_pid(parapet)) is None:
            assert time.monotonic() < until, "no control process"
            await asyncio.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.02)
    await parapet.ready(60)


async def worked_while_killed(
    parapet: Parapet, server: RedisServer | None, setup: Setup, times: int
) -> Book:
    book, over = Book(), asyncio.Event()

    async def work(number: int, job: Callable[[Client, int], Awaitable[None]]) -> None:
        client = Client(parapet, book, f"c{number}")
        for turn in itertools.count():
            if over.is_set():
                return
            await job(client, turn)

    async with asyncio.TaskGroup() as group:
        for number, job in enumerate(WORK):
            group.create_task(work(number, job))
        await kill_again_and_again(parapet, server, setup, times)
        over.set()
    return book


# --- what must hold


async def walked(parapet: Parapet, path: str) -> list[dict[str, Any]]:
    """All entries of a log, by its cursor."""
    found: list[dict[str, Any]] = []
    total, cursor = None, ""
    while True:
        answer = await parapet.control("GET", f"{path}?limit=100{cursor}")
        assert answer.status == 200, answer.text
        found += answer.json["data"]
        total = answer.json["total"] if total is None else total
        if not answer.json.get("next_cursor") or not answer.json["data"]:
            assert total == len(found)
            return found
        cursor = f"&cursor={answer.json['next_cursor']}"


async def listed(parapet: Parapet, path: str) -> list[dict[str, Any]]:
    """All documents of a list, page by page."""
    found: list[dict[str, Any]] = []
    for page in itertools.count(1):
        answer = await parapet.control("GET", f"{path}&limit=100&page={page}")
        found += answer.json["data"]
        if page >= answer.json["total_pages"]:
            assert answer.json["total"] == len(found)
            return found
    raise AssertionError("unreachable")


async def all_is_stored(parapet: Parapet) -> None:
    """The store is there, and nothing waits in the spool."""
    until = time.monotonic() + 30
    while True:
        told = await parapet.status()
        away = told["redis"] is not None and not told["redis"]["up"]
        if not away and not told["spool"]["bytes"]:
            return
        assert time.monotonic() < until, told
        await asyncio.sleep(0.1)


async def the_store_holds_the_book(parapet: Parapet, book: Book) -> None:
    found = await walked(parapet, W + "/events")
    own = [event for event in found if event["type"].startswith("control.")]
    events = Counter(event["event_id"] for event in found if event not in own)
    assert events == Counter(book.events)
    assert max(events.values()) == 1
    # what the process tells by itself: one of each change, in its commit
    resources = [(event["payload"]["resource"], event["payload"]["change"]) for event in own]
    changes = Counter((f"{of['type']}.{change}", of["id"]) for of, change in resources)
    rules_changed = {
        about: times for about, times in book.changes.items() if about[0].startswith("alert_rule.")
    }
    assert changes == rules_changed
    rules = await listed(parapet, RULES + "?status=all")
    held = {rule["id"]: rule["condition"]["threshold_ms"] for rule in rules}
    assert (held, len({rule["name"] for rule in rules})) == (book.rules, len(rules))
    keys = await listed(parapet, KEYS + "?sort=name")
    assert {key["key_id"]: key["status"] for key in keys} == book.keys
    assert len({key["name"] for key in keys}) == len(keys)


async def each_change_has_one_row(parapet: Parapet, book: Book) -> None:
    rows = []
    for place in (W, "/v1"):
        found = await walked(parapet, place + "/audit")
        checked = (await parapet.control("GET", place + "/audit/verify")).json
        assert (checked["ok"], checked["checked"]) == (True, len(found)), checked
        assert [row["seq"] for row in found] == [*range(len(found), 0, -1)]
        rows += found
    told = Counter((row["action"], row["resource"]["id"]) for row in rows)
    assert told == book.changes


async def each_key_is_answered_as_before(parapet: Parapet, asked: list[Asked]) -> None:
    for each in asked:
        headers = {"authorization": f"Bearer {parapet.admin_key}", "content-type": each.media}
        headers |= {"idempotency-key": each.key, "x-parapet-workspace": "default"}
        for _ in range(50):
            again = await request("POST", parapet.control_url + each.path, each.body, headers)
            if again.status != 503 and b'"durability":"local"' not in again.body:
                break  # the store was there
            await asyncio.sleep(0.2)
        assert (again.status, again.headers.get("idempotent-replayed")) == (
            each.answer.status, "true",
        ), again.text  # fmt: skip
        for name in ("location", "etag"):
            if each.path not in INGEST and not each.path.endswith("/rotate"):
                assert again.headers[name] == each.answer.headers[name]
        before = each.answer.json
        if "durability" in each.answer.text:  # then its number was not known yet
            assert told_of(again.json) == told_of(before)
            continue
        if before.get("key", "***") != "***":  # shown once
            assert again.json["warnings"][-1]["code"] == "secret_shown_once"
            before = {**before, "key": "***", "warnings": again.json["warnings"]}
        assert again.json == before


def told_of(answer: Any) -> list[tuple[str, str]]:
    """What became of each event."""
    return [(each["event_id"], each["status"]) for each in answer.get("results", [answer])]


async def shown_keys_open_what_they_should(parapet: Parapet, book: Book) -> None:
    for key_id, key in book.secrets:
        headers = {"authorization": f"Bearer {key}"}
        answer = await request("GET", parapet.control_url + RULES, headers=headers)
        wanted = 200 if book.keys[key_id] == "active" else 401
        if wanted == 200 or answer.status != 429:  # many bad keys are held back
            assert answer.status == wanted, (key_id, answer.text)


async def told_is_stored(
    parapet: Parapet, server: RedisServer | None, setup: Setup, times: int
) -> Book:
    book = await worked_while_killed(parapet, server, setup, times)
    await all_is_stored(parapet)
    await the_store_holds_the_book(parapet, book)
    await each_change_has_one_row(parapet, book)
    chosen = random.Random(times).sample(book.asked, min(len(book.asked), 40 * times))
    await each_key_is_answered_as_before(parapet, chosen)
    await shown_keys_open_what_they_should(parapet, book)
    await the_store_holds_the_book(parapet, book)  # repeating changed nothing
    await each_change_has_one_row(parapet, book)
    return book


async def test_t_st_01_ten_kills(
    parapet: Parapet, server: RedisServer | None, setup: Setup
) -> None:
    book = await told_is_stored(parapet, server, setup, 10)
    assert book.retries >= 3  # kills were felt; not each one meets a call under way
    assert len(book.events) > 100
    assert (book.local > 0) == (setup.fault is not None)
    print(book.summary)  # noqa: T201


@pytest.mark.long
async def test_t_st_01_a_hundred_kills(
    parapet: Parapet, server: RedisServer | None, setup: Setup
) -> None:
    book = await told_is_stored(parapet, server, setup, 100)
    assert book.retries >= 100
    assert book.unheard > 0
    assert len(book.events) > 2000
    print(book.summary)  # noqa: T201
