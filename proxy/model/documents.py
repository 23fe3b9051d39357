"""What strangers send: the base of every document, slugs, references to secrets."""

import re
import unicodedata
from functools import lru_cache
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
)

from proxy.model.events import parse_time

SLUG = r"^[a-z0-9][a-z0-9._-]{0,127}$"
Slug = Annotated[str, StringConstraints(pattern=SLUG)]
_SLUGS: Final = 16_384  # of the names of a large installation
_EXACT = 2**53  # beyond it not every integer is a float
# 3000 comes back as 3000, not as 3000.0
Number = Annotated[
    float, PlainSerializer(lambda n: int(n) if n.is_integer() and abs(n) < _EXACT else n)
]
Severity = Literal["info", "low", "medium", "high", "critical"]
SEVERITY_RANK: dict[str, int] = {"info": 0, "low": 1, "medium": 2, "high": 3, "critical": 4}


@lru_cache(_SLUGS)
def slug(name: str) -> str:
    """The id that a document gets from its name: `Slack DevOps` is `slack-devops`."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:128]


def _composed(value: object) -> object:
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


# names are compared: two that look alike are the same
COMPOSED: Final = BeforeValidator(_composed)
Name = Annotated[str, Field(min_length=1, max_length=100), COMPOSED]


def _instant(value: str) -> str:
    if parse_time(value) is None:
        raise ValueError("must be an RFC 3339 time with an offset")
    return value


Instant = Annotated[str, AfterValidator(_instant), Field(json_schema_extra={"format": "date-time"})]


class Doc(BaseModel):
    """A document of ours: frozen, and an unknown member is an error that names its path."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class EnvRef(Doc):
    """`{$env: NAME}`"""

    env: str = Field(alias="$env", min_length=1, max_length=255)


class FileRef(Doc):
    """`{$file: PATH}`"""

    file: str = Field(alias="$file", min_length=1, max_length=4096)


Secret = Annotated[str, StringConstraints(min_length=1, max_length=65_536)] | EnvRef | FileRef
