"""Rivals under one protocol: what the figures are made of, and what no detector may have seen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from made_up import KEYS, T, made, only, sets

from demur.ablation import protocol
from demur.ablation.material import LAST, Material
from demur.ablation.rivals import RIVALS, Setting
from demur.dynamics import area
from demur.types import DemurError


@pytest.fixture(scope="module")
def rows() -> list[protocol.Comparison]:
    return protocol.ablate(sets(), seeds=(0,))


def test_every_rival_scores_what_leans_towards_refusal_higher(rows: list[protocol.Comparison]) -> None:
    assert {row.detector for row in rows} == set(RIVALS)
    for row in rows:
        if row.detector == "text-level signal":
            assert row.auroc == 0.5, "no text refuses, so the text knows nothing"
        else:
            assert row.auroc > 0.9, row
        for value, low, high in (
            (row.auroc, row.low, row.high),
            (row.precision, row.precision_low, row.precision_high),
            (row.tpr_1, row.tpr_1_low, row.tpr_1_high),
            (row.tpr_5, row.tpr_5_low, row.tpr_5_high),
        ):
            assert 0 <= low <= value <= high <= 1, row
            assert low < high, "60 generations never settle a figure"
        assert (row.positives, row.negatives) == (60, 150 if row.against == protocol.PLAIN else 60)


class Lowest:
    """A detector from outside."""

    name = "lowest"

    @classmethod
    def fit(cls, harmless: Any, *, seed: int = 0) -> Any:
        return Fitted()


@dataclass(frozen=True)
class Fitted(Lowest):
    def __call__(self, sigma: Any) -> Any:
        return -sigma.min(axis=1)


def test_a_detector_from_outside_stands_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demur.ablation.rivals.RIVALS", {"lowest sigma": RIVALS["lowest sigma"]})
    name = f"{__name__}:Fitted"
    rows = {(row.detector, row.attack, row.against): row for row in protocol.ablate(sets(), detectors=[name])}
    mine = {key[1:]: row.auroc for key, row in rows.items() if key[0] == name}
    assert mine
    assert mine == {key[1:]: row.auroc for key, row in rows.items() if key[0] == "lowest sigma"}
    with pytest.raises(DemurError, match="nowhere:Part"):
        protocol.ablate(sets(), detectors=["nowhere:Part"])


@pytest.mark.slow
def test_every_rival_is_blind_where_there_is_nothing() -> None:
    """Attacks that look exactly like harmless answers: nobody may find them, and a score must not favour a side."""
    nothing = replace(sets(), attacked={"a": made("x", 200, 0, harmful=True), "b": made("y", 200, 0, harmful=True)})
    for row in protocol.ablate(nothing, seeds=(0,)):
        assert 0.35 < row.auroc < 0.65, row


@pytest.mark.slow
def test_a_rival_scores_a_row_by_itself() -> None:
    s = sets()
    setting = Setting(s.good, s.bad, s.fit, attacked={"b": s.attacked["b"]}, controls={"b": s.controls["b"]})
    one = np.arange(60) == 7
    for name, rival in RIVALS.items():
        score = rival.make(setting)
        assert score(s.attacked["a"])[7] == pytest.approx(score(s.attacked["a"].only(one))[0], rel=1e-6), name
        assert len(score(s.attacked["a"].only(~one & one))) == 0, name


def test_the_supervised_rival_never_sees_the_attack_it_is_tested_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[set[str], set[str]]] = []
    rival = RIVALS["probes, supervised"]

    def make(setting: Setting) -> Any:
        seen.append((set(setting.attacked), set(setting.controls)))
        return rival.make(setting)

    only(monkeypatch, probes=replace(rival, make=make))
    protocol.ablate(sets(), seeds=(0,))
    assert seen == 2 * [({"b"}, {"b"})] + 2 * [({"a"}, {"a"})]


def signed(name: str, n: int, lean: float, crafts: int, begin: int, harmful: bool) -> Material:
    """States in which every craft leaves a mark of its own, and little else."""
    m = made(name, n, lean, harmful=harmful)
    which = begin + np.arange(n) % crafts
    marks = np.random.default_rng(7).normal(size=(64, 40))[which]
    phi = np.concatenate([m.phi[LAST], np.repeat(marks[:, None], T, axis=1)], axis=2).astype(np.float32)
    return replace(m, phi=dict.fromkeys(KEYS, phi), groups=tuple(f"craft {i}" for i in which))


def test_the_supervised_rival_never_sees_the_requests_it_is_tested_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks wrap the same crafts. Where states tell the craft and nothing else, a probe must be at a loss."""
    seen: list[set[str]] = []
    rival = RIVALS["probes, supervised"]

    def make(setting: Setting) -> Any:
        fitted = {r for of in (setting.attacked, setting.controls) for m in of.values() for r in m.requests}
        score = rival.make(setting)

        def checked(m: Material) -> Any:
            assert not fitted & set(m.requests)
            seen.append(set(m.requests))
            return score(m)

        return checked

    only(monkeypatch, probes=replace(rival, make=make))
    s = sets()
    rest = {n: signed(n, 60, 0, 1, 60, False) for n in ("good", "bad", "fit", "cal")}
    rest["bad"] = replace(rest["bad"], refused=np.ones((60, T), bool))
    found = protocol.ablate(
        replace(
            s, good=rest["good"], bad=rest["bad"], fit=rest["fit"], calibrate=rest["cal"],
            plain=signed("plain", 60, 0, 12, 20, False),
            attacked={name: signed(name, 60, 0, 12, 0, True) for name in ("a", "b")},
            controls={name: signed("c" + name, 60, 0, 12, 20, False) for name in ("a", "b")},
        ),
        seeds=(0,),
    )  # fmt: skip
    assert seen
    same = [row.auroc for row in found if row.against == protocol.CONTROL]
    assert len(same) == 2
    assert max(same) < 0.9, "fitted on the same crafts the probe has 1.00 here"


