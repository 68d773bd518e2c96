"""kill -9 at random moments of real runs: ``python tests/edge/kill_at_random.py [--times 20] [--seed 0] [-- MORE]``.

More options go to ``torchlogit fit``: ``-- --memory 2MB --drop said --positive 0`` for rows that stay in their file.

Not part of the tests, since it takes minutes. A third of the moments are drawn from the time that an undisturbed run
learns its encoder, a third from the time after that (passes over the rows, mostly), and a third are the next
checkpoint that is being written after such a moment.
Every killed run is followed by one with ``--resume``, whose model must hold the bits of the undisturbed run's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from torchlogit import load

TIMES = ("seconds", "seconds_encoding", "seconds_total", "model")
RECORD_TIMES = ("seconds", "rows_per_second", "bytes_per_second")


def make_table(path: Path, rows: int) -> None:
    """Six classes from numbers, categories and words."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(rows, 30))
    frame = pd.DataFrame(X.round(3), columns=[f"x{j}" for j in range(30)])
    frame["town"] = rng.choice([f"town {i}" for i in range(40)], rows)
    words = np.array([f"word{i}" for i in range(3000)])
    frame["said"] = [" ".join(words[chosen]) for chosen in rng.integers(0, 3000, (rows, 12))]
    z = X @ rng.normal(size=(30, 6)) / 2 + rng.gumbel(size=(rows, 6))
    frame["kind"] = z.argmax(1)
    frame.to_csv(path, index=False)


class Runs:
    """Runs of one command, each in a folder of its own."""

    def __init__(self, table: Path, place: Path, more: list[str]) -> None:
        self.table, self.place, self.more = table, place, more

    def start(self, name: str, *, kept: bool = True) -> subprocess.Popen[str]:
        folder = self.place / name
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "torchlogit", "fit", self.table, "--target", "kind", "--tol", "1e-9", "--json",
                   "-o", folder / "model", *self.more]  # fmt: skip
        if kept:
            command += ["--checkpoint", folder / "kept", "--resume", "--checkpoint-minutes", "0"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        return subprocess.Popen(list(map(str, command)), env=environment, stdout=pipe, stderr=pipe, text=True)

    def finish(self, name: str, *, kept: bool = True) -> tuple[str, object]:
        """What it says, and all that must be the same every time."""
        with self.start(name, kept=kept) as running:
            out, err = running.communicate()
        if running.returncode:
            raise SystemExit(f"{name}: exit {running.returncode}: {err}")
        figures = {key: value for key, value in json.loads(out).items() if key not in TIMES}
        classifier = load(self.place / name / "model")[-1]
        trace = [{k: v for k, v in record.items() if k not in RECORD_TIMES} for record in classifier.trace_]
        solution = classifier._current_solution()
        return err, (figures, trace, solution.coef.tobytes(), solution.intercept.tobytes())


def wait_for(moment: str, folder: Path, running: subprocess.Popen[str], seconds: float) -> None:
    """Return at the moment, or when the process has ended before it."""
    begins = "lock" if moment == "the encoder's pass" else "encoder.checkpoint"
    while running.poll() is None and not (folder / "kept" / begins).exists():
        time.sleep(0.0002)
    until = time.monotonic() + seconds
    while running.poll() is None:
        writing = moment != "a checkpoint write" or any(folder.glob("kept/.*.partial.checkpoint"))
        if writing and time.monotonic() >= until:
            return
        time.sleep(0.0002)


def state_of(folder: Path) -> str:
    """Where a killed run was."""
    kept = folder / "kept"
    if any(kept.glob(".*.partial.checkpoint")):
        return "killed in a checkpoint write"
    if any(kept.glob("fit-*")):
        return "killed in the fit or after it"
    return "killed before or in the encoder's pass" if not (kept / "encoder.checkpoint").exists() else (
        "killed between the encoder and the first checkpoint of the fit"
    )  # fmt: skip


def main() -> None:
    """Kill and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("more", nargs="*", metavar="OPTION", help="of torchlogit fit, after --")
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_table(place / "table.csv", given.rows)
        runs = Runs(place / "table.csv", place, given.more)
        _, wanted = runs.finish("reference", kept=False)
        began = time.monotonic()
        marks = {}
        with runs.start("timed") as running:
            while running.poll() is None:
                for name, there in (("lock", "kept/lock"), ("encoder", "kept/encoder.checkpoint")):
                    if name not in marks and (place / "timed" / there).exists():
                        marks[name] = time.monotonic() - began
                time.sleep(0.001)
        whole = time.monotonic() - began
        print(f"an undisturbed run: {whole:.1f} s; it learns its encoder from {marks['lock']:.1f} s on, for "
              f"{marks['encoder'] - marks['lock']:.1f} s", flush=True)  # fmt: skip
        seen: Counter[str] = Counter()
        for number in range(given.times):
            moment = ("a pass of the fit", "the encoder's pass", "a checkpoint write")[number % 3]
            learning, fitting = marks["encoder"] - marks["lock"], whole - marks["encoder"]
            last = learning if moment == "the encoder's pass" else fitting
            name = f"run {number}"
            seconds = rng.uniform(0, last)
            while True:
                with runs.start(name) as running:
                    wait_for(moment, place / name, running, seconds)
                    running.send_signal(signal.SIGKILL)
                    running.wait()
                if running.returncode:
                    break
                shutil.rmtree(place / name)  # it was faster than the undisturbed one: kill it sooner
                seconds *= 0.8
            where = state_of(place / name)
            seen[where] += 1
            if (place / name / "model").exists():  # killed after the model was written: it must be whole
                load(place / name / "model")
                seen["(the model had been written)"] += 1
            said, result = runs.finish(name)
            same = result == wanted
            print(f"{name}: aimed at {moment}: {where}; {said.strip().removeprefix('torchlogit: ')}: "
                  f"{'the same bits' if same else 'OTHER BITS'}", flush=True)  # fmt: skip
            if not same:
                raise SystemExit(1)
        for where, times in seen.most_common():
            print(f"{times:3d} {where}")


if __name__ == "__main__":
    main()
