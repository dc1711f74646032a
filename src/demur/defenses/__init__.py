"""Defenses: what stands between a model and its user. What they flag is answered with a refusal.

Three kinds, by when they look: a *filter* sees the prompt before anything is generated, a *watch* is a
``Sampler -> Sampler`` (:class:`demur.guards.Watch`), a *review* sees the finished answer. None of these changes
sampling before it acts. A fourth kind does: :class:`DiffuGuard`, another ``Sampler -> Sampler``, refuses nothing itself
and lets the model answer otherwise. What each costs is measured where it runs, in the same run as the undefended
generation.

Where a filter or a review can not judge, because its model answered something that can not be read, say, it stops what
it was asked about: a defense that lets pass what it can not read is switched off by whoever makes it stammer.
"""

from demur.defenses.any_depth import AnyDepth
from demur.defenses.diffuguard import DiffuGuard
from demur.defenses.line import (
    DEFENSES,
    UNREADABLE,
    Filter,
    Line,
    Review,
    check,
    is_active,
    is_calibrated,
    is_guarded,
    line,
    may_be_unreadable,
    names,
    needs_of,
    overhead,
    settings_of,
)
from demur.defenses.moderation import Moderation
from demur.defenses.perplexity import Perplexity
from demur.defenses.self_examine import SelfExamine
from demur.defenses.setup import Setup
from demur.defenses.sri import Offline, Online
from demur.defenses.token_moderation import TokenModeration
from demur.refusals import REFUSAL

__all__ = [
    "DEFENSES",
    "REFUSAL",
    "UNREADABLE",
    "AnyDepth",
    "DiffuGuard",
    "Filter",
    "Line",
    "Moderation",
    "Offline",
    "Online",
    "Perplexity",
    "Review",
    "SelfExamine",
    "Setup",
    "TokenModeration",
    "check",
    "is_active",
    "is_calibrated",
    "is_guarded",
    "line",
    "may_be_unreadable",
    "names",
    "needs_of",
    "overhead",
    "settings_of",
]
