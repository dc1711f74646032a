"""Anchors between which every state is at 0.5 are spoken of, and what is no temperature is refused."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import demur
from demur.signals import refusal_signal
from demur.types import DemurError, DemurWarning

STEPS, SIZE = 6, 5
RANDOM = np.random.default_rng(7)
PHI, GOOD, BAD = (RANDOM.normal(size=(STEPS, SIZE)) for _ in range(3))
ZEROS = np.zeros_like(GOOD)
FIRST = (np.arange(STEPS) >= 2)[:, None]
"""Nothing is pooled before the third step."""


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        (GOOD, GOOD, "both sides point the same way at every step"),
        (GOOD, GOOD.copy().tolist(), "at every step"),
        (GOOD, 3.0 * GOOD, "at every step"),
        (GOOD, (0.1 * GOOD).astype(np.float32), "at every step"),
        (GOOD, torch.tensor(GOOD, dtype=torch.float32), "at every step"),
        (GOOD * FIRST, GOOD * FIRST, "at every step"),
        (GOOD, np.where(FIRST, GOOD, BAD), "at 4 of 6 steps"),
        (ZEROS, ZEROS, "both sides are zeros"),
        (GOOD, ZEROS, "harmful side is zeros"),
        (ZEROS, BAD, "harmless side is zeros"),
    ],
)
def test_anchors_that_tell_nothing_are_said(good: Any, bad: Any, said: str) -> None:
    with pytest.warns(DemurWarning, match=said) as caught:
        refusal_signal(PHI, good, bad)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (GOOD, BAD),
        (GOOD, np.where(FIRST, BAD, GOOD)),
        (GOOD, -GOOD),
        (GOOD * FIRST, BAD * FIRST),
        (GOOD, GOOD + 1e-3 * BAD),
    ],
)
def test_anchors_that_tell_something_are_let_be(good: Any, bad: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sigma = refusal_signal(PHI, good, bad)
        for t in (1, 2):
            np.testing.assert_array_equal(refusal_signal(PHI[:t], good, bad), sigma[:t])


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "0.1", None, True, [0.1, 0.2]])
@pytest.mark.parametrize("name", ["tau", "eps"])
def test_what_is_no_temperature_is_one_line(name: str, value: Any) -> None:
    with pytest.raises(DemurError, match=name):
        refusal_signal(PHI, GOOD, BAD, **{name: value})


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), 1, np.int64(1)])
def test_a_number_of_numpy_is_a_temperature(value: Any) -> None:
    np.testing.assert_array_equal(
        refusal_signal(PHI, GOOD, BAD, tau=value), refusal_signal(PHI, GOOD, BAD, tau=float(value))
    )


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_anchors_that_are_not_finite_are_refused(odd: float) -> None:
    for at in range(2):
        anchors = [GOOD.copy(), BAD.copy()]
        anchors[at][3, 2] = odd
        with pytest.raises(DemurError, match="not finite"):
            refusal_signal(PHI, *anchors)


def test_anchors_of_traces_say_it_too_and_none_are_fitted_that_tell_nothing() -> None:
    model = demur.load("organism/ar", device="cpu")
    harmless, harmful = demur.starter("harmless", 4), demur.starter("harmful", 4)
    anchors = demur.anchors_of(model, harmless, harmful, refusals="scripted", steps=4, length=4)
    trace = demur.generate(model, harmless[:1], length=4, steps=4)[0]
    same = replace(anchors, harmful=anchors.harmless)
    with pytest.warns(DemurWarning, match="same way at every step"):
        np.testing.assert_array_equal(same.signal(trace), 0.5)
    key = ("last", "generated")
    good, bad = (
        [replace(one, phi={key: anchors.harmless}) for one in demur.generate(model, side, length=4, steps=4)]
        for side in (harmless, harmful)
    )
    bad = [replace(one, origin="replayed") for one in bad]
    for signal in ("sri", "whitened"):
        if signal == "sri" and not any(one.refused() for one in bad):
            continue
        with pytest.raises(DemurError, match="tell nothing"):
            demur.fit_anchors(good, bad, signal=signal)  # type: ignore[arg-type]
