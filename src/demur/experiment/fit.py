"""What a subject needs before its first unit: anchors and a guard, fitted on prompts of their own."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Literal

from demur.experiment.answers import LAST, batches_of, length_of, model_of, run_prompts, sampler_of
from demur.experiment.attacking import attacked, needs_of
from demur.experiment.code import code_of
from demur.experiment.config import PLAIN, Attacked, Config, Prompts, Subject, content_of
from demur.experiment.fitting import length_in_keys, misfit
from demur.experiment.requests import digests_of, prompts_of
from demur.guards import Guard, fit_guard
from demur.registry import is_path
from demur.signals import Anchors, fit_anchors
from demur.traces import Kept, Trace, spec_of
from demur.types import DemurError, DemurWarning, Prompt
from demur.workers import Job
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

    asked = _Asked(path, config, subject)
    anchors = asked.anchors()
    made: Anchors | Guard = anchors
    if config.guarded:
        learnt = {role: [t for some in sets for t in asked.answers(some)] for role, sets in asked.to_learn().items()}
        made = fit_guard(anchors, learnt["fit"], learnt["calibrate"], alpha=config.alpha, detector=config.detector)
    made.save(path)
    shutil.rmtree(unfinished(path), ignore_errors=True)
    return asked.full


def share(folder: Path, config: Config, subject: Subject, part: Part, k: int, of: int) -> str:
    """Answers every ``of``-th batch, from the ``k``-th on, of what a subject's anchors or its guard are made of, and
    keeps that for :func:`prepare`: so many workers answer for one subject. Returns what :func:`prepare` does.

    The guard's begin with the anchors: a model that refuses too little is found out before more is answered. Where
    nothing can be kept any more, the rest is left to :func:`prepare`.
    """
    path = prepared_path(folder, config, subject)
    if path.is_file():
        return ""
    asked = _Asked(path, config, subject)
    if part == "guard":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DemurWarning)  # prepare says it, once
            asked.anchors()
    sets = [asked.of(role) for role in ANCHORS] if part == "anchors" else chain(*asked.to_learn().values())
    size = _shared_batch(config)
    batches = [(attack, batch) for attack, prompts in sets for batch in batches_of(prompts, size)]
    for one in batches[k::of]:
        if asked.full:
            break
        asked.answers(one)
    return asked.full


def preparing(folder: Path, config: Config, subjects: Sequence[Subject], workers: int) -> list[list[Job]]:
    """What makes anchors and guards, one list after the other. Where there are more workers than subjects, they first
    share what each is asked.
    """
    shared: list[list[Job]] = []
    for part in ("anchors", "guard") if config.guarded else ("anchors",):
        shared.append([])
        for subject in subjects:
            size = _shared_batch(config)
            each = min(workers // len(subjects), -(-answers_wanted(config, subject) // size) if size else 1)
            if each > 1:
                shared[-1] += [(share, folder, config, subject, part, k, each) for k in range(each)]
    return [*(jobs for jobs in shared if jobs), [(prepare, folder, config, subject) for subject in subjects]]


def _shared_batch(config: Config) -> int:
    """How many answers a batch has that workers share; 0 for ``auto``, which is known only once it has been tried."""
    return config.batch if isinstance(config.batch, int) else 0


Part = Literal["anchors", "guard"]
"""What answers are for."""
Asking = tuple[Attacked, Sequence[Prompt]]
"""Prompts, and the attack that has made them."""


class _Asked:
    """A subject that is asked for its anchors and its guard. What it answers is kept."""

    def __init__(self, path: Path, config: Config, subject: Subject) -> None:
        self.path, self.config = path, config
        self.model = model_of(subject)
        self.sampler = sampler_of(subject, self.model, config.steps)
        self.stores: list[Kept] = []

    def of(self, role: Role) -> Asking:
        """The prompts of a part, as they are."""
        return Attacked(PLAIN), prompts_of(self.config.prompts, role)

    def to_learn(self) -> dict[Role, list[Asking]]:
        """What a guard learns from, by role: prompts as they are, and under attacks in a world's words."""
        sets: dict[Role, list[Asking]] = {role: [self.of(role)] for role in GUARDS}
        for attack in self.config.in_own_words:
            if self.config.prompts.shapes and needs_of(attack) <= self.model.offers:
                for role, some in sets.items():
                    some.append((attack, attacked(attack, prompts_of(_shaped(self.config), role), self.model)))
        return sets

    def answers(self, asking: Asking) -> list[Trace]:
        """The answers, in the order of the prompts."""
        attack, prompts = asking
        self.stores.append(kept_of(self.path, attack))
        return run_prompts(self.config, self.model, self.sampler, prompts, 0, attack, self.stores[-1])

    def anchors(self) -> Anchors:
        """Raises if the model refuses too little."""
        harmless, harmful = (self.answers(self.of(role)) for role in ANCHORS)
        return fit_anchors(harmless, harmful, signal=self.config.signal, at_least=5)

    @property
    def full(self) -> str:
        """Why some of it could not be kept, such as a full disk; nothing where all was."""
        return next((kept.full for kept in self.stores if kept.full), "")


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
