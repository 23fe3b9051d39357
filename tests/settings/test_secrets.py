"""References to secrets, what the redaction filter is told, the keys that Parapet makes."""

import os
import re
from pathlib import Path

import pytest

from proxy.model.documents import EnvRef, FileRef, Secret
from proxy.settings.schema import Config
from proxy.settings.secrets import (
    Fence,
    SecretFault,
    SecretReader,
    ensure_admin_key,
    ensure_server_key,
    new_key,
    secret_values,
    secrets_in,
)


@pytest.fixture
def reader(tmp_path: Path) -> SecretReader:
    (tmp_path / "key").write_bytes(b"from-a-file\r\n")
    (tmp_path / "two").write_bytes(b"two\n\n")
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * 1_000_000)
    (tmp_path / "full").write_bytes(b"x" * 65_536)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/hostname")
    (tmp_path / "inside").symlink_to(tmp_path / "key")
    return SecretReader({"SET": "value\n", "EMPTY": "", "PARAPET_SECRET_X": "x"}, tmp_path)


def test_what_references_stand_for(reader: SecretReader) -> None:
    assert reader.value("literal") == "literal"
    assert reader.value(EnvRef(env="SET")) == "value"
    assert reader.value(FileRef(file="key")) == "from-a-file"
    assert reader.value(FileRef(file="two")) == "two\n"
    assert len(reader.value(FileRef(file="full"))) == 65_536
    assert reader.value(FileRef(file=str(reader.base / "key"))) == "from-a-file"


# fmt: off
NOWHERE: list[tuple[Secret, str]] = [
    (EnvRef(env="UNSET"),   "environment variable UNSET is not set"),
    (EnvRef(env="EMPTY"),   "environment variable EMPTY is not set"),
    (FileRef(file="none"),  "file none: no such file or directory"),
    (FileRef(file="."),     "file .: not a regular file"),
    (FileRef(file="fifo"),  "file fifo: not a regular file"),
    (FileRef(file="large"), "file large: larger than 65536 bytes"),
    (FileRef(file="empty"), "file empty: empty"),
    (FileRef(file="binary"), "file binary: not UTF-8"),
    (FileRef(file="a\x00b"), "file a\x00b: cannot be read"),
]
# fmt: on


@pytest.mark.parametrize(("secret", "said"), NOWHERE)
def test_references_that_lead_nowhere(reader: SecretReader, secret: Secret, said: str) -> None:
    with pytest.raises(SecretFault) as caught:
        reader.value(secret)
    assert str(caught.value).startswith(said)


def test_optional_forgives_only_what_is_unset(reader: SecretReader) -> None:
    assert reader.optional(None) is None
    assert reader.optional(EnvRef(env="UNSET")) is None
    with pytest.raises(SecretFault):
        reader.optional(FileRef(file="none"))


# fmt: off
OUTSIDE: list[Secret] = [
    EnvRef(env="PATH"),
    EnvRef(env="SET"),
    FileRef(file="../../etc/passwd"),
    FileRef(file="/etc/passwd"),
    FileRef(file="link"),
    FileRef(file="fifo"),
    FileRef(file="large"),
]
# fmt: on


@pytest.mark.parametrize("secret", OUTSIDE)
def test_t_sec_07_the_fence_holds(reader: SecretReader, secret: Secret) -> None:
    fenced = SecretReader(reader.environ, reader.base, Fence(directory=reader.base))
    with pytest.raises(SecretFault):
        fenced.value(secret)


def test_t_sec_07_inside_the_fence(reader: SecretReader) -> None:
    fenced = SecretReader(reader.environ, reader.base, Fence(directory=reader.base))
    assert fenced.value(EnvRef(env="PARAPET_SECRET_X")) == "x"
    assert fenced.value(FileRef(file="key")) == "from-a-file"
    assert fenced.value(FileRef(file="inside")) == "from-a-file"


EVERYWHERE = {
    "server": {"admin_key": "admin-key-0123456789abcdef01234567"},
    "store": "redis://user:store-password@host",
    "smtp": {"password": "smtp-password"},
    "workspaces": [
        {
            "id": "default",
            "endpoints": [
                {
                    "id": "a",
                    "provider": "bedrock",
                    "api_key": "api-key-1",
                    "access_key_id": "access-key-id",
                    "secret_access_key": "secret-access-key",
                    "session_token": "session-token",
                    "access_token": {"$env": "TOKEN"},
                    "extra_headers": {"x-auth": "header-secret", "x-plain": "plain-header"},
                }
            ],
            "deliveries": [
                {"name": "s", "type": "slack", "config": {"webhook_url": "https://slack-url"}},
                {
                    "name": "w",
                    "type": "webhook",
                    "config": {"url": "https://hook-url", "headers": {"a": "webhook-header"}},
                },
                {"name": "p", "type": "pagerduty", "config": {"routing_key": "routing-key"}},
            ],
        }
    ],
}


def test_every_secret_member_is_known_to_the_redaction() -> None:
    config = Config.model_validate(EVERYWHERE)
    found = secret_values([config], SecretReader({"TOKEN": "token-value"}))
    assert found == {
        "admin-key-0123456789abcdef01234567",
        "redis://user:store-password@host",
        "smtp-password",
        "api-key-1",
        "access-key-id",
        "secret-access-key",
        "session-token",
        "token-value",
        "header-secret",
        "https://slack-url",
        "https://hook-url",
        "webhook-header",
        "routing-key",
    }


def test_secrets_have_paths() -> None:
    paths = [path for path, _ in secrets_in(Config.model_validate(EVERYWHERE))]
    assert ("server", "admin_key") in paths
    assert ("workspaces", 0, "endpoints", 0, "access_token") in paths
    assert ("workspaces", 0, "deliveries", 1, "config", "headers", "a") in paths


def test_short_values_and_what_does_not_resolve_are_no_secrets() -> None:
    config = Config.model_validate({"smtp": {"password": "short"}})
    assert secret_values([config], SecretReader({})) == set()


def test_the_admin_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    state = tmp_path / "var" / "deep"
    path, key, new = ensure_admin_key(state)
    assert new
    assert re.fullmatch(r"ppt_[0-9A-Za-z]{12}_[0-9A-Za-z]{40}", key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert state.stat().st_mode & 0o777 == 0o700
    assert ensure_admin_key(state) == (path, key, False)
    assert [item.name for item in state.iterdir()] == ["admin.key"]


def test_the_server_key_is_32_bytes_and_stays(tmp_path: Path) -> None:
    key = ensure_server_key(tmp_path)
    assert len(key) == 32
    assert ensure_server_key(tmp_path) == key
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600


def test_new_keys_differ() -> None:
    assert len({new_key() for _ in range(50)}) == 50
