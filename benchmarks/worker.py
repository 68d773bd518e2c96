"""The process that fits: it holds the rows and every package, and does what the suite asks over a pipe.

All packages take turns in one worker. One that exceeds its time or crashes takes the worker with it, and the suite
starts another on the same rows.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

from problem import Problem

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
# Loading rows and importing packages is not what the time limit is for.
PATIENCE = 1800.0


class TooSlowError(Exception):
    """The worker was stopped."""


class CrashedError(Exception):
    """The worker ended by itself."""


class RefusedError(Exception):
    """The package raised an exception; its message is this one's."""


def pin(threads: int) -> None:
    """The number of threads of this process and its children. Before the libraries are loaded: they read it once."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)


def restore_threads(threads: int) -> None:
    """The number of threads again, in every library: Snap ML leaves OpenMP with one, for whoever comes next."""
    import threadpoolctl

    threadpoolctl.threadpool_limits(threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


@dataclass
class Desk:
    """What one worker has on its desk."""

    problem: Problem
    ready: set[str] = field(default_factory=set)
    model: Any = None
    judge: Any = None
    calls: dict[str, Any] = field(default_factory=dict)

    def refuses(self, peer: str) -> str:
        """Why the peer does not take the problem; "" where it does."""
        from peers import BY_NAME

        chosen = BY_NAME[peer]
        if not chosen.installed:
            return "not installed"
        if self.problem.predict and not chosen.predicts:
            return "its predictions are those of another row or package"
        return chosen.refuses(self.problem)

    def warm(self, peer: str) -> None:
        """Fit to a few rows, for imports, compilation and thread pools; then bring all rows into its layout."""
        from peers import BY_NAME

        if peer in self.ready:
            return
        chosen, small = BY_NAME[peer], self.problem.head(500)
        chosen.prepare(small)
        chosen.arrange(small, chosen.settings[0])
        with contextlib.suppress(Exception):  # what is wrong with the package will show with all rows
            chosen.fit(small, **chosen.settings[0])
        if not self.problem.predict:
            chosen.prepare(self.problem)
        self.ready.add(peer)

    def fit(self, peer: str, setting: dict[str, float], number: int = 1) -> float:
        """Seconds a fit, mean of ``number`` in a row; the last model stays."""
        from peers import BY_NAME

        chosen, problem = BY_NAME[peer], self.problem
        chosen.arrange(problem, setting)
        self.model = None
        gc.collect()
        restore_threads(problem.threads)
        start = time.perf_counter()
        for _ in range(number):
            self.model = chosen.fit(problem, **setting)
        return (time.perf_counter() - start) / number

    def certify(self, peer: str) -> dict[str, Any]:
        """The certificate of the last model, and what the package says of its own effort."""
        from judge import Judge
        from peers import BY_NAME

        self.judge = self.judge or Judge(self.problem)
        effort = BY_NAME[peer].effort(self.model)
        answer = BY_NAME[peer].answer(self.problem, self.model)
        return {"certificate": self.judge.certificate(*answer), "effort": effort}

    def ready_to_predict(self, peer: str) -> float:
        """Fit to some rows; the largest error of the probabilities of those that are asked for."""
        from judge import error_of_probabilities
        from peers import BY_NAME

        chosen, head = BY_NAME[peer], self.problem.head()
        chosen.prepare(head)
        chosen.arrange(head, chosen.settings[0])
        model = chosen.fit(head, **chosen.settings[0])
        coef, intercept = chosen.answer(head, model)
        self.calls[peer] = chosen.predictor(self.problem, model)
        return error_of_probabilities(self.problem.asked, coef, intercept, self.calls[peer]())

    def predict(self, peer: str, number: int = 1) -> float:
        """Seconds a call."""
        gc.collect()
        restore_threads(self.problem.threads)
        call = self.calls[peer]
        start = time.perf_counter()
        for _ in range(number):
            call()
        return (time.perf_counter() - start) / number

    def stream(self) -> float:
        """Seconds that one read of X takes: the sum of its buffers in torch, best of five."""
        import torch

        parts = [torch.from_numpy(part).view(-1) for part in self.problem.buffers]
        found = math.inf
        for _ in range(6):
            start = time.perf_counter()
            for part in parts:
                part.sum()
            found = min(found, time.perf_counter() - start)
        return found

    def memory(self, peer: str, setting: dict[str, float]) -> int:
        """Bytes that a fit needs above X, y and the libraries; true in a fresh worker only."""
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):  # what was freed must not be there for the fit
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):  # forget the peaks of importing and warming up, where Linux lets us
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        before = peak_memory()
        self.fit(peer, setting)
        return peak_memory() - before


def peak_memory() -> int:
    """The largest resident size so far, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def serve(pipe: Connection, name: str, scale: float, threads: int, folder: str) -> None:
    """The life of a worker."""
    quiet = os.open(os.devnull, os.O_WRONLY)  # packages talk
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    # What a package thinks of its own convergence is not asked: the judge decides.
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"
    tempfile.tempdir = folder  # what a package leaves behind goes with it
    import torch

    torch.set_num_threads(threads)
    from workloads import load

    desk = Desk(load(name, scale, threads, Path(folder)))
    pipe.send(("done", {"title": desk.problem.title, "nbytes": desk.problem.nbytes, "predict": desk.problem.predict}))
    while (order := pipe.recv()) is not None:
        command, arguments = order
        try:
            pipe.send(("done", getattr(desk, command)(*arguments)))
        except Exception as error:  # noqa: BLE001 - whatever a package raises is a row of the table
            message = " ".join(str(error).split())
            pipe.send(("refused", f"{type(error).__name__}: {message[:160]}"))


class Worker:
    """The suite's end of the pipe; starts the process on first use, and again after it was stopped."""

    def __init__(
        self, name: str, scale: float, threads: int, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.arguments = (name, scale, threads, str(folder))
        self.environment = dict(environment or {})  # variables that the process has beside ours
        self.process: Any = None
        self.generation = 0  # how many processes there have been
        self.facts: dict[str, Any] = {}

    def start(self) -> dict[str, Any]:
        """Title and size of the problem."""
        if self.process is None:
            self.generation += 1
            context = multiprocessing.get_context("spawn")
            self.pipe, other = context.Pipe()
            self.process = context.Process(target=serve, args=(other, *self.arguments), daemon=True)
            with mock.patch.dict(os.environ, self.environment):
                self.process.start()
            other.close()
            self.facts = self._receive(PATIENCE)
        return self.facts

    def ask(self, command: str, *arguments: Any, limit: float = PATIENCE) -> Any:
        """Do it, within ``limit`` seconds."""
        self.start()
        self.pipe.send((command, arguments))
        return self._receive(limit)

    def stop(self) -> None:
        """Politely where it listens; else at once."""
        if self.process is None:
            return
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.process.join(5)
        self._kill()

    def _kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.process = None

    def _receive(self, limit: float) -> Any:
        try:
            if not self.pipe.poll(limit):
                self._kill()
                raise TooSlowError(f"over {limit:g} s")
            outcome, value = self.pipe.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            self._kill()
            raise CrashedError(f"the process ended with code {code}") from None
        if outcome == "refused":
            raise RefusedError(value)
        return value
