"""Worlds: what an experiment runs in. A world brings requests of every role, attacks in its own words, a judge,
defaults.

Nothing here knows which worlds there are beside their names. A world is imported when it is asked for; prompt files and
public sets make one, too (:class:`demur.experiment.requests.Files`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol

from demur.registry import Registry, is_path
from demur.types import DemurError, Need, Prompt

Role = Literal["harmful", "controls", "plain", "anchors/harmless", "anchors/harmful", "fit", "calibrate", "check"]
ROLES: tuple[Role, ...] = ("harmful", "controls", "plain", "anchors/harmless", "anchors/harmful", "fit", "calibrate")
"""What an experiment asks for: requests under attack, harmless ones under the same attacks (``controls``) and as they
are (``plain``), those of both anchors, and those that a guard is fitted and calibrated on. ``check`` is beside them:
harmless ones that a guard made at the command line is tried on.
"""
HARMFUL: tuple[Role, ...] = ("harmful", "anchors/harmful")
"""Roles whose requests are harmful."""
UNSCORED = "unscored"
"""The outcome of a text that nobody can judge, such as an empty one."""


class WorldAttack(Protocol):
    """An attack in a world's own words. ``access`` and ``needs`` as of any attack (:mod:`demur.attacks`)."""

    @property
    def access(self) -> str:
        """What an attacker must be able to do; ``canvas``: its prompts leave holes in the answer."""
        ...

    @property
    def needs(self) -> frozenset[Need]:
        """What it needs of a model."""
        ...

    def __call__(self, prompt: Prompt) -> Prompt:
        """The attacked prompt, for a request of this world. Raises for another one."""
        ...


class WorldJudge(Protocol):
    """A judge of a world's own: a rule, so that every text on the way can be judged."""

    def outcomes(self, trace: Any) -> list[str]:
        """The outcome of the text after each step of a :class:`demur.traces.Trace`: ``harmful``, ``refusal`` or a word
        of the world's own.
        """
        ...

    def rating(self, prompt: Prompt, text: str) -> int | None:
        """A text as an answer to a prompt, from 1 (refused) to 10 (the harm that was asked for); None where nobody can
        tell.
        """
        ...


class World(Protocol):
    """What an experiment runs in. ``name`` is its name in recipes, ``name/attack`` that of its attacks."""

    @property
    def name(self) -> str:
        """How recipes call it; empty for files."""
        ...

    @property
    def attacks(self) -> Mapping[str, WorldAttack]:
        """Attacks in its own words, by their names without the world's."""
        ...

    @property
    def judge(self) -> WorldJudge | None:
        """A judge of its own, if it has one."""
        ...

    @property
    def length(self) -> int | None:
        """How many tokens an answer of its models has where nobody says it; None: as of any model."""
        ...

    @property
    def threads(self) -> int | None:
        """How many threads its models run on; None: as many as there are."""
        ...

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings of defenses, by the defense's name, that its models need: other words for yes and no, say."""
        ...

    def requests(self, role: Role, sizes: Mapping[Role, int]) -> list[Prompt]:
        """As many requests of a role as ``sizes`` says; always the same ones. Roles share no request, but ``controls``
        and ``plain``, which ask the same ones. Raises if there are too few.
        """
        ...

    def every(self, role: Role) -> list[Prompt]:
        """All requests that there are for a role; a guard at the command line takes from their beginning."""
        ...

    def group(self, prompt: Prompt) -> str:
        """What several prompts have in common that are no independent facts; empty: nothing but the request."""
        ...

    def by_id(self, name: str) -> Prompt | None:
        """The request with an id; None if it is none of this world's."""
        ...

    def ids(self) -> list[str]:
        """Ids of requests, to compare a mistyped one with; not all there are."""
        ...

    def anchors(self, model: Any, sampler: Any, **how: Any) -> Any:
        """Anchors (:class:`demur.signals.Anchors`) of its own requests for one of its models; ``how`` as of
        :func:`demur.signals.anchors_of`, and ``n``, the number of requests a side.
        """
        ...


