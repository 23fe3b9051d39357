"""Reading a spool: torn, corrupt, rotated, lost, read again (T-ST-09)."""

from pathlib import Path

import pytest

from proxy.spool.reader import Chunk, SpoolReader
from proxy.spool.segment import (
    place_of,
    position_of,
    position_path,
    read_position,
    segments,
    spool_dir,
    write_position,
)
from tests.kit.spool import lines_of, write_segment


def ids(chunks: list[Chunk]) -> list[str]:
    return [str(line.said.events[0].body["event_id"]) for one in chunks for line in one.lines]


def take(reader: SpoolReader, now_s: float = 0.0) -> list[str]:
    """Read and commit what is there."""
    found: list[str] = []
    while chunks := reader.poll(now_s):
        found += ids(chunks)
        for chunk in chunks:
            reader.done(chunk)
    return found


def evts(*numbers: int) -> list[str]:
    return [f"evt-{number}" for number in numbers]


def test_positions_only_grow() -> None:
    assert position_of(1, 0) > position_of(0, 1 << 39)
    assert place_of(position_of(7, 123)) == (7, 123)


def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    assert SpoolReader(tmp_path).poll(0.0) == []


def test_new_lines_are_found_where_reading_ended(tmp_path: Path) -> None:
    reader = SpoolReader(tmp_path)
    write_segment(tmp_path, "0", "plain", 1, lines_of([1, 2]))
    assert take(reader) == evts(1, 2)
    assert take(reader) == []
    write_segment(tmp_path, "0", "plain", 1, lines_of([3]))
    write_segment(tmp_path, "1", "critical", 1, lines_of([4]))
    assert take(reader) == evts(3, 4)
    assert (reader.corrupt, reader.waiting_bytes) == (0, 0)


def test_a_chunk_is_given_again_until_it_is_done(tmp_path: Path) -> None:
    reader = SpoolReader(tmp_path)
    write_segment(tmp_path, "0", "plain", 1, lines_of([1]))
    first = reader.poll(0.0)
    write_segment(tmp_path, "0", "plain", 1, lines_of([2]))
    assert reader.poll(0.0) == first
    assert reader.waiting_bytes > 0
    reader.done(first[0])
    assert ids(reader.poll(0.0)) == evts(2)


