"""T-FUZZ-02: whatever comes, however it is cut, ends once, in one of our words, and soon."""

import asyncio
import random
import socket
from collections.abc import Iterator

import pytest

from proxy.model.exchange import Outgoing
from proxy.model.ports import TransportFault
from proxy.upstream.transport import Connection
from tests.upstream.fakes import GET, Recorder
from tests.upstream.test_transport import REFUSED, UNDERSTOOD

ANSWERS = [answer for *_, answer in UNDERSTOOD.values()]
ANSWERS += [answer for answer in REFUSED.values() if len(answer) < 2000]
SPICE = [b"\r\n", b"\n", b"\0", b":", b" ", b"0", b"f" * 16, b"HTTP/1.1 200 OK\r\n", b"\xff"]
SPICE += [b"content-length: 7\r\n", b"transfer-encoding: chunked\r\n", b"\r\n\r\n", b"-1"]


class Wire(asyncio.Transport):
    """A transport without a network.  `closed` once it was aborted."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__({"socket": sock})
        self.sent = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


class Ending:
    """The call, as the connection sees it."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def answered(self, connection: Connection, *, reusable: bool) -> None:
        self.ends.append("reusable" if reusable else "whole")

    def broken(self, fault: TransportFault) -> None:
        self.ends.append(fault.phase)


@pytest.fixture(scope="module")
def sock() -> Iterator[socket.socket]:
    with socket.socket() as one:
        yield one


def play(pieces: list[bytes], sock: socket.socket) -> tuple[list[str], Recorder]:
    """One request on a connection that gets `pieces` and then the end of the stream."""
    connection, wire = Connection(lambda connection: None), Wire(sock)
    connection.connection_made(wire)
    call, sink = Ending(), Recorder()
    connection.carry(call, sink, GET)
    for piece in pieces:
        if not wire.closed:
            connection.data_received(piece)
    if not wire.closed:
        connection.eof_received()
    connection.connection_lost(None)
    return call.ends, sink


def cut(answer: bytes, chance: random.Random) -> list[bytes]:
    places = sorted(chance.randrange(len(answer) + 1) for _ in range(chance.randrange(6)))
    return [answer[a:b] for a, b in zip([0, *places], [*places, len(answer)], strict=True) if a < b]


def mutated(answer: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(answer) + 1)
        match chance.randrange(4):
            case 0:
                answer = answer[:at] + chance.choice(SPICE) + answer[at:]
            case 1:
                answer = answer[:at] + answer[at + chance.randrange(1, 9) :]
            case 2:
                answer = answer[:at] + bytes([chance.randrange(256)]) + answer[at + 1 :]
            case _:
                answer = answer[:at] + answer[max(0, at - chance.randrange(1, 40)) :]
    return answer


@pytest.mark.parametrize("seed", range(4))
def test_t_fuzz_02_mutated_answers_end_once(seed: int, sock: socket.socket) -> None:
    chance = random.Random(seed)
    for _ in range(2500):
        answer = mutated(chance.choice(ANSWERS), chance)
        ends, sink = play(cut(answer, chance), sock)
        assert len(ends) == 1, answer
        assert ends[0] in ("reusable", "whole", "bad_http", "eof"), answer
        assert sink.told in ([], ["head"], ["head", "data"]), answer
        assert sink.status == 0 or 200 <= sink.status <= 599, answer
        assert len(sink.body) <= len(answer)


def test_any_cutting_of_an_answer_means_the_same(sock: socket.socket) -> None:
    chance = random.Random(7)
    for status, body, reused, answer in UNDERSTOOD.values():
        for _ in range(50):
            ends, sink = play(cut(answer, chance), sock)
            assert (sink.status, sink.body, ends) == (status, body, [_end(reused)])


def _end(reused: bool) -> str:
    return "reusable" if reused else "whole"


def test_the_panel(sock: socket.socket) -> None:
    connection = Connection(lambda connection: None)
    assert repr(connection) == "<Connection closed, 0 bytes of an answer>"
    connection.connection_made(Wire(sock))
    assert repr(connection) == "<Connection idle, 0 bytes of an answer>"
    connection.carry(Ending(), Recorder(), Outgoing(b"GET / HTTP/1.1\r\n\r\n", b""))
    connection.data_received(b"HTTP")
    assert repr(connection) == "<Connection busy, 4 bytes of an answer>"
