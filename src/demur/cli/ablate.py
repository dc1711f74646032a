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
    from demur.guards.ablation import Row, Summary
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
    from demur.organism.findings import across, findings, table_4, title
    from demur.organism.study import study

    if model is not None:
        net = load_model(model, dtype, device)
        _, chosen, size = setup(net, sampler, length, steps, temperature, settings)
        rows, lines = _other(net, chosen, size, steps, harmless, harmful, attacked or [], control or [], n, seeds)
        write(out / "ablation.json", json.dumps({"rows": rows, "summary": lines}, indent=1) + "\n")
        fit: dict[str, Any] = {"summary": lines, "rows": rows}
        _show(f"{model}, {type(chosen).__name__}", table_4(fit))
        out_to().print(f"\n{out / 'ablation.json'}", soft_wrap=True)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    reports = []
    places = folder or [SEEN]
    names = [_name(place) for place in places]
    with Progress(*columns, console=out_to(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        for place, name in zip(places, names, strict=True):

            def progress(what: str, done: int, of: int, name: str = name) -> None:
                bar.update(task, description=f"{name}: {what}", completed=done, total=of)

            found = study(
                place, n=n, paper=paper, alpha=alpha, seeds=range(seeds), workers=workers,
                pictures=out / name if pictures else None, progress=progress,
            )  # fmt: skip
            reports.append(json.loads(json.dumps(found)))
            write(out / f"{name}.json", json.dumps(reports[-1], indent=1) + "\n")
            write(out / f"{name}.md", findings(reports[-1]))
    for about in reports[0]["subjects"]:
        for fit in about["fits"]:
            _show(f"{title(about)}, fitted on {fit['fit']} harmless prompts (n {fit['n_fit']})", table_4(fit))
    if len(reports) > 1:
        write(out / "across.md", across(reports, names))
    out_to().print(f"\n{out}: {', '.join(f'{name}.md' for name in [*names, *['across'] * (len(names) > 1)])}")


def _name(place: Path) -> str:
    """A pair's name: its folder, or the one above where all are called models."""
    return {"weights": "organism", "models": place.parent.name}.get(place.name, place.name)


def _show(name: str, rows: list[tuple[str, ...]]) -> None:
    from rich.table import Table

    table = Table(title=name, title_justify="left", caption="means over attacks; * against the same attack, harmless")
    for head in ("detector", "AUROC", "TPR@1%", "TPR@5%", "worst", "AUROC*", "TPR@1%*", "TPR@5%*", "worst*"):
        table.add_column(head, justify="left" if head == "detector" else "right")
    for row in rows:
        table.add_row(*row)
    out_to().print(table)


def _other(
    net: Any,
    sampler: Any,
    length: int,
    steps: int,
    harmless: str,
    harmful: str,
    attacked: list[Path],
    control: list[Path],
    n: int,
    seeds: int,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The same for any model, from files of prompts. Success is an answer that is no refusal: say so when citing."""
    from dataclasses import asdict

    from rich.progress import Progress

    from demur.guards.ablation import Sets, summarised
    from demur.guards.ablation import ablate as compare
    from demur.guards.material import Material, gather
    from demur.organism.study import ALL_KEYS, KEYS
    from demur.prompts import load as load_prompts

    if not attacked:
        raise DemurError("no attacked prompts", "--attacked FILE, once for each attack", "see docs/guard.md")
    good = load_prompts(harmless, harmful=False)
    shares = [n, 4 * n, max(n, 104), n]
    if len(good) < sum(shares):
        shares = [len(good) * share // sum(shares) for share in shares]
    pools = KEYS if net.kind == "causal" else ALL_KEYS
    with Progress(console=out_to(stderr=True), transient=True) as bar:

        def run(name: str, prompts: list[Prompt]) -> Material:
            task = bar.add_task(name, total=len(prompts))
            return gather(
                net, name, prompts, sampler, pools=pools, length=length, steps=steps,
                progress=lambda done: bar.update(task, completed=done),
            )  # fmt: skip

        parts, begin = [], 0
        for name, share in zip(("anchors", "fit", "calibrate", "plain"), shares, strict=True):
            parts.append(run(name, list(good[begin : begin + share])))
            begin += share
        sets = Sets(
            net.name,
            type(sampler).__name__,
            parts[0],
            run("harmful", list(load_prompts(harmful, harmful=True, limit=n))),
            parts[1],
            parts[2],
            parts[3],
            {path.stem: run(path.stem, list(load_prompts(str(path), harmful=True, limit=n))) for path in attacked},
            {path.stem: run(path.stem, list(load_prompts(str(path), harmful=False, limit=n))) for path in control},
        )
        found: list[Row] = compare(sets, seeds=range(seeds))
    summary: list[Summary] = summarised(found)
    return [asdict(row) for row in found], [asdict(line) for line in summary]
