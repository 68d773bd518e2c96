"""A training taken by the hand: one step of it, with everything that was computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from torchlogit.batches import Batch
from torchlogit.row_view import RowView
from torchlogit.trace import Record

if TYPE_CHECKING:
    from torchlogit.training import Training


class TrainingStep:
    """A step of a training: after the gradients, before the update. The last one is the result.

    Attributes
    ----------
    record : dict
        Its record in the trace (see `train`).
    batch : Batch
        The rows of this step.
    """

    def __init__(self, run: Training, batch: Batch, record: Record) -> None:
        self.batch, self.record = batch, record
        self._run = run

    def __repr__(self) -> str:
        """Where it stands, in a line."""
        return f"TrainingStep({self.number}: epoch {self.epoch}, objective {self.objective:.6g})"

    @property
    def number(self) -> int:
        """0 is the start."""
        return int(self.record["step"])

    @property
    def epoch(self) -> int:
        """From 0."""
        return int(self.record["epoch"])

    @property
    def objective(self) -> float:
        """Mean loss of the batch plus penalty."""
        return float(self.record["objective"])

    @property
    def model(self) -> nn.Module:
        """The module in training."""
        return self._run.model

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Parameters by name, as they are now."""
        return {name: value.detach() for name, value in self._run.model.named_parameters()}

    @property
    def gradients(self) -> dict[str, Tensor]:
        """The objective's gradients by parameter; empty at the end."""
        found = {name: value.grad for name, value in self._run.model.named_parameters()}
        return {name: gradient for name, gradient in found.items() if gradient is not None}

    def forward(self, row: int) -> RowView:
        """What the model, as it is now, makes of one row.

        Parameters
        ----------
        row : int
            Its number in the data; from a loader or a scan, its place in the batch.

        Returns
        -------
        RowView

        Raises
        ------
        IndexError
            If there is no such row.
        """
        return self._run.view(self.batch, row)
