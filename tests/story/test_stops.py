"""A stop that comes before anybody is served."""

import asyncio
from pathlib import Path

import pytest

from tests.kit.processes import Parapet, workspace

pytestmark = pytest.mark.process


async def test_a_worker_without_rules_stops_when_it_is_told(tmp_path: Path) -> None:
    parapet = Parapet(workspace([], []), tmp_path, single=False)
    (tmp_path / "parapet.db").mkdir()  # no store opens there, so no rules ever come
    try:
        await parapet.start(ready=False)
        until = asyncio.get_running_loop().time() + 60
        while '"process.ended"' not in parapet.log:
            assert asyncio.get_running_loop().time() < until, parapet.log
            await asyncio.sleep(0.1)
        assert await parapet.stop() == 0
    finally:
        await parapet.kill()
