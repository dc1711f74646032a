"""The definitions as laws, and against examples computed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import multinomial
from sklearn.metrics import average_precision_score, cohen_kappa_score, roc_auc_score

from demur import dynamics as d
from demur.dynamics import geometry
from demur.signals import refusal_signal
from demur.types import DemurError

MARKS = st.tuples(st.integers(1, 12), st.integers(1, 8)).flatmap(lambda shape: hnp.arrays(bool, shape))
SIGMAS = st.tuples(st.integers(1, 12), st.integers(1, 8)).flatmap(
    lambda shape: hnp.arrays(float, shape, elements=st.floats(0, 1, width=32))
)
T, F = True, False


# -- rates --------------------------------------------------------------------------------------------------


def test_wilsons_interval_by_hand() -> None:
    rate = d.Rate(8, 10)  # Wilson 1927: (p + z2/2n +- z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n)
    assert rate.value == 0.8
    assert rate.interval == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert str(rate) == "80% (n 10, 49 to 94)"


@given(st.integers(0, 50), st.integers(0, 50))
def test_an_interval_holds_its_rate_and_narrows_with_n(k: int, more: int) -> None:
    rate = d.Rate(k, k + more)
    low, high = rate.interval
    assert 0 <= low <= high <= 1
    if rate.n:
        assert low - 1e-12 <= rate.value <= high + 1e-12
        wide = d.Rate(10 * rate.k, 10 * rate.n).interval
        assert wide[1] - wide[0] <= high - low
    else:
        assert math.isnan(rate.value)
        assert str(rate) == "undefined (n 0)"
        assert rate.row()["rate"] is None


def test_a_rate_of_more_than_all_is_refused() -> None:
    with pytest.raises(DemurError, match="3 of 2"):
        d.Rate(3, 2)


def test_two_samplers_on_the_same_prompts_by_hand() -> None:
    a, b = np.array([T] * 9 + [F]), np.array([T] * 3 + [F] * 7)
    found = d.compare(a, b)
    assert (found.value, found.only_first, found.only_second) == (pytest.approx(0.6), 6, 0)
    assert found.p == pytest.approx(2 * 0.5**6)  # six discordant pairs, all one way
    assert found.low <= 0.6 <= found.high
    assert d.compare(a, a).p == 1
    assert (d.compare(a, a).low, d.compare(a, a).high) == pytest.approx(
        (-0.2775, 0.2775), abs=1e-4
    )  # 1.96^2 / (n + 1.96^2)
    back = d.compare(b, a)
    assert back.value == -found.value
    with pytest.raises(DemurError, match="one of each"):
        d.compare(a, b[:5])


def split(n: int, gained: int, lost: int) -> tuple[np.ndarray, np.ndarray]:
    """n pairs of which so many are marked on one side only."""
    pairs = np.arange(n)
    return pairs < gained, (gained <= pairs) & (pairs < gained + lost)


def test_tangos_interval_by_hand_where_the_score_has_a_closed_form() -> None:
    """All pairs one way: (n - z2) / (n + z2). The exact interval of 12 of 12 is wider: 2 * 0.025^(1/12) - 1."""
    z2 = 1.959964**2
    low, high = d.compare(*split(100, 0, 0), resamples=1).low, d.compare(*split(100, 0, 0), resamples=1).high
    assert (low, high) == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2)))
    found = d.compare(*split(12, 12, 0))
    assert (found.low, found.high) == pytest.approx((2 * 0.025 ** (1 / 12) - 1, 1))
    assert found.low < (12 - z2) / (12 + z2)


@pytest.mark.parametrize("n", [1, 2, 12, 50])
@pytest.mark.parametrize("gained", [0, 1])
def test_pairs_that_are_all_alike_leave_the_room_that_their_number_does(n: int, gained: int) -> None:
    """12 of 12 against 0 of 12 was +100 (+100 to +100), and no difference at all +0 (+0 to +0)."""
    found, ten = (d.compare(*split(k * n, k * n * gained, 0)) for k in (1, 10))
    assert found.high - found.low > 2 / (n + 4)
    assert ten.high - ten.low < found.high - found.low
    back = d.compare(*reversed(split(n, n * gained, 0)))
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize(
    ("n", "gained", "lost"),
    [
        (5, 0.5, 0.2), (12, 0.9, 0.05), (20, 0.97, 0.02), (20, 0.1, 0.02), (20, 0.05, 0.0), (20, 0.1, 0.1),
        (20, 0.3, 0.3), (50, 0.06, 0.02), (50, 0.3, 0.1), (100, 0.99, 0.0), (100, 0.02, 0.02),
    ],
)  # fmt: skip
def test_the_interval_of_a_difference_covers_it_and_does_not_contradict_its_p(
    n: int, gained: float, lost: float
) -> None:
    """Every sample there is, by its probability. A bootstrap alone covered 61% to 87% of these near the edges."""
    inside = weight = against = 0.0
    for g in range(n + 1):
        for k in range(n + 1 - g):
            of = multinomial.pmf([g, k, n - g - k], n, [gained, lost, 1 - gained - lost])
            if of > 1e-5:
                found = d.compare(*split(n, g, k), resamples=300)
                weight += of
                inside += of * (found.low - 1e-9 <= gained - lost <= found.high + 1e-9)
                against += of * (found.p > 0.05 and not found.low <= 0 <= found.high)
    assert weight > 0.98
    assert inside / weight >= 0.95
    assert against == 0


@pytest.mark.parametrize(
    ("groups", "each", "gained", "lost", "alike"),
    [(10, 5, 0.9, 0.02, 1.0), (20, 5, 0.1, 0.02, 1.0), (20, 5, 0.1, 0.02, 0.0), (3, 20, 0.2, 0.2, 0.3),
     (20, 5, 0.02, 0.0, 0.3), (40, 9, 0.3, 0.1, 0.3)],
)  # fmt: skip
def test_the_interval_over_requests_covers_however_alike_their_pairs_are(
    groups: int, each: int, gained: float, lost: float, alike: float
) -> None:
    rng = np.random.default_rng(5)
    of = np.repeat(np.arange(groups), each)
    inside = 0
    for i in range(100):
        of_all, own = (rng.choice([1, -1, 0], p=[gained, lost, 1 - gained - lost], size=k) for k in (groups, len(of)))
        pairs = np.where(rng.random(len(of)) < alike**0.5, of_all[of], own)
        found = d.compare(pairs == 1, pairs == -1, of.tolist(), resamples=300, seed=i)
        inside += found.low - 1e-9 <= gained - lost <= found.high + 1e-9
    assert inside >= 93


def test_pairs_of_one_request_say_nothing_of_others_and_those_of_ten_as_much_as_ten_pairs() -> None:
    one, ten = (d.compare(*split(50, 50, 0), [i % k for i in range(50)]) for k in (1, 10))
    assert (one.low, one.high, one.p) == (-1, 1, 1)
    alone = d.compare(*split(10, 10, 0))
    assert (ten.low, ten.high) == pytest.approx((alone.low, alone.high))
    same = d.compare(*split(50, 0, 0), [i % 10 for i in range(50)])
    assert same.high == -same.low == pytest.approx(d.compare(*split(10, 0, 0)).high)
    spread = d.compare(*split(90, 30, 10), [i % 30 for i in range(90)])
    assert spread.high - spread.low < 1.3 * (d.compare(*split(90, 30, 10)).high - d.compare(*split(90, 30, 10)).low)


def test_a_paired_bootstrap_covers_what_it_should() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for i in range(300):
        u = rng.random((2, 80))
        a, b = u[0] < 0.6, np.where(rng.random(80) < 0.5, u[0], u[1]) < 0.4
        found = d.compare(a, b, resamples=500, seed=i)
        inside += found.low - 1e-9 <= 0.2 <= found.high + 1e-9
    assert 0.90 <= inside / 300 <= 0.985


@settings(max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_the_area_is_scikit_learns(pos: list[int], neg: list[int]) -> None:
    found = d.area(pos, neg, resamples=50)
    assert found.auroc == pytest.approx(roc_auc_score([1] * len(pos) + [0] * len(neg), pos + neg))
    assert 0 <= found.low <= found.high <= 1
    assert found.tpr_1 <= found.tpr_5
    assert d.area(neg, pos, resamples=1).auroc == pytest.approx(1 - found.auroc)


def test_an_areas_interval_covers_what_it_should() -> None:
    rng = np.random.default_rng(0)
    true = 0.76024993  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    hits = 0
    for i in range(200):
        found = d.area(rng.normal(1, 1, 60), rng.normal(0, 1, 60), resamples=300, seed=i)
        hits += found.low <= true <= found.high
    assert 0.90 <= hits / 200 <= 0.99


def test_an_areas_interval_covers_near_the_edge_too() -> None:
    """12 against 24 at a true area of 0.97: a percentile bootstrap has no width in a third of such samples."""
    rng = np.random.default_rng(2)
    true = 0.9700  # Phi(2.66 / sqrt 2)
    found = [d.area(rng.normal(2.66, 1, 12), rng.normal(0, 1, 24), resamples=20) for _ in range(400)]
    assert np.mean([area.low <= true <= area.high for area in found]) >= 0.9
    apart = d.area(np.arange(24) + 100, np.arange(24))
    assert (apart.auroc, apart.high) == (1, 1)
    assert 0.85 < apart.low < 0.95
    for low in (apart.precision_low, apart.tpr_1_low, apart.tpr_5_low):
        assert 0.8 < low < 0.95, "24 of 24 leave room (Wilson: 0.86)"


def test_the_intervals_of_true_positives_cover_what_they_should() -> None:
    rng = np.random.default_rng(3)
    found = [d.area(rng.normal(2, 1, 60), rng.normal(0, 1, 200), resamples=200, seed=i) for i in range(200)]
    assert np.mean([area.tpr_1_low <= 0.3721 <= area.tpr_1_high for area in found]) >= 0.9  # 1 - Phi(2.326 - 2)
    assert np.mean([area.tpr_5_low <= 0.6388 <= area.tpr_5_high for area in found]) >= 0.9  # 1 - Phi(1.645 - 2)


def caught(pos: Sequence[float], neg: Sequence[float], percent: int) -> float:
    """The most that any limit catches which at most so many percent of the negatives are above: a point of the ROC."""
    limits = [limit for limit in neg if 100 * sum(n > limit for n in neg) <= percent * len(neg)]
    return max(sum(p > limit for p in pos) / len(pos) for limit in limits)


@pytest.mark.parametrize(
    ("n", "percent", "above"), [(19, 5, 0), (20, 5, 1), (99, 1, 0), (100, 1, 1), (100, 5, 5), (200, 1, 2), (700, 1, 7)]
)
def test_one_percent_of_a_hundred_is_one(n: int, percent: int, above: int) -> None:
    """Positives lie between the negatives, one below each: as many are caught as negatives are let be flagged."""
    neg = np.arange(n, dtype=float)
    found = d.area(neg - 0.5, neg, resamples=20)
    assert {1: found.tpr_1, 5: found.tpr_5}[percent] == pytest.approx(above / n)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_precision_is_scikit_learns_and_every_figure_is_inside_its_interval(pos: list[int], neg: list[int]) -> None:
    found = d.area(pos, neg, resamples=20)
    precision = average_precision_score([1] * len(pos) + [0] * len(neg), pos + neg)
    assert found.precision == pytest.approx(precision)
    assert found.tpr_1 == pytest.approx(caught(pos, neg, 1))
    assert found.tpr_5 == pytest.approx(caught(pos, neg, 5))
    for name in ("precision", "tpr_1", "tpr_5"):
        assert getattr(found, f"{name}_low") <= getattr(found, name) <= getattr(found, f"{name}_high")


def test_an_area_of_an_empty_side_is_undefined_and_of_nan_an_error() -> None:
    found = d.area([], [1.0])
    assert math.isnan(found.auroc)
    assert (found.positives, found.negatives) == (0, 1)
    with pytest.raises(DemurError, match="finite"):
        d.area([math.nan], [1.0])


# -- text ---------------------------------------------------------------------------------------------------


def test_the_four_rates_by_hand() -> None:
    harmful = np.array(
        [
            [F, F, F],  # never harmful
            [T, T, T],  # harmful throughout
            [F, T, F],  # recovered
            [T, F, T],  # revised, and harmful in the end: counts for HRR, not for FRR
            [F, F, T],  # harmful at the end only
        ]
    )
    refused = np.array([[F, F, T], [F, F, F], [F, F, T], [F, T, F], [T, F, F]])
    found = d.recovery(harmful, refused)
    assert (found.rr.k, found.rr.n) == (2, 5)
    assert (found.asr.k, found.asr.n) == (3, 5)
    assert (found.hrr.k, found.hrr.n) == (2, 4)
    assert (found.frr.k, found.frr.n) == (1, 4)


@given(MARKS)
def test_frr_is_never_above_hrr_and_both_are_undefined_without_harm(harmful: np.ndarray) -> None:
    found = d.recovery(harmful, ~harmful)
    assert found.hrr.n == found.frr.n == harmful.any(axis=1).sum()
    assert found.frr.k <= found.hrr.k
    assert found.asr.k + found.frr.k == found.frr.n
    if not harmful.any():
        assert math.isnan(found.hrr.value)
        assert math.isnan(found.frr.value)


def test_marks_of_other_shapes_are_refused() -> None:
    with pytest.raises(DemurError, match="equal shapes"):
        d.recovery(np.zeros((2, 3), bool), np.zeros((2, 4), bool))
    with pytest.raises(DemurError, match="at least one step"):
        d.recovery(np.zeros((2, 0), bool), np.zeros((2, 0), bool))


def test_what_ended_early_holds_its_last_value() -> None:
    assert d.held([False, True], 4).tolist() == [False, True, True, True]
    assert d.held([1.0, 2.0, 3.0], 2).tolist() == [1.0, 2.0]
    with pytest.raises(DemurError, match="0 values"):
        d.held([], 3)


def test_states_by_hand_and_where_they_go() -> None:
    sigma = np.array([[0.9, 0.4, 0.1], [0.9, 0.9, 0.5]])
    harmful = np.array([[F, F, F], [F, T, F]])
    found = d.states(sigma, harmful)
    assert found.tolist() == [[0, 1, 2], [0, 3, 1]]
    counts = d.transitions(found)
    assert counts.shape == (2, 4, 4)
    assert counts[0, 0, 1] == counts[0, 0, 3] == counts[1, 1, 2] == counts[1, 3, 1] == 1
    chain = d.transition_matrix(found)
    assert chain[0].tolist() == [0, 0.5, 0, 0.5]
    assert np.isnan(chain[2]).all()  # nobody ever leaves the refusal, so where to is unknown
    with pytest.raises(DemurError, match="lambda_r"):
        d.states(sigma, harmful, lambda_c=0.2, lambda_r=0.4)


@given(SIGMAS)
def test_every_step_is_in_one_state_and_every_transition_is_counted(sigma: np.ndarray) -> None:
    found = d.states(sigma, sigma > 0.8)
    assert set(np.unique(found)) <= {0, 1, 2, 3}
    counts = d.transitions(found)
    assert counts.sum() == len(sigma) * (sigma.shape[1] - 1)
    rows = d.transition_matrix(found).sum(axis=1)
    assert np.allclose(rows[~np.isnan(rows)], 1)


def test_times_with_censoring_by_hand() -> None:
    marks = np.array([[F, T, T], [T, F, F], [F, F, F]])
    found = d.first(marks)
    assert found.step.tolist() == [2, 1, 3]
    assert found.seen.tolist() == [T, T, F]
    steps, left = found.survival()
    assert dict(zip(steps.tolist(), left.round(4).tolist(), strict=True)) == {1: 0.6667, 2: 0.3333, 3: 0.3333}
    assert found.median == 2
    assert math.isnan(d.first(np.zeros((3, 2), bool)).median)
    assert str(found.share).startswith("67%")


@pytest.mark.parametrize("n", [10, 14, 24])
def test_half_is_half_whatever_rounding_makes_of_a_product_of_shares(n: int) -> None:
    """Half of n have had it by step 3, in some way, and the others never: the median is 3."""
    for one in range(1, n // 2 - 1):
        for two in range(1, n // 2 - one):
            marks = np.zeros((n, 5), bool)
            marks[:one, 0] = marks[one : one + two, 1] = marks[one + two : n // 2, 2] = True
            assert d.first(marks).median == 3, (one, two)


@pytest.mark.parametrize(
    ("k", "n", "said"),
    [
        (0, 1000, "0% (n 1000, 0 to 0.4)"),
        (1, 5000, "0.02% (n 5000, 0 to 0.1)"),
        (5000, 5000, "100% (n 5000, 99.9 to 100)"),
        (0, 100, "0% (n 100, 0 to 4)"),
        (1, 57, "2% (n 57, 0 to 9)"),
        (0, 0, "undefined (n 0)"),
    ],
)
def test_an_interval_is_not_told_as_a_certainty(k: int, n: int, said: str) -> None:
    assert str(d.Rate(k, n)) == said


def test_an_interval_of_a_difference_says_on_which_side_of_nothing_it_ends() -> None:
    same = np.zeros(1000, bool)
    assert "(-0.4 to +0.4)" in str(d.compare(same, same, resamples=50))


def test_time_to_recovery_counts_from_the_first_harm() -> None:
    harmful = np.array([[F, T, T, F], [T, F, T, T], [F, F, F, F], [F, F, T, T]])
    found = d.time_to_recovery(harmful)
    assert found.step.tolist() == [2, 1, 1]  # the third of these never recovers: more than 1 step, of which 1 was seen
    assert found.seen.tolist() == [T, T, F]


# -- inside -------------------------------------------------------------------------------------------------


def test_irr_by_hand() -> None:
    sigma = np.array([[0.9, 0.2], [0.9, 0.05], [0.4, 0.05], [0.6, 0.6]])
    assert [d.irr(sigma, r).k for r in (0.5, 0.3, 0.1)] == [2, 2, 1]


@given(SIGMAS, st.floats(0, 1), st.floats(0, 1))
def test_irr_never_falls_when_the_threshold_rises(sigma: np.ndarray, a: float, b: float) -> None:
    assert d.irr(sigma, min(a, b)).k <= d.irr(sigma, max(a, b)).k
    assert d.irr(sigma, 0.0).k == 0


def test_incomplete_recovery_by_hand() -> None:
    sigma = np.array([[0.9, 0.3, 0.9], [0.9, 0.3, 0.9], [0.9, 0.8, 0.9], [0.9, 0.2, 0.1]])
    refused = np.array([[F, F, F], [F, T, F], [F, F, F], [F, F, T]])
    found = d.internal(sigma, refused)
    assert found.incomplete.tolist() == [T, F, F, F]
    assert found.crossing.step.tolist() == [2, 2, 3, 2]
    assert found.crossing.seen.tolist() == [T, T, F, T]
    assert found.depth == pytest.approx([0.2, 0.2, 0, 0.4])
    assert found.dwell.tolist() == [1, 1, 0, 2]
    assert found.volatility == pytest.approx([0.6, 0.6, 0.1, 0.4])
    assert found.final == pytest.approx([0.9, 0.9, 0.9, 0.1])


@given(SIGMAS)
def test_incomplete_and_complete_recovery_exclude_each_other(sigma: np.ndarray) -> None:
    found = d.internal(sigma, np.zeros(sigma.shape, bool))
    complete = (sigma > 0.5).any(axis=1) & (sigma[:, -1] < 0.5)
    assert not (found.incomplete & complete).any()
    assert (found.dwell > 0).tolist() == found.crossing.seen.tolist()
    with pytest.raises(DemurError, match="equal shapes"):
        d.internal(sigma, np.zeros((len(sigma), sigma.shape[1] + 1), bool))


def test_agreement_is_cohens_kappa_and_the_lead_is_counted() -> None:
    rng = np.random.default_rng(0)
    sigma, refused = rng.random((50, 4)), rng.random((50, 4)) < 0.4
    found = d.agreement(sigma, refused)
    for t in range(4):
        assert found.kappa[t] == pytest.approx(cohen_kappa_score(sigma[:, t] < 0.5, refused[:, t]))
        assert found.share[t] == ((sigma[:, t] < 0.5) == refused[:, t]).mean()
    lead = d.agreement(np.array([[0.9, 0.1, 0.1], [0.9, 0.9, 0.9]]), np.array([[F, F, T], [F, T, T]])).lead
    assert lead.tolist() == [1]


def test_where_one_side_never_varies_there_is_no_kappa_and_steps_together_have_one() -> None:
    """At the first step neither refuses, at the second the inside alone, at the third both sometimes."""
    sigma = np.array([[0.9, 0.1, 0.1], [0.9, 0.9, 0.1], [0.9, 0.9, 0.9], [0.9, 0.1, 0.9]])
    refused = np.array([[F, F, T], [F, F, F], [F, F, F], [F, F, T]])
    found = d.agreement(sigma, refused)
    assert np.isnan(found.kappa[:2]).all()
    assert found.kappa[2] == 0
    assert found.pooled == pytest.approx(cohen_kappa_score((sigma < 0.5).ravel(), refused.ravel()))
    assert math.isnan(d.agreement(sigma, np.zeros(sigma.shape, bool)).pooled)


def test_a_signal_that_is_not_finite_is_refused() -> None:
    bad = np.array([[0.5, math.nan]])
    marks = np.zeros((1, 2), bool)
    many = np.full((20, 2), math.nan)
    for use in (
        lambda: d.irr(bad),
        lambda: d.internal(bad, marks),
        lambda: d.agreement(bad, marks),
        lambda: d.states(bad, marks),
        lambda: d.bands({"a": bad}),
        lambda: d.separability({"a": many, "b": np.zeros((20, 2))}),
        lambda: d.plane({"a": many, "b": np.zeros((20, 2))}),
    ):
        with pytest.raises(DemurError, match="finite"):
            use()


# -- geometry -----------------------------------------------------------------------------------------------


def classes(apart: float, n: int = 60, steps: int = 32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        name: rng.normal(0.3 + apart / 2 * i, 0.05, (n, steps)) for i, name in enumerate(("harmless", "refused", "jb"))
    }


def test_separability_is_held_out_noise_has_none() -> None:
    noise, real = d.separability(classes(0.0)), d.separability(classes(0.2))
    assert noise.low <= 1 / 3 + 0.06  # in-sample, 32 steps of noise would give far more
    assert noise.accuracy < 0.45
    assert real.accuracy == 1
    assert real.ratio > 10 * noise.ratio
    assert set(real.recall) == {"harmless", "refused", "jb"}
    with pytest.raises(DemurError, match="at least 10"):
        d.separability({"a": np.zeros((3, 4)), "b": np.zeros((30, 4))})


def test_classes_that_are_told_apart_leave_the_room_that_their_number_does() -> None:
    """Ten and ten without an error were 1.00 (1.00 to 1.00)."""
    rng = np.random.default_rng(0)
    few, many = (
        d.separability({c: rng.normal(0.2 + 0.5 * k, 0.05, (n, 8)) for k, c in enumerate("ab")}) for n in (10, 100)
    )
    assert (few.accuracy, few.high, many.high) == (1, 1, 1)
    assert few.low == pytest.approx(1 - 0.5**0.5 * (1 - d.Rate(10, 10).interval[0]))
    assert 0.75 < few.low < 0.85
    assert 0.95 < many.low < 1


@pytest.mark.slow
def test_the_interval_of_separability_covers_what_it_should() -> None:
    """Of classes far apart on one axis, judged on many more signals than it was estimated on."""
    rng = np.random.default_rng(4)
    inside = 0
    for i in range(60):
        found = d.separability(
            {c: rng.normal(0.3 + 0.16 * k, 0.05, (20, 1)) for k, c in enumerate("ab")}, resamples=200, seed=i
        )
        inside += found.low <= 0.9452 <= found.high  # Phi(1.6), if the rule were the best there is
    assert inside / 60 >= 0.93


def requests_of(n: int, size: int, steps: int, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two classes without a difference; each of ``n`` requests has a signal of its own, ``size`` times over."""
    made = {c: np.repeat(rng.normal(0.5, 0.1, (n, steps)), size, axis=0) for c in "ab"}
    noisy = {c: sigma + rng.normal(0, 0.01, sigma.shape) for c, sigma in made.items()}
    return noisy, {c: [f"{c}{i // size}" for i in range(n * size)] for c in "ab"}


