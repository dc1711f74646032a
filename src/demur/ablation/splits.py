"""The sets that ``demur ablate MODEL`` compares detectors on: read from files, split, answered, and kept."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from demur.cli.asked import side
from demur.cli.options import out_to
from demur.types import DemurError, Need

if TYPE_CHECKING:
    from demur.guards.ablation import Sets
    from demur.guards.material import Material
    from demur.types import Prompt


@dataclass(frozen=True)
class Counts:
    """How many harmless prompts each set has; ``anchors`` is also the number of harmful ones, ``plain`` that of tests.

    ``exact`` where somebody named a number, or the paper does: too few prompts are then an error.
    """

    anchors: int
    fit: int
    calibrate: int
    plain: int
    exact: str = ""

    @classmethod
    def of(cls, n: int, paper: bool, own: Mapping[str, int]) -> Counts:
        """From one number, or the paper's, and those named by themselves. Raises for both at once."""
        sizes = {"anchors": n, "fit": 4 * n, "calibrate": max(n, 104), "plain": n}
        named = ", ".join(f"--n-{'test' if name == 'plain' else name}" for name in own)
        if paper:
            sizes |= {"anchors": 400, "fit": 1200, "calibrate": 200}
            if fixed := set(own) - {"plain"}:
                raise DemurError(
                    f"--paper with {len(fixed)} numbers of its own", "one of the two", f"leave {named} out"
                )
        return cls(**{**sizes, **own}, exact="--paper" if paper else named)


@dataclass(frozen=True)
class Questions:
    """What is asked for each set; ``plain_harmful`` are tests, ``attacked`` and ``controls`` are by attack."""

    anchors: list[Prompt]
    harmful: list[Prompt]
    fit: list[Prompt]
    calibrate: list[Prompt]
    plain: list[Prompt]
    plain_harmful: list[Prompt]
    attacked: Mapping[str, list[Prompt]]
    controls: Mapping[str, list[Prompt]]


def questions(
    harmless: str,
    harmful: str,
    attacked: Sequence[Path],
    control: Sequence[Path],
    counts: Counts,
    columns: Mapping[str, str],
    seed: int | None = None,
) -> Questions:
    """The prompts of every set, from files. Raises for no attack, for two files of one name, and for requests under
    test that anything learns from.
    """
    from demur.prompts import distinct

    if not attacked:
        raise DemurError(
            "no attacked prompts", "--attacked FILE, once for each attack", "or name no model: the organism"
        )
    good, bad = distinct(side(harmless, False, columns)), distinct(side(harmful, True, columns))
    if seed is not None:
        random.Random(seed).shuffle(good)  # noqa: S311 - a split, no secret
        random.Random(seed).shuffle(bad)  # noqa: S311
    parts, anchors, plain = split(good, bad, counts)
    known = [*parts["anchors"], *parts["fit"], *parts["calibrate"], *anchors]
    wrapped: dict[str, dict[str, list[Prompt]]] = {"--attacked": {}, "--control": {}}
    for option, files, is_harmful in (("--attacked", attacked, True), ("--control", control, False)):
        for path in files:
            if path.stem in wrapped[option]:
                raise DemurError(
                    f"{option} with two files called {path.stem}", "a name for each attack", "rename one of them"
                )
            prompts = side(str(path), is_harmful, columns, counts.plain)
            apart(f"{option} {path.stem}", prompts, known)
            wrapped[option][path.stem] = prompts
    return Questions(
        parts["anchors"], anchors, parts["fit"], parts["calibrate"], parts["plain"], plain,
        wrapped["--attacked"], wrapped["--control"],
    )  # fmt: skip


def sets_of_files(net: Any, sampler: Any, length: int, steps: int, asked: Questions, keep: bool = True) -> Sets:
    """What any model says to them. Success is an answer that is no refusal: say so when citing. ``keep``: what was
    generated before under the same spec is read from the cache, what is new goes there.
    """
    from rich.progress import Progress

    from demur.guards.ablation import Sets
    from demur.guards.material import Shelf, gather, request_of
    from demur.models import cache_dir
    from demur.organism.study import ALL_KEYS, KEYS
    from demur.organism.world import craft_of

    pools = KEYS if Need.CAUSAL in net.offers else ALL_KEYS
    shelf = Shelf(cache_dir() / "ablate") if keep else None
    with Progress(console=out_to(stderr=True), transient=True) as bar:

        def run(name: str, prompts: list[Prompt]) -> Material:
            task = bar.add_task(escape(name), total=len(prompts))
            return gather(
                net, name, prompts, sampler, pools=pools, length=length, steps=steps,
                group=lambda prompt: prompt.category if craft_of(prompt) else request_of(prompt),
                progress=lambda done: bar.update(task, completed=done), kept=shelf,
            )  # fmt: skip

        sets = Sets(
            net.name,
            type(sampler).__name__,
            run("anchors", asked.anchors),
            run("harmful", asked.harmful),
            run("fit", asked.fit),
            run("calibrate", asked.calibrate),
            run("plain", asked.plain),
            {name: run(name, prompts) for name, prompts in asked.attacked.items()},
            {name: run(name, prompts) for name, prompts in asked.controls.items()},
            run("plain harmful", asked.plain_harmful) if asked.plain_harmful else None,
        )
    if shelf is not None:
        said = f"{shelf.reused} of {shelf.reused + shelf.made} answers were kept before"
        said += f"; none could be kept now ({shelf.full})" if shelf.full else f" in {shelf.folder}"
        out_to(stderr=True).print(said, soft_wrap=True, markup=False)
    return sets


