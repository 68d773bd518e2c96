"""Real files from the command line, as a stranger would give them: the file, the target, and next to nothing else."""

from __future__ import annotations

import csv
import gzip
import itertools
import json

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from typer.testing import CliRunner

from torchlogit import load, scan
from torchlogit.cli.application import app


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def fit(*arguments, output):
    result = run("fit", *arguments, "--json", "-o", output)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["converged"], figures["status"]
    assert figures["kkt"] <= 1e-6
    assert 0 <= figures["excess"] <= 1e-7 * figures["objective"]
    return figures


def read_predictions(path):
    """Predictions and probabilities as they were written: text to float by Python's own exact reader."""
    if path.suffix == ".parquet":
        frame = pyarrow.parquet.read_table(path).to_pandas()
        return frame.columns.tolist(), frame.iloc[:, 0].astype(str).tolist(), frame.iloc[:, 1:].to_numpy()
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, [row[0] for row in rows], np.array([[float(cell) for cell in row[1:]] for row in rows])


def check_predictions(model_path, data, table, folder):
    """CSV and Parquet hold what the Python interface says, to the bit; returns the probabilities."""
    model = load(model_path)
    expected = model.predict_proba(table)
    labels = [str(label) for label in np.asarray(model.predict(table)).tolist()]
    names = ["prediction", *(f"probability_{label}" for label in model[-1].classes_.tolist())]
    for suffix in (".csv", ".parquet"):
        path = folder / f"predictions{suffix}"
        result = run("predict", model_path, *data, "-o", path)
        assert result.exit_code == 0, result.output
        header, prediction, probability = read_predictions(path)
        assert header == names
        assert prediction == labels
        np.testing.assert_array_equal(probability, expected)
    return expected


def check_measures(figures, truth, probability, classes):
    """The figures printed, computed again from the predictions written."""
    hit = np.asarray(truth) == classes[1]
    assert figures["n_test"] == hit.size
    assert figures["accuracy"] == pytest.approx(accuracy_score(hit, probability[:, 1] > 0.5), abs=1e-12)
    assert figures["auc"] == pytest.approx(roc_auc_score(hit, probability[:, 1]), abs=1e-12)
    assert figures["log_loss"] == pytest.approx(log_loss(hit, probability[:, 1]), rel=1e-9)
    assert figures["brier"] == pytest.approx(np.mean((probability[:, 1] - hit) ** 2), rel=1e-9)


def test_census_income(shared_data, tmp_path):
    model, test = tmp_path / "model.safetensors", shared_data / "adult_test.csv.gz"
    figures = fit(
        shared_data / "adult_train.csv.gz", "--target", "column_14", "--no-header", "--test", test, output=model
    )
    assert (figures["n_rows"], figures["n_test"], figures["n_columns"]) == (32_561, 16_281, 14)
    assert figures["auc"] >= 0.90
    assert any("'>50K.' is read as '>50K'" in remark for remark in figures["remarks"])
    table = scan(test, target="column_14", header=False)
    probability = check_predictions(model, [test], table, tmp_path)
    check_measures(figures, table.labels(), probability, ["<=50K.", ">50K."])

    with gzip.open(test, "rt") as file:
        unlabelled = [line.rsplit(",", 1)[0] for line in file if line.strip()]
    (tmp_path / "new.csv").write_text("\n".join(unlabelled) + "\n")
    assert run("predict", model, tmp_path / "new.csv", "-o", tmp_path / "new_predictions.csv").exit_code == 0
    np.testing.assert_array_equal(read_predictions(tmp_path / "new_predictions.csv")[2], probability)


def test_a_frame_is_predicted_as_its_file(shared_data, tmp_path):
    data, model = shared_data / "adult_train.csv.gz", tmp_path / "model.safetensors"
    fit(data, "--target", "column_14", "--no-header", output=model)
    frame = pd.read_csv(data, header=None, skipinitialspace=True, na_values="?", dtype={14: str})
    frame.columns = [f"column_{j}" for j in range(15)]
    expected = load(model).predict_proba(scan(data, target="column_14", header=False))
    np.testing.assert_array_equal(load(model).predict_proba(frame.drop(columns="column_14")), expected)


def test_census_income_in_every_format(shared_data, tmp_path):
    """Gzipped text, plain text in two files, and Parquet with typed columns: one encoder to the bit, one optimum."""
    frame = pd.read_csv(shared_data / "adult_train.csv.gz", header=None, skipinitialspace=True, na_values="?")
    frame = frame.iloc[:6_000]
    frame.columns = [f"c{j}" for j in range(15)]
    frame.to_parquet(tmp_path / "x.parquet")
    frame.to_csv(tmp_path / "x.csv.gz", index=False)
    frame.iloc[:2_500].to_csv(tmp_path / "part1.csv", index=False, sep=";")
    frame.iloc[2_500:].to_csv(tmp_path / "part2.csv", index=False, sep=";")
    models = []
    for data in (["x.parquet"], ["x.csv.gz"], ["part1.csv", "part2.csv"]):
        path = tmp_path / "model.safetensors"
        fit(*(tmp_path / name for name in data), "--target", "c14", "--test-size", 0, "--tol", 1e-10, output=path)
        models.append(load(path))
    numbers = [model[0].transform(frame.drop(columns="c14")) for model in models]
    for model, matrix in zip(models[1:], numbers[1:], strict=True):
        assert list(model[0].get_feature_names_out()) == list(models[0][0].get_feature_names_out())
        assert matrix.data.tobytes() == numbers[0].data.tobytes()
        np.testing.assert_allclose(model[-1].coef_, models[0][-1].coef_, rtol=0, atol=1e-9)