def test_an_attack_and_the_ones_that_hold_it_are_left_out_together(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    rival = RIVALS["probes, supervised"]

    def make(setting: Setting) -> Any:
        seen.append(set(setting.attacked))
        return rival.make(setting)

    only(monkeypatch, probes=replace(rival, make=make))
    names = ("role", "prefix", "role-prefix", "page")
    s = replace(sets(), attacked={name: made(name, 20, 1, harmful=True) for name in names}, controls={})
    protocol.ablate(s, seeds=(0,))
    assert seen[::2] == [{"prefix", "page"}, {"role", "page"}, {"page"}, {"role", "prefix", "role-prefix"}]
    assert not protocol.kin("prefix", "prefill")


def test_what_stands_in_a_row_comes_of_all_seeds() -> None:
    """One seed's interval beside the mean of all said less than is known, and could leave the mean out."""
    rng = np.random.default_rng(0)
    areas = [area(rng.normal(lean, 1, 30), rng.normal(0, 1, 30)) for lean in (0.2, 1, 2)]
    row = protocol.compared("x", "a", protocol.PLAIN, areas)
    assert row.low < np.mean([a.low for a in areas]) < row.auroc < np.mean([a.high for a in areas]) < row.high
    same = protocol.compared("x", "a", protocol.PLAIN, areas[:1] * 3)
    assert (same.auroc, same.low, same.high, same.tpr_1_low) == pytest.approx(
        (areas[0].auroc, areas[0].low, areas[0].high, areas[0].tpr_1_low)
    )


@pytest.mark.slow
def test_others_see_no_attack_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, rival in RIVALS.items():
        if not rival.supervised:

            def make(setting: Setting, rival: Any = rival) -> Any:
                assert not setting.attacked
                assert not setting.controls
                return rival.make(setting)

            monkeypatch.setitem(RIVALS, name, replace(rival, make=make))
    protocol.ablate(sets(), seeds=(0,))


def test_too_few_answers_for_anchors_are_an_error() -> None:
    with pytest.raises(DemurError, match="0 refused harmful prompts"):
        replace(sets(), bad=made("bad", 60, 3, refused=False))


def test_a_summary_counts_each_attack_once(rows: list[protocol.Comparison]) -> None:
    for line in protocol.summarised(rows):
        mine = [row for row in rows if (row.detector, row.against) == (line.detector, line.against)]
        assert line.auroc == pytest.approx(np.mean([row.auroc for row in mine]))
        assert line.worst == min(row.auroc for row in mine)
        assert line.attacks == 2
        assert line.low < line.auroc < line.high or line.high == 1
        assert line.low == pytest.approx(np.mean([row.low for row in mine]))
        assert line.tpr_1_low <= line.tpr_1 <= line.tpr_1_high
