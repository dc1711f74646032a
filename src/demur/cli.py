"""The command ``demur``. Every error that a user can cause ends in one line and an exit code of 2."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from demur.organism.commands import app as organism_app
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.scene import Scene
    from demur.signals import Anchors
    from demur.types import Pool, Prompt

app = typer.Typer(
    help="See and guard the refusal dynamics of language models, step by step.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
anchors_app = typer.Typer(help="Anchors: what refusing and complying look like inside one model.", no_args_is_help=True)
app.add_typer(anchors_app, name="anchors")
app.add_typer(organism_app, name="organism")


class SamplerName(StrEnum):
    """Samplers by name."""

    ar = "ar"
    low_confidence = "low-confidence"
    random = "random"
    ar_order = "ar-order"
    margin = "margin"
    entropy = "entropy"
    dream = "dream"
    mdlm = "mdlm"
    revising = "revising"
    sdar = "sdar"
    llada2 = "llada2"
    bd3lm = "bd3lm"
    renoising = "renoising"


class Refusals(StrEnum):
    """Where the refusal anchor comes from."""

    observed = "observed"
    scripted = "scripted"


class PoolName(StrEnum):
    """Pooling modes."""

    generated = "generated"
    producing = "producing"
    response = "response"
    masked = "masked"


ModelName = Annotated[str, typer.Option("--model", "-m", help="Built-in name, folder, .gguf file or hub id.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps; default: the best there is.")]
Steps = Annotated[int, typer.Option(min=1, help="T: how many values a signal has.")]
Length = Annotated[
    int | None, typer.Option(min=1, help="Response length in tokens; default: T for causal models, 128 for diffusion.")
]
Temperature = Annotated[float | None, typer.Option(min=0, help="0 is greedy; default: the sampler's own.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of the sampler, KEY=VALUE, such as block_length=32.")
]
LayerName = Annotated[str, typer.Option(help="first, middle, last or a block number.")]
RefusalsFrom = Annotated[
    Refusals, typer.Option(help="scripted: replay written refusals, for models that refuse nothing.")
]
Count = Annotated[int, typer.Option("--n", min=1, help="Prompts per set, of the starter sets.")]


def _console(stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False)


def _setup(
    model: Any,
    name: SamplerName | None,
    length: int | None,
    steps: int,
    temperature: float | None,
    more: list[str] | None,
) -> tuple[str, Any, int]:
    """A sampler's name (default: of the model's family), the sampler with its settings, and its response length."""
    from dataclasses import fields

    from demur.samplers import FOR_KIND, SAMPLERS

    chosen = name.value if name else model.preferred
    if chosen not in FOR_KIND[model.kind]:
        raise DemurError(
            f"sampler {chosen} on the {model.kind} model {model.name}",
            ", ".join(FOR_KIND[model.kind]),
            "name one of these",
        )
    settings: dict[str, Any] = {}
    if model.kind in ("masked", "renoising") and chosen != "ar-order":
        settings["steps"] = steps
    if temperature is not None:
        settings["temperature"] = temperature
    known = {field.name for field in fields(SAMPLERS[chosen]())}
    for item in more or []:
        key, _, value = item.partition("=")
        if key not in known or not value:
            raise DemurError(
                f"--set {item}", f"KEY=VALUE with a key of {', '.join(sorted(known))}", "see docs/samplers.md"
            )
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value
    if unknown := set(settings) - known:
        raise DemurError(f"sampler {chosen} with {', '.join(unknown)}", ", ".join(sorted(known)), "leave it out")
    default = {"causal": steps, "renoising": getattr(model, "canvas_length", 256)}.get(model.kind, 128)
    return chosen, SAMPLERS[chosen](**settings), length or default


def _anchors(
    model: Any,
    sampler: Any,
    length: int,
    steps: int,
    layer: str,
    pool: Pool,
    refusals: Refusals,
    n: int,
    quiet: bool,
) -> Anchors:
    """Anchors from the cache, or fitted on the starter sets and put there."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from demur.models import cache_dir
    from demur.prompts import digest, starter
    from demur.signals import Anchors, anchors_of
    from demur.trace import spec_of

    harmless, harmful = starter("harmless", n), starter("harmful", n)
    spec = spec_of(model, sampler, length, steps=steps).at(layer, pool)
    data = digest([*harmless, *harmful])[:8]
    path = cache_dir() / "anchors" / f"{spec.key}-{refusals.value}-{data}.safetensors"
    if path.exists():
        return Anchors.load(path)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console(stderr=True), disable=quiet, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"anchors: {what}", total=of)
            bar.update(tasks[what], completed=done)

        anchors = anchors_of(
            model, harmless, harmful, sampler, length=length, steps=steps, layer=layer, pool=pool,
            refusals=refusals.value, at_least=5, progress=progress,
        )  # fmt: skip
    anchors.save(path)
    return anchors


