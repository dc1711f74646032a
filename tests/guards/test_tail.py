"""Whole answers: what is read behind step T, what is promised of it, and the same verdict wherever it is looked at."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from test_guards import signals, subject, tiny_guard

from demur import artefact
from demur import guards as g
from demur.guards.conformal import conformal_threshold
from demur.guards.tail import Tail, fit_tail, worst
from demur.organism.world import prompts as world_prompts
from demur.prompts.read import Transcript
from demur.samplers import Autoregressive
from demur.signals import fit_anchors
from demur.signals.recent import recent
from demur.studio.replaying import replayed
from demur.traces import Trace, generate, teacher_forced
from demur.types import DemurError, Prompt

T, LONG = 8, 24


@cache
def subject_of(signal: str) -> tuple[Any, list[Prompt], list[Trace], g.Guard]:
    """A random model whose answers have 1 to 24 tokens, and a guard with T = 8 that looks at all of them."""
    model = small.ending(small.causal("llama"), *range(60, 64))
    asked = [Prompt(f"q{i}", f"Prompt {i} about {i * i}") for i in range(7000, 7024)]
    plain = generate(model, asked, length=LONG, steps=T, batch=24)
    guard = tiny_guard(signal=signal)
    guard = replace(guard, anchors=replace(guard.anchors, spec=plain[0].spec.at("last", "generated", _name(signal))))
    highest = [worst(guard.anchors, trace) for trace in plain if trace.steps > T]
    limit = g.Threshold(float(np.median(highest)), 0.1, "conformal", 40)
    never = replace(guard.threshold, value=math.inf)
    return (
        model,
        asked,
        plain,
        replace(
            guard,
            tail=Tail(LONG, limit),
            threshold=never,
            prefix=replace(guard.prefix, threshold=replace(guard.prefix.threshold, value=math.inf)),
        ),
    )


def _name(signal: str) -> str:
    return "" if signal == "sri" else signal


def test_the_last_tokens_of_running_means_are_the_last_tokens() -> None:
    states = np.random.default_rng(0).normal(size=(500, 7))
    means = np.cumsum(states, axis=0) / np.arange(1, 501)[:, None]
    found = recent(means.astype(np.float32), 32)
    wanted = np.stack([states[t - 32 : t].mean(axis=0) for t in range(33, 501)])
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    assert recent(means[:32].astype(np.float32), 32).shape == recent(means[:5].astype(np.float32), 32).shape == (0, 7)


@pytest.mark.parametrize("signal", ["sri", "whitened"])
def test_a_window_is_read_as_the_first_t_tokens_are(signal: str) -> None:
    """Of an answer that begins in its middle: what stands before does not count."""
    _, _, plain, guard = subject_of(signal)
    trace = next(trace for trace in plain if trace.steps == LONG)
    sigma, phi = guard.anchors.beyond(trace), trace.phi["last", "generated"]
    assert sigma.shape == (LONG - T,)
    states = np.diff(phi * np.arange(1, LONG + 1)[:, None], axis=0, prepend=0)
    window = states[5 : 5 + T].mean(axis=0, keepdims=True).astype(np.float32)
    small.assert_close(sigma[5 - 1], guard.anchors.at(window[None], T - 1)[0, 0])
    short = next(trace for trace in plain if trace.steps <= T)
    assert guard.anchors.beyond(short).shape == (0,)


@pytest.mark.parametrize("signal", ["sri", "whitened"])
@pytest.mark.parametrize(("every", "late"), [(1, 0), (3, 0), (1, 1)])
def test_online_stops_at_the_first_window_that_offline_is_above(signal: str, every: int, late: int) -> None:
    """Bit for bit: the limit lies on values that occur."""
    model, asked, plain, guard = subject_of(signal)
    assert guard.tail is not None
    watched = g.Watch(guard, every=every, late=late)(Autoregressive())
    defended = generate(model, asked, watched, length=LONG, steps=T, batch=24)
    stops = []
    for before, after in zip(plain, defended, strict=True):
        sigma = guard.anchors.beyond(before)
        looked = [t for t in range(T + 1, before.steps + 1) if t % every == 0 or t == before.steps]
        above = [t for t in looked if 1.0 - sigma[t - T - 1] > guard.tail.threshold.value]
        wanted = min(above[0] + late, before.steps) if above else None
        if wanted is not None and before.stop == "end-of-sequence" and above[0] == before.steps:
            wanted = g.acted(after).step  # its last token was its last step: either way nothing is left to stop
        assert g.acted(after).step == wanted
        judged = guard.judge(before)
        assert judged.flagged == bool(guard.tail.stop(sigma, T))
        if every == 1 and late == 0 and judged.flagged:
            assert judged.step == above[0]
        stops.append(wanted)
    assert {True, False} == {stop is None for stop in stops}


def test_offline_watch_and_transformers_judge_whole_answers_as_the_guard_does() -> None:
    model, asked, plain, guard = subject_of("whitened")
    watched = g.Watch(guard, online=False)(Autoregressive())
    defended = generate(model, asked, watched, length=LONG, steps=T, batch=24)
    verdicts = guard.judge_all(plain)
    assert [bool(g.acted(trace).flagged) for trace in defended] == [bool(verdict.flagged) for verdict in verdicts]
    assert {True, False} == {bool(verdict.flagged) for verdict in verdicts}
    online = generate(model, asked, g.Watch(guard)(Autoregressive()), length=LONG, steps=T, batch=24)
    criteria = g.stopping_criteria(guard, model)
    canvas = model.canvas(asked, 0)
    model.net.generate(
        input_ids=canvas.ids, attention_mask=(~canvas.pad).long(), do_sample=False, max_new_tokens=LONG + 1,
        eos_token_id=list(model.stop_ids), pad_token_id=small.PAD, stopping_criteria=[criteria],
    )  # fmt: skip
    criteria.close()
    for verdict, trace, before in zip(criteria.verdicts, online, plain, strict=True):
        at = g.acted(trace).step
        if at is not None and at < before.steps:
            assert verdict.step == at
            assert verdict.flagged


@pytest.mark.parametrize("hold", [1, 3, 30])
def test_what_is_held_back_is_seen_by_nobody_before_it_is_judged(hold: int) -> None:
    model, asked, plain, guard = subject_of("whitened")
    assert guard.tail is not None
    free, held = (
        generate(model, asked, g.Watch(guard, hold=n)(Autoregressive()), length=LONG, steps=T, batch=24)
        for n in (0, hold)
    )
    stopped = 0
    for before, first, second in zip(plain, free, held, strict=True):
        at = g.acted(first).step
        if at is None:
            assert (second.tokens() == before.tokens()).all()
            assert second.stop == before.stop
            continue
        stopped += 1
        left = g.acted(second).step
        assert left == max(at - hold, 0), "the step that is above the limit and those held with it never left"
        for t in range(left + 1):
            assert (second.replay(t) == before.replay(t)).all()
        assert g.REFUSAL.startswith(second.text()[:8])
    assert stopped


@pytest.mark.parametrize("hold", [0, 3])
@pytest.mark.parametrize("whole", [True, False])
def test_the_command_says_how_much_had_left_and_how_much_nobody_looked_at(whole: bool, hold: int) -> None:
    from demur.cli.guard import _why

    model, asked, _, guard = subject_of("whitened")
    guard = guard if whole else replace(guard, tail=None)
    words = set()
    watched = g.Watch(guard, hold=hold)(Autoregressive())
    for trace in generate(model, asked, watched, length=LONG, steps=T, batch=24):
        verdict, behind = g.acted(trace), trace.steps - T
        if verdict.flagged:
            left = f"{verdict.step} step{'' if verdict.step == 1 else 's'} had left"
            said = f"stopped, {left}" if hold else f"stopped after step {verdict.step}"
        else:
            said = "let pass" if whole or behind <= 0 else f"let pass; {behind} further steps were not looked at"
        assert _why(guard, verdict, trace, hold) == said
        words.add(said.split()[0])
    assert "let" in words
    assert not whole or len(words) > 1


def test_holding_and_looking_go_together() -> None:
    guard = subject_of("sri")[3]
    for wrong in ({"hold": -1}, {"hold": 2, "every": 4}, {"hold": 2, "online": False}):
        with pytest.raises(DemurError, match="hold"):
            g.Watch(guard, **wrong)  # type: ignore[arg-type]


def test_a_window_that_is_not_finite_is_no_verdict_and_is_stopped() -> None:
    model, asked, plain, guard = subject_of("whitened")
    blind = _BlindBehind.of(guard)
    trace = next(trace for trace in plain if trace.steps == LONG)
    assert blind.judge(trace).flagged is None
    defended = generate(model, asked, g.Watch(blind)(Autoregressive()), length=LONG, steps=T, batch=24)
    assert all(g.acted(after).flagged == (before.steps > T) for before, after in zip(plain, defended, strict=True))


class _BlindBehind:
    """Anchors that see nothing at step T."""

    @staticmethod
    def of(guard: g.Guard) -> g.Guard:
        whitened = guard.anchors.whitened
        assert whitened is not None
        steep = whitened.steep.copy()
        steep[-1] = np.nan
        anchors = replace(guard.anchors, whitened=replace(whitened, steep=steep))
        return _Finite(**{**vars(guard), "anchors": anchors})


class _Finite(g.Guard):
    """A guard whose first T steps are never in the way."""

    def scores(self, sigma: Any) -> Any:
        return super().scores(np.nan_to_num(sigma, nan=1.0))


# -- promises -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "alpha"), [(99, 0.02), (199, 0.05)])
def test_the_promise_holds_for_answers_of_8_to_512_tokens(n: int, alpha: float) -> None:
    """2,000 splits, offline and online. Made-up answers: the longer, the more windows, and each with a level of its
    own. What is held back is judged by the same numbers.
    """
    rng = np.random.default_rng(n)
    pool, steps = 6_000, 32
    lengths = np.exp(rng.uniform(np.log(8), np.log(513), pool)).astype(int)
    detector = g.Mean()
    first = signals(pool, seed=3)
    wave = np.cumsum(rng.normal(0, 0.05, (pool, 512 - steps)), axis=1)
    behind = 1 / (1 + np.exp(-(2 + rng.normal(0, 0.4, (pool, 1)) + wave)))
    own = np.arange(steps + 1, 513) <= lengths[:, None]
    tails = np.where(own, 1.0 - behind, 0.0).max(axis=1)
    prefix = g.fit_prefix(detector, signals(300, seed=8), first[:200], alpha=alpha)
    z = np.where(np.arange(1, steps + 1) <= lengths[:, None], prefix.scores(first), -np.inf).max(axis=1)
    for heads in (detector(first), z):
        rates = []
        for _ in range(2000):
            drawn = rng.choice(pool, n + 200, replace=False)
            calibrate, new = drawn[:n], drawn[n:]
            limits = [conformal_threshold(scores[calibrate], alpha / 2) for scores in (heads, tails)]
            rates.append(((heads[new] > limits[0]) | (tails[new] > limits[1])).mean())
        mean, error = np.mean(rates), np.std(rates) / 2000**0.5
        assert mean <= alpha + 3 * error, f"{mean} over {alpha}"
        assert mean >= alpha / 2 - 1 / n - 3 * error, "too cautious for two halves"


def test_a_guard_of_whole_answers_says_what_it_promises_and_comes_back_from_its_file(tmp_path: Path) -> None:
    """On the organism, whose answers end by themselves; calibration prompts are harmless ones like those that are
    measured.
    """
    import demur

    model = demur.load("organism/ar")

    def run(split: Any, n: int, forbidden: bool = False, length: int = 16) -> list[Trace]:
        asked = world_prompts(split, forbidden=forbidden, n=n)
        return generate(model, asked, length=length, steps=T, batch=64)

    anchors = fit_anchors(run("anchors", 24), run("anchors", 24, True), signal="whitened")
    fit, calibrate = run("guard", 40), run("calibration", 60, length=40)
    guard = g.fit_guard(anchors, fit, calibrate, alpha=0.1, upto=40)
    assert guard.tail is not None
    assert guard.alpha == pytest.approx(0.1)
    assert guard.threshold.alpha == guard.prefix.threshold.alpha == guard.tail.threshold.alpha == 0.05
    assert "up to 40 tokens" in guard.promise
    assert "at most 10.0%" in guard.promise
    above = [worst(anchors, trace) > guard.tail.threshold.value for trace in calibrate]
    assert 0 < np.mean(above) <= 0.05
    again = g.Guard.load(guard.save(tmp_path / "guard.safetensors"))
    assert again.tail == guard.tail
    assert again.judge_all(calibrate) == guard.judge_all(calibrate)
    measured = guard.measured("new", run("test", 40, length=40))
    assert measured.checked["new"].n == measured.checked_online["new"].n == 40
    alone = g.fit_guard(anchors, fit, calibrate, alpha=0.1)
    assert alone.tail is None
    with pytest.raises(DemurError, match="cut before token 40"):
        g.fit_guard(anchors, fit, run("calibration", 60, length=12), alpha=0.1, upto=40)
    arrays, card = artefact.load(guard.save(tmp_path / "b.safetensors"), "guard")
    for wrong in ({"upto": 3}, {"upto": "40"}, {"threshold": None}):
        broken = tmp_path / "c.safetensors"
        artefact.save(broken, "guard", arrays, card | {"tail": card["tail"] | wrong})
        with pytest.raises(DemurError):
            g.Guard.load(broken)


def test_where_states_go_on_changing_there_is_no_last_window() -> None:
    model, sampler = subject("diffusion")
    guard = tiny_guard("diffusion")
    trace = generate(model, [Prompt("q", "Prompt 1")], sampler, length=8, steps=8)[0]
    with pytest.raises(DemurError, match="left to right"):
        guard.anchors.beyond(trace)
    with pytest.raises(DemurError, match="left to right"):
        fit_tail(guard.anchors, [trace], 64, alpha=0.1, rule="conformal")


def test_a_limit_of_windows_that_none_can_exceed_is_an_error() -> None:
    """One harmless answer with a window at sigma 0 is enough, where there are just as many as alpha needs."""
    _, _, plain, guard = subject_of("sri")

    class Saturated:
        """Anchors that see sigma 0 at the last step of the longest answers."""

        spec = guard.anchors.spec

        def signal(self, trace: Trace) -> np.ndarray:
            return guard.anchors.signal(trace)

        def beyond(self, trace: Trace) -> np.ndarray:
            sigma = guard.anchors.beyond(trace)
            return sigma * 0.0 if trace.steps == LONG else sigma

    with pytest.raises(DemurError, match=r"window at sigma 0, which is the limit; .* would never flag"):
        fit_tail(Saturated(), plain, LONG, alpha=0.05, rule="conformal")  # type: ignore[arg-type]
    assert fit_tail(guard.anchors, plain, LONG, alpha=0.05, rule="conformal").threshold.value < 1.0


def test_the_window_on_the_device_has_the_offline_bits() -> None:
    from demur.guards.sight import Recent

    means = torch.randn(40, 3, 16).cumsum(dim=0) / torch.arange(1, 41)[:, None, None]
    see = Recent(T)
    seen = torch.stack([see(phi) for phi in means]).numpy()
    offline = recent(means.transpose(0, 1).numpy(), T)
    assert (seen[T:].transpose(1, 0, 2) == offline).all()
    assert (seen[:T] == means[:T].numpy()).all()


def test_a_replayed_answer_is_judged_to_its_end() -> None:
    """From texts, as `demur replay --guard` reads them; its first T tokens alone where the guard looks no further."""
    model, asked, plain, guard = subject_of("whitened")
    long = [i for i, trace in enumerate(plain) if trace.steps == LONG]
    made = teacher_forced(
        model, [asked[i] for i in long], [plain[i].tokens().tolist() for i in long], steps=T, length=LONG
    )
    for i, trace in zip(long, made, strict=True):
        assert trace.steps == LONG
        np.testing.assert_allclose(guard.anchors.beyond(trace), guard.anchors.beyond(plain[i]), atol=1e-3)
    said = [Transcript(asked[i], "a plain answer of more than eight bytes", "here", i) for i in long[:3]]
    for whole in (True, False):
        judge = guard if whole else replace(guard, tail=None)
        found = replayed(model, said, guard.anchors, judge, steps=T, wanted=("last", "generated"))
        assert {one.trace.steps for one in found if one.trace} == ({39} if whole else {T})
        assert [one.verdict for one in found] == judge.judge_all([one.trace for one in found if one.trace])


def test_pictures_go_on_behind_step_t() -> None:
    _, _, plain, guard = subject_of("whitened")
    trace = next(trace for trace in plain if trace.steps == LONG)
    shown = guard.anchors.show(trace).scenes[0]
    assert len(shown.sigma or ()) == LONG


def test_a_guard_that_knows_short_answers_alone_does_not_flag_whatever_is_longer() -> None:
    """An answer that ends before T counts by its last state, so that the limit is that of an answer, not 0."""
    model, _, _, guard = subject_of("whitened")
    asked = [Prompt(f"q{i}", f"Prompt {i} about {i * i}") for i in range(7100, 7170)]
    answers = generate(model, asked, length=LONG, steps=T, batch=70)
    short = [trace for trace in answers if trace.steps < T]
    assert len(short) >= 9
    tail = fit_tail(guard.anchors, short, LONG, alpha=0.1, rule="conformal")
    highest = max(float(1.0 - guard.anchors.signal(trace)[-1]) for trace in short)
    assert tail.threshold.value == pytest.approx(highest)
    assert tail.threshold.value > 0.0


def test_signals_are_judged_with_what_stands_behind_them_or_not_at_all() -> None:
    _, _, plain, guard = subject_of("sri")
    sigma, beyond = guard.anchors.signals(plain), [guard.anchors.beyond(trace) for trace in plain]
    refused = [trace.refused() for trace in plain]
    judged = guard.judge_signals(sigma, refused, beyond)
    assert [v.flagged for v in judged] == [v.flagged for v in guard.judge_all(plain)]
    assert any(v.flagged for v in judged), "only the windows can flag here"
    with pytest.raises(DemurError, match="for a guard of whole answers"):
        guard.judge_signals(sigma, refused)
    for short in ((sigma[1:], refused, beyond), (sigma, refused[1:], beyond), (sigma, refused, beyond[1:])):
        with pytest.raises(DemurError, match="one of each a row"):
            guard.judge_signals(*short)
