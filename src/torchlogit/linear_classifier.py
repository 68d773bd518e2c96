"""A fitted linear classifier: its solution in float64, and everything that is predicted from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model._base import SparseCoefMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import check_is_fitted

from torchlogit.inputs import dense_tensor, is_tensor, numeric_array
from torchlogit.nn import LogisticModule
from torchlogit.prediction import (
    Solution,
    array_probabilities,
    likeliest,
    linear_predictor,
    log_probabilities,
    probabilities,
    shares,
    tensor_linear_predictor,
    tensor_log_probabilities,
    tensor_probabilities,
)
from torchlogit.row_values import as_array, known_codes, row_offsets
from torchlogit.rows import LazyRows
from torchlogit.torch_objects import host_array


class LinearClassifier(SparseCoefMixin, ClassifierMixin, BaseEstimator):
    """What `LogisticRegression` is once it has been fitted.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (1, n_features) or (n_classes, n_features)
    intercept_ : ndarray of shape (1,) or (n_classes,)
    n_features_in_ : int
    """

    classes_: NDArray[Any]
    coef_: Any
    intercept_: Any
    n_features_in_: int

    # -- the solution -------------------------------------------------------------------------------------------

    def _set_solution(self, solution: Solution, dtype: np.dtype[Any]) -> None:
        """Keep the float64 solution, and publish it in X's dtype."""
        self._solution = solution
        self.coef_ = solution.coef.astype(dtype)
        self.intercept_ = solution.intercept.astype(dtype)

    def _current_solution(self) -> Solution:
        """The float64 solution, or what the user has written into ``coef_`` and ``intercept_`` since."""
        coef = self.coef_ if isinstance(self.coef_, np.ndarray) else self.coef_.toarray()
        intercept = np.broadcast_to(np.asarray(self.intercept_), (coef.shape[0],))
        kept: Solution | None = getattr(self, "_solution", None)
        if (
            kept is not None
            and np.array_equal(kept.coef.astype(coef.dtype), coef)
            and np.array_equal(kept.intercept.astype(intercept.dtype), intercept)
        ):
            return kept
        return Solution(np.asarray(coef, dtype=np.float64), np.asarray(intercept, dtype=np.float64))

    def _log_loss(self, X: Any, y: Any) -> float:
        """Mean log loss of rows with labels."""
        logarithms = as_array(self.predict_log_proba(X)).astype(np.float64)
        codes = known_codes(as_array(y).ravel(), self.classes_)
        return float(-logarithms[np.arange(codes.size), codes].mean())

    @property
    def module_(self) -> LogisticModule:
        """The model as a float64 module, with ``head`` a plain `torch.nn.Linear`."""
        check_is_fitted(self)
        solution = self._current_solution()
        made: tuple[Solution, LogisticModule] | None = getattr(self, "_module", None)
        if made is None or made[0] is not solution:
            made = (solution, LogisticModule.from_weights(solution.coef, solution.intercept))
            self._module = made
        return made[1]

    # -- predicting ---------------------------------------------------------------------------------------------

    def _eta(self, X: Any, offset: Any) -> tuple[Any, Any]:
        """``(n, K)`` float64, array or tensor, and the dtype to publish results in."""
        check_is_fitted(self)
        if isinstance(X, LazyRows):
            return self._lazy_eta(X, offset), np.dtype(np.float64)
        solution = self._current_solution()
        if is_tensor(X):
            tensor = dense_tensor(self, X, reset=False)
            outputs = tensor_linear_predictor(solution, tensor)
            offsets = self._offsets(offset, tensor.shape[0])
            if offsets is not None:
                outputs = outputs + torch.from_numpy(offsets).to(outputs.device)
            if not bool(torch.isfinite(outputs).all()):
                values = tensor.values() if tensor.layout == torch.sparse_csr else tensor
                assert_all_finite(values.cpu().numpy(), estimator_name=type(self).__name__, input_name="X")
            return outputs, tensor.dtype
        array = numeric_array(self, X, reset=False)
        eta = linear_predictor(solution, array)
        offsets = self._offsets(offset, array.shape[0])
        if not np.isfinite(eta).all():
            assert_all_finite(array, estimator_name=type(self).__name__, input_name="X")
        return (eta if offsets is None else eta + offsets), array.dtype

    def _lazy_eta(self, X: LazyRows, offset: Any) -> NDArray[np.float64]:
        from torchlogit.lazy_prediction import lazy_linear_predictor

        return lazy_linear_predictor(self, X, offset)

    def _offsets(self, offset: Any, rows: int) -> NDArray[np.float64] | None:
        if offset is None and getattr(self, "_uses_offset", False):
            raise ValueError(
                "this model was fitted with an offset, so predictions need one too: pass offset=..., zeros if there "
                "is none"
            )
        return None if offset is None else row_offsets(offset, rows, self._current_solution().outputs)

    def decision_function(self, X: Any, offset: Any = None) -> Any:
        """Linear predictor of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix, frame, Tensor, scan} of shape (n, p)
        offset : array-like of shape (n,) or (n, n_classes), default=None

        Returns
        -------
        ndarray or Tensor of shape (n,) or (n, n_classes)
            In X's dtype. For two classes, positive values mean ``classes_[1]``.
        """
        eta, dtype = self._eta(X, offset)
        eta = eta[:, 0] if eta.shape[1] == 1 else eta
        return _cast(eta, dtype)

    def predict_proba(self, X: Any, offset: Any = None) -> Any:
        """Probability of each class.

        Parameters
        ----------
        X : {array-like, sparse matrix, frame, Tensor, scan} of shape (n, p)
        offset : array-like of shape (n,) or (n, n_classes), default=None

        Returns
        -------
        ndarray or Tensor of shape (n, n_classes)
            Columns in the order of ``classes_``.
        """
        if not (is_tensor(X) or isinstance(X, LazyRows)):
            check_is_fitted(self)
            array = numeric_array(self, X, reset=False)
            offsets = self._offsets(offset, array.shape[0])
            found = array_probabilities(self._current_solution(), array, offsets)
            if found is not None:
                return _cast(found, array.dtype)
        eta, dtype = self._eta(X, offset)
        return _cast(tensor_probabilities(eta) if is_tensor(eta) else probabilities(eta), dtype)

    def predict_log_proba(self, X: Any, offset: Any = None) -> Any:
        """Logarithm of the probability of each class, finite however small that is.

        Parameters
        ----------
        X : {array-like, sparse matrix, frame, Tensor, scan} of shape (n, p)
        offset : array-like of shape (n,) or (n, n_classes), default=None

        Returns
        -------
        ndarray or Tensor of shape (n, n_classes)
        """
        eta, dtype = self._eta(X, offset)
        return _cast(tensor_log_probabilities(eta) if is_tensor(eta) else log_probabilities(eta), dtype)

    def predict(self, X: Any, offset: Any = None) -> Any:
        """The most probable class of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix, frame, Tensor, scan} of shape (n, p)
        offset : array-like of shape (n,) or (n, n_classes), default=None

        Returns
        -------
        ndarray or Tensor of shape (n,)
            Labels as they were given; for a tensor X a tensor, if labels are numbers or booleans.
        """
        eta, _ = self._eta(X, offset)
        if is_tensor(eta):
            index = (eta[:, 0] > 0).to(torch.int64) if eta.shape[1] == 1 else eta.argmax(1)
            if self.classes_.dtype.kind in "biuf":
                return torch.from_numpy(self.classes_).to(eta.device)[index]
            return self.classes_[index.cpu().numpy()]
        return self.classes_[likeliest(eta)]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, offset: Any = None) -> float:
        """Share of rows whose class is predicted right.

        Parameters
        ----------
        X : {array-like, sparse matrix, frame, Tensor, scan} of shape (n, p)
        y : array-like of shape (n,)
            Labels; a scan brings its own.
        sample_weight : array-like of shape (n,), default=None
        offset : array-like of shape (n,) or (n, n_classes), default=None

        Returns
        -------
        float
        """
        if y is None and isinstance(X, LazyRows):
            from torchlogit.lazy_prediction import lazy_labels

            y, sample_weight = lazy_labels(X, sample_weight)
        if y is None:
            raise ValueError(f"{type(self).__name__}.score requires y, but it is None.")
        weight = None if sample_weight is None else as_array(sample_weight)
        return float(accuracy_score(as_array(y), as_array(self.predict(X, offset)), sample_weight=weight))

    def explain(self, X: Any, offset: Any = None) -> Any:
        """Each column's share of the linear predictor, row by row.

        The shares of a row add up to `decision_function`: a column's is its value times its coefficient, and the
        last one is the intercept (plus the row's offset). Where columns lie so far from zero that this would lose
        digits (timestamps), shares are measured from the columns' means instead, and the last one is the linear
        predictor of the mean row.

        Parameters
        ----------
        X : {array-like, sparse matrix, frame, Tensor} of shape (n, p)
        offset : array-like of shape (n,) or (n, n_classes), default=None

        Returns
        -------
        ndarray of shape (n, p + 1) or (n, n_classes, p + 1), float64
            A CSR matrix for sparse X and two classes.

        Examples
        --------
        >>> import numpy as np
        >>> from torchlogit import LogisticRegression
        >>> clf = LogisticRegression().fit([[0.0, 1.0], [1.0, 1.0], [2.0, 0.0]], [0, 1, 1])
        >>> parts = clf.explain([[3.0, 2.0]])
        >>> parts.shape, bool(np.isclose(parts.sum(), clf.decision_function([[3.0, 2.0]])[0]))
        ((1, 3), True)
        """
        check_is_fitted(self)
        if is_tensor(X):
            X = host_array(dense_tensor(self, X, reset=False))
        array = numeric_array(self, X, reset=False)
        assert_all_finite(array, estimator_name=type(self).__name__, input_name="X")
        return shares(self._current_solution(), array, self._offsets(offset, array.shape[0]))


def _cast(values: Any, dtype: Any) -> Any:
    return values.to(dtype) if is_tensor(values) else values.astype(dtype, copy=False)
