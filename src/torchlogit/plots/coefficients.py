"""The largest coefficients, by size."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from torchlogit.plots.responses import classes_of
from torchlogit.plots.rows import class_number, class_texts, listed
from torchlogit.plots.style import INK, NEGATIVE, POSITIVE, several_axes, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure

_MOST_PANELS = 8
_NORMAL_QUANTILE = 1.959963984540054  # 97.5 %: an interval of 95 %


class CoefficientsDisplay:
    """Coefficients to show, largest first; `plot_coefficients` makes and draws it.

    Parameters
    ----------
    coef : ndarray of shape (panels, count)
    names : list of str
        One a column of `coef`.
    titles : list of str, optional
        One a panel.
    std_error : ndarray of shape (panels, count), optional
        Drawn as intervals of 95 %.
    xlabel : str, default='coefficient'

    Attributes
    ----------
    ax_ : Axes
        The first panel.
    axes_ : list of Axes
    figure_ : Figure
    bars_ : list of BarContainer
        One a panel; its bars run from the largest coefficient, at the top, to the smallest.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from torchlogit.plots import CoefficientsDisplay
    >>> display = CoefficientsDisplay(coef=np.array([[-2.0, 1.0]]), names=["dose", "age"]).plot()
    >>> [float(bar.get_width()) for bar in display.bars_[0]]
    [-2.0, 1.0]
    >>> plt.close(display.figure_)
    """

    ax_: Axes
    axes_: list[Axes]
    figure_: Figure
    bars_: list[BarContainer]

    def __init__(
        self,
        *,
        coef: NDArray[np.float64],
        names: list[str],
        titles: list[str] | None = None,
        std_error: NDArray[np.float64] | None = None,
        xlabel: str = "coefficient",
    ) -> None:
        self.coef, self.names, self.titles, self.std_error, self.xlabel = coef, names, titles, std_error, xlabel

    def plot(self, ax: Any = None) -> CoefficientsDisplay:
        """Draw.

        Parameters
        ----------
        ax : Axes or sequence of Axes, optional
            As many as there are panels; new ones if there are none.

        Returns
        -------
        CoefficientsDisplay
        """
        panels, count = self.coef.shape
        size = (6.5 if panels == 1 else 2.0 + 2.4 * panels, 1.2 + 0.28 * count)
        self.axes_ = several_axes(ax, 1, panels, size, sharex=True, sharey=True)
        self.ax_ = self.axes_[0]
        self.figure_ = self.ax_.figure  # type: ignore[assignment]
        place = np.arange(count)
        self.bars_ = []
        for panel, axes in enumerate(self.axes_):
            values = self.coef[panel]
            spread = None if self.std_error is None else _NORMAL_QUANTILE * self.std_error[panel]
            colours = [POSITIVE if value > 0 else NEGATIVE for value in values]
            whiskers = {"ecolor": INK, "elinewidth": 1.2, "capsize": 2}
            self.bars_.append(axes.barh(place, values, height=0.7, color=colours, xerr=spread, error_kw=whiskers))
            axes.axvline(0, color=INK, linewidth=0.8)
            axes.grid(axis="x", color="0.9", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.set(xlabel=self.xlabel, ylim=(count - 0.4, -0.6))  # the largest stands at the top
            axes.set_yticks(place, [shortened(name) for name in self.names])
            axes.tick_params(axis="y", length=0)
            if self.titles is not None:
                axes.set_title(shortened(self.titles[panel]))
        return self

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        ax: Any = None,
        names: Any = None,
        count: int | None = 20,
        class_: Any = None,
        class_names: Any = None,
        std_error: ArrayLike | None = None,
        scale: ArrayLike | None = None,
    ) -> CoefficientsDisplay:
        """Take a model's coefficients and draw; parameters as for `plot_coefficients`."""
        model = getattr(estimator, "best_estimator_", estimator)  # a finished search
        coef = _coefficients(model)
        outputs, width = coef.shape
        classes = classes_of(model, max(outputs, 2))
        texts = class_texts(classes, class_names)
        if count is not None and count < 1:
            raise ValueError(f"count is {count}; it must be at least 1, or None for all coefficients")
        spread = None if std_error is None else _like_coefficients("std_error", std_error, coef.shape)
        labels, xlabel = _feature_names(model, names, width), "coefficient"
        if scale is not None:
            factor = _like_coefficients("scale", scale, (1, width))
            coef, spread, xlabel = coef * factor, None if spread is None else spread * factor, "coefficient × scale"
        titles = None
        if outputs == 1:
            towards = 1 if class_ is None else class_number(classes, class_)
            coef = coef if towards == 1 else -coef
            xlabel += f" (positive: towards {texts[towards]})"
        elif class_ is not None:
            k = class_number(classes, class_)
            coef, spread = coef[[k]], None if spread is None else spread[[k]]
            xlabel += f" (positive: towards {texts[k]})"
        elif outputs > _MOST_PANELS and ax is None:
            raise ValueError(
                f"the model has {outputs} classes, too many for one picture; choose one with class_: {listed(classes)}"
            )
        else:
            titles = texts
        order = np.argsort(-np.abs(coef).max(0), kind="stable")[:count]
        display = cls(
            coef=coef[:, order],
            names=[labels[j] for j in order],
            titles=titles,
            std_error=None if spread is None else spread[:, order],
            xlabel=xlabel,
        )
        return display.plot(ax)


