"""The guard at work around real samplers: rows by name, what it stops and what it leaves."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import small
import torch
from test_guards import ASKED, KEYS, RUN, Blind, limited, organism, organism_guard, subject, tiny_guard

from demur import guards as g
from demur.guards.rows import Row, RowState, new_rows
from demur.guards.sight import as_offline
from demur.organism.attacks import attack
from demur.organism.world import prompts as world_prompts
from demur.samplers import Autoregressive, MaskedDiffusion, autoregressive_order, seeded
from demur.samplers.build import spec_name
from demur.signals.anchors import SIGNALS
from demur.traces import Recorder, Trace, generate, spec_of, watching
from demur.types import DemurError, Prompt


def record(model: Any, sampler: Any, asked: list[Prompt], plain: Any, passes: list[int] | None = None) -> list[Trace]:
    watched = watching(model, KEYS)  # type: ignore[arg-type]
    canvas = watched.canvas(asked, 8)
    recorder = Recorder(watched, canvas, asked, spec_of(watched, plain, 8, steps=8), KEYS)  # type: ignore[arg-type]
    for step, _ in recorder(sampler(watched, canvas, seeded(0, len(asked)))):
        if passes is not None:
            passes.append(step.passes)
    return recorder.traces()


def always(guard: g.Guard, step: int) -> g.Guard:
    """A guard that flags everything at ``step``: what comes before must be as without it."""
    scale = np.where(np.arange(8) + 1 >= step, 1e-3, 1e3)
    return limited(
        replace(guard, prefix=replace(guard.prefix, centre=np.full(8, -20.0) * (scale < 1), scale=scale)), 1.0
    )


@pytest.mark.parametrize("kind", ["ar", "diffusion"])
@pytest.mark.parametrize("when", [1, 4, 8])
def test_law_5_a_defended_trace_is_the_undefended_one_up_to_the_step_where_the_guard_acts(kind: str, when: int) -> None:
    model, sampler = subject(kind)
    guard = always(tiny_guard(kind), when)
    plain = record(model, sampler, ASKED, sampler)
    passes: list[int] = []
    defended = record(model, g.Watch(guard)(sampler), ASKED, sampler, passes)
    for before, after in zip(plain, defended, strict=True):
        at = g.acted(after).step
        if before.steps < when:  # it has ended: nothing is left to stop
            assert (at, after.stop) == (None, before.stop)
            assert (after.tokens() == before.tokens()).all()
            continue
        assert at == when
        assert after.steps == at + 1
        for t in range(at + 1):
            assert (after.replay(t) == before.replay(t)).all()
            assert (after.tokens(t) == before.tokens(t)).all()
        same = after.phi["last", "generated"]
        small.assert_close(same[:at], before.phi["last", "generated"][:at])
        assert (same[at] == same[at - 1]).all(), "the refusal is the guard's, not the model's: its states do not count"
        assert g.REFUSAL.startswith(after.text()[:8])
        assert after.stop == "guarded"
    assert len(passes) == max(trace.steps for trace in defended), "nothing is computed after the last row was stopped"


def stops_of(guard: g.Guard, plain: list[Trace], sigma: np.ndarray) -> np.ndarray:
    """The step at which each would be stopped; 0 for never, and where only its held state would be above."""
    stops = guard.prefix.stops(sigma)
    return np.where(stops > [trace.steps for trace in plain], 0, stops)


@pytest.mark.parametrize("kind", ["ar", "diffusion"])
@pytest.mark.parametrize("online", [True, False])
def test_rows_are_stopped_by_themselves(kind: str, online: bool) -> None:
    """A row's fate is the same alone and in a batch; the online fate is what the prefix scores say."""
    model, sampler = subject(kind)
    guard = tiny_guard(kind, alpha=0.4)
    watched = g.Watch(guard, online=online)(sampler)
    together = record(model, watched, ASKED, sampler)
    plain = record(model, sampler, ASKED, sampler)
    sigma = np.stack([guard.anchors.signal(trace) for trace in plain])
    stops = stops_of(guard, plain, sigma) if online else np.array([guard.judge(trace).step or 0 for trace in plain])
    assert 0 < (stops > 0).sum() < len(ASKED), "the case should hold both fates"
    for i, trace in enumerate(together):
        verdict = g.acted(trace)
        assert bool(verdict.flagged) == bool(stops[i])
        if stops[i]:
            assert verdict.step == (stops[i] if online else plain[i].steps)
        else:
            assert (trace.tokens() == plain[i].tokens()).all()
        (alone,) = record(model, watched, [ASKED[i]], sampler)
        assert alone.stop == trace.stop
        assert (alone.tokens() == trace.tokens()).all()


