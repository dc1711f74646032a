"""Doing units: prompts -> attack -> filter -> watched sampler -> review -> judge -> records."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from demur import worlds
from demur.defenses import REFUSAL, Line, is_calibrated, line
from demur.experiment.answers import model_of, run_prompts, sampler_of, when_a_model_leaves
from demur.experiment.config import Config
from demur.experiment.fit import prepared_at, prepared_path
from demur.experiment.outcomes import Outcome, outcomes_by
from demur.experiment.record import Record
from demur.experiment.requests import prompts_of, world_of
from demur.experiment.searched import asked_of
from demur.experiment.units import Unit
from demur.guards import Guard, acted
from demur.refusals import is_refusal
from demur.signals import Anchors
from demur.traces import Trace
from demur.types import Model, Prompt, Verdict

SHOWN = 2
"""So many generations of a unit keep their steps, for the step viewer of the report: of undefended ones, and of those
behind a defense that acts while an answer is written."""


@dataclass(frozen=True)
class Done:
    """What came of a unit: its records, one for each prompt, and the traces (without states) of its first generations
    (:data:`SHOWN`).
    """

    unit: Unit
    records: list[Record]
    shown: list[Trace]


def work(folder: Path, config: Config, units: Sequence[Unit]) -> list[Done]:
    """What came of each unit.

    The units are a bundle of :func:`demur.experiment.units.bundles_of`. Passive defenses get the same answers,
    generated once and for every prompt, so that a unit's records do not depend on what is done with it; ``seconds`` of
    a record are those that its own defense and, unless a filter stopped the prompt, its generation took.
    """
    first = units[0]
    model = model_of(first.subject)
    kept = prepared_at(prepared_path(folder, config, first.subject), config.guarded, config.detector)
    guard, anchors = (kept, kept.anchors) if isinstance(kept, Guard) else (None, kept)
    asked = asked_of(folder, config, first)
    lines = [_line(config, unit, model, guard) for unit in units]
    filtered = [_timed(defense.filtered, asked) for defense in lines]
    stopped, _ = filtered[0]
    wanted = [i for i in range(len(asked)) if first.passive or stopped[i] is None]
    sampler = lines[0].sampler(sampler_of(first.subject, model, config.steps))
    made, each = _timed(
        lambda prompts: run_prompts(config, model, sampler, prompts, first.seed, first.attack) if prompts else [],
        [asked[i] for i in wanted],
    )
    traces = dict(zip(wanted, made, strict=True))
    outcomes = outcomes_by(config)
    paths = {i: outcomes(trace) for i, trace in traces.items()}
    group = world_of(config.prompts).group
    done = []
    for unit, defense, (stopped, looking) in zip(units, lines, filtered, strict=True):
        passed = [i for i, verdict in enumerate(stopped) if verdict is None]
        # What was stopped while it was written is a refusal by now: a review of it would say who stopped it wrongly.
        read = [i for i in passed if not acted(traces[i]).flagged]
        reviews, reading = _timed(defense.reviewed, [traces[i] for i in read])
        review = dict(zip(read, reviews, strict=True))
        records = []
        for i, (prompt, verdict) in enumerate(zip(asked, stopped, strict=True)):
            known = _known(unit, prompt, group(prompt))
            if verdict is not None:
                records.append(_blocked(known, verdict, looking))
                continue
            seconds = looking + each + (reading if i in review else 0.0)
            record = _recorded(known, traces[i], paths[i], anchors, guard, review.get(i), seconds, defense.stops_by)
            if config.fields:
                record = replace(record, fields=_of_fields(traces[i]))
            if config.intermediate and unit.role == "harmful" and unit.defense.none:
                at = steps_on_the_way(traces[i].steps, config.intermediate)
                record = replace(record, texts=tuple(traces[i].answer(t) for t in at), texts_at=tuple(at))
            records.append(record)
        seen = unit.defense.none or not unit.passive
        shown = [replace(traces[i], phi={}) for i in passed[:SHOWN]] if seen else []
        done.append(Done(unit, records, shown))
    return done


def _of_fields(trace: Trace) -> str:
    """A trace's own fields as JSON, null where a value is not finite."""
    values = {name: [value if isfinite(value) else None for value in of.tolist()] for name, of in trace.fields.items()}
    return json.dumps(values)


