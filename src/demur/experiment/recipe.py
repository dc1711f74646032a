"""An experiment from one YAML file, read strictly; every mistake is named with its line.

What a recipe may say is listed on one page, docs/experiments.md; a test holds that page and these lists together.
The file is long because every key has its own errors, and they are read in one place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

from demur import worlds
from demur.defenses import check, is_calibrated, is_guarded
from demur.experiment.asking import judge_of
from demur.experiment.attacking import PUBLIC as ATTACKED
from demur.experiment.attacking import attack_names, check_settings, is_file, is_known, is_public, reads_answers
from demur.experiment.config import (
    ASKED,
    DTYPES,
    JUDGES,
    SIDES,
    Attacked,
    Config,
    Defended,
    Prompts,
    Side,
    Subject,
    folder_name,
)
from demur.experiment.fitting import check_sampler, unfit_of
from demur.experiment.places import beside, missing, notes
from demur.experiment.yamlfile import Nodes, composed
from demur.guards.detectors import named as detector_named
from demur.judges import JUDGES as RULES
from demur.judges import judge_named
from demur.kinds import check_is
from demur.prompts import MORE_SETS, PUBLIC, SETS
from demur.registry import near
from demur.signals.anchors import SIGNALS
from demur.traces import fields_named
from demur.types import DemurError

KEYS = (
    "name", "models", "prompts", "attacks", "defenses", "judge", "seeds", "length", "steps", "chunk", "batch", "alpha",
    "detector", "signal", "fields",
)  # fmt: skip
"""Keys of a recipe."""
MODEL_KEYS = ("name", "samplers", "dtype", "template_args")
"""Keys of a model that is more than a name."""
SIZES = {
    "n": 1, "controls": 0, "plain": 0, "anchors": 8, "harmful_anchors": 8, "fit": 32, "calibrate": 8, "shapes": 0,
}  # fmt: skip
"""Sizes under ``prompts``, and the least that each may be."""
MAY_BE_NONE = ("harmful_anchors", "fit", "calibrate")
"""Sizes that may be 0 too: ``harmful_anchors`` for as many as ``anchors``, the others where no defense needs them."""
PROMPTS_KEYS = (*SIDES, "columns", *SIZES)
"""Keys under ``prompts``."""
FROM_HERE = "a path from the folder in which demur is started"
WHOLE = "see a whole one: demur recipe organism"


def read(path: str | Path) -> Config:
    """Reads and checks a file. Raises, with the line, for anything that is not as it should be."""
    check_is(path, (str, os.PathLike), "the path of a recipe", "see a whole one: demur recipe organism")
    source = Path(path)
    root = composed(source, WHOLE)
    if root is None:
        raise DemurError(f"{source} is empty", "name, models, prompts, attacks ...", WHOLE)
    try:
        return _Reader(source, WHOLE).config(root)
    except RecursionError as error:  # an alias inside of what it stands for
        raise DemurError(f"{source} holds a part of itself", "a recipe", WHOLE) from error


def notes_on(path: str | Path, config: Config) -> list[str]:
    """What must be said of a recipe that was read: its files and folders are looked for from the current folder, and
    beside the recipe lies another one of that name; and what it sets of a guard that it does not fit.
    """
    named = [name for name in (config.prompts.harmful, config.prompts.harmless) if _is_source(name)]
    named += [attack.name for attack in config.attacks if is_file(attack.name) and not is_public(attack.name)]
    asked = [str(part.settings.get("model", "")) for part in config.defenses]
    models = [*(subject.model for subject in config.subjects), *asked]
    found = notes(Path(path), [*named, *(name for name in models if not worlds.of_model(name))])
    return found + ([] if config.guarded else _of_no_guard(config))


def _of_no_guard(config: Config) -> list[str]:
    """What a recipe sets of a guard, where no defense needs one and no prompts to fit it on are named."""
    calibrated = any(is_calibrated(defense.name) for defense in config.defenses)  # these need an alpha as well
    idle = {"detector": config.detector != Config.detector, "alpha": config.alpha != Config.alpha and not calibrated}
    named = " and ".join(name for name, is_set in idle.items() if is_set)
    why = "no guard is fitted, and no row has a score; for one, name fit and calibrate under prompts"
    return [f"{named} {'do' if all(idle.values()) else 'does'} nothing: {why}"] if named else []


def _is_source(name: str) -> bool:
    """Whether a side of the prompts is a file: no set, world or hub id."""
    return not (name in (*SETS, *MORE_SETS, *PUBLIC) or worlds.is_world(name) or name.startswith("hf:"))


class _Reader(Nodes):
    """What a recipe may say."""

    def config(self, root: Any) -> Config:
        """The whole file."""
        of = self.mapping(root, KEYS, "the experiment")
        for needed in ("name", "models", "prompts"):
            if needed not in of:
                raise self.wrong(root, f"no {needed!r}", f"name, models and prompts; here are {', '.join(of)}")
        subjects = tuple(s for group in self.several(of["models"], "models", self.subjects) for s in group)
        if len({subject.name for subject in subjects}) < len(subjects):
            raise self.wrong(of["models"], "one model under one sampler twice", "each once, whatever its dtype")
        config = Config(self.name(of["name"]), subjects, self.prompts(of["prompts"]))
        if "attacks" in of:
            config = replace(config, attacks=self.several(of["attacks"], "attacks", self.attack))
            self.fitting(of["attacks"], "attack", config.attacks, config)
            self.apart(of["attacks"], config)
        if "defenses" in of:
            config = replace(config, defenses=self.several(of["defenses"], "defenses", self.defense))
            self.fitting(of["defenses"], "defense", config.defenses, config)
        if "judge" in of:
            config = self.judge(of["judge"], config)
        if "seeds" in of:
            config = replace(config, seeds=self.several(of["seeds"], "seeds", lambda n: self.number(n, "a seed", 0)))
        for name, least in (("length", 1), ("steps", 1), ("chunk", 1)):
            if name in of:
                value: Any = self.number(of[name], name, least)
                config = replace(config, **{name: value})
        if "alpha" in of:
            alpha = self.plain(of["alpha"])
            if not isinstance(alpha, float) or not 0 < alpha < 1:
                raise self.wrong(of["alpha"], f"alpha is {alpha!r}", "a number between 0 and 1")
            config = replace(config, alpha=alpha)
        config = self.only_used(of["prompts"], self.looked_up(of, config))
        calibrated = config.guarded or any(is_calibrated(defense.name) for defense in config.defenses)
        if calibrated and config.prompts.calibrate + 1 < 1 / config.alpha:
            came = f"calibrate {config.prompts.calibrate} for alpha {config.alpha:g}"
            raise self.wrong(of["prompts"], came, f"at least {ceil(1 / config.alpha) - 1}, or a larger alpha")
        return config

    def only_used(self, node: Any, config: Config) -> Config:
        """Asks for no prompts that no row uses, unless the recipe names their number. Raises where it names none of
        those that a defense needs.
        """
        named = self.mapping(node, PROMPTS_KEYS, "prompts")
        prompts = config.prompts
        guarded = [defense.name for defense in config.defenses if is_guarded(defense.name)]
        calibrated = [defense.name for defense in config.defenses if is_calibrated(defense.name)]
        if not guarded and "fit" not in named:
            prompts = replace(prompts, fit=0)
        if not (prompts.fit or calibrated) and "calibrate" not in named:
            prompts = replace(prompts, calibrate=0)
        if guarded and not prompts.fit:
            raise self.wrong(named["fit"], f"fit 0 with the defense {guarded[0]}", "at least 32, to fit its guard on")
        controlled = any(not (a.plain or is_file(a.name) or reads_answers(a)) for a in config.attacks)
        if prompts.plain and not controlled and "controls" not in named:
            prompts = replace(prompts, controls=0)
        return replace(config, prompts=prompts)

    def looked_up(self, of: dict[str, Any], config: Config) -> Config:
        """What has a name: the guard's detector and signal, the fields of traces, and the batch that memory decides."""
        if "batch" in of:
            auto = self.plain(of["batch"]) == "auto"
            config = replace(config, batch="auto" if auto else self.number(of["batch"], "batch", 1))
        if "detector" in of:
            config = replace(config, detector=self.part(of["detector"], detector_named))
        if "signal" in of:
            signal = self.text(of["signal"], "a name")
            if signal not in SIGNALS:
                raise self.wrong(of["signal"], f"signal is {signal!r}", " or ".join(SIGNALS))
            config = replace(config, signal=signal)
        if "fields" in of:
            config = replace(config, fields=self.several(of["fields"], "fields", lambda n: self.part(n, fields_named)))
        return config

    def part(self, node: Any, look_up: Callable[..., object]) -> str:
        """The name of a part that can be found. Raises at its line for one that can not."""
        name = self.text(node, "a name")
        try:
            look_up(name)
        except DemurError as error:
            raise self.wrong(node, error.came, error.expected) from error
        return name

    def name(self, node: Any) -> str:
        """A run's name, which is that of its folder."""
        name = self.text(node, "name")
        if reason := folder_name(name):
            raise self.wrong(node, f"name is {name!r}", f"the name of a folder: {reason}")
        return name

    def subjects(self, node: Any) -> tuple[Subject, ...]:
        """One model under one or several samplers."""
        if node.id == "scalar":
            return (Subject(self.text(node, "a model")),)
        of = self.mapping(node, MODEL_KEYS, "a model")
        if "name" not in of:
            raise self.wrong(node, "a model without a name", "name: ...")
        base = Subject(self.text(of["name"], "a model's name"))
        if "dtype" in of:
            if (dtype := self.text(of["dtype"], "dtype")) not in DTYPES:
                raise self.wrong(of["dtype"], f"dtype {dtype!r}{near(dtype, DTYPES)}", ", ".join(DTYPES))
            base = replace(base, dtype=dtype)
        if "template_args" in of:
            arguments = self.plain(of["template_args"])
            if not isinstance(arguments, dict) or not all(isinstance(name, str) for name in arguments):
                raise self.wrong(of["template_args"], "template_args is no mapping", "such as {enable_thinking: false}")
            try:
                json.dumps(arguments)
            except (TypeError, ValueError) as error:  # a date, say
                expected = "texts, numbers, lists and mappings; a date in quotes"
                raise self.wrong(of["template_args"], "template_args hold no plain data", expected) from error
            base = replace(base, template_args=arguments)
        if "samplers" not in of:
            return (base,)

        def one(item: Any) -> Subject:
            name, settings = self.named(item, "a sampler")
            made = replace(base, sampler=name, settings=settings)
            try:
                check_sampler(made)
            except DemurError as error:
                raise self.wrong(item, error.came, error.expected) from error
            return made

        return self.several(of["samplers"], "samplers", one)

    def prompts(self, node: Any) -> Prompts:
        """Sources and sizes."""
        of = self.mapping(node, PROMPTS_KEYS, "prompts")
        found = Prompts()
        for side in SIDES:
            if side in of:
                source: Any = self.text(of[side], side)
                if _is_source(source) and not Path(source).exists() and beside(self.path, source):
                    raise self.wrong(of[side], missing(self.path, source), FROM_HERE)
                found = replace(found, **{side: source})
        for name, least in SIZES.items():
            if name in of:
                none = name in MAY_BE_NONE and self.plain(of[name]) == 0
                size: Any = 0 if none else self.number(of[name], name, least)
                found = replace(found, **{name: size})
        if "columns" in of:
            found = replace(found, columns=self.columns(of["columns"], found))
        of_worlds = [source for source in (found.harmful, found.harmless) if worlds.is_world(source)]
        if of_worlds and found.harmful != found.harmless:
            came = f"harmful {found.harmful}, harmless {found.harmless}"
            raise self.wrong(node, came, f"{of_worlds[0]} for both or neither")
        if of_worlds:
            self.world(node, of_worlds[0])
        return found

    def world(self, node: Any, name: str) -> worlds.World:
        """A world that can be had."""
        try:
            return worlds.named(name)
        except DemurError as error:
            raise self.wrong(node, error.came, error.expected) from error

    def columns(self, node: Any, prompts: Prompts) -> tuple[tuple[Side, str, str], ...]:
        """``{text: question}`` for every source that is a file or a hub's; ``{harmful: {text: ...}}`` for one side."""
        expected = "a field and its column, such as {text: question}, or such a mapping for harmful and for harmless"
        if node.id != "mapping" or not node.value:
            raise self.wrong(node, "columns is no mapping", expected)
        apart = all(key.value in SIDES and value.id == "mapping" for key, value in node.value)
        given = self.mapping(node, SIDES, "columns") if apart else dict.fromkeys(SIDES, node)
        found: list[tuple[Side, str, str]] = []
        for side, of in ((side, given[side]) for side in SIDES if side in given):
            source = getattr(prompts, side)
            own = source in (*SETS, *MORE_SETS, *PUBLIC) or worlds.is_world(source)
            if own and not apart:
                continue  # it knows its columns
            if own:
                raise self.wrong(of, f"columns of {source}", "those of a file, or of hf:owner/name")
            for key, value in self.mapping(of, COLUMNED, f"columns ({side})").items():
                found.append((side, key, "" if value.value == "" else self.text(value, f"the column of {key}")))
        if not found:
            raise self.wrong(node, "columns for sources that know theirs", "a file, or hf:owner/name")
        return tuple(found)

    def attack(self, node: Any) -> Attacked:
        """A known attack, or a file that is there."""
        name, settings = self.named(node, "an attack")
        if owner := worlds.of_attack(name):
            self.world(node, owner)
        if not is_known(name):
            known = (*attack_names(), *ATTACKED)
            raise self.wrong(
                node, f"attack {name!r}{near(name, known)}", f"{', '.join(known)} or a file of attacked prompts"
            )
        if is_file(name) and not is_public(name) and not Path(name).is_file():
            expected = FROM_HERE if beside(self.path, name) else "a file of attacked prompts"
            raise self.wrong(node, missing(self.path, name), expected)
        try:
            check_settings(made := Attacked(name, settings))
        except DemurError as error:
            raise self.wrong(node, error.came, error.expected) from error
        return made

    def fitting(self, node: Any, what: str, parts: Sequence[Attacked | Defended], config: Config) -> None:
        """Raises for an attack, or a defense, that fits no subject."""
        unfit = unfit_of(config)
        for item, part in zip(node.value if node.id == "sequence" else [node], parts, strict=True):
            if part.label in unfit:
                here = " and ".join(subject.name for subject in config.subjects)
                raise self.wrong(item, f"{what} {part.name} on {here} ({unfit[part.label]})", "a model that it fits")

    def apart(self, node: Any, config: Config) -> None:
        """Raises for two attacks that tables would call by one name, and for a judge or an attack of another world
        than the prompts."""
        called: list[str] = []
        for item, attack in zip(node.value if node.id == "sequence" else [node], config.attacks, strict=True):
            if attack.label in called:
                raise self.wrong(item, f"two attacks called {attack.label}", "names that differ in tables")
            called.append(attack.label)
            judge = attack.settings.get("judge")
            if isinstance(judge, str) and worlds.is_world(judge) and judge != config.prompts.world:
                came = f"judge {judge} for prompts of {config.prompts.harmful}"
                raise self.wrong(item, came, "dictionary or {model: ..., base_url: ...}")
            if attack.world and attack.world != config.prompts.world:
                came = f"attack {attack.name} for prompts of {config.prompts.harmful}"
                raise self.wrong(item, came, f"prompts of {attack.world}, or an attack in anybody's words")

    def judge(self, node: Any, config: Config) -> Config:
        """A known judge; a model as judge with all that it needs."""
        name, settings = self.named(node, "judge")
        if name not in JUDGES and not worlds.is_world(name) and not RULES.knows(name):
            known = (*worlds.WORLDS, *JUDGES, *RULES.packaged)
            raise self.wrong(node, f"judge {name!r}{near(name, known)}", ", ".join(known))
        if name == ASKED:
            try:
                judge_of(settings)
            except DemurError as error:
                raise self.wrong(node, error.came, error.expected) from error
        elif settings:
            raise self.wrong(node, f"judge {name} with {', '.join(map(str, settings))}", "no settings")
        if RULES.knows(name) and name not in JUDGES and name != config.prompts.world:
            try:
                judge_named(name)
            except DemurError as error:
                raise self.wrong(node, error.came, error.expected) from error
        elif worlds.is_world(name):
            if name != config.prompts.world:
                raise self.wrong(node, f"judge {name} for prompts of {config.prompts.harmful}", " or ".join(JUDGES))
            if self.world(node, name).judge is None:
                raise self.wrong(node, f"judge {name}, a world without a judge of its own", " or ".join(JUDGES))
        return replace(config, judge=name, judge_settings=settings)

    def defense(self, node: Any) -> Defended:
        """A known defense."""
        name, settings = self.named(node, "a defense")
        if len(parts := name.split("+")) > 1 and ("none" in parts or len({*parts}) < len(parts)):
            raise self.wrong(node, f"defense {name!r}", "different defenses joined by +, or none alone")
        try:
            check(name, settings)
        except DemurError as error:
            raise self.wrong(node, error.came, error.expected) from error
        return Defended(name, settings)


COLUMNED = ("id", "text", "system", "prefill", "messages", "harmful", "category", "source", "licence")
"""Fields of a prompt whose column a recipe may name."""
