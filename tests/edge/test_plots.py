"""Pictures: what is drawn is what the model says, and one clear sentence where nothing can be drawn."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import matplotlib as mpl
import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.special import expit, softmax
from sklearn.datasets import load_iris, make_blobs, make_moons
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression as Peer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from torchlogit import LogisticModule, LogisticRegression, TableEncoder, Trace, scan, train
from torchlogit.plots import (
    CoefficientsDisplay,
    SigmoidDisplay,
    plot_boundary,
    plot_coefficients,
    plot_sigmoid,
    plot_trace,
)
from torchlogit.plots.style import NEGATIVE, PALETTE, POSITIVE, class_colours

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.colors import to_rgba


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    """Every picture is drawn once in full, so that warnings of the drawing are errors here."""
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")


@pytest.fixture(scope="module")
def blobs():
    X, y = make_blobs(300, centers=2, cluster_std=1.5, random_state=0)
    return X, y, LogisticRegression().fit(X, y)


@pytest.fixture(scope="module")
def iris():
    data = load_iris(as_frame=True)
    X, y = data.data, data.target_names[data.target]
    return X, y, LogisticRegression().fit(X, y)


def drawn(collections):
    """All points of some scatters, ``(n, 2)``."""
    return np.concatenate([np.asarray(part.get_offsets()) for part in collections])


def vertices(contours):
    """Corners of contour lines, ``(m, 2)``."""
    return np.concatenate([path.vertices for contour in contours for path in contour.get_paths()])


def network(*layers, seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(*layers)


# -- the sigmoid ----------------------------------------------------------------------------------------------------


def test_sigmoid_points_are_the_predictions(blobs):
    X, y, model = blobs
    display = plot_sigmoid(model, X, y)
    z, p = model.decision_function(X), model.predict_proba(X)[:, 1]
    expected = np.concatenate([np.column_stack([z[y == k], p[y == k]]) for k in (0, 1)])
    np.testing.assert_allclose(drawn(display.points_), expected, rtol=1e-12)
    np.testing.assert_allclose(display.line_.get_ydata(), expit(display.line_.get_xdata()), rtol=1e-12)
    low, high = display.ax_.get_xlim()
    assert low < z.min() < z.max() < high


def test_sigmoid_bands_hold_the_truth(blobs):
    X, y, model = blobs
    below, above = plot_sigmoid(model, X, y).truth_
    assert (len(below.get_offsets()), len(above.get_offsets())) == ((y == 0).sum(), (y == 1).sum())
    assert (np.asarray(below.get_offsets())[:, 1] < 0).all()
    assert (np.asarray(above.get_offsets())[:, 1] > 1).all()
    np.testing.assert_allclose(np.asarray(below.get_offsets())[:, 0], model.decision_function(X)[y == 0])


def test_sigmoid_without_labels(blobs):
    X, _, model = blobs
    display = plot_sigmoid(model, X)
    assert not display.truth_
    assert len(drawn(display.points_)) == len(X)


def test_sigmoid_of_one_class_against_the_rest(iris):
    X, y, model = iris
    display = plot_sigmoid(model, X, y, class_="versicolor")
    eta = model.decision_function(X)
    expected = eta[:, 1] - np.log(np.exp(eta[:, 0]) + np.exp(eta[:, 2]))
    np.testing.assert_allclose(display.position, expected, rtol=1e-9)
    np.testing.assert_allclose(display.probability, model.predict_proba(X)[:, 1], rtol=1e-12)
    np.testing.assert_array_equal(display.truth, y == "versicolor")
    assert display.ax_.get_ylabel() == "probability of versicolor"


def test_sigmoid_of_the_first_class_is_the_mirror_image(blobs):
    X, y, model = blobs
    first, second = plot_sigmoid(model, X, y, class_=0), plot_sigmoid(model, X, y)
    np.testing.assert_allclose(first.position, -second.position)
    np.testing.assert_allclose(first.probability, 1 - second.probability, atol=1e-12)
    np.testing.assert_array_equal(first.truth, ~second.truth)


def test_sigmoid_of_one_column_is_over_that_column(iris):
    X, y, _ = iris
    X, y = X[["petal width (cm)"]], y == "virginica"
    model = LogisticRegression().fit(X, y)
    display = plot_sigmoid(model, X, y)
    assert display.ax_.get_xlabel() == "petal width (cm)"
    np.testing.assert_array_equal(display.position, X.iloc[:, 0])
    line = display.line_.get_xdata()
    np.testing.assert_allclose(display.line_.get_ydata(), expit(line * model.coef_[0, 0] + model.intercept_[0]))


def test_sigmoid_along_one_of_several_columns(iris):
    X, y, model = iris
    display = plot_sigmoid(model, X, y, feature="petal length (cm)", class_="setosa")
    rows = np.tile(X.mean().to_numpy(), (400, 1))
    rows[:, 2] = display.line_.get_xdata()
    expected = softmax(rows @ model.coef_.T + model.intercept_, axis=1)[:, 0]
    np.testing.assert_allclose(display.line_.get_ydata(), expected, rtol=1e-9)
    np.testing.assert_array_equal(display.position, X["petal length (cm)"])
    assert plot_sigmoid(model, X, y, feature=-1, class_="setosa").ax_.get_xlabel() == "petal width (cm)"


def test_sigmoid_samples_with_a_seed_and_says_so(rng):
    X = rng.normal(size=(5000, 2))
    y = (X[:, 0] + rng.logistic(size=5000) > 0).astype(int)
    model = LogisticRegression().fit(X, y)
    one, again, other = (plot_sigmoid(model, X, y, seed=seed) for seed in (0, 0, 1))
    assert len(drawn(one.points_)) == 2000
    assert one.legend_.get_title().get_text() == "2,000 of 5,000 rows drawn"
    assert f"1 ({y.sum():,})" in [text.get_text() for text in one.legend_.get_texts()]
    np.testing.assert_array_equal(drawn(one.points_), drawn(again.points_))
    assert not np.array_equal(drawn(one.points_), drawn(other.points_))
    assert not plot_sigmoid(model, X, y, max_points=5000).legend_.get_title().get_text()


def test_sigmoid_of_a_model_whose_scores_are_no_log_odds(blobs):
    X, y, _ = blobs
    model = make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)).fit(X, y)
    display = plot_sigmoid(model, X, y)
    assert (display.probability == 1).any()
    assert np.isfinite(display.position).all()
    np.testing.assert_allclose(expit(display.position), display.probability, atol=1e-12)


def test_sigmoid_keeps_scores_where_probabilities_round_to_one():
    X = np.array([[-90.0, 1.0], [-1.0, 0.0], [1.0, 1.0], [90.0, 0.0]])
    model = Peer().fit(X, [0, 0, 1, 1])
    assert model.predict_proba(X)[3, 1] == 1
    scores = model.decision_function(X)
    np.testing.assert_allclose(plot_sigmoid(model, X).position, scores, rtol=1e-12)
    np.testing.assert_allclose(plot_sigmoid(model, X, class_=0).position, -scores, rtol=1e-12)
    direct = SigmoidDisplay.from_predictions([0, 0, 1, 1], scores)
    np.testing.assert_array_equal(direct.position, scores)
    np.testing.assert_allclose(direct.probability, expit(scores))
    module = torch.nn.Linear(2, 3)
    rows = 100 * torch.eye(2)
    logits = module(rows).detach().double().numpy()
    expected = logits[:, 1] - np.log(np.exp(logits[:, 0]) + np.exp(logits[:, 2]))
    assert np.abs(expected).max() > 37
    np.testing.assert_allclose(plot_sigmoid(module, rows, class_=1).position, expected, rtol=1e-6)


def test_sigmoid_from_predictions_refuses_other_labels():
    with pytest.raises(ValueError, match="y holds 2 in row 1, which is none"):
        SigmoidDisplay.from_predictions([0, 2], [0.5, 1.0])


@pytest.mark.parametrize("form", ["list", "sparse", "tensor", "half", "polars", "arrow", "pandas"])
def test_sigmoid_takes_rows_in_any_form(blobs, form):
    X, y, model = blobs
    names = ["a", "b"]
    if form in ("polars", "arrow", "pandas"):
        library = pytest.importorskip({"arrow": "pyarrow"}.get(form, form))
        columns = dict(zip(names, X.T, strict=True))
        rows = library.table(columns) if form == "arrow" else library.DataFrame(columns)
        model = LogisticRegression().fit(rows, y)
    else:
        rows = {
            "list": X.tolist(),
            "sparse": scipy.sparse.csr_array(X),
            "tensor": torch.from_numpy(X),
            "half": torch.from_numpy(X).to(torch.bfloat16),
        }[form]
    labels = torch.from_numpy(y) if form in ("tensor", "half") else y
    display = plot_sigmoid(model, rows, labels)
    expected = np.asarray(model.predict_proba(rows))[:, 1]
    np.testing.assert_allclose(display.probability, expected, atol=0.02 if form == "half" else 1e-12)
    if form != "sparse":
        along = plot_sigmoid(model, rows, labels, feature=0)
        assert along.ax_.get_xlabel() == ("a" if form in ("polars", "arrow", "pandas") else "x0")


def test_sigmoid_of_a_scan_takes_its_labels(tmp_path, blobs):
    X, y, _ = blobs
    words = np.where(y == 1, "spam", "ham")
    lines = ["a,b,kind", *(f"{a!r},{b!r},{word}" for (a, b), word in zip(X.tolist(), words, strict=True))]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    table = scan(tmp_path / "rows.csv", target="kind")
    model = make_pipeline(TableEncoder(), LogisticRegression()).fit(table)
    display = plot_sigmoid(model, table)
    np.testing.assert_array_equal(display.truth, words == "spam")
    np.testing.assert_allclose(display.position, model.decision_function(table))
    with pytest.raises(ValueError, match="X is a scan; read it into a frame"):
        plot_sigmoid(model, table, feature="a")
    with pytest.raises(ValueError, match="X is a scan; read two of its columns"):
        plot_boundary(model, table)


# -- coefficients ---------------------------------------------------------------------------------------------------


def test_bars_are_the_largest_coefficients(rng):
    X = rng.normal(size=(200, 8))
    model = LogisticRegression().fit(X, X @ np.linspace(-2, 1, 8) > 0)
    display = plot_coefficients(model, count=5)
    order = np.argsort(-np.abs(model.coef_[0]))[:5]
    bars = display.bars_[0]
    np.testing.assert_array_equal([bar.get_width() for bar in bars], model.coef_[0][order])
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == [f"x{j}" for j in order]
    assert display.ax_.yaxis_inverted()  # the largest stands at the top
    assert [bar.get_facecolor() for bar in bars] == [
        to_rgba(POSITIVE if value > 0 else NEGATIVE) for value in model.coef_[0][order]
    ]
    assert "towards True" in display.ax_.get_xlabel()
    assert len(plot_coefficients(model, count=None).bars_[0]) == 8


def test_scaled_coefficients_are_ranked_by_their_products(blobs):
    _, _, model = blobs
    scale = np.array([1.0, 100.0])
    display = plot_coefficients(model, scale=scale, std_error=[0.1, 0.2])
    np.testing.assert_allclose(display.coef[0], (model.coef_[0] * scale)[::-1])
    np.testing.assert_allclose(display.std_error[0], [20.0, 0.1])


def test_the_other_class_turns_the_signs(blobs):
    _, _, model = blobs
    display = plot_coefficients(model, class_=0)
    np.testing.assert_allclose(np.sort(display.coef), np.sort(-model.coef_))
    assert display.ax_.get_xlabel().endswith("towards 0)")


def test_intervals_are_two_sided_95_percent(blobs):
    _, _, model = blobs
    error = np.array([0.1, 0.3])
    display = plot_coefficients(model, std_error=error)
    order = np.argsort(-np.abs(model.coef_[0]))
    segments = display.bars_[0].errorbar.lines[2][0].get_segments()
    for segment, j in zip(segments, order, strict=True):
        expected = model.coef_[0, j] + np.array([-1.959964, 1.959964]) * error[j]
        np.testing.assert_allclose(segment[:, 0], expected, rtol=1e-5)


def test_many_classes_side_by_side_or_one(iris):
    _, _, model = iris
    display = plot_coefficients(model)
    assert [axes.get_title() for axes in display.axes_] == ["setosa", "versicolor", "virginica"]
    order = np.argsort(-np.abs(model.coef_).max(0))
    assert display.names == [model.feature_names_in_[j] for j in order]
    for k, bars in enumerate(display.bars_):
        np.testing.assert_array_equal([bar.get_width() for bar in bars], model.coef_[k][order])
    one = plot_coefficients(model, class_="virginica", names=list("abcd"))
    assert len(one.axes_) == 1
    np.testing.assert_allclose(one.coef[0], sorted(model.coef_[2], key=abs, reverse=True))
    assert set(one.names) == set("abcd")


def test_names_come_from_the_steps_before(blobs):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"age": [31, 45, 39, 28, 60, 33], "plan": ["a", "b", "a", "c", "b", "c"]})
    model = make_pipeline(TableEncoder(), LogisticRegression()).fit(table, [0, 1, 0, 1, 1, 0])
    assert set(plot_coefficients(model).names) == {"age", "plan = a", "plan = b", "plan = c"}
    X, y, _ = blobs
    frame = pd.DataFrame(X, columns=["left", "right"])
    assert set(plot_coefficients(make_pipeline(StandardScaler(), Peer()).fit(frame, y)).names) == {"left", "right"}
    assert set(plot_coefficients(make_pipeline(StandardScaler(), Peer()).fit(X, y)).names) == {"x0", "x1"}
    assert set(plot_coefficients(make_pipeline(Peer()).fit(frame, y)).names) == {"left", "right"}


def test_coefficients_of_searches_sparse_models_and_modules(blobs):
    X, y, model = blobs
    search = GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2).fit(X, y)
    np.testing.assert_array_equal(plot_coefficients(search).coef, plot_coefficients(model).coef)
    sparse = LogisticRegression().fit(X, y).sparsify()
    np.testing.assert_array_equal(plot_coefficients(sparse).coef, plot_coefficients(model).coef)
    layer = torch.nn.Linear(3, 1)
    expected = sorted(layer.weight[0].tolist(), key=abs, reverse=True)
    np.testing.assert_allclose(plot_coefficients(layer).coef[0], expected)


def test_signs_of_formulas_in_names_are_drawn_as_they_are():
    display = CoefficientsDisplay(coef=np.array([[1.0, 2.0]]), names=["price ($)", "income ($), " + "x" * 60]).plot()
    display.figure_.canvas.draw()
    assert display.ax_.get_yticklabels()[0].get_text() == r"price (\$)"
    assert len(display.ax_.get_yticklabels()[1].get_text()) == 41


# -- boundaries -----------------------------------------------------------------------------------------------------


def test_the_boundary_lies_where_the_coefficients_say(blobs):
    X, y, model = blobs
    display = plot_boundary(model, X, y)
    line = vertices(display.boundary_)
    distance = np.abs(line @ model.coef_[0] + model.intercept_[0]) / np.linalg.norm(model.coef_[0])
    cell = max(display.x0[1] - display.x0[0], display.x1[1] - display.x1[0])
    assert distance.max() < 0.05 * cell  # contours are interpolated, and the surface is smooth
    assert np.ptp(line, axis=0).max() > 0.9 * np.ptp(display.x0)
    np.testing.assert_allclose(np.sort(drawn(display.points_), axis=0), np.sort(X, axis=0))
    assert [tuple(part.get_facecolor()[0]) for part in display.points_] == [to_rgba(c) for c in (NEGATIVE, POSITIVE)]


def test_the_surface_is_the_probability(blobs):
    X, y, model = blobs
    display = plot_boundary(model, X, y, resolution=30)
    surface = np.asarray(display.surface_.get_array())
    for i, j in [(0, 0), (3, 25), (29, 12)]:
        expected = model.predict_proba([[display.x0[j], display.x1[i]]])[0, 1]
        np.testing.assert_allclose(surface[i, j], expected, rtol=1e-6)
    left, _, bottom, top = display.surface_.get_extent()  # pixels are centred on the grid
    np.testing.assert_allclose(left, display.x0[0] - (display.x0[1] - display.x0[0]) / 2)
    np.testing.assert_allclose(top - bottom, 30 * (display.x1[1] - display.x1[0]))
    assert display.colorbar_.ax.get_ylabel() == "probability of 1"


def test_regions_of_many_classes(iris):
    X, y, _ = iris
    X = X[["petal length (cm)", "petal width (cm)"]]
    model = LogisticRegression().fit(X, y)
    display = plot_boundary(model, X, y, resolution=60)
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == tuple(X.columns)
    assert display.colorbar_ is None
    colours = np.array([to_rgba(colour)[:3] for colour in PALETTE[:3]])
    picture = np.asarray(display.surface_.get_array())
    for i, j in [(2, 2), (30, 30), (55, 57)]:
        point = type(X)([[display.x0[j], display.x1[i]]], columns=X.columns)
        towards = 1 - colours[list(model.classes_).index(model.predict(point)[0])]
        faded = 1 - picture[i, j]
        np.testing.assert_allclose(faded / np.linalg.norm(faded), towards / np.linalg.norm(towards), rtol=1e-6)
    for k, contour in enumerate(display.boundary_):  # on its edge, a class is as probable as the best other
        probability = softmax(vertices([contour]) @ model.coef_.T + model.intercept_, axis=1)
        np.testing.assert_allclose(probability[:, k], np.delete(probability, k, axis=1).max(1), atol=0.01)


def test_no_contour_where_the_plane_has_one_side(blobs):
    X, y, model = blobs
    far = X[y == 1] + 50 * model.coef_[0]
    display = plot_boundary(model, far)
    assert not display.boundary_
    assert len(display.points_) == 1
    plot_boundary(model, np.repeat(X[:1], 3, axis=0))  # a single point has a plane around it, too


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_the_grid_has_the_columns_of_the_frame(blobs, library):
    X, y, _ = blobs
    frame = pytest.importorskip(library).DataFrame({"left": X[:, 0], "up": X[:, 1]})
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, y)
    display = plot_boundary(model, frame, y, resolution=20)
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("left", "up")
    encoded = make_pipeline(TableEncoder(), LogisticRegression()).fit(frame, y)
    plot_boundary(encoded, frame, y, resolution=20)


def test_a_boundary_of_other_classifiers(blobs):
    X, y, _ = blobs
    for model in (Peer(), SVC(kernel="linear"), RandomForestClassifier(5, random_state=0)):
        model.fit(X, y)
        if hasattr(model, "predict_proba"):
            assert plot_boundary(model, X, y, resolution=20).boundary_
        else:
            with pytest.raises(ValueError, match="SVC has no predict_proba"):
                plot_boundary(model, X, y)


def test_a_title_stands_above_the_legend(blobs):
    X, y, model = blobs
    display = plot_boundary(model, X, y)
    title = display.ax_.set_title("Two blobs")
    display.figure_.canvas.draw()
    legend = display.legend_.get_window_extent()
    assert display.ax_.get_window_extent().y1 - 1 <= legend.y0 < legend.y1 <= title.get_window_extent().y0 + 1


def test_axes_that_are_given_are_drawn_on(blobs):
    X, y, model = blobs
    figure, axes = plt.subplots(1, 3)
    assert plot_boundary(model, X, y, ax=axes[0]).ax_ is axes[0]
    assert plot_sigmoid(model, X, y, ax=axes[1]).ax_ is axes[1]
    assert plot_coefficients(model, ax=axes[2]).ax_ is axes[2]
    assert plt.get_fignums() == [figure.number]


# -- modules --------------------------------------------------------------------------------------------------------


class _WithProbability(torch.nn.Module):
    """Its `probability` is not the sigmoid of what `forward` returns, so that a test can tell which was asked."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(2, 1)

    def forward(self, x):
        return self.head(x)

    def probability(self, x):
        return torch.sigmoid(2 * self.head(x))[:, 0]


