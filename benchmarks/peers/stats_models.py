"""statsmodels: Logit and MNLogit by Newton without a penalty; GLM by fit_regularized with one (mean of losses)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from problem import Problem

from peers.base import Peer, has_no_penalty, tolerances


class Newton(Peer):
    name, package = "statsmodels newton", "statsmodels"
    settings = tolerances(1e-8, 1e-10, 1e-12)
    sparse = False
    hessian = True
    predicts = True

    def refuses(self, problem: Problem) -> str:
        if not has_no_penalty(problem) and not problem.predict:
            return "no L2 penalty"
        return super().refuses(problem)

    def prepare(self, problem: Problem) -> None:
        import statsmodels.api  # noqa: F401

        assert problem.design is not None

    def fit(self, problem: Problem, **setting: float) -> Any:
        from statsmodels.discrete.discrete_model import Logit, MNLogit

        model = (Logit if problem.classes == 2 else MNLogit)(problem.y, problem.design)
        return model.fit(method="newton", maxiter=1000, disp=False, **setting)

    def answer(self, problem: Problem, model: Any) -> tuple[Any, Any]:
        import numpy as np

        theta = np.reshape(model.params, (problem.columns + 1, -1)).T
        if problem.classes > 2:  # the first class is its reference; without a penalty that is a choice of origin
            theta = np.vstack([np.zeros(problem.columns + 1), theta])
        return theta[:, :-1], theta[:, -1]

    def predictor(self, problem: Problem, model: Any) -> Callable[[], Any]:
        rows = problem.design[:1] if problem.predict == "row" else problem.design
        return lambda: model.predict(rows)


class Ridge(Newton):
    """It has no tolerance: what can be chosen is SciPy's method."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.name = f"statsmodels GLM {method}"
        self.settings = ({},)
        self.hessian = method == "bfgs"
        self.multinomial = self.predicts = False

    def refuses(self, problem: Problem) -> str:
        return Peer.refuses(self, problem)

    def fit(self, problem: Problem, **setting: float) -> Any:
        import numpy as np
        import statsmodels.api as sm

        alpha = np.append(np.full(problem.columns, problem.alpha), 0.0)
        model = sm.GLM(problem.y, problem.design, family=sm.families.Binomial())
        return model.fit_regularized(alpha=alpha, L1_wt=0, opt_method=self.method)
