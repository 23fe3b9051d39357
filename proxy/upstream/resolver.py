"""Host names to addresses, with a memory.

`getaddrinfo` tells no life time, so an answer counts as fresh for 60 s, and connections follow a
changed address that soon.  For 60 s more it is the last good answer: used when the name cannot be
resolved, or not within a second (R47).  One look-up per name at a time, in threads of our own, so
that a sick name server can exhaust neither them nor anybody else's.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from proxy.model.ports import Clock, TransportFault
from proxy.upstream import failures

FRESH_S = 60.0
LAST_GOOD_S = 60.0  # beyond FRESH_S
PATIENCE_S = 1.0  # how long a last good answer waits for a better one
THREADS = 8
NAMES_LIMIT = 1024

Lookup = Callable[[str], Sequence[str]]
"""A blocking look-up of a name: its addresses, best first.  Raises OSError, UnicodeError."""


class Resolver(Protocol):
    """Names to addresses, best first, never none.  Raises TransportFault (`dns`)."""

    async def resolve(self, host: str) -> Sequence[str]: ...


def system_lookup(host: str) -> list[str]:
    """What the operating system says, in its order of preference."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


@dataclass(slots=True)
class _Answer:
    addresses: Sequence[str]
    fresh_until: float


class CachingResolver:
    """A `Resolver` over a blocking look-up."""

    def __init__(self, clock: Clock, lookup: Lookup = system_lookup) -> None:
        self._clock = clock
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="resolver")
        self._answers: dict[str, _Answer] = {}
        self._asked: dict[str, asyncio.Future[Sequence[str]]] = {}

    async def resolve(self, host: str) -> Sequence[str]:
        answer, now = self._answers.get(host), self._clock.monotonic()
        if answer is not None and now < answer.fresh_until:
            return answer.addresses
        asked = self._asked.get(host) or self._ask(host)
        if answer is not None and now < answer.fresh_until + LAST_GOOD_S:
            await asyncio.wait({asked}, timeout=PATIENCE_S)
            return self._answers.get(host, answer).addresses
        try:
            addresses = await asyncio.shield(asked)
        except (OSError, UnicodeError) as error:
            raise failures.while_connecting(error, tls=False) from error
        if not addresses:
            raise TransportFault("dns", "no address")
        return addresses

    def close(self) -> None:
        """Wait for nobody: a thread that hangs in a look-up is left to end by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self, host: str) -> asyncio.Future[Sequence[str]]:
        asked = asyncio.get_running_loop().run_in_executor(self._threads, self._lookup, host)
        self._asked[host] = asked
        asked.add_done_callback(partial(self._told, host))
        return asked

    def _told(self, host: str, asked: asyncio.Future[Sequence[str]]) -> None:
        del self._asked[host]
        if asked.cancelled() or asked.exception() is not None or not asked.result():
            return
        self._answers.pop(host, None)
        while len(self._answers) >= NAMES_LIMIT:
            del self._answers[next(iter(self._answers))]  # the oldest
        self._answers[host] = _Answer(asked.result(), self._clock.monotonic() + FRESH_S)

    def __repr__(self) -> str:
        return f"<CachingResolver {len(self._answers)} names, {len(self._asked)} asked>"
