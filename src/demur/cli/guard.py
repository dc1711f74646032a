"""``demur guard``: fitting, showing and using guards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli.options import (
    Device,
    Dtype,
    LayerName,
    Length,
    PoolName,
    Refusals,
    RefusalsFrom,
    SamplerName,
    Settings,
    Steps,
    Temperature,
    is_organism,
    load_model,
    out_to,
    prompt_of,
    setup,
)
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.guards import Guard
    from demur.types import Prompt

app = typer.Typer(
    help="SRI Guard: a detector of failed recovery, fitted on harmless prompts alone.", no_args_is_help=True
)


class Threshold(StrEnum):
    """How the threshold is set."""

    conformal = "conformal"
    quantile = "quantile"


@app.command()
def fit(
    model: Annotated[str, typer.Argument(help="Built-in name, folder, .gguf file or hub id.")],
    out: Annotated[Path, typer.Option(help="Where the guard goes.")] = Path("guard.safetensors"),
    anchors: Annotated[
        Path | None, typer.Option(help="A file of `demur anchors fit`; default: fitted first, on prompts of their own.")
    ] = None,
    harmless: Annotated[str, typer.Option(help="Prompts: harmless, organism, alpaca, a file or hf:owner/name.")] = "",
    harmful: Annotated[str, typer.Option(help="For anchors only: harmful, organism, advbench, a file or hf:...")] = "",
    n_anchors: Annotated[int, typer.Option(min=8, help="Prompts a side for anchors.")] = 100,
    n_fit: Annotated[int, typer.Option(min=8, help="Harmless prompts to fit on.")] = 400,
    n_calibrate: Annotated[int, typer.Option(min=2, help="Harmless prompts for the threshold.")] = 200,
    n_check: Annotated[int, typer.Option(min=0, help="Harmless prompts to measure false positives on.")] = 100,
    alpha: Annotated[float, typer.Option(help="False positives that may not be exceeded.")] = 0.01,
    threshold: Annotated[Threshold, typer.Option(help="conformal: with a guarantee; quantile: the paper's.")] = (
        Threshold.conformal
    ),
    paper: Annotated[
        bool, typer.Option("--paper", help="The published protocol: fit 1,200, calibrate 200, 99% quantile.")
    ] = False,
    sampler: SamplerName | None = None,
    length: Length = None,
    steps: Steps = 32,
    temperature: Temperature = None,
    settings: Settings = None,
    layer: LayerName = "last",
    pool: PoolName = PoolName.generated,
    refusals: RefusalsFrom = Refusals.observed,
    batch: Annotated[int, typer.Option(min=1)] = 16,
    seed: int = 0,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Fit and calibrate a guard on harmless prompts; its file holds the anchors too."""
    from rich.progress import Progress

    from demur.guards import fit_guard
    from demur.signals import Anchors, anchors_of
    from demur.trace import Trace, generate

    if paper:
        n_anchors, n_fit, n_calibrate, threshold, alpha = 400, 1200, 200, Threshold.quantile, 0.01
    net = load_model(model, dtype, device)
    _, chosen, size = setup(net, sampler, length, steps, temperature, settings)
    key: Any = (layer, pool.value)
    needed = [0 if anchors else n_anchors, n_fit, n_calibrate, n_check]
    known = Anchors.load(anchors) if anchors else None
    if known and not known.prompts:
        out_to(stderr=True).print(
            f"! {anchors} does not say which prompts it was fitted on: some of them may be among those taken now, and "
            "then the promise does not hold. Make it again: demur anchors fit",
            style="yellow",
        )
    good = _prompts(harmless or _own(model), False, needed, known.prompts if known else ())
    with Progress(console=out_to(stderr=True), transient=True) as bar:

        def run(what: str, prompts: list[Prompt]) -> list[Trace]:
            task = bar.add_task(what, total=len(prompts))
            return generate(
                net, prompts, chosen, length=size, steps=steps, seed=seed, pools=[key], batch=batch,
                progress=lambda done: bar.update(task, completed=done),
            )  # fmt: skip

        if known:
            fitted = known
        else:
            bad = _prompts(harmful or _own(model), True, [n_anchors])[0]
            tasks: dict[str, Any] = {}

            def progress(what: str, done: int, of: int) -> None:
                if what not in tasks:
                    tasks[what] = bar.add_task(f"anchors: {what}", total=of)
                bar.update(tasks[what], completed=done)

            fitted = anchors_of(
                net, good[0], bad, chosen, length=size, steps=steps, layer=layer, pool=pool.value,
                refusals=refusals.value, seed=seed, batch=batch, at_least=5, progress=progress,
            )  # fmt: skip
        guard = fit_guard(
            fitted,
            run("answering prompts to fit on", good[1]),
            run("answering prompts to calibrate on", good[2]),
            alpha=alpha,
            threshold=threshold.value,
            seed=seed,
        )
        if good[3]:
            guard = guard.measured("harmless, unseen", run("answering prompts to check on", good[3]))
    guard.save(out)
    out_to().print(f"[bold]{out}[/bold]")
    _describe(guard)


def _own(model: str) -> str:
    return "organism" if is_organism(model) else "starter"


