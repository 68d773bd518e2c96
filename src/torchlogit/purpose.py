"""What a checkpoint was made for: options, files, and what else the bits depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class FileMark:
    """By which a file is known to be the same.

    Parameters
    ----------
    path : str
    size : int
        Bytes.
    changed : int
        When it was last written, in nanoseconds.
    ends : str
        A hash of its beginning and its end.
    """

    path: str
    size: int
    changed: int
    ends: str

    def difference(self, before: FileMark) -> str:
        """What has changed since, or nothing."""
        if self.size != before.size:
            return f"{self.path} has changed: {before.size:,} bytes then, {self.size:,} now"
        if self.ends != before.ends:
            return f"{self.path} has changed: it begins or ends otherwise"
        if self.changed != before.changed:
            return f"{self.path} has changed: written {_when(before.changed)} then, {_when(self.changed)} now"
        return ""


@dataclass(frozen=True)
class Purpose:
    """What a fit is made of.

    Parameters
    ----------
    facts : mapping of str to JSON values
        Options and versions by the name that a person knows them by.
    files : tuple of FileMark, default=()
    """

    facts: Mapping[str, Any]
    files: tuple[FileMark, ...] = ()

    def difference(self, before: Purpose) -> str:
        """The first difference from another one in words, or nothing.

        Examples
        --------
        >>> Purpose({"--C": 10.0, "--seed": 0}).difference(Purpose({"--C": 1.0, "--seed": 0}))
        'with --C 1.0, and this run has --C 10.0'
        """
        for name in {**before.facts, **self.facts}:
            then, now = before.facts.get(name), self.facts.get(name)
            if then != now:
                return f"{_told(name, then)}, and this run has {_told(name, now).removeprefix('with ')}"
        here, there = {mark.path: mark for mark in self.files}, {mark.path: mark for mark in before.files}
        for path, mark in there.items():
            if path not in here:
                return f"with the file {path}, which this run does not read"
            if changed := here[path].difference(mark):
                return changed
        added = [path for path in here if path not in there]
        if added:
            return f"without the file {added[0]}, which this run reads"
        if [mark.path for mark in self.files] != [mark.path for mark in before.files]:
            return "with the same files in another order or number"
        return ""

    def as_tree(self) -> dict[str, Any]:
        """As JSON values."""
        files = [[mark.path, mark.size, mark.changed, mark.ends] for mark in self.files]
        return {"facts": dict(self.facts), "files": files}

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Purpose:
        """The inverse of `as_tree`."""
        return cls(dict(tree["facts"]), tuple(FileMark(*mark) for mark in tree["files"]))


def _told(name: str, value: Any) -> str:
    """An option or another fact in words."""
    if value is None or value is False or value == []:
        return f"without {name}"
    if value is True:
        return f"with {name}"
    shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"with {name} {shown}"


def _when(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")
