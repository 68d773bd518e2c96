"""Models as tensor programs: what `torch.export` traces.

An archive (``.pt2``, a zip file) holds the traced graph as JSON, each parameter and buffer as raw little-endian bytes
with its name and shape in JSON, and ``extra/torchlogit.json``: classes, inputs, vocabularies, names of the features.
Nothing in it is a pickle: torch would add sample inputs as one, so they are taken out.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchlogit._version import __version__
from torchlogit.estimator import LogisticRegression
from torchlogit.export.layout import DAY, Layout
from torchlogit.export.signature import Port, array_port, label_values, offset_port, uses_offset
from torchlogit.prediction import Solution, tensor_probabilities

EXTRA = "torchlogit.json"


class ArrayProgram(nn.Module):
    """Probabilities of the rows of an array.

    Parameters
    ----------
    solution : Solution
        Where it has a centre, the head sees the columns minus the centre.
    """

    centre: Tensor

    def __init__(self, solution: Solution) -> None:
        super().__init__()
        self.head = _head(solution.coef, solution.base())
        centre = np.zeros(solution.coef.shape[1]) if solution.centre is None else solution.centre
        self.register_buffer("centre", torch.tensor(centre))
        self.centred = solution.centre is not None

    def features(self, X: Tensor) -> Tensor:
        """``(rows, p)``: what the head sees."""
        return X - self.centre if self.centred else X

    def forward(self, X: Tensor, offset: Tensor | None = None) -> Tensor:
        """``(rows, classes)``."""
        return _probabilities(self.head(self.features(X)), offset)


class TableProgram(nn.Module):
    """Probabilities of the rows of a table: numbers, and codes for words.

    Parameters
    ----------
    layout : Layout
    solution : Solution
    """

    scaling: Tensor
    number_at: Tensor
    dates: Tensor
    calendar_first: Tensor
    calendar_missing: Tensor
    levels: Tensor
    first: Tensor
    slot_at: Tensor
    slot_value: Tensor

    def __init__(self, layout: Layout, solution: Solution) -> None:
        super().__init__()
        # Encoded columns are standardised or zeros and ones, so that the intercept serves without a centre.
        self.head = _head(solution.coef, solution.intercept)
        scaling, places = layout.number_arrays()
        calendar = layout.calendar
        buffers = {
            "scaling": scaling,
            "number_at": places.ravel(),
            "dates": np.array(calendar.columns, dtype=np.int64),
            "calendar_first": np.array(calendar.first, dtype=np.int64),
            "calendar_missing": np.array(calendar.missing, dtype=np.int64),
            "levels": np.array([len(column.levels) for column in layout.words], dtype=np.int64),
            "first": np.array([column.first for column in layout.words], dtype=np.int64),
            "slot_at": layout.slot_at,
            "slot_value": layout.slot_value,
        }
        for name, values in buffers.items():
            self.register_buffer(name, torch.tensor(values))

    def features(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """``(rows, p)``: the encoder's features, in its order."""
        rows, width = numbers.shape[0], self.head.in_features
        missing = torch.isnan(numbers)
        unit, mean, scale = self.scaling
        scaled = torch.where(missing, 0.0, (numbers / unit - mean) / scale)
        last = self.first + self.levels  # the missing value's slot; the next is that of unseen levels
        known = (codes >= 0) & (codes < self.levels)
        slots = torch.where(known, self.first + codes, torch.where(codes == -1, last, last + 1))
        slots = torch.cat([slots, self._calendar(numbers[:, self.dates])], dim=1)
        at = torch.cat([self.number_at.expand(rows, -1), self.slot_at[slots].flatten(1)], dim=1)
        values = torch.cat([scaled, missing.to(torch.float64), self.slot_value[slots].flatten(1)], dim=1)
        # What has no feature goes to one beyond the last.
        return numbers.new_zeros(rows, width + 1).scatter(1, at, values)[:, :width]

    def _calendar(self, stamps: Tensor) -> Tensor:
        """Slots ``(rows, 3 * dates)`` of months, weekdays and hours.

        The month comes from the day's place in its era of 400 years, which begins in March (Howard Hinnant,
        "chrono-compatible low-level date algorithms", civil_from_days).
        """
        missing = torch.isnan(stamps)
        seconds = torch.where(missing, 0.0, stamps)
        midnight = torch.floor(seconds / DAY)
        hour = (seconds - midnight * DAY).to(torch.int64) // 3600
        day = midnight.to(torch.int64)
        of_era = (day + 719_468) % 146_097
        year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
        of_year = of_era - (365 * year + year // 4 - year // 100)
        month = ((5 * of_year + 2) // 153 + 2) % 12
        found = torch.cat([month, (day + 3) % 7, hour], dim=1) + self.calendar_first
        return torch.where(missing.repeat(1, 3), self.calendar_missing, found)

    def forward(self, numbers: Tensor, codes: Tensor, offset: Tensor | None = None) -> Tensor:
        """``(rows, classes)``."""
        return _probabilities(self.head(self.features(numbers, codes)), offset)


def _head(coef: Any, intercept: Any) -> nn.Linear:
    head = nn.Linear(coef.shape[1], coef.shape[0], dtype=torch.float64)
    head.load_state_dict({"weight": torch.tensor(coef), "bias": torch.tensor(intercept)})
    return head


def _probabilities(logit: Tensor, offset: Tensor | None) -> Tensor:
    return tensor_probabilities(logit if offset is None else logit + offset)


def build(
    layout: Layout | None, classifier: LogisticRegression, features: list[str]
) -> tuple[bytes, tuple[Port, ...], tuple[Port, ...]]:
    """A model as the bytes of a ``torch.export`` archive, with its inputs and outputs.

    Parameters
    ----------
    layout : Layout, optional
        None: the input is the array that the classifier was fitted on.
    classifier : LogisticRegression
        Fitted.
    features : list of str
        Names of its columns.
    """
    solution = classifier._current_solution()
    program = ArrayProgram(solution) if layout is None else TableProgram(layout, solution)
    inputs = [array_port(classifier)] if layout is None else _table_ports(layout)
    if uses_offset(classifier):
        inputs.append(offset_port(solution.outputs))
    classes = label_values(classifier.classes_)
    meaning = "of each class, in the order of the classes"
    outputs = (Port("probabilities", "double", ("rows", classes.size), meaning),)
    document = {
        "torchlogit_version": __version__,
        "classes": classes.tolist(),
        "inputs": [port.record() for port in inputs],
        "outputs": [port.record() for port in outputs],
        "numbers": [] if layout is None else [column.record() for column in layout.numbers],
        "codes": [] if layout is None else [column.record(-1) for column in layout.words],
        "features": features,
    }
    return _archive(program.eval(), inputs, json.dumps(document)), tuple(inputs), outputs


def _table_ports(layout: Layout) -> list[Port]:
    numbers, words = [column.name for column in layout.numbers], [column.name for column in layout.words]
    return [
        Port("numbers", "double", ("rows", len(numbers)),
             f"{', '.join(numbers) or 'none'}; dates as seconds since 1970-01-01; missing: NaN"),
        Port("codes", "int64", ("rows", len(words)),
             f"{', '.join(words) or 'none'}; a level's place in {EXTRA}; missing: -1, unseen: -2"),
    ]  # fmt: skip


def _archive(program: nn.Module, inputs: list[Port], document: str) -> bytes:
    kinds = {"double": torch.float64, "int64": torch.int64}
    # Two rows, since torch takes one for a constant of the program.
    sample = tuple(torch.zeros((2, int(port.shape[1])), dtype=kinds[port.type]) for port in inputs)
    rows = torch.export.Dim("rows", min=0)
    exported = torch.export.export(program, sample, dynamic_shapes=tuple({0: rows} for _ in inputs))
    exported.example_inputs = None
    for node in exported.graph.nodes:  # it names folders of this machine
        node.meta.pop("stack_trace", None)
    archive = io.BytesIO()
    torch.export.save(exported, archive, extra_files={EXTRA: document})
    return archive.getvalue()
