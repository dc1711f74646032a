"""A row as a source gives it, and the small questions that everybody asks of its values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from typing import Any, NamedTuple

from demur.kinds import fits
from demur.refusals import shows_nothing
from demur.types import DemurError


class Row(NamedTuple):
    """One row of a source: its number from 1, the place that an error names, the columns that were read, and the names
    of all the source's columns where some were not read (empty: those of ``values``).
    """

    number: int
    where: str
    values: Mapping[str, Any]
    names: tuple[str, ...] = ()

    @property
    def listed(self) -> str:
        """The names of the columns, the first dozen of them."""
        names = [repr(name) if not str(name).strip() else shown_name(name) for name in self.names or self.values]
        return (", ".join(names[:12]) + (", ..." if len(names) > 12 else "")) or "none"


Rows = Generator[Row, None, None]
Wants = Callable[[str], bool]
"""Whether a column of this name is read."""


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value that Python can not hold, such as a date in the year 287,000; an error once it is used."""

    why: str


@lru_cache(maxsize=4096)
def fold(name: str) -> str:
    """A column's name as it is compared: any case, blanks and hyphens as underscores."""
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


@lru_cache(maxsize=1024)
def called(names: tuple[str, ...], columns: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the columns that have one of the names, in the order of the names. Rows of a source are much alike, so
    what was found is kept.
    """
    return tuple(column for name in names for column in columns if fold(column) == name)


def says_something(value: Any) -> bool:
    """False for None, nan, blank text and empty lists."""
    if isinstance(value, str):
        return not shows_nothing(value)
    if isinstance(value, list | tuple | dict):
        return bool(value)
    return value is not None and value == value  # noqa: PLR0124 - nan is what differs from itself


def plain(value: Any, where: str, column: Any) -> str | None:
    """A value as a string, None for None and nan; lists and objects as JSON. Raises for bytes that are no UTF-8."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Unreadable):
        raise DemurError(
            f"{where}: the column {column!r} can not be read ({value.why})",
            "text, numbers or dates that Python can hold",
            "take the column out of the file, or write it anew",
        )
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DemurError(
                f"{where}: the column {column!r} holds bytes that are not UTF-8 (0x{value[error.start]:02x})",
                "UTF-8 text",
            ) from error
    if isinstance(value, float) and value != value:  # noqa: PLR0124
        return None
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def is_unicode(text: str) -> bool:
    """False if the text holds half of a surrogate pair, which no file and no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def mapped(field: str, column: str = "...") -> str:
    """How to name a column, at both doors."""
    return f"columns={{{field!r}: {column!r}}}, or --column {field}={'COLUMN' if column == '...' else column}"


def left_out(field: Any) -> str:
    """How to leave a field out, at both doors."""
    return f"columns={{{field!r}: ''}}, or --column {field}="


def kind_of(value: Any) -> str:
    """What a value is, in words for errors."""
    names = {
        "str": "text",
        "dict": "an object",
        "list": "a list",
        "bool": "true or false",
        "NoneType": "null",
        "int": "a number",
        "float": "a number",
    }
    return names.get(type(value).__name__, f"a {type(value).__name__}")


def first_line(error: BaseException) -> str:
    """The first line of what an error says, at most 200 characters."""
    return (str(error).strip().splitlines() or [""])[0][:200]


def shown_name(column: Any) -> str:
    """A column's name for an error, if it is one word; of what has several, which is a prompt where a table has no
    header, the length alone.
    """
    text = str(column)
    return text if re.fullmatch(r"[\w.:/-]{1,40}", text, re.ASCII) and text[-1] != "." else _length(text)


def _length(text: str) -> str:
    return f"one of {len(text)} characters"


def joined(names: Iterable[str]) -> str:
    """Names for an error."""
    return ", ".join(names)


def check_given(source: Any, columns: Any, harmful: Any, limit: Any) -> None:
    """Raises for a source, a mapping of columns, a label or a limit of another type than theirs."""
    if limit is not None and (not fits(limit, int) or limit < 1):
        raise DemurError(f"limit={limit!r:.40}", "a whole number of at least 1, or None for everything")
    if not isinstance(source, str | PathLike):
        raise DemurError(f"prompts from a {type(source).__name__}", "the path of a file, or a set's name", "name one")
    if columns is not None and not isinstance(columns, Mapping):
        came = f"columns of the type {type(columns).__name__}"
        raise DemurError(came, "a mapping of fields and columns", "for example: columns={'text': 'question'}")
    if harmful is not None and not fits(harmful, bool):
        raise DemurError(f"harmful={harmful!r:.40}", "True, False, or None where nobody has said", "mend it")
