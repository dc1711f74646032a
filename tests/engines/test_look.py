"""One look for a whole batch is the plain guard's look at each row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from made_guards import D, Plain, T, detectors, made

from demur.engines.vllm.look import Look, check_readable, score_of
from demur.types import DemurError

CPU = torch.device("cpu")
GUARDS = [
    {"detector": "last", "signal": "whitened", "tail": True},
    {"detector": "last"},
    {"detector": "mean", "signal": "whitened"},
    {"detector": "autoencoder"},
    {"detector": "window", "tail": True},
]


def together(look: Look, rows: dict[int, tuple[int, int, bool]], states: torch.Tensor) -> None:
    """``rows``: by place, the step, which of the states, and whether the step comes again."""
    places, steps, at, again = (
        torch.tensor(x) for x in zip(*((p, s, i, a) for p, (s, i, a) in rows.items()), strict=True)
    )
    look.see(states[at], places, steps, again)


@pytest.mark.parametrize("how", GUARDS, ids=str)
@pytest.mark.parametrize("by_tensors", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_rows_that_come_and_go_are_seen_as_the_plain_guard_sees_each(
    how: dict[str, Any], by_tensors: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    guard = made(**how)
    look = Look(guard, CPU, by_tensors=by_tensors)
    going: dict[int, Plain] = {}
    flags = 0
    for _ in range(60):
        while len(going) < 12 and rng.random() < 0.5:  # more than there is room for at first
            going[look.take()] = Plain(guard)
        for place in [place for place in going if rng.random() < 0.1]:
            look.give(place)
            del going[place]
        mine = {place: plain for place, plain in going.items() if look.looks_at(plain.steps + 1) and rng.random() < 0.8}
        if not mine:
            continue
        states = torch.from_numpy(rng.normal(size=(len(mine), D)).astype(np.float32)) * 2
        rows = {place: (plain.steps + 1, i, False) for i, (place, plain) in enumerate(mine.items())}
        if rng.random() < 0.3:  # part of a prompt: the step means nothing yet, and comes again
            together(look, rows, torch.randn(len(mine), D) * 5)
            rows = {place: (step, i, True) for place, (step, i, _) in rows.items()}
        together(look, rows, states)
        for i, (place, plain) in enumerate(mine.items()):
            plain.see(states[i])
            *sigma, flagged, _, last, worst = look.row(place).tolist()
            known = min(plain.steps, T)
            assert sigma[:known] == pytest.approx(plain.sigma[:known], abs=1e-5)
            assert last == pytest.approx(plain.sigma[-1], abs=1e-5)
            assert flagged == plain.flagged
            assert worst == pytest.approx(1.0 - min(plain.sigma[T - 1 :] or plain.sigma[-1:]), abs=1e-5)
            flags += plain.flagged > 0
    assert flags


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    guard, states = made("mean"), torch.randn(9, D)
    alone, crowd = Look(guard, CPU), Look(guard, CPU)
    places = [crowd.take() for _ in range(9)]
    one = alone.take()
    for step in (1, 2, 3):
        together(crowd, {place: (step, i, False) for i, place in enumerate(places)}, states)
        together(alone, {one: (step, 4, False)}, states)
    assert crowd.row(places[4]).tolist() == alone.row(one).tolist()


@pytest.mark.parametrize("by_tensors", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_signal_that_is_not_finite_is_flagged(by_tensors: bool, bad: float) -> None:
    look = Look(made("last", limit=1e9), CPU, by_tensors=by_tensors)
    place, other = look.take(), look.take()
    states = torch.randn(2, D)
    together(look, {place: (1, 0, False), other: (1, 1, False)}, states)
    states[0, 2] = bad
    together(look, {place: (2, 0, False), other: (2, 1, False)}, states)
    assert look.flagged(torch.tensor([place, other])).tolist() == [2, 0]


def test_a_place_that_is_taken_again_knows_nothing_of_who_had_it() -> None:
    look, states = Look(made("mean", tail=True), CPU), torch.randn(1, D)
    fresh = Look(made("mean", tail=True), CPU)
    place = look.take()
    together(look, {place: (1, 0, False)}, torch.full((1, D), float("nan")))
    look.give(place)
    for each in (look, fresh):
        at = each.take()
        for step in range(1, 2 * T):
            together(each, {at: (step, 0, False)}, states)
    assert look.row(at).tolist() == fresh.row(at).tolist()


def test_what_was_asked_of_a_row_stays_when_its_place_is_taken_again() -> None:
    """It is read from the device later, when others may have the place."""
    look, states = Look(made(**GUARDS[0]), CPU), torch.randn(2, D)
    place = look.take()
    look.see(states[:1], torch.tensor([place]), torch.tensor([1]))
    asked = look.row(place)
    then = asked.tolist()
    look.give(place)
    assert look.take() == place
    look.see(states[1:] * 3, torch.tensor([place]), torch.tensor([1]))
    assert asked.tolist() == then != look.row(place).tolist()


def test_rows_that_are_not_alive_are_left_as_they_are() -> None:
    look = Look(made(), CPU)
    place = look.take()
    together(look, {place: (1, 0, False)}, torch.randn(1, D))
    before = look.row(place).tolist()
    one = torch.tensor([place]), torch.tensor([2]), torch.tensor([False])
    look.see(torch.randn(1, D), *one, torch.tensor([False]))
    assert look.row(place).tolist() == before


def test_where_a_flag_acts_later_steps_are_not_the_answers_own() -> None:
    look = Look(made(limit=-1e9), CPU, acts=True)
    place = look.take()
    together(look, {place: (1, 0, False)}, torch.randn(1, D))
    before = look.row(place).tolist()
    together(look, {place: (2, 0, False)}, torch.randn(1, D))
    assert before == look.row(place).tolist()
    assert look.flagged(torch.tensor([place])).tolist() == [1]


@pytest.mark.parametrize("name", ["last", "mean", "autoencoder"])
def test_scores_by_tensors_are_those_of_the_detector(name: str) -> None:
    held = np.random.default_rng(0).random((7, T))
    by = score_of(detectors()[name], CPU)
    assert by is not None
    found = by(torch.from_numpy(held)).numpy()
    assert np.allclose(found, np.log(np.maximum(detectors()[name](held), 1e-6)), atol=1e-9)


def test_a_detector_that_only_numpy_reads_has_no_tensors() -> None:
    assert score_of(detectors()["window"], CPU) is None


def test_a_guard_of_other_states_than_those_of_the_head_is_refused() -> None:
    check_readable(made())
    with pytest.raises(DemurError, match="layer 'last'"):
        check_readable(made(pool="response"))
