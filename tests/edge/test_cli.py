"""The command line as people use it: every command, on every kind of file."""

from __future__ import annotations

import csv
import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from edge.command_line import ENVIRONMENT, fine, process, run
from torchlogit import LogisticRegression, TableEncoder, load, save, scan
from torchlogit.cli.application import COMMANDS
from torchlogit.cli.labels import held_out

FIGURES = {
    "objective", "kkt", "excess", "converged", "status", "passes", "steps", "seconds", "n_rows", "n_columns",
    "n_features", "n_classes", "model",
}  # fmt: skip
QUALITY = {"accuracy", "auc", "log_loss", "brier"}
NAMES = [command.__name__ for command in COMMANDS]


def customers(rows=300):
    random = np.random.default_rng(11)
    frame = pd.DataFrame(
        {
            "age": random.integers(18, 90, rows),
            "spend": np.where(np.arange(rows) % 8 == 0, np.nan, random.gamma(2.0, 30.0, rows).round(3)),
            "plan [bold]": random.choice(["basic", "plus", "[red]pro[/red]", "ünder"], rows, p=[0.5, 0.3, 0.1, 0.1]),
            "member": random.choice(["yes", "no"], rows),
            "joined": pd.date_range("2021-03-01", periods=rows, freq="D").strftime("%Y-%m-%d"),
            "note": [f"please {'cancel' if i % 4 == 0 else 'keep'} my account and ring me about order {i}"
                     for i in range(rows)],
            "w": random.integers(0, 4, rows),
            "o": random.normal(0, 0.3, rows).round(4),
            "colour": random.choice(["red", "green", "blue"], rows, p=[0.5, 0.3, 0.2]),
        }
    )  # fmt: skip
    score = 0.15 * (frame["age"] - 50) + (frame["plan [bold]"] == "basic") + random.logistic(0, 1, rows)
    return frame.assign(churn=np.where(score > 0.5, "stays", "leaves"))


DROPS = ["--drop", "w", "--drop", "o", "--drop", "colour"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Tables, and a model that the command line fitted."""
    folder = tmp_path_factory.mktemp("cli")
    frame = customers()
    frame.to_csv(folder / "customers.csv", index=False)
    outcome = fine("fit", folder / "customers.csv", "--target", "churn", *DROPS, "-o", folder / "model", "--json")
    (folder / "figures.json").write_text(outcome.out)
    return folder


@pytest.fixture(scope="module")
def figures(place):
    return json.loads((place / "figures.json").read_text())


def predicted(model, *data, folder, options=(), suffix="parquet"):
    target = folder / f"predictions.{suffix}"
    fine("predict", model, *data, "-o", target, *options)
    return pd.read_parquet(target) if suffix == "parquet" else pd.read_csv(target)


def coefficients(model):
    found = fine("inspect", model, "--json").json
    return {(c.get("class"), c["feature"]): c["coefficient"] for c in found["coefficients"]}


# -- help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_explains_itself_with_an_example(name, flag):
    page = fine(name, flag).out
    assert "Examples:" in page
    assert re.search(rf"^ +torchlogit {name}\b", page, re.MULTILINE)
    summary = page.splitlines()[2].strip().split(". ")[0].rstrip(".") + "."
    overview = fine("--help").out
    assert f"{name} " in overview
    assert f"  {summary}" in overview, "cut short in the overview"


def test_without_a_command_the_overview_is_shown():
    assert fine().out == fine("--help").out
    assert "torchlogit demo" in fine().out
    assert re.fullmatch(r"torchlogit \d+\.\d+\.\d+\n", fine("--version").out)


HEAVY = """
import sys
from torchlogit.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {"torch", "numpy", "scipy", "sklearn", "pyarrow", "pandas", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["--version"]])
def test_help_does_not_wait_for_torch(arguments):
    result = process(*arguments, code=HEAVY)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout


# -- fit ------------------------------------------------------------------------------------------------------------


def test_the_page_that_fit_prints(place):
    page = fine("fit", place / "customers.csv", "--target", "churn", *DROPS, "-o", place / "page").out
    lines = page.splitlines()
    assert re.search(r"customers.csv: fitted on 240 rows, 6 columns as [\d,]+ numbers$", lines[0])
    assert re.match(r"target +leaves \d+\.\d %, stays \d+\.\d %$", lines[1])
    for column, words in {
        "age": "numeric: minus", "spend": "missing: the mean, and a marker", "plan [bold]": "category: 4 levels",
        "member": "boolean: yes is 1", "joined": "date: days from", "note": "text: ",
    }.items():  # fmt: skip
        assert any(line.startswith(f"{column} ") and words in line for line in lines), column
    assert "minimised mean log loss over" in page
    assert "|w|^2" in page
    for word in ("passes over", "objective", "certificate: kkt", "excess", "Converged", "held out", "base rate"):
        assert word in page, word
    measured = {line[:11].strip(): line.split()[-2:] for line in lines if re.match("accuracy|log loss|AUC|Brier", line)}
    assert measured.keys() == {"accuracy", "log loss", "AUC", "Brier score"}
    assert float(measured["log loss"][0]) < float(measured["log loss"][1])
    assert measured["AUC"][1] == "0.5000"
    assert "positive: towards stays" in page
    assert any(re.match(r"age +\d\.\d{4}$", line) for line in lines)
    assert lines[-1] == f"saved {place / 'page'}"


