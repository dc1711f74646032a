"""What fits what, before any model is loaded: attacks and defenses by what they need and what a subject offers.

Where nobody knows a model before it is loaded, everything is taken to fit; loading says the rest.
"""

from __future__ import annotations

from demur import samplers, worlds
from demur.defenses import needs_of as needs_of_defense
from demur.experiment.attacking import needs_of as needs_of_attack
from demur.experiment.config import Attacked, Config, Defended, Subject
from demur.models import family_at
from demur.types import Need, missing

EVERYTHING = frozenset(Need)


def check_sampler(subject: Subject) -> None:
    """Raises for a sampler that is none, that its model's family can't be run with, or that does not take a setting."""
    family = family_at(subject.model)
    called = f"the {family.kind} model {subject.model}" if family is not None else subject.model
    offers = family.offers if family is not None else EVERYTHING
    samplers.check(subject.sampler, offers, called, subject.settings)


def misfit(subject: Subject, part: Attacked | Defended) -> str:
    """Why an attack, or a defense, can not be tried on a subject; empty if it can, or if nobody knows before the model
    is loaded.
    """
    is_attack = isinstance(part, Attacked)
    needs = needs_of_attack(part) if isinstance(part, Attacked) else needs_of_defense(part.name, part.settings)
    family = family_at(subject.model)
    if family is not None and (lacking := missing(needs, family.offers)):
        return f"a {family.kind} model has no {lacking}"
    if not is_attack and (lacking := missing(needs, EVERYTHING - _taken(subject))):
        return f"under the sampler {subject.label} there is no {lacking}"
    return ""


def _taken(subject: Subject) -> frozenset[Need]:
    """What a model offers and a subject's sampler does not let a defense use: with one place a block there is nothing
    to choose among, and nothing to repair.
    """
    if not subject.sampler:
        return frozenset()
    sampler = samplers.SAMPLERS[subject.sampler](**subject.settings)
    in_order = getattr(sampler, "block_length", None) == 1
    return frozenset({Need.REMASK}) if in_order else frozenset()


def length_in_keys(config: Config, subject: Subject) -> int | str:
    """The length of answers as keys hold it: 0 where the recipe says none and it is T or 128, as in version 0.1.0 for
    every model; a word where it is the model's own now, so that what was done with another length is done again.
    """
    return config.length or ("the model's" if _has_own_length(subject) else 0)


def _has_own_length(subject: Subject) -> bool:
    """Whether a world, or a canvas of the model, says how long answers are."""
    if world := worlds.of_model(subject.model):
        return worlds.named(world).length is not None
    family = family_at(subject.model)
    return family is not None and Need.RENOISE in family.offers


def left_out(config: Config) -> list[str]:
    """What is not tried, one line for each attack or defense and the reason it has: attacks that leave holes in the
    answer on models without a mask token, and the like.
    """
    lines = []
    parts: tuple[Attacked | Defended, ...] = (*config.attacks, *config.defenses)
    for part in parts:
        why: dict[str, list[str]] = {}
        for subject in config.subjects:
            if reason := misfit(subject, part):
                why.setdefault(reason, []).append(subject.name)
        lines += [f"{part.label} on {' and '.join(names)} ({reason})" for reason, names in why.items()]
    return lines


def unfit_of(config: Config) -> dict[str, str]:
    """Attacks and defenses that fit no subject, by label, with the reason of the first."""
    parts: tuple[Attacked | Defended, ...] = (*config.attacks, *config.defenses)
    reasons = {part.label: [misfit(subject, part) for subject in config.subjects] for part in parts}
    return {name: every[0] for name, every in reasons.items() if all(every)}
