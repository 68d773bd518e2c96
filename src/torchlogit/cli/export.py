"""``torchlogit export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchlogit.cli import options as o

if TYPE_CHECKING:
    from torchlogit.export import Exported, Port


class Format(StrEnum):
    """What a model can be exported to."""

    onnx = "onnx"
    torch = "torch"


def export(
    model: o.ModelPath,
    to: Annotated[Format, typer.Option("--to", help="ONNX Runtime, or torch.export.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", readable=False, help="Where to write: .onnx or .pt2.")
    ],
    as_json: o.AsJson = False,
) -> None:
    """Write a model as a program that runs without torchlogit.

    ONNX has one input a column: numbers and dates (seconds since 1970) as double, missing NaN; booleans and categories
    as strings, missing empty. Its outputs are 'label' and 'probabilities'. The torch program takes numbers and codes.
    Both compute in double precision; texts cannot be exported.

    \b
    Examples:
      torchlogit export model.safetensors --to onnx -o model.onnx
      torchlogit export model.safetensors --to torch -o model.pt2

    \b
    Then, in Python (from torchlogit.export import onnx_inputs, torch_inputs):
      onnxruntime.InferenceSession("model.onnx").run(None, onnx_inputs(model, table))
      torch.export.load("model.pt2").module()(*torch_inputs(model, table))
    """
    from torchlogit.cli.fit import check_writable
    from torchlogit.cli.recorded import read_model
    from torchlogit.cli.show import Waiting, console, print_json
    from torchlogit.export import export as write

    check_writable(output, [str(model)])
    file = read_model(model)
    with Waiting() as waiting:
        waiting.now("exporting")
        written = write(file.model, output, to.value)
    if as_json:
        print_json(_record(written, file.model))
        return
    out = console()
    out.print(f"{output}: {'an ONNX graph' if written.to == 'onnx' else 'a torch.export archive'}\n")
    out.print(_ports("input", written.inputs))
    out.print()
    out.print(_ports("output", written.outputs))


def _ports(title: str, ports: tuple[Port, ...]) -> Any:
    from torchlogit.cli.show import table

    rows = [(port.name, port.type, " x ".join(map(str, port.shape)), port.meaning) for port in ports]
    return table([title, "type", "shape", "what"], rows)


def _record(written: Exported, model: Any) -> dict[str, Any]:
    from torchlogit.cli.labels import label_text
    from torchlogit.cli.workflow import classifier_of

    return {
        "output": str(written.path),
        "to": written.to,
        "classes": [label_text(label) for label in classifier_of(model).classes_],
        "inputs": [port.record() for port in written.inputs],
        "outputs": [port.record() for port in written.outputs],
    }
