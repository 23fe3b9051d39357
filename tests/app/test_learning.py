"""The log knows the secrets of delivery targets that came through the API (control-api.md §9)."""

import io
from pathlib import Path
from typing import Any

from proxy.app.learning import Learning
from proxy.control.deliveries import DELIVERY
from proxy.control.kinds import body_of
from proxy.model.batch import Batch, Delete, Put
from proxy.settings.load import Loaded
from proxy.settings.schema import Config
from proxy.settings.secrets import SecretReader
from proxy.telemetry.logs import Log
from tests.kit.fakes import FakeClock
from tests.kit.store import MemoryStore

HOOK: dict[str, Any] = {
    "id": "hook", "name": "hook", "type": "webhook", "labels": {"team": "blue"},
    "config": {
        "url": "https://h.example.com/literal-url-1",
        "secret": {"$env": "PARAPET_SECRET_HOOK"},
        "headers": {"X-Auth": {"$file": "hook"}, "X-Beyond": {"$env": "PATH"}},
    },
}  # fmt: skip
SECRETS = ("https://h.example.com/literal-url-1", "value-of-variable", "value-of-file",
           "before-rotation", "of-an-endpoint")  # fmt: skip


def loaded(secrets: Path) -> Loaded:
    endpoint = {"id": "e", "provider": "openai", "api_key": "of-an-endpoint"}
    config = {
        "workspaces": [{"id": "default", "endpoints": [endpoint]}],
        "control": {"secrets_dir": str(secrets)},
    }
    environ = {"PARAPET_SECRET_HOOK": "value-of-variable", "PATH": "/usr/bin:/bin"}
    reader = SecretReader(environ)
    return Loaded(Config.model_validate(config), Path("parapet.yaml"), (), "", reader=reader)


async def written(store: MemoryStore, doc: dict[str, Any], beside: dict[str, Any]) -> None:
    put = Put("delivery", "hook", body_of(doc, 1, 1, beside))
    await store.commit("default", Batch("cm", (put,)))


def told(log: Log, out: io.StringIO) -> str:
    out.seek(0)
    out.truncate()
    log.info("said", {"all": [*SECRETS, "/usr/bin:/bin"]})
    return out.getvalue()


async def test_targets_are_learned_when_they_change_and_beside_the_rules(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("value-of-file\n")
    out = io.StringIO()
    log, store = Log(out), MemoryStore(FakeClock())
    learning, rules = Learning(log, store), loaded(tmp_path)
    await learning.rules(rules)
    await learning.targets(rules)
    assert all(secret in told(log, out) for secret in SECRETS[:-1])
    await written(store, HOOK, {"previous_secret": "before-rotation"})
    await learning.targets(rules)
    assert not any(secret in told(log, out) for secret in SECRETS)
    assert "/usr/bin:/bin" in told(log, out)  # beyond the fence: no secret of a target
    await learning.rules(rules)
    assert not any(secret in told(log, out) for secret in SECRETS)
    assert repr(learning) == "<Learning 1 + 4>"


async def test_what_was_valid_in_another_version_is_passed_over(tmp_path: Path) -> None:
    out = io.StringIO()
    log, store = Log(out), MemoryStore(FakeClock())
    learning, rules = Learning(log, store), loaded(tmp_path)
    await written(store, {**HOOK, "type": "carrier-pigeon"}, {})
    await learning.targets(rules)
    assert repr(learning) == "<Learning 0 + 0>"
    await store.commit("default", Batch("cm", (Delete("delivery", "hook", 1),)))
    await learning.targets(rules)


def test_a_change_of_a_target_is_told_to_the_log() -> None:
    assert DELIVERY.live