def test_every_cut_of_the_last_line_waits_for_its_rest(tmp_path: Path) -> None:
    whole, cut = lines_of([1, 2])
    for at in (0, 1, 5, 9, len(cut) // 2, len(cut) - 1):
        state_dir = tmp_path / str(at)
        reader = SpoolReader(state_dir)
        write_segment(state_dir, "0", "plain", 1, [whole, cut[:at]])
        assert take(reader) == evts(1)
        write_segment(state_dir, "0", "plain", 1, [cut[at:]])
        assert take(reader) == evts(2)
        assert reader.corrupt == 0


def test_a_bad_checksum_at_the_very_end_waits_and_elsewhere_is_skipped(tmp_path: Path) -> None:
    first, second, third = lines_of([1, 2, 3])
    bad = second.replace(b"prod-chat", b"prod-cat!")
    reader = SpoolReader(tmp_path)
    write_segment(tmp_path, "0", "plain", 1, [first, bad])
    assert take(reader) == evts(1)
    assert reader.corrupt == 0
    write_segment(tmp_path, "0", "plain", 1, [third])
    assert take(reader) == evts(3)
    assert reader.corrupt == 1


def test_a_torn_end_is_given_up_when_the_next_segment_has_lines(tmp_path: Path) -> None:
    reader = SpoolReader(tmp_path)
    first, torn, after = lines_of([1, 2, 3])
    write_segment(tmp_path, "0", "plain", 1, [first, torn[:50]])
    write_segment(tmp_path, "0", "plain", 2, [])  # prepared, not begun
    assert take(reader) == evts(1)
    assert reader.corrupt == 0
    write_segment(tmp_path, "0", "plain", 2, [after])
    assert take(reader) == evts(3)
    assert reader.corrupt == 1


def test_lines_that_came_last_are_read_before_the_next_segment(tmp_path: Path) -> None:
    reader = SpoolReader(tmp_path)
    write_segment(tmp_path, "0", "plain", 1, lines_of([1]))
    assert take(reader) == evts(1)
    write_segment(tmp_path, "0", "plain", 1, lines_of([2]))
    write_segment(tmp_path, "0", "plain", 4, lines_of([3]))
    assert take(reader) == evts(2, 3)
    assert (reader.corrupt, reader.gaps) == (0, 0)


def test_a_segment_that_was_dropped_unread_is_a_gap(tmp_path: Path) -> None:
    reader = SpoolReader(tmp_path)
    gone = write_segment(tmp_path, "0", "plain", 1, lines_of([1]))
    take(reader)
    write_segment(tmp_path, "0", "plain", 1, lines_of([2]))
    gone.unlink()
    write_segment(tmp_path, "0", "plain", 3, lines_of([3]))
    assert take(reader) == evts(3)
    assert reader.gaps == 1


# fmt: off
RUBBISH = [b"\n", b"\n\n\n", b"rubbish\n", b"00000000 {}\n", b"\x00" * 5000 + b"\n", b"\xff\xfe\n"]
# fmt: on


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_rubbish_between_lines_costs_only_itself(tmp_path: Path, rubbish: bytes) -> None:
    reader = SpoolReader(tmp_path)
    first, second = lines_of([1, 2])
    write_segment(tmp_path, "0", "plain", 1, [rubbish, first, rubbish, second])
    assert take(reader) == evts(1, 2)
    assert reader.corrupt == (0 if not rubbish.strip(b"\n") else 2)


def test_an_endless_line_is_skipped_in_pieces_and_counted_once(tmp_path: Path) -> None:
    reader = SpoolReader(tmp_path)
    first, second = lines_of([1, 2])
    write_segment(tmp_path, "0", "plain", 1, [first, b"y" * 3_500_000, b"\n", second])
    assert take(reader) == evts(1, 2)
    assert reader.corrupt == 1


def test_chunks_are_bounded(tmp_path: Path) -> None:
    reader = SpoolReader(tmp_path)
    write_segment(tmp_path, "0", "plain", 1, lines_of(range(2100)))
    (chunk,) = reader.poll(0.0)
    assert len(chunk.lines) == 1000
    assert take(reader) == evts(*range(2100))


def test_a_restart_reads_from_the_position_file(tmp_path: Path) -> None:
    write_segment(tmp_path, "0", "plain", 1, lines_of([1, 2]))
    reader = SpoolReader(tmp_path)
    take(reader)
    write_segment(tmp_path, "0", "plain", 1, lines_of([3]))
    assert take(SpoolReader(tmp_path)) == evts(1, 2, 3)  # not yet noted
    reader.note(0.0)
    assert take(SpoolReader(tmp_path)) == evts(3)


@pytest.mark.parametrize("text", ["", "-5", "x", "9" * 400, "\xff", "1.5"])
def test_a_bad_position_file_costs_reading_only(tmp_path: Path, text: str) -> None:
    write_segment(tmp_path, "0", "plain", 1, lines_of([1]))
    position_path(spool_dir(tmp_path) / "0", "plain").write_text(text, "latin-1")
    assert read_position(spool_dir(tmp_path) / "0", "plain") == 0
    assert take(SpoolReader(tmp_path)) == evts(1)


def test_segments_go_sixty_seconds_after_the_position_passed(tmp_path: Path) -> None:
    reader = SpoolReader(tmp_path)
    for number in (1, 2, 3):
        write_segment(tmp_path, "0", "plain", number, lines_of([number]))
    assert take(reader, 100.0) == evts(1, 2, 3)
    directory = spool_dir(tmp_path) / "0"
    for now_s, left in ((101.5, [1, 2, 3]), (160.0, [1, 2, 3]), (162.0, [3]), (400.0, [3])):
        reader.poll(now_s)
        assert [segment.number for segment in segments(directory)["plain"]] == left


def test_a_position_beyond_all_files_waits_for_new_ones(tmp_path: Path) -> None:
    write_segment(tmp_path, "0", "plain", 1, lines_of([1]))
    write_position(spool_dir(tmp_path) / "0", "plain", position_of(5, 0))
    reader = SpoolReader(tmp_path)
    assert take(reader) == []
    write_segment(tmp_path, "0", "plain", 6, lines_of([2]))
    assert take(reader) == evts(2)


def test_the_name_of_a_spool_stays(tmp_path: Path) -> None:
    name = SpoolReader(tmp_path).identity()
    assert name.isalnum()
    assert SpoolReader(tmp_path).identity() == name
    (spool_dir(tmp_path) / "id").write_text("")
    assert SpoolReader(tmp_path).identity() != name


def test_strangers_in_the_directory_are_left_alone(tmp_path: Path) -> None:
    write_segment(tmp_path, "0", "plain", 1, lines_of([1]))
    directory = spool_dir(tmp_path) / "0"
    (directory / "plain-1.log").write_text("x")
    (directory / "notes.txt").write_text("x")
    (spool_dir(tmp_path) / "..hidden").mkdir()
    assert take(SpoolReader(tmp_path)) == evts(1)
