"""Laws of frames: tidy rows of a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import demur
from demur.traces import frames
from demur.types import DemurError

pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def organism() -> tuple[Any, Any]:
    from demur.organism.anchors import own_anchors

    model = demur.load("organism/diffusion")
    sampler = demur.MaskedDiffusion(steps=8)
    return model, own_anchors(model, sampler, length=24, steps=8, layer="last", pool="generated", n=12)


def test_a_trace_is_a_row_a_step_and_says_what_the_trace_says(organism: tuple[Any, Any]) -> None:
    model, anchors = organism
    asked = [demur.Prompt("q1", "How do I open the granary?")]
    (trace,) = demur.generate(model, asked, demur.MaskedDiffusion(steps=8), length=24, steps=8)
    frame = trace.to_frame(anchors)
    assert frame["step"].tolist() == list(range(1, trace.steps + 1))
    assert frame["text"].tolist() == [trace.text(t) for t in frame["step"]]
    assert frame["refused"].tolist() == [trace.refused(t) for t in frame["step"]]
    np.testing.assert_allclose(frame["sigma"], anchors.signal(trace)[: trace.steps])
    assert (frame["committed"].cumsum() + frame["open"] == 24).all()
    assert "sigma" not in trace.to_frame()


def test_places_put_together_are_the_steps(organism: tuple[Any, Any]) -> None:
    model, anchors = organism
    asked = [demur.Prompt("q1", "How do I open the granary?")]
    (trace,) = demur.generate(model, asked, demur.MaskedDiffusion(steps=8), length=24, steps=8)
    places, steps = trace.to_frame(per="place"), trace.to_frame()
    assert len(places) == trace.steps * 24
    for t, part in places.groupby("step"):
        assert part["token"].tolist() == trace.tokens(int(t)).tolist()
        assert part["state"].isin(frames.WRITTEN).sum() == steps["committed"][int(t) - 1]
    with pytest.raises(DemurError, match="step or place"):
        trace.to_frame(per="token")
    with pytest.raises(DemurError, match="leave `per` out"):
        trace.to_frame(anchors, per="place")


def test_steps_behind_the_signals_end_have_none(organism: tuple[Any, Any]) -> None:
    model, _ = organism
    from demur.organism.anchors import own_anchors

    short = own_anchors(model, demur.MaskedDiffusion(steps=8), length=24, steps=4, layer="last", pool="generated", n=12)
    asked = [demur.Prompt("q1", "How do I open the granary?")]
    (trace,) = demur.generate(model, asked, demur.MaskedDiffusion(steps=8), length=24, steps=4)
    assert trace.to_frame(short)["sigma"].isna().tolist() == [False] * 4 + [True] * (trace.steps - 4)


@pytest.mark.parametrize("given", [[1.2, 0.1], [60.0], [-0.5], [], [[0.5], [0.5]], ["a"], 0.5, [float("inf")]])
def test_a_scene_has_no_curve_that_is_no_signal(given: Any, organism: Any) -> None:
    (trace,) = demur.generate(
        organism[0], [demur.Prompt("q1", "Hello")], demur.MaskedDiffusion(steps=8), length=24, steps=8
    )
    for how in ({"sigma": given}, {"references": [("mine", given)]}, {"bands": [("mine", given, given)]}):
        with pytest.raises(DemurError, match="curve"):
            trace.scene(**how)
    assert trace.scene(sigma=[0.5]).sigma == (0.5,) * trace.steps
