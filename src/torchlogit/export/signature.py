"""What an exported model takes and gives, for people and for programs."""

from __future__ import annotations

import itertools
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from torchlogit.estimator import LogisticRegression
from torchlogit.model_parts import Parts, described, known_parts


@dataclass(frozen=True)
class Port:
    """One input or output.

    Parameters
    ----------
    name : str
    type : str
        'double', 'string', 'int64' or 'bool'.
    shape : tuple of (int or str)
        'rows' is any number, 0 among them.
    meaning : str
        What goes in or comes out, in words.
    """

    name: str
    type: str
    shape: tuple[int | str, ...]
    meaning: str

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "type": self.type, "shape": list(self.shape), "meaning": self.meaning}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Parameters
    ----------
    path : Path
    to : {'onnx', 'torch'}
    inputs, outputs : tuple of Port
        In the program's order.
    """

    path: Path
    to: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def fitted_parts(model: Any) -> Parts:
    """The encoder, if there is one, and the classifier of a fitted model.

    Raises
    ------
    TypeError
        If it is another kind of model.
    sklearn.exceptions.NotFittedError
        If it is not fitted.
    """
    parts = known_parts(model)
    if parts is None:
        raise TypeError(
            "a LogisticRegression can be exported, and a Pipeline of TableEncoder and LogisticRegression, not "
            + described(model)
        )
    for step in parts:
        if step is not None:
            check_is_fitted(step)
    return parts


def label_values(classes: NDArray[Any]) -> NDArray[Any]:
    """Labels as exported models give them: int64, float64, bool or str objects."""
    values = np.array(classes.tolist())  # numbers among objects are numbers
    kinds: dict[str, type] = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}
    if values.dtype.kind in kinds:
        return values.astype(kinds[values.dtype.kind])
    return np.array([str(label) for label in classes.tolist()], dtype=object)


def uses_offset(classifier: LogisticRegression) -> bool:
    """Whether the model was fitted with an offset, and wants one to predict."""
    return bool(getattr(classifier, "_uses_offset", False))


def array_port(classifier: LogisticRegression) -> Port:
    """The input of a model without an encoder."""
    return Port("X", "double", ("rows", int(classifier.n_features_in_)), "the columns in the order of the fit")


def offset_port(outputs: int) -> Port:
    """The input that a model fitted with an offset has."""
    of = "each class" if outputs > 1 else "the second class"
    return Port("offset", "double", ("rows", outputs), f"added to the logit of {of}")


def free_name(wanted: str, taken: Container[str]) -> str:
    """The name, or the first of ``wanted_2``, ``wanted_3``, ... that is free.

    Examples
    --------
    >>> free_name("label", {"age"}), free_name("label", {"label", "label_2"})
    ('label', 'label_3')
    """
    names = itertools.chain([wanted], (f"{wanted}_{j}" for j in itertools.count(2)))
    return next(name for name in names if name not in taken)


__all__ = ["Exported", "Port", "array_port", "fitted_parts", "free_name", "label_values", "offset_port", "uses_offset"]
