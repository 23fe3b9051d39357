"""Many scripts at once on one provider: each caller drives in a lane of its own.

A request belongs to the lane that its prompt names and to the endpoint that its path begins with,
whatever its dialect, so that faults of one lane never meet the requests of another:

    lanes = Lanes(provider)
    lanes.open("s03", {"wall": [status(500), ok()], "wall-ok": ok()})
    await post(provider.url + "/wall/v1/chat/completions", {... prompt("s03") ...})
    assert len(lanes.asked("s03", "wall")) == 1
"""

import re
from collections.abc import Mapping

from tests.kit.provider import Entry, FakeProvider
from tests.kit.replies import Casting, Script, status
from tests.kit.reply import Reply
from tests.kit.script import Request

_LANE = re.compile(rb"lane:([a-z0-9-]+)")


def prompt(lane: str, said: str = "What did the keeper write?") -> str:
    """What a caller asks who drives in that lane."""
    return f"lane:{lane} {said}"


def lane_of(request: Request) -> str:
    """The lane that the body names; empty: none."""
    found = _LANE.search(request.body)
    return found[1].decode() if found else ""


def endpoint_of(request: Request) -> str:
    """The first segment of the path."""
    return request.path.strip("/").partition("/")[0]


class Lanes:
    """Takes over the script of a provider.  Nobody's requests are answered with 404."""

    def __init__(self, provider: FakeProvider) -> None:
        self._provider = provider
        self._casts: dict[str, Casting] = {}
        self._entries: dict[str, list[Entry]] = {}
        self._sorted = 0
        provider.play(self._reply)

    def __repr__(self) -> str:
        return f"<Lanes {len(self._casts)} open>"

    def open(self, lane: str, scripts: Mapping[str, Script]) -> None:
        """What each endpoint answers in that lane; `"*"` for all that are not named."""
        self._casts[lane] = Casting(scripts)

    def asked(self, lane: str, endpoint: str | None = None) -> list[Entry]:
        """The requests of a lane, in the order in which they arrived; None: at any endpoint."""
        for entry in self._provider.journal[self._sorted :]:
            self._entries.setdefault(lane_of(entry.request), []).append(entry)
        self._sorted = len(self._provider.journal)
        found = self._entries.get(lane, [])
        return [each for each in found if endpoint in (None, endpoint_of(each.request))]

    def _reply(self, request: Request) -> Reply:
        cast = self._casts.get(lane_of(request))
        if cast is None:
            return status(404, message="no such lane")
        return cast.reply(endpoint_of(request), request)