def test_what_shares_a_request_is_held_out_together() -> None:
    """Signals of one request are alike. Fitted on some of them, a rule knows the others without any class."""
    signals, groups = requests_of(12, 8, 32, np.random.default_rng(1))
    leaking, whole = d.separability(signals), d.separability(signals, groups=groups)
    assert leaking.accuracy > 0.85, "what is wrong with it"
    assert whole.accuracy < 0.7
    assert whole.low <= 0.5 <= whole.high
    shown = d.plane(signals, groups=groups, grid=10).points
    assert not np.allclose(shown, d.plane(signals, grid=10).points)


def test_groups_of_one_signal_change_nothing() -> None:
    signals = classes(0.1)
    each = {name: [f"{name} {i}" for i in range(len(sigma))] for name, sigma in signals.items()}
    assert d.separability(signals, groups=each) == d.separability(signals)
    assert np.array_equal(d.plane(signals, groups=each, grid=10).points, d.plane(signals, grid=10).points)


def test_groups_may_stand_in_several_classes_and_few_are_refused() -> None:
    signals, groups = requests_of(12, 3, 8, np.random.default_rng(2))
    across = {"a": groups["a"], "b": groups["a"]}
    assert 0 <= d.separability(signals, groups=across, resamples=20).accuracy <= 1
    with pytest.raises(DemurError, match="3 requests in the class a"):
        d.separability(signals, groups=groups | {"a": [str(i % 3) for i in range(36)]})
    with pytest.raises(DemurError, match="one for each signal"):
        d.plane(signals, groups=groups | {"b": ["x"]})


