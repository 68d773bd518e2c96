"""Separation by linear programmes that share nothing with torchlogit's: every coefficient pushed both ways.

Direction ``beta`` (intercept last) lies in the recession cone if every row's signed linear predictor is at least 0.
A coefficient has no finite best value if some direction of the cone that moves a row moves it (Konis, 2007).
"""

from __future__ import annotations

from fractions import Fraction

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


def exact_kind(X, y, classes=2, fit_intercept=True, weight=None):
    """``'none' | 'complete' | 'quasi'`` in rational arithmetic: right whatever the sizes of the values."""
    X = np.asarray(X, dtype=float)
    if weight is not None:
        X, y = X[weight > 0], y[weight > 0]
    ones = [1] if fit_intercept else []
    rows = [[Fraction(float(v)) for v in row] + ones for row in X]
    left = []
    for z, own in zip(rows, y, strict=True):
        if classes == 2:
            left.append([v if own == 1 else -v for v in z])
            continue
        for k in range(classes):
            if k != own:
                a = [[0] * len(z) for _ in range(classes)]
                a[own], a[k] = z, [-v for v in z]
                left.append([Fraction(v) for part in a for v in part])
    found = False
    while left:
        beta = _maximise([sum(column) for column in zip(*left, strict=True)], left)
        kept = [a for a in left if sum(p * q for p, q in zip(a, beta, strict=True)) == 0]
        if len(kept) == len(left):
            break
        found, left = True, kept
    return "none" if not found else ("quasi" if left else "complete")


def _maximise(cost, constraints):
    """A ``beta`` in [-1, 1] with ``a'beta >= 0`` for all constraints and the largest ``cost'beta``: Bland's simplex.

    With ``beta = plus - minus`` and slacks everywhere, zero is feasible.
    """
    d = len(cost)
    table = [[-v for v in a] + list(a) for a in constraints]
    table += [[Fraction(int(i == j)) for j in range(2 * d)] for i in range(2 * d)]
    right = [Fraction(0)] * len(constraints) + [Fraction(1)] * (2 * d)
    gain = list(cost) + [-v for v in cost]
    m, n = len(table), 2 * d
    basic, free = list(range(n, n + m)), list(range(n))
    while True:
        entering = min((free[j], j) for j in range(n) if gain[j] > 0) if any(g > 0 for g in gain) else None
        if entering is None:
            break
        j = entering[1]
        _, _, i = min((right[i] / table[i][j], basic[i], i) for i in range(m) if table[i][j] > 0)
        pivot = table[i][j]
        basic[i], free[j] = free[j], basic[i]
        table[i] = [(1 if k == j else v) / pivot for k, v in enumerate(table[i])]
        right[i] /= pivot
        for r in range(m):
            factor = table[r][j]
            if r != i and factor != 0:
                table[r] = [(0 if k == j else v) - factor * table[i][k] for k, v in enumerate(table[r])]
                right[r] -= factor * right[i]
        factor = gain[j]
        gain = [(0 if k == j else v) - factor * table[i][k] for k, v in enumerate(gain)]
    value = [Fraction(0)] * (n + m)
    for variable, at in zip(basic, right, strict=True):
        value[variable] = at
    return [value[j] - value[d + j] for j in range(d)]


def explains(X, y, named, classes=2, fit_intercept=True):
    """Whether every separating direction does to the rows what some coefficients of the named columns do.

    Every coefficient is pushed both ways within the cone; then the other columns' coefficients have finite best values,
    once those of the named columns are gone.
    """
    X = np.asarray(X, dtype=float)
    X = X - X.mean(0) if fit_intercept else X
    X = np.where(np.ptp(X, axis=0) < 1e-9 * np.abs(X).max(), 0.0, X) if fit_intercept else X
    scale = np.abs(X).max(0)
    A = constraints(X / np.where(scale > 0, scale, 1), y, classes, fit_intercept)
    d = A.shape[1]
    width = X.shape[1] + fit_intercept
    kept = [j for j in range(d) if j % width in named or j % width == X.shape[1]]
    effects = []
    for j in range(d):
        for sign in (1, -1):
            c = np.zeros(d)
            c[j] = -sign
            r = linprog(c, A_ub=-A, b_ub=np.zeros(len(A)), bounds=(-1, 1), method="highs")
            effects.append(A @ r.x)
    known = A[:, kept]
    return np.linalg.matrix_rank(np.column_stack([known, *effects]), tol=1e-6) == np.linalg.matrix_rank(known, tol=1e-6)
