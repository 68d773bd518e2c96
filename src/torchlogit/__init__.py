"""torchlogit: logistic regression you can see through, at any size.

The public names are imported when they are first used, so that ``import torchlogit`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from torchlogit._version import __version__

if TYPE_CHECKING:
    from torchlogit.encode import TableEncoder
    from torchlogit.estimator import LogisticRegression
    from torchlogit.model_file import load, save
    from torchlogit.scanning import scan
    from torchlogit.trace import Trace

_HOMES = {
    "LogisticRegression": "torchlogit.estimator",
    "TableEncoder": "torchlogit.encode",
    "Trace": "torchlogit.trace",
    "load": "torchlogit.model_file",
    "save": "torchlogit.model_file",
    "scan": "torchlogit.scanning",
}

__all__ = ["LogisticRegression", "TableEncoder", "Trace", "__version__", "load", "save", "scan"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'torchlogit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
