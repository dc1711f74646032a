"""The guard: scikit-learn's grammar, promises by simulation, bits, artefacts, and at work around real samplers."""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator

from demur import guards as g
from demur.dynamics.rates import Rate
from demur.guards.conformal import threshold_of
from demur.organism.world import prompts as world_prompts
from demur.samplers import Autoregressive, BlockDiffusion, JointThreshold, MaskedDiffusion, SeededBlocks, seeded
from demur.signals import Anchors, fit_anchors, scripted_refusals
from demur.signals.whitened import fit_whitened
from demur.traces import Trace, generate
from demur.types import DemurError, DemurWarning, Prompt, Spec

KEYS = [("last", "generated")]


RUN: Any = {"length": 40, "steps": 32, "batch": 64}


@cache
def organism() -> Any:
    import demur

    return demur.load("organism/ar")


@cache
def organism_guard() -> g.Guard:
    def run(split: Any, n: int, forbidden: bool = False) -> list[Trace]:
        return generate(organism(), world_prompts(split, forbidden=forbidden, n=n), Autoregressive(), **RUN)

    anchors = fit_anchors(run("anchors", 40), run("anchors", 40, True))
    return g.fit_guard(anchors, run("guard", 60), run("calibration", 60), alpha=0.05)


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


def test_scoring_needs_neither_torch_nor_scikit_learn() -> None:
    import subprocess
    import sys

    code = (
        "import sys, numpy as np\n"
        "from demur.guards import Autoencoder\n"
        "weights = [np.ones((32, 4), np.float32), np.ones((8, 32), np.float32),"
        " np.ones((32, 8), np.float32), np.ones((4, 32), np.float32)]\n"
        "biases = [np.zeros(n, np.float32) for n in (32, 8, 32, 4)]\n"
        "d = Autoencoder(tuple(weights), tuple(biases))\n"
        "print(d(np.ones((2, 4))) > 1, 'torch' in sys.modules, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[ True  True] False False", done.stderr


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
    prefix = g.fit_prefix(detector.detector_, fit, pool[:200], alpha=0.01)
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
    prefix = g.fit_prefix(detector.detector_, signals(600), signals(300, seed=3), alpha=0.05)
    x = signals(2000, seed=12)
    assert ((prefix.stops(x) > 0) == (prefix.scores(x).max(axis=1) > prefix.threshold.value)).all()
    whole = prefix.score(x)
    errors = detector.errors(x)
    order = np.argsort(errors)
    assert (np.diff(whole[order]) >= 0).all(), "at t = T the online score must order signals as the offline one"


def test_a_fit_takes_one_thread_and_leaves_the_number_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = importlib.import_module("demur.guards.autoencoder")
    descended, seen, before = module._descended, [], torch.get_num_threads()

    def spy(*given: Any) -> Any:
        seen.append(torch.get_num_threads())
        if len(seen) == 3:
            raise KeyboardInterrupt
        return descended(*given)

    monkeypatch.setattr(module, "_descended", spy)
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            g.SRIGuard(epochs=1).fit(signals(600))
            assert torch.get_num_threads() == threads
        with pytest.raises(KeyboardInterrupt):
            g.SRIGuard(epochs=1).fit(signals(600))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1, 1]


@pytest.mark.parametrize(
    ("fit", "calibrate", "says"),
    [
        ((30, 6), (20, 0), r"[1-6] of 36 prompts to fit on were refused"),
        ((32, 0), (3, 5), r"[1-5] of 8 prompts to calibrate on were refused"),
    ],
)
def test_too_few_answers_say_how_many_prompts_were_refused(
    fit: tuple[int, int], calibrate: tuple[int, int], says: str
) -> None:
    """(answered, refused) of each."""

    def run(split: str, answered: int, refused: int) -> list[Trace]:
        asked = [
            replace(prompt, harmful=False)
            for forbidden, n in ((False, answered), (True, refused))
            for prompt in (world_prompts(split, forbidden=forbidden, n=n) if n else [])
        ]
        return generate(organism(), asked, Autoregressive(), **RUN)

    anchors = fit_anchors(run("anchors", 8, 0), run("anchors", 0, 8))
    with pytest.raises(g.InvalidData, match=says):
        g.fit_guard(anchors, run("guard", *fit), run("calibration", *calibrate), alpha=0.1)


