"""T-FO-32: what the official SDKs raise when every endpoint of a policy has failed, and that they
do not ask again, though they would for such a status."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import anthropic
import openai
import pytest
import pytest_asyncio

from tests.kit.processes import Parapet, endpoint, running, workspace
from tests.kit.provider import FakeProvider
from tests.kit.replies import html, reset, silence, status
from tests.kit.reply import Reply

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]

HELLO = [{"role": "user", "content": "hello"}]
LONG = "prompt is too long: 9 tokens"


@dataclass
class Row:
    """What the primary and its fallback do, and what each SDK makes of it: class and status."""

    name: str
    primary: Reply
    spare: Reply
    openai: tuple[type[openai.APIStatusError], int]
    anthropic: tuple[type[anthropic.APIStatusError], int]
    retry_after: str | None = None


AI, CLAUDE = openai, anthropic
# fmt: off
ROWS = [
    Row("5xx", status(500), status(500),
        (AI.InternalServerError, 502), (CLAUDE.InternalServerError, 500)),
    Row("overloaded", status(503), status(529),
        (AI.InternalServerError, 503), (CLAUDE.OverloadedError, 529)),
    Row("limited", status(429, retry_after="60"), status(429, retry_after="30"),
        (AI.RateLimitError, 429), (CLAUDE.RateLimitError, 429), "30"),
    Row("limited-then-5xx", status(429, retry_after="60"), status(500),
        (AI.InternalServerError, 502), (CLAUDE.InternalServerError, 500)),
    Row("auth", status(401), status(403),
        (AI.InternalServerError, 502), (CLAUDE.InternalServerError, 500)),
    Row("5xx-then-auth", html(502), status(401),
        (AI.InternalServerError, 502), (CLAUDE.InternalServerError, 500)),
    Row("silent", silence(), silence(),
        (AI.InternalServerError, 504), (CLAUDE.DeadlineExceededError, 504)),
    Row("reset", reset(), reset(),
        (AI.InternalServerError, 502), (CLAUDE.InternalServerError, 500)),
    Row("callers-fault", status(400, "invalid_request_error"), status(500),
        (AI.BadRequestError, 400), (CLAUDE.BadRequestError, 400)),
    Row("too-long", status(400, "invalid_request_error", message=LONG), status(500),
        (AI.BadRequestError, 400), (CLAUDE.BadRequestError, 400)),
    Row("5xx-then-callers-fault", status(500), status(422),
        (AI.UnprocessableEntityError, 422), (CLAUDE.UnprocessableEntityError, 422)),
]
# fmt: on
NAMES = [row.name for row in ROWS]


@dataclass
class Stage:
    primary: FakeProvider
    spare: FakeProvider
    parapet: Parapet

    def set(self, row: Row) -> None:
        self.primary.play(row.primary)
        self.spare.play(row.spare)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One route and one policy for each row, so that no breaker of one row is seen by another."""
    async with FakeProvider() as primary, FakeProvider() as spare:
        endpoints, routes, policies = [], [], []
        for number, name in enumerate(["down", *NAMES]):
            for sdk, provider, path in (("ai", "openai", "/v1"), ("claude", "anthropic", "")):
                route = f"{sdk}-{name}"
                for side, upstream in (("first", primary), ("second", spare)):
                    url = upstream.url + path
                    endpoints.append(endpoint(f"{route}-{side}", provider, url))
                routes.append(
                    {"id": route, "endpoint": f"{route}-first", "match": {"models": [route]},
                     "timeouts": {"unary_ms": 300}}
                )  # fmt: skip
                policies.append(
                    {"id": f"fo-{sdk}-{number}", "route_id": route,
                     "primary_endpoint": f"{route}-first",
                     "fallback_endpoints": [f"{route}-second"],
                     "conditions": {"error_rate_threshold": 0.5, "consecutive_failures": 1},
                     "request_failover": {"same_endpoint_retries": 0}}
                )  # fmt: skip
        config = workspace(endpoints, routes, *policies)
        async with running(config, tmp_path_factory.mktemp("parapet")) as parapet:
            yield Stage(primary, spare, parapet)


class Counted:
    """How many requests an SDK has sent, by the hooks of its HTTP client."""

    def __init__(self) -> None:
        self.requests = 0
        self.hooks = {"request": [self._count]}

    async def _count(self, _request: object) -> None:
        self.requests += 1


async def by_openai(stage: Stage, route: str, counted: Counted) -> object:
    async with openai.AsyncOpenAI(
        base_url=f"{stage.parapet.url}/v1", api_key="k", max_retries=2,
        http_client=openai.DefaultAsyncHttpxClient(event_hooks=counted.hooks),
    ) as client:  # fmt: skip
        return await client.chat.completions.create(model=route, messages=HELLO)


async def by_anthropic(stage: Stage, route: str, counted: Counted) -> object:
    async with anthropic.AsyncAnthropic(
        base_url=stage.parapet.url, api_key="k", max_retries=2,
        http_client=anthropic.DefaultAsyncHttpxClient(event_hooks=counted.hooks),
    ) as client:  # fmt: skip
        return await client.messages.create(model=route, messages=HELLO, max_tokens=9)


async def raised(
    ask: Callable[[Stage, str, Counted], Awaitable[object]], stage: Stage, route: str
) -> openai.APIStatusError | anthropic.APIStatusError:
    """What the SDK raises, after one request."""
    counted = Counted()
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as caught:
        await ask(stage, route, counted)
    assert counted.requests == 1
    return caught.value


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
@pytest.mark.parametrize("sdk", ["ai", "claude"])
async def test_t_fo_32_the_right_class_and_one_request(stage: Stage, row: Row, sdk: str) -> None:
    stage.set(row)
    ask, (kind, code) = (by_openai, row.openai) if sdk == "ai" else (by_anthropic, row.anthropic)
    fault = await raised(ask, stage, f"{sdk}-{row.name}")
    assert (type(fault), fault.status_code) == (kind, code)
    assert fault.response.headers["x-should-retry"] == "false"
    assert fault.response.headers.get("retry-after") == row.retry_after


@pytest.mark.parametrize(
    ("sdk", "ask", "kind", "code"),
    [
        ("ai", by_openai, openai.InternalServerError, 503),
        ("claude", by_anthropic, anthropic.OverloadedError, 529),
    ],
)
async def test_t_fo_32_nobody_admits(
    stage: Stage,
    sdk: str,
    ask: Callable[[Stage, str, Counted], Awaitable[object]],
    kind: type[Exception],
    code: int,
) -> None:
    stage.primary.play(status(500))
    stage.spare.play(status(500))
    await raised(ask, stage, f"{sdk}-down")
    seen = len(stage.primary.journal) + len(stage.spare.journal)
    fault = await raised(ask, stage, f"{sdk}-down")
    assert (type(fault), fault.status_code) == (kind, code)
    assert 1 <= int(fault.response.headers["retry-after"]) <= 6
    assert len(stage.primary.journal) + len(stage.spare.journal) == seen
