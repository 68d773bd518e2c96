"""A command as one of several processes: joins them, and ends with them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer

from torchlogit.cli.guard import BAD_INPUT, say, speaks
from torchlogit.comm import Communicator, distributed, launched
from torchlogit.errors import LostProcessError

# A launcher ends all processes when one has ended: the one that says why must not be the last.
_HEAD_START = 2.0


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Whatever is fitted inside belongs to all processes that were launched together.

    Parameters
    ----------
    device : str
        Processes on CUDA devices talk through NCCL, all others through Gloo.
    """
    began = False
    try:
        with distributed(backend="nccl" if device.startswith("cuda") else "gloo") as processes:
            began = True
            with _ending(processes):
                yield
    except RuntimeError as error:
        if began:
            raise
        say(f"the {launched()[1]} processes do not find each other: {str(error).splitlines()[0]}")
        raise typer.Exit(BAD_INPUT) from None


@contextmanager
def _ending(processes: Communicator) -> Iterator[None]:
    """Where all fail alike, all wait until the first has said why."""
    try:
        yield
    except typer.Exit as end:
        if end.exit_code:
            if getattr(end.__cause__, "everywhere", False):
                with suppress(LostProcessError):
                    processes.gathered(lambda: None)
            elif not speaks():
                time.sleep(_HEAD_START)
        raise
