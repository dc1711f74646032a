"""``demur ablate``: every detector under one protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli.options import (
    Device,
    Dtype,
    Length,
    SamplerName,
    Settings,
    Steps,
    Temperature,
    load_model,
    out_to,
    setup,
)
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.guards.ablation import Sets
    from demur.types import Prompt


def ablate(
    model: Annotated[
        str | None, typer.Argument(help="A model; without one: the organism, both models, attacks and exact judge.")
    ] = None,
    harmless: Annotated[str, typer.Option(help="Prompts for anchors, fit, calibration, tests.")] = "harmless",
    harmful: Annotated[str, typer.Option(help="Harmful prompts that the model refuses, for anchors.")] = "harmful",
    attacked: Annotated[
        list[Path] | None, typer.Option(help="Attacked harmful prompts, one JSONL an attack; answered = success.")
    ] = None,
    control: Annotated[
        list[Path] | None, typer.Option(help="The same attacks on harmless requests, files of the same names.")
    ] = None,
    folder: Annotated[
        list[Path] | None, typer.Option(help="Other pairs than the shipped organism; several: side by side.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=24, help="Prompts of a set; the fit set has four times as many.")] = 104,
    paper: Annotated[
        bool, typer.Option("--paper", help="Fit on 1,200, calibrate on 200, 99% quantile, 400 a side for anchors.")
    ] = False,
    alpha: Annotated[float, typer.Option(help="The guard's bound on false positives.")] = 0.01,
    seeds: Annotated[int, typer.Option(min=1, help="Initialisations of each detector.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Processes of one thread each (organism only).")] = 2,
    pictures: Annotated[bool, typer.Option("--pictures", help="Also draw figures (needs matplotlib).")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Measure pairs anew whose report stands there already (organism only).")
    ] = False,
    out: Annotated[Path, typer.Option(help="Where the reports go.")] = Path("out/ablation"),
    sampler: SamplerName | None = None,
    length: Length = None,
    steps: Steps = 32,
    temperature: Temperature = None,
    settings: Settings = None,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Compare every detector on a model: area, TPR at 1% and 5% FPR, per attack, against two kinds of negatives."""
    from demur.artefact import write
    from demur.organism.card import SEEN
    from demur.organism.findings import findings, table_4
    from demur.organism.study import draw, dynamics_report, fit_report, made_of, protocol, study

    protocol(paper, alpha)
    if model is not None:
        if folder:
            raise DemurError(f"--folder beside the model {model}", "one of the two", "leave one out")
        net = load_model(model, dtype, device)
        _, chosen, size = setup(net, sampler, length, steps, temperature, settings)
        sets = _sets(net, chosen, size, steps, harmless, harmful, attacked or [], control or [], n, paper)
        subject = sets.model, sets.sampler
        fit = fit_report(sets, "plain", seeds=range(seeds), alpha=alpha, paper=paper)
        about: dict[str, Any] = {"model": subject[0], "sampler": subject[1], "judged": False, "fits": [fit]}
        about |= dynamics_report(sets)
        if pictures:
            about["figures"] = [path.name for path in draw(subject, sets, out / "ablation")]
        report = {"alpha": alpha, "paper": paper, "subjects": [about], "orders": []}
        made = {"rows": fit["rows"], "summary": fit["summary"], **report}
        write(out / "ablation.json", json.dumps(made, indent=1) + "\n")
        write(out / "ablation.md", findings(json.loads(json.dumps(report))))
        _show(f"{model}, {type(chosen).__name__}", table_4(fit, intervals=False))
        if fit["short"]:
            out_to(stderr=True).print(f"The guard's flags were not measured: {fit['short']}.", soft_wrap=True)
        out_to().print(f"\n{out / 'ablation.md'}, {out / 'ablation.json'}", soft_wrap=True)
        return
    for option, value in (("--attacked", attacked), ("--control", control), ("--sampler", sampler)):
        if value:
            raise DemurError(f"{option} without a model", "a model, for prompts of your own", "name one")
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    sizes: dict[str, Any] = {"n": n, "paper": paper, "alpha": alpha}
    asked = sizes | {"seeds": seeds, "pictures": pictures}
    reports = []
    places = folder or [SEEN]
    names = [_name(place) for place in places]
    with Progress(*columns, console=out_to(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        for place, name in zip(places, names, strict=True):
            key = made_of(place, **asked)
            if not again and (found := _finished(out / name, key)) is not None:
                bar.console.print(f"{name}: measured before, kept ({out / name}.json); --again measures anew")
            else:

                def progress(what: str, done: int, of: int, name: str = name) -> None:
                    bar.update(task, description=f"{name}: {what}", completed=done, total=of)

                found = study(
                    place, **sizes, seeds=range(seeds), workers=workers,
                    pictures=out / name if pictures else None, progress=progress,
                )  # fmt: skip
                same = made_of(place, **asked) == key  # else weights or code were changed meanwhile
                found = json.loads(json.dumps(found | ({"made_of": key} if same else {})))
            reports.append(found)
            write(out / f"{name}.md", findings(found))  # first: a pair is finished once its JSON stands
            write(out / f"{name}.json", json.dumps(found, indent=1) + "\n")
    _tell(out, reports, names)


CAPTION = "means over attacks; * against the same attack, harmless; intervals stand in the .md file"


def _tell(out: Path, reports: list[dict[str, Any]], names: list[str]) -> None:
    """The first pair's tables, and where the reports lie; several pairs get a page that shows them side by side."""
    from demur.artefact import write
    from demur.organism.findings import across, table_4, title

    for about in reports[0]["subjects"]:
        for fit in about["fits"]:
            _show(
                f"{title(about)}, fitted on {fit['fit']} harmless prompts (n {fit['n_fit']})",
                table_4(fit, intervals=False),
            )
    if len(reports) > 1:
        write(out / "across.md", across(reports, names))
    out_to().print(f"\n{out}: {', '.join(f'{name}.md' for name in [*names, *['across'] * (len(names) > 1)])}")


def _finished(place: Path, key: str) -> dict[str, Any] | None:
    """The report of a pair that was measured before, if it was made of the same and its figures are there; a pair takes
    half an hour.
    """
    try:
        found: dict[str, Any] = json.loads(place.with_name(f"{place.name}.json").read_text(encoding="utf-8"))
        figures = [name for about in found["subjects"] for name in about.get("figures", [])]
        return found if found["made_of"] == key and all((place / name).is_file() for name in figures) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _name(place: Path) -> str:
    """A pair's name: its folder, or the one above where all are called models."""
    return {"weights": "organism", "models": place.parent.name}.get(place.name, place.name)


def _show(name: str, rows: list[tuple[str, ...]]) -> None:
    from rich.table import Table

    table = Table(title=name, title_justify="left", caption=CAPTION)
    for head in ("detector", "AUROC", "TPR@1%", "TPR@5%", "worst", "AUROC*", "TPR@1%*", "TPR@5%*", "worst*"):
        table.add_column(head, justify="left" if head == "detector" else "right")
    for row in rows:
        table.add_row(*row)
    out_to().print(table)


def _sets(
    net: Any,
    sampler: Any,
    length: int,
    steps: int,
    harmless: str,
    harmful: str,
    attacked: list[Path],
    control: list[Path],
    n: int,
    paper: bool,
) -> Sets:
    """What any model says to prompts from files. Success is an answer that is no refusal: say so when citing."""
    from rich.progress import Progress

    from demur.guards.ablation import Sets
    from demur.guards.material import Material, gather, request_of
    from demur.organism.study import ALL_KEYS, KEYS
    from demur.organism.world import craft_of
    from demur.prompts import distinct
    from demur.prompts import load as load_prompts

    if not attacked:
        raise DemurError("no attacked prompts", "--attacked FILE, once for each attack", "see docs/guard.md")
    good, bad = distinct(load_prompts(harmless, harmful=False)), distinct(load_prompts(harmful, harmful=True))
    parts, anchors, plain = _split(good, bad, n, paper)
    wrapped = {path.stem: load_prompts(str(path), harmful=True, limit=n) for path in attacked}
    benign = {path.stem: load_prompts(str(path), harmful=False, limit=n) for path in control}
    known = [*parts["anchors"], *parts["fit"], *parts["calibrate"], *anchors]
    for option, files in (("--attacked", wrapped), ("--control", benign)):
        for name, prompts in files.items():
            _apart(f"{option} {name}", prompts, known)
    pools = KEYS if net.kind == "causal" else ALL_KEYS
    with Progress(console=out_to(stderr=True), transient=True) as bar:

        def run(name: str, prompts: list[Prompt]) -> Material:
            task = bar.add_task(name, total=len(prompts))
            return gather(
                net, name, prompts, sampler, pools=pools, length=length, steps=steps,
                group=lambda prompt: prompt.category if craft_of(prompt) else request_of(prompt),
                progress=lambda done: bar.update(task, completed=done),
            )  # fmt: skip

        return Sets(
            net.name,
            type(sampler).__name__,
            run("anchors", parts["anchors"]),
            run("harmful", anchors),
            run("fit", parts["fit"]),
            run("calibrate", parts["calibrate"]),
            run("plain", parts["plain"]),
            {name: run(name, prompts) for name, prompts in wrapped.items()},
            {name: run(name, prompts) for name, prompts in benign.items()},
            run("plain harmful", plain) if plain else None,
        )


def _split(
    good: list[Prompt], bad: list[Prompt], n: int, paper: bool
) -> tuple[dict[str, list[Prompt]], list[Prompt], list[Prompt]]:
    """Harmless prompts by what they are for, then harmful ones for anchors and for tests.

    Where there are too few, shares shrink, and standard error says so; under the paper's protocol that is an error,
    since it is one of numbers.
    """
    wanted = {"anchors": n, "fit": 4 * n, "calibrate": max(n, 104), "plain": n}
    if paper:
        wanted |= {"anchors": 400, "fit": 1200, "calibrate": 200}
    total, sides = sum(wanted.values()), wanted["anchors"]
    if paper and (len(good) < total or len(bad) < sides):
        raise DemurError(
            f"{len(good)} harmless and {len(bad)} harmful prompts",
            f"{total} and {sides} under --paper",
            "give larger files or public sets (--harmless alpaca --harmful advbench), or leave --paper out",
        )
    shares = wanted
    if len(good) < total:
        shares = {name: len(good) * share // total for name, share in wanted.items()}
        less = ", ".join(f"{name} {share} of {wanted[name]}" for name, share in shares.items())
        out_to(stderr=True).print(f"{len(good)} harmless prompts are fewer than {total}: {less}.", soft_wrap=True)
    anchors, plain = bad[:sides], bad[sides : sides + n]
    if len(bad) < sides + n:
        said = f"{len(bad)} harmful prompts are fewer than {sides + n}"
        out_to(stderr=True).print(f"{said}: anchors {len(anchors)}, plain tests {len(plain)}.", soft_wrap=True)
    parts: dict[str, list[Prompt]] = {}
    begin = 0
    for name, share in shares.items():
        parts[name] = good[begin : begin + share]
        begin += share
    return parts, anchors, plain


def _apart(name: str, tested: list[Prompt], known: list[Prompt]) -> None:
    """Raises if prompts under test, or those they were made from, are among those that anchors or the guard learn."""
    learned = {mark for prompt in known for mark in (prompt.id, prompt.parent, prompt.text.strip()) if mark}
    both = [prompt for prompt in tested if {prompt.id, prompt.parent, prompt.text.strip()} & learned]
    if both:
        raise DemurError(
            f"{name}: {len(both)} of {len(tested)} prompts stand in anchors, fit or calibration too ({both[0].id})",
            "requests that nothing was fitted on",
            "give others with --harmless and --harmful, or attack others",
        )
