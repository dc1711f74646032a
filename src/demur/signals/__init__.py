"""The refusal signal: ``refusal_signal`` computes it from arrays, ``Anchors`` from traces; ``anchors_of`` fits anchors.

Names are looked up when they are first used: the signal of arrays (:mod:`demur.signals.sigma`) loads no torch.
"""

from typing import TYPE_CHECKING

from demur.lazy import looked_up

if TYPE_CHECKING:
    from demur.signals.anchors import STATES as STATES
    from demur.signals.anchors import Anchors as Anchors
    from demur.signals.anchors import digest as digest
    from demur.signals.fit import anchors_of as anchors_of
    from demur.signals.fit import fit_anchors as fit_anchors
    from demur.signals.fit import scripted_refusals as scripted_refusals
    from demur.signals.shown import Shown as Shown
    from demur.signals.shown import reading as reading
    from demur.signals.sigma import EPS as EPS
    from demur.signals.sigma import TAU as TAU
    from demur.signals.sigma import refusal_signal as refusal_signal

_HOMES = {
    "EPS": "sigma",
    "STATES": "anchors",
    "TAU": "sigma",
    "Anchors": "anchors",
    "Shown": "shown",
    "anchors_of": "fit",
    "digest": "anchors",
    "fit_anchors": "fit",
    "reading": "shown",
    "refusal_signal": "sigma",
    "scripted_refusals": "fit",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = looked_up(__name__, _HOMES)
