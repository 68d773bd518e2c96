"""A command as one of several processes: joins them, and ends with them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import typer

from torchlogit.cli.guard import BAD_INPUT, say
from torchlogit.comm import Communicator, distributed, launched


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
    """Whatever ends one of the processes ends all, when the first has said why, and with the same exit code."""
    try:
        yield
    except typer.Exit as end:
        failure = end.__cause__
        if not end.exit_code or not isinstance(failure, Exception):
            raise
        with suppress(Exception):
            if not getattr(failure, "everywhere", False):
                processes.gathered(partial(_again, failure))
        with suppress(Exception):
            processes.gathered(lambda: None)
        sys.stdout.flush()
        sys.stderr.flush()
        # A launcher ends all processes as soon as one has ended: none must dawdle.
        os._exit(end.exit_code)


def _again(failure: Exception) -> None:
    raise failure