def test_json_is_one_flat_object(figures, place):
    assert set(figures) >= FIGURES | QUALITY
    assert not any(isinstance(value, dict) for value in figures.values())
    assert figures["converged"] is True
    assert figures["kkt"] <= 1e-6
    assert figures["n_rows"] + figures["n_test"] == 300
    assert figures["n_features"] == load(place / "model")[-1].n_features_in_
    assert figures["objective"] == load(place / "model")[-1].objective_


def test_without_held_out_rows_there_are_no_measures(place):
    found = fine(
        "fit", place / "customers.csv", "--target", "churn", "--test-size", 0, "-o", place / "all", "--json"
    ).json
    assert set(found) >= FIGURES
    assert not set(found) & (QUALITY | {"n_test", "base_accuracy"})
    assert found["n_rows"] == 300
    page = fine("fit", place / "customers.csv", "--target", "churn", "--test-size", 0, "-o", place / "all").out
    assert "base rate" not in page


def test_the_model_that_is_saved_was_measured_on_the_rows_that_are_held_out(place, figures):
    """Found again from Python: which rows are held out, the fit of the others, and every measure."""
    table = scan(place / "customers.csv", target="churn", drop=["w", "o", "colour"])
    labels = table.labels()
    codes = (labels == "stays").astype(np.int64)
    out = held_out(codes, table.uniforms(0), 0.2)
    for code in (0, 1):
        assert abs(out[codes == code].sum() - 0.2 * (codes == code).sum()) < 1
    assert out.sum() == figures["n_test"]
    model, rest = load(place / "model"), table.select(~out)
    assert model.classes_.tolist() == ["leaves", "stays"]
    encoder = TableEncoder().fit(rest)
    again = LogisticRegression().fit(encoder.transform(rest), labels[~out])
    assert again.coef_.tolist() == model[-1].coef_.tolist()
    probability = predicted(place / "model", place / "customers.csv", folder=place)["probability_stays"].to_numpy()[out]
    truth = codes[out]
    own = np.where(truth, probability, 1 - probability)
    assert figures["log_loss"] == pytest.approx(-np.log(own).mean(), rel=1e-12)
    assert figures["accuracy"] == ((probability > 0.5) == truth).mean()
    assert figures["brier"] == pytest.approx(((probability - truth) ** 2).mean(), rel=1e-12)
    pairs = np.sign(probability[truth == 1][:, None] - probability[truth == 0]).ravel()
    assert figures["auc"] == pytest.approx((pairs.mean() + 1) / 2, rel=1e-12)
    share = codes[~out].mean()
    assert figures["base_brier"] == pytest.approx(((share - truth) ** 2).mean(), rel=1e-12)


def test_the_seed_decides_which_rows_are_held_out(place):
    found = []
    for seed in (1, 1, 2):
        fine("fit", place / "customers.csv", "--target", "churn", *DROPS, "--seed", seed, "-o", place / "seeded")
        found.append(coefficients(place / "seeded"))
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_another_file_to_measure_on(place):
    frame = customers()
    frame[200:].to_csv(place / "later.csv", index=False)
    frame[:200].to_csv(place / "earlier.csv", index=False)
    options = ["--target", "churn", *DROPS, "-o", place / "tested", "--json"]
    found = fine("fit", place / "earlier.csv", "--test", place / "later.csv", *options).json
    assert (found["n_rows"], found["n_test"]) == (200, 100)
    assert found["remarks"] == []
    measured = fine("evaluate", place / "tested", place / "later.csv", "--json").json
    assert {key: found[key] for key in QUALITY} == {key: measured[key] for key in QUALITY}
    same = fine("fit", place / "earlier.csv", "--test", place / "earlier.csv", *options).json
    assert "rows that were fitted" in same["remarks"][0]
    twice = fine("fit", place / "earlier.csv", place / "earl*.csv", *options).json
    assert (twice["n_rows"] + twice["n_test"], len(twice["remarks"])) == (400, 1)
    assert "earlier.csv is given 2 times" in twice["remarks"][0]


def test_rows_that_were_fitted_are_said_to_be_such(place, tmp_path):
    data = tmp_path / "rows.csv"
    customers().to_csv(data, index=False)
    fine("fit", data, "--target", "churn", *DROPS, "-o", tmp_path / "m", "--json")
    copy, other = tmp_path / "another name.csv", tmp_path / "later.csv"
    copy.write_bytes(data.read_bytes())
    customers().iloc[:-1].to_csv(other, index=False)
    for path, fitted in ((data, True), (copy, True), (other, False)):
        remarks = fine("evaluate", tmp_path / "m", path, "--json").json["remarks"]
        assert remarks == [f"{path} was used to fit this model, so this is not how good it is on new rows"] * fitted
        assert ("was used to fit" in fine("evaluate", tmp_path / "m", path).out) == fitted


