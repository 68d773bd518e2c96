"""``torchlogit fit --checkpoint DIR --resume``: killed, ended and run again, it writes the same model."""

from __future__ import annotations

import dataclasses
import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from edge.command_line import ENVIRONMENT, fine, process, run
from torchlogit import load
from torchlogit.journal import SweepJournal
from torchlogit.model_file import read

TIMES = {"seconds", "seconds_encoding", "seconds_total"}
RECORD_TIMES = {"seconds", "rows_per_second", "bytes_per_second"}
ALWAYS = ("--checkpoint-minutes", "0")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Numbers, categories and dates; enough rows for several blocks a pass."""
    rng = np.random.default_rng(2)
    n = 24_000
    X = rng.normal(size=(n, 40))
    frame = pd.DataFrame(X.round(3), columns=[f"x{j}" for j in range(40)])
    frame["town"] = rng.choice(["north", "south", "east", "west"], n)
    frame["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 90, n), "D")
    z = X @ rng.normal(size=40) / 3 + (frame["town"] == "north") - 0.5
    frame["bought"] = np.where(z + rng.logistic(size=n) > 0, "yes", "no")
    path = tmp_path_factory.mktemp("checkpoints") / "visits.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(autouse=True)
def every_block(monkeypatch):
    """In this process too: after every block."""
    monkeypatch.setattr("torchlogit.fit_checkpoint.FitCheckpoint._affordable", lambda self: True)


@pytest.fixture(scope="module")
def reference(table, tmp_path_factory):
    model = tmp_path_factory.mktemp("reference") / "model"
    outcome = fine("fit", table, "--target", "bought", "-o", model, "--json")
    return model, figures(outcome.json)


def figures(printed):
    return {key: value for key, value in printed.items() if key not in {*TIMES, "model"}}


def same_model(one, other):
    """The same bits but for times."""
    first, second = load(one), load(other)
    before, after = first[-1], second[-1]
    solutions = [dataclasses.asdict(classifier._current_solution()) for classifier in (before, after)]
    assert solutions[0].keys() == solutions[1].keys()
    for name, value in solutions[0].items():
        assert np.array_equal(value, solutions[1][name]), name
    for name in ("kkt_", "excess_", "objective_", "converged_", "status_"):
        assert getattr(before, name) == getattr(after, name)
    traces = [[{k: v for k, v in record.items() if k not in RECORD_TIMES} for record in model.trace_]
              for model in (before, after)]  # fmt: skip
    assert traces[0] == traces[1]
    assert repr(before.plan_) == repr(after.plan_)
    assert [str(d) for d in first[0].decisions_] == [str(d) for d in second[0].decisions_]
    notes = [{**read(path).notes, "figures": figures(read(path).notes["figures"])} for path in (one, other)]
    assert notes[0] == notes[1]


def arguments(table, folder):
    return ["fit", table, "--target", "bought", "-o", folder / "model", "--json", "--checkpoint", folder / "kept",
            "--resume", *ALWAYS]  # fmt: skip


@pytest.mark.parametrize(
    ("place", "number", "finds"),
    [
        ("encoder", 3, "there is no checkpoint in {} yet; starting from the beginning"),
        ("block", 8, "going on from step 0 of the fit, as kept in {}"),
        ("checkpoint", 6, "going on from the beginning of the fit, as kept in {}"),
        ("old", 5, "going on from the beginning of the fit, as kept in {}"),
        ("output", 1, "going on from the end of the fit, as kept in {}"),
    ],
)
def test_killed_and_run_again(table, reference, tmp_path, place, number, finds):
    script = Path(__file__).with_name("killed_fit.py")
    command = list(map(str, [sys.executable, script, place, number, *arguments(table, tmp_path)]))
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (tmp_path / "model").exists()
    outcome = run(*arguments(table, tmp_path))
    assert outcome.code == 0
    assert outcome.err == f"torchlogit: {finds.format(tmp_path / 'kept')}\n"
    assert figures(json.loads(outcome.out)) == reference[1]
    same_model(tmp_path / "model", reference[0])
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "kept").iterdir()) == [
        "encoder.checkpoint", "fit", "fit", "lock", "result.checkpoint",
    ]  # fmt: skip


def test_run_again_after_its_end(table, reference, tmp_path, monkeypatch):
    """Restarted by whoever restarts whatever has ended: nothing is read again."""
    begun = "there is no checkpoint in {} yet; starting from the beginning"
    ended = "going on from the end of the fit, as kept in {}"
    words = arguments(table, tmp_path)

    def again(found):
        (tmp_path / "model").unlink(missing_ok=True)
        outcome = run(*words)
        assert outcome.err.splitlines()[0] == f"torchlogit: {found.format(tmp_path / 'kept')}"
        assert figures(json.loads(outcome.out)) == reference[1]
        same_model(tmp_path / "model", reference[0])
        return outcome

    first = again(begun)
    with monkeypatch.context() as patch:
        patch.setattr("torchlogit.cli.workflow.open_table", None)
        assert json.loads(again(ended).out) == json.loads(first.out)
        text = run(*[word for word in words if word != "--json"])
        assert f"saved {tmp_path / 'model'}" in text.out
    result = tmp_path / "kept" / "result.checkpoint"
    result.write_bytes(result.read_bytes()[:-5])
    said = again(ended).err.splitlines()
    assert len(said) == 2
    assert said[1].startswith(f"torchlogit: {result} is cut short or damaged")
    assert said[1].endswith(": measuring again")
    assert run(*words, "--report", tmp_path / "page.html").code == 0
    assert (tmp_path / "page.html").exists()


def test_other_rows_to_measure_on(table, tmp_path):
    """They are no part of the fit, which is not done again."""
    frame = pd.read_csv(table)
    words = [*arguments(table, tmp_path), "--test", tmp_path / "test.csv"]
    accuracies = []
    for rows in (slice(0, 500), slice(500, 1000), slice(500, 1000)):
        frame[rows].to_csv(tmp_path / "test.csv", index=False)
        outcome = run(*words)
        accuracies.append(json.loads(outcome.out)["log_loss"])
    assert accuracies[0] != accuracies[1]
    assert accuracies[1] == accuracies[2]
    assert "going on from the end of the fit" in outcome.err


def test_without_resume_nothing_is_overwritten(table, tmp_path):
    without = [word for word in arguments(table, tmp_path) if word != "--resume"]
    fine(*without)
    before = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    assert run(*without).sentence == (
        f"{tmp_path / 'kept'} holds the checkpoint of a fit: add --resume to go on from it, or name another folder"
    )
    assert {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()} == before


@pytest.mark.parametrize(
    ("added", "told"),
    [
        (["--C", "10"], "with --C 1.0, and this run has --C 10.0"),
        (["--seed", "3"], "with --seed 0, and this run has --seed 3"),
        (["--test-size", "0.3"], "with --test-size 0.2, and this run has --test-size 0.3"),
        (["--drop", "x1"], "without --drop, and this run has --drop x1"),
        (["--na", "-"], "without --na, and this run has --na -"),
        (["--memory", "1GB"], "with --memory 2000000000, and this run has --memory 1000000000"),
        (["--on-bad-row", "skip"], "with --on-bad-row error, and this run has --on-bad-row skip"),
        (["--positive", "no"], "without --positive, and this run has --positive no"),
    ],
)
def test_other_options_are_refused_by_name(finished, added, told):
    table, folder = finished
    assert run(*arguments(table, folder), "--memory", "2GB", *added).sentence == (
        f"the checkpoint in {folder / 'kept'} was made otherwise: {told}; run it as it was, or start anew in another "
        "folder"
    )


def test_who_goes_on_has_the_memory_of_the_beginning(table, tmp_path, monkeypatch):
    """Where none is asked for: what is free by then would keep other rows in memory."""
    words = arguments(table, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("torchlogit.cli.checkpoint.memory_budget", lambda: 4 << 20)
        expected = run(*words[:-3], *ALWAYS)  # a stream
        model = read(tmp_path / "model")
    assert json.loads(expected.out)["solver"] == "lbfgs"
    (tmp_path / "kept" / "result.checkpoint").unlink()
    for path in sorted((tmp_path / "kept").glob("fit-*")):
        path.unlink()
    outcome = run(*words)
    assert outcome.code == 0
    assert figures(json.loads(outcome.out)) == figures(json.loads(expected.out))
    assert read(tmp_path / "model").model[-1].coef_.tolist() == model.model[-1].coef_.tolist()


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    copy = folder / "visits.csv"
    copy.write_bytes(table.read_bytes())
    assert run(*arguments(copy, folder), "--memory", "2GB").code == 0
    return copy, folder


def test_other_data_are_refused_by_name(finished):
    copy, folder = finished
    content, size = copy.read_bytes(), copy.stat().st_size
    last = content.splitlines(keepends=True)[-1]
    copy.write_bytes(content + last)
    told = f"{copy} has changed: {size:,} bytes then, {size + len(last):,} now"
    assert told in run(*arguments(copy, folder)).sentence
    copy.write_bytes(content)
    assert f"{copy} has changed: written " in run(*arguments(copy, folder)).sentence


def test_resume_needs_a_folder(table, tmp_path):
    outcome = run("fit", table, "--target", "bought", "-o", tmp_path / "model", "--resume")
    assert outcome.sentence.startswith("invalid value for '--resume': name the folder with --checkpoint DIR")


def test_a_full_disk_in_the_midst(table, reference, tmp_path, monkeypatch):
    write, left = Path.write_bytes, [6]

    def full(self, content):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        outcome = run(*arguments(table, tmp_path))
    kept = tmp_path / "kept"
    assert outcome.code == 2
    assert outcome.err.splitlines()[1:] == [
        f"torchlogit: the checkpoint {kept / 'fit-000006.checkpoint'} cannot be written (No space left on device), and "
        "the checkpoint before it is good: free some space or mend the folder, and run the same command with --resume"
    ]
    assert sorted(path.name for path in kept.iterdir()) == [
        "encoder.checkpoint", "fit-000004.checkpoint", "fit-000005.checkpoint", "lock",
    ]  # fmt: skip
    left[0] = 6
    with monkeypatch.context() as patch:
        patch.setattr("torchlogit.model_file.replacing", lambda path: (_ for _ in ()).throw(
            OSError(errno.ENOSPC, "No space left on device", str(path))))  # fmt: skip
        outcome = run(*arguments(table, tmp_path))
    assert outcome.code == 2
    assert outcome.err.splitlines()[1].startswith(f"torchlogit: {tmp_path / 'model'}: no space left on the device")
    assert outcome.err.splitlines()[1].endswith(
        f"; the fit is kept in {kept}: run the same command with --resume to go on"
    )
    assert run(*arguments(table, tmp_path)).code == 0
    same_model(tmp_path / "model", reference[0])


WAITING = """
import sys, time
import torchlogit.journal
from torchlogit.cli import main
from torchlogit.fit_checkpoint import FitCheckpoint

