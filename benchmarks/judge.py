"""The judge: how good an answer is, in float64. It shares code with none of the packages and believes none of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from problem import Problem

ACCURACY = 1e-6
# Elements of X in float64 at a time: a few MB, whatever the size of the problem.
BLOCK = 1 << 20


@dataclass(frozen=True)
class Certificate:
    """``raw``: largest absolute component of the gradient of the objective, in the units that the package was given.

    ``standardised``: the same for columns that are centred and of deviation one. With L1 both are distances to the
    subdifferential.
    """

    objective: float
    raw: float
    standardised: float

    def excess(self, best: float) -> float:
        """How far the objective lies above the best that anybody found, relative to it."""
        return (self.objective - best) / best if math.isfinite(self.objective) else math.inf

    @property
    def small_gradient(self) -> bool:
        """In the units that are kinder to the answer."""
        return min(self.raw, self.standardised) <= ACCURACY

    def small_excess(self, best: float) -> bool:
        return self.excess(best) <= ACCURACY


class Judge:
    """Judges answers to one problem; the moments of its columns are taken once."""

    def __init__(self, problem: Problem) -> None:
        import numpy as np

        self.problem = problem
        n, p = problem.rows, problem.columns
        self.mean = sum((block.sum(axis=0) for _, block in self._blocks()), np.zeros(p)) / n
        square = np.zeros(p)
        for _, block in self._blocks():
            square += block.power(2).sum(axis=0) if problem.is_sparse else ((block - self.mean) ** 2).sum(axis=0)
        variance = square / n - self.mean**2 if problem.is_sparse else square / n
        spread = np.sqrt(np.maximum(variance, 0))
        if not problem.intercept:
            spread = np.hypot(spread, self.mean)
        self.scale = np.where(spread > 0, spread, np.maximum(np.abs(self.mean), 1))

    def certificate(self, coef: Any, intercept: Any) -> Certificate:
        """Of coefficients ``(K, p)``, or ``(1, p)`` for two classes, and intercepts ``(K,)``."""
        import numpy as np

        problem = self.problem
        coef, intercept = np.asarray(coef, np.float64), np.asarray(intercept, np.float64)
        outputs = problem.classes if problem.classes > 2 else 1
        if coef.shape != (outputs, problem.columns) or intercept.shape != (outputs,):
            raise ValueError(f"an answer has shapes {(outputs, problem.columns)} and {(outputs,)}, "
                             f"not {coef.shape} and {intercept.shape}")  # fmt: skip
        if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            return Certificate(math.inf, math.inf, math.inf)
        loss, level, centred = 0.0, np.zeros(outputs), np.zeros(coef.shape)
        for start, block in self._blocks():
            eta = block @ coef.T + intercept
            value, residual = losses(eta, problem.y[start : start + block.shape[0]])
            loss += value
            level += residual.sum(axis=0)
            # Dense columns are centred first: a mean far from zero would otherwise drown the digits that count.
            centred += (block.T @ residual).T if problem.is_sparse else residual.T @ (block - self.mean)
        n = problem.rows
        loss, level, centred = loss / n, level / n, centred / n
        if problem.is_sparse:
            centred -= np.outer(level, self.mean)
        raw = centred + np.outer(level, self.mean)
        penalty = problem.alpha * (np.abs(coef).sum() if problem.l1 else (coef**2).sum() / 2)
        in_units = self._slopes(centred if problem.intercept else raw, coef) / self.scale
        free = np.abs(level).max() if problem.intercept else 0.0
        return Certificate(
            float(loss + penalty),
            float(max(self._slopes(raw, coef).max(), free)),
            float(max(in_units.max(), free)),
        )

    def _slopes(self, gradient: Any, coef: Any) -> Any:
        """Absolute slopes with the penalty; with L1, what is left of them at the best subgradient."""
        import numpy as np

        alpha = self.problem.alpha
        if not self.problem.l1:
            return np.abs(gradient + alpha * coef)
        return np.where(coef, np.abs(gradient + alpha * np.sign(coef)), np.maximum(np.abs(gradient) - alpha, 0))

    def _blocks(self) -> Iterator[tuple[int, Any]]:
        """First row and float64 rows."""
        import numpy as np

        problem = self.problem
        width = max(1, problem.X.nnz // problem.rows) if problem.is_sparse else problem.columns
        step = max(1, BLOCK // max(width, problem.classes))
        for start in range(0, problem.rows, step):
            yield start, problem.X[start : start + step].astype(np.float64)


def losses(eta: Any, y: Any) -> tuple[float, Any]:
    """Sum of log losses, and each row's derivative in eta ``(rows, K)``."""
    import numpy as np
    from scipy.special import expit, logsumexp

    if eta.shape[1] == 1:
        return float(np.logaddexp(0, -eta[:, 0] * (2 * y - 1)).sum()), expit(eta) - y[:, None]
    rows = np.arange(len(y))
    residual = np.exp(eta - logsumexp(eta, axis=1, keepdims=True))
    residual[rows, y] -= 1
    return float(logsumexp(eta - eta[rows, y][:, None], axis=1).sum()), residual


def error_of_probabilities(X: Any, coef: Any, intercept: Any, given: Any) -> float:
    """Largest difference between probabilities of the second class and those of the coefficients, in float64."""
    import numpy as np
    from scipy.special import expit

    given = np.asarray(given, np.float64)
    worst = 0.0
    for start in range(0, X.shape[0], 10_000):
        rows = X[start : start + 10_000].astype(np.float64)
        true = expit(rows @ np.asarray(coef, np.float64)[0] + float(np.ravel(intercept)[0]))
        worst = max(worst, float(np.abs(true - given[start : start + 10_000]).max()))
    return worst
