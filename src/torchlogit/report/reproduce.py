"""What is needed to make the same page again."""

from __future__ import annotations

import hashlib
import math
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from torchlogit._version import __version__
from torchlogit.report.rows import Seen
from torchlogit.report.text import shown

_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "pyarrow", "jinja2")


def versions() -> list[tuple[str, str]]:
    """Of Python, torchlogit and what they rest on."""
    found = [("Python", platform.python_version()), ("torchlogit", __version__)]
    for name in _PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:  # vendored, or run from a checkout
            continue
    return [*found, ("machine", f"{platform.system()} {platform.machine()}")]


def parameters(classifier: Any) -> list[dict[str, Any]]:
    """All of the classifier's, and whether each is the default."""
    defaults = type(classifier)().get_params()
    return [
        {"name": name, "value": shown(repr(value)), "changed": repr(value) != repr(defaults.get(name))}
        for name, value in classifier.get_params(deep=False).items()
    ]


def fingerprint(seen: Seen) -> str:
    """Of the rows' labels and linear predictors, in order: the same only for the same rows under the same model."""
    digest = hashlib.sha256()
    digest.update(np.ascontiguousarray(seen.codes).tobytes())
    digest.update(np.ascontiguousarray(seen.eta).tobytes())
    return digest.hexdigest()[:16]


def code(seen: Seen) -> str:
    """Lines of Python that fit such a model and write such a page."""
    classifier = seen.source.classifier
    changed = [
        f"{name}={'numpy.inf' if isinstance(value, float) and math.isinf(value) else repr(value)}"
        for name, value in classifier.get_params(deep=False).items()
        if repr(value) != repr(type(classifier)().get_params()[name])
    ]
    made = f"LogisticRegression({', '.join(changed)})"
    imports = ["import numpy"] if "numpy.inf" in made else []
    known = {"sample_weight": seen.weight, "offset": seen.offset}
    given = [f"{name}={name}" for name, value in known.items() if value is not None]
    rest = "".join(f", {text}" for text in given)
    if seen.source.encoder is None:
        lines = [
            "from torchlogit import LogisticRegression",
            "",
            f"clf = {made}.fit(X_train, y_train{rest})",
            f'clf.report("report.html", X, y{rest})',
        ]
        return shown("\n".join(imports + lines), 4000)
    kinds = seen.source.encoder.kinds
    encoder = "TableEncoder()" if not kinds else f"TableEncoder(kinds={dict(kinds)!r})"
    lines = [
        "from sklearn.pipeline import make_pipeline",
        "from torchlogit import LogisticRegression, TableEncoder",
        "from torchlogit.report import write_report",
        "",
        f"model = make_pipeline({encoder}, {made}).fit(X_train, y_train)",
        f'write_report(model, "report.html", X, y{rest})',
    ]
    return shown("\n".join(imports + lines), 4000)
