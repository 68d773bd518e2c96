"""scikit-learn, and Intel's extension of it. The question of `Problem` is scikit-learn's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from problem import Problem

from peers.base import MAX_ITER, Peer, Setting, tolerances


class ScikitLearn(Peer):
    package = "scikit-learn"
    settings = tolerances(1e-4, 1e-6, 1e-8, 1e-10)

    def __init__(self, solver: str, *, l1: bool = False, hessian: bool = False) -> None:
        self.solver, self.l1, self.hessian = solver, l1, hessian
        self.name = f"scikit-learn {solver}"
        self.sets_the_mark = hessian
        self.predicts = solver == "lbfgs"  # the same for all of them

    def prepare(self, problem: Problem) -> None:
        import sklearn.linear_model  # noqa: F401

    def fit(self, problem: Problem, **setting: float) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(
            C=problem.C,
            l1_ratio=float(problem.l1),
            fit_intercept=problem.intercept,
            solver=self.solver,
            tol=setting["tol"],
            max_iter=MAX_ITER,
            random_state=0,
        ).fit(problem.X, problem.y)

    def answer(self, problem: Problem, model: Any) -> tuple[Any, Any]:
        outputs = model.coef_.shape[0]
        return model.coef_, model.intercept_ if problem.intercept else [0.0] * outputs

    def predictor(self, problem: Problem, model: Any) -> Callable[[], Any]:
        rows = problem.asked
        return lambda: model.predict_proba(rows)[:, 1]


class LibLinear(ScikitLearn):
    """It penalises the intercept as the coefficient of a constant column; a larger constant makes that cost less."""

    settings: tuple[Setting, ...] = (
        {"tol": 1e-4, "intercept_scaling": 1},
        {"tol": 1e-6, "intercept_scaling": 10},
        {"tol": 1e-8, "intercept_scaling": 100},
        {"tol": 1e-10, "intercept_scaling": 1000},
    )
    multinomial = False

    def __init__(self, *, dual: bool) -> None:
        super().__init__("liblinear", l1=not dual)
        self.dual = dual
        self.name += " dual" if dual else " primal"
        self.sets_the_mark = False

    def fit(self, problem: Problem, **setting: float) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(
            C=problem.C,
            l1_ratio=float(problem.l1),
            fit_intercept=problem.intercept,
            solver="liblinear",
            dual=self.dual,
            max_iter=MAX_ITER,
            random_state=0,
            **setting,
        ).fit(problem.X, problem.y)

    def refuses(self, problem: Problem) -> str:
        return super().refuses(problem) or ("a penalty is compulsory" if problem.alpha == 0 else "")


class Intel(ScikitLearn):
    """Its class of the same name, without patching scikit-learn; oneDAL computes the loss of lbfgs on dense rows."""

    package = "scikit-learn-intelex"

    def __init__(self) -> None:
        super().__init__("lbfgs")
        self.name = "scikit-learn-intelex lbfgs"

    def prepare(self, problem: Problem) -> None:
        import sklearnex.linear_model  # noqa: F401

    def fit(self, problem: Problem, **setting: float) -> Any:
        from sklearnex.linear_model import LogisticRegression

        return LogisticRegression(
            C=problem.C,
            fit_intercept=problem.intercept,
            tol=setting["tol"],
            max_iter=MAX_ITER,
            n_jobs=problem.threads,
        ).fit(problem.X, problem.y)
