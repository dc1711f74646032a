"""Guards of made-up anchors, without a model, and what the plain guard makes of one row's states."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from demur.guards import Guard
from demur.guards.autoencoder import Autoencoder
from demur.guards.conformal import Threshold
from demur.guards.detectors import Last, Mean, SlidingWindow
from demur.guards.prefix import Prefix
from demur.guards.rows import Row, RowState, look
from demur.guards.sight import Recent, as_offline
from demur.guards.tail import Tail
from demur.signals import Anchors
from demur.signals.whitened import fit_whitened
from demur.types import Spec

T, D = 5, 6


def detectors() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    sizes = (T, 4, 3, 4, T)
    weights = tuple(rng.normal(size=(b, a)).astype(np.float32) for a, b in pairwise(sizes))
    biases = tuple(rng.normal(size=b).astype(np.float32) for b in sizes[1:])
    return {"last": Last(), "mean": Mean(), "autoencoder": Autoencoder(weights, biases), "window": SlidingWindow(2)}


def made(
    detector: str = "last", *, signal: str = "", pool: str = "producing", tail: bool = False, limit: float = 0.3,
    **spec: Any,
) -> Guard:  # fmt: skip
    rng = np.random.default_rng(7)
    states = rng.normal(size=(2, 20, T, D)).astype(np.float32)
    states[1] += 0.6
    whitened = fit_whitened(*states) if signal else None
    usual: dict[str, Any] = {
        "model": "m", "revision": "", "weights": "w", "dtype": "float32", "template": "none",
        "sampler": "Autoregressive", "settings": {"temperature": 0.0}, "steps": T,
    }  # fmt: skip
    own = Spec(**{**usual, **spec}).at("last", pool, signal)
    ones = np.ones(T, np.float32)
    anchors = Anchors(
        *(side.mean(axis=0) for side in states), ones, ones, own, "observed", 20, 20, 20, 20, whitened=whitened
    )
    of_maximum = Threshold(limit, 0.1, "conformal", 40)
    found = detectors()[detector]
    prefix = Prefix(found, np.linspace(-0.5, 0.2, T), np.linspace(1.0, 0.5, T), of_maximum)
    behind = Tail(2 * T, Threshold(0.7, 0.1, "conformal", 40)) if tail else None
    return Guard(anchors, found, Threshold(0.9, 0.1, "conformal", 40), prefix, np.zeros((2, T)), (), (), tail=behind)


@dataclass
class Plain:
    """One row under the plain guard, as ``Watch`` has it."""

    guard: Guard

    def __post_init__(self) -> None:
        self.row = Row(np.zeros(T), whole=self.guard.tail is not None)
        self.recent = Recent(T) if self.guard.tail else None
        self.total = torch.zeros(1, D)
        self.steps, self.sigma, self.flagged = 0, list[float](), 0

    def see(self, state: torch.Tensor) -> None:
        self.steps += 1
        self.total = self.total + state[None]
        phi = self.total / self.steps
        if self.recent is not None:
            phi = self.recent(phi)
        sigma = float(as_offline(self.guard.anchors, phi.numpy(), self.steps - 1)[0])
        self.sigma.append(sigma)
        self.row.state = RowState.RUNNING  # what is flagged is watched on, as in the mode watch
        self.row.observe(RowState.RUNNING, sigma)
        if not self.flagged:
            look(self.guard, [self.row])
            self.flagged = self.row.flagged_at
