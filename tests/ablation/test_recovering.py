"""What happens over time in the text and inside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_up import D, T, made, sets

from demur.ablation import recovering
from demur.ablation.material import LAST, Material, sigma_of, together
from demur.ablation.tables import _recovery
from demur.types import DemurError


@pytest.mark.parametrize("silent", [0, 1, 3])
def test_without_a_judge_an_empty_answer_is_no_success(silent: int) -> None:
    refused = np.zeros((5, T), bool)
    refused[4] = True
    m = Material("m", {LAST: np.ones((5, T, D), np.float32)}, np.ones((5, D), np.float32), refused)
    quiet = replace(m, silent=np.arange(5) < silent)
    assert len(quiet.succeeded) == 4 - silent
    found = recovering.recovery_row(quiet)
    assert (found["rr"]["n"], found["asr"]["n"], found["asr"].get("unscored", 0)) == (5 - silent, 5 - silent, silent)
    assert found["asr"]["rate"] == round((4 - silent) / (5 - silent), 4)
    assert len(together("both", [quiet, m]).succeeded) == 8 - silent
    judged = replace(quiet, harmful=~refused)
    assert len(judged.succeeded) == 4, "who judges says so himself"
    assert recovering.recovery_row(judged)["asr"]["n"] == 5


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
    found = recovering.recovery_row(m)
    assert {name: (row["rate"], row["n"]) for name, row in found.items()} == {
        "rr": (0.6667, 3), "asr": (0.3333, 3), "hrr": (0.5, 2), "frr": (0.5, 2),
    }  # fmt: skip
    read = recovering.recovery_row(replace(m, read=("answers", "refuses", "")))["rr_read"]
    assert (read["rate"], read["n"]) == (0.5, 2), "what can not be read is left out"
    both = replace(m, read=("answers", "refuses", ""))
    assert together("both", [both, both.only(np.array([True, False, False]))]).read == (
        "answers",
        "refuses",
        "",
        "answers",
    )
    shown = _recovery({"recovery": {"a": recovering.recovery_row(both)}, "irr": {}})
    assert "| attack | RR | RR, read | ASR |" in shown
    assert "RR, read" not in _recovery({"recovery": {"a": found}, "irr": {}}), "results of earlier versions"
    assert together("half", [both, m]).read == (), "who was not read has no rate"
    twice = together("twice", [m, m])
    assert twice.refused_finally.tolist() == [False, True, True] * 2
    assert twice.lengths.tolist() == [T, T + 8, T + 8] * 2
    with pytest.raises(DemurError, match="one row for each"):
        replace(m, groups=("a",))


def test_recovery_inside_pools_all_attacks() -> None:
    found = recovering.recoveries(sets())
    assert found["all attacks"][0.5].n == 120
    assert found["all attacks"][0.1].k <= found["all attacks"][0.5].k
    assert found["a"][0.5].k + found["b"][0.5].k == found["all attacks"][0.5].k


def test_text_and_inside_agree_over_all_steps_together_or_there_is_no_figure() -> None:
    """Steps at which one of the two never varies counted as 0 in a mean over steps."""
    sigma = np.array([[0.9, 0.1, 0.1], [0.9, 0.9, 0.1], [0.9, 0.9, 0.9]])
    m = made("m", 3, 0).only(np.ones(3, bool))
    refused = np.array([[False, False, True], [False, False, True], [False, False, False]])
    m = replace(m, refused=refused, harmful=np.zeros((3, 3), bool))
    assert recovering.time_row("m", m, sigma)["kappa"] == pytest.approx(0.7273, abs=1e-4)
    assert recovering.time_row("m", replace(m, refused=np.zeros((3, 3), bool)), sigma)["kappa"] is None


def test_the_signal_of_nothing_is_empty() -> None:
    s = sets()
    assert sigma_of(s.plain.only(np.zeros(150, bool)), s.good, s.bad, LAST).shape == (0, T)
