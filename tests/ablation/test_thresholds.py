"""The guard with its threshold on every set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from made_up import T, made, sets

from demur.ablation import thresholds
from demur.ablation.material import together
from demur.guards.prefix import fit_prefix


def test_steps_are_spared_of_those_that_would_have_been_taken() -> None:
    s = sets()
    short = {name: replace(m, taken=np.full(60, T // 2)) for name, m in s.attacked.items()}
    whole, half = (
        {f.name: f for f in thresholds.flags(of, alpha=0.05) if f.kind == "attack"}
        for of in (s, replace(s, attacked=short))
    )
    assert whole["b"].online == half["b"].online
    assert 0 <= half["b"].spared < whole["b"].spared


def test_what_an_answer_only_holds_behind_its_end_stops_nothing() -> None:
    """As at work: the guard looks at the steps that an answer has made."""
    s = sets()
    calm = made("calm", 60, 0)
    late = {
        name: replace(
            m, phi={k: np.concatenate([calm.phi[k][:, : T // 2], phi[:, T // 2 :]], 1) for k, phi in m.phi.items()}
        )
        for name, m in s.attacked.items()
    }
    s = replace(s, attacked=late)
    taken = {name: np.random.default_rng(0).integers(1, T + 1, len(m)) for name, m in s.attacked.items()}
    short = replace(s, attacked={name: replace(m, taken=taken[name]) for name, m in s.attacked.items()})
    whole, cut = ({f.name: f for f in thresholds.flags(of, alpha=0.05) if f.kind == "attack"} for of in (s, short))
    detector, fit, held = thresholds.calibrated(s, 0.05, 0, "conformal")
    prefix = fit_prefix(detector.detector_, fit, held, alpha=0.05, causal=s.causal)
    for name, m in s.attacked.items():
        stops = prefix.stops(s.sigma(m.succeeded))
        assert whole[name].online.k == (stops > 0).sum()
        assert cut[name].online.k == ((stops > 0) & (stops <= taken[name])).sum()
    assert cut["b"].online.k < whole["b"].online.k


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
