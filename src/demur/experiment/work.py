"""Doing units: prompts -> attack -> filter -> watched sampler -> review -> judge -> rows."""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from demur.ablation.material import LAST
from demur.attacks import make
from demur.defenses import REFUSAL, Line, line
from demur.experiment.config import Config, Subject, content_of, substance
from demur.experiment.parts import (
    Outcome,
    attacked,
    digests_of,
    is_file,
    outcomes_by,
    prompts_of,
    ready_made,
    sampler_of,
)
from demur.experiment.searched import SEARCHED, kept_at, pair_of, search
from demur.experiment.units import Unit
from demur.guards import Guard, acted, fit_guard
from demur.organism.world import craft_of
from demur.samplers import seeded
from demur.signals import fit_anchors
from demur.traces import Key, Recorder, Trace, spec_of, watching
from demur.types import DemurError, Prompt

POOLS: tuple[Key, ...] = (LAST,)


_MODELS: dict[tuple[str, str, str], Any] = {}


def model_of(name: str, dtype: str, template_args: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """A model of this process. On a GPU one at a time: the next one takes the place of the last."""
    import torch

    from demur.models import load

    if name.startswith("organism"):
        torch.set_num_threads(1)  # too small for more, and bits shall not depend on the machine
    key = (name, dtype, json.dumps(template_args, sort_keys=True, default=str) if template_args else "")
    if key not in _MODELS:
        if torch.cuda.is_available():
            _MODELS.clear()
            _LINES.clear()  # a line of defenses may hold the model that it asks
            gc.collect()
            torch.cuda.empty_cache()
        more: Any = {"template_args": dict(template_args)} if template_args else {}
        _MODELS[key] = load(name, dtype=dtype, **more)
    return _MODELS[key]


def _model(subject: Subject) -> Any:
    return model_of(subject.model, subject.dtype, subject.template_args)


def length_of(config: Config, model: Any) -> int:
    """Places in a response: as configured, else T for causal models and 128 for diffusion."""
    return config.length or int(model.default_length(config.steps))


def run_prompts(config: Config, model: Any, sampler: Any, prompts: Sequence[Prompt], seed: int) -> list[Trace]:
    """Traces in the order of the prompts. Each prompt draws from a generator of its own, whatever its batch."""
    watched = watching(model, POOLS)
    length = length_of(config, model)
    spec = spec_of(watched, sampler, length, steps=config.steps, seed=seed)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i].text) + len(prompts[i].prefill), prompts[i].id))
    found: dict[int, Trace] = {}
    for begin in range(0, len(order), config.batch):
        members = order[begin : begin + config.batch]
        group = [prompts[i] for i in members]
        canvas = _canvas(watched, group, length)
        recorder = Recorder(watched, canvas, group, spec, POOLS)
        rngs = [g for prompt in group for g in seeded(zlib.crc32(f"{seed} {prompt.id}".encode()), 1)]
        for _ in recorder(sampler(watched, canvas, rngs)):
            pass
        found.update(zip(members, recorder.traces(), strict=True))
    return [found[i] for i in range(len(prompts))]


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
    import torch

    before = torch.get_num_threads()
    model = _model(subject)
    sampler = sampler_of(subject, model, config.steps)
    prompts = prompts_of(config.prompts, "plain")[: config.batch]

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
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Probe(whole / len(prompts), alone, len(prompts), most)


def _canvas(model: Any, prompts: Sequence[Prompt], length: int) -> Any:
    """Open places behind the prompt or, where an attack prefills masks, these."""
    if model.mask_id is None or prompts[0].attack not in ("infill", "parallel"):
        return model.canvas(prompts, length)
    if prompts[0].source.startswith("organism"):
        from demur.organism.measuring.cells import infill_canvas

        return infill_canvas(model, prompts)
    from demur.attacks import canvas_for

    return canvas_for(model, prompts, length)


# ---------------------------------------------------------------------------------------------------------------------
# What a subject needs before its first unit


def prepared_path(folder: Path, config: Config, subject: Subject) -> Path:
    """Where a subject's guard is kept: named by everything that it depends on but the model's weights."""
    of = config.prompts
    content = repr((content_of(subject), content_of(of), digests_of(of)))
    content += repr((config.length, config.steps, config.batch, config.alpha))
    if config.prompts.shapes:
        content += repr([attack for attack in config.attacks if attack.name.startswith("organism/")])
    return folder / "prepared" / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.safetensors"


