"""What a model of ours is made of: an encoder, perhaps, and a classifier."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline

from torchlogit.encode import TableEncoder
from torchlogit.estimator import LogisticRegression

Parts = tuple[TableEncoder | None, LogisticRegression]


def steps_of(model: Any) -> list[Any]:
    """The steps of a pipeline, without their names; a model alone is one step."""
    return [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]


def known_parts(model: Any) -> Parts | None:
    """Encoder (None without one) and classifier, or None for any other kind of model."""
    steps = steps_of(model)
    if len(steps) == 1 and isinstance(steps[0], LogisticRegression):
        return None, steps[0]
    if len(steps) == 2 and isinstance(steps[0], TableEncoder) and isinstance(steps[1], LogisticRegression):
        return steps[0], steps[1]
    return None


def described(model: Any) -> str:
    """What a model of another kind is, for the sentence that refuses it."""
    names = ", ".join(type(step).__name__ for step in steps_of(model))
    return f"a pipeline of {names}" if isinstance(model, Pipeline) else names


def feature_names(encoder: TableEncoder | None, classifier: LogisticRegression) -> list[str]:
    """Names of the numbers that the classifier sees."""
    if encoder is not None:
        return [str(name) for name in encoder.get_feature_names_out()]
    known = getattr(classifier, "feature_names_in_", None)
    return [f"x{j}" for j in range(classifier.n_features_in_)] if known is None else [str(name) for name in known]


def column_names(encoder: TableEncoder | None, classifier: LogisticRegression) -> list[str]:
    """Names of the columns of the table, those that the encoder leaves out among them."""
    if encoder is not None:
        return [decision.column for decision in encoder.decisions_]
    return feature_names(encoder, classifier)
