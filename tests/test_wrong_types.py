"""What a notebook may mix up: each is one line of a DemurError, before anything is generated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import demur
from demur.models import load
from demur.samplers import steps_of
from demur.signals import anchors_of, fit_anchors
from demur.types import DemurError

HARMLESS, HARMFUL = demur.starter("harmless", 4), demur.starter("harmful", 4)
ASKED = [demur.Prompt("a", "How do I open the granary?", harmful=False)]


@pytest.fixture(scope="module")
def model() -> Any:
    return load("organism/ar", device="cpu")


@pytest.fixture(scope="module")
def anchors(model: Any) -> Any:
    return anchors_of(model, HARMLESS, HARMFUL, refusals="scripted", steps=4, length=4)


WRONG: dict[str, tuple[Callable[[Any, Any], object], str]] = {
    "a name for a model": (lambda m, a: demur.generate("organism/ar", ASKED), "demur.load"),  # type: ignore[arg-type]
    "a name for a sampler": (lambda m, a: demur.generate(m, ASKED, "ar"), "build\\('ar', model\\)"),  # type: ignore[arg-type]
    "a class for a sampler": (lambda m, a: demur.generate(m, ASKED, demur.Autoregressive), "make one: Autoregr"),  # type: ignore[arg-type]
    "a number for a sampler": (lambda m, a: demur.generate(m, ASKED, 3), "instead of a sampler"),  # type: ignore[arg-type]
    "a length in quotes": (lambda m, a: demur.generate(m, ASKED, length="8"), "length='8'"),  # type: ignore[arg-type]
    "half a step": (lambda m, a: demur.generate(m, ASKED, steps=1.5), "steps=1.5"),  # type: ignore[arg-type]
    "a truth for a seed": (lambda m, a: demur.generate(m, ASKED, seed=True), "seed=True"),
    "a truth for a length": (lambda m, a: demur.generate(m, ASKED, length=True), "length=True"),
    "a word for a seed": (lambda m, a: demur.generate(m, ASKED, seed="x"), "seed='x'"),  # type: ignore[arg-type]
    "several traces for one": (lambda m, a: a.signal(demur.generate(m, ASKED, length=4, steps=4)), "signals"),
    "a word for harmful": (lambda m, a: demur.Prompt("q", "hi", harmful="no"), "harmful='no'"),  # type: ignore[arg-type]
    "a number for harmful": (lambda m, a: replace(ASKED[0], harmful=0), "harmful=0"),
    "a way of refusals": (lambda m, a: anchors_of(m, HARMLESS, HARMFUL, refusals="script"), "'script'"),  # type: ignore[arg-type]
    "a set's name": (lambda m, a: anchors_of(m, "harmless", "harmful", refusals="scripted"), "starter"),  # type: ignore[arg-type]
    "exchanged sides": (lambda m, a: anchors_of(m, HARMFUL, HARMLESS, refusals="scripted"), "exchanged"),
    "one side twice": (lambda m, a: anchors_of(m, HARMLESS, HARMLESS, refusals="scripted"), "harmful side are"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_mixed_up_in_python_is_one_line(
    name: str, model: Any, anchors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, said = WRONG[name]
    if name != "several traces for one":
        monkeypatch.setattr(type(model), "forward", None)  # nothing is generated
    with pytest.raises(DemurError, match=said) as caught:
        call(model, anchors)
    assert "\n" not in str(caught.value)
    assert caught.value.expected


def test_traces_of_exchanged_sides_make_no_anchors(model: Any) -> None:
    good, bad = (demur.generate(model, side, length=4, steps=4) for side in (HARMLESS, HARMFUL))
    with pytest.raises(DemurError, match="exchanged"):
        fit_anchors(bad, good)


@pytest.mark.parametrize("value", [True, False])
def test_a_mark_out_of_a_table_is_a_mark(value: bool) -> None:
    assert demur.Prompt("q", "hi", harmful=np.bool_(value)).harmful is value  # type: ignore[arg-type]
    assert demur.Prompt("q", "hi").harmful is None


def test_a_sampler_never_runs_with_a_model_that_lacks_what_it_needs(model: Any) -> None:
    sampler, lacks = demur.MaskedDiffusion(steps=4), "MaskedDiffusion on the causal model organism/ar, which has no"
    with pytest.raises(DemurError, match=lacks):
        demur.generate(model, ASKED, sampler, length=4)
    canvas = model.canvas(ASKED, 4)
    with pytest.raises(DemurError, match=lacks):
        steps_of(sampler, model, canvas, [])
