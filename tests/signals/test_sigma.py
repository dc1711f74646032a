"""The refusal signal is finite, bounded, monotone and symmetric, and costs no torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import small
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from demur.signals import EPS, TAU, refusal_signal
from demur.types import DemurError

pytestmark = pytest.mark.filterwarnings("ignore:anchors. :demur.types.DemurWarning")  # of those that tell nothing
AWKWARD = (0.0, 5e-324, 1e-310, 1e-160, 1e-12, 1e-8, 1.0, -1.0, 3.5, 1e12, 1e160, -1.7e308, 1.7976931348623157e308)
finite = st.one_of(st.sampled_from(AWKWARD), st.floats(allow_nan=False, allow_infinity=False))
ordinary = st.floats(-10, 10, allow_subnormal=False)


def arrays(shape: tuple[int, ...], elements: Any = finite) -> st.SearchStrategy[Any]:
    return hnp.arrays(np.float64, shape, elements=elements)


@st.composite
def questions(draw: st.DrawFn, elements: Any = finite) -> tuple[Any, Any, Any]:
    """States and two anchors; sometimes equal to each other, sometimes a prefix."""
    steps, size = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    phi = draw(arrays((draw(st.integers(1, steps)), size), elements))
    harmless, harmful = draw(arrays((steps, size), elements)), draw(arrays((steps, size), elements))
    kind = draw(st.sampled_from(["any", "identical anchors", "on harmful", "on harmless"]))
    if kind == "identical anchors":
        harmful = harmless.copy()
    elif kind != "any":
        side = harmful if kind == "on harmful" else harmless
        side[: len(phi)] = phi
    return phi, harmless, harmful


# -- the formula --------------------------------------------------------------------------------------------


@given(questions())
def test_sigma_is_finite_and_between_0_and_1_for_every_finite_input(question: Any) -> None:
    with np.errstate(all="raise", under="ignore"):
        sigma = refusal_signal(*question)
    assert sigma.shape == question[0].shape[:-1]
    assert np.isfinite(sigma).all()
    assert ((sigma >= 0) & (sigma <= 1)).all()


@given(questions(), st.floats(1e-3, 10), st.floats(1e-12, 1.0))
def test_sigma_is_finite_for_every_temperature_and_stabiliser(question: Any, tau: float, eps: float) -> None:
    sigma = refusal_signal(*question, tau=tau, eps=eps)
    assert ((sigma >= 0) & (sigma <= 1)).all()


@given(questions())
def test_swapping_the_anchors_mirrors_sigma(question: Any) -> None:
    phi, harmless, harmful = question
    np.testing.assert_allclose(
        refusal_signal(phi, harmful, harmless), 1 - refusal_signal(phi, harmless, harmful), rtol=0, atol=1e-12
    )


@given(questions())
def test_identical_anchors_say_nothing(question: Any) -> None:
    phi, harmless, _ = question
    np.testing.assert_array_equal(refusal_signal(phi, harmless, harmless), 0.5)


@given(questions(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_sigma_does_not_depend_on_the_batch(question: Any, rows: int, chance: Any) -> None:
    phi, harmless, harmful = question
    others = np.array([chance.uniform(-1, 1) for _ in range(rows * phi.size)]).reshape(rows, *phi.shape)
    place = chance.randrange(rows + 1)
    batch = np.insert(others, place, phi, axis=0)
    alone = refusal_signal(phi, harmless, harmful)
    np.testing.assert_allclose(refusal_signal(batch, harmless, harmful)[place], alone, rtol=0, atol=1e-7)
    np.testing.assert_allclose(refusal_signal(batch[None], harmless, harmful)[0, place], alone, rtol=0, atol=1e-7)


@given(questions())
def test_a_prefix_has_the_prefix_of_the_signal(question: Any) -> None:
    phi, harmless, harmful = question
    whole = refusal_signal(phi, harmless, harmful)
    for t in range(1, len(phi) + 1):
        np.testing.assert_allclose(refusal_signal(phi[:t], harmless, harmful), whole[:t], rtol=0, atol=1e-7)


@given(st.integers(2, 6), st.floats(0, 1), st.floats(0, 1), st.floats(0.05, 1))
def test_nearer_to_the_harmless_anchor_is_higher(size: int, one: float, other: float, tau: float) -> None:
    """On the arc from the harmful to the harmless anchor sigma rises, from refusing to complying."""
    harmless, harmful = np.eye(size)[:1], np.eye(size)[1:2]
    near, far = sorted((one, other), reverse=True)

    def at(x: float) -> float:
        phi = np.sin(x * np.pi / 2) * harmless + np.cos(x * np.pi / 2) * harmful
        return float(refusal_signal(phi, harmless, harmful, tau=tau)[0])

    assert at(near) >= at(far)
    assert at(1.0) > 0.99
    assert at(0.0) < 0.01
    assert at(0.5) == pytest.approx(0.5)


@given(questions(ordinary), st.floats(1.0, 1e100), st.floats(1.0, 1e100), st.floats(1.0, 1e100))
def test_sigma_depends_on_directions_only_where_norms_are_large(question: Any, a: float, b: float, c: float) -> None:
    """The norms' own eps moves a distance by 2 eps / norm, which must be small against the eps under the logarithm."""
    phi, harmless, harmful = (1e6 * (x + np.where(np.abs(x).max(axis=-1) < 0.1, 1.0, 0.0)[:, None]) for x in question)
    np.testing.assert_allclose(
        refusal_signal(phi * a, harmless * b, harmful * c), refusal_signal(phi, harmless, harmful), rtol=0, atol=1e-3
    )


