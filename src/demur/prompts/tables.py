"""CSV and TSV as spreadsheets and scripts write them, and Parquet, as rows."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from demur.extras import need
from demur.prompts.encoding import reading
from demur.prompts.rows import Row, Rows, Unreadable, Wants, first_line, shown_name
from demur.types import DemurError

_LARGEST = 2**31 - 1
"""Characters of a CSV cell; the csv module's own limit is 131,072."""
SEPARATORS = {".csv": ",;\t|", ".tsv": "\t,;|", ".tab": "\t,;|"}
"""What may separate cells, the usual one first."""


def separated(path: Path, separators: str, wants: Wants) -> Rows:
    """Separated values with a header, quoted with double quotes; empty cells are None, and a row without any text is
    passed over. What separates is told by a first line ``sep=;``, else by the header: with the right one it has most
    known columns.
    """
    number = 0
    with reading(path, "") as file:
        lines = _Lines(file)
        first = next((line for line in lines if line.strip()), None)
        if first is None:
            return
        if told := re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE | re.DOTALL):
            first = next((line for line in lines if line.strip()), "")
        by = told[1] if told else _separator(first, separators, wants)
        skipped = lines.read - 1
        # With a blank behind every separator of the header, cells have one too, and quotes come behind it.
        loose = by != " " and by in first and all(part[:1] == " " for part in first.split(by)[1:])
        reader = csv.reader(chain([first], lines), delimiter=by, strict=True, skipinitialspace=loose)
        header: list[str] = []
        while True:
            where = f"{path}, line {skipped + reader.line_num + 1}"
            try:
                cells = _next(reader)
            except csv.Error as error:
                raise _broken(where, str(error), lines.escaped) from error
            if cells is None:
                return
            if not any(cell.strip() for cell in cells) and (header or len(cells) < 2):
                continue
            if not header:
                header = [cell.strip().strip("\u200b\ufeff").strip() for cell in cells]
                named = [name for name in header if name]  # a blank name is a spreadsheet's empty column, or an index
                if len({*named}) < len(named):
                    raise DemurError(
                        f"{where}: a column comes twice in {', '.join(map(shown_name, named))}", "every column once"
                    )
                continue
            _check(cells, header, where, lines.escaped)
            number += 1
            yield Row(number, where, {name: cell or None for name, cell in zip(header, cells, strict=False) if name})


class _Lines:
    """The lines of a file, counted; remembers whether one had a quote behind a backslash."""

    def __init__(self, file: Iterable[str]) -> None:
        self.lines, self.read, self.escaped = iter(file), 0, False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.lines)
        self.read += 1
        self.escaped = self.escaped or '\\"' in line
        return line


def _next(reader: Any) -> list[str] | None:
    """The next row. The csv module keeps its limit for everybody, so it is put back at once."""
    before = csv.field_size_limit(_LARGEST)
    try:
        cells: list[str] | None = next(reader, None)
    finally:
        csv.field_size_limit(before)
    return cells


def _separator(header: str, separators: str, wants: Wants) -> str:
    """What separates the cells of a header: most known columns decide, then most cells, then the usual one."""
    counts = []
    for by in separators:
        try:
            names = _next(csv.reader([header], delimiter=by)) or []
        except csv.Error:
            names = []
        counts.append((sum(bool(name.strip()) and wants(name) for name in names), len(names)))
    return separators[counts.index(max(counts))]


def _check(cells: Sequence[str], header: Sequence[str], where: str, escaped: bool) -> None:
    """Raises for a row that the header does not fit: a cell too many or too few, or one that ended too early."""
    cut = any(a.endswith("\\") and b.count('"') % 2 for a, b in pairwise(cells))
    if cut:  # "a \", b" was read as two cells
        raise _broken(where, "a quote behind a backslash ended a cell", True)
    if len(cells) < len(header) or any(cell.strip() for cell in cells[len(header) :]):
        then = "put text with commas or line breaks in quotes"
        raise DemurError(
            f"{where} has {len(cells)} cells", f"{len(header)}, as the header", _DOUBLED if escaped else then
        )


_DOUBLED = 'a quote within a cell is written twice (""), not behind a backslash'


def _broken(where: str, what: str, escaped: bool) -> DemurError:
    return DemurError(
        f"{where}: broken CSV ({what})",
        "cells with commas or quotes in quotes",
        _DOUBLED if escaped else 'a quote within a cell is written twice ("")',
    )


# --- Parquet ------------------------------------------------------------------------------------------------


def parquet(path: Path, wants: Wants) -> Rows:
    """A Parquet file in batches of 1,024 rows; of its columns only those that are wanted. Needs pyarrow."""
    pyarrow = need("pyarrow", "data", f"to read {path}")
    files = need("pyarrow.parquet", "data", f"to read {path}")
    number = 0
    try:
        with files.ParquetFile(path) as file:
            names = tuple(file.schema_arrow.names)
            wanted = [name for name in names if wants(name)]
            if twice := [name for name in wanted if names.count(name) > 1]:
                raise DemurError(f"{path}: a column comes twice in {', '.join(twice)}", "every column once")
            for batch in file.iter_batches(batch_size=1024, columns=wanted, use_threads=False):
                columns = {name: _values(batch.column(name)) for name in batch.schema.names if name in wanted}
                for at in range(batch.num_rows):
                    number += 1
                    values = {name: column[at] for name, column in columns.items()}
                    yield Row(number, f"{path}, row {number}", values, names)
    except (pyarrow.ArrowException, OSError) as error:
        raise DemurError(f"cannot read {path} ({first_line(error)})", "a Parquet file") from error


def _values(column: Any) -> list[Any]:
    """A column's values; what Python can not hold is :class:`Unreadable`, each by itself."""
    try:
        values: list[Any] = column.to_pylist()
    except Exception:  # dates out of range, unknown zones, bytes that are no UTF-8: no closed list
        values = [_value(scalar) for scalar in column]
    return values


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return Unreadable(f"not UTF-8, byte 0x{error.object[error.start]:02x}")
    except Exception as error:
        return Unreadable(f"{type(error).__name__}: {first_line(error)}")
