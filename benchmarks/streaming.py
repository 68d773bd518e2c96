"""A Parquet file at equal memory: torchlogit beside online learners, in time, memory, reads and excess of the answer.

    python benchmarks/streaming.py [--rows 3000000] [--memory 300MB] [--tol 1e-10] [--scale 0.1] [--write]

Everybody reads the same batches of the same file, in a fresh process. A judge in NumPy evaluates the coefficients on
all rows in float64. With --tol the file is also fitted that tightly, from the file and from an array in memory.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from report import RESULTS, append, digits, heading, results_so_far
from streaming_fits import BATCH, Job, write
from worker import pin

OURS = ("torchlogit", "torchlogit fit")
PEERS = ("SGDClassifier", "SGDClassifier, averaged", "vowpalwabbit", "vowpalwabbit bfgs")


@dataclass(frozen=True)
class Row:
    """What one contender did; ``failure`` in place of everything where it gave no answer."""

    name: str
    found: dict[str, Any] = field(default_factory=dict)
    process: float = 0.0  # seconds from its start to its end, imports among them
    failure: str = ""

    @property
    def answer(self) -> tuple[list[float], float]:
        return self.found["coef"], self.found["intercept"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows, for a quick check")
    parser.add_argument("--memory", default="300MB", metavar="SIZE", help="what torchlogit may take")
    parser.add_argument("--epochs", type=int, default=5, help="of the online learners")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=float, default=3600.0, metavar="S", help="seconds that a process may take")
    parser.add_argument("--tol", type=float, help="compare coefficients with a fit in memory at this tolerance")
    parser.add_argument("--folder", type=Path, help="where the file is kept, and used again")
    parser.add_argument("--write", action="store_true", help=f"append to {RESULTS.name}")
    options = parser.parse_args()
    if not 0 < options.scale <= 1:
        parser.error("--scale is a share, above 0 and at most 1")
    options.rows = max(1, round(options.rows * options.scale))
    return options


def main() -> None:
    options = arguments()
    pin(options.threads)
    lines, old = heading(options.threads), results_so_far()
    lines[0] += ", larger than memory"
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory(prefix="torchlogit-bench-") as scratch:
        path = (options.folder or Path(scratch)) / f"streaming-{options.rows}-{options.columns}.parquet"
        if not path.exists():
            unfinished = path.with_suffix(".part")
            write(unfinished, options.rows, options.columns)
            unfinished.rename(path)
        job = Job(str(path), options.rows, options.columns, options.threads, options.memory, epochs=options.epochs)
        found = measured(job, options, Path(scratch))
    print("\n".join(found))
    if options.write:
        append(lines + found, old)


def measured(job: Job, options: argparse.Namespace, scratch: Path) -> list[str]:
    """The section of the run."""
    size = Path(job.path).stat().st_size

    def run(name: str, job: Job = job) -> Row:
        row = contend(name, job, scratch, options.limit)
        print(f"{name}: {row.failure or digits(row.found['seconds']) + ' s'}", file=sys.stderr, flush=True)
        return row

    run("scan")  # the file is in the page cache for everybody
    rows, scans, absent = [], {}, []
    for name in OURS:
        rows.append(run(name))
        if not rows[-1].failure:
            times = max(1, round(rows[-1].found["rchar"] / size))
            scans[name] = run("scan", dataclasses.replace(job, scans=times)).found["seconds"] / times
    for name in PEERS:
        if name.startswith("vowpal") and importlib.util.find_spec("vowpalwabbit") is None:
            absent.append(name)
            continue
        rows.append(run(name))
    tight = dataclasses.replace(job, tol=options.tol) if options.tol else None
    pair = (
        [
            dataclasses.replace(run(name, tight), name=f"{name}, tol={options.tol:g}")
            for name in ("torchlogit", "in memory")
        ]
        if tight
        else []
    )
    answered = [row for row in (*rows, *pair) if not row.failure]
    verdict = run("judge", dataclasses.replace(job, answers=tuple(row.answer for row in answered)))
    if verdict.failure:
        raise SystemExit(f"the judge failed: {verdict.failure}")
    best = verdict.found["best"]
    excess = {row.name: (value - best) / best for row, value in zip(answered, verdict.found["objectives"], strict=True)}
    lines = [*described(job, size, best), *compared(answered, excess), *reads(answered, scans, size)]
    if len(pair) == 2 and not any(row.failure for row in pair):
        lines += ["", f"At tol={options.tol:g}, from the file and from memory, coefficients and intercepts differ by "
                      f"at most {difference(*pair):.1e}."]  # fmt: skip
    if failed := [f"{row.name} ({row.failure})" for row in (*rows, *pair) if row.failure]:
        lines += ["", f"No answer: {'; '.join(failed)}."]
    if absent:
        lines += ["", f"Not installed: {', '.join(absent)}."]
    return lines


def contend(name: str, job: Job, scratch: Path, limit: float) -> Row:
    """In a process of its own."""
    given, result = scratch / "job.json", scratch / "result.json"
    given.write_text(json.dumps(dataclasses.asdict(job)), encoding="utf-8")
    result.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).with_name("streaming_fits.py")), name, str(given), str(result)]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return Row(name, failure=f"over {limit:g} s")
    seconds = time.perf_counter() - start
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return Row(name, failure=f"ended with {done.returncode}: {said[:160]}")
    return Row(name, json.loads(result.read_text(encoding="utf-8")), seconds)


def described(job: Job, size: int, best: float) -> list[str]:
    return [
        "",
        f"### {job.rows:,} x {job.columns} float32 in Parquet, {size / 1e6:,.0f} MB; memory={job.memory}",
        "",
        f"Objective: mean log loss + |w|² / (2 C n), C = {job.C:g}; {best:.12g} at the optimum. One fit each, in a "
        "fresh process, the file in the page cache. `memory` is torchlogit's; the peers hold a batch of "
        f"{BATCH:,} rows. `SGDClassifier` and Vowpal Wabbit's own learner take {job.epochs} epochs. For the former a "
        "first read learns a `StandardScaler`, which is in its time; it and `torchlogit fit` penalise the coefficients "
        "of standardised columns, and are judged by the objective above. Vowpal Wabbit's time has two parts: text "
        "through a pipe into its cache, and learning from that (`bfgs`: at most 50 passes).",
    ]


def compared(rows: list[Row], excess: dict[str, float]) -> list[str]:
    lines = [
        "",
        "| package | excess | s | of these, making a cache | process s | peak resident MB | above its libraries, MB |",
        "|" + " --- |" * 7,
    ]
    for row in rows:
        found = row.found
        caching = digits(found["caching"]) if "caching" in found else "–"
        lines.append(
            f"| {row.name} | {excess[row.name]:.1e} | {digits(found['seconds'])} | {caching} | {digits(row.process)} "
            f"| {found['peak'] / 1e6:,.0f} | {found['above'] / 1e6:,.0f} |"
        )
    return lines


def reads(rows: list[Row], scans: dict[str, float], size: int) -> list[str]:
    """What the kernel counted, beside what torchlogit says of itself."""
    lines = [
        "",
        "Reads are bytes read (`rchar`) over the size of the file. Plain scanning is pyarrow decoding the file and no "
        "more, in as many reads (rounded) by as many threads, right after; the share is its time over the fit's.",
        "",
        "| package | MB read | of these from the disk | reads | passes | kkt | its bound on the excess | certified "
        "| as many plain scans, s | share of their speed |",
        "|" + " --- |" * 10,
    ]
    for row in rows:
        found, once = row.found, scans.get(row.name)
        times = found["rchar"] / size
        passes = f"{found['passes']:.1f}" if "passes" in found else "–"
        certificate = "– | – | –"
        if "certificate" in found:
            own = found["certificate"]
            certificate = f"{own['kkt']:.1e} | {own['excess']:.1e} | {'yes' if own['converged'] else 'no'}"
        share = "– | –" if once is None else f"{digits(once * times)} | {100 * once * times / found['seconds']:.0f} %"
        # Vowpal Wabbit reads its cache, which has another size.
        read = "–" if "caching" in found else f"{times:.2f}"
        lines.append(
            f"| {row.name} | {found['rchar'] / 1e6:,.0f} | {found['read_bytes'] / 1e6:,.0f} | {read} | {passes} "
            f"| {certificate} | {share} |"
        )
    return lines


def difference(one: Row, other: Row) -> float:
    pairs = zip([*one.answer[0], one.answer[1]], [*other.answer[0], other.answer[1]], strict=True)
    return max(abs(a - b) for a, b in pairs)


if __name__ == "__main__":
    main()
