"""What nodes tell each other of holds, on a real server (failover.md §7.2, §11)."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from proxy.model.batch import StoreUnavailable
from proxy.runtime.clock import SystemClock
from proxy.storage.redis.client import new_client
from proxy.storage.redis.holds import LONGEST_MS, MOST, Answer, HeardHold, RedisHolds, SaidHold
from proxy.storage.redis.server import Server
from tests.kit.redis import RedisServer, silent

pytestmark = pytest.mark.redis

KEY = "parapet:{default}:fo:holds"
W = "default"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("holds") / "redis") as running:
        yield running


@pytest.fixture
async def holds(redis: RedisServer) -> AsyncIterator[RedisHolds]:
    redis.command("FLUSHALL")
    server = Server(new_client(redis.url), SystemClock(), silent)
    await asyncio.to_thread(server.load_scripts)
    try:
        yield RedisHolds(server, "one")
    finally:
        await server.close()


async def say(holds: RedisHolds, *said: SaidHold, workspace_id: str = W) -> Answer:
    return (await holds.exchange({workspace_id: said}))[workspace_id]


OVER = None  # somebody was answered
HOUR = LONGEST_MS

# fmt: off
SAYINGS: list[tuple[str, list[int | None], list[int], int, bool]] = [
    # what                                        said in turn, ms      news       left ms over
    ("a first no",                                [20_000],             [1],       20_000,  False),
    ("the same again",                            [20_000, 20_000],     [1, 0],    20_000,  False),
    ("a later, shorter one never shortens",       [20_000, 2_000],      [1, 0],    20_000,  False),
    ("a later end is the end",                    [2_000, 20_000],      [1, 0],    20_000,  False),
    ("answered before anybody may ask",           [20_000, OVER],       [1, 0],    20_000,  False),
    ("over, and nobody knew",                     [OVER],               [1],       0,       True),
    ("over twice",                                [OVER, OVER],         [1, 0],    0,       True),
    ("over, and refused again",                   [OVER, 5_000],        [1, 2],    5_000,   False),
    ("over, and the rest of an old one",          [OVER, 40],           [1, 0],    0,       True),
    ("longer than any hold",                      [10**12],             [1],       HOUR,    False),
]
# fmt: on


@pytest.mark.parametrize(("what", "said", "news", "left_ms", "over"), SAYINGS)
async def test_whose_word_counts(
    holds: RedisHolds,
    what: str,
    said: list[int | None],
    news: list[int],
    left_ms: int,
    over: bool,
) -> None:
    answers = [await say(holds, SaidHold("h|a|m", left, b"{}")) for left in said]
    assert [news for answer in answers for news in answer.news] == news
    (heard,) = answers[-1].heard
    assert (heard.name, heard.over) == ("h|a|m", over)
    assert heard.left_ms == pytest.approx(left_ms, abs=100)


async def test_a_hold_whose_time_is_over_ends_for_all_when_it_does_for_one(
    holds: RedisHolds,
) -> None:
    await say(holds, SaidHold("h|a|m", 60))
    await asyncio.sleep(0.1)
    assert (await say(holds)).heard == [HeardHold("h|a|m", 0, False, b"")]
    assert (await say(holds, SaidHold("h|a|m", None))).news == [1]
    assert (await say(holds)).heard == [HeardHold("h|a|m", 0, True, b"")]


async def test_workspaces_share_nothing(holds: RedisHolds) -> None:
    await say(holds, SaidHold("h|a|m", 5_000))
    assert (await say(holds, workspace_id="other")).heard == []
    both = await holds.exchange({W: [], "other": [SaidHold("h|b|m", 5_000)]})
    assert [[each.name for each in both[name].heard] for name in both] == [["h|a|m"], ["h|b|m"]]


async def test_as_many_as_are_kept(holds: RedisHolds, redis: RedisServer) -> None:
    many = [SaidHold(f"h|a|m{number}", 5_000) for number in range(MOST + 20)]
    answer = await say(holds, *many)
    assert len(answer.heard) == MOST
    assert set(answer.news) == {1}  # who met it tells it, kept or not
    assert redis.command("HLEN", KEY) == b":%d\r\n" % MOST
    left_ms = int(redis.command("PTTL", KEY).strip(b":\r\n"))
    assert LONGEST_MS - 1000 < left_ms <= LONGEST_MS + 60_000


# fmt: off
GARBLED = [
    "", "nonsense", "|0|{}", "12|2|{}", "-5|0|{}", "1|0|{}", "9" * 25 + "|0|{}", "1e400|0|{}",
]
# fmt: on


@pytest.mark.parametrize("garbled", GARBLED)
async def test_what_is_no_hold_is_thrown_away(
    holds: RedisHolds, redis: RedisServer, garbled: str
) -> None:
    redis.command("HSET", KEY, "h|a|m", garbled)
    redis.command("HSET", KEY, "\x7f", "nobody knows what")
    assert (await say(holds, SaidHold("h|b|m", 5_000))).news == [1]
    assert [each.name for each in (await say(holds)).heard] == ["h|b|m"]
    assert redis.command("HLEN", KEY) == b":1\r\n"


async def test_a_server_that_forgot_its_scripts_is_told_them_again(
    holds: RedisHolds, redis: RedisServer
) -> None:
    await say(holds, SaidHold("h|a|m", 5_000))
    redis.command("SCRIPT", "FLUSH")
    assert len((await say(holds)).heard) == 1


async def test_without_a_server_nobody_waits(holds: RedisHolds, redis: RedisServer) -> None:
    redis.command("CLIENT", "PAUSE", "400", "ALL")
    began = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable):
        await say(holds)
    assert asyncio.get_running_loop().time() - began < 0.35
    await asyncio.sleep(0.5)
