"""The benchmark must not lie: its arithmetic, its readers and its pacing are tested like a product.

What needs nginx or a second core is not run here.
"""

import json
import math
from pathlib import Path

import pytest

from benchmarks.load import cpu, peers, texts
from benchmarks.load.rounds import Memory, Round, order, together
from benchmarks.load.workloads import BY_ID, FULL, QUICK
from benchmarks.regressions import regressions
from benchmarks.results import Described, Findings, cells, differences, document, gates
from benchmarks.stats import percentile, slope, spread, worst_residual
from benchmarks.table import render

OPENAI: texts.Dialect = "openai-chat"
MESSAGES: texts.Dialect = "anthropic-messages"


@pytest.fixture(autouse=True, scope="module")
def small_corpus() -> None:
    texts.corpus(0, 1_000_000)  # grown once, outside of any test's clock


# fmt: off
PERCENTILES = [
    ([5.0],                    99, 5.0),
    ([1.0, 2.0, 3.0],          50, 2.0),
    ([4.0, 1.0, 3.0, 2.0],     50, 2.5),
    ([0.0, 10.0],              75, 7.5),
    ([float(n) for n in range(101)], 99, 99.0),
]
# fmt: on


@pytest.mark.parametrize(("values", "percent", "expected"), PERCENTILES)
def test_percentile(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == pytest.approx(expected)


def test_arithmetic_of_nothing_is_not_a_number() -> None:
    assert math.isnan(percentile([], 50))
    assert math.isnan(slope([(1, 1)]))
    assert math.isnan(slope([(1, 1), (1, 2)]))


def test_slope_and_its_worst_miss() -> None:
    assert slope([(0, 10), (250, 260), (1000, 1010)]) == pytest.approx(1)
    assert worst_residual([(0, 10), (1, 20), (2, 30)]) == pytest.approx(0)
    assert spread([1, 2, 3, 4]).iqr == pytest.approx(1.5)


@pytest.mark.parametrize("dialect", [OPENAI, MESSAGES])
@pytest.mark.parametrize("size", [1024, 16_384, 204_800])
def test_bodies_have_their_size_and_are_fresh(dialect: texts.Dialect, size: int) -> None:
    shape = texts.Shape(dialect, size, stream=True, model="gpt-4o-mini")
    bodies = {shape.body(number) for number in range(20)}
    assert len(bodies) == 20
    assert {len(body) for body in bodies} == {size}
    assert all(json.loads(body)["stream"] for body in bodies)


@pytest.mark.parametrize("dialect", [OPENAI, MESSAGES])
def test_answers_are_documents_that_tell_their_number(dialect: texts.Dialect) -> None:
    for number in (0, 7, texts.POOL - 1):
        body = texts.answer(dialect, number, 1024)
        assert len(body) == 1024
        assert json.loads(body)
        assert texts.numbered(body) == number


def test_cpu_of_a_tree_is_read_from_both_clocks(tmp_path: Path) -> None:
    home = tmp_path / "7"
    (home / "task" / "7").mkdir(parents=True)
    (home / "stat").write_text("7 (a (b) c) S 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 0")
    (home / "task" / "7" / "schedstat").write_text("2000000000 0 9")
    (tmp_path / "8").mkdir()
    (tmp_path / "8" / "stat").write_text("8 (child) S 7 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 0")
    assert cpu.tree(7, tmp_path) == [7, 8]
    reading = cpu.read([7, 9], tmp_path)
    assert (reading.sched_ns, reading.ticks_ns) == (2_000_000_000, 200 * cpu.TICK_NS)


# fmt: off
CLOCKS = [
    # sched   ticks   used    agree
    (1.000,   1.010,  1.000,  True),
    (1.000,   1.500,  1.500,  False),   # threads that ended are in the ticks alone
    (0.005,   0.000,  0.005,  True),    # less than ticks can tell
]
# fmt: on


@pytest.mark.parametrize(("sched", "ticks", "used", "agree"), CLOCKS)
def test_the_two_clocks_are_held_against_each_other(
    sched: float, ticks: float, used: float, agree: bool
) -> None:
    now = cpu.Reading(int(sched * 1e9), int(ticks * 1e9), 1)
    assert now.since(cpu.Reading(0, 0, 1)) == (int(used * 1e9), agree)


def test_rounds_go_abba() -> None:
    assert order(["a", "b"], 0, 2) == ["a", "b", "b", "a"]
    assert order(["a", "b"], 1, 2) == ["b", "a", "a", "b"]
    assert [order(["a", "b"], number, 1) for number in (0, 1)] == [["a", "b"], ["b", "a"]]


# fmt: off
DISCARDED = [
    (Round(units=10),                                  ""),
    (Round(units=10, steal=0.02),                      "steal 2.0%"),
    (Round(units=10, slip_ms=1.5),                     "slip 1.5 ms"),
    (Round(units=10, errors=1, faults=["status 500"]), "1 errors (status 500)"),
    (Round(),                                          "nothing done"),
]
# fmt: on


@pytest.mark.parametrize(("one", "why"), DISCARDED)
def test_a_round_is_discarded_with_its_reason(one: Round, why: str) -> None:
    assert one.discarded == why


def costing(us: float) -> Round:
    return Round(units=20_000, cpu_ns=int(us * 20_000_000), side_ns=20_000_000, connections=32)


NAMES = ("nginx", "parapet", "parapet bare", "parapet no policy", "bifrost")
SUBJECTS = [
    Described(name, "1.0", "", "none", (), variant=name == "parapet no policy") for name in NAMES
]


def n1_findings(parapet: list[Round]) -> Findings:
    count = len(parapet)
    rounds = {
        ("N1", "nginx"): dict(enumerate([costing(10), costing(20), costing(10)][:count])),
        ("N1", "parapet"): dict(enumerate(parapet)),
        ("N1", "parapet bare"): dict(enumerate([costing(50), costing(110), costing(50)][:count])),
    }
    workloads = [BY_ID["N1"]]
    made = cells(workloads, SUBJECTS, rounds)
    told = differences(rounds, workloads)
    absent = {"bifrost": "pass --peer name=bifrost,url=…,pid=…"}
    return Findings(SUBJECTS, made, gates(made, workloads), told, absent)


def test_ratios_are_paired_within_a_round() -> None:
    found = n1_findings([costing(60), costing(120), costing(60)])
    cell = found.cell("N1", "parapet")
    assert cell is not None
    assert cell.ratio_nginx is not None
    assert (cell.ratio_nginx.median, cell.ratio_nginx.iqr) == (6.0, 0.0)
    assert not found.missed
    assert found.differences[0].startswith("G50  pack, both ways: +10.0 µs = +1.00 N")


def test_discarded_rounds_do_not_count_and_a_gate_without_value_is_missed() -> None:
    bad = Round(units=20_000, cpu_ns=1, errors=2, faults=["status 500"])
    found = n1_findings([costing(90), bad, costing(90)])
    cell = found.cell("N1", "parapet")
    assert cell is not None
    assert (cell.rounds, cell.errors, cell.valid) == (2, 2, True)
    assert [gate.id for gate in found.missed] == ["G1"]  # 9 N
    all_bad = n1_findings([bad, bad, bad])
    assert [(gate.id, gate.value) for gate in all_bad.missed] == [("G1", None)]


def test_a_regression_is_dearer_in_nearly_every_round() -> None:
    kept = document(n1_findings([costing(60), costing(120), costing(60)]), {})
    dearer = n1_findings([costing(64), costing(128), costing(64)])
    once = n1_findings([costing(64), costing(120), costing(60)])
    assert regressions(dearer.cells, kept) == ["N1 parapet: above 6.00 N x 1.05 in 3 of 3 rounds"]
    assert regressions(once.cells, kept) == []
    assert regressions(dearer.cells, {}) == []


def test_memory_per_stream_is_the_slope() -> None:
    points = tuple((count, 50_000_000 + count * 40 * 1024) for count in (0, 250, 500, 1000))
    one = Round(units=1000, memory=Memory(points, 55_000_000, 2000))
    made = cells([BY_ID["S-open"]], SUBJECTS, {("S-open", "parapet"): {0: one}})
    assert made[0].kb_per_stream is not None
    assert made[0].kb_per_stream.median == pytest.approx(40)
    assert made[0].back_percent == pytest.approx(10)
    assert [gate.passed for gate in gates(made, [BY_ID["S-open"]])] == [True]


def test_latency_is_added_to_direct_in_the_same_round() -> None:
    def first(ms: float) -> Round:
        return Round(units=100, cpu_ns=1000, first={"p50": ms, "p99": ms * 2})

    rounds = {
        ("S-paced", "direct"): {0: first(1.0), 1: first(5.0)},
        ("S-paced", "parapet"): {0: first(1.5), 1: first(5.5)},
    }
    described = [Described("direct", "", "", "", ()), *SUBJECTS]
    made = {cell.subject: cell for cell in cells([BY_ID["S-paced"]], described, rounds)}
    assert made["parapet"].added_ms == pytest.approx({"p50": 0.5, "p99": 1.0})


def test_the_table_shows_every_subject_the_absent_ones_with_their_reason() -> None:
    found = n1_findings([costing(60), costing(120), costing(60)])
    text = render(found, [BY_ID["N1"]])
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "6.0x" in rows["parapet 1.0"]
    assert "not here: pass --peer name=bifrost" in rows["bifrost 1.0"]
    assert "parapet no policy 1.0" not in rows
    assert "ok      G1" in text


def test_the_kept_document_is_json_of_the_schema() -> None:
    found = n1_findings([costing(60), costing(120), costing(60)])
    kept = json.loads(json.dumps(document(found, {"commit": "abc"})))
    assert kept["schema"] == 1
    assert kept["cells"][1]["ratio_nginx"] == {"median": 6.0, "iqr": 0.0}
    assert kept["gates"][0] == {"id": "G1", "limit": 8.0, "goal": 6.0, "value": 6.0, "pass": True}


def test_together_adds_up_and_keeps_the_worst() -> None:
    whole = together([Round(units=1, steal=0.5), Round(units=2, errors=1, faults=["x"])])
    assert (whole.units, whole.steal, whole.errors) == (3, 0.5, 1)


# fmt: off
PEERS = [
    ("name=x,url=http://127.0.0.1:1/v1,pid=4,header=A:b,speaks=openai-chat", None),
    ("name=x",                                       "needs url"),
    ("url=http://127.0.0.1:1",                       "needs name"),
    ("name=x,url=https://127.0.0.1",                 "must be http"),
    ("name=x,url=http://h,pid=me",                   "pid must be a number"),
    ("name=x,url=http://h,colour=red",               "no such key"),
    ("name=x,url=http://h,speaks=latin",             "speaks latin"),
    ("name=x,url=http://h,header=A",                 "name:value"),
    ("rubbish",                                      "not key=value"),
]
# fmt: on


@pytest.mark.parametrize(("argument", "fault"), PEERS)
def test_a_peer_is_read_or_refused_with_the_reason(argument: str, fault: str | None) -> None:
    if fault is None:
        assert peers.from_argument(argument).pid == 4
        return
    with pytest.raises(peers.PeerError, match=fault):
        peers.from_argument(argument)


@pytest.mark.parametrize("name", peers.known())
def test_every_peer_file_can_be_read(name: str) -> None:
    peer = peers.from_file(name)
    assert peer.start
    assert peer.install


def test_an_unknown_peer_file_is_refused_with_those_there_are() -> None:
    with pytest.raises(peers.PeerError, match=r"there are: .*haproxy"):
        peers.from_file("nobody")


def test_the_quick_set_is_part_of_the_full_one() -> None:
    assert set(QUICK) <= set(FULL)
    assert len(BY_ID) == len(FULL)