@pytest.mark.slow
def test_the_interval_of_separability_covers_what_it_should_for_requests_too() -> None:
    """Each request has five signals that are alike; the classes lie apart by what a request is."""
    rng = np.random.default_rng(5)
    inside = 0
    for i in range(60):
        place = {c: rng.normal(0.3 + 0.16 * k, 0.05, (24, 1)) for k, c in enumerate("ab")}
        signals = {c: np.repeat(of, 5, axis=0) for c, of in place.items()}
        groups = {c: [f"{c}{j // 5}" for j in range(120)] for c in "ab"}
        found = d.separability(signals, groups=groups, resamples=200, seed=i)
        inside += found.low <= 0.9452 <= found.high
    assert inside / 60 >= 0.93


SATURATED = {"one": np.ones((20, 8)), "none": np.zeros((20, 8))}


@pytest.mark.parametrize("third", [False, True])
def test_saturated_classes_are_told_apart_and_have_a_plane(third: bool) -> None:
    made = SATURATED | ({"half": np.full((20, 8), 0.5)} if third else {})
    found = d.separability(made)
    assert found.accuracy == 1
    assert found.low < 1
    assert found.ratio > 1e6
    for kind in ("lda", "pca"):
        shown = d.plane(made, kind, grid=20)  # type: ignore[arg-type]
        assert np.isfinite(shown.points).all()
        centres = [shown.points[shown.labels == k].mean(axis=0) for k in range(len(made))]
        assert min(np.linalg.norm(a - b) for a in centres for b in centres if a is not b) > 0.1


