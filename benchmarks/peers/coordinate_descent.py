"""skglm and Celer, which were made for L1.

skglm: mean log loss + alpha (l1_ratio |w|_1 + (1 - l1_ratio) |w|^2 / 2), the intercept free.
Celer: sum of log losses + |w|_1 / C, no intercept: it takes only problems without one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from problem import Problem

from peers.base import MAX_ITER, Peer, tolerances


class SkGlm(Peer):
    name = package = "skglm"
    predicts = True
    settings = tolerances(1e-4, 1e-6, 1e-8, 1e-10)
    multinomial = False
    l1 = True

    def refuses(self, problem: Problem) -> str:
        return super().refuses(problem) or ("a penalty is compulsory" if problem.alpha == 0 else "")

    def prepare(self, problem: Problem) -> None:
        import skglm  # noqa: F401

        assert problem.by_column is not None

    def fit(self, problem: Problem, **setting: float) -> Any:
        from skglm import SparseLogisticRegression

        return SparseLogisticRegression(
            alpha=problem.alpha,
            l1_ratio=float(problem.l1),
            fit_intercept=problem.intercept,
            max_iter=MAX_ITER,
            **setting,
        ).fit(problem.by_column, problem.y)

    def answer(self, problem: Problem, model: Any) -> tuple[Any, Any]:
        import numpy as np

        return model.coef_, np.ravel(model.intercept_) if problem.intercept else [0.0]

    def predictor(self, problem: Problem, model: Any) -> Callable[[], Any]:
        rows = problem.asked
        return lambda: model.predict_proba(rows)[:, 1]


class Celer(Peer):
    name = package = "celer"
    settings = tolerances(1e-4, 1e-6, 1e-8, 1e-10)
    multinomial = False
    l1 = True

    def refuses(self, problem: Problem) -> str:
        if not problem.l1:
            return "only the L1 penalty"
        return super().refuses(problem) or ("no intercept" if problem.intercept else "")

    def prepare(self, problem: Problem) -> None:
        import celer  # noqa: F401

        assert problem.by_column is not None

    def fit(self, problem: Problem, **setting: float) -> Any:
        from celer import LogisticRegression

        return LogisticRegression(C=problem.C, max_iter=MAX_ITER, **setting).fit(problem.by_column, problem.y)

    def answer(self, problem: Problem, model: Any) -> tuple[Any, Any]:
        return model.coef_, [0.0]