@pytest.mark.parametrize("seed", [-1, 2**32, 2.5, "3", True])
def test_a_seed_that_no_detector_takes_is_one_line(seed: Any) -> None:
    with pytest.raises(DemurError, match=r"seed=.*a whole number from 0"):
        g.fit_guard(organism_guard().anchors, [], [], seed=seed)


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
def tiny_answers(kind: str) -> tuple[list[Trace], list[Trace]]:
    """What guards of a tiny model are fitted on, and calibrated on."""
    model, sampler = subject(kind)
    return tiny_traces(80, sampler=sampler, model=model), tiny_traces(40, offset=1000, sampler=sampler, model=model)


@cache
def tiny_guard(kind: str = "ar", alpha: float = 0.2, signal: str = "sri", detector: str = "autoencoder") -> g.Guard:
    """A guard of a random tiny model; a made-up refusal anchor, since such a model refuses nothing."""
    fit, calibrate = tiny_answers(kind)
    phi = np.stack([trace.aligned("last", "generated") for trace in fit])
    push = 0.5 * np.random.default_rng(0).normal(size=phi.shape[1:]).astype(np.float32)
    away = phi[::2].mean(axis=0) + push
    ones = np.ones(8, np.float32)
    whitened = fit_whitened(phi[1::2], phi[::2] + push) if signal == "whitened" else None
    spec = fit[0].spec.at("last", "generated", "" if whitened is None else signal)
    anchors = Anchors(phi.mean(axis=0), away, ones, ones, spec, "observed", 80, 80, 80, 80, whitened=whitened)
    chosen: Any = partial(g.Autoencoder.fit, epochs=20) if detector == "autoencoder" else detector
    return g.fit_guard(anchors, fit, calibrate, alpha=alpha, detector=chosen)


def limited(guard: g.Guard, limit: float) -> g.Guard:
    """The same guard with another limit for unfinished signals."""
    threshold = replace(guard.prefix.threshold, value=limit)
    return replace(guard, prefix=replace(guard.prefix, threshold=threshold))


class Blind:
    """Anchors of a guard whose signal is nan from one step on, for some rows of a batch that is still whole."""

    def __init__(self, anchors: Anchors, rows: list[int], step: int, of: int) -> None:
        self.anchors, self.rows, self.step, self.of = anchors, rows, step, of

    def __getattr__(self, name: str) -> Any:
        return getattr(self.anchors, name)

    def at(self, phi: np.ndarray, t: int) -> np.ndarray:
        sigma = self.anchors.at(phi, t)
        if len(sigma) == self.of:
            sigma[self.rows, max(self.step - t, 0) :] = np.nan
        return sigma


def subject(kind: str) -> tuple[Any, Any]:
    if kind == "ar":
        return small.causal("llama"), Autoregressive()
    if kind == "blocks":
        return small.blocks("qwen3"), BlockDiffusion(steps=3, temperature=0.0)
    if kind == "editing":
        return small.blocks("qwen3"), JointThreshold(threshold=0.1, edit_threshold=0.05, max_post_steps=1)
    if kind == "seeded":
        return small.blocks("ministral3"), SeededBlocks()
    return small.diffusion("llada"), MaskedDiffusion(steps=8, suppress=(small.MASK,))


@pytest.mark.parametrize("kind", ["ar", "blocks", "editing", "masked"])
def test_early_looks_must_show_more_where_states_are_final_and_not_on_a_canvas(kind: str) -> None:
    guard, signals = (
        tiny_guard(kind, detector="mean"),
        [tiny_guard(kind).anchors.signals(t) for t in tiny_answers(kind)],
    )
    alike = g.fit_prefix(guard.detector, *signals, alpha=0.2, causal=kind == "ar")
    assert np.array_equal(guard.prefix.scale, alike.scale)
    assert guard.prefix.threshold == alike.threshold


