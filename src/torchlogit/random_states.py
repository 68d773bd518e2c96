"""Where PyTorch's random generators stand: taken, put back, packed into a checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor

RandomState = tuple[Tensor, tuple[Tensor, ...]]


def random_state() -> RandomState:
    """Of the CPU's and the GPUs' generators."""
    gpus = tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else ()
    return torch.get_rng_state(), gpus


def set_random_state(state: RandomState) -> None:
    """Put back what `random_state` took."""
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(list(state[1]))


def seeded_state(seed: int) -> RandomState:
    """The state after seeding; the generators themselves stay where they are."""
    outside = random_state()
    torch.manual_seed(seed)
    seeded = random_state()
    set_random_state(outside)
    return seeded


def packed(state: RandomState) -> list[Tensor]:
    """As a list of tensors, for a checkpoint."""
    return [state[0], *state[1]]


def unpacked(tensors: list[Tensor]) -> RandomState:
    """The inverse of `packed`."""
    return tensors[0], tuple(tensors[1:])


def generator_states(generators: list[torch.Generator]) -> list[Tensor]:
    """Where single generators stand."""
    return [generator.get_state() for generator in generators]


def set_generator_states(generators: list[torch.Generator], states: list[Tensor]) -> None:
    """Put back what `generator_states` took."""
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
