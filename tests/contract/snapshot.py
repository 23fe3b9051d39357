"""The description that was promised last, in `openapi-v1.snapshot.json`.

`make openapi-snapshot` writes it anew, and refuses to when something promised would break.
"""

import json
import sys
import time
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

from proxy.control.contract import changelog
from proxy.control.deprecations import DEPRECATED
from proxy.control.openapi import describe
from proxy.control.routes import OPERATIONS
from tests.contract.compatibility import breaks

SNAPSHOT = Path(__file__).parent / "openapi-v1.snapshot.json"
PROSE = ("description", "summary", "examples", "tags", "info")


def today() -> date:
    return datetime.fromtimestamp(time.time(), UTC).date()


def announced() -> set[str]:
    """Names that the changelog says are going."""
    going = (each for each in changelog() if each["kind"] in ("deprecated", "removed"))
    return {str(each["member"]) for each in going if "member" in each}


@cache
def described() -> dict[str, Any]:
    """The description of now, without its prose.  Nobody changes it."""
    found = _bare(json.loads(json.dumps(describe(OPERATIONS, DEPRECATED))))
    assert isinstance(found, dict)
    return found


def kept() -> dict[str, Any]:
    found = json.loads(SNAPSHOT.read_text())
    assert isinstance(found, dict)
    return found


def _bare(value: Any, *, names: bool = False) -> Any:
    """Without prose; `names`: the keys are names of members, not words."""
    if isinstance(value, list):
        return [_bare(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        word: _bare(each, names=word in ("properties", "schemas") and not names)
        for word, each in value.items()
        if names or word not in PROSE
    }


def main() -> int:
    new = described()
    if SNAPSHOT.exists():
        broken = breaks(kept(), new, today=today(), announced=announced())
        if broken:
            print(*broken, "The snapshot is unchanged.", sep="\n", file=sys.stderr)  # noqa: T201
            return 1
    SNAPSHOT.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
