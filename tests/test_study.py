"""Rivals and the study: one protocol for all, and what it reports can be read off the materials it was made from."""

from __future__ import annotations

import importlib
import json
import shutil
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demur.cli import ablating
from demur.dynamics import area
from demur.guards import ablation
from demur.guards.material import Material, sigma_of, together
from demur.guards.rivals import LAST, RIVALS, Setting
from demur.organism import findings, study, world
from demur.organism.card import SEEN
from demur.organism.cells import Ask, Cell
from demur.types import DemurError, Prompt

command: Any = importlib.import_module("demur.cli.ablate")  # the name itself is the command in its package
KEYS = dict.fromkeys([*study.KEYS, *study.ALL_KEYS])
T, D = 16, 12
RNG = np.random.default_rng(0)
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
        for value, low, high in (
            (row.auroc, row.low, row.high),
            (row.precision, row.precision_low, row.precision_high),
            (row.tpr_1, row.tpr_1_low, row.tpr_1_high),
            (row.tpr_5, row.tpr_5_low, row.tpr_5_high),
        ):
            assert 0 <= low <= value <= high <= 1, row
            assert low < high, "60 generations never settle a figure"
        assert (row.positives, row.negatives) == (60, 150 if row.against == ablation.PLAIN else 60)


@pytest.mark.slow
def test_every_rival_is_blind_where_there_is_nothing() -> None:
    """Attacks that look exactly like harmless answers: nobody may find them, and a score must not favour a side."""
    nothing = replace(sets(), attacked={"a": made("x", 200, 0, harmful=True), "b": made("y", 200, 0, harmful=True)})
    for row in ablation.ablate(nothing, seeds=(0,)):
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


def only(monkeypatch: pytest.MonkeyPatch, **left: Any) -> None:
    """Leaves the rivals called, or put, ``probes`` and ``sri``."""
    names = {"probes": "probes, supervised", "sri": "SRI, last layer"}
    kept = {names[key]: rival or RIVALS[names[key]] for key, rival in left.items()}
    for other in list(RIVALS):
        monkeypatch.delitem(RIVALS, other)
    for name, rival in kept.items():
        monkeypatch.setitem(RIVALS, name, rival)


def test_the_supervised_rival_never_sees_the_attack_it_is_tested_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[set[str], set[str]]] = []
    rival = RIVALS["probes, supervised"]

    def make(setting: Setting) -> Any:
        seen.append((set(setting.attacked), set(setting.controls)))
        return rival.make(setting)

    only(monkeypatch, probes=replace(rival, make=make))
    ablation.ablate(sets(), seeds=(0,))
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
    found = ablation.ablate(
        replace(
            s, good=rest["good"], bad=rest["bad"], fit=rest["fit"], calibrate=rest["cal"],
            plain=signed("plain", 60, 0, 12, 20, False),
            attacked={name: signed(name, 60, 0, 12, 0, True) for name in ("a", "b")},
            controls={name: signed("c" + name, 60, 0, 12, 20, False) for name in ("a", "b")},
        ),
        seeds=(0,),
    )  # fmt: skip
    assert seen
    same = [row.auroc for row in found if row.against == ablation.CONTROL]
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
    ablation.ablate(s, seeds=(0,))
    assert seen[::2] == [{"prefix", "page"}, {"role", "page"}, {"page"}, {"role", "prefix", "role-prefix"}]
    assert not ablation.kin("prefix", "prefill")


def test_one_attack_alone_teaches_the_supervised_rival_nothing_and_it_has_no_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, sri=None, probes=None)
    s = sets()
    one = replace(s, attacked={"a": s.attacked["a"]}, controls={"a": s.controls["a"]})
    fit = study.fit_report(one, "plain", seeds=(0,), alpha=0.05)
    assert "probes, supervised" not in {row["detector"] for row in fit["rows"]}
    assert fit["without"] == ["probes, supervised"]
    assert findings.table_4(fit)[-1] == ("probes, supervised", *["-"] * 8)
    with pytest.raises(DemurError, match="no successful attack to learn from"):
        RIVALS["probes, supervised"].make(Setting(s.good, s.bad, s.fit))


