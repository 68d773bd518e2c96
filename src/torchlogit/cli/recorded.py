"""Tables read the way a model file says that its own was read."""

from __future__ import annotations

from dataclasses import replace

from torchlogit.cli.options import TableOptions
from torchlogit.cli.show import Waiting
from torchlogit.cli.workflow import classifier_of, encoder_of, open_table
from torchlogit.errors import InputError
from torchlogit.model_file import ModelFile
from torchlogit.table import Table


def prediction_table(
    file: ModelFile, data: list[str], separator: str | None, waiting: Waiting, *, with_target: bool
) -> Table:
    """Rows to predict, or (``with_target``) to measure on."""
    options = TableOptions.recorded(file.notes, separator)
    if with_target:
        if options.target is None:
            raise InputError("the model file does not name a target column: it was not written by 'torchlogit fit'")
    else:
        options = replace(options, target=None, weight=None)
    classifier = classifier_of(file.model)
    if classifier._uses_offset and options.offset is None:
        raise InputError("the model was fitted with an offset, but its file does not say which column it was")
    if not with_target and not options.header:
        options = _without_header(file, options, data, waiting)
    table = _open(options, data, waiting)
    names = getattr(classifier, "feature_names_in_", None)
    if encoder_of(file.model) is None and names is not None and not table.is_sparse:
        others = tuple(name for name in table.columns if name not in names)
        return open_table(replace(options, drop=(*options.drop, *others)), data, waiting) if others else table
    return table


def _open(options: TableOptions, data: list[str], waiting: Waiting) -> Table:
    """The files. Columns that were left out of the fit need not be there."""
    try:
        return open_table(options, data, waiting)
    except InputError:
        if not options.drop:
            raise
        return open_table(replace(options, drop=()), data, waiting)


def _without_header(file: ModelFile, options: TableOptions, data: list[str], waiting: Waiting) -> TableOptions:
    """Columns are known by their place; a file that lacks only the target has the others in the same order."""
    table = open_table(replace(options, target=None, weight=None, offset=None, drop=()), data, waiting)
    width, target = file.notes.get("width"), file.notes.get("table", {}).get("target")
    if width is None or target is None or table.is_sparse or len(table.columns) != width - 1:
        return options
    return replace(options, header=tuple(f"column_{j}" for j in range(width) if f"column_{j}" != target))
