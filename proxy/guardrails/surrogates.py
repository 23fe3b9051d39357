"""Halves of surrogate pairs in text that came in pieces."""

from typing import Final

UNPAIRED: Final = "\ufffd"


def mended(text: str) -> tuple[str, str]:
    """The text with halves joined and lone ones made U+FFFD; and a high half at its end, for which
    the rest may be on its way."""
    try:
        text.encode()
    except UnicodeEncodeError:
        waiting = text[-1] if 0xD800 <= ord(text[-1]) <= 0xDBFF else ""
        whole = text.removesuffix(waiting)
        return whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), waiting
    return text, ""