def test_what_stands_in_a_row_comes_of_all_seeds() -> None:
    """One seed's interval beside the mean of all said less than is known, and could leave the mean out."""
    rng = np.random.default_rng(0)
    areas = [area(rng.normal(lean, 1, 30), rng.normal(0, 1, 30)) for lean in (0.2, 1, 2)]
    row = ablation._row("x", "a", ablation.PLAIN, areas)
    assert row.low < np.mean([a.low for a in areas]) < row.auroc < np.mean([a.high for a in areas]) < row.high
    same = ablation._row("x", "a", ablation.PLAIN, areas[:1] * 3)
    assert (same.auroc, same.low, same.high, same.tpr_1_low) == pytest.approx(
        (areas[0].auroc, areas[0].low, areas[0].high, areas[0].tpr_1_low)
    )


def test_the_final_text_decides_not_the_one_at_the_last_step_of_the_signal() -> None:
    """The second answer is harmful at step T and takes it back after it; the third refuses after it."""
    marks = np.zeros((3, T), bool)
    harmful, refused = marks.copy(), marks.copy()
    harmful[:2, 3:] = True
    m = Material(
        "long", {LAST: np.ones((3, T, D), np.float32)}, np.ones((3, D), np.float32), refused, harmful,
        np.array([False, True, True]), np.array([True, False, False]), np.array([T, T + 8, T + 8]), ("a", "b", "c"),
    )  # fmt: skip
    assert len(m.succeeded) == len(m.answered) == 1
    assert m.refusing.groups == ("b", "c")
    found = study._recovery_row(m)
    assert {name: (row["rate"], row["n"]) for name, row in found.items()} == {
        "rr": (0.6667, 3), "asr": (0.3333, 3), "hrr": (0.5, 2), "frr": (0.5, 2),
    }  # fmt: skip
    twice = together("twice", [m, m])
    assert twice.refused_finally.tolist() == [False, True, True] * 2
    assert twice.lengths.tolist() == [T, T + 8, T + 8] * 2
    with pytest.raises(DemurError, match="one row for each"):
        replace(m, groups=("a",))


def test_a_cell_keeps_how_its_generations_ended_after_the_last_step_of_the_signal() -> None:
    ended = ("neither",) * 33 + ("harmful",) * 2
    cell = Cell(
        Ask("diffusion", "ar-order", "test", "forbidden"), ("harmful",), (ended,),
        {LAST: np.ones((1, 32, D), np.float32)}, np.ones((1, D), np.float32), ("x",), ("open crypt",),
    )  # fmt: skip
    m = cell.material("late")
    assert m.harmful is not None
    assert not m.harmful.any(), "marks of steps end at T"
    assert len(m.succeeded) == 1
    assert (m.lengths.tolist(), m.groups) == ([35], ("open crypt",))


