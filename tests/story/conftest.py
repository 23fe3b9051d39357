"""What stories share."""

from collections.abc import AsyncIterator

import pytest

from tests.kit.provider import FakeProvider
from tests.kit.replies import ok


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """Answers everything well until it is told otherwise, and takes any request."""
    async with FakeProvider(ok(), strict=False) as running:
        yield running
