"""Attacks: instruments to measure defenses with. An attack makes an attacked prompt of a prompt.

An attack is a frozen dataclass with settings; called on a prompt it returns one with ``attack`` set to its name,
``parent`` to the original's id, and everything else that it does not attack unchanged. ``access`` says what an attacker
must be able to do. The request always comes from whoever measures; no harmful corpus stands here, and nothing was
tuned on any model or prompt.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from demur.attacks.found import Access, Found, attacked
from demur.attacks.holes import Infill, Parallel, canvas_for, mask_of
from demur.attacks.pair import Pair, chat_by, rating_by
from demur.attacks.request import opening_of, task_of
from demur.attacks.search import RandomSearch
from demur.attacks.text import Flip, Plain, Prefill, Prefix, Role, Suppression, flipped
from demur.types import Attack, DemurError

__all__ = [
    "ATTACKS",
    "Access",
    "Flip",
    "Found",
    "Infill",
    "Pair",
    "Parallel",
    "Plain",
    "Prefill",
    "Prefix",
    "RandomSearch",
    "Role",
    "Suppression",
    "attacked",
    "canvas_for",
    "chat_by",
    "flipped",
    "make",
    "mask_of",
    "opening_of",
    "rating_by",
    "task_of",
]

ATTACKS: dict[str, Callable[..., Attack]] = {
    "plain": Plain,
    "suppression": Suppression,
    "prefix": Prefix,
    "role": Role,
    "flip": Flip,
    "prefill": Prefill,
    "infill": Infill,
    "parallel": Parallel,
    "random-search": RandomSearch,
    "pair": Pair,
}
"""Attacks by name. ``infill`` and ``parallel`` need ``mask``, ``random-search`` a model, ``pair`` three callables."""


def make(name: str, **settings: Any) -> Attack:
    """An attack by name. Raises for an unknown name, for settings that it does not have, of another kind, and for
    missing ones.
    """
    if name not in ATTACKS:
        near = difflib.get_close_matches(name, ATTACKS, n=1)
        raise DemurError(
            f"attack {name!r}", ", ".join(ATTACKS), f"did you mean {near[0]!r}?" if near else "name one of these"
        )
    takes = inspect.signature(ATTACKS[name])
    try:
        takes.bind(**settings)
    except TypeError as error:
        raise DemurError(
            f"attack {name!r} with {', '.join(settings) or 'no settings'} ({error})",
            f"settings out of {', '.join(takes.parameters) or 'none'}",
            "give it those",
        ) from error
    for setting, value in settings.items():
        kind = str(takes.parameters[setting].annotation)
        if not _KINDS.get(kind, lambda value: True)(value):
            raise DemurError(f"attack {name!r} with a setting of another kind ({setting} {value!r})", kind, "mend it")
    return ATTACKS[name](**settings)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "str | None": lambda value: value is None or isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "tuple[str, ...]": lambda value: isinstance(value, list | tuple) and all(isinstance(part, str) for part in value),
}
"""Kinds of settings as they are annotated, and what is one: a recipe's values come as they were written."""
