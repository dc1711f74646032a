"""Thought and answer of a generation: each is the trace that it would be by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small
from test_answers import DONE, END, THINK, begun, told

from demur.signals import fit_anchors
from demur.traces import Trace, generate, segment, teacher_forced
from demur.traces.segments import thought_tokens
from demur.types import DemurError, Prompt

POOLS = [("last", "generated"), ("last", "producing")]


def replayed(text: str, prefill: str = "", prompt: str = "Hi", steps: int = 4) -> Trace:
    asked = Prompt(f"p{len(text)}", prompt, prefill=prefill)
    return teacher_forced(small.causal("llama"), [asked], [text], pools=POOLS, steps=steps, length=64)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trace", "thought", "says"),
    [
        (told(THINK, "I cannot tell.", DONE, "Sure.", END), 3, ("<think>I cannot tell.</think>", "Sure.")),
        (told("Sure.", END), 0, (None, "Sure.")),
        (told(THINK, "Hm.", "Hm."), None, ("<think>Hm.Hm.", None)),
        (told(THINK, "Hm.", DONE), 3, ("<think>Hm.</think>", None)),
        (begun(told("Hm.", DONE, "Sure."), THINK), 2, ("Hm.</think>", "Sure.")),
        (begun(told("Sure."), THINK, DONE), 0, (None, "Sure.")),
        (begun(told("Hm."), THINK), None, ("Hm.", None)),
        (told(THINK, DONE, "Sure.", THINK, "Hm.", DONE, "Yes."), 2, ("<think></think>", "Sure.<think>Hm.</think>Yes.")),
        (told("<|channel|>analysis<|message|>", "Hm.", "<|channel|>final<|message|>", "Sure."), 3, (..., "Sure.")),
        (told("<|channel|>final<|message|>", "Sure."), 0, (None, "<|channel|>final<|message|>Sure.")),
    ],
)
def test_a_generation_falls_into_thought_and_answer(
    trace: Trace, thought: int | None, says: tuple[object, ...]
) -> None:
    assert thought_tokens(trace) == thought
    texts = [part.text() if (part := segment(trace, name)) else None for name in ("thought", "answer")]  # type: ignore[arg-type]
    assert [text for text, said in zip(texts, says, strict=True) if said is not ...] == [
        s for s in says if s is not ...
    ]
    for part in (segment(trace, "thought"), segment(trace, "answer")):
        if part is not None:
            assert part.refused() == trace.refused()
            assert part.steps == len(part.commits) == len(next(iter(part.phi.values()), part.commits))
            assert part.spec.settings["segment"] in ("thought", "answer")


def test_an_answer_is_what_it_would_be_behind_a_thought_that_was_given() -> None:
    whole = replayed("<think>Let me see.</think>I cannot say.")
    answer, given = segment(whole, "answer"), replayed("I cannot say.", prefill="<think>Let me see.</think>")
    assert answer is not None
    assert answer.text() == given.text() == "I cannot say."
    assert answer.refused()
    assert (answer.start == given.start).all()
    assert (answer.open == given.open).all()
    assert (answer.commits == given.commits).all()
    for key, phi in given.phi.items():
        np.testing.assert_allclose(answer.phi[key], phi, rtol=0, atol=1e-5)
    for t in range(answer.steps + 1):
        assert (answer.tokens(t) == given.tokens(t)).all()
        assert answer.text(t) == given.text(t)


def test_a_thought_is_the_beginning_of_its_generation_bit_for_bit() -> None:
    model = small.causal("llama")
    whole = generate(model, [Prompt("p", "Hi")], length=24, pools=POOLS)[0]  # type: ignore[arg-type]
    mark = int(whole.tokens()[9])
    ended = replace(whole, pieces={**whole.pieces, mark: b"</think>"}, start=whole.start.copy())
    ended.start[0], first = mark + 1, int(np.flatnonzero(whole.tokens() == mark)[0]) + 1
    ended.pieces[mark + 1] = b"<think>"  # type: ignore[index]
    thought = segment(ended, "thought")
    assert thought is not None
    begins = generate(model, [Prompt("p", "Hi")], length=first, pools=POOLS)[0]  # type: ignore[arg-type]
    assert (thought.tokens() == begins.tokens()).all()
    assert thought.stop == "end-of-sequence"
    for key, phi in begins.phi.items():
        assert thought.phi[key].tobytes() == phi.tobytes()


def test_anchors_of_a_segment_read_that_segment_alone() -> None:
    good = [replayed(f"<think>Hm {i}.</think>Here you are, {i}.", steps=16) for i in range(3)]
    bad = [replayed(f"<think>Oh {i}.</think>I cannot do {i}.", steps=16) for i in range(3)]
    for name in ("thought", "answer"):
        parts = [[part for trace in side if (part := segment(trace, name))] for side in (good, bad)]  # type: ignore[arg-type]
        anchors = fit_anchors(*map(small.asked_apart, parts), refusals="observed")
        assert (anchors.n_harmless, anchors.n_harmful) == (3, 3)
        assert anchors.spec.settings["segment"] == name
        assert np.isfinite(anchors.signals(parts[0])).all()
        other = segment(good[0], "answer" if name == "thought" else "thought")
        for trace in (good[0], other):
            with pytest.raises(DemurError, match="anchors of another spec"):
                anchors.signal(trace)  # type: ignore[arg-type]


def test_what_has_no_segments_is_one_line(tmp_path: Path) -> None:
    whole = replayed("<think>a</think>b")
    diffusion = generate(small.diffusion("llada"), [Prompt("p", "Hi")], length=4)[0]
    pooled = replace(whole, phi={("last", "response"): whole.phi["last", "generated"]})
    for trace, name, says in (
        (whole, "thoughts", "the segment 'thoughts'"),
        (diffusion, "answer", "a sampler that writes from left to right"),
        (pooled, "answer", "states pooled as response"),
    ):
        with pytest.raises(DemurError, match=says):
            segment(trace, name)  # type: ignore[arg-type]
    part = segment(whole, "answer")
    assert part is not None
    with pytest.raises(DemurError, match="save that"):
        part.save(tmp_path / "x")
    assert part.scene().frames