def _prompt(text: str, harmful: bool | None) -> Prompt:
    """A prompt as typed, or one of the starter sets by its id."""
    from demur.prompts import starter
    from demur.types import Prompt

    for known in [*starter("harmless"), *starter("harmful")]:
        if known.id == text:
            return known
    return Prompt(id="typed", text=text, harmful=harmful)


@app.command()
def watch(
    prompt: Annotated[
        list[str],
        typer.Argument(help="What to ask, or the id of a starter prompt. Several: one after another."),
    ],
    model: ModelName = "smollm2",
    sampler: Annotated[SamplerName | None, typer.Option(help="Default: the one of the model's family.")] = None,
    compare: Annotated[SamplerName | None, typer.Option(help="A second sampler, side by side.")] = None,
    length: Length = None,
    steps: Steps = 32,
    temperature: Temperature = None,
    settings: Settings = None,
    seed: int = 0,
    layer: LayerName = "last",
    pool: Annotated[PoolName, typer.Option(help="Which positions are averaged.")] = PoolName.generated,
    anchors: Annotated[
        Path | None, typer.Option(help="A file of `demur anchors fit`; default: fitted once, cached.")
    ] = None,
    refusals: RefusalsFrom = Refusals.observed,
    n: Count = 40,
    signal: Annotated[bool, typer.Option("--signal/--no-signal", help="Without anchors there is no sigma.")] = True,
    harmful: Annotated[
        bool | None, typer.Option("--harmful/--harmless", help="Mark the prompt; harmful ones are redacted.")
    ] = None,
    show_harmful: Annotated[
        bool, typer.Option("--show-harmful", help="Show the words of harmful prompts and answers.")
    ] = False,
    html: Annotated[Path, typer.Option(help="Where the page goes.")] = Path("demur-watch.html"),
    save: Annotated[Path | None, typer.Option(help="Also save the trace (of the first sampler) here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a step instead of the view.")] = False,
    dtype: Dtype = "auto",
    device: Device = None,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
) -> None:
    """Watch a model answer, step by step, with its refusal signal; writes one self-contained HTML page."""
    from rich.live import Live

    from demur.artefact import write
    from demur.page import page
    from demur.signals import Anchors
    from demur.studio.terminal import panel, side_by_side
    from demur.studio.watching import Run
    from demur.studio.watching import watch as moments
    from demur.trace import spec_of

    console = _console()
    prompts = [_prompt(text, harmful) for text in prompt]
    net = _load(model, dtype, device, system, quiet=as_json)
    runs = []
    for name in [sampler, *([compare] if compare else [])]:
        called, chosen, size = _setup(net, name, length, steps, temperature, settings)
        fitted = None
        if signal and anchors:
            fitted = Anchors.load(anchors)
            fitted.check(spec_of(net, chosen, size, steps=steps).at(layer, pool.value))
        elif signal:
            fitted = _anchors(net, chosen, size, steps, layer, pool.value, refusals, n, as_json)
        runs.append(Run(called, chosen, fitted, size))
    scenes: list[Scene] = []
    for asked in prompts:
        shown: list[Scene] = []
        with Live(console=console, auto_refresh=False, transient=False) if not as_json else _Nothing() as live:
            for now in moments(net, asked, runs, seed=seed, steps=steps, wanted=[(layer, pool.value)]):
                for i, moment in enumerate(now):
                    if moment is None:
                        continue
                    scene = moment.scene(runs[i], show_harmful=show_harmful)
                    shown[i : i + 1] = [scene]
                    if as_json:
                        print(json.dumps(_line(asked, runs[i].name, scene)), flush=True)
                    if i == 0 and moment.done and save:
                        moment.trace.save(save)
                if not as_json:
                    live.update(side_by_side([panel(s, len(s.frames)) for s in shown]), refresh=True)
        scenes += shown
    write(html, page(scenes, title="demur"))
    if not as_json:
        console.print(f"\npage: [link={html.resolve().as_uri()}]{html.resolve().as_uri()}[/link]", soft_wrap=True)


