"""What this node shares with the others while it runs: that it is alive, that something changed."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from proxy.model.coord import NodeBeat
from proxy.model.ports import Clock
from proxy.runtime.ids import base62
from proxy.runtime.tasks import background
from proxy.settings.files import write_new
from proxy.storage.choose import Engine, coord_of
from proxy.telemetry.logs import Log

BEAT_S: Final = 1.0
HASH_SHOWN: Final = 8


class Cluster:
    """`file_sha256` gives the digest of the file in force; `changed` is called after a notice."""

    def __init__(
        self,
        said: str,
        store: Engine,
        clock: Clock,
        log: Log,
        node_id: str,
        *,
        file_sha256: Callable[[], str],
        changed: Callable[[], Awaitable[None]],
        process: str = "",
    ) -> None:
        self._clock = clock
        self._log = log
        self._node_id = node_id
        self._file_sha256 = file_sha256
        self._changed = changed
        self._shared = store.shared
        self._warned: list[str] = []
        self.coord = coord_of(said, store, clock, log.warning, process)

    def __repr__(self) -> str:
        return f"<Cluster {self._node_id}, {len(self.nodes())} nodes>"

    async def start(self) -> None:
        """After the store."""
        await self.coord.start()
        await self._say()
        background(self._beat(), name="node beat")
        if self._shared:
            background(self._follow(), name="changes elsewhere")

    async def close(self) -> None:
        """Before the store."""
        await self.coord.close()

    def nodes(self) -> list[NodeBeat]:
        return list(self.coord.nodes())

    async def _say(self) -> None:
        await self.coord.beat(NodeBeat(self._node_id, self._file_sha256(), self._clock.now_ms()))
        warnings = warnings_of(self.coord.nodes())
        if warnings != self._warned:
            self._warned = warnings
            for warning in warnings or ["the configuration files of all nodes are the same again"]:
                self._log.warning("nodes.files", {"detail": warning})

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(BEAT_S)
            await self._say()

    async def _follow(self) -> None:
        while True:
            await self.coord.noticed()
            await self._changed()


def process_of(state_dir: Path, host: str) -> str:
    """The name of whatever runs on this state directory, one at a time: the same after a restart,
    another one for a copy of the directory on another host."""
    path = state_dir / "process"
    write_new(path, base62(16).encode())
    return hashlib.sha256(path.read_bytes() + b"\0" + host.encode()).hexdigest()[:24]


def warnings_of(nodes: Sequence[NodeBeat]) -> list[str]:
    """What is wrong between nodes: they must all have the same configuration file."""
    if len({node.file_sha256 for node in nodes}) < 2:
        return []
    each = ", ".join(f"{node.node_id} {node.file_sha256[:HASH_SHOWN]}" for node in nodes)
    return [f"the configuration files of the nodes differ: {each}"]
