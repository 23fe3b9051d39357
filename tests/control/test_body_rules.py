"""What every body must be, on every operation that takes one (control-api.md §1, §10)."""

import io
import json
from typing import Any

import pytest

from proxy.control.body import GUNZIPPED_BYTES, BodyPace, gunzip
from proxy.control.frame import Operation
from proxy.control.listener import ListenerLimits
from proxy.control.problems import Problem
from proxy.control.routes import OPERATIONS
from proxy.settings.schema import Control
from tests.control.test_ingest import chunked, gz
from tests.control.world import ADMIN, EVENT, Answer, World, running

pytestmark = pytest.mark.thorough

KIB = 1024
PLENTY = Control.model_validate(
    {"rate_limits": {"control_read": 9999, "control_write": 9999, "test": 9999}}
)
TAKERS = [each for each in OPERATIONS if each.takes]
INGEST = [each for each in TAKERS if each.rate_class == "ingest"]
OTHERS = [each for each in TAKERS if each.rate_class != "ingest"]
MEBIBYTE = {"createPolicy", "putPolicy", "patchPolicy", "evaluatePolicy", "ingestRuntime",
            "ingestChange", "replayPolicy"}  # fmt: skip
MAY_BE_EMPTY = {"rotateKey", "resolveIncident"}
JSON, PATCH, LINES = "application/json", "application/merge-patch+json", "application/x-ndjson"


def named(operation: Operation) -> str:
    return operation.operation_id


def path_of(operation: Operation) -> str:
    """Of nothing that is there: what is wrong with a body is told before (§4)."""
    path = operation.template.replace("{workspace}", "default")
    while "{" in path:
        path = path[: path.index("{")] + "none" + path[path.index("}") + 1 :]
    return path


async def sent(world: World, operation: Operation, data: Any, **headers: str) -> Answer:
    told = {**ADMIN, "content-type": JSON, "x-parapet-workspace": "default"}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    told = {name: value for name, value in told.items() if value}
    return await world.call(operation.method, path_of(operation), headers=told, data=data)


def codes(answer: Answer) -> set[str]:
    return {error["code"] for error in answer.doc.get("errors", ())}


def nested(depth: int) -> bytes:
    return b'{"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


# --- JSON (§1)

# fmt: off
NOT_JSON = [
    ("empty",            b""),
    ("blank",            b"  \n"),
    ("NaN",              b'{"x":NaN}'),
    ("Infinity",         b'{"x":Infinity}'),
    ("-Infinity",        b'{"x":[-Infinity]}'),
    ("beyond a double",  b'{"x":1e999}'),
    ("lone surrogate",   b'{"x":"\\ud800"}'),
    ("other surrogate",  b'{"x":"\\udfff!"}'),
    ("surrogate name",   b'{"\\ud800":1}'),
    ("not UTF-8",        b'{"x":"\xff"}'),
    ("overlong",         b'{"x":"\xc0\xaf"}'),
    ("UTF-16",           '{"x":1}'.encode("utf-16")),
    ("cut",              b'{"x":'),
    ("two values",       b'{"x":1}{"x":1}'),
    ("comma at the end", b'{"x":1,}'),
    ("comment",          b'{"x":1/**/}'),
    ("raw control",      b'{"x":"\x01"}'),
]
UNFIT = [
    ("33 levels",        nested(33),                    "too_deep"),
    ("10000 levels",     nested(10_000),                "too_deep"),
    ("NUL",              b'{"x":"a\\u0000"}',           "control_character"),
    ("escape",           b'{"x":["\\u001b[31m"]}',      "control_character"),
    ("CR",               b'{"x":{"y":"a\\r\\nb"}}',     "control_character"),
    ("a name",           b'{"x\\u0007":1}',             "control_character"),
]
# fmt: on


@pytest.mark.parametrize("operation", TAKERS, ids=named)
async def test_what_is_no_json_is_400_with_its_place(operation: Operation) -> None:
    async with running(control=PLENTY) as world:
        for name, data in NOT_JSON:
            if not data and operation.operation_id in MAY_BE_EMPTY:
                continue
            answer = await sent(world, operation, data)
            assert (answer.status, answer.slug) == (400, "malformed-json"), (name, answer.body)
            assert 0 <= answer.doc["offset"] <= len(data), name


