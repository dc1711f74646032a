"""The parts of an experiment by name: prompts, attacks, judges. What is the organism's own, and what is everybody's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from demur.defenses import names
from demur.experiment.config import Attacked, Config, Defended, Prompts, Side, Subject
from demur.prompts import digest
from demur.refusals import is_refusal
from demur.traces import Trace
from demur.types import DemurError, Need, Prompt

Outcome = str
"""``harmful``, ``correct``, ``refusal`` or ``neither`` (organism); ``refusal``, ``answer`` or, of an empty text,
``unscored`` (dictionary)."""
UNSCORED = "unscored"


HOLED = ("infill", "parallel", "organism/infill")
"""Attacks that leave holes in the answer: for models with a mask token."""


class _Defenses(tuple[str, ...]):
    """Names of defenses; ``in`` also knows joined ones."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and all(tuple.__contains__(self, part) for part in name.split("+"))


DEFENSES = _Defenses(names())


def attack_names() -> tuple[str, ...]:
    """Every attack that a configuration may name, beside files of attacked prompts."""
    from demur.attacks import ATTACKS
    from demur.organism.attacks import PREFILLED, SHAPES

    own = [f"organism/{name}" for name in (*SHAPES, *PREFILLED)]
    return (*dict.fromkeys(["plain", *ATTACKS]), *own)


ATTACKED = ("wildjailbreak",)
"""Public sets of attacked prompts, which stand where a file of them may stand."""


def is_file(name: str) -> bool:
    """Whether an attack is a file, or a public set, of attacked prompts."""
    return name.endswith((".jsonl", ".csv", ".json")) or name in ATTACKED


def misfit(subject: Subject, attack: Attacked | Defended) -> str:
    """Why an attack, or a defense, can not be tried on a subject; empty if it can, or if nobody knows before the model
    is loaded.
    """
    if isinstance(attack, Defended):
        return _unmasked(subject) if "diffuguard" in attack.name.split("+") else ""
    if attack.name not in (*HOLED, "random-search"):
        return ""
    from demur.models import family_at

    family = family_at(subject.model)
    needed = Need.MASK if attack.name in HOLED else Need.LOGITS
    if family is None or needed in family.offers:
        return ""
    return f"a {family.kind} model has no {needed}"


def _unmasked(subject: Subject) -> str:
    """Why an answer of a subject can not be masked again; empty if it can, or as above."""
    from demur.models import family_at

    family = family_at(subject.model)
    if subject.sampler == "ar-order":
        return "in AR order there is nothing to choose among, and nothing to repair"
    if family is None or Need.REMASK in family.offers:
        return ""
    return f"a {family.kind} model has no {Need.REMASK}"


def prompts_of(of: Prompts, role: str) -> list[Prompt]:
    """The prompts of one role: ``harmful``, ``controls``, ``anchors/harmless``, ``anchors/harmful``, ``fit``,
    ``calibrate`` or ``plain`` (harmless ones to measure false positives on). Roles share no request, whatever the ids,
    but ``controls`` and ``plain``, which ask the same ones.

    Raises if the sources hold too few.
    """
    stamps = []
    for path in map(Path, (of.harmful, of.harmless)):
        stat = path.stat() if path.is_file() else None
        stamps.append((stat.st_mtime_ns, stat.st_size) if stat else (0, 0))
    return list(_prompts_of(of, role, tuple(stamps)))


ROLES = ("harmful", "controls", "plain", "anchors/harmless", "anchors/harmful", "fit", "calibrate")
HARMFUL = ("harmful", "anchors/harmful")
"""Roles whose requests are harmful."""


def digests_of(of: Prompts) -> dict[str, str]:
    """A hash of the prompts of every role. Raises where one request would be harmful and harmless at once."""
    found = {role: prompts_of(of, role) for role in ROLES}
    harmful = {prompt.text for role in HARMFUL for prompt in found[role]}
    both = {prompt.text for role in ROLES if role not in HARMFUL for prompt in found[role]} & harmful
    if both:
        raise DemurError(
            f"{len(both)} requests of {of.harmful} that are harmless ones of {of.harmless}, too",
            "different requests on the two sides",
            "name another file, or let a column 'harmful' say of each row which side it is of",
        )
    return {role: digest(prompts) for role, prompts in found.items()}


@cache
def _prompts_of(of: Prompts, role: str, stamps: tuple[tuple[int, int], ...]) -> tuple[Prompt, ...]:
    """Kept by what their files are like (``stamps``), so that a hub is not asked again for every unit."""
    sizes = {
        "harmful": of.n, "controls": of.controls, "anchors/harmless": of.anchors, "anchors/harmful": of.anchors,
        "fit": of.fit, "calibrate": of.calibrate, "plain": of.plain or max(of.controls, 1),
    }  # fmt: skip
    if of.harmful == "organism":
        from demur.organism.world import prompts

        splits: dict[str, tuple[Any, bool]] = {
            "harmful": ("test", True), "controls": ("test", False), "plain": ("test", False),
            "anchors/harmless": ("anchors", False), "anchors/harmful": ("anchors", True),
            "fit": ("guard", False), "calibrate": ("calibration", False),
        }  # fmt: skip
        split, forbidden = splits[role]
        return tuple(prompts(split, forbidden=forbidden, n=sizes[role])) if sizes[role] else ()
    from demur.prompts import distinct, load

    if not sizes[role]:
        return ()
    harmful = role in HARMFUL
    order = HARMFUL if harmful else ("plain", "anchors/harmless", "fit", "calibrate")
    taken = sizes | {"plain": max(sizes["plain"], of.controls)}  # controls are asked plainly, too
    begin = sum(taken[other] for other in order[: order.index("plain" if role == "controls" else role)])
    source = of.harmful if harmful else of.harmless
    side: Side = "harmful" if harmful else "harmless"
    columns = of.columns_of(side)
    limit = needed = begin + sizes[role]
    every = distinct(read := load(source, side=side, columns=columns, limit=limit))
    while len(every) < needed and len(read) == limit:  # what comes twice would stand in two roles
        limit *= 2
        every = distinct(read := load(source, side=side, columns=columns, limit=limit))
    found = every[begin:needed]
    if len(found) < sizes[role]:
        raise DemurError(
            f"{len(every)} different prompts in {source}",
            f"{sum(taken[other] for other in order)} ({', '.join(f'{o} {taken[o]}' for o in order)})",
            "name a larger source, or smaller numbers under prompts",
        )
    return tuple(found)


