"""What a node tells of itself and of the others."""

import asyncio
from pathlib import Path

import pytest

from proxy.app.cluster import BEAT_S, Cluster, process_of, warnings_of
from proxy.model.coord import NodeBeat
from proxy.storage.choose import store_of
from proxy.telemetry.logs import open_log
from tests.kit.fakes import FakeClock
from tests.kit.redis import silent

A, B, C = NodeBeat("a", "1" * 64), NodeBeat("b", "1" * 64), NodeBeat("c", "2" * 64)


# fmt: off
NODES = [
    ([],        []),
    ([A],       []),
    ([A, B],    []),
    ([A, C],    ["the configuration files of the nodes differ: a 11111111, c 22222222"]),
]
# fmt: on


@pytest.mark.parametrize(("nodes", "warnings"), NODES)
def test_all_nodes_have_one_file(nodes: list[NodeBeat], warnings: list[str]) -> None:
    assert warnings_of(nodes) == warnings


def test_a_process_keeps_its_name_and_a_copy_elsewhere_has_another(tmp_path: Path) -> None:
    name = process_of(tmp_path, "host-a")
    assert process_of(tmp_path, "host-a") == name
    assert process_of(tmp_path, "host-b") != name
    (tmp_path / "process").unlink()
    assert process_of(tmp_path, "host-a") != name


async def test_a_node_alone_knows_itself_and_its_file_of_now(tmp_path: Path) -> None:
    clock, file = FakeClock(), ["f1"]

    async def changed() -> None:
        raise AssertionError("nobody else is there")

    cluster = Cluster(
        "sqlite",
        store_of("sqlite", tmp_path, clock, silent),
        clock,
        open_log("test", ()),
        "node-1",
        file_sha256=lambda: file[0],
        changed=changed,
    )
    await cluster.start()
    assert cluster.nodes() == [NodeBeat("node-1", "f1", clock.now_ms())]
    file[0] = "f2"
    await asyncio.sleep(0)
    clock.advance(BEAT_S)
    await asyncio.sleep(0)
    assert [node.file_sha256 for node in cluster.nodes()] == ["f2"]
    assert repr(cluster) == "<Cluster node-1, 1 nodes>"
    await cluster.close()
