"""The question that every package is asked, and the rows in every layout that one of them likes best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# A prediction is timed with coefficients from a fit to so many rows: which ones matters to no clock.
ROWS_BEFORE_PREDICTION = 20_000


@dataclass
class Problem:
    """Minimise ``mean log loss + |w|^2 / (2 C n)``, or ``+ |w|_1 / (C n)`` where ``l1``; the intercept is free.

    ``predict`` is "" where a fit is timed, else "row" or "all": the rows whose probabilities are.
    The layouts are made on first use, before the clock starts.
    """

    name: str
    title: str
    X: Any  # (n, p) C-ordered array or CSR
    y: Any  # (n,) int64 in 0 .. K - 1
    C: float = 1.0
    l1: bool = False
    intercept: bool = True
    predict: str = ""
    threads: int = 1

    @property
    def rows(self) -> int:
        return int(self.X.shape[0])

    @property
    def columns(self) -> int:
        return int(self.X.shape[1])

    @cached_property
    def classes(self) -> int:
        return int(self.y.max()) + 1

    @cached_property
    def is_sparse(self) -> bool:
        import scipy.sparse

        return bool(scipy.sparse.issparse(self.X))

    @property
    def nbytes(self) -> int:
        """Bytes of X as it is stored."""
        return int(sum(part.nbytes for part in self.buffers))

    @property
    def buffers(self) -> tuple[Any, ...]:
        return (self.X.data, self.X.indices, self.X.indptr) if self.is_sparse else (self.X,)

    @property
    def alpha(self) -> float:
        """The penalty's factor beside a mean of losses: ``1 / (C n)``."""
        return 0.0 if math.isinf(self.C) else 1 / (self.C * self.rows)

    @cached_property
    def by_column(self) -> Any:
        """Fortran order, or CSC."""
        import numpy as np

        return self.X.tocsc() if self.is_sparse else np.asfortranarray(self.X)

    @cached_property
    def design(self) -> Any:
        """A column of ones after the others, where the intercept is free."""
        return self.bordered(1.0)

    def bordered(self, value: float) -> Any:
        """A last column of ``value``."""
        import numpy as np
        import scipy.sparse

        column = np.full((self.rows, 1), value, self.X.dtype)
        if self.is_sparse:
            return scipy.sparse.hstack([self.X, column], format="csr")
        return np.concatenate([self.X, column], axis=1)

    @cached_property
    def tensor(self) -> Any:
        """The same memory as a tensor, where the rows are dense."""
        import torch

        if self.is_sparse:
            parts = (torch.from_numpy(part) for part in (self.X.indptr, self.X.indices, self.X.data))
            return torch.sparse_csr_tensor(*parts, size=self.X.shape)
        return torch.from_numpy(self.X)

    def head(self, rows: int = ROWS_BEFORE_PREDICTION) -> Problem:
        """The first rows, all classes among them or not: for warming up and for predictions."""
        import numpy as np

        y = np.unique(self.y[:rows], return_inverse=True)[1]
        return Problem(self.name, self.title, self.X[:rows], y, self.C, self.l1, self.intercept, "", self.threads)

    @property
    def asked(self) -> Any:
        """The rows to predict."""
        return self.X[:1] if self.predict == "row" else self.X
