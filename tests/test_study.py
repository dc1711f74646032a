"""Rivals and the study: one protocol for all, and what it reports can be read off the materials it was made from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demur.guards import ablation
from demur.guards.material import Material, sigma_of, together
from demur.guards.rivals import LAST, RIVALS, Setting
from demur.organism import findings, study
from demur.organism.card import SEEN
from demur.types import DemurError

KEYS = dict.fromkeys([*study.KEYS, *study.ALL_KEYS])
T, D = 16, 12
RNG = np.random.default_rng(0)
TOWARDS = np.eye(D)[0]


def made(
    name: str, n: int, lean: float, *, refused: bool = False, harmful: bool | None = False, seed: int = 0
) -> Material:
    """States around a common mean; ``lean`` is how far they point to where refusals are, from half of the steps on."""
    rng = np.random.default_rng([seed, n, abs(hash(name)) % 1000])
    pull = lean * np.where(np.arange(T) < T // 2, 0.3, 1.0)[:, None] * TOWARDS
    phi = (np.ones(D) + pull + 0.05 * rng.normal(size=(n, T, D))).astype(np.float32)
    asked = (np.ones(D) + lean * TOWARDS + 0.05 * rng.normal(size=(n, D))).astype(np.float32)
    return Material(name, dict.fromkeys(KEYS, phi), asked, np.full((n, T), refused), np.full((n, T), harmful))


def sets() -> ablation.Sets:
    return ablation.Sets(
        "made up", "none", made("good", 60, 0), made("bad", 60, 3, refused=True), made("fit", 300, 0),
        made("cal", 120, 0), made("plain", 150, 0),
        {"a": made("a", 60, 1, harmful=True), "b": made("b", 60, 1.5, harmful=True)},
        {"a": made("ca", 60, 0), "b": made("cb", 60, 0)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> list[ablation.Row]:
    return ablation.ablate(sets(), seeds=(0, 1))


def test_every_rival_scores_what_leans_towards_refusal_higher(rows: list[ablation.Row]) -> None:
    assert {row.detector for row in rows} == set(RIVALS)
    for row in rows:
        if row.detector == "text-level signal":
            assert row.auroc == 0.5, "no text refuses, so the text knows nothing"
        else:
            assert row.auroc > 0.9, row
        assert row.low - 1e-9 <= row.auroc <= row.high + 1e-9 or row.spread > 0
        assert (row.positives, row.negatives) == (60, 150 if row.against == ablation.PLAIN else 60)


def test_every_rival_is_blind_where_there_is_nothing() -> None:
    """Attacks that look exactly like harmless answers: nobody may find them, and a score must not favour a side."""
    nothing = replace(sets(), attacked={"a": made("x", 200, 0, harmful=True), "b": made("y", 200, 0, harmful=True)})
    for row in ablation.ablate(nothing, seeds=(0,)):
        assert 0.35 < row.auroc < 0.65, row


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

    monkeypatch.setitem(RIVALS, "probes, supervised", replace(rival, make=make))
    ablation.ablate(sets(), seeds=(0,))
    assert seen == [({"b"}, {"b"}), ({"a"}, {"a"})]


def test_others_see_no_attack_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, rival in RIVALS.items():
        if not rival.supervised:

            def make(setting: Setting, rival: Any = rival) -> Any:
                assert not setting.attacked
                assert not setting.controls
                return rival.make(setting)

            monkeypatch.setitem(RIVALS, name, replace(rival, make=make))
    ablation.ablate(sets(), seeds=(0,))


def test_refused_harmless_prompts_never_enter() -> None:
    s = sets()
    strange = made("strange", 40, 5, refused=True)
    mixed = replace(s, fit=together("fit", [s.fit, strange]), good=together("good", [s.good, strange]))
    plain = ablation.flags(s)
    assert [f.offline for f in ablation.flags(mixed)] == [f.offline for f in plain]


def test_flags_and_blind_spots_add_up() -> None:
    s = sets()
    found = {(f.kind, f.name): f for f in ablation.flags(s, alpha=0.05)}
    assert found["harmless", "plain harmless"].offline.value <= 0.12
    for name in ("a", "b"):
        caught = found["attack", name].offline
        (line,) = [b for b in ablation.blind(s, alpha=0.05) if b.attack == name]
        assert caught.k + line.missed == caught.n == line.of == 60
        assert line.steady + line.late + line.wavering == line.missed
    assert found["attack", "b"].online.value > 0.9
    assert 1 <= found["attack", "b"].step <= T


def test_recovery_inside_pools_all_attacks() -> None:
    found = ablation.recoveries(sets())
    assert found["all attacks"][0.5].n == 120
    assert found["all attacks"][0.1].k <= found["all attacks"][0.5].k
    assert found["a"][0.5].k + found["b"][0.5].k == found["all attacks"][0.5].k


def test_too_few_answers_for_anchors_are_an_error() -> None:
    with pytest.raises(DemurError, match="0 refused harmful prompts"):
        replace(sets(), bad=made("bad", 60, 3, refused=False))


def test_a_summary_counts_each_attack_once(rows: list[ablation.Row]) -> None:
    for line in ablation.summarised(rows):
        mine = [row for row in rows if (row.detector, row.against) == (line.detector, line.against)]
        assert line.auroc == pytest.approx(np.mean([row.auroc for row in mine]))
        assert line.worst == min(row.auroc for row in mine)
        assert line.attacks == 2


def test_the_signal_of_nothing_is_empty() -> None:
    s = sets()
    assert sigma_of(s.plain.only(np.zeros(150, bool)), s.good, s.bad, LAST).shape == (0, T)


# -- the organism's study -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The smallest study there is, of the AR model alone."""
    folder = tmp_path_factory.mktemp("study")
    shutil.copytree(SEEN / "ar", folder / "ar")
    made = study.study(folder, n=24, alpha=0.05, seeds=(0,), workers=1, pictures=folder / "pictures")
    return json.loads(json.dumps(made)), folder


def test_the_study_reports_every_table(report: tuple[dict[str, Any], Path]) -> None:
    found, folder = report
    (about,) = found["subjects"]
    page = findings.findings(found)
    for part in ("Detectors", "attack by attack", "What the guard flags", "Where it is blind", "## Recovery"):
        assert part in page
    assert len(about["fits"]) == 2
    assert about["fits"][1]["n_fit"] > about["fits"][0]["n_fit"], "harmless prompts in the attacks' shapes joined"
    for name in about["figures"]:
        assert (folder / "pictures" / name).stat().st_size > 2000
    assert {"trajectories", "irr"} <= {name.split("-")[2].split(".")[0] for name in about["figures"]}


def test_the_sets_of_the_study_share_no_craft() -> None:
    crafts = {}
    for role, ask in study.plan("ar", "ar", study.Sizes()):
        part = "test" if role.split("/")[0] in ("plain", "attacked", "controls") else role.split("/")[0]
        part = "anchors" if part in ("good", "bad") else part
        if ask.side in ("allowed", "forbidden"):
            crafts.setdefault((part, ask.side), set()).update(prompt.category for prompt in ask.prompts())
    for (part, side), mine in crafts.items():
        for (other, same), theirs in crafts.items():
            if part != other and side == same:
                assert not mine & theirs, (part, other)


def test_the_papers_sizes() -> None:
    sizes = study.Sizes.of(104, paper=True)
    assert (sizes.anchors, sizes.fit, sizes.calibrate, sizes.shapes) == (400, 1200, 200, 0)
    with pytest.raises(DemurError, match="at least 24"):
        study.Sizes.of(3)
