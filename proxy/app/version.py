"""The version of this installation."""

from importlib import metadata
from typing import Final

VERSION: Final = metadata.version("parapet")
