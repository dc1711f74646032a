"""Reports: a run's rows as tables, figures and one self-contained page."""

from __future__ import annotations

from demur.report.claims import Hypothesis, hypotheses
from demur.report.page import report
from demur.report.selection import Selection
from demur.report.tables import Cell, Table, tables

__all__ = ["Cell", "Hypothesis", "Selection", "Table", "hypotheses", "report", "tables"]
