"""``demur anchors``: fitting and showing anchors."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from demur import worlds
from demur.cli.asked import Columns, columns_of, side
from demur.cli.options import (
    Count,
    Device,
    Dtype,
    LayerName,
    Length,
    PoolName,
    Refusals,
    RefusalsFrom,
    SamplerName,
    Seed,
    Settings,
    Steps,
    SystemPrompt,
    Temperature,
    TemplateArguments,
    Whitened,
    load_model,
    out_to,
    setup,
    signal_of,
)
from demur.cli.places import check_writable
from demur.cli.progress import progress_on, unfinished
from demur.cli.settings import check_temperature
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.signals import Anchors
    from demur.signals.anchors import SignalName
    from demur.signals.stability import Stability
    from demur.types import Prompt

app = typer.Typer(help="Anchors: what refusing and complying look like inside one model.", no_args_is_help=True)


@app.command("fit")
def fit(
    model: Annotated[str, typer.Argument(help="Built-in name, folder, .gguf file or hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the anchors go.")] = Path("anchors.safetensors"),
    harmless: Annotated[str, typer.Option(help="Prompts: harmless, organism, alpaca, a file or hf:owner/name.")] = "",
    harmful: Annotated[str, typer.Option(help="Prompts: harmful, organism, advbench, a file or hf:owner/name.")] = "",
    n: Count = 100,
    sampler: SamplerName = None,
    length: Length = None,
    steps: Steps = 32,
    temperature: Temperature = None,
    settings: Settings = None,
    layer: LayerName = "last",
    pool: PoolName = PoolName.generated,
    whitened: Whitened = None,
    refusals: RefusalsFrom = Refusals.observed,
    at_least: Annotated[int, typer.Option(min=1, help="Fewer answers than this on a side are an error.")] = 5,
    batch: Annotated[int, typer.Option(min=1)] = 8,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = None,
    system: SystemPrompt = None,
    template: TemplateArguments = None,
    column: Columns = None,
) -> None:
    """Fit anchors: the mean of harmless answers that complied and of harmful ones that refused."""
    from demur.signals import anchors_of

    check_writable(out, sort="anchors", beside=(model, harmless, harmful))
    check_temperature(temperature)
    columns, signal = columns_of(column), signal_of(whitened)
    sides = ((harmless, False), (harmful, True))
    good, bad = (_prompts(name, model, is_harmful, n, columns, signal) for name, is_harmful in sides)
    net = load_model(model, dtype, device, system, template=template)
    _, chosen, size = setup(net, sampler, length, steps, temperature, settings)
    with unfinished() as kept, progress_on() as progress:
        fitted = anchors_of(
            net, good, bad, chosen, length=size, steps=steps, layer=layer, pool=pool.value,
            signal=signal, refusals=refusals.value, seed=seed, batch=batch,
            at_least=at_least, progress=progress, kept=kept,
        )  # fmt: skip
        fitted.save(out)
    out_to().print(str(out), style="bold", markup=False, soft_wrap=True)
    _describe(fitted)


def _prompts(
    name: str, model: str, harmful: bool, n: int, columns: Mapping[str, str], signal: "SignalName"
) -> "list[Prompt]":
    """Up to ``n`` prompts of a set by name; without a name, of the set that the model understands."""
    from demur.prompts import packaged
    from demur.signals.whitened import HARMFUL

    name = name or worlds.of_model(model)
    if worlds.is_world(name):
        role: worlds.Role = "anchors/harmful" if harmful else "anchors/harmless"
        return worlds.named(name).requests(role, {role: n})
    if not name and signal == "whitened":
        return packaged("harmful")[: n * HARMFUL] if harmful else packaged("harmless")[:n]
    return side(name or ("harmful" if harmful else "harmless"), harmful, columns, n)


@app.command("check")
def check(
    model: Annotated[str, typer.Argument(help="Built-in name, folder, .gguf file or hub id.")],
    harmless: Annotated[str, typer.Option(help="Prompts: harmless, organism, alpaca, a file or hf:owner/name.")] = "",
    harmful: Annotated[str, typer.Option(help="Prompts: harmful, organism, advbench, a file or hf:owner/name.")] = "",
    n: Count = 100,
    sampler: SamplerName = None,
    length: Length = None,
    steps: Steps = 32,
    layer: LayerName = "last",
    pool: PoolName = PoolName.generated,
    refusals: RefusalsFrom = Refusals.observed,
    batch: Annotated[int, typer.Option(min=1)] = 8,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    dtype: Dtype = "auto",
    device: Device = None,
    system: SystemPrompt = None,
    template: TemplateArguments = None,
    column: Columns = None,
) -> None:
    """How far a signal hangs on the wording of the anchors' prompts: ten anchor sets, at random and by kind."""
    from rich.table import Table

    from demur.signals.anchors import SIGNALS
    from demur.signals.fit import anchor_traces
    from demur.signals.stability import LEAST, stability

    columns = columns_of(column)
    sides = ((harmless, False), (harmful, True))
    good, bad = (_prompts(name, model, is_harmful, n, columns, "whitened") for name, is_harmful in sides)
    if min(len(good), len(bad)) < LEAST:  # known before anything is generated
        came = f"{len(good)} harmless and {len(bad)} harmful prompts"
        raise DemurError(came, f"at least {LEAST} a side, to halve", "raise --n, or name larger sources")
    net = load_model(model, dtype, device, system, template=template, quiet=as_json)
    _, chosen, size = setup(net, sampler, length, steps, None, None)
    key: Any = (layer, pool.value)
    with progress_on(quiet=as_json) as progress:
        both = anchor_traces(
            net, good, bad, chosen, pools=[key], length=size, steps=steps, refusals=refusals.value, seed=seed,
            batch=batch, progress=progress,
        )  # fmt: skip
    found: dict[SignalName, Stability] = {}
    for signal in SIGNALS:
        try:
            found[signal] = stability(*both, layer=layer, pool=pool.value, signal=signal, seed=seed)
        except DemurError as error:  # too few refusals for the one are enough harmful answers for the other
            out_to(stderr=True).print(f"! {signal}: {error}", style="yellow", markup=False, soft_wrap=True)
    if not found:
        raise typer.Exit(1)
    refused = [sum(trace.refused() for trace in side) for side in both]
    if as_json:
        counts = {"harmless": len(good), "harmful": len(bad), "harmless_refused": refused[0], "refused": refused[1]}
        told = {name: each.plain() | {"warning": each.warning or None} for name, each in found.items()}
        print(json.dumps(counts | told))
        return
    table = Table(title=f"{refused[0]} of {len(good)} harmless and {refused[1]} of {len(bad)} harmful prompts refused")
    for head in ("signal", "anchor sets", "TPR at 5%", "area", "sigma moves by"):
        table.add_column(head)
    for name, each in found.items():
        for kind, spread in (("random", each.random), ("by kind", each.kinds)):
            if spread is not None:
                cells = (f"{spread.tpr:.2f} ± {spread.tpr_spread:.2f}", f"{spread.area:.3f} ± {spread.area_spread:.3f}")
                table.add_row(name, kind, *cells, f"{spread.sigma:.3f}")
    out_to().print(table)
    for name, each in found.items():
        if each.warning:
            out_to().print(f"! {name}: {each.warning}", style="yellow", markup=False, soft_wrap=True)


