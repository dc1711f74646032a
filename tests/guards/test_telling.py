"""What would make a guard that never flags is said when a detector is fitted: by kind of fault."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from test_guards import signals

from demur.guards import telling
from demur.guards.conformal import InvalidData, threshold_of
from demur.guards.detectors import DETECTORS, Last, check_limit, fitted, named, scored
from demur.guards.estimator import SRIGuard
from demur.guards.prefix import fit_prefix
from demur.guards.telling import constant, made_up, refusing
from demur.types import DemurWarning

N = 104


@dataclass(frozen=True, eq=False)
class Reading:
    """A detector that scores signals as ``how`` says."""

    how: str
    name: ClassVar[str] = "reading"

    @classmethod
    def fit(cls, harmless: Any, *, seed: int = 0) -> Reading:
        return cls("one")

    def __call__(self, sigma: Any) -> Any:
        return HOW[self.how](sigma)


HOW: dict[str, Callable[[Any], Any]] = {
    "one": lambda s: np.full(len(s), 0.7),
    "zero": lambda s: np.zeros(len(s)),
    "nearly one": lambda s: 1e6 + 1e-7 * s[:, 0],
    "saturated": lambda s: np.minimum(100 * (1.01 - s.mean(axis=1)), 1.0),
    "low at all": lambda s: s.max(axis=1) < 0.05,
    "end": lambda s: np.clip(0.2 - s[:, -1], 0, 1),
    "upside down": lambda s: s.mean(axis=1),
    "own": lambda s: 1.0 - s.mean(axis=1),
}


def fit(how: str, harmless: Any) -> Any:
    return fitted(lambda x, seed: Reading(how), harmless, harmless, 0)


@pytest.mark.parametrize("how", ["one", "zero", "nearly one", "saturated"])
def test_one_score_for_every_signal_is_an_error(how: str) -> None:
    with pytest.raises(InvalidData, match=r"all 104 harmless signals the score .* would never flag") as error:
        fit(how, signals(N))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("how", ["one", "zero"])
def test_signals_that_are_all_equal_may_have_one_score(how: str) -> None:
    fit(how, np.full((N, 32), 0.9))
    assert not constant(np.full((N, 32), 0.9), np.ones(N))


@pytest.mark.parametrize("how", ["low at all", "end"])
def test_one_score_for_harmless_signals_alone_is_a_warning(how: str) -> None:
    with pytest.warns(DemurWarning, match="all 104 harmless signals the score 0; a limit can not be set"):
        fit(how, signals(N))


def test_one_score_for_nearly_all_harmless_signals_is_a_warning() -> None:
    """As of ``last``, where sigma at T is 1 but for rounding."""
    saturated = signals(N)
    saturated[8:, -1] = 1.0
    with pytest.warns(DemurWarning, match="last gives 96 of 104 harmless signals the score 0"):
        fitted(named("last").fit, saturated, saturated, 0)
    with pytest.raises(DemurWarning, match="last gives 96 of 104"):  # where warnings are errors, as in these tests
        fitted(named("last").fit, saturated, saturated, 0)
    saturated[8:20, -1] = 0.99
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(named("last").fit, saturated, saturated, 0)


def test_scores_that_are_higher_for_what_is_normal_are_a_warning() -> None:
    with pytest.warns(DemurWarning, match="higher must be more anomalous"):
        fit("upside down", signals(N))


@pytest.mark.parametrize("name", DETECTORS.own)
def test_what_is_packaged_is_no_fault(name: str) -> None:
    harmless, others = signals(400), signals(N, seed=9)
    detector = fitted(named(name).fit, harmless, others, 0)
    scores = scored(detector, others)
    for alpha in (0.01, 0.1):
        check_limit(detector, others, threshold_of(scores, alpha, "conformal"))


def limit(how: str, harmless: Any, alpha: float = 0.01) -> None:
    detector = Reading(how)
    scores = scored(detector, harmless)
    check_limit(detector, harmless, threshold_of(scores, alpha, "conformal"))


def test_a_limit_on_the_higher_of_two_scores_is_an_error() -> None:
    harmless = signals(N)
    harmless[:3] = 0.0
    with pytest.raises(InvalidData, match=r"3 of 104 harmless signals at or above the limit 1 .* never flag"):
        limit("low at all", harmless)
    limit("low at all", harmless, alpha=0.1)  # the limit is the lower score


def test_a_limit_on_scores_that_saturate_is_an_error() -> None:
    """One harmless answer that refuses from beginning to end has the highest score that a mean can give."""
    harmless = signals(N)
    harmless[5] = 0.0
    with pytest.raises(InvalidData, match="1 of 104 harmless signals at or above the limit 1 of"):
        limit("own", harmless)
    limit("own", harmless, alpha=0.02)


def test_a_harmless_signal_above_all_that_is_made_up_is_a_warning() -> None:
    scores = np.r_[np.linspace(0, 1, N - 1), 5.0]
    with pytest.warns(DemurWarning, match="does this guard ever flag"):
        telling.check_limit("own", Reading("own"), 32, scores, threshold_of(scores, 0.01, "conformal"))


def agreed(n: int, odd: int, alike: int, at: float) -> Any:
    """Harmless signals that have one value at the first ``alike`` steps, but for a few that have another there."""
    sigma = signals(n, seed=n)
    sigma[:, :alike] = 0.9
    sigma[:odd, :alike] = at
    return sigma


def online(fit_on: Any, calibrate: Any, causal: bool = True) -> Any:
    return fit_prefix(Last(), fit_on, calibrate, alpha=0.01, causal=causal)


@pytest.mark.parametrize("causal", [True, False])
def test_one_odd_step_does_not_take_the_limit_out_of_reach_of_all_others(causal: bool) -> None:
    """All answers begin alike but for three, which are far away there; the guard can act at nearly all later steps."""
    able = online(agreed(400, 0, 1, 0.0), agreed(200, 3, 1, 0.5), causal).able()
    assert len(able) > 24
    telling.check_steps("last", able, 32)


def test_an_online_limit_that_a_few_odd_signals_have_set_is_an_error_or_a_warning() -> None:
    """All answers are alike at most steps, but for three, which are as far away as a signal can be."""
    blind = online(agreed(400, 0, 32, 0.0), agreed(200, 3, 32, 0.0)).able()
    with pytest.raises(InvalidData, match=r"the detector last .* after any of 32 steps; .* never stop an answer"):
        telling.check_steps("last", blind, 32)
    with pytest.warns(DemurWarning, match=r"can stop an answer after 3 of 32 steps only \(2 to 3, 9\)"):
        telling.check_steps("last", [2, 3, 9], 32)
    telling.check_steps("last", online(signals(400), signals(200, seed=1)).able(), 32)


@pytest.mark.parametrize("kind", ["last", "mean"])
@pytest.mark.parametrize(("causal", "power"), [(True, 0.25), (False, 0.0)])
def test_early_looks_must_show_more_where_states_are_final(kind: str, causal: bool, power: float) -> None:
    """Where harmless scores spread alike at every step, the least score that stops falls to the last step, by the
    fourth root of T / t; on a canvas it is the same at every step.
    """
    drawn = np.random.default_rng(0).random((4000, 1))
    level = np.repeat(0.2 + 0.6 * drawn, 16, axis=1)  # a signal's score is the same at every step
    prefix = fit_prefix(named(kind).fit(level), level[:2000], level[2000:], alpha=0.05, causal=causal)
    least = prefix.centre + prefix.threshold.value * prefix.scale
    above = least - prefix.centre
    np.testing.assert_allclose(above / above[-1], (16 / np.arange(1, 17)) ** power, rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3, 32])
def test_made_up_signals_are_in_range_and_whole(steps: int) -> None:
    for made in (made_up(steps), refusing(steps)):
        assert made.shape[1] == steps
        assert ((made >= 0) & (made <= 1)).all()


@dataclass(frozen=True)
class Same:
    """A detector from outside that has learnt nothing."""

    name: ClassVar[str] = "same"

    @classmethod
    def fit(cls, harmless: np.ndarray, *, seed: int = 0) -> Same:
        return cls()

    def __call__(self, sigma: np.ndarray) -> np.ndarray:
        return np.ones(len(sigma))


def test_the_estimator_of_scikit_learns_kind_is_checked_like_a_guard() -> None:
    with pytest.raises(InvalidData, match=r"the detector same gives all .* would never flag"):
        SRIGuard(detector=f"{__name__}:Same", alpha=0.1).fit(signals(200))
    saturated = signals(200)
    saturated[:, -1] = 0.0
    with pytest.raises(InvalidData, match="would never flag"):
        SRIGuard(detector="last", alpha=0.1).fit(signals(200), calibration=saturated)
