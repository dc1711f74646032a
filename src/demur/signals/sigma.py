"""The SRI signal: where a step's representation stands between refusing and complying. Arrays in, arrays out: no torch.

Rahimi et al., *Step-Wise Refusal Dynamics in Autoregressive and Diffusion Language Models*,
arXiv:2602.02600, section 3.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import expit

from demur.numbers import numbers_of
from demur.types import DemurError

TAU, EPS = 0.1, 1e-8


def refusal_signal(
    phi: Float[NDArray[Any], "... t d"],
    harmless: Float[NDArray[Any], "T d"],
    harmful: Float[NDArray[Any], "T d"],
    *,
    tau: float = TAU,
    eps: float = EPS,
) -> Float[NDArray[np.float64], "... t"]:
    """sigma in [0, 1] for every step: 1 = compliance-aligned, 0 = refusal-aligned (section 3.1).

    sigma_t = sigmoid((log(d_harmful + eps) - log(d_harmless + eps)) / tau) with cosine distances d to the anchors of
    step t. ``phi`` may be a prefix (t <= T). Computed in float64 whatever comes, d >= 0: in bf16 1 - cos quantises,
    and 1 - cos slightly below 0 would give nan. Finite for every finite input, nan for a state that
    is not finite; a zero vector is at distance 1 of all.

    Lists and tensors of any library, dtype and device are taken as well. Raises for anchors with fewer steps than
    ``phi``, for another hidden size, and for what is no array of real numbers.
    """
    phi, harmless, harmful = (numbers_of(name, a) for name, a in zip(_GIVEN, (phi, harmless, harmful), strict=True))
    if not (tau > 0 and eps > 0):
        raise DemurError(f"tau {tau} and eps {eps}", "both above 0", f"the paper's are {TAU} and {EPS}")
    shape = np.shape(phi)
    t = shape[-2] if len(shape) > 1 else 0
    alike = min(len(shape), harmless.ndim) > 1 and harmless.shape == harmful.shape == (len(harmless), shape[-1])
    if not alike or len(harmless) < t:
        raise DemurError(
            f"phi {shape} with anchors {harmless.shape} and {harmful.shape}",
            "anchors of the same hidden size and at least as many steps",
            "fit anchors with the same model and T",
        )
    harmless, harmful = (np.asarray(a, dtype=np.float64) for a in (harmless, harmful))
    return between(phi, directions_of(harmless[:t], harmful[:t], eps), tau, eps)


_GIVEN = ("phi", "harmless", "harmful")


def directions_of(
    harmless: Float[NDArray[Any], "T d"], harmful: Float[NDArray[Any], "T d"], eps: float
) -> Float[NDArray[np.float64], "T 2 d"]:
    """Unit vectors of both anchors of every step, the harmful one first; norms stabilised as in the reference code."""
    return np.stack([_unit(np.asarray(a, dtype=np.float64), eps) for a in (harmful, harmless)], axis=1)


def between(
    phi: Float[NDArray[Any], "... t d"], directions: Float[NDArray[np.float64], "t 2 d"], tau: float, eps: float
) -> Float[NDArray[np.float64], "... t"]:
    """sigma of states that fit the directions; see :func:`refusal_signal`, which checks that they do.

    Each row is summed up by itself: its bits do not depend on the batch, which a matrix product would not promise.
    """
    x = np.asarray(phi, dtype=np.float64)
    if phi.dtype == np.float32:  # no square of an fp32 number overflows here
        length = np.sqrt(np.vecdot(x, x))
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            length = np.sqrt(np.vecdot(x, x))
            if (huge := np.isinf(length)).any():  # beyond 1e154; eps is nothing against such norms
                x, length = np.where(huge[..., None], _unit(x, 0.0), x), np.where(huge, 1.0, length)
    with np.errstate(invalid="ignore"):  # infinite states give nan, which guards look for
        cosines = np.vecdot(x[..., None, :], directions) / (length + eps)[..., None]
    logs = np.log(np.maximum(1.0 - cosines, 0.0) + eps)
    sigma: Float[NDArray[np.float64], "... t"] = expit((logs[..., 0] - logs[..., 1]) / tau)
    return sigma


def _unit(x: NDArray[np.float64], eps: float) -> NDArray[np.float64]:
    """x / (|x| + eps); scaled by the biggest element first, so that no square overflows or vanishes."""
    biggest = np.abs(x).max(axis=-1, keepdims=True)
    scale = np.where(biggest > 0, biggest, 1.0)
    scaled = x / scale
    norm = np.sqrt(np.vecdot(scaled, scaled))[..., None]
    with np.errstate(over="ignore"):  # eps over a denormal is infinite, and the unit vector 0, as it should be
        unit: NDArray[np.float64] = scaled / np.where(norm > 0, norm + eps / scale, 1.0)
    return unit
