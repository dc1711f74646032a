"""A file whose promise can not be true is not loaded, whoever made its digest anew."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_detectors import _changed

import demur.guards as g
from demur import artefact
from demur.types import DemurError, DemurWarning

OLDER = Path(__file__).parents[1] / "older" / "guard-0.1.0.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    guard = g.Guard.load(OLDER)
    return artefact.load(guard.save(tmp_path_factory.mktemp("guards") / "today.safetensors"), "guard")


def forged(path: Path, whole: Any, *changes: tuple[tuple[str, ...], Any]) -> Path:
    for at, value in changes:
        whole = _changed(whole, at, value)
    return artefact.save(path / "forged.safetensors", "guard", *whole)


def tail(**wrong: Any) -> dict[str, Any]:
    """The part of a file that is about what follows step T."""
    return {"upto": 64, "threshold": {"value": 0.7, "alpha": 0.01, "rule": "conformal", "n": 200} | wrong}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ([(("threshold", "alpha"), 1e-9)], "threshold promises at most 1e-09 from"),
        ([(("prefix", "alpha"), 1e-9)], "prefix promises at most 1e-09 from"),
        ([(("tail",), tail(alpha=1e-9))], "tail promises"),
        ([(("threshold", "n"), 1)], "from 1 scores"),
        ([(("threshold", "rule"), "conformal"), (("threshold", "n"), 3)], "which takes"),
        ([(("threshold", "alpha"), 0.6), (("tail",), tail(alpha=0.5))], "alpha is 1.1 of the whole answer"),
        ([(("threshold", "value"), 1e308)], "threshold has the limit 1e[+]308"),
        ([(("threshold", "value"), -1e308)], "below every score there is"),
        ([(("threshold", "value"), 0.0)], "below every score there is"),
        ([(("prefix", "value"), 1e308)], "prefix has the limit"),
        ([(("prefix", "value"), -1e308)], "below every score there is"),
        ([(("tail",), tail(value=1.0))], "tail has the limit 1"),
        ([(("tail",), tail(value=-0.1))], "tail has the limit -0.1"),
        ([(("checked",), {"new": [5, 3]})], "not k of n"),
        ([(("checked_online",), {"new": [-1, 3]})], "not k of n"),
        ([(("checked",), {"new": [0.5, 3]})], "not k of n"),
        ([(("checked",), {"new": [1, 3, -1]})], "not k of n"),
        ([(("n_fit",), -1)], "n_fit is -1"),
        ([(("refused",), -5)], "refused is -5"),
        ([(("arrays", "anchors/harmless_sigma"), np.full(32, np.nan))], "harmless_sigma is not finite"),
    ],
)
def test_a_promise_that_can_not_be_true_is_one_line(
    changes: list[tuple[tuple[str, ...], Any]], named: str, whole: Any, tmp_path: Path
) -> None:
    with pytest.raises(DemurError, match=named) as error:
        g.Guard.load(forged(tmp_path, whole, *changes))
    assert "\n" not in str(error.value)
    assert "forged" in str(error.value)


@pytest.mark.parametrize("side", ["harmless", "harmful"])
def test_anchors_that_are_not_finite_are_not_loaded(side: str, whole: Any, tmp_path: Path) -> None:
    states = whole[0][f"anchors/{side}"].copy()
    states[3, 0] = np.inf
    with pytest.raises(DemurError, match=f"{side} is not finite"):
        g.Guard.load(forged(tmp_path, whole, (("arrays", f"anchors/{side}"), states)))


def test_a_limit_that_nothing_made_up_exceeds_is_said(whole: Any, tmp_path: Path) -> None:
    """A single harmless signal may have set it: that is no certain fault."""
    from demur.guards.detectors import scored
    from demur.guards.telling import made_up

    highest = float(scored(g.Guard.load(OLDER).detector, made_up(32)).max())
    with pytest.warns(DemurWarning, match="does it ever flag"):
        g.Guard.load(forged(tmp_path, whole, (("threshold", "value"), 2 * highest)))


def test_a_whole_file_loads_without_a_word(whole: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        g.Guard.load(OLDER)
        g.Guard.load(forged(tmp_path, whole))


@pytest.mark.parametrize(("alpha", "n"), [(0.02, 58), (0.02, 98), (0.02, 99), (0.05, 38), (0.05, 39), (0.01, 99)])
def test_a_limit_that_is_the_highest_score_says_so_and_how_many_it_takes(alpha: float, n: int) -> None:
    """One odd answer then decides what is caught; so it is where n is below 2 / alpha - 1."""
    scores = np.arange(n) / n
    limit = g.conformal_threshold(scores, alpha)
    said = g.Threshold(limit, alpha, "conformal", n).promise
    assert ("the limit is the highest" in said) == (limit == scores.max()) == (n < 2 / alpha - 1)
    if limit == scores.max():
        assert f"with {round(2 / alpha - 1)} prompts or more" in said
