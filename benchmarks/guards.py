"""What a guard costs: scoring signals, and its own work beside a generation that it watches."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from cost import KEYS, PROCESSOR, WALL, T, lived
from measure import CLOCKS, Clock, Ratio, Seconds, listed, timed

import demur
from demur.guards import Autoencoder, SRIGuard, Watch, fit_guard
from demur.samplers import Autoregressive
from demur.signals import Anchors
from demur.traces import generate, watching
from demur.types import Prompt


def scoring(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """One signal alone, and a thousand at once, in microseconds a signal."""
    rng = np.random.default_rng(0)
    guard = SRIGuard(epochs=20).fit(rng.random((600, T)))
    many = rng.random((1000, T))
    one, rounds = many[:1], 5 if quick else 25
    alone = [timed(clock, lambda: [guard.detector_(one) for _ in range(100)])[0] * 1e4 for _ in range(rounds)]
    checked = [timed(clock, lambda: [guard.errors(one) for _ in range(100)])[0] * 1e4 for _ in range(rounds)]
    batch = [timed(clock, lambda: guard.errors(many))[0] * 1e3 for _ in range(rounds)]
    case = "guard, microseconds a signal"
    return [], [
        Ratio(case, "alone, as the online guard scores", tuple(alone), 200, most=True),
        Ratio(case, "alone, checked (scikit-learn)", tuple(checked), 200, most=True),
        Ratio(case, "in a batch of 1,000", tuple(batch), 20, most=True),
    ]


WATCHES = {"every step": 1, "every second step": 2, "every fourth step": 4, "every eighth step": 8}


def watched(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """SmolLM2, 32 steps: the guard's own time over the time of the very generation that it watches, or has just seen.

    Taken inside living generations: a pass streams all weights through the processor's caches, and the guard's few
    operations after it take some five times as long as the same ones in a loop. What iterating over a generation costs
    without a guard is taken off (cost.py, which measures the default guard).
    """
    model = demur.load("smollm2", dtype="float32", device="cpu")
    prompts = [Prompt(str(i), p.text) for i, p in enumerate(demur.starter("harmless", 8))]
    sampler, seconds, ratios = Autoregressive(), [], []
    guard = _guard(model, sampler, prompts)
    own = watching(model, KEYS)
    for batch, rounds in ((1, 5), (8, 3)):
        traces = generate(model, prompts[:batch], sampler, batch=batch)
        took: dict[str, list[float]] = {name: [] for name in ("generation", "offline", *WATCHES)}
        shares: dict[str, list[float]] = {name: [] for name in ("offline", *WATCHES)}
        for _ in range(1 if quick else rounds):

            def alive(watch: Any, asked: Any = prompts[:batch]) -> tuple[float, float]:
                seen = lived(watch, own, asked)
                which = WALL if clock is CLOCKS["wall"] else PROCESSOR
                return float(seen.generation[which]), float(seen.own[which])

            generation, unwatched = alive(lambda sampler: sampler)
            judging, _ = timed(clock, lambda traces=traces: guard.judge_all(traces))
            took["generation"].append(generation)
            took["offline"].append(judging)
            shares["offline"].append(judging / generation)
            for name, every in WATCHES.items():
                beside, spent = alive(Watch(guard, every=every))
                took[name].append(spent - unwatched)
                shares[name].append(spent / beside - unwatched / generation)
        case = f"guard on SmolLM2, batch {batch}"
        seconds += listed(case, took)
        for name, found in shares.items():
            limit, what = (0.01, name) if name == "offline" else (0.1, f"online, {name}")
            percent = tuple(100 * share for share in found)
            ratios.append(Ratio(case, f"{what}, percent of the generation", percent, limit, most=True))
    return seconds, ratios


def _guard(model: Any, sampler: Any, prompts: Any) -> Any:
    """A guard that never acts: anchors of noise, and limits that nothing reaches. It costs what any guard costs on an
    answer that it lets pass; one that it would flag is also read for a refusal of its own.
    """
    from dataclasses import replace

    traces = generate(model, prompts, sampler, batch=8)
    phi = np.stack([t.aligned(*KEYS[0]) for t in traces])
    rng = np.random.default_rng(0)
    noise = (phi.mean(axis=0) + rng.normal(size=phi.shape[1:])).astype(np.float32)
    ones = np.ones(T, np.float32)
    anchors = Anchors(phi.mean(axis=0), noise, ones, ones, traces[0].spec.at(*KEYS[0]), "observed", 8, 8, 8, 8)
    detector = partial(Autoencoder.fit, epochs=2, min_samples=1)
    guard = fit_guard(anchors, traces[:4], traces[4:], threshold="quantile", detector=detector)
    never = replace(guard.threshold, value=np.inf)
    return replace(guard, threshold=never, prefix=replace(guard.prefix, threshold=never))
