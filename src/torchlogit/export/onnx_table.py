"""Columns of a table to logits, in ONNX operators."""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np

from torchlogit.encode.parse import lowered
from torchlogit.export.layout import DAY, Layout, WordColumn
from torchlogit.export.onnx_nodes import Graph
from torchlogit.prediction import Solution

_MOST_SPELLINGS = 1024


def table_logit(graph: Graph, layout: Layout, solution: Solution) -> str:
    """``(rows, K)``. One-hot columns are never made: a slot's share of the logit is looked up.

    Encoded columns are standardised or zeros and ones, so that the intercept serves without a centre.
    """
    coef = np.concatenate([solution.coef, np.zeros((solution.outputs, 1))], axis=1).T  # (features + 1, K)
    shares, slots = [], [_word_slot(graph, column) for column in layout.words]
    if layout.numbers:
        scaling, (values, markers) = layout.number_arrays()
        unit, mean, scale = map(graph.constant, ("unit", "mean", "scale"), scaling)
        zero = graph.constant("zero", 0.0)
        numbers = graph.joined([column.name for column in layout.numbers], "numbers")
        missing = graph.add("IsNaN", [numbers], "missing")
        known = graph.add("Div", [graph.add("Where", [missing, zero, numbers], "known"), unit], "in_units")
        centred = graph.add("Sub", [known, mean], "centred")
        scaled = graph.add("Where", [missing, zero, graph.add("Div", [centred, scale], "scaled")], "standardised")
        shares.append(graph.add("MatMul", [scaled, graph.constant("slopes", coef[values])], "shares_of_numbers"))
        if coef[markers].any():
            marked = graph.cast(missing, "double", "marked")
            slopes = graph.constant("slopes_of_missing", coef[markers])
            shares.append(graph.add("MatMul", [marked, slopes], "shares_of_missing"))
        if layout.calendar.columns:
            slots.append(_calendar_slots(graph, layout, numbers, missing))
    if slots:
        table = (layout.slot_value[:, :, None] * coef[layout.slot_at]).sum(axis=1)  # (slots, K)
        which = graph.joined(slots, "slots")
        found = graph.add("Gather", [graph.constant("shares_of_slots", table), which], "looked_up", axis=0)
        axes = graph.constant("over_columns", np.array([1]))
        shares.append(graph.add("ReduceSum", [found, axes], "shares_of_words", keepdims=0))
    return graph.total([*shares, graph.constant("intercept", solution.intercept)], "logit")


def _word_slot(graph: Graph, column: WordColumn) -> str:
    """``(rows, 1)`` int64."""
    gone, unseen = column.first + len(column.levels), column.first + len(column.levels) + 1
    keys, values, text = list(column.levels), list(range(column.first, gone)), column.name
    if column.fold_case:
        # ONNX Runtime's normaliser takes one dimension, and no empty one: a word too many is cut off again. Its locale
        # "C" exists on every machine, and knows ASCII alone: other letters are spelled out.
        flat = graph.add("Reshape", [text, graph.constant("flat", np.array([-1]))], "flat_text")
        extra = graph.constant("one_word", np.array([""], dtype=object))
        longer = graph.add("Concat", [flat, extra], "longer_text", axis=0)
        lower = graph.add("StringNormalizer", [longer], "lower_text", case_change_action="LOWER", locale="C")
        ends = [graph.constant(name, np.array([at])) for name, at in (("start", 0), ("end", -1))]
        cut = graph.add("Slice", [lower, *ends], "cut_text")
        text = graph.add("Reshape", [cut, graph.constant("one_column", np.array([-1, 1]))], "folded_text")
        spelled = [(word, slot) for key, slot in zip(keys, values, strict=True) for word in _spellings(key)]
        keys, values = [word for word, _ in spelled], [slot for _, slot in spelled]
    return graph.add(
        "LabelEncoder",
        [text],
        f"slot_of_{column.name}",
        "ai.onnx.ml",
        keys_strings=[*keys, ""],
        values_int64s=[*values, gone],
        default_int64=unseen,
    )


