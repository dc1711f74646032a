"""What an experiment is: one YAML file, read strictly; every mistake is named with its line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

from demur.types import DemurError

T = TypeVar("T")


def labelled(name: str, settings: Mapping[str, Any]) -> str:
    """A part of an experiment as rows and tables call it: its name and, if it has any, its settings; of a model behind
    an endpoint its name.
    """
    short = {key: value.get("model", "?") if isinstance(value, Mapping) else value for key, value in settings.items()}
    return name + (f" ({', '.join(f'{key}={value}' for key, value in short.items())})" if settings else "")


ROUTES = ("base_url", "api_key_env", "timeout", "retries", "concurrency", "budget", "cache")
"""Settings of an endpoint that say how it is reached, not who answers: a change of them makes no other attack."""


def substance(settings: Mapping[str, Any]) -> dict[str, Any]:
    """An attack's settings without how its endpoints are reached."""
    return {
        name: {key: v for key, v in value.items() if key not in ROUTES} if isinstance(value, Mapping) else value
        for name, value in settings.items()
    }


@dataclass(frozen=True)
class Subject:
    """One model under one sampler (``sampler`` empty: the family's own)."""

    model: str
    sampler: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "auto"

    @property
    def label(self) -> str:
        """Its sampler, as rows call it."""
        return labelled(self.sampler, self.settings)

    @property
    def name(self) -> str:
        """How it is called in messages."""
        return f"{self.model}, {self.label or 'own sampler'}"


@dataclass(frozen=True)
class Prompts:
    """Where prompts come from, and how many. ``organism``: the world's, split by craft; else a starter set, a file, a
    hub id.

    ``harmful`` and ``n`` are asked with every attack, ``controls`` allowed requests with the same attacks, ``plain``
    allowed ones as they are (0: as many as controls); the rest makes anchors and guards.
    """

    harmful: str = "harmful"
    harmless: str = "harmless"
    n: int = 100
    controls: int = 100
    plain: int = 0
    anchors: int = 100
    fit: int = 400
    calibrate: int = 200
    shapes: int = 0


@dataclass(frozen=True)
class Attacked:
    """An attack and its settings. ``organism/NAME``: in the kingdom's own words; ``file``: ready-made prompts."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How rows and tables call it."""
        return labelled(self.name, self.settings)


@dataclass(frozen=True)
class Defended:
    """A defense and its settings."""

    name: str = "none"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How rows and tables call it."""
        return labelled(self.name, self.settings)


@dataclass(frozen=True)
class Config:
    """The whole experiment. Two equal configurations are one run; ``key`` names it."""

    name: str
    subjects: tuple[Subject, ...]
    prompts: Prompts
    attacks: tuple[Attacked, ...] = (Attacked("plain"),)
    defenses: tuple[Defended, ...] = (Defended(),)
    judge: str = "dictionary"
    judge_settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    length: int = 0
    steps: int = 32
    chunk: int = 52
    batch: int = 26
    alpha: float = 0.01

    @property
    def intermediate(self) -> int:
        """How many texts before the last one a model as judge reads of each undefended answer (0: none)."""
        return int(self.judge_settings.get("intermediate", 0))

    @property
    def key(self) -> str:
        """Eight hex digits of everything that can change a row."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]


