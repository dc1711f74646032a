"""``demur guard``: fitting, showing and using guards.

The file is long because every option of three commands is declared here with its help.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape

from demur import worlds
from demur.cli.asked import Columns, Texts, asked, columns_of, side
from demur.cli.options import (
    Device,
    Dtype,
    GuardDetector,
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
    tell_foreign,
)
from demur.cli.places import check_writable
from demur.cli.progress import progress_on, unfinished
from demur.cli.settings import check_alpha, check_temperature
from demur.types import DemurError, Need, TooLong

if TYPE_CHECKING:
    from demur.guards import Guard
    from demur.signals import Anchors
    from demur.traces import Trace
    from demur.types import Model, Prompt, Verdict

app = typer.Typer(
    help="SRI Guard: a detector of failed recovery, fitted on harmless prompts alone.", no_args_is_help=True
)


LEAST_TO_FIT = 32
"""As the detector's own ``min_samples``; said before anything is generated."""


class Threshold(StrEnum):
    """How the threshold is set."""

    conformal = "conformal"
    quantile = "quantile"


@app.command()
def fit(
    model: Annotated[str, typer.Argument(help="Built-in name, folder, .gguf file or hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the guard goes.")] = Path("guard.safetensors"),
    anchors: Annotated[
        Path | None, typer.Option(help="A file of `demur anchors fit`; default: fitted first, on prompts of their own.")
    ] = None,
    harmless: Annotated[str, typer.Option(help="Prompts: harmless, organism, alpaca, a file or hf:owner/name.")] = "",
    harmful: Annotated[str, typer.Option(help="For anchors only: harmful, organism, advbench, a file or hf:...")] = "",
    n_anchors: Annotated[int, typer.Option(min=8, help="Harmless prompts for anchors.")] = 120,
    n_harmful: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Harmful prompts for anchors. Default: as many as harmless ones; on the whitened signal twice as many "
            "if the set has them.",
        ),
    ] = None,
    n_fit: Annotated[int, typer.Option(min=8, help="Harmless prompts to fit on, at least 32.")] = 200,
    n_calibrate: Annotated[int, typer.Option(min=2, help="Harmless prompts for the threshold.")] = 160,
    n_check: Annotated[int, typer.Option(min=0, help="Harmless prompts to measure false positives on.")] = 100,
    alpha: Annotated[
        float, typer.Option(help="False positives that may not be exceeded; half of it is for what follows step T.")
    ] = 0.02,
    threshold: Annotated[Threshold, typer.Option(help="conformal: with a guarantee; quantile: the paper's.")] = (
        Threshold.conformal
    ),
    detector: Annotated[
        str | None,
        typer.Option(
            help="paper (its signal and its autoencoder; the default for diffusion), or a detector: last (the default "
            "for causal models, on the whitened signal), mean, window, mahalanobis, isolation-forest, autoencoder, one "
            "that a package brings, or module:Class."
        ),
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="The published protocol: fit 1,200, calibrate 200, 99% quantile.")
    ] = False,
    upto: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Look at whole answers, with a promise for those of up to so many tokens; 0: at the first T steps "
            "alone, as the paper does. Default for causal models: 128.",
        ),
    ] = None,
    sampler: SamplerName = None,
    length: Length = None,
    steps: Steps = 32,
    temperature: Temperature = None,
    settings: Settings = None,
    layer: LayerName = "last",
    pool: PoolName = PoolName.generated,
    whitened: Whitened = None,
    refusals: RefusalsFrom = Refusals.observed,
    batch: Annotated[int, typer.Option(min=1)] = 16,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = None,
    system: SystemPrompt = None,
    template: TemplateArguments = None,
    column: Columns = None,
) -> None:
    """Fit and calibrate a guard on harmless prompts; its file holds the anchors too."""
    from demur.guards import fit_guard
    from demur.guards.detectors import named
    from demur.guards.kits import kit_of
    from demur.signals import fit_anchors
    from demur.signals.fit import anchor_traces
    from demur.signals.stability import LEAST, stability
    from demur.traces import generate, spec_of

    if paper:
        n_anchors, n_fit, n_calibrate, threshold, alpha = 400, 1200, 200, Threshold.quantile, 0.01
        detector = detector or "paper"
    check_writable(out, sort="guard", beside=(model, anchors, harmless, harmful))
    check_temperature(temperature)
    if n_fit < LEAST_TO_FIT:
        raise DemurError(f"--n-fit {n_fit}", f"at least {LEAST_TO_FIT} prompts to fit on", "the paper has 1,200")
    if detector not in (None, "paper"):
        named(detector)  # before anything is generated
    columns = columns_of(column)
    key: Any = (layer, pool.value)
    needed = [0 if anchors else n_anchors, n_fit, n_calibrate, n_check]
    known = _known(anchors) if anchors else None
    good = _prompts(harmless or _own(model), False, needed, known.prompts if known else (), columns)
    bad = [] if known else _bad(harmful or _own(model), n_anchors, n_harmful, columns)
    net = load_model(model, dtype, device, system, template=template)
    _, chosen, size = setup(net, sampler, length, steps, temperature, settings)
    kit = kit_of(detector, Need.CAUSAL in net.offers)
    signal = signal_of(whitened, known, kit.signal)
    bad = bad if signal == "whitened" or n_harmful else bad[:n_anchors]
    whole = _whole(kit.upto, upto, steps)
    check_alpha(alpha, n_calibrate if threshold is Threshold.conformal else None, parts=2 if whole else 1)
    _check_room(net, [*good[0], *good[1], *bad], size)
    _check_room(net, [*good[2], *good[3]], max(size, whole), whole)
    if known:
        known.check(spec_of(net, chosen, size, steps=steps).at(layer, pool.value, known.spec.signal))
    with unfinished() as kept, progress_on() as progress:

        def run(what: str, prompts: "list[Prompt]", room: int = size) -> "list[Trace]":
            return generate(
                net, prompts, chosen, length=room, steps=steps, seed=seed, pools=[key], batch=batch,
                progress=lambda done: progress(what, done, len(prompts)), kept=kept,
            )  # fmt: skip

        fitted, steady = known, None
        if fitted is None:
            both = anchor_traces(
                net, good[0], bad, chosen, length=size, steps=steps, pools=[key], refusals=refusals.value,
                seed=seed, batch=batch, kept=kept, progress=lambda what, *how: progress(f"anchors: {what}", *how),
            )  # fmt: skip
            where: Any = {"layer": layer, "pool": pool.value, "signal": signal}
            fitted = fit_anchors(*both, refusals=refusals.value, at_least=5, **where)
            if min(fitted.n_harmless, fitted.n_harmful) >= LEAST:
                steady = stability(*both, seed=seed, **where)
        guard = fit_guard(
            fitted,
            run("answering prompts to fit on", good[1]),
            run("answering prompts to calibrate on", good[2], max(size, whole)),
            alpha=alpha,
            threshold=threshold.value,
            seed=seed,
            detector=None if detector is None else kit.detector,  # none: what goes with the anchors that are there
            upto=whole,
        )
        if good[3]:
            guard = guard.measured("harmless, unseen", run("answering prompts to check on", good[3], max(size, whole)))
        guard = replace(guard, stability=steady)
        guard.save(out)
    out_to().print(str(out), style="bold", markup=False, soft_wrap=True)
    _describe(guard)


