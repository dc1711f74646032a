"""What makes two traces comparable, read off a model and a sampler."""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np

from demur.kinds import check_model
from demur.models.unchanged import check_unchanged
from demur.samplers.build import needs_of, spec_name
from demur.traces.trace import STEPS
from demur.types import Model, Need, Sampler, Spec


def spec_of(model: Model, sampler: Sampler, length: int, *, steps: int = STEPS, seed: int | None = None) -> Spec:
    """What makes traces of ``model`` under ``sampler`` comparable.

    The response length belongs to it for samplers that see the whole canvas, not for those from left to right, whose
    first steps do not depend on it; nor does the cache, which changes nothing but the time. How many places a block
    has is a fact of what the network computes with. Raises where the model is not the one that was loaded any more.
    """
    check_model(model)
    check_unchanged(model)
    # A guard changes no step before it acts. DiffuGuard does; its traces go by the same spec all the same, since guards
    # that were fitted without it are measured on them.
    while hasattr(sampler, "undefended"):
        sampler = sampler.undefended
    of_slots: list[str] = [each.name for each in fields(sampler)] if is_dataclass(sampler) else []
    held = getattr(sampler, "__dict__", None) or {name: getattr(sampler, name) for name in of_slots}
    settings = {k: _plain(v) for k, v in held.items() if k != "cache" and not k.startswith("_")}
    if Need.CAUSAL not in needs_of(sampler):
        settings["length"] = _plain(length)
    about = asdict(model.identity)
    if blocks := getattr(model, "block_length", None):  # a model may be loaded with blocks of another length
        about["computed"] = about["computed"] | {"block_length": blocks}
    return Spec(
        **about,
        sampler=spec_name(sampler),
        settings=settings,
        steps=_plain(steps),
        seed=_plain(seed),
        versions=_versions(),
    )


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python: files hold no others."""
    return value.item() if isinstance(value, np.generic) else value


@cache
def _versions() -> dict[str, str]:
    """What ran, for the record. Looked up once: it takes longer than a step of a small model."""
    return {name: metadata.version(name) for name in ("demur", "torch", "transformers")}
