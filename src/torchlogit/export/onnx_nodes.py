"""The parts of an ONNX file, and the only import of onnx."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from torchlogit._version import __version__
from torchlogit.errors import InputError
from torchlogit.export.signature import Port, free_name

_OPERATORS, _ML_OPERATORS, _FORMAT = 17, 3, 8  # what ONNX Runtime has read since 1.12
_TYPES = {
    "double": TensorProto.DOUBLE,
    "string": TensorProto.STRING,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}
_MOST_BYTES = 2_000_000_000  # a protobuf message ends at 2 GiB


class Graph:
    """Nodes and constants; every name is given once, and never a column's."""

    def __init__(self, taken: list[str]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.taken = set(taken)

    def name(self, wanted: str) -> str:
        """The name, or one like it that is free; it is taken from now on."""
        free = free_name(wanted, self.taken)
        self.taken.add(free)
        return free

    def constant(self, wanted: str, values: Any) -> str:
        """A constant, float64, int64, bool or str as the array is."""
        name, array = self.name(wanted), np.asarray(values)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, inputs: list[str], wanted: str, domain: str = "", **attributes: Any) -> str:
        """A node of one output; returns the output's name."""
        output = self.name(wanted)
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def output(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> None:
        """A node whose output has just this name, taken before."""
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))

    def cast(self, value: str, kind: str, wanted: str) -> str:
        """A value as 'double' or 'int64'."""
        return self.add("Cast", [value], wanted, to=_TYPES[kind])

    def joined(self, parts: list[str], wanted: str) -> str:
        """Columns side by side."""
        return parts[0] if len(parts) == 1 else self.add("Concat", parts, wanted, axis=1)

    def total(self, parts: list[str], wanted: str) -> str:
        """The sum of some values."""
        whole = parts[0]
        for part in parts[1:]:
            whole = self.add("Add", [whole, part], wanted)
        return whole

    def serialised(
        self, inputs: Sequence[Port], outputs: Sequence[Port], words: str, metadata: dict[str, Any]
    ) -> bytes:
        """The file: ``words`` for people, ``metadata`` as JSON (strings as they are).

        Raises
        ------
        InputError
            If it would be larger than an ONNX file can be.
        """
        size = sum(constant.ByteSize() for constant in self.constants)
        if size > _MOST_BYTES:
            raise InputError(
                f"the model takes {size / 1e9:.1f} GB, more than the 2 GB of an ONNX file: export it to torch instead"
            )
        model = helper.make_model(
            helper.make_graph(
                self.nodes, "logistic_regression", _infos(inputs), _infos(outputs), initializer=self.constants
            ),
            opset_imports=[helper.make_opsetid("", _OPERATORS), helper.make_opsetid("ai.onnx.ml", _ML_OPERATORS)],
            ir_version=_FORMAT,
            producer_name="torchlogit",
            producer_version=__version__,
            doc_string=words,
        )
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
        helper.set_model_props(model, texts)
        return bytes(model.SerializeToString(deterministic=True))


def _infos(ports: Sequence[Port]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(p.name, _TYPES[p.type], p.shape, doc_string=p.meaning) for p in ports]
