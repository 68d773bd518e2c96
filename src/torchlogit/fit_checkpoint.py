"""A folder that an exact fit is kept in: killed at any moment, it goes on to the same bits."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchlogit.checkpoint import read_tree, write_tree
from torchlogit.errors import InputError
from torchlogit.journal import SweepJournal
from torchlogit.keeping import Progress
from torchlogit.kept_values import as_tree, from_tree
from torchlogit.purpose import Purpose

_FORMAT = "torchlogit fit checkpoint"
_NAME = re.compile(r"fit-(\d{6,})\.checkpoint")
_ENCODER = "encoder.checkpoint"
_RESULT = "result.checkpoint"
_PARTIAL = ".*.partial.checkpoint"
_KEPT = 2  # the one before stays until there is another
_BAD_TREE = (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError)


@dataclass(frozen=True)
class Pace:
    """How often a fit is kept.

    Parameters
    ----------
    minutes : float, default=5.0
        Most time between two checkpoints in the midst of a read of the rows.
    share : float, default=0.1
        Most of the time that may go into writing: after every step and every read, but for those that come sooner.
    """

    minutes: float = 5.0
    share: float = 0.1


class FitCheckpoint:
    """The keeper of one fit, in a folder of its own.

    The folder holds the last two checkpoints, what the encoder has learned, and a lock. Each file is written under
    another name, flushed to the disk and renamed, so that it is there whole or not at all.

    Parameters
    ----------
    folder : path-like
        Made if need be; the folder above it must be there.
    purpose : Purpose
        What is fitted to what; a checkpoint of anything else is refused.
    resume : bool, default=False
        Whether to go on from what is there. Without it nothing may be there.
    pace : Pace
    say : callable
        Told in a sentence what happens with the checkpoints, where that is not what one would expect.

    Raises
    ------
    InputError
        If the folder cannot be used, another process fits in it, a checkpoint is there and ``resume`` is false, the
        checkpoint has another purpose, or none of those that are there can be read.

    Attributes
    ----------
    journal : SweepJournal
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        purpose: Purpose,
        *,
        resume: bool = False,
        pace: Pace | None = None,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.folder, self.purpose, self.pace, self.say = Path(folder), purpose, pace or Pace(), say
        self.journal = SweepJournal(self._swept)
        self._progress: Progress | None = None
        self._last, self._cost = time.monotonic(), 0.0
        self._found: dict[str, Any] | None = None
        self._lock = _locked(self.folder)
        try:
            self._look(resume)
        except BaseException:
            self.close()
            raise

    @property
    def result(self) -> Path:
        """Where whoever has fitted may put what it came to."""
        return self.folder / _RESULT

    @property
    def finished(self) -> bool:
        """Whether what is there is the end of the fit."""
        return self._found is not None and bool(self._found["progress"]["finished"])

    # -- what is there ------------------------------------------------------------------------------------------

    def _look(self, resume: bool) -> None:
        for left_over in self.folder.glob(_PARTIAL):
            left_over.unlink()
        self._numbers = _numbers(self.folder)
        self._next = max(self._numbers, default=0) + 1
        self.written = bool(self._numbers) or (self.folder / _ENCODER).exists()
        if self.written and not resume:
            raise InputError(
                f"{self.folder} holds the checkpoint of a fit: add --resume to go on from it, or name another folder"
            )
        if resume:
            self._found = self._latest()
            self.say(self._told())

    def _latest(self) -> dict[str, Any] | None:
        """The newest checkpoint that can be read; those that cannot are named and passed over."""
        damaged: list[str] = []
        for number in sorted(self._numbers, reverse=True):
            try:
                tree = self._read(_file_name(number))
                from_tree([tree["progress"], tree["sweeps"]])
            except InputError as error:
                if isinstance(error, OtherPurposeError):
                    raise
                damaged.append(str(error).split(";")[0])
            except _BAD_TREE as error:
                damaged.append(f"{self.folder / _file_name(number)} is damaged ({error})")
            else:
                if damaged:
                    self.say(f"{'; '.join(damaged)}: going on from the one before")
                self._numbers = [n for n in self._numbers if n <= number]
                return tree
        if damaged:
            raise InputError(
                f"no checkpoint in {self.folder} can be used ({'; '.join(damaged)}); delete the folder and start anew"
            )
        return None

    def _told(self) -> str:
        """Where the fit goes on."""
        if not self.written:
            return f"there is no checkpoint in {self.folder} yet; starting from the beginning"
        known = self._found or {"progress": {"run": None, "finished": False}}
        progress: dict[str, Any] = known["progress"]
        where = "the beginning" if progress["run"] is None else f"step {progress['run']['iterations']}"
        where = "the end" if progress["finished"] else where
        return f"going on from {where} of the fit, as kept in {self.folder}"

    def _read(self, name: str) -> dict[str, Any]:
        """A file of the folder, if its purpose is the same."""
        tree = read_tree(self.folder / name, _FORMAT)
        difference = self.purpose.difference(Purpose.from_tree(tree["purpose"]))
        if difference:
            raise OtherPurposeError(
                f"the checkpoint in {self.folder} was made otherwise: {difference}; run it as it was, or start anew in "
                "another folder"
            )
        return tree

    def recall(self, device: object) -> Progress | None:
        """The progress that was kept last, or None; the journal goes with it."""
        if self._found is None:
            return None
        progress: Progress = from_tree(self._found["progress"], device)
        self.journal.rewind(from_tree(self._found["sweeps"], device))
        self._progress, self._found = progress, None
        return progress

    # -- writing ------------------------------------------------------------------------------------------------

    def keep(self, progress: Progress) -> None:
        """Write the progress, unless the last time is so recent that writing would slow the fit down."""
        self._progress = progress
        self.journal.restart()
        if progress.finished or self._affordable():
            self._write()

    def _swept(self, whole: bool) -> None:
        """A block, or the last one of a sweep, has been added: perhaps it is time."""
        waited = time.monotonic() - self._last >= 60 * self.pace.minutes
        if (whole or waited) and self._progress is not None and self._affordable():
            self._write()

    def _affordable(self) -> bool:
        return self.pace.share * (time.monotonic() - self._last) >= self._cost

    def _write(self) -> None:
        began = time.monotonic()
        name = _file_name(self._next)
        self._put(name, {"progress": as_tree(self._progress), "sweeps": as_tree(self.journal.sweeps)})
        self._numbers.append(self._next)
        self._next += 1
        for number in _numbers(self.folder):
            if number not in self._numbers[-_KEPT:]:
                (self.folder / _file_name(number)).unlink(missing_ok=True)
        self._numbers = self._numbers[-_KEPT:]
        self._last = time.monotonic()
        self._cost = self._last - began

    def _put(self, name: str, tree: dict[str, Any]) -> None:
        path = self.folder / name
        try:
            write_tree(path, {"purpose": self.purpose.as_tree(), **tree}, _FORMAT)
            _flush(self.folder)
        except OSError as error:
            kept = "the checkpoint before it is good" if self._numbers else "there is no earlier one"
            reason = error.strerror or error
            raise InputError(
                f"the checkpoint {path} cannot be written ({reason}), and {kept}: free some space or mend the folder, "
                "and run the same command with --resume"
            ) from None
        self.written = True

    # -- the encoder --------------------------------------------------------------------------------------------

    def keep_encoder(self, state: dict[str, Any]) -> None:
        """Write what an encoder has learned; it is not learned again."""
        self._put(_ENCODER, {"encoder": state})

    def encoder(self) -> dict[str, Any] | None:
        """What `keep_encoder` was given, or None."""
        if not (self.folder / _ENCODER).exists():
            return None
        try:
            state: dict[str, Any] = self._read(_ENCODER)["encoder"]
        except OtherPurposeError:
            raise
        except (InputError, *_BAD_TREE) as error:
            self.say(f"{str(error).split(';')[0]}: the encoder is learned again")
            return None
        return state

    def close(self) -> None:
        """Let another process use the folder."""
        os.close(self._lock)


