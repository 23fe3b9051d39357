"""What can be wrong with a configuration, said so that the owner can put it right."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

Path = tuple[str | int, ...]
SHOWN_AT_MOST = 100


def path_text(path: Path) -> str:
    """`("workspaces", 0, "id")` as `workspaces[0].id`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong (or, as a warning, odd): where, and what would be right.

    `message` never holds a value that may be a secret.
    """

    path: Path
    message: str
    file: str = ""
    line: int | None = None
    code: str = ""  # of a warning, for programs

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.file and self.line else self.file
        return ": ".join(part for part in (where, path_text(self.path), self.message) if part)

    def located(self, file: str, line: int | None) -> "Problem":
        """The same problem, with file and line where it has none yet."""
        return self if self.file else replace(self, file=file, line=line)


class ConfigError(Exception):
    """The configuration cannot be used; nothing of it was.  Exit code 2."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        shown = [str(problem) for problem in problems[:SHOWN_AT_MOST]]
        if len(problems) > len(shown):
            shown.append(f"… and {len(problems) - len(shown)} more")
        super().__init__("\n".join(shown))
        self.problems = tuple(problems)
