"""Several processes, one fit: the same numbers, and one end."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from edge import processes_worker
from edge.command_line import fine
from edge.processes import launched, torchrun
from torchlogit import LogisticRegression, load, scan
from torchlogit.inputs import training_features
from torchlogit.sharing import Given, classes_of


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the processes scan."""
    folder = tmp_path_factory.mktemp("files")
    processes_worker.write_files(folder)
    return folder


@pytest.fixture(scope="module")
def alone(files: Path) -> dict[str, dict]:
    """What one process makes of all rows."""
    return processes_worker.fitted(slice(None)) | processes_worker.scanned(files)


@pytest.mark.parametrize("world", [2, 3])
def test_same_as_alone(world: int, alone: dict[str, dict], files: Path) -> None:
    """Every process ends with what one alone has found, and where one of three has no rows at all."""
    ended = launched(world, "fits", files / "said")
    assert [process.returncode for process in ended] == [0] * world, ended[0].stderr + ended[-1].stderr
    said = [json.loads((files / f"said.{rank}").read_text()) for rank in range(world)]
    assert all(own == said[0] for own in said)  # to the bit
    for name, there in said[0].items():
        here = alone[name]
        assert (there["status"], there["classes"], there["rows"]) == (here["status"], here["classes"], here["rows"])
        if "Not converged" in here["status"]:
            assert "'x3' alone" in here["status"]
            continue
        np.testing.assert_allclose(
            there["coefficients"], here["coefficients"], rtol=1e-9, atol=1e-9, err_msg=name
        )
        assert there["objective"] == pytest.approx(here["objective"], rel=1e-12)


@pytest.fixture(scope="module")
def long_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict]]:
    """A folder with files, and what one process makes of them in memory."""
    folder = tmp_path_factory.mktemp("long")
    processes_worker.write_long_files(folder)
    return folder, processes_worker.streamed(folder, None)


@pytest.mark.parametrize("world", [2, 3])
def test_shares_that_stay_in_their_files(world: int, long_files: tuple[Path, dict[str, dict]]) -> None:
    """No process holds its share of the rows, and all come to the optimum of the rows in memory, in few reads."""
    folder, whole = long_files
    alone = processes_worker.streamed(folder, "1.1MB")
    ended = launched(world, "streams", folder / "said", "1.1MB")
    assert [process.returncode for process in ended] == [0] * world, ended[0].stderr + ended[-1].stderr
    said = [json.loads((folder / f"said.{rank}").read_text()) for rank in range(world)]
    assert all(own == said[0] for own in said)  # to the bit
    for name, expected in whole.items():
        for found in (said[0][name], alone[name]):
            assert found["status"].startswith("Converged")
            assert found["from files"]
            assert not expected["from files"]
            assert (found["classes"], found["rows"]) == (expected["classes"], expected["rows"])
            scale = np.abs(expected["coefficients"])
            if name == "text":  # of standardised columns: no coefficient has a unit of its own
                scale[:] = scale.max()
            far = np.abs(np.array(found["coefficients"]) - expected["coefficients"]) / np.maximum(scale, scale[:, -1:])
            assert far.max() < 1e-8, name
        assert said[0][name]["steps"] <= alone[name]["steps"] + 1  # each a read


def test_classes_of_all_exceed_the_codes_of_one(tmp_path: Path) -> None:
    """The numbers of 300 classes do not fit into the bytes that count the 5 of this process's file."""
    path = tmp_path / "few.parquet"
    frame = pd.DataFrame({"x": np.arange(10.0), "y": [f"class {k}" for k in range(295, 300)] * 2})
    frame.to_parquet(path)
    lazy = scan(path, target="y")
    features = training_features(LogisticRegression(), lazy.portion(0, 1), None, none_is_fine=True)
    others = np.array([f"class {k}" for k in range(295)], dtype=object)
    two = SimpleNamespace(world=2, rank=0, together=lambda work: work(), gathered=lambda work: [work(), others])
    classes, codes = classes_of(LogisticRegression(), Given(features, None, None, None), two)
    assert classes.size == 300
    np.testing.assert_array_equal(classes[codes], frame["y"])


