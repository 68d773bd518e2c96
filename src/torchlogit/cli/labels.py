"""Labels of files: what is to be predicted, and which rows are held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchlogit.errors import InputError
from torchlogit.rows import class_counts
from torchlogit.sources.files import nearest
from torchlogit.table import Table

_MOST_CLASSES = 1000


@dataclass(frozen=True)
class Labels:
    """The classes of a fit and the class of every row.

    Parameters
    ----------
    classes : ndarray of shape (K,)
        The positive one last, where there are two.
    codes : ndarray of shape (n,), integer
        Of as few bytes as they need.
    notes : tuple of str
        What a person should know about how labels were read.
    against_rest : bool
        Whether the first class stands for all labels but the second.
    """

    classes: NDArray[Any]
    codes: NDArray[np.integer[Any]]
    notes: tuple[str, ...] = ()
    against_rest: bool = False

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each class among the rows."""
        return np.asarray(class_counts(self.codes, self.classes.size) / max(self.codes.size, 1))


def training_labels(table: Table, positive: str | None) -> Labels:
    """All labels of a table that is to be fitted.

    Raises
    ------
    InputError
        If there are fewer than two classes, or so many that the target must be a measurement.
    """
    classes, codes = table.coded_labels()
    name, rows = table.target, codes.size
    if positive is not None:
        return _one_against_rest(classes, codes, positive, str(name))
    if classes.size < 2:
        raise InputError(
            f"the target '{name}' has only one value ({_label(classes[0])!r} in all {rows:,} rows): a model "
            "needs rows of two classes, or more"
        )
    measured = classes.dtype.kind == "f" and classes.size > 20
    if measured or classes.size > _MOST_CLASSES or (classes.size > 50 and classes.size > rows / 3):
        raise InputError(
            f"the target '{name}' has {classes.size:,} different values in {rows:,} rows (such as "
            f"{_label(classes[0])!r}): it looks like a measurement or an identifier, not a class; name another "
            "--target, or one label with --positive"
        )
    notes: tuple[str, ...] = ()
    if classes.size > 2:
        notes = (
            f"{classes.size} labels: one multinomial model for all of them; --positive LABEL fits one against the rest",
        )
    return Labels(classes, codes, notes)


def _one_against_rest(classes: NDArray[Any], codes: NDArray[np.integer[Any]], positive: str, name: str) -> Labels:
    chosen = find_class(positive, classes)
    if chosen is None:
        shown = [str(_label(c)) for c in classes[:10]]
        near = nearest(positive, [str(_label(c)) for c in classes])
        raise InputError(
            f"no row of the target '{name}' has the label {positive!r}"
            + (f" (did you mean {near!r}?)" if near else "")
            + f"; the labels are {', '.join(shown)}{', ...' if classes.size > 10 else ''}"
        )
    hit = (codes == chosen).astype(np.uint8)
    if classes.size < 2:
        raise InputError(
            f"all rows of the target '{name}' have the label {positive!r}: a model needs rows of two classes"
        )
    if classes.size == 2:
        return Labels(classes[[1 - chosen, chosen]], hit)
    own = str(_label(classes[chosen]))
    rest = f"not {own}"
    return Labels(np.array([rest, own], dtype=object), hit, (f"{own!r} against {classes.size - 1} other labels",), True)


def find_class(label: str, classes: NDArray[Any]) -> int | None:
    """The class that a label as text means: the same text, or the same number."""
    texts = [str(_label(c)) for c in classes]
    if label in texts:
        return texts.index(label)
    if classes.dtype.kind in "iuf":
        try:
            same = np.flatnonzero(classes == float(label))
        except ValueError:
            return None
        return int(same[0]) if same.size else None
    if classes.dtype.kind == "b" and label.lower() in ("true", "false", "1", "0"):
        return int(np.flatnonzero(classes == (label.lower() in ("true", "1")))[0])
    return None


def known_labels(table: Table, classes: NDArray[Any], *, against_rest: bool) -> Labels:
    """Labels of other rows, as classes of a fitted model.

    A full stop after a label (as in the census file's own test part) is left off where the label is known without.

    Raises
    ------
    InputError
        If a label was not seen in the fit.
    """
    values, inverse = table.coded_labels()
    codes = np.empty(values.size, dtype=np.min_scalar_type(classes.size - 1))
    notes: list[str] = []
    for j, value in enumerate(values):
        text = str(_label(value))
        code = find_class(text, classes)
        if code is None and text.endswith("."):
            code = find_class(text[:-1], classes)
            if code is not None:
                notes.append(f"label {text!r} is read as {text[:-1]!r}")
        if code is None and against_rest:
            code = 0
        if code is None:
            row = int(np.flatnonzero(inverse == j)[0])
            raise InputError(
                f"{table.place(row)}: the label {text!r} was not seen when the model was fitted (its labels are "
                f"{', '.join(str(_label(c)) for c in classes[:10])}{', ...' if classes.size > 10 else ''})"
            )
        codes[j] = code
    return Labels(classes, codes[inverse], tuple(notes))


def _label(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def label_text(value: Any) -> str:
    """A class label as people write it."""
    return str(_label(value))


def held_out(
    codes: NDArray[np.integer[Any]], uniforms: NDArray[np.float64], share: float
) -> NDArray[np.bool_]:
    """Which rows are held out: in each class the rows of smallest hash, at least one row always stays.

    Parameters
    ----------
    codes : ndarray of shape (n,), integer
    uniforms : ndarray of shape (n,), float64
        The rows' hashes.
    share : float
    """
    chosen = np.zeros(codes.size, dtype=bool)
    if share <= 0:
        return chosen
    for k, count in enumerate(class_counts(codes).tolist()):
        wanted = min(int(np.floor(share * count + 0.5)), count - 1)
        if wanted > 0:
            own = codes == k
            hashes = uniforms[own]
            hashes.partition(wanted - 1)  # in place: there may be a billion of them
            chosen |= own & (uniforms <= hashes[wanted - 1])
    return chosen
