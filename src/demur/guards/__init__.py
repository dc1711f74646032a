"""Guards: detectors of failed recovery that have seen harmless prompts only, and the promises they can make.

Names are looked up when they are first used: scoring signals with a detector needs no torch.
"""

from typing import TYPE_CHECKING

from demur.lazy import looked_up

if TYPE_CHECKING:
    from demur.guards.acting import REFUSAL as REFUSAL
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
    from demur.guards.online import Guarded as Guarded
    from demur.guards.online import Watch as Watch
    from demur.guards.online import acted as acted
    from demur.guards.online import spared as spared
    from demur.guards.prefix import Prefix as Prefix
    from demur.guards.prefix import fit_prefix as fit_prefix

_HOMES = {
    "Autoencoder": "autoencoder",
    "DETECTORS": "detectors",
    "Detector": "detectors",
    "Guard": "guard",
    "Guarded": "online",
    "InvalidData": "conformal",
    "IsolationForest": "detectors",
    "Mahalanobis": "detectors",
    "Mean": "detectors",
    "Prefix": "prefix",
    "REFUSAL": "acting",
    "SRIGuard": "estimator",
    "SlidingWindow": "detectors",
    "Threshold": "conformal",
    "Watch": "online",
    "acted": "online",
    "conformal_threshold": "conformal",
    "digest": "guard",
    "fit_guard": "guard",
    "fit_prefix": "prefix",
    "quantile_threshold": "conformal",
    "spared": "online",
    "spread": "conformal",
    "stopping_criteria": "hf",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = looked_up(__name__, _HOMES)
