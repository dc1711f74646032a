"""Arrays of numbers, and signals, from outside: read as they are, or refused in one line. Without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.types import DemurError

_OVER = 1e-6
"""So much may rounding lead out of [0, 1]."""


def plain_of(given: Any) -> Any:
    """What was given, a tensor of torch as NumPy can take it: bf16 and fp8, which NumPy lacks, become fp32."""
    if hasattr(given, "detach"):  # a tensor of torch, which need not be imported to know one
        given = given.detach().cpu()
        given = given.float() if given.is_floating_point() and given.element_size() < 8 else given
        return given.numpy()
    if isinstance(given, list | tuple) and any(hasattr(part, "detach") for part in given):
        return [plain_of(part) for part in given]
    return given


def numbers_of(name: str, given: Any) -> NDArray[Any]:
    """What was given as an array that NumPy can count with. Raises for what is no array of real numbers, and for one
    with masked values, which NumPy would read as if they were none.
    """
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        raise DemurError(f"{name} with masked values", "numbers", "fill them, or leave these rows out")
    try:
        array = np.asarray(plain_of(given))
        return array if array.dtype.kind in "fiu" else array.astype(np.float64, casting="same_kind")
    except (TypeError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:100]
        raise DemurError(
            f"{name} is no array of numbers ({type(given).__name__}: {said})",
            "real numbers, in rows of one length",
            "give it an array, a tensor or nested lists",
        ) from error


def signals_of(given: Any, *, name: str = "sigma", unknown: bool = False) -> Float[NDArray[np.float64], "n T"]:
    """Signals, one a row, one value a step, each in [0, 1]; no signals at all are an array of no rows.

    Raises for another number of dimensions, for signals without a step, for values outside [0, 1], for what is not
    finite (with ``unknown``, nan may stand for what nobody knows), and for marks (true or false), which are no signal.
    """
    found = numbers_of(name, given)
    if _marks(given):
        raise DemurError(f"{name} of true and false", "values in [0, 1], one a step", "give the signals, not the marks")
    found = np.asarray(found, dtype=np.float64)
    if found.ndim != 2 or not found.shape[1]:
        then = "stack the signals: np.stack([anchors.signal(trace), ...])" if found.ndim < 2 else "take one layer's"
        raise DemurError(f"{name} of shape {found.shape}", "signals by steps, with at least one step", then)
    known = np.isfinite(found)
    if not (known | (np.isnan(found) & unknown)).all():
        rows = int((~known).any(axis=1).sum())
        then = "leave these generations out, and count them apart"
        raise DemurError(f"{name} of which {rows} of {len(found)} rows are not finite", "finite values", then)
    if (wrong := found[known & ((found < -_OVER) | (found > 1 + _OVER))]).size:
        then = "a signal is no score, no share of a hundred and no logit; sigma is made by anchors.signal(trace)"
        raise DemurError(f"{name} with the value {wrong[0]:.4g}", "values in [0, 1]", then)
    signals: Float[NDArray[np.float64], "n T"] = np.clip(found, 0.0, 1.0)
    return signals


def _marks(given: Any) -> bool:
    """Whether an array, or nested lists, hold true and false alone."""
    try:
        return np.asarray(plain_of(given)).dtype.kind == "b"
    except (TypeError, ValueError, RuntimeError):
        return False
