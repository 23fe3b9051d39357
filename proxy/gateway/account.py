"""What the guard says of one stream, whether there is a guard or not."""

from proxy.gateway.texts import Texts
from proxy.guardrails.engine import Judgement
from proxy.model.policy import PolicyResult


class Account:
    """Told to whoever writes the record; empty without a guard.  `over`: nothing more is read."""

    __slots__ = ("_texts", "over")

    def __init__(self, texts: Texts | None) -> None:
        self._texts = texts
        self.over = False

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

    def outside(self, judged: Judgement) -> None:
        """Take what checks outside say into the account; after a block nothing more leaves."""
        assert self._texts is not None, "who asks outside has a guard"
        self._texts.note(judged)
        self.over = self.over or judged.block is not None
