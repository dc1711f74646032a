"""Prompts: sets of our own writing, and one door for everybody else's.

``starter`` gives the two starter sets, ``packaged`` everything of one side that comes with the package, ``load``
reads a file or a public data set, ``save`` writes JSON Lines that ``load`` reads back unchanged, ``distinct`` drops
what comes twice, ``dealt`` puts prompts in an order from which alike parts are cut, ``say_sorted`` warns where the
first of a sorted list are taken, ``digest`` is a SHA-256 over ids and texts.

The starter sets have 120 harmless and 120 harmful requests, one sentence each, twelve in each of ten
categories per set. Topic and form are kept from giving them away: 41 of the harmless requests share
vocabulary with harmful ones (an airport scanner, killing a process; they carry a ``note`` in the file), both
sets have the same share of questions, imperatives and statements, and about the same length. The harmful ones
carry no details; they exist to be refused. ``blunt`` are 120 more of these. ``matched``
are 420 further pairs, each of a harmful and a harmless request with the same form and most of their words; ``everyday``
are 360 harmless requests of the kind that most people have, and ``check`` are 200 more of both harmless kinds, on which
guards are measured.
"""

from demur.prompts.column import values_of
from demur.prompts.columns import (
    ASKED_COLUMNS,
    BEHIND_COLUMNS,
    CONVERSATION_COLUMNS,
    RESPONSE_COLUMNS,
    TEXT_COLUMNS,
)
from demur.prompts.hub import PUBLIC, Public
from demur.prompts.order import say_sorted
from demur.prompts.read import SUFFIXES, Side, Transcript, each_transcript, load, transcripts
from demur.prompts.starters import MORE_SETS, SETS, packaged, starter
from demur.prompts.write import dealt, digest, distinct, save

__all__ = [
    "ASKED_COLUMNS",
    "BEHIND_COLUMNS",
    "CONVERSATION_COLUMNS",
    "MORE_SETS",
    "PUBLIC",
    "RESPONSE_COLUMNS",
    "SETS",
    "SUFFIXES",
    "TEXT_COLUMNS",
    "Public",
    "Side",
    "Transcript",
    "dealt",
    "digest",
    "distinct",
    "each_transcript",
    "load",
    "packaged",
    "save",
    "say_sorted",
    "starter",
    "transcripts",
    "values_of",
]
