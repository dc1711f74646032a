"""A subject's answers: its model, its sampler, and the traces of prompts."""

from __future__ import annotations

import gc
import json
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from demur import worlds
from demur.experiment.attacking import canvas_under
from demur.experiment.config import PLAIN, Attacked, Config, Subject
from demur.experiment.requests import prompts_of
from demur.models import load
from demur.models.memory import batch_that_fits, what_fits
from demur.samplers import build, seeded, steps_of
from demur.traces import Kept, Key, Recorder, Trace, fields_named, spec_of, watching
from demur.traces.batches import characters, in_batches
from demur.types import Model, Prompt, Sampler

LAST: Key = ("last", "generated")
"""What a guard of an experiment reads: the layer and the pooling mode of the paper's main results."""

_MODELS: dict[tuple[str, str, str], Model] = {}
_LEAVING: list[Callable[[], object]] = []


def when_a_model_leaves(forget: Callable[[], object]) -> None:
    """Registers what is to be forgotten before another model takes the place of the last: it may hold it."""
    _LEAVING.append(forget)


def model_named(name: str, dtype: str = "auto", template_args: Mapping[str, Any] = MappingProxyType({})) -> Model:
    """A model of this process. On a GPU one at a time: the next one takes the place of the last."""
    threads = worlds.named(world).threads if (world := worlds.of_model(name)) else None
    if threads is not None:
        torch.set_num_threads(threads)
    key = (name, dtype, json.dumps(template_args, sort_keys=True, default=str) if template_args else "")
    if key not in _MODELS:
        if torch.cuda.is_available():
            _MODELS.clear()
            for forget in _LEAVING:
                forget()
            gc.collect()
            torch.cuda.empty_cache()
        more: Any = {"template_args": dict(template_args)} if template_args else {}
        _MODELS[key] = load(name, dtype=dtype, **more)
    return _MODELS[key]


def model_of(subject: Subject) -> Model:
    """A subject's model."""
    return model_named(subject.model, subject.dtype, subject.template_args)


def sampler_of(subject: Subject, model: Model, steps: int) -> Sampler:
    """A subject's sampler. If its steps are those of a whole answer, it takes T, unless its settings say more."""
    return build(subject.sampler, model, steps=steps, settings=subject.settings)


def length_of(config: Config, model: Model) -> int:
    """Places in a response: as configured, else as the model says."""
    return config.length or int(model.default_length(config.steps))


def run_prompts(
    config: Config,
    model: Model,
    sampler: Any,
    prompts: Sequence[Prompt],
    seed: int,
    attack: Attacked = Attacked(PLAIN),  # noqa: B008
    kept: Kept | None = None,
) -> list[Trace]:
    """Traces in the order of the prompts, which ``attack`` has made. Each prompt draws from a generator of its own,
    whatever its batch.

    ``kept``: where traces are kept as they come, for a run that is stopped. What is there for a whole batch is read
    again; the others are generated again in the same batch, so that they have the same bits.
    """
    watched = watching(model, (LAST,))
    length = length_of(config, model)
    spec = spec_of(watched, sampler, length, steps=config.steps, seed=seed)
    order = _by_length(prompts)

    def dice(prompt: Prompt) -> int:
        return zlib.crc32(f"{seed} {prompt.id}".encode())

    def run(members: Sequence[int]) -> list[Trace]:
        group = [prompts[i] for i in members]
        if kept is None:
            return generated(group)
        places = [kept.place(watched, spec, (LAST,), length, dice(prompt), prompt) for prompt in group]
        found = [kept.read(*one) for one in zip(places, group, strict=True)]
        if all(trace is not None for trace in found):
            return [trace for trace in found if trace is not None]
        made = generated(group)
        for one in zip(places, made, strict=True):
            kept.write(*one)
        return made

    def generated(group: Sequence[Prompt]) -> list[Trace]:
        canvas = canvas_under(attack, watched, group, length)
        recorder = Recorder(watched, canvas, group, spec, (LAST,), fields_named(*config.fields))
        rngs = [g for prompt in group for g in seeded(dice(prompt), 1)]
        for _ in recorder(steps_of(sampler, watched, canvas, rngs)):
            pass
        return recorder.traces()

    def sizes() -> dict[str, int]:
        width = canvas_under(attack, watched, [max(prompts, key=characters)], length).width
        return {"prompt": max(width - length, 0), "length": length, "steps": config.steps}

    def planned() -> int:
        return batch_that_fits(model, rows=len(order), **sizes())

    traces: dict[int, Trace] = {}
    for members, made in in_batches(model, order, config.batch, run, planned, lambda: what_fits(model, **sizes())):
        traces.update(zip(members, made, strict=True))
    return [traces[i] for i in range(len(prompts))]


def _by_length(prompts: Sequence[Prompt]) -> list[int]:
    return sorted(range(len(prompts)), key=lambda i: (len(prompts[i].text) + len(prompts[i].prefill), prompts[i].id))


def batches_of(prompts: Sequence[Prompt], batch: int) -> list[list[Prompt]]:
    """The batches in which :func:`run_prompts` answers prompts: each by itself has the same neighbours there, and so
    the same bits.
    """
    order = [prompts[i] for i in _by_length(prompts)]
    return [order[at : at + batch] for at in range(0, len(order), batch)]


PROBED = 26
"""Answers that a probe takes where the batch is ``auto``."""


@dataclass(frozen=True)
class Probe:
    """What one batch of ``n`` answers took: ``seconds`` an answer, ``alone`` of one by itself, and the most ``bytes``
    of memory, on a GPU since the model was loaded, else the process's so far.
    """

    seconds: float
    alone: float
    n: int
    bytes: int


def probe(config: Config, subject: Subject, threads: int = 0) -> Probe:
    """Lets a subject answer one batch of plain harmless requests, after a first one that nobody counts, on so many
    threads (0: as many as there are).
    """
    before = torch.get_num_threads()
    model = model_of(subject)
    sampler = sampler_of(subject, model, config.steps)
    prompts = prompts_of(config.prompts, "plain")[: PROBED if config.batch == "auto" else config.batch]

    def answer(some: Sequence[Prompt]) -> float:
        begun = time.perf_counter()
        run_prompts(config, model, sampler, some, 0)
        return time.perf_counter() - begun

    if threads:
        torch.set_num_threads(threads)
    try:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        answer(prompts[:1])
        whole, alone = answer(prompts), answer(prompts[:1])
    finally:
        torch.set_num_threads(before)
    if torch.cuda.is_available():
        most = torch.cuda.max_memory_allocated()
    else:
        import resource  # here: Windows has none

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Probe(whole / len(prompts), alone, len(prompts), most)
