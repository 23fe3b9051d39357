"""What is said in every row: sixty words of our own, in the pieces in which providers send them."""

TEXT = (
    "The keeper of the northern light wrote down each ship that passed, and when evening came he "
    "filled the lantern with oil, climbed the ninety steps again and watched until morning, "
    "because rain had run all night into the cistern below the tower, and nobody else on the "
    "island would have known how to keep one small flame safely burning."
)
OTHER = TEXT.replace("keeper", "captain")
"""Another answer to the same question; it differs from the fifth character on."""

LEADING = tuple(word if at == 0 else " " + word for at, word in enumerate(TEXT.split(" ")))
"""Words, each with the space before it."""

_LAST = len(LEADING) - 1
TRAILING = tuple(word + (" " if at < _LAST else "") for at, word in enumerate(TEXT.split(" ")))
"""Words, each with the space behind it."""

TORN = tuple(TEXT[at : at + 3] for at in range(0, len(TEXT), 3))
"""Three characters at a time: most pieces end inside a word."""

HOLDING = {
    "policy_pack_id": "holding",
    "rules": [{"rule_id": "mark", "pattern": "tern[0-9]{4}", "action": "redact"}],
}
"""A pack that holds text back: `tern` at the end of what came may be the begin of a match.  The
twentieth word of the answer ends so, and the fortieth."""
