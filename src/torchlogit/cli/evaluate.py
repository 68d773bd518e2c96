"""``torchlogit evaluate``."""

from __future__ import annotations

from torchlogit.cli import options as o


def evaluate(
    model: o.ModelPath,
    data: o.Data,
    threshold: o.Threshold = None,
    report: o.Report = None,
    separator: o.Separator = None,
    as_json: o.AsJson = False,
) -> None:
    """Measure a model on rows with known labels.

    \b
    Examples:
      torchlogit evaluate model.safetensors test.csv
      torchlogit evaluate model.safetensors test.csv --report report.html
      torchlogit evaluate model.safetensors test.parquet --threshold 0.3 --json
    """
    import numpy as np

    from torchlogit.cli.fit import check_writable, print_measures
    from torchlogit.cli.labels import known_labels
    from torchlogit.cli.page import write_page
    from torchlogit.cli.predict import check_threshold
    from torchlogit.cli.recorded import fit_notes, fitted_files, prediction_table, read_model
    from torchlogit.cli.show import Waiting, console, print_json
    from torchlogit.cli.workflow import classifier_of, measures_of

    file = read_model(model)
    notes = fit_notes(file)
    check_threshold(threshold, file)
    if report is not None:
        check_writable(report, [*data, str(model)], "--report")
    cut = 0.5 if threshold is None else threshold
    with Waiting() as waiting:
        table = prediction_table(file, data, separator, waiting, with_target=True)
        labels = known_labels(table, classifier_of(file.model).classes_, against_rest=notes.get("against_rest", False))
        base = np.asarray(notes.get("shares", labels.shares), dtype=np.float64)
        figures = measures_of(file.model, table, labels.codes, base, cut).figures()
        seen = fitted_files(file, data)
        if report is not None:
            write_page(report, file.model, table, labels, waiting, data=data, training=bool(seen), threshold=cut)
    figures = {"n_test": int(labels.codes.size), **figures}
    remarks = list(labels.notes)
    remarks += [f"{path} was used to fit this model, so this is not how good it is on new rows"
                for path in seen]  # fmt: skip
    if as_json:
        written = {} if report is None else {"report": str(report)}
        print_json({**figures, "n_rows": int(labels.codes.size), **written, "remarks": remarks})
        return
    out = console()
    for remark in remarks:
        out.print(f"note      {remark}")
    print_measures(out, figures, "measured on")
    if report is not None:
        out.print(f"\nreport {report}")
