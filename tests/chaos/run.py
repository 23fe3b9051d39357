"""Plays rows: many at once, each in lanes of its own; those that need the machine alone, after."""

import asyncio
import os
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from tests.chaos.dialects import BY_NAME, Dialect
from tests.chaos.own import OWN
from tests.chaos.play import played, worse
from tests.chaos.profile import Profile
from tests.chaos.reliability import RELIABILITY
from tests.chaos.rows import Result, Row
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.stage import Stage, staged

ROWS: Sequence[Row] = (*SCENARIOS, *OWN, *RELIABILITY)
QUIET = "quiet"
CALM_S = 0.03
CALM_WITHIN_S = 1.0
IDLE_CPU = 0.2
IDLE_OVER_S = 2.0
Pair = tuple[Row, Dialect]
Tell = Callable[[Result], None]


def pairs(only: Sequence[str] = (), rows: Sequence[Row] = ROWS) -> list[Pair]:
    """Every row in each of its dialects, or those that are named: `S08` is all of its variants in
    all dialects, `S08-guard-messages` one of them."""
    found = [(row, BY_NAME[name]) for row in rows for name in row.dialects]
    return [pair for pair in found if not only or any(_named(pair, each) for each in only)]


def _named(pair: Pair, name: str) -> bool:
    parts = {*pair[0].id.split("-"), pair[1].name}
    return set(name.split("-")) <= parts


async def run(
    chosen: Sequence[Pair], profile: Profile, *, tell: Tell, workers: int = 1, tries: int = 1,
    keep: Path | None = None,
) -> list[Result]:  # fmt: skip
    """The results in the order of the table.

    `tries`: rows that fell short are played so often in all, each time at a Parapet of their own,
    with fewer beside them: on a busy machine a bar of milliseconds is missed now and then.  `keep`:
    where state and logs stay behind.
    """
    found: dict[Pair, Result] = {}
    left, quiet = list(chosen), list[Result]()
    for count in range(1, tries + 1):
        async with (
            _place(keep, count) as place,
            staged(left, profile, place, workers=workers) as stage,
        ):
            for pair, result in (await _all(stage, left, tell)).items():
                found[pair] = replace(result, tries=count)
            quiet = [await _quiet(stage, tell)]
        left = [pair for pair in left if found[pair].level != "pass"]
        if not left:
            break
    return [*(found[pair] for pair in chosen), *quiet]


async def _all(stage: Stage, chosen: Sequence[Pair], tell: Tell) -> dict[Pair, Result]:
    """Many at once, those that last longest first; then those that want to be alone."""
    together = [pair for pair in chosen if not pair[0].alone]
    together.sort(key=lambda pair: -pair[0].lasts(stage.profile))
    started = []
    async with asyncio.TaskGroup() as group:
        for pair in together:
            await _calm(stage)
            started.append(group.create_task(_one(stage, pair, tell)))
    results = [task.result() for task in started]
    found = dict(zip(together, results, strict=True))
    for pair in chosen:
        if pair[0].alone:
            found[pair] = await _one(stage, pair, tell)
    return found


@asynccontextmanager
async def _place(keep: Path | None, count: int) -> AsyncIterator[Path]:
    if keep is not None:
        yield keep / str(count)
        return
    with tempfile.TemporaryDirectory(prefix="parapet-chaos-") as name:
        yield Path(name)


async def _calm(stage: Stage) -> None:
    """Returns when a healthy call is answered at once again, so that rows do not wait for each
    other; on a machine that is always busy, after a while."""
    until = time.monotonic() + CALM_WITHIN_S
    while time.monotonic() < until:
        await asyncio.sleep(stage.profile.start_every_s)
        began = time.monotonic()
        await stage.is_alive()
        if time.monotonic() - began < CALM_S:
            return


async def _one(stage: Stage, pair: Pair, tell: Tell) -> Result:
    row, dialect = pair
    try:
        result = await played(stage, row, dialect)
    except Exception as fault:  # noqa: BLE001 - a row that breaks is a row that fails
        where = traceback.extract_tb(fault.__traceback__)[-1]
        why = f"{type(fault).__name__} at {Path(where.filename).name}:{where.lineno}: {fault}"
        result = worse(Result(row.id, dialect.name, "fail", "", 0.0), "fail", why)
    tell(result)
    return result


async def _quiet(stage: Stage, tell: Tell) -> Result:
    """When all rows are over nothing spins: the processes use next to no time."""
    pids = [int(each["pid"]) for each in (await stage.parapet.status())["processes"]]
    before = sum(map(_cpu_s, pids))
    await asyncio.sleep(IDLE_OVER_S)
    share = (sum(map(_cpu_s, pids)) - before) / IDLE_OVER_S
    result = Result(QUIET, "", "pass", "", IDLE_OVER_S)
    if share > IDLE_CPU:
        result = worse(result, "fail", f"{share:.0%} of a core when nothing is asked")
    tell(result)
    return result


def _cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