def test_failures_are_everywhere() -> None:
    """What goes wrong in one process is raised in all, at the same place, and the next fit works."""
    ended = launched(2, "failures")
    assert [process.returncode for process in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    first, second = (process.stdout.splitlines() for process in ended)
    assert first == second
    wanted = [
        "ValueError: Input X contains NaN. The first is in row 3 of process 1, column 2.",
        "ValueError: process 1 has the parameter C 2.0, process 0 1.0",
        "ValueError: process 1 has this many columns: 4, process 0 5",
        "ValueError: This solver needs samples of at least 2 classes",
        "ValueError: Sample weights must not be negative: row 0 has weight -1.0.",
        "ValueError: either all processes give sample_weight or none",
        "ValueError: partial_fit takes the rows of one process",
        "MemoryError: no memory left",
        "RuntimeError: the processes have come to different numbers",
    ]
    for line, start in zip(first[:-1], wanted, strict=True):
        assert line.startswith(start)
    X, y = processes_worker.problems()["dense"][:2]
    from torchlogit import LogisticRegression

    order = np.concatenate([np.arange(rank, len(y), 2) for rank in range(2)])
    model = LogisticRegression(tol=1e-10).fit(X[order], y[order])
    np.testing.assert_allclose(json.loads(first[-1]), model.coef_[0], rtol=1e-9)


def test_killed(tmp_path: Path) -> None:
    """Of a process that is gone the others hear at once; torchrun starts all again, and they arrive."""
    ended = torchrun(2, "killed", tmp_path / "coefficients", restarts=1)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("LostProcessError: another process of this fit has ended")
    assert ended.stdout.count("Error") == 1
    X, y = processes_worker.problems()["dense"][:2]
    from torchlogit import LogisticRegression

    expected = LogisticRegression(tol=1e-10).fit(X, y).coef_[0]
    np.testing.assert_allclose(json.loads((tmp_path / "coefficients").read_text()), expected, rtol=1e-9)


@pytest.mark.parametrize("block", [3, 12])
def test_killed_on_the_command_line(block: int, long_files: tuple[Path, dict[str, dict]], tmp_path: Path) -> None:
    """torchrun starts all again, they go on from the checkpoint, and write the bits of a fit that nobody disturbed."""
    data = long_files[0] / "long.parquet"
    options = ["--target", "y", "--drop", "w", "--memory", "1.1MB", "--tol", "1e-10"]
    words = ["command_killed", block, "fit", data, *options, "--checkpoint", tmp_path / "kept", "--resume"]
    ended = torchrun(2, *words, "-o", tmp_path / "killed.safetensors", restarts=1)
    assert ended.returncode == 0, ended.stderr
    assert "going on from" in ended.stderr
    calm = torchrun(2, "command", "fit", data, *options, "-o", tmp_path / "calm.safetensors")
    assert calm.returncode == 0, calm.stderr
    here, there = (load(tmp_path / name)[-1] for name in ("killed.safetensors", "calm.safetensors"))
    assert np.array_equal(here.coef_, there.coef_)
    assert np.array_equal(here.intercept_, there.intercept_)
    assert here.objective_ == there.objective_
    assert not list(tmp_path.glob(".*"))


def _table(rows: int = 900) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    table = pd.DataFrame(
        {
            "age": rng.integers(18, 90, rows).astype(float),
            "plan": rng.choice(["a", "b", "c", "d"], rows),
            "when": pd.date_range("2020-01-01", periods=rows, freq="7h").astype(str),
            "weight": rng.integers(0, 4, rows).astype(float),
            "shift": rng.normal(size=rows),
        }
    )
    table.loc[rng.random(rows) < 0.1, "age"] = np.nan
    score = (table.age.fillna(50) - 50) / 20 + (table.plan == "b") + table["shift"] + rng.logistic(size=rows)
    table["left"] = np.where(score > 0, "yes", "no")
    return table.sort_values("left")  # the first process sees one class only


def test_command_line(tmp_path: Path) -> None:
    """A table with categories, dates, missing values, weights and offsets: the same model, told once."""
    _table().to_parquet(tmp_path / "table.parquet", row_group_size=200)
    options = ["--target", "left", "--weight", "weight", "--offset", "shift", "--tol", "1e-10", "--json"]
    many, one = tmp_path / "many.safetensors", tmp_path / "one.safetensors"
    ended = launched(2, "command", "fit", tmp_path / "table.parquet", *options, "-o", many)
    assert [process.returncode for process in ended] == [0, 0], ended[0].stderr
    assert [process.stderr for process in ended] == ["", ""]
    assert [process.stdout for process in ended[1:]] == [""]
    told = json.loads(ended[0].stdout)
    expected = fine("fit", tmp_path / "table.parquet", *options, "-o", one).json
    assert (told["processes"], expected["processes"]) == (2, 1)
    assert told["n_rows"] == expected["n_rows"]
    assert told["auc"] == pytest.approx(expected["auc"], rel=1e-12)
    here, there = load(many)[-1], load(one)[-1]
    np.testing.assert_allclose(here.coef_, there.coef_, rtol=0, atol=1e-8)
    np.testing.assert_allclose(here.intercept_, there.intercept_, rtol=0, atol=1e-8)


def test_bad_input_on_the_command_line(tmp_path: Path) -> None:
    """One sentence in all, and exit code 2 everywhere."""
    table = _table(300)
    table.loc[table.index[-2], "weight"] = -1.0  # among the rows of the last process
    table.to_csv(tmp_path / "bad.csv", index=False)
    ended = launched(
        2, "command", "fit", tmp_path / "bad.csv", "--target", "left", "--weight", "weight", "-o", tmp_path / "model"
    )
    assert [process.returncode for process in ended] == [2, 2]
    assert [process.stdout for process in ended] == ["", ""]
    assert ended[1].stderr == ""
    assert ended[0].stderr.count("\n") == 1
    assert "row 299 (line 300) has '-1.0' in column 'weight'" in ended[0].stderr
    assert not (tmp_path / "model").exists()


def test_one_module_talks_to_other_processes() -> None:
    """``torch.distributed`` has one door."""
    package = Path(__file__).parents[2] / "src" / "torchlogit"
    sources = {path.name: path.read_text() for path in package.rglob("*.py")}
    users = [name for name, text in sources.items() if re.search(r"(import|from) torch\.distributed", text)]
    assert users == ["comm.py"]
