"""demur: see and guard the refusal dynamics of language models, step by step.

Importing this module loads neither torch nor numpy; names are looked up when they are first used.
"""

from typing import TYPE_CHECKING

from demur.lazy import looked_up

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
__getattr__, __dir__ = looked_up(__name__, _HOMES)
