"""demur: see and guard the refusal dynamics of language models, step by step.

Importing this module loads neither torch nor numpy; names are looked up when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demur.experiment.table import rows as rows
    from demur.models import load as load
    from demur.prompts import starter as starter
    from demur.samplers import Autoregressive as Autoregressive
    from demur.samplers import MaskedDiffusion as MaskedDiffusion
    from demur.signals import Anchors as Anchors
    from demur.signals import anchors_of as anchors_of
    from demur.signals import fit_anchors as fit_anchors
    from demur.signals import refusal_signal as refusal_signal
    from demur.signals import scripted_refusals as scripted_refusals
    from demur.traces import Trace as Trace
    from demur.traces import generate as generate
    from demur.traces import teacher_forced as teacher_forced
    from demur.types import DemurError as DemurError
    from demur.types import Prompt as Prompt

__version__ = "0.1.0"

_HOMES = {
    "Anchors": "signals",
    "Autoregressive": "samplers",
    "DemurError": "types",
    "MaskedDiffusion": "samplers",
    "Prompt": "types",
    "Trace": "traces",
    "anchors_of": "signals",
    "fit_anchors": "signals",
    "generate": "traces",
    "load": "models",
    "refusal_signal": "signals",
    "rows": "experiment.table",
    "scripted_refusals": "signals",
    "starter": "prompts",
    "teacher_forced": "traces",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"demur.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'demur' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
