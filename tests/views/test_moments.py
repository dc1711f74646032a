"""A generation that is watched shows at each step what the whole trace shows of it, and makes each frame once."""

from __future__ import annotations

from typing import Any

import pytest
import small

from demur.samplers import build
from demur.studio.watching import Run, watch
from demur.traces import Trace
from demur.types import Prompt
from demur.views.scene import Scene

PROMPTS = (Prompt("a", "Tell me of it", harmful=False), Prompt("b", "Tell me of it", harmful=True))


@pytest.mark.parametrize("name", ["ar", "low-confidence", "random", "revising", "mdlm"])
@pytest.mark.parametrize("prompt", PROMPTS, ids=["shown", "hidden"])
def test_frames_of_before_are_those_of_the_whole_trace(
    name: str, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = small.causal("llama") if name == "ar" else small.diffusion("dream")
    sampler = build(name, model, steps=9, settings={"temperature": 1.0} if name != "mdlm" else {})
    made, frame = [], Trace.frame

    def counted(self: Trace, t: int, hide: bool) -> Any:
        made.append(t)
        return frame(self, t, hide)

    monkeypatch.setattr(Trace, "frame", counted)
    run, before = Run(name, sampler, None, 12), None
    scenes: list[Scene] = []
    for (moment,) in watch(model, prompt, [run], seed=5, steps=9):
        assert moment is not None
        before = moment.scene(run, show_harmful=False, before=before)
        scenes.append(before)
        assert len(before.frames) == moment.trace.steps
    trace = moment.trace
    assert made == list(range(1, trace.steps + 1))
    assert trace.steps > 3
    whole = trace.scene().frames
    for scene in scenes:
        assert scene.frames == whole[: len(scene.frames)]
    assert scenes[-1].redacted is (prompt.harmful is not False)


def test_frames_whose_words_were_shown_are_not_taken_over_where_they_are_hidden() -> None:
    model: Any = small.causal("llama")
    run = Run("ar", build("ar", model), None, 4)
    (first,), (second,), *_ = watch(model, PROMPTS[1], [run], seed=5, steps=4)
    assert first is not None
    assert second is not None
    shown = first.scene(run, show_harmful=True)
    assert second.scene(run, show_harmful=False, before=shown) == second.scene(run, show_harmful=False)
    assert second.scene(run, show_harmful=True, before=shown) == second.scene(run, show_harmful=True)
