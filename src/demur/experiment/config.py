"""What an experiment is, as data. :mod:`demur.experiment.recipe` reads it from a file."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from demur import worlds
from demur.signals.anchors import SignalName
from demur.worlds import Role


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


Side = Literal["harmful", "harmless"]
SIDES: tuple[Side, ...] = ("harmful", "harmless")

_LATER: dict[str, tuple[Any, ...]] = {
    "columns": ((), []),
    "template_args": ({},),
    "detector": ("autoencoder",),
    "signal": ("sri",),
    "fields": ((), []),
    "harmful_anchors": (0,),
}
"""Fields that version 0.1.0 did not have, and what they hold where a recipe does not use them."""


def content_of(part: Any) -> Any:
    """A part of an experiment as plain data, for keys and manifests. What is newer than version 0.1.0 stands there only
    where it is used: runs of older recipes keep their keys.
    """
    return _older(asdict(part))


def _older(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: inner for name, inner in value.items() if inner not in _LATER.get(name, ())}
        return {name: _older(inner) for name, inner in kept.items()}
    if isinstance(value, tuple):
        return tuple(_older(inner) for inner in value)
    return value


@dataclass(frozen=True)
class Subject:
    """One model under one sampler (``sampler`` empty: the family's own).

    ``template_args`` are arguments of its chat template, such as ``{"enable_thinking": False}``.
    """

    model: str
    sampler: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    template_args: Mapping[str, Any] = field(default_factory=dict)

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
    """Where prompts come from, and how many. The name of a world (:mod:`demur.worlds`) on both sides: its own; else a
    starter set, a file, a hub id.

    ``harmful`` and ``n`` are asked with every attack, ``controls`` allowed requests with the same attacks, ``plain``
    allowed ones as they are (0: as many as controls); the rest makes anchors and guards (``harmful_anchors`` 0: as many
    as ``anchors``; ``fit`` 0: no guard). Where one file serves both sides, a column says of each row which side it is
    of. ``columns`` name a source's own columns: of a side, a field of a prompt, and the column that it is read from.
    """

    harmful: str = "harmful"
    harmless: str = "harmless"
    n: int = 100
    controls: int = 100
    plain: int = 0
    anchors: int = 100
    harmful_anchors: int = 0
    fit: int = 400
    calibrate: int = 200
    shapes: int = 0
    columns: tuple[tuple[Side, str, str], ...] = ()

    def columns_of(self, side: Side) -> dict[str, str]:
        """The columns that fields of a side's prompts are read from; the others are looked for."""
        return {name: column for of, name, column in self.columns if of == side}

    @property
    def world(self) -> str:
        """The name of the world that both sides come from; empty for files and sets."""
        return self.harmful if worlds.is_world(self.harmful) else ""

    @property
    def sizes(self) -> dict[Role, int]:
        """How many prompts each role has."""
        return {
            "harmful": self.n, "controls": self.controls, "anchors/harmless": self.anchors,
            "anchors/harmful": self.harmful_anchors or self.anchors, "fit": self.fit, "calibrate": self.calibrate,
            "plain": self.plain or max(self.controls, 1),
        }  # fmt: skip


SAID = {"translated": "language"}
"""By attack of ours the setting that is a name, also in several words or other letters: no prompt and no answer holds
it. Nobody knows what an attack of somebody else does with a setting called so.
"""


def _named(value: Any) -> Any:
    """A setting as a label may say it: a text by its hash, also in a list."""
    if isinstance(value, list | tuple):
        return type(value)(map(_named, value)) if any(_is_text(part) for part in value) else value
    return f"text-{hashlib.sha256(value.encode()).hexdigest()[:8]}" if _is_text(value) else value


def _is_text(value: Any) -> bool:
    """Whether it is words of somebody, and no name or number; scripts without blanks have no others."""
    return isinstance(value, str) and (len(value.split()) > 1 or not value.isascii())


def _is_name(value: Any) -> bool:
    """Whether it is written as names are: letters, their marks, blanks, hyphens; no sign that tables are made of."""
    return isinstance(value, str) and all(unicodedata.category(c)[0] in "LM" or c in " -'’().," for c in value)


@dataclass(frozen=True)
class Attacked:
    """An attack and its settings. ``WORLD/NAME``: in a world's own words; ``file``: ready-made prompts."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """How rows and tables call it: a setting that is a text, such as the beginning of an answer, by its hash.
        Words that an attack puts into prompts and answers are hidden there, so no table may say them.
        """
        own = SAID.get(self.name)
        said = {key: value if key == own and _is_name(value) else _named(value) for key, value in self.settings.items()}
        return labelled(self.name, said)

    @property
    def plain(self) -> bool:
        """Whether it is none: the request as it is."""
        return self.name == PLAIN

    @property
    def world(self) -> str:
        """The world in whose words it is; empty for an attack in anybody's."""
        return worlds.of_attack(self.name)


PLAIN = "plain"
NONE = "none"


@dataclass(frozen=True)
class Defended:
    """A defense and its settings."""

    name: str = NONE
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def none(self) -> bool:
        """Whether nothing stands before the model."""
        return self.name == NONE

    @property
    def label(self) -> str:
        """How rows and tables call it."""
        return labelled(self.name, self.settings)


@dataclass(frozen=True)
class Config:
    """The whole experiment. Two equal configurations are one run; ``key`` names it.

    ``detector`` is the guard's, by name; ``signal`` is how its anchors read states; ``fields`` are trace fields that
    records keep, by name. ``batch`` may be ``auto``: what fits into memory.
    """

    name: str
    subjects: tuple[Subject, ...]
    prompts: Prompts
    attacks: tuple[Attacked, ...] = (Attacked(PLAIN),)
    defenses: tuple[Defended, ...] = (Defended(),)
    judge: str = "dictionary"
    judge_settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    length: int = 0
    steps: int = 32
    chunk: int = 52
    batch: int | Literal["auto"] = 26
    alpha: float = 0.01
    detector: str = "autoencoder"
    signal: SignalName = "sri"
    fields: tuple[str, ...] = ()

    @property
    def guarded(self) -> bool:
        """Whether a guard is fitted; without one the anchors alone are made, and no row has a guard's score."""
        return self.prompts.fit > 0

    @property
    def in_own_words(self) -> tuple[Attacked, ...]:
        """The attacks in the words of a world."""
        return tuple(attack for attack in self.attacks if attack.world)

    @property
    def asks_a_model(self) -> bool:
        """Whether a model behind an endpoint reads the answers when all are there."""
        return self.judge == ASKED

    @property
    def intermediate(self) -> int:
        """How many texts before the last one a model as judge reads of each undefended answer (0: none)."""
        return int(self.judge_settings.get("intermediate", 0))

    @property
    def key(self) -> str:
        """Eight hex digits of everything that can change a row."""
        return hashlib.sha256(json.dumps(content_of(self), sort_keys=True).encode()).hexdigest()[:8]


ASKED = "llm"
JUDGES = ("dictionary", "reading", ASKED)
"""Judges beside those of worlds, which are called as their worlds are."""
DTYPES = ("auto", "float32", "bfloat16", "float16")

NAME_AT_MOST = 100


def folder_name(name: str) -> str:
    """Why a name can not be that of a run's folder, on any system; empty if it can. It is no path."""
    if any(sign in '/\\:*?"<>|' or not sign.isprintable() for sign in name):
        return 'none of / \\ : * ? " < > | and no control character'
    if (
        not name.strip()
        or name != name.strip()
        or name.startswith(("-", "~"))
        or name.endswith(".")
        or set(name) <= {"."}
    ):
        return "a word that begins with neither a blank, - nor ~, and ends with neither a blank nor a dot"
    if name.partition(".")[0].rstrip().upper() in _DEVICES:
        return "not the name of a device on Windows"
    if len(name.encode()) > NAME_AT_MOST:
        return f"at most {NAME_AT_MOST} bytes"
    return ""


_DEVICES = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    "CONIN$",
    "CONOUT$",
    *(f"{p}{n}" for p in ("COM", "LPT") for n in "123456789¹²³"),
}
