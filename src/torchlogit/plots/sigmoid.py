"""The sigmoid with the data on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.special
from numpy.typing import ArrayLike, NDArray

from torchlogit.plots.responses import classes_of, log_odds, probabilities
from torchlogit.plots.rows import (
    as_numbers,
    axis_names,
    checked_rows,
    class_codes,
    class_number,
    class_texts,
    like,
    listed,
)
from torchlogit.plots.style import INK, NEGATIVE, PALE, POSITIVE, legend_above, one_axes, sample_note, sampled
from torchlogit.rows import LazyRows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

_CURVE_POINTS = 400
_BAND, _JITTER = 0.08, 0.03  # the true classes stand this far outside 0 and 1, spread by this much


class SigmoidDisplay:
    """A sigmoid and the rows on it; `plot_sigmoid` makes and draws it.

    Parameters
    ----------
    position : ndarray of shape (n,)
        Where each row stands on the x axis.
    probability : ndarray of shape (n,)
        Of the positive class.
    curve : tuple of two ndarrays of shape (m,)
        Positions and probabilities of the line.
    truth : ndarray of shape (n,), bool, optional
        Whether each row is of the positive class.
    xlabel : str, default='linear predictor z'
    curve_label : str, default='sigmoid'
    class_names : tuple of two str, default=('0', '1')
        Negative and positive.

    Attributes
    ----------
    ax_, figure_ : Axes, Figure
    line_ : Line2D
        The curve.
    points_ : list of PathCollection
        The rows on it, negative class first; one collection if the truth is not known.
    truth_ : list of PathCollection
        The rows at their true class, in the bands below 0 and above 1.
    legend_ : Legend
        Above the axes.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from torchlogit.plots import SigmoidDisplay
    >>> display = SigmoidDisplay.from_predictions([0, 1, 1], [-2.0, 0.5, 3.0])
    >>> display.probability.round(3)
    array([0.119, 0.622, 0.953])
    >>> plt.close(display.figure_)
    """

    ax_: Axes
    figure_: Figure
    line_: Line2D
    points_: list[PathCollection]
    truth_: list[PathCollection]
    legend_: Legend

    def __init__(
        self,
        *,
        position: NDArray[np.float64],
        probability: NDArray[np.float64],
        curve: tuple[NDArray[np.float64], NDArray[np.float64]],
        truth: NDArray[np.bool_] | None = None,
        xlabel: str = "linear predictor z",
        curve_label: str = "sigmoid",
        class_names: tuple[str, str] = ("0", "1"),
    ) -> None:
        self.position, self.probability, self.curve, self.truth = position, probability, curve, truth
        self.xlabel, self.curve_label, self.class_names = xlabel, curve_label, class_names

    def plot(self, ax: Axes | None = None, *, max_points: int = 2000, seed: int = 0) -> SigmoidDisplay:
        """Draw.

        Parameters
        ----------
        ax : Axes, optional
            New ones if there are none.
        max_points : int, default=2000
            Of more rows, so many are drawn, and the legend says so.
        seed : int, default=0
            Of the sample and the jitter.

        Returns
        -------
        SigmoidDisplay
        """
        chosen = sampled(self.position.size, max_points, seed)
        self.ax_ = ax = one_axes(ax, (7.5, 4.5))
        self.figure_ = ax.figure  # type: ignore[assignment]
        negative, positive = self.class_names
        for level in (0.0, 0.5, 1.0):
            ax.axhline(level, color=PALE, linewidth=0.8, zorder=0)
        (self.line_,) = ax.plot(*self.curve, color=INK, linewidth=1.5, zorder=1, label=self.curve_label)
        x, p = self.position[chosen], self.probability[chosen]
        jitter = np.random.default_rng(seed).uniform(-_JITTER, _JITTER, self.position.size)[chosen]
        self.points_, self.truth_ = [], []
        for name, here, colour, band, marker in self._groups(chosen):
            style: dict[str, Any] = {"color": colour, "linewidths": 0, "marker": marker}
            self.points_.append(ax.scatter(x[here], p[here], s=28, alpha=0.6, zorder=2, label=name, **style))
            if band is not None:
                self.truth_.append(ax.scatter(x[here], band + jitter[here], s=12, alpha=0.35, zorder=2, **style))
        if self.truth is not None:
            for level, name in ((-_BAND, negative), (1 + _BAND, positive)):
                ax.text(1.01, level, f"is {name}", transform=ax.get_yaxis_transform(), va="center", color=INK)
        low, high = self.curve[0][0], self.curve[0][-1]
        ax.set(xlabel=self.xlabel, ylabel=f"probability of {positive}", xlim=(low, high), ylim=(-0.14, 1.14),
               yticks=[0, 0.25, 0.5, 0.75, 1])  # fmt: skip
        note = sample_note(chosen.size, self.position.size)
        self.legend_ = legend_above(ax, [self.line_, *self.points_], note)
        return self

    def _groups(self, chosen: NDArray[np.intp]) -> list[tuple[str, Any, str, float | None, str]]:
        """Name, which of the chosen rows, colour, height of the band and marker."""
        if self.truth is None:
            return [("rows", slice(None), POSITIVE, None, "o")]
        truth, (negative, positive) = self.truth[chosen], self.class_names
        ones = int(self.truth.sum())
        return [
            (f"{negative} ({self.truth.size - ones:,})", ~truth, NEGATIVE, -_BAND, "o"),
            (f"{positive} ({ones:,})", truth, POSITIVE, 1 + _BAND, "^"),
        ]

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        ax: Axes | None = None,
        feature: int | str | None = None,
        class_: Any = None,
        class_names: Any = None,
        max_points: int = 2000,
        seed: int = 0,
    ) -> SigmoidDisplay:
        """Ask a model and draw; parameters as for `plot_sigmoid`."""
        X = checked_rows(X)
        if isinstance(X, LazyRows) and y is None and X.target is not None:
            from torchlogit.lazy_prediction import lazy_labels

            y = lazy_labels(X, None)[0]
        probability = probabilities(estimator, X)
        rows, count = probability.shape
        classes = classes_of(estimator, count)
        texts = class_texts(classes, class_names)
        if class_ is None and count != 2:
            raise ValueError(
                f"the model has {count} classes and a sigmoid has two; choose the one to draw against all others with "
                f"class_: {listed(classes)}"
            )
        k = 1 if class_ is None else class_number(classes, class_)
        negative = texts[1 - k] if count == 2 else f"not {texts[k]}"
        truth = None if y is None else class_codes(y, classes, rows) == k
        if feature is None and (isinstance(X, LazyRows) or X.shape[1] != 1):
            position = log_odds(estimator, X, probability, k)
            axis: dict[str, Any] = {"position": position, "curve": _sigmoid(position)}
        else:
            axis = _along(estimator, X, feature, k)
        display = cls(probability=probability[:, k], truth=truth, class_names=(negative, texts[k]), **axis)
        return display.plot(ax, max_points=max_points, seed=seed)

    @classmethod
    def from_predictions(
        cls,
        y: Any,
        log_odds: ArrayLike,
        *,
        ax: Axes | None = None,
        class_names: tuple[str, str] = ("0", "1"),
        max_points: int = 2000,
        seed: int = 0,
    ) -> SigmoidDisplay:
        """Draw linear predictors that are known, such as ``model.decision_function(X, offset=offset)``.

        Parameters
        ----------
        y : array-like of shape (n,) or None
            0 or 1.
        log_odds : array-like of shape (n,)
        ax, class_names, max_points, seed
            As for `plot_sigmoid`.

        Returns
        -------
        SigmoidDisplay
        """
        position = as_numbers(np.asarray(log_odds).reshape(-1, 1))[:, 0]
        truth = None if y is None else class_codes(y, np.array([0, 1]), position.size) == 1
        negative, positive = class_texts(np.array([0, 1]), class_names)
        display = cls(position=position, probability=scipy.special.expit(position), curve=_sigmoid(position),
                      truth=truth, class_names=(negative, positive))  # fmt: skip
        return display.plot(ax, max_points=max_points, seed=seed)


def plot_sigmoid(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    ax: Axes | None = None,
    feature: int | str | None = None,
    class_: Any = None,
    class_names: Any = None,
    max_points: int = 2000,
    seed: int = 0,
) -> SigmoidDisplay:
    """Draw the sigmoid with every row at its linear predictor and its probability.

    With labels, rows are coloured by their class and stand a second time, jittered, in the band of what they are:
    below 0 or above 1. A model of one column has that column on the x axis.

    Parameters
    ----------
    model : LogisticRegression, classifier with ``predict_proba``, Pipeline, or torch.nn.Module
        Fitted. A module returns logits of shape ``(n,)``, ``(n, 1)`` or ``(n, n_classes)`` (probabilities, if its last
        layer is a Sigmoid or a Softmax), or has a method ``probability``.
    X : {array-like, sparse matrix, frame, Tensor, scan} of shape (n, p)
    y : array-like of shape (n,) or (n, 1), optional
        Labels; a module's are 0, 1, ... A scan brings its own.
    ax : Axes, optional
        New ones if there are none.
    feature : int or str, optional
        Column to have on the x axis. Where there are more, the curve is the model's with the others at their means.
    class_ : label, optional
        The positive class, drawn against all others. Needed for more than two classes, else the second.
    class_names : sequence of str, optional
        What to call the classes, in the order of the model's.
    max_points : int, default=2000
        Of more rows, so many are drawn, and the legend says so.
    seed : int, default=0
        Of the sample and the jitter.

    Returns
    -------
    SigmoidDisplay
        With ``ax_``, ``figure_``, ``line_``, ``points_`` and ``truth_``.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_breast_cancer
    >>> from torchlogit import LogisticRegression
    >>> from torchlogit.plots import plot_sigmoid
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> display = plot_sigmoid(LogisticRegression().fit(X, y), X, y, class_names=["malignant", "benign"])
    >>> display.ax_.get_ylabel()
    'probability of benign'
    >>> plt.close(display.figure_)
    """
    return SigmoidDisplay.from_estimator(
        model, X, y, ax=ax, feature=feature, class_=class_, class_names=class_names, max_points=max_points, seed=seed
    )


def _sigmoid(position: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A sigmoid over all rows that shows both of its sides, wherever they are."""
    low, high = min(float(position.min()), -1.0), max(float(position.max()), 1.0)
    width = high - low
    line = np.linspace(min(low - 0.05 * width, -0.2 * width), max(high + 0.05 * width, 0.2 * width), _CURVE_POINTS)
    return line, scipy.special.expit(line)


