"""Marks as they are taken everywhere here: true or false, and nothing that NumPy would make true without a word."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from demur.types import DemurError


def marks_of(given: Any) -> Bool[NDArray[np.bool_], "..."]:
    """Marks as an array of bool, of any shape. Numbers are marks where all are 0 or 1.

    Raises for what is neither, as nan and None, with which a table says that nobody knows: as a bool the one would be
    true and the other false. So would be every text, ``"False"`` too, and every share above 0.
    """
    try:
        found = np.asarray(given)
    except ValueError as error:
        raise _unmarked("rows of different lengths") from error
    if found.dtype == bool or not found.size:
        return found.astype(bool)
    odd = next((value for value in found.flat if not _is_mark(value)), None) if found.dtype.kind == "O" else None
    if found.dtype.kind in "iuf":
        wrong = found[(found != 0) & (found != 1)]
        if not wrong.size:
            return found.astype(bool)
        odd = wrong.flat[0]
    elif found.dtype.kind == "O" and all(map(_is_mark, found.flat)):
        return found.astype(bool)
    what = "text" if found.dtype.kind in "US" or isinstance(odd, str) else str(odd)[:40]
    raise _unmarked(what)


def _is_mark(value: Any) -> bool:
    return isinstance(value, bool | np.bool_) or (isinstance(value, int | float | np.number) and value in (0, 1))


def _unmarked(what: str) -> DemurError:
    return DemurError(
        f"marks that hold {what}",
        "true or false for each",
        "leave out what nobody could say, or count it apart: Rate.of(marks, scored=...)",
    )
