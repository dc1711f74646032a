"""From a name to a sampler that fits a model: the one place where that is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import MappingProxyType
from typing import Any

from demur.kinds import check_kinds, check_model, fits
from demur.registry import Registry, near
from demur.samplers.autoregressive import Autoregressive
from demur.samplers.block import BlockDiffusion
from demur.samplers.joint import JointThreshold
from demur.samplers.masked import MaskedDiffusion
from demur.samplers.renoising import Renoise, SeededRenoise
from demur.samplers.seeded import SeededBlocks
from demur.types import DemurError, Model, Need, Sampler, missing, said_needs

SAMPLERS = Registry(
    kind="sampler",
    group="demur.samplers",
    own={
        "ar": "demur.samplers.autoregressive:Autoregressive",
        "low-confidence": "demur.samplers.masked:MaskedDiffusion",
        "random": "demur.samplers.presets:at_random",
        "ar-order": "demur.samplers.presets:autoregressive_order",
        "margin": "demur.samplers.presets:by_margin",
        "entropy": "demur.samplers.presets:by_entropy",
        "dream": "demur.samplers.presets:dream",
        "mdlm": "demur.samplers.presets:mdlm",
        "bd3lm": "demur.samplers.presets:bd3lm",
        "sdar": "demur.samplers.presets:sdar",
        "llada2": "demur.samplers.presets:llada2",
        "stable-diffcoder": "demur.samplers.presets:stable_diffcoder",
        "joint-threshold": "demur.samplers.joint:JointThreshold",
        "nemotron": "demur.samplers.seeded:SeededBlocks",
        "renoising": "demur.samplers.renoising:Renoise",
        "revising": "demur.samplers.presets:revising",
    },
)
"""Samplers by name, for recipes and the command line."""

CLASSES: Mapping[str, Callable[..., Any]] = {
    made.__name__: made
    for made in (Autoregressive, MaskedDiffusion, BlockDiffusion, JointThreshold, SeededBlocks, Renoise, SeededRenoise)
}
"""By the name that a spec holds: a sampler can be made again from ``spec.sampler`` and ``spec.settings``."""


def spec_name(sampler: Any) -> str:
    """What a spec calls a sampler: one of ours by its class alone, any other one by ``module:Class``, since two
    packages may have a class of one name.
    """
    made_by = sampler if hasattr(sampler, "__qualname__") else type(sampler)  # a function is its own
    if made_by.__module__.partition(".")[0] == "demur":
        return str(made_by.__name__)
    return f"{made_by.__module__}:{made_by.__qualname__}"


def made_again(called: str, settings: Mapping[str, Any], named: str | None = None) -> Sampler:
    """The sampler that a spec calls so, with the spec's settings. A file can not say what is imported: one of ours, or
    of an installed package's names, is found; any other one must be ``named``, as ``module:Class``. Raises otherwise.
    A file has lists where a sampler has tuples: with a list it would be another sampler than the one that it is.
    """
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    make = CLASSES.get(called) if named is None else SAMPLERS.get(named)
    if make is None:
        registered = {point.value: name for name, point in SAMPLERS.packaged.items()}
        if called not in registered:
            raise DemurError(
                f"the sampler {called}, which no installed package has registered",
                "its class",
                f"name it: --sampler {called if ':' in called else 'module:Class'}",
            )
        make = SAMPLERS.get(registered[called])
    try:
        made: Sampler = make(**settings)
    except Exception as error:  # whatever somebody else's class raises
        said = " ".join(str(error).split())[:160]
        raise DemurError(
            f"the sampler {named or called} can not be made with {', '.join(settings) or 'no settings'} ({said})",
            f"the one that a spec calls {called}",
            "name that one",
        ) from error
    if spec_name(made) != called:
        raise DemurError(f"the sampler {named}", called, "name that one")
    return made


def needs_of(sampler: Any) -> frozenset[Need]:
    """What a sampler says that it needs of a model; nothing if it says nothing."""
    return said_needs(sampler, f"the sampler {type(sampler).__name__}")


def fitting(offers: frozenset[Need]) -> list[str]:
    """The samplers that a model with these ``offers`` can be run with."""
    return [name for name, plain in SAMPLERS.made() if needs_of(plain) <= offers]


def _plain(name: str) -> Any:
    """A sampler without settings. Raises for what is none."""
    plain = SAMPLERS.make(name)
    if not callable(plain):
        raise DemurError(f"sampler {name!r}, a {type(plain).__name__}", "steps of a canvas", "see docs/extending.md")
    return plain


def check(name: str, offers: frozenset[Need], model: str, settings: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """The sampler ``name`` with ``settings``. Raises for an unknown name, for a setting that it does not have or take,
    and where it needs what ``model`` does not offer; that one is for the error alone.
    """
    make, plain = SAMPLERS.get(name), _plain(name)
    if lacking := missing(needs_of(plain), offers):
        known = ", ".join(fitting(offers)) or "a sampler that fits it"
        raise DemurError(f"sampler {name} on {model}, which has no {lacking}", known, "name one of these")
    known_settings = [field.name for field in fields(plain)] if is_dataclass(plain) else []
    unknown = [setting for setting in settings if known_settings and setting not in known_settings]
    if unknown:
        came = f"sampler {name} with {unknown[0]}={settings[unknown[0]]!r}{near(unknown[0], known_settings)}"
        raise DemurError(came, ", ".join(known_settings), "mend it")
    check_kinds(plain, settings, f"sampler {name}")
    try:
        return make(**settings)
    except TypeError as error:
        raise DemurError(
            f"sampler {name} with a setting that it does not take ({error})", ", ".join(known_settings), "mend it"
        ) from error


def build(
    name: str | None,
    model: Model,
    *,
    steps: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Sampler:
    """A sampler for a model, by name (None: its family's), with ``settings`` of its own.

    ``steps`` is T: a sampler whose steps are those of the whole answer (``whole``) takes as many, unless ``settings``
    say otherwise. Raises as :func:`check` does.
    """
    check_model(model)
    mapped: Any = {} if settings is None else settings
    if not isinstance(mapped, Mapping):
        came = f"settings of the type {type(settings).__name__}"
        raise DemurError(came, "a mapping of names and values", "for example: settings={'temperature': 0.7}")
    if steps is not None and not (fits(steps, int) and steps >= 1):
        raise DemurError(f"steps={steps!r:.40}", "a whole number of at least 1", "leave it out")
    chosen = model.preferred if name is None or (isinstance(name, str) and not name) else name
    given = dict(settings or {})
    plain = _plain(chosen)
    if steps is not None and getattr(plain, "whole", False) and getattr(plain, "steps", None) is not None:
        given.setdefault("steps", steps)
    made: Sampler = check(chosen, model.offers, f"the {model.kind} model {model.name}", given)
    return made
