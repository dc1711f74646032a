"""Replay in chunks: the states of a single pass, in memory that neither lengths nor numbers make grow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small
import torch

from demur.traces import teacher_forced
from demur.traces.replay import _groups, _Row
from demur.types import DemurError, Prompt

PROMPTS = [Prompt(str(i), "Knead the dough slowly "[: 3 + 5 * i], harmful=False) for i in range(4)]
ANSWERS = ["I", "I will do it now.", "Of course, here is a recipe. " * 3, "First one, then another, then a third."]
KEYS = [("last", "generated"), ("last", "producing"), ("middle", "generated")]


@pytest.mark.parametrize("name", ["llama", "gemma", "gpt2", "qwen"])  # gemma: a sliding window of 4 tokens
@pytest.mark.parametrize("chunk", [1, 7, 16])
def test_states_in_chunks_are_those_of_one_pass(name: str, chunk: int) -> None:
    model: Any = small.causal(name)
    whole = teacher_forced(model, PROMPTS, ANSWERS, steps=200, pools=KEYS, batch=4)
    parts = teacher_forced(model, PROMPTS, ANSWERS, steps=200, pools=KEYS, batch=4, chunk=chunk)
    for a, b in zip(whole, parts, strict=True):
        assert np.array_equal(a.commits, b.commits)
        assert (a.stop, a.prompt, a.spec) == (b.stop, b.prompt, b.spec)
        for key in KEYS:
            assert a.phi[key].shape == b.phi[key].shape
            assert np.abs(a.phi[key] - b.phi[key]).max() <= 2e-6 * max(1, np.abs(a.phi[key]).max())
    assert max(trace.passes for trace in parts) > 1


def test_rows_that_fit_into_one_chunk_are_the_same_to_the_last_bit() -> None:
    model: Any = small.causal("llama")
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        (whole,) = teacher_forced(model, prompt, answer, steps=200)
        (part,) = teacher_forced(model, prompt, answer, steps=200, chunk=200)
        assert np.array_equal(whole.phi["last", "generated"], part.phi["last", "generated"])
        assert part.passes == 1


def test_no_pass_and_no_batch_is_larger_than_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = small.causal("llama")
    passed, batches = [], []
    forward = type(model).forward

    def counted(self: Any, canvas: Any, score: Any, **how: Any) -> Any:
        out = forward(self, canvas, score, **how)
        passed.append(out.hidden["last"].shape[1])
        batches.append(canvas.ids.shape)
        return out

    monkeypatch.setattr(type(model), "forward", counted)
    answers = [answer * 2 for answer in ANSWERS] * 3
    prompts = [Prompt(f"{i}", "Knead", harmful=False) for i in range(len(answers))]
    teacher_forced(model, prompts, answers, steps=200, batch=4, chunk=64)
    assert max(passed) <= 64
    assert all(rows * width <= 4 * 64 or rows == 1 for rows, width in batches)
    assert any(rows > 1 for rows, _ in batches)
    widths = [width for _, width in batches]
    assert widths == sorted(widths), "rows of like length stand together"


def test_groups_hold_every_row_once() -> None:
    rows = [_Row(i, PROMPTS[0], [1] * (i % 7), 0.0, [2] * (1 + (5 * i) % 23)) for i in range(40)]
    for chunk in (None, 1, 8, 1000):
        found = [row.place for group in _groups(rows, 5, chunk) for row in group]
        assert sorted(found) == list(range(40))
        assert all(len(group) <= 5 for group in _groups(rows, 5, chunk))
        for group in _groups(rows, 5, chunk):
            widths = [len(row.asked) + len(row.answer) for row in group]
            assert chunk is None or max(widths) <= chunk or min(widths) > chunk


def test_a_batch_of_auto_is_halved_where_memory_runs_out() -> None:
    model: Any = small.causal("qwen")
    expected = teacher_forced(model, PROMPTS, ANSWERS, steps=200, batch=1)

    def check(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        if len(given["input_ids"]) > 2:
            raise torch.OutOfMemoryError("full")

    handle = model.net.get_decoder().register_forward_pre_hook(check, with_kwargs=True)
    try:
        found = teacher_forced(model, PROMPTS, ANSWERS, steps=200, batch="auto")
        with pytest.raises(DemurError, match="a batch of 2"):
            teacher_forced(model, PROMPTS, ANSWERS, steps=200, batch=4)
    finally:
        handle.remove()
    for a, b in zip(expected, found, strict=True):
        assert np.allclose(a.phi["last", "generated"], b.phi["last", "generated"], atol=1e-5)


def test_a_chunk_below_one_is_one_line() -> None:
    with pytest.raises(DemurError, match="chunk=0"):
        teacher_forced(small.causal("llama"), "Hi", "Yes", chunk=0)
