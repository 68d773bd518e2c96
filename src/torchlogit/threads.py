"""How many threads a problem is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from torchlogit.sources import Source

# Below this, waking a second thread costs what it saves on a quiet machine, and on a busy one, where each parallel
# region waits for the slowest thread, it costs tenfold (measured: 5,574 texts, 283 passes, 2.7 s against 15.6 s).
_ELEMENTS = 1_000_000
_GRAM_OPERATIONS = 2e9
_LARGEST_GRAM = 4_000


@contextmanager
def sparing_threads(source: Source, outputs: int) -> Iterator[None]:
    """Run small problems on one thread; the caller's number of threads comes back afterwards.

    Parameters
    ----------
    source : Source
    outputs : int
        K.
    """
    threads = torch.get_num_threads()
    size = outputs * (source.features + 1)
    small = source.nbytes / 8 * outputs <= _ELEMENTS and source.rows * outputs <= _ELEMENTS
    if size <= _LARGEST_GRAM:
        small = small and source.rows * float(size) ** 2 <= _GRAM_OPERATIONS
    if source.device.type != "cpu" or threads == 1 or not small:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