def read(path: str | Path) -> Config:
    """Reads and checks a file. Raises, with the line, for anything that is not as it should be."""
    import yaml

    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DemurError(f"{source} could not be read ({error})", "a YAML file in UTF-8", "see recipes/") from error
    try:
        root = yaml.compose(text, Loader=_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        said = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise DemurError(f"{source}{line}: no YAML ({said})", "a mapping of settings", "see recipes/") from error
    if root is None:
        raise DemurError(f"{source} is empty", "name, models, prompts, attacks ...", "see recipes/")
    return _Reader(source).config(root)


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
        return DemurError(f"{self.path}, line {node.start_mark.line + 1}: {came}", expected, "see recipes/")

    def mapping(self, node: Any, known: Sequence[str], what: str) -> dict[str, Any]:
        """A mapping's nodes by key; unknown and double keys are errors that name what is known."""
        if node.id != "mapping":
            raise self.wrong(node, f"{what} is no mapping", f"keys of {', '.join(known)}")
        found: dict[str, Any] = {}
        for key, value in node.value:
            if key.value not in known:
                raise self.wrong(key, f"unknown key {key.value!r} in {what}", ", ".join(known))
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

    def once(self, node: Any) -> None:
        """Raises for a key that stands twice, at any depth: YAML would keep the last one."""
        if node.id == "mapping":
            keys: list[str] = []
            for key, value in node.value:
                if key.value in keys:
                    raise self.wrong(key, f"{key.value!r} stands twice", "once")
                keys.append(key.value)
                self.once(value)
        elif node.id == "sequence":
            for item in node.value:
                self.once(item)

    def number(self, node: Any, what: str, least: int) -> int:
        """A whole number."""
        value = self.plain(node)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.wrong(node, f"{what} is {value!r}", f"a whole number of at least {least}")
        return value

    def text(self, node: Any, what: str) -> str:
        """A text."""
        value = self.plain(node)
        if not isinstance(value, str) or not value:
            raise self.wrong(node, f"{what} is {value!r}", "a text")
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
        if node.id == "mapping" and len(node.value) == 1:
            (key, value) = node.value[0]
            settings = self.plain(value)
            if isinstance(settings, dict):
                return str(key.value), settings
        raise self.wrong(node, f"{what} is neither a name nor NAME: {{settings}}", "one of these")

    def config(self, root: Any) -> Config:
        """The whole file."""
        keys = ["name", "models", "prompts", "attacks", "defenses", "judge", "seeds"]
        keys += ["length", "steps", "chunk", "batch", "alpha"]
        of = self.mapping(root, keys, "the experiment")
        for needed in ("name", "models", "prompts"):
            if needed not in of:
                raise self.wrong(root, f"no {needed!r}", f"name, models and prompts; here are {', '.join(of)}")
        subjects = tuple(s for group in self.several(of["models"], "models", self.subjects) for s in group)
        if len({subject.name for subject in subjects}) < len(subjects):
            raise self.wrong(of["models"], "one model under one sampler twice", "each once, whatever its dtype")
        config = Config(self.text(of["name"], "name"), subjects, self.prompts(of["prompts"]))
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

    def subjects(self, node: Any) -> tuple[Subject, ...]:
        """One model under one or several samplers."""
        if node.id == "scalar":
            return (Subject(self.text(node, "a model")),)
        of = self.mapping(node, ("name", "samplers", "dtype"), "a model")
        if "name" not in of:
            raise self.wrong(node, "a model without a name", "name: ...")
        base = Subject(self.text(of["name"], "a model's name"))
        if "dtype" in of:
            if (dtype := self.text(of["dtype"], "dtype")) not in DTYPES:
                raise self.wrong(of["dtype"], f"dtype {dtype!r}", ", ".join(DTYPES))
            base = replace(base, dtype=dtype)
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
        numbers = ("n", "controls", "plain", "anchors", "fit", "calibrate", "shapes")
        of = self.mapping(node, ("harmful", "harmless", *numbers), "prompts")
        found = Prompts()
        for name in ("harmful", "harmless"):
            if name in of:
                source: Any = self.text(of[name], name)
                found = replace(found, **{name: source})
        for name in numbers:
            if name in of:
                least = {"controls": 0, "plain": 0, "shapes": 0, "n": 1, "fit": 32}.get(name, 8)
                size: Any = self.number(of[name], name, least)
                found = replace(found, **{name: size})
        if (found.harmful == "organism") != (found.harmless == "organism"):
            raise self.wrong(
                node, f"harmful {found.harmful}, harmless {found.harmless}", "organism for both or neither"
            )
        return found

    def attack(self, node: Any) -> Attacked:
        """A known attack, or a file that is there."""
        from demur.experiment.parts import ATTACKED, attack_names, check_settings, is_file

        name, settings = self.named(node, "an attack")
        if name not in (known := attack_names()) and not is_file(name):
            known = (*known, *ATTACKED)
            raise self.wrong(node, f"attack {name!r}", f"{', '.join(known)} or a file of attacked prompts")
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
            raise self.wrong(node, f"judge {name!r}", ", ".join(JUDGES))
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
            raise self.wrong(node, f"defense {name!r}", ", ".join(DEFENSES))
        try:
            check(name, settings)
        except DemurError as error:
            raise self.wrong(node, error.came, error.expected) from error
        return Defended(name, settings)


JUDGES = ("organism", "dictionary", "llm")
DTYPES = ("auto", "float32", "bfloat16", "float16")