def test_steps_are_spared_of_those_that_would_have_been_taken() -> None:
    s = sets()
    short = {name: replace(m, taken=np.full(60, T // 2)) for name, m in s.attacked.items()}
    whole, half = (
        {f.name: f for f in ablation.flags(of, alpha=0.05) if f.kind == "attack"}
        for of in (s, replace(s, attacked=short))
    )
    assert whole["b"].online == half["b"].online
    assert 0 <= half["b"].spared < whole["b"].spared


@pytest.mark.slow
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
        assert line.low < line.auroc < line.high or line.high == 1
        assert line.low == pytest.approx(np.mean([row.low for row in mine]))
        assert line.tpr_1_low <= line.tpr_1 <= line.tpr_1_high


def test_the_signal_of_nothing_is_empty() -> None:
    s = sets()
    assert sigma_of(s.plain.only(np.zeros(150, bool)), s.good, s.bad, LAST).shape == (0, T)


# -- the organism's study -----------------------------------------------------------------------------------


SMALLEST: dict[str, Any] = {"n": 24, "alpha": 0.05, "seeds": 1, "workers": 1}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The smallest study there is, of the AR model alone, as the command makes it."""
    folder = tmp_path_factory.mktemp("study")
    shutil.copytree(SEEN / "ar", folder / "pair" / "ar")
    command.ablate(folder=[folder / "pair"], pictures=True, out=folder, **SMALLEST)
    return json.loads((folder / "pair.json").read_text()), folder


@pytest.mark.slow
def test_the_study_reports_every_table(report: tuple[dict[str, Any], Path]) -> None:
    found, folder = report
    (about,) = found["subjects"]
    page = findings.findings(found)
    parts = (
        "Detectors",
        "attack by attack",
        "What the guard flags",
        "Where it is blind",
        "## Recovery",
        "## Over time",
    )
    for part in parts:
        assert part in page
    assert {row["name"] for row in about["over_time"]} >= {"plain harmless", "plain harmful", "page"}
    for row in about["over_time"]:
        assert set(row["times"]) == {"harm", "refusal", "recovery", "below"}
        assert 0 <= row["agreement"] <= 1
    assert sum(about["chain"]["share"]) == pytest.approx(1, abs=0.001)
    assert len(about["fits"]) == 2
    assert about["fits"][1]["n_fit"] > about["fits"][0]["n_fit"], "harmless prompts in the attacks' shapes joined"
    for name in about["figures"]:
        assert (folder / "pair" / name).stat().st_size > 2000
    assert {"trajectories", "irr"} <= {name.split("-")[2].split(".")[0] for name in about["figures"]}


def test_the_sets_of_the_study_share_no_craft() -> None:
    crafts = {}
    for role, ask in study.plan("ar", "ar", study.Sizes()):
        part = "test" if role.split("/")[0] in ("plain", "refused", "attacked", "controls") else role.split("/")[0]
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


def test_the_papers_protocol_has_an_alpha_of_its_own() -> None:
    with pytest.raises(DemurError, match="leave one out"):
        study.study(SEEN, paper=True, alpha=0.05)


def test_text_and_inside_agree_over_all_steps_together_or_there_is_no_figure() -> None:
    """Steps at which one of the two never varies counted as 0 in a mean over steps."""
    sigma = np.array([[0.9, 0.1, 0.1], [0.9, 0.9, 0.1], [0.9, 0.9, 0.9]])
    m = made("m", 3, 0).only(np.ones(3, bool))
    refused = np.array([[False, False, True], [False, False, True], [False, False, False]])
    m = replace(m, refused=refused, harmful=np.zeros((3, 3), bool))
    assert study._time_row("m", m, sigma)["kappa"] == pytest.approx(0.7273, abs=1e-4)
    assert study._time_row("m", replace(m, refused=np.zeros((3, 3), bool)), sigma)["kappa"] is None


@pytest.mark.slow
def test_a_pair_that_was_measured_is_not_measured_again(report: tuple[dict[str, Any], Path]) -> None:
    _, folder = report
    path = folder / "pair.json"
    before = path.read_text()
    begun = time.perf_counter()
    command.ablate(folder=[folder / "pair"], pictures=True, out=folder, **SMALLEST)
    assert time.perf_counter() - begun < 20, "hashing a pair takes a second, measuring it a minute"
    assert path.read_text() == before
    key = json.loads(path.read_text())["made_of"]
    assert command._finished(folder / "pair", key)["alpha"] == 0.05
    assert command._finished(folder / "pair", key[::-1]) is None
    (folder / "half.json").write_text(path.read_text()[:500])
    assert command._finished(folder / "half", key) is None
    assert command._finished(folder / "nothing", key) is None
    (folder / "bare.json").write_text(path.read_text())
    assert command._finished(folder / "bare", key) is None, "its figures are not there"


def test_a_report_is_made_of_weights_and_of_what_was_asked(tmp_path: Path) -> None:
    (tmp_path / "ar").mkdir()
    (tmp_path / "ar" / "model.safetensors").write_bytes(b"one")
    one = study.made_of(tmp_path, n=24, alpha=0.05)
    assert study.made_of(tmp_path, alpha=0.05, n=24) == one
    assert study.made_of(tmp_path, n=25, alpha=0.05) != one
    (tmp_path / "ar" / "model.safetensors").write_bytes(b"two")
    assert study.made_of(tmp_path, n=24, alpha=0.05) != one


def test_what_made_the_anchors_is_not_shown_as_refused() -> None:
    s = sets()
    assert "refused" not in study.classes_of(s)
    fresh = made("fresh", 30, 3, refused=True)
    assert study.classes_of(replace(s, refused=fresh))["refused"].name == "fresh"
    roles = dict(study.plan("ar", "ar", study.Sizes()))
    assert (roles["refused"].split, roles["refused"].side, roles["refused"].attack) == ("test", "forbidden", "")


@pytest.mark.slow
def test_pairs_side_by_side_show_area_true_positives_and_false_ones_with_intervals(
    report: tuple[dict[str, Any], Path],
) -> None:
    found, _ = report
    page = findings.across([found, found], ["one", "two"])
    assert "TPR at 1% FPR" in page
    (about,) = found["subjects"]
    line = about["fits"][0]["summary"][0]
    ends = f"({line['low']:.2f} to {line['high']:.2f})"
    assert page.count(f"{line['auroc']:.2f} {ends}") >= 2
    (plain,) = [flag for flag in about["fits"][0]["flags"] if flag["name"] == "plain harmless"]
    off = plain["offline"]
    assert f"{100 * off['rate']:.0f} ({100 * off['low']:.0f} to {100 * off['high']:.0f}) / " in page
    for row in findings.table_4(about["fits"][0]):
        assert all("to" in cell or cell == "-" for cell in (*row[1:4], *row[5:8]))


# -- the ablation of any model ------------------------------------------------------------------------------


def asked(name: str, n: int, parent: str = "") -> list[Prompt]:
    return [Prompt(f"{name}-{i}", f"{name} {i}", parent=f"{parent}-{i}" if parent else "") for i in range(n)]


def test_shares_shrink_aloud_and_never_under_the_papers_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    parts, anchors, plain = ablating.split(asked("good", 1000), asked("bad", 300), ablating.Counts.of(104, False, {}))
    assert [len(part) for part in parts.values()] == [104, 416, 104, 104]
    assert (len(anchors), len(plain)) == (104, 104)
    assert not {p.id for p in anchors} & {p.id for p in plain}
    assert capsys.readouterr().err == ""
    parts, anchors, plain = ablating.split(asked("good", 120), asked("bad", 110), ablating.Counts.of(104, False, {}))
    assert (sum(map(len, parts.values())) <= 120, len(anchors), len(plain)) == (True, 104, 6)
    err = capsys.readouterr().err
    assert "120 harmless prompts are fewer than 728" in err
    assert "110 harmful prompts are fewer than 208" in err
    parts, anchors, _ = ablating.split(asked("good", 2000), asked("bad", 450), ablating.Counts.of(104, True, {}))
    assert [len(part) for part in parts.values()] == [400, 1200, 200, 104]
    assert len(anchors) == 400
    with pytest.raises(DemurError, match="under --paper"):
        ablating.split(asked("good", 120), asked("bad", 450), ablating.Counts.of(104, True, {}))


def test_no_request_is_both_learned_from_and_tested() -> None:
    known = asked("good", 10)
    ablating.apart("--control page", asked("page", 5, parent="other"), known)
    with pytest.raises(DemurError, match="--control page: 5 of 5"):
        ablating.apart("--control page", asked("page", 5, parent="good"), known)
    with pytest.raises(DemurError, match="--attacked page: 5 of 5"):
        ablating.apart("--attacked page", asked("good", 5), known)


def test_a_model_without_a_judge_has_a_page_too(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, sri=None)
    s = sets()

    def unjudged(m: Material) -> Material:
        return replace(m, harmful=None)

    s = replace(s, attacked={name: unjudged(m) for name, m in s.attacked.items()}, plain=unjudged(s.plain))
    about = {"model": "m", "sampler": "s", "judged": False, "fits": [study.fit_report(s, "plain", seeds=(0,))]}
    about |= study.dynamics_report(s)
    page = findings.findings(json.loads(json.dumps({"alpha": 0.01, "paper": False, "subjects": [about], "orders": []})))
    assert "Where it is blind" in page
    assert "Nobody judged harm" in page
    few = replace(s, calibrate=s.calibrate.only(np.arange(120) < 50))
    short = study.fit_report(few, "plain", seeds=(0,))
    assert (short["flags"], short["short"]) == ([], "50 calibration answers; alpha 0.01 needs 99")


# -- the prompts of the study -------------------------------------------------------------------------------


@pytest.mark.parametrize("split", world.SPLITS)
@pytest.mark.parametrize("forbidden", [True, False])
def test_as_many_prompts_as_the_paper_needs_are_all_different(split: world.Split, forbidden: bool) -> None:
    found = world.prompts(split, forbidden=forbidden, n=1200)
    assert len({prompt.id for prompt in found}) == len({prompt.text for prompt in found}) == 1200
    # Published cards depend on the prompts before the first repetition of the older formula.
    crafts = world.crafts(split, forbidden)
    forms = [world.TEST_FORMS[(k * 29 + k // len(crafts)) % len(world.TEST_FORMS)] for k in range(700)]
    old = [world.request(crafts[k % len(crafts)], form) for k, form in enumerate(forms)]
    assert [prompt.text for prompt in found[:700]] == old
