"""The SRI signal: where a step's representation stands between refusing and complying. Arrays in, arrays out: no torch.

Rahimi et al., *Step-Wise Refusal Dynamics in Autoregressive and Diffusion Language Models*,
arXiv:2602.02600, section 3.1.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import expit

from demur.numbers import numbers_of
from demur.types import DemurError, DemurWarning

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

    Lists and tensors of any library, dtype and device are taken as well. Warns of anchors that tell nothing
    (:func:`says_nothing`), between which every state is at 0.5. Raises for anchors with fewer steps than ``phi``, for
    another hidden size, for anchors that are not finite, and for what is no array of real numbers.
    """
    phi, harmless, harmful = (numbers_of(name, a) for name, a in zip(_GIVEN, (phi, harmless, harmful), strict=True))
    tau, eps = _scale("tau", tau), _scale("eps", eps)
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
    if not (np.isfinite(harmless).all() and np.isfinite(harmful).all()):
        raise DemurError("anchors that are not finite", "finite numbers", "leave such states out of the means")
    if said := says_nothing(harmless, harmful):
        warnings.warn(f"anchors: {said}", DemurWarning, stacklevel=2)
    return between(phi, directions_of(harmless[:t], harmful[:t], eps), tau, eps)


_GIVEN = ("phi", "harmless", "harmful")
_ALIKE = 1e-6
"""Unit vectors this close are the same one: what differs is the rounding of fp32, and sigma is 0.5 to four digits."""


def _scale(name: str, given: Any) -> float:
    """A temperature or a stabiliser. Raises for what is no finite number above 0: at an infinite one, sigma is 0.5
    wherever a state stands.
    """
    try:
        number = math.nan if isinstance(given, str | bytes | bool) else float(given)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise DemurError(f"{name} {given!r:.40}", "a finite number above 0", f"the paper's are tau {TAU} and eps {EPS}")
    return number


def says_nothing(harmless: Float[NDArray[Any], "T d"], harmful: Float[NDArray[Any], "T d"]) -> str:
    """Why sigma between two anchors tells nothing of a state at some step; empty where it does.

    At some steps it is no fault: at the first ones of diffusion nothing may be pooled yet, and thoughts begin alike. So
    steps are spoken of where they are more than half.
    """
    bad, good = np.moveaxis(directions_of(harmless, harmful, EPS), 1, 0)
    if not len(good):
        return ""
    zeros = [~side.any(axis=1) for side in (good, bad)]
    if zeros[0].all() and zeros[1].all():
        return "both sides are zeros at every step, so sigma is 0.5 whatever is read; take the means of real states"
    if zeros[0].all() or zeros[1].all():
        side = "harmless" if zeros[0].all() else "harmful"
        return f"the {side} side is zeros at every step, so the other one alone decides; take the mean of real states"
    same = (np.sqrt(np.vecdot(good - bad, good - bad)) < _ALIKE) & ~zeros[0]
    if same.sum() * 2 > (~zeros[0]).sum():
        where = "every step" if (same | zeros[0]).all() else f"{int(same.sum())} of {len(same)} steps"
        return (
            f"both sides point the same way at {where}, so sigma is 0.5 there whatever is read; look whether one array "
            "was given twice, or the two sides hold the same answers"
        )
    return ""


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
    if not (seen := np.isfinite(length)).all():  # nan is what guards look for, and nan alone multiplies without a word
        x = np.where(seen[..., None], x, np.nan)
    return sigma_of(np.vecdot(x[..., None, :], directions), length, tau, eps)


def sigma_of(
    products: Float[NDArray[np.float64], "... 2"], length: Float[NDArray[np.float64], "..."], tau: float, eps: float
) -> Float[NDArray[np.float64], "..."]:
    """sigma from what is to be known of a state: its products with both unit vectors, the harmful one first, and its
    length.
    """
    logs = np.log(np.maximum(1.0 - products / (length + eps)[..., None], 0.0) + eps)
    return np.asarray(expit((logs[..., 0] - logs[..., 1]) / tau))


def _unit(x: NDArray[np.float64], eps: float) -> NDArray[np.float64]:
    """x / (|x| + eps); scaled by the biggest element first, so that no square overflows or vanishes."""
    biggest = np.abs(x).max(axis=-1, keepdims=True)
    scale = np.where(biggest > 0, biggest, 1.0)
    scaled = x / scale
    norm = np.sqrt(np.vecdot(scaled, scaled))[..., None]
    with np.errstate(over="ignore"):  # eps over a denormal is infinite, and the unit vector 0, as it should be
        unit: NDArray[np.float64] = scaled / np.where(norm > 0, norm + eps / scale, 1.0)
    return unit
