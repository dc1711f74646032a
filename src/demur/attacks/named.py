"""Attacks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from demur.attacks.found import check_words
from demur.kinds import shown
from demur.registry import Registry
from demur.types import Attack, DemurError

ATTACKS = Registry(
    kind="attack",
    group="demur.attacks",
    own={
        "plain": "demur.attacks.text:Plain",
        "suppression": "demur.attacks.text:Suppression",
        "prefix": "demur.attacks.text:Prefix",
        "role": "demur.attacks.text:Role",
        "delay": "demur.attacks.text:Delay",
        "flip": "demur.attacks.text:Flip",
        "encoded": "demur.attacks.encoded:Encoded",
        "translated": "demur.attacks.translated:Translated",
        "many-shot": "demur.attacks.talk:ManyShot",
        "prefill": "demur.attacks.text:Prefill",
        "infill": "demur.attacks.holes:Infill",
        "parallel": "demur.attacks.holes:Parallel",
        "random-search": "demur.attacks.search:RandomSearch",
        "pair": "demur.attacks.pair:Pair",
        "crescendo": "demur.attacks.talk:Crescendo",
    },
    reserved=("wildjailbreak",),  # a recipe takes it for the public set
)
"""Attacks by name. ``infill`` and ``parallel`` need ``mask``, ``random-search`` a model, ``pair`` three callables,
``crescendo`` two, ``translated`` one."""


def settings_of(name: str) -> Mapping[str, inspect.Parameter]:
    """What an attack takes, by its name. Raises for an unknown one, and for what does not say."""
    try:
        return inspect.signature(ATTACKS.get(name)).parameters
    except ValueError as error:  # a builtin
        raise DemurError(f"{name!r} is no attack", "a class with settings", "see docs/extending.md") from error


def make(name: str, **settings: Any) -> Attack:
    """An attack by name. Raises for an unknown name, for settings that it does not have, of another kind, and for
    missing ones.
    """
    cls, known = ATTACKS.get(name), settings_of(name)
    takes = inspect.Signature([*known.values()])
    try:
        takes.bind(**settings)
    except TypeError as error:
        raise DemurError(
            f"attack {name!r} with {', '.join(settings) or 'no settings'} ({error})",
            f"settings out of {', '.join(takes.parameters) or 'none'}",
            "give it those",
        ) from error
    for setting, value in settings.items():
        kind = str(takes.parameters[setting].annotation) if setting in takes.parameters else ""
        if not _KINDS.get(kind, lambda value: True)(value):
            came = f"attack {name!r} with a setting of another kind ({setting} {shown(value)})"
            raise DemurError(came, kind, "mend it")
        check_words(name, setting, value)
    made: Attack = cls(**settings)
    return made


_KINDS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "str | None": lambda value: value is None or isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "Knows | None": lambda value: value is None or callable(value),
    "tuple[str, ...]": lambda value: isinstance(value, list | tuple) and all(isinstance(part, str) for part in value),
}
"""Kinds of settings as they are annotated, and what is one: a recipe's values come as they were written."""