def _prompts(name: str, harmful: bool, needed: list[int], seen: Sequence[str] = ()) -> list[list[Prompt]]:
    """Disjoint sets of the sizes asked for, without prompts that were ``seen`` before (by hash). Raises if there are
    too few prompts, with the sizes that would fit.
    """
    from demur.organism.world import TEST_FORMS, crafts
    from demur.organism.world import prompts as world_prompts
    from demur.prompts import distinct
    from demur.prompts import load as load_prompts
    from demur.signals import digest

    taken, beside = {*seen}, " that the anchors have not seen" if seen else ""
    if name == "organism":  # splits by craft, so that no set shares a craft with another
        splits: list[Any] = ["anchors", "guard", "calibration", "train"]
        sets = []
        for split, n in zip(splits, needed, strict=False):
            most = len(crafts(split, harmful)) * len(TEST_FORMS)
            every = world_prompts(split, forbidden=harmful, n=max(n, most)) if n else []
            sets.append([prompt for prompt in every if digest(prompt) not in taken][:n])
            if len(sets[-1]) < n:
                raise DemurError(
                    f"{len(sets[-1])} requests of the split {split}{beside}",
                    str(n),
                    "ask for fewer, or fit other anchors",
                )
        return sets
    if name == "starter":
        name = "harmful" if harmful else "harmless"
    every = [p for p in distinct(load_prompts(name, harmful=harmful)) if digest(p) not in taken]
    if len(every) < sum(needed):
        raise DemurError(
            f"{len(every)} different prompts in {name}{beside}",
            f"{sum(needed)} ({' + '.join(map(str, needed))} for anchors, fit, calibration and check)",
            "name a larger set (--harmless alpaca, a file, hf:owner/name) or smaller numbers (--n-fit 60 ...)",
        )
    found, begin = [], 0
    for n in needed:
        found.append(every[begin : begin + n])
        begin += n
    return found


@app.command()
def show(path: Annotated[Path, typer.Argument(help="A file of `demur guard fit`.")]) -> None:
    """Show what a guard belongs to, what it was fitted on and what it promises."""
    from demur.guards import Guard

    _describe(Guard.load(path))


def _describe(guard: Guard) -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None)
    spec = guard.spec
    for name in ("model", "revision", "weights", "dtype", "template", "sampler", "settings", "steps", "layer", "pool"):
        table.add_row(name, str(getattr(spec, name)))
    a = guard.anchors
    table.add_row("anchors", f"{a.n_harmless} answered and {a.n_harmful} refused prompts ({a.refusals})")
    table.add_row("fitted on", f"{guard.n_fit} signals of harmless prompts, by the detector {guard.detector.name}")
    table.add_row("left out", f"{guard.refused} harmless prompts that the model refused")
    table.add_row("threshold", f"{guard.threshold.value:.4g}, online {guard.prefix.threshold.value:.4g}")
    table.add_row("promise", guard.promise)
    for name, rate in guard.checked.items():
        online = guard.checked_online.get(name)  # a guard of before does not know it
        table.add_row(f"measured, {name}", f"false positives {rate}" + (f", online {online}" if online else ""))
    out_to().print(table)
    if a.warning:
        out_to().print(f"! {a.warning}", style="yellow")


@app.command()
def run(
    guard: Annotated[Path, typer.Argument(help="A file of `demur guard fit`.")],
    prompt: Annotated[
        list[str],
        typer.Argument(
            help="What to ask, or ids of starter or organism prompts; or one .jsonl, .json, .csv, .parquet."
        ),
    ],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Default: the model the guard belongs to.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Judge finished answers instead of every step.")] = False,
    harmful: Annotated[
        bool | None,
        typer.Option("--harmful/--harmless", help="Mark the prompts; of a file, those that bring no mark."),
    ] = None,
    show_harmful: Annotated[
        bool,
        typer.Option("--show-harmful", help="Show the words of answers to harmful prompts, and to unmarked files."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a prompt.")] = False,
    batch: Annotated[int, typer.Option(min=1)] = 8,
    seed: int = 0,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Answer prompts under the guard: what it stops is answered with a refusal."""
    from demur.guards import Guard, Watch, acted
    from demur.prompts import load as load_prompts
    from demur.redaction import redact
    from demur.samplers import CLASSES
    from demur.trace import generate

    known = Guard.load(guard)
    net = load_model(model or known.spec.model, dtype, device, quiet=as_json)
    from_file = len(prompt) == 1 and prompt[0].endswith((".jsonl", ".json", ".csv", ".parquet"))
    if from_file:  # nobody has read them: what brings no mark may be anything
        asked = [p if p.harmful is not None else replace(p, harmful=harmful) for p in load_prompts(prompt[0])]
    else:
        asked = [prompt_of(text, harmful, str(i)) for i, text in enumerate(prompt, 1)]
    chosen_settings = {k: tuple(v) if isinstance(v, list) else v for k, v in known.spec.settings.items()}
    size = int(chosen_settings.pop("length", known.spec.steps))  # type: ignore[arg-type]
    chosen = Watch(known, online=not offline)(CLASSES[known.spec.sampler](**chosen_settings))
    pools: Any = [(known.spec.layer, known.spec.pool)]
    traces = generate(net, asked, chosen, length=size, steps=known.spec.steps, seed=seed, pools=pools, batch=batch)
    for one, trace in zip(asked, traces, strict=True):
        verdict = acted(trace)
        text = trace.text()
        open_ = one.harmful is False or (one.harmful is None and not from_file)
        hide = not (open_ or show_harmful or verdict.flagged)
        if as_json:
            line = {"id": one.id, "flagged": verdict.flagged, "step": verdict.step, "why": verdict.why}
            print(json.dumps(line | {"text": redact(text) if hide else text}), flush=True)
        else:
            mark = f"[red]stopped after step {verdict.step}[/red]" if verdict.flagged else "[green]let pass[/green]"
            out_to().print(f"{mark}  {one.id}", soft_wrap=True)
            out_to().print(f"  {redact(text) if hide else text}", soft_wrap=True, markup=False)