@pytest.mark.parametrize("kind", ["ar", "diffusion"])
def test_a_guard_that_looks_less_often_stops_no_more_and_a_little_later(kind: str) -> None:
    """It sees the same signal, and a row's fate does not depend on when its neighbours end."""
    model, sampler = subject(kind)
    guard = tiny_guard(kind, alpha=0.4)
    plain = record(model, sampler, ASKED, sampler)
    z = guard.prefix.scores(np.stack([guard.anchors.signal(trace) for trace in plain]))
    guard = limited(guard, float(np.median(z.max(axis=1))))  # holds both fates
    seen = []
    for every in (3, 8, 100):
        watched = g.Watch(guard, every=every)(sampler)
        fates = [g.acted(trace) for trace in record(model, watched, ASKED, sampler)]
        for i, verdict in enumerate(fates):
            n = plain[i].steps
            looks = [t for t in range(1, n + 1) if t == n or t % every == 0]
            above = [t for t in looks if z[i, t - 1] > guard.prefix.threshold.value]
            assert verdict.step == (above[0] if above else None)
            if i % 3 == 0:
                (alone,) = record(model, watched, [ASKED[i]], sampler)
                assert g.acted(alone) == verdict
        seen += [verdict.flagged for verdict in fates]
    assert {True, False} <= {*seen}
    with pytest.raises(DemurError, match="at least 1"):
        g.Watch(guard, every=0)


LONGER: Any = {"length": 12, "steps": 8, "batch": 16}


@cache
def longer(kind: str) -> tuple[Any, Any, list[Trace]]:
    """A model, a sampler, and what they make in 12 steps."""
    model = small.ending(small.causal("llama")) if kind == "ar" else subject(kind)[0]
    sampler = Autoregressive() if kind == "ar" else MaskedDiffusion(steps=12, suppress=(small.MASK,))
    return model, sampler, generate(model, ASKED, sampler, **LONGER)


