"""Rows that come, move, go and come back; what a flag does to logits; what is told of a request."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from made_guards import D, Plain, T, made

from demur.engines.vllm import desk as d
from demur.engines.vllm.host_look import look_of
from demur.engines.vllm.options import Mode, Options
from demur.engines.vllm.request import Request
from demur.guards import Guard
from demur.testing.pretend import DEVICE, PretendDevice

CPU = torch.device("cpu")
V, EOS = 11, 1


def desk(guard: Guard, mode: Mode = Mode.WATCH, **options: Any) -> d.Desk:
    post = d.Post(guard, look_of(guard, CPU, acts=mode is not Mode.WATCH), mode, refusal=(7, 8, 9))
    return d.Desk({"g": post}, Options(**options), CPU)


def request(name: str = "", out: list[int] | None = None, **more: Any) -> Request:
    return Request("g", name, object(), out, (EOS,), **more)


class Engine:
    """Rows of made-up requests, each with its list of tokens and the plain guard beside it."""

    def __init__(self, guard: Guard, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.desk, self.guard = desk(guard), guard
        self.plain: dict[int, Plain] = {}
        self.out: dict[int, list[int]] = {}
        self.all: list[tuple[Request, Plain]] = []

    def add(self, index: int) -> None:
        out: list[int] = []
        one = request(f"r{len(self.all)}", out)
        self.desk.add(index, one)
        self.out[index], self.plain[index] = out, Plain(self.guard)
        self.all.append((one, self.plain[index]))

    def step(self) -> None:
        n = max(self.out, default=-1) + 1
        states = torch.from_numpy(self.rng.normal(size=(n, D)).astype(np.float32)) * 2
        rows = [(i, one, len(one.out or ())) for i, one in self.desk.rows.items()]
        self.desk.step(torch.zeros(n, V), states, rows)
        for i, out in self.out.items():
            if self.guard.tail is not None or self.plain[i].steps < T:
                self.plain[i].see(states[i])
            out.append(5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("how", [{"tail": True, "signal": "whitened"}, {"detector": "autoencoder"}], ids=str)
def test_every_request_keeps_its_own_signal_through_moves_and_swaps(seed: int, how: dict[str, Any]) -> None:
    engine = Engine(made(**how), seed)
    rng = engine.rng
    for _ in range(40):
        if rng.random() < 0.6 and len(engine.out) < 9:
            engine.add(len(engine.out))
        if len(engine.out) > 2 and rng.random() < 0.3:  # the last row slides into the place of one that goes
            gone, last = int(rng.integers(len(engine.out) - 1)), len(engine.out) - 1
            engine.desk.remove(gone)
            engine.desk.move(last, gone, swap=False)
            engine.out[gone], engine.plain[gone] = engine.out.pop(last), engine.plain.pop(last)
        if len(engine.out) > 2 and rng.random() < 0.3:
            a, b = 0, len(engine.out) - 1
            engine.desk.move(a, b, swap=True)
            for of in (engine.out, engine.plain):
                of[a], of[b] = of[b], of[a]  # type: ignore[index]
        if engine.out:
            engine.step()
    told = {one["id"]: one for one in engine.desk.verdicts()}
    assert len(told) == len(engine.all)
    for one, plain in engine.all:
        verdict = told[one.id]
        assert verdict["watched"] == (plain.steps > 0), verdict
        known = min(plain.steps, T)
        assert verdict["sigma"] == pytest.approx(plain.sigma[:known], abs=1e-5)
        assert (verdict["step"] or 0) == plain.flagged


def step(of: d.Desk, one: Request, written: int, state: torch.Tensor | None = None) -> torch.Tensor:
    states = torch.ones(1, D) if state is None else state
    return of.step(torch.zeros(1, V), states, [(0, one, written)])


def test_a_request_that_was_put_aside_takes_up_where_it_was() -> None:
    kept, out, torch_states = desk(made("mean", tail=True)), [5], torch.randn(9, 1, D)
    one = request("a", out)
    plain = Plain(made("mean", tail=True))
    kept.add(0, one)
    for t in range(4):
        out[:] = [5] * t
        step(kept, one, t, torch_states[t])
        plain.see(torch_states[t, 0])
    out[:] = [5] * 4
    kept.remove(0)
    kept.add(0, request("b"))  # somebody else has the row for a while
    step(kept, kept.rows[0], 0)
    kept.remove(0)
    back = Request("g", "a", one.key, [5] * 4, (EOS,))  # another list of the same tokens: asynchronous scheduling
    kept.add(3, back)
    assert kept.rows[3] is one
    step(kept, one, 4, torch.randn(1, D))  # part of what is read again
    step(kept, one, 4, torch_states[4])
    plain.see(torch_states[4, 0])
    one.out.append(5)  # type: ignore[union-attr]
    (told,) = kept.verdicts("a")
    assert told["watched"]
    assert told["sigma"] == pytest.approx(plain.sigma, abs=1e-5)


def test_another_choice_of_the_same_request_takes_up_nobodys_states() -> None:
    own, states = desk(made(limit=1e9), Mode.STOP), torch.randn(6, 1, D)
    first = request("both", [])
    own.add(0, first)
    for t in range(4):
        step(own, first, t, states[t])
        first.out.append(5)  # type: ignore[union-attr]
    own.remove(0)  # ended by a stop string, which the engine's rows do not show
    second = Request("g", "both", first.key, [], (EOS,))  # choices that have no seed share their parameters
    own.add(0, second)
    assert own.rows[0] is second
    for t in range(2):
        assert not (step(own, second, t, states[4 + t]) == -torch.inf).any()
        second.out.append(5)  # type: ignore[union-attr]
    one, two = own.verdicts("both")
    assert (one["watched"], one["steps"]) == (True, 4)
    assert (two["watched"], two["steps"]) == (True, 2)


def test_one_whose_states_are_gone_is_not_watched_and_says_so() -> None:
    for mode, options, acted in (
        (Mode.WATCH, {}, False),
        (Mode.STOP, {}, True),
        (Mode.STOP, {"unseen": False}, False),
    ):
        own = desk(made(limit=1e9), mode, **options)
        one = request("late", [5] * 3)
        own.add(0, one)
        logits = step(own, one, 3)
        assert (logits[0] == -torch.inf).any() == acted
        (told,) = own.verdicts("late")
        assert (told["status"], told["flagged"], told["acted"]) == ("not watched", None, acted)
        assert "step 4 came" in told["why"]


@pytest.mark.parametrize("states", [None, torch.ones(3, D)])
def test_rows_that_do_not_fit_the_states_are_not_watched(states: Any) -> None:
    own = desk(made())
    one = request("x", [])
    own.add(0, one)
    own.step(torch.zeros(1, V), states, [(0, one, 0)])
    (told,) = own.verdicts("x")
    assert told["status"] == "not watched"


def test_parked_requests_are_forgotten_after_many_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(d, "PARKED", 2)
    own = desk(made(limit=1e9))
    ones = [request(f"{i}", []) for i in range(4)]
    for one in ones:
        own.add(0, one)
        step(own, one, 0)
        one.out.append(5)  # type: ignore[union-attr]
        own.remove(0)
    assert len(own.parked) == 2
    again = Request("g", "0", ones[0].key, ones[0].out, (EOS,))
    own.add(0, again)
    assert own.rows[0] is again  # a new one, which misses its first step
    step(own, again, 1)
    assert [told["status"] for told in own.verdicts("0")] == ["let pass", "not watched"]


def test_a_finished_request_is_not_parked_and_what_comes_behind_the_end_is_not_looked_at() -> None:
    own = desk(made(limit=1e9))
    one = request("e", [])
    own.add(0, one)
    step(own, one, 0)
    one.out.append(EOS)  # type: ignore[union-attr]
    step(own, one, 1, torch.full((1, D), float("nan")))
    own.remove(0)
    assert not own.parked
    (told,) = own.verdicts("e")
    assert (told["steps"], told["status"]) == (1, "let pass")
    most = request("m", [], most=1)
    own.add(0, most)
    step(own, most, 0)
    most.out.append(5)  # type: ignore[union-attr]
    step(own, most, 1, torch.full((1, D), float("nan")))
    assert own.verdicts("m")[0]["steps"] == 1


@pytest.mark.parametrize("stop", [0, 3])
def test_a_row_that_is_fed_a_stop_token_is_over(stop: int) -> None:
    own = desk(made(limit=1e9))
    one = Request("g", "f", object(), None, (stop,))
    other = Request("g", "o", object(), None, ())
    own.add(0, one)
    own.add(1, other)
    for written, fed in ((0, stop), (1, stop)):  # a prompt may end with one
        states = torch.full((2, D), float("nan") if written else 1.0)
        own.step(torch.zeros(2, V), states, [(0, one, written), (1, other, written)], torch.tensor([fed, fed]))
    assert own.verdicts("f")[0]["status"] == "let pass"
    assert own.verdicts("o")[0]["status"] == "flagged"


def test_verdicts_are_bounded_and_counted() -> None:
    own = desk(made(limit=1e9), keep=3)
    for i in range(7):
        one = request(f"{i}", [], most=1)
        own.add(0, one)
        step(own, one, 0)
        one.out.append(5)  # type: ignore[union-attr]
        own.remove(0)
    assert [told["id"] for told in own.verdicts()] == ["4", "5", "6"]
    assert own.counters()["g"]["let pass"] == 7
    assert own.verdicts("0") == []
    json.dumps(own.verdicts(), allow_nan=False)


def test_a_flag_on_a_row_that_was_thrown_away_is_none() -> None:
    own = desk(made("last", limit=-1e9))
    one = request("chunk", [])
    own.add(0, one)
    step(own, one, 0)  # part of the prompt; then it is aborted, and no token ever came
    (told,) = own.verdicts("chunk")
    assert (told["flagged"], told["steps"]) == (None, 0)
    one.out.append(5)  # type: ignore[union-attr]
    assert own.verdicts("chunk")[0]["step"] == 1


@pytest.mark.parametrize("pool", ["producing", "generated"])
@pytest.mark.parametrize(("mode", "then"), [(Mode.STOP, [EOS, EOS]), (Mode.REFUSE, [7, 8, 9, EOS, EOS])])
def test_a_flagged_row_has_one_token_left_and_its_neighbour_all(pool: str, mode: Mode, then: list[int]) -> None:
    own = desk(made(limit=-1e9, pool=pool), mode)
    one, free = request("a", []), request("b", [])
    own.posts["free"] = d.Post(made(limit=1e9), look_of(made(limit=1e9), CPU, acts=True), mode)
    free.guard = "free"
    own.add(0, one)
    own.add(2, free)
    first = 0 if pool == "producing" else 1
    for t in range(first + len(then)):
        logits = torch.arange(3 * V).reshape(3, V).float()
        before = logits.clone()
        own.step(logits, torch.ones(3, D), [(0, one, t), (2, free, t)])
        assert (logits[1:] == before[1:]).all()
        if t < first:
            assert (logits == before).all()
        else:
            assert logits[0].isfinite().nonzero().flatten().tolist() == [then[t - first]]
        one.out.append(5)  # type: ignore[union-attr]
        free.out.append(5)  # type: ignore[union-attr]
    (told,) = own.verdicts("a")
    assert (told["step"], told["acted"], told["steps"]) == (1, True, 1)
    assert own.verdicts("b")[0]["status"] == "let pass"


def test_a_request_for_no_step_yet_says_that_nothing_was_seen() -> None:
    own = desk(made())
    own.add(0, request("n", []))
    assert own.verdicts("n")[0]["status"] == "not watched"


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("tail", [False, True])
@pytest.mark.parametrize("steps", [1, T - 1, T, T + 1, 3 * T])
def test_a_verdict_tells_of_steps_behind_those_that_its_guard_looks_at(steps: int, tail: bool, mode: Mode) -> None:
    guard = made(limit=1e9, tail=tail)
    if guard.tail is not None:
        guard = replace(guard, tail=replace(guard.tail, threshold=replace(guard.tail.threshold, value=2.0)))
    own, one = desk(guard, mode), request("a", [])
    own.add(0, one)
    for _ in range(steps):
        own.step(torch.zeros(1, V), torch.ones(1, D), [(0, one, len(one.out or ()))])
        one.out.append(5)  # type: ignore[union-attr]
    (told,) = own.verdicts("a")
    assert (told["status"], told["steps"]) == ("let pass", steps)
    assert told["looked"] == (steps if tail else min(steps, T))
    behind = steps - told["looked"]
    assert (f"{behind} further steps were not looked at" in told["why"]) == (behind > 0)
    assert ("not looked at" in told["why"]) == (behind > 0)


def test_a_note_says_where_sampling_is_not_the_guards() -> None:
    own = desk(made())
    own.add(0, request("warm", [], temperature=0.7))
    assert "temperature 0.7" in own.verdicts("warm")[0]["notes"][0]


def test_a_note_says_where_tokens_are_drawn_otherwise_than_the_guards() -> None:
    own = desk(made())
    for i, drawn in enumerate(({"repetition_penalty": 1.3}, {"logit_bias": {5: 9}}, {"top_p": 0.5, "min_tokens": 0})):
        own.add(i, request(f"r{i}", [], drawn=drawn))
    told = [own.verdicts(f"r{i}")[0]["notes"] for i in range(3)]
    assert "repetition_penalty 1.3" in told[0][0]
    assert "logit_bias" in told[1][0]
    assert told[2] == []  # greedy: nothing is cut of the likeliest token


def test_guards_that_only_numpy_reads_and_others_stand_at_one_accelerator() -> None:
    """What is told of their rows lies on two devices; tokens and verdicts are those of a CPU."""

    def run(device: torch.device) -> tuple[list[dict[str, Any]], list[list[float]]]:
        guards = {name: made(name, limit=0.0) for name in ("last", "window")}
        mode, gen = Mode.STOP, torch.Generator().manual_seed(4)
        posts = {name: d.Post(guard, look_of(guard, device, acts=True), mode) for name, guard in guards.items()}
        of, logits = d.Desk(posts, Options(), device), list[list[float]]()
        for row, name in enumerate(posts):
            of.add(row, Request(name, name, object(), None, (EOS,)))
        for written in range(T):
            states = torch.randn(2, D, generator=gen).to(device)
            fed = torch.full((2,), 5).to(device)
            rows = [(row, each, written) for row, each in of.rows.items()]
            logits += of.step(torch.zeros(2, V).to(device), states, rows, fed).cpu().tolist()
        return of.verdicts(), logits

    verdicts, logits = run(CPU)
    assert all(one["flagged"] for one in verdicts), verdicts
    with PretendDevice():
        there, its_logits = run(DEVICE)
    assert its_logits == logits
    for one, other in zip(verdicts, there, strict=True):
        assert one.pop("sigma") == pytest.approx(other.pop("sigma"), abs=1e-9)
        for name in ("score", "last", "worst"):
            assert one.pop(name) == pytest.approx(other.pop(name), abs=1e-9)
        assert one == other
