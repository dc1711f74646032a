"""Settings as they are typed, KEY=VALUE: read by the type that the sampler declares, refused in one line otherwise."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from demur.cli.once import keys_once
from demur.types import DemurError

LARGEST_SEED = 2**62
"""Rows count up from a seed, and torch takes 63 bits."""


def settings_of(items: Sequence[str] | None, sampler: Any, name: str) -> dict[str, Any]:
    """``--set KEY=VALUE`` as values of the types that fields of ``sampler`` (an instance) have.

    Raises for another form, an unknown key, and a value of another type; what a value may be beyond its type is for the
    sampler to say.
    """
    keys_once("--set", items)
    hints = get_type_hints(type(sampler))
    known = [field for field in hints if field in vars(sampler)]
    settings = {}
    for item in items or ():
        key, sign, value = item.partition("=")
        if key not in known or not sign or not value.strip():
            near = get_close_matches(key, known, 1)
            raise DemurError(
                f"--set {item} for the sampler {name}",
                f"KEY=VALUE with a key of {', '.join(sorted(known))}",
                f"did you mean {near[0]}?" if near and near[0] != key else "see docs/samplers.md",
            )
        try:
            settings[key] = _read(value.strip(), hints[key])
        except ValueError as error:
            raise DemurError(f"--set {item}", str(error), "see docs/samplers.md") from None
    return settings


def key_values(option: str, items: Sequence[str] | None) -> dict[str, Any]:
    """``OPTION KEY=VALUE`` as a mapping; a value that is JSON is read as such, any other is a text."""
    keys_once(option, items)
    found: dict[str, Any] = {}
    for item in items or ():
        key, sign, value = item.partition("=")
        if not sign or not key.strip():
            raise DemurError(f"{option} {item}", "KEY=VALUE", f"for example: {option} enable_thinking=false")
        try:
            found[key.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            found[key.strip()] = value
    return found


def check_temperature(temperature: float | None) -> None:
    """Raises for one that is no number of a temperature; a sampler that is not made yet cannot."""
    if temperature is not None and not 0 <= temperature < math.inf:
        raise DemurError(f"--temperature {temperature}", "a finite number, at least 0", "0 is greedy")


def check_alpha(alpha: float, n_calibrate: int | None = None, parts: int = 1) -> None:
    """Raises unless 0 < alpha < 1, and for fewer calibration prompts than its promise needs, before anything is
    generated. ``n_calibrate`` None: there is no promise. ``parts``: so many limits share alpha.
    """
    if not 0 < alpha < 1:
        raise DemurError(f"--alpha {alpha:g}", "a rate between 0 and 1, such as 0.01", "0.01 is one false alarm in 100")
    needed = math.ceil(parts / alpha - 1 - 1e-9)
    if n_calibrate is not None and n_calibrate < needed:
        shared = " (half for the first steps, half for what follows; --upto 0 needs half as many)" if parts > 1 else ""
        raise DemurError(
            f"{n_calibrate} calibration prompts for --alpha {alpha:g}",
            f"at least {needed}{shared}",
            f"--n-calibrate {needed} or more, or a larger --alpha "
            f"(--alpha {parts / (n_calibrate + 1):.2g} needs no more)",
        )


def _read(text: str, hint: Any) -> Any:
    """A value by its declared type. Raises ValueError with what was expected."""
    options = list(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else [hint]
    if type(None) in options and text.lower() in ("none", "null"):
        return None
    for option in options:
        if option is not type(None) and (found := _as(text, option)) is not _NO:
            return found
    raise ValueError(" or ".join(dict.fromkeys(_name(option) for option in options)))


_NO = object()


def _as(text: str, kind: Any) -> Any:
    """The text as a value of one plain type, or ``_NO``."""
    if get_origin(kind) is Literal:
        return text if text in get_args(kind) else _NO
    if get_origin(kind) in (tuple, list, Sequence):
        inner = (get_args(kind) or (str,))[0]
        parts = [_as(part.strip(), inner) for part in text.strip("[]()").split(",") if part.strip()]
        return _NO if any(part is _NO for part in parts) else tuple(parts)
    reader: Callable[[str], Any] = _READERS.get(kind, json.loads)
    try:
        return reader(text)
    except (ValueError, RecursionError):
        return _NO


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "yes", "1", "false", "no", "0"):
        raise ValueError(text)
    return text.lower() in ("true", "yes", "1")


def _int(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:  # the length first: Python refuses to read 5,000 digits
        raise ValueError(text)
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


_READERS: Mapping[Any, Callable[[str], Any]] = {bool: _bool, int: _int, float: _float, str: str}
_NAMES: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    type(None): "none",
}


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) in (tuple, list, Sequence):
        return "whole numbers with commas between them"
    return _NAMES.get(kind, str(kind))
