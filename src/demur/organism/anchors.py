"""The organism's anchors, of its own requests: shipped for the usual samplers, else fitted once and cached."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from demur.models import cache_dir
from demur.organism.tokens import RESPONSE
from demur.organism.world import prompts
from demur.signals import Anchors, anchors_of
from demur.signals.anchors import SignalName
from demur.traces import STEPS, spec_of
from demur.types import DemurError, Layer, Model, Pool, Sampler

SHIPPED = Path(__file__).parent / "weights" / "anchors"
"""Written by no command: after new weights, the demo's own, taken from the cache. Their names hold the weights' hash,
so that those of other weights are never found."""
N = 40


def own_anchors(
    model: Model,
    sampler: Sampler,
    *,
    length: int = RESPONSE,
    steps: int = STEPS,
    layer: Layer = "last",
    pool: Pool = "generated",
    signal: SignalName = "sri",
    n: int = N,
    progress: Callable[[str, int, int], object] = lambda what, done, of: None,
) -> Anchors:
    """Anchors of ``n`` requests a side from the split ``anchors``, which nothing else is fitted or measured on.

    ``progress`` is called with what is being done, how many are done, of how many; not at all if there is nothing to
    fit. Raises if fewer than 5 answers are left on a side.
    """
    spec = spec_of(model, sampler, length, steps=steps).at(layer, pool, "" if signal == "sri" else signal)
    names = [f"{key}-organism-{n}.safetensors" for key in (spec.key, *spec.earlier_keys)]
    kept = cache_dir() / "anchors" / names[0]
    for path in (*(SHIPPED / name for name in names), kept, *(kept.parent / name for name in names[1:])):
        if path.exists():
            with suppress(DemurError):  # of an older format, or broken: made again without a word
                return Anchors.load(path)
    good, bad = (prompts("anchors", forbidden=forbidden, n=n) for forbidden in (False, True))
    fitted = anchors_of(
        model, good, bad, sampler, length=length, steps=steps, layer=layer, pool=pool, signal=signal, batch=20,
        at_least=5, progress=progress,
    )  # fmt: skip
    fitted.save(kept)
    return fitted
