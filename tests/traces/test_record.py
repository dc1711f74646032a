"""Law 11: a trace's size grows linearly with its tokens, and so does what is held while it is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from small import ALL_KEYS, AR_KEYS, PROMPTS

from demur.samplers import Autoregressive, seeded
from demur.traces import Recorder, generate, record, spec_of
from demur.types import Canvas, Step


def _size(length: int, tmp_path: Path) -> int:
    """Bytes of the file of one autoregressive answer, without pooled states."""
    endless = small.ending(small.causal("llama"))
    (trace,) = generate(endless, PROMPTS[:1], length=length, pools=[])
    assert trace.steps == length
    return trace.save(tmp_path / f"{length}").stat().st_size


def test_law_11_twice_the_tokens_are_twice_the_bytes(tmp_path: Path) -> None:
    sizes = [_size(length, tmp_path) for length in (60, 120, 180)]
    first, second = sizes[1] - sizes[0], sizes[2] - sizes[1]
    assert first < 60 * 64, "a token takes 33 bytes, and the name of one that is new some twenty more"
    assert second <= first + 64


def test_law_11_a_masked_generation_keeps_what_was_open(llada: Any) -> None:
    (trace,) = generate(llada, PROMPTS[:1], small.diffusion_samplers()["greedy"], length=8)
    assert len(trace.guesses.places) == 8 + 6 + 4 + 2


def _written(canvas: Canvas, model: Any) -> Iterator[Step]:
    """A step for each open column of a canvas, as an autoregressive sampler's, without a model's work."""
    ids, open_ = canvas.ids.clone(), canvas.open.clone()
    live = torch.ones(canvas.rows, dtype=torch.bool)
    for index, column in enumerate(torch.where(canvas.open[0])[0].tolist()):
        committed = torch.zeros_like(open_)
        committed[:, column] = True
        ids, open_ = ids.clone(), open_ & ~committed
        ids[:, column] = 65 + index % 26
        sure = torch.where(committed, 0.5, float("nan"))
        yield Step(index, ids, open_, committed, ids, sure, live, {}, start=column, span="new")


@pytest.mark.parametrize("cells", [1, 20_000, 10**6])
def test_law_11_no_more_than_so_many_cells_wait(cells: int, monkeypatch: pytest.MonkeyPatch, llama: Any) -> None:
    monkeypatch.setattr(record, "CELLS", cells)
    canvas = llama.canvas(PROMPTS, 100)
    recorder = Recorder(llama, canvas, PROMPTS, spec_of(llama, Autoregressive(), 100), [])
    for step, _ in recorder(_written(canvas, llama)):
        assert recorder._marks.open.numel() <= max(cells, step.ids.numel())
    for trace in recorder.traces():
        assert trace.text() == "".join(chr(65 + i % 26) for i in range(100))
        assert (trace.stop, len(trace.guesses.places)) == ("full", 100)


EVERY = [
    *[("llama", sampler, AR_KEYS) for sampler in small.ar_samplers().values()],
    *[("llada", sampler, ALL_KEYS) for sampler in small.diffusion_samplers().values()],
]


@pytest.mark.parametrize(("name", "sampler", "keys"), EVERY)
@pytest.mark.parametrize("cells", [1, 150])
def test_a_trace_does_not_depend_on_when_its_steps_are_moved(
    name: str, sampler: Any, keys: Any, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small.causal(name) if name in small.CAUSAL else small.diffusion(name)
    once = generate(model, PROMPTS, sampler, length=7, seed=2, pools=keys)
    monkeypatch.setattr(record, "CELLS", cells)
    often = generate(model, PROMPTS, sampler, length=7, seed=2, pools=keys)
    for ours, theirs in zip(often, once, strict=True):
        small.assert_same(ours, theirs, tolerance=0.0)
        assert {key: phi.tobytes() for key, phi in ours.phi.items()} == {
            key: phi.tobytes() for key, phi in theirs.phi.items()
        }


def test_traces_may_be_asked_for_on_the_way(llama: Any) -> None:
    canvas, sampler = llama.canvas(PROMPTS, 9), Autoregressive()
    whole = generate(llama, PROMPTS, sampler, length=9)
    recorder = Recorder(llama.watching("last"), canvas, PROMPTS, spec_of(llama, sampler, 9), [("last", "generated")])
    steps = recorder(sampler(recorder.model, canvas, seeded(0, 3)))
    for taken in (2, 3):
        for _ in islice(steps, taken - (2 if taken == 3 else 0)):
            pass
        for ours, theirs in zip(recorder.traces(), whole, strict=True):
            assert (ours.steps, ours.stop) == (taken, "stopped")
            assert ours.tokens()[:taken].tolist() == theirs.tokens()[:taken].tolist()
    for _ in steps:
        pass
    for ours, theirs in zip(recorder.traces(), whole, strict=True):
        small.assert_same(ours, theirs, tolerance=0.0)
