"""What commands share: options, and how a model, its sampler and its anchors are made of them."""

from __future__ import annotations

import json
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from demur.types import DemurError

if TYPE_CHECKING:
    from demur.signals import Anchors
    from demur.types import Pool, Prompt


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
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16 or 4bit.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps; default: the best there is.")]
Steps = Annotated[int, typer.Option(min=1, help="T: how many values a signal has.")]
Length = Annotated[
    int | None,
    typer.Option(
        min=1, help="Response length in tokens; default: T for causal models, 128 for diffusion, 40 for the organism."
    ),
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


def out_to(stderr: bool = False) -> Console:
    """The terminal, without colours that guess."""
    return Console(stderr=stderr, highlight=False)


def is_organism(model: str) -> bool:
    """Whether a model's name is that of the built-in pair, which understands its own world only."""
    return model.startswith("organism/")


def setup(
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
    if is_organism(model.name):
        from demur.organism.lessons import RESPONSE

        default = RESPONSE
    return chosen, SAMPLERS[chosen](**settings), length or default


def cached_anchors(
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
    """Anchors from the cache, or fitted on the starter sets (the organism: on its own requests) and put there."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from demur.models import cache_dir
    from demur.prompts import digest, starter
    from demur.signals import Anchors, anchors_of
    from demur.trace import spec_of

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=out_to(stderr=True), disable=quiet, transient=True)
    tasks: dict[str, Any] = {}

    def progress(what: str, done: int, of: int) -> None:
        if not tasks:
            bar.start()  # not before there is something to do: an empty bar leaves an empty line
        if what not in tasks:
            tasks[what] = bar.add_task(f"anchors: {what}", total=of)
        bar.update(tasks[what], completed=done)

    try:
        if is_organism(model.name) and refusals is Refusals.observed:
            from demur.organism.anchors import own_anchors

            return own_anchors(
                model, sampler, length=length, steps=steps, layer=layer, pool=pool, n=n, progress=progress
            )
        harmless, harmful = starter("harmless", n), starter("harmful", n)
        spec = spec_of(model, sampler, length, steps=steps).at(layer, pool)
        data = digest([*harmless, *harmful])[:8]
        path = cache_dir() / "anchors" / f"{spec.key}-{refusals.value}-{data}.safetensors"
        if path.exists():
            with suppress(DemurError):  # of an older format, or broken: a cache is made again without a word
                return Anchors.load(path)
        anchors = anchors_of(
            model, harmless, harmful, sampler, length=length, steps=steps, layer=layer, pool=pool,
            refusals=refusals.value, at_least=5, progress=progress,
        )  # fmt: skip
    finally:
        if tasks:
            bar.stop()
    anchors.save(path)
    return anchors


def prompt_of(text: str, harmful: bool | None, typed: str = "typed") -> Prompt:
    """A prompt as typed, or one of the starter sets or of the organism's world by its id."""
    from demur.organism.world import by_id
    from demur.prompts import starter
    from demur.types import Prompt

    if (found := by_id(text)) is not None:
        return found
    for known in [*starter("harmless"), *starter("harmful")]:
        if known.id == text:
            return known
    return Prompt(id=typed, text=text, harmful=harmful)


def load_model(model: str, dtype: str, device: str | None, system: str | None = None, quiet: bool = False) -> Any:
    """A model by name, with a note while it takes long. The dtype ``4bit`` is the default one with 4-bit weights."""
    from demur.models import load

    console = out_to(stderr=True)
    quantize = dtype if dtype.endswith("bit") else None
    settings: dict[str, Any] = {"dtype": "auto" if quantize else dtype, "device": device, "system": system}
    if quiet:
        return load(model, quantize=quantize, **settings)
    with console.status(f"loading {model} (a .gguf file is converted once, which takes some 20 seconds)"):
        return load(model, quantize=quantize, **settings)
