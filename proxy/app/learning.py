"""What the log must never show: secrets of the rules in force, and of the store's delivery targets.

Targets are no part of the rules, so theirs are looked for apart, whenever one has changed; also the
secret before a rotation, which is still signed with (control-api.md §9).
"""

import asyncio
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from proxy.control.deliveries import DELIVERY
from proxy.control.kinds import parts_of
from proxy.model.ports import Store
from proxy.settings.load import Loaded
from proxy.settings.notices import Delivery
from proxy.settings.schema import Control
from proxy.settings.secrets import MIN_SECRET_CHARS, Fence, SecretReader, secret_values
from proxy.telemetry.logs import Log

_TARGET: Final = TypeAdapter[Delivery](Delivery)


class Learning:
    """Tells the log, before something is in force, what of it is secret."""

    def __init__(self, log: Log, store: Store) -> None:
        self._log = log
        self._store = store
        self._rules: set[str] = set()
        self._targets: set[str] = set()
        self._editions: dict[str, int | None] = {}

    def __repr__(self) -> str:
        return f"<Learning {len(self._rules)} + {len(self._targets)}>"

    async def rules(self, loaded: Loaded) -> None:
        self._rules = await asyncio.to_thread(secret_values, [loaded.config], loaded.reader)
        self._log.learn(self._rules | self._targets)

    async def targets(self, loaded: Loaded) -> None:
        """Those of all workspaces, when one has changed since.  Raises StoreUnavailable."""
        names = [each.id for each in loaded.config.workspaces]
        editions = {name: self._store.edition(name, DELIVERY.name) for name in names}
        if editions == self._editions and None not in editions.values():
            return
        bodies = [
            body for name in names for _, _, body in await self._store.scan(name, DELIVERY.name)
        ]
        reader = _fenced(loaded.config.control, loaded.reader)
        self._targets = await asyncio.to_thread(_secrets_of, bodies, reader)
        self._editions = editions
        self._log.learn(self._rules | self._targets)


def _fenced(control: Control, reader: SecretReader) -> SecretReader:
    fence = Fence(control.secret_env_prefix, Path(control.secrets_dir))
    return SecretReader(reader.environ, fence=fence)


def _secrets_of(bodies: list[bytes], reader: SecretReader) -> set[str]:
    found: set[str] = set()
    for body in bodies:
        said, beside = parts_of(body)
        previous = beside.get("previous_secret")
        if isinstance(previous, str) and len(previous) >= MIN_SECRET_CHARS:
            found.add(previous)
        said.pop("labels", None)
        try:
            found |= secret_values([_TARGET.validate_python(said)], reader)
        except ValidationError:
            continue  # of another version: it is not used either
    return found
