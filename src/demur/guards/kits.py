"""What goes together in a guard: how states are read, where, and which detector looks at the signal.

The default was chosen by a protocol that was written before it was run, on data that the report does not use
(docs/results/README.md, docs/decisions/0016-default-guard.md). The paper's is ``paper``.
"""

from __future__ import annotations

from dataclasses import dataclass

from demur.signals.anchors import SignalName
from demur.types import Layer, Pool


@dataclass(frozen=True)
class Kit:
    """A signal, where it is read, and a detector by name (:data:`demur.guards.detectors.DETECTORS`)."""

    signal: SignalName
    detector: str
    layer: Layer = "last"
    pool: Pool = "generated"


DEFAULT = Kit("whitened", "last")
PAPER = Kit("sri", "autoencoder")
"""Rahimi et al., arXiv:2602.02600, section 5."""


def kit_of(name: str | None) -> Kit:
    """The kit that a detector's name stands for: none for the default, ``paper`` for the paper's, any other detector
    on the default's signal.
    """
    if name is None:
        return DEFAULT
    return PAPER if name == "paper" else Kit(DEFAULT.signal, name, DEFAULT.layer, DEFAULT.pool)
