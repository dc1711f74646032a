"""Every set of a comparison, from one model under one sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from demur.ablation.material import Material, request_of
from demur.ablation.protocol import Sets
from demur.ablation.recording import gather
from demur.ablation.rivals import CANVAS_KEYS, CAUSAL_KEYS
from demur.ablation.splits import Questions
from demur.samplers.build import needs_of
from demur.traces import STEPS, Kept, Key, Trace
from demur.types import Model, Need, Prompt, Sampler


def record_sets(
    model: Model,
    sampler: Sampler,
    asked: Questions,
    *,
    pools: Sequence[Key] | None = None,
    recorded: Sequence[Key] | None = None,
    length: int | None = None,
    steps: int = STEPS,
    seed: int = 0,
    reads: Callable[[Trace], str] | None = None,
    group: Callable[[Prompt], str] = request_of,
    kept: Kept | None = None,
    progress: Callable[[str, int, int], object] = lambda name, done, of: None,
) -> Sets:
    """What a model says to every set of prompts. Nobody judges: success is an answer that is no refusal.

    ``pools`` are the states to hold (default: what the rivals read), ``recorded`` those to capture and keep
    (:func:`demur.ablation.recording.gather`). ``group`` names what a prompt asks for, whatever wraps it; ``kept``
    holds what was generated before; ``reads`` says how a final text reads, beside the dictionary that decides;
    ``progress`` is called with a set's name, how many of its prompts are done, and of how many.
    """
    read = pools or (CAUSAL_KEYS if Need.CAUSAL in model.offers else CANVAS_KEYS)

    def run(name: str, prompts: list[Prompt]) -> Material:
        return gather(
            model, name, prompts, sampler, pools=read, recorded=recorded, length=length, steps=steps, seed=seed,
            reads=reads, group=group, kept=kept, progress=lambda done: progress(name, done, len(prompts)),
        )  # fmt: skip

    return Sets(
        model.name,
        type(sampler).__name__,
        good=run("anchors", asked.anchors),
        bad=run("harmful", asked.harmful),
        fit=run("fit", asked.fit),
        calibrate=run("calibrate", asked.calibrate),
        plain=run("plain", asked.plain),
        attacked={name: run(name, prompts) for name, prompts in asked.attacked.items()},
        controls={name: run(name, prompts) for name, prompts in asked.controls.items()},
        refused=run("plain harmful", asked.plain_harmful) if asked.plain_harmful else None,
        causal=Need.CAUSAL in needs_of(sampler),
    )
