"""How one workload is measured: accuracy first, then time, the packages taking turns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from judge import ACCURACY, Certificate
from peers import BY_NAME
from worker import CrashedError, RefusedError, TooSlowError, Worker

Failure = (CrashedError, RefusedError, TooSlowError)
# A call is repeated until a measurement takes this long, and divided.
SHORTEST = 0.1
MOST_CALLS = 2000
# Compilation and 500 rows.
WARMING = 300.0


@dataclass(frozen=True)
class Options:
    """As on the command line."""

    peers: tuple[str, ...]
    scale: float
    threads: int
    repeats: int
    limit: float
    memory: str  # "torchlogit", "all" or "none"


@dataclass
class Answer:
    """What came out of one setting of one package."""

    setting: dict[str, float]
    certificate: Certificate | None  # of a fit
    error: float | None  # of probabilities
    first: float  # seconds of the first run, which is not counted
    effort: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    memory: int | None = None
    generation: int = 0  # of the worker that ran it

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else math.nan

    @property
    def calls(self) -> int:
        """Calls in a row that make one measurement."""
        return 1 if self.first > SHORTEST else min(MOST_CALLS, math.ceil(SHORTEST / max(self.first, 1e-6)))

    def repeats(self, wanted: int) -> int:
        """Fewer where one run takes long."""
        return wanted if self.first <= 30 else 3 if self.first <= 60 else 1


@dataclass
class Entry:
    """One package on one workload."""

    peer: str
    refusal: str = ""
    answers: list[Answer] = field(default_factory=list)
    ended: str = ""  # why no tighter setting was tried, where that was not for being content

    def first(self, holds: Callable[[Certificate], bool]) -> Answer | None:
        """The loosest setting whose answer will do."""
        return next((a for a in self.answers if a.certificate and holds(a.certificate)), None)

    def by_gradient(self) -> Answer | None:
        return self.first(lambda certificate: certificate.small_gradient)

    def by_excess(self, best: float) -> Answer | None:
        return self.first(lambda certificate: certificate.small_excess(best))

    def shown(self, best: float) -> list[Answer]:
        """The answers that get a row: the first under each rule, or else the best one."""
        found = [a for a in (self.by_excess(best), self.by_gradient()) if a is not None]
        if not found and self.answers:
            found = [min(self.answers, key=lambda a: a.certificate.objective if a.certificate else a.error or 0.0)]
        return [a for i, a in enumerate(found) if a not in found[:i]]


@dataclass
class Outcome:
    """One workload."""

    name: str
    title: str
    predict: str
    nbytes: int
    best: float
    stream: float  # seconds of one read of X
    entries: list[Entry]

    def record(self) -> dict[str, Any]:
        """Plain data, for a file."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Outcome:
        entries = []
        for entry in record.pop("entries"):
            answers = []
            for answer in entry.pop("answers"):
                certificate = answer.pop("certificate")
                answers.append(Answer(**answer, certificate=Certificate(**certificate) if certificate else None))
            entries.append(Entry(**entry, answers=answers))
        return cls(**record, entries=entries)


def measure(name: str, folder: Path, options: Options, say: Callable[[str], None]) -> Outcome:
    """Run one workload; ``folder`` is empty and goes afterwards."""
    worker = Worker(name, options.scale, options.threads, folder)
    try:
        facts = worker.start()
        say(facts["title"])
        # Asked of a package before it is loaded: a refusal costs nothing.
        entries = [Entry(peer, refusal=worker.ask("refuses", peer)) for peer in options.peers]
        taking = [entry for entry in entries if not entry.refusal]
        outcome = Outcome(name, facts["title"], facts["predict"], facts["nbytes"], math.inf, 0.0, entries)
        outcome.stream = worker.ask("stream")
        if outcome.predict:
            for entry in taking:
                try_predictions(worker, entry, options, say)
        else:
            set_the_mark(worker, outcome, taking, options)
            reach_the_optimum(worker, outcome, taking, options, say)
        take_turns(worker, outcome, taking, options, say)
    finally:
        worker.stop()
    if not outcome.predict and options.memory != "none":
        measure_memory(outcome, taking, folder, options)
    return outcome


def set_the_mark(worker: Worker, outcome: Outcome, taking: list[Entry], options: Options) -> None:
    """The tightest fits of the second-order methods come first: the excess of everybody is measured from the best."""
    for entry in taking:
        peer = BY_NAME[entry.peer]
        if not peer.sets_the_mark:
            continue
        try:
            worker.ask("warm", entry.peer, limit=WARMING)
            worker.ask("fit", entry.peer, peer.settings[-1], limit=2 * options.limit)
            outcome.best = min(outcome.best, worker.ask("certify", entry.peer)["certificate"].objective)
        except Failure:  # it will fail in its own row too, and say why
            continue