@pytest.mark.parametrize("kind", ["ar", "diffusion"])
@pytest.mark.parametrize(
    "every", [1, 3, pytest.param(5, marks=pytest.mark.slow), pytest.param(7, marks=pytest.mark.slow), 8, 100]
)
def test_a_generation_that_runs_past_t_is_looked_at_up_to_t_whatever_every_is(kind: str, every: int) -> None:
    """12 steps under a guard of 8: no look at a ninth, one at the eighth even if ``every`` does not divide it."""
    (model, sampler, plain), guard = longer(kind), tiny_guard(kind, 0.4)
    # Spec and anchors of this longer run; the detector is the tiny guard's.
    anchors = replace(guard.anchors, spec=plain[0].spec.at("last", "generated"))
    z = guard.prefix.scores(np.stack([anchors.signal(trace) for trace in plain]))
    limit = float(np.median(z.max(axis=1)))
    guard = limited(replace(guard, anchors=anchors), limit)
    assert max(trace.steps for trace in plain) == 12
    fates = [g.acted(trace) for trace in generate(model, ASKED, g.Watch(guard, every=every)(sampler), **LONGER)]
    for row, verdict, trace in zip(z, fates, plain, strict=True):
        last = min(trace.steps, 8)
        above = [t for t in range(1, last + 1) if (t % every == 0 or t == last) and row[t - 1] > limit]
        assert verdict.step == (above[0] if above else None)
    assert {verdict.flagged for verdict in fates} == {True, False}
    offline = generate(model, ASKED, g.Watch(guard, online=False, every=every)(sampler), **LONGER)
    assert [g.acted(trace).flagged for trace in offline] == [guard.judge(trace).flagged for trace in plain]


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("kind", ["ar", "diffusion"])
def test_a_signal_that_is_not_finite_is_no_verdict_and_is_stopped(kind: str, online: bool) -> None:
    model, sampler = subject(kind)
    guard = limited(tiny_guard(kind), np.inf)
    (trace,) = record(model, sampler, ASKED[:1], sampler)
    for value in (np.nan, np.inf):
        blind = replace(trace, phi={("last", "generated"): np.full_like(trace.phi["last", "generated"], value)})
        verdict = guard.judge(blind)
        assert (verdict.flagged, verdict.score, verdict.step) == (None, None, None)
        assert "not finite" in verdict.why
    rows = np.stack([np.full(8, np.nan), guard.anchors.signal(trace)])
    first, second = guard.judge_signals(rows, [False, False])
    assert first.flagged is None
    assert second == guard.judge(trace)
    assert guard.judge_signals(rows[:1], [True])[0].flagged is False, "what refuses needs no signal"
    for told in ([1], np.array([1.0]), torch.tensor([True])):  # as marks are taken everywhere
        assert guard.judge_signals(rows[:1], told)[0].flagged is False  # type: ignore[arg-type]
    for refused in (["no"], ["False"], [0.5], [None], [np.nan], [[True]], True):
        with pytest.raises(DemurError, match="True or False for each row"):
            guard.judge_signals(rows[:1], refused)  # type: ignore[arg-type]
    assert guard.prefix.stops(rows).tolist() == [1, 0]
    if online:
        anchors: Any = Blind(guard.anchors, [0, 2], 3, of=4)
        watched = g.Watch(replace(guard, anchors=anchors))(sampler)
        fates = [g.acted(trace) for trace in record(model, watched, ASKED[:4], sampler)]
        assert [verdict.flagged for verdict in fates] == [True, False, True, False]
    nowhere = replace(guard.anchors, harmless=np.full_like(guard.anchors.harmless, np.nan))
    watched = g.Watch(replace(guard, anchors=nowhere), online=online)(sampler)
    for trace in record(model, watched, ASKED, sampler):
        assert g.acted(trace).flagged
        assert trace.steps == 2 or not online


def test_a_word_of_the_refusal_that_the_model_commits_in_that_very_step_is_kept() -> None:
    """The model may write the same comma in the step that is overwritten; the trace must not lose it (law 6)."""
    from demur.guards.acting import _overwritten
    from demur.types import Step

    ids, opened = torch.tensor([[7, 5, 9]]), torch.tensor([[False, False, True]])
    wrote = torch.tensor([[False, True, False]])  # position 0 was committed before, position 1 by this step
    step = Step(0, ids, opened, wrote, ids, torch.zeros(1, 3), torch.tensor([True]), {})
    made = _overwritten(step, torch.tensor([[7, 5, 6]]), torch.tensor([False]), torch.tensor([True]))
    assert made.committed.tolist() == [[False, True, True]]
    assert made.ids.tolist() == [[7, 5, 6]]


def test_a_guard_of_another_sampler_does_not_watch() -> None:
    model, sampler = subject("diffusion")
    guard = tiny_guard("diffusion")
    with pytest.raises(DemurError, match="another spec"):
        record(model, g.Watch(guard)(autoregressive_order()), ASKED[:1], sampler)
    canvas = model.canvas(ASKED[:1], 8)
    with pytest.raises(DemurError, match="watches nothing"):
        next(iter(g.Watch(guard)(sampler)(model.watching(), canvas, seeded(0, 1))))


