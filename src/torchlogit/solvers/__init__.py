"""Solvers, one file each. To add one: the file, and one line in `SOLVERS`; `plan.py` says when it is chosen.

`Guided` has no line: it needs a guide.
"""

from __future__ import annotations

from torchlogit.solvers.base import Solver, State
from torchlogit.solvers.guided import Guided
from torchlogit.solvers.lbfgs import LBFGS
from torchlogit.solvers.newton import Newton

SOLVERS: dict[str, type[LBFGS] | type[Newton]] = {"lbfgs": LBFGS, "newton": Newton}

__all__ = ["LBFGS", "SOLVERS", "Guided", "Newton", "Solver", "State"]
