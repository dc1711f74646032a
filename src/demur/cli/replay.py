"""``demur replay``: signals of finished transcripts."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console

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
    check_writable,
    load_model,
    out_to,
    signal_of,
)
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.guards import Guard
    from demur.prompts import Transcript
    from demur.signals import Anchors
    from demur.studio.replaying import Replayed
    from demur.types import Pool

CHUNK = 512
"""Columns of a pass, where nobody says it."""
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
    from demur.artefact import write
    from demur.samplers import Autoregressive
    from demur.signals import Anchors
    from demur.studio.growing import Growing
    from demur.studio.replaying import WINDOW, replaying
    from demur.traces import spec_of, teacher_forced

    if resume and out is None:
        raise DemurError("--resume without --out", "the file that is to go on", "name it: --out FILE")
    check_writable(out, html)
    read = _Source(source, _columns(column), harmful)
    about = read.surveyed()  # before anything is loaded: a broken row is said at once
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
    spec = spec_of(net, Autoregressive(), long, steps=long).at(where, pooled, fitted.spec.signal)
    console = out_to(stderr=True)
    if fitted.warning:
        console.print(f"! {fitted.warning}", style="yellow", markup=False)
    how = {"steps": long, "wanted": (where, pooled), "batch": batch, "chunk": chunk, "window": WINDOW}
    growing, begun = None, 0
    if out is not None:
        content = about | {"model": net.name, "spec": spec.key, "anchors": _digest(fitted), "batch": batch}
        content |= {"guard": _digest(watcher), "chunk": chunk}
        growing = Growing(out, content, WINDOW)
        begun = growing.begun(resume)
    told = _Told(fitted, net.name)
    if growing is not None and begun:
        told.heard(zip(growing.kept(), read.rows(), strict=False))
        console.print(f"goes on behind {begun} of {about['rows']} transcripts", markup=False)
    with _progress(console, about["rows"], begun) as progress:
        rest = islice(read.rows(), begun, None)
        before = told.signals > 0
        for found in replaying(net, rest, fitted, watcher, **how, found_before=before, progress=progress):
            lines = told.lines(found)
            if growing is None:
                print("\n".join(lines), flush=True)
            else:
                growing.add(lines)
    if growing is not None:
        console.print(f"{about['rows']} lines in {growing.finish()}", markup=False, soft_wrap=True)
    for note in told.notes():
        console.print(note, style="yellow", markup=False, soft_wrap=True)
    if html:
        again: Iterator[list[Replayed]] = iter(())
        if begun:  # lines hold no traces: the first transcripts are read once more
            again = replaying(net, islice(read.rows(), begun), fitted, watcher, **how, found_before=True)
        write(html, _page(_first(again, told.first), told.signals, show_harmful))
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


class _Source:
    """The transcripts of a source, marked. It is read once to look at all of them, and once more to replay them, so
    that nobody has to hold them.
    """

    def __init__(self, source: str, columns: Mapping[str, str], harmful: bool | None) -> None:
        self.source, self.columns, self.harmful = source, columns, harmful

    def rows(self) -> Iterator[Transcript]:
        """The transcripts, from the first on."""
        from demur.prompts import each_transcript

        for one in each_transcript(self.source, columns=self.columns):
            if one.prompt.harmful is None and self.harmful is not None:
                one = replace(one, prompt=replace(one.prompt, harmful=self.harmful))
            yield one

    def surveyed(self) -> dict[str, Any]:
        """How many there are, and a hash of their words. Raises for the first row that can not be read."""
        digest, rows = hashlib.sha256(), 0
        for one in self.rows():
            digest.update(json.dumps([one.prompt.plain(), one.response, one.row]).encode())
            rows += 1
        return {"rows": rows, "transcripts": digest.hexdigest()[:16]}


class _Told:
    """What is said of the transcripts so far: lines, how many have a signal, what stands on a page, and why some have
    no signal.
    """

    def __init__(self, anchors: Anchors, model: str) -> None:
        self.anchors, self.model = anchors, model
        self.all = self.signals = 0
        self.first: list[Replayed] = []
        self.reasons: Counter[str] = Counter()
        self.places: dict[str, str] = {}

    def lines(self, found: Sequence[Replayed]) -> list[str]:
        """The lines of a window."""
        for one in found:
            self._count(one.trace is not None, one.why, one.transcript)
        self.first = _first([found], self.first)
        return [json.dumps(_line(one, self.anchors, self.model)) for one in found]

    def heard(self, kept: Iterable[tuple[Mapping[str, Any], Transcript]]) -> None:
        """Takes note of lines that another process has written."""
        for line, transcript in kept:
            self._count(bool(line["tokens"]), str(line.get("why", "")), transcript)

    def _count(self, has_trace: bool, why: str, transcript: Transcript) -> None:
        self.all += 1
        self.signals += has_trace
        if why:
            self.reasons[why] += 1
            self.places.setdefault(why, transcript.where)

    def notes(self) -> list[str]:
        """What has no signal, counted by its reason; where the first of them stands."""
        none = "transcripts have no signal"
        return [
            f"! {count} of {self.all} {none} ({reason}), their sigma is empty; the first: {self.places[reason]}"
            for reason, count in self.reasons.items()
        ]


def _first(windows: Iterable[Sequence[Replayed]], more: Sequence[Replayed]) -> list[Replayed]:
    """The first ``SHOWN`` transcripts that have a trace, of windows and then of ``more``."""
    shown: list[Replayed] = []
    for window in chain(windows, [more]):
        shown += [one for one in window if one.trace is not None]
        if len(shown) >= SHOWN:
            break
    return shown[:SHOWN]


def _digest(part: Anchors | Guard | None) -> str | None:
    """A hash of anchors or of a guard: of the file that they make."""
    if part is None:
        return None
    with TemporaryDirectory() as folder:
        return hashlib.sha256(part.save(Path(folder) / "part").read_bytes()).hexdigest()[:16]


@contextmanager
def _progress(console: Console, rows: int, begun: int) -> Iterator[Callable[[int], None]]:
    """A bar at a terminal; elsewhere a line a minute. What comes is the number of transcripts done here."""
    from rich.progress import Progress

    from demur.experiment.journal import EVERY, spoken

    if console.is_terminal:
        with Progress(console=console, transient=True) as bar:
            task = bar.add_task("replaying", total=rows)
            yield lambda done: bar.update(task, completed=begun + done)
        return
    started = said = time.monotonic()

    def minutely(done: int) -> None:
        nonlocal said
        now = time.monotonic()
        if done and now - said >= EVERY:
            said = now
            left = spoken((now - started) / done * (rows - begun - done))
            console.print(f"replaying: {begun + done} of {rows}, some {left} left", markup=False, soft_wrap=True)

    yield minutely


def _page(shown: Sequence[Replayed], signals: int, show_harmful: bool) -> str:
    from demur.views.page import page

    scenes = []
    for one in shown:
        trace = one.trace
        if trace is None:
            continue
        said = [f"the first {trace.steps} of the answer's {one.tokens} tokens"] if trace.steps < one.tokens else []
        if signals > len(shown):
            said.append(f"{len(shown)} of {signals} transcripts are shown")
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