def _known(path: Path) -> "Anchors":
    """The anchors of a file. Says so where it does not tell which prompts they have seen."""
    from demur.signals import Anchors

    known = Anchors.load(path)
    if not known.prompts:
        out_to(stderr=True).print(
            f"! {path} does not say which prompts it was fitted on: some of them may be among those taken now, and "
            "then the promise does not hold. Make it again: demur anchors fit",
            style="yellow",
            markup=False,
        )
    return known


def _bad(name: str, n_anchors: int, n_harmful: int | None, columns: Mapping[str, str]) -> "list[Prompt]":
    """Harmful prompts for anchors: as many as are asked for. If nobody says, as many as the whitened signal takes, or
    what the set has of them, at least one to a harmless one.
    """
    from demur.signals.whitened import HARMFUL

    return _prompts(name, True, [n_harmful or HARMFUL * n_anchors], (), columns, n_harmful or n_anchors)[0]


def _whole(usual: int, asked: int | None, steps: int) -> int:
    """How many tokens the promise is for; 0 where only the first T steps are looked at. Raises for fewer than T."""
    if asked is None:
        return usual if usual > steps else 0
    if 0 < asked <= steps:
        then = "0 looks at the first steps alone, as the paper does"
        raise DemurError(f"--upto {asked} with --steps {steps}", "0, or more tokens than steps", then)
    return asked


