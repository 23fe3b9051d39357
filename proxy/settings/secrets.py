"""Secrets: what a reference stands for, which values must never be shown, the keys we make.

A configuration file may name any environment variable and any file: whoever writes it owns the
process.  A reference that came through the API is fenced, for its author may own less
(control-api.md §9).
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from proxy.model.documents import EnvRef, FileRef, Secret
from proxy.model.policy import Rule
from proxy.runtime.ids import base62, random_bytes
from proxy.settings.explain import unwrapped
from proxy.settings.files import write_new
from proxy.settings.problems import Path as Where

MAX_SECRET_BYTES = 65_536
MIN_SECRET_CHARS = 8
_SHOWN_IN_HEADERS = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)


class SecretFault(ValueError):
    """A reference that leads nowhere, or where it may not.  The message holds no value."""

    def __init__(self, message: str, *, unset: bool = False) -> None:
        super().__init__(message)
        self.unset = unset


@dataclass(frozen=True, slots=True)
class Fence:
    """Where references set through the API may lead."""

    env_prefix: str = "PARAPET_SECRET_"
    directory: Path = Path("/run/secrets")


@dataclass(frozen=True, slots=True)
class SecretReader:
    """Resolves references.  `base`: where relative file names start; `fence`: None for the file."""

    environ: Mapping[str, str]
    base: Path = Path()
    fence: Fence | None = None

    def value(self, secret: Secret) -> str:
        """Raises SecretFault.  A variable that is empty counts as unset."""
        match secret:
            case EnvRef(env=name):
                return self._variable(name)
            case FileRef(file=name):
                return self._file(name)
            case str():
                return secret

    def optional(self, secret: Secret | None) -> str | None:
        """None for a secret that is not there: none named, or an unset variable (rule of
        `admin_key` and of an endpoint's `api_key`)."""
        if secret is None:
            return None
        try:
            return self.value(secret)
        except SecretFault as fault:
            if fault.unset:
                return None
            raise

    def _variable(self, name: str) -> str:
        if self.fence and not name.startswith(self.fence.env_prefix):
            raise SecretFault(f"$env must start with {self.fence.env_prefix}")
        value = self.environ.get(name, "")
        if not value:
            raise SecretFault(f"environment variable {name} is not set", unset=True)
        return value.removesuffix("\n").removesuffix("\r")

    def _file(self, name: str) -> str:
        path = self.base / name
        if self.fence:
            path = Path(os.path.realpath(self.fence.directory / name))
            if not path.is_relative_to(os.path.realpath(self.fence.directory)):
                raise SecretFault(f"$file must lie in {self.fence.directory}")
        try:
            data = _read_regular(path)
        except (OSError, ValueError) as error:
            reason = (getattr(error, "strerror", None) or "cannot be read").lower()
            raise SecretFault(f"file {name}: {reason}") from None
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise SecretFault(f"file {name}: not UTF-8") from None
        text = text.removesuffix("\n").removesuffix("\r")
        if not text:
            raise SecretFault(f"file {name}: empty")
        return text


def _read_regular(path: Path) -> bytes:
    """At most 64 KiB of a regular file; a FIFO or a device is never waited for."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(0, "not a regular file")
        data = os.read(handle, MAX_SECRET_BYTES + 1)
    finally:
        os.close(handle)
    if len(data) > MAX_SECRET_BYTES:
        raise OSError(0, f"larger than {MAX_SECRET_BYTES} bytes")
    return data


def secrets_in(document: BaseModel, path: Where = ()) -> Iterator[tuple[Where, Secret]]:
    """Every secret member of a document, wherever it is nested, with its path."""
    for name, member in type(document).model_fields.items():
        value = getattr(document, name)
        where = (*path, member.alias or name)
        if isinstance(document, Rule) and name == "config":
            yield from _of_service(document, where)
        elif _takes_secret(member.annotation):
            yield from _found(value, where)
        else:
            for inner_where, inner in _documents(value, where):
                yield from secrets_in(inner, inner_where)


def _of_service(rule: Rule, where: Where) -> Iterator[tuple[Where, Secret]]:
    """What a check outside is asked with (guardrails.md §5.12)."""
    headers = rule.config.get("headers")
    for name, said in headers.items() if isinstance(headers, dict) else ():
        variable = said.get("$env") if isinstance(said, dict) else None
        if isinstance(variable, str) and variable:
            yield (*where, "headers", str(name)), EnvRef.model_validate({"$env": variable})


def _found(value: object, where: Where) -> Iterator[tuple[Where, Secret]]:
    if isinstance(value, str | EnvRef | FileRef):
        yield where, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _found(item, (*where, name))


def _documents(value: object, where: Where) -> Iterator[tuple[Where, BaseModel]]:
    if isinstance(value, BaseModel):
        yield where, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _documents(item, (*where, index))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _documents(item, (*where, name))


def _takes_secret(annotation: Any) -> bool:
    for option in unwrapped(annotation):
        if option is EnvRef:
            return True
        if any(EnvRef in unwrapped(each) for each in get_args(option)[1:]):
            return True  # dict[str, Secret]
    return False


def secret_values(documents: Iterable[BaseModel], reader: SecretReader) -> set[str]:
    """Every value that must never be shown: for the redaction filter.

    What does not resolve is left out, and what is shorter than any secret: it would be found
    everywhere.
    """
    values: set[str] = set()
    for document in documents:
        for _, secret in secrets_in(document):
            try:
                values.add(reader.value(secret))
            except SecretFault:
                continue
        values |= set(_header_secrets(document))
    return {value for value in values if len(value) >= MIN_SECRET_CHARS}


def _header_secrets(document: BaseModel) -> Iterator[str]:
    """Values of an endpoint's `extra_headers` that are named like credentials."""
    headers = getattr(document, "extra_headers", None)
    if isinstance(headers, dict):
        yield from (value for name, value in headers.items() if _SHOWN_IN_HEADERS.search(name))
        return
    for name in type(document).model_fields:
        for _, inner in _documents(getattr(document, name), ()):
            yield from _header_secrets(inner)


def new_key() -> tuple[str, str]:
    """A new Parapet key: its id, and the whole key, shown once."""
    key_id = base62(12)
    return key_id, f"ppt_{key_id}_{base62(40)}"


def ensure_admin_key(state_dir: Path) -> tuple[Path, str, bool]:
    """The key in `state_dir/admin.key`; made on first start.  (path, key, it is new)"""
    path = state_dir / "admin.key"
    new = write_new(path, f"{new_key()[1]}\n".encode())
    return path, SecretReader({}).value(FileRef(file=str(path))), new


def ensure_server_key(state_dir: Path) -> bytes:
    """The 32 bytes that sign cursors and fingerprints: `state_dir/server.key`."""
    path = state_dir / "server.key"
    write_new(path, random_bytes(32))
    return _read_regular(path)


def environment() -> Mapping[str, str]:
    """The variables of this process."""
    return os.environ
