"""A line of defenses by name, as a run uses it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from demur.defenses.setup import Setup
from demur.guards.guard import Guard
from demur.kinds import check_kinds, check_text
from demur.registry import Registry, near
from demur.traces import Trace
from demur.types import DemurError, Need, Prompt, Verdict, said_needs

DEFENSES = Registry(
    kind="defense",
    group="demur.defenses",
    own={
        "sri-guard": "demur.defenses.sri:Online",
        "sri-guard-offline": "demur.defenses.sri:Offline",
        "perplexity": "demur.defenses.perplexity:Perplexity",
        "self-examine": "demur.defenses.self_examine:SelfExamine",
        "moderation": "demur.defenses.moderation:Moderation",
        "token-moderation": "demur.defenses.token_moderation:TokenModeration",
        "any-depth": "demur.defenses.any_depth:AnyDepth",
        "diffuguard": "demur.defenses.diffuguard:DiffuGuard",
    },
    reserved=("none",),
)
"""Defenses by name. Several may be joined by ``+``; a prompt or answer is flagged if any of them flags it."""
NONE = "none"
"""The name of no defense at all."""
NEXT = "see docs/extending.md#a-defense"


@runtime_checkable
class Filter(Protocol):
    """Looks at prompts before anything is generated."""

    def filter(self, prompts: Sequence[Prompt]) -> list[Verdict]:
        """One verdict for each."""
        ...


@runtime_checkable
class Review(Protocol):
    """Looks at finished answers."""

    def review(self, traces: Sequence[Trace]) -> list[Verdict]:
        """One verdict for each."""
        ...


def names() -> tuple[str, ...]:
    """Every name that may stand in a recipe, beside ``module:Class``."""
    return (NONE, *DEFENSES)


def parts_of(name: str) -> list[tuple[str, Any]]:
    """The names that a name joins, and what stands behind each. Raises for an unknown one."""
    made: list[tuple[str, Any]] = []
    check_text(name, "the name of a defense")
    for part in name.split("+"):
        if part in [own for own, _ in made]:  # it would act, and cost, twice under one name
            raise DemurError(f"defense {name!r} with {part} twice", "each once", "leave one of them out")
        if part == NONE and name == NONE:
            continue
        if not DEFENSES.knows(part):
            meant = near(part, names())
            raise DemurError(
                f"defense {part!r}{meant}", f"{', '.join(names())}", "name one of these, or several joined by +"
            )
        made.append((part, DEFENSES.get(part)))
    return made


def is_active(name: str) -> bool:
    """Whether a defense ends or changes a generation. The others look at prompts and finished answers, which are the
    same behind all of them.
    """
    return any(getattr(cls, "active", False) for _, cls in parts_of(name))


def needs_of(name: str, settings: Mapping[str, Any]) -> frozenset[Need]:
    """What defenses need of the model that they stand before. One that asks a model of its own needs nothing of it."""
    asked = [cls for _, cls in parts_of(name) if not ("model" in settings and "model" in settings_of(cls))]
    return frozenset(need for cls in asked for need in said_needs(cls, f"defense {name}"))


def is_calibrated(name: str) -> bool:
    """Whether one of these defenses is fitted on harmless prompts before it is used."""
    return any(hasattr(cls, "fitted") for _, cls in parts_of(name))


def is_guarded(name: str) -> bool:
    """Whether one of these defenses may use the guard that a run fits. A class that is made of a setup and does not
    says ``guarded = False``.
    """
    return any(getattr(cls, "guarded", hasattr(cls, "made")) for _, cls in parts_of(name))


def may_be_unreadable(name: str) -> bool:
    """Whether one of these defenses reads its verdict out of a model's words, which may hold none."""
    return any(hasattr(cls, "verdict") for _, cls in parts_of(name))


def settings_of(cls: Any) -> tuple[str, ...]:
    """What can be set of a defense, by its class."""
    if hasattr(cls, "takes"):
        return tuple(cls.takes)
    if hasattr(cls, "made"):
        return tuple(list(inspect.signature(cls.made).parameters)[1:])
    return tuple(field.name for field in fields(cls)) if is_dataclass(cls) else ()


def check(name: str, settings: Mapping[str, Any]) -> None:
    """Raises for an unknown defense, for settings that it does not have, missing ones and impossible ones."""
    parts = parts_of(name)
    known = [setting for _, cls in parts for setting in settings_of(cls)]
    if unknown := [setting for setting in settings if setting not in known]:
        came = f"{name} with {', '.join(map(str, unknown))}{near(unknown[0], known)}"
        raise DemurError(came, ", ".join(known) or "no settings", "leave it out")
    for setting in ("question", "yes", "no", "model"):
        if not isinstance(settings.get(setting, ""), str):
            raise DemurError(f"{name} with {setting} {settings[setting]!r}", "a text", "put it in quotes")
    try:
        for part, cls in parts:
            own = _own(cls, settings)
            check_kinds(cls, {key: value for key, value in own.items() if key != "model"}, name)
            if hasattr(cls, "check"):
                cls.check(own)
            elif not hasattr(cls, "made"):
                made = cls(**own)
                if not (isinstance(made, Filter | Review) or callable(made)):
                    raise DemurError(f"{part!r} is no defense", "filter, review or a call", NEXT)
                if callable(made) and not getattr(cls, "active", False):  # else it shares the undefended answers
                    raise DemurError(f"{part!r} makes another sampler and is not active", "active = True", NEXT)
    except TypeError as error:
        raise DemurError(f"{name} with a setting of another kind ({error})", "numbers", "mend it") from error