def test_what_to_look_at_in_the_columns_is_a_remark(tmp_path):
    frame = customers()[["age", "churn"]]
    frame["birth no"] = np.random.default_rng(0).permutation(300) + 1000
    frame["price"] = [f"{age / 7:.2f}".replace(".", ",") for age in frame["age"]]
    frame["dose"] = np.where(frame.index % 40 == 0, "<5", (frame.index * 0.37).astype(str))
    frame["amount"] = [f"({age},5)" for age in frame["age"]]
    frame.to_csv(tmp_path / "x.csv", index=False, sep=";")
    arguments = ["fit", tmp_path / "x.csv", "--target", "churn", "-o", tmp_path / "m"]
    remarks = fine(*arguments, "--json").json["remarks"]
    assert [remark.split(": ")[0] for remark in remarks] == ["birth no", "price", "dose", "amount"]
    needles = ["identifier? leave it out with --drop 'birth no'", "is read as ", "'<5' is none", "to use it as a"]
    for remark, words in zip(remarks, needles, strict=True):
        assert words in remark
    page = fine(*arguments).out
    assert all(f"note      {remark}\n" in page for remark in remarks)
    assert "numeric: written like 1.234,5, minus" in page
    described = fine("inspect", tmp_path / "m", "--json").json["encoding"]
    assert [entry["hint"] for entry in described if entry["hint"]] == [remark.split(": ", 1)[1] for remark in remarks]
    assert remarks[0].split(": ", 1)[1] in fine("inspect", tmp_path / "m").out.replace("\n", " ")
    wide = pd.DataFrame({f"id{j}": frame["birth no"] + j for j in range(30)}).assign(churn=frame["churn"])
    wide.to_csv(tmp_path / "x.csv", index=False)
    page = fine(*arguments).out
    assert page.count("\nnote ") == 21
    assert "and 10 more; 'torchlogit fit --json' lists all" in page
    assert len(fine(*arguments, "--json").json["remarks"]) == 30


def test_predictions_do_not_depend_on_what_holds_signs_and_commas(tmp_path):
    frame = customers()[["age", "churn"]]
    swapped = str.maketrans(",.", ".,")
    frame["price"] = [f"{1000 * age / 7:,.2f} €".translate(swapped) for age in frame["age"]]
    frame.to_csv(tmp_path / "x.csv", index=False, sep=";")
    frame.to_csv(tmp_path / "comma.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    fine("fit", tmp_path / "x.csv", "--target", "churn", "-o", tmp_path / "m")
    expected = load(tmp_path / "m").predict_proba(frame[["age", "price"]])
    for name in ("x.csv", "comma.csv", "x.parquet"):
        rows = predicted(tmp_path / "m", tmp_path / name, folder=tmp_path)
        assert (rows["probability_stays"].to_numpy() == expected[:, 1]).all()


def test_a_column_without_a_name_is_the_same_in_every_file(tmp_path):
    frame = customers()[["age", "member", "churn"]].rename(columns={"age": ""})
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    for one, other in (("csv", "parquet"), ("parquet", "csv")):
        fine("fit", tmp_path / f"x.{one}", "--target", "churn", "-o", tmp_path / one)
        found = [predicted(tmp_path / one, tmp_path / f"x.{kind}", folder=tmp_path) for kind in (one, other)]
        assert found[0].equals(found[1])
        assert "column_0" in fine("explain", tmp_path / one, tmp_path / f"x.{other}").out


def test_a_fit_that_ends_early_names_the_option(place, tmp_path):
    arguments = ["--target", "churn", *DROPS, "--max-iter", 1]
    found = fine("fit", place / "customers.csv", *arguments, "-o", tmp_path / "m", "--json").json
    assert (found["steps"], found["converged"]) == (1, False)
    assert "(--max-iter), or accept a larger --tol" in found["status"]
    for page in (
        fine("fit", place / "customers.csv", *arguments, "-o", tmp_path / "m").out,
        fine("inspect", tmp_path / "m").out,
        fine("compare", place / "customers.csv", *arguments).out,
    ):
        assert "(--max-iter)" in page
        assert "max_iter)" not in page
    refused = run("fit", place / "customers.csv", "--target", "churn", "--max-iter", 0).sentence
    assert "'0' is not a number of iterations" in refused


def test_a_label_with_a_full_stop_is_known(place):
    """As in the census file's own test part."""
    frame = customers(100)
    frame.assign(churn=frame["churn"] + ".").to_csv(place / "stops.csv", index=False)
    found = fine("evaluate", place / "model", place / "stops.csv", "--json").json
    assert found["n_rows"] == 100
    assert found["remarks"] == ["label 'leaves.' is read as 'leaves'", "label 'stays.' is read as 'stays'"]


def test_three_labels_and_one_against_the_rest(place):
    data = [place / "customers.csv", "--target", "colour", "--drop", "churn"]
    found = fine("fit", *data, "-o", place / "colours", "--json").json
    assert found["n_classes"] == 3
    assert "--positive" in found["remarks"][0]
    rows = predicted(place / "colours", place / "customers.csv", folder=place)
    assert list(rows.columns) == ["prediction", "probability_blue", "probability_green", "probability_red"]
    assert np.allclose(rows.iloc[:, 1:].sum(axis=1), 1)
    assert set(rows["prediction"]) <= {"blue", "green", "red"}
    found = fine("fit", *data, "--positive", "green", "-o", place / "green", "--json").json
    assert found["n_classes"] == 2
    rows = predicted(place / "green", place / "customers.csv", folder=place)
    assert list(rows.columns) == ["prediction", "probability_not green", "probability_green"]
    assert set(rows["prediction"]) <= {"green", "not green"}
    assert fine("evaluate", place / "green", place / "customers.csv", "--json").json["n_rows"] == 300


@pytest.mark.parametrize("positive", ["stays", "leaves"])
def test_the_positive_label_of_two_is_the_last(place, positive):
    data = [place / "customers.csv", "--target", "churn", *DROPS, "--test-size", 0]
    fine("fit", *data, "--positive", positive, "-o", place / "positive")
    assert load(place / "positive").classes_[1] == positive


def test_separated_classes_are_called_so(place):
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.normal(size=60), "the cause": random.normal(size=60)})
    frame.assign(y=np.where(frame["the cause"] > 0, "p", "n")).to_csv(place / "separated.csv", index=False)
    data = [place / "separated.csv", "--target", "y", "-o", place / "separated"]
    found = fine("fit", *data, "--C", "inf", "--json").json
    assert found["converged"] is False
    assert "separated by column 'the cause' alone" in found["status"]
    assert "without a penalty" in fine("fit", *data, "--C", "inf").out
    assert fine("fit", *data, "--json").json["converged"] is True
    page = fine("compare", place / "separated.csv", "--target", "y", "--C", "inf").out
    assert "separated by column 'the cause' alone" in page


