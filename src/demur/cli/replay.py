"""``demur replay``: signals of finished transcripts."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import accumulate, islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

import demur
from demur.cli.once import keys_once
from demur.cli.options import (
    Batch,
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
    check_detector,
    load_model,
    out_to,
    signal_of,
)
from demur.cli.places import check_writable
from demur.cli.progress import progress_on
from demur.cli.transcribing import SHOWN, Source, Told, digest_of, first_of
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.guards import Guard
    from demur.signals import Anchors
    from demur.studio.growing import Growing
    from demur.studio.replaying import Replayed
    from demur.traces import Trace
    from demur.types import Model, Pool

CHUNK = 512
"""Columns of a pass, where nobody says it."""
CELLS = 4_000_000
"""The most that a page shows, steps times places: some 12 MB, four answers of 1,000 tokens."""


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
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where the lines go; default: the terminal.")] = None,
    html: Annotated[
        Path | None, typer.Option(help=f"A page of the first {SHOWN} transcripts, or of fewer long ones.")
    ] = None,
    show_harmful: Annotated[
        bool, typer.Option("--show-harmful", help="Show on the page the words of prompts not marked harmless.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="With --out: go on with a replay that was stopped or killed.")
    ] = False,
    batch: Batch = 16,
    chunk: Annotated[
        int, typer.Option(min=1, help="Columns of a pass: memory does not grow with longer transcripts.")
    ] = CHUNK,
    dtype: Dtype = "auto",
    device: Device = None,
    system: Annotated[str | None, typer.Option(help="A system prompt, for rows that bring none.")] = None,
) -> None:
    """The signals of finished transcripts, in one pass each: also of another model's, with a local one as surrogate.

    Any number of any length, in the memory of a few: --out FILE grows beside its place, and --resume goes on with it.
    """
    from demur.samplers import Autoregressive
    from demur.studio.replaying import WINDOW
    from demur.traces import spec_of, teacher_forced

    if resume and out is None:
        raise DemurError("--resume without --out", "the file that is to go on", "name it: --out FILE")
    check_detector(guard, detector)
    check_writable(out, sort="lines", beside=(source, model, anchors, guard, html))
    check_writable(html, sort="page", beside=(source, model, anchors, guard))
    read = Source(source, _columns(column), harmful)
    about = read.surveyed()  # before anything is loaded: a broken row is said at once
    watcher, fitted = _known(anchors, guard, detector)
    own: tuple[int, str, Pool] = (32, "last", "generated")
    if fitted is not None:
        own = (fitted.spec.steps, fitted.spec.layer, cast("Pool", fitted.spec.pool))
    long, where, pooled = steps or own[0], layer or own[1], pool.value if pool else own[2]
    reads = signal_of(whitened, fitted)
    net = load_model(model, dtype, device, system)
    teacher_forced(net, [], [])  # raises for a model that can not be replayed, before anchors are fitted
    sampler = Autoregressive()
    if fitted is None:
        fitted = cached_anchors(net, sampler, long, long, where, pooled, refusals, n, False, reads)
    else:
        of: Literal["anchors", "guard"] = "guard" if watcher else "anchors"
        fitted.check(spec_of(net, sampler, long, steps=long).at(where, pooled, fitted.spec.signal), of=of)
    if fitted.warning:
        out_to(stderr=True).print(f"! {fitted.warning}", style="yellow", markup=False)
    how = {"steps": long, "wanted": (where, pooled), "batch": batch, "chunk": chunk, "window": WINDOW}
    key = spec_of(net, sampler, long, steps=long).at(where, pooled, fitted.spec.signal).key
    about |= {"model": net.name, "spec": key, "anchors": digest_of(fitted), "guard": digest_of(watcher)}
    about |= {"version": demur.__version__, "window": WINDOW}
    _written(net, read, fitted, watcher, how, about | {"batch": batch, "chunk": chunk}, out, resume, html, show_harmful)


def _known(anchors: Path | None, guard: Path | None, detector: str | None) -> "tuple[Guard | None, Anchors | None]":
    """The guard of a file and its anchors, or the anchors of a file; None for what no file is named for."""
    from demur.guards import Guard
    from demur.signals import Anchors

    if anchors and guard:
        raise DemurError("both --anchors and --guard", "one of them", "a guard brings its own anchors")
    if guard:
        watcher = Guard.load(guard, detector=detector)
        return watcher, watcher.anchors
    return None, Anchors.load(anchors) if anchors else None


def _written(
    net: "Model",
    source: Source,
    anchors: "Anchors",
    guard: "Guard | None",
    how: dict[str, Any],
    about: Mapping[str, Any],
    out: Path | None,
    resume: bool,
    html: Path | None,
    show_harmful: bool,
) -> None:
    """Replays and writes the lines, those of a stopped replay first; then the notes, and the page."""
    from demur.artefact import write
    from demur.studio.growing import Growing
    from demur.studio.replaying import replaying

    console, told = out_to(stderr=True), Told(anchors, net.name)
    growing = None if out is None else Growing(out, about, how["window"])
    if growing is not None and resume and growing.is_finished():
        _checked(growing, net, source, anchors, guard, how)
        told.heard(zip(growing.kept(), source.rows(), strict=True))
        begun, growing = about["rows"], None
        console.print(f"{begun} lines in {out} already, nothing is left to do", markup=False, soft_wrap=True)
    else:
        begun = 0
    with growing or nullcontext():
        if growing is not None:
            begun = growing.begun(resume)
        if growing is not None and begun:
            told.heard(zip(growing.kept(), source.rows(), strict=False))
            console.print(f"goes on behind {begun} of {about['rows']} transcripts", markup=False)
        with progress_on() as progress:
            rest, before = islice(source.rows(), begun, None), told.signals > 0

            def done(here: int) -> None:
                progress("replaying", begun + here, about["rows"])

            for found in replaying(net, rest, anchors, guard, **how, found_before=before, progress=done):
                _say(told.lines(found), growing)
                del found  # else its traces would stay until the next window is done
        if growing is not None:
            console.print(f"{about['rows']} lines in {growing.finish()}", markup=False, soft_wrap=True)
    for note in told.notes():
        console.print(note, style="yellow", markup=False, soft_wrap=True)
    if html:
        again: Iterator[list[Replayed]] = iter(())
        if begun:  # lines hold no traces: the first transcripts are read once more
            again = replaying(net, islice(source.rows(), begun), anchors, guard, **how, found_before=True)
        write(html, _page(first_of(again, told.first), told.signals, anchors.warning, show_harmful))
        console.print(f"page: {html.resolve().as_uri()}", markup=False, soft_wrap=True)


def _checked(
    growing: "Growing",
    net: "Model",
    source: Source,
    anchors: "Anchors",
    guard: "Guard | None",
    how: dict[str, Any],
) -> None:
    """Raises for a finished file that is not of this command: of other transcripts or, as the first window of them
    replayed once more shows, of other weights, anchors, guards or settings.
    """
    from demur.studio.replaying import replaying

    told = Told(anchors, net.name)
    first = next(replaying(net, source.rows(), anchors, guard, **how, found_before=True), [])
    expected = [json.loads(line) for line in told.lines(first)]
    for i, (line, one) in enumerate(zip_longest(growing.lines(), source.rows())):
        same = line is not None and one is not None
        same = same and (line.get("id"), line.get("row")) == (one.prompt.label, one.row)
        if not same or (i < len(expected) and not _alike(line, expected[i])):
            raise DemurError(
                f"{growing.path} is finished, and line {i + 1} is not what this command would write",
                "the command that wrote it, with the same model, anchors and guard",
                "name another --out, or delete that file to begin anew",
            )


def _alike(one: Any, other: Any) -> bool:
    """Whether two values of lines are the same up to rounding: another batch, or another machine, adds in another
    order. The words of a verdict hold its score and are not looked at.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one if key != "verdict")
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == other or math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-3)
    return bool(one == other)