def _own(cls: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in settings_of(cls) if name in settings}


@dataclass(frozen=True)
class Line:
    """A line of defenses. ``around`` are those that make another sampler of a sampler, the innermost first."""

    filters: tuple[Filter, ...] = ()
    around: tuple[Any, ...] = ()
    reviews: tuple[Review, ...] = ()

    def filtered(self, prompts: Sequence[Prompt]) -> list[Verdict | None]:
        """The first filter's verdict that stops each prompt, or None."""
        return _first([_asked(f, "filter", f.filter, prompts) for f in self.filters], len(prompts))

    @property
    def stops_by(self) -> str:
        """The names of those that may stop a generation while it is written, joined by ``+``."""
        return "+".join(part.name for part in self.around if getattr(part, "stops", False))

    def sampler(self, sampler: Any) -> Any:
        """The sampler, changed if something changes it, and watched if something watches."""
        for defense in self.around:
            sampler = defense(sampler)
            if not callable(sampler):
                came = f"the defense {type(defense).__name__} made a {type(sampler).__name__} of a sampler"
                raise DemurError(came, "a sampler", NEXT)
        return sampler

    def reviewed(self, traces: Sequence[Trace]) -> list[Verdict | None]:
        """The first review's verdict that stops each answer, or None."""
        return _first([_asked(r, "review", r.review, traces) for r in self.reviews], len(traces))


def _asked(part: Any, what: str, ask: Callable[[Any], Any], items: Sequence[Any]) -> list[Verdict]:
    """A filter's or a review's verdicts. Raises for one that fails (what it says may quote a prompt), and for anything
    but one verdict for each item.
    """
    called = f"the {what} of the defense {type(part).__name__}"
    try:
        verdicts = list(ask(items))
    except DemurError:
        raise
    except Exception as error:  # whatever somebody else's class raises
        raise DemurError(f"{called} failed ({type(error).__name__})", "one verdict for each", NEXT) from error
    if len(verdicts) != len(items):
        raise DemurError(f"{called} gave {len(verdicts)} verdicts for {len(items)}", "one for each", NEXT)
    if strange := [verdict for verdict in verdicts if not isinstance(verdict, Verdict)]:
        raise DemurError(f"{called} gave a {type(strange[0]).__name__}", "a demur.types.Verdict", NEXT)
    return verdicts


UNREADABLE = ", unreadable"
"""Behind the name of a defense that stopped a prompt or an answer since its own verdict could not be read."""


def _first(verdicts: Sequence[Sequence[Verdict]], n: int) -> list[Verdict | None]:
    """Of each of ``n`` the first verdict that stops it: a flag, or none where one should be. What nobody could judge is
    not let through; ``by`` says that it was stopped unread (:data:`UNREADABLE`).
    """
    every = [next((of[i] for of in verdicts if of[i].flagged is not False), None) for i in range(n)]
    return [
        replace(verdict, flagged=True, by=verdict.by + UNREADABLE) if verdict and verdict.flagged is None else verdict
        for verdict in every
    ]


def line(
    name: str,
    guard: Guard | None = None,
    subject: Any = None,
    calibrate: Sequence[Prompt] = (),
    *,
    alpha: float = 0.01,
    **settings: Any,
) -> Line:
    """A line of defenses by name (``a+b`` joins), for the model ``subject``.

    ``alpha`` is the share of harmless prompts that a filter may flag, set on ``calibrate``. Raises as :func:`check`
    does, and for a guard that is missing.
    """
    check(name, settings)
    setup = Setup(guard, subject, calibrate, alpha)
    made = [
        cls.made(setup, **_own(cls, settings)) if hasattr(cls, "made") else cls(**_own(cls, settings))
        for _, cls in parts_of(name)
    ]
    around = [part for part in made if callable(part)]
    around.sort(key=lambda part: getattr(part, "outermost", False))  # a guard watches what the others have made
    return Line(
        filters=tuple(part for part in made if isinstance(part, Filter)),
        around=tuple(around),
        reviews=tuple(part for part in made if isinstance(part, Review)),
    )


def overhead(defended: Sequence[float], undefended: Sequence[float]) -> float:
    """Extra time in percent of the undefended time, over the same prompts; nan where nothing was timed."""
    whole = float(np.sum(undefended))
    return 100 * (float(np.sum(defended)) - whole) / whole if whole > 0 else math.nan