def test_weights_and_offsets_are_those_of_the_python_interface(place):
    data, drops = place / "customers.csv", ["colour", "note"]
    options = ["--weight", "w", "--offset", "o", *(word for name in drops for word in ("--drop", name))]
    found = fine("fit", data, "--target", "churn", *options, "--test-size", 0, "-o", place / "weighted", "--json").json
    rows = scan(data, target="churn", weight="w", offset="o", drop=drops)
    model = LogisticRegression().fit(TableEncoder().fit_transform(rows))
    assert load(place / "weighted")[-1].coef_.tolist() == model.coef_.tolist()
    assert found["objective"] == model.objective_
    frame = customers()
    frame.drop(columns=["churn", "w"]).to_csv(place / "offset.csv", index=False)
    expected = load(place / "weighted").predict_proba(rows)[:, 1]
    for name in ("customers.csv", "offset.csv"):
        found = predicted(place / "weighted", place / name, folder=place)["probability_stays"]
        assert found.tolist() == expected.tolist()
    measured = fine("evaluate", place / "weighted", data, "--json").json
    hit = (expected > 0.5) == (frame["churn"] == "stays")
    assert measured["accuracy"] == pytest.approx(np.average(hit, weights=frame["w"]), rel=1e-12)


def test_dropped_columns_play_no_part(place):
    data = place / "customers.csv"
    fine("fit", data, "--target", "churn", "--drop", "note", "--drop", "joined", "-o", place / "dropped")
    assert not any("note" in feature or "joined" in feature for _, feature in coefficients(place / "dropped"))
    customers().drop(columns=["note", "joined", "churn"]).to_csv(place / "narrow.csv", index=False)
    one = predicted(place / "dropped", data, folder=place)
    other = predicted(place / "dropped", place / "narrow.csv", folder=place)
    assert one.equals(other)


# -- kinds of files -------------------------------------------------------------------------------------------------


def test_the_same_table_in_any_file_gives_the_same_model(place):
    frame, options = customers(), ["--target", "churn", *DROPS]
    expected = coefficients(place / "model")
    frame.to_csv(place / "semi.txt", index=False, sep=";")
    frame.to_csv(place / "tabs.tsv", index=False, sep="\t")
    frame.to_csv(place / "bar.csv", index=False, sep="|")
    frame.to_csv(place / "packed.csv.gz", index=False)
    frame.to_csv(place / "odd na.csv", index=False, na_rep="-none-")
    for name, more in (
        ("semi.txt", []), ("tabs.tsv", []), ("bar.csv", ["--sep", "|"]), ("packed.csv.gz", []),
        ("tabs.tsv", ["--sep", "tab"]), ("odd na.csv", ["--na", "-none-"]),
    ):  # fmt: skip
        fine("fit", place / name, *options, *more, "-o", place / "other")
        assert coefficients(place / "other") == expected, name
    frame.to_parquet(place / "table.parquet")
    frame.to_feather(place / "table.arrow")
    for name in ("table.parquet", "table.arrow"):
        fine("fit", place / name, *options, "-o", place / "typed")
        found = coefficients(place / "typed")
        assert found.keys() == expected.keys(), name
        assert np.allclose([found[key] for key in expected], list(expected.values()), rtol=1e-9, atol=1e-12)
        probability = predicted(place / "typed", place / name, folder=place)["probability_stays"]
        assert probability.tolist() == load(place / "typed").predict_proba(scan(place / name))[:, 1].tolist()


def test_several_files_and_patterns_are_one_table(place):
    frame = customers()
    folder = place / "parts"
    folder.mkdir()
    for part in range(3):
        frame[part * 100 : part * 100 + 100].to_csv(folder / f"part-{part}.csv", index=False)
    names = [folder / f"part-{part}.csv" for part in range(3)]
    options = ["--target", "churn", *DROPS, "--test-size", 0, "-o"]
    fine("fit", place / "customers.csv", *options, place / "whole")
    fine("fit", *names, *options, place / "parts-model")
    fine("fit", folder / "part-*.csv", *options, place / "pattern-model")
    whole = coefficients(place / "whole")
    assert coefficients(place / "parts-model") == coefficients(place / "pattern-model")
    assert np.allclose(list(coefficients(place / "parts-model").values()), list(whole.values()))
    one = predicted(place / "whole", place / "customers.csv", folder=place)
    assert predicted(place / "whole", *names, folder=place).equals(one)
    assert predicted(place / "whole", folder / "part-*.csv", folder=place).equals(one)
    turned = predicted(place / "whole", *names[::-1], folder=place)
    assert turned["probability_stays"].tolist()[200:] == one["probability_stays"].tolist()[:100]


