"""What is written about a run: on the terminal, in RESULTS.md."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import os
import platform
import shlex
import sys
from pathlib import Path

from judge import ACCURACY
from peers import PACKAGES
from suite import Answer, Entry, Outcome, holds, told

RESULTS = Path(__file__).with_name("RESULTS.md")
RULES = ("gradient", "excess")


def machine(threads: int) -> list[str]:
    """Where the numbers come from."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        described = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        model = next((value.strip() for key, _, value in described if key.strip() == "model name"), model)
    versions = []
    for name in dict.fromkeys(("torchlogit", "torch", "numpy", "scipy", *PACKAGES)):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    load = os.getloadavg()[0]
    return [
        f"- machine: {model}, {os.cpu_count()} cores, {threads} threads used; load {load:.1f} at the start",
        f"- Python {platform.python_version()}, {', '.join(versions)}",
        f"- command: `{shlex.join(['python', f'benchmarks/{Path(sys.argv[0]).name}', *sys.argv[1:]])}`",
    ]


def heading(threads: int) -> list[str]:
    return [f"## {datetime.date.today().isoformat()}", "", *machine(threads)]


def section(outcome: Outcome) -> list[str]:
    """One workload: its table, torchlogit's effort, who was not asked."""
    lines = ["", f"### {outcome.name}: {outcome.title}", ""]
    lines += predictions(outcome) if outcome.predict else [*fits(outcome), *efforts(outcome)]
    absent = [f"{entry.peer} ({entry.refusal})" for entry in outcome.entries if entry.refusal]
    failed = [f"{entry.peer} ({entry.ended})" for entry in outcome.entries if entry.ended and not entry.answers]
    if failed:
        lines += ["", f"No answer: {'; '.join(failed)}."]
    if absent:
        lines += ["", f"Not asked: {'; '.join(absent)}."]
    return lines


def fits(outcome: Outcome) -> list[str]:
    lines = [
        "| package | setting | gradient, raw units | gradient, standardised | excess | keeps the rule of "
        "| median s | range s | fits | times torchlogit's, by gradient | by excess |",
        "|" + " --- |" * 11,
    ]
    reference = reference_times(outcome)
    for entry in outcome.entries:
        for answer in entry.shown(outcome.best):
            certificate = answer.certificate
            assert certificate is not None
            kept = [rule for rule, kept in zip(RULES, holds(answer, outcome.best), strict=True) if kept]
            note = ", ".join(kept) or f"neither: {entry.ended}"
            lines.append(
                f"| {entry.peer} | {told(answer.setting)} | {certificate.raw:.1e} | {certificate.standardised:.1e} "
                f"| {certificate.excess(outcome.best):.1e} | {note} | {timing(answer)} "
                f"| {' | '.join(ratios(entry, answer, outcome, reference))} |"
            )
    return lines


def reference_times(outcome: Outcome) -> list[float]:
    """Seconds of torchlogit's row under each rule; NaN where it has none."""
    ours = next((entry for entry in outcome.entries if entry.peer == "torchlogit"), None)
    rows = [ours.by_gradient(), ours.by_excess(outcome.best)] if ours else [None, None]
    return [row.median if row else math.nan for row in rows]


def ratios(entry: Entry, answer: Answer, outcome: Outcome, reference: list[float]) -> list[str]:
    """Times are compared only between answers that keep the same rule, each package at its loosest setting."""
    chosen = [entry.by_gradient(), entry.by_excess(outcome.best)]
    return [
        f"{answer.median / ours:.2f}" if row is answer and math.isfinite(answer.median / ours) else "–"
        for row, ours in zip(chosen, reference, strict=True)
    ]


def timing(answer: Answer) -> str:
    if not answer.seconds:
        return "– | – | 0"
    return (
        f"{digits(answer.median)} | {digits(min(answer.seconds))} to {digits(max(answer.seconds))} "
        f"| {len(answer.seconds)}" + (f" of {answer.calls}" if answer.calls > 1 else "")
    )


def digits(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"


def efforts(outcome: Outcome) -> list[str]:
    """How much torchlogit read, how fast, and in how much memory; the memory of others where it was asked for."""
    found = [
        (entry, answer)
        for entry in outcome.entries
        for answer in entry.shown(outcome.best)
        if answer.memory is not None or "passes" in answer.effort
    ]
    if not found:
        return []
    speed = outcome.nbytes / outcome.stream
    lines = [
        "",
        f"X is {outcome.nbytes / 1e6:,.1f} MB; torch.sum reads it in {outcome.stream * 1e3:.3g} ms "
        f"({speed / 1e9:.1f} GB/s).",
        "",
        "| package | setting | passes | bytes read / bytes of X | time / one read of X | share of the memory's speed "
        "| peak memory above X and y, MB | the same / bytes of X |",
        "|" + " --- |" * 8,
    ]
    for entry, answer in found:
        read = answer.effort.get("bytes")
        passes = f"{answer.effort['passes']:.1f}" if "passes" in answer.effort else "–"
        above = answer.memory
        memory = "– | –" if above is None else f"{above / 1e6:,.0f} | {above / outcome.nbytes:.2f}"
        share = "– | " if read is None else f"{read / outcome.nbytes:.1f} | "
        share += f"{answer.median / outcome.stream:.1f} | "
        share += "–" if read is None else f"{100 * read / answer.median / speed:.0f} %"
        lines.append(f"| {entry.peer} | {told(answer.setting)} | {passes} | {share} | {memory} |")
    return lines


def predictions(outcome: Outcome) -> list[str]:
    lines = [
        f"| package | largest error | at most {ACCURACY:g} | median s | range s | measurements | times torchlogit's |",
        "|" + " --- |" * 7,
    ]
    rows = [(entry, answer) for entry in outcome.entries for answer in entry.answers]
    ours = next((answer.median for entry, answer in rows if entry.peer == "torchlogit"), math.nan)
    for entry, answer in rows:
        right = holds(answer, outcome.best)[0]
        ratio = f"{answer.median / ours:.2f}" if right and math.isfinite(answer.median / ours) else "–"
        lines.append(f"| {entry.peer} | {answer.error:.1e} | {'yes' if right else 'no'} | {timing(answer)} | {ratio} |")
    return lines


def append(lines: list[str], old: str) -> None:
    """The file as it was, and this run."""
    RESULTS.write_text(old.rstrip() + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


def results_so_far() -> str:
    return RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results\n\nHow to read them: README.md.\n"


def keep(outcome: Outcome, path: Path) -> None:
    """Every setting that was tried, as a line of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(outcome.record()) + "\n")


def kept(path: Path) -> list[Outcome]:
    """The latest outcome of each workload."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [Outcome.from_record(json.loads(line)) for line in lines if line.strip()]
    return list({outcome.name: outcome for outcome in found}.values())
