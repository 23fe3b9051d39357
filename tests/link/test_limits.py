"""What workers say of limits goes up the link, and each gets its own answer."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from proxy.link.client import LinkClient
from proxy.link.server import LinkServer
from proxy.model.exchange import Json
from proxy.runtime.clock import SystemClock
from proxy.runtime.tasks import spawn

Doc = dict[str, Json]


async def _apply(_: Doc) -> tuple[int, str]:
    return 1, ""


async def until(met: Callable[[], bool]) -> None:
    due = time.monotonic() + 5
    while not met():
        assert time.monotonic() < due
        await asyncio.sleep(0.01)


async def test_each_worker_gets_its_own_answer(tmp_path: Path) -> None:
    server = LinkServer(lambda slot, doc: None)
    server.on_limits = lambda slot, doc: {"to": slot, **doc} if doc else None
    await server.start(tmp_path / "link")
    heard: dict[int, list[Doc]] = {0: [], 1: []}
    clients = []
    for slot in heard:
        client = LinkClient(tmp_path / "link", slot, _apply, dict, SystemClock())
        client.take_limits = heard[slot].append
        clients.append((client, spawn(client.run(), name=f"link {slot}")))
    await until(lambda: len(server.workers) == 2)
    for client, _ in clients:
        client.say_limits({"from": "x"})
    await until(lambda: all(heard.values()))
    assert heard == {slot: [{"to": slot, "from": "x"}] for slot in heard}
    for _, task in clients:
        task.cancel()
    await server.close()


async def test_a_report_that_is_none_ends_the_connection_and_it_is_made_anew(
    tmp_path: Path,
) -> None:
    def refuse(_: int, __: Doc) -> Doc:
        raise ValueError("no report")

    server = LinkServer(lambda slot, doc: None)
    server.on_limits = refuse
    await server.start(tmp_path / "link")
    client = LinkClient(tmp_path / "link", 0, _apply, dict, SystemClock())
    task = spawn(client.run(), name="link")
    await until(lambda: bool(server.workers))
    client.say_limits({})
    await until(lambda: not server.workers[0].connected)
    await until(lambda: server.workers[0].connected)
    task.cancel()
    await server.close()
