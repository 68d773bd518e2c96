"""Pictures of a model, in the manner of scikit-learn's displays.

Each is a function for the short way (`plot_sigmoid`) and a display class that keeps what was drawn (`SigmoidDisplay`).
matplotlib is imported when the first picture is drawn.
"""

from __future__ import annotations

from torchlogit.plots.boundary import BoundaryDisplay, plot_boundary
from torchlogit.plots.coefficients import CoefficientsDisplay, plot_coefficients
from torchlogit.plots.progress import TraceDisplay, plot_trace
from torchlogit.plots.sigmoid import SigmoidDisplay, plot_sigmoid

__all__ = [
    "BoundaryDisplay",
    "CoefficientsDisplay",
    "SigmoidDisplay",
    "TraceDisplay",
    "plot_boundary",
    "plot_coefficients",
    "plot_sigmoid",
    "plot_trace",
]
