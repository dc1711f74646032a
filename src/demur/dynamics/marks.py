"""Marks as they are taken everywhere here: true or false, and nothing that NumPy would make true without a word."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from demur.numbers import plain_of
from demur.types import DemurError


def marks_of(given: Any) -> Bool[NDArray[np.bool_], "..."]:
    """Marks as an array of bool, of any shape. Numbers are marks where all are 0 or 1.

    Raises for what is neither, as nan and None, with which a table says that nobody knows: as a bool the one would be
    true and the other false. So would be every text, ``"False"`` too, and every share above 0.
    """
    try:
        found = np.asarray(plain_of(given))
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


def check_one_each(marks: Any, **more: Any) -> None:
    """Raises unless all have one mark a generation, and equally many; what is None is not there."""
    shapes = {"marks": _shape(marks)} | {name: _shape(of) for name, of in more.items() if of is not None}
    if any(len(shape) != 1 or shape != shapes["marks"] for shape in shapes.values()):
        came = ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
        raise DemurError(came, "one mark a generation", "take one step, or count .any(axis=1)")


def _shape(given: Any) -> tuple[int, ...]:
    """The shape of an array or of lists; rows of different lengths are told by :func:`marks_of`."""
    try:
        return np.shape(plain_of(given))
    except ValueError:
        return (len(given),)
