"""A trace, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchlogit.plots.style import INK, PALETTE, one_axes, several_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Fields that share a panel; the logarithmic ones fall by many orders of magnitude.
_PANELS = (("objective", "validation"), ("kkt", "excess", "gradient_norm"), ("learning_rate",))
_LOGARITHMIC = {"kkt", "excess", "gradient_norm"}
_COLOURED = ("kkt", "objective", "excess", "gradient_norm", "validation", "learning_rate")
_COLOURS = dict(zip(_COLOURED, PALETTE, strict=False))
_DASHED = {"excess", "validation"}
_AXIS_LABELS = {"passes": "passes over the rows"}
_MOST_MARKERS = 40


class TraceDisplay:
    """Fields of a trace, against steps or passes; `plot_trace` makes and draws it.

    Parameters
    ----------
    fields : mapping of str to tuple of two ndarrays
        For each field, where on the x axis it was recorded, and its values.
    xlabel : str, default='step'

    Attributes
    ----------
    ax_ : Axes
        The first panel.
    axes_ : list of Axes
        All panels; the second is a twin of the first where one axes was given for several.
    figure_ : Figure
    lines_ : dict of str to Line2D
        One a field.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from torchlogit.plots import TraceDisplay
    >>> display = TraceDisplay(fields={"objective": (np.arange(3), np.array([0.7, 0.4, 0.3]))}).plot()
    >>> display.lines_["objective"].get_ydata()
    array([0.7, 0.4, 0.3])
    >>> plt.close(display.figure_)
    """

    ax_: Axes
    axes_: list[Axes]
    figure_: Figure
    lines_: dict[str, Line2D]

    def __init__(
        self, *, fields: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], xlabel: str = "step"
    ) -> None:
        self.fields, self.xlabel = dict(fields), xlabel

    def plot(self, ax: Any = None) -> TraceDisplay:
        """Draw.

        Parameters
        ----------
        ax : Axes or sequence of Axes, optional
            One (what does not fit its scale goes to a twin), or one a panel; new ones if there are none.

        Returns
        -------
        TraceDisplay
        """
        panels, twins = self._panels(), False
        if ax is None or np.ndim(np.asarray(ax, dtype=object)):
            self.axes_ = several_axes(ax, len(panels), 1, (6.5, 1.0 + 2.2 * len(panels)), sharex=True)
        else:
            first = one_axes(ax, (6.5, 4))
            twins = len(panels) > 1
            panels = [panels[0], [name for panel in panels[1:] for name in panel]] if twins else panels
            self.axes_ = [first, first.twinx()] if twins else [first]
        self.ax_ = self.axes_[0]
        self.figure_ = self.ax_.figure  # type: ignore[assignment]
        self.lines_ = {}
        for axes, names in zip(self.axes_, panels, strict=True):
            for name in names:
                self._draw(axes, name)
            axes.set_ylabel(", ".join(_words(name) for name in names))
            if any(name in _LOGARITHMIC and (self.fields[name][1] > 0).any() for name in names):
                axes.set_yscale("log")
            if not twins:
                axes.grid(color="0.92", linewidth=0.8)
                if len(names) > 1:
                    axes.legend(frameon=False)
        if twins:
            self.ax_.legend(handles=list(self.lines_.values()), frameon=False)
        lowest = self.axes_[0] if twins else self.axes_[-1]
        lowest.set_xlabel(self.xlabel)
        return self

    def _panels(self) -> list[list[str]]:
        """Fields panel by panel; a field of its own kind has its own."""
        grouped = [[name for name in self.fields if name in panel] for panel in _PANELS]
        known = {name for panel in _PANELS for name in panel}
        return [panel for panel in grouped if panel] + [[name] for name in self.fields if name not in known]

    def _draw(self, axes: Axes, name: str) -> None:
        x, values = self.fields[name]
        (self.lines_[name],) = axes.plot(
            x,
            values,
            color=_COLOURS.get(name, INK),
            linestyle="--" if name in _DASHED else "-",
            marker="o" if x.size <= _MOST_MARKERS else "",
            markersize=4,
            linewidth=1.5,
            label=_words(name),
        )

    @classmethod
    def from_trace(
        cls, trace: Any, fields: Iterable[str] | None = None, *, ax: Any = None, against: str | None = None
    ) -> TraceDisplay:
        """Take the fields from a trace and draw; parameters as for `plot_trace`."""
        records = list(getattr(trace, "trace_", trace))
        if not records:
            raise ValueError("the trace is empty; fit or train a model first, and draw what it recorded")
        against = _axis(records) if against is None else against
        _check_field(records, against)
        wanted = _default_fields(records) if fields is None else [fields] if isinstance(fields, str) else list(fields)
        if not wanted:
            raise ValueError("no field of the trace can be drawn by default; name some with fields=[...]")
        for name in wanted:
            _check_field(records, name)
        columns = {}
        for name in wanted:
            having = [record for record in records if _is_number(record.get(name)) and _is_number(record.get(against))]
            columns[name] = tuple(np.array([float(record[key]) for record in having]) for key in (against, name))
        return cls(fields=columns, xlabel=_AXIS_LABELS.get(against, _words(against))).plot(ax)  # type: ignore[arg-type]


def plot_trace(
    trace: Any, fields: Iterable[str] | None = None, *, ax: Any = None, against: str | None = None
) -> TraceDisplay:
    """Draw how a fit or a training went.

    Parameters
    ----------
    trace : Trace, iterable of mappings, or fitted estimator with ``trace_``
        Of an exact fit or of first-order training.
    fields : iterable of str, optional
        What to draw. Else those of these that were recorded: the objective and the validation; on a logarithmic scale
        the certificate (``kkt`` and ``excess``), or the norm of the gradient where there is none; and the learning
        rate, if it changed.
    ax : Axes or sequence of Axes, optional
        One (what does not fit its scale goes to a twin), or one a panel; new ones if there are none.
    against : str, optional
        Field for the x axis. Else passes over the rows, where they were counted, else steps.

    Returns
    -------
    TraceDisplay
        With ``ax_``, ``axes_``, ``figure_`` and ``lines_``.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from sklearn.datasets import load_breast_cancer
    >>> from torchlogit import LogisticRegression
    >>> from torchlogit.plots import plot_trace
    >>> clf = LogisticRegression().fit(*load_breast_cancer(return_X_y=True))
    >>> display = plot_trace(clf.trace_)
    >>> list(display.lines_)
    ['objective', 'kkt', 'excess']
    >>> plt.close(display.figure_)
    """
    return TraceDisplay.from_trace(trace, fields, ax=ax, against=against)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _values(records: list[Any], name: str) -> list[float]:
    return [float(record[name]) for record in records if _is_number(record.get(name))]


def _axis(records: list[Any]) -> str:
    return "passes" if all(_is_number(record.get("passes")) for record in records) else "step"


def _default_fields(records: list[Any]) -> list[str]:
    certified = bool(_values(records, "kkt"))
    names = ["objective", "validation", *(("kkt", "excess") if certified else ("gradient_norm",))]
    if len(set(_values(records, "learning_rate"))) > 1:
        names.append("learning_rate")
    return [name for name in names if _values(records, name)]


def _check_field(records: list[Any], name: str) -> None:
    if not _values(records, name):
        numeric = sorted({key for record in records for key, value in record.items() if _is_number(value)})
        raise ValueError(f"the trace has no numbers under '{name}'; it has {', '.join(numeric)}")
