"""``demur watch``: a model answers, step by step."""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from demur.cli.asked import Columns, Texts, asked, columns_of
from demur.cli.options import (
    Count,
    Device,
    Dtype,
    GuardDetector,
    Length,
    ModelName,
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
    cached_anchors,
    check_detector,
    load_model,
    out_to,
    setup,
    signal_of,
    tell_foreign,
    tell_page,
)
from demur.cli.places import check_writable
from demur.cli.settings import check_temperature
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.guards import Guard
    from demur.traces import Trace
    from demur.types import Pool, Prompt
    from demur.views.scene import Scene


def watch(
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            help="What to ask; or the id of a starter prompt or of the organism's; or a file of prompts. One by one."
        ),
    ] = None,
    model: ModelName = "smollm2",
    sampler: SamplerName = None,
    compare: Annotated[str | None, typer.Option(help="A second sampler, side by side.")] = None,
    length: Length = None,
    steps: Steps = 32,
    temperature: Temperature = None,
    settings: Settings = None,
    seed: Seed = 0,
    layer: Annotated[
        str | None, typer.Option(help="first, middle, last or a block number; default: last, or that of the file.")
    ] = None,
    pool: Annotated[
        PoolName | None, typer.Option(help="Which positions are averaged; default: generated, or those of the file.")
    ] = None,
    whitened: Whitened = None,
    anchors: Annotated[
        Path | None, typer.Option(help="A file of `demur anchors fit`; default: fitted once, cached.")
    ] = None,
    guard: Annotated[
        Path | None, typer.Option(help="A file of `demur guard fit`: it watches, and may stop the answer.")
    ] = None,
    detector: GuardDetector = None,
    refusals: RefusalsFrom = Refusals.observed,
    n: Count = 40,
    signal: Annotated[bool, typer.Option("--signal/--no-signal", help="Without anchors there is no sigma.")] = True,
    harmful: Annotated[
        bool | None, typer.Option("--harmful/--harmless", help="Mark the prompt; harmful ones are redacted.")
    ] = None,
    show_harmful: Annotated[
        bool, typer.Option("--show-harmful", help="Show the words of harmful prompts and answers.")
    ] = False,
    html: Annotated[Path, typer.Option("--html", "--out", "-o", help="Where the page goes.")] = Path(
        "demur-watch.html"
    ),
    save: Annotated[Path | None, typer.Option(help="Also save the trace (of the first sampler) here.")] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(help="A trace field of your own, module:Class, recorded with the trace; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a step instead of the view.")] = False,
    dtype: Dtype = "auto",
    device: Device = None,
    system: SystemPrompt = None,
    template: TemplateArguments = None,
    text: Texts = None,
    column: Columns = None,
) -> None:
    """Watch a model answer, step by step, with its refusal signal; writes one self-contained HTML page."""
    from rich.live import Live

    from demur.artefact import write
    from demur.signals import Anchors
    from demur.studio.terminal import panel, side_by_side
    from demur.studio.watching import Run
    from demur.studio.watching import watch as moments
    from demur.traces import fields_named, spec_of
    from demur.views.page import page

    console = out_to()
    prompts = asked(prompt, text, harmful=harmful, columns=columns_of(column))
    if save and len(prompts) > 1:
        raise DemurError(f"--save with {len(prompts)} prompts", "one prompt, since it writes one trace", "ask one")
    check_temperature(temperature)
    _check_together(html, save, [model, *(prompt or ())], {"--guard": guard, "--anchors": anchors}, signal, whitened)
    fields = fields_named(*field or ())
    known = _guard_at(guard, detector)  # now, and not after minutes of loading a model
    given = Anchors.load(anchors) if anchors else None
    net = load_model(model, dtype, device, system, quiet=as_json, template=template)
    owner = known or given
    where, pooled = (owner.spec.layer, owner.spec.pool) if owner else ("last", "generated")
    where, pooled = layer or where, pool.value if pool else cast("Pool", pooled)
    reads = signal_of(whitened, known.anchors if known else given)
    runs = []
    for called, chosen, size in _ways(net, sampler, compare, (length, steps, temperature, settings)):
        _check(net, prompts, size, where)
        fitted = known.anchors if known else given
        if owner:
            owner.check(spec_of(net, chosen, size, steps=steps).at(where, pooled, owner.spec.signal))
        elif signal:
            fitted = cached_anchors(net, chosen, size, steps, where, pooled, refusals, n, as_json, reads)
        runs.append(Run(called, _watched(chosen, known) if known else chosen, fitted, size, known))
    tell_foreign(net, prompts)
    scenes: list[Scene] = []
    for one in prompts:
        shown: list[Scene] = []
        with Live(console=console, auto_refresh=False, transient=False) if not as_json else _Nothing() as live:
            for now in moments(net, one, runs, seed=seed, steps=steps, wanted=[(where, pooled)], fields=fields):
                for i, moment in enumerate(now):
                    if moment is None:
                        continue
                    before = shown[i] if i < len(shown) else None
                    scene = moment.scene(runs[i], show_harmful=show_harmful, before=before)
                    shown[i : i + 1] = [scene]
                    if as_json:
                        print(json.dumps(_line(one, runs[i].name, scene) | _values(moment.trace)), flush=True)
                    if i == 0 and moment.done and save:
                        moment.trace.save(save)
                if not as_json:
                    live.update(side_by_side([panel(s, len(s.frames)) for s in shown]), refresh=True)
        scenes += shown
    write(html, page(scenes, title="demur"))
    if not as_json:
        tell_page(console, html)


