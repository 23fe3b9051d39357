"""The control API over a store in memory."""

from collections.abc import AsyncIterator

import pytest

from tests.control.world import World, running


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running() as found:
        yield found