class _Nothing:
    """Stands where the live view would."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def _line(prompt: Prompt, run: str, scene: Scene) -> dict[str, Any]:
    """One step for machines; redacted like every view."""
    frame = scene.frames[-1]
    return {
        "prompt": prompt.id,
        "sampler": run,
        "step": len(scene.frames),
        "text": "".join(cell.text for cell in frame.cells),
        "refused": frame.refused,
        "sigma": scene.sigma[-1] if scene.sigma is not None else None,
        "verdict": scene.verdict or None,
        "notes": list(scene.notes),
        "redacted": scene.redacted,
    }


def _load(model: str, dtype: str, device: str | None, system: str | None = None, quiet: bool = False) -> Any:
    from demur.models import load

    console = _console(stderr=True)
    if quiet:
        return load(model, dtype=dtype, device=device, system=system)
    with console.status(f"loading {model} (a .gguf file is converted once, which takes some 20 seconds)"):
        return load(model, dtype=dtype, device=device, system=system)


@app.command()
def demo(
    html: Annotated[Path, typer.Option(help="Where the page goes.")] = Path("demur-demo.html"),
    n: Annotated[int, typer.Option("--n", min=8, help="Requests a side for the anchors.")] = 32,
) -> None:
    """One forbidden request, plain and attacked, under three ways of generating; then an allowed one. Offline."""
    import torch

    from demur.artefact import write
    from demur.page import page
    from demur.studio.story import FICTION, acts
    from demur.studio.terminal import story_table

    torch.set_num_threads(1)  # the organism is too small for more: threads would only wait for each other
    console = _console()
    console.print(f"[bold]The same request, three ways of generating.[/bold] {FICTION}\n")
    told = []
    with console.status("loading the organism") as status:
        for act in acts(n, status.update):
            console.print(story_table(act.title, act.scenes, act.outcomes))
            told.append(act)
    write(html, page([scene for act in told for scene in act.scenes], title="demur: three ways of generating"))
    console.print(f"\npage: [link={html.resolve().as_uri()}]{html.resolve().as_uri()}[/link]", soft_wrap=True)


@app.command()
def replay(
    transcripts: Annotated[Path, typer.Argument(help="JSONL of objects with a prompt and a response.")],
    model: ModelName = "smollm2",
    anchors: Annotated[
        Path | None, typer.Option(help="A file of `demur anchors fit`; default: fitted once, cached.")
    ] = None,
    refusals: RefusalsFrom = Refusals.observed,
    n: Count = 40,
    steps: Steps = 32,
    layer: LayerName = "last",
    pool: Annotated[PoolName, typer.Option(help="generated or producing.")] = PoolName.generated,
    out: Annotated[Path | None, typer.Option(help="Where the lines go; default: the terminal.")] = None,
    batch: Annotated[int, typer.Option(min=1)] = 16,
    dtype: Dtype = "auto",
    device: Device = None,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
) -> None:
    """The signals of finished transcripts, in one pass each: also of another model's, with a local one as surrogate."""
    from rich.progress import Progress

    from demur.artefact import write
    from demur.samplers import Autoregressive
    from demur.signals import Anchors
    from demur.trace import spec_of, teacher_forced
    from demur.types import Prompt

    rows = _transcripts(transcripts)
    net = _load(model, dtype, device, system)
    if anchors:
        fitted = Anchors.load(anchors)
        fitted.check(spec_of(net, Autoregressive(), steps, steps=steps).at(layer, pool.value))
    else:
        fitted = _anchors(net, Autoregressive(), steps, steps, layer, pool.value, refusals, n, False)
    if fitted.warning:
        _console(stderr=True).print(f"! {fitted.warning}", style="yellow")
    prompts = [Prompt(id=str(row.get("id", i)), text=row["prompt"]) for i, row in enumerate(rows, 1)]
    with Progress(console=_console(stderr=True), transient=True) as bar:
        task = bar.add_task("replaying", total=len(rows))
        traces = teacher_forced(
            net,
            prompts,
            [row["response"] for row in rows],
            steps=steps,
            pools=[(layer, pool.value)],
            batch=batch,
            progress=lambda done: bar.update(task, completed=done),
        )
    lines = []
    for prompt, trace in zip(prompts, traces, strict=True):
        sigma = [round(float(value), 6) for value in fitted.signal(trace)]
        line = {"id": prompt.id, "sigma": sigma, "refused": trace.refused(), "tokens": trace.steps}
        lines.append(json.dumps(line | {"refusals": fitted.refusals, "model": trace.spec.model}))
    if out is None:
        print("\n".join(lines))
    else:
        write(out, "\n".join(lines) + "\n")
        _console(stderr=True).print(f"{len(lines)} signals in {out}")


