"""How long a control process and its workers stand still when one endpoint of many policies goes.

    .venv/bin/python -m benchmarks.micro.outage [--policies 100 1000 10000] [--workers 2]

One worker finds that nobody is there at an endpoint that is the primary of every policy.  Real
processes, the real socket and spool; nothing else runs.  `still` is the longest time in which an
event loop got nowhere (what its callers wait for), by the clock and of it computed; `told`: from
the first trip until every worker has every policy open, `known`: until the control process has;
`CPU` is that of the control process; `events`: two for each policy, and one more for each whose
cool-down of five seconds is over when they are counted.
"""

import argparse
import asyncio
import gc
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, process_time, thread_time

from benchmarks.micro.failover import gateway_with
from proxy.app.data import GC_THRESHOLDS
from proxy.app.sharing import WorkerShare
from proxy.app.standings import NodeStandings
from proxy.app.telling import Telling
from proxy.gateway.flights import Flights
from proxy.link.client import LinkClient
from proxy.link.server import LinkServer
from proxy.model.exchange import Json
from proxy.model.failover import Outcome
from proxy.routing.standing import Standing
from proxy.routing.states import State
from proxy.runtime.clock import SystemClock
from proxy.runtime.ids import UlidIds, fraction
from proxy.runtime.tasks import background
from proxy.telemetry.exposition import Registry

BEAT_S = 0.001
SWEEP_S = 0.1
ENDPOINT = "first"
PATIENCE_S = 60.0


class Pulse:
    """The longest time between two turns of the loop, by the clock and by what was computed: the
    second one is the first without what others do on the machine."""

    def __init__(self) -> None:
        self.longest_s = self.longest_cpu_s = 0.0

    async def run(self) -> None:
        last, spent = monotonic(), thread_time()
        while True:
            await asyncio.sleep(BEAT_S)
            now, computed = monotonic(), thread_time()
            self.longest_s = max(self.longest_s, now - last - BEAT_S)
            self.longest_cpu_s = max(self.longest_cpu_s, computed - spent)
            last, spent = now, computed


# --- a worker


async def work(path: Path, slot: int, policies: int) -> None:
    """Serve nothing, know everything; slot 0 finds the outage when it is told to."""
    clock, pulse = SystemClock(), Pulse()
    share = WorkerShare(clock)
    flights = Flights(clock, fraction, share.tell)
    share.of(flights)
    flights.keep(gateway_with(policies, policies=True).rules())
    link = LinkClient(path, slot, _never, dict, clock, share)
    share.to(link.send)
    share.kept()
    background(link.run(), name="link")
    background(_sweep(flights, share), name="sweep")
    await share.first_word()
    _settle_garbage()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    background(pulse.run(), name="pulse")
    await asyncio.sleep(0.05)
    if slot == 0:
        _fail(flights)
    found = list(flights.all())
    while any(each.breakers[ENDPOINT].state is State.CLOSED for each in found):
        found = [each for each in found if each.breakers[ENDPOINT].state is State.CLOSED]
        await asyncio.sleep(0.005)
    at = monotonic()
    await asyncio.to_thread(sys.stdin.readline)
    print(at, pulse.longest_s, pulse.longest_cpu_s, flush=True)


def _settle_garbage() -> None:
    """As both processes do when they are ready."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _never(_: dict[str, Json]) -> tuple[int, str]:
    raise AssertionError("no snapshot is pushed here")


async def _sweep(flights: Flights, share: WorkerShare) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        flights.sweep()
        share.look()


def _fail(flights: Flights) -> None:
    standing, now = next(iter(flights.all())), monotonic()
    flights.asked(standing, now)
    for _ in range(3):
        flight = flights.start(standing, ENDPOINT, "", "m", now, stream=True, permit=None)
        flight.ended(now, Outcome.CONNECT)


# --- the control process


async def control(policies: int, workers: int, state_dir: Path) -> str:
    """A line of figures."""
    clock, pulse, path = SystemClock(), Pulse(), state_dir / "link"
    telling = Telling(state_dir, UlidIds(), Registry("0"))
    standings = NodeStandings(clock, telling.tell)
    standings.keep(gateway_with(policies, policies=True).rules().doc)
    server = LinkServer(lambda *_: None)
    server.host = standings
    standings.workers = server
    await server.start(path)
    background(standings.run(), name="standings")
    children = [await _child(path, slot, policies) for slot in range(workers)]
    for child in children:
        assert child.stdout is not None
        while await child.stdout.readline() != b"ready\n":
            assert child.returncode is None, "a worker died"
    background(pulse.run(), name="pulse")
    _settle_garbage()
    await asyncio.sleep(0.2)
    pulse.longest_s = pulse.longest_cpu_s = 0.0
    began, spent, lines = monotonic(), process_time(), telling.lines
    for child in children:
        _say(child)
    first_s = await _until(lambda: _is_open(next(iter(standings.all()))), began)
    known_s = await _until(lambda: all(map(_is_open, standings.all())), began)
    await asyncio.sleep(2.0)  # what follows of it: ticks, late messages
    still, cpu_s = _ms(pulse.longest_s, pulse.longest_cpu_s), process_time() - spent
    for child in children:
        _say(child)
    told = [[float(each) for each in (await _line(child)).split()] for child in children]
    for child in children:
        await child.wait()
    await server.close()
    told_ms = (max(at for at, _, _ in told) - began - first_s) * 1000
    theirs = _ms(max(each for _, each, _ in told), max(each for _, _, each in told))
    known_ms = (known_s - first_s) * 1000
    line = (
        f"{policies:8}{still:>20}{theirs:>20}{told_ms:10.0f} ms{known_ms:10.0f} ms"
        f"{cpu_s:8.2f} s{telling.lines - lines:9}"
    )
    await asyncio.to_thread(telling.close)
    return line


def _ms(wall_s: float, cpu_s: float) -> str:
    return f"{wall_s * 1000:.1f} / {cpu_s * 1000:.1f} ms"


async def _child(path: Path, slot: int, policies: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", __spec__.name, "--as-worker", str(path), str(slot), str(policies),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


def _say(child: asyncio.subprocess.Process) -> None:
    assert child.stdin is not None
    child.stdin.write(b"go\n")


async def _line(child: asyncio.subprocess.Process) -> bytes:
    assert child.stdout is not None
    return await child.stdout.readline()


def _is_open(standing: Standing) -> bool:
    return standing.breakers[ENDPOINT].state is not State.CLOSED


async def _until(holds: Callable[[], bool], began: float) -> float:
    """Seconds since then."""
    while not holds():
        assert monotonic() - began < PATIENCE_S, "it never came"
        await asyncio.sleep(0.002)
    return monotonic() - began


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--policies", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--as-worker", nargs=3, help=argparse.SUPPRESS)
    said = parser.parse_args(arguments)
    if said.as_worker is not None:
        path, slot, policies = said.as_worker
        asyncio.run(work(Path(path), int(slot), int(policies)))
        return
    print(
        f"{'policies':>8}{'control still / CPU':>20}{'worker still / CPU':>20}{'told':>13}"
        f"{'known':>13}{'CPU':>10}{'events':>9}"
    )
    for policies in said.policies:
        with tempfile.TemporaryDirectory() as state_dir:
            print(asyncio.run(control(policies, said.workers, Path(state_dir))), flush=True)


if __name__ == "__main__":
    main()