def test_files_without_a_header(place):
    frame = customers()[["age", "spend", "member", "churn", "o"]]
    frame.to_csv(place / "bare.csv", index=False, header=False)
    frame.drop(columns="churn").to_csv(place / "bare-new.csv", index=False, header=False)
    fine("fit", place / "bare.csv", "--no-header", "--target", "column_3", "--offset", "column_4", "-o", place / "bare")
    with_target = predicted(place / "bare", place / "bare.csv", folder=place)
    assert predicted(place / "bare", place / "bare-new.csv", folder=place).equals(with_target)
    assert len(with_target) == 300
    shares = [fine("explain", place / "bare", place / name, "--row", 7, "--json").json["shares"]
              for name in ("bare.csv", "bare-new.csv")]  # fmt: skip
    assert shares[0] == shares[1]
    assert fine("evaluate", place / "bare", place / "bare.csv", "--json").json["n_rows"] == 300


def test_libsvm_files_need_no_target(place):
    random = np.random.default_rng(5)
    labels, values = random.integers(0, 2, 80) * 2 - 1, random.normal(size=(80, 2))
    lines = [f"{label} 1:{a:.4f} 4:{b:.4f}\n" for label, (a, b) in zip(labels, values, strict=True)]
    (place / "rows.libsvm").write_text("".join(lines))
    with gzip.open(place / "rows.libsvm.gz", "wt") as file:
        file.writelines(lines)
    fine("fit", place / "rows.libsvm", "-o", place / "sparse")
    fine("fit", place / "rows.libsvm.gz", "--target", "label", "-o", place / "sparse-packed")
    assert coefficients(place / "sparse") == coefficients(place / "sparse-packed")
    rows = predicted(place / "sparse", place / "rows.libsvm", folder=place)
    assert list(rows.columns) == ["prediction", "probability_-1", "probability_1"]
    expected = load(place / "sparse").predict_proba(scan(place / "rows.libsvm"))
    assert rows.iloc[:, 1:].to_numpy().tolist() == expected.tolist()
    assert fine("evaluate", place / "sparse", place / "rows.libsvm", "--json").json["n_rows"] == 80
    explained = fine("explain", place / "sparse", place / "rows.libsvm", "--row", 2, "--json").json
    assert sum(share["share"] for share in explained["shares"]) == pytest.approx(explained["logit"], rel=1e-12)


@pytest.mark.parametrize(
    ("labels", "names", "predictions"),
    [
        (np.array([False, True]), ["False", "True"], {False, True}),
        (np.array([0.0, 1.0]), ["0", "1"], {0, 1}),
        (np.array([0.5, 1.5]), ["0.5", "1.5"], {0.5, 1.5}),
        (np.array([7, -3]), ["-3", "7"], {-3, 7}),
        (np.array(["", "x y"]), ["", "x y"], {"", "x y"}),
    ],
)
def test_labels_keep_their_type(place, labels, names, predictions):
    frame = customers()[["age", "spend"]]
    frame["y"] = labels[(customers()["churn"] == "stays").astype(int)]
    frame.to_parquet(place / "typed-labels.parquet")
    fine("fit", place / "typed-labels.parquet", "--target", "y", "-o", place / "typed-labels")
    fine("predict", place / "typed-labels", place / "typed-labels.parquet", "-o", place / "typed-out.parquet")
    rows = pyarrow.parquet.read_table(place / "typed-out.parquet")
    assert rows.column_names == ["prediction", *(f"probability_{name}" for name in names)]
    found = set(rows["prediction"].to_pylist())
    assert found <= predictions
    assert {type(value) for value in found} == {type(value) for value in predictions}
    found = fine("evaluate", place / "typed-labels", place / "typed-labels.parquet", "--json").json
    assert found["n_rows"] == 300


# -- predict --------------------------------------------------------------------------------------------------------


def test_predictions_agree_with_the_python_interface_to_the_bit(place):
    data = place / "customers.csv"
    model = load(place / "model")
    rows = scan(data)
    probability, labels = model.predict_proba(rows), model.predict(rows)
    fine("predict", place / "model", data, "-o", place / "p.parquet")
    table = pyarrow.parquet.read_table(place / "p.parquet")
    assert table.column_names == ["prediction", "probability_leaves", "probability_stays"]
    for k, name in enumerate(table.column_names[1:]):
        assert table[name].to_pylist() == probability[:, k].tolist()
    assert table["prediction"].to_pylist() == labels.tolist()
    fine("predict", place / "model", data, "-o", place / "p.csv")
    with (place / "p.csv").open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == table.column_names
    assert [line[0] for line in lines] == labels.tolist()
    for line, expected in zip(lines, probability.tolist(), strict=True):
        assert [float(text) for text in line[1:]] == expected
        assert all(len(text) <= len(repr(value)) for text, value in zip(line[1:], expected, strict=True))


def test_the_target_need_not_be_there_and_columns_may_move(place):
    expected = predicted(place / "model", place / "customers.csv", folder=place)
    frame = customers().drop(columns=["churn", "w", "o", "colour"])
    frame[frame.columns[::-1]].assign(extra="?").to_csv(place / "moved.csv", index=False)
    assert predicted(place / "model", place / "moved.csv", folder=place).equals(expected)
    assert predicted(place / "model", place / "moved.csv", folder=place, suffix="csv").shape == expected.shape


