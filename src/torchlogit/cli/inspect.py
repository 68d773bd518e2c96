"""``torchlogit inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchlogit.cli import options as o

if TYPE_CHECKING:
    from torchlogit.model_file import ModelFile


def inspect(model: o.ModelPath, as_json: o.AsJson = False) -> None:
    """Show what is in a model file.

    The coefficients, how each column is encoded, and how the model was fitted.

    \b
    Examples:
      torchlogit inspect model.safetensors
      torchlogit inspect model.safetensors --json
    """
    from torchlogit.cli.fit import print_coefficients, print_measures
    from torchlogit.cli.labels import label_text
    from torchlogit.cli.recorded import fit_notes, read_model
    from torchlogit.cli.show import console, number, print_json, table, with_options
    from torchlogit.cli.workflow import classifier_of, encoder_of

    file = read_model(model)
    if as_json:
        print_json(_record(file))
        return
    out = console()
    classifier, encoder = classifier_of(file.model), encoder_of(file.model)
    notes = fit_notes(file)
    figures = notes.get("figures", {})
    out.print(f"{model}: written by torchlogit {file.version}")
    out.print(f"classes   {', '.join(label_text(label) for label in classifier.classes_)}")
    if notes:
        out.print(f"target    {notes['table']['target']} in {', '.join(notes['data'])}")
    out.print(f"minimised {classifier.plan_.objective}")
    certificate = f"kkt {number(classifier.kkt_)}, excess {number(classifier.excess_)}"
    out.print(f"objective {classifier.objective_:.10g}, {certificate}")
    out.print(f"status    {with_options(classifier.status_)}")
    if figures:
        print_measures(out, figures, "when it was fitted, on")
    if encoder is not None:
        rows = [
            (d.column, d.kind, str(d.features or "-"), "; ".join(filter(None, (d.reason, d.hint))), d.encoding)
            for d in encoder.decisions_
        ]
        out.print()
        out.print(table(["column", "kind", "numbers", "because", "encoded as"], rows, numeric=[2]))
    print_coefficients(out, file.model, None if classifier.coef_.size <= 200 else 50)


def _record(file: ModelFile) -> dict[str, Any]:
    from torchlogit.cli.labels import label_text
    from torchlogit.cli.show import with_options
    from torchlogit.cli.workflow import classifier_of, encoder_of, largest_coefficients

    classifier, encoder = classifier_of(file.model), encoder_of(file.model)
    many = classifier.classes_.size > 2
    return {
        "version": file.version,
        "classes": [label_text(label) for label in classifier.classes_],
        "converged": classifier.converged_,
        "status": with_options(classifier.status_),
        "objective": classifier.objective_,
        "kkt": classifier.kkt_,
        "excess": classifier.excess_,
        "n_features": int(classifier.n_features_in_),
        "parameters": {name: _json(value) for name, value in classifier.get_params().items()},
        "intercept": classifier._current_solution().intercept.tolist(),
        "coefficients": [
            {**({"class": label} if many else {}), "feature": feature, "coefficient": value}
            for label, feature, value in largest_coefficients(file.model, None)
        ],
        "encoding": [] if encoder is None else [
            {"column": d.column, "kind": d.kind, "reason": d.reason, "encoding": d.encoding, "features": d.features,
             "hint": d.hint}
            for d in encoder.decisions_
        ],
        "notes": file.notes,
    }  # fmt: skip


def _json(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return "inf" if value == float("inf") else value if isinstance(value, float) else str(value)
