"""What is compared: one model, at some batches and lengths, the bare way and everything that demur does with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demur import worlds
from demur.bench import plain
from demur.bench.machine import machine, named
from demur.bench.measure import Compared, Took, compared, in_turns
from demur.guards import Autoencoder, Guard, Watch, fit_guard
from demur.models.memory import let_go, out_of_memory
from demur.models.sizes import Shape, memory_of
from demur.prompts import starter
from demur.samplers import MaskedDiffusion, build, seeded, steps_of
from demur.signals import Anchors
from demur.signals.whitened import fit_whitened
from demur.traces import Recorder, Trace, generate, spec_of, teacher_forced, watching
from demur.types import Canvas, DemurError, DemurWarning, Kind, Model, Prompt

T = 32
LAST: Any = [("last", "generated")]
PRODUCING: Any = [("last", "producing")]
BARE, ALONE, CAPTURE = "bare", "demur", "capture"
"""The bare way; demur's sampler with nothing around it; the same with states pooled and traces made."""
LIMIT = 1.02
"""What capture of a causal model may take, as a share of the bare way's time (docs/hardware.md)."""
SMALL = 1e8
"""Parameters below which nothing is promised: a pass is then so short that all Python around it counts."""


@dataclass(frozen=True)
class Case:
    """One batch and length: seconds of every variant, ratios, and what is worth saying.

    ``taken``: tokens of the longest answer. ``peak`` and ``estimate``: bytes of the device at most, where it counts
    them, and what ``demur doctor`` says.
    """

    batch: int
    length: int
    taken: int
    seconds: Mapping[str, Sequence[Took]]
    ratios: tuple[Compared, ...]
    notes: tuple[str, ...] = ()
    peak: int | None = None
    estimate: int | None = None


@dataclass(frozen=True)
class Found:
    """A bench of one model, ready to be sent back. ``bare``: what the bare way was."""

    model: str
    kind: str
    dtype: str
    parameters: int
    sampler: str
    bare: str
    rounds: int
    machine: Mapping[str, Any]
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()


def bench(
    model: Model,
    *,
    batches: Sequence[int] = (1, 8),
    lengths: Sequence[int] = (32, 256),
    rounds: int = 5,
    told: Callable[[str], object] = lambda what: None,
) -> Found:
    """Measures a loaded model. A case whose prompts and answers do not fit into the model's context, or into memory, is
    left out and said. Raises if none is left, and for counts below 1.
    """
    for name, counts in (("batch", batches), ("length", lengths), ("rounds", [rounds])):
        if not counts or min(counts) < 1:
            raise DemurError(f"{name} {min(counts, default=0)}", "at least 1", "raise it")
    sampler = MaskedDiffusion(steps=T) if model.kind is Kind.MASKED else build(None, model, steps=T)
    bare = {Kind.CAUSAL: "transformers generate", Kind.MASKED: "a plain loop in place of the official sampler"}
    cases: list[Case] = []
    notes: dict[str, None] = {}  # each once
    guards: dict[int, Guard | None] = {}
    for batch in batches:
        for length in lengths:
            room = T if model.kind is Kind.CAUSAL else length  # a signal on a canvas depends on its length
            try:
                if room not in guards:
                    told("a guard that never acts")
                    guards[room] = still_guard(model, sampler, room)
            except DemurError as error:
                guards[room] = None
                notes[f"no guard was measured: {error.came}"] = None
            try:
                told(f"batch {batch}, {length} tokens")
                cases.append(_case(model, sampler, guards[room], batch, length, rounds, told))
            except DemurError as error:
                notes[f"batch {batch}, {length} tokens was left out: {error.came}, of {error.expected}"] = None
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                notes[f"batch {batch}, {length} tokens was left out: memory ran out on {model.device}"] = None
    if not cases:
        raise DemurError(
            f"nothing could be measured ({next(iter(notes))})", "a case that fits the model", "ask for less"
        )
    return Found(
        model=named(model.name),
        kind=str(model.kind),
        dtype=model.identity.dtype,
        parameters=sum(p.numel() for p in model.net.parameters()),
        sampler=type(sampler).__name__,
        bare=bare.get(model.kind, "nothing stands for the bare way: no plain loop is known for this kind"),
        rounds=rounds,
        machine=machine(model.device),
        cases=tuple(cases),
        notes=tuple(notes),
    )


