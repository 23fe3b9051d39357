"""The description of the control API, made once for all tests that read it."""

from typing import Any, Final

from proxy.control.openapi import describe
from proxy.control.routes import OPERATIONS

DOC: Final[dict[str, Any]] = describe(OPERATIONS)
