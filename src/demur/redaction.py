"""Hides the content words of a text and leaves its skeleton: function words, refusal words, punctuation.

Views of harmful prompts go through here by default, so that a picture of a jailbreak can be shown in a talk. It is for
the eye of a reader, not a guarantee: who must keep a text secret should not make a page of it.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Protocol

from demur.refusals import PHRASES

BLOCK = "█"

_KEPT = frozenset(
    """
    a about after all also am an and another any are as at be because been before but by can could did do does don't
    else first for from had has have he help her here him his how however i i'd i'll i'm if in instead into is it it's
    its just let like may me might more my no not of on one only or other our out own please request safe say second
    shall she should so some someone something stay step still such that the their them then there these they this
    those three to today too two under understand us use very was we were what when where which while who why will
    with won't would yes you your
    """.split()  # noqa: SIM905
) | frozenset(word for phrase in PHRASES for word in phrase.split())


class Marked(Protocol):
    """What the rule reads of a prompt."""

    @property
    def harmful(self) -> bool | None:
        """None where nobody has said."""
        ...


def hidden(prompt: Marked, show_harmful: bool = False) -> bool:
    """Whether the words of this prompt and of its answer stay hidden: unless it is marked harmless (``harmful`` is
    False), or somebody asks to see them. What nobody has marked may be anything.
    """
    return prompt.harmful is not False and not show_harmful


_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def redact(text: str) -> str:
    """``text`` with every content word replaced by blocks; same number of characters, so offsets stay valid."""

    # Marks belong to their letters, but no pattern of re knows them: vowel signs, accents that stand by themselves.
    letters = "".join("x" if unicodedata.category(sign)[0] == "M" else sign for sign in text)
    shown, end = [], 0
    for match in _WORD.finditer(letters):
        word = text[match.start() : match.end()]
        shown += [text[end : match.start()], word if word.lower().replace("’", "'") in _KEPT else BLOCK * len(word)]
        end = match.end()
    return "".join([*shown, text[end:]])
