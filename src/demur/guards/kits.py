"""What goes together in a guard: how states are read, where, and which detector looks at the signal.

The default was chosen by a protocol that was written before it was run, on data that the report does not use
(docs/results/protocol.md, docs/decisions/0016-default-guard.md). The paper's is ``paper``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from demur.signals.anchors import Anchors, SignalName
from demur.signals.recent import keeps_states
from demur.types import Layer, Pool


@dataclass(frozen=True)
class Kit:
    """A signal, where it is read, and a detector by name (:data:`demur.guards.detectors.DETECTORS`)."""

    signal: SignalName
    detector: str
    layer: Layer = "last"
    pool: Pool = "generated"
    upto: int = 0
    """Whole answers, with a promise for those of up to so many tokens; 0: the first T steps alone."""


PAPER = Kit("sri", "autoencoder")
"""Rahimi et al., arXiv:2602.02600, section 5."""
CAUSAL = Kit("whitened", "last", upto=128)
"""For models that write from left to right: what was pooled up to the last token holds everything before it."""
CANVAS = PAPER
"""For models that see their whole answer at every step: what gives a jailbreak away stands in the middle of the path,
and at its end it is gone.
"""


def kit_of(name: str | None, causal: bool) -> Kit:
    """The kit that a detector's name stands for: none for the default, ``paper`` for the paper's, any other detector
    on the default's signal. ``causal``: whether the model writes from left to right.
    """
    default = CAUSAL if causal else CANVAS
    if name is None:
        return default
    return PAPER if name == "paper" else replace(default, detector=name)


def detector_for(anchors: Anchors) -> str:
    """The detector that goes with the signal of anchors."""
    if anchors.whitened is None:
        return PAPER.detector
    return CAUSAL.detector if keeps_states(anchors.spec) else "mean"
