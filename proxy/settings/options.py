"""What the command line asks of the application: one small value per process entry."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """`parapet serve`.  `single`: both halves in one process."""

    config: Path
    single: bool = False
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """`parapet demo`.  A port that is taken is replaced by a free one."""

    port: int = 8080
    control_port: int = 8081
    self_test: bool = False


@dataclass(frozen=True, slots=True)
class ControlOptions:
    """The control process, as the supervisor starts it.

    `listen_fd` is the bound control listener; `alive_fd` is read until the supervisor is gone.
    """

    config: Path
    insecure: bool
    listen_fd: int
    alive_fd: int


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """`parapet store`.  `action`: export, import, backup.  `records`: idempotency records, too."""

    action: str
    config: Path
    file: Path
    workspace: str = "default"
    records: bool = False
    replace: bool = False


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """`parapet replay`.  `candidate`, `baseline`: a file or the name of a pack; `items`: each line
    is an object, whatever the file is called.  `direction`, `part`, `chunks`: of texts that do not
    say theirs."""

    texts: Path
    candidate: str
    baseline: str | None = None
    config: Path | None = None
    workspace: str = "default"
    items: bool = False
    direction: str = "request"
    part: str = "text"
    chunks: tuple[int, ...] = ()
    format: str = "text"
    exit_code: bool = False
    external: bool = False  # services that rules name are asked about the texts


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """One data worker.  It reads no configuration file: its rules come as snapshots."""

    slot: int
    state_dir: Path
    listen_fd: int
    alive_fd: int