def test_tokens_that_were_never_produced_are_counted() -> None:
    model, sampler = subject("ar")
    trace = record(model, sampler, ASKED[:1], sampler)[0]
    words = [int(i) not in trace.special for i in trace.tokens()]
    assert g.spared(trace, 0) == sum(words)
    assert g.spared(trace, 3) == sum(words[3:])
    assert g.spared(trace, 8) == g.spared(trace, 99) == 0


def test_the_offline_watch_does_what_the_guard_judges() -> None:
    """A generation that refuses by itself is let be, however odd its signal; one that does not is overwritten."""
    guard, sampler = organism_guard(), Autoregressive()
    forbidden = world_prompts("test", forbidden=True, n=12)
    asked = [*forbidden, *(attack("page", prompt) for prompt in forbidden)]
    plain = generate(organism(), asked, sampler, **RUN)
    odd = guard.scores(np.stack([guard.anchors.signal(trace) for trace in plain])) > guard.threshold.value
    gone = np.array([trace.refused() for trace in plain])
    assert gone[:12].all()
    assert (odd & gone).any(), "the case should hold refusals with odd signals"
    assert (odd & ~gone).any()
    judged = [guard.judge(trace).flagged for trace in plain]
    assert judged == (odd & ~gone).tolist()
    watched = generate(organism(), asked, g.Watch(guard, online=False)(sampler), **RUN)
    assert [g.acted(trace).flagged for trace in watched] == judged
    for before, after in zip(plain, watched, strict=True):
        assert after.text() == (g.REFUSAL if g.acted(after).flagged else before.text())