def _timed(call: Callable[[list[Any]], list[Any]], items: list[Any]) -> tuple[list[Any], float]:
    """What the call gives, and the seconds that it took for each item."""
    begun = time.perf_counter()
    found = call(items)
    return found, (time.perf_counter() - begun) / max(len(items), 1)


_LINES: dict[str, Line] = {}
"""Lines of defenses of this process: a perplexity's limit takes a pass for every prompt that it is calibrated on."""
when_a_model_leaves(_LINES.clear)  # a line may hold the model that it asks


def _line(config: Config, unit: Unit, model: Model, guard: Guard | None) -> Line:
    if unit.defense.none:
        return Line()
    key = repr((unit.defense, unit.subject, config.prompts, config.alpha, id(guard)))
    if key not in _LINES:
        _LINES[key] = _made(config, unit, model, guard)
    return _LINES[key]


def _made(config: Config, unit: Unit, model: Model, guard: Guard | None) -> Line:
    name, settings = unit.defense.name, dict(unit.defense.settings)
    if world := worlds.of_model(unit.subject.model):
        for part, own in worlds.named(world).settings.items():
            if part in name.split("+") and next(iter(own)) not in settings:
                settings |= own
    calibrate = prompts_of(config.prompts, "calibrate") if is_calibrated(name) else []
    return line(name, guard, model, calibrate, **({"alpha": config.alpha} | settings))


def _known(unit: Unit, prompt: Prompt, group: str) -> dict[str, Any]:
    """What is known before anything is generated. ``group``: what the world says that prompts have in common."""
    parent = prompt.parent or prompt.id
    return {
        "unit": unit.key,
        "model": unit.subject.model,
        "sampler": unit.subject.label,
        "attack": unit.attack.label,
        "defense": unit.defense.label,
        "role": unit.role,
        "seed": unit.seed,
        "id": prompt.id,
        "parent": parent,
        "group": group or parent,
        "prompt": prompt.text,
        "prefill": prompt.prefill,
    }


def _recorded(
    known: Mapping[str, Any],
    trace: Trace,
    path: Sequence[Outcome],
    anchors: Anchors,
    guard: Guard | None,
    review: Verdict | None,
    seconds: float,
    stops_by: str = "",
) -> Record:
    """A generation. ``review`` is the verdict that stopped its answer, None if it is shown; ``stops_by`` names who may
    have stopped it before.
    """
    watched = acted(trace)
    sigma = anchors.signal(trace)
    seen = bool(np.isfinite(sigma).all())  # else the guard stops it, and there is no signal to score or to draw
    final, text, step, by = path[-1], trace.text(), watched.step, (stops_by or watched.by) if watched.flagged else ""
    answer = text if by else trace.answer()
    if by and is_refusal(
        text
    ):  # what was put in the answer's place is what it is, whatever a judge says of a beginning
        final = "refusal"
    if review is not None:  # a finished answer that is not shown: a refusal stands in its place
        step = (
            trace.steps if review.step is None else review.step
        )  # where it would have stopped it while it was written
        final, text, answer, by = "refusal", REFUSAL, REFUSAL, review.by
    return Record(
        **known,
        text=text,
        answer=answer,
        outcome=final,
        path=tuple(path) if review is not None else (*path[:-1], final),
        sigma=tuple(round(float(value), 6) for value in sigma) if seen else None,
        score=float(guard.scores(sigma[None])[0]) if seen and guard is not None else None,
        flagged_by=by,
        flagged_step=step,
        steps=trace.steps,
        passes=trace.passes,
        seconds=seconds,
    )


def _blocked(known: Mapping[str, Any], verdict: Verdict, seconds: float) -> Record:
    """A prompt that a filter stopped: nothing was generated."""
    return Record(
        **known, text=REFUSAL, answer=REFUSAL, outcome="refusal", path=("refusal",), score=verdict.score,
        flagged_by=verdict.by, flagged_step=0, seconds=seconds,
    )  # fmt: skip


def steps_on_the_way(steps: int, n: int) -> list[int]:
    """Up to ``n`` of a generation's steps before the last one, spread evenly, counted from 1."""
    spread = np.unique(np.linspace(0, steps, n + 2)[1:-1].round().astype(int))
    return [int(t) for t in spread if 0 < t < steps]
