"""Callers of streams who have heard nothing for long: they get their headers and heartbeats before
anybody has answered (failover.md §9).

From then on every error is told in-band, and the headers name no endpoint: it may still change.
"""

from typing import Final

from proxy.gateway.blocks import policy_line
from proxy.gateway.turn import Turn
from proxy.wire.dialects.lanes import SPEAKING
from proxy.wire.headers import REQUEST_ID

LEAST_S: Final = 10.0
BEYOND_S: Final = 5.0  # the limit of the first content
APART_S: Final = 10.0
BEAT: Final = b":\n\n"  # a comment; every client of these dialects skips it


class Early:
    """Of one worker."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[float, Turn]] = {}  # by identity: when it is due

    def __repr__(self) -> str:
        return f"<Early {len(self._waiting)} waiting>"

    def waits(self, turn: Turn) -> None:
        """A request whose answer is a stream."""
        if turn.exchange.surface.operation in SPEAKING:
            due = turn.started + max(LEAST_S, turn.route.first_content_s + BEYOND_S)
            self._waiting[id(turn)] = (due, turn)

    def over(self, turn: Turn) -> None:
        """Its caller hears something, or nothing more."""
        self._waiting.pop(id(turn), None)

    def sweep(self, now: float) -> None:
        """Every 100 ms."""
        for key, (due, turn) in list(self._waiting.items()):
            if due <= now:
                self._waiting[key] = (now + APART_S, turn)
                if not turn.early:
                    turn.early = True
                    turn.record.status_code = 200
                    turn.caller.begin(200, _lines(turn), length=None)
                turn.caller.write(BEAT)


def _lines(turn: Turn) -> bytes:
    request_id = turn.record.request_id.encode("ascii")
    return b"content-type: text/event-stream\r\n%b: %b\r\nx-parapet-request-id: %b\r\n%b%b" % (
        REQUEST_ID[turn.exchange.surface.dialect],
        request_id,
        request_id,
        turn.route.head_lines,
        policy_line(turn),
    )
