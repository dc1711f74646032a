"""Attacks: instruments to measure defenses with. An attack makes an attacked prompt of a prompt.

An attack is a frozen dataclass with settings; called on a prompt it returns one with ``attack`` set to its name,
``parent`` to the original's id, and everything else that it does not attack unchanged. ``access`` says what an attacker
must be able to do. The request always comes from whoever measures; no harmful corpus stands here, and nothing was
tuned on any model or prompt.
"""

from demur.attacks.encoded import Encoded, encoded
from demur.attacks.found import Access, Found, attacked
from demur.attacks.holes import Infill, Parallel, canvas_for, mask_of
from demur.attacks.named import ATTACKS, make, settings_of
from demur.attacks.pair import Pair, chat_by, rating_by
from demur.attacks.request import opening_of, task_of
from demur.attacks.search import RandomSearch
from demur.attacks.talk import Crescendo, ManyShot
from demur.attacks.text import Delay, Flip, Plain, Prefill, Prefix, Role, Suppression, flipped
from demur.attacks.translated import Translated

__all__ = [
    "ATTACKS",
    "Access",
    "Crescendo",
    "Delay",
    "Encoded",
    "Flip",
    "Found",
    "Infill",
    "ManyShot",
    "Pair",
    "Parallel",
    "Plain",
    "Prefill",
    "Prefix",
    "RandomSearch",
    "Role",
    "Suppression",
    "Translated",
    "attacked",
    "canvas_for",
    "chat_by",
    "encoded",
    "flipped",
    "make",
    "mask_of",
    "opening_of",
    "rating_by",
    "settings_of",
    "task_of",
]
