"""The whitened signal: Fisher's direction through a shrunk covariance, step by step, with the same meaning as sigma."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
from hypothesis import given
from hypothesis import strategies as st

from demur import artefact
from demur.signals import Anchors, anchors_of, fit_anchors, refusal_signal
from demur.signals.whitened import LOUD, SHARE, Whitened, fit_whitened, loudest
from demur.traces import Trace
from demur.types import DemurError, Prompt

YES, NO = "Sure, here you are", "I'm sorry"


def two_sides(n: int = 60, d: int = 40, steps: int = 3, seed: int = 0, far: float = 1.0) -> tuple[Any, Any]:
    """States of both kinds: one loud direction that means nothing, one quiet one in which they differ."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(2, n, steps, d)) * 0.3
    states[..., 0] += 5 * rng.normal(size=(2, n, 1))
    states[1, :, :, 1] -= far
    return states[0].astype(np.float32), states[1].astype(np.float32)


@pytest.mark.parametrize(("n", "d"), [(4, 3), (20, 60), (60, 20), (7, 100)])
def test_it_is_the_papers_log_ratio_in_the_space_whitened_by_the_shrunk_covariance(n: int, d: int) -> None:
    """The plain way: C in full, its inverse root, cosine distances to both anchors from the middle."""
    rng = np.random.default_rng(n)
    scale = np.linspace(0.1, 5, d)
    good, bad = rng.normal(size=(n, 2, d)) * scale + 1, rng.normal(size=(n + 3, 2, d)) * scale
    new = rng.normal(size=(5, 2, d)) * scale
    rows = np.concatenate([side - side.mean(axis=0) for side in (good, bad)]).reshape(-1, d)
    scatter = rows.T @ rows / len(rows)
    values, vectors = np.linalg.eigh((1 - SHARE) * scatter + SHARE * np.trace(scatter) / d * np.eye(d))
    white = (vectors / np.sqrt(values)) @ vectors.T
    middle = (good.mean(axis=0) + bad.mean(axis=0)) / 2
    x, harmless, harmful = ((a - middle) @ white for a in (new, good.mean(axis=0), bad.mean(axis=0)))
    # eps 0: the log of the ratio of both distances, which sigma at tau 1 holds
    sigma = refusal_signal(x, harmless, harmful, tau=1.0, eps=1e-300)
    assert d <= LOUD, "or directions would be left out"
    read = fit_whitened(good.astype(np.float32), bad.astype(np.float32))
    lean = (np.log(read(new) / (1 - read(new))) - read.offset) / read.steep
    np.testing.assert_allclose(2 * lean, np.log(sigma / (1 - sigma)), rtol=2e-4, atol=2e-4)


def test_fewer_answers_than_dimensions_give_the_same_directions_as_the_full_covariance() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(40, 1, 60)) * np.linspace(0.1, 3, 60)
    rows -= rows.mean(axis=0)
    few, taken = loudest(rows)
    values, vectors = np.linalg.eigh(rows[:, 0].T @ rows[:, 0] / 40)
    own = (1 - SHARE) * values[::-1][: len(few)]
    size = SHARE * (rows**2).mean()
    np.testing.assert_allclose(np.sort(taken), np.sort(1 - np.sqrt(size / (size + own))), rtol=1e-6)
    np.testing.assert_allclose(few @ few.T, np.eye(len(few)), atol=1e-8)
    np.testing.assert_allclose(np.abs(few[-1] @ vectors[:, -1]), 1, rtol=1e-6)


def test_a_loud_direction_that_means_nothing_does_not_rule() -> None:
    """What the cosine to raw anchors cannot tell apart, it can; new answers stand where .9 and .1 are."""
    read = fit_whitened(*two_sides(seed=0))
    new_good, new_bad = two_sides(seed=1)
    good, bad = read(new_good), read(new_bad)
    assert (good > 0.5).mean() > 0.9
    assert (bad < 0.5).mean() > 0.9
    leans = [np.log(sigma / (1 - sigma)).mean() for sigma in (good, bad)]
    assert leans == pytest.approx([np.log(9), -np.log(9)], abs=0.4)
    raw = [fit_anchors(all_of(two_sides(seed=0)[0], YES), all_of(two_sides(seed=0)[1], NO))]
    sri_good, sri_bad = (raw[0].signals([traced(s, YES) for s in side]) for side in (new_good, new_bad))
    assert abs((sri_good > 0.5).mean() - (sri_bad > 0.5).mean()) < 0.3, "or the example shows nothing"