def test_saving_what_was_loaded_gives_the_same_bytes_and_the_same_verdicts(tmp_path: Path) -> None:
    guard = tiny_guard()
    first = guard.save(tmp_path / "a.safetensors")
    again = g.Guard.load(first)
    assert again.save(tmp_path / "b.safetensors").read_bytes() == first.read_bytes()
    for trace in tiny_traces(10, offset=5000):
        assert again.judge(trace) == guard.judge(trace)
    assert again.prefix.threshold == guard.prefix.threshold
    assert again.promise == guard.promise
    assert "20.0%" in guard.promise


def test_another_model_layer_sampler_or_t_names_both_sides(tmp_path: Path) -> None:
    guard = tiny_guard()
    path = guard.save(tmp_path / "guard.safetensors")
    spec = guard.spec
    for change, named in (
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
    with pytest.raises(DemurError, match=r"a guard of another spec.*demur guard fit"):  # no anchors would help
        guard.judge(other)


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = tiny_guard().save(tmp_path / "guard.safetensors")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DemurError, match=r"changed|broken"):
        g.Guard.load(path)
    with pytest.raises(DemurError, match=r"no file .*demur guard fit MODEL"):
        g.Guard.load(tmp_path / "none")


def test_harmful_prompts_refused_ones_and_double_ones_never_enter() -> None:
    guard, fit, other = tiny_guard(), tiny_traces(80), tiny_traces(40, offset=1000)
    with pytest.raises(g.InvalidData, match="harmless prompts only"):
        g.fit_guard(guard.anchors, tiny_traces(80, harmful=True), other)
    with pytest.raises(g.InvalidData, match="two sets"):
        g.fit_guard(guard.anchors, fit, fit[:40])
    sorry = replace(fit[0], pieces=dict.fromkeys(fit[0].pieces, b"I'm sorry, I can't "), special=frozenset())
    assert sorry.refused()
    made = g.fit_guard(guard.anchors, [*fit, sorry], other, detector=partial(g.Autoencoder.fit, epochs=20), alpha=0.2)
    assert made.refused == 1
    assert made.n_fit == 80
    assert len(made.fitted) == 80
    assert g.digest(fit[0].prompt) in made.fitted
    with pytest.raises(g.InvalidData, match="0 to calibrate"):
        g.fit_guard(guard.anchors, fit, [sorry])
    with pytest.raises(DemurError, match="fitted on"):
        guard.measured("again", fit[:1])
    assert guard.measured("fresh", tiny_traces(20, offset=9000)).checked["fresh"].n == 20


@pytest.mark.parametrize("copies", [1, 39])
def test_several_answers_to_one_prompt_are_no_more_facts_than_one(copies: int) -> None:
    """Sixty answers to one request would promise what one answer can not."""
    guard, fit, other = tiny_guard(), tiny_traces(80), tiny_traces(40, offset=1000)

    def repeated(traces: list[Trace]) -> list[Trace]:
        renamed = [replace(traces[0], prompt=replace(traces[0].prompt, id=f"again-{i}")) for i in range(copies)]
        return [*traces[: 40 - copies], *renamed]

    twice = repeated(other)
    kind: Any = {"detector": "mean", "alpha": 0.2}
    with pytest.raises(g.InvalidData, match=f"40 answers to {40 - copies} prompts to calibrate on"):
        g.fit_guard(guard.anchors, fit, twice, **kind)
    with pytest.raises(g.InvalidData, match=f"40 answers to {40 - copies} prompts to measure on"):
        guard.measured("twice", repeated(tiny_traces(40, offset=9000)))
    with pytest.warns(DemurWarning, match=f"40 answers to {40 - copies} prompts to calibrate on: they count as"):
        made = g.fit_guard(guard.anchors, fit, twice, threshold="quantile", **kind)
    assert made.threshold.rule == "quantile", "which promises nothing"
    with pytest.warns(DemurWarning, match=f"40 answers to {40 - copies} prompts to fit on: they count as") as caught:
        g.fit_guard(guard.anchors, repeated(fit), other, **kind)
    assert [one.filename for one in caught] == [__file__]
    asked = [replace(trace, prompt=replace(trace.prompt, system=f"Speak as {i}.")) for i, trace in enumerate(other)]
    assert g.fit_guard(guard.anchors, fit, [*other, *asked], **kind).threshold.n == 80, "another system prompt: another"


