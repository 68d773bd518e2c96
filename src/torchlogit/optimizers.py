"""Optimizers and schedulers of `train`: built objects or what builds them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR


def steps_by_batch(scheduler: Any) -> bool:
    """Whether a scheduler counts batches: PyTorch says so of these two, all others count epochs."""
    return isinstance(scheduler, (OneCycleLR, CyclicLR))


def made_optimizer(given: Any, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer, or what the given callable makes of parameters.

    Raises
    ------
    ValueError
        If it is neither, or holds other parameters.
    """
    made = given
    if not isinstance(given, torch.optim.Optimizer):
        if not callable(given):
            raise ValueError(
                f"optimizer must be a torch.optim optimizer or make one of parameters, as "
                f"functools.partial(torch.optim.SGD, lr=0.01) does; got {given!r}"
            )
        made = given(parameters)
    if not isinstance(made, torch.optim.Optimizer):
        raise ValueError(f"optimizer made a {type(made).__name__}, not a torch.optim optimizer")
    known = {id(value) for value in parameters}
    if not any(id(value) in known for group in made.param_groups for value in group["params"]):
        raise ValueError("the optimizer holds none of this model's parameters: build it from model.parameters()")
    return made


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step evaluates the objective itself (L-BFGS does)."""
    parameter = inspect.signature(type(optimizer).step).parameters.get("closure")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def scheduler_state(scheduler: Any) -> dict[str, Any]:
    """What a checkpoint keeps of a scheduler."""
    state: dict[str, Any] = scheduler.state_dict()
    # Functions are part of the program, not of its state: the scheduler that is loaded has its own.
    return {name: value for name, value in state.items() if not callable(value)}
