"""Chapter 6: from one neuron to a deeper network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from torchlogit.nn import LogisticModule, train


def moons() -> tuple[Tensor, Tensor]:
    """Two half moons, which no line separates."""
    from sklearn.datasets import make_moons

    X, y = make_moons(200, noise=0.18, random_state=4)
    return torch.tensor(X, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)


def network(layers: int, width: int) -> LogisticModule:
    """Logistic regression on top of so many hidden layers; with none it is logistic regression."""
    body: list[nn.Module] = []
    for j in range(layers):
        body += [nn.Linear(2 if j == 0 else width, width), nn.Tanh()]
    return LogisticModule(2, body=nn.Sequential(*body) if body else None)


@dataclass(frozen=True)
class Trained:
    """A trained network, and how well it does."""

    model: LogisticModule
    loss: float
    wrong: Tensor
    parameters: int


def trained(X: Tensor, y: Tensor, layers: int, width: int, epochs: int) -> Trained:
    """Train from the same seed, and look at the result."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = network(layers, width)
    train(model, X, y, optimizer=partial(torch.optim.Adam, lr=0.1), epochs=epochs)
    with torch.no_grad():
        z = model(X)[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(z, y)
    count = sum(parameter.numel() for parameter in model.parameters())
    return Trained(model, loss.item(), (z > 0) != (y == 1), count)


def probabilities(model: LogisticModule, across: Tensor, up: Tensor) -> Tensor:
    """Of class 1 on a grid of places, ``(len(up), len(across))``."""
    places = torch.cartesian_prod(up, across).flip(1)
    with torch.no_grad():
        return model.probability(places)[:, 0].reshape(len(up), len(across))