def test_a_model_written_from_python(place):
    data = place / "customers.csv"
    frame = pd.read_csv(data)
    columns = ["age", "o"]
    save(LogisticRegression().fit(frame[columns], frame["churn"]), place / "by name")
    save(LogisticRegression().fit(frame[columns].to_numpy(float), frame["churn"]), place / "by place",
         notes={"figures": "mine"})  # fmt: skip
    expected = load(place / "by name").predict_proba(frame[columns])[:, 1].tolist()
    assert predicted(place / "by name", data, folder=place)["probability_stays"].tolist() == expected
    frame[columns].to_csv(place / "two.csv", index=False)
    assert predicted(place / "by place", place / "two.csv", folder=place)["probability_stays"].tolist() == expected
    assert "classes   leaves, stays" in fine("inspect", place / "by place").out
    explained = fine("explain", place / "by place", place / "two.csv", "--json").json
    assert {share["column"] for share in explained["shares"]} == {"x0", "x1", "(intercept)"}
    refused = run("predict", place / "by place", data, "-o", place / "never.csv").sentence
    assert "customers.csv has 10 columns, but the model was fitted on 2 without names" in refused
    assert "from Python" in run("evaluate", place / "by name", data).sentence
    save(LogisticRegression().fit(frame[columns], frame["churn"], offset=frame["o"]), place / "offset from python")
    assert "offset" in run("predict", place / "offset from python", data, "-o", place / "never.csv").sentence
    assert not (place / "never.csv").exists()


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 0.9, 1.0, "that of row 3", "that of row 4"])
def test_the_threshold_decides(place, threshold):
    if isinstance(threshold, str):
        rows = predicted(place / "model", place / "customers.csv", folder=place)
        threshold = float(rows["probability_stays"][int(threshold[-1])])
    rows = predicted(place / "model", place / "customers.csv", folder=place, options=["--threshold", threshold])
    positive = rows["probability_stays"] >= threshold
    assert (rows["prediction"] == np.where(positive, "stays", "leaves")).all()
    found = fine("evaluate", place / "model", place / "customers.csv", "--threshold", threshold, "--json").json
    assert found["accuracy"] == pytest.approx((rows["prediction"] == customers()["churn"]).mean(), rel=1e-12)


# -- inspect, evaluate, explain, compare, demo ------------------------------------------------------------------------


def test_inspect_shows_what_is_in_the_model(place):
    found = fine("inspect", place / "model", "--json").json
    model = load(place / "model")
    assert found["classes"] == ["leaves", "stays"]
    names = list(model[0].get_feature_names_out())
    for entry in found["coefficients"]:
        assert entry["coefficient"] == model[-1].coef_[0, names.index(entry["feature"])]
    assert len(found["coefficients"]) == model[-1].n_features_in_
    assert [entry["column"] for entry in found["encoding"]] == [d.column for d in model[0].decisions_]
    assert found["intercept"] == model[-1].intercept_.tolist()
    assert found["parameters"]["C"] == 1.0
    page = fine("inspect", place / "model").out
    for word in ("classes   leaves, stays", "target    churn", "minimised", "kkt", "Converged", "plan [bold]"):
        assert word in page, word


def test_evaluate_prints_what_it_measures(place):
    found = fine("evaluate", place / "model", place / "customers.csv", "--json").json
    assert set(found) >= QUALITY | {"n_rows", "base_accuracy", "base_log_loss", "base_brier"}
    page = fine("evaluate", place / "model", place / "customers.csv").out
    assert f"{found['auc']:.4f}" in page
    assert "300 rows" in page


@pytest.mark.parametrize("row", [0, 8, 299])
@pytest.mark.parametrize("name", ["model", "colours-for-explain"])
def test_shares_add_up_to_the_logit(place, name, row):
    data = place / "customers.csv"
    if name != "model" and not (place / name).exists():
        fine("fit", data, "--target", "colour", "-o", place / name)
    found = fine("explain", place / name, data, "--row", row, "--json").json
    model, rows = load(place / name), scan(data)
    eta = np.atleast_1d(model.decision_function(rows)[row])
    expected = eta.max() if eta.size > 1 else eta[0]
    assert found["logit"] == expected
    assert sum(share["share"] for share in found["shares"]) == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert found["prediction"] == model.predict(rows)[row]
    assert found["probability"] == pytest.approx(model.predict_proba(rows)[row].max(), rel=1e-12)
    age = next(share for share in found["shares"] if share["column"] == "age")
    assert age["value"] == str(customers()["age"][row])
    page = fine("explain", place / name, data, "--row", row).out
    assert f"--row {row} is customers.csv, row {row + 1} (line {row + 2})" in page
    shown = [float(value) for value in re.findall(r" ([+-]\d+\.\d{4})\b", page.split("share", 2)[2])]
    assert len(shown) == len(found["shares"])
    assert sum(shown) == pytest.approx(expected, abs=1e-4 * len(shown))


