"""The prompts of an experiment by role: those of a world, or of files and public sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from demur import worlds
from demur.experiment.config import Prompts, Side
from demur.prompts import dealt, digest, distinct, load, say_sorted
from demur.types import DemurError, Prompt
from demur.worlds import HARMFUL, ROLES, Listed, Role, World


@dataclass(frozen=True)
class Files(Listed):
    """The world of prompt files and public sets: two sources, each cut into roles. They are read when they are
    asked for.
    """

    bad: str
    good: str
    columns: tuple[tuple[Side, str, str], ...] = ()

    def every(self, role: Role) -> list[Prompt]:
        """All different prompts of the role's side."""
        return distinct(self._load(role, None))

    def first(self, role: Role, n: int) -> list[Prompt]:
        """At least ``n`` different prompts of the role's side, if there are so many. What comes twice would stand in
        two roles.
        """
        limit = n
        every = distinct(read := self._load(role, limit))
        while len(every) < n and len(read) == limit:
            limit *= 2
            every = distinct(read := self._load(role, limit))
        return every

    def in_turn(self, role: Role, n: int, together: int) -> list[Prompt]:
        """Harmless roles are dealt from the first ``together`` requests: a file may be sorted by topic. Harmful ones
        take their parts in the file's order, and it is said where these are not alike.
        """
        every = self.first(role, together)[:together]
        if role not in HARMFUL:
            return dealt(every)
        if Path(self.bad).is_file():
            say_sorted(f"{self.bad}, of which harmful roles take their parts in turn,", every, n)
        return every

    def _load(self, role: Role, limit: int | None) -> list[Prompt]:
        side: Side = "harmful" if role in HARMFUL else "harmless"
        columns = {name: column for of, name, column in self.columns if of == side}
        return load(self.source(role), side=side, columns=columns, limit=limit)

    def source(self, role: Role) -> str:
        """The file, set or hub id of the role's side."""
        return self.bad if role in HARMFUL else self.good

    def group(self, prompt: Prompt) -> str:
        """Nothing, but for requests that a world has written: their source says so, and the world what they share."""
        world = worlds.of_source(prompt.source)
        return worlds.named(world).group(prompt) if world else ""

    def by_id(self, name: str) -> Prompt | None:
        """None: ids of files are not looked for."""
        return None

    def ids(self) -> list[str]:
        """None."""
        return []


def world_of(of: Prompts) -> World:
    """The world that an experiment's prompts come from."""
    return worlds.named(of.world) if of.world else Files(of.harmful, of.harmless, of.columns)


def prompts_of(of: Prompts, role: Role) -> list[Prompt]:
    """The prompts of one role. Roles share no request, whatever the ids, but ``controls`` and ``plain``, which ask the
    same ones. Raises if the sources hold too few.
    """
    stamps = []
    for path in map(Path, (of.harmful, of.harmless)):
        stat = path.stat() if path.is_file() else None
        stamps.append((stat.st_mtime_ns, stat.st_size) if stat else (0, 0))
    return list(_prompts_of(of, role, tuple(stamps)))


@cache
def _prompts_of(of: Prompts, role: Role, stamps: tuple[tuple[int, int], ...]) -> tuple[Prompt, ...]:
    """Kept by what their files are like (``stamps``), so that a hub is not asked again for every unit."""
    asked = tuple(world_of(of).requests(role, of.sizes))
    if of.world:
        _check(of.world, role, asked, of.sizes[role])
    return asked


def _check(world: str, role: Role, asked: Sequence[Any], n: int) -> None:
    """Raises for requests of a world that are too few, none, of the other side, or two of one id: rows are told apart
    by ids, and what may be shown hangs on the label.
    """
    then = "mend it: demur.testing.check_world, docs/extending.md"
    if strange := [one for one in asked if not isinstance(one, Prompt)]:
        raise DemurError(f"a {type(strange[0]).__name__} among the requests of {world} for {role}", "prompts", then)
    if len(asked) != n:
        raise DemurError(f"{len(asked)} requests of {world} for {role}", f"{n}", then)
    if wrong := [one for one in asked if one.harmful != (role in HARMFUL)]:
        came = f"request {wrong[0].label!r} of {world} for {role}, with harmful={wrong[0].harmful}"
        raise DemurError(came, f"harmful={role in HARMFUL}", then)
    if twice := [one for one, count in Counter(one.id for one in asked).items() if count > 1]:
        came = f"two requests of {world} for {role} with one id ({next(p.label for p in asked if p.id == twice[0])!r})"
        raise DemurError(came, "an id for each", then)


def digests_of(of: Prompts) -> dict[str, str]:
    """A hash of the prompts of every role. Raises where one request would be harmful and harmless at once."""
    asked = {role: prompts_of(of, role) for role in ROLES}
    harmful = {prompt.told for role in HARMFUL for prompt in asked[role]}
    both = {prompt.told for role in ROLES if role not in HARMFUL for prompt in asked[role]} & harmful
    if both:
        raise DemurError(
            f"{len(both)} requests of {of.harmful} that are harmless ones of {of.harmless}, too",
            "different requests on the two sides",
            "name another file, or let a column 'harmful' say of each row which side it is of",
        )
    return {str(role): digest(prompts) for role, prompts in asked.items()}
