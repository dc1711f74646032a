"""What the engine asks of an accelerator, counted on a pretend one: waits, copies and operations of a step.

It measures no time and needs no accelerator; the numbers are the same on every machine.
"""

from __future__ import annotations

from typing import Any

from measure import Clock, Ratio, Seconds, say

import demur
from demur.guards import Watch, fit_guard
from demur.models.seeding import Seeding
from demur.organism.world import prompts
from demur.samplers import build, seeded
from demur.testing import PretendDevice, tiny
from demur.traces import DEFAULT, Recorder, generate, spec_of, watching
from demur.types import Kind

LENGTH = 40
BATCHES = (1, 8, 32)


def waits(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """Prints a table of both built-in models, bare and under an online guard, and of tiny ones that write blocks; it
    compares no times.
    """
    head = "| model | sampler | batch | operations outside the network | waits | copies |"
    rows = [head, "| --- | --- | --: | --: | --: | --: |"]
    organism = [(name, demur.load(name), None) for name in ("organism/ar", "organism/diffusion")]
    blocks = tiny(Kind.BLOCK)
    causal_too: Any = Seeding(**vars(blocks) | {"block_length": 8, "partition": "response"})
    others = [("tiny", blocks, "sdar"), ("tiny", blocks, "joint-threshold"), ("tiny", causal_too, "nemotron")]
    for name, model, called in [*organism, *others]:
        settings = {"threshold": 0.1, "edit_threshold": 0.05} if called == "joint-threshold" else {}
        plain = build(called, model, settings=settings)
        watched = {"watched": Watch(_guard(model))(plain)} if called is None else {}
        for what, sampler in {called or "bare": plain, **watched}.items():
            for batch in BATCHES[:1] if quick else BATCHES:
                numbers = " | ".join(f"{number:.2f}" for number in of_a_step(model, plain, sampler, batch))
                rows.append(f"| {name} | {what} | {batch} | {numbers} |")
    say("a step on a pretend device (means, without the first and the last step)")
    print("\n".join(rows), flush=True)
    return [], []


def of_a_step(model: Any, plain: Any, sampler: Any, batch: int) -> list[float]:
    """Operations outside the network, waits and copies."""
    asked = prompts("test", forbidden=False, n=batch)
    with PretendDevice() as device:
        watched = watching(device.place(model), DEFAULT)
        canvas = watched.canvas(asked, LENGTH)
        recorder = Recorder(watched, canvas, asked, spec_of(model, plain, LENGTH), DEFAULT)
        for _ in device.steps(recorder(sampler(watched, canvas, seeded(0, batch)))):
            pass
    middle = device.each[1:-1] or device.each
    return [sum(getattr(one, kind) for one in middle) / len(middle) for kind in ("outside", "waits", "copies")]


def _guard(model: Any) -> Any:
    def run(split: str, forbidden: bool) -> Any:
        return generate(model, prompts(split, forbidden=forbidden, n=40), length=LENGTH, batch=40)

    anchors = demur.fit_anchors(run("anchors", False), run("anchors", True))
    return fit_guard(anchors, run("guard", False), run("calibration", False), alpha=0.05)
