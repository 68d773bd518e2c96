"""Chapter 4: the easy button and the engine room, on the same points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

STEPS = 500


@dataclass(frozen=True)
class Answer:
    """Coefficients with the intercept last, and their objective."""

    theta: Tensor
    objective: float


def objective(theta: Tensor, X: Tensor, y: Tensor, C: float) -> float:
    """What both minimise: the mean loss plus the penalty."""
    loss = nn.functional.binary_cross_entropy_with_logits(X @ theta[:-1] + theta[-1], y)
    return (loss + theta[:-1].square().sum() / (2 * C * len(y))).item()


def easy_button(X: Tensor, y: Tensor, C: float) -> Answer:
    """One line."""
    from torchlogit import LogisticRegression

    clf = LogisticRegression(C=C, tol=1e-9).fit(X, y)
    theta = torch.cat([torch.as_tensor(clf.coef_[0]), torch.as_tensor(clf.intercept_)])
    return Answer(theta, objective(theta, X, y, C))


def engine_room(X: Tensor, y: Tensor, C: float, rate: float) -> list[Answer]:
    """The training loop, and where it stood after every step."""
    from torchlogit import LogisticModule, train

    model = LogisticModule(2).double()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    sgd = partial(torch.optim.SGD, lr=rate, momentum=0.9)
    trace = train(model, X, y, optimizer=sgd, epochs=STEPS, l2=1 / (C * len(y)))
    return [Answer(torch.tensor(record["theta"][0], dtype=X.dtype), record["objective"]) for record in trace]
