"""What an adapter is."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable
from typing import Any

from problem import Problem

Setting = dict[str, float]
# Steps that no fit should need; where one does, the judge says that it is not at the optimum, or the clock stops it.
MAX_ITER = 100_000
# What a matrix of parameters x parameters may take.
LARGEST_HESSIAN = 2e9


class Peer:
    """One way to fit.

    ``settings`` are tried in turn until the judge is content: the package's own default first, the tightest last. An
    adapter converts from the question in `Problem` to the package's convention and back.
    """

    name: str
    package: str  # as it is called on PyPI
    settings: tuple[Setting, ...]
    # Its tightest fit also sets the mark that everybody's excess is measured from.
    sets_the_mark = False
    l1 = False
    multinomial = True
    sparse = True
    hessian = False
    predicts = False

    @property
    def installed(self) -> bool:
        try:
            importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return False
        return True

    def refuses(self, problem: Problem) -> str:
        """Why this question cannot be put to it; empty where it can."""
        parameters = (problem.columns + 1) * (problem.classes if problem.classes > 2 else 1)
        if problem.l1 and not self.l1:
            return "no L1 penalty"
        if problem.classes > 2 and not self.multinomial:
            return "no multinomial loss"
        if problem.is_sparse and not self.sparse:
            return "no sparse rows"
        if self.hessian and 8.0 * parameters**2 > LARGEST_HESSIAN:
            return f"its Hessian would take {8e-9 * parameters**2:.0f} GB"
        return ""

    def prepare(self, problem: Problem) -> None:
        """Bring rows and labels into the layout it likes best; not timed."""
        raise NotImplementedError

    def arrange(self, problem: Problem, setting: Setting) -> None:
        """What the layout owes to one setting; not timed."""

    def fit(self, problem: Problem, **setting: float) -> Any:
        """All that is timed; returns the model."""
        raise NotImplementedError

    def answer(self, problem: Problem, model: Any) -> tuple[Any, Any]:
        """Coefficients ``(K, p)`` and intercepts ``(K,)`` in the units of the columns."""
        raise NotImplementedError

    def predictor(self, problem: Problem, model: Any) -> Callable[[], Any]:
        """A call that gives the probabilities of the second class of ``problem.asked``, where it ``predicts``."""
        raise NotImplementedError

    def effort(self, model: Any) -> dict[str, Any]:
        """What the package itself counted, for the table of passes."""
        return {}


def tolerances(*values: float, name: str = "tol") -> tuple[Setting, ...]:
    return tuple({name: value} for value in values)


def has_no_penalty(problem: Problem) -> bool:
    return math.isinf(problem.C)