@given(questions(ordinary))
def test_sigma_is_the_formula_of_the_paper(question: Any) -> None:
    """Section 3.1 written down once more, without any care for overflow."""
    phi, harmless, harmful = question

    def distance(x: Any, y: Any) -> Any:
        return 1 - (x / (np.linalg.norm(x) + EPS)) @ (y / (np.linalg.norm(y) + EPS))

    for t, x in enumerate(phi):
        far, near = (max(distance(x, anchor[t]), 0.0) for anchor in (harmful, harmless))
        ratio = (np.log(far + EPS) - np.log(near + EPS)) / TAU
        expected = 1 / (1 + np.exp(-ratio)) if ratio > -700 else 0.0
        assert refusal_signal(phi, harmless, harmful)[t] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_zero_vector_is_as_far_from_both_and_what_is_not_finite_is_nan(dtype: Any) -> None:
    anchors = np.eye(3)[:2, None]
    assert refusal_signal(np.zeros((1, 3), dtype), *anchors)[0] == 0.5
    for value in (np.nan, np.inf, -np.inf):
        phi = np.array([[1, value, 0], [1, 0, 0]], dtype)
        sigma = refusal_signal(phi, *np.repeat(anchors, 2, axis=1))
        assert np.isnan(sigma).tolist() == [True, False]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_low_precision_input_is_computed_in_float64(dtype: Any) -> None:
    phi, harmless, harmful = np.random.default_rng(0).standard_normal((3, 4, 8)).astype(dtype)
    sigma = refusal_signal(phi, harmless, harmful)
    assert sigma.dtype == np.float64
    np.testing.assert_array_equal(sigma, refusal_signal(*(a.astype(np.float64) for a in (phi, harmless, harmful))))


@pytest.mark.parametrize(
    ("shapes", "settings"),
    [
        (((3, 4), (2, 4), (2, 4)), {}),
        (((3, 4), (3, 5), (3, 5)), {}),
        (((3, 4), (3, 4), (4, 4)), {}),
        (((4,), (4,), (4,)), {}),
        (((3, 4), (3, 4), (3, 4)), {"tau": 0.0}),
        (((3, 4), (3, 4), (3, 4)), {"tau": -0.1}),
        (((3, 4), (3, 4), (3, 4)), {"eps": 0.0}),
        (((3, 4), (3, 4), (3, 4)), {"tau": float("nan")}),
    ],
)
def test_a_signal_that_has_no_meaning_is_one_line(shapes: Any, settings: Any) -> None:
    with pytest.raises(DemurError) as caught:
        refusal_signal(*(np.ones(shape) for shape in shapes), **settings)
    small.one_line(caught.value)


def test_the_signal_of_arrays_loads_no_torch() -> None:
    code = (
        "import sys, demur.signals.sigma\n"
        "from demur import refusal_signal, rows\n"
        "assert {'refusal_signal', 'Anchors', 'sigma'} <= set(dir(demur.signals))\n"
        "assert 0.5 == refusal_signal([[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]])[0]\n"
        "print(sorted({'torch', 'transformers', 'pandas', 'sklearn'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
