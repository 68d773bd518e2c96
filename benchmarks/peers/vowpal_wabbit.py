"""Vowpal Wabbit's batch L-BFGS: sum of log losses + l2 |w|^2 / 2 in float32, from the cache file it made of its text.

`--no_bias_regularization` frees the intercept. It learns on one thread; reading runs on another.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from problem import Problem

from peers.base import Peer, has_no_penalty, tolerances

# Its text takes a second a million; only a cache of what was parsed is timed.
LARGEST = 30e6
# Of exactly none, its L-BFGS stops before the first step; beside a sum of losses this one is lost in its float32.
LEAST_L2 = 1e-9
CONSTANT = 11650396  # the slot of its intercept, before it is cut to the number of bits


class VowpalWabbit(Peer):
    name, package = "vowpalwabbit bfgs", "vowpalwabbit"
    settings = tolerances(1e-3, 1e-6, 1e-9, name="termination")
    multinomial = False

    def __init__(self) -> None:
        self.folder: Path | None = None

    def refuses(self, problem: Problem) -> str:
        if not problem.intercept:
            return super().refuses(problem) or "asked only with an intercept"
        filled = problem.X.nnz if problem.is_sparse else problem.X.size
        return super().refuses(problem) or ("its text would be too large" if filled > LARGEST else "")

    def _options(self, problem: Problem) -> str:
        assert self.folder is not None
        bits = max(18, int(problem.columns).bit_length() + 1)
        while CONSTANT % (1 << bits) < problem.columns:
            bits += 1
        self.slot = CONSTANT % (1 << bits)
        return f"-d {self.folder}/rows --cache_file {self.folder}/cache --quiet -b {bits} --holdout_off "

    def prepare(self, problem: Problem) -> None:
        from vowpalwabbit import Workspace

        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder = Path(tempfile.mkdtemp(prefix="torchlogit-vw-"))
        with (self.folder / "rows").open("w") as file:
            for start in range(0, problem.rows, 10_000):
                file.writelines(lines(problem.X[start : start + 10_000], problem.y[start : start + 10_000]))
        Workspace(self._options(problem) + "--noop").finish()
        (self.folder / "rows").write_text("")  # the cache has them

    def fit(self, problem: Problem, **setting: float) -> Any:
        from vowpalwabbit import Workspace

        l2 = LEAST_L2 if has_no_penalty(problem) else 1 / problem.C
        return Workspace(
            self._options(problem)
            + f"--bfgs --loss_function logistic --l2 {l2!r} --no_bias_regularization --passes 2000 "
            f"--termination {setting['termination']!r}"
        )

    def answer(self, problem: Problem, model: Any) -> tuple[Any, Any]:
        coef = [[model.get_weight(j) for j in range(problem.columns)]]
        intercept = [model.get_weight(self.slot)]
        model.finish()
        return coef, intercept


def lines(X: Any, y: Any) -> list[str]:
    """Its text, numbers with the nine digits that float32 needs."""
    import numpy as np
    import scipy.sparse

    X = scipy.sparse.csr_array(X)
    cells = zip(X.indices.tolist(), X.data.astype(np.float32).tolist(), strict=True)
    words = [f"{j}:{value:.9g}" for j, value in cells]
    bounds = X.indptr.tolist()
    return [
        f"{'1' if label else '-1'} | {' '.join(words[bounds[i] : bounds[i + 1]])}\n"
        for i, label in enumerate(y.tolist())
    ]
