"""A data worker: the entry of its process.  It builds the data half alone."""

import asyncio
from pathlib import Path

from pydantic import ValidationError

from proxy.app.data import DataHalf
from proxy.app.life import Stop, adopt, forward_proxies, run
from proxy.link.client import Apply, LinkClient
from proxy.link.frames import SOCKET
from proxy.model.exchange import Json
from proxy.model.tenancy import SnapshotDoc
from proxy.runtime.clock import SystemClock
from proxy.runtime.ids import UlidIds
from proxy.runtime.tasks import background
from proxy.settings.options import WorkerOptions
from proxy.settings.secrets import SecretReader, ensure_server_key, environment, secret_values
from proxy.settings.snapshot import read_snapshot
from proxy.telemetry.logs import Log, open_log
from proxy.workers.supervisor import Line


def run_worker(options: WorkerOptions) -> int:
    """One data worker: rules come as snapshots, from the disk first, then over the link."""
    log = open_log(f"worker-{options.slot}", ())
    return run(_worker(options, log), log)


async def _worker(options: WorkerOptions, log: Log) -> int:
    clock = SystemClock()
    stop = Stop()
    line = Line(options.alive_fd, clock, stop.set)
    line.open()
    secrets = SecretReader(environment())
    data = data_half(options.slot, options.state_dir, secrets, log)
    apply = learning(log, secrets, data.apply)
    client = LinkClient(
        options.state_dir / SOCKET, options.slot, apply, data.totals_doc, clock, data.share
    )
    data.share.to(client.send)
    cold = await asyncio.to_thread(read_snapshot, options.state_dir)
    if cold is not None:
        log.learn(await asyncio.to_thread(secret_values, [cold], secrets))
        client.version, _ = await data.apply_snapshot(cold)
    background(client.run(), name="link")
    background(client.report(), name="totals")
    client.take_limits = data.limits.take
    background(data.limits.report(client.say_limits), name="limits")
    if not await stop.unless(data.ready):
        await data.close()
        return 0
    await data.share.first_word()
    await data.start(adopt(options.listen_fd))
    line.ready()
    log.info("ready", {"version": client.version})
    await stop.wait()
    await data.drain(stop.drain_limits(data.drain_settings()))
    client.flush()
    await asyncio.sleep(0.05)  # let the last totals leave
    return 0


def data_half(slot: int, state_dir: Path, secrets: SecretReader, log: Log) -> DataHalf:
    """The data half of a slot, of what this process has."""
    return DataHalf(
        slot=slot,
        state_dir=state_dir,
        clock=SystemClock(),
        ids=UlidIds(),
        server_key=ensure_server_key(state_dir),
        secrets=secrets,
        on_bug=log.bug,
        tell=log.observe,
        proxies=forward_proxies(),
    )


def learning(log: Log, secrets: SecretReader, apply: Apply) -> Apply:
    """`apply`, before which the log learns what it must never show of the new rules."""

    def values(document: dict[str, Json]) -> set[str] | None:
        try:
            return secret_values([SnapshotDoc.model_validate(document)], secrets)
        except ValidationError:
            return None  # `apply` refuses it, and says so

    async def learn_and_apply(document: dict[str, Json]) -> tuple[int, str]:
        found = await asyncio.to_thread(values, document)
        if found is not None:
            log.learn(found)
        return await apply(document)

    return learn_and_apply
