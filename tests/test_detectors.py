"""Every detector keeps the contract that a guard asks of it: scores, independent rows, state without a pickle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from test_guards import signals, tiny_guard, tiny_traces

from demur import guards as g
from demur.guards.detectors import BUILT_IN, check, named, restored, scored, state_of
from demur.types import DemurError

NAMES = sorted(BUILT_IN)


@cache
def fitted(name: str) -> Any:
    return named(name).fit(signals(600), seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_has_the_same_bits_alone_and_in_any_batch(name: str) -> None:
    detector, x = fitted(name), signals(500, seed=5)
    together = scored(detector, x)
    assert (np.array([scored(detector, x[i : i + 1])[0] for i in range(0, 500, 37)]) == together[::37]).all()
    assert (scored(detector, x[::-1])[::-1] == together).all()
    assert (scored(detector, np.asfortranarray(x)) == together).all()
    check(detector, x)


@pytest.mark.parametrize("name", NAMES)
def test_what_hesitates_has_a_higher_score_than_what_does_not(name: str) -> None:
    detector, odd = fitted(name), signals(200, seed=4)
    odd[:, 8:16] = 0.1
    harmless = detector(signals(1000, seed=8))
    assert (detector(odd) > np.quantile(harmless, 0.99)).mean() > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_comes_back_from_arrays_and_a_card(name: str) -> None:
    detector, x = fitted(name), signals(50, seed=6)
    again = restored(named(name, anywhere=False), *state_of(detector))
    assert (again(x) == detector(x)).all()
    assert type(again) is type(detector)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("alpha", [0.01, 0.1])
def test_the_promise_holds_over_2000_splits_offline_and_online(name: str, alpha: float) -> None:
    """The pool is drawn anew for every split; the mean rate may not exceed alpha, nor fall far below it."""
    n, pool = 99, signals(4_000, seed=77)
    prefix = g.fit_prefix(fitted(name), signals(600), pool[:200], alpha=alpha)
    rng = np.random.default_rng(n)
    for scores in (scored(fitted(name), pool), prefix.scores(pool).max(axis=1)):
        rates = []
        for _ in range(2000):
            drawn = rng.choice(len(scores), n + 200, replace=False)
            limit = g.conformal_threshold(scores[drawn[:n]], alpha)
            rates.append((scores[drawn[n:]] > limit).mean())
        error = np.std(rates) / 2000**0.5
        assert np.mean(rates) <= alpha + 3 * error
        k = np.ceil((n + 1) * (1 - alpha) - 1e-9)
        assert np.mean(rates) >= (n + 1 - k) / (n + 1) - 4 * error


def test_the_forest_scores_as_scikit_learns() -> None:
    from sklearn.ensemble import IsolationForest

    harmless, x = signals(300), np.concatenate([signals(100, seed=3), np.random.default_rng(0).random((100, 32))])
    for seed in (0, 1):
        ours = g.IsolationForest.fit(harmless, seed=seed)
        theirs = IsolationForest(random_state=seed).fit((harmless - ours.centre) / ours.scale)
        assert -theirs.score_samples((x - ours.centre) / ours.scale) == pytest.approx(ours(x), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_that_is_not_finite_has_no_score(name: str) -> None:
    x = signals(4)
    x[1, 3], x[2, 0] = np.nan, np.inf
    assert np.isfinite(scored(fitted(name), x)).tolist() == [True, False, False, True]


@pytest.mark.parametrize("name", NAMES)
def test_a_guard_of_any_detector_is_saved_judges_and_watches(name: str, tmp_path: Path) -> None:
    fit, other = tiny_traces(80), tiny_traces(40, offset=1000)
    guard = g.fit_guard(tiny_guard().anchors, fit, other, alpha=0.3, detector=name)
    path = guard.save(tmp_path / "guard.safetensors")
    again = g.Guard.load(path)
    assert again.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    fresh = tiny_traces(12, offset=5000)
    assert again.judge_all(fresh) == guard.judge_all(fresh)
    sigma = np.stack([guard.anchors.signal(trace) for trace in fresh])
    stops = again.prefix.stops(sigma)
    watched = tiny_traces(12, offset=5000, sampler=g.Watch(again)(_sampler()))
    assert [bool(g.acted(trace).flagged) for trace in watched] == (stops > 0).tolist()
    assert {True, False} == {*(stops > 0).tolist()}, "the case should hold both fates"


def _sampler() -> Any:
    from demur.samplers import Autoregressive

    return Autoregressive()


@dataclass(frozen=True, eq=False)
class Lowest:
    """A detector of somebody else."""

    name: ClassVar[str] = "lowest"

    @classmethod
    def fit(cls, harmless: np.ndarray, *, seed: int = 0) -> Lowest:
        return cls()

    def __call__(self, sigma: np.ndarray) -> np.ndarray:
        return np.asarray(1.0 - sigma.min(axis=1))


def test_somebody_elses_detector_is_held_and_a_file_can_not_say_what_is_imported(tmp_path: Path) -> None:
    fit, other = tiny_traces(80), tiny_traces(40, offset=1000)
    for detector in (Lowest, f"{__name__}:Lowest"):
        guard = g.fit_guard(tiny_guard().anchors, fit, other, alpha=0.3, detector=detector)  # type: ignore[arg-type]
        path = guard.save(tmp_path / "guard.safetensors")
        with pytest.raises(DemurError, match=r"pass the class itself"):
            g.Guard.load(path)
        again = g.Guard.load(path, detector=Lowest)
        assert again.judge_all(fit[:5]) == guard.judge_all(fit[:5])


def test_a_guard_of_version_0_1_0_judges_as_it_did() -> None:
    """The file and what it said of six signals were written by version 0.1.0."""
    guard = g.Guard.load(Path(__file__).parent / "older" / "guard-0.1.0.safetensors")
    told = np.load(Path(__file__).parent / "older" / "guard-0.1.0.npz")
    verdicts = guard.judge_signals(told["sigma"], [False] * len(told["sigma"]))
    assert [verdict.score for verdict in verdicts] == pytest.approx(told["scores"].tolist(), rel=1e-9)
    assert [bool(verdict.flagged) for verdict in verdicts] == told["flagged"].tolist()
    assert guard.prefix.stops(told["sigma"]).tolist() == told["stops"].tolist()
    assert guard.promise == str(told["promise"])
    assert guard.n_fit == int(told["n_fit"])
