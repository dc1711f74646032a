"""Rows of a run as tables, under the name by which version 0.1.0 had them: see :mod:`demur.traces.frames`."""

from demur.traces.frames import ROW_COLUMNS, rows, schema

__all__ = ["ROW_COLUMNS", "rows", "schema"]
