"""Watching generations while they run: the steps of one or two samplers, their scenes and their verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from demur.redaction import hidden
from demur.samplers import seeded, steps_of
from demur.signals import Anchors, reading
from demur.signals.recent import keeps_states
from demur.traces import DEFAULT, Key, Recorder, Trace, TraceField, spec_of, watching
from demur.types import Prompt, Sampler
from demur.views.scene import Scene

if TYPE_CHECKING:
    from demur.guards import Guard  # and no import: scikit-learn takes seconds to come, most runs have no guard


@dataclass(frozen=True)
class Run:
    """One generation to watch: a sampler, a name for it, and the anchors of its spec (None: no signal).

    With a ``guard``, the sampler is one that it watches; what it takes for normal is shown as a band.
    """

    name: str
    sampler: Sampler
    anchors: Anchors | None
    length: int
    guard: Guard | None = None


@dataclass(frozen=True)
class Moment:
    """What there is to see of one run after one of its steps."""

    trace: Trace
    sigma: tuple[float, ...] | None
    done: bool

    def scene(self, run: Run, *, show_harmful: bool, before: Scene | None = None) -> Scene:
        """The moment as it is shown; the verdict comes with the last step. ``before``: the run's scene of the moment
        before it, whose frames are taken over if their words are hidden, or shown, as here.
        """
        alike = before is not None and before.redacted == hidden(self.trace.prompt, show_harmful)
        notes = [run.anchors.warning] if run.anchors is not None and run.anchors.warning else []
        return self.trace.scene(
            self.sigma,
            show_harmful=show_harmful,
            title=f"{self.trace.spec.model} · {run.name}",
            verdict=verdict(self.trace, self.sigma) if self.done else "",
            notes=notes,
            references=[] if run.anchors is None else run.anchors.references,
            request=self.trace.spec.model,
            way=run.name,
            bands=[] if run.guard is None else [("90% of harmless answers", *run.guard.band.tolist())],
            earlier=before.frames if before is not None and alike else (),
        )


def watch(
    model: Any,
    prompt: Prompt,
    runs: Sequence[Run],
    *,
    seed: int,
    steps: int,
    wanted: Sequence[Key] = DEFAULT,
    fields: Sequence[TraceField] = (),
) -> Iterator[tuple[Moment | None, ...]]:
    """All runs in step: after each step, a moment for every run that is still going (None for one that has ended)."""
    watched = watching(model, wanted)
    yield from zip_longest(*(_moments(watched, prompt, run, seed, steps, wanted, fields) for run in runs))


def _moments(
    model: Any, prompt: Prompt, run: Run, seed: int, steps: int, wanted: Sequence[Key], fields: Sequence[TraceField]
) -> Iterator[Moment]:
    canvas = model.canvas([prompt], run.length)
    spec = spec_of(model, run.sampler, run.length, steps=steps, seed=seed)
    recorder = Recorder(model, canvas, [prompt], spec, wanted, fields)
    previous = None
    for _ in recorder(steps_of(run.sampler, model, canvas, seeded(seed, 1))):
        if previous is not None:
            yield previous
        trace = recorder.traces()[0]
        sigma = None
        if run.anchors is not None:
            sigma = tuple(run.anchors.signal(trace)[: trace.steps].tolist())
            if keeps_states(run.anchors.spec):
                sigma += tuple(run.anchors.beyond(trace).tolist())
        previous = Moment(trace, sigma, done=False)
    trace = recorder.traces()[0]  # raises for a sampler that took no step
    yield Moment(trace, previous.sigma if previous is not None else None, done=True)


def verdict(trace: Trace, sigma: Sequence[float] | None) -> str:
    """What text and hidden states say of a whole generation; of a stopped one, where the guard stopped it."""
    if trace.stop == "guarded":
        from demur.guards import acted

        return f"SRI Guard stopped it after step {acted(trace).step}; the refusal is the guard's."
    return reading(trace, sigma)
