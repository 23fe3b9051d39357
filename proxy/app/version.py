"""The version of this installation, and whether its hot path was compiled (`setup.py`)."""

from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from typing import Final

VERSION: Final = metadata.version("parapet")
_HOT = find_spec("proxy.gateway.pipeline")
COMPILED: Final = str(_HOT and _HOT.origin).endswith(tuple(EXTENSION_SUFFIXES))


def told() -> str:
    """For people: `0.1.0`, or `0.1.0, compiled`."""
    return f"{VERSION}, compiled" if COMPILED else VERSION