def test_prompts_that_the_anchors_have_seen_never_enter(tmp_path: Path) -> None:
    """Their signals lean towards the anchors, and are not like a new prompt's."""
    fit, other, fresh = tiny_traces(40), tiny_traces(40, offset=1000), tiny_traces(10, offset=9000)
    anchors = fit_anchors(fresh, scripted_refusals(small.causal("llama"), [fresh[0].prompt, ASKED[0]], steps=8))
    assert anchors.prompts == tuple(sorted({*(g.digest(t.prompt) for t in fresh), g.digest(ASKED[0])}))
    settings: Any = {"alpha": 0.2, "detector": partial(g.Autoencoder.fit, epochs=2, min_samples=8)}
    for name, sets in (("fit on", ([*fit, *fresh[:3]], other)), ("calibrate on", (fit, [*other, *fresh[:3]]))):
        with pytest.raises(g.InvalidData, match=f"3 of 43 prompts to {name} .* that the anchors were fitted on") as e:
            g.fit_guard(anchors, *sets, **settings)
        small.one_line(e.value)
    guard = g.fit_guard(anchors, fit, other, **settings)
    again = g.Guard.load(guard.save(tmp_path / "guard.safetensors"))
    assert again.anchors.prompts == anchors.prompts
    assert again.save(tmp_path / "again.safetensors").read_bytes() == (tmp_path / "guard.safetensors").read_bytes()
    for made in (guard, again):
        with pytest.raises(DemurError, match="2 of 7 prompts to measure on are among those that the anchors"):
            made.measured("mixed", [*tiny_traces(5, offset=9500), *fresh[:2]])
    unknown = replace(anchors, prompts=())
    assert g.fit_guard(unknown, [*fit, *fresh], other, **settings).anchors.prompts == ()


def test_false_positives_are_rates_of_harmless_answers_offline_and_online(tmp_path: Path) -> None:
    guard, fresh = tiny_guard(alpha=0.4), tiny_traces(60, offset=9000)
    with pytest.raises(g.InvalidData, match="2 harmful prompts to measure on"):
        guard.measured("mixed", [*fresh, *tiny_traces(2, harmful=True, offset=9900)])
    (odd,) = tiny_traces(1, offset=9800)
    sorry = replace(odd, pieces=dict.fromkeys(odd.pieces, b"I'm sorry, I can't "), special=frozenset())
    assert sorry.refused()
    made = guard.measured("plain", [*fresh, sorry])
    sigma = np.stack([guard.anchors.signal(trace) for trace in fresh])
    assert made.checked["plain"] == Rate.of([bool(guard.judge(trace).flagged) for trace in fresh])
    steps = np.array([trace.steps for trace in fresh])
    assert made.checked_online["plain"] == Rate.of(guard.prefix.stops(sigma, steps) > 0)
    early = guard.prefix.stops(sigma, np.ones(60, dtype=int))
    assert set(early.tolist()) <= {0, 1}, "what is held behind the only step stops nothing"
    assert (guard.prefix.stops(sigma)[early == 1] == 1).all()
    assert made.checked["plain"] != made.checked_online["plain"], "the case should tell them apart"
    assert made.checked_online["plain"].n == 60
    blind = replace(odd, phi={("last", "generated"): np.full_like(odd.phi["last", "generated"], np.nan)})
    more = made.measured("blind", [*fresh, blind])
    assert (more.checked["blind"].n, more.checked_online["blind"].n) == (60, 61)
    assert more.checked_online["blind"].k == made.checked_online["plain"].k + 1
    assert guard.measured("none", [sorry]).checked["none"].n == 0
    again = g.Guard.load(more.save(tmp_path / "guard.safetensors"))
    assert (again.checked, again.checked_online) == (more.checked, more.checked_online)
    older = g.Guard.load(replace(more, checked_online={}).save(tmp_path / "older.safetensors"))
    assert (older.checked, older.checked_online) == (more.checked, {})
    assert b"checked_online" not in (tmp_path / "older.safetensors").read_bytes()


