"""Model files as 'torchlogit fit' writes them, and tables read the way they say that their own was read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torchlogit.cli.options import TableOptions
from torchlogit.cli.show import Waiting
from torchlogit.cli.workflow import classifier_of, encoder_of, open_table
from torchlogit.errors import InputError
from torchlogit.model_file import ModelFile, read
from torchlogit.sources.files import expand, fingerprint
from torchlogit.table import Table

_NO_FIT = "the model file was written from Python, not by 'torchlogit fit', so it does not name"


def read_model(path: Path) -> ModelFile:
    """The model file; its notes are what 'torchlogit fit' writes, or none of its business.

    Raises
    ------
    InputError
        If it is no model file, or its notes are mangled ones of 'torchlogit fit'.
    """
    file = read(path)
    notes = fit_notes(file)
    if notes and not _sound(notes, int(classifier_of(file.model).classes_.size)):
        raise InputError(f"{path} does not hold the notes that 'torchlogit fit' writes; fit the model again")
    return file


def fit_notes(file: ModelFile) -> dict[str, Any]:
    """What 'torchlogit fit' noted; nothing for a model that was saved from Python, whatever its notes are."""
    return file.notes if "table" in file.notes else {}


def _sound(notes: dict[str, Any], classes: int) -> bool:
    table, shares, figures = notes["table"], notes.get("shares"), notes.get("figures")
    if not (isinstance(table, dict) and isinstance(shares, list) and isinstance(figures, dict)):
        return False
    return (
        set(table) == set(TableOptions().record())
        and isinstance(table["target"], str)
        and all(table[name] is None or isinstance(table[name], str) for name in ("weight", "offset"))
        and _texts(table["drop"])
        and isinstance(table["header"], bool)
        and (table["missing"] is None or _texts(table["missing"]))
        and _texts(notes.get("data"))
        and _texts(notes.get("fingerprints", []))
        and isinstance(notes.get("against_rest"), bool)
        and isinstance(notes.get("width"), int)
        and len(shares) == classes
        and all(isinstance(share, (int, float)) and 0 <= share <= 1 for share in shares)
        and all(value is None or isinstance(value, (bool, int, float, str)) for value in figures.values())
    )


def _texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def fitted_files(file: ModelFile, data: list[str]) -> list[str]:
    """Files of rows that the model was fitted on, some of them at least, whatever they are called now."""
    known = set(fit_notes(file).get("fingerprints", []))
    return [str(path) for path in expand(data) if known and fingerprint(path) in known]


def prediction_table(
    file: ModelFile, data: list[str], separator: str | None, waiting: Waiting, *, with_target: bool
) -> Table:
    """Rows to predict, or (``with_target``) to measure on."""
    notes = fit_notes(file)
    options = TableOptions.recorded(notes["table"] if notes else TableOptions().record(), separator)
    if with_target:
        if options.target is None:
            raise InputError(f"{_NO_FIT} a target column; measure it from Python: load(...).score(X, y)")
    else:
        options = replace(options, target=None, weight=None)
    classifier = classifier_of(file.model)
    if classifier._uses_offset and options.offset is None:
        raise InputError(f"{_NO_FIT} the column of its offset; predict from Python: load(...).predict(X, offset)")
    if not with_target and not options.header:
        options = _without_header(notes, options, data, waiting)
    table = _open(options, data, waiting)
    if encoder_of(file.model) is not None:
        if table.is_sparse:
            raise InputError(
                f"{_name(table)} is a libsvm file, but the model was fitted on a table whose columns have names; give "
                "it such a table"
            )
        return table
    names = getattr(classifier, "feature_names_in_", None)
    if names is None:
        if len(table.feature_names) != classifier.n_features_in_:
            raise InputError(
                f"{_name(table)} has {len(table.feature_names):,} columns, but the model was fitted on "
                f"{classifier.n_features_in_:,} without names; give it just these, in their order"
            )
        return table
    if not table.is_sparse:
        others = tuple(name for name in table.columns if name not in names)
        return open_table(replace(options, drop=(*options.drop, *others)), data, waiting) if others else table
    return table


def _name(table: Table) -> str:
    return table.place(0).split(", ")[0]


def _open(options: TableOptions, data: list[str], waiting: Waiting) -> Table:
    """The files. Columns that were left out of the fit need not be there."""
    try:
        return open_table(options, data, waiting)
    except InputError:
        if not options.drop:
            raise
        return open_table(replace(options, drop=()), data, waiting)


def _without_header(notes: dict[str, Any], options: TableOptions, data: list[str], waiting: Waiting) -> TableOptions:
    """Columns are known by their place; a file that lacks only the target has the others in the same order."""
    table = open_table(replace(options, target=None, weight=None, offset=None, drop=()), data, waiting)
    width, target = notes["width"], notes["table"]["target"]
    if table.is_sparse or len(table.columns) != width - 1:
        return options
    return replace(options, header=tuple(f"column_{j}" for j in range(width) if f"column_{j}" != target))