def test_values_that_python_has_no_type_for_are_explained(tmp_path):
    import pyarrow as pa

    random = np.random.default_rng(0)
    columns = {
        "far": pa.array(random.integers(5 * 10**11, 9 * 10**11, 60), pa.timestamp("s")),
        "fine": pa.array(random.integers(1, 10**18, 60), pa.timestamp("ns")),
        "clock": pa.array(random.integers(0, 86_399 * 10**9, 60), pa.time64("ns")),
        "long": pa.array(random.integers(0, 10**15, 60), pa.duration("s")),
        "y": pa.array(random.integers(0, 2, 60)),
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    fine("fit", tmp_path / "x.parquet", "--target", "y", "-o", tmp_path / "m")
    shares = fine("explain", tmp_path / "m", tmp_path / "x.parquet", "--row", 7, "--json").json["shares"]
    shown = {share["column"]: share["value"] for share in shares}
    assert re.match(r"[12]\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown["far"])
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9}", shown["fine"])
    assert re.match(r"\d\d:\d\d:\d\d\.\d{9}", shown["clock"])
    assert float(shown["long"].removesuffix(" s")) == pytest.approx(columns["long"][7].value, rel=1e-5)


def test_compare_puts_both_side_by_side(place):
    data = [place / "customers.csv", "--target", "churn", *DROPS]
    found = fine("compare", *data, "--json").json
    assert found["n_rows"] == 300
    for key in ("torchlogit", "sklearn", "sklearn_exact"):
        for name in ("objective", "kkt", "accuracy", "seconds", "mebibytes", "excess"):
            assert isinstance(found[f"{key}_{name}"], float), (key, name)
    assert found["torchlogit_kkt"] <= 1e-6
    assert found["torchlogit_objective"] == pytest.approx(found["sklearn_exact_objective"], rel=1e-8)
    page = fine("compare", *data).out
    for word in ("torchlogit", "scikit-learn, defaults", "objective", "certificate", "memory"):
        assert word in page


def test_the_demo_writes_what_it_says(tmp_path):
    folder = tmp_path / "a new folder" / "demo"
    page = fine("demo", "--folder", folder).out
    names = ["breast_cancer.csv", "demo.html", "model.safetensors", "picture.png", "predictions.csv"]
    assert sorted(os.listdir(folder)) == names
    assert page.splitlines()[-1] == f"the report, for a browser: {folder / 'demo.html'}"
    assert 'id="verdict"' in (folder / "demo.html").read_text(encoding="utf-8")
    assert all(str(folder / name) in page for name in os.listdir(folder))
    assert (folder / "picture.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    losses = [float(loss) for loss in re.findall(r"epoch +\d+  loss (\d\.\d+)", page)]
    assert len(losses) == 10
    assert losses == sorted(losses, reverse=True)
    assert len(pd.read_csv(folder / "predictions.csv")) == len(pd.read_csv(folder / "breast_cancer.csv")) == 569
    assert load(folder / "model.safetensors").classes_.tolist() == ["benign", "malignant"]


def test_a_tour_without_marimo_is_one_sentence(monkeypatch):
    monkeypatch.setattr("torchlogit.cli.tour.find_spec", lambda name: None)
    outcome = run("tour", "--no-browser")
    sentence = 'torchlogit: the tour needs marimo, which is not installed; install it: pip install "torchlogit[tour]"\n'
    assert (outcome.code, outcome.out, outcome.err) == (2, "", sentence)


@pytest.mark.parametrize("again", [False, True])
def test_an_interrupted_demo_says_what_it_has_written(tmp_path, monkeypatch, again):
    folder, names = tmp_path / "demo", ["breast_cancer.csv", "model.safetensors"]
    if again:
        fine("demo", "--folder", folder)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("torchlogit.cli.predict.predictions", interrupt)
    outcome = run("demo", "--folder", folder)
    written = ", ".join(str(folder / name) for name in names)
    assert (outcome.code, outcome.err) == (130, f"torchlogit: interrupted; written before that: {written}\n")
    assert again or sorted(os.listdir(folder)) == names
    monkeypatch.setattr("torchlogit.cli.demo._write_table", interrupt)
    outcome = run("demo", "--folder", folder)
    assert (outcome.code, outcome.err) == (130, "torchlogit: interrupted; nothing was written\n")


# -- odd names, terminals and pipes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a b.csv", "ü✓ 東.csv", "[bold]x.csv", "x[1]*?.csv", "-dash.csv", "--target", "%s{0}.csv"]
)
def test_any_name_of_a_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    customers(60)[["age", "spend", "churn"]].to_csv(name, index=False)
    page = fine("fit", "--target", "churn", "-o", f"{name}.model", "--", name).out
    assert page.startswith(f"{name}: fitted on 48 rows")
    assert page.endswith(f"saved {name}.model\n")
    fine("predict", "-o", f"{name}.out.csv", "--", f"{name}.model", name)
    assert f"in {name}" in fine("inspect", "--", f"{name}.model").out
    assert len(pd.read_csv(f"{name}.out.csv")) == 60
    fine("explain", "--row", 59, "--", f"{name}.model", name)


def test_names_are_printed_as_they_are_and_never_steer_the_terminal(tmp_path):
    frame = customers(80)[["age", "churn"]]
    wild = {"[bold red]b[/]": "age", "\x1b[31mred\x07": "age", ":smile: {x} %d": "age", "two\nlines": "age"}
    for j, name in enumerate(wild):
        frame[name] = frame["age"] * (-1) ** j + np.arange(80) * j
    frame["churn"] = "[blink]" + frame["churn"] + "\x1b[0m"
    frame.to_csv(tmp_path / "wild.csv", index=False)
    page = fine("fit", tmp_path / "wild.csv", "--target", "churn", "-o", tmp_path / "m").out
    page += fine("inspect", tmp_path / "m").out + fine("explain", tmp_path / "m", tmp_path / "wild.csv").out
    assert "\x1b" not in page
    assert "\x07" not in page
    for name in ("[bold red]b[/]", ":smile: {x} %d", "[blink]leaves"):
        assert name in page
    refused = run("fit", tmp_path / "wild.csv", "--target", "\x1b[31mrde").sentence
    assert "\x1b" not in refused
    rows = predicted(tmp_path / "m", tmp_path / "wild.csv", folder=tmp_path)
    assert list(rows.columns)[1:] == [f"probability_{label}" for label in load(tmp_path / "m").classes_]


def test_pages_stay_short_where_tables_are_wide(tmp_path):
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(400, 150)), columns=[f"column {j}" for j in range(150)])
    frame["y"] = [f"class {k}" for k in random.integers(0, 40, 400)]
    frame.to_csv(tmp_path / "wide.csv", index=False)
    page = fine("fit", tmp_path / "wide.csv", "--target", "y", "-o", tmp_path / "m").out
    assert len(page.splitlines()) < 90
    assert "and 34 more" in page
    assert "and 110 more; 'torchlogit inspect' lists all" in page
    assert len(fine("inspect", tmp_path / "m", "--json").json["coefficients"]) == 150 * 40


