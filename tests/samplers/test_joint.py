"""LLaDA2.1's sampler: what it has written it may write again, and a trace says so. Beside its own code: official.py."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import small
import torch

from demur.samplers import SAMPLERS, BlockDiffusion, JointThreshold, seeded
from demur.samplers.joint import LONGEST
from demur.traces import Trace
from demur.types import DemurError

ROWS = ([70, 71, 72, 73, 74, 75, 76], [80, 81, 82, 83, 84, 85, 86], [9, 8])
KEYS = tuple(("last", pool) for pool in ("generated", "response", "masked"))
EAGER = JointThreshold(threshold=0.0, edit_threshold=0.0)
"""Writes a whole block at once, and then edits until nothing changes."""


def model(partition: str = "start") -> Any:
    return small.block(partition)


def written(sampler: Any, rows: Any = ROWS[:1], length: int = 9, partition: str = "start") -> list[Trace]:
    of = model(partition)
    return small.record(of, of.canvas_of(rows, length), sampler, KEYS, range(len(rows)))


def by_hand(row: list[int], length: int, sampler: JointThreshold) -> list[int]:
    """The same at temperature 0, for one row, one place after the other."""
    of = model()
    ids, size, mask = torch.tensor([*row, *[small.MASK] * length]), of.block_length, small.MASK
    for begin in range(len(row) // size * size, len(ids), size):
        places = range(max(begin, len(row)), min(begin + size, len(ids)))
        looks = 0
        while True:
            canvas = of.canvas_of([ids[: places.stop].tolist()], 0)
            score = torch.zeros_like(canvas.open)
            score[0, places.start :] = True
            probs = of.forward(canvas, score).logits.softmax(-1)
            guess = dict(zip(places, probs.argmax(-1).tolist(), strict=True))
            sure = dict(zip(places, probs.amax(-1).tolist(), strict=True))
            masked = [i for i in places if ids[i] == mask]
            chosen = [i for i in masked if sure[i] > sampler.threshold]
            chosen = chosen or sorted(masked, key=lambda i: -sure[i])[:1]
            edits = [i for i in places if ids[i] not in (mask, guess[i]) and sure[i] > sampler.edit_threshold]
            for i in chosen + edits:
                ids[i] = guess[i]
            looks += not masked
            if not masked and (not edits or looks >= sampler.max_post_steps):
                break
            if masked and looks >= sampler.max_post_steps and not (ids[list(places)] == mask).any():
                break
    tokens: list[int] = ids[len(row) :].tolist()
    return tokens


@pytest.mark.parametrize(
    ("threshold", "edit_threshold", "looks"),
    [(0.0, 0.0, 0), (0.0, 0.0, 1), (0.0, 0.0, 5), (0.1, 0.1, 5), (0.7, 0.1, 16), (0.7, 1.0, 16)],
)
def test_tokens_are_those_of_the_loop_written_out(threshold: float, edit_threshold: float, looks: int) -> None:
    sampler = JointThreshold(threshold=threshold, edit_threshold=edit_threshold, max_post_steps=looks)
    (trace,) = written(sampler)
    assert trace.tokens().tolist() == by_hand(list(ROWS[0]), 9, sampler)


def test_revisions_are_recorded_and_replay_to_the_last_canvas() -> None:
    (trace,) = written(EAGER)
    columns = trace.commits[:, 1]
    again = len(columns) - len(np.unique(columns))
    assert again >= 3, "nothing was edited"
    states = [cell.state for t in range(1, trace.steps + 1) for cell in trace.frame(t, hide=False).cells]
    assert states.count("revised") == again
    of = model()
    *_, last = EAGER(of, of.canvas_of(ROWS[:1], 9), seeded(0, 1))
    assert trace.replay(trace.steps).tolist() == last.ids[0].tolist()
    assert trace.stop == "full"
    first = trace.replay(1)
    assert (first[len(ROWS[0]) :] != small.MASK).sum() == 1, "the block that began in the prompt has one open place"


def test_without_edits_it_is_block_diffusion_by_threshold() -> None:
    ours = written(JointThreshold(threshold=0.1, edit_threshold=1.0))[0]
    theirs = written(BlockDiffusion(steps=4, temperature=0.0, threshold=0.1))[0]
    assert ours.tokens().tolist() == theirs.tokens().tolist()
    first = {int(column): (int(step), int(token)) for step, column, token in reversed(theirs.commits)}
    assert len(ours.commits) == len(first) == 9


@pytest.mark.parametrize(
    ("partition", "heat"),
    [
        ("start", 0.7),
        ("response", 0.0),
        pytest.param("start", 0.0, marks=pytest.mark.slow),
        pytest.param("response", 0.7, marks=pytest.mark.slow),
    ],
)
def test_a_row_alone_is_the_row_in_a_batch(heat: float, partition: str) -> None:
    sampler = JointThreshold(threshold=0.05, edit_threshold=0.02, temperature=heat, top_k=20 if heat else None)
    together = written(sampler, ROWS, partition=partition)
    of = model(partition)
    for i, row in enumerate(ROWS):
        (alone,) = small.record(of, of.canvas_of([row], 9), sampler, KEYS, [i])
        small.assert_same(together[i], alone)


def test_a_cache_changes_neither_tokens_nor_states() -> None:
    for rows in (ROWS[:1], ROWS[:2], ROWS):
        for one, other in zip(written(EAGER, rows), written(replace(EAGER, cache=True), rows), strict=True):
            small.assert_same(one, other)


def test_given_tokens_never_move_also_between_open_places() -> None:
    of = model()
    row = [70, 71, 72, 73, small.MASK, 75, small.MASK, 77, 78]
    canvas = of.canvas_of([row], 6, holes=[[4, 6]])
    for step in EAGER(of, canvas, seeded(0, 1)):
        assert torch.equal(step.ids[~canvas.open], canvas.ids[~canvas.open])
        assert not bool((step.committed & ~canvas.open).any())
        assert not bool((step.open & ~canvas.open).any())
    assert not bool(step.open.any())


@cache
def insisting(on: float) -> Any:
    """A model that predicts the mask itself: at every place, or now and then."""
    net = copy.deepcopy(model().net)
    net.get_output_embeddings().bias.data[small.MASK] = on
    return replace(model(), net=net)


@pytest.mark.parametrize("heat", [0.0, 1e-3])
def test_a_model_that_insists_on_masks_ends_and_leaves_them_open(heat: float) -> None:
    of = insisting(99.0)
    steps = list(JointThreshold(temperature=heat, max_post_steps=2)(of, of.canvas_of(ROWS[:1], 5), seeded(0, 1)))
    assert 2 <= len(steps) <= 2 * max(5 * 3, LONGEST)
    assert int(steps[-1].open.sum()) == 5
    assert not any(bool(step.committed.any()) for step in steps)


def test_what_is_edited_into_a_mask_is_open_again() -> None:
    of = insisting(3.0)
    assert "joint-threshold" in SAMPLERS
    (trace,) = small.record(of, of.canvas_of(ROWS[:1], 17), EAGER, KEYS, [0])
    opened = [int(column) for _, column, token in trace.commits if token < 0]
    assert opened, "no mask was put back"
    step, column, _ = next(row for row in trace.commits if row[2] < 0)
    assert trace.replay(int(step))[column] != small.MASK
    assert trace.replay(int(step) + 1)[column] == small.MASK


def test_settings_and_models_that_do_not_fit_are_refused_in_one_line() -> None:
    for wrong in ({"at_least": 0}, {"max_post_steps": -1}, {"temperature": -1.0}, {"top_p": 0.0}):
        with pytest.raises(DemurError) as caught:
            JointThreshold(**wrong)  # type: ignore[arg-type]
        small.one_line(caught.value)
    of = small.diffusion("llada")
    with pytest.raises(DemurError) as caught:
        list(JointThreshold()(of, of.canvas_of(ROWS[:1], 4), seeded(0, 1)))
    small.one_line(caught.value)