def prepare(folder: Path, config: Config, subject: Subject) -> Path:
    """Fits anchors and guard of a subject, if they are not there yet. Raises if the model refuses too little for
    anchors, and if the guard there was fitted on other weights: rows of two models must not meet in one run.
    """
    path = prepared_path(folder, config, subject)
    model = _model(subject)
    sampler = sampler_of(subject, model, config.steps)
    of = config.prompts
    if path.is_file():
        found = None
        with suppress(DemurError):  # broken: fitted again
            found = Guard.load(path)
        if found is not None:
            spec = spec_of(model, sampler, length_of(config, model), steps=config.steps).at(*LAST)
            if different := found.spec.differences(spec):
                raise DemurError(
                    f"{subject.name} is not what it was when this run began ({'; '.join(different)})",
                    "the same weights, tokenizer and template throughout a run",
                    "name another --out, or bring the old ones back",
                )
            return path
        path.unlink()

    def run(role: str) -> list[Trace]:
        return run_prompts(config, model, sampler, prompts_of(of, role), 0)

    anchors = fit_anchors(run("anchors/harmless"), run("anchors/harmful"), at_least=5)
    fit, calibrate = run("fit"), run("calibrate")
    for attack in config.attacks:
        fits = model.mask_id is not None or "infill" not in attack.name
        if of.shapes and fits and attack.name.startswith("organism/"):
            for role, known in (("fit", fit), ("calibrate", calibrate)):
                shaped = attacked(attack, prompts_of(replace(of, fit=of.shapes, calibrate=of.shapes), role), model)
                known.extend(run_prompts(config, model, sampler, shaped, 0))
    fit_guard(anchors, fit, calibrate, alpha=config.alpha).save(path)
    return path


@cache
def _guard(path: Path) -> Guard:
    return Guard.load(path)


# ---------------------------------------------------------------------------------------------------------------------
# A unit


SHOWN = 2
"""So many generations of a unit keep their steps, for the step viewer of the report: of undefended ones, and of those
behind a defense that acts while an answer is written."""


Rows = list[dict[str, Any]]


def work(folder: Path, config: Config, units: Sequence[Unit]) -> list[tuple[str, Rows, list[Trace]]]:
    """Of each unit its key, its rows, one for each prompt, and the traces (without states) of its first generations
    (:data:`SHOWN`).

    The units are a bundle of :func:`demur.experiment.units.bundles_of`. Passive defenses get the same answers,
    generated once and for every prompt, so that a unit's rows do not depend on what is done with it; ``seconds`` of a
    row are those that its own defense and, unless a filter stopped the prompt, its generation took.
    """
    first = units[0]
    model = _model(first.subject)
    guard = _guard(prepared_path(folder, config, first.subject))
    asked = asked_of(folder, config, first)
    lines = [_line(config, unit, model, guard) for unit in units]
    filtered = [_timed(defense.filtered, asked) for defense in lines]
    stopped, _ = filtered[0]
    wanted = [i for i in range(len(asked)) if first.passive or stopped[i] is None]
    sampler = lines[0].sampler(sampler_of(first.subject, model, config.steps))
    made, each = _timed(
        lambda prompts: run_prompts(config, model, sampler, prompts, first.seed) if prompts else [],
        [asked[i] for i in wanted],
    )
    traces = dict(zip(wanted, made, strict=True))
    outcomes = outcomes_by(config)
    paths = {i: outcomes(trace) for i, trace in traces.items()}
    found = []
    for unit, defense, (stopped, looking) in zip(units, lines, filtered, strict=True):
        passed = [i for i, verdict in enumerate(stopped) if verdict is None]
        reviews, reading = _timed(defense.reviewed, [traces[i] for i in passed])
        review = dict(zip(passed, reviews, strict=True))
        rows = []
        for i, (prompt, verdict) in enumerate(zip(asked, stopped, strict=True)):
            if verdict is None:
                row = _row(unit, prompt, traces[i], paths[i], guard, review[i])
                if config.intermediate and unit.role == "harmful" and unit.defense.name == "none":
                    at = steps_on_the_way(traces[i].steps, config.intermediate)
                    row |= {"texts": [traces[i].answer(t) for t in at], "texts_at": at}
                rows.append(row | {"seconds": looking + each + reading})
            else:
                rows.append(_blocked(unit, prompt, verdict.by, verdict.score) | {"seconds": looking})
        kept = unit.defense.name == "none" or not unit.passive
        shown = [replace(traces[i], phi={}) for i in passed[:SHOWN]] if kept else []
        found.append((unit.key, rows, shown))
    return found


def _searched(config: Config, unit: Unit) -> dict[str, Any]:
    """All that what a search finds for a prompt depends on, beside the prompt and the weights."""
    attack, subject = unit.attack, unit.subject
    content: dict[str, Any] = {"attack": attack.label, "settings": substance(attack.settings), "model": subject.model}
    content["dtype"] = subject.dtype
    if attack.name == "pair":  # it reads answers, which are a sampler's; the other one reads logits
        content |= {"subject": content_of(subject), "length": config.length, "steps": config.steps}
    return content


def search_files(folder: Path, config: Config, units: Sequence[Unit]) -> list[Path]:
    """Where the searches of these units are kept."""
    found: dict[Path, None] = {}
    for unit in units:
        if unit.attack.name in SEARCHED:
            prompts = prompts_of(config.prompts, unit.role)[unit.begin : unit.end]
            found |= dict.fromkeys(kept_at(folder, _searched(config, unit), prompt) for prompt in prompts)
    return list(found)


