"""If-Match and If-None-Match as RFC 9110 writes them."""

import pytest

from tests.control.world import ADMIN, World

RULES = "/v1/workspaces/default/alert-rules"
RULE = {"name": "High Latency", "condition": {"metric": "latency", "threshold_ms": 3000}}

# fmt: off
MATCHES = [
    ("*",                         200),
    ('"r1"',                      200),
    ('"r0", "r1"',                200),
    ('"a,b","r1"',                200),  # a comma may stand in a tag
    (' "r1" ',                    200),
    ('"r0"',                      412),
    ('"r1,r1"',                   412),
    ('W/"r1"',                    412),  # a weak tag does not match
    ("r1",                        400),
    ('"r1" "r0"',                 400),
    ('"r1',                       400),
    ('"r1",*',                    400),
    (',"r1"',                     400),
]
# fmt: on


# fmt: off
MALFORMED = [
    ("GET",  "/v1/status"),
    ("GET",  "/openapi.json"),
    ("GET",  RULES),
    ("POST", RULES),
    ("PUT",  RULES + "/none"),  # before the 404
]
# fmt: on


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize(("method", "path"), MALFORMED)
async def test_a_malformed_one_is_told_whether_it_counts_or_not(
    world: World, method: str, path: str, name: str
) -> None:
    body = None if method == "GET" else RULE
    answer = await world.call(method, path, body, {**ADMIN, name: "r1"})
    assert (answer.status, answer.slug) == (400, "invalid-header")


@pytest.mark.parametrize(("header", "status"), MATCHES)
async def test_if_match(world: World, header: str, status: int) -> None:
    made = await world.post(RULES, RULE)
    path = made.headers["Location"]
    answer = await world.call("PUT", path, {"severity": "high"}, {**ADMIN, "If-Match": header})
    assert answer.status == status
