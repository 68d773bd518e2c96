"""What a model says of rows: probabilities and log odds, whether it is an estimator or a PyTorch module."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from torchlogit.plots.rows import as_host_array, as_numbers
from torchlogit.torch_objects import evaluating

_MODULE_ROWS = 65_536  # rows in one call of a module, whose layers may be wide
# Closer to a whole number than this, a probability that was computed as one minus another has no digits left.
_ROUNDING = float(np.finfo(np.float64).eps) / 2


def probabilities(model: Any, X: Any) -> NDArray[np.float64]:
    """``(n, classes)`` float64."""
    if isinstance(model, nn.Module):
        if hasattr(model, "probability"):
            return _completed(_module_values(model, X, "probability"))
        outputs = _module_values(model, X, "__call__")
        if isinstance(list(model.modules())[-1], nn.Sigmoid | nn.Softmax):  # a tutorial's network, fitted with BCELoss
            return _completed(outputs)
        if outputs.shape[1] == 1:
            return np.concatenate([scipy.special.expit(-outputs), scipy.special.expit(outputs)], axis=1)
        return np.asarray(scipy.special.softmax(outputs, axis=1))
    if not hasattr(model, "predict_proba"):
        raise ValueError(
            f"{type(model).__name__} has no predict_proba; pass a classifier that has, or a torch.nn.Module that "
            "returns logits"
        )
    values = np.asarray(model.predict_proba(as_host_array(X)), dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"{type(model).__name__} predicts several targets at once; draw a model of one target")
    return values


def log_odds(model: Any, X: Any, probability: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """``(n,)``: of class k against all others.

    A model's own scores serve where they are log odds (they keep their digits where probabilities round to one);
    otherwise, as for an SVM, they are formed from the probabilities.
    """
    scores = None
    if isinstance(model, nn.Module):
        scores = _module_values(model, X, "__call__")
    elif hasattr(model, "decision_function"):
        scores = np.asarray(model.decision_function(as_host_array(X)), dtype=np.float64)
        scores = scores[:, None] if scores.ndim == 1 else scores
    if scores is not None and scores.shape[1] in (1, probability.shape[1]):
        if scores.shape[1] == 1:
            odds = scores[:, 0] if k else -scores[:, 0]
        else:
            odds = scores[:, k] - scipy.special.logsumexp(np.delete(scores, k, axis=1), axis=1)
        if np.allclose(scipy.special.expit(odds), probability[:, k], rtol=0, atol=1e-5):
            return np.asarray(odds)
    others = np.delete(probability, k, axis=1).sum(1)
    return np.asarray(np.log(np.maximum(probability[:, k], _ROUNDING)) - np.log(np.maximum(others, _ROUNDING)))


def classes_of(model: Any, count: int) -> NDArray[Any]:
    """The labels, in the order of the probabilities: a module's are 0, 1, 2, ..."""
    classes = getattr(model, "classes_", None)
    return np.arange(count) if classes is None else np.asarray(classes)


# -- modules --------------------------------------------------------------------------------------------------------


def _module_values(module: nn.Module, X: Any, method: str) -> NDArray[np.float64]:
    """``(n, outputs)`` float64, computed in the module's dtype and where it lives."""
    rows = X if isinstance(X, Tensor) else torch.from_numpy(as_numbers(X))
    rows = rows if rows.layout == torch.strided else rows.to_dense()
    like = next((weight for weight in module.parameters() if weight.is_floating_point()), None)
    if like is not None:
        rows = rows.to(device=like.device, dtype=like.dtype)
    elif not isinstance(X, Tensor):
        rows = rows.to(torch.get_default_dtype())
    pieces = []
    with evaluating(module):
        for start in range(0, rows.shape[0], _MODULE_ROWS):
            part = rows[start : start + _MODULE_ROWS]
            try:
                outputs = getattr(module, method)(part)
            except RuntimeError as error:
                raise ValueError(
                    f"{type(module).__name__} does not take rows with {rows.shape[1]} columns ({error}); pass the "
                    "columns that it was made for"
                ) from error
            if not isinstance(outputs, Tensor) or outputs.ndim not in (1, 2) or outputs.shape[0] != part.shape[0]:
                found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
                raise ValueError(
                    f"{type(module).__name__} returns {found} for {part.shape[0]} rows; it must return logits of shape "
                    "(rows,), (rows, 1) or (rows, classes)"
                )
            pieces.append(outputs.reshape(part.shape[0], -1).to("cpu", torch.float64))
    return np.asarray(torch.cat(pieces).numpy())


def _completed(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(n, classes)``, where a module of two classes may give the second's alone."""
    if probability.shape[1] == 1:
        return np.concatenate([1 - probability, probability], axis=1)
    if not np.allclose(probability.sum(1), 1, rtol=0, atol=1e-2):  # a module may live in half precision
        raise ValueError(
            f"the module's {probability.shape[1]} probabilities of a row do not add up to one, so they answer several "
            "questions; draw one output at a time"
        )
    return probability
