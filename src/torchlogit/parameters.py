"""Parameters of `LogisticRegression`: checked, and warned about as scikit-learn does."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils import check_random_state

if TYPE_CHECKING:
    from torchlogit.estimator import LogisticRegression

# What scikit-learn says when a solver has used up its iterations: warning filters written for it keep working.
_BUDGET_MESSAGES = {
    "lbfgs": "lbfgs failed to converge after {} iteration(s). ",
    "liblinear": "Liblinear failed to converge, increase the number of iterations. ",
    "newton-cg": "newton-cg failed to converge. Increase the number of iterations. ",
    "newton-cholesky": "Newton solver did not converge after {} iterations. ",
    "sag": "The max_iter was reached which means the coef_ did not converge. ",
    "saga": "The max_iter was reached which means the coef_ did not converge. ",
}
_SOLVERS = ("auto", *_BUDGET_MESSAGES)


def check_parameters(estimator: LogisticRegression) -> float:
    """Validate, warn as scikit-learn does, and return the effective C."""
    strength, l1_ratio = _penalty(estimator)
    _number(estimator, "tol", Real, lambda v: v >= 0, "a number of at least 0")
    _number(estimator, "max_iter", Integral, lambda v: v >= 0, "an integer of at least 0")
    _number(estimator, "intercept_scaling", Real, lambda v: v > 0, "a number above 0")
    for name in ("dual", "fit_intercept", "warm_start"):
        if not isinstance(getattr(estimator, name), (bool, np.bool_)):
            raise ValueError(f"{name} must be True or False, got {getattr(estimator, name)!r}")
    if estimator.solver not in _SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(_SOLVERS)}, got {estimator.solver!r}")
    if estimator.class_weight is not None and not isinstance(estimator.class_weight, dict) and (
        not isinstance(estimator.class_weight, str) or estimator.class_weight != "balanced"
    ):
        raise ValueError(f"class_weight must be a dict, 'balanced' or None, got {estimator.class_weight!r}")
    if l1_ratio:
        raise ValueError(
            f"l1_ratio={l1_ratio:g}: L1 and elastic-net penalties are not available yet; use l1_ratio=0 (L2) or "
            "C=np.inf (no penalty)"
        )
    _warn_without_effect(estimator)
    return strength


def _penalty(estimator: LogisticRegression) -> tuple[float, float]:
    """Effective C and l1_ratio, with scikit-learn 1.9's rules and warnings for ``penalty``."""
    _number(estimator, "C", Real, lambda v: v > 0, "a number above 0 (np.inf means no penalty)")
    ratio, penalty, strength = estimator.l1_ratio, estimator.penalty, float(estimator.C)
    if ratio is None:
        if penalty == "elasticnet":
            raise ValueError("l1_ratio must be specified when penalty is elasticnet.")
        warnings.warn(
            "'l1_ratio=None' was deprecated in scikit-learn 1.8; use l1_ratio=0 for the L2 penalty.",
            FutureWarning,
            stacklevel=4,
        )
        ratio = 0.0
    if not isinstance(ratio, Real) or not 0 <= ratio <= 1:
        raise ValueError(f"l1_ratio must be a number between 0 and 1, got {ratio!r}")
    if isinstance(penalty, str) and penalty == "deprecated":
        return strength, float(ratio)
    if penalty is not None and (not isinstance(penalty, str) or penalty not in ("l1", "l2", "elasticnet")):
        raise ValueError(f"penalty must be 'l1', 'l2', 'elasticnet' or None, got {penalty!r}")
    warnings.warn(
        "'penalty' was deprecated in scikit-learn 1.8 and is going away. Leave it out: l1_ratio=0 is the L2 penalty, "
        "l1_ratio=1 the L1 penalty, a value between them elastic net, and C=np.inf no penalty.",
        FutureWarning,
        stacklevel=4,
    )
    if penalty is None:
        if estimator.C != 1.0:
            warnings.warn(
                "Setting penalty=None will ignore the C and l1_ratio parameters", UserWarning, stacklevel=4
            )
        return float("inf"), 0.0
    if penalty in ("l1", "l2"):
        own = float(penalty == "l1")
        if ratio != own:
            warnings.warn(
                f"Inconsistent values: penalty={penalty} with l1_ratio={estimator.l1_ratio}. penalty is deprecated. "
                "Please use l1_ratio only.",
                UserWarning,
                stacklevel=4,
            )
        return strength, own
    return strength, float(ratio)


def _warn_without_effect(estimator: LogisticRegression) -> None:
    if estimator.n_jobs is not None:
        warnings.warn(
            f"'n_jobs' has no effect (you gave n_jobs={estimator.n_jobs}); leave it out.", FutureWarning, stacklevel=4
        )
    if estimator.dual:
        warnings.warn("'dual' has no effect: the optimum is the same; leave it out.", UserWarning, stacklevel=4)
    if estimator.intercept_scaling != 1:
        warnings.warn(
            "'intercept_scaling' has no effect: the intercept is not penalised; leave it out.",
            UserWarning,
            stacklevel=4,
        )
    if estimator.solver == "liblinear":
        warnings.warn(
            "solver='liblinear' penalises the intercept in scikit-learn; torchlogit never does, so coefficients differ "
            "slightly. Leave solver at 'auto' to confirm.",
            UserWarning,
            stacklevel=4,
        )


def _number(estimator: LogisticRegression, name: str, kind: Any, valid: Any, wanted: str) -> None:
    value = getattr(estimator, name)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, kind) or not valid(value):
        raise ValueError(f"{name} must be {wanted}, got {value!r}")


def seed_of(random_state: Any) -> int:
    """An integer seed: 0 for None, so that the same call gives the same bits."""
    if random_state is None:
        return 0
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def device_of(device: Any) -> torch.device | None:
    """None for 'auto'; an error where the machine lacks the device."""
    if isinstance(device, str) and device == "auto":
        return None
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be 'auto', 'cpu' or 'cuda', got {device!r}: {error}") from None
    if chosen.type == "mps":
        raise ValueError("device='mps' has no float64, which the certificate needs; use device='cpu'")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device!r}: torch sees no CUDA device on this machine; use device='cpu'")
    return chosen


def familiar_message(estimator: LogisticRegression) -> str:
    """scikit-learn's own words for a used-up budget, where one of its solvers was asked for."""
    if estimator.n_iter_[0] < estimator.max_iter:
        return ""
    return _BUDGET_MESSAGES.get(estimator.solver, "").format(estimator.n_iter_[0])