class Listed:
    """A world of two lists of requests, each cut into roles. It has no attacks in words of its own, no judge and no
    models, unless a subclass says so; what it does not have, others do. A subclass sets ``name``, ``harmless`` and
    ``harmful``. Roles take their parts in the order of a list: one that is sorted by topic has to be mixed.
    """

    name: str = ""
    harmless: Sequence[Prompt] = ()
    harmful: Sequence[Prompt] = ()
    attacks: Mapping[str, WorldAttack] = MappingProxyType({})
    judge: WorldJudge | None = None
    length: int | None = None
    threads: int | None = None
    settings: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    ORDER: ClassVar[Mapping[bool, tuple[Role, ...]]] = {
        True: HARMFUL,
        False: ("plain", "anchors/harmless", "fit", "calibrate"),
    }
    """Which part of a side's list is whose, by whether the side is harmful; controls are the plain ones."""

    def requests(self, role: Role, sizes: Mapping[Role, int]) -> list[Prompt]:
        """The part of the list that is the role's, where each takes as many as ``sizes`` says. Raises if there are too
        few different requests.
        """
        if not sizes[role]:
            return []
        order = self.ORDER[role in HARMFUL]
        taken = {**sizes, "plain": max(sizes["plain"], sizes["controls"])}  # controls are asked plainly, too
        begin = sum(taken[other] for other in order[: order.index("plain" if role == "controls" else role)])
        needed = begin + sizes[role]
        every = self.in_turn(role, needed, sum(taken[other] for other in order))
        chosen = every[begin:needed]
        if len(chosen) < sizes[role]:
            raise DemurError(
                f"{len(every)} different prompts in {self.source(role)}",
                f"{sum(taken[other] for other in order)} ({', '.join(f'{o} {taken[o]}' for o in order)})",
                "name a larger source, or smaller numbers under prompts",
            )
        return chosen

    def every(self, role: Role) -> list[Prompt]:
        """All different requests of the role's side."""
        return list({prompt.asked: prompt for prompt in (self.harmful if role in HARMFUL else self.harmless)}.values())

    def first(self, role: Role, n: int) -> list[Prompt]:
        """At least ``n`` different requests of the role's side, if there are so many."""
        return self.every(role)

    def in_turn(self, role: Role, n: int, together: int) -> list[Prompt]:
        """At least ``n`` different requests of the role's side, if there are so many, in the order in which its roles
        take from them; ``together`` is how many all its roles take. A guard's promise is for requests like those that
        it was calibrated on: a list whose order means something is put into another one here.
        """
        return self.first(role, n)

    def source(self, role: Role) -> str:
        """What the role's side is called in errors."""
        return f"{self.name}, {'harmful' if role in HARMFUL else 'harmless'}"

    def group(self, prompt: Prompt) -> str:
        """Nothing: every request is a fact of its own."""
        return ""

    def by_id(self, name: str) -> Prompt | None:
        """The request with an id, of either side."""
        return next((prompt for prompt in (*self.harmless, *self.harmful) if prompt.id == name), None)

    def ids(self) -> list[str]:
        """All ids."""
        return [prompt.id for prompt in (*self.harmless, *self.harmful)]

    def anchors(self, model: Any, sampler: Any, **how: Any) -> Any:
        """Raises: a list has no models of its own."""
        raise DemurError(f"anchors of the world {self.name!r}", "a world with models of its own", "demur anchors fit")


WORLDS = Registry(
    kind="world", group="demur.worlds", own={"organism": "demur.organism.kingdom:Kingdom"},
    reserved=(
        "starter", "harmless", "harmful", "advbench", "alpaca", "jailbreakbench", "jailbreakbench-benign",
        "xstest", "xstest-unsafe", "or-bench-hard", "or-bench-toxic", "wildjailbreak", "dictionary", "llm", "reading",
    ),
)  # fmt: skip
"""Worlds by name, none of them that of a set of prompts or of a judge. What stands behind a name is called without
arguments and gives a :class:`World`.
"""


def is_world(name: str) -> bool:
    """Whether a source of prompts is a world: a name of :data:`WORLDS`, or ``module:Class``."""
    return name in WORLDS or (is_path(name) and not name.startswith("hf:"))


def named(name: str) -> World:
    """The world with a name. Raises for one that is unknown or can not be imported."""
    made: World = WORLDS.make(name)
    return made


def of_model(name: str) -> str:
    """The name of the world that a model belongs to, empty for a model of none: built-in models are called
    ``world/model``. Such a model understands its own world only.
    """
    return _owner(name)


def of_attack(name: str) -> str:
    """The name of the world in whose words an attack is, empty for one in anybody's: it is called ``world/attack``."""
    return _owner(name)


def of_source(source: str) -> str:
    """The name of the world that wrote a request, empty where none did: its source is ``world/split``."""
    return _owner(source)


def attack_of(name: str) -> WorldAttack:
    """The attack ``world/attack``. Raises for one that the world does not have."""
    world, _, own = name.rpartition("/")
    known = named(world).attacks
    if own not in known:
        raise DemurError(f"attack {name!r}", ", ".join(f"{world}/{one}" for one in known), "name one of these")
    return known[own]


def foreign(model: Any, prompts: Sequence[Prompt]) -> str:
    """What must be said of prompts that a world's model was never taught to read: it spells at least a quarter of their
    words letter by letter. Empty where there are none, for a model of no world, and for one that spells its own world's
    words as well. Its world's own prompts are none.
    """
    if not (world := of_model(model.name)):
        return ""
    strange = sum(of_source(prompt.source) != world and _spelt(model.tokenizer, prompt.text) for prompt in prompts)
    if not strange:
        return ""
    known = named(world)
    own = next(iter(known.ids()), "")
    mine = known.by_id(own)
    if mine is None or _spelt(model.tokenizer, mine.text):
        return ""  # a tokenizer of letters, or of bytes: how it writes a word says nothing of what was taught
    some = f"{strange} of {len(prompts)} prompts are" if len(prompts) > 1 else "the prompt is"
    return (
        f"{some} foreign to {model.name}, which spells their words by letters: it was taught the requests of its own "
        f"world alone, and answers and signals to others mean nothing; one of its own: {own}"
    )


def _spelt(tokenizer: Any, text: str) -> bool:
    words = re.findall(r"[^\W\d_]{2,}", text)
    spelt = sum(len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) >= len(word) for word in words)
    return spelt * 4 >= max(len(words), 1) and spelt > (len(words) > 3)


def _owner(name: str) -> str:
    before, slash, _ = name.rpartition("/")
    return before if slash and is_world(before) else ""
