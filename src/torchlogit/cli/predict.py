"""``torchlogit predict``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchlogit.cli import options as o

if TYPE_CHECKING:
    import pyarrow as pa

    from torchlogit.model_file import ModelFile


def predict(
    model: o.ModelPath,
    data: o.Data,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", readable=False, help="Where to write: .csv or .parquet.")
    ],
    threshold: o.Threshold = None,
    separator: o.Separator = None,
) -> None:
    """Predict every row of a table.

    Writes the columns 'prediction' and, for each label, 'probability_LABEL', in the order of the rows. The target
    column need not be there.

    \b
    Examples:
      torchlogit predict model.safetensors new.csv -o predictions.csv
      torchlogit predict model.safetensors "part-*.parquet" -o predictions.parquet --threshold 0.3
    """
    from torchlogit.cli.fit import check_writable
    from torchlogit.cli.recorded import read_model
    from torchlogit.cli.show import Waiting, console
    from torchlogit.files import replacing

    kind = output.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise typer.BadParameter(f"{output} should end in .csv or .parquet", param_hint="'--output' / '-o'")
    check_writable(output, [str(model), *data])
    file = read_model(model)
    check_threshold(threshold, file)
    rows = 0
    with Waiting() as waiting, replacing(output) as temporary:
        writer: Any = None
        try:
            for batch in predictions(file, data, separator, threshold, waiting):
                if writer is None:
                    writer = _writer(temporary, kind, batch.schema)
                writer.write(batch)
                rows += batch.num_rows
        finally:
            if writer is not None:
                writer.close()
    console().print(f"{rows:,} predictions in {output}")


def check_threshold(threshold: float | None, file: ModelFile) -> None:
    """A threshold is for two labels."""
    from torchlogit.cli.workflow import classifier_of
    from torchlogit.errors import InputError

    if threshold is None:
        return
    classes = classifier_of(file.model).classes_.size
    if classes != 2:
        raise InputError(f"--threshold is for models of two labels; this one has {classes}")


def _writer(path: Path, kind: str, schema: pa.Schema) -> Any:
    if kind == ".parquet":
        from pyarrow.parquet import ParquetWriter

        return ParquetWriter(path, schema)
    from pyarrow.csv import CSVWriter

    return CSVWriter(path, schema)


def predictions(
    file: ModelFile, data: list[str], separator: str | None, threshold: float | None, waiting: Any
) -> Iterator[pa.RecordBatch]:
    """Blocks of predictions, as they are written."""
    import pyarrow as pa

    from torchlogit.cli.labels import label_text
    from torchlogit.cli.recorded import prediction_table
    from torchlogit.cli.workflow import chosen_classes, classifier_of, predicted_batches
    from torchlogit.prediction import probabilities

    classifier = classifier_of(file.model)
    classes = classifier.classes_
    names = ["prediction", *(f"probability_{label_text(label)}" for label in classes)]
    table = prediction_table(file, data, separator, waiting, with_target=False)
    for eta, _ in predicted_batches(file.model, table):
        probability = probabilities(eta)
        chosen = chosen_classes(eta, 0.5 if threshold is None else threshold)
        labels = classes[chosen]
        prediction = pa.array(labels.tolist() if labels.dtype.kind in "OU" else labels)
        columns = [pa.array(probability[:, k]) for k in range(classes.size)]
        yield pa.RecordBatch.from_arrays([prediction, *columns], names=names)
