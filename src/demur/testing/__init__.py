"""For tests of parts of one's own: tiny models, and the contracts of samplers, models, attacks and the rest."""

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
from demur.testing.tiny import fitting, tiny

__all__ = [
    "PROMPTS", "check_attack", "check_defense", "check_detector", "check_judge", "check_model", "check_sampler",
    "check_trace_field", "check_world", "fitting", "tiny",
]  # fmt: skip
