"""The measures of the command line, added up block by block, against scikit-learn's on all rows at once."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score

from torchlogit.cli.measures import Measures, area_under_curve
from torchlogit.prediction import likeliest, log_probabilities, probabilities


def rows(classes, weighted, seed=0, n=5_000):
    rng = np.random.default_rng(seed)
    eta = np.round(rng.normal(size=(n, 1 if classes == 2 else classes)), 1)  # many ties
    codes = rng.integers(0, classes, n)
    weight = rng.integers(0, 4, n).astype(float) if weighted else None
    return codes, eta, weight


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_figures_in_blocks_are_those_of_all_rows(classes, weighted):
    codes, eta, weight = rows(classes, weighted)
    base = np.full(classes, 1 / classes)
    parts = [Measures(base), Measures(base)]
    for start in range(0, codes.size, 777):
        here = slice(start, start + 777)
        part = parts[start > 2_000]
        part.add(codes[here], likeliest(eta[here]), eta[here], None if weight is None else weight[here])
    found, probability = Measures.of_all(parts).figures(), probabilities(eta)

    assert found["accuracy"] == pytest.approx(accuracy_score(codes, likeliest(eta), sample_weight=weight), rel=1e-14)
    assert found["log_loss"] == pytest.approx(log_loss(codes, probability, sample_weight=weight), rel=1e-13)
    assert found["base_log_loss"] == pytest.approx(np.log(classes), rel=1e-13)
    if classes == 2:
        brier = brier_score_loss(codes, probability[:, 1], sample_weight=weight)
        auc = roc_auc_score(codes, eta[:, 0], sample_weight=weight)
    else:
        brier = np.average(np.square(probability - np.eye(classes)[codes]).sum(1), weights=weight)
        auc = np.mean(
            [roc_auc_score(codes == k, log_probabilities(eta)[:, k], sample_weight=weight) for k in range(classes)]
        )
    assert found["brier"] == pytest.approx(brier, rel=1e-13)
    assert found["auc"] == pytest.approx(auc, rel=1e-13)


@pytest.mark.parametrize("weight", [None, np.array([1.0, 1.0, 0.0])])
def test_one_class_alone_has_no_area(weight):
    truth = np.ones(3, dtype=bool) if weight is None else np.array([True, True, False])
    assert area_under_curve(truth, np.arange(3.0), weight) is None


def test_no_rows_have_no_figures():
    figures = Measures(np.array([0.5, 0.5])).figures()
    assert figures["auc"] is None
    assert np.isnan(figures["accuracy"])
