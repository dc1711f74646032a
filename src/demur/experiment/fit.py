"""What a subject needs before its first unit: anchors and a guard, fitted on prompts of their own."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from demur.experiment.answers import LAST, length_of, model_of, run_prompts, sampler_of
from demur.experiment.attacking import attacked, needs_of
from demur.experiment.code import code_of
from demur.experiment.config import Config, Subject, content_of
from demur.experiment.fitting import length_in_keys
from demur.experiment.requests import digests_of, prompts_of
from demur.guards import Guard, fit_guard
from demur.registry import is_path
from demur.signals import Anchors, fit_anchors
from demur.traces import Trace, spec_of
from demur.types import DemurError
from demur.worlds import Role


def prepared_path(folder: Path, config: Config, subject: Subject) -> Path:
    """Where a subject's guard is kept: named by everything that it depends on but the model's weights."""
    of = config.prompts
    content = repr((content_of(subject), content_of(of), digests_of(of)))
    content += repr((length_in_keys(config, subject), config.steps, config.batch, config.alpha))
    if of.shapes:
        content += repr([*config.in_own_words])
    if config.detector != Config.detector:
        content += config.detector
    if config.signal != Config.signal:
        content += f"signal {config.signal}"
    if code := code_of((content_of(subject), content_of(of), config.detector)):
        content += f"code {code}"
    return folder / "prepared" / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.safetensors"


def prepare(folder: Path, config: Config, subject: Subject) -> Path:
    """Fits anchors and, if the run has one, the guard of a subject, if they are not there yet. Raises if the model
    refuses too little for anchors, and if what is there was fitted on other weights: rows of two models must not meet
    in one run.
    """
    path = prepared_path(folder, config, subject)
    model = model_of(subject)
    sampler = sampler_of(subject, model, config.steps)
    of = config.prompts
    if path.is_file():
        kept = None
        with suppress(DemurError):  # broken: fitted again
            kept = prepared_of(path, config)
        if kept is not None:
            spec = spec_of(model, sampler, length_of(config, model), steps=config.steps).at(*LAST, kept.spec.signal)
            if different := kept.spec.differences(spec):
                raise DemurError(
                    f"{subject.name} is not what it was when this run began ({'; '.join(different)})",
                    "the same weights, tokenizer and template throughout a run",
                    "name another --out, or bring the old ones back",
                )
            return path
        path.unlink()

    def run(role: Role) -> list[Trace]:
        return run_prompts(config, model, sampler, prompts_of(of, role), 0)

    anchors = fit_anchors(run("anchors/harmless"), run("anchors/harmful"), signal=config.signal, at_least=5)
    if not config.guarded:
        anchors.save(path)
        return path
    learnt: dict[Role, list[Trace]] = {"fit": run("fit"), "calibrate": run("calibrate")}
    for attack in config.in_own_words:
        if of.shapes and needs_of(attack) <= model.offers:
            for role, traces in learnt.items():
                shaped = attacked(attack, prompts_of(replace(of, fit=of.shapes, calibrate=of.shapes), role), model)
                traces.extend(run_prompts(config, model, sampler, shaped, 0, attack))
    fit_guard(anchors, learnt["fit"], learnt["calibrate"], alpha=config.alpha, detector=config.detector).save(path)
    return path


@cache
def prepared_at(path: Path, guarded: bool, detector: str) -> Guard | Anchors:
    """The guard of this process, or the anchors of a run without one. A guard's file can not say where a detector's
    code is: the recipe does.
    """
    if not guarded:
        return Anchors.load(path)
    return Guard.load(path, detector=detector if is_path(detector) else None)


def prepared_of(path: Path, config: Config) -> Guard | Anchors:
    """The same, read anew."""
    return prepared_at.__wrapped__(path, config.guarded, config.detector)