def _check_room(net: "Model", prompts: "Sequence[Prompt]", room: int, whole: int = 0) -> None:
    """Raises, before anything is generated, for a prompt that leaves no room for its answer in the model's context."""
    for prompt in prompts:
        try:
            net.canvas([prompt], room)
        except TooLong as error:
            then = "a smaller --upto; 0 looks at the first steps alone" if whole == room else error.then
            raise DemurError(error.came, error.expected, then) from error


def _own(model: str) -> str:
    return worlds.of_model(model) or "starter"


VEILED = "Redacted: answers to prompts that are not marked harmless. To see the words: --show-harmful"

GOOD_ROLES: tuple[worlds.Role, ...] = ("anchors/harmless", "fit", "calibrate", "check")
"""What a guard's harmless prompts are for, in the order in which sizes are given."""


def prompts_for(
    guard: "Guard", name: str, needed: list[int], columns: Mapping[str, str], again: bool = False
) -> "list[list[Prompt]]":
    """Harmless prompts that a guard's anchors have not seen and, unless its limits are set ``again``, nor the guard:
    for anchors, fit, calibration and check, as many as ``needed``.
    """
    seen = (*guard.anchors.prompts, *(() if again else (*guard.fitted, *guard.calibrated)))
    return _prompts(name or _own(guard.spec.model), False, needed, seen, columns)


