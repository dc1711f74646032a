"""The steps of a sampler. Those of one that is not demur's are looked at one by one before anybody reads them.

A trace is replayed from what steps say of themselves. A sampler that writes a place and does not say so, or says it
with another token, would leave a trace of something that never happened, and nobody would know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from demur.kinds import check_is, check_model
from demur.types import Canvas, DemurError, Model, Sampler, Step, missing, said_needs

PATIENCE = 10_000
"""A sampler that takes so many steps, and a hundred for each open place, is taken to have no end."""
NAMED = "make one of its name: demur.samplers.build({!r}, model)"
NEXT = "mend it: demur.testing.check_sampler, docs/extending.md"


def steps_of(sampler: Sampler, model: Model, canvas: Canvas, rngs: Any) -> Iterator[Step]:
    """The steps of a sampler on a canvas; everything that runs one runs it by this.

    One from outside demur gets a canvas of its own, which it may write into. Raises, in one line, where it fails, where
    a step is not as :func:`fault` wants it, and where it does not end; and as :func:`check_fits` does.
    """
    check_fits(sampler, model)
    check_is(canvas, Canvas, "a canvas", "make one: model.canvas(prompts, length)")
    if _module_of(sampler).partition(".")[0] == "demur":
        return sampler(model, canvas, rngs)
    return _looked_at(sampler, model, canvas, rngs)


def check_fits(sampler: Any, model: Any) -> None:
    """Raises for what is no sampler, such as a name or a class, and for one that needs what the model lacks."""
    if isinstance(sampler, str):
        raise DemurError(f"the name {sampler!r:.60} instead of a sampler", "a sampler", NAMED.format(sampler))
    if isinstance(sampler, type):
        raise DemurError(
            f"the class {called(sampler)} instead of a sampler", "a sampler", f"make one: {called(sampler)}()"
        )
    if not callable(sampler):
        raise DemurError(f"an object of the type {called(sampler)} instead of a sampler", "a sampler", NEXT)
    check_model(model)
    if lacking := missing(said_needs(sampler, f"the sampler {called(sampler)}"), model.offers):
        raise DemurError(
            f"the sampler {called(sampler)} on the {model.kind} model {model.name}, which has no {lacking}",
            "one that fits it",
            "leave it out for the model's own, or take one of demur.samplers.fitting(model.offers)",
        )


def called(sampler: Any) -> str:
    """What a sampler is called in errors: the name of its class, or of the function that it is."""
    return str(getattr(sampler, "__qualname__", type(sampler).__qualname__))


def _module_of(sampler: Any) -> str:
    return str(getattr(sampler, "__module__", ""))


def _looked_at(sampler: Any, model: Model, canvas: Canvas, rngs: Any) -> Iterator[Step]:
    own = Canvas(ids=canvas.ids.clone(), open=canvas.open.clone(), pad=canvas.pad.clone())
    given = Canvas(ids=canvas.ids.clone(), open=canvas.open.clone(), pad=canvas.pad)
    most = max(PATIENCE + 100 * int(given.open.sum(dim=1).max()), 10 * _said_steps(sampler))
    before, steps, index = given.ids, None, 0
    while True:
        try:
            steps = iter(sampler(model, own, rngs)) if steps is None else steps
            step = next(steps, None)
        except (DemurError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever somebody else's code raises
            said = " ".join(str(error).split())[:160]
            raise DemurError(
                f"sampler {called(sampler)} failed at step {index + 1} ({type(error).__name__}: {said})",
                "a generator of steps",
                NEXT,
            ) from error
        if step is None:
            return
        if wrong := fault(step, index, before, given, model):
            raise DemurError(
                f"sampler {called(sampler)}, step {index + 1}: {wrong}", "a step that says what it did", NEXT
            )
        index += 1
        if index > most:
            raise DemurError(
                f"sampler {called(sampler)} has taken {index:,} steps and has not ended",
                "an end once nothing is left to write",
                NEXT,
            )
        before = step.ids.clone()
        yield step


def _said_steps(sampler: Any) -> int:
    """How many steps it was asked for, if it has such a setting."""
    steps = getattr(sampler, "steps", 0)
    return steps if isinstance(steps, int) else 0


def fault(step: Any, index: int, before: Int[Tensor, "b n"], canvas: Canvas, model: Model) -> str:
    """What is wrong with a step, in words; empty if nothing is. ``before``: the tokens after the step before;
    ``canvas``: as it was when the generation began.
    """
    if not isinstance(step, Step):
        return f"a {type(step).__name__} came, not a Step"
    return _ill_shaped(step, canvas, model) or _untrue(step, index, before, canvas, model)


def _ill_shaped(step: Step, canvas: Canvas, model: Model) -> str:
    """A tensor of another kind or shape."""
    grid, rows = tuple(canvas.ids.shape), (canvas.rows,)
    wanted: dict[str, tuple[tuple[int, ...], tuple[torch.dtype, ...], str]] = {
        "ids": (grid, _WHOLE, "whole numbers"),
        "open": (grid, (torch.bool,), "bools"),
        "committed": (grid, (torch.bool,), "bools"),
        "predictions": (grid, _WHOLE, "whole numbers"),
        "confidence": (grid, _REAL, "floats"),
        "live": (rows, (torch.bool,), "bools"),
    }
    for name, (shape, dtypes, words) in wanted.items():
        value = getattr(step, name)
        if not isinstance(value, Tensor):
            return f"{name} is a {type(value).__name__}, not a tensor"
        if tuple(value.shape) != shape or value.dtype not in dtypes:
            came = f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
            return f"{name} is {came}, not {words} of shape {shape}"
        if value.device != canvas.ids.device:
            return f"{name} is on {value.device}, not on {canvas.ids.device}"
    return _ill_hidden(step, canvas, model)


def _ill_hidden(step: Step, canvas: Canvas, model: Model) -> str:
    if lacking := [layer for layer in model.layers if layer not in step.hidden]:
        return f"hidden has no states of the layer {lacking[0]!r}"
    for layer in model.layers:
        states = step.hidden[layer]
        if states.ndim != 3 or len(states) != canvas.rows:
            return f"hidden[{layer!r}] has the shape {tuple(states.shape)}, not (rows, columns, width)"
    passes: Any = step.passes
    return "" if isinstance(passes, int) else f"passes is a {type(passes).__name__}, not a whole number"


def _untrue(step: Step, index: int, before: Int[Tensor, "b n"], canvas: Canvas, model: Model) -> str:
    """Something that a step says and did not do, or did and does not say."""
    if step.index != index:
        return f"it says index={step.index!r}, and it is number {index}, counted from 0"
    given, written = ~canvas.open, step.committed
    vocabulary = _vocabulary(model)
    behind = min((step.start + states.shape[1] for states in step.hidden.values()), default=canvas.width)
    behind = behind + step.shift if step.span == "all" else canvas.width
    strange = (step.ids < 0) | (step.ids >= vocabulary) if vocabulary else step.ids < 0
    stands = step.ids == step.predictions
    if step.replaced is not None:
        stands |= step.replaced[:, None]  # a defense's words, and no guess of the sampler
    found = torch.stack(
        [
            ((step.ids != canvas.ids) & given).any(),
            (written & given).any(),
            (step.open & given).any(),
            (strange & canvas.open).any(),
            ((step.ids != before) & ~written & ~step.open & canvas.open).any(),
            (written & ~step.open & ~stands).any(),
            (written.any(dim=1) & ~step.live).any(),
            written[:, behind:].any(),
            (written & ~step.open & (step.ids == (-1 if model.mask_id is None else model.mask_id))).any(),
        ]
    ).tolist()  # one wait for the device, not nine
    words = (
        "it has moved a token that was given",
        "committed holds a place that was given",
        "open holds a place that was given",
        f"it has written a token that is none of the model's {vocabulary or ''}".rstrip(),
        "it has written a place that is neither in committed nor open",
        "predictions hold another token than ids where it has committed one",
        "it has committed a place of a row that is not live",
        f"hidden ends at column {behind} and it has committed one behind: say another start, or span",
        "it has committed the mask token: leave it out of the logits, or the place open",
    )
    return next((word for word, wrong in zip(words, found, strict=True) if wrong), "")


def _vocabulary(model: Model) -> int:
    """How many tokens the network knows; 0 if it does not say."""
    table = getattr(model.net, "get_input_embeddings", lambda: None)()
    return int(getattr(table, "num_embeddings", 0) or 0)


_WHOLE = (torch.int64, torch.int32)
_REAL = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
