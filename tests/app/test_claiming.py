"""Claims on permits: of all processes of a node one has each at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.app.claiming import Claims
from proxy.model.failover import FailoverPolicy, Recovery
from proxy.routing.standing import Standing
from tests.kit.builders import policy

OTHER = """
import sys
from pathlib import Path
from proxy.app.claiming import Claims
from tests.app.test_claiming import standing
claim = Claims(Path(sys.argv[1])).of(standing(), "openai")
for line in sys.stdin:
    print(claim.take() if line.strip() == "take" else claim.free(), flush=True)
"""


def standing(**recovery: int) -> Standing:
    said: FailoverPolicy = policy("openai", "spare")
    said = said.model_copy(update={"recovery": Recovery(**recovery)})
    return Standing(said, lambda: 0.5)


def test_a_process_has_each_once(tmp_path: Path) -> None:
    claims, of = Claims(tmp_path), standing(probe_max_concurrent=2)
    first, second, third = (claims.of(of, "openai") for _ in range(3))
    other = claims.of(of, "spare")
    assert first
    assert second
    assert third
    assert other
    assert [each.take() for each in (first, second, third, other)] == [True, True, False, True]
    third.free()  # it has none
    first.free()
    first.free()
    assert [each.take() for each in (third, first)] == [True, False]


@pytest.mark.process
def test_of_two_processes_one_has_it_and_what_a_dead_one_had_is_free(tmp_path: Path) -> None:
    mine = Claims(tmp_path).of(standing(), "openai")
    assert mine is not None
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdin is not None
        assert other.stdout is not None

        def says(word: str) -> str:
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdin.write(word + "\n")
            other.stdin.flush()
            return other.stdout.readline().strip()

        assert says("take") == "True"
        assert not mine.take()
        says("free")
        assert mine.take()
        assert says("take") == "False"
        mine.free()
        assert says("take") == "True"
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        assert mine.take()


def test_where_there_are_no_locks_each_worker_probes_for_itself(tmp_path: Path) -> None:
    assert Claims(tmp_path / "nowhere").of(standing(), "openai") is None
