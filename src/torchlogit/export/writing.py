"""`export`: a model's bytes in a format, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torchlogit.errors import InputError
from torchlogit.estimator import LogisticRegression
from torchlogit.export.layout import Layout, table_layout
from torchlogit.export.signature import Exported, Port, fitted_parts
from torchlogit.files import replacing
from torchlogit.model_parts import feature_names

Built = tuple[bytes, tuple[Port, ...], tuple[Port, ...]]


def export(model: Any, path: str | os.PathLike[str], to: str = "onnx") -> Exported:
    """Write a fitted model as a program that runs without torchlogit.

    *ONNX*, for ONNX Runtime 1.12 or newer. A model with an encoder has one input a column, of shape ``(rows, 1)`` and
    named as the column: double for numbers (missing: NaN) and dates (seconds since 1970, in UTC where the column has a
    zone; missing: NaN), string for booleans and categories (missing: the empty string). Without an encoder there is one
    input ``X``, double ``(rows, p)``. Outputs are ``label`` ``(rows,)``, of the labels' own type, and ``probabilities``
    ``(rows, classes)``, double. (Where a column has one of these names, the output is ``label_2``.) The file's metadata
    hold ``torchlogit_version``, ``classes`` and ``columns``, the latter as JSON.

    *torch*, an archive for ``torch.export.load`` of torch 2.8 or newer (which wants a name that ends in ``.pt2``); its
    ``module()`` gives probabilities ``(rows, classes)``, float64. A model with an encoder takes ``numbers``, float64
    ``(rows, numeric and date columns)``, and ``codes``, int64 ``(rows, boolean and category columns)``: the place of a
    level in its vocabulary, -1 where it is missing, -2 where it is none of them. Vocabularies and names are in the
    archive's ``torchlogit.json`` (``extra_files``). ``head.weight`` and ``head.bias`` of its ``state_dict`` are those
    of one ``nn.Linear(features, K)`` over all features in the encoder's order, K being 1 for two classes. The archive
    holds the graph as JSON, parameters and tables as raw bytes, and no pickle.

    Both have any number of rows, compute in double precision, and have an input ``offset`` ``(rows, K)`` if the model
    was fitted with one. `onnx_inputs` and `torch_inputs` make the inputs from a table.

    Parameters
    ----------
    model : LogisticRegression, or Pipeline of TableEncoder and LogisticRegression
        Fitted.
    path : path-like
        Any name. The file is written whole or not at all.
    to : {'onnx', 'torch'}, default='onnx'
        The format.

    Returns
    -------
    Exported
        Names, types and shapes of inputs and outputs.

    Raises
    ------
    InputError
        If a column has no form in these programs (texts, and categories of which some levels are hashed), or the
        package onnx is not installed.
    TypeError
        If it is another kind of model.
    sklearn.exceptions.NotFittedError
        If it is not fitted.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from torchlogit import LogisticRegression
    >>> clf = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], ["no", "no", "yes", "yes"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = export(clf, f"{folder}/model.pt2", to="torch")
    ...     program = torch.export.load(f"{folder}/model.pt2").module()
    >>> [(port.name, port.type, port.shape) for port in written.inputs]
    [('X', 'double', ('rows', 1))]
    >>> program(torch.tensor([[1.5]], dtype=torch.float64)).detach().numpy().round(3).tolist()
    [[0.5, 0.5]]
    """
    if to not in ("onnx", "torch"):
        raise ValueError(f"to is {to!r}; it must be 'onnx' or 'torch'")
    encoder, classifier = fitted_parts(model)
    layout = None if encoder is None else table_layout(encoder, classifier._current_solution().coef)
    features = feature_names(encoder, classifier)
    content, inputs, outputs = (_onnx if to == "onnx" else _torch)(layout, classifier, features)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return Exported(Path(path), to, inputs, outputs)


def _onnx(layout: Layout | None, classifier: LogisticRegression, features: list[str]) -> Built:
    try:
        from torchlogit.export import onnx_graph
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("onnx", "google", "ml_dtypes"):
            raise
        raise InputError(
            'a model is written as ONNX by the package onnx, which is not installed: pip install "torchlogit[onnx]"'
        ) from None
    return onnx_graph.build(layout, classifier, features)


def _torch(layout: Layout | None, classifier: LogisticRegression, features: list[str]) -> Built:
    from torchlogit.export import torch_program

    return torch_program.build(layout, classifier, features)