def _along(model: Any, X: Any, feature: int | str | None, k: int) -> dict[str, Any]:
    """The rows and the model's curve along one column, the others at their means."""
    if isinstance(X, LazyRows):
        raise ValueError("feature needs rows in memory and X is a scan; read it into a frame first")
    values, names = as_numbers(X), axis_names(model, X)
    j = _column(0 if feature is None else feature, names)
    low, high = float(values[:, j].min()), float(values[:, j].max())
    margin = 0.05 * (high - low) or 1.0
    rows = np.tile(values.mean(0), (_CURVE_POINTS, 1))
    rows[:, j] = np.linspace(low - margin, high + margin, _CURVE_POINTS)
    curve = (rows[:, j], probabilities(model, like(X, rows))[:, k])
    label = "model" if values.shape[1] == 1 else "model, other columns at their means"
    return {"position": values[:, j], "curve": curve, "xlabel": names[j], "curve_label": label}


def _column(feature: int | str, names: list[str]) -> int:
    """Position of a column that is given by position or name."""
    if isinstance(feature, str):
        if feature not in names:
            raise ValueError(f"X has no column '{feature}'; choose one of {listed(np.array(names, dtype=object))}")
        return names.index(feature)
    if not -len(names) <= feature < len(names):
        raise ValueError(f"feature={feature}, but X has {len(names)} columns, numbered from 0")
    return feature % len(names)
