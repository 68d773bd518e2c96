"""torchlogit: logistic regression you can see through, at any size.

The public names are imported when they are first used, so that ``import torchlogit`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from torchlogit._version import __version__

if TYPE_CHECKING:
    from torchlogit.checkpoint import Checkpoint
    from torchlogit.comm import distributed
    from torchlogit.encode import TableEncoder
    from torchlogit.estimator import LogisticRegression
    from torchlogit.explanation import explain
    from torchlogit.model_file import load, save
    from torchlogit.nn import LogisticModule, train
    from torchlogit.plots import plot_boundary, plot_coefficients, plot_sigmoid, plot_trace
    from torchlogit.scanning import scan
    from torchlogit.trace import Trace

_HOMES = {
    "Checkpoint": "torchlogit.checkpoint",
    "LogisticModule": "torchlogit.nn",
    "LogisticRegression": "torchlogit.estimator",
    "TableEncoder": "torchlogit.encode",
    "Trace": "torchlogit.trace",
    "distributed": "torchlogit.comm",
    "explain": "torchlogit.explanation",
    "load": "torchlogit.model_file",
    "plot_boundary": "torchlogit.plots",
    "plot_coefficients": "torchlogit.plots",
    "plot_sigmoid": "torchlogit.plots",
    "plot_trace": "torchlogit.plots",
    "save": "torchlogit.model_file",
    "scan": "torchlogit.scanning",
    "train": "torchlogit.nn",
}

__all__ = [
    "Checkpoint",
    "LogisticModule",
    "LogisticRegression",
    "TableEncoder",
    "Trace",
    "__version__",
    "distributed",
    "explain",
    "load",
    "plot_boundary",
    "plot_coefficients",
    "plot_sigmoid",
    "plot_trace",
    "save",
    "scan",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'torchlogit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
