"""Guards: detectors of failed recovery that have seen harmless prompts only, and the promises they can make.

Names are looked up when they are first used: scoring signals with a detector needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demur.guards.autoencoder import Autoencoder as Autoencoder
    from demur.guards.conformal import InvalidData as InvalidData
    from demur.guards.conformal import Threshold as Threshold
    from demur.guards.conformal import conformal_threshold as conformal_threshold
    from demur.guards.conformal import quantile_threshold as quantile_threshold
    from demur.guards.conformal import spread as spread
    from demur.guards.detectors import DETECTORS as DETECTORS
    from demur.guards.detectors import Detector as Detector
    from demur.guards.detectors import IsolationForest as IsolationForest
    from demur.guards.detectors import Mahalanobis as Mahalanobis
    from demur.guards.detectors import Mean as Mean
    from demur.guards.detectors import SlidingWindow as SlidingWindow
    from demur.guards.estimator import SRIGuard as SRIGuard
    from demur.guards.guard import Guard as Guard
    from demur.guards.guard import digest as digest
    from demur.guards.guard import fit_guard as fit_guard
    from demur.guards.hf import stopping_criteria as stopping_criteria
    from demur.guards.online import REFUSAL as REFUSAL
    from demur.guards.online import Guarded as Guarded
    from demur.guards.online import Watch as Watch
    from demur.guards.online import acted as acted
    from demur.guards.online import spared as spared
    from demur.guards.prefix import Prefix as Prefix
    from demur.guards.prefix import fit_prefix as fit_prefix

_HOMES = {
    "autoencoder": ("Autoencoder",),
    "conformal": ("InvalidData", "Threshold", "conformal_threshold", "quantile_threshold", "spread"),
    "detectors": ("DETECTORS", "Detector", "IsolationForest", "Mahalanobis", "Mean", "SlidingWindow"),
    "estimator": ("SRIGuard",),
    "guard": ("Guard", "digest", "fit_guard"),
    "hf": ("stopping_criteria",),
    "online": ("REFUSAL", "Guarded", "Watch", "acted", "spared"),
    "prefix": ("Prefix", "fit_prefix"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = list(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f"demur.guards.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'demur.guards' has no attribute {name!r}")
