"""What is wrong with a pack, in words that name the member (guardrails.md §3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class PackFault:
    """`field` such as `rules[3].pattern`; `position` counts characters of a pattern."""

    field: str
    code: str
    message: str
    position: int | None = None


class PackError(ValueError):
    """The pack is refused; every fault that was found."""

    def __init__(self, faults: Sequence[PackFault]) -> None:
        super().__init__("; ".join(f"{f.field}: {f.message}" for f in faults))
        self.faults = list(faults)


@dataclass(slots=True)
class Report:
    """Faults and warnings of one pack, while it is read."""

    faults: list[PackFault] = field(default_factory=list)
    warnings: list[PackFault] = field(default_factory=list)

    def refuse(self, where: str, code: str, message: str, position: int | None = None) -> None:
        self.faults.append(PackFault(where, code, message, position))

    def warn(self, where: str, code: str, message: str) -> None:
        self.warnings.append(PackFault(where, code, message))
