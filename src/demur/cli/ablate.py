"""``demur ablate``: every detector under one protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from demur.cli.asked import Columns, columns_of, side
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
    load_model,
    out_to,
    setup,
)
from demur.cli.places import check_writable
from demur.cli.progress import progress_on
from demur.cli.settings import LARGEST_SEED, check_alpha, check_temperature
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.ablation.protocol import Sets
    from demur.ablation.splits import Counts, Questions
    from demur.traces import Trace
    from demur.traces.kept import Kept
    from demur.types import Prompt

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
    n: Annotated[
        int, typer.Option("--n", "-n", min=24, help="Prompts of a set; the fit set has four times as many.")
    ] = 104,
    n_anchors: OwnCount = None,
    n_fit: OwnCount = None,
    n_calibrate: OwnCount = None,
    n_test: OwnCount = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST_SEED, help="Shuffles prompts before they are split; default: dealt."),
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
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the reports go.")] = Path("out/ablation"),
    detector: Annotated[
        list[str] | None,
        typer.Option(help="Measure this detector, too: a packaged name or module:Class; with a model; repeatable."),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="In place of detectors, compare layers (all, or such as 1,12,last) in every pooling mode, read as the "
            "paper does and as the default guard does; with a model. Everything is generated once. All states lie in "
            "the cache: 4 bytes x layers x modes x T x width an answer, told before it begins."
        ),
    ] = None,
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
    from demur.ablation.report import check_protocol, model_report, write_report
    from demur.ablation.splits import questions

    check_alpha(alpha)
    check_temperature(temperature)
    check_writable(out / "ablation.json")
    check_protocol(paper, alpha)
    own = {"anchors": n_anchors, "fit": n_fit, "calibrate": n_calibrate, "plain": n_test}
    if model is None:
        alone: dict[str, Any] = {"--attacked": attacked, "--control": control, "--sampler": sampler, "--system": system}
        alone |= {
            "--template-arg": template,
            "--column": column,
            "--seed": seed,
            "--detector": detector,
            "--layers": layers,
            "--length": length,
            "--set": settings,
        }
        alone |= {_option(name): count for name, count in own.items()}
        for option, value in alone.items():
            if value is not None:
                raise DemurError(f"{option} without a model", "a model, for prompts of your own", "name one")
        _pairs(
            folder or [], out, again,
            n=n, paper=paper, alpha=alpha, seeds=seeds, workers=workers, pictures=pictures,
        )  # fmt: skip
        return
    if folder:
        raise DemurError(f"--folder beside the model {model}", "one of the two", "leave one out")
    if not attacked:
        raise DemurError(
            "no attacked prompts", "--attacked FILE, once for each attack", "or name no model: the organism"
        )
    from demur.guards.detectors import named as detector_named

    if layers is not None and detector:
        raise DemurError("--detector beside --layers", "one of the two", "leave one out")
    for name in detector or ():
        detector_named(name)  # now, and not after minutes of generating
    counts = counts_of(n, paper, {name: count for name, count in own.items() if count is not None})
    columns = columns_of(column)
    asked = questions(
        side(harmless, False, columns),
        side(harmful, True, columns),
        _by_attack("--attacked", attacked, True, columns, counts.plain),
        _by_attack("--control", control or [], False, columns, counts.plain),
        counts,
        seed,
    )
    for note in asked.notes:
        out_to(stderr=True).print(note, soft_wrap=True, markup=False)
    net = load_model(model, dtype, device, system, template=template)
    _, chosen, size = setup(net, sampler, length, steps, temperature, settings)
    if layers is not None:
        from demur.cli.layers import by_layer

        by_layer(
            net, chosen, asked, layers, out,
            length=size, steps=steps, seeds=range(seeds), split=seed, keep=keep, pictures=pictures,
        )  # fmt: skip
        return
    sets = _recorded(net, chosen, asked, keep, length=size, steps=steps)
    report = model_report(
        sets,
        seeds=range(seeds),
        alpha=alpha,
        paper=paper,
        split=seed,
        pictures=out / "ablation" if pictures else None,
        detectors=detector or (),
    )
    _tell(f"{model}, {type(chosen).__name__}", report, write_report(report, out))


def counts_of(n: int, paper: bool, own: Mapping[str, int]) -> "Counts":
    """How many prompts each set has: from one number, or the paper's, and those named by themselves. Raises for numbers
    of its own beside the paper's.
    """
    from demur.ablation.splits import Counts

    named = ", ".join(map(_option, own))
    if not paper:
        return replace(Counts.of(n), **own, exact=named)
    if fixed := set(own) - {"plain"}:
        raise DemurError(f"--paper with {len(fixed)} numbers of its own", "one of the two", f"leave {named} out")
    return replace(Counts.of_the_paper(n), **own, exact="--paper")


def _option(name: str) -> str:
    """The option that sets the size of a set."""
    return f"--n-{'test' if name == 'plain' else name}"


def _by_attack(
    option: str, files: Sequence[Path], harmful: bool, columns: Mapping[str, str], limit: int
) -> "dict[str, list[Prompt]]":
    """Prompts by attack, which a file is named for. Raises for two files of one name."""
    found: dict[str, list[Prompt]] = {}
    for path in files:
        if path.stem in found:
            raise DemurError(
                f"{option} with two files called {path.stem}", "a name for each attack", "rename one of them"
            )
        found[path.stem] = side(str(path), harmful, columns, limit)
    return found


def _recorded(net: Any, sampler: Any, asked: "Questions", keep: bool, *, length: int, steps: int) -> "Sets":
    """The model's answers, with a bar for each set; those that were kept come from the cache."""
    from demur.ablation.asking import record_sets
    from demur.models import cache_dir
    from demur.traces.kept import Kept

    kept = Kept(cache_dir() / "ablate") if keep else None
    with progress_on() as progress:
        sets = record_sets(
            net, sampler, asked, length=length, steps=steps, kept=kept, progress=progress,
            group=group_of, reads=_reads,
        )  # fmt: skip
    if kept is not None:
        tell_kept(kept)
    return sets


