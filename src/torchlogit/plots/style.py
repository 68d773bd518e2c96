"""What all pictures share: colours, axes, and how many points are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.legend import Legend

# Okabe and Ito's colours, which people with any colour vision tell apart (Color Universal Design, 2008). The first two
# stand for the two classes of a binary model, and for the two signs of a coefficient.
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
NEGATIVE, POSITIVE = PALETTE[0], PALETTE[1]
INK, PALE = "0.25", "0.75"


def class_colours(count: int) -> list[Any]:
    """One colour a class: the palette, or, beyond it, steps along viridis."""
    if count <= len(PALETTE):
        return list(PALETTE[:count])
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0, 1, count)))


def probability_colours() -> LinearSegmentedColormap:
    """From the first class's colour over white, at one half, to the second's."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("torchlogit_probability", [NEGATIVE, "#FFFFFF", POSITIVE])


def one_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The axes to draw on, new ones if there are none."""
    if ax is None:
        import matplotlib.pyplot as plt

        return plt.subplots(figsize=size, layout="constrained")[1]
    if not hasattr(ax, "get_subplotspec"):
        raise TypeError(f"ax is a {type(ax).__name__}; pass one matplotlib Axes, such as plt.subplots()[1]")
    return ax


def several_axes(ax: Any, rows: int, columns: int, size: tuple[float, float], **kwargs: Any) -> list[Axes]:
    """``rows * columns`` axes, new ones if there are none."""
    count = rows * columns
    if ax is None:
        import matplotlib.pyplot as plt

        grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **kwargs)[1]
        return list(grid.ravel())
    given = list(np.ravel(np.asarray(ax, dtype=object)))
    if len(given) != count:
        raise ValueError(f"ax holds {len(given)} axes and the picture has {count} panels; pass {count}, or none")
    return [one_axes(axes, size) for axes in given]


def sampled(rows: int, most: int, seed: int) -> NDArray[np.intp]:
    """Numbers of the rows to draw, in order: all, or `most` of them by chance, the same for the same seed."""
    if most < 1:
        raise ValueError(f"max_points is {most}; it must be at least 1")
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def legend_above(ax: Axes, handles: list[Any], note: str | None) -> Legend:
    """A legend over the axes, where it hides no point; the search for the "best" place inside takes seconds for many.

    It stands in axes of its own because matplotlib moves a title above those, and would print it over a legend.
    """
    columns = min(len(handles), 4)
    lines = -(-len(handles) // columns) + (note is not None)
    height = 0.24 * lines * ax.figure.dpi / ax.get_window_extent().height  # inches a line, as a share of the axes
    above = ax.inset_axes((0, 1, 1, height))
    above.set_axis_off()
    return above.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 0), ncols=columns, title=note, alignment="left",
        frameon=False, borderaxespad=0, borderpad=0.3, columnspacing=1.2, handletextpad=0.4,
    )  # fmt: skip


def sample_note(drawn: int, rows: int) -> str | None:
    """What the legend says of a sample, None if every row is drawn."""
    return None if drawn == rows else f"{drawn:,} of {rows:,} rows drawn"


def shortened(name: str, most: int = 40) -> str:
    """A name that leaves room for the picture; matplotlib's signs for formulas are taken as they are."""
    text = name if len(name) <= most else name[: most - 1] + "…"
    return text.replace("$", r"\$")
