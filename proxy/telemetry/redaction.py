"""Secrets never leave: exact values that are known, and the shapes of those that are not.

One `Redactor` stands in front of every log line and of everything foreign that is kept or shown.
It works on text; values shorter than 8 characters are left alone, since they stand for too much.
"""

import base64
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

MASK: Final = "***"
MIN_CHARS: Final = 8
_PATTERNS: Final = (
    (re.compile(r"(?i)\b((?:proxy-)?authorization\"?\s*[:=]\s*\"?(?:(?:bearer|basic)\s+)?)"
                r"[^\s\",;]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b((?:x-api-key|api-key|x-goog-api-key|x-parapet-key)\"?\s*[:=]\s*\"?)"
                r"[^\s\",;]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{8,}"), rf"\1{MASK}"),
    (re.compile(r"\bppt_([A-Za-z0-9]{1,64})_[A-Za-z0-9]+"), rf"ppt_\1_{MASK}"),
    (re.compile(r"\b(sk-|whsec_|gsk_|AIza)[A-Za-z0-9_+/=-]{8,}"), rf"\1{MASK}"),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"), rf"\1{MASK}"),
    (re.compile(r"(hooks\.slack\.com/services/)[A-Za-z0-9/_-]+"), rf"\1{MASK}"),
    (re.compile(r"(://)[^/\s:@\"]*:[^/\s@\"]+@"), rf"\1{MASK}@"),
)  # fmt: skip


class Redactor:
    """`secrets` are known values; each is found raw, URL-encoded and in base64."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._exact = re.compile("(?!)")
        self.know(secrets)

    def know(self, secrets: Iterable[str]) -> None:
        """Replace the known values: after a reload."""
        forms: set[str] = set()
        for secret in secrets:
            if len(secret) >= MIN_CHARS:
                encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
                forms |= {secret, quote(secret, safe=""), encoded}
        longest_first = sorted(forms, key=len, reverse=True)
        self._exact = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def redact(self, text: str) -> str:
        text = self._exact.sub(MASK, text)
        for pattern, mask in _PATTERNS:
            text = pattern.sub(mask, text)
        return text

    def __repr__(self) -> str:
        return "<Redactor>"
