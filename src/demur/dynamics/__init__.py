"""Dynamics of refusal: at the level of the text and inside, with intervals. Pure functions of arrays.

One row a generation, one column a step, cut at T; see :mod:`demur.dynamics.text` and :mod:`demur.dynamics.internal`.
"""

from demur.dynamics.geometry import Bands, Plane, Separability, bands, plane, separability
from demur.dynamics.internal import LAMBDA_C, LAMBDA_R, Agreement, Internal, agreement, internal, irr
from demur.dynamics.rates import Area, Difference, Rate, area, compare, over_seeds
from demur.dynamics.text import (
    STATES,
    Recovery,
    Times,
    first,
    held,
    recovery,
    states,
    time_to_recovery,
    transition_matrix,
    transitions,
)

__all__ = [
    "LAMBDA_C", "LAMBDA_R", "STATES", "Agreement", "Area", "Bands", "Difference", "Internal", "Plane", "Rate",
    "Recovery", "Separability", "Times", "agreement", "area", "bands", "compare", "first", "held", "internal", "irr",
    "over_seeds", "plane", "recovery", "separability", "states", "time_to_recovery", "transition_matrix", "transitions",
]  # fmt: skip