@app.command("show")
def show(
    path: Annotated[Path, typer.Argument(help="A file of `demur anchors fit`.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Show what anchors were fitted on, and their reference curves."""
    from demur.signals import Anchors

    anchors = Anchors.load(path)
    if as_json:
        curves = {name: getattr(anchors, name).tolist() for name in ("harmless_sigma", "harmful_sigma")}
        print(json.dumps({"spec": asdict(anchors.spec)} | anchors.card | curves | {"warning": anchors.warning or None}))
    else:
        _describe(anchors)


def _describe(anchors: "Anchors") -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None)
    spec = anchors.spec
    for name in (
        "model",
        "revision",
        "weights",
        "dtype",
        "template",
        "sampler",
        "settings",
        "steps",
        "layer",
        "pool",
    ):
        table.add_row(name, escape(str(getattr(spec, name))))
    facts = f"{len(spec.computed)} settings of the network, which are compared (--json names them)"
    table.add_row("computed", facts if spec.computed else "unknown (an older file)")
    table.add_row("signal", anchors.signal_name)
    table.add_row("harmless", f"{anchors.n_harmless} answered of {anchors.asked_harmless} asked")
    verb = "replayed" if anchors.refusals == "scripted" else "asked"
    if anchors.whitened is None:
        table.add_row("harmful", f"{anchors.n_harmful} refused of {anchors.asked_harmful} {verb} ({anchors.refusals})")
    else:
        table.add_row(
            "harmful", f"{anchors.n_harmful} {verb}, {anchors.n_refused} of them refused ({anchors.refusals})"
        )
    known = f"hashes of {len(anchors.prompts)} are kept" if anchors.prompts else "not kept (an older file)"
    table.add_row("prompts", f"{known}: nothing is calibrated or measured on them" if anchors.prompts else known)
    for name, values in (("harmless", anchors.harmless_sigma), ("refused", anchors.harmful_sigma)):
        marks = "".join("▁▂▃▄▅▆▇█"[min(int(v * 8), 7)] for v in values)
        table.add_row(f"sigma, {name}", f"{marks}  {values[0]:.2f} to {values[-1]:.2f} (own fit, a reference only)")
    console = out_to()
    console.print(table)
    if anchors.warning:
        console.print(f"! {anchors.warning}", style="yellow", markup=False)