def test_telco_churn(shared_data, tmp_path):
    data, model = shared_data / "telco_churn.csv", tmp_path / "model.safetensors"
    figures = fit(data, "--target", "Churn", output=model)
    assert figures["auc"] >= 0.83
    assert figures["n_rows"] + figures["n_test"] == 7_043
    decisions = {decision.column: decision for decision in load(model)[0].decisions_}
    assert decisions["customerID"].kind == "drop"
    assert decisions["TotalCharges"].kind == "numeric"  # though eleven values are a space
    assert "missing" in decisions["TotalCharges"].reason
    check_predictions(model, [data], scan(data, target="Churn"), tmp_path)


def test_sms_spam(shared_data, tmp_path):
    data, model = shared_data / "sms_spam.tsv", tmp_path / "model.safetensors"
    figures = fit(data, "--target", "column_0", "--no-header", output=model)
    assert figures["accuracy"] >= 0.975
    assert figures["n_rows"] + figures["n_test"] == 5_574
    table = scan(data, target="column_0", header=False)
    check_predictions(model, [data], table, tmp_path)


@pytest.mark.parametrize(
    ("name", "target", "options", "least"),
    [
        ("spambase.csv", "spam", [], {"auc": 0.96, "accuracy": 0.90}),
        ("wells.csv", "switch", [], {"auc": 0.62}),
        ("birthwt.csv", "low", ["--drop", "bwt", "--drop", "rownames"], {}),
        ("higgs_7k.train.tsv.gz", "column_0", ["--no-header", "--test", "higgs_500.test.tsv"], {"auc": 0.68}),
    ],
)
def test_numeric_tables(shared_data, tmp_path, name, target, options, least):
    model = tmp_path / "model.safetensors"
    options = [shared_data / option if ".test." in option else option for option in options]
    figures = fit(shared_data / name, "--target", target, *options, output=model)
    for measure, value in least.items():
        assert figures[measure] >= value
    drop = [column for flag, column in itertools.pairwise(options) if flag == "--drop"]
    table = scan(shared_data / name, target=target, drop=drop, header="--no-header" not in options)
    check_predictions(model, [shared_data / name], table, tmp_path)


def test_parquet(shared_data, tmp_path):
    data, model = shared_data / "fertility.parquet", tmp_path / "model.safetensors"
    figures = fit(data, "--target", "morekids", output=model)
    assert figures["n_rows"] + figures["n_test"] == 254_654
    assert figures["accuracy"] > figures["base_accuracy"]
    assert figures["auc"] > 0.60
    decisions = {decision.column: decision.kind for decision in load(model)[0].decisions_}
    assert decisions["rownames"] == "drop"
    check_predictions(model, [data], scan(data, target="morekids"), tmp_path)


@pytest.mark.parametrize(
    ("train", "test", "least"),
    [("a9a.libsvm.gz", "a9a.test.libsvm.gz", 0.849), ("agaricus.train.libsvm", "agaricus.test.libsvm", 1.0)],
)
def test_libsvm(shared_data, tmp_path, train, test, least):
    model = tmp_path / "model.safetensors"
    figures = fit(shared_data / train, "--target", "label", "--test", shared_data / test, output=model)
    assert figures["accuracy"] >= least
    estimator, table = load(model), scan(shared_data / test)
    expected = estimator.predict_proba(table)
    for suffix in (".csv", ".parquet"):
        path = tmp_path / f"predictions{suffix}"
        assert run("predict", model, shared_data / test, "-o", path).exit_code == 0
        np.testing.assert_array_equal(read_predictions(path)[2], expected)
    check_measures(figures, table.labels(), expected, estimator.classes_)


def test_without_a_penalty_separation_is_said(shared_data, tmp_path):
    model = tmp_path / "model.safetensors"
    arguments = ["--C", "inf", "--test-size", 0, "--json", "-o", model]
    result = run("fit", shared_data / "endometrial.csv", "--target", "HG", *arguments)
    assert result.exit_code == 0
    figures = json.loads(result.stdout)
    assert not figures["converged"]
    assert "quasi-completely separated by column 'NV' alone" in figures["status"]
    assert "'PI'" not in figures["status"]
    assert "'EH'" not in figures["status"]
    result = run("fit", shared_data / "agaricus.train.libsvm", "--target", "label", *arguments)
    figures = json.loads(result.stdout)
    assert not figures["converged"]
    assert "completely separated" in figures["status"]


def test_published_coefficients(shared_data, tmp_path):
    """Wells in Bangladesh, without a penalty; the encoder's standard units are undone by hand."""
    frame = pd.read_csv(shared_data / "wells.csv")[["switch", "dist100", "arsenic"]]
    frame.to_csv(tmp_path / "wells.csv", index=False)
    model = tmp_path / "model.safetensors"
    fit(tmp_path / "wells.csv", "--target", "switch", "--C", "inf", "--test-size", 0, output=model)
    classifier = load(model)[-1]
    scale = frame[["dist100", "arsenic"]].std(ddof=0).to_numpy()
    slopes = classifier.coef_[0] / scale
    np.testing.assert_allclose(slopes, [-0.89664, 0.46077], atol=6e-6)
    intercept = classifier.intercept_[0] - slopes @ frame[["dist100", "arsenic"]].mean().to_numpy()
    assert intercept == pytest.approx(0.00275, abs=6e-6)