def plot_coefficients(
    model: Any,
    *,
    ax: Any = None,
    names: Any = None,
    count: int | None = 20,
    class_: Any = None,
    class_names: Any = None,
    std_error: ArrayLike | None = None,
    scale: ArrayLike | None = None,
) -> CoefficientsDisplay:
    """Draw the largest coefficients as bars, largest at the top, one colour a sign.

    A coefficient is per unit of its column. Where columns have different units, compare with ``scale=X.std(0)``, or
    put a StandardScaler or a TableEncoder before the model. The intercept is left out.

    Parameters
    ----------
    model : linear classifier, Pipeline that ends in one, or torch.nn.Module with one linear layer
        Fitted.
    ax : Axes or sequence of Axes, optional
        One, or one a class where all are drawn; new ones if there are none.
    names : sequence of str of length p, optional
        Of the columns. Else those the model or the step before it knows, else x0, x1, ...
    count : int or None, default=20
        How many to draw; None for all.
    class_ : label, optional
        Which class positive coefficients speak for: the second of two. Of more classes, the one to draw; all are drawn
        side by side, over the same columns, if it is not given.
    class_names : sequence of str, optional
        What to call the classes, in the order of the model's.
    std_error : array-like of shape (p,) or ``coef_.shape``, optional
        Standard errors; intervals of 95 % are drawn.
    scale : array-like of shape (p,), optional
        Coefficients are multiplied by it before they are ranked and drawn.

    Returns
    -------
    CoefficientsDisplay
        With ``ax_``, ``axes_``, ``figure_`` and ``bars_``.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from torchlogit import LogisticRegression
    >>> from torchlogit.plots import plot_coefficients
    >>> data = load_breast_cancer(as_frame=True)
    >>> model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target)
    >>> display = plot_coefficients(model, count=5, class_names=data.target_names)
    >>> display.names[0], display.ax_.get_xlabel()
    ('worst texture', 'coefficient (positive: towards benign)')
    >>> plt.close(display.figure_)
    """
    return CoefficientsDisplay.from_estimator(
        model, ax=ax, names=names, count=count, class_=class_, class_names=class_names, std_error=std_error, scale=scale
    )


def _coefficients(model: Any) -> NDArray[np.float64]:
    """``(K, p)`` float64 of a linear model."""
    if isinstance(model, nn.Module):
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
        if len(layers) != 1:
            raise ValueError(
                f"{type(model).__name__} has {len(layers)} linear layers, so no single number belongs to a column; "
                "coefficients can be drawn of a module with one"
            )
        return layers[0].weight.detach().cpu().double().numpy()
    last = model.steps[-1][1] if hasattr(model, "named_steps") else model
    if not hasattr(last, "coef_"):
        fitted = any(name.endswith("_") and not name.startswith("_") for name in vars(last))
        raise ValueError(
            f"{type(last).__name__} has no coef_, it is not linear; pass a linear classifier, or draw plot_boundary"
            if fitted
            else f"this {type(last).__name__} is not fitted yet; call fit first"
        )
    coef = last.coef_.toarray() if hasattr(last.coef_, "toarray") else last.coef_
    return np.atleast_2d(np.asarray(coef, dtype=np.float64))


def _feature_names(model: Any, names: Any, width: int) -> list[str]:
    """As given; else from the steps before the classifier; else the classifier's own; else x0, x1, ..."""
    if names is not None:
        if len(names) != width:
            raise ValueError(f"names has {len(names)} entries and the model has {width} columns; name each")
        return [str(name) for name in names]
    known = getattr(model, "feature_names_in_", None)
    if hasattr(model, "named_steps"):
        known = getattr(model.steps[-1][1], "feature_names_in_", None)
        with suppress(AttributeError, ValueError):  # a step that cannot name what it makes
            known = model[:-1].get_feature_names_out() if len(model.steps) > 1 else known
    if known is None or len(known) != width:
        return [f"x{j}" for j in range(width)]
    return [str(name) for name in known]


def _like_coefficients(name: str, values: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float64]:
    """An array in the shape of the coefficients; one row may be given as a vector."""
    array = np.asarray(values, dtype=np.float64)
    array = array[None] if array.ndim == 1 else array
    if array.shape != shape:
        expected = f"({shape[1]},)" if shape[0] == 1 else f"{shape}"
        raise ValueError(
            f"{name} has shape {np.shape(values)}; expected {expected}, one number a coefficient without the intercept"
        )
    return array
