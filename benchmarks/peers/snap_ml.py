"""Snap ML: sum of log losses + regularizer |w|^2 / 2 (or |w|_1).

It penalises the intercept, and its primal solver leaves it at zero. So it is given a constant column instead, whose
coefficient times the constant is the intercept: the larger the constant, the freer the intercept, the slower the fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from problem import Problem

from peers.base import MAX_ITER, Peer, Setting


class SnapML(Peer):
    package = "snapml"
    settings: tuple[Setting, ...] = (
        {"tol": 1e-3, "constant": 1},
        {"tol": 1e-5, "constant": 10},
        {"tol": 1e-7, "constant": 100},
        {"tol": 1e-9, "constant": 1000},
    )
    # One vs rest is another question.
    multinomial = False

    def __init__(self, *, dual: bool) -> None:
        self.dual = dual
        self.l1 = not dual
        self.predicts = dual
        self.name = f"snapml {'dual' if dual else 'primal'}"
        self.constant, self.rows = 0.0, None

    def refuses(self, problem: Problem) -> str:
        return super().refuses(problem) or ("a penalty is compulsory" if problem.alpha == 0 else "")

    def prepare(self, problem: Problem) -> None:
        import snapml  # noqa: F401

        self.constant, self.rows = 0.0, None

    def arrange(self, problem: Problem, setting: Setting) -> None:
        """The layout of one setting; not timed."""
        if problem.intercept and setting["constant"] != self.constant:
            self.constant, self.rows = setting["constant"], its_own(problem.bordered(setting["constant"]))

    def fit(self, problem: Problem, **setting: float) -> Any:
        from snapml import LogisticRegression

        return LogisticRegression(
            regularizer=1 / problem.C,
            penalty="l1" if problem.l1 else "l2",
            dual=self.dual,
            tol=setting["tol"],
            max_iter=MAX_ITER,
            n_jobs=problem.threads,
            random_state=0,
        ).fit(self.rows if problem.intercept else its_own(problem.X), problem.y)

    def answer(self, problem: Problem, model: Any) -> tuple[Any, Any]:
        if not problem.intercept:
            return model.coef_, [0.0]
        return model.coef_[:, :-1], model.coef_[:, -1] * self.constant

    def predictor(self, problem: Problem, model: Any) -> Callable[[], Any]:
        rows = its_own(problem.bordered(self.constant)[: 1 if problem.predict == "row" else None])
        return lambda: model.predict_proba(rows, n_jobs=problem.threads)[:, 1]


def its_own(rows: Any) -> Any:
    """It takes SciPy's matrices and not its arrays; the memory is the same."""
    import scipy.sparse

    return scipy.sparse.csr_matrix(rows) if scipy.sparse.issparse(rows) else rows
