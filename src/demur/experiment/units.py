"""Units of work: what is generated together, keyed by everything that can change its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from demur.defenses import is_active
from demur.experiment.config import Attacked, Config, Defended, Subject, content_of, substance
from demur.experiment.parts import digests_of, is_file, misfit, prompts_of, ready_made
from demur.types import DemurError

Role = Literal["harmful", "controls", "plain"]
FORMAT = 4
"""Counts changes of what rows mean; part of every key, so that old units are done again."""


@dataclass(frozen=True)
class Unit:
    """Some prompts of one role, under one attack, by one subject, behind one defense, with one seed."""

    subject: Subject
    attack: Attacked
    defense: Defended
    role: Role
    seed: int
    begin: int
    end: int
    key: str = ""

    @property
    def name(self) -> str:
        """For progress and errors."""
        return (
            f"{self.subject.name}: {self.attack.label}, {self.role}, {self.defense.label}, {self.begin} to {self.end}"
        )

    @property
    def passive(self) -> bool:
        """Whether its defense leaves the generation as it is: it looks at prompts, or at finished answers."""
        return not is_active(self.defense.name)


def units_of(config: Config) -> list[Unit]:
    """Every unit of an experiment, undefended ones first, in a fixed order.

    Harmful requests are asked plainly and under every attack; harmless ones plainly (false positives) and, as controls,
    under the same attacks. What an attack or a defense can not be tried on is left out: see :func:`left_out`. Raises
    for one that fits no subject.
    """
    if unfit := unfit_of(config):
        name, why = next(iter(unfit.items()))
        what = "defense" if any(defense.label == name for defense in config.defenses) else "attack"
        raise DemurError(f"{what} {name}: {why}", "a subject that it fits", f"add one, or leave the {what} out")
    shared = {
        "format": FORMAT,
        "prompts": content_of(config.prompts),
        "length": config.length,
        "steps": config.steps,
        "batch": config.batch,  # rounding depends on it, in the last digits of sigma
        "judge": config.judge,
        "alpha": config.alpha,
        "digests": digests_of(config.prompts),
    }
    if config.intermediate:
        shared["intermediate"] = config.intermediate
    if config.prompts.shapes:
        shared["shapes"] = [asdict(attack) for attack in config.attacks if attack.name.startswith("organism/")]
    found = []
    asked = _asked(config)
    for defense in config.defenses:
        for subject in config.subjects:
            if misfit(subject, defense):
                continue
            for seed in config.seeds:
                for attack, role, n, content in asked:
                    if misfit(subject, attack):
                        continue
                    for begin in range(0, n, config.chunk):
                        unit = Unit(subject, attack, defense, role, seed, begin, min(begin + config.chunk, n))
                        found.append(_keyed(unit, shared | {"file": content} if content else shared))
    labels = [attack.label for attack in config.attacks]
    if len({unit.key for unit in found}) < len(found) or len({*labels}) < len(labels):
        raise DemurError("an attack, a defense, a subject or a seed twice", "each once", "leave one of the two out")
    return found


def bundles_of(units: Iterable[Unit]) -> list[tuple[Unit, ...]]:
    """Units that are done together: the same prompts behind passive defenses, which share their answers. Each active
    defense needs answers of its own.
    """
    found: dict[str, list[Unit]] = {}
    for unit in units:
        content = content_of(replace(unit, defense=Defended(), key=""))
        found.setdefault(json.dumps(content, sort_keys=True) if unit.passive else unit.key, []).append(unit)
    return [tuple(bundle) for bundle in found.values()]


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


def _asked(config: Config) -> Sequence[tuple[Attacked, Role, int, str]]:
    """Attack, role, number of prompts, and for a file of attacked prompts a hash of what it holds."""
    plain = Attacked("plain")
    of = config.prompts
    asked: list[tuple[Attacked, Role, int, str]] = [
        (plain, "harmful", of.n, ""),
        (plain, "plain", of.plain or max(of.controls, 1), ""),
    ]
    attacks = [attack for attack in config.attacks if attack.name != "plain"]
    for attack in attacks:
        if is_file(attack.name):
            ready = ready_made(attack, prompts_of(of, "harmful"))[: of.n]
            text = json.dumps([prompt.plain() for prompt in ready])
            asked.append((attack, "harmful", len(ready), hashlib.sha256(text.encode()).hexdigest()))
        else:
            asked.append((attack, "harmful", of.n, ""))
    if config.prompts.controls:  # files of attacked prompts have no harmless side, PAIR no success on one
        plainly = [attack for attack in attacks if not is_file(attack.name) and attack.name != "pair"]
        asked += [(attack, "controls", of.controls, "") for attack in plainly]
    return asked


def _keyed(unit: Unit, shared: object) -> Unit:
    content = content_of(unit) | {"shared": shared}
    if set(unit.defense.name.split("+")) & {"moderation", "self-examine"}:
        content["unreadable"] = "stopped"  # such answers passed in version 0.1.0
    content["attack"]["settings"] = substance(content["attack"]["settings"])
    key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return Unit(**{name: getattr(unit, name) for name in unit.__dataclass_fields__ if name != "key"}, key=key)
