"""A fit taken by the hand: one step of it, with everything that was computed."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from torchlogit.fit import Fit
from torchlogit.row_view import RowView
from torchlogit.solvers.base import State
from torchlogit.trace import Record

Array = NDArray[np.float64]


class FitStep:
    """A state of an exact fit, before its update; the last one is the result.

    Arrays are float64, in the units of X, with the intercept last where there is one.

    Attributes
    ----------
    record : dict
        Its record in the trace (see `Trace`).
    """

    def __init__(self, fit: Fit, state: State, record: Record) -> None:
        self.record = record
        self._fit, self._state = fit, state

    def __repr__(self) -> str:
        """Where it stands, in a line."""
        return f"FitStep({self.number}: objective {self.objective:.10g}, kkt {self.kkt:.2g})"

    @property
    def number(self) -> int:
        """0 is the start."""
        return int(self.record["step"])

    @property
    def objective(self) -> float:
        """Mean loss plus penalty: what is minimised."""
        return float(self._state.value[0])

    @property
    def kkt(self) -> float:
        """Largest entry of the gradient in centred, standardised units: the certificate's first half."""
        return float(self._state.kkt[0])

    @property
    def excess(self) -> float:
        """Estimated objective above the optimum: its second half."""
        return float(self._state.excess[0])

    @property
    def step_length(self) -> float:
        """Length of the step taken from here along `direction`; 0 at the end."""
        return float(self.record["step_length"])

    @cached_property
    def theta(self) -> Array:
        """Coefficients and intercept, ``(K, p + 1)``."""
        with torch.no_grad():
            theta = self._fit.objective.coordinates.to_raw(self._state.u[:1], self._state.lanes[:1])[0]
        return self._array(theta)

    @property
    def coef(self) -> Array:
        """Coefficients, ``(K, p)``."""
        return self.theta[:, :-1]

    @property
    def intercept(self) -> Array:
        """Intercepts, ``(K,)``."""
        return self.theta[:, -1]

    @cached_property
    def gradient(self) -> Array:
        """Gradient of the objective, ``(K, p + 1)``."""
        state = self._state
        return self._array(self._fit.objective.coordinates.gradient_to_raw(state.gradient[:1], state.lanes[:1])[0])

    @cached_property
    def direction(self) -> Array:
        """What the solver's model of the curvature proposes to add, ``(K, p + 1)``."""
        state = self._state
        return self._array(self._fit.objective.coordinates.to_raw(state.direction[:1], state.lanes[:1])[0])

    def forward(self, row: int) -> RowView:
        """What the model of this step makes of one row of X.

        Parameters
        ----------
        row : int
            From 0.

        Returns
        -------
        RowView

        Raises
        ------
        IndexError
            If there is no such row.
        """
        loss = self._fit.problem.loss
        with torch.no_grad():
            eta, target = self._fit.objective.at_row(self._state.u[:1], self._state.lanes[:1], row)
            value, residual = loss.value_first(eta, target.reshape(1, -1))
            probability = loss.probability(eta)[0, 0]
        return RowView(
            row=row,
            target=int(target.reshape(-1)[0]),
            z=_plain(eta[0, 0]),
            probability=float(probability[1]) if loss.outputs == 1 else self._array(probability),
            loss=float(value[0, 0]),
            residual=_plain(residual[0, 0]),
        )

    @staticmethod
    def _array(values: torch.Tensor) -> Array:
        return np.asarray(values.detach().cpu().numpy(), dtype=np.float64)


def _plain(values: torch.Tensor) -> Any:
    """A number where there is one output, an array where there are more."""
    return float(values[0]) if values.shape[0] == 1 else FitStep._array(values)
