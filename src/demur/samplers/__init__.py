"""Samplers: lazy generators of steps. Settings are frozen fields; calling a sampler on a canvas starts a generation.

Randomness comes from explicit generators only. ``rngs`` is one ``torch.Generator`` per row (law 1: a row does not
depend on its neighbours), or a single one for the whole batch, which is how the official implementations draw.
"""

from demur.samplers.autoregressive import Autoregressive
from demur.samplers.block import BlockDiffusion
from demur.samplers.build import CLASSES, SAMPLERS, build, check, fitting
from demur.samplers.dice import Dice, Rngs, seeded
from demur.samplers.joint import JointThreshold
from demur.samplers.masked import MaskedDiffusion
from demur.samplers.presets import autoregressive_order, bd3lm, dream, llada2, mdlm, sdar
from demur.samplers.renoising import Renoise, SeededRenoise
from demur.samplers.rules import filtered
from demur.samplers.seeded import SeededBlocks
from demur.samplers.steps import check_fits, steps_of

__all__ = [
    "CLASSES",
    "SAMPLERS",
    "Autoregressive",
    "BlockDiffusion",
    "Dice",
    "JointThreshold",
    "MaskedDiffusion",
    "Renoise",
    "Rngs",
    "SeededBlocks",
    "SeededRenoise",
    "autoregressive_order",
    "bd3lm",
    "build",
    "check",
    "check_fits",
    "dream",
    "filtered",
    "fitting",
    "llada2",
    "mdlm",
    "sdar",
    "seeded",
    "steps_of",
]