def test_a_narrow_terminal(place):
    """Lines are wrapped and nothing is left out, also where a bar might be drawn."""
    main, side = pty.openpty()
    command = [sys.executable, "-m", "torchlogit", "inspect", str(place / "model")]
    try:
        with subprocess.Popen(command, stdout=side, stderr=side, env={**ENVIRONMENT, "COLUMNS": "40"}) as run_:
            os.close(side)
            page = b""
            while True:
                try:
                    piece = os.read(main, 65536)
                except OSError:  # the other end is closed
                    break
                if not piece:
                    break
                page += piece
        assert run_.returncode == 0
    finally:
        os.close(main)
    text = page.decode()
    assert "leaves, stays" in text
    assert "..." not in text
    assert "…" not in text
    folded = re.sub(r"\s+", "", text)
    assert "[red]pro[/red]" in folded


def test_the_reader_of_a_pipe_may_leave(place):
    for arguments in (["inspect", place / "model"], ["--help"], ["fit", place / "no such file"]):
        command = [sys.executable, "-m", "torchlogit", *map(str, arguments)]
        reading, writing = os.pipe()
        os.close(reading)
        complaints = writing if "fit" in arguments else subprocess.PIPE
        with subprocess.Popen(command, stdout=writing, stderr=complaints, env=ENVIRONMENT) as run_:
            os.close(writing)
            said = b"" if run_.stderr is None else run_.stderr.read()
        assert said == b""
        assert run_.returncode == (2 if "fit" in arguments else 0)


SLOW = """
import sys, time
from torchlogit.cli import main
import torchlogit.cli.show as show
import torchlogit.files as files

place = sys.argv.pop(1)

def pause(*arguments):
    print("ready", file=sys.stderr, flush=True)
    while True:
        time.sleep(0.01)

if place == "writing":
    files.os.fsync = pause
else:
    usual = show.Waiting.now
    show.Waiting.now = lambda self, what, share=None: pause() if what.startswith(place) else usual(self, what, share)
main()
"""


@pytest.mark.parametrize("moment", ["reading", "fitting", "writing"])
def test_an_interrupted_fit_leaves_nothing(place, tmp_path, moment):
    """The process says when it is there and waits, so that no test depends on how fast the machine is."""
    arguments = ["fit", place / "customers.csv", "--target", "churn", "--json", "-o", tmp_path / "m"]
    command, pipe = [sys.executable, "-c", SLOW, moment, *map(str, arguments)], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=ENVIRONMENT, text=True) as run_:
        assert run_.stderr.readline() == "ready\n"
        run_.send_signal(signal.SIGINT)
        said, complained = run_.communicate(timeout=60)
    assert (run_.returncode, said) == (130, "")
    assert complained == "torchlogit: interrupted; nothing was written\n"
    assert os.listdir(tmp_path) == []


EARLY = """
import os, signal, sys
from torchlogit.cli import main

module = sys.argv.pop(1)

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
main()
"""


@pytest.mark.parametrize("module", ["typer", "torchlogit.cli.fit", "rich", "torch"])
def test_an_interruption_while_modules_are_imported(place, tmp_path, module):
    arguments = [module, "fit", place / "customers.csv", "--target", "churn", "-o", tmp_path / "m"]
    result = process(*arguments, code=EARLY)
    assert (result.returncode, result.stdout) == (130, "")
    assert result.stderr == "torchlogit: interrupted; nothing was written\n"
    assert os.listdir(tmp_path) == []


def test_an_interruption_that_comes_too_late_says_so(place, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("torchlogit.cli.fit._print", interrupt)
    outcome = run("fit", place / "customers.csv", "--target", "churn", "-o", tmp_path / "m")
    assert (outcome.code, outcome.err) == (130, f"torchlogit: interrupted; written before that: {tmp_path / 'm'}\n")
    load(tmp_path / "m")


def test_an_interrupted_prediction_leaves_the_old_file(place, monkeypatch):
    target = place / "old.csv"
    target.write_text("old")
    before = sorted(os.listdir(place))

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    outcome = run("predict", place / "model", place / "customers.csv", "-o", target)
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "torchlogit: interrupted; nothing was written\n")
    assert target.read_text() == "old"
    assert sorted(os.listdir(place)) == before