@pytest.mark.parametrize("operation", TAKERS, ids=named)
async def test_what_no_body_may_hold_is_422(operation: Operation) -> None:
    async with running(control=PLENTY) as world:
        for name, data, code in UNFIT:
            answer = await sent(world, operation, data)
            assert (answer.status, code in codes(answer)) == (422, True), (name, answer.body)
        for data in (nested(32), b'{"x":"tab\\t, newline\\n, DEL\\u007f, \\ud83d\\ude00"}'):
            answer = await sent(world, operation, data)
            assert not codes(answer) & {"too_deep", "control_character"}, answer.body


@pytest.mark.parametrize("operation", TAKERS, ids=named)
async def test_the_top_level_is_an_object(operation: Operation) -> None:
    async with running(control=PLENTY) as world:
        for data in (b"3", b'"text"', b"null", b"true", b"[]"):
            answer = await sent(world, operation, data)
            assert (answer.status, answer.slug) == (422, "validation-error"), (data, answer.body)


@pytest.mark.parametrize("operation", OTHERS, ids=named)
async def test_a_member_stands_once(operation: Operation) -> None:
    async with running(control=PLENTY) as world:
        for data in (b'{"name":"a","name":"a"}', b'{"x":[{"y":1,"y":1}]}', b'{"a":1,"\\u0061":2}'):
            answer = await sent(world, operation, data)
            assert answer.status == 422
            assert codes(answer) == {"duplicate_member"}, (data, answer.body)


async def test_ingest_takes_the_last_of_a_repeated_member(world: World) -> None:
    data = json.dumps(EVENT)[:-1] + ',"cost":1,"cost":2}'
    answer = await sent(world, INGEST[0], data.encode())
    assert answer.status == 202
    event = await world.get("/v1/workspaces/default/events/evt-1")
    assert event.doc["payload"]["cost"] == 2


# --- media types (§1)

# fmt: off
HEADERS = [
    # headers                                                         status
    ({"content_type": ""},                                               415),
    ({"content_type": "text/plain"},                                     415),
    ({"content_type": "application/jsonp"},                              415),
    ({"content_type": "application/x-www-form-urlencoded"},              415),
    ({"content_type": "application/json; charset=latin-1"},              415),
    ({"content_type": "application/json; charset=utf-16"},               415),
    ({"content_type": "application/json; charset"},                      415),
    ({"content_encoding": "deflate"},                                    415),
    ({"content_encoding": "br"},                                         415),
    ({"content_encoding": "zstd"},                                       415),
    ({"content_encoding": "gzip, gzip"},                                 415),
    ({"content_encoding": "gzip", "content_type": "text/plain"},         415),
    ({"accept": "image/png"},                                            406),
    ({"accept": "text/html, application/xml;q=0.9"},                     406),
    ({"accept": "application/json;q=0"},                                 406),
    ({"accept": "application/json;q=0, */*"},                            406),
    ({"accept": "image/png", "content_type": "text/plain"},              415),
    ({"content_type": "Application/JSON; Charset=\"UTF-8\""},            0),
    ({"content_encoding": "identity"},                                   0),
    ({"accept": "*/*"},                                                  0),
    ({"accept": "text/html, application/*;q=0.1"},                       0),
    ({"accept": "image/png, application/json;q=0.001"},                  0),
    ({"accept": ""},                                                     0),
]
# fmt: on


@pytest.mark.parametrize("operation", TAKERS, ids=named)
async def test_media_types_and_encodings(operation: Operation) -> None:
    async with running(control=PLENTY) as world:
        for headers, status in HEADERS:
            answer = await sent(world, operation, b"{", **headers)
            assert answer.status == (status or 400), (headers, answer.body)
        for media in (PATCH, LINES):
            answer = await sent(world, operation, b"{", content_type=media)
            assert answer.status == (400 if media in operation.takes else 415), media
        packed = await sent(world, operation, gz(b"{"), content_encoding="gzip")
        assert packed.status == (400 if operation in INGEST else 415)
    assert operation.takes == {"PATCH": (PATCH, JSON)}.get(
        operation.method, (JSON, LINES) if operation in INGEST else (JSON,)
    )


@pytest.mark.parametrize(
    "operation", [each for each in OPERATIONS if each.method == "GET"], ids=named
)
async def test_an_answer_that_is_not_wanted_is_not_made(operation: Operation) -> None:
    async with running(control=PLENTY) as world:
        headers = {**ADMIN, "accept": "image/png"}
        answer = await world.get(path_of(operation), headers)
        assert (answer.status, answer.doc["offered"]) == (406, [*operation.gives])


# --- sizes (§10)