@pytest.mark.parametrize("kind", ["ar", "diffusion"])
def test_what_the_offline_watch_reads_is_the_traces_text(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from demur.guards import online
    from demur.guards.exempt import says

    model, sampler = subject(kind)
    model = small.ending(model, *range(100, 140)) if kind == "ar" else model
    plain = record(model, sampler, ASKED, sampler)
    read: list[str] = []
    monkeypatch.setattr(online, "row_refuses", lambda *row: bool(read.append(says(*row))))
    guard = tiny_guard(kind)
    guard = replace(guard, threshold=replace(guard.threshold, value=-1.0))  # every error is above
    record(model, g.Watch(guard, online=False)(sampler), ASKED, sampler)
    assert sorted(read) == sorted(trace.text() for trace in plain)
    assert kind != "ar" or len({trace.steps for trace in plain}) > 2, "rows should end at different steps"


# -- rows that have ended -----------------------------------------------------------------------------------


def short_answers() -> tuple[Any, list[Prompt], list[Trace]]:
    """Answers of many lengths, most of them shorter than T."""
    model = small.ending(small.causal("llama"), *range(60, 90))
    asked = [Prompt(f"q{i}", f"Prompt {i} about {i * i}") for i in range(7000, 7024)]
    return model, asked, generate(model, asked, length=8, steps=8, batch=24)


def of(guard: g.Guard, traces: list[Trace]) -> g.Guard:
    """The guard for these traces' model."""
    return replace(guard, anchors=replace(guard.anchors, spec=traces[0].spec.at("last", "generated")))


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("every", [1, 3])
def test_an_answer_that_has_ended_is_not_stopped_for_a_state_that_it_holds(every: int, late: int) -> None:
    """What is above the limit only while its last state is repeated stays as it is, and is judged as it is."""
    model, asked, plain = short_answers()
    guard = of(tiny_guard(), plain)
    sigma = np.stack([guard.anchors.signal(trace) for trace in plain])
    guard = limited(guard, 0.0)
    z, n = guard.prefix.scores(sigma), np.array([trace.steps for trace in plain])
    own = np.arange(8) < n[:, None]
    limit = float(np.median(np.where(own, z, -np.inf).max(axis=1)))
    held_above = (np.where(own, -np.inf, z).max(axis=1) > limit) & (np.where(own, z, -np.inf).max(axis=1) <= limit)
    assert held_above.any(), "one is above the limit only while it is held"
    guard = limited(guard, limit)
    watched = g.Watch(guard, every=every, late=late)(Autoregressive())
    defended = generate(model, asked, watched, length=8, steps=8, batch=24)
    for i in held_above.nonzero()[0]:
        assert defended[i].stop == plain[i].stop == "end-of-sequence"
        assert (defended[i].tokens() == plain[i].tokens()).all()
        assert guard.judge(defended[i]) == guard.judge(plain[i])
    assert {True, False} == {bool(g.acted(trace).flagged) for trace in defended}


@pytest.mark.parametrize("kind", ["ar", "diffusion", "short"])
def test_a_guard_that_reads_a_step_late_acts_one_step_later(kind: str) -> None:
    if kind == "short":
        model, asked, plain = short_answers()
        guard, sampler = of(tiny_guard(), plain), Autoregressive()
    else:
        (model, sampler), guard, asked = subject(kind), tiny_guard(kind), ASKED
        plain = generate(model, asked, sampler, length=8, steps=8, batch=24)
    z = guard.prefix.scores(np.stack([guard.anchors.signal(trace) for trace in plain]))
    guard = limited(guard, float(np.median(z.max(axis=1))))
    atonce, late = (
        generate(model, asked, g.Watch(guard, late=n)(sampler), length=8, steps=8, batch=24) for n in (0, 1)
    )
    for before, first, second in zip(plain, atonce, late, strict=True):
        at, later = g.acted(first).step, g.acted(second).step
        assert later == (None if at is None else min(at + 1, before.steps))
        assert (
            second.replay(min(second.steps, later or 99)).tolist()
            == before.replay(min(second.steps, later or 99)).tolist()
        )
        (alone,) = generate(model, [second.prompt], g.Watch(guard, late=1)(sampler), length=8, steps=8)
        assert (alone.stop, alone.steps, alone.commits.tolist()) == (second.stop, second.steps, second.commits.tolist())
    assert {True, False} == {bool(g.acted(trace).flagged) for trace in late}
    with pytest.raises(DemurError, match="0 or 1"):
        g.Watch(guard, late=2)


class Reused(Autoregressive):
    """It says in one tensor which rows take part, step after step."""

    def __call__(self, model: Any, canvas: Any, rngs: Any) -> Any:
        live = None
        for step in super().__call__(model, canvas, rngs):
            live = step.live.clone() if live is None else live.copy_(step.live)
            yield replace(step, live=live)


@pytest.mark.parametrize("late", [0, 1])
def test_a_sampler_may_write_into_its_own_before_a_step_is_read(late: int) -> None:
    """A row's last step is looked at, also where the next step is written over what says that it took part."""
    model, _ = subject("ar")
    watched, guard, seen = watching(model, KEYS), limited(tiny_guard("ar"), 1e9), []  # type: ignore[arg-type]
    for sampler in (Autoregressive(), Reused()):
        canvas = watched.canvas(ASKED, 12)
        rows = new_rows(guard, canvas.rows)
        own = replace(guard.anchors, spec=replace(guard.spec, sampler=spec_name(sampler)))
        for _ in g.Watch(replace(guard, anchors=own), late=late)(sampler)(
            watched, canvas, seeded(0, canvas.rows), rows=rows
        ):
            pass
        seen.append([(row.state, row.steps, row.sigma.tolist()) for row in rows])
    assert seen[0] == seen[1]
    assert min(steps for _, steps, _ in seen[0]) < 8, "a row should end early"


# -- what the host is told ----------------------------------------------------------------------------------


@pytest.mark.parametrize("signal", SIGNALS)
def test_sigma_where_the_states_lie_is_sigma_as_offline(signal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensor operations against NumPy: to rounding, nan for what is not finite, rows at steps of their own."""
    from demur.guards import sight

    anchors = tiny_guard(signal=signal).anchors
    rng = np.random.default_rng(0)
    near = anchors.harmless + 1e-4 * rng.normal(size=anchors.harmless.shape)
    phi = np.concatenate([near, 100 * rng.normal(size=near.shape), np.zeros_like(near[:1])]).astype(np.float32)
    phi = np.concatenate([phi, np.full_like(phi[:1], np.nan), np.full_like(phi[:1], np.inf)])
    step = np.arange(len(phi)) % 8
    offline = as_offline(anchors, phi, step)
    monkeypatch.setattr(sight, "ON_HOST", ())
    told = torch.arange(2 * len(phi)).reshape(-1, 2)
    came, there = sight.Signal(anchors)(torch.from_numpy(phi), torch.from_numpy(step), told)()
    np.testing.assert_allclose(there, offline, rtol=0, atol=1e-9)
    assert came.tolist() == told.tolist(), "what goes along comes as it was"
    assert np.isnan(offline[-2:]).all()
    for t in (-1, 0, 7, 8):  # all rows at one step; the nearest where there is none
        _, there = sight.Signal(anchors)(torch.from_numpy(phi), t, told)()
        np.testing.assert_allclose(there, as_offline(anchors, phi, t), rtol=0, atol=1e-9)
        assert (as_offline(anchors, phi, t)[:-2] == anchors.at(phi[:-2, None], min(max(t, 0), 7))[:, 0]).all()
    for i, t in enumerate(step):
        assert offline[i] == anchors.at(phi[i : i + 1, None], t)[0, 0] or np.isnan(offline[i])


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("kind", ["ar", "diffusion"])
def test_where_sigma_is_computed_changes_no_fate(kind: str, signal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of an accelerator, on a CPU; the host is told once a step, a few numbers a row."""
    from demur.guards import sight

    model, sampler = subject(kind)
    guard, told = tiny_guard(kind, alpha=0.4, signal=signal), []
    plain = record(model, g.Watch(guard)(sampler), ASKED, sampler)
    monkeypatch.setattr(sight, "ON_HOST", ())
    crossing = sight.crossing
    monkeypatch.setattr(sight, "crossing", lambda numbers: told.append(numbers.shape) or crossing(numbers))
    passes: list[int] = []
    there = record(model, g.Watch(guard)(sampler), ASKED, sampler, passes)
    assert [(trace.stop, trace.steps) for trace in there] == [(trace.stop, trace.steps) for trace in plain]
    assert len(told) <= len(passes)
    assert {*told} == {(len(ASKED), 4)}


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("kind", ["ar", "diffusion"])
def test_the_online_guard_sees_the_offline_guards_bits(kind: str, signal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from demur.guards import online

    model, sampler = subject(kind)
    guard, kept = limited(tiny_guard(kind, signal=signal), np.inf), []
    monkeypatch.setattr(online, "new_rows", lambda *given: kept.append(new_rows(*given)) or kept[-1])
    traces = record(model, g.Watch(guard)(sampler), ASKED, sampler)
    (rows,) = kept
    for row, trace in zip(rows, traces, strict=True):
        assert row.steps == min(trace.steps, 8)
        assert (row.sigma[: row.steps] == guard.anchors.signal(trace)[: row.steps]).all()
        assert row.state is RowState.ENDED


def test_a_rows_states_follow_each_other() -> None:
    row = Row(np.zeros(3))
    row.observe(RowState.RUNNING, 0.5)
    row.observe(RowState.WAITING, 0.1)
    assert (row.state, row.steps, row.sigma.tolist()) == (RowState.WAITING, 1, [0.5] * 3)
    assert row.is_due(1)
    assert not row.is_due(2)
    row.observe(RowState.RUNNING, 0.25)
    row.observe(RowState.ENDED, 0.1)
    assert (row.steps, row.sigma.tolist()) == (2, [0.5, 0.25, 0.25])
    assert row.is_due(5), "after its last step it is looked at, whatever `every` is"
    row.looked = 2
    assert not row.is_due(1), "nothing new is seen of a row that has ended"
    row.observe(RowState.RUNNING, 0.1)
    assert row.state is RowState.ENDED
    assert not row.is_watched
