"""Separation by linear programmes that share nothing with torchlogit's: every coefficient pushed both ways.

Direction ``beta`` (intercept last) lies in the recession cone if every row's signed linear predictor is at least 0.
A coefficient has no finite best value if some direction of the cone that moves a row moves it (Konis, 2007).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog


def constraints(X, y, classes, fit_intercept=True):
    Z = np.column_stack([X, np.ones(len(y))]) if fit_intercept else X
    if classes == 2:
        return Z * (2 * y - 1)[:, None]
    n, d = Z.shape
    rows = []
    for i in range(n):
        for k in range(classes):
            if k != y[i]:
                a = np.zeros((classes, d))
                a[y[i]], a[k] = Z[i], -Z[i]
                rows.append(a.ravel())
    return np.array(rows)


def verdict(X, y, classes=2, fit_intercept=True, weight=None):
    """``('none' | 'complete' | 'quasi', set of columns)``; columns as column numbers of X, -1 for the intercept."""
    X = np.asarray(X, dtype=float)
    if weight is not None:
        X, y = X[weight > 0], y[weight > 0]
    if fit_intercept:  # a change of coordinates that keeps every verdict and every slope
        X = X - X.mean(0)
        X[:, np.ptp(X, axis=0) < 1e-9 * (1 + np.abs(X).max(0))] = 0.0
    scale = np.abs(X).max(0)
    X = X / np.where(scale > 0, scale, 1)
    A = constraints(X, y, classes, fit_intercept)
    m, d = A.shape

    def solve(c, extra_A=None, extra_b=None):
        A_ub = -A if extra_A is None else np.vstack([-A, extra_A])
        b_ub = np.zeros(m) if extra_b is None else np.concatenate([np.zeros(m), extra_b])
        r = linprog(c, A_ub=A_ub, b_ub=b_ub, bounds=(-1, 1), method="highs")
        assert r.status == 0, r.message
        return r.x

    # complete: max t with A beta >= t
    r = linprog(
        np.append(np.zeros(d), -1.0),
        A_ub=np.column_stack([-A, np.ones(m)]),
        b_ub=np.zeros(m),
        bounds=[(-1, 1)] * d + [(None, 1)],
        method="highs",
    )
    if -r.fun > 1e-8:
        return "complete", set(range(X.shape[1]))
    beta = solve(-A.sum(0))
    if (A @ beta).max() <= 1e-7:
        return "none", set()
    # A coefficient is moved if some direction with A beta >= 0 and total movement 1 or more moves it, beyond what the
    # null space of all rows does: push it within the cone along directions orthogonal to that null space.
    u, s, vt = np.linalg.svd(A, full_matrices=True)
    rank = int((s > 1e-10 * s[0]).sum())
    null = vt[rank:]
    columns = set()
    for j in range(d):
        for sign in (1, -1):
            c = np.zeros(d)
            c[j] = -sign
            r = linprog(
                c,
                A_ub=-A,
                b_ub=np.zeros(m),
                A_eq=null if len(null) else None,
                b_eq=np.zeros(len(null)) if len(null) else None,
                bounds=(-1, 1),
                method="highs",
            )
            if abs(r.x[j]) > 1e-7:
                columns.add(j % (X.shape[1] + fit_intercept))
    return "quasi", {-1 if c == X.shape[1] else c for c in columns}