def reach_the_optimum(
    worker: Worker, outcome: Outcome, taking: list[Entry], options: Options, say: Callable[[str], None]
) -> None:
    """Walk every package through its settings until it is content under both rules, or has no more.

    A better answer of a later package lowers the mark, so that an earlier one may have to go on.
    """
    say("settings, until the judge is content:")
    going = True
    while going:
        going = False
        for entry in taking:
            while not entry.ended and not (entry.by_gradient() and entry.by_excess(outcome.best)):
                going = True
                settings = BY_NAME[entry.peer].settings
                if len(entry.answers) == len(settings):
                    entry.ended = "no tighter setting"
                    break
                setting = settings[len(entry.answers)]
                with failing(entry, setting):
                    worker.ask("warm", entry.peer, limit=WARMING)
                    seconds = worker.ask("fit", entry.peer, setting, limit=options.limit)
                    judged = worker.ask("certify", entry.peer)
                    answer = Answer(setting, judged["certificate"], None, seconds, judged["effort"])
                    answer.generation = worker.generation
                    outcome.best = min(outcome.best, answer.certificate.objective)
                    entry.answers.append(answer)
                    excess = answer.certificate.excess(outcome.best)
                    say(f"  {entry.peer} {told(setting)}: {seconds:.3f} s, excess {excess:.1e}")
                if entry.ended:
                    say(f"  {entry.peer}: {entry.ended}")


def try_predictions(worker: Worker, entry: Entry, options: Options, say: Callable[[str], None]) -> None:
    with failing(entry, {}):
        worker.ask("warm", entry.peer, limit=WARMING)
        error = worker.ask("ready_to_predict", entry.peer, limit=options.limit)
        entry.answers.append(Answer({}, None, error, worker.ask("predict", entry.peer, limit=options.limit)))
        say(f"  {entry.peer}: error {error:.1e}")
    if entry.ended:
        say(f"  {entry.peer}: {entry.ended}")


def take_turns(
    worker: Worker, outcome: Outcome, taking: list[Entry], options: Options, say: Callable[[str], None]
) -> None:
    """Times, each turn in another order."""
    say(f"times, {options.repeats} turns")
    rows = [(entry, answer) for entry in taking for answer in entry.shown(outcome.best)]
    failed: list[Answer] = []
    for turn in range(options.repeats):
        first = turn % max(len(rows), 1)
        for entry, answer in rows[first:] + rows[:first]:
            if answer in failed or turn >= answer.repeats(options.repeats):
                continue
            calls, limit = answer.calls, options.limit + 60
            try:
                worker.ask("warm", entry.peer, limit=WARMING)
                if answer.generation != worker.generation and answer.first <= 30 and not outcome.predict:
                    # In this process it has not met all rows yet.
                    worker.ask("fit", entry.peer, answer.setting, limit=limit)
                answer.generation = worker.generation
                if outcome.predict:
                    answer.seconds.append(predicted(worker, entry.peer, calls, limit))
                else:
                    answer.seconds.append(worker.ask("fit", entry.peer, answer.setting, calls, limit=limit))
            except Failure as failure:
                entry.ended = f"{failure} in a turn"
                failed.append(answer)


def predicted(worker: Worker, peer: str, calls: int, limit: float) -> float:
    try:
        return float(worker.ask("predict", peer, calls, limit=limit))
    except RefusedError:  # the worker was started again
        worker.ask("ready_to_predict", peer)
        return float(worker.ask("predict", peer, calls, limit=limit))


def measure_memory(outcome: Outcome, taking: list[Entry], folder: Path, options: Options) -> None:
    """In a fresh process each, which reads the rows from the files and has warmed up on a few of them.

    Every larger array there is a mapping of its own, which ends with it. Otherwise glibc takes new arrays from any of
    the holes that freed ones left, one hole after the other, and the resident size counts all of them.
    """
    for entry in taking:
        if options.memory != "all" and entry.peer != options.memory:
            continue
        for answer in entry.shown(outcome.best):
            worker = Worker(outcome.name, options.scale, options.threads, folder, {"MALLOC_MMAP_THRESHOLD_": "131072"})
            try:
                worker.ask("warm", entry.peer, limit=WARMING)
                answer.memory = worker.ask("memory", entry.peer, answer.setting, limit=options.limit + 60)
            except Failure:
                continue
            finally:
                worker.stop()


@contextmanager
def failing(entry: Entry, setting: dict[str, float]) -> Iterator[None]:
    """A failure ends the walk of a package, and nobody else's."""
    try:
        yield
    except Failure as failure:
        entry.ended = f"{failure} at {told(setting)}" if setting else str(failure)


def told(setting: dict[str, float]) -> str:
    return ", ".join(f"{key}={value:g}" for key, value in setting.items()) or "defaults"


def holds(answer: Answer, best: float) -> tuple[bool, bool]:
    """Whether the answer keeps each rule: gradient, excess."""
    if answer.certificate is None:
        right = answer.error is not None and answer.error <= ACCURACY
        return right, right
    return answer.certificate.small_gradient, answer.certificate.small_excess(best)
