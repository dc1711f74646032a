"""The prompts of an experiment by role: those of a world, or of files and public sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from demur import worlds
from demur.experiment.config import Prompts, Side
from demur.prompts import digest, distinct, load
from demur.types import DemurError, Prompt
from demur.worlds import HARMFUL, ROLES, Role, World, WorldAttack

ORDER: Mapping[bool, tuple[Role, ...]] = {
    True: ("harmful", "anchors/harmful"),
    False: ("plain", "anchors/harmless", "fit", "calibrate"),
}
"""Which part of a source each role takes, harmful (True) or not. Controls are the first of ``plain``."""


@dataclass(frozen=True)
class Files:
    """The world of prompt files and public sets: two sources, each cut into roles. It has no attacks in words of its
    own, no judge and no models; what it does not have, others do.
    """

    harmful: str
    harmless: str
    columns: tuple[tuple[Side, str, str], ...] = ()
    name: ClassVar[str] = ""
    attacks: ClassVar[Mapping[str, WorldAttack]] = {}
    judge: ClassVar[None] = None
    length: ClassVar[None] = None
    threads: ClassVar[None] = None
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def requests(self, role: Role, sizes: Mapping[Role, int]) -> list[Prompt]:
        """The part of the source that is the role's, where each takes as many as ``sizes`` says. Raises if there are
        too few different prompts.
        """
        if not sizes[role]:
            return []
        order = ORDER[role in HARMFUL]
        taken = {**sizes, "plain": max(sizes["plain"], sizes["controls"])}  # controls are asked plainly, too
        begin = sum(taken[other] for other in order[: order.index("plain" if role == "controls" else role)])
        needed = begin + sizes[role]
        every = self._first(role, needed)
        chosen = every[begin:needed]
        if len(chosen) < sizes[role]:
            raise DemurError(
                f"{len(every)} different prompts in {self._source(role)}",
                f"{sum(taken[other] for other in order)} ({', '.join(f'{o} {taken[o]}' for o in order)})",
                "name a larger source, or smaller numbers under prompts",
            )
        return chosen

    def every(self, role: Role) -> list[Prompt]:
        """All different prompts of the role's side."""
        return distinct(self._load(role, None))

    def _first(self, role: Role, n: int) -> list[Prompt]:
        """At least ``n`` different prompts of the role's side, if there are so many: what comes twice would stand in
        two roles.
        """
        limit = n
        every = distinct(read := self._load(role, limit))
        while len(every) < n and len(read) == limit:
            limit *= 2
            every = distinct(read := self._load(role, limit))
        return every

    def _load(self, role: Role, limit: int | None) -> list[Prompt]:
        side: Side = "harmful" if role in HARMFUL else "harmless"
        columns = {name: column for of, name, column in self.columns if of == side}
        return load(self._source(role), side=side, columns=columns, limit=limit)

    def _source(self, role: Role) -> str:
        return self.harmful if role in HARMFUL else self.harmless

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

    def anchors(self, model: Any, sampler: Any, **how: Any) -> Any:
        """Raises: files have no models of their own."""
        raise DemurError("anchors of files", "a world with models of its own", "run: demur anchors fit")


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
    return tuple(world_of(of).requests(role, of.sizes))


def digests_of(of: Prompts) -> dict[str, str]:
    """A hash of the prompts of every role. Raises where one request would be harmful and harmless at once."""
    asked = {role: prompts_of(of, role) for role in ROLES}
    harmful = {prompt.text for role in HARMFUL for prompt in asked[role]}
    both = {prompt.text for role in ROLES if role not in HARMFUL for prompt in asked[role]} & harmful
    if both:
        raise DemurError(
            f"{len(both)} requests of {of.harmful} that are harmless ones of {of.harmless}, too",
            "different requests on the two sides",
            "name another file, or let a column 'harmful' say of each row which side it is of",
        )
    return {str(role): digest(prompts) for role, prompts in asked.items()}
