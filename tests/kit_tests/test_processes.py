"""Starting and ending a Parapet of one's own."""

import json
import signal
from pathlib import Path

import pytest

from tests.kit.httpclient import get
from tests.kit.processes import Parapet, endpoint, free_ports, running, workspace
from tests.kit.provider import FakeProvider

pytestmark = pytest.mark.process


def config(base_url: str) -> dict[str, object]:
    return workspace(
        [endpoint("ours", "openai", base_url)], [{"id": "prod-chat", "endpoint": "ours"}]
    )


def test_ports_are_free_and_different() -> None:
    assert len(set(free_ports(5))) == 5


async def test_a_wrong_configuration_fails_with_its_log(tmp_path: Path) -> None:
    parapet = Parapet({"wrong": 1}, tmp_path)
    with pytest.raises(AssertionError, match="ended with 2") as raised:
        await parapet.start()
    assert "wrong" in str(raised.value)
    await parapet.kill()


@pytest.mark.parametrize("single", [True, False], ids=["single", "supervised"])
async def test_it_serves_is_asked_and_ends(tmp_path: Path, single: bool) -> None:
    async with (
        FakeProvider() as provider,
        running(config(provider.url + "/v1"), tmp_path, single=single) as parapet,
    ):
        assert json.loads(parapet.config_file.read_text())["workspaces"]
        assert (await get(parapet.control_url + "/healthz")).status == 200
        worker, control = await parapet.pid_of("worker"), await parapet.pid_of("control")
        assert (worker == control == parapet.pid) is single
        assert await parapet.events(0) == []
        assert await parapet.stop() == 0


async def test_killed_it_leaves_nothing_behind(tmp_path: Path) -> None:
    async with FakeProvider() as provider:
        parapet = Parapet(config(provider.url + "/v1"), tmp_path, single=False)
        await parapet.start()
        await parapet.kill()
        assert await parapet.ended() == -signal.SIGKILL
        with pytest.raises(OSError, match="Connect"):
            await get(parapet.url + "/")
