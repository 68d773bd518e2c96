"""``torchlogit evaluate``."""

from __future__ import annotations

from torchlogit.cli import options as o


def evaluate(
    model: o.ModelPath,
    data: o.Data,
    threshold: o.Threshold = None,
    separator: o.Separator = None,
    as_json: o.AsJson = False,
) -> None:
    """Measure a model on rows with known labels.

    \b
    Examples:
      torchlogit evaluate model.safetensors test.csv
      torchlogit evaluate model.safetensors test.parquet --threshold 0.3 --json
    """
    import numpy as np

    from torchlogit.cli.fit import print_measures
    from torchlogit.cli.labels import known_labels
    from torchlogit.cli.predict import check_threshold
    from torchlogit.cli.recorded import fit_notes, prediction_table, read_model
    from torchlogit.cli.show import Waiting, console, print_json
    from torchlogit.cli.workflow import classifier_of, tested_figures

    file = read_model(model)
    notes = fit_notes(file)
    check_threshold(threshold, file)
    with Waiting() as waiting:
        table = prediction_table(file, data, separator, waiting, with_target=True)
        labels = known_labels(table, classifier_of(file.model).classes_, against_rest=notes.get("against_rest", False))
        base = np.asarray(notes.get("shares", labels.shares), dtype=np.float64)
        figures = tested_figures(file.model, table, labels, base, 0.5 if threshold is None else threshold)
    figures = {"n_test": int(labels.codes.size), **figures}
    if as_json:
        print_json({**figures, "n_rows": int(labels.codes.size), "remarks": list(labels.notes)})
        return
    out = console()
    for note in labels.notes:
        out.print(f"note      {note}")
    print_measures(out, figures, "measured on")
