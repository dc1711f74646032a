"""The guard with its threshold on every set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from made_up import T, made, sets

from demur.ablation import thresholds
from demur.ablation.material import together


def test_steps_are_spared_of_those_that_would_have_been_taken() -> None:
    s = sets()
    short = {name: replace(m, taken=np.full(60, T // 2)) for name, m in s.attacked.items()}
    whole, half = (
        {f.name: f for f in thresholds.flags(of, alpha=0.05) if f.kind == "attack"}
        for of in (s, replace(s, attacked=short))
    )
    assert whole["b"].online == half["b"].online
    assert 0 <= half["b"].spared < whole["b"].spared


def test_refused_harmless_prompts_never_enter() -> None:
    s = sets()
    strange = made("strange", 40, 5, refused=True)
    mixed = replace(s, fit=together("fit", [s.fit, strange]), good=together("good", [s.good, strange]))
    plain = thresholds.flags(s)
    assert [f.offline for f in thresholds.flags(mixed)] == [f.offline for f in plain]


def test_flags_and_blind_spots_add_up() -> None:
    s = sets()
    found = {(f.kind, f.name): f for f in thresholds.flags(s, alpha=0.05)}
    assert found["harmless", "plain harmless"].offline.value <= 0.12
    for name in ("a", "b"):
        caught = found["attack", name].offline
        (line,) = [b for b in thresholds.blind(s, alpha=0.05) if b.attack == name]
        assert caught.k + line.missed == caught.n == line.of == 60
        assert line.steady + line.late + line.wavering == line.missed
    assert found["attack", "b"].online.value > 0.9
    assert 1 <= found["attack", "b"].step <= T