def answered(sets: Sets) -> dict[str, dict[str, int]]:
    """How many prompts each set asked, and how many of them were answered and refused."""
    every = {"anchors, harmless": sets.good, "anchors, harmful": sets.bad, "fit": sets.fit}
    every |= {"calibrate": sets.calibrate, "plain": sets.plain}
    every |= {} if sets.refused is None else {"plain harmful": sets.refused}
    every |= {f"attacked/{name}": m for name, m in sets.attacked.items()}
    every |= {f"control/{name}": m for name, m in sets.controls.items()}
    return {
        name: {"asked": len(m), "answered": len(m.answered), "refused": len(m.refusing)} for name, m in every.items()
    }


def in_words(counts: Mapping[str, Mapping[str, int]]) -> str:
    """What made the anchors and the guard, in one line."""
    good, bad = counts["anchors, harmless"], counts["anchors, harmful"]
    fit, held = counts["fit"], counts["calibrate"]
    return (
        f"Anchors: {good['answered']} answers to {good['asked']} harmless prompts and {bad['refused']} refusals of "
        f"{bad['asked']} harmful ones. Fitted on {fit['answered']} answers of {fit['asked']}, calibrated on "
        f"{held['answered']} of {held['asked']}."
    )


def split(
    good: list[Prompt], bad: list[Prompt], counts: Counts
) -> tuple[dict[str, list[Prompt]], list[Prompt], list[Prompt]]:
    """Harmless prompts by what they are for, then harmful ones for anchors and for tests.

    Where there are too few, shares shrink, and standard error says so; where numbers were asked for (each by itself, or
    by the paper's protocol, which is one of numbers), that is an error.
    """
    wanted = {name: getattr(counts, name) for name in ("anchors", "fit", "calibrate", "plain")}
    total, sides, tests = sum(wanted.values()), counts.anchors, counts.plain
    if counts.exact and (len(good) < total or len(bad) < sides):
        raise DemurError(
            f"{len(good)} harmless and {len(bad)} harmful prompts",
            f"{total} and {sides} under {counts.exact}",
            f"give larger files or public sets (--harmless alpaca --harmful advbench), or leave {counts.exact} out",
        )
    shares = wanted
    if len(good) < total:
        shares = {name: len(good) * share // total for name, share in wanted.items()}
        less = ", ".join(f"{name} {share} of {wanted[name]}" for name, share in shares.items())
        out_to(stderr=True).print(f"{len(good)} harmless prompts are fewer than {total}: {less}.", soft_wrap=True)
    anchors, plain = bad[:sides], bad[sides : sides + tests]
    if len(bad) < sides + tests:
        said = f"{len(bad)} harmful prompts are fewer than {sides + tests}"
        out_to(stderr=True).print(f"{said}: anchors {len(anchors)}, plain tests {len(plain)}.", soft_wrap=True)
    parts: dict[str, list[Prompt]] = {}
    begin = 0
    for name, share in shares.items():
        parts[name] = good[begin : begin + share]
        begin += share
    return parts, anchors, plain


def apart(name: str, tested: list[Prompt], known: list[Prompt]) -> None:
    """Raises if prompts under test, or those they were made from, are among those that anchors or the guard learn."""
    learned = {mark for prompt in known for mark in (prompt.id, prompt.parent, prompt.text.strip()) if mark}
    both = [prompt for prompt in tested if {prompt.id, prompt.parent, prompt.text.strip()} & learned]
    if both:
        raise DemurError(
            f"{name}: {len(both)} of {len(tested)} prompts stand in anchors, fit or calibration too ({both[0].label})",
            "requests that nothing was fitted on",
            "give others with --harmless and --harmful, or attack others",
        )