def _transcripts(path: Path) -> list[dict[str, Any]]:
    """Rows with a prompt and a response. Raises naming file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DemurError(f"{path} could not be read ({error})", "a JSONL file in UTF-8", "check the path") from error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DemurError(f"{path}, line {number}: no JSON ({error.msg})", "one object a line", "mend it") from error
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("prompt", "response")):
            raise DemurError(f"{path}, line {number}: no prompt and response", "both, as texts", "add them")
        rows.append(row)
    if not rows:
        raise DemurError(f"{path} is empty", "one object with prompt and response a line", "add some")
    return rows


@anchors_app.command("fit")
def anchors_fit(
    model: Annotated[str, typer.Argument(help="Built-in name, folder, .gguf file or hub id.")],
    out: Annotated[Path, typer.Option(help="Where the anchors go.")] = Path("anchors.safetensors"),
    harmless: Annotated[str, typer.Option(help="Prompts: harmless, alpaca, a file or hf:owner/name.")] = "harmless",
    harmful: Annotated[str, typer.Option(help="Prompts: harmful, advbench, a file or hf:owner/name.")] = "harmful",
    n: Count = 100,
    sampler: SamplerName | None = None,
    length: Length = None,
    steps: Steps = 32,
    temperature: Temperature = None,
    settings: Settings = None,
    layer: LayerName = "last",
    pool: PoolName = PoolName.generated,
    refusals: RefusalsFrom = Refusals.observed,
    at_least: Annotated[int, typer.Option(min=1, help="Fewer answers than this on a side are an error.")] = 5,
    batch: Annotated[int, typer.Option(min=1)] = 8,
    seed: int = 0,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Fit anchors: the mean of harmless answers that complied and of harmful ones that refused."""
    from rich.progress import Progress

    from demur.prompts import load as load_prompts
    from demur.signals import anchors_of

    good = load_prompts(harmless, harmful=False, limit=n)
    bad = load_prompts(harmful, harmful=True, limit=n)
    net = _load(model, dtype, device)
    _, chosen, size = _setup(net, sampler, length, steps, temperature, settings)
    with Progress(console=_console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=of)
            bar.update(tasks[what], completed=done)

        fitted = anchors_of(
            net, good, bad, chosen, length=size, steps=steps, layer=layer, pool=pool.value, refusals=refusals.value,
            seed=seed, batch=batch, at_least=at_least, progress=progress,
        )  # fmt: skip
    fitted.save(out)
    _console().print(f"[bold]{out}[/bold]")
    _describe(fitted)


@anchors_app.command("show")
def anchors_show(path: Annotated[Path, typer.Argument(help="A file of `demur anchors fit`.")]) -> None:
    """Show what anchors were fitted on, and their reference curves."""
    from demur.signals import Anchors

    _describe(Anchors.load(path))


def _describe(anchors: Anchors) -> None:
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
        table.add_row(name, str(getattr(spec, name)))
    table.add_row("harmless", f"{anchors.n_harmless} answered of {anchors.asked_harmless} asked")
    verb = "replayed" if anchors.refusals == "scripted" else "asked"
    table.add_row("harmful", f"{anchors.n_harmful} refused of {anchors.asked_harmful} {verb} ({anchors.refusals})")
    for name, values in (("harmless", anchors.harmless_sigma), ("refused", anchors.harmful_sigma)):
        marks = "".join("▁▂▃▄▅▆▇█"[min(int(v * 8), 7)] for v in values)
        table.add_row(f"sigma, {name}", f"{marks}  {values[0]:.2f} to {values[-1]:.2f} (own fit, a reference only)")
    console = _console()
    console.print(table)
    if anchors.warning:
        console.print(f"! {anchors.warning}", style="yellow")


@app.command()
def models() -> None:
    """List the families, what each needs and what is ready offline."""
    from demur.studio.readiness import family_lines

    console = _console()
    for name, state in family_lines():
        if not state:
            console.print(f"\n[bold]{name}[/bold]", soft_wrap=True)
        else:
            console.print(
                f"  {name:<36} {state}", soft_wrap=True, style="" if state.startswith("ready") else "bright_black"
            )


@app.command()
def doctor() -> None:
    """Check this machine: versions, device, memory, models; what is missing and the command that fixes it."""
    from demur.studio.readiness import checks

    console, bad = _console(), 0
    for check in checks():
        mark, style = {
            "ok": ("ok     ", "green"),
            "missing": ("missing", "yellow"),
            "bad": ("BAD    ", "red"),
        }[check.state]
        console.print(f"[{style}]{mark}[/{style}] {check.name}: {check.found}", soft_wrap=True)
        if check.fix:
            console.print(f"        fix: {check.fix}", soft_wrap=True)
        bad += check.state == "bad"
    if bad:
        raise typer.Exit(1)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from demur import __version__

        print(f"demur {__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point."""
    try:
        app()
    except DemurError as error:
        print(f"demur: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("demur: stopped", file=sys.stderr)
        sys.exit(130)
