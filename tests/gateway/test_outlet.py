"""What is kept of streams for the case that they die, and how much of it there may be."""

from proxy.gateway.outlet import BLOCK_BYTES, KEPT_BYTES, Keeping, Outlet
from tests.kit.fakes import RecordingDownstream


def test_what_was_written_is_kept_and_given_back() -> None:
    keeping, caller = Keeping(), RecordingDownstream()
    before = keeping.left
    outlet = Outlet(caller, keeping)
    for piece in (b"one ", b"", b"two ", b"x" * 3 * BLOCK_BYTES):
        outlet.write(piece)
    assert outlet.released == caller.received
    assert outlet.released.startswith(b"one two x")
    assert before - keeping.left == 4 * BLOCK_BYTES
    outlet.close()
    assert keeping.left == before


def test_a_stream_over_the_limit_is_not_kept() -> None:
    keeping, caller = Keeping(), RecordingDownstream()
    before = keeping.left
    outlet = Outlet(caller, keeping)
    for _ in range(KEPT_BYTES // BLOCK_BYTES):
        outlet.write(b"x" * BLOCK_BYTES)
    assert not outlet.too_long
    outlet.write(b"x")
    outlet.write(b"y")
    assert outlet.too_long
    assert (outlet.released, keeping.left) == (b"", before)
    assert caller.bytes_sent == KEPT_BYTES + 2
    outlet.close()
    assert keeping.left == before


def test_all_of_a_worker_share_a_limit() -> None:
    keeping = Keeping(2 * BLOCK_BYTES)
    outlets = [Outlet(RecordingDownstream(), keeping) for _ in range(3)]
    for outlet in outlets:
        outlet.write(b"x")
    assert [outlet.too_long for outlet in outlets] == [False, False, True]
    outlets[0].close()
    later = Outlet(RecordingDownstream(), keeping)
    later.write(b"x")
    assert not later.too_long
