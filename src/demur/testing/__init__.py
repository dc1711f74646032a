"""For tests of parts of one's own: tiny models, a pretend device, and the contracts of samplers and the rest."""

from demur.testing.contracts import (
    PROMPTS,
    check_attack,
    check_defense,
    check_detector,
    check_judge,
    check_model,
    check_sampler,
    check_trace_field,
    check_world,
)
from demur.testing.pretend import Counts, PretendDevice
from demur.testing.tiny import fitting, tiny

__all__ = [
    "PROMPTS", "Counts", "PretendDevice", "check_attack", "check_defense", "check_detector", "check_judge",
    "check_model", "check_sampler",
    "check_trace_field", "check_world", "fitting", "tiny",
]  # fmt: skip
