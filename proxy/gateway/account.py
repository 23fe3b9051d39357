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
    def texts(self) -> Texts | None:
        """All texts and what was found in them; None: no rule looks at this stream."""
        return self._texts
