"""The demo without the application: the page, the configuration, and a self-test that must fail."""

import shlex
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from proxy.demo.run import free_ports, run_demo
from proxy.demo.story import SCENES, Pen, Place, Scene, Urls, command, page
from proxy.settings.options import DemoOptions
from proxy.settings.schema import Config

PLACE = Place("127.0.0.1:1", "127.0.0.1:2", Path("/tmp/a b: c"), Urls("http://h:3", "http://h:4"))
OnReady = Callable[[], None]


def test_the_configuration_is_valid_and_holds_the_policy_of_the_contract() -> None:
    config = Config.model_validate(yaml.safe_load(PLACE.config()))
    (workspace,) = config.workspaces
    (policy,) = workspace.failover_policies
    assert config.server.state_dir == "/tmp/a b: c"
    assert (policy.route_id, policy.primary_endpoint) == ("prod-chat", "anthropic-claude")
    assert policy.fallback_endpoints == ["bedrock-claude"]
    assert policy.conditions.latency_threshold_ms == 2000
    assert policy.conditions.error_rate_threshold == 0.1


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_the_printed_command_sends_the_scene(scene: Scene) -> None:
    words = [word for word in shlex.split(command(PLACE, scene)) if word.strip()]
    assert words[:3] == ["curl", "-sNi", "http://127.0.0.1:1/v1/messages"]
    assert words[-1].encode() == scene.body


def test_the_page_names_everything() -> None:
    text = page(PLACE, Pen(colour=False))
    for part in ("http://h:3", "http://h:4", "admin.key", *(scene.title for scene in SCENES)):
        assert part in text
    assert "\033[" not in text
    assert "\033[1m" in page(PLACE, Pen(colour=True))


def test_the_page_is_printed_when_the_application_is_ready(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[str] = []

    def serve(config: Path, on_ready: OnReady) -> int:
        seen.append(config.read_text())
        on_ready()
        return 3

    assert run_demo(DemoOptions(port=0, control_port=0), serve) == 3
    assert "Parapet demo" in capsys.readouterr().out
    assert "prod-chat" in seen[0]


def test_the_self_test_fails_when_nothing_answers(capsys: pytest.CaptureFixture[str]) -> None:
    ended = threading.Event()

    def serve(config: Path, on_ready: OnReady) -> int:
        on_ready()
        assert ended.wait(30)
        return 0

    options = DemoOptions(port=0, control_port=0, self_test=True)
    assert run_demo(options, serve, end=ended.set) == 1
    said = capsys.readouterr().out
    assert "not as it must be" in said
    assert "Traceback" not in said


def test_the_self_test_fails_when_the_application_does_not_start() -> None:
    options = DemoOptions(port=0, control_port=0, self_test=True)
    assert run_demo(options, lambda config, on_ready: 2) == 2
    assert run_demo(options, lambda config, on_ready: 0) == 1


def test_a_taken_port_is_replaced() -> None:
    (first,) = free_ports(0)
    one, two = free_ports(first, first)
    assert one == first
    assert two != first