def _say(lines: Sequence[str], growing: "Growing | None") -> None:
    if growing is None:
        print("\n".join(lines), flush=True)
    else:
        growing.add(lines)


def _columns(items: Sequence[str] | None) -> dict[str, str]:
    """``--column FIELD=COLUMN`` as a mapping; the fields are checked by the reader."""
    keys_once("--column", items)
    columns = {}
    for item in items or ():
        field, sign, column = item.partition("=")
        if not sign or not field.strip():
            raise DemurError(f"--column {item}", "FIELD=COLUMN", "for example: --column response=output")
        columns[field.strip()] = column
    return columns


def _page(shown: "Sequence[Replayed]", signals: int, warning: str, show_harmful: bool) -> str:
    from demur.views.page import page

    scenes, read = [], _fitting([(one, one.trace) for one in shown if one.trace is not None])
    for one, trace in read:
        said = [f"the first {trace.steps} of the answer's {one.tokens} tokens"] if trace.steps < one.tokens else []
        if signals > len(read):
            said.append(f"{len(read)} of {signals} transcripts are shown")
        said += [warning] if warning else []
        verdict = _reading(one)
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


def _fitting(read: "list[tuple[Replayed, Trace]]") -> "list[tuple[Replayed, Trace]]":
    """The first ones that a page has room for, one at least: a page takes the square of an answer's tokens."""
    cells = list(accumulate(trace.steps * trace.places for _, trace in read))
    return read[: max(1, sum(count <= CELLS for count in cells))]


def _reading(one: "Replayed") -> str:
    """What the whole answer does, and what the dictionary says where that is something else."""
    read = {"refuses": "refused", "answers": "answered", None: "not read"}.get(one.read, one.read or "")
    words = "refused" if one.refused else "answered"
    return read if read == words else f"{read} (by the dictionary of refusals: {words})"
