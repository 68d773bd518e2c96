"""A plan in words: what was chosen and why, and what is minimised."""

from __future__ import annotations

from dataclasses import dataclass

from torchlogit.objective import Objective
from torchlogit.penalties import ElasticNet


@dataclass(frozen=True)
class Plan:
    """What was chosen, and why. The repr also says what is minimised.

    Attributes
    ----------
    solver, preconditioner, kernel, device : str
    warm_rows : int
        Rows whose optimum the fit starts from, a subsample, or all in few digits or columns; 0 for a start from zero.
    reason : str
    objective : str
        What is minimised, with its numbers.
    kernel_reason : str
        Why this kernel.
    """

    solver: str
    preconditioner: str
    kernel: str
    device: str
    warm_rows: int
    reason: str
    objective: str
    kernel_reason: str = ""

    def __repr__(self) -> str:
        """One fact a line."""
        start = f"the optimum of {self.warm_rows:,} sampled, rounded or rotated rows" if self.warm_rows else "zero"
        because = f": {self.kernel_reason}" if self.kernel_reason else ""
        return (
            f"Plan\n  minimise        {self.objective}\n  solver          {self.solver}, {self.preconditioner}\n"
            f"  because         {self.reason}\n  start           {start}\n"
            f"  kernel          {self.kernel} on {self.device}{because}"
        )


def describe_objective(objective: Objective, lane: int = 0) -> str:
    """What is minimised, in a line."""
    weight = float(objective.moments.weight[lane])
    loss = "log loss" if objective.kernel.loss.classes == 2 else f"log loss of {objective.kernel.loss.classes} classes"
    text = f"mean {loss} over {objective.source.rows:,} rows (total weight {weight:,.10g})"
    if objective.prior is not None:
        prior = objective.prior
        text += f" and the curvature of {prior.rows:,} earlier ones (total weight {prior.weight:,.10g})"
    return text + _describe_penalty(objective.penalties[lane])


def _describe_penalty(penalty: ElasticNet) -> str:
    if penalty.is_none:
        return ", without a penalty"
    parts = []
    if penalty.l1:
        parts.append(f"{penalty.l1:.6g} * |w|_1")
    if penalty.l2:
        parts.append(f"{penalty.l2:.6g} / 2 * |w|^2")
    return " + " + " + ".join(parts)
