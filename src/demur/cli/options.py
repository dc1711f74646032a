"""What commands share: options, and how a model, its sampler and its anchors are made of them."""

from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from demur import worlds
from demur.cli.asked import as_typed, asked
from demur.cli.progress import progress_on
from demur.cli.settings import LARGEST_SEED, check_temperature, key_values, settings_of
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.signals import Anchors
    from demur.signals.anchors import SignalName
    from demur.types import Model, Pool, Prompt, Sampler


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
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16 or 4bit.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps; default: the best there is.")]
Steps = Annotated[int, typer.Option(min=1, help="T: how many values a signal has.")]
Length = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Response length in tokens; default: the model's own, else T for causal, 128 for diffusion models.",
    ),
]
SAMPLERS = (
    "ar, low-confidence, random, ar-order, margin, entropy, dream, mdlm, bd3lm, sdar, llada2, stable-diffcoder, "
    "joint-threshold, nemotron, renoising, revising"
)
SamplerName = Annotated[
    str | None,
    typer.Option("--sampler", help=f"{SAMPLERS}, or module:Class; default: the one of the model's family."),
]
GuardDetector = Annotated[
    str | None,
    typer.Option("--detector", help="module:Class of the guard's detector, where its file holds one that is yours."),
]
Temperature = Annotated[float | None, typer.Option(min=0, help="0 is greedy; default: the sampler's own.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of the sampler, KEY=VALUE, such as block_length=32.")
]
LayerName = Annotated[str, typer.Option(help="first, middle, last or a block number.")]
RefusalsFrom = Annotated[
    Refusals, typer.Option(help="scripted: replay written refusals, for models that refuse nothing.")
]
Whitened = Annotated[
    bool | None,
    typer.Option(
        "--whitened/--sri",
        help="How states are read: along a whitened direction, or by the paper's cosines to both anchors.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of everything that is drawn.")]
SystemPrompt = Annotated[str | None, typer.Option("--system", help="A system prompt, for prompts that bring none.")]
TemplateArguments = Annotated[
    list[str] | None,
    typer.Option("--template-arg", help="For the chat template, KEY=VALUE, such as enable_thinking=false; repeatable."),
]
Count = Annotated[int, typer.Option("--n", "-n", min=1, help="Prompts per set, of the starter sets.")]


def batch_of(said: str | int) -> int | Literal["auto"]:
    """How many rows at once: a number, or ``auto`` for what fits into memory."""
    text = str(said).strip()
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise DemurError(f"--batch {as_typed(text)}", "a number of at least 1, or auto", "for example: --batch 8")
    return int(text)


Batch = Annotated[
    Any, typer.Option("--batch", parser=batch_of, metavar="N|auto", help="Rows at once; auto: what fits into memory.")
]


def out_to(stderr: bool = False) -> Console:
    """The terminal, without colours that guess."""
    return Console(stderr=stderr, highlight=False)


def tell_page(console: Console, page: Path) -> None:
    """Says where a page lies, as a link."""
    uri = page.resolve().as_uri()  # which holds no brackets
    console.print(f"\npage: [link={uri}]{uri}[/link]", soft_wrap=True)


def setup(
    model: "Model",
    name: str | None,
    length: int | None,
    steps: int,
    temperature: float | None,
    more: list[str] | None,
) -> "tuple[str, Sampler, int]":
    """A sampler's name (default: of the model's family), the sampler with its settings, and its response length."""
    from demur.samplers import build

    chosen = name or model.preferred
    check_temperature(temperature)
    plain = build(chosen, model)
    settings: dict[str, Any] = {}
    if temperature is not None:
        if not hasattr(plain, "temperature"):
            raise DemurError(f"--temperature with the sampler {chosen}", "one that has it", "leave it out")
        settings["temperature"] = temperature
    own = settings_of(more, plain, chosen)
    if twice := settings.keys() & own.keys():
        raise DemurError(f"--{(name := min(twice))} and --set {name}=...", "one of them", "leave one out")
    settings |= own
    sampler = build(chosen, model, steps=steps, settings=settings)
    return chosen, sampler, length or model.default_length(steps)


def check_detector(guard: Path | None, detector: str | None) -> None:
    """Raises for a detector of no guard, which would do nothing."""
    if guard is None and detector is not None:
        raise DemurError(f"--detector {detector:.40} without --guard", "the guard's file", "name it, or leave it out")


