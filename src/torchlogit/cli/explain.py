"""``torchlogit explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchlogit.cli import options as o

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from torchlogit.model_file import ModelFile
    from torchlogit.rows import RowBatch
    from torchlogit.table import Table


def explain(
    model: o.ModelPath,
    data: o.Data,
    row: o.Row = 0,
    separator: o.Separator = None,
    as_json: o.AsJson = False,
) -> None:
    """Show each column's share of one row's logit. The shares add up to it.

    \b
    Examples:
      torchlogit explain model.safetensors customers.csv --row 17
    """
    from torchlogit.cli.recorded import prediction_table, read_model
    from torchlogit.cli.show import Waiting, console, number, print_json, table

    file = read_model(model)
    with Waiting() as waiting:
        rows = prediction_table(file, data, separator, waiting, with_target=False)
        record = _explained(file, rows, row)
    if as_json:
        print_json(record)
        return
    out = console()
    out.print(f"--row {row} is {record['place']}: {record['prediction']}, probability {number(record['probability'])}")
    out.print(f"logit of {record['class']}: {record['logit']:.6g}, the sum of the shares\n")
    lines = [(s["column"], s["value"], f"{s['share']:+.4f}", s["features"]) for s in record["shares"]]
    out.print(table(["column", "value", "share", "through"], lines, numeric=[2]))


def _explained(file: ModelFile, table: Table, row: int) -> dict[str, Any]:
    """Shares of the positive class's logit, or of the predicted class's where there are many."""
    from torchlogit.cli.labels import label_text
    from torchlogit.cli.workflow import classifier_of, encoder_of, feature_names
    from torchlogit.prediction import linear_predictor, probabilities, shares

    classifier, encoder = classifier_of(file.model), encoder_of(file.model)
    batch, order, values = _find(file, table, row)
    matrix = batch.matrix() if order is None else batch.matrix()[:, order]
    offset = None if batch.offset is None else batch.offset[:, None]
    solution = classifier._current_solution()
    eta = linear_predictor(solution, matrix)
    eta = eta if offset is None else eta + offset
    parts = shares(solution, matrix, offset)
    parts = parts.toarray()[0] if hasattr(parts, "toarray") else parts[0]
    chosen = int(eta[0].argmax()) if eta.shape[1] > 1 else int(eta[0, 0] > 0)
    own = parts if eta.shape[1] == 1 else parts[chosen]
    of = classifier.classes_[chosen if eta.shape[1] > 1 else 1]
    if encoder is None:
        columns = names = feature_names(file.model)
        numbers = matrix.toarray()[0] if hasattr(matrix, "toarray") else matrix[0]
        values = {name: f"{number:.6g}" for name, number in zip(names, numbers.tolist(), strict=True)}
    else:
        columns, names = encoder.feature_columns_, [str(name) for name in encoder.get_feature_names_out()]
    total = _by_column(columns, names, own[:-1])
    listed = [
        {"column": column, "value": values.get(column, ""), "share": share, "features": ", ".join(through)}
        for column, (share, through) in sorted(total.items(), key=lambda item: -abs(item[1][0]))
        if through
    ]
    rest = "intercept" if offset is None else "intercept and offset"
    listed.append({"column": f"({rest})", "value": "", "share": float(own[-1]), "features": ""})
    return {
        "place": table.place(row),
        "row": row,
        "prediction": label_text(classifier.classes_[chosen]),
        "probability": float(probabilities(eta)[0, chosen]),
        "class": label_text(of),
        "logit": float(eta[0, chosen if eta.shape[1] > 1 else 0]),
        "shares": listed,
    }


def _find(file: ModelFile, table: Table, row: int) -> tuple[RowBatch, list[int] | None, dict[str, str]]:
    """One row as numbers, the order of the model's columns in it, and its values as they stand in the file."""
    import numpy as np

    from torchlogit.cli.workflow import classifier_of, encoder_of
    from torchlogit.encode.lazy import EncodedTable
    from torchlogit.errors import InputError
    from torchlogit.lazy_prediction import aligned

    rows = table.n_rows()
    if row >= rows:
        raise InputError(f"there is no row {row:,}: the data have {rows:,} rows, the last is row {rows - 1:,}")
    mask = np.zeros(rows, dtype=bool)
    mask[row] = True
    encoder = encoder_of(file.model)
    if encoder is None:
        numeric, order = aligned(classifier_of(file.model), table.select(mask))
        return next(batch for batch in numeric.numeric_batches() if batch.rows), order, {}
    one = EncodedTable(encoder, table).table.select(mask)
    batch = next(batch for batch in one.table_batches() if batch.rows)
    values = {name: _cell(batch.columns.column(name)) for name in batch.columns.schema.names}
    return encoder.encode_batch(batch, row, table.place), None, values


def _cell(column: pa.Array) -> str:
    """The first value for people. Python has no dates after the year 9999, and no nanoseconds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from torchlogit.encode.parse import numbers

    if pa.types.is_duration(column.type):
        return "" if not column[0].is_valid else f"{numbers(column)[0][0]:g} s"
    value = (pc.cast(column, pa.string()) if pa.types.is_temporal(column.type) else column)[0].as_py()
    text = "" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _by_column(
    columns: list[str], names: list[str], parts: NDArray[np.float64]
) -> dict[str, tuple[float, list[str]]]:
    """Sum over the numbers that were made from one column; with the names of those that count."""
    total: dict[str, tuple[float, list[str]]] = {}
    for column, name, part in zip(columns, names, parts.tolist(), strict=True):
        share, through = total.get(column, (0.0, []))
        if part and len(through) < 5:
            through = [*through, name]
        total[column] = (share + part, through)
    return total
