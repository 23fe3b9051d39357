"""The literals of the seeds: `tests/golden/seeds/`, verbatim but for the quotes around names."""

import json
from pathlib import Path
from typing import Any

SEEDS = Path(__file__).parents[1] / "golden" / "seeds"


def seed(name: str) -> dict[str, Any]:
    found = json.loads((SEEDS / f"{name}.json").read_text())
    assert isinstance(found, dict)
    return found


def holds(whole: Any, part: Any) -> bool:
    """Every name and value of `part` stands in `whole`; we may have added more names."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            name in whole and holds(whole[name], value) for name, value in part.items()
        )
    if isinstance(part, list):
        return (
            isinstance(whole, list)
            and len(whole) == len(part)
            and all(holds(one, other) for one, other in zip(whole, part, strict=True))
        )
    return bool(whole == part) and type(whole) is type(part)
