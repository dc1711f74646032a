"""Units of work: what is generated together, keyed by everything that can change its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from demur.defenses import is_active, may_be_unreadable
from demur.experiment.attacking import is_file, reads_answers, ready_made
from demur.experiment.code import code_of
from demur.experiment.config import PLAIN, Attacked, Config, Defended, Subject, content_of, labelled, substance
from demur.experiment.fitting import length_in_keys, misfit, unfit_of
from demur.experiment.outcomes import asks_the_dictionary, is_own
from demur.experiment.requests import digests_of, prompts_of
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
    under the same attacks. What an attack or a defense can not be tried on is left out: see
    :func:`demur.experiment.fitting.left_out`. Raises for one that fits no subject.
    """
    if unfit := unfit_of(config):
        name, why = next(iter(unfit.items()))
        what = "defense" if any(defense.label == name for defense in config.defenses) else "attack"
        raise DemurError(f"{what} {name}: {why}", "a subject that it fits", f"add one, or leave the {what} out")
    shared: dict[str, Any] = {
        "format": FORMAT,
        "prompts": content_of(config.prompts),
        "steps": config.steps,
        "batch": config.batch,  # rounding depends on it, in the last digits of sigma
        "judge": config.judge,
        "alpha": config.alpha,
        "digests": digests_of(config.prompts),
    }
    shared |= {name: value for name, value in content_of(config).items() if name in ("detector", "signal", "fields")}
    if config.intermediate:
        shared["intermediate"] = config.intermediate
    if asks_the_dictionary(config):
        shared["thoughts alone"] = "unscored"  # in version 0.1.0 they counted as an answer
    if config.prompts.shapes:
        shared["shapes"] = [asdict(attack) for attack in config.in_own_words]
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
                        mine = shared | {"length": length_in_keys(config, subject)}
                        found.append(_keyed(unit, mine | {"file": content} if content else mine))
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


def _asked(config: Config) -> Sequence[tuple[Attacked, Role, int, str]]:
    """Attack, role, number of prompts, and for a file of attacked prompts a hash of what it holds."""
    plain = Attacked(PLAIN)
    of = config.prompts
    asked: list[tuple[Attacked, Role, int, str]] = [
        (plain, "harmful", of.n, ""),
        (plain, "plain", of.plain or max(of.controls, 1), ""),
    ]
    attacks = [attack for attack in config.attacks if not attack.plain]
    for attack in attacks:
        if is_file(attack.name):
            ready = ready_made(attack, prompts_of(of, "harmful"))[: of.n]
            text = json.dumps([prompt.plain() for prompt in ready])
            asked.append((attack, "harmful", len(ready), hashlib.sha256(text.encode()).hexdigest()))
        else:
            asked.append((attack, "harmful", of.n, ""))
    if config.prompts.controls:  # files of attacked prompts have no harmless side; a search for harm finds none on one
        plainly = [attack for attack in attacks if not is_file(attack.name) and not reads_answers(attack)]
        asked += [(attack, "controls", of.controls, "") for attack in plainly]
    return asked


def _keyed(unit: Unit, shared: Mapping[str, Any]) -> Unit:
    content = content_of(unit) | {"shared": shared}
    if may_be_unreadable(unit.defense.name):
        content["unreadable"] = "stopped"  # such answers passed in version 0.1.0
    if is_active(unit.defense.name) and is_own(shared["judge"]):
        content["stopped"] = "refusal"  # before, the judge was asked about the refusal behind an attack's beginning
    if code := code_of(content):
        content["code"] = code
    if unit.attack.label != labelled(unit.attack.name, unit.attack.settings):
        # Rows of before have the words in the attack's name, and pair with none of these.
        content["called"] = "texts by hash"
    content["attack"]["settings"] = substance(content["attack"]["settings"])
    key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return replace(unit, key=key)
