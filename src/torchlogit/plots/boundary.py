"""The probability surface over two columns, with the boundary and the points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchlogit.plots.responses import classes_of, probabilities
from torchlogit.plots.rows import as_numbers, axis_names, checked_rows, class_codes, class_texts, like
from torchlogit.plots.style import INK, class_colours, legend_above, one_axes, probability_colours, sample_note, sampled
from torchlogit.rows import LazyRows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.colorbar import Colorbar
    from matplotlib.contour import QuadContourSet
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.legend import Legend

_MARKERS = "o^sDv<>p"  # beside colours, for print and for those who see none


class BoundaryDisplay:
    """Probabilities on a grid and the rows over it; `plot_boundary` makes and draws it.

    Parameters
    ----------
    x0, x1 : ndarray of shape (r,)
        The grid along the two columns.
    probability : ndarray of shape (r, r, n_classes)
        ``probability[i, j]`` belongs to ``x1[i]`` and ``x0[j]``.
    points : ndarray of shape (n, 2)
    codes : ndarray of shape (n,), int, optional
        Class of each point.
    class_names : sequence of str, optional
        0, 1, ... if not given.
    labels : tuple of two str, default=('x0', 'x1')
        Of the axes.

    Attributes
    ----------
    ax_, figure_ : Axes, Figure
    surface_ : AxesImage
        Two classes: the probability of the second. More: the colour of the most probable class, paler where it is less
        so.
    boundary_ : list of QuadContourSet
        Two classes: the contour at one half, absent where the grid does not cross it. More: where each class ceases to
        be the most probable.
    points_ : list of PathCollection
        One a class, or one in all if the classes are not known.
    colorbar_ : Colorbar or None
        For two classes.
    legend_ : Legend
        Above the axes.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from torchlogit.plots import BoundaryDisplay
    >>> grid = np.linspace(0, 1, 5)
    >>> second = np.broadcast_to(grid, (5, 5))
    >>> display = BoundaryDisplay(
    ...     x0=grid, x1=grid, probability=np.stack([1 - second, second], axis=2), points=np.array([[0.2, 0.3]])
    ... ).plot()
    >>> float(display.boundary_[0].get_paths()[0].vertices[0, 0])
    0.5
    >>> plt.close(display.figure_)
    """

    ax_: Axes
    figure_: Figure
    surface_: AxesImage
    boundary_: list[QuadContourSet]
    points_: list[PathCollection]
    colorbar_: Colorbar | None
    legend_: Legend

    def __init__(
        self,
        *,
        x0: NDArray[np.float64],
        x1: NDArray[np.float64],
        probability: NDArray[np.float64],
        points: NDArray[np.float64],
        codes: NDArray[np.int64] | None = None,
        class_names: Any = None,
        labels: tuple[str, str] = ("x0", "x1"),
    ) -> None:
        self.x0, self.x1, self.probability, self.points, self.codes = x0, x1, probability, points, codes
        self.class_names = class_texts(np.arange(probability.shape[2]), class_names)
        self.labels = labels

    def plot(
        self, ax: Axes | None = None, *, colorbar: bool = True, max_points: int = 2000, seed: int = 0
    ) -> BoundaryDisplay:
        """Draw.

        Parameters
        ----------
        ax : Axes, optional
            New ones if there are none.
        colorbar : bool, default=True
            Whether to add the scale of the probability (two classes).
        max_points : int, default=2000
            Of more rows, so many are drawn, and the legend says so.
        seed : int, default=0
            Of the sample.

        Returns
        -------
        BoundaryDisplay
        """
        chosen = sampled(len(self.points), max_points, seed)
        self.ax_ = ax = one_axes(ax, (6.5, 5))
        self.figure_ = ax.figure  # type: ignore[assignment]
        half0, half1 = ((x[1] - x[0]) / 2 for x in (self.x0, self.x1))
        extent = (self.x0[0] - half0, self.x0[-1] + half0, self.x1[0] - half1, self.x1[-1] + half1)
        place: dict[str, Any] = {"extent": extent, "origin": "lower", "aspect": "auto", "zorder": 0}
        self.boundary_, self.colorbar_ = [], None
        if len(self.class_names) == 2:
            second = self.probability[:, :, 1]
            self.surface_ = ax.imshow(
                second, cmap=probability_colours(), vmin=0, vmax=1, alpha=0.65, interpolation="bilinear", **place
            )
            self._contour(second, 0.5)
            if colorbar:
                label = f"probability of {self.class_names[1]}"
                self.colorbar_ = self.figure_.colorbar(self.surface_, ax=ax, label=label)
        else:
            self.surface_ = ax.imshow(_regions(self.probability), **place)
            for k in range(len(self.class_names)):
                others = np.delete(self.probability, k, axis=2).max(2)
                self._contour(self.probability[:, :, k] - others, 0.0)
        self._scatter(chosen)
        ax.set(xlabel=self.labels[0], ylabel=self.labels[1], xlim=(self.x0[0], self.x0[-1]),
               ylim=(self.x1[0], self.x1[-1]))  # fmt: skip
        return self

    def _contour(self, height: NDArray[np.float64], level: float) -> None:
        if height.min() < level < height.max():  # matplotlib warns of a contour that is not there
            self.boundary_.append(
                self.ax_.contour(self.x0, self.x1, height, levels=[level], colors=[INK], linewidths=1.5, zorder=1)
            )

    def _scatter(self, chosen: NDArray[np.intp]) -> None:
        style: dict[str, Any] = {"s": 26, "edgecolors": "white", "linewidths": 0.6, "zorder": 2}
        x, y = self.points[chosen].T
        note = sample_note(chosen.size, len(self.points))
        if self.codes is None:
            self.points_ = [self.ax_.scatter(x, y, color=INK, label="rows", **style)]
        else:
            self.points_, colours = [], class_colours(len(self.class_names))
            for k, name in enumerate(self.class_names):
                here, label = self.codes[chosen] == k, f"{name} ({int((self.codes == k).sum()):,})"
                look: dict[str, Any] = {"color": [colours[k]], "marker": _MARKERS[k % len(_MARKERS)], "label": label}
                self.points_.append(self.ax_.scatter(x[here], y[here], **look, **style))
        self.legend_ = legend_above(self.ax_, list(self.points_), note)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        ax: Axes | None = None,
        resolution: int = 200,
        margin: float = 0.08,
        class_names: Any = None,
        colorbar: bool = True,
        max_points: int = 2000,
        seed: int = 0,
    ) -> BoundaryDisplay:
        """Ask a model and draw; parameters as for `plot_boundary`."""
        X = checked_rows(X)
        if isinstance(X, LazyRows):
            raise ValueError("a boundary needs rows in memory and X is a scan; read two of its columns into a frame")
        if X.shape[1] != 2:
            raise ValueError(
                f"a boundary is drawn over two columns and X has {X.shape[1]}; fit a model to two and pass those"
            )
        if resolution < 2:
            raise ValueError(f"resolution is {resolution}; it must be at least 2 points a side")
        points = as_numbers(X)
        x0, x1 = (_side(points[:, j], resolution, margin) for j in range(2))
        grid = np.column_stack([np.tile(x0, resolution), np.repeat(x1, resolution)])
        probability = probabilities(estimator, like(X, grid)).reshape(resolution, resolution, -1)
        classes = classes_of(estimator, probability.shape[2])
        names = axis_names(estimator, X)
        display = cls(
            x0=x0,
            x1=x1,
            probability=probability,
            points=points,
            codes=None if y is None else class_codes(y, classes, len(points)),
            class_names=class_texts(classes, class_names),
            labels=(names[0], names[1]),
        )
        return display.plot(ax, colorbar=colorbar, max_points=max_points, seed=seed)


def plot_boundary(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    ax: Axes | None = None,
    resolution: int = 200,
    margin: float = 0.08,
    class_names: Any = None,
    colorbar: bool = True,
    max_points: int = 2000,
    seed: int = 0,
) -> BoundaryDisplay:
    """Draw what a model of two columns predicts all over the plane, its boundary, and the rows.

    Parameters
    ----------
    model : LogisticRegression, classifier with ``predict_proba``, Pipeline, or torch.nn.Module
        Fitted to two columns. A module returns logits of shape ``(n,)``, ``(n, 1)`` or ``(n, n_classes)``
        (probabilities, if its last layer is a Sigmoid or a Softmax), or has a method ``probability``; it is asked in
        evaluation mode, in its own dtype and on its own device.
    X : {array-like, frame, Tensor} of shape (n, 2)
        Rows to draw; the picture is as large as they are. Column names become the axes' labels.
    y : array-like of shape (n,) or (n, 1), optional
        Labels; a module's are 0, 1, ...
    ax : Axes, optional
        New ones if there are none.
    resolution : int, default=200
        Points a side of the grid.
    margin : float, default=0.08
        Around the rows, as a share of their range.
    class_names : sequence of str, optional
        What to call the classes, in the order of the model's.
    colorbar : bool, default=True
        Whether to add the scale of the probability (two classes).
    max_points : int, default=2000
        Of more rows, so many are drawn, and the legend says so.
    seed : int, default=0
        Of the sample.

    Returns
    -------
    BoundaryDisplay
        With ``ax_``, ``figure_``, ``surface_``, ``boundary_``, ``points_`` and ``colorbar_``.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import make_blobs
    >>> from torchlogit import LogisticRegression
    >>> from torchlogit.plots import plot_boundary
    >>> X, y = make_blobs(n_samples=200, centers=2, random_state=0)
    >>> display = plot_boundary(LogisticRegression().fit(X, y), X, y)
    >>> display.probability.shape, len(display.points_)
    ((200, 200, 2), 2)
    >>> plt.close(display.figure_)
    """
    return BoundaryDisplay.from_estimator(
        model, X, y, ax=ax, resolution=resolution, margin=margin, class_names=class_names, colorbar=colorbar,
        max_points=max_points, seed=seed,
    )  # fmt: skip


def _side(values: NDArray[np.float64], resolution: int, margin: float) -> NDArray[np.float64]:
    """The grid along one column; a constant column has one unit on either side."""
    low, high = float(values.min()), float(values.max())
    around = margin * (high - low) if high > low else 1.0
    return np.linspace(low - around, high + around, resolution)


def _regions(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(r, r, 3)``: the colour of the most probable class, faded to white where it is as probable as chance."""
    from matplotlib.colors import to_rgb

    count = probability.shape[2]
    colours = np.array([to_rgb(colour) for colour in class_colours(count)])
    strength = (probability.max(2, keepdims=True) - 1 / count) / (1 - 1 / count)
    return np.asarray(1 - 0.6 * strength * (1 - colours[probability.argmax(2)]))
