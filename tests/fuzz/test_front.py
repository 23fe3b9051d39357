"""T-FUZZ-02, the callers' listener: 10,000 mutated requests, no crash, no hang, no guess."""

import random

import pytest

from tests.gateway.fakes import Kitchen, piped, quiet

SEEDS = [
    b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nhost:x\r\nTransfer-Encoding:chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\nx:\r\n\r\n",
    b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\nGET /unread HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /unread HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 3\r\n\r\nabc",
    b"POST /echo HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhello",
]
PIECES = [
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"0", b"-1", b"chunked", b"\xff",
    b"content-length: 3\r\n", b"transfer-encoding: chunked\r\n", b"host: y\r\n", b"upgrade: x\r\n",
    b"GET / HTTP/1.1\r\n", b"connection: close\r\n", b"HTTP/2.0", b"a" * 9000,
]  # fmt: skip
MUTATIONS = 10_000


def mutated(chance: random.Random) -> bytes:
    data = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[at:at] = chance.choice(PIECES)
            case 1:
                del data[at : at + chance.randint(1, 8)]
            case 2 if at < len(data):
                data[at] = chance.randrange(256)
            case _:
                data[at:at] = data[: chance.randint(1, 40)]
    return bytes(data)


@pytest.mark.thorough
async def test_t_fuzz_02_10_000_mutated_requests() -> None:
    chance = random.Random(20_261_121)
    for _ in range(MUTATIONS):
        data = mutated(chance)
        kitchen = Kitchen(limit_bytes=1000)
        pipe, server = piped(kitchen.handle)
        cut = chance.randrange(len(data) + 1)
        await pipe.push(data[:cut], data[cut:])
        now = pipe.protocol.loop.time()
        pipe.protocol.sweep(now)
        for seconds in (80, 90, 170):  # whoever waits is told, and the connection ends
            pipe.protocol.sweep(now + seconds)
            await quiet(4)
        assert pipe.ended, data
        assert not server.connections, data
        assert kitchen.cancelled == [], data
        assert pipe.written.count(b"HTTP/1.1 200") <= len(kitchen.seen), data