def _reads(trace: "Trace") -> str:
    """How a final text reads, beside the dictionary; empty where it can not be read."""
    from demur.judges import read_answer

    found = read_answer(trace.said(trace.steps), trace.prompt.text)
    return found.value if found.readable else ""


def group_of(prompt: "Prompt") -> str:
    """What a prompt asks for, whatever wraps it."""
    from demur.ablation.material import request_of
    from demur.organism.world import craft_of

    return prompt.category if craft_of(prompt) else request_of(prompt)


def tell_kept(kept: "Kept") -> None:
    """How many answers were not generated again."""
    said = f"{kept.reused} of {kept.reused + kept.made} answers were kept before"
    said += f"; none could be kept now ({kept.full})" if kept.full else f" in {kept.folder}"
    out_to(stderr=True).print(said, soft_wrap=True, markup=False)


def _tell(name: str, report: Mapping[str, Any], written: tuple[Path, Path]) -> None:
    """One model's tables, what made anchors and guard, and where the report lies."""
    from demur.ablation.report import in_words
    from demur.ablation.tables import table_4

    (about,) = report["subjects"]
    (fit,) = about["fits"]
    _show(name, table_4(fit, intervals=False))
    console = out_to()
    console.print(in_words(about["sets"]), soft_wrap=True, markup=False)
    if fit["short"]:
        out_to(stderr=True).print(f"The guard's flags were not measured: {fit['short']}.", soft_wrap=True)
    console.print(f"\n{', '.join(map(str, written))}", soft_wrap=True, markup=False)


def _pairs(folders: Sequence[Path], out: Path, again: bool, **asked: Any) -> None:
    """The organism's study of each pair, and the first one's tables. Several get a page that shows them all."""
    from demur.ablation.tables import across, table_4, title
    from demur.artefact import write
    from demur.organism.measuring.card import SEEN
    from demur.organism.measuring.study import measured

    places = folders or [SEEN]
    names = [_name(place) for place in places]
    reports = []
    with progress_on() as progress:
        for place, name in zip(places, names, strict=True):

            def told(what: str, done: int, of: int, name: str = name) -> None:
                progress(f"{name}: {what}", done, of)

            report, fresh = measured(place, out / name, again=again, progress=told, **asked)
            if not fresh:
                kept = f"{name}: measured before, kept ({out / name}.json); --again measures anew"
                out_to(stderr=True).print(kept, markup=False)
            reports.append(report)
    for about in reports[0]["subjects"]:
        for fit in about["fits"]:
            head = f"{title(about)}, fitted on {fit['fit']} harmless prompts (n {fit['n_fit']})"
            _show(head, table_4(fit, intervals=False))
    if len(reports) > 1:
        write(out / "across.md", across(reports, names))
    pages = [f"{name}.md" for name in [*names, *["across"] * (len(names) > 1)]]
    out_to().print(escape(f"\n{out}: {', '.join(pages)}"), soft_wrap=True)


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