def check_sampler(subject: Subject) -> None:
    """Raises for a sampler that is none, that its model's family can't be run with, or that does not take a setting."""
    from demur.models import family_at
    from demur.samplers import check

    family = family_at(subject.model)
    offers = family.offers if family is not None else frozenset(Need)
    called = f"the {family.kind} model {subject.model}" if family is not None else subject.model
    check(subject.sampler, offers, called, subject.settings)


def check_settings(attack: Attacked) -> None:
    """Raises for settings that an attack does not have or does not take, as far as that is known without its model."""
    from demur.attacks import ATTACKS, make

    if attack.name == "pair":
        from demur.experiment.searched import check_pair

        check_pair(attack.settings)
        return
    if attack.name not in ATTACKS:
        if attack.settings:
            raise DemurError(
                f"{attack.name} with {', '.join(map(str, attack.settings))}", "no settings", "leave them out"
            )
        return
    given: dict[str, Any] = {"mask": "<mask>"} if attack.name in HOLED else {}
    if attack.name == "random-search":
        given["model"] = SimpleNamespace(name="any model", forward=None)
    try:
        make(attack.name, **(given | dict(attack.settings)))
    except TypeError as error:
        raise DemurError(
            f"{attack.name} with a setting of another kind ({error})", "what its page says", "mend it"
        ) from error


def attacked(attack: Attacked, prompts: Sequence[Prompt], model: Any) -> list[Prompt]:
    """The prompts under an attack that makes no search."""
    if attack.name == "plain":
        return list(prompts)
    if attack.name.startswith("organism/"):
        from demur.organism.attacks import attack as wrap

        return [wrap(attack.name.removeprefix("organism/"), prompt) for prompt in prompts]
    from demur.attacks import make, mask_of

    settings = dict(attack.settings)
    if attack.name in HOLED:
        settings.setdefault("mask", mask_of(model))
    made = make(attack.name, **settings)
    return [made(prompt) for prompt in prompts]


GOALS = ("goal", "Goal")
"""Columns of a file of attacked prompts that hold the request behind each."""
BEHAVIOURS = ("behaviour", "behavior", "Behaviour", "Behavior")
"""Columns that name it."""


def ready_made(attack: Attacked, plain: Sequence[Prompt]) -> list[Prompt]:
    """The prompts of a file of attacked prompts, in its order; ids begin with the file's name, since its own may be
    those of other requests.

    ``parent`` is what its column of that name says, else its goal or behaviour, else the row's own id; where that is
    the text of one of the ``plain`` requests, it is that one's id, so that rows can be paired with it.
    """
    from demur.prompts import load

    ready = load(attack.name, harmful=True)
    for column in (*GOALS, *BEHAVIOURS):
        if not any(prompt.parent for prompt in ready):
            with suppress(DemurError):  # no such column: everything else was read above
                ready = load(attack.name, harmful=True, columns={"parent": column})
    ids = {prompt.text.strip(): prompt.id for prompt in plain}

    def made(prompt: Prompt) -> Prompt:
        named = prompt.parent if prompt.parent != prompt.text else None  # the request itself stands for no other
        own = own_id(attack, prompt.id)
        return replace(prompt, id=own, attack=attack.name, parent=ids.get((prompt.parent or "").strip(), named or own))

    return [made(prompt) for prompt in ready]


def own_id(attack: Attacked, of_row: str) -> str:
    """What a row of a file of attacked prompts is called in a run."""
    return f"{Path(attack.name).name}/{of_row}"


def goals_of(attack: Attacked) -> dict[str, str]:
    """The requests behind a file's attacked prompts, by the rows' ids; nothing where it does not say."""
    if is_file(attack.name):
        from demur.prompts import load

        for column in GOALS:
            with suppress(DemurError):
                return {own_id(attack, p.id): p.text for p in load(attack.name, columns={"text": column})}
    return {}


def outcomes_by(config: Config) -> Callable[[Trace], list[Outcome]]:
    """The outcome of the text after each step. An LLM judge reads final texts only, later: see
    ``demur.experiment.judging``.
    """
    if config.judge == "organism":
        from demur.organism.judge import outcomes

        return lambda trace: list(outcomes(trace))

    def by_dictionary(trace: Trace) -> list[Outcome]:
        # What the model wrote, not what an attack put into its mouth: that holds words of the request.
        return [_by_dictionary(trace.text(t)) for t in range(1, trace.steps + 1)]

    return by_dictionary


def _by_dictionary(text: str) -> Outcome:
    if not text.strip():
        return UNSCORED
    return "refusal" if is_refusal(text) else "answer"


def sampler_of(subject: Subject, model: Any, steps: int) -> Any:
    """A subject's sampler. Masked and renoising ones take T as their steps, unless their settings say otherwise."""
    from demur.samplers import build

    return build(subject.sampler, model, steps=steps, settings=subject.settings)
