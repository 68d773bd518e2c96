"""scikit-learn's callback protocol (1.9): one task a step, so that its progress bars and monitors see every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # scikit-learn 1.8 has no callbacks

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing to support."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """The method as it is."""
        return method


class FitTasks:
    """The tasks of one fit, as scikit-learn's callbacks know them.

    Parameters
    ----------
    estimator : object
        With `CallbackSupportMixin`. It must be ready to predict whenever `step` is called.
    X, y : as given to ``fit``
    sample_weight : array-like or None
    most : int
        Most steps that there can be.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any, most: int) -> None:
        self.estimator = estimator
        self.given = {
            "X": X, "y": y, "metadata": None if sample_weight is None else {"sample_weight": sample_weight}
        }  # fmt: skip
        self.context: Any = None
        # Nobody is told of a fit that nobody watches, neither itself nor as a part of another one.
        told = self.watched or hasattr(estimator, "_parent_callback_ctx")
        if told and hasattr(estimator, "_init_callback_context"):
            self.context = estimator._init_callback_context(max_subtasks=most)
            self.context.call_on_fit_task_begin(estimator=estimator, **self.given)

    @property
    def watched(self) -> bool:
        """Whether anybody listens."""
        return bool(getattr(self.estimator, "_skl_callbacks", ()))

    def step(self) -> bool:
        """Tell of a step; True if a callback wants no more of them."""
        task = self.context.subcontext(task_name="step")
        now = {**self.given, "reconstruction_attributes": dict}  # the estimator itself is up to date
        task.call_on_fit_task_begin(estimator=self.estimator, **now)
        return bool(task.call_on_fit_task_end(estimator=self.estimator, **now))

    def end(self) -> None:
        """The fit is over."""
        if self.context is not None:
            self.context.call_on_fit_task_end(
                estimator=self.estimator, **self.given, reconstruction_attributes=dict
            )


__all__ = ["CallbackSupportMixin", "FitTasks", "with_callbacks"]
