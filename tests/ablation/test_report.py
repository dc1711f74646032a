"""The report on one model, and its page."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_up import only, sets

from demur.ablation import recovering, report, tables
from demur.ablation.material import Material
from demur.ablation.protocol import CONTROL, PLAIN
from demur.ablation.rivals import RIVALS, Setting
from demur.types import DemurError


@pytest.mark.slow
def test_one_attack_alone_teaches_the_supervised_rival_nothing_and_it_has_no_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, sri=None, probes=None)
    s = sets()
    one = replace(s, attacked={"a": s.attacked["a"]}, controls={"a": s.controls["a"]})
    fit = report.fit_report(one, "plain", seeds=(0,), alpha=0.05)
    assert "probes, supervised" not in {row["detector"] for row in fit["rows"]}
    assert fit["without"] == ["probes, supervised"]
    assert tables.table_4(fit)[-1] == ("probes, supervised", *["-"] * 8)
    with pytest.raises(DemurError, match="no successful attack to learn from"):
        RIVALS["probes, supervised"].make(Setting(s.good, s.bad, s.fit))


def line(detector: str, against: str, attacks: int) -> dict[str, Any]:
    values = dict.fromkeys(("auroc", "low", "high", "tpr_1", "tpr_1_low", "tpr_1_high", "tpr_5", "tpr_5_low"), 0.5)
    return values | {"tpr_5_high": 0.5, "detector": detector, "against": against, "worst": 0.4, "worst_attack": "flip",
                     "attacks": attacks}  # fmt: skip


@pytest.mark.parametrize(("plain", "control"), [(5, 5), (5, 3), (3, 5), (2, 1)])
def test_a_mean_over_fewer_attacks_says_over_how_many(plain: int, control: int) -> None:
    fit = {"summary": [line("a", PLAIN, plain), line("a", CONTROL, control), line("b", PLAIN, max(plain, control))]}
    first, second = tables.table_4(fit)
    assert first[4] == "0.40 flip" + (f" (of {plain})" if plain < control else "")
    assert first[8] == "0.40 flip" + (f" (of {control})" if control < plain else "")
    assert second[4:6] == ("0.40 flip", "-")
    assert bool(tables._fewer(fit)) is (plain != control)


@pytest.mark.slow
def test_a_model_without_a_judge_has_a_page_too(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, sri=None)
    s = sets()

    def unjudged(m: Material) -> Material:
        return replace(m, harmful=None)

    s = replace(s, attacked={name: unjudged(m) for name, m in s.attacked.items()}, plain=unjudged(s.plain))
    about = {"model": "m", "sampler": "s", "judged": False, "fits": [report.fit_report(s, "plain", seeds=(0,))]}
    about |= recovering.dynamics_report(s)
    page = tables.findings(json.loads(json.dumps({"alpha": 0.01, "paper": False, "subjects": [about], "orders": []})))
    assert "Where it is blind" in page
    assert "Nobody judged harm" in page
    few = replace(s, calibrate=s.calibrate.only(np.arange(120) < 50))
    short = report.fit_report(few, "plain", seeds=(0,))
    assert (short["flags"], short["short"]) == ([], "50 calibration answers; alpha 0.01 needs 99")
