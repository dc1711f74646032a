"""A sampler's settings as a client sends them: by name and type, and no larger than anybody needs."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from demur.types import DemurError

LARGEST = 4096
"""The largest whole number of a setting that counts steps or places; token ids may be larger."""
TOKENS = 2**22


def checked(sampler: Any, settings: Mapping[str, Any], named: str) -> dict[str, Any]:
    """The settings as the sampler's fields want them. Raises for an unknown one, and for a value of another type."""
    hints = get_type_hints(type(sampler)) if settings else {}
    known = sorted(name for name in hints if name in vars(sampler))
    made = {}
    for name, value in settings.items():
        shown = name if name.isidentifier() and name.isascii() and len(name) < 40 else "of another name"
        if name not in known:
            raise DemurError(f"the setting {shown} of the sampler {named}", ", ".join(known) or "none", "leave it out")
        hint = hints[name]
        arms = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        if not any(_fits(value, arm) for arm in arms):
            raise DemurError(f"{name} of the sampler {named} with another value", _words(arms), "see docs/samplers.md")
        made[name] = tuple(value) if isinstance(value, list) else value
    return made


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is one of this type."""
    if kind is type(None):
        return value is None
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) in (tuple, list, Sequence):
        return (
            isinstance(value, list)
            and len(value) <= 64
            and all(type(one) is int and 0 <= one < TOKENS for one in value)
        )
    return kind in _PLAIN and _PLAIN[kind](value)


_PLAIN: Mapping[Any, Callable[[Any], bool]] = {
    bool: lambda value: isinstance(value, bool),
    int: lambda value: type(value) is int and 0 <= value <= LARGEST,
    float: lambda value: type(value) in (int, float) and abs(value) <= 1e6,
    str: lambda value: isinstance(value, str) and len(value) <= 64,
}
"""Of plain types, whether a value is one; ``true`` is no number."""


def _words(arms: Sequence[Any]) -> str:
    names = {bool: "true or false", int: f"a whole number from 0 to {LARGEST}", float: "a number", str: "a text"}
    told = []
    for arm in arms:
        if arm is type(None):
            told.append("null")
        elif get_origin(arm) is Literal:
            told += [str(one) for one in get_args(arm)]
        else:
            told.append(names.get(arm, "a list of token ids"))
    return " or ".join(told)
