"""What the API promises about itself: its changelog, its schemas, what is on its way out.

Tests bring their own; nothing here is decided when a request comes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Final

from proxy.control.deprecations import DEPRECATED, Deprecated
from proxy.control.objects import SCHEMAS, Published
from proxy.wire import jsonbody

_DATA: Final = files("proxy.control") / "data"
_PAGES: Final = files("proxy.control") / "pages"


@dataclass(slots=True, frozen=True)
class Contract:
    """`written` keeps what was made once, by name: bytes that do not change while we run."""

    deprecated: Sequence[Deprecated] = DEPRECATED
    schemas: Sequence[Published] = SCHEMAS
    written: dict[str, bytes] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What was made under this name, or is now."""
        if name not in self.written:
            self.written[name] = make()
        return self.written[name]


@cache
def changelog() -> list[dict[str, Any]]:
    """The changes of the API, newest last."""
    found: list[dict[str, Any]] = _data("changelog")
    return found


@cache
def examples() -> dict[str, Any]:
    """Bodies by operation id and name."""
    found: dict[str, Any] = _data("examples")
    return found


def page(name: str) -> bytes:
    """A file that the human page needs."""
    return (_PAGES / name).read_bytes()


def _data(name: str) -> Any:
    return jsonbody.loads((_DATA / f"{name}.json").read_bytes())