class OtherPurposeError(InputError):
    """The checkpoint belongs to another fit."""


def _file_name(number: int) -> str:
    return f"fit-{number:06d}.checkpoint"


def _numbers(folder: Path) -> list[int]:
    """Numbers of the checkpoints that are there, in order."""
    found = (_NAME.fullmatch(name) for name in os.listdir(folder))
    return sorted(int(match[1]) for match in found if match)


def kept_facts(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The facts of the purpose that a folder's checkpoint was made for; none where there is nothing to read.

    Parameters
    ----------
    folder : path-like
    """
    path = Path(folder)
    names = [_ENCODER, *map(_file_name, reversed(_numbers(path)))] if path.is_dir() else []
    for name in names:
        with suppress(InputError, OSError, *_BAD_TREE):
            return dict(Purpose.from_tree(read_tree(path / name, _FORMAT)["purpose"]).facts)
    return {}


def _locked(folder: Path) -> int:
    """Make the folder, and be the only one in it as long as this process lives."""
    try:
        folder.mkdir(exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(
            f"the folder {folder} for checkpoints cannot be made or written to ({error.strerror or error}); name "
            "another with --checkpoint"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(lock)
            raise InputError(f"another process keeps its fit in {folder}; wait for it or name another folder") from None
        # Some network file systems have no locks: nobody is kept out then.
    return lock


def _flush(folder: Path) -> None:
    """Make a rename survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system can
            os.fsync(handle)
    finally:
        os.close(handle)


