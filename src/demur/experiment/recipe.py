"""An experiment from one YAML file, read strictly; every mistake is named with its line.

What a recipe may say is listed on one page, docs/experiments.md; a test holds that page and these lists together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil, isinf
from pathlib import Path
from typing import Any, TypeVar

from demur.experiment.config import (
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
    near,
)
from demur.extras import need
from demur.types import DemurError

T = TypeVar("T")

KEYS = (
    "name", "models", "prompts", "attacks", "defenses", "judge", "seeds", "length", "steps", "chunk", "batch", "alpha",
)  # fmt: skip
"""Keys of a recipe."""
MODEL_KEYS = ("name", "samplers", "dtype", "template_args")
"""Keys of a model that is more than a name."""
SIZES = {"n": 1, "controls": 0, "plain": 0, "anchors": 8, "fit": 32, "calibrate": 8, "shapes": 0}
"""Sizes under ``prompts``, and the least that each may be."""
PROMPTS_KEYS = (*SIDES, "columns", *SIZES)
"""Keys under ``prompts``."""
WHOLE = "see a whole one: demur recipe organism"
LARGEST = 2**31 - 1
"""No number of a recipe is larger."""


def read(path: str | Path) -> Config:
    """Reads and checks a file. Raises, with the line, for anything that is not as it should be."""
    yaml = need("yaml", "evaluate", "to read recipes")
    source = Path(path)
    try:
        root = yaml.compose(_text(source), Loader=_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        said = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise DemurError(f"{source}{line}: no YAML ({said})", "a mapping of settings", WHOLE) from error
    except RecursionError as error:
        raise DemurError(f"{source} is nested too deeply", "a recipe", WHOLE) from error
    if root is None:
        raise DemurError(f"{source} is empty", "name, models, prompts, attacks ...", WHOLE)
    try:
        return _Reader(source).config(root)
    except RecursionError as error:  # an alias inside of what it stands for
        raise DemurError(f"{source} holds a part of itself", "a recipe", WHOLE) from error


def _text(source: Path) -> str:
    """A file's text: UTF-8, with or without a byte order mark, with any line ends. Raises for another encoding."""
    try:
        data = source.read_bytes()
    except OSError as error:
        raise DemurError(f"{source} could not be read ({error.strerror or error})", "a YAML file", WHOLE) from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DemurError(f"{source} is UTF-16", "UTF-8", "save it once more, with the encoding UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        came = f"{source}, line {line}: the byte 0x{data[error.start]:02x} is no UTF-8"
        raise DemurError(came, "a file in UTF-8", "save it once more, with the encoding UTF-8") from error


def _loader() -> Any:
    """YAML 1.2's booleans, true and false: ``yes``, ``no``, ``on`` and ``off`` are words that somebody may look for."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """SafeLoader with fewer booleans."""

    words = "yYnNoO"
    Loader.yaml_implicit_resolvers = {
        sign: [(tag, pattern) for tag, pattern in known if sign not in words or not tag.endswith(":bool")]
        for sign, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


class _Reader:
    """Walks YAML's node tree, which knows its lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def wrong(self, node: Any, came: str, expected: str) -> DemurError:
        """An error at a node's line."""
        return DemurError(f"{self.path}, line {node.start_mark.line + 1}: {came}", expected, WHOLE)

    def mapping(self, node: Any, known: Sequence[str], what: str) -> dict[str, Any]:
        """A mapping's nodes by key; unknown and double keys are errors that name what is known."""
        if node.id != "mapping":
            raise self.wrong(node, f"{what} is no mapping", f"keys of {', '.join(known)}")
        found: dict[str, Any] = {}
        for key, value in node.value:
            if key.id != "scalar":
                raise self.wrong(key, f"a key of {what} that is no word", ", ".join(known))
            if key.value not in known:
                came = f"unknown key {key.value!r} in {what}{near(key.value, known)}"
                raise self.wrong(key, came, ", ".join(known))
            if key.value in found:
                raise self.wrong(key, f"{key.value!r} stands twice in {what}", "once")
            found[key.value] = value
        return found

    def plain(self, node: Any) -> Any:
        """Any node as Python data; keys that stand twice are errors."""
        import yaml

        self.once(node)
        try:
            return yaml.constructor.SafeConstructor().construct_document(node)
        except yaml.constructor.ConstructorError as error:
            raise self.wrong(node, f"no plain data ({error.problem})", "texts, numbers, lists and mappings") from error
        except (ValueError, OverflowError) as error:  # a date that is none, a number of thousands of digits
            raise self.wrong(node, "a value that is none", "texts, numbers, lists and mappings") from error

    def once(self, node: Any) -> None:
        """Raises for a key that stands twice, at any depth: YAML would keep the last one."""
        if node.id == "mapping":
            keys: list[str] = []
            for key, value in node.value:
                if key.id != "scalar":
                    raise self.wrong(key, "a key that is no word", "names of settings")
                if key.value in keys:
                    raise self.wrong(key, f"{key.value!r} stands twice", "once")
                keys.append(key.value)
                self.once(value)
        elif node.id == "sequence":
            for item in node.value:
                self.once(item)
        else:
            self.sound(node)

    def sound(self, node: Any) -> None:
        """Raises for a number that is none: infinite, or a time of day, which YAML 1.1 counts in seconds."""
        if node.tag.endswith((":int", ":float")):
            value = node.value.lower().replace("_", "")
            if ":" in value or value.lstrip("+-") in (".inf", ".nan"):
                raise self.wrong(node, f"the number {node.value}", "a finite number without colons")
            if node.tag.endswith(":float") and isinf(float(value)):
                raise self.wrong(node, f"the number {node.value}", "a finite number")

    def number(self, node: Any, what: str, least: int) -> int:
        """A whole number."""
        value = self.plain(node)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.wrong(node, f"{what} is {value!r}", f"a whole number of at least {least}")
        if value > LARGEST:
            raise self.wrong(node, f"{what} is too large", f"a whole number of at most {LARGEST:,}")
        return value

    def text(self, node: Any, what: str) -> str:
        """A text."""
        value = self.plain(node)
        if not isinstance(value, str) or not value.strip():
            shown = repr(value) if isinstance(value, str) or node.id != "scalar" else node.value
            quoted = ", in quotes" if node.id == "scalar" and value not in (None, "") else ""
            raise self.wrong(node, f"{what} is {shown}", f"a text{quoted}")
        return value

    def several(self, node: Any, what: str, one: Callable[[Any], T]) -> tuple[T, ...]:
        """A list of at least one, in which nothing stands twice: rows of equal parts would be counted twice."""
        items = node.value if node.id == "sequence" else [node]
        if not items:
            raise self.wrong(node, f"{what} is empty", "at least one")
        found: list[T] = []
        for item in items:
            made = one(item)
            if made in found:
                raise self.wrong(item, f"{what}: one stands twice", "each once")
            found.append(made)
        return tuple(found)

    def named(self, node: Any, what: str) -> tuple[str, dict[str, Any]]:
        """``NAME`` or ``NAME: {settings}``."""
        if node.id == "scalar":
            return self.text(node, what), {}
        if node.id == "mapping" and len(node.value) == 1 and node.value[0][0].id == "scalar":
            (key, value) = node.value[0]
            settings = self.plain(value)
            if isinstance(settings, dict):
                return str(key.value), settings
        raise self.wrong(node, f"{what} is neither a name nor NAME: {{settings}}", "one of these")

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
        for name, least in (("length", 1), ("steps", 1), ("chunk", 1), ("batch", 1)):
            if name in of:
                value: Any = self.number(of[name], name, least)
                config = replace(config, **{name: value})
        if "alpha" in of:
            alpha = self.plain(of["alpha"])
            if not isinstance(alpha, float) or not 0 < alpha < 1:
                raise self.wrong(of["alpha"], f"alpha is {alpha!r}", "a number between 0 and 1")
            config = replace(config, alpha=alpha)
        if config.prompts.calibrate + 1 < 1 / config.alpha:
            came = f"calibrate {config.prompts.calibrate} for alpha {config.alpha:g}"
            raise self.wrong(of["prompts"], came, f"at least {ceil(1 / config.alpha) - 1}, or a larger alpha")
        return config

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
            from demur.experiment.parts import check_sampler

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
                found = replace(found, **{side: source})
        for name, least in SIZES.items():
            if name in of:
                size: Any = self.number(of[name], name, least)
                found = replace(found, **{name: size})
        if "columns" in of:
            found = replace(found, columns=self.columns(of["columns"], found))
        if (found.harmful == "organism") != (found.harmless == "organism"):
            raise self.wrong(
                node, f"harmful {found.harmful}, harmless {found.harmless}", "organism for both or neither"
            )
        return found

    def columns(self, node: Any, prompts: Prompts) -> tuple[tuple[Side, str, str], ...]:
        """``{text: question}`` for every source that is a file or a hub's; ``{harmful: {text: ...}}`` for one side."""
        from demur.prompts import PUBLIC, SETS

        expected = "a field and its column, such as {text: question}, or such a mapping for harmful and for harmless"
        if node.id != "mapping" or not node.value:
            raise self.wrong(node, "columns is no mapping", expected)
        apart = all(key.value in SIDES and value.id == "mapping" for key, value in node.value)
        given = self.mapping(node, SIDES, "columns") if apart else dict.fromkeys(SIDES, node)
        found: list[tuple[Side, str, str]] = []
        for side, of in ((side, given[side]) for side in SIDES if side in given):
            own = getattr(prompts, side) in (*SETS, *PUBLIC, "organism")
            if own and not apart:
                continue  # it knows its columns
            if own:
                raise self.wrong(of, f"columns of {getattr(prompts, side)}", "those of a file, or of hf:owner/name")
            for key, value in self.mapping(of, COLUMNED, f"columns ({side})").items():
                found.append((side, key, "" if value.value == "" else self.text(value, f"the column of {key}")))
        if not found:
            raise self.wrong(node, "columns for sources that know theirs", "a file, or hf:owner/name")
        return tuple(found)

    def attack(self, node: Any) -> Attacked:
        """A known attack, or a file that is there."""
        from demur.experiment.parts import ATTACKED, attack_names, check_settings, is_file

        name, settings = self.named(node, "an attack")
        if name not in (known := attack_names()) and not is_file(name):
            known = (*known, *ATTACKED)
            raise self.wrong(
                node, f"attack {name!r}{near(name, known)}", f"{', '.join(known)} or a file of attacked prompts"
            )
        if is_file(name) and name not in ATTACKED and not Path(name).is_file():
            raise self.wrong(node, f"there is no file {name}", "a file of attacked prompts")
        try:
            check_settings(made := Attacked(name, settings))
        except DemurError as error:
            raise self.wrong(node, error.came, error.expected) from error
        return made

    def fitting(self, node: Any, what: str, parts: Sequence[Attacked | Defended], config: Config) -> None:
        """Raises for an attack, or a defense, that fits no subject."""
        from demur.experiment.units import unfit_of

        unfit = unfit_of(config)
        for item, part in zip(node.value if node.id == "sequence" else [node], parts, strict=True):
            if part.label in unfit:
                here = " and ".join(subject.name for subject in config.subjects)
                raise self.wrong(item, f"{what} {part.name} on {here} ({unfit[part.label]})", "a model that it fits")

    def apart(self, node: Any, config: Config) -> None:
        """Raises for two attacks that tables would call by one name, and for a judge of another world's prompts."""
        called: list[str] = []
        for item, attack in zip(node.value if node.id == "sequence" else [node], config.attacks, strict=True):
            if attack.label in called:
                raise self.wrong(item, f"two attacks called {attack.label}", "names that differ in tables")
            called.append(attack.label)
            if attack.settings.get("judge") == "organism" and config.prompts.harmful != "organism":
                came = f"judge organism for prompts of {config.prompts.harmful}"
                raise self.wrong(item, came, "dictionary or {model: ..., base_url: ...}")

    def judge(self, node: Any, config: Config) -> Config:
        """A known judge; a model as judge with all that it needs."""
        name, settings = self.named(node, "judge")
        if name not in JUDGES:
            raise self.wrong(node, f"judge {name!r}{near(name, JUDGES)}", ", ".join(JUDGES))
        if name == "llm":
            from demur.experiment.judging import judge_of

            try:
                judge_of(settings)
            except DemurError as error:
                raise self.wrong(node, error.came, error.expected) from error
        elif settings:
            raise self.wrong(node, f"judge {name} with {', '.join(map(str, settings))}", "no settings")
        if name == "organism" and config.prompts.harmful != "organism":
            raise self.wrong(node, f"judge organism for prompts of {config.prompts.harmful}", "dictionary or llm")
        return replace(config, judge=name, judge_settings=settings)

    def defense(self, node: Any) -> Defended:
        """A known defense."""
        from demur.defenses import check
        from demur.experiment.parts import DEFENSES

        name, settings = self.named(node, "a defense")
        if name not in DEFENSES:
            raise self.wrong(node, f"defense {name!r}{near(name, DEFENSES)}", ", ".join(DEFENSES))
        if len(parts := name.split("+")) > 1 and ("none" in parts or len({*parts}) < len(parts)):
            raise self.wrong(node, f"defense {name!r}", "different defenses joined by +, or none alone")
        try:
            check(name, settings)
        except DemurError as error:
            raise self.wrong(node, error.came, error.expected) from error
        return Defended(name, settings)


COLUMNED = ("id", "text", "system", "prefill", "messages", "harmful", "category", "source", "licence")
"""Fields of a prompt whose column a recipe may name."""
