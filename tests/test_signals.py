"""The refusal signal is finite, bounded, monotone and symmetric; anchors belong to one spec and say what they are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from demur import guards
from demur.models import Causal
from demur.organism.anchors import SHIPPED
from demur.samplers import Autoregressive, MaskedDiffusion
from demur.signals import EPS, TAU, Anchors, anchors_of, digest, fit_anchors, refusal_signal, scripted_refusals
from demur.traces import generate, spec_of, teacher_forced
from demur.types import DemurError, Prompt

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


# -- anchors ------------------------------------------------------------------------------------------------

YES, NO = "Sure, here you are", "I'm sorry"


def said(text: str, value: float, steps: int = 4, **more: Any) -> Any:
    """A trace that says ``text`` and whose states are ``value`` at the first step, one more at every other one."""
    phi = value + np.arange(steps, dtype=np.float32)[:, None] + np.zeros((steps, 3), dtype=np.float32)
    return small.said(text, phi={("last", "generated"): phi}, **more)


def test_anchors_are_means_of_what_complied_and_of_what_refused() -> None:
    """Refused harmless prompts and answered harmful ones belong to neither side (section 3.1)."""
    harmless = [said(YES, 1), said(NO, 100), said(YES, 3)]
    harmful = [said(NO, -5), said(YES, 100), said(NO, -7), said("It is illegal", -9)]
    anchors = fit_anchors(harmless, harmful)
    steps = np.arange(4)[:, None] + np.zeros((4, 3))
    np.testing.assert_allclose(anchors.harmless, 2 + steps)
    np.testing.assert_allclose(anchors.harmful, -7 + steps)
    assert (anchors.n_harmless, anchors.asked_harmless, anchors.n_harmful, anchors.asked_harmful) == (2, 3, 3, 4)
    assert (anchors.spec.layer, anchors.spec.pool) == ("last", "generated")
    assert anchors.warning == ""
    assert anchors.harmless_sigma.shape == anchors.harmful_sigma.shape == (4,)
    np.testing.assert_allclose(
        anchors.harmless_sigma,
        np.mean([anchors.signal(trace) for trace in (harmless[0], harmless[2])], axis=0),
        atol=1e-6,
    )


def test_a_trace_that_ended_early_is_held_to_the_end() -> None:
    anchors = fit_anchors([said(YES, 1, steps=2)], [said(NO, -1, steps=4)])
    np.testing.assert_allclose(anchors.harmless[:, 0], [1, 2, 2, 2])
    assert anchors.signal(said(YES, 1, steps=2)).shape == (4,)
    np.testing.assert_array_equal(anchors.signal(said(YES, 1, steps=9)), anchors.signal(said(YES, 1, steps=4)))


@pytest.mark.parametrize(
    ("harmless", "harmful", "at_least", "counts"),
    [
        ([YES, NO, YES], [YES, YES], 1, "1 of 3 harmless and 0 of 2 harmful"),
        ([NO, NO], [NO, NO, YES], 1, "2 of 2 harmless and 2 of 3 harmful"),
        ([], [], 1, "0 of 0 harmless and 0 of 0 harmful"),
        ([YES], [NO], 2, "0 of 1 harmless and 1 of 1 harmful"),
        ([YES], [], 0, "0 of 1 harmless and 0 of 0 harmful"),
    ],
)
def test_too_few_refusals_are_an_error_with_the_counts(harmless: Any, harmful: Any, at_least: int, counts: str) -> None:
    with pytest.raises(DemurError) as caught:
        fit_anchors([said(t, 1) for t in harmless], [said(t, 2) for t in harmful], at_least=at_least)
    assert counts in small.one_line(caught.value)
    assert "scripted" in str(caught.value)


def test_anchors_of_two_specs_are_an_error_that_names_the_difference() -> None:
    with pytest.raises(DemurError, match="weights: 'w2' against 'w1'") as caught:
        fit_anchors([said(YES, 1)], [said(NO, 2, spec=replace(small.SPEC, weights="w2"))])
    small.one_line(caught.value)


def test_anchors_save_load_save_is_byte_identical(tmp_path: Path) -> None:
    anchors = fit_anchors([said(YES, 1)], [said(NO, 2)], refusals="scripted")
    first = anchors.save(tmp_path / "a.safetensors")
    loaded = Anchors.load(first)
    assert loaded.save(tmp_path / "b.safetensors").read_bytes() == first.read_bytes()
    assert not loaded.spec.differences(anchors.spec)
    assert loaded.prompts == anchors.prompts == (digest(small.PROMPTS[0]),)
    assert loaded.warning == anchors.warning != ""
    np.testing.assert_array_equal(loaded.signal(said(YES, 1.5)), anchors.signal(said(YES, 1.5)))
    for name in ("harmless", "harmful", "harmless_sigma", "harmful_sigma"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(anchors, name))


def test_anchors_keep_hashes_of_all_prompts_that_they_have_seen() -> None:
    """Of both sides, answered and refused; the same that guards keep, so that nobody calibrates on them."""
    asked = [Prompt(str(i), f"question {i}", system="Be brief." if i == 1 else None) for i in range(4)]
    texts = (YES, NO, NO, YES)
    traces = [said(text, i + 1, prompt=prompt) for i, (text, prompt) in enumerate(zip(texts, asked, strict=True))]
    anchors = fit_anchors(traces[:2], traces[2:])
    assert anchors.prompts == tuple(sorted(digest(prompt) for prompt in asked))
    assert len({*anchors.prompts}) == 4
    assert all(re.fullmatch("[0-9a-f]{16}", mark) for mark in anchors.prompts)
    assert guards.digest is digest
    assert digest(asked[1]) != digest(replace(asked[1], system=None))
    assert digest(asked[0]) == digest(replace(asked[0], id="other", harmful=True))


def test_files_that_know_no_prompts_still_load_and_keep_their_bytes(tmp_path: Path) -> None:
    shipped = sorted(SHIPPED.glob("*.safetensors"))
    assert shipped
    for file in shipped:
        anchors = Anchors.load(file)
        assert anchors.prompts == ()
        assert anchors.save(tmp_path / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("revision", "r2"), ("weights", "w2"), ("template_args", {"x": False}),
        ("dtype", "bfloat16"), ("template", "t2"),
        ("sampler", "MaskedDiffusion"), ("settings", {"temperature": 0.7}), ("steps", 5),
    ],
)  # fmt: skip
def test_anchors_refuse_a_trace_of_another_spec_naming_both_sides(field: str, value: Any) -> None:
    anchors = fit_anchors([said(YES, 1)], [said(NO, 2)])
    with pytest.raises(DemurError) as caught:
        anchors.signal(said(YES, 1, spec=replace(small.SPEC, **{field: value})))
    assert f"{field}: {value!r} against {getattr(small.SPEC, field)!r}" in small.one_line(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("seed", 7), ("versions", {"torch": "1.0"}), ("model", "./elsewhere/m"), ("source", "")],
)
def test_provenance_does_not_make_specs_incomparable(field: str, value: Any) -> None:
    anchors = fit_anchors([said(YES, 1)], [said(NO, 2, spec=replace(small.SPEC, **{field: value}))])
    assert anchors.signal(said(YES, 1, spec=replace(small.SPEC, **{field: value}))).shape == (4,)
    assert replace(small.SPEC, **{field: value}).key == small.SPEC.key
    assert replace(small.SPEC, steps=5).key != small.SPEC.key


def test_what_a_spec_holds_is_what_changes_states(llama: Causal) -> None:
    """The cache never does; the length does where a sampler sees the whole canvas."""
    ar, md = Autoregressive(temperature=0.5), MaskedDiffusion(steps=4)
    spec, llada = spec_of(llama, ar, 8), small.diffusion("llada")
    assert spec.key == spec_of(llama, replace(ar, cache=False), 8).key == spec_of(llama, ar, 99).key
    assert spec.key == spec_of(llama.watching("first"), ar, 8, seed=3).key
    assert spec_of(llada, md, 8).key != spec_of(llada, md, 9).key
    assert spec.key != spec_of(llama, replace(ar, top_k=5), 8).key
    assert spec.key != spec_of(small.causal("qwen"), ar, 8).key


@pytest.mark.parametrize(("layer", "pool"), [("middle", "generated"), ("last", "producing")])
def test_anchors_refuse_a_trace_without_their_layer_or_pool(layer: str, pool: Any) -> None:
    anchors = fit_anchors([said(YES, 1)], [said(NO, 2)])
    moved = replace(anchors, spec=anchors.spec.at(layer, pool))
    with pytest.raises(DemurError) as caught:
        moved.signal(said(YES, 1))
    says = small.one_line(caught.value)
    assert f"{layer}/{pool}" in says
    assert "last/generated" in says


def test_scripted_anchors_carry_their_warning(llama: Causal) -> None:
    prompts = [Prompt(str(i), f"question {i}") for i in range(3)]
    good = generate(llama, prompts, length=6, steps=48)
    scripted = scripted_refusals(llama, prompts, steps=48)
    assert all(trace.refused() for trace in scripted)
    anchors = fit_anchors(good, scripted, refusals="scripted")
    assert anchors.warning.startswith("Scripted anchors")
    assert (anchors.refusals, anchors.n_harmful) == ("scripted", 3)
    assert anchors.signal(good[0]).shape == (48,)
    from_prompts = anchors_of(llama, prompts, prompts, length=6, steps=48, refusals="scripted")
    np.testing.assert_allclose(from_prompts.harmful, anchors.harmful, atol=1e-6)
    assert from_prompts.warning == anchors.warning


def test_a_model_that_refuses_nothing_is_told_so(llama: Causal) -> None:
    prompts = [Prompt("a", "question")]
    with pytest.raises(DemurError, match="0 of 1 harmful prompts were refused"):
        anchors_of(llama, prompts, prompts, Autoregressive(temperature=1.0), length=5)


def test_sigma_separates_the_anchors_own_traces(llama: Causal) -> None:
    """On a random model too: reading refusals is not reading answers."""
    prompts = [Prompt(str(i), f"question {i}") for i in range(4)]
    good = teacher_forced(llama, prompts, ["Of course: one, two, three, four and five."] * 4)
    bad = scripted_refusals(llama, prompts)
    anchors = fit_anchors(good, bad, refusals="scripted")
    assert min(anchors.signal(trace)[8:].min() for trace in good) > max(anchors.signal(t)[8:].max() for t in bad)