@cache
def _capitals() -> dict[str, list[str]]:
    """For a letter in lower case, what turns into it and is not ASCII: the capital sharp s, the kelvin sign."""
    found: dict[str, list[str]] = {}
    for letter in map(chr, (*range(128, 0xD800), *range(0xE000, 0x1F000))):  # scripts with two cases end before
        if letter.lower() != letter:
            found.setdefault(lowered(letter), []).append(letter)
    return found


def _spellings(lower: str) -> list[str]:
    """A word in lower case, with other letters than those of ASCII in either case."""
    letters = [[letter, *_capitals().get(letter, [])] for letter in lower]
    if math.prod(map(len, letters)) <= _MOST_SPELLINGS:
        return ["".join(word) for word in itertools.product(*letters)]
    upper = "".join(letter if letter.isascii() else choice[-1] for letter, choice in zip(lower, letters, strict=True))
    return sorted({lower, upper, upper[:1] + lower[1:]})


def _calendar_slots(graph: Graph, layout: Layout, numbers: str, missing: str) -> str:
    """``(rows, 3 * dates)`` int64: months, weekdays, hours.

    The month comes from the day's place in its era of 400 years, which begins in March (Howard Hinnant, "chrono-
    compatible low-level date algorithms", civil_from_days). Every division is of a number that is not negative, so
    that it does not matter which way it rounds.
    """

    def whole(operator: str, left: str, right: int, wanted: str) -> str:
        return graph.add(operator, [left, graph.constant("whole", right)], wanted)

    calendar = layout.calendar
    columns = graph.constant("dates", np.array(calendar.columns))
    gone = graph.add("Gather", [missing, columns], "date_missing", axis=1)
    seconds = graph.add("Gather", [numbers, columns], "date_seconds", axis=1)
    seconds = graph.add("Where", [gone, graph.constant("no_seconds", 0.0), seconds], "seconds")
    length = graph.constant("seconds_a_day", DAY)
    midnight = graph.add("Floor", [graph.add("Div", [seconds, length], "days")], "whole_days")
    rest = graph.add("Sub", [seconds, graph.add("Mul", [midnight, length], "midnight")], "seconds_of_day")
    hour = whole("Div", graph.cast(rest, "int64", "seconds_whole"), 3600, "hour")
    day = graph.cast(midnight, "int64", "day")
    weekday = whole("Mod", whole("Add", day, 3, "day_since_monday"), 7, "weekday")
    of_era = whole("Mod", whole("Add", day, 719_468, "day_since_march_0000"), 146_097, "day_of_era")
    leaps = [whole("Div", of_era, days, "era_part") for days in (1_460, 36_524, 146_096)]
    even = graph.add("Sub", [graph.add("Sub", [of_era, leaps[0]], "era_a"), leaps[2]], "era_b")
    year = whole("Div", graph.add("Add", [even, leaps[1]], "era_c"), 365, "year_of_era")
    before = [whole("Mul", year, 365, "days_of_years"), whole("Div", year, 4, "leap_days")]
    no_leaps = whole("Div", year, 100, "no_leap_days")
    start = graph.add("Sub", [graph.add("Add", before, "days_a"), no_leaps], "year_start")
    of_year = graph.add("Sub", [of_era, start], "day_of_year")
    from_march = whole("Div", whole("Add", whole("Mul", of_year, 5, "month_a"), 2, "month_b"), 153, "month_from_march")
    month = whole("Mod", whole("Add", from_march, 2, "month_c"), 12, "month")
    parts = graph.joined([month, weekday, hour], "calendar")
    found = graph.add("Add", [parts, graph.constant("calendar_first", np.array(calendar.first))], "calendar_known")
    gone = graph.joined([gone] * 3, "calendar_missing")
    nothing = graph.constant("calendar_none", np.array(calendar.missing))
    return graph.add("Where", [gone, nothing, found], "calendar_slots")