def signal_of(whitened: bool | None, owner: "Anchors | None" = None, default: "SignalName" = "sri") -> "SignalName":
    """How states are read: as the anchors do that are there, else as asked. Raises where the two differ."""
    wanted: SignalName | None = None if whitened is None else "whitened" if whitened else "sri"
    if owner is None:
        return wanted or default
    if wanted is not None and wanted != owner.signal_name:
        raise DemurError(
            f"--{wanted} with anchors that read states by {owner.signal_name}", "one of the two", "leave the option out"
        )
    return owner.signal_name


def cached_anchors(
    model: "Model",
    sampler: "Sampler",
    length: int,
    steps: int,
    layer: str,
    pool: "Pool",
    refusals: Refusals,
    n: int,
    quiet: bool,
    signal: "SignalName" = "sri",
) -> "Anchors":
    """Anchors from the cache, or fitted on the starter sets (a model of a world: on its requests) and put there."""
    from demur.models import cache_dir
    from demur.prompts import digest, packaged, starter
    from demur.signals import Anchors, anchors_of
    from demur.signals.whitened import HARMFUL
    from demur.traces import spec_of

    with progress_on("anchors: ", quiet=quiet) as progress:
        if (world := worlds.of_model(model.name)) and refusals is Refusals.observed:
            how: dict[str, Any] = {"length": length, "steps": steps, "layer": layer, "pool": pool, "n": n}
            if signal != "sri":  # a world of before knows no other
                how["signal"] = signal
            made: Anchors = worlds.named(world).anchors(model, sampler, progress=progress, **how)
            return made
        if signal == "whitened":
            harmless, harmful = packaged("harmless")[:n], packaged("harmful")[: n * HARMFUL]
        else:
            harmless, harmful = starter("harmless", n), starter("harmful", n)
        spec = spec_of(model, sampler, length, steps=steps).at(layer, pool, "" if signal == "sri" else signal)
        data = digest([*harmless, *harmful])[:8]
        path, *earlier = (
            cache_dir() / "anchors" / f"{key}-{refusals.value}-{data}.safetensors"
            for key in (spec.key, spec.earlier_keys[0])
        )
        for kept in (path, *earlier):
            if kept.exists():
                with suppress(DemurError):  # of an older format, or broken: a cache is made again without a word
                    return Anchors.load(kept)
        anchors = anchors_of(
            model, harmless, harmful, sampler, length=length, steps=steps, layer=layer, pool=pool, signal=signal,
            refusals=refusals.value, at_least=5, progress=progress,
        )  # fmt: skip
    try:
        anchors.save(path)
    except DemurError as error:  # they cost minutes: go on with them
        out_to(stderr=True).print(f"! the anchors are not kept: {error}", style="yellow", markup=False, soft_wrap=True)
    return anchors


def prompt_of(text: str, harmful: bool | None) -> "Prompt":
    """The one prompt of an argument (:func:`demur.cli.asked.asked`)."""
    return asked([text], harmful=harmful)[0]


def tell_foreign(model: "Model", prompts: "Sequence[Prompt]") -> None:
    """Says where a world's model is asked what it can not read."""
    if said := worlds.foreign(model, prompts):
        out_to(stderr=True).print(f"! {said}", style="yellow", markup=False, soft_wrap=True)


def load_model(
    model: str,
    dtype: str,
    device: str | None,
    system: str | None = None,
    quiet: bool = False,
    template: Sequence[str] | None = None,
) -> "Model":
    """A model by name, with a note while it takes long. The dtype ``4bit`` is the default one with 4-bit weights.

    ``template``: arguments of the chat template, each KEY=VALUE.
    """
    from demur.models import load

    quantize = dtype if dtype.endswith("bit") else None
    settings: dict[str, Any] = {"dtype": "auto" if quantize else dtype, "device": device}
    settings["system"] = None if system is None else as_typed(system)
    if template:
        settings["template_args"] = key_values("--template-arg", [as_typed(item) for item in template])
    if quiet:
        return load(model, quantize=quantize, **settings)
    with out_to(stderr=True).status(escape(f"loading {model}{_waiting(model)}")):
        return load(model, quantize=quantize, **settings)


def _waiting(model: str) -> str:
    """What to wait for with a .gguf file: its weights are unpacked while they are read."""
    path = Path(model).expanduser()
    if path.suffix.lower() != ".gguf" or not path.is_file():
        return ""
    size = path.stat().st_size
    return f" (a .gguf file of {size / 1e9:.1f} GB; it takes {'some seconds' if size < 3e8 else 'minutes'})"
