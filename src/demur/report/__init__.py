"""Reports: a run's rows as tables, figures and one self-contained page."""

from __future__ import annotations

from demur.report.page import report
from demur.report.tables import Cell, Hypothesis, Selection, Table, hypotheses, tables

__all__ = ["Cell", "Hypothesis", "Selection", "Table", "hypotheses", "report", "tables"]
