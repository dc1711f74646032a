"""The guard: scikit-learn's grammar, promises by simulation, bits, artefacts, and at work around real samplers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator

from demur import guards as g
from demur.organism.world import prompts as world_prompts
from demur.samplers import Autoregressive, MaskedDiffusion, autoregressive_order, seeded
from demur.signals import Anchors, fit_anchors
from demur.trace import Recorder, Trace, generate, spec_of, watching
from demur.types import DemurError, Prompt, Spec

KEYS = [("last", "generated")]


def signals(n: int, steps: int = 32, seed: int = 0) -> np.ndarray:
    """Made-up harmless signals: near 1, with a slow wave of their own."""
    rng = np.random.default_rng(seed)
    wave = np.sin(np.linspace(0, 3, steps) + rng.random((n, 1)))
    return np.asarray(1 / (1 + np.exp(-(2 + wave + rng.normal(0, 0.5, (n, steps))))))


@cache
def fitted(threshold: str = "conformal", alpha: float = 0.01) -> g.SRIGuard:
    return g.SRIGuard(alpha=alpha, threshold=threshold, epochs=40).fit(signals(600))  # type: ignore[arg-type]


# -- law 7: the grammar is scikit-learn's -------------------------------------------------------------------


CHECKS = [
    (estimator, check)
    for estimator, check in estimator_checks_generator(
        g.SRIGuard(threshold="quantile", min_samples=1, epochs=5, alpha=0.1)
    )
    if "array_api" not in str(check)  # NumPy is what it scores with
]


@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=[c.func.__name__ for _, c in CHECKS])
def test_law_7_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_law_7_decisions_are_scores_minus_the_threshold_and_clones_are_equal() -> None:
    guard, x = fitted(), signals(50, seed=9)
    assert (guard.decision_function(x) == guard.score_samples(x) - guard.threshold_).all()
    assert (guard.score_samples(x) == -guard.errors(x)).all()
    assert ((guard.predict(x) == -1) == (guard.decision_function(x) < 0)).all()
    again = clone(guard).fit(signals(600))
    assert (again.errors(x) == guard.errors(x)).all()
    assert again.threshold_ == guard.threshold_
    other = clone(guard).set_params(random_state=1).fit(signals(600))
    assert (other.errors(x) != guard.errors(x)).any()


@pytest.mark.parametrize("steps", [1, 7, 32, 129])
def test_a_row_has_the_same_bits_alone_and_in_any_batch(steps: int) -> None:
    guard = g.SRIGuard(epochs=3, threshold="quantile").fit(signals(100, steps))
    x = signals(1000, steps, seed=5)
    together = guard.errors(x)
    alone = np.array([guard.errors(x[i : i + 1])[0] for i in range(0, 1000, 37)])
    assert (together[::37] == alone).all()
    assert (guard.errors(x[::-1])[::-1] == together).all()
    assert (guard.errors(np.asfortranarray(x)) == together).all()


def test_what_is_no_harmless_signal_is_flagged() -> None:
    guard = fitted()
    odd = signals(200, seed=4)
    odd[:, 8:16] = 0.1
    assert (guard.predict(odd) == -1).mean() > 0.95
    assert (guard.predict(signals(1000, seed=8)) == -1).mean() < 0.03


def test_scoring_needs_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, numpy as np\n"
        "from demur.guards.detector import SRIGuard\n"
        "d = SRIGuard(); d.weights_ = [np.ones((32, 4), np.float32), np.ones((8, 32), np.float32),"
        " np.ones((32, 8), np.float32), np.ones((4, 32), np.float32)]\n"
        "d.biases_ = [np.zeros(n, np.float32) for n in (32, 8, 32, 4)]; d.n_features_in_ = 4; d.threshold_ = -1.0\n"
        "print(d.predict(np.ones((2, 4))), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[-1 -1] False", done.stderr


# -- promises -----------------------------------------------------------------------------------------------


def test_the_conformal_threshold_is_the_kth_smallest() -> None:
    assert g.conformal_threshold(list(range(1, 100)), 0.01) == 99  # k = ceil(100 * 0.99) = 99
    assert g.conformal_threshold(list(range(1, 200)), 0.05) == 190
    with pytest.raises(g.InvalidData, match="at least 99"):
        g.conformal_threshold(list(range(98)), 0.01)
    with pytest.raises(ValueError, match="alpha"):
        g.conformal_threshold([1.0], 0)


@pytest.mark.parametrize(("n", "alpha"), [(99, 0.01), (120, 0.01), (199, 0.05), (50, 0.1)])
def test_the_promise_holds_over_2000_splits_offline_and_online(n: int, alpha: float) -> None:
    """Both kinds of threshold on real prefix scores of a real detector; the pool is drawn anew for every split."""
    detector = fitted()
    fit = signals(600)
    pool = signals(12_000, seed=77)
    offline = detector.errors(pool)
    prefix = g.fit_prefix(detector, fit, pool[:200], alpha=0.01)
    online = prefix.scores(pool).max(axis=1)
    rng = np.random.default_rng(n)
    for scores in (offline, online):
        rates = []
        for _ in range(2000):
            drawn = rng.choice(len(scores), n + 200, replace=False)
            limit = g.conformal_threshold(scores[drawn[:n]], alpha)
            rates.append((scores[drawn[n:]] > limit).mean())
        mean, error = np.mean(rates), np.std(rates) / 2000**0.5
        assert mean <= alpha + 3 * error, f"{mean} over {alpha}"
        k = np.ceil((n + 1) * (1 - alpha) - 1e-9)
        assert mean >= (n + 1 - k) / (n + 1) - 4 * error, "too cautious: not the quantile that was asked for"


def test_the_quantile_promises_nothing_and_breaks_the_rate_for_few() -> None:
    """Why conformal: the plain 95% quantile of 20 scores lets through more than 5%."""
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(2000):
        scores = rng.random(220)
        rates.append((scores[20:] > g.quantile_threshold(scores[:20], 0.95)).mean())
    assert np.mean(rates) > 0.06


def test_the_spread_of_one_calibration_set_is_betas() -> None:
    rng = np.random.default_rng(0)
    true = [1 - g.conformal_threshold(rng.random(200), 0.05) for _ in range(3000)]  # of uniform scores
    low, high = g.spread(200, 0.05)
    assert np.quantile(true, [0.025, 0.975]) == pytest.approx([low, high], abs=0.004)


def test_stopping_at_the_first_exceedance_flags_what_the_maximum_flags() -> None:
    detector = fitted(alpha=0.05)
    prefix = g.fit_prefix(detector, signals(600), signals(300, seed=3), alpha=0.05)
    x = signals(2000, seed=12)
    assert ((prefix.stops(x) > 0) == (prefix.scores(x).max(axis=1) > prefix.limit)).all()
    whole = prefix.score(x)
    errors = detector.errors(x)
    order = np.argsort(errors)
    assert (np.diff(whole[order]) >= 0).all(), "at t = T the online score must order signals as the offline one"


def test_too_little_data_is_said() -> None:
    with pytest.raises(g.InvalidData, match="at least 32"):
        g.SRIGuard().fit(signals(20), calibration=signals(200))
    with pytest.raises(g.InvalidData, match="at least 99"):
        g.SRIGuard(epochs=1).fit(signals(200), calibration=signals(50))
    with pytest.raises(g.InvalidData, match="conformal or quantile"):
        g.SRIGuard(threshold="luck", epochs=1).fit(signals(200))  # type: ignore[arg-type]


# -- a guard of a real model --------------------------------------------------------------------------------


def tiny_traces(
    n: int, *, harmful: bool = False, offset: int = 0, sampler: Any = None, model: Any = None
) -> list[Trace]:
    model = model or small.causal("llama")
    texts = [f"Prompt {i} about {i * i}" for i in range(offset, offset + n)]
    asked = [Prompt(f"p{i}", text, harmful=harmful) for i, text in enumerate(texts)]
    return generate(model, asked, sampler, length=8, steps=8, batch=16)


@cache
def tiny_guard(kind: str = "ar", alpha: float = 0.2) -> g.Guard:
    """A guard of a random tiny model; a made-up refusal anchor, since such a model refuses nothing."""
    model, sampler = subject(kind)
    fit = tiny_traces(80, sampler=sampler, model=model)
    phi = np.stack([trace.aligned("last", "generated") for trace in fit])
    away = phi[::2].mean(axis=0) + 0.5 * np.random.default_rng(0).normal(size=phi.shape[1:]).astype(np.float32)
    ones = np.ones(8, np.float32)
    anchors = Anchors(
        phi.mean(axis=0), away, ones, ones, fit[0].spec.at("last", "generated"), "observed", 80, 80, 80, 80
    )
    calibrate = tiny_traces(40, offset=1000, sampler=sampler, model=model)
    detector = g.SRIGuard(alpha=alpha, epochs=20, threshold="conformal")
    return g.fit_guard(anchors, fit, calibrate, detector=detector)


def subject(kind: str) -> tuple[Any, Any]:
    if kind == "ar":
        return small.causal("llama"), Autoregressive()
    return small.diffusion("llada"), MaskedDiffusion(steps=8, suppress=(small.MASK,))


def test_saving_what_was_loaded_gives_the_same_bytes_and_the_same_verdicts(tmp_path: Path) -> None:
    guard = tiny_guard()
    first = guard.save(tmp_path / "a.safetensors")
    again = g.Guard.load(first)
    assert again.save(tmp_path / "b.safetensors").read_bytes() == first.read_bytes()
    for trace in tiny_traces(10, offset=5000):
        assert again.judge(trace) == guard.judge(trace)
    assert again.prefix.limit == guard.prefix.limit
    assert again.promise == guard.promise
    assert "20.0%" in guard.promise


def test_another_model_layer_sampler_or_t_names_both_sides(tmp_path: Path) -> None:
    guard = tiny_guard()
    path = guard.save(tmp_path / "guard.safetensors")
    spec = guard.spec
    for change, named in (
        ({"model": "other"}, "other"),
        ({"weights": "123"}, "123"),
        ({"sampler": "MaskedDiffusion"}, "MaskedDiffusion"),
        ({"steps": 16}, "steps: 16 against 8"),
    ):
        with pytest.raises(DemurError, match=named):
            g.Guard.load(path, replace(spec, **change))
    trace = tiny_traces(1)[0]
    middle = replace(guard, anchors=replace(guard.anchors, spec=spec.at("middle", "generated")))
    with pytest.raises(DemurError, match="middle"):
        middle.judge(trace)
    other = generate(small.causal("qwen"), [trace.prompt], length=8, steps=8)[0]
    with pytest.raises(DemurError, match="another spec"):
        guard.judge(other)


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = tiny_guard().save(tmp_path / "guard.safetensors")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DemurError, match=r"changed|broken"):
        g.Guard.load(path)
    with pytest.raises(DemurError, match="no file"):
        g.Guard.load(tmp_path / "none")


def test_harmful_prompts_refused_ones_and_double_ones_never_enter() -> None:
    guard, fit, other = tiny_guard(), tiny_traces(80), tiny_traces(40, offset=1000)
    with pytest.raises(g.InvalidData, match="harmless prompts only"):
        g.fit_guard(guard.anchors, tiny_traces(80, harmful=True), other)
    with pytest.raises(g.InvalidData, match="two sets"):
        g.fit_guard(guard.anchors, fit, fit[:40])
    sorry = replace(fit[0], pieces=dict.fromkeys(fit[0].pieces, b"I'm sorry, I can't "), special=frozenset())
    assert sorry.refused()
    made = g.fit_guard(guard.anchors, [*fit, sorry], other, detector=clone(guard.detector))
    assert made.refused == 1
    assert made.detector.n_fit_ == 80
    assert len(made.fitted) == 80
    assert g.digest(fit[0].prompt) in made.fitted
    with pytest.raises(g.InvalidData, match="0 to calibrate"):
        g.fit_guard(guard.anchors, fit, [sorry])
    with pytest.raises(DemurError, match="fitted on"):
        guard.measured("again", fit[:1])
    assert guard.measured("fresh", tiny_traces(20, offset=9000)).checked["fresh"].n == 20


def test_a_refusal_is_not_flagged() -> None:
    guard = tiny_guard()
    strange = np.full((1, 8), 0.0)
    strange[0, ::2] = 1.0
    (gone,) = guard.judge_signals(strange, [True])
    (here,) = guard.judge_signals(strange, [False])
    assert gone.score == here.score
    assert (gone.flagged, gone.step) == (False, None)
    assert (here.flagged, here.step) == (True, 8)


# -- law 5 and the guard at work ----------------------------------------------------------------------------


def record(model: Any, sampler: Any, asked: list[Prompt], plain: Any, passes: list[int] | None = None) -> list[Trace]:
    watched = watching(model, KEYS)  # type: ignore[arg-type]
    canvas = watched.canvas(asked, 8)
    recorder = Recorder(watched, canvas, asked, spec_of(watched, plain, 8, steps=8), KEYS)  # type: ignore[arg-type]
    for step, _ in recorder(sampler(watched, canvas, seeded(0, len(asked)))):
        if passes is not None:
            passes.append(step.passes)
    return recorder.traces()


ASKED = [Prompt(f"q{i}", f"Prompt {i} about {i * i}") for i in range(7000, 7012)]


def always(guard: g.Guard, step: int) -> g.Guard:
    """A guard that flags everything at ``step``: what comes before must be as without it."""
    scale = np.where(np.arange(8) + 1 >= step, 1e-3, 1e3)
    return replace(guard, prefix=replace(guard.prefix, centre=np.full(8, -20.0) * (scale < 1), scale=scale, limit=1.0))


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
        assert at == min(when, before.steps)
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
    stops = guard.prefix.stops(sigma) if online else np.where(guard.detector.predict(sigma) < 0, 8, 0)
    assert 0 < (stops > 0).sum() < len(ASKED), "the case should hold both fates"
    for i, trace in enumerate(together):
        verdict = g.acted(trace)
        assert bool(verdict.flagged) == bool(stops[i])
        if stops[i]:
            assert verdict.step == min(stops[i], plain[i].steps)
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
    guard = replace(guard, prefix=replace(guard.prefix, limit=float(np.median(z.max(axis=1)))))  # holds both fates
    seen = []
    for every in (3, 8, 100):
        watched = g.Watch(guard, every=every)(sampler)
        fates = [g.acted(trace) for trace in record(model, watched, ASKED, sampler)]
        for i, verdict in enumerate(fates):
            n = plain[i].steps
            looks = [t for t in range(1, 9) if t >= n or t % every == 0]  # from its end on, its signal is completed
            above = [t for t in looks if z[i, t - 1] > guard.prefix.limit]
            assert bool(verdict.flagged) == bool(above)
            assert not above or verdict.step == min(above[0], n)
            (alone,) = record(model, watched, [ASKED[i]], sampler)
            assert g.acted(alone) == verdict
        seen += [verdict.flagged for verdict in fates]
    assert {True, False} <= {*seen}
    with pytest.raises(DemurError, match="at least 1"):
        g.Watch(guard, every=0)


def test_a_word_of_the_refusal_that_the_model_commits_in_that_very_step_is_kept() -> None:
    """The model may write the same comma in the step that is overwritten; the trace must not lose it (law 6)."""
    import torch

    from demur.guards.online import _overwritten
    from demur.types import Step

    ids, opened = torch.tensor([[7, 5, 9]]), torch.tensor([[False, False, True]])
    wrote = torch.tensor([[False, True, False]])  # position 0 was committed before, position 1 by this step
    step = Step(0, ids, opened, wrote, ids, torch.zeros(1, 3), torch.tensor([True]), {})
    made = _overwritten(step, torch.tensor([[7, 5, 6]]), np.array([False]), np.array([True]))
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


@pytest.mark.parametrize("pool", ["generated", "producing"])
def test_the_stopping_criteria_see_the_signal_that_the_defense_sees(pool: str) -> None:
    """transformers' own generate with our criteria: the same sigma, and stops where the prefix scores say."""
    model = small.causal("llama")
    keys = [("last", pool)]
    traces = generate(model, ASKED, length=8, steps=8, pools=keys, batch=4)  # type: ignore[arg-type]
    fit = generate(model, [Prompt(str(i), f"x {i}", harmful=False) for i in range(90)], length=8, steps=8, pools=keys)  # type: ignore[arg-type]
    mean = np.stack([t.aligned("last", pool) for t in fit]).mean(axis=0)  # type: ignore[arg-type]
    noise = 0.5 * np.random.default_rng(0).normal(size=mean.shape).astype(np.float32)
    ones = np.ones(8, np.float32)
    anchors = Anchors(mean, mean + noise, ones, ones, fit[0].spec.at("last", pool), "observed", 1, 1, 1, 1)
    guard = g.fit_guard(anchors, fit[:50], fit[50:], detector=g.SRIGuard(alpha=0.4, epochs=10))
    sigma = np.stack([anchors.signal(trace) for trace in traces])
    stops = guard.prefix.stops(sigma)
    late = 1 if pool == "generated" else 0
    for i, prompt in enumerate(ASKED):
        canvas = model.canvas([prompt], 8)
        n = canvas.width - 8
        with g.stopping_criteria(guard, model) as criteria:
            out = model.net.generate(
                input_ids=canvas.ids[:, :n], attention_mask=torch.ones(1, n, dtype=torch.long), do_sample=False,
                max_new_tokens=8, pad_token_id=model.pad_id, stopping_criteria=[criteria],
            )  # fmt: skip
        (verdict,) = criteria.verdicts
        taken = out.shape[1] - n
        seen = min(taken - late, traces[i].steps)
        assert criteria.sigma[0, :seen] == pytest.approx(sigma[i, :seen], abs=1e-4)
        if stops[i] and stops[i] + late <= traces[i].steps:
            assert verdict.flagged
            assert verdict.step == stops[i]
            assert taken == stops[i] + late
        assert not model.net.get_decoder()._forward_hooks, "the hook is taken off"


def test_the_criteria_refuse_another_model() -> None:
    with pytest.raises(DemurError, match="another spec"):
        g.stopping_criteria(tiny_guard(), small.causal("qwen"))


# -- the organism -------------------------------------------------------------------------------------------


def test_a_guard_of_the_organism_from_the_first_prompt_to_the_refusal() -> None:
    import demur

    model = demur.load("organism/ar")
    sampler = Autoregressive()
    run: Any = {"length": 40, "steps": 32, "batch": 64}
    good = generate(model, world_prompts("anchors", forbidden=False, n=40), sampler, **run)
    bad = generate(model, world_prompts("anchors", forbidden=True, n=40), sampler, **run)
    anchors = fit_anchors(good, bad)
    fit = generate(model, world_prompts("guard", forbidden=False, n=120), sampler, **run)
    held = generate(model, world_prompts("calibration", forbidden=False, n=110), sampler, **run)
    guard = g.fit_guard(anchors, fit, held, alpha=0.05)
    fresh = generate(model, world_prompts("test", forbidden=False, n=100), sampler, **run)
    checked = guard.measured("plain", fresh).checked["plain"]
    assert checked.interval[0] <= 0.05, str(checked)
    assert isinstance(guard.spec, Spec)