def test_signals_that_are_all_one_are_not_told_apart_and_steps_in_lockstep_are_no_error() -> None:
    same = d.separability({"a": np.full((20, 4), 0.5), "b": np.full((20, 4), 0.5)})
    assert (same.accuracy, same.ratio) == (0.5, 0)
    assert np.isfinite(d.plane({"a": np.full((20, 4), 0.5), "b": np.full((20, 4), 0.5)}, grid=10).points).all()
    flat = np.repeat([[0.0], [1.0]], 10, axis=0) * np.ones(6)
    assert d.separability({"both": flat, "one": SATURATED["one"][:, :6]}).recall["one"] == 1


def test_signals_of_one_step_are_told_apart_but_have_no_plane() -> None:
    rng = np.random.default_rng(0)
    made = {c: rng.normal(0.2 + 0.5 * k, 0.05, (20, 1)) for k, c in enumerate("ab")}
    assert d.separability(made).accuracy == 1
    for kind in ("lda", "pca"):
        with pytest.raises(DemurError, match="1 step"):
            d.plane(made, kind)  # type: ignore[arg-type]
    with pytest.raises(DemurError, match="4, 5 steps"):
        d.separability({"a": np.zeros((20, 4)), "b": np.zeros((20, 5))})


def test_shrinkage_is_scikit_learns() -> None:
    """But for a ridge, which signals that scatter do not feel."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    made = classes(0.05)
    x, y = np.concatenate(list(made.values())), np.repeat([0, 1, 2], 60)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x, y)
    ours = geometry._lda("lsqr", x, y)
    assert (theirs.predict(x) == ours.predict(x)).all()
    np.testing.assert_allclose(theirs.coef_, ours.coef_, rtol=1e-4)


@pytest.mark.slow
def test_the_ratio_of_noise_is_nothing() -> None:
    """Class means of ten signals scatter by themselves; counted as a difference that was 0.77."""
    ratios = []
    for i in range(30):
        rng = np.random.default_rng(i)
        noise = {name: rng.normal(0.5, 0.1, (10, 32)) for name in "abc"}
        ratios.append(d.separability(noise, resamples=2).ratio)
    assert abs(np.mean(ratios)) < 0.12


@pytest.mark.parametrize("kind", ["lda", "pca"])
@pytest.mark.parametrize("n", [2, 3])
def test_a_plane_shows_every_signal_and_regions_for_every_class(kind: str, n: int) -> None:
    made = dict(list(classes(0.2).items())[:n])
    found = d.plane(made, kind, grid=40)  # type: ignore[arg-type]
    assert found.points.shape == (60 * n, 2)
    assert found.regions.shape == (40, 40)
    assert set(np.unique(found.regions)) == set(range(n))
    column = np.clip(np.searchsorted(found.x, found.points[:, 0]), 0, 39)
    row = np.clip(np.searchsorted(found.y, found.points[:, 1]), 0, 39)
    assert (found.regions[row, column] == found.labels).mean() > 0.95


def test_a_plane_of_noise_does_not_separate() -> None:
    found = d.plane(classes(0.0))
    centres = [found.points[found.labels == k].mean(axis=0) for k in range(3)]
    assert max(np.linalg.norm(a - b) for a in centres for b in centres) < found.points.std()


def test_bands_hold_what_they_say() -> None:
    (band, *_) = d.bands({"a": np.random.default_rng(0).random((1000, 5)), "none": np.empty((0, 5))}, inside=0.8)
    assert band.low == pytest.approx(np.full(5, 0.1), abs=0.04)
    assert band.median == pytest.approx(np.full(5, 0.5), abs=0.05)
    assert band.high == pytest.approx(np.full(5, 0.9), abs=0.04)
    assert len(d.bands({"none": np.empty((0, 5))})) == 0


def test_what_nobody_could_score_is_in_no_rate_and_is_counted() -> None:
    found = d.Rate.of([True, False, True, False], scored=[True, True, False, False])
    assert (found.k, found.n, found.unscored) == (1, 2, 2)
    assert str(found).endswith("; unscored 2)")
    assert found.row()["unscored"] == 2
    none = d.Rate.of([True] * 8, scored=[False] * 8)
    assert str(none) == "unscored (8)"
    assert none.row()["rate"] is None
    assert d.Rate.of([True], among=[True], scored=[True]) == d.Rate(1, 1)
    assert "unscored" not in d.Rate(1, 2).row(), "as before where all were scored"
    with pytest.raises(DemurError, match="unscored"):
        d.Rate(0, 0, -1)


@pytest.mark.parametrize(
    ("marks", "says"),
    [
        ([True, math.nan], "nan"),
        ([True, None], "None"),
        (["False", "True"], "text"),
        ([0.0, 0.4], "0.4"),
        ([0, 2], "2"),
        ([[True], [True, False]], "different lengths"),
    ],
)
def test_what_nobody_could_say_is_no_mark(marks: list[Any], says: str) -> None:
    with pytest.raises(DemurError, match=f"marks that hold .*{says}"):
        d.Rate.of(marks)
    with pytest.raises(DemurError, match="marks that hold"):
        d.compare(marks, marks)
    if len(np.shape(np.array(marks, dtype=object))) == 1:
        with pytest.raises(DemurError, match="marks that hold"):
            d.recovery([marks], [[True, False]])  # type: ignore[arg-type]


def test_numbers_of_marks_are_marks_and_what_was_not_scored_may_be_anything() -> None:
    assert d.Rate.of([0, 1, 1.0]) == d.Rate.of([False, True, True])
    assert d.Rate.of(np.array([True, False], dtype=object)) == d.Rate(1, 2)
    assert d.Rate.of([True, math.nan, None], scored=[True, False, False]) == d.Rate(1, 1, 2)


def test_scores_of_several_dimensions_are_one_line() -> None:
    with pytest.raises(DemurError, match="one score a generation"):
        d.area(np.zeros((2, 2)), np.ones(2))


NO_SIGNALS: dict[str, Any] = {
    "above 1": np.full((12, 4), 1.2),
    "percent": np.full((12, 4), 60.0),
    "below 0": np.full((12, 4), -0.1),
    "one value outside": np.where(np.arange(48).reshape(12, 4) == 7, 1.01, 0.5),
    "not finite": np.where(np.arange(48).reshape(12, 4) == 7, np.nan, 0.5),
    "infinite": np.full((12, 4), np.inf),
    "one signal": np.full(4, 0.5),
    "three dimensions": np.full((12, 4, 2), 0.5),
    "no step": np.empty((12, 0)),
    "marks": np.full((12, 4), True),
    "marks in lists": [[True, False]] * 12,
    "texts": [["0.5"] * 4] * 12,
    "none": [[None] * 4] * 12,
    "different lengths": [[0.5] * (1 + i % 3) for i in range(12)],
    "complex": np.full((12, 4), 0.5 + 1j),
    "dates": np.zeros((12, 4), "datetime64[s]"),
    "a number": 0.5,
    "nothing": None,
}
TAKE_SIGNALS: dict[str, Any] = {
    "irr": lambda s: d.irr(s),
    "internal": lambda s: d.internal(s, np.zeros((12, 4), bool)),
    "agreement": lambda s: d.agreement(s, np.zeros((12, 4), bool)),
    "states": lambda s: d.states(s, np.zeros((12, 4), bool)),
    "bands": lambda s: d.bands({"a": s}),
    "plane": lambda s: d.plane({"a": s, "b": np.full((12, 4), 0.5)}, grid=8),
    "separability": lambda s: d.separability({"a": s, "b": np.full((12, 4), 0.5)}, resamples=5),
}


@pytest.mark.parametrize("call", TAKE_SIGNALS.values(), ids=TAKE_SIGNALS)
@pytest.mark.parametrize("given", NO_SIGNALS.values(), ids=NO_SIGNALS)
def test_what_is_no_signal_is_said_by_everything_that_takes_signals(call: Any, given: Any) -> None:
    with pytest.raises(DemurError):
        call(given)


@pytest.mark.parametrize("call", TAKE_SIGNALS.values(), ids=TAKE_SIGNALS)
def test_signals_of_any_holder_are_the_same_signals(call: Any) -> None:
    sigma = np.random.default_rng(0).random((12, 4)).astype(np.float32)
    holders = (
        sigma,
        sigma.tolist(),
        torch.tensor(sigma),
        torch.tensor(sigma, requires_grad=True),
        [*torch.tensor(sigma)],
    )
    first, *others = (str(call(holder)) for holder in holders)
    assert all(other == first for other in others)
    call(torch.tensor(sigma).bfloat16())
    call(np.full((12, 4), 1 + 1e-7)), call(np.full((12, 4), -1e-9))  # what rounding does is no fault


@pytest.mark.parametrize(
    "given",
    [np.full((3, 2), 0.5), np.full((3, 2), 4), np.full((3, 2), -1), np.zeros(3, int), np.zeros((3, 0), int),
     [[0], [1, 2]], [["compliant"]], None, True],
)  # fmt: skip
def test_states_are_whole_numbers_that_name_one(given: Any) -> None:
    for call in (d.transitions, d.transition_matrix):
        with pytest.raises(DemurError):
            call(given)


@pytest.mark.parametrize("given", [np.zeros(3, bool), np.zeros((3, 0), bool), np.zeros((3, 2, 2), bool), [], True])
def test_marks_of_another_shape_are_said(given: Any) -> None:
    for call in (d.first, d.time_to_recovery, lambda marks: d.recovery(marks, marks)):
        with pytest.raises(DemurError, match="generations by steps"):
            call(given)


@pytest.mark.parametrize("given", [np.zeros((3, 2), bool), np.zeros((3, 0), bool), True, None])
def test_a_rate_is_of_one_mark_a_generation(given: Any) -> None:
    with pytest.raises(DemurError, match="one mark a generation"):
        d.Rate.of(given)
    with pytest.raises(DemurError, match="one mark a generation"):
        d.Rate.of([True, False], among=[True])


TAKE_NUMBERS: dict[str, Any] = TAKE_SIGNALS | {
    "refusal_signal": lambda x: refusal_signal(x, np.ones((12, 4)), -np.ones((12, 4))),
    "area": lambda x: d.area(x[:, 0], [0.5, 0.1]),
}


@pytest.mark.parametrize("call", TAKE_NUMBERS.values(), ids=TAKE_NUMBERS)
def test_masked_values_are_no_numbers(call: Any) -> None:
    """NumPy hands out what stands under a mask as if nothing were masked."""
    values = np.random.default_rng(0).random((12, 4))
    hidden = np.ma.masked_array(values, mask=np.arange(48).reshape(12, 4) == 4)
    with pytest.raises(DemurError, match="with masked values"):
        call(hidden)
    call(np.ma.masked_array(values))
