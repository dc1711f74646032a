"""One look for a whole batch is the plain guard's look at each row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from made_guards import D, Plain, T, detectors, made

from demur.engines.vllm.host_look import HostLook, look_of
from demur.engines.vllm.look import Eyes, Glance, Look, check_readable, score_of
from demur.guards import Guard
from demur.types import DemurError

CPU = torch.device("cpu")
GUARDS = [
    {"detector": "last", "signal": "whitened", "tail": True},
    {"detector": "last"},
    {"detector": "mean", "signal": "whitened"},
    {"detector": "autoencoder"},
    {"detector": "window", "tail": True},
]


def eyes(kind: str, guard: Guard, acts: bool = False) -> Eyes:
    """``host``: by NumPy, row by row; ``device``: by tensors."""
    if kind == "host":
        return HostLook(guard, CPU, acts)
    score = score_of(guard.detector, CPU)
    assert score is not None
    return Look(guard, CPU, score, acts)


KINDS = pytest.mark.parametrize("kind", ["host", "device"])


def together(look: Eyes, rows: dict[int, tuple[int, int, bool]], states: torch.Tensor) -> None:
    """``rows``: by place, the step, which of the states, and whether the step comes again."""
    look.see(states, [Glance(i, place, step, again) for place, (step, i, again) in rows.items()])


@pytest.mark.parametrize(
    ("how", "kind"),
    [(how, kind) for how in GUARDS for kind in ("host", "device") if (how["detector"], kind) != ("window", "device")],
    ids=str,
)
@pytest.mark.parametrize("seed", range(3))
def test_rows_that_come_and_go_are_seen_as_the_plain_guard_sees_each(how: dict[str, Any], kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    guard = made(**how)
    look = eyes(kind, guard)
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


@KINDS
def test_a_row_does_not_depend_on_its_neighbours(kind: str) -> None:
    guard, states = made("mean"), torch.randn(9, D)
    alone, crowd = eyes(kind, guard), eyes(kind, guard)
    places = [crowd.take() for _ in range(9)]
    one = alone.take()
    for step in (1, 2, 3):
        together(crowd, {place: (step, i, False) for i, place in enumerate(places)}, states)
        together(alone, {one: (step, 4, False)}, states)
    found, by_itself = crowd.row(places[4]).tolist(), alone.row(one).tolist()
    assert found == (by_itself if kind == "host" else pytest.approx(by_itself, abs=1e-12))  # a device sums otherwise


@KINDS
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_signal_that_is_not_finite_is_flagged(kind: str, bad: float) -> None:
    look = eyes(kind, made("last", limit=1e9))
    place, other = look.take(), look.take()
    states = torch.randn(2, D)
    together(look, {place: (1, 0, False), other: (1, 1, False)}, states)
    states[0, 2] = bad
    together(look, {place: (2, 0, False), other: (2, 1, False)}, states)
    assert look.flagged(torch.tensor([place, other])).tolist() == [2, 0]
    assert not look.is_quiet([place, other])
    assert look.is_quiet([other]) is (kind == "host")  # only a device knows of its rows


@KINDS
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_behind_t_a_signal_that_is_not_finite_is_flagged_and_told(kind: str, bad: float) -> None:
    look, states = eyes(kind, made("last", limit=1e9, tail=True)), torch.randn(1, D)
    place = look.take()
    for step in range(1, T + 3):
        together(look, {place: (step, 0, False)}, states * (bad if step == T + 2 else 1.0))
    *_, flagged, _, last, worst = look.row(place).tolist()
    assert flagged > T
    assert np.isnan([last, worst]).all()


@KINDS
@pytest.mark.parametrize("bad", [float("inf"), 3e38])
def test_states_that_overflow_are_flagged_without_a_warning(kind: str, bad: float) -> None:
    """An infinity and its opposite are no number, and neither is a window of infinite means. Tests raise warnings."""
    look, states = eyes(kind, made("last", limit=1e9, tail=True)), torch.ones(1, D)
    place = look.take()
    for step in range(1, 2 * T):
        together(look, {place: (step, 0, False)}, states * (bad if step < T else -bad))
    assert 0 < look.flagged(torch.tensor([place])).item() <= T
    assert np.isnan(look.row(place)[-2:].tolist()).all()


@KINDS
def test_a_flag_of_a_step_that_comes_again_is_taken_back(kind: str) -> None:
    """The first time its state was of half a prompt."""
    look, states = eyes(kind, made("last", limit=1e9)), torch.randn(1, D)
    place = look.take()
    together(look, {place: (1, 0, False)}, states)
    together(look, {place: (2, 0, False)}, states * float("nan"))
    assert look.flagged(torch.tensor([place])).tolist() == [2]
    together(look, {place: (2, 0, True)}, states)
    assert look.flagged(torch.tensor([place])).tolist() == [0]


@KINDS
def test_a_place_that_is_taken_again_knows_nothing_of_who_had_it(kind: str) -> None:
    look, states = eyes(kind, made("mean", tail=True)), torch.randn(1, D)
    fresh = eyes(kind, made("mean", tail=True))
    place = look.take()
    together(look, {place: (1, 0, False)}, torch.full((1, D), float("nan")))
    look.give(place)
    for each in (look, fresh):
        at = each.take()
        for step in range(1, 2 * T):
            together(each, {at: (step, 0, False)}, states)
    assert look.row(at).tolist() == fresh.row(at).tolist()


@KINDS
def test_what_was_asked_of_a_row_stays_when_its_place_is_taken_again(kind: str) -> None:
    """It is read from the device later, when others may have the place."""
    look, states = eyes(kind, made(**GUARDS[0])), torch.randn(2, D)
    place = look.take()
    together(look, {place: (1, 0, False)}, states)
    asked = look.row(place)
    then = asked.tolist()
    look.give(place)
    assert look.take() == place
    together(look, {place: (1, 1, False)}, states * 3)
    assert asked.tolist() == then != look.row(place).tolist()


@KINDS
@pytest.mark.parametrize("pool", ["generated", "producing"])
def test_a_row_that_was_fed_a_token_that_ends_it_is_left_as_it_is(kind: str, pool: str) -> None:
    """Only the device knows of it. What a prompt ends with ends no answer."""
    look, states = eyes(kind, made(pool=pool)), torch.randn(3, D)
    places = [look.take() for _ in states]
    fed = torch.tensor([5, 2, 3])  # 2 and 3 are stops, 3 not of the last row

    def rows(step: int) -> list[Glance]:
        return [Glance(i, place, step, stops=(2, 3) if i < 2 else (2,)) for i, place in enumerate(places)]

    look.see(states, rows(1), fed)
    first = [look.row(place).tolist() for place in places]
    assert [row[T + 2] > 0 for row in first] == [True, pool == "producing", True]
    look.see(states * 2, rows(2), fed)
    assert [look.row(place).tolist() == row for place, row in zip(places, first, strict=True)] == [False, True, False]


@KINDS
def test_where_a_flag_acts_later_steps_are_not_the_answers_own(kind: str) -> None:
    look = eyes(kind, made(limit=-1e9), acts=True)
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
    meta = torch.device("meta")  # as good as any that is not the CPU
    assert isinstance(look_of(made("window"), meta), HostLook)
    assert isinstance(look_of(made("last"), CPU), HostLook)
    assert isinstance(look_of(made("last"), meta), Look)


def test_a_guard_of_other_states_than_those_of_the_head_is_refused() -> None:
    check_readable(made())
    with pytest.raises(DemurError, match="layer 'last'"):
        check_readable(made(pool="response"))
