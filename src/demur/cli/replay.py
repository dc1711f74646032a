"""``demur replay``: signals of finished transcripts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from demur.cli.options import (
    Count,
    Device,
    Dtype,
    GuardDetector,
    ModelName,
    PoolName,
    Refusals,
    RefusalsFrom,
    Whitened,
    cached_anchors,
    load_model,
    out_to,
    signal_of,
)
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.signals import Anchors
    from demur.studio.replaying import Replayed
    from demur.types import Pool

SHOWN = 24
"""So many transcripts stand on a page."""


def replay(
    source: Annotated[
        str,
        typer.Argument(
            metavar="TRANSCRIPTS",
            help="A file with a prompt and a response in each row, or with messages that end with the answer: JSON "
            "Lines, JSON, CSV, TSV or Parquet (docs/prompts.md).",
        ),
    ],
    model: ModelName = "smollm2",
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="Where a field stands, FIELD=COLUMN, such as text=question, response=output."),
    ] = None,
    anchors: Annotated[
        Path | None, typer.Option(help="A file of `demur anchors fit`; default: fitted once, cached.")
    ] = None,
    guard: Annotated[
        Path | None, typer.Option(help="A file of `demur guard fit`: its verdict on each row, with its own anchors.")
    ] = None,
    detector: GuardDetector = None,
    refusals: RefusalsFrom = Refusals.observed,
    n: Count = 40,
    steps: Annotated[
        int | None, typer.Option(min=1, help="T: how many values a signal has; default: 32, or that of the file.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="first, middle, last or a block number; default: last, or that of the file.")
    ] = None,
    pool: Annotated[
        PoolName | None, typer.Option(help="generated or producing; default: generated, or that of the file.")
    ] = None,
    whitened: Whitened = None,
    harmful: Annotated[
        bool | None, typer.Option("--harmful/--harmless", help="Mark the prompts that bring no mark.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the lines go; default: the terminal.")] = None,
    html: Annotated[Path | None, typer.Option(help=f"A page of the first {SHOWN} transcripts.")] = None,
    show_harmful: Annotated[
        bool, typer.Option("--show-harmful", help="Show on the page the words of prompts not marked harmless.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1)] = 16,
    dtype: Dtype = "auto",
    device: Device = None,
    system: Annotated[str | None, typer.Option(help="A system prompt, for rows that bring none.")] = None,
) -> None:
    """The signals of finished transcripts, in one pass each: also of another model's, with a local one as surrogate."""
    from rich.progress import Progress

    from demur.artefact import write
    from demur.prompts import transcripts
    from demur.samplers import Autoregressive
    from demur.signals import Anchors
    from demur.studio.replaying import replayed
    from demur.traces import spec_of, teacher_forced

    rows = [
        one if one.prompt.harmful is not None else replace(one, prompt=replace(one.prompt, harmful=harmful))
        for one in transcripts(source, columns=_columns(column))
    ]
    watcher, fitted = None, None
    if guard:
        from demur.guards import Guard

        watcher = Guard.load(guard, detector=detector)
        fitted = watcher.anchors
    if anchors:
        if watcher is not None:
            raise DemurError("both --anchors and --guard", "one of them", "a guard brings its own anchors")
        fitted = Anchors.load(anchors)
    if fitted is not None:
        own: tuple[int, str, Pool] = (fitted.spec.steps, fitted.spec.layer, cast("Pool", fitted.spec.pool))
    else:
        own = (32, "last", "generated")
    long, where, pooled = steps or own[0], layer or own[1], pool.value if pool else own[2]
    reads = signal_of(whitened, fitted)
    net = load_model(model, dtype, device, system)
    teacher_forced(net, [], [])  # raises for a model that can not be replayed, before anchors are fitted
    if fitted is None:
        fitted = cached_anchors(net, Autoregressive(), long, long, where, pooled, refusals, n, False, reads)
    else:
        fitted.check(spec_of(net, Autoregressive(), long, steps=long).at(where, pooled, fitted.spec.signal))
    console = out_to(stderr=True)
    if fitted.warning:
        console.print(f"! {fitted.warning}", style="yellow", markup=False)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("replaying", total=len(rows))
        found = replayed(
            net, rows, fitted, watcher, steps=long, wanted=(where, pooled), batch=batch,
            progress=lambda done: bar.update(task, completed=done),
        )  # fmt: skip
    lines = [json.dumps(_line(one, fitted, net.name)) for one in found]
    if out is None:
        print("\n".join(lines))
    else:
        write(out, "\n".join(lines) + "\n")
        console.print(f"{len(lines)} lines in {out}", markup=False, soft_wrap=True)
    for note in _notes(found):
        console.print(note, style="yellow", markup=False, soft_wrap=True)
    if html:
        write(html, _page(found, show_harmful))
        console.print(f"page: {html.resolve().as_uri()}", markup=False, soft_wrap=True)


def _columns(items: Sequence[str] | None) -> dict[str, str]:
    """``--column FIELD=COLUMN`` as a mapping; the fields are checked by the reader."""
    columns = {}
    for item in items or ():
        field, sign, column = item.partition("=")
        if not sign or not field.strip():
            raise DemurError(f"--column {item}", "FIELD=COLUMN", "for example: --column response=output")
        columns[field.strip()] = column
    return columns


def _line(one: Replayed, anchors: Anchors, model: str) -> dict[str, Any]:
    """One transcript for machines: without a word of it."""
    line: dict[str, Any] = {
        "id": one.transcript.prompt.label,
        "sigma": [] if one.sigma is None else [round(float(value), 6) for value in one.sigma],
        "refused": one.refused,
        "tokens": 0 if one.trace is None else one.trace.steps,
        "refusals": anchors.refusals,
        "model": model if one.trace is None else one.trace.spec.model,
        "row": one.transcript.row,
        "answer_tokens": one.tokens,
        "harmful": one.transcript.prompt.harmful,
    }
    if one.verdict is not None:
        line |= {"flagged": one.verdict.flagged, "score": one.verdict.score, "verdict": one.verdict.why}
    return line | ({"why": one.why} if one.why else {})


def _notes(found: Sequence[Replayed]) -> list[str]:
    """What has no signal, counted by its reason; where the first of them stands."""
    reasons = Counter(one.why for one in found if one.why)
    first = {one.why: one.transcript.where for one in reversed(found) if one.why}
    none = "transcripts have no signal"
    return [
        f"! {count} of {len(found)} {none} ({reason}), their sigma is empty; the first: {first[reason]}"
        for reason, count in reasons.items()
    ]


def _page(found: Sequence[Replayed], show_harmful: bool) -> str:
    from demur.views.page import page

    scenes = []
    shown = [one for one in found if one.trace is not None]
    for one in shown[:SHOWN]:
        trace = one.trace
        if trace is None:
            continue
        said = [f"the first {trace.steps} of the answer's {one.tokens} tokens"] if trace.steps < one.tokens else []
        if len(shown) > SHOWN:
            said.append(f"{SHOWN} of {len(shown)} transcripts are shown")
        verdict = "refused" if one.refused else "answered"
        if one.verdict is not None and one.verdict.flagged is not None:
            verdict += ", flagged by the guard" if one.verdict.flagged else ", let pass by the guard"
        scenes.append(
            trace.scene(
                None if one.sigma is None else one.sigma.tolist(),
                show_harmful=show_harmful,
                title=f"{trace.prompt.label}: read by {trace.spec.model}",
                verdict=verdict,
                notes=said,
            )
        )
    return page(scenes, title="demur replay")
