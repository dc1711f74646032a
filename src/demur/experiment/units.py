"""Units of work: what is generated together, keyed by everything that can change its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from demur.experiment.config import Attacked, Config, Defended, Subject
from demur.experiment.parts import prompts_of
from demur.prompts import digest

Role = Literal["harmful", "controls", "plain"]
FORMAT = 1
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
        return f"{self.subject.name}: {self.attack.name}, {self.role}, {self.defense.name}, {self.begin} to {self.end}"


def units_of(config: Config) -> list[Unit]:
    """Every unit of an experiment, undefended ones first, in a fixed order.

    Harmful requests are asked plainly and under every attack; harmless ones plainly (false positives) and, as controls,
    under the same attacks.
    """
    digests = {role: digest(prompts_of(config.prompts, role)) for role in ("harmful", "controls", "plain")}
    shared = {
        "format": FORMAT,
        "prompts": asdict(config.prompts),
        "length": config.length,
        "steps": config.steps,
        "batch": config.batch,  # rounding depends on it, in the last digits of sigma
        "judge": config.judge,
        "alpha": config.alpha,
        "digests": digests,
    }
    if config.prompts.shapes:
        shared["shapes"] = [asdict(attack) for attack in config.attacks]
    found = []
    for defense in config.defenses:
        for subject in config.subjects:
            for seed in config.seeds:
                for attack, role, n in _asked(config):
                    for begin in range(0, n, config.chunk):
                        unit = Unit(subject, attack, defense, role, seed, begin, min(begin + config.chunk, n))
                        found.append(_keyed(unit, shared))
    return found


def _asked(config: Config) -> Sequence[tuple[Attacked, Role, int]]:
    plain = Attacked("plain")
    attacks = [attack for attack in config.attacks if attack.name != "plain"]
    asked: list[tuple[Attacked, Role, int]] = [(plain, "harmful", config.prompts.n)]
    asked.append((plain, "plain", max(config.prompts.controls, 1)))
    asked += [(attack, "harmful", config.prompts.n) for attack in attacks]
    if config.prompts.controls:
        asked += [(attack, "controls", config.prompts.controls) for attack in attacks if not _is_file(attack.name)]
    return asked


def _is_file(name: str) -> bool:
    """Files of attacked prompts have no harmless side."""
    return name.endswith((".jsonl", ".csv", ".json"))


def _keyed(unit: Unit, shared: object) -> Unit:
    content = asdict(unit) | {"shared": shared}
    key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return Unit(**{name: getattr(unit, name) for name in unit.__dataclass_fields__ if name != "key"}, key=key)
