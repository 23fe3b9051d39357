"""Who talks over the link, beside snapshots and totals: each message has a member `t`."""

from collections.abc import Sequence
from typing import Protocol

from proxy.link.frames import Message


class Talk(Protocol):
    """A worker's side of the talk with the control process."""

    def heard(self, message: Message) -> None:
        """Raises ValueError: that is no message."""
        ...

    def lost(self) -> None:
        """The control process is away."""
        ...


class Workers(Protocol):
    """The workers, as the control process talks to them.  Nothing waits: a message to one that is
    away or does not read is lost."""

    def slots(self) -> Sequence[int]:
        """Of those that are connected."""
        ...

    def send(self, slot: int, message: Message) -> None: ...


class Host(Protocol):
    """The control process' side of the talk with its workers."""

    def joined(self, slot: int) -> None:
        """A worker is there, or has new rules."""
        ...

    def left(self, slot: int) -> None: ...

    def heard(self, slot: int, message: Message) -> None:
        """Raises ValueError: that is no message."""
        ...
