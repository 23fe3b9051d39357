"""R47: names that change, fail, hang."""

import asyncio
import socket
import threading
from collections.abc import Sequence

import pytest

from proxy.model.ports import TransportFault
from proxy.upstream import resolver as module
from proxy.upstream.resolver import CachingResolver, system_lookup
from tests.upstream.fakes import Clock


class Names:
    """A look-up that is scripted: `answers` are addresses, or an error to raise."""

    def __init__(self, *answers: Sequence[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.free = threading.Event()
        self.free.set()

    def __call__(self, host: str) -> Sequence[str]:
        self.asked += 1
        self.free.wait(5)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


GONE = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
A, B = ["192.0.2.1"], ["192.0.2.2"]


async def test_an_answer_is_fresh_for_60_s_then_asked_again() -> None:
    clock, names = Clock(), Names(A, B)
    resolver = CachingResolver(clock, names)
    assert await resolver.resolve("x") == A
    clock.ahead_s += 59
    assert await resolver.resolve("x") == A
    assert names.asked == 1
    clock.ahead_s += 1.5
    assert await resolver.resolve("x") == B
    assert repr(resolver) == "<CachingResolver 1 names, 0 asked>"
    resolver.close()


async def test_the_last_good_answer_serves_60_s_longer_when_the_name_fails() -> None:
    clock, names = Clock(), Names(A, GONE)
    resolver = CachingResolver(clock, names)
    await resolver.resolve("x")
    clock.ahead_s += 119
    assert await resolver.resolve("x") == A
    clock.ahead_s += 2
    with pytest.raises(TransportFault, match="dns"):
        await resolver.resolve("x")
    resolver.close()


@pytest.mark.thorough
async def test_a_name_server_that_hangs_costs_a_second_when_there_is_a_last_good_answer() -> None:
    clock, names = Clock(), Names(A, B)
    resolver = CachingResolver(clock, names)
    await resolver.resolve("x")
    names.free.clear()
    clock.ahead_s += 61
    began = clock.monotonic()
    answers = await asyncio.gather(*(resolver.resolve("x") for _ in range(100)))
    assert set(map(tuple, answers)) == {tuple(A)}
    assert clock.monotonic() - began < module.PATIENCE_S + 0.5
    assert names.asked == 2
    names.free.set()
    while await resolver.resolve("x") != B:
        pass
    resolver.close()


@pytest.mark.thorough
async def test_one_name_that_hangs_keeps_no_thread_from_the_others() -> None:
    clock, names = Clock(), Names(A)
    free = threading.Event()

    def lookup(host: str) -> Sequence[str]:
        if host == "hangs":
            free.wait(5)
        return names(host)

    resolver = CachingResolver(clock, lookup)
    waiting = [asyncio.ensure_future(resolver.resolve("hangs")) for _ in range(50)]  # noqa: TID251
    await asyncio.sleep(0)
    assert await resolver.resolve("well") == A
    waiting[0].cancel()
    free.set()
    answers = await asyncio.gather(*waiting[1:])
    assert answers == [A] * 49
    resolver.close()


@pytest.mark.parametrize("answer", [GONE, UnicodeError("label too long"), []])
async def test_what_has_no_address_is_a_dns_fault(answer: Sequence[str] | Exception) -> None:
    resolver = CachingResolver(Clock(), Names(answer))
    with pytest.raises(TransportFault) as caught:
        await resolver.resolve("x")
    assert caught.value.phase == "dns"
    resolver.close()


async def test_the_memory_is_bounded() -> None:
    resolver = CachingResolver(Clock(), Names(A))
    await asyncio.gather(*(resolver.resolve(f"n{n}") for n in range(module.NAMES_LIMIT + 10)))
    assert repr(resolver) == f"<CachingResolver {module.NAMES_LIMIT} names, 0 asked>"
    resolver.close()


def test_the_system_knows_its_own_name() -> None:
    assert set(system_lookup("localhost")) <= {"127.0.0.1", "::1"}
