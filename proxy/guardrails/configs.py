"""What `config` of a rule may say, by kind; a member that a kind does not have is refused by name.

In charge of the shapes alone: each kind's reader says what its members mean.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, ValidationError

from proxy.guardrails.checks import terms, unicode
from proxy.guardrails.faults import Report
from proxy.model.documents import Doc
from proxy.model.policy import Kind

_Entity = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,23}$")]  # as a label


class Config(Doc):
    """Of kinds that have none."""


class TermsConfig(Config):
    """`list`: the pack's list of that name instead of a pattern."""

    list: str | None = None
    boundary: Literal["word", "none"] = "word"
    gaps: int = Field(0, ge=0, le=terms.MAX_GAPS)


class PiiConfig(Config):
    entity: _Entity | None = None


class UnicodeConfig(Config):
    class_: Annotated[str, StringConstraints(pattern=f"^({'|'.join(unicode.CLASSES)})$")] = Field(
        alias="class"
    )


CONFIGS: Final[dict[Kind, type[Config]]] = {
    "terms": TermsConfig,
    "regex": Config,
    "secret": Config,
    "pii": PiiConfig,
    "unicode": UnicodeConfig,
}


_CODES: Final = {"string_pattern_mismatch": "pattern", "literal_error": "unknown_value"}


def config_of(kind: Kind, said: dict[str, object], where: str, report: Report) -> Config | None:
    """The config of a rule at `where`, checked; None when it is refused."""
    try:
        return CONFIGS[kind].model_validate(said)
    except ValidationError as wrong:
        for fault in wrong.errors(include_url=False, include_input=False):
            path = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in fault["loc"])
            code = _CODES.get(fault["type"], fault["type"])
            report.refuse(f"{where}.config{path}", code, f"Kind {kind}: {fault['msg']}.")
        return None
