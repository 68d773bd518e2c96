"""An independent optimum: damped Newton steps by singular values of the weighted rows, NumPy only, float64.

Shares no code with torchlogit. Standardises its columns itself, so that raw data of any scale can be given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Optimum:
    theta: np.ndarray  # (K, p + 1) raw, K = 1 for two classes
    objective: float
    decrement: float  # Newton's estimate of what is left, relative
    separated: bool


def standardise(X, weight, fit_intercept):
    W = weight.sum()
    mean = (weight @ X) / W
    centred = X - mean
    mean = mean + (weight @ centred) / W
    centred = X - mean
    deviation = np.sqrt(np.maximum((weight @ centred**2) / W, 0))
    if not fit_intercept:
        rms = np.sqrt(deviation**2 + mean**2)
        scale = np.where(rms > 0, rms, np.maximum(np.abs(mean), 1))
        return X / scale, np.zeros_like(mean), scale
    constant = np.ptp(X[weight > 0], axis=0) == 0
    scale = np.where((deviation > 0) & ~constant, deviation, np.maximum(np.abs(mean), 1))
    centred[:, constant] = 0.0
    return centred / scale, mean, scale


def row_terms(eta, y):
    """Loss and probabilities, stable, own class's complement exact. eta (n, K), K = 1 binary."""
    if eta.shape[1] == 1:
        margin = eta[:, 0] * (2 * y - 1)
        loss = np.maximum(-margin, 0) + np.log1p(np.exp(-np.abs(margin)))
        wrong = np.where(margin > 0, np.exp(-np.abs(margin)), 1) / (1 + np.exp(-np.abs(margin)))
        return loss, (-(2 * y - 1) * wrong)[:, None], None
    n = np.arange(len(y))
    d = eta - eta[n, y][:, None]
    top = d.max(1, keepdims=True)
    e = np.exp(d - top)
    e[n, y] = 0
    rest, own = e.sum(1), np.exp(-top[:, 0])
    loss = np.where(top[:, 0] > 0, top[:, 0] + np.log(rest + own), np.log1p(rest))
    p = e / (rest + own)[:, None]
    p[n, y] = own / (rest + own)
    slope = p.copy()
    slope[n, y] = -rest / (rest + own)
    return loss, slope, p


def objective_of(theta, X, y, l2, weight=None, offset=None):
    """Mean loss plus penalty at raw coefficients (K, p + 1)."""
    weight = np.ones(len(y)) if weight is None else weight
    eta = X @ theta[:, :-1].T + theta[:, -1]
    if offset is not None:
        eta = eta + offset.reshape(len(y), -1)
    loss = row_terms(eta, y)[0]
    return float(weight @ loss / weight.sum() + 0.5 * l2 * (theta[:, :-1] ** 2).sum())


def certificate_of(theta, X, y, l2, weight=None, offset=None, fit_intercept=True):
    """Largest gradient entry in centred, standardised units, recomputed from raw coefficients."""
    weight = np.ones(len(y)) if weight is None else weight
    Z, mean, scale = standardise(X, weight, fit_intercept)
    eta = Z @ (theta[:, :-1] * scale).T + theta[:, -1] + theta[:, :-1] @ mean
    if offset is not None:
        eta = eta + offset.reshape(len(y), -1)
    slope = row_terms(eta, y)[1] * weight[:, None] / weight.sum()
    gradient = slope.T @ Z + l2 * theta[:, :-1] / scale
    parts = [np.abs(gradient).max()]
    if fit_intercept:
        parts.append(np.abs(slope.sum(0)).max())
    return float(max(parts))


def optimum(X, y, l2, weight=None, offset=None, fit_intercept=True, classes=None, iterations=300):
    X = np.asarray(X, dtype=np.float64)
    y = np.asarray(y, dtype=int)
    n, p = X.shape
    classes = classes or int(y.max()) + 1
    K = 1 if classes == 2 else classes
    weight = np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)
    W = weight.sum()
    Z, mean, scale = standardise(X, weight, fit_intercept)
    Z = np.column_stack([Z, np.full(n, 1.0 if fit_intercept else 0.0)])
    ridge = np.append(l2 / scale**2, 0.0)
    D = p + 1
    u = np.zeros((K, D))
    off = 0 if offset is None else np.asarray(offset).reshape(n, -1)

    def value(u):
        loss = row_terms(Z @ u.T + off, y)[0]
        return weight @ loss / W + 0.5 * (ridge * u**2).sum()

    f = value(u)
    separated = False
    decrement = np.inf
    for _ in range(iterations):
        eta = Z @ u.T + off
        loss, slope, prob = row_terms(eta, y)
        if l2 == 0 and offset is None:
            margin = eta[:, 0] * (2 * y - 1) if K == 1 else eta[np.arange(n), y] - np.where(
                np.arange(K) == y[:, None], -np.inf, eta).max(1)
            if margin[weight > 0].min() > 0:
                separated = True
                break
        share = weight / W
        gradient = (slope * share[:, None]).T @ Z + ridge * u
        if K == 1:
            t = np.exp(-0.5 * np.abs(eta[:, 0]))
            root = t / (1 + t * t)
            A = (root * np.sqrt(share))[:, None] * Z
        else:
            q = np.sqrt(prob)
            B = -q[:, :, None] * q[:, None, :]
            B[:, np.arange(K), np.arange(K)] = 1 - prob
            B[np.arange(n), y, y] = -slope[np.arange(n), y]
            B = B * q[:, None, :] * np.sqrt(share)[:, None, None]
            A = (B[:, :, :, None] * Z[:, None, None, :]).reshape(n * K, K * D)
        A = np.vstack([A, np.diag(np.tile(np.sqrt(ridge), K))])
        if len(A) > 4 * A.shape[1]:
            A = np.linalg.qr(A, mode="r")
        col = np.sqrt((A**2).sum(0))
        col[col == 0] = 1
        s, V = np.linalg.svd(A / col, full_matrices=False)[1:]
        keep = s > 1e-14 * np.sqrt(len(s)) * s[0]
        g = gradient.ravel() / col
        step = -(V[keep].T @ ((V[keep] @ g) / s[keep] ** 2)) / col
        step = step.reshape(K, D)
        if K > 1:
            step -= step.mean(0)
        slope0 = (gradient * step).sum()
        decrement = -0.5 * slope0 / max(f, 1e-300)
        if decrement <= 1e-25:
            break
        t = 1.0
        while t > 1e-12:
            new = value(u + t * step)
            if new <= f + 1e-4 * t * slope0 or (abs(new - f) <= 1e-15 * abs(f) and t == 1.0):
                break
            t *= 0.5
        else:
            break
        improved = f - new
        u, f = u + t * step, new
        if decrement < 1e-15 and improved <= 0:
            break
    w = u[:, :-1] / scale
    theta = np.column_stack([w, u[:, -1] - w @ mean])
    if not fit_intercept:
        theta[:, -1] = 0
    return Optimum(theta, float(f), float(decrement), separated)
