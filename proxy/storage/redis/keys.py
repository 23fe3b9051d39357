"""Every key (storage.md §4).  All keys of a workspace share the hash tag `{workspace}`, so that one
script may touch them."""

from typing import Final

WORKSPACES: Final = b"parapet:workspaces"  # SET: what retention has to look after
PROBE: Final = b"parapet:probe"  # STRING: written once a second to know whether writing works

NODES: Final = b"parapet:nodes"  # ZSET: process -> its last beat in ms
NODES_SAY: Final = b"parapet:nodes:say"  # HASH: process -> JSON of what it says of itself
CHANGES: Final = b"parapet:ch:cfg"  # channel: the process that committed a change
STANDINGS: Final = "parapet:ch:fo"  # channel: the process whose endpoints stand otherwise now

COMMIT_MS: Final = 3_600_000  # how long the result of a commit is told again
BEHIND: Final = "inf"  # the due of a row of the outbox that waits for another one


def limits(minute: int) -> bytes:
    """HASH `<process>|<scope>|<workspace>|<id>` -> what it took of that limit in that minute."""
    return b"parapet:{_limits}:%d" % minute


def number_of(number: int) -> str:
    """A row of the outbox in a sorted set: rows of the same score go by their numbers."""
    return f"{number:016}"


class Keys:
    """The keys of one workspace.  `staged`: those of an import that is under way."""

    def __init__(self, workspace_id: str, *, staged: bool = False) -> None:
        self._prefix = f"parapet:{{{workspace_id}}}:{'import:' if staged else ''}"

    def _key(self, name: str) -> bytes:
        return (self._prefix + name).encode()

    # documents
    def documents(self, kind: str) -> bytes:
        """HASH id -> `<revision>:<body>`."""
        return self._key(f"doc:{kind}")

    def kinds(self) -> bytes:
        """SET of the kinds that were ever written."""
        return self._key("kinds")

    def gone(self) -> bytes:
        """HASH `<kind>\\0<id>` -> last revision of a document that was deleted."""
        return self._key("gone")

    def gone_at(self) -> bytes:
        """ZSET `<kind>\\0<id>` by the time of its deletion."""
        return self._key("gone:at")

    def unique(self, kind: str) -> bytes:
        """HASH `<field>\\0<value>` -> id of the document that holds it."""
        return self._key(f"uniq:{kind}")

    def held(self, kind: str) -> bytes:
        """HASH id -> JSON list of the `<field>\\0<value>` that it holds."""
        return self._key(f"held:{kind}")

    # logs
    def log(self, log: str) -> bytes:
        """STREAM, id `<seq>-0`: r received, k event key, m what it is searched by, b body."""
        return self._key(f"log:{log}")

    def seq(self, log: str) -> bytes:
        """STRING: the last `seq`."""
        return self._key(f"seq:{log}")

    def tip(self, log: str) -> bytes:
        """STRING: the hash of the last row of a chain."""
        return self._key(f"tip:{log}")

    def logs(self) -> bytes:
        """SET of the logs that were ever written."""
        return self._key("logs")

    def by_id(self, log: str) -> bytes:
        """HASH event key -> newest `seq`."""
        return self._key(f"eid:{log}")

    def dedupe(self, event_key: bytes) -> bytes:
        """STRING `<expires>:<seq>:<received>:<content hash>`, with a time to live."""
        return self._key(f"dd:{event_key.hex()}")

    # the rest
    def idempotency(self, key: bytes) -> bytes:
        """HASH f fingerprint, s status, h headers, b body, x expires, with a time to live."""
        return self._key(f"idem:{key.hex()}")

    def cursors(self) -> bytes:
        """HASH name -> position."""
        return self._key("cur")

    def rollup(self, hour: int) -> bytes:
        """HASH `<minute>/<counter>/<series>` -> sum."""
        return self._key(f"roll:{hour}")

    def rollups(self) -> bytes:
        """ZSET of the hours that have a rollup."""
        return self._key("rolls")

    # the outbox
    def waiting(self) -> bytes:
        """ZSET of rows by due; infinite: another row of the group is before it."""
        return self._key("outbox")

    def claimed(self) -> bytes:
        """ZSET of rows by the end of their claim, by the server's clock."""
        return self._key("outbox:claimed")

    def rows(self) -> bytes:
        """What the key of a row begins with.  HASH t target, g group, k kind, p payload, d due,
        a attempts, o owner, n token."""
        return self._key("ob:")

    def row(self, number: int) -> bytes:
        return self.rows() + b"%d" % number

    def all_rows(self) -> bytes:
        """ZSET of all rows, by number."""
        return self.rows() + b"all"

    def group(self, target: str, group: str) -> bytes:
        """ZSET of the rows of a group, by number."""
        return self._key(f"ob:g:{target}\0{group}")

    # leases: they come and go with the nodes, and stay when a workspace is moved
    def lease(self) -> bytes:
        """STRING `<node>:<token>`, with a time to live."""
        return self._key("lease")

    def lease_token(self) -> bytes:
        """STRING: the last token that was given."""
        return self._key("lease:t")

    def commit(self, commit_id: str) -> bytes:
        """STRING: the result of a commit, for `COMMIT_MS`."""
        return self._key(f"cm:{commit_id}")

    # what may be lost
    def bucket(self, rate_class: str, owner: str) -> bytes:
        """STRING `<seconds>:<nanoseconds>`: theoretical arrival time, for a window."""
        return self._key(f"rl:{rate_class}:{owner}")

    def mark(self, key: bytes) -> bytes:
        """STRING `<process>:<fingerprint>`: an idempotent request under way, for a minute."""
        return self._key(f"run:{key.hex()}")

    def states(self, policy_id: str) -> bytes:
        """HASH endpoint -> how it stands (lua/standing.lua), for a day."""
        return self._key(f"fo:{policy_id}:st")

    def counts(self, policy_id: str, endpoint_id: str) -> bytes:
        """HASH bucket -> `<number> <counts>`, for two windows."""
        return self._key(f"fo:{policy_id}:w:{endpoint_id}")

    def holds(self) -> bytes:
        """HASH hold -> until when (lua/holds.lua), for an hour after the last one."""
        return self._key("fo:holds")

    def probe(self, policy_id: str, endpoint_id: str) -> bytes:
        """STRING: the node that may probe, while its lease lasts."""
        return self._key(f"fo:{policy_id}:probe:{endpoint_id}:0")

    def everything(self) -> str:
        """A pattern for SCAN.  Workspace ids have no letter that means something in it."""
        return f"{self._prefix}*"

    def recognitions(self) -> str:
        """A pattern for SCAN: `dedupe`."""
        return f"{self._prefix}dd:*"

    def records(self) -> str:
        """A pattern for SCAN: `idempotency`."""
        return f"{self._prefix}idem:*"
