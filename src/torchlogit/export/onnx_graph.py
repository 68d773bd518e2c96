"""Models as ONNX graphs.

Built node by node: strings and the operators of ai.onnx.ml are out of reach of torch's own ONNX export.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from torchlogit._version import __version__
from torchlogit.errors import InputError
from torchlogit.estimator import LogisticRegression
from torchlogit.export.layout import Layout, WordColumn
from torchlogit.export.onnx_nodes import Graph
from torchlogit.export.onnx_table import table_logit
from torchlogit.export.signature import Port, array_port, label_values, offset_port, uses_offset
from torchlogit.prediction import Solution

_LABEL_TYPES = {"i": "int64", "f": "double", "b": "bool", "O": "string"}
_ROWS = (
    "A missing number or date is NaN, a missing boolean or category the empty string. Numbers are finite. Dates are "
    "seconds since 1970-01-01T00:00:00 (UTC where the column has a zone). Booleans and categories are text without "
    "white space around it: 1.0 is '1', true is 'true'. torchlogit.export.onnx_inputs makes all of them from a table."
)
_ARRAY = "Columns of X in the order in which the model was fitted; all finite."


def build(
    layout: Layout | None, classifier: LogisticRegression, features: list[str]
) -> tuple[bytes, tuple[Port, ...], tuple[Port, ...]]:
    """A model as a serialised ONNX graph, with its inputs and outputs.

    Parameters
    ----------
    layout : Layout, optional
        None: the input is the array that the classifier was fitted on.
    classifier : LogisticRegression
        Fitted.
    features : list of str
        Names of its columns.

    Raises
    ------
    InputError
        If an ONNX file cannot hold the model, or a column has no name.
    """
    solution = classifier._current_solution()
    inputs = [array_port(classifier)] if layout is None else _column_ports(layout)
    graph = Graph([port.name for port in inputs])
    if uses_offset(classifier):
        port = offset_port(solution.outputs)
        inputs.append(Port(graph.name(port.name), port.type, port.shape, port.meaning))
    classes = label_values(classifier.classes_)
    label, probabilities = graph.name("label"), graph.name("probabilities")
    logit = _array_logit(graph, inputs[0].name, solution) if layout is None else table_logit(graph, layout, solution)
    if uses_offset(classifier):
        logit = graph.add("Add", [logit, inputs[-1].name], "logit_with_offset")
    _answer(graph, logit, classes, label, probabilities)
    outputs = (
        Port(label, _LABEL_TYPES[classes.dtype.kind], ("rows",), "the most probable class"),
        Port(probabilities, "double", ("rows", classes.size), "of each class, in the order of the classes"),
    )
    words = (
        f"Logistic regression by torchlogit {__version__}. Output '{probabilities}' has one column a class, in the "
        f"order of the metadata's 'classes'. {_ARRAY if layout is None else _ROWS}"
    )
    metadata = {
        "torchlogit_version": __version__,
        "classes": classes.tolist(),
        "columns": features if layout is None else _records(layout),
    }
    return graph.serialised(inputs, outputs, words, metadata), tuple(inputs), outputs


def _column_ports(layout: Layout) -> list[Port]:
    ports = []
    for column in layout.columns:
        if not column.name:
            raise InputError("a column has no name, and an ONNX input needs one: name it and fit again")
        if isinstance(column, WordColumn):
            case = ", any case" if column.fold_case else ""
            told = ", ".join(column.levels[:4]) + ", ..." * (len(column.levels) > 4)
            ports.append(Port(column.name, "string", ("rows", 1), f"{column.kind} ({told}{case}); missing: empty"))
        else:
            what = "number" if column.kind == "numeric" else "date, as seconds since 1970-01-01"
            ports.append(Port(column.name, "double", ("rows", 1), f"{what}; missing: NaN"))
    return ports


def _records(layout: Layout) -> list[dict[str, Any]]:
    return [
        {**column.record(""), "input": "string"} if isinstance(column, WordColumn) else
        {**column.record(), "input": "double"}
        for column in layout.columns
    ]  # fmt: skip


def _array_logit(graph: Graph, X: str, solution: Solution) -> str:
    """``(rows, K)``, as `torchlogit.prediction.linear_predictor`: far columns minus their centre first."""
    if solution.centre is not None:
        X = graph.add("Sub", [X, graph.constant("centre", solution.centre)], "centred")
    product = graph.add("MatMul", [X, graph.constant("coefficients", solution.coef.T)], "shares")
    return graph.add("Add", [product, graph.constant("intercept", solution.base())], "logit")


def _answer(graph: Graph, logit: str, classes: NDArray[Any], label: str, probabilities: str) -> None:
    """Probabilities that keep their relative precision, and the first of the largest: ``logit > 0`` of two classes."""
    if classes.size == 2:  # Sigmoid in ONNX Runtime is 1 minus its complement where it is small
        logit = graph.joined([graph.add("Sub", [logit, logit], "logit_of_first"), logit], "logits")
    graph.output("Softmax", [logit], probabilities, axis=1)
    best = graph.add("ArgMax", [logit], "best", axis=1, keepdims=0)
    graph.output("Gather", [graph.constant("classes", classes), best], label, axis=0)
