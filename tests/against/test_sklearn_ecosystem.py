"""One import changed: the tools around a classifier keep working."""

from __future__ import annotations

import io
import pickle

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression as Theirs
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV, cross_val_predict, cross_val_score
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from torchlogit import LogisticRegression


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return X[:300, :8], y[:300]


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("data", ["cancer", "iris"])
def test_the_same_coefficients(request, data, C, fit_intercept):
    X, y = request.getfixturevalue(data)
    X = StandardScaler().fit_transform(X)
    theirs = Theirs(C=C, fit_intercept=fit_intercept, tol=1e-10, max_iter=10_000, solver="newton-cg").fit(X, y)
    ours = LogisticRegression(C=C, fit_intercept=fit_intercept, tol=1e-10).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-5, atol=1e-6 * np.abs(theirs.coef_).max())
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-6)
    assert ours.coef_.shape == theirs.coef_.shape
    assert ours.intercept_.shape == theirs.intercept_.shape
    assert ours.n_iter_.dtype == np.int32


def test_the_same_parameters():
    ours, theirs = LogisticRegression().get_params(), Theirs().get_params()
    assert set(theirs) | {"device"} == set(ours)
    for name in set(theirs) - {"tol", "max_iter", "solver"}:
        assert ours[name] == theirs[name], name


def test_pipeline_and_clone(cancer):
    X, y = cancer
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.5)).fit(X, y)
    copy = clone(pipeline)
    assert not hasattr(copy[-1], "coef_")
    np.testing.assert_array_equal(copy.fit(X, y).predict_proba(X), pipeline.predict_proba(X))
    assert pipeline.score(X, y) > 0.9
    weighted = clone(pipeline).fit(X, y, logisticregression__sample_weight=np.linspace(0, 1, len(y)))
    assert not np.array_equal(weighted[-1].coef_, pipeline[-1].coef_)


def test_grid_search(cancer):
    X, y = cancer
    search = GridSearchCV(LogisticRegression(), {"C": [1e-3, 1.0, 1e3], "fit_intercept": [True, False]}, cv=3)
    search.fit(X, y)
    assert search.best_score_ > 0.9
    assert not np.isnan(search.cv_results_["mean_test_score"]).any()


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_cross_validation_in_threads(cancer, n_jobs):
    X, y = cancer
    with joblib.parallel_config(backend="threading"):
        scores = cross_val_score(LogisticRegression(), X, y, cv=3, n_jobs=n_jobs, scoring="neg_log_loss")
    np.testing.assert_allclose(scores, cross_val_score(LogisticRegression(), X, y, cv=3, scoring="neg_log_loss"))
    probability = cross_val_predict(LogisticRegression(), X, y, cv=3, method="predict_proba")
    assert probability.shape == (len(y), 2)


def test_calibration_and_threshold(cancer):
    X, y = cancer
    calibrated = CalibratedClassifierCV(LogisticRegression(), cv=3).fit(X, y)
    assert calibrated.score(X, y) > 0.9
    tuned = TunedThresholdClassifierCV(LogisticRegression(), scoring="balanced_accuracy", cv=3).fit(X, y)
    assert 0 < tuned.best_threshold_ < 1
    assert tuned.score(X, y) > 0.85


def test_permutation_importance(cancer):
    X, y = cancer
    model = LogisticRegression().fit(X, y)
    result = permutation_importance(model, X, y, n_repeats=2, random_state=0)
    assert result.importances_mean.max() > 0.01


@pytest.mark.parametrize("response", ["predict", "predict_proba", "decision_function"])
def test_decision_boundary(iris, response):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from sklearn.inspection import DecisionBoundaryDisplay

    X, y = iris
    keep = y < 2
    model = LogisticRegression().fit(X[keep, :2], y[keep])
    display = DecisionBoundaryDisplay.from_estimator(model, X[keep, :2], response_method=response, grid_resolution=10)
    assert np.isfinite(display.response).all()
    plt.close("all")


@pytest.mark.parametrize("fitted", [True, False])
def test_pickle_and_joblib(iris, fitted, tmp_path):
    X, y = iris
    model = LogisticRegression(C=2.0)
    if fitted:
        model.fit(X, y)
    joblib.dump(model, tmp_path / "model.joblib")
    stream = io.BytesIO()
    pickle.Pickler(stream, protocol=5).dump(model)
    for again in (pickle.loads(stream.getvalue()), joblib.load(tmp_path / "model.joblib")):
        assert again.get_params() == model.get_params()
        if fitted:
            np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
            assert again.status_ == model.status_
            assert again.trace_ == model.trace_


@pytest.mark.parametrize("meta", [OneVsRestClassifier, OneVsOneClassifier])
def test_one_against_others(iris, meta):
    X, y = iris
    assert meta(LogisticRegression()).fit(X, y).score(X, y) > 0.9


@pytest.mark.parametrize("meta", [MultiOutputClassifier, ClassifierChain])
def test_many_targets(cancer, meta):
    X, y = cancer
    Y = np.column_stack([y, X[:, 0] > np.median(X[:, 0])]).astype(int)
    assert meta(LogisticRegression()).fit(X, Y).predict(X).shape == Y.shape


def test_feature_selection(cancer):
    X, y = cancer
    assert SelectFromModel(LogisticRegression()).fit(X, y).transform(X).shape[1] < X.shape[1]
    assert RFE(LogisticRegression(), n_features_to_select=3).fit(X, y).support_.sum() == 3


def test_set_output_around_it(cancer):
    pd = pytest.importorskip("pandas")
    X, y = cancer
    frame = pd.DataFrame(X, columns=[f"f{j}" for j in range(X.shape[1])])
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).set_output(transform="pandas").fit(frame, y)
    assert list(pipeline[-1].feature_names_in_) == list(frame.columns)


def test_metadata_routing(cancer):
    X, y = cancer
    weight = np.linspace(0.1, 2, len(y))
    with sklearn.config_context(enable_metadata_routing=True):
        model = LogisticRegression().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        scores = cross_val_score(model, X, y, cv=3, params={"sample_weight": weight})
        refused = LogisticRegression()
        with pytest.raises(ValueError, match="sample_weight"):
            cross_val_score(refused, X, y, cv=3, params={"sample_weight": weight}, error_score="raise")
        offset = LogisticRegression().set_fit_request(sample_weight=False, offset=True)
        assert offset.get_metadata_routing().fit.requests["offset"] is True
    assert len(scores) == 3


def test_scorers(cancer):
    X, y = cancer
    ours, theirs = LogisticRegression().fit(X, y), Theirs(max_iter=100_000, tol=1e-8).fit(X, y)
    for name in ("roc_auc", "neg_log_loss", "neg_brier_score", "accuracy", "average_precision"):
        assert get_scorer(name)(ours, X, y) == pytest.approx(get_scorer(name)(theirs, X, y), rel=1e-3)


def test_html_and_text_representations():
    model = LogisticRegression(C=3.0)
    assert repr(model) == "LogisticRegression(C=3.0)"
    assert "LogisticRegression" in model._repr_html_()
