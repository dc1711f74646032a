"""``demur ablate``: every detector under one protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from demur.cli.asked import Columns, columns_of
from demur.cli.options import (
    Device,
    Dtype,
    Length,
    SamplerName,
    Settings,
    Steps,
    SystemPrompt,
    Temperature,
    TemplateArguments,
    check_writable,
    load_model,
    out_to,
    setup,
)
from demur.cli.settings import LARGEST_SEED, check_alpha, check_temperature
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.guards.ablation import Sets

OwnCount = Annotated[
    int | None, typer.Option(min=8, help="Prompts of this set alone, whatever --n says; too few are an error.")
]


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
    column: Columns = None,
    folder: Annotated[
        list[Path] | None, typer.Option(help="Other pairs than the shipped organism; several: side by side.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=24, help="Prompts of a set; the fit set has four times as many.")] = 104,
    n_anchors: OwnCount = None,
    n_fit: OwnCount = None,
    n_calibrate: OwnCount = None,
    n_test: OwnCount = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST_SEED, help="Shuffles prompts before they are split; default: as read."),
    ] = None,
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
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Keep what was generated, in the cache, for the next call.")
    ] = True,
    out: Annotated[Path, typer.Option(help="Where the reports go.")] = Path("out/ablation"),
    sampler: SamplerName = None,
    length: Length = None,
    steps: Steps = 32,
    temperature: Temperature = None,
    settings: Settings = None,
    dtype: Dtype = "auto",
    device: Device = None,
    system: SystemPrompt = None,
    template: TemplateArguments = None,
) -> None:
    """Compare every detector on a model: area, TPR at 1% and 5% FPR, per attack, against two kinds of negatives."""
    from demur.artefact import write
    from demur.cli.ablating import Counts, questions, sets_of_files
    from demur.organism.card import SEEN
    from demur.organism.findings import findings
    from demur.organism.study import made_of, protocol, study

    check_alpha(alpha)
    check_temperature(temperature)
    check_writable(out / "ablation.json")
    protocol(paper, alpha)
    own = {"anchors": n_anchors, "fit": n_fit, "calibrate": n_calibrate, "plain": n_test}
    if model is not None:
        if folder:
            raise DemurError(f"--folder beside the model {model}", "one of the two", "leave one out")
        counts = Counts.of(n, paper, {name: count for name, count in own.items() if count is not None})
        asked = questions(harmless, harmful, attacked or [], control or [], counts, columns_of(column), seed)
        net = load_model(model, dtype, device, system, template=template)
        _, chosen, size = setup(net, sampler, length, steps, temperature, settings)
        sets = sets_of_files(net, chosen, size, steps, asked, keep)
        _report_on(sets, f"{model}, {type(chosen).__name__}", out, range(seeds), alpha, paper, seed, pictures)
        return
    alone: dict[str, Any] = {"--attacked": attacked, "--control": control, "--sampler": sampler, "--system": system}
    alone |= {"--template-arg": template, "--column": column, "--seed": seed, "--length": length, "--set": settings}
    alone |= {f"--n-{'test' if name == 'plain' else name}": count for name, count in own.items()}
    for option, value in alone.items():
        if value is not None:
            raise DemurError(f"{option} without a model", "a model, for prompts of your own", "name one")
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    sizes: dict[str, Any] = {"n": n, "paper": paper, "alpha": alpha}
    wanted = sizes | {"seeds": seeds, "pictures": pictures}
    reports = []
    places = folder or [SEEN]
    names = [_name(place) for place in places]
    with Progress(*columns, console=out_to(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        for place, name in zip(places, names, strict=True):
            key = made_of(place, **wanted)
            if not again and (found := _finished(out / name, key)) is not None:
                bar.console.print(
                    f"{name}: measured before, kept ({out / name}.json); --again measures anew", markup=False
                )
            else:

                def progress(what: str, done: int, of: int, name: str = name) -> None:
                    bar.update(task, description=escape(f"{name}: {what}"), completed=done, total=of)

                found = study(
                    place, **sizes, seeds=range(seeds), workers=workers,
                    pictures=out / name if pictures else None, progress=progress,
                )  # fmt: skip
                same = made_of(place, **wanted) == key  # else weights or code were changed meanwhile
                found = json.loads(json.dumps(found | ({"made_of": key} if same else {})))
            reports.append(found)
            write(out / f"{name}.md", findings(found))  # first: a pair is finished once its JSON stands
            write(out / f"{name}.json", json.dumps(found, indent=1) + "\n")
    _tell(out, reports, names)


def _report_on(
    sets: Sets, name: str, out: Path, seeds: Sequence[int], alpha: float, paper: bool, split: int | None, pictures: bool
) -> None:
    """Detectors, guard and dynamics of one model on sets of its own, as files and as a table."""
    from demur.artefact import write
    from demur.cli.ablating import answered, in_words
    from demur.organism.findings import findings, table_4
    from demur.organism.study import draw, dynamics_report, fit_report

    fit = fit_report(sets, "plain", seeds=seeds, alpha=alpha, paper=paper)
    about: dict[str, Any] = {"model": sets.model, "sampler": sets.sampler, "judged": False, "fits": [fit]}
    about |= {"sets": answered(sets), "split": split} | dynamics_report(sets)
    if pictures:
        about["figures"] = [path.name for path in draw((sets.model, sets.sampler), sets, out / "ablation")]
    report = {"alpha": alpha, "paper": paper, "subjects": [about], "orders": []}
    made = {"rows": fit["rows"], "summary": fit["summary"], **report}
    write(out / "ablation.json", json.dumps(made, indent=1) + "\n")
    write(out / "ablation.md", findings(json.loads(json.dumps(report))))
    _show(name, table_4(fit, intervals=False))
    console = out_to()
    console.print(in_words(about["sets"]), soft_wrap=True, markup=False)
    if fit["short"]:
        out_to(stderr=True).print(f"The guard's flags were not measured: {fit['short']}.", soft_wrap=True)
    console.print(f"\n{out / 'ablation.md'}, {out / 'ablation.json'}", soft_wrap=True, markup=False)


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
    out_to().print(
        escape(f"\n{out}: {', '.join(f'{name}.md' for name in [*names, *['across'] * (len(names) > 1)])}"),
        soft_wrap=True,
    )


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
    """Table 4 in two parts, one for each kind of negatives, since both beside each other need 110 columns."""
    from rich.table import Table

    console = out_to()
    for part, against in enumerate(("plain harmless answers", "the same attack on harmless requests")):
        title = escape(name) + "\nsuccessful attacks against " + against
        table = Table(title=title, title_justify="left", caption=CAPTION)
        for head in ("detector", "AUROC", "TPR@1%", "TPR@5%", "worst"):
            table.add_column(head, justify="left" if head in ("detector", "worst") else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(escape, (row[0], *row[1 + 4 * part : 5 + 4 * part])))
        console.print(table)


CAPTION = "means over attacks; intervals stand in the .md file"