@pytest.mark.parametrize("operation", TAKERS, ids=named)
async def test_how_large_a_body_may_be(operation: Operation) -> None:
    cap = (1024 if operation.operation_id in MEBIBYTE else 256) * KIB
    broken = b"{" + b" " * (cap - 1)
    async with running(control=PLENTY) as world:
        fits = await sent(world, operation, io.BytesIO(broken))
        assert (fits.status, fits.slug) == (400, "malformed-json")
        for data in (io.BytesIO(broken + b" "), chunked(broken + b" ")):
            answer = await sent(world, operation, data)
            assert (answer.status, answer.doc["limit"]) == (413, cap)
            assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize("operation", [TAKERS[0], INGEST[0]], ids=named)
async def test_a_body_that_is_announced_too_long_is_not_waited_for(operation: Operation) -> None:
    cap = (1024 if operation.operation_id in MEBIBYTE else 256) * KIB
    async with running(control=PLENTY) as world:
        head = f"{operation.method} {path_of(operation)} HTTP/1.1\r\nHost: x\r\n"
        head += f"Authorization: {ADMIN['Authorization']}\r\nContent-Type: {JSON}\r\n"
        unread = await world.raw(f"{head}Content-Length: {cap + 1}\r\n\r\n".encode())
        assert unread.startswith(b"HTTP/1.1 413 ")


def event_of(size: int, event_id: str = "evt-1") -> bytes:
    bare = json.dumps({**EVENT, "event_id": event_id, "note": ""}).encode()
    return bare.replace(b'"note": ""', b'"note": "%b"' % (b"x" * (size - len(bare))))


async def test_an_event_has_64_kib(world: World) -> None:
    exact, over = event_of(64 * KIB), event_of(64 * KIB + 1, "evt-2")
    assert (len(exact), len(over)) == (65_536, 65_537)
    assert (await sent(world, INGEST[0], exact)).status == 202
    answer = await sent(world, INGEST[0], over)
    assert (answer.status, answer.doc["limit"]) == (413, 65_536)
    large = event_of(80 * KIB, "evt-3")
    for data, media in ((b"[%b,%b]" % (large, exact), JSON), (large + b"\n" + exact, LINES),
                        (b'{"events":[%b,%b]}' % (large, exact), JSON)):  # fmt: skip
        answer = await sent(world, INGEST[0], data, content_type=media)
        assert [each["status"] for each in answer.doc["results"]] == ["rejected", "duplicate"]
        assert answer.doc["results"][0]["errors"][0]["code"] == "too_large"


async def test_ndjson_has_a_thousand_lines(world: World) -> None:
    line = json.dumps(EVENT).encode() + b"\n"
    assert (await sent(world, INGEST[0], line * 1000, content_type=LINES)).status == 202
    answer = await sent(world, INGEST[0], line * 1001, content_type=LINES)
    assert (answer.status, codes(answer)) == (422, {"too_long"})


def unpacked(data: bytes) -> int | str:
    """Bytes, or the problem's slug."""
    try:
        return len(gunzip(data))
    except Problem as problem:
        return problem.slug


def test_gzip_unfolds_to_8_mib_and_a_hundredfold() -> None:
    varied = b"".join(b"%08x" % (n * 2_654_435_761 % 2**32) for n in range(GUNZIPPED_BYTES // 8))
    assert unpacked(gz(varied)) == 8 * KIB * KIB
    assert unpacked(gz(varied + b"x")) == "content-too-large"
    plain = gz(b" " * 100_000)
    assert 100 * len(plain) < 100_000
    assert unpacked(plain) == "content-too-large"
    padded = gz(varied[:2000]) + plain
    assert unpacked(padded) == 102_000
    assert 100 * len(padded) >= 102_000


# --- heads, connections, times (§10)


async def test_128_fields_of_8190_bytes(world: World) -> None:
    start = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    for fields, status in ((126, b"200"), (127, b"431")):
        answer = await world.raw(start + b"A: b\r\n" * fields + b"\r\n")
        assert answer[9:12] == status, fields
    for size, status in ((8190, b"200"), (8191, b"431")):
        answer = await world.raw(start + b"A: " + b"b" * size + b"\r\n\r\n")
        assert answer[9:12] == status, size


async def test_an_idle_connection_is_closed() -> None:
    async with running(limits=ListenerLimits(keepalive_s=0.3)) as world:
        answer = await world.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")  # and the end came, within 5 s
        assert b"Connection: close" not in answer


def test_the_limits_that_are_promised() -> None:
    assert ListenerLimits() == ListenerLimits(
        head_s=10, keepalive_s=75, connections=1000, per_address=100, handler_s=30
    )
    assert BodyPace() == BodyPace(total_s=30, grace_s=5, bytes_per_s=1024)
