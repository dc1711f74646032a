"""Tables for programs: one line for each figure, with its interval and what it counts as numbers."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING

from demur.report.figure import Figure

if TYPE_CHECKING:
    from demur.report.tables import Table

LABELS = ("model", "attack", "defense", "detector")
"""Heads of columns that name what a row is about."""
COLUMNS = ("table", *LABELS, "column", "measure", "value", "low", "high", "n", "text")


def tidy_csv(table: Table) -> str:
    """A table as CSV with the columns :data:`COLUMNS`, one line for each figure of each cell.

    ``column`` is the cell's head, ``text`` what the page shows. Shares and areas are in [0, 1], differences in [-1, 1],
    ``low`` and ``high`` their 95% interval; what is unknown or undefined is empty. A cell without figures, such as a
    published one, is a line with its text and, where this is a number, its value.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        cells = list(zip(table.heads, row, strict=True))
        about = {"table": table.name} | {head: cell.text for head, cell in cells if head in LABELS}
        for head, cell in cells:
            if head in LABELS:
                continue
            for figure in cell.figures or (_of_text(head, cell.text),):
                told = {"value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n}
                known = {name: _number(value) for name, value in told.items() if value is not None}
                line = about | {"column": head, "measure": figure.measure, "text": cell.text} | known
                writer.writerow(line)
    return buffer.getvalue()


def _of_text(head: str, text: str) -> Figure:
    try:
        return Figure(head, float(text))
    except ValueError:
        return Figure(head, None)


def _number(value: float) -> str:
    """As short as it can be without losing more than the sixth digit; empty for nan."""
    return "" if math.isnan(value) else f"{value:.6g}" if isinstance(value, float) else str(value)
