"""Secrets that are made here: told in the answer to their making, and in no other one."""

from dataclasses import dataclass
from typing import Final

from proxy.model.exchange import Json


@dataclass(slots=True, frozen=True)
class Once:
    """A secret that was made here: shown in the answer to its making, and never again."""

    path: tuple[str, ...]
    secret: str


SHOWN_ONCE: Final[Json] = {
    "pointer": "#",
    "code": "secret_shown_once",
    "detail": "the generated secret was shown in the first answer",
}


def show(shown: dict[str, Json], secret: Once) -> None:
    """SECURITY: only the answer to its making has it; what a retry gets has the mask."""
    holder: Json = shown
    for step in secret.path[:-1]:
        assert isinstance(holder, dict), "the kind says so"
        holder = holder[step]
    assert isinstance(holder, dict), "the kind says so"
    holder[secret.path[-1]] = secret.secret
