"""`LogisticRegression`: scikit-learn's contract, the certified optimum."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from torchlogit.callbacks import CallbackSupportMixin, FitTasks, with_callbacks
from torchlogit.linear_classifier import LinearClassifier
from torchlogit.nn import linear_layer
from torchlogit.parameters import familiar_message
from torchlogit.prediction import Solution
from torchlogit.progress import ProgressLine, told, told_read
from torchlogit.trace import Trace

# What computes is imported by the first fit: most of an import's time, and whoever predicts needs none of it.
if TYPE_CHECKING:
    from torchlogit.fit import Fit
    from torchlogit.preparation import Prepared
    from torchlogit.stepping import FitStep

# Where the means' share of the linear predictor is this large, predictions subtract the means first.
_FAR_FROM_CENTRE = 1e3
_FROM_MODULE = "Not certified: the coefficients were taken from a module, no data were fitted."


class LogisticRegression(CallbackSupportMixin, LinearClassifier):
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
        Above 0 the story goes to standard error: the plan, a line a step, how it ended. At 0, a fit of more than two
        seconds shows a line of progress on a terminal, and removes it.
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
    module_ : LogisticModule
        The model as a float64 `torch.nn.Module`, made on first use.

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

    @with_callbacks  # type: ignore[untyped-decorator]
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
        from torchlogit.preparation import prepare

        prepared = prepare(self, X, y, sample_weight, offset)
        self.__dict__.pop("_memory", None)
        tasks = FitTasks(self, X, y, sample_weight, prepared.options.max_iter + 1)
        finished = self._exhaust(prepared.begin(self), prepared, tasks)
        tasks.end()
        if finished and not self.converged_:
            warnings.warn(familiar_message(self) + self.status_, ConvergenceWarning, stacklevel=2)
        return self

    def steps(
        self, X: Any, y: Any = None, sample_weight: Any = None, offset: Any = None, *, validation: Any = None
    ) -> Iterator[FitStep]:
        """Fit step by step: the loop is yours.

        Each step comes before its update, and the last one is the result. The estimator is ready to predict at every
        step; whoever leaves the loop early keeps the model of the last one, with ``converged_=False``.

        Parameters
        ----------
        X, y, sample_weight, offset : as in `fit`
        validation : tuple (X, y), default=None
            Rows to watch: their mean log loss goes into each record as ``validation``.

        Yields
        ------
        FitStep
            Coefficients, objective, gradient, direction, step length; ``step.forward(i)`` opens up row i.

        Warns
        -----
        ConvergenceWarning
            If the fit ends without its certificate.

        Examples
        --------
        >>> from sklearn.datasets import load_breast_cancer
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> clf = LogisticRegression()
        >>> for step in clf.steps(X, y):
        ...     row = step.forward(0)
        ...     print(f"{step.number} {step.objective:.4f}  p {row.probability:.3f}  residual {row.residual:+.3f}")
        ...     if step.number == 2:
        ...         break
        0 0.6931  p 0.500  residual +0.500
        1 0.2640  p 0.085  residual +0.085
        2 0.1195  p 0.000  residual +0.000
        >>> clf.converged_, round(clf.score(X, y), 3)
        (False, 0.958)
        """
        from torchlogit.preparation import prepare

        prepared = prepare(self, X, y, sample_weight, offset)
        self.__dict__.pop("_memory", None)
        return self._stepped(prepared.begin(self), prepared, validation)

    def _stepped(self, fit: Fit, prepared: Prepared, validation: Any) -> Iterator[FitStep]:
        from torchlogit.stepping import FitStep

        step = None
        for state, record in fit.steps():
            self._publish(fit, prepared)
            if validation is not None:
                record["validation"] = self._log_loss(*validation)
                fit.trace.annotate(validation=record["validation"])
            step = FitStep(fit, state, record)
            yield step
        if step is not None and not self.converged_:
            warnings.warn(familiar_message(self) + self.status_, ConvergenceWarning, stacklevel=2)

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None, offset: Any = None
    ) -> LogisticRegression:
        """Learn from a further batch of rows. There is no learning rate.

        Each call minimises the loss of the batch and of the latest rows before it (4,096 at most, 32 MiB at most),
        plus a quadratic that stands for all earlier ones: their loss to second order, at coefficients that had already
        seen the rows after them (up to 2,000 coefficients; above, the diagonal of its curvature). As long as all rows
        fit into that window the result is that of `fit`; after it, memory stays as it is. Without a penalty, a prior
        worth a thousandth of a row keeps every coefficient finite.

        Parameters
        ----------
        X : {array-like, sparse matrix, frame, Tensor} of shape (n, p)
        y : array-like of shape (n,)
        classes : array-like of shape (n_classes,), default=None
            All labels there will ever be; needed in the first call.
        sample_weight : array-like of shape (n,), default=None
        offset : array-like of shape (n,) or (n, n_classes), default=None

        Returns
        -------
        LogisticRegression

        Raises
        ------
        ValueError
            If the batch does not go with the earlier ones, or cannot be fitted.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_breast_cancer
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> clf = LogisticRegression()
        >>> for rows in np.array_split(np.random.default_rng(0).permutation(len(y)), 10):
        ...     clf = clf.partial_fit(X[rows], y[rows], classes=[0, 1])
        >>> bool(np.isclose(clf.objective_, LogisticRegression().fit(X, y).objective_, rtol=1e-5))
        True
        """
        from torchlogit.preparation import prepare_more

        prepared, memory = prepare_more(self, X, y, classes, sample_weight, offset)
        fit = prepared.begin(self)
        self._exhaust(fit, prepared, None)
        memory.settle(fit.results()[0].theta)
        self._memory = memory
        return self

    def report(
        self,
        path: Any,
        X: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        offset: Any = None,
        title: str | None = None,
        threshold: float = 0.5,
        seed: int = 0,
    ) -> None:
        """Write a page on whether this fit is good and can be trusted; `torchlogit.report.write_report` says more.

        Parameters
        ----------
        path : path-like
            One HTML file, which needs no network and no other file.
        X, y, sample_weight, offset : as in `score`
            Rows to measure on: such that the fit has not seen, if there are any.
        title : str, default=None
        threshold : float, default=0.5
            Where the threshold's slider starts.
        seed : int, default=0
            Of the samples that are drawn; every figure is of all rows.
        """
        from torchlogit.report import write_report

        write_report(
            self, path, X, y, sample_weight=sample_weight, offset=offset, title=title, threshold=threshold, seed=seed
        )

    @classmethod
    def from_module(cls, module: torch.nn.Module, *, classes: Any = None, feature_names: Any = None) -> Any:
        """The classifier with a module's weights, ready to predict, explain and be saved.

        Parameters
        ----------
        module : LogisticModule without a body, or torch.nn.Linear
            One output (two classes), or one a class.
        classes : array-like of shape (n_classes,), default=None
            Labels in the order of the outputs; None counts from 0. For one output, the second label is the positive.
        feature_names : sequence of str, default=None

        Returns
        -------
        LogisticRegression
            ``converged_`` is False: no data were fitted, so nothing is certified.

        Raises
        ------
        ValueError
            If the module is not linear, or labels or names do not go with its shape.

        Examples
        --------
        >>> import torch
        >>> layer = torch.nn.Linear(2, 1)
        >>> clf = LogisticRegression.from_module(layer, classes=["no", "yes"])
        >>> bool(clf.predict_proba(torch.zeros(1, 2))[0, 1] == torch.sigmoid(layer.bias[0]))
        True
        """
        from torchlogit.plan import Plan

        weight, bias = linear_layer(module)
        outputs = weight.shape[0]
        labels = np.arange(max(outputs, 2)) if classes is None else np.asarray(classes)
        if labels.shape != (max(outputs, 2),) or np.unique(labels).size != labels.size:
            raise ValueError(
                f"classes must name {max(outputs, 2)} different labels for a module of {outputs} output(s), "
                f"got {labels.tolist()}"
            )
        coef, intercept = weight.double().cpu().numpy().copy(), bias.double().cpu().numpy().copy()
        if outputs == 2:  # softmax of two outputs is the sigmoid of their difference
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        order = np.argsort(labels, kind="stable")
        if labels.size == 2 and order[0] == 1:
            coef, intercept = -coef, -intercept
        elif labels.size > 2:
            coef, intercept = coef[order], intercept[order]
        model = cls()
        model.classes_, model.n_features_in_ = labels[order], coef.shape[1]
        if feature_names is not None:
            model.feature_names_in_ = np.asarray(feature_names, dtype=object)
            if model.feature_names_in_.shape != (coef.shape[1],):
                raise ValueError(f"feature_names has {len(feature_names)} names, the module {coef.shape[1]} columns")
        model._set_solution(Solution(coef, intercept), np.dtype(np.float32 if weight.dtype.itemsize <= 4 else float))
        model._uses_offset = False
        model._set_outcome(0, False, math.nan, math.nan, math.nan, _FROM_MODULE)
        model.plan_ = Plan("none", "none", "none", "cpu", 0, "the weights came from a module", "nothing")
        model.trace_ = Trace()
        return model

    def _exhaust(self, fit: Fit, prepared: Prepared, tasks: FitTasks | None) -> bool:
        """Run the fit to its end, or until a callback stops it (False); an interruption leaves the last state."""
        observer = getattr(self, "_observer", None)  # the command line's progress bar
        if self.verbose:
            sys.stderr.write(f"{fit.plan!r}\n")
        stopped = False
        try:
            with ProgressLine(wanted=not self.verbose and observer is None) as line:
                _watch_reads(fit, getattr(self, "_reads", None) or (lambda read: line.show(told_read(read))))
                if not (line.active or self.verbose or observer or (tasks is not None and tasks.watched)):
                    fit.finish()  # and none of the steps below is left
                for _, record in fit.steps():
                    if line.active:
                        line.show(told(record))
                    if self.verbose:
                        sys.stderr.write(f"{told(record)}\n")
                    if observer is not None:
                        observer(record)
                    if tasks is not None and tasks.watched:
                        self._publish(fit, prepared)
                        stopped = tasks.step()
                    if stopped:
                        break
        except KeyboardInterrupt:
            if fit.run.state is not None:
                self._publish(fit, prepared)
            raise
        self._publish(fit, prepared)
        if self.verbose:
            sys.stderr.write(f"{self.status_}\n")
        return not stopped

    def _publish(self, fit: Fit, prepared: Prepared) -> None:
        """Set the fitted attributes from where the fit stands."""
        result = fit.results()[0]
        theta, centre = result.theta.cpu().numpy(), result.centre.cpu().numpy()
        coef, intercept = theta[:, :-1].copy(), theta[:, -1].copy()
        far = float(np.abs(coef * centre).sum(1).max(initial=0.0)) > _FAR_FROM_CENTRE
        self.classes_ = prepared.classes
        self._set_solution(
            Solution(
                coef,
                intercept,
                centre if far else None,
                result.centred_intercept.cpu().numpy().copy() if far else None,
            ),
            prepared.dtype,
        )
        self._uses_offset = fit.problem.has_offset
        self._set_outcome(
            result.iterations, result.converged, result.kkt, result.excess, result.objective, result.message
        )
        self.plan_ = fit.plan
        self.trace_ = fit.trace

    def _set_outcome(
        self, iterations: int, converged: bool, kkt: float, excess: float, objective: float, status: str
    ) -> None:
        self.n_iter_ = np.array([iterations], dtype=np.int32)
        self.converged_, self.kkt_, self.excess_, self.objective_ = converged, kkt, excess, objective
        self.status_ = status



def _watch_reads(fit: Fit, watch: Any) -> None:
    """Have whoever waits for rows that are read from files see how far a read is."""
    from torchlogit.sources import Shard, StreamSource

    source = fit.problem.source
    source = source.own if isinstance(source, Shard) else source
    if isinstance(source, StreamSource):
        source.watch = watch
