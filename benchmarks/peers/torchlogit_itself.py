"""torchlogit: every setting at its default, `tol` apart."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from problem import Problem

from peers.base import Peer, tolerances

LOADED_BY = 1000  # rows


class TorchLogit(Peer):
    name = package = "torchlogit"
    settings = tolerances(1e-6, 1e-8, 1e-10)
    sets_the_mark = True
    predicts = True
    l1 = True  # it may say no itself

    def prepare(self, problem: Problem) -> None:
        import numba  # noqa: F401 -- large problems load it; what it takes (80 MB) is no part of a fit

        from torchlogit import plan

        if problem.X.shape[0] > LOADED_BY:
            return
        worth, plan._WORTH_LOOPS = plan._WORTH_LOOPS, 0.0  # nor are compiled loops, which a few rows load as well
        try:
            with suppress(Exception):  # what is wrong will show with all rows
                self.fit(problem, **self.settings[0])
        finally:
            plan._WORTH_LOOPS = worth

    def fit(self, problem: Problem, **setting: float) -> Any:
        from torchlogit import LogisticRegression

        model = LogisticRegression(
            C=problem.C, l1_ratio=float(problem.l1), fit_intercept=problem.intercept, tol=setting["tol"]
        )
        return model.fit(problem.X, problem.y)

    def answer(self, problem: Problem, model: Any) -> tuple[Any, Any]:
        return model.coef_, model.intercept_

    def predictor(self, problem: Problem, model: Any) -> Callable[[], Any]:
        rows = problem.asked
        return lambda: model.predict_proba(rows)[:, 1]

    def effort(self, model: Any) -> dict[str, Any]:
        records = list(model.trace_)
        read = sum(record["bytes_per_second"] * record["seconds"]["read"] for record in records)
        return {"passes": records[-1]["passes"], "bytes": read, "kkt": model.kkt_, "plan": repr(model.plan_)}
