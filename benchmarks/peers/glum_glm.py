"""glum: deviance / (2 n) + alpha |w|^2 / 2, with half the deviance the log loss; its intercept is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from problem import Problem

from peers.base import MAX_ITER, Peer, tolerances


class Glum(Peer):
    package = "glum"
    # `gradient_tol=None` means 1e-4.
    settings = tolerances(1e-4, 1e-6, 1e-8, 1e-10, name="gradient_tol")
    multinomial = False
    l1 = True

    def __init__(self, solver: str) -> None:
        self.solver = solver
        self.name = f"glum {solver}"
        self.hessian = solver != "lbfgs"
        self.predicts = solver == "lbfgs"

    def refuses(self, problem: Problem) -> str:
        if self.solver == "lbfgs" and problem.l1:
            return "no L1 penalty in lbfgs"
        return super().refuses(problem)

    def prepare(self, problem: Problem) -> None:
        import glum  # noqa: F401

        assert problem.by_column is not None
        self.y = problem.y.astype(problem.X.dtype)

    def fit(self, problem: Problem, **setting: float) -> Any:
        from glum import GeneralizedLinearRegressor

        return GeneralizedLinearRegressor(
            family="binomial",
            alpha=problem.alpha,
            l1_ratio=float(problem.l1),
            fit_intercept=problem.intercept,
            solver="irls-cd" if problem.l1 else self.solver,
            max_iter=MAX_ITER,
            **setting,
        ).fit(problem.by_column, self.y)

    def answer(self, problem: Problem, model: Any) -> tuple[Any, Any]:
        return model.coef_[None], [model.intercept_]

    def predictor(self, problem: Problem, model: Any) -> Callable[[], Any]:
        rows = problem.by_column[:1] if problem.predict == "row" else problem.by_column
        return lambda: model.predict(rows)
