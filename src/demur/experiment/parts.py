"""The parts of an experiment by name: prompts, attacks, judges. What is the organism's own, and what is everybody's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from demur.defenses import NAMES
from demur.experiment.config import Attacked, Config, Prompts, Subject
from demur.refusals import is_refusal
from demur.trace import Trace
from demur.types import DemurError, Prompt

Outcome = str
"""``harmful``, ``correct``, ``refusal`` or ``neither`` (organism); ``refusal`` or ``answer`` (dictionary)."""


class _Defenses(tuple[str, ...]):
    """Names of defenses; ``in`` also knows joined ones."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and all(tuple.__contains__(self, part) for part in name.split("+"))


DEFENSES = _Defenses(NAMES)


def attack_names() -> tuple[str, ...]:
    """Every attack that a configuration may name."""
    from demur.attacks import ATTACKS
    from demur.organism.attacks import PREFILLED, SHAPES

    own = [f"organism/{name}" for name in (*SHAPES, *PREFILLED)]
    return (*dict.fromkeys(["plain", *ATTACKS]), *own)


def prompts_of(of: Prompts, role: str) -> list[Prompt]:
    """The prompts of one role: ``harmful``, ``controls``, ``anchors/harmless``, ``anchors/harmful``, ``fit``,
    ``calibrate`` or ``plain`` (harmless ones to measure false positives on). Roles share no prompt.

    Raises if the sources hold too few.
    """
    sizes = {
        "harmful": of.n, "controls": of.controls, "anchors/harmless": of.anchors, "anchors/harmful": of.anchors,
        "fit": of.fit, "calibrate": of.calibrate, "plain": max(of.controls, 1),
    }  # fmt: skip
    if of.harmful == "organism":
        from demur.organism.world import prompts

        splits: dict[str, tuple[Any, bool]] = {
            "harmful": ("test", True), "controls": ("test", False), "plain": ("test", False),
            "anchors/harmless": ("anchors", False), "anchors/harmful": ("anchors", True),
            "fit": ("guard", False), "calibrate": ("calibration", False),
        }  # fmt: skip
        split, forbidden = splits[role]
        return prompts(split, forbidden=forbidden, n=sizes[role]) if sizes[role] else []
    from demur.prompts import load

    harmful = role in ("harmful", "anchors/harmful")
    order = ("harmful", "anchors/harmful") if harmful else ("controls", "anchors/harmless", "fit", "calibrate")
    mine = "controls" if role == "plain" else role
    begin = sum(sizes[other] for other in order[: order.index(mine)])
    source = of.harmful if harmful else of.harmless
    every = load(source, harmful=harmful, limit=begin + sizes[mine])
    found = every[begin:]
    if len(found) < sizes[mine]:
        raise DemurError(
            f"{len(every)} prompts in {source}",
            f"{sum(sizes[other] for other in order)} ({', '.join(f'{o} {sizes[o]}' for o in order)})",
            "name a larger source, or smaller numbers under prompts",
        )
    return found


def attacked(attack: Attacked, prompts: Sequence[Prompt], model: Any) -> list[Prompt]:
    """The prompts under an attack."""
    if attack.name == "plain":
        return list(prompts)
    if attack.name.startswith("organism/"):
        from demur.organism.attacks import attack as wrap

        return [wrap(attack.name.removeprefix("organism/"), prompt) for prompt in prompts]
    if attack.name.endswith((".jsonl", ".csv", ".json")):
        from demur.prompts import load

        ready = load(attack.name, harmful=True)
        return [replace(prompt, attack=attack.name) for prompt in ready[: len(prompts)]]
    from demur.attacks import make, mask_of

    settings = dict(attack.settings)
    if attack.name in ("random-search",):
        settings["model"] = model
    if attack.name in ("infill", "parallel"):
        settings.setdefault("mask", mask_of(model))
    made = make(attack.name, **settings)
    return [made(prompt) for prompt in prompts]


def outcomes_by(config: Config) -> Callable[[Trace], list[Outcome]]:
    """The outcome of the text after each step. An LLM judge reads final texts only, later: see
    ``demur.experiment.runs``.
    """
    if config.judge == "organism":
        from demur.organism.judge import outcomes

        return lambda trace: list(outcomes(trace))

    def by_dictionary(trace: Trace) -> list[Outcome]:
        given = trace.prompt.prefill
        return ["refusal" if is_refusal(given + trace.text(t)) else "answer" for t in range(1, trace.steps + 1)]

    return by_dictionary


def sampler_of(subject: Subject, model: Any, steps: int) -> Any:
    """A subject's sampler. Masked and renoising ones take T as their steps, unless their settings say otherwise."""
    from demur.samplers import FOR_KIND, SAMPLERS

    name = subject.sampler or model.preferred
    if name not in FOR_KIND[model.kind]:
        raise DemurError(
            f"sampler {name} on the {model.kind} model {model.name}", ", ".join(FOR_KIND[model.kind]), "fix"
        )
    settings = dict(subject.settings)
    if model.kind in ("masked", "renoising") and name != "ar-order":
        settings.setdefault("steps", steps)
    return SAMPLERS[name](**settings)
