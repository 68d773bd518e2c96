"""`LogisticRegression`: scikit-learn's contract, the certified optimum."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model._base import SparseCoefMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from torchlogit.fit import Fit, NonFiniteError, Problem
from torchlogit.inputs import (
    Features,
    as_array,
    dense_tensor,
    encode_labels,
    is_tensor,
    numeric_array,
    row_offsets,
    row_weights,
    training_features,
    training_labels,
)
from torchlogit.losses import loss_for
from torchlogit.parameters import check_parameters, device_of, familiar_message, seed_of
from torchlogit.penalties import ElasticNet
from torchlogit.prediction import (
    Solution,
    linear_predictor,
    log_probabilities,
    probabilities,
    shares,
    tensor_linear_predictor,
    tensor_log_probabilities,
    tensor_probabilities,
)
from torchlogit.problem import FitOptions, LaneResult
from torchlogit.rows import LazyRows
from torchlogit.sources import MemorySource
from torchlogit.threads import sparing_threads

# Where the means' share of the linear predictor is this large, predictions subtract the means first.
_FAR_FROM_CENTRE = 1e3


class LogisticRegression(SparseCoefMixin, ClassifierMixin, BaseEstimator):
    """Logistic regression at its certified optimum, for two classes or many.

    Minimises, over coefficients ``w`` and intercept ``b``,

    ``C * sum_i weight_i * log_loss_i + 1/2 |w|^2``

    (the intercept is not penalised; many classes share one multinomial loss): scikit-learn's objective and names, so
    that existing code runs with one import changed. The data need no scaling and no centring.

    Parameters
    ----------
    penalty : {'l2', None}, default='deprecated'
        As in scikit-learn 1.9: leave it alone; ``C=np.inf`` means no penalty.
    C : float, default=1.0
        Inverse strength of the penalty, above 0; ``np.inf`` means no penalty.
    l1_ratio : float, default=0.0
        Share of the L1 penalty, 0 to 1. Only 0 (pure L2) is available yet.
    dual : bool, default=False
        Accepted, does nothing.
    tol : float, default=1e-6
        Bound on the certificate: see ``kkt_`` and ``excess_``. It means the same whatever the units of the columns.
    fit_intercept : bool, default=True
        Whether to add an intercept.
    intercept_scaling : float, default=1
        Accepted, does nothing.
    class_weight : dict or 'balanced', default=None
        Weights per class, multiplied with ``sample_weight``; 'balanced' is ``n / (classes * count)``.
    random_state : int, RandomState instance or None, default=None
        Seeds the subsamples that large fits start from; None is a fixed seed.
    solver : str, default='auto'
        scikit-learn's names are accepted and mean 'auto': the optimum is unique, a solver is only a route to it.
    max_iter : int, default=1000
        Most steps over all rows.
    verbose : int, default=0
        Above 0, one line a step goes to standard error.
    warm_start : bool, default=False
        Start from the last fit's coefficients.
    n_jobs : int, default=None
        Accepted, does nothing.
    device : str or torch.device, default='auto'
        Where to compute; 'auto' is where X lives (arrays and files: the CPU). Never falls back in silence.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    coef_ : ndarray of shape (1, n_features) or (n_classes, n_features)
        Coefficients in X's dtype. For more than two classes the rows sum to zero.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        Intercepts.
    n_iter_ : ndarray of shape (1,), int32
        Steps over all rows.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if X had any.
    converged_ : bool
        Whether the certificate holds: ``kkt_ <= tol`` and ``excess_ <= 0.1 * tol * objective_``, and, without a
        penalty, the classes are not separated.
    kkt_ : float
        Largest entry of the objective's gradient in centred, standardised units (the mean loss's scale).
    excess_ : float
        Estimated objective above the optimum.
    objective_ : float
        ``mean loss + |w|^2 / (2 C W)``, W the total weight: what was minimised.
    status_ : str
        How the fit ended, in a sentence.
    plan_ : Plan
        What was minimised, with what, and why.
    trace_ : Trace
        One record a step.

    See Also
    --------
    torchlogit.TableEncoder : Numbers from tables with missing values, categories, dates and text.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from torchlogit import LogisticRegression
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> clf = LogisticRegression().fit(X, y)
    >>> clf.converged_, round(clf.score(X, y), 3)
    (True, 0.958)
    >>> clf.status_
    'Converged: the certificate holds.'
    >>> clf.predict_proba(X[19:21]).round(3)
    array([[0.014, 0.986],
           [0.005, 0.995]])
    """

    def __init__(
        self,
        penalty: Any = "deprecated",
        *,
        C: float = 1.0,
        l1_ratio: float = 0.0,
        dual: bool = False,
        tol: float = 1e-6,
        fit_intercept: bool = True,
        intercept_scaling: float = 1,
        class_weight: Any = None,
        random_state: Any = None,
        solver: str = "auto",
        max_iter: int = 1000,
        verbose: int = 0,
        warm_start: bool = False,
        n_jobs: int | None = None,
        device: Any = "auto",
    ) -> None:
        self.penalty = penalty
        self.C = C
        self.l1_ratio = l1_ratio
        self.dual = dual
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.device = device

    def __sklearn_tags__(self) -> Any:
        """Two classes or many, dense or sparse."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # -- fitting ------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, offset: Any = None) -> LogisticRegression:
        """Fit to the optimum.

        Parameters
        ----------
        X : {array-like, sparse matrix, frame, Tensor, scan} of shape (n, p)
            Rows. float32 and float64 are read as they are, everything else becomes float64.
        y : array-like of shape (n,)
            Labels: numbers, strings or booleans. A scan brings its own.
        sample_weight : array-like of shape (n,), default=None
            Row weights, not negative.
        offset : array-like of shape (n,) or (n, n_classes), default=None
            Added to the linear predictor. A model fitted with an offset wants one for predictions too.

        Returns
        -------
        LogisticRegression
            The fitted estimator.

        Raises
        ------
        ValueError
            If the input cannot be fitted; the message says where it is wrong.

        Warns
        -----
        ConvergenceWarning
            If the certificate does not hold; ``status_`` names the cause.
        """
        strength = check_parameters(self)
        features = training_features(self, X, device_of(self.device))
        labels = training_labels(self, features, y)
        classes, codes = encode_labels(labels)
        if self.solver == "liblinear" and classes.size > 2:
            raise ValueError(
                "The 'liblinear' solver does not support multiclass classification (n_classes >= 3). Leave solver at "
                "'auto' for the multinomial model, or wrap the estimator in a OneVsRestClassifier."
            )
        weight = row_weights(features, sample_weight, self.class_weight, labels, classes, codes)
        loss = loss_for(int(classes.size))
        offsets = row_offsets(_offset_of(features, offset), features.rows, loss.outputs)
        total = float(features.rows if weight is None else weight.sum())
        source = MemorySource(features.blocks(codes, weight, offsets), loss.outputs)
        problem = Problem(
            source,
            loss,
            [ElasticNet(l2=0.0 if np.isinf(strength) else 1.0 / (strength * total))],
            bool(self.fit_intercept),
            self._start(loss.outputs, source.features),
            offsets is not None,
        )
        options = FitOptions(float(self.tol), int(self.max_iter), seed_of(self.random_state))
        with sparing_threads(source, loss.outputs):
            self._run(problem, options, features, classes)
        if not self.converged_:
            warnings.warn(familiar_message(self) + self.status_, ConvergenceWarning, stacklevel=2)
        return self

    def _run(self, problem: Problem, options: FitOptions, features: Features, classes: NDArray[Any]) -> None:
        """Exhaust the fit; an interruption leaves the last state as a fitted, unconverged model."""
        names = getattr(self, "feature_names_in_", None) if features.lazy is None else features.lazy.feature_names
        try:
            fit = Fit(problem, options, None if names is None else lambda j: str(names[j]))
        except NonFiniteError as error:
            raise _non_finite_message(self, features, names, error) from None
        observer = getattr(self, "_observer", None)  # the command line's progress bar
        try:
            for _, record in fit.steps():
                if self.verbose:
                    sys.stderr.write(_verbose_line(record))
                if observer is not None:
                    observer(record)
        except KeyboardInterrupt:
            if fit.run.state is not None:
                self._publish(fit, fit.results()[0], features, classes)
            raise
        self._publish(fit, fit.results()[0], features, classes)

    def _publish(self, fit: Fit, result: LaneResult, features: Features, classes: NDArray[Any]) -> None:
        """Set the fitted attributes."""
        theta = result.theta.cpu().numpy()
        centre = result.centre.cpu().numpy()
        coef, intercept = theta[:, :-1].copy(), theta[:, -1].copy()
        far = float(np.abs(coef * centre).sum(1).max(initial=0.0)) > _FAR_FROM_CENTRE
        self.classes_ = classes
        self._set_solution(
            Solution(
                coef,
                intercept,
                centre if far else None,
                result.centred_intercept.cpu().numpy().copy() if far else None,
            ),
            features.dtype,
        )
        self._uses_offset = fit.problem.has_offset
        self.n_iter_ = np.array([result.iterations], dtype=np.int32)
        self.converged_ = result.converged
        self.kkt_, self.excess_, self.objective_ = result.kkt, result.excess, result.objective
        self.status_ = result.message
        self.plan_ = fit.plan
        self.trace_ = fit.trace

    def _set_solution(self, solution: Solution, dtype: np.dtype[Any]) -> None:
        """Keep the float64 solution, and publish it in X's dtype."""
        self._solution = solution
        self.coef_ = solution.coef.astype(dtype)
        self.intercept_ = solution.intercept.astype(dtype)

    def _start(self, outputs: int, width: int) -> Tensor | None:
        """Raw coefficients ``(1, K, p + 1)`` to start from, or None."""
        if not self.warm_start or not hasattr(self, "coef_"):
            return None
        current = self._current_solution()
        if current.coef.shape != (outputs, width):
            raise ValueError(
                f"warm_start=True, but the last fit's coefficients have shape {current.coef.shape} and these data "
                f"need {(outputs, width)}; fit a fresh estimator"
            )
        return torch.from_numpy(np.concatenate([current.coef, current.intercept[:, None]], axis=1))[None]

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
        return row_offsets(offset, rows, self._current_solution().outputs)

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
        index = (eta[:, 0] > 0).astype(np.intp) if eta.shape[1] == 1 else eta.argmax(1)
        return self.classes_[index]

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
        >>> clf = LogisticRegression().fit([[0.0, 1.0], [1.0, 1.0], [2.0, 0.0]], [0, 1, 1])
        >>> parts = clf.explain([[3.0, 2.0]])
        >>> parts.shape, bool(np.isclose(parts.sum(), clf.decision_function([[3.0, 2.0]])[0]))
        ((1, 3), True)
        """
        check_is_fitted(self)
        if is_tensor(X):
            X = dense_tensor(self, X, reset=False).cpu()
            X = X.to_dense().numpy() if X.layout != torch.strided else X.numpy()
        array = numeric_array(self, X, reset=False)
        assert_all_finite(array, estimator_name=type(self).__name__, input_name="X")
        return shares(self._current_solution(), array, self._offsets(offset, array.shape[0]))


# -- small helpers --------------------------------------------------------------------------------------------------


def _offset_of(features: Features, offset: Any) -> Any:
    if offset is None and features.lazy is not None and features.lazy.has_offset:
        return np.concatenate([batch.offset for batch in features.batches if batch.offset is not None])
    return offset


def _cast(values: Any, dtype: Any) -> Any:
    return values.to(dtype) if is_tensor(values) else values.astype(dtype, copy=False)


def _verbose_line(record: dict[str, Any]) -> str:
    return (
        f"step {record['step']:4d}  objective {record['objective']:.10g}  kkt {record['kkt']:.2e}  "
        f"excess {record['excess']:.2e}  passes {record['passes']:.1f}\n"
    )


def _non_finite_message(
    estimator: LogisticRegression, features: Features, names: Any, error: NonFiniteError
) -> ValueError:
    """scikit-learn's first sentence, then where."""
    what = "NaN" if np.isnan(error.value) else "infinity or a value too large for its dtype"
    column = f"column {error.column}" if names is None else f"column '{names[error.column]}'"
    where = f"row {error.row}" if features.lazy is None else features.lazy.place(error.row)
    return ValueError(
        f"Input X contains {what}. The first is in {where}, {column}. {type(estimator).__name__} does not accept "
        "missing values: drop or fill those rows, or put a TableEncoder before the model, which does."
    )
