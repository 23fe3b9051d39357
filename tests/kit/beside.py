"""How long others wait while something large is under way: a process that asks for small things.

    async with Beside(parapet.url + "/nowhere") as beside:
        ...
    assert beside.longest_ms < 100

A process of its own, and a path that Parapet answers itself: what the test itself does, and the
fake provider in it, must not make anybody wait.
"""

import asyncio
import http.client
import json
import sys
import threading
import time
from typing import Self
from urllib.parse import urlsplit


class Beside:
    """`asked`: how many were answered; `longest_ms`: the longest that one of them waited."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._process: asyncio.subprocess.Process | None = None
        self.asked = 0
        self.longest_ms = 0.0

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.kit.beside", self._url,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        await self._process.stdout.readline()  # the first was answered
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_why: object) -> None:
        assert self._process is not None
        told, _errors = await self._process.communicate(b"")
        if self._process.returncode == 0:
            self.asked, self.longest_ms = json.loads(told)
        elif kind is None:
            raise AssertionError("nobody knows how long others waited: who asked has failed")


def main(url: str) -> None:
    """Ask until standard input ends; print a line after the first answer and one at the end."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port or 80, timeout=60)
    over = threading.Event()
    asked, longest_s = 0, 0.0
    while asked < 3 or not over.is_set():
        began = time.perf_counter()
        connection.request("GET", where.path)
        answer = connection.getresponse()
        answer.read()
        if asked:
            longest_s = max(longest_s, time.perf_counter() - began)
        else:  # the first connects
            tell("ready")
            threading.Thread(target=until_told, args=(over,), daemon=True).start()
        asked += 1
        time.sleep(0.002)
    tell(json.dumps([asked, 1000 * longest_s]))


def until_told(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