FitCheckpoint._affordable = lambda self: True
add, left = torchlogit.journal.SweepJournal.add, [6]

def added(self, total):
    add(self, total)
    left[0] -= 1
    if not left[0]:
        print("ready", file=sys.stderr, flush=True)
        while True:
            time.sleep(0.01)

torchlogit.journal.SweepJournal.add = added
main()
"""


def test_terminated_it_says_how_to_go_on(table, reference, tmp_path):
    command, pipe = [sys.executable, "-c", WAITING, *map(str, arguments(table, tmp_path))], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=ENVIRONMENT, text=True) as running:
        assert "starting from the beginning" in running.stderr.readline()
        assert running.stderr.readline() == "ready\n"
        running.send_signal(signal.SIGTERM)
        said, complained = running.communicate(timeout=60)
    assert (running.returncode, said) == (143, "")
    assert complained == (
        f"torchlogit: terminated; the fit is kept in {tmp_path / 'kept'}: run the same command with --resume to go on\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
    assert run(*arguments(table, tmp_path)).code == 0
    same_model(tmp_path / "model", reference[0])


def test_interrupted_it_says_how_to_go_on(table, reference, tmp_path, monkeypatch):
    add, left = SweepJournal.add, [6]

    def added(self, total):
        add(self, total)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SweepJournal, "add", added)
        outcome = run(*arguments(table, tmp_path))
    assert outcome.code == 130
    assert outcome.err.splitlines()[1:] == [
        f"torchlogit: interrupted; the fit is kept in {tmp_path / 'kept'}: run the same command with --resume to go on"
    ]
    assert run(*arguments(table, tmp_path)).code == 0
    same_model(tmp_path / "model", reference[0])


def test_terminated_without_a_checkpoint(table, tmp_path):
    code = "import os, signal, sys; from torchlogit.cli import main; import torchlogit.cli.workflow as w\n" \
           "w._fit = lambda *a, **b: os.kill(os.getpid(), signal.SIGTERM)\nmain()"
    ended = process("fit", table, "--target", "bought", "-o", tmp_path / "model", code=code)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "", "torchlogit: terminated; nothing was written\n")
    assert not list(tmp_path.iterdir())