def test_what_is_no_detector_is_an_error() -> None:
    guard, fit, other = tiny_guard(), tiny_traces(40), tiny_traces(40, offset=1000)

    class Nosy(g.Mean):
        """One whose rows look at each other."""

        def __call__(self, sigma: np.ndarray) -> np.ndarray:
            return super().__call__(sigma) - sigma.mean()

    class Broken(g.Mean):
        def __call__(self, sigma: np.ndarray) -> np.ndarray:
            return np.full(len(sigma), np.inf)

    class Wide(g.Mean):
        def __call__(self, sigma: np.ndarray) -> np.ndarray:
            return sigma

    for detector, named in (
        (g.SRIGuard(alpha=0.2), "settings of fit_guard itself"),
        ("nothing", "isolation-forest"),
        ("demur.nowhere:Nothing", "No module named"),
        ("demur.types:Prompt", "no detector"),
        (3, "a int as detector"),
        (Nosy, "otherwise in a batch"),
        (Broken, "not finite"),
        (Wide, "one number a row"),
    ):
        with pytest.raises(DemurError, match=named) as error:
            g.fit_guard(guard.anchors, fit, other, detector=detector, alpha=0.2)  # type: ignore[arg-type]
        small.one_line(error.value)


def test_a_refusal_is_not_flagged() -> None:
    guard = tiny_guard()
    strange = np.full((1, 8), 0.0)
    strange[0, ::2] = 1.0
    (gone,) = guard.judge_signals(strange, [True])
    (here,) = guard.judge_signals(strange, [False])
    assert gone.score == here.score
    assert (gone.flagged, gone.step) == (False, None)
    assert (here.flagged, here.step) == (True, 8)


ASKED = [Prompt(f"q{i}", f"Prompt {i} about {i * i}") for i in range(7000, 7012)]


# -- the organism -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_guard_of_the_organism_from_the_first_prompt_to_the_refusal() -> None:
    guard = organism_guard()
    fresh = generate(organism(), world_prompts("test", forbidden=False, n=60), Autoregressive(), **RUN)
    measured = guard.measured("plain", fresh)
    for rate in (measured.checked["plain"], measured.checked_online["plain"]):
        assert rate.interval[0] <= 0.05, str(rate)
    assert isinstance(guard.spec, Spec)


