"""Anchors belong to one spec and say what they are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

from demur import guards
from demur.models import Causal
from demur.organism.anchors import SHIPPED
from demur.samplers import Autoregressive, MaskedDiffusion
from demur.signals import Anchors, anchors_of, digest, fit_anchors, scripted_refusals
from demur.traces import generate, spec_of, teacher_forced
from demur.types import DemurError, Prompt

# -- anchors ------------------------------------------------------------------------------------------------

YES, NO = "Sure, here you are", "I'm sorry"


def said(text: str, value: float, steps: int = 4, **more: Any) -> Any:
    """A trace that says ``text`` and whose states are ``value`` at the first step, one more at every other one, beside
    a last number of 1, so that states of two values do not point the same way.
    """
    phi = value + np.arange(steps, dtype=np.float32)[:, None] + np.zeros((steps, 3), dtype=np.float32)
    phi[:, -1] = 1
    return small.said(text, phi={("last", "generated"): phi}, **more)


def test_anchors_are_means_of_what_complied_and_of_what_refused() -> None:
    """Refused harmless prompts and answered harmful ones belong to neither side (section 3.1)."""
    harmless = small.asked_apart([said(YES, 1), said(NO, 100), said(YES, 3)])
    harmful = small.asked_apart([said(NO, -5), said(YES, 100), said(NO, -7), said("It is illegal", -9)])
    anchors = fit_anchors(harmless, harmful)
    steps = np.arange(4)[:, None] + np.zeros((4, 2))
    np.testing.assert_allclose(anchors.harmless[:, :2], 2 + steps)
    np.testing.assert_allclose(anchors.harmful[:, :2], -7 + steps)
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
    anchors = fit_anchors([said(YES, 1, steps=2)], [said(NO, -2, steps=4)])
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


@pytest.mark.filterwarnings("ignore:anchors. .*on both sides")
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


@pytest.mark.filterwarnings("ignore:anchors. .*on both sides")
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
