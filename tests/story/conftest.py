"""What stories share."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.kit.provider import FakeProvider
from tests.kit.replies import ok


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """Answers everything well until it is told otherwise, and takes any request."""
    async with FakeProvider(ok(), strict=False) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[FakeProvider]:
    """Of one module: each story says what it plays."""
    async with FakeProvider() as provider:
        yield provider
