"""The organism's study: what is asked, what is reported, and what is not measured twice."""

from __future__ import annotations

import importlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import D, made, sets

from demur.ablation import tables
from demur.ablation.material import LAST
from demur.ablation.recovering import classes_of
from demur.organism import world
from demur.organism.measuring import study
from demur.organism.measuring.card import SEEN
from demur.organism.measuring.cells import Ask, Cell
from demur.organism.measuring.findings import findings
from demur.types import DemurError

command: Any = importlib.import_module("demur.cli.ablate")  # the name itself is the command in its package


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
    page = findings(found)
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
    assert study.finished(folder / "pair", key)["alpha"] == 0.05
    assert study.finished(folder / "pair", key[::-1]) is None
    (folder / "half.json").write_text(path.read_text()[:500])
    assert study.finished(folder / "half", key) is None
    assert study.finished(folder / "nothing", key) is None
    (folder / "bare.json").write_text(path.read_text())
    assert study.finished(folder / "bare", key) is None, "its figures are not there"


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
    assert "refused" not in classes_of(s)
    fresh = made("fresh", 30, 3, refused=True)
    assert classes_of(replace(s, refused=fresh))["refused"].name == "fresh"
    roles = dict(study.plan("ar", "ar", study.Sizes()))
    assert (roles["refused"].split, roles["refused"].side, roles["refused"].attack) == ("test", "forbidden", "")


@pytest.mark.slow
def test_pairs_side_by_side_show_area_true_positives_and_false_ones_with_intervals(
    report: tuple[dict[str, Any], Path],
) -> None:
    found, _ = report
    page = tables.across([found, found], ["one", "two"])
    assert "TPR at 1% FPR" in page
    (about,) = found["subjects"]
    line = about["fits"][0]["summary"][0]
    ends = f"({line['low']:.2f} to {line['high']:.2f})"
    assert page.count(f"{line['auroc']:.2f} {ends}") >= 2
    (plain,) = [flag for flag in about["fits"][0]["flags"] if flag["name"] == "plain harmless"]
    off = plain["offline"]
    assert f"{100 * off['rate']:.0f} ({100 * off['low']:.0f} to {100 * off['high']:.0f}) / " in page
    for row in tables.table_4(about["fits"][0]):
        assert all("to" in cell or cell == "-" for cell in (*row[1:4], *row[5:8]))


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
