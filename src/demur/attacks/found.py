"""What an attack hands back: an attacked prompt, and for those that search, what it cost."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from demur.kinds import check_kinds, check_prompt, check_text
from demur.refusals import shows_nothing
from demur.types import DemurError, DemurWarning, Prompt

Access = Literal["text", "prefill", "canvas", "logits", "queries"]
"""What an attacker must be able to do: write the request (``text``), begin the answer (``prefill``), fix tokens
anywhere in the answer (``canvas``), read log-probabilities (``logits``), or ask many times and read what comes
(``queries``)."""


@dataclass(frozen=True)
class Found:
    """The best prompt of a search, its score and the queries spent on it.

    ``path`` is the best score so far, in the order of the search; it never falls. What a score means, the attack says.
    ``ended`` says what broke a search off before its end (empty: nothing did); it may have found less than it would.
    ``refused`` queries got no answer since a provider's filter stood before a model: the search went on without it.
    """

    prompt: Prompt
    score: float
    queries: int
    path: tuple[float, ...] = ()
    ended: str = ""
    refused: int = 0


def attacked(prompt: Prompt, name: str, **changes: Any) -> Prompt:
    """The prompt with ``changes``, a new id, the attack's name and the id of the one it was made from.

    Where the id of the old one repeats a word of its request, so that no view says it, and the request in other words
    or letters does not show that any more, the new id begins with what may be shown of it
    (:attr:`demur.types.Prompt.label`). Warns where the beginning of an answer takes the place of another one.
    """
    check_prompt(prompt)
    check_text(name, "the name of an attack")
    begins = changes.get("prefill", "")
    if begins and not begins.startswith(prompt.prefill):
        came = f"attack {name} puts another beginning of the answer in the place of the one that prompts have"
        warnings.warn(f"{came}: that one is not asked", DemurWarning, stacklevel=3)
    made = replace(prompt, id=f"{prompt.id}-{name}", attack=name, parent=prompt.id, **changes)
    hidden = prompt.label != prompt.id and made.label == made.id
    return replace(made, id=f"{prompt.label}-{name}") if hidden else made


def check_settings(attack: Any) -> None:
    """Raises for a setting of an attack that is of another type than its field, and for one that says nothing. A text
    in the place of a list of texts would be read letter by letter.
    """
    settings = {one.name: getattr(attack, one.name) for one in fields(attack)}
    check_kinds(attack, settings, f"attack {attack.name}")
    for setting, value in settings.items():
        check_words(attack.name, setting, value)


def check_words(name: str, setting: str, value: Any) -> None:
    """Raises for a text, or a list of texts, in which nothing can be read: it would be asked as no attack, under an
    attack's name.
    """
    if _says_nothing(value):
        came = f"attack {name!r} with {setting} in which something is empty: it says nothing"
        raise DemurError(came, "words", "leave it out for ours, or leave the attack out")


def _says_nothing(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_says_nothing(part) for part in value) or not value
    return isinstance(value, str) and shows_nothing(value)


def tell_if_left(prompt: Prompt, name: str, how: str, written: str) -> None:
    """Warns where an attack that writes a request in another way has left it as it was, or more than half of its
    letters under a cipher: its rows would be those of the plain request, under the attack's name.
    """
    pairs = [(old, new) for old, new in zip(prompt.text, written, strict=False) if old.isalpha()]
    most = how in CIPHERS and 2 * sum(old == new for old, new in pairs) > len(pairs)
    if prompt.text == written or most:
        came = f"attack {name} ({how}) leaves a request, or most of it, as it was: it has nothing there to change"
        warnings.warn(f"{came}; its answer is one to the plain request", DemurWarning, stacklevel=3)


CIPHERS = ("caesar", "rot13")
"""Codes that write every letter of the English alphabet as another one."""


Knows = Callable[[Sequence[Prompt]], list[float]]
"""How suspicious a monitor finds the answer to each prompt, above 0 where it stops it: what an attacker knows who has
it (:class:`demur.attacks.knowing.Suspicion`)."""
SLACK = 0.5
"""So far below a monitor's limit an attacker has nothing more to gain: the rest of the score is the target's."""


def penalty(knows: Knows | None, prompts: Sequence[Prompt], weight: float) -> list[float]:
    """What a search takes off the scores of prompts: ``weight`` times how far each answer is above (limit - ``SLACK``);
    zeros for a search that knows nothing. It is asked with weight 0 too, so that an observer sees every query.
    """
    return [0.0] * len(prompts) if knows is None else [weight * max(v + SLACK, 0.0) for v in knows(prompts)]