def _ways(net: Any, first: str | None, second: str | None, options: tuple[Any, ...]) -> list[tuple[str, Any, int]]:
    """One or two samplers, each with its name and its length. Raises for one that is compared with itself."""
    ways = [setup(net, name, *options) for name in ([first, second] if second else [first])]
    if second and ways[0][0] == ways[1][0]:
        raise DemurError(f"--compare {second}, which is the first sampler as well", "another sampler", "name another")
    return ways


def _check_together(
    html: Path,
    save: Path | None,
    read: Sequence[str],
    named: Mapping[str, Path | None],
    signal: bool,
    whitened: bool | None,
) -> None:
    """Raises for what can not be asked together: files that would be lost, and a signal that is and is not wanted."""
    given = [option for option, path in named.items() if path is not None]
    if given and not signal:
        raise DemurError(f"--no-signal with {given[0]}", "one of them", f"leave one out: {given[0]} brings the signal")
    if whitened is not None and not signal:
        raise DemurError(
            "--no-signal with --whitened or --sri", "one of them", "the second says how the signal is read"
        )
    if len(given) > 1:
        raise DemurError("both --anchors and --guard", "one of them", "a guard brings its own anchors")
    check_writable(html, sort="page", beside=[*read, *named.values(), save])
    check_writable(save, sort="trace", beside=[*read, *named.values()])


def _check(net: Any, prompts: "Sequence[Prompt]", length: int, layer: str) -> None:
    """Raises for what the model can't be asked, before anchors are fitted for it."""
    net.watching(layer)
    for prompt in prompts:
        net.canvas([prompt], length)


def _guard_at(path: Path | None, detector: str | None) -> "Guard | None":
    check_detector(path, detector)
    if path is None:
        return None
    from demur.guards import Guard  # brings scikit-learn, which takes seconds to come

    return Guard.load(path, detector=detector)


def _watched(sampler: Any, guard: "Guard") -> Any:
    from demur.guards import Watch

    return Watch(guard)(sampler)


class _Nothing:
    """Stands where the live view would."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def _values(trace: "Trace") -> dict[str, Any]:
    """The last step's values of trace fields, for machines; null where one is not finite."""
    last = {name: float(values[-1]) for name, values in trace.fields.items()}
    return {"fields": {name: value if isfinite(value) else None for name, value in last.items()}} if last else {}


def _line(prompt: "Prompt", run: str, scene: "Scene") -> dict[str, Any]:
    """One step for machines; redacted like every view."""
    frame = scene.frames[-1]
    return {
        "prompt": prompt.label,
        "sampler": run,
        "step": len(scene.frames),
        "text": "".join(cell.text for cell in frame.cells),
        "refused": frame.refused,
        "sigma": scene.sigma[-1] if scene.sigma is not None else None,
        "verdict": scene.verdict or None,
        "notes": list(scene.notes),
        "redacted": scene.redacted,
    }