# -- what is known before anything is generated ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "sampler"),
    [
        *[("causal", name) for name in small.ar_samplers()],
        *[(kind, name) for kind in ("llada", "dream") for name in small.diffusion_samplers()],
        ("block", "block"),
    ],
)
def test_the_state_of_the_last_given_token_is_that_of_a_pass_of_its_own(
    model: str, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from demur.ablation.recording import Noting, last_given
    from demur.samplers import BlockDiffusion

    made: Any = {"causal": lambda: small.causal("llama"), "block": lambda: small.block("start")}
    own = made[model]() if model in made else small.diffusion(model)
    every: Any = small.ar_samplers() if model == "causal" else small.diffusion_samplers() | {"block": BlockDiffusion()}
    noting = Noting(every[sampler])
    rows = [[65, 66, 67, 68, 69, 70], [71, 72, 73]]
    canvas = own.canvas_of(rows, 8)
    watched = own.watching("last")
    if model != "block":  # whose first pass shows the first block alone

        def more(*_: Any) -> Any:
            raise AssertionError("a pass of its own")

        monkeypatch.setattr("demur.ablation.recording.last_given", more)
    steps = [step.ids for step in noting(watched, canvas, seeded(0, 2))]
    assert steps
    (noted,) = noting.states
    np.testing.assert_allclose(noted, last_given(own, canvas), atol=1e-5)
    assert not np.allclose(noted[0], noted[1])


@pytest.mark.parametrize(
    "wrong",
    [lambda s: s * 100, lambda s: s - 2, lambda s: s > 0.5, lambda s: s[0], lambda s: s[None], lambda s: [["a"]] * 9,
     lambda s: np.where(s > 0.5, np.inf, s), lambda s: None],
    ids=["percent", "below 0", "marks", "one signal", "three dimensions", "texts", "infinite", "nothing"],
)  # fmt: skip
def test_what_is_no_signal_is_not_scored(wrong: Any) -> None:
    """nan stands for what nobody knows, and has a score of nan."""
    guard = g.Guard.load(Path(__file__).parent / "older" / "guard-0.1.0.safetensors")
    sigma = np.random.default_rng(0).uniform(0.3, 0.9, (40, guard.spec.steps))
    for call in (
        guard.scores,
        lambda s: guard.judge_signals(s, [False] * 40),
        guard.prefix.scores,
        guard.prefix.stops,
        lambda s: g.fit_prefix(guard.detector, s, sigma, alpha=0.1),
        lambda s: g.fit_prefix(guard.detector, sigma, s, alpha=0.1),
    ):
        call(sigma)
        with pytest.raises(DemurError):
            call(wrong(sigma))
    holes = np.where(np.arange(40)[:, None] == 3, np.nan, sigma)
    assert np.isnan(guard.scores(holes)[3])
    assert np.isfinite(np.delete(guard.scores(holes), 3)).all()


@pytest.mark.parametrize("rule", ["conformal", "quantile"])
@pytest.mark.parametrize("alpha", ["x", "0.1", None, True, [0.1], 0, 1, float("nan")], ids=repr)
def test_an_alpha_that_is_no_share_is_one_line_whoever_takes_it(alpha: Any, rule: Any) -> None:
    guard, fit, other = tiny_guard(), tiny_traces(80), tiny_traces(40, offset=1000)
    sigma = np.random.default_rng(0).uniform(0.3, 0.9, (40, 8))
    for call in (
        lambda: threshold_of(sigma[:, 0], alpha, rule),
        lambda: g.fit_prefix(guard.detector, sigma, sigma, alpha=alpha, rule=rule),
        lambda: g.Threshold(0.5, alpha, rule, 40),
        lambda: g.SRIGuard(alpha=alpha, threshold=rule, detector="mean").fit(sigma),
        lambda: g.fit_guard(guard.anchors, fit, other, alpha=alpha, threshold=rule, detector="mean"),
        lambda: g.fit_guard(guard.anchors, fit, other, alpha=alpha, threshold=rule, detector="mean", upto=64),
    ):
        with pytest.raises(g.InvalidData, match="above 0 and below 1") as error:
            call()
        small.one_line(error.value)


@pytest.mark.parametrize("rule", ["best", None, 3, ["conformal"]], ids=repr)
def test_a_rule_that_is_none_is_one_line_whoever_takes_it(rule: Any) -> None:
    guard, fit, other = tiny_guard(), tiny_traces(80), tiny_traces(40, offset=1000)
    sigma = np.random.default_rng(0).uniform(0.3, 0.9, (40, 8))
    for call in (
        lambda: threshold_of(sigma[:, 0], 0.1, rule),
        lambda: g.fit_prefix(guard.detector, sigma, sigma, alpha=0.1, rule=rule),
        lambda: g.Threshold(0.5, 0.1, rule, 40),
        lambda: g.fit_guard(guard.anchors, fit, other, alpha=0.1, threshold=rule, detector="mean", upto=64),
    ):
        with pytest.raises(g.InvalidData, match="conformal or quantile") as error:
            call()
        small.one_line(error.value)


@pytest.mark.parametrize("detector", [g.Autoencoder, g.IsolationForest, g.Mahalanobis])
@pytest.mark.parametrize("wrong", [lambda s: s[0], lambda s: s.tolist(), lambda s: np.where(s > 0.8, np.nan, s)])
def test_a_detector_is_fitted_on_finite_signals_alone(detector: Any, wrong: Any) -> None:
    sigma = np.random.default_rng(0).uniform(0.3, 0.9, (40, 8))
    with pytest.raises(g.InvalidData):
        detector.fit(wrong(sigma))