def _prompts(
    name: str,
    harmful: bool,
    needed: list[int],
    seen: Sequence[str],
    columns: Mapping[str, str],
    at_least: int | None = None,
) -> "list[list[Prompt]]":
    """Disjoint sets of the sizes asked for, without prompts that were ``seen`` before (by hash). Harmless sets are
    alike: dealt (:func:`demur.prompts.dealt`), but for those that the package brings, as long as the kinds that stand
    mixed there are enough; a guard that is only checked gets no other kinds than it has seen. Raises if there are too
    few prompts, with the sizes that would fit. ``at_least``: so many are enough, if there are no more (of one set).
    """
    from demur.prompts import dealt, distinct, packaged, say_sorted
    from demur.signals import digest

    taken, beside = {*seen}, " that the anchors have not seen" if seen else ""
    if worlds.is_world(name):  # whose roles share no request, nor what requests have in common
        roles: tuple[worlds.Role, ...] = ("anchors/harmful",) if harmful else GOOD_ROLES
        sets = []
        for role, n in zip(roles, needed, strict=False):  # roles of a world of two lists take from one of them
            every = worlds.named(name).every(role) if n else []
            sets.append([prompt for prompt in every if digest(prompt) not in taken][:n])
            taken |= {digest(prompt) for prompt in sets[-1]}
            if len(sets[-1]) < (at_least or n):
                raise DemurError(
                    f"{len(sets[-1])} requests of {name} for {role}{beside}",
                    str(n),
                    "ask for fewer, or fit other anchors",
                )
        return sets

    def unseen(prompts: "list[Prompt]") -> "list[Prompt]":
        return [prompt for prompt in distinct(prompts) if digest(prompt) not in taken]

    if harmful:
        every = unseen(packaged("harmful") if name == "starter" else side(name, True, columns))
        if name != "starter":
            say_sorted(name, every, sum(needed))
    elif name != "starter":  # sets that a promise connects must be alike, and a file may be sorted
        every = dealt(unseen(side(name, False, columns)))
    else:  # pairs are another kind: of use only to a guard that has, or gets, some of them in every set
        whole, plain = packaged("harmless"), packaged("harmless", pairs=False)
        paired, every = any(digest(pair) in taken for pair in whole[len(plain) :]), unseen(plain)
        if paired or (any(needed[:-1]) and len(every) < sum(needed)):
            every = dealt(unseen(whole))
    if len(every) < (at_least or sum(needed)):
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
def show(
    path: Annotated[Path, typer.Argument(help="A file of `demur guard fit`.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    detector: GuardDetector = None,
) -> None:
    """Show what a guard belongs to, what it was fitted on and what it promises."""
    from demur.guards import Guard

    guard = Guard.load(path, detector=detector)
    if as_json:
        print(json.dumps(_card(guard)))
    else:
        _describe(guard)


def _card(guard: "Guard") -> dict[str, Any]:
    """What :func:`_describe` shows, for programs; hashes of prompts are in the file itself."""
    a = guard.anchors
    about: dict[str, Any] = {
        "signal": a.signal_name,
        "refusals": a.refusals,
        "n_harmless": a.n_harmless,
        "n_harmful": a.n_harmful,
    }
    about |= {"n_refused": a.n_refused if a.whitened else a.n_harmful, "warning": a.warning or None}
    rates = {name: rate.row() for name, rate in guard.checked.items()}
    return {
        "spec": asdict(guard.spec),
        "anchors": about,
        "detector": guard.detector.name,
        "n_fit": guard.n_fit,
        "n_calibrate": guard.threshold.n,
        "refused": guard.refused,
        "alpha": guard.alpha,
        "threshold": guard.threshold.rule,
        "limit_offline": guard.threshold.value,
        "limit_online": guard.prefix.threshold.value,
        "can_stop_after": guard.prefix.able(),
        "limit_tail": guard.tail.threshold.value if guard.tail else None,
        "upto": guard.tail.upto if guard.tail else 0,
        "promise": guard.promise,
        "stability": guard.stability and guard.stability.plain() | {"warning": guard.stability.warning or None},
        "false_positives": rates,
        "false_positives_online": {name: rate.row() for name, rate in guard.checked_online.items()},
    }


def _describe(guard: "Guard") -> None:
    from rich.table import Table

    from demur.guards.telling import listed

    table = Table(show_header=False, box=None)
    spec = guard.spec
    for name in ("model", "revision", "weights", "dtype", "template", "sampler", "settings", "steps", "layer", "pool"):
        table.add_row(name, escape(str(getattr(spec, name))))
    facts = f"{len(spec.computed)} settings of the network, which are compared (--json names them)"
    table.add_row("computed", facts if spec.computed else "unknown (an older file)")
    a = guard.anchors
    table.add_row("signal", a.signal_name)
    table.add_row("anchors", f"{a.n_harmless} answered prompts and {a.harmful_side}")
    table.add_row(
        "fitted on", f"{guard.n_fit} signals of harmless prompts, by the detector {escape(guard.detector.name)}"
    )
    table.add_row("left out", f"{guard.refused} harmless prompts that the model refused")
    behind = f", behind step {spec.steps} {guard.tail.threshold.value:.4g}" if guard.tail else ""
    table.add_row("threshold", f"{guard.threshold.value:.4g}, online {guard.prefix.threshold.value:.4g}{behind}")
    table.add_row(
        "looks at", "whole answers" if guard.tail else f"the first {spec.steps} steps, at nothing behind them"
    )
    able = guard.prefix.able()
    if len(able) < spec.steps:
        table.add_row("can stop", f"while it is written, after {len(able)} of {spec.steps} steps: {listed(able)}")
    table.add_row("promise", escape(guard.promise))
    for name, rate in guard.checked.items():
        online = guard.checked_online.get(name)  # a guard of before does not know it
        table.add_row(escape(f"measured, {name}"), f"false positives {rate}" + (f", online {online}" if online else ""))
    if guard.stability is not None:
        for name, spread in (("random", guard.stability.random), ("by kind", guard.stability.kinds)):
            if spread is not None:
                table.add_row(f"ten anchor sets, {name}", escape(str(spread)))
    out_to().print(table)
    for warning in (a.warning, guard.stability.warning if guard.stability else ""):
        if warning:
            out_to().print(f"! {warning}", style="yellow", markup=False)


@app.command()
def run(
    guard: Annotated[Path, typer.Argument(help="A file of `demur guard fit`.")],
    prompt: Annotated[
        list[str] | None,
        typer.Argument(help="What to ask; or ids of starter or organism prompts; or files of prompts. Several."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Default: the model the guard belongs to.")] = None,
    detector: GuardDetector = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="module:Class of the guard's sampler, where its file belongs to one that is yours."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Judge finished answers instead of every step.")] = False,
    hold: Annotated[
        int, typer.Option(min=0, help="Keep the last so many steps back until they are judged; 1: nothing unjudged.")
    ] = 0,
    length: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens of an answer, for models that write from left to right. Default: the guard's."
        ),
    ] = None,
    harmful: Annotated[
        bool | None,
        typer.Option("--harmful/--harmless", help="Mark the prompts that bring no mark; only harmless ones are shown."),
    ] = None,
    show_harmful: Annotated[
        bool,
        typer.Option("--show-harmful", help="Show the words of answers to harmful prompts, and to unmarked ones."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a prompt.")] = False,
    batch: Annotated[int, typer.Option(min=1)] = 8,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = None,
    system: SystemPrompt = None,
    template: TemplateArguments = None,
    text: Texts = None,
    column: Columns = None,
) -> None:
    """Answer prompts under the guard: what it stops is answered with a refusal."""
    from demur.guards import Guard, Watch, acted
    from demur.redaction import hidden, redact

    prompts = asked(prompt, text, harmful=harmful, columns=columns_of(column))
    known = Guard.load(guard, detector=detector)
    net = load_model(model or known.spec.model, dtype, device, system, quiet=as_json, template=template)
    chosen, size = _sampler(known, sampler, length)
    tell_foreign(net, prompts)
    console, veiled = out_to(), False
    for trace in _answers(
        net, prompts, Watch(known, online=not offline, hold=hold)(chosen), known, size, seed, batch, as_json
    ):
        one, verdict, said = trace.prompt, acted(trace), trace.text()
        why = _why(known, verdict, trace, hold)
        unseen = hidden(one, show_harmful) and not verdict.flagged  # what it stopped is answered by the guard
        said, veiled = redact(said) if unseen else said, veiled or unseen
        if as_json:
            line = {"id": one.label, "flagged": verdict.flagged, "step": verdict.step, "why": why}
            print(json.dumps(line | {"text": said, "redacted": unseen}), flush=True)
        else:
            console.print(f"[{'red' if verdict.flagged else 'green'}]{why}[/]  {escape(one.label)}", soft_wrap=True)
            console.print(f"  {said}", soft_wrap=True, markup=False)
    if veiled and not as_json:
        console.print(VEILED, style="dim", soft_wrap=True, markup=False)


def _why(guard: "Guard", verdict: "Verdict", trace: "Trace", hold: int) -> str:
    """What the guard did, in words: of held steps it flags one behind the last that had left, and some guards do not
    look at whole answers.
    """
    if verdict.flagged:
        left = f"{verdict.step} step{'s'[: verdict.step != 1]} had left"
        return f"stopped, {left}" if hold else verdict.why
    unlooked = 0 if guard.tail else trace.steps - guard.spec.steps
    return f"{verdict.why}; {unlooked} further steps were not looked at" if unlooked > 0 else verdict.why


def _sampler(guard: "Guard", named: str | None, length: int | None) -> tuple[Any, int]:
    """The sampler that a guard belongs to, and its response length. Raises for another length than the guard's."""
    from demur.samplers.build import made_again

    settings = dict(guard.spec.settings)
    own = settings.pop("length", None)
    if own is not None and length not in (None, own):
        raise DemurError(f"--length {length}", f"{own}, which the guard was fitted for", "leave it out")
    usual = guard.tail.upto if guard.tail else guard.spec.steps
    return made_again(guard.spec.sampler, settings, named), int(cast(int, own or length or usual))


def _answers(
    net: Any, prompts: "list[Prompt]", sampler: Any, guard: "Guard", size: int, seed: int, batch: int, quiet: bool
) -> "Iterator[Trace]":
    """Answers as soon as their batch is done. Prompt i draws from ``seed + i``, whatever the batch."""
    from demur.traces import generate

    pools: Any = [(guard.spec.layer, guard.spec.pool)]
    common: dict[str, Any] = {"length": size, "steps": guard.spec.steps, "pools": pools, "batch": batch}
    with progress_on(quiet=quiet or len(prompts) <= batch) as progress:
        for begin in range(0, len(prompts), batch):
            yield from generate(net, prompts[begin : begin + batch], sampler, seed=seed + begin, **common)
            progress("answering", min(begin + batch, len(prompts)), len(prompts))
