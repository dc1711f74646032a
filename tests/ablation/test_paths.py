"""How paths go along: windows, segments that agree, a hidden Markov model against brute force."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest

from demur.ablation import paths
from demur.signals.whitened import fit_whitened

RNG = np.random.default_rng(0)


def states(n: int, lean: float = 0.0, turned: float = 0.0, steps: int = 16, d: int = 10) -> np.ndarray:
    """Paths around a mean; ``turned`` is added from half of the steps on."""
    pull = np.where(np.arange(steps) < steps // 2, 0.0, turned)[:, None] * np.eye(d)[1] + lean * np.eye(d)[0]
    return (1 + pull + 0.1 * RNG.normal(size=(n, steps, d))).astype(np.float32)


def test_windows_are_means_and_the_last_one_is_cut() -> None:
    x = np.arange(10.0)[None]
    assert paths.windows(x).tolist() == [[1.5, 5.5, 8.5]]
    assert paths.rolling(x[:, :5]).tolist() == [[1.5, 2.5]]
    assert paths.rolling(x[:, :3]).tolist() == [[1.0]]


@pytest.mark.parametrize("of", [paths.turns, paths.jumps])
def test_an_answer_that_turns_half_way_agrees_less_with_itself(of: object) -> None:
    good, bad = states(60), states(60, lean=1.0)
    score = paths.fit_segments(good, bad, states(200), of, lambda x: x.max(axis=1))  # type: ignore[arg-type]
    harmless, turned = score(states(100)), score(states(50, turned=1.0))
    assert turned.min() > np.quantile(harmless, 0.95)
    assert abs(float(np.median(harmless))) < 3
    assert (paths.fit_segments(good[:, :3], bad[:, :3], good[:, :3], of, np.sum)(good[:2, :3]) == 0).all()  # type: ignore[arg-type]


def test_a_turn_is_a_cosine_and_a_jump_a_distance() -> None:
    read = fit_whitened(states(40), states(40, lean=1.0))
    still = np.repeat(states(3, steps=1), 16, axis=1)
    assert paths.turns(read, still) == pytest.approx(np.zeros((3, 3)), abs=1e-12)
    assert paths.jumps(read, still) == pytest.approx(np.zeros((3, 3)), abs=1e-12)


def made_markov(hidden: int = 3, f: int = 2) -> paths.HiddenMarkov:
    def shares(*shape: int) -> np.ndarray:
        x = RNG.random(shape) + 0.1
        return np.asarray(x / x.sum(axis=-1, keepdims=True))

    return paths.HiddenMarkov(
        shares(hidden), shares(hidden, hidden), RNG.normal(size=(hidden, f)), 0.5 + RNG.random((hidden, f))
    )


def test_a_likelihood_is_the_sum_over_all_hidden_paths() -> None:
    model, x = made_markov(), RNG.normal(size=(4, 5, 2))
    dense = np.exp(model._emitted(x))
    brute, weight = np.zeros(4), np.zeros((4, 5, 3))
    for path in product(range(3), repeat=5):
        chance = model.start[path[0]] * np.prod([model.move[a, b] for a, b in pairwise(path)])
        whole = chance * np.prod([dense[:, t, h] for t, h in enumerate(path)], axis=0)
        brute += whole
        for t, h in enumerate(path):
            weight[:, t, h] += whole
    assert model.log_likelihood(x) == pytest.approx(np.log(brute))
    expected, pairs, total = model._expected(x)
    assert expected == pytest.approx(weight / brute[:, None, None])
    assert total == pytest.approx(np.log(brute).sum())
    assert pairs.sum() == pytest.approx(4 * 4)


def test_em_never_makes_the_paths_less_likely_and_finds_what_is_there() -> None:
    """Two hidden states, far apart, of which one stays and one does not."""
    hidden = np.zeros((300, 24), dtype=int)
    for t in range(1, 24):
        stays = RNG.random(300) < np.where(hidden[:, t - 1] == 0, 0.95, 0.5)
        hidden[:, t] = np.where(stays, hidden[:, t - 1], 1 - hidden[:, t - 1])
    x = np.where(hidden[..., None] == 0, -2.0, 2.0) + 0.5 * RNG.normal(size=(300, 24, 2))
    likely = [float(paths.HiddenMarkov.fit(x, 2, rounds=rounds).log_likelihood(x).sum()) for rounds in (0, 1, 3, 10)]
    assert (np.diff(likely) > -1.0).all(), "pseudo-counts cost next to nothing"
    model = paths.HiddenMarkov.fit(x, 2)
    assert sorted(np.diag(model.move)) == pytest.approx([0.5, 0.95], abs=0.05)


def test_a_path_in_another_order_is_unlikely() -> None:
    """Every state of it is harmless; how they follow each other is not."""
    drift = np.linspace(-1, 1, 16)[:, None] * np.eye(10)[2]
    harmless, other = (states(n) + 3 * drift for n in (300, 60))
    score = paths.fit_markov(harmless.astype(np.float32))
    backwards = score(other[:, ::-1].astype(np.float32))
    assert (backwards > score(other.astype(np.float32))).all(), "each is less likely than the same the other way round"
    assert score(other.astype(np.float32))[3] == pytest.approx(score(other[3:4].astype(np.float32))[0], rel=1e-9)


def test_a_sum_weighs_scores_by_how_they_vary() -> None:
    one, other = RNG.normal(5, 10, 500), RNG.normal(-1, 0.1, 500)
    together = paths.fit_sum(one, other)
    assert together(one, other).mean() == pytest.approx(0, abs=1e-9)
    assert together(np.array([15.0]), np.array([-0.9]))[0] == pytest.approx(2, abs=0.3)
