"""Who speaks for the assistant in its own answer: itself, the service around it, or a part that it plays.

English, in lower case, contractions written out. Pieces of patterns, for :mod:`demur.judges.declining` and
:mod:`demur.judges.turns`.
"""

from __future__ import annotations

import re


def pattern(text: str) -> re.Pattern[str]:
    """A pattern that is written over several lines."""
    return re.compile(text.replace("\n", ""))


SELF = r"""
(?:i|we|this (?:\w+ )?(?:assistant|model|system|service|bot|chatbot|ai|program|tool|chat|platform|site|helpdesk)|
the (?:assistant|model|chatbot|bot|service|system(?! (?:will|does) not (?:let|allow)))|our (?:system|service|
model|platform|team)|an? (?:\w+ )?(?:ai|
assistant|language model|chatbot|bot)(?: (?:like|such as) (?:me|this))?)"""
RULE = r"""
(?:(?:the|our|my|its|their|this) (?:\w+'s |\w+ )?(?:crown|laws?|realm|council|guild|kings?|queen|elders?|
masters?|mistress|
lords?|order|church|abbot|court|state|gods?|rules?|makers?|creators?|developers?|owners?|company|house|kingdom|city|
government|constitution|oath|code)(?: of (?:the |this |our )?\w+)?)"""
"""Who or what may forbid: "the law of the realm", "my masters"."""
PART = r"""
(?:(?:the|thy|your|an?) (?:(?:old|wise|humble|great|good|mighty|ancient|dark) )*(?:oracle|sphinx|wi[sz]ard|witch|
spirits?|
genie|djinn|ghost|dragon|sage|bard|stars|bones|runes|scrolls?|pirate|captain|guardian|gatekeeper|mirror|cards|
crystal ball|
king|queen|knight|elder|monk|priest|seer|prophet|narrator|butler|robot|computer|machine|creature|beast|guide|
storyteller|fairy|goddess|gods?|teacher|master|servant)|this (?:\w+ )?(?!man|woman|way|one|book|method|tool|
medicine|is|was)[a-z]+)"""
"""A part that speaks of itself: "the oracle will not answer". Others are meant as well, so what it will not do has to
be for the one who asks.
"""
