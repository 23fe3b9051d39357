"""The scorecard in its fast profile: all rows are played at once, then each is told by a test."""

import sys

import pytest
import pytest_asyncio

from tests.chaos.profile import FAST
from tests.chaos.rows import Result
from tests.chaos.run import QUIET, pairs, run
from tests.chaos.scorecard import WAITS, due, line

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

CASES = [*(f"{row.id}-{dialect.name}" for row, dialect in pairs()), QUIET]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    found = await run(
        pairs(), FAST, tell=_tell, tries=2, workers=2, keep=tmp_path_factory.mktemp("chaos")
    )
    return {f"{each.row}-{each.dialect}".rstrip("-"): each for each in found}


def _tell(result: Result) -> None:
    sys.stderr.write(line(result) + "\n")


@pytest.mark.parametrize("row", CASES)
async def test_row(results: dict[str, Result], row: str) -> None:
    result = results[row]
    assert (result.level, result.short) == ("pass", ()) or result.row in WAITS
    assert result.level == due(result)
