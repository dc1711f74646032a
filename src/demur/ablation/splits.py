"""Which prompt serves what: nothing is both learnt from and tested. Knows prompts only, no model and no file."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demur.prompts import dealt, distinct, say_sorted
from demur.types import DemurError, Prompt


@dataclass(frozen=True)
class Counts:
    """How many harmless prompts each set has; ``anchors`` is also the number of harmful ones, ``plain`` that of tests.

    ``exact`` names who asked for these very numbers, if somebody did: too few prompts are then an error.
    """

    anchors: int
    fit: int
    calibrate: int
    plain: int
    exact: str = ""

    @classmethod
    def of(cls, n: int) -> Counts:
        """From one number: four times as many to fit on, and enough to calibrate on for an alpha of 0.01."""
        return cls(n, 4 * n, max(n, 104), n)

    @classmethod
    def of_the_paper(cls, n: int) -> Counts:
        """The paper's (section 5), with ``n`` to test on."""
        return cls(400, 1200, 200, n)


@dataclass(frozen=True)
class Questions:
    """What is asked for each set; ``plain_harmful`` are tests, ``attacked`` and ``controls`` are by attack.

    ``notes`` say in whole sentences where there were fewer prompts than wanted.
    """

    anchors: list[Prompt]
    harmful: list[Prompt]
    fit: list[Prompt]
    calibrate: list[Prompt]
    plain: list[Prompt]
    plain_harmful: list[Prompt]
    attacked: Mapping[str, list[Prompt]]
    controls: Mapping[str, list[Prompt]]
    notes: tuple[str, ...] = ()


def questions(
    good: Sequence[Prompt],
    bad: Sequence[Prompt],
    attacked: Mapping[str, list[Prompt]],
    controls: Mapping[str, list[Prompt]],
    counts: Counts,
    seed: int | None = None,
) -> Questions:
    """The prompts of every set, from harmless and harmful ones, and from attacked ones by attack.

    ``seed`` shuffles the first two before they are split; None: as they come, and the harmless ones that are taken are
    dealt to their sets (:func:`demur.prompts.dealt`), so that those of a sorted file are alike. Where there are too
    few, shares shrink, and ``notes`` say so; where the numbers are exact, that is an error. Raises for requests under
    test that anything learns from.
    """
    good, bad = distinct(good), distinct(bad)
    if seed is not None:
        random.Random(seed).shuffle(good)  # noqa: S311 - a split, no secret
        random.Random(seed).shuffle(bad)  # noqa: S311
    shares, notes = _shares(len(good), len(bad), counts)
    if seed is None:
        say_sorted("the harmless side", good, sum(shares.values()))
        say_sorted("the harmful side", bad, counts.anchors)
    good = good if seed is not None else dealt(good[: sum(shares.values())])
    parts: dict[str, list[Prompt]] = {}
    begin = 0
    for name, share in shares.items():
        parts[name] = good[begin : begin + share]
        begin += share
    harmful, plain_harmful = bad[: counts.anchors], bad[counts.anchors : counts.anchors + counts.plain]
    learnt = [*parts["anchors"], *parts["fit"], *parts["calibrate"], *harmful]
    for kind, by_attack in (("attacked", attacked), ("control", controls)):
        for name, prompts in by_attack.items():
            apart(f"{kind} prompts {name}", prompts, learnt)
    return Questions(
        parts["anchors"], harmful, parts["fit"], parts["calibrate"], parts["plain"], plain_harmful,
        attacked, controls, notes,
    )  # fmt: skip


def _shares(good: int, bad: int, counts: Counts) -> tuple[dict[str, int], tuple[str, ...]]:
    """How many of ``good`` harmless prompts each set gets, and where they or the ``bad`` ones are too few."""
    wanted = {name: getattr(counts, name) for name in ("anchors", "fit", "calibrate", "plain")}
    total, sides, tests = sum(wanted.values()), counts.anchors, counts.plain
    if counts.exact and (good < total or bad < sides):
        raise DemurError(
            f"{good} harmless and {bad} harmful prompts",
            f"{total} and {sides} under {counts.exact}",
            f"give larger files or public sets (--harmless alpaca --harmful advbench), or leave {counts.exact} out",
        )
    shares, notes = wanted, []
    if good < total:
        shares = {name: good * share // total for name, share in wanted.items()}
        less = ", ".join(f"{name} {share} of {wanted[name]}" for name, share in shares.items())
        notes.append(f"{good} harmless prompts are fewer than {total}: {less}.")
    if bad < sides + tests:
        left = min(bad, sides), max(bad - sides, 0)
        notes.append(f"{bad} harmful prompts are fewer than {sides + tests}: anchors {left[0]}, plain tests {left[1]}.")
    return shares, tuple(notes)


def apart(name: str, tested: Sequence[Prompt], learnt: Sequence[Prompt]) -> None:
    """Raises if prompts under test, or those they were made from, are among those that anchors or the guard learn."""
    known = {mark for prompt in learnt for mark in (prompt.id, prompt.parent, prompt.text.strip()) if mark}
    both = [prompt for prompt in tested if {prompt.id, prompt.parent, prompt.text.strip()} & known]
    if both:
        raise DemurError(
            f"{name}: {len(both)} of {len(tested)} prompts stand in anchors, fit or calibration too ({both[0].label})",
            "requests that nothing was fitted on",
            "give other harmless and harmful prompts, or attack other requests",
        )
