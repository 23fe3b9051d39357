"""Which engine keeps the state: `store:` of the configuration decides, nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from proxy.model.batch import Retention
from proxy.model.exchange import Json
from proxy.model.ports import Clock, Leases, Store
from proxy.storage.coord import Coordination, LocalCoord
from proxy.storage.faults import CannotOpen
from proxy.storage.redis.client import new_listening_client
from proxy.storage.redis.coord import RedisCoord
from proxy.storage.redis.engine import RedisStore
from proxy.storage.redis.keys import STANDINGS
from proxy.storage.redis.limits import RedisLimits
from proxy.storage.redis.server import Tell
from proxy.storage.redis.standings import RedisStandings
from proxy.storage.sqlite.engine import SqliteStore

SQLITE: Final = "sqlite"
DATABASE: Final = "parapet.db"  # under state_dir


class Engine(Store, Protocol):
    """A store with its lifetime.  `engine` is `sqlite` or `redis`; `batch_lines`: how many lines of
    a spool one commit should hold; `trouble`: what the operator must know, None when all is well;
    `restarts`: how often it may have forgotten its last commits, `rollbacks`: how often it has;
    `shared`: other machines write it.
    """

    @property
    def engine(self) -> str: ...
    @property
    def shared(self) -> bool: ...
    @property
    def batch_lines(self) -> int: ...
    @property
    def restarts(self) -> int: ...
    @property
    def rollbacks(self) -> int: ...
    @property
    def trouble(self) -> str | None: ...
    @property
    def leases(self) -> Leases: ...

    async def start(self) -> None:
        """Raises CannotOpen."""
        ...

    async def close(self) -> None: ...

    async def rollup(
        self, workspace_id: str, since_minute: int, until_minute: int
    ) -> Sequence[tuple[int, str, int, int]]:
        """(minute, series, counter, n), half-open, by minute."""
        ...

    async def trim(self, retention: Retention) -> bool:
        """One bounded step of forgetting; True when there is more.  Raises StoreUnavailable."""
        ...

    async def outbox_pending(self) -> int:
        """Rows of the outbox in all workspaces.  Raises StoreUnavailable."""
        ...

    def forgot(self) -> None:
        """Somebody found out that a commit is gone."""
        ...

    def queue_depth(self) -> int:
        """What waits or is under way."""
        ...

    def link(self) -> dict[str, Json] | None:
        """How it stands with the server of the store; None when there is none."""
        ...


def store_of(said: str, state_dir: Path, clock: Clock, tell: Tell) -> Engine:
    """`said`: `sqlite`, or the URL of a Redis.  Raises CannotOpen."""
    if said == SQLITE:
        return SqliteStore(state_dir / DATABASE, clock)
    try:
        return RedisStore(said, clock, tell)
    except ValueError as why:
        raise CannotOpen(str(why)) from why


def limits_of(store: Engine) -> RedisLimits | None:
    """Where nodes tell each other what they took of limits; None: there is one node."""
    return RedisLimits(store.server) if isinstance(store, RedisStore) else None


def coord_of(said: str, store: Engine, clock: Clock, tell: Tell, process: str = "") -> Coordination:
    """What goes with the store of `store_of`.  `process` names this one, see RedisCoord."""
    if isinstance(store, RedisStore):
        ears = new_listening_client(said)
        return RedisCoord(store.server, ears, clock, tell, process=process)
    return LocalCoord(clock)


def standings_of(store: Engine, coord: Coordination, process: str) -> RedisStandings | None:
    """Where nodes tell each other how endpoints stand; None: there is one node.  To be said before
    `coord` starts; `process` as there."""
    if not isinstance(store, RedisStore) or not isinstance(coord, RedisCoord):
        return None
    standings = RedisStandings(store.server, process)
    coord.also(STANDINGS, standings.ring)
    return standings
