"""What the tour computes with PyTorch, by NumPy formulas, and a network written out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import nn


def log_loss(z, y):
    return float(np.mean(np.logaddexp(0, z) - y * z))


def slope_at(theta, X, y, l2=0.0):
    """Of the mean loss; the intercept is last and has no penalty."""
    residual = 1 / (1 + np.exp(-(X @ theta[:-1] + theta[-1]))) - y
    return np.append(X.T @ residual / len(y) + l2 * theta[:-1], residual.mean())


def descend(X, y, rate, steps):
    """Where gradient descent from zero is after so many steps, and the slope there."""
    theta = np.zeros(X.shape[1] + 1)
    for _ in range(steps):
        theta = theta - rate * slope_at(theta, X, y)
    return theta, slope_at(theta, X, y)


def with_momentum(X, y, rate, steps, l2=0.0):
    theta, speed = np.zeros(X.shape[1] + 1), 0.0
    for _ in range(steps):
        speed = 0.9 * speed + slope_at(theta, X, y, l2)
        theta = theta - rate * speed
    return theta


def adam(X, y, rate, steps):
    theta, mean, square = np.zeros(X.shape[1] + 1), 0.0, 0.0
    for t in range(1, steps + 1):
        slope = slope_at(theta, X, y)
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        theta = theta - rate * (mean / (1 - 0.9**t)) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
    return theta


def network_loss(X, y, depth, width, epochs):
    """A loop by hand over an `nn.Sequential`, with the same random draws."""
    sizes = [2, *[width] * depth]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        parts = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.Tanh())]
        model = nn.Sequential(*parts, nn.Linear(sizes[-1], 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    criterion = nn.BCEWithLogitsLoss()
    for _ in range(epochs):
        optimizer.zero_grad()
        criterion(model(X)[:, 0], y).backward()
        optimizer.step()
    with torch.no_grad():
        return criterion(model(X)[:, 0], y).item()
