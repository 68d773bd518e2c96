"""``torchlogit`` in a process that kills itself: ``python killed_fit.py PLACE NUMBER fit ...``.

PLACE says what it is doing when it is killed for the NUMBER-th time that it is there; nothing is cleaned up.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from torchlogit.cli import main
from torchlogit.fit_checkpoint import FitCheckpoint


def arm(place: str, number: int) -> None:
    """Kill this process at a place, in a fit that is written down after every block."""
    FitCheckpoint._affordable = lambda self: True
    left = [number]

    def here() -> bool:
        left[0] -= 1
        return left[0] == 0

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if place == "encoder":  # among the columns of a batch that is being learned
        from torchlogit.encode import encoder

        usual = encoder._show

        def show(*arguments):
            if here():
                kill()
            return usual(*arguments)

        encoder._show = show
    elif place == "block":  # between two blocks of a pass over the rows
        from torchlogit.journal import SweepJournal

        add = SweepJournal.add

        def added(self, total):
            add(self, total)
            if here():
                kill()

        SweepJournal.add = added
    elif place in ("checkpoint", "output"):  # with half of the file written
        write = Path.write_bytes

        def write_half(self, content):
            if (self.suffix == ".checkpoint") == (place == "checkpoint") and here():
                write(self, content[: len(content) // 2])
                kill()
            return write(self, content)

        Path.write_bytes = write_half
    elif place == "old":  # before the old checkpoint is removed
        unlink = Path.unlink

        def removed(self, missing_ok=False):
            if here():
                kill()
            return unlink(self, missing_ok)

        Path.unlink = removed
    else:
        raise ValueError(place)


if __name__ == "__main__":
    arm(sys.argv.pop(1), int(sys.argv.pop(1)))
    main()
