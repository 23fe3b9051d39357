"""Every bound of the engine in one place (storage.md §3)."""

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Bounds:
    """Defaults are what runs; tests make them small."""

    queue_batches: int = 10_000  # waiting for the writer; above it `storage-unavailable`
    group_batches: int = 500  # in one transaction
    group_s: float = 0.002
    segment_entries: int = 20_000
    read_entries: int = 20_000  # by one question to a log; above it the page is partial
    page_entries: int = 1_000
    query_s: float = 2.0  # above it `query-timeout`
    queue_questions: int = 1_000  # waiting for a reader; above it `overloaded`
    retry_s: float = 5.0  # after the disk failed


DEFAULT = Bounds()
