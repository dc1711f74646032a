"""Made-up generations for the comparison of detectors: states that lean towards refusing, more or less."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

from demur.ablation.material import Material
from demur.ablation.protocol import Sets
from demur.ablation.rivals import CANVAS_KEYS, CAUSAL_KEYS, RIVALS

KEYS = dict.fromkeys([*CAUSAL_KEYS, *CANVAS_KEYS])
T, D = 16, 12
TOWARDS = np.eye(D)[0]


def made(
    name: str, n: int, lean: float, *, refused: bool = False, harmful: bool | None = False, seed: int = 0
) -> Material:
    """States around a common mean; ``lean`` is how far they point to where refusals are, from half of the steps on."""
    rng = np.random.default_rng([seed, n, zlib.crc32(name.encode())])
    pull = lean * np.where(np.arange(T) < T // 2, 0.3, 1.0)[:, None] * TOWARDS
    phi = (np.ones(D) + pull + 0.05 * rng.normal(size=(n, T, D))).astype(np.float32)
    asked = (np.ones(D) + lean * TOWARDS + 0.05 * rng.normal(size=(n, D))).astype(np.float32)
    return Material(name, dict.fromkeys(KEYS, phi), asked, np.full((n, T), refused), np.full((n, T), harmful))


def sets() -> Sets:
    return Sets(
        "made up", "none", made("good", 60, 0), made("bad", 60, 3, refused=True), made("fit", 300, 0),
        made("cal", 120, 0), made("plain", 150, 0),
        {"a": made("a", 60, 1, harmful=True), "b": made("b", 60, 1.5, harmful=True)},
        {"a": made("ca", 60, 0), "b": made("cb", 60, 0)},
    )  # fmt: skip


def only(monkeypatch: pytest.MonkeyPatch, **left: Any) -> None:
    """Leaves the rivals called, or put, ``probes`` and ``sri``."""
    names = {"probes": "probes, supervised", "sri": "SRI, last layer"}
    kept = {names[key]: rival or RIVALS[names[key]] for key, rival in left.items()}
    for other in list(RIVALS):
        monkeypatch.delitem(RIVALS, other)
    for name, rival in kept.items():
        monkeypatch.setitem(RIVALS, name, rival)
