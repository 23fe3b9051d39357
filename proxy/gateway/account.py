"""What the guard says of one stream, whether there is a guard or not."""

from proxy.gateway.texts import Texts
from proxy.model.policy import PolicyResult


class Account:
    """Told to whoever writes the record; empty without a guard."""

    __slots__ = ("_texts",)

    def __init__(self, texts: Texts | None) -> None:
        self._texts = texts

    @property
    def blocked(self) -> PolicyResult | None:
        return self._texts.blocked if self._texts is not None else None

    @property
    def message(self) -> str:
        """The sentence for the caller when `blocked`."""
        return self._texts.message if self._texts is not None else ""

    @property
    def chars(self) -> int:
        """Of text that came, on guarded routes."""
        return self._texts.chars if self._texts is not None else 0

    def results(self) -> list[PolicyResult]:
        return self._texts.results() if self._texts is not None else []

    def coverage(self) -> int:
        """Characters that some rule has looked at."""
        return self._texts.coverage() if self._texts is not None else 0

    def overflows(self) -> list[tuple[str, str]]:
        return self._texts.overflows() if self._texts is not None else []
