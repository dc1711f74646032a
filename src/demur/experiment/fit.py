"""What a subject needs before its first unit: anchors and a guard, fitted on prompts of their own."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from demur.experiment.answers import LAST, length_of, model_of, run_prompts, sampler_of
from demur.experiment.attacking import attacked, needs_of
from demur.experiment.code import code_of
from demur.experiment.config import PLAIN, Attacked, Config, Prompts, Subject, content_of
from demur.experiment.fitting import length_in_keys, misfit
from demur.experiment.requests import digests_of, prompts_of
from demur.guards import Guard, fit_guard
from demur.registry import is_path
from demur.signals import Anchors, fit_anchors
from demur.traces import Kept, Trace, spec_of
from demur.types import DemurError
from demur.worlds import Role

ANCHORS: tuple[Role, ...] = ("anchors/harmless", "anchors/harmful")
GUARDS: tuple[Role, ...] = ("fit", "calibrate")


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


def prepare(folder: Path, config: Config, subject: Subject) -> str:
    """Fits anchors and, if the run has one, the guard of a subject, if they are not there yet. Raises if the model
    refuses too little for anchors, and if what is there was fitted on other weights: rows of two models must not meet
    in one run.

    What is answered is kept until then: stopped in whatever way, the same run goes on from there, with the same bits.
    Returns why some of it could not be kept, such as a full disk; nothing where all was.
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
            shutil.rmtree(unfinished(path), ignore_errors=True)  # of a run that was stopped when it had just saved it
            return ""
        path.unlink()

    stores: list[Kept] = []

    def keeping(attack: Attacked) -> Kept:
        stores.append(kept_of(path, attack))
        return stores[-1]

    def run(role: Role) -> list[Trace]:
        return run_prompts(config, model, sampler, prompts_of(of, role), 0, kept=keeping(Attacked(PLAIN)))

    anchors = fit_anchors(run("anchors/harmless"), run("anchors/harmful"), signal=config.signal, at_least=5)
    made: Anchors | Guard = anchors
    if config.guarded:
        learnt: dict[Role, list[Trace]] = {role: run(role) for role in GUARDS}
        for attack in config.in_own_words:
            if of.shapes and needs_of(attack) <= model.offers:
                for role, traces in learnt.items():
                    shaped = attacked(attack, prompts_of(_shaped(config), role), model)
                    traces.extend(run_prompts(config, model, sampler, shaped, 0, attack, keeping(attack)))
        made = fit_guard(anchors, learnt["fit"], learnt["calibrate"], alpha=config.alpha, detector=config.detector)
    made.save(path)
    shutil.rmtree(unfinished(path), ignore_errors=True)
    return next((kept.full for kept in stores if kept.full), "")


def unfinished(path: Path) -> Path:
    """Where the answers lie that a subject's anchors and guard are made of, until they are."""
    return path.with_suffix(".unfinished")


def kept_of(path: Path, attack: Attacked) -> Kept:
    """Those to prompts that one attack has made: prompts of two can be equal, and their canvases not."""
    return Kept(unfinished(path) / hashlib.sha256(repr(content_of(attack)).encode()).hexdigest()[:16])


def answers_wanted(config: Config, subject: Subject) -> int:
    """How many answers a subject's anchors and guard take; if it is not known what the model offers, at most."""
    roles = (*ANCHORS, *GUARDS) if config.guarded else ANCHORS
    wanted = sum(len(prompts_of(config.prompts, role)) for role in roles)
    shapes = sum(not misfit(subject, attack) for attack in config.in_own_words) if config.guarded else 0
    return wanted + shapes * sum(len(prompts_of(_shaped(config), role)) for role in GUARDS if config.prompts.shapes)


def answers_there(folder: Path, config: Config, subject: Subject) -> int:
    """How many of them there are by now; all, once they are made into anchors and a guard."""
    path = prepared_path(folder, config, subject)
    if path.is_file():
        return answers_wanted(config, subject)
    here = os.walk(unfinished(path))  # which takes no notice of folders that go meanwhile
    return sum(file.endswith(".safetensors") for _, _, files in here for file in files)


def _shaped(config: Config) -> Prompts:
    """The prompts of which attacks in a world's words make harmless ones of their shape."""
    return replace(config.prompts, fit=config.prompts.shapes, calibrate=config.prompts.shapes)


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