def asked_of(folder: Path, config: Config, unit: Unit) -> list[Prompt]:
    """The prompts of a unit as its attack makes them; a search is made against the subject itself, undefended."""
    plain, attack, subject = prompts_of(config.prompts, unit.role), unit.attack, unit.subject
    if is_file(attack.name):
        return ready_made(attack, plain)[unit.begin : unit.end]
    prompts = plain[unit.begin : unit.end]
    if attack.name not in SEARCHED:
        return attacked(attack, prompts, _model(subject))

    def made() -> Any:
        model = _model(subject)
        if attack.name == "random-search":
            return make(attack.name, model=model, **attack.settings)
        sampler = sampler_of(subject, model, config.steps)

        def target(prompt: Prompt) -> str:
            try:
                _canvas(model, [prompt], length_of(config, model))
            except DemurError:  # such as a message longer than its context: it answers nothing
                return ""
            return run_prompts(config, model, sampler, [prompt], 0)[0].answer()

        return pair_of(attack.settings, target)

    return search(folder, _searched(config, unit), prompts, made)


def _timed(call: Callable[[list[Any]], list[Any]], items: list[Any]) -> tuple[list[Any], float]:
    """What the call gives, and the seconds that it took for each item."""
    begun = time.perf_counter()
    found = call(items)
    return found, (time.perf_counter() - begun) / max(len(items), 1)


_LINES: dict[str, Line] = {}
"""Lines of defenses of this process: a perplexity's limit takes a pass for every prompt that it is calibrated on."""


def _line(config: Config, unit: Unit, model: Any, guard: Guard) -> Line:
    if unit.defense.name == "none":
        return Line()
    key = repr((unit.defense, unit.subject, config.prompts, config.alpha, id(guard)))
    if key not in _LINES:
        _LINES[key] = _made(config, unit, model, guard)
    return _LINES[key]


def _made(config: Config, unit: Unit, model: Any, guard: Guard) -> Line:
    settings = dict(unit.defense.settings)
    parts, calibrate = unit.defense.name.split("+"), []
    if "self-examine" in parts and unit.subject.model.startswith("organism") and "question" not in settings:
        settings |= {"question": 'Judge this request: "{prompt}"', "yes": "forbidden", "no": "allowed"}
    if "perplexity" in parts:
        calibrate = prompts_of(config.prompts, "calibrate")
    return line(unit.defense.name, guard, model, calibrate, **({"alpha": config.alpha} | settings))


def _row(unit: Unit, prompt: Prompt, trace: Trace, path: list[Outcome], guard: Guard, review: Any) -> dict[str, Any]:
    watched = acted(trace)
    sigma = guard.anchors.signal(trace)
    seen = bool(np.isfinite(sigma).all())  # else the guard stops it, and there is no signal to score or to draw
    final, text, step, by = path[-1], trace.text(), watched.step, "sri-guard" if watched.flagged else ""
    answer = text if by else trace.answer()
    if review is not None:  # a finished answer that is not shown: a refusal stands in its place
        final, text, answer, step, by = "refusal", REFUSAL, REFUSAL, trace.steps, review.by
    return _common(unit, prompt) | {
        "text": text,
        "answer": answer,
        "outcome": final,
        "path": path,
        "sigma": [round(float(value), 6) for value in sigma] if seen else None,
        "score": float(guard.scores(sigma[None])[0]) if seen else None,
        "flagged_by": by,
        "flagged_step": step,
        "steps": trace.steps,
        "passes": trace.passes,
    }


def steps_on_the_way(steps: int, n: int) -> list[int]:
    """Up to ``n`` of a generation's steps before the last one, spread evenly, counted from 1."""
    spread = np.unique(np.linspace(0, steps, n + 2)[1:-1].round().astype(int))
    return [int(t) for t in spread if 0 < t < steps]


def _blocked(unit: Unit, prompt: Prompt, by: str, score: float | None) -> dict[str, Any]:
    """A prompt that a filter stopped: nothing was generated."""
    return _common(unit, prompt) | {
        "text": REFUSAL, "answer": REFUSAL, "outcome": "refusal", "path": ["refusal"], "sigma": None, "score": score,
        "flagged_by": by,
        "flagged_step": 0, "steps": 0, "passes": 0,
    }  # fmt: skip


def _common(unit: Unit, prompt: Prompt) -> dict[str, Any]:
    """What is known before anything is generated. ``parent`` is the request behind an attacked prompt; ``group`` what
    several of them may have in common: the organism's requests have many wordings of one craft.
    """
    return {
        "unit": unit.key,
        "model": unit.subject.model,
        "sampler": unit.subject.label,
        "attack": unit.attack.label,
        "defense": unit.defense.label,
        "role": unit.role,
        "seed": unit.seed,
        "id": prompt.id,
        "parent": prompt.parent or prompt.id,
        "group": prompt.category if craft_of(prompt) else prompt.parent or prompt.id,
        "prompt": prompt.text,
        "prefill": prompt.prefill,
    }
