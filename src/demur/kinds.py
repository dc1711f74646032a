"""Settings as they are written by somebody, by the types that are declared for them; what came in the place of another.

A file says ``strict: no`` where it means false, ``steps: true``, or ``"0.5"``: Python would take each of them, as
something else. What a value may be beyond its type is for the part itself to say.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, KeysView, Mapping, Sequence, Set
from contextlib import suppress
from functools import cache
from numbers import Integral, Real
from os import PathLike
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from demur.types import DemurError, Prompt


def check_kinds(part: Any, settings: Mapping[str, Any], called: str) -> None:
    """Raises for a setting of ``part`` (a class, or an object of one) whose value is of another type than its field.

    Only plain types are looked at: true or false, numbers, texts, None, functions, literals and lists of these. Others,
    and parts that declare none, are left to themselves.
    """
    hints = _declared(part if isinstance(part, type) else type(part))
    for name, value in settings.items():
        if name in hints and not fits(value, hints[name]):
            raise DemurError(
                f"{called} with a setting of another kind ({name} {shown(value)})", words(hints[name]), NEXT
            )


def check_is(value: Any, kinds: type | tuple[type, ...], called: str, then: str) -> None:
    """Raises for what is none of these, in the place of what is ``called`` so."""
    if not isinstance(value, kinds):
        raise DemurError(f"{shown(value)} in the place of {called}", called, then)


def check_model(model: Any) -> None:
    """Raises for a name or a path in the place of a model, for a bare network, and for anything else."""
    if isinstance(model, str | PathLike):
        raise DemurError(f"the name {str(model)!r:.80} instead of a model", "a model", "load it: demur.load(name)")
    if isinstance(model, type) or not hasattr(model, "offers"):
        bare = hasattr(model, "parameters") and not isinstance(model, type)
        then = "load it: demur.load(net, tokenizer=tok)" if bare else "load one: demur.load(name)"
        raise DemurError(f"{shown(model)} instead of a model", "a model of demur", then)


def check_text(value: Any, called: str) -> None:
    """Raises for what is no text."""
    check_is(value, str, called, "give it a text")


def check_prompt(value: Any) -> None:
    """Raises for what is no prompt, such as its text or a list of some."""
    check_is(value, Prompt, "a prompt", "make one of a text: demur.Prompt('q1', text); of several, one after the other")


def check_prompts(prompts: Any) -> list[Prompt]:
    """Prompts as a list. Raises for what is none: one prompt, texts, names of columns."""
    if isinstance(prompts, Prompt | str | bytes) or not isinstance(prompts, Iterable) or has_no_order(prompts):
        raise DemurError(f"{shown(prompts)} in the place of prompts", "a list of prompts", "put it into one")
    try:
        found = list(prompts)
    except TypeError as error:  # an array of no dimension can be asked for its parts, and has none
        raise DemurError(f"{shown(prompts)} in the place of prompts", "a list of prompts", "put it into one") from error
    for one in found:
        check_prompt(one)
    return found


def check_seed(seed: Any, least: int = 0, below: int = 2**32) -> None:
    """Raises unless a seed is a whole number from ``least`` to below ``below``, which is what its generator takes."""
    if not fits(seed, int) or not least <= seed < below:
        came = str(seed)[:40] if isinstance(seed, Real) else shown(seed)
        raise DemurError(f"seed={came}", f"a whole number from {least} to {below - 1}", "for example: seed=1")


@cache
def _declared(made: type) -> Mapping[str, Any]:
    """Types of a class's fields, and of what its ``made`` takes, where it has one; nothing where nobody can tell."""
    found: dict[str, Any] = {}
    for declares in (made, getattr(made, "made", None)):
        with suppress(NameError, TypeError, AttributeError):  # of somebody else, with names that are not there at work
            found |= get_type_hints(declares) if declares is not None else {}
    return found


NEXT = "mend it; true and false are no numbers, and a number in quotes is a text"


def shown(value: Any) -> str:
    """A value that came in the place of another: a number, or one short word; of what may be a request its type."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)[:40]
    if isinstance(value, str):
        short = len(value) < 16 and len(value.split()) <= 1
        return repr(value) if short else f"a text of {len(value)} characters"
    return f"a {type(value).__name__}"


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a declared type; true of types that are not plain."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, arm) for arm in inner)
    if origin is Literal:  # which of them, the part says itself
        return any(fits(value, type(one)) for one in inner)
    if origin in (tuple, list, Sequence):
        listed = isinstance(value, list | tuple)
        return listed and all(fits(one, inner[0]) for one in value) if inner else listed
    if origin is Callable:
        return callable(value)
    if hint is None or hint is type(None):
        return value is None
    truth = isinstance(value, bool) or (type(value).__module__, type(value).__name__) in _TRUTHS_OF_NUMPY
    plain = {int: isinstance(value, Integral) and not truth, float: isinstance(value, Real) and not truth}
    plain |= {bool: truth, str: isinstance(value, str)}
    return plain.get(hint, True) if isinstance(hint, type) else True


def has_no_order(value: Any) -> bool:
    """Whether what is given in the place of a list has no order, or rows under names: the keys of a mapping have one,
    the mapping itself is more than they are.
    """
    return isinstance(value, Mapping) or (isinstance(value, Set) and not isinstance(value, KeysView))


_TRUTHS_OF_NUMPY = (("numpy", "bool"), ("numpy", "bool_"))
"""How NumPy 2 and NumPy 1 call the type of true and false."""


def words(hint: Any) -> str:
    """A declared type in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(words(arm) for arm in inner)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (tuple, list, Sequence):
        return "a list"
    if origin is Callable:
        return "a function"
    named = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}
    return named.get(hint, "another value")
