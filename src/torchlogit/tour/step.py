"""Chapter 3: one training step opened up, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STAGES = ("forward", "loss", "backward", "update")


def four_points() -> tuple[Tensor, Tensor]:
    """Few enough to show every number."""
    X = torch.tensor([[0.5, 1.0], [2.0, -1.0], [-1.0, 0.5], [1.5, 2.0]], dtype=torch.float64)
    return X, torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)


@dataclass(frozen=True)
class Step:
    """The tensors of a step by name, their gradients by the same names, and what the update made."""

    values: dict[str, Tensor]
    gradients: dict[str, Tensor]
    w: Tensor
    b: Tensor
    graph: list[str]  # the operations as autograd recorded them, from the loss back


def training_step(X: Tensor, y: Tensor, w: Tensor, b: Tensor, rate: float) -> Step:
    """Forward, loss, backward, update."""
    w, b = w.clone().requires_grad_(), b.clone().requires_grad_()
    z = X @ w + b  # forward
    p = torch.sigmoid(z)
    losses = -(y * p.log() + (1 - y) * (1 - p).log())  # loss
    loss = losses.mean()
    named = {"w": w, "b": b, "z": z, "p": p, "losses": losses, "loss": loss}
    for tensor in named.values():
        tensor.retain_grad()  # keep what autograd would throw away
    loss.backward()  # type: ignore[no-untyped-call]  # backward
    gradients = {name: tensor.grad for name, tensor in named.items() if tensor.grad is not None}
    with torch.no_grad():
        new_w, new_b = w - rate * gradients["w"], b - rate * gradients["b"]  # update
    values = {name: tensor.detach() for name, tensor in named.items()}
    return Step(values, gradients, new_w, new_b, recorded(loss))


def recorded(loss: Tensor) -> list[str]:
    """The names of the operations behind a loss, newest first."""
    names, node = [], loss.grad_fn
    while node is not None:
        names.append(node.name().removesuffix("0"))
        node = next((before for before, _ in node.next_functions if before is not None), None)
    return names


def training_steps(X: Tensor, y: Tensor, rate: float, count: int) -> list[Step]:
    """So many steps from zero, each beginning where the one before ended."""
    w, b = torch.zeros(2, dtype=X.dtype), torch.zeros((), dtype=X.dtype)
    steps: list[Step] = []
    for _ in range(count):
        steps.append(training_step(X, y, w, b, rate))
        w, b = steps[-1].w, steps[-1].b
    return steps