def test_a_direction_that_knows_nothing_stays_in_the_middle() -> None:
    """On its own answers it would look perfect: there are fewer answers than dimensions."""
    good, bad = two_sides(n=30, d=400, far=0.0)
    new_good, new_bad = two_sides(n=30, d=400, far=0.0, seed=5)
    read = fit_whitened(good, bad)
    assert abs(read(new_good).mean() - 0.5) < 0.15
    assert abs(read(new_bad).mean() - 0.5) < 0.15


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 30), st.integers(1, 4))
def test_it_is_finite_in_its_range_and_a_row_has_its_own_bits(seed: int, n: int, d: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    size = 10.0 ** rng.integers(-8, 8)
    good, bad, new = (size * rng.normal(size=(k, steps, d)).astype(np.float32) for k in (n, n + 1, 5))
    read = fit_whitened(good, bad)
    sigma = read(new)
    assert np.isfinite(sigma).all()
    assert (sigma >= 0).all()
    assert (sigma <= 1).all()
    for i in range(5):
        assert (read(new[i : i + 1]) == sigma[i]).all()
        for t in range(steps):
            assert (read(new[i : i + 1, t : t + 1], t) == sigma[i, t]).all()


def test_alike_anchors_are_in_the_middle_and_states_that_are_not_finite_are_nan() -> None:
    same = np.ones((6, 2, 5), dtype=np.float32)
    read = fit_whitened(same, same)
    assert (read(same) == 0.5).all()
    broken = same.copy()
    broken[0, 1, 2], broken[1, 0, 0] = np.nan, np.inf
    sigma = read(broken)
    assert np.isnan(sigma[0, 1])
    assert np.isnan(sigma[1, 0])
    assert np.isfinite(sigma[2:]).all()


# -- as a mode of anchors ---------------------------------------------------------------------------------------------


def traced(states: Any, text: str) -> Any:
    return small.said(text, phi={("last", "generated"): states})


def all_of(side: Iterable[Any], text: str) -> list[Trace]:
    """Of each of these states the trace of an answer to another prompt."""
    return small.asked_apart(traced(states, text) for states in side)


def whitened_anchors() -> Anchors:
    good, bad = two_sides()
    return fit_anchors(all_of(good, YES), all_of(bad, NO), signal="whitened")


def test_it_is_a_mode_of_anchors_with_a_spec_of_its_own(tmp_path: Path) -> None:
    anchors = whitened_anchors()
    assert (anchors.signal_name, anchors.spec.signal) == ("whitened", "whitened")
    assert "whitened" in repr(anchors)
    assert "refused or not" in anchors.warning, "0 does not mean what it means for the paper's"
    plain = fit_anchors(all_of(two_sides()[0], YES), all_of(two_sides()[1], NO))
    assert plain.spec.key != anchors.spec.key
    assert plain.spec.former_key != anchors.spec.former_key
    assert [field.split(":")[0] for field in plain.spec.differences(anchors.spec)] == ["signal"]
    (trace,) = [traced(two_sides(seed=3)[0][0], YES)]
    again = Anchors.load(anchors.save(tmp_path / "a.safetensors"))
    assert (again.signal(trace) == anchors.signal(trace)).all()
    assert again.save(tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()
    assert (anchors.at(trace.aligned("last", "generated")[None, 1:], 1)[0] == anchors.signal(trace)[1:]).all()
    assert anchors.show(trace).scenes[0].sigma[0] == anchors.signal(trace)[0]
    with pytest.raises(DemurError, match="whitened"):
        anchors.signal(trace, tau=0.2)
    with pytest.raises(DemurError, match="sri or whitened"):
        fit_anchors([trace], [trace], signal="white")  # type: ignore[arg-type]


@pytest.mark.parametrize("lack", ["away", "offset", "both", "signal", "unknown", "short", "integers"])
def test_a_file_that_says_one_thing_and_holds_another_is_one_line(lack: str, tmp_path: Path) -> None:
    anchors = whitened_anchors()
    arrays, card = dict(anchors.arrays), {"spec": anchors.spec.plain()} | anchors.card
    match lack:
        case "away" | "offset":
            del arrays[f"whitened_{lack}"]
        case "both":
            del arrays["whitened_away"], arrays["whitened_offset"]
        case "signal":
            del card["spec"]["signal"]
        case "unknown":
            card["spec"]["signal"] = "cosine"
        case "short":
            arrays["whitened_offset"] = arrays["whitened_offset"][:-1]
        case "integers":
            arrays["whitened_loud"] = arrays["whitened_loud"].astype(np.int32)
    path = artefact.save(tmp_path / "x.safetensors", "anchors", arrays, card)
    with pytest.raises(DemurError) as error:
        Anchors.load(path)
    assert "\n" not in str(error.value)


def test_sri_anchors_keep_their_bytes_and_their_spec() -> None:
    """What 0.1.0 wrote says nothing of signals, and is the paper's."""
    plain = fit_anchors(all_of(two_sides()[0], YES), all_of(two_sides()[1], NO))
    assert "signal" not in plain.spec.plain()
    assert {*plain.arrays} == {"harmless", "harmful", "harmless_sigma", "harmful_sigma"}
    assert plain.signal_name == "sri"


def test_anchors_of_a_model_may_be_whitened() -> None:
    model = small.causal("llama")
    harmless, harmful = ([Prompt(f"{side}{i}", f"{side} {i}") for i in range(4)] for side in ("good", "bad"))
    anchors = anchors_of(model, harmless, harmful, signal="whitened", refusals="scripted", length=6, steps=48)
    assert isinstance(anchors.whitened, Whitened)
    assert replace(anchors, whitened=None).signal_name == "sri"
    assert "Scripted" in anchors.warning