def asked(model: Model, n: int) -> list[Prompt]:
    """Harmless requests that the model understands."""
    world = worlds.of_model(model.name)
    every = worlds.named(world).every("plain") if world else starter("harmless", n)
    some = [every[i % len(every)] for i in range(n)]
    return [Prompt(str(i), one.text, harmful=False) for i, one in enumerate(some)]


def still_guard(model: Model, sampler: Any, length: int) -> Guard:
    """The default guard of a model, made so that it never acts: anchors of noise around real states, and limits that
    nothing reaches. It costs what any guard costs on an answer that it lets pass. Raises for a model that refuses what
    is harmless: nothing is left to fit on.
    """
    traces = [one for one in generate(model, asked(model, 8), sampler, length=length, pools=LAST) if not one.refused()]
    if len(traces) < 4:
        raise DemurError(f"{model.name} refuses harmless requests", "answers to fit a guard on", "")
    traces = [replace(one, prompt=replace(one.prompt, text=str(i))) for i, one in enumerate(traces)]  # all different
    phi, n = np.stack([trace.aligned(*LAST[0]) for trace in traces]), len(traces)
    noise = (phi + phi.std() * np.random.default_rng(0).normal(size=phi.shape)).astype(np.float32)
    ones, spec = np.ones(T, np.float32), traces[0].spec.at(*LAST[0])
    anchors = Anchors(phi.mean(axis=0), noise.mean(axis=0), ones, ones, spec, "observed", n, n, n, n)
    detector: Any = partial(Autoencoder.fit, epochs=2, min_samples=1)
    if model.kind is Kind.CAUSAL:  # the default of what writes from left to right (demur.guards.kits)
        anchors = replace(anchors, spec=replace(spec, signal="whitened"), whitened=fit_whitened(phi, noise))
        detector = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DemurWarning)  # a guard that tells nothing is what is wanted
        guard = fit_guard(anchors, traces[: n // 2], traces[n // 2 :], threshold="quantile", detector=detector)
    never = replace(guard.threshold, value=np.inf)
    return replace(guard, threshold=never, prefix=replace(guard.prefix, threshold=never))


@dataclass
class _Way:
    """The variants of a case, each a method; ``traces`` are those of the last capture, which a replay reads."""

    model: Model
    sampler: Any
    guard: Guard | None
    prompts: Sequence[Prompt]
    length: int

    def __post_init__(self) -> None:
        self.canvas: Canvas = self.model.canvas(self.prompts, self.length)
        self.traces: list[Trace] = []

    def variants(self) -> dict[str, Callable[[], Any]]:
        """By name; ``replay`` comes after a capture."""
        causal = self.model.kind is Kind.CAUSAL
        found: dict[str, Callable[[], Any]] = {BARE: self.bare} if plain.has_plain(self.model) else {}
        found |= {ALONE: self.alone, CAPTURE: partial(self.captured, LAST)}
        if causal:
            found[f"{CAPTURE}, producing"] = partial(self.captured, PRODUCING)
        if self.guard is not None:
            found["guard"] = self.guarded
        return found | ({"replay": self.replayed} if causal else {})

    def bare(self) -> Tensor:
        if self.model.kind is Kind.CAUSAL:
            return plain.generated(self.model, self.canvas, self.length)
        return plain.denoised(self.model, self.canvas, self.length, self.sampler.steps)

    def alone(self) -> Tensor:
        return self._last(steps_of(self.sampler, self.model.watching(), self.canvas, seeded(0, self.canvas.rows)))

    def captured(self, pools: Any) -> list[Trace]:
        watched = watching(self.model, pools)
        spec = spec_of(self.model, self.sampler, self.length, steps=T)
        recorder = Recorder(watched, self.canvas, self.prompts, spec, pools)
        for _ in recorder(steps_of(self.sampler, watched, self.canvas, seeded(0, self.canvas.rows))):
            pass
        self.traces = recorder.traces()
        return self.traces

    def guarded(self) -> Tensor:
        assert self.guard is not None
        watched = watching(self.model, LAST)
        return self._last(Watch(self.guard)(self.sampler)(watched, self.canvas, seeded(0, self.canvas.rows)))

    def replayed(self) -> list[Trace]:
        answers = [trace.commits[:, 2].tolist() for trace in self.traces]
        how: dict[str, Any] = {"steps": T, "length": self.length, "pools": LAST, "batch": len(answers)}
        return teacher_forced(self.model, self.prompts, answers, **how)

    def _last(self, steps: Iterator[Any]) -> Tensor:
        """The answers' tokens after the last step."""
        ids = self.canvas.ids
        for step in steps:
            ids = step.ids
        return ids[:, -self.length :]


def _case(
    model: Model, sampler: Any, guard: Guard | None, batch: int, length: int, rounds: int, told: Callable[[str], object]
) -> Case:
    prompts, causal = asked(model, batch), model.kind is Kind.CAUSAL
    way = _Way(model, sampler, guard, prompts, length)
    short = way if not causal else _Way(model, sampler, guard, prompts, min(length, 4))
    for variant in short.variants().values():
        variant()  # nobody counts the first one: libraries and memory are set up in it
    peak = _counting(model.device)
    variants = way.variants()
    took, gave = in_turns(variants, rounds, _waited(model.device), told)
    large = sum(p.numel() for p in model.net.parameters()) >= SMALL
    ratios: list[Compared] = []
    if BARE in variants:
        beside = [name for name in variants if name not in (BARE, "replay")]
        limits = {CAPTURE: LIMIT} if causal and large else {}
        ratios += [compared(took, name, BARE, limits.get(name)) for name in beside]
    ratios += [compared(took, name, ALONE) for name in (CAPTURE, "guard") if name in variants]
    if causal:
        ratios.append(compared(took, BARE, "replay"))
    return Case(
        batch,
        length,
        max(len(trace.tokens()) for trace in way.traces),
        took,
        tuple(ratios),
        tuple(_differences(gave, way.traces)),
        peak(),
        _estimate(model, way.canvas, length),
    )


def _differences(gave: Mapping[str, Any], traces: Sequence[Trace]) -> Iterator[str]:
    """Variants whose tokens are not those of the traces: then they did not do the same work."""
    for name in (BARE, ALONE, "guard"):
        if name not in gave:
            continue
        rows = gave[name].tolist()
        off = 0
        for row, trace in zip(rows, traces, strict=True):
            final = [token for token in trace.tokens().tolist() if token >= 0]  # it may end early
            off += list(row[: len(final)]) != final[: len(row)]
        if off:
            yield f"{off} of {len(rows)} rows of `{name}` have other tokens than the captured ones"


def _waited(device: torch.device) -> Callable[[], object]:
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return torch.mps.synchronize if device.type == "mps" else lambda: None


def _counting(device: torch.device) -> Callable[[], int | None]:
    """Begins to count a device's memory; what comes gives the most of it, None where nobody counts."""
    let_go(device)
    if device.type != "cuda":
        return lambda: None
    torch.cuda.reset_peak_memory_stats(device)
    return lambda: torch.cuda.max_memory_allocated(device)


def _estimate(model: Model, canvas: Canvas, length: int) -> int | None:
    try:
        shape = Shape.of(model.net.config.to_dict(), model.name)
    except DemurError:
        return None
    block = int(getattr(model, "block_length", None) or 1)
    dtype = "float32" if model.net.dtype == torch.float32 else "bfloat16"
    sizes = {"batch": canvas.rows, "prompt": canvas.width - length, "length": length, "steps": T, "block": block}
    return int(sum(memory_of(shape, model.kind, dtype, **sizes).values()))