MODULES = {
    "one column": lambda: network(torch.nn.Linear(2, 1)),
    "no column": lambda: network(torch.nn.Linear(2, 1), torch.nn.Flatten(0)),
    "two columns": lambda: network(torch.nn.Linear(2, 2)),
    "ends in a sigmoid": lambda: network(torch.nn.Linear(2, 1), torch.nn.Sigmoid()),
    "ends in a softmax": lambda: network(torch.nn.Linear(2, 2), torch.nn.Softmax(dim=1)),
    "double": lambda: network(torch.nn.Linear(2, 1)).double(),
    "probability": _WithProbability,
    "the package's own": lambda: LogisticModule(2),
}


@pytest.mark.parametrize("kind", MODULES)
def test_a_module_says_what_its_weights_say(blobs, kind):
    X, y, _ = blobs
    module = MODULES[kind]()
    linear = next(layer for layer in module.modules() if isinstance(layer, torch.nn.Linear))
    weight, bias = linear.weight.detach().double().numpy(), linear.bias.detach().double().numpy()
    z = X @ (weight[-1] - (weight[0] if len(weight) == 2 else 0)) + bias[-1] - (bias[0] if len(bias) == 2 else 0)
    z = 2 * z if kind == "probability" else z
    display = plot_sigmoid(module, X, torch.from_numpy(y)[:, None])
    np.testing.assert_allclose(display.position, z, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(display.probability, expit(z), atol=1e-5)
    boundary = plot_boundary(module, torch.from_numpy(X), y.astype(float), resolution=10)
    np.testing.assert_allclose(boundary.probability.sum(2), 1, atol=1e-6)


def test_a_module_of_many_classes(iris):
    X, y, _ = iris
    X = X.iloc[:, 2:]
    module = network(torch.nn.Linear(2, 3))
    codes = np.unique(y, return_inverse=True)[1]
    display = plot_boundary(module, X, codes, class_names=["setosa", "versicolor", "virginica"], resolution=25)
    assert display.legend_.get_texts()[2].get_text() == "virginica (50)"
    grid = torch.tensor([[display.x0[4], display.x1[7]]], dtype=torch.float32)
    expected = torch.softmax(module(grid), dim=1)[0].tolist()
    np.testing.assert_allclose(display.probability[7, 4], expected, rtol=1e-5)


def test_a_module_keeps_its_modes_gradients_and_random_numbers():
    X, y = make_moons(100, random_state=0)
    module = network(torch.nn.Linear(2, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(), torch.nn.Linear(8, 1))
    module.train()
    module[1].eval()  # a layer that is frozen stays so
    state = {name: value.clone() for name, value in module.state_dict().items()}
    before = torch.get_rng_state()
    one, again = (plot_boundary(module, X, y, resolution=20) for _ in range(2))
    assert [layer.training for layer in module] == [True, False, True, True]
    assert module.training
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert all(weight.grad is None for weight in module.parameters())
    np.testing.assert_array_equal(one.probability, again.probability)


def test_a_module_of_several_questions_has_no_boundary():
    rows = np.ones((4, 2))
    with pytest.raises(ValueError, match="2 probabilities of a row do not add up to one"):
        plot_boundary(LogisticModule(2, n_outputs=2), rows)
    with pytest.raises(ValueError, match="3 probabilities of a row do not add up to one"):
        plot_sigmoid(network(torch.nn.Linear(2, 3), torch.nn.Sigmoid()), rows, class_=0)


def test_a_module_that_fails_keeps_its_mode():
    module = network(torch.nn.Linear(3, 1))
    with pytest.raises(ValueError, match=r"Sequential does not take rows with 2 columns .* pass the columns that it"):
        plot_boundary(module, np.zeros((4, 2)))
    assert module.training
    with pytest.raises(ValueError, match=r"returns \(4, 2, 1\) for 4 rows; it must return logits"):
        plot_sigmoid(network(torch.nn.Linear(2, 2), torch.nn.Unflatten(1, (2, 1))), np.zeros((4, 2)))


# -- traces ---------------------------------------------------------------------------------------------------------


def test_lines_are_the_records_of_an_exact_fit(blobs):
    trace = blobs[2].trace_
    display = plot_trace(trace)
    assert list(display.lines_) == ["objective", "kkt", "excess"]
    for name, line in display.lines_.items():
        np.testing.assert_array_equal(line.get_xdata(), [record["passes"] for record in trace])
        np.testing.assert_array_equal(line.get_ydata(), [record[name] for record in trace])
    assert [axes.get_yscale() for axes in display.axes_] == ["linear", "log"]
    assert display.axes_[1].get_xlabel() == "passes over the rows"
    assert list(plot_trace(blobs[2], "kkt").lines_) == ["kkt"]  # the estimator will do


def _training(epochs=3, batches=4, **more):
    for step in range(epochs * batches):
        epoch, batch = divmod(step, batches)
        record = {"step": step, "epoch": epoch, "objective": 1 / (1 + step), "gradient_norm": 0.5**step, **more}
        record["learning_rate"] = 0.1 / (1 + epoch)
        if batch == batches - 1:
            record["validation"] = 1.1 / (1 + step)
        yield record


def test_lines_are_the_records_of_a_training():
    trace = Trace(_training())
    display = plot_trace(trace)
    assert list(display.lines_) == ["objective", "validation", "gradient_norm", "learning_rate"]
    np.testing.assert_array_equal(display.lines_["validation"].get_xdata(), [3, 7, 11])
    np.testing.assert_array_equal(display.lines_["validation"].get_ydata(), [1.1 / 4, 1.1 / 8, 1.1 / 12])
    np.testing.assert_array_equal(display.lines_["learning_rate"].get_ydata(), [r["learning_rate"] for r in trace])
    assert [axes.get_yscale() for axes in display.axes_] == ["linear", "log", "linear"]
    constant = [{**record, "learning_rate": 0.1} for record in trace]
    assert "learning_rate" not in plot_trace(constant).lines_
    np.testing.assert_array_equal(plot_trace(trace, against="epoch").lines_["objective"].get_xdata()[:5], [0] * 4 + [1])


def test_lines_of_the_package_s_own_training(blobs):
    X, y, _ = blobs
    rows, labels = torch.from_numpy(X).float(), torch.from_numpy(y)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    options = {"epochs": 3, "batch_size": 100, "validation": (rows[:50], labels[:50])}
    trace = train(LogisticModule(2), rows, labels, optimizer=optimizer, **options)
    display = trace.plot()
    assert list(display.lines_) == ["objective", "validation", "gradient_norm"]
    np.testing.assert_array_equal(display.lines_["objective"].get_ydata(), [r["objective"] for r in trace])
    watched = [record["validation"] for record in trace if "validation" in record]
    assert len(watched) == 4
    np.testing.assert_array_equal(display.lines_["validation"].get_ydata(), watched)


def test_a_trace_on_one_axes_has_a_twin():
    figure, ax = plt.subplots()
    display = plot_trace(Trace(_training()), ["objective", "gradient_norm"], ax=ax)
    assert display.ax_ is ax
    assert [axes.get_yscale() for axes in display.axes_] == ["linear", "log"]
    assert [axes.get_yscale() for axes in figure.axes] == ["linear", "log"]
    assert len(ax.get_legend().get_texts()) == 2
    axes = plt.subplots(2)[1]
    assert plot_trace(Trace(_training()), ["objective", "gradient_norm"], ax=axes).axes_ == list(axes)


def test_a_certificate_of_zero_and_values_that_are_missing():
    records = [{"step": 0, "objective": 0.7, "kkt": 0.5, "excess": None}, {"step": 1, "objective": 0.6, "kkt": 0.0}]
    display = plot_trace(records)
    assert list(display.lines_) == ["objective", "kkt"]
    np.testing.assert_array_equal(display.lines_["kkt"].get_ydata(), [0.5, 0.0])
    plot_trace([{"step": 0, "kkt": 0.0}, {"step": 1, "kkt": 0.0}])
    plot_trace([{"step": 0, "objective": 0.7}, {"step": 1, "objective": float("inf")}])


# -- one clear sentence ---------------------------------------------------------------------------------------------


def test_what_cannot_be_drawn(blobs, iris):
    X, y, model = blobs
    flowers, kinds, many = iris
    with pytest.raises(NotFittedError, match="not fitted yet"):
        plot_sigmoid(LogisticRegression(), X, y)
    with pytest.raises(ValueError, match="this LogisticRegression is not fitted yet; call fit first"):
        plot_coefficients(LogisticRegression())
    with pytest.raises(ValueError, match="a boundary is drawn over two columns and X has 4"):
        plot_boundary(many, flowers, kinds)
    with pytest.raises(ValueError, match=r"3 classes and a sigmoid has two; .* class_: 'setosa', 'versicolor'"):
        plot_sigmoid(many, flowers, kinds)
    with pytest.raises(ValueError, match="class_='rose' is none of the model's classes; choose one of 'setosa'"):
        plot_sigmoid(many, flowers, kinds, class_="rose")
    with pytest.raises(ValueError, match="y holds 'rose' in row 0, which is none of the model's classes"):
        plot_boundary(model, X, ["rose"] * len(X))
    with pytest.raises(ValueError, match=r"y has shape \(3,\) and X has 300 rows"):
        plot_sigmoid(model, X, [0, 1, 1])
    with pytest.raises(ValueError, match=r"X has shape \(300,\) and must have two dimensions"):
        plot_sigmoid(model, X[:, 0], y)
    with pytest.raises(ValueError, match="X has no rows"):
        plot_boundary(model, X[:0])
    with pytest.raises(ValueError, match="X holds NaN or infinity, first in row 1, column 0"):
        plot_boundary(model, [[0.0, 1.0], [np.nan, 1.0]])
    with pytest.raises(ValueError, match="X holds values that are not numbers"):
        plot_boundary(model, [["a", "b"]])
    with pytest.raises(ValueError, match="class_names has 1 entries and the model has 2 classes"):
        plot_boundary(model, X, y, class_names=["one"])
    with pytest.raises(ValueError, match="X has no column 'width'; choose one of 'sepal length"):
        plot_sigmoid(many, flowers, kinds, class_="setosa", feature="width")
    with pytest.raises(ValueError, match="feature=7, but X has 4 columns"):
        plot_sigmoid(many, flowers, kinds, class_="setosa", feature=7)
    with pytest.raises(ValueError, match="max_points is 0; it must be at least 1"):
        plot_sigmoid(model, X, max_points=0)
    with pytest.raises(ValueError, match="resolution is 1; it must be at least 2"):
        plot_boundary(model, X, resolution=1)
    with pytest.raises(TypeError, match="ax is a ndarray; pass one matplotlib Axes"):
        plot_boundary(model, X, ax=plt.subplots(2)[1])


def test_coefficients_that_cannot_be_drawn(blobs, iris, rng):
    X, y, model = blobs
    many = iris[2]
    with pytest.raises(ValueError, match="names has 3 entries and the model has 2 columns"):
        plot_coefficients(model, names=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"std_error has shape \(3,\); expected \(2,\), one number a coefficient"):
        plot_coefficients(model, std_error=[1, 2, 3])
    with pytest.raises(ValueError, match=r"std_error has shape \(4,\); expected \(3, 4\)"):
        plot_coefficients(many, std_error=[1, 2, 3, 4])
    with pytest.raises(ValueError, match=r"scale has shape \(3,\); expected \(4,\)"):
        plot_coefficients(many, scale=[1, 2, 3])
    with pytest.raises(ValueError, match="count is 0; it must be at least 1"):
        plot_coefficients(model, count=0)
    with pytest.raises(ValueError, match="class_=2 is none of the model's classes; choose one of 0, 1"):
        plot_coefficients(model, class_=2)
    with pytest.raises(ValueError, match="RandomForestClassifier has no coef_, it is not linear"):
        plot_coefficients(RandomForestClassifier(2).fit(X, y))
    with pytest.raises(ValueError, match="Sequential has 2 linear layers"):
        plot_coefficients(network(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)))
    with pytest.raises(ValueError, match="ax holds 1 axes and the picture has 3 panels"):
        plot_coefficients(many, ax=plt.subplots()[1])
    letters = LogisticRegression().fit(rng.normal(size=(60, 2)), np.arange(60) % 12)
    with pytest.raises(ValueError, match="12 classes, too many for one picture; choose one with class_: 0, 1"):
        plot_coefficients(letters)
    assert plot_coefficients(LinearSVC().fit(X, y)).bars_


def test_traces_that_cannot_be_drawn():
    with pytest.raises(ValueError, match="the trace is empty; fit or train a model first"):
        plot_trace(Trace())
    with pytest.raises(ValueError, match="no numbers under 'kk'; it has objective, step"):
        plot_trace([{"step": 0, "objective": 0.7}], ["kk"])
    with pytest.raises(ValueError, match="no numbers under 'theta'"):
        plot_trace([{"step": 0, "objective": 0.7, "theta": [[1.0]]}], "theta")
    with pytest.raises(ValueError, match="no numbers under 'step'"):
        plot_trace([{"objective": 0.7}])
    with pytest.raises(ValueError, match="ax holds 3 axes and the picture has 1 panels"):
        plot_trace([{"step": 0, "objective": 0.7}], ax=plt.subplots(3)[1])


# -- the rest -------------------------------------------------------------------------------------------------------


def test_colours_of_many_classes():
    assert class_colours(2) == [NEGATIVE, POSITIVE]
    assert len({tuple(to_rgba(colour)) for colour in class_colours(20)}) == 20


def test_importing_pictures_imports_no_matplotlib_and_no_pandas():
    code = "import sys, torchlogit.plots; print(sorted({'matplotlib', 'pandas', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
