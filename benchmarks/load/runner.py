"""Carries a run out: starts everything, goes round by round, reads the clocks around each pass.

The subject has the first core alone; mock, generator and this process share the others.
"""

import contextlib
import os
import resource
import shutil
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import orjson

from benchmarks.load import cpu
from benchmarks.load.children import CannotStart
from benchmarks.load.helper import Answer, Helper, as_dict, number_of, percentiles, whole
from benchmarks.load.rounds import Memory, Round, order, together
from benchmarks.load.subjects import ROOT, Place, Subject
from benchmarks.load.workloads import Workload

WARM_UP = 2_000
EXTRA_ROUNDS = 3
Say = Callable[[str], None]


@dataclass(slots=True)
class Tally:
    """Everything a run found out."""

    rounds: dict[tuple[str, str], dict[int, Round]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    ceiling_rps: float = 0
    seconds: float = 0
    notes: list[str] = field(default_factory=list)

    def of(self, workload: str, subject: str) -> dict[int, Round]:
        return self.rounds.setdefault((workload, subject), {})


class Bench:
    """One run.  Use as a context: whatever was started is stopped on the way out."""

    def __init__(self, subjects: Sequence[Subject], say: Say) -> None:
        self._subjects = {subject.name: subject for subject in subjects}
        self._say = say
        self.tally = Tally()
        self._warm: set[tuple[str, str]] = set()
        everywhere = sorted(os.sched_getaffinity(0))
        self.cores = {everywhere[0]}
        self.load_cores = set(everywhere[1:]) or self.cores
        self._stack = contextlib.ExitStack()
        self._place: Place
        self._mock_port = 0
        self._generator: Helper

    def __enter__(self) -> "Bench":
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if self.load_cores == self.cores:
            self.tally.notes.append("one core only: load and subject share it")
        os.sched_setaffinity(0, self.load_cores)
        scratch = ROOT / "var"
        scratch.mkdir(exist_ok=True)
        home = Path(mkdtemp(prefix="bench-", dir=scratch))
        home.chmod(0o755)
        self._stack.callback(shutil.rmtree, home, ignore_errors=True)
        try:
            mock = Helper("benchmarks.load.mock", self.load_cores)
            self._stack.callback(mock.stop)
            port = mock.read()
            assert isinstance(port, int)
            self._mock_port = port
            self._generator = Helper("benchmarks.load.generator", self.load_cores)
            self._stack.callback(self._generator.stop)
            self._generator.read()
            self._place = Place(self._mock_port, self.cores, hard, home)
            self._start_all()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_all(self) -> None:
        for name, subject in list(self._subjects.items()):
            self._stack.callback(subject.stop)
            try:
                subject.start(self._place)
                self._say(f"started {name} {subject.version}".rstrip())
            except CannotStart as why:
                self.absent(name, str(why))

    def absent(self, name: str, why: str) -> None:
        """The row stays; it says why it is empty."""
        self._say(f"without {name}: {why}")
        self.tally.absent[name] = why
        self._subjects.pop(name, None)

    def run(self, workloads: Sequence[Workload], rounds: int, budget_s: float) -> None:
        """Rounds until enough count, or the time is over."""
        begun = time.monotonic()
        if any(workload.kind == "closed" for workload in workloads):
            self._find_ceiling()
        number, latest = 0, 0.0
        while number < rounds + EXTRA_ROUNDS:
            due = [one for one in workloads if self._lacks(one, rounds, number)]
            if not due:
                break
            left = budget_s - (time.monotonic() - begun)
            if number and latest > left:
                self.tally.notes.append(f"stopped after {number} rounds: {budget_s:g} s are over")
                break
            started = time.monotonic()
            for workload in due:
                self._round(workload, number)
                self._progress(workload, number, rounds, time.monotonic() - begun)
            latest = time.monotonic() - started
            number += 1
        self.tally.seconds = time.monotonic() - begun

    def _lacks(self, workload: Workload, rounds: int, number: int) -> bool:
        """Scheduled rounds, then as many more as were discarded among ours and nginx."""
        wanted = min(rounds, workload.max_rounds)
        if number < wanted:
            return True
        if workload.kind == "hold":
            return False
        return any(
            sum(not one.discarded for one in self.tally.of(workload.id, name).values()) < wanted
            for name in ("nginx", "parapet")
            if name in self._subjects
        )

    def _takes_part(self, workload: Workload, subject: Subject) -> bool:
        if subject.name == "direct":
            return workload.against_direct
        if subject.variant and not workload.variants:
            return False
        if workload.kind == "open" and not self._carries(workload, subject.name):
            return False
        return workload.dialect in subject.target.dialects

    def _carries(self, workload: Workload, name: str) -> bool:
        """Latency at a rate means nothing for one who cannot carry it, by its closed loop."""
        closed = together(self.tally.of(workload.of, name).values())
        if not closed.seconds or closed.units / closed.seconds > 1.25 * workload.rate:
            return True
        note = f"{workload.id} {name}: cannot carry {workload.rate:,.0f}/s, no latency measured"
        if note not in self.tally.notes:
            self.tally.notes.append(note)
        return False

    def _round(self, workload: Workload, number: int) -> None:
        names = [
            name for name, subject in self._subjects.items() if self._takes_part(workload, subject)
        ]
        passes: dict[str, list[Round]] = {name: [] for name in names}
        for name in order(names, number, workload.passes):
            if name in self._subjects:
                passes[name].append(self._pass(workload, self._subjects[name]))
        for name, parts in passes.items():
            self.tally.of(workload.id, name)[number] = together(parts)

    def _pass(self, workload: Workload, subject: Subject) -> Round:
        if workload.kind == "hold":
            try:
                self._fresh(subject)
            except CannotStart as why:
                self.absent(subject.name, f"did not come back: {why}")
                return Round(errors=1, faults=[str(why)])
        elif (workload.id, subject.name) not in self._warm:
            self._warm.add((workload.id, subject.name))
            self._warm_up(workload, subject)
        self._plan(workload.plan)
        return self._measure(workload, subject)

    def _fresh(self, subject: Subject) -> None:
        """A process that has held nothing yet, where it is ours to start."""
        subject.stop()
        subject.start(self._place)
        self._warm_up(Workload("warm", "closed", ""), subject)

    def _warm_up(self, workload: Workload, subject: Subject) -> None:
        if workload.kind not in ("closed", "open"):
            workload = Workload("warm", "closed", "", dialect=workload.dialect)
        self._plan(workload.plan)
        job = self._job(workload, subject) | {
            "kind": "closed",
            "requests": WARM_UP,
            "max_seconds": 3,
        }
        self._speak(job, lambda: None, lambda _: None)

    def _measure(self, workload: Workload, subject: Subject) -> Round:
        pids, beside = subject.pids(), subject.side_pids()
        core = min(self.cores)
        before: list[tuple[cpu.Reading, cpu.Reading, cpu.Core]] = []
        points: list[tuple[int, int]] = []

        def ready() -> None:
            points.append((0, cpu.rss_bytes(pids)))
            before.append((cpu.read(pids), cpu.read(beside), cpu.core(core)))

        descriptors = 0

        def step(count: int) -> None:
            nonlocal descriptors
            points.append((count, cpu.rss_bytes(pids)))
            descriptors = cpu.descriptors(pids)

        answer = self._speak(self._job(workload, subject), ready, step)
        found = Round(
            units=whole(answer.get("done")),
            errors=whole(answer.get("errors")),
            connections=subject.connections or workload.connections,
            slip_ms=number_of(answer.get("slip_p99_ms")),
            latency=percentiles(answer.get("latency_ms")),
            first=percentiles(answer.get("first_ms")),
            gap=percentiles(answer.get("gap_ms")),
            stalls=whole(answer.get("stalls")),
            at_40_ms=whole(answer.get("at_40_ms")),
            seconds=number_of(answer.get("seconds")),
            faults=[str(what) for what in as_dict(answer.get("faults"))],
            rss_bytes=cpu.rss_bytes(pids),
        )
        if before:
            ours, side, core_then = before[0]
            found.cpu_ns, found.agree = cpu.read(pids).since(ours)
            found.side_ns, _ = cpu.read(beside).since(side)
            core_now = cpu.core(core)
            found.steal, busy = core_now.since(core_then)
            used = (found.cpu_ns + found.side_ns) / 1e9 / max(found.seconds, 0.001)
            found.strangers = max(busy - used, 0.0)
        if workload.kind == "hold":
            time.sleep(2)
            found.memory = Memory(tuple(points), cpu.rss_bytes(pids), descriptors)
        self._hold_against_mock(found, answer, subject, paced=workload.kind == "streams")
        return found

    def _hold_against_mock(
        self, found: Round, answer: Answer, subject: Subject, *, paced: bool
    ) -> None:
        """What the mock saw must be what the generator sent; its own lateness counts as slip."""
        seen = self._report()
        if paced:
            found.slip_ms = max(found.slip_ms, number_of(seen.get("slip_p99_ms")))
        if subject.target.keeps_body and seen.get("body_sum") != answer.get("body_sum"):
            found.errors += 1
            found.faults.append("requests rewritten, lost or doubled on the way")

    def _job(self, workload: Workload, subject: Subject) -> Answer:
        target = subject.target
        headers = dict(target.headers)
        if workload.dialect == "anthropic-messages":
            headers["anthropic-version"] = "2023-06-01"
        model = target.models.get(workload.dialect)
        job: Answer = {
            "kind": workload.kind,
            "host": target.host,
            "port": target.port,
            "path": target.path(workload.dialect),
            "headers": headers,
            "dialect": workload.dialect,
            "exact": target.exact,
            "must_carry": target.must_carry,
            "connections": subject.connections or workload.connections,
            "steps": list(workload.steps),
        }
        for name in (
            "body_bytes",
            "answer_bytes",
            "requests",
            "max_seconds",
            "rate",
            "streams",
            "events",
            "event_bytes",
            "gap_ms",
        ):
            job[name] = getattr(workload, name)
        return job | ({"model": model} if model else {})

    def _speak(self, job: Answer, ready: Callable[[], None], step: Callable[[int], None]) -> Answer:
        """Hand the job to the generator and follow it to its end."""
        generator = self._generator
        generator.write(orjson.dumps(job))
        while True:
            said = generator.read()
            assert isinstance(said, dict)
            match said.get("event"):
                case "ready":
                    ready()
                    generator.write(b"go")
                case "step":
                    step(whole(said.get("open")))
                    generator.write(b"go")
                case _:
                    return said

    def _plan(self, plan: Answer) -> None:
        self._ask_mock("/bench/plan", orjson.dumps(plan))

    def _report(self) -> Answer:
        return self._ask_mock("/bench/report", None)

    def _ask_mock(self, path: str, body: bytes | None) -> Answer:
        url = f"http://127.0.0.1:{self._mock_port}{path}"
        with urllib.request.urlopen(url, body, timeout=10) as answer:
            said: Answer = orjson.loads(answer.read())
        return said

    def _find_ceiling(self) -> None:
        """What mock and generator carry by themselves: no rate near it means anything."""
        direct = self._subjects.get("direct")
        if direct is None:
            return
        workload = Workload("ceiling", "closed", "", requests=20_000, max_seconds=2)
        self._plan(workload.plan)
        answer = self._speak(self._job(workload, direct), lambda: None, lambda _: None)
        self.tally.ceiling_rps = whole(answer.get("done")) / number_of(answer.get("seconds"), 1)
        self._say(f"mock and generator by themselves: {self.tally.ceiling_rps:,.0f} requests/s")

    def _progress(self, workload: Workload, number: int, rounds: int, elapsed: float) -> None:
        floor = self.tally.of(workload.id, "nginx").get(number)
        told = []
        for name in self._subjects:
            one = self.tally.of(workload.id, name).get(number)
            if one is not None:
                told.append(f"{name} {glance(workload, one, floor)}")
        clock = f"{int(elapsed) // 60}:{int(elapsed) % 60:02d}"
        wanted = min(rounds, workload.max_rounds)
        self._say(f"[{clock}] round {number + 1}/{wanted} {workload.id}: {' · '.join(told)}")

    @property
    def subjects(self) -> list[Subject]:
        return list(self._subjects.values())


def glance(workload: Workload, one: Round, floor: Round | None) -> str:
    """One round of one subject in a few characters."""
    if one.errors or not one.units:
        return f"NOT COUNTED {one.discarded}"
    marks = f" ({one.discarded})" if one.discarded else ""
    if workload.kind == "hold" and one.memory is not None:
        first, *_, last = one.memory.points
        return f"{(last[1] - first[1]) / 1024 / max(last[0], 1):.1f} KB/stream{marks}"
    if workload.against_direct and not one.cpu_ns:
        latency = one.first or one.latency or {}
        return f"p99 {latency.get('p99', 0):.2f} ms{marks}"
    ratio = f" {one.cpu_us / floor.cpu_us:.1f}x" if floor and floor.cpu_us else ""
    return f"{one.cpu_us:.1f} µs{ratio}{marks}"
