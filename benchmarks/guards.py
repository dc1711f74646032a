"""What a guard costs: scoring signals, and its own work beside a generation that it watches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from measure import Clock, Ratio, Seconds, in_turn, listed, timed

import demur
from demur.guards import SRIGuard, Watch, fit_guard
from demur.samplers import Autoregressive, seeded
from demur.signals import Anchors
from demur.trace import generate, watching
from demur.types import Prompt

T = 32
KEYS: Any = [("last", "generated")]


def scoring(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """One signal alone, and a thousand at once, in microseconds a signal."""
    rng = np.random.default_rng(0)
    guard = SRIGuard(epochs=20).fit(rng.random((600, T)))
    many = rng.random((1000, T))
    one, rounds = many[:1], 5 if quick else 25
    alone = [timed(clock, lambda: [guard.errors_of(one) for _ in range(100)])[0] * 1e4 for _ in range(rounds)]
    checked = [timed(clock, lambda: [guard.errors(one) for _ in range(100)])[0] * 1e4 for _ in range(rounds)]
    batch = [timed(clock, lambda: guard.errors(many))[0] * 1e3 for _ in range(rounds)]
    case = "guard, microseconds a signal"
    return [], [
        Ratio(case, "alone, as the online guard scores", tuple(alone), 200, most=True),
        Ratio(case, "alone, checked (scikit-learn)", tuple(checked), 200, most=True),
        Ratio(case, "in a batch of 1,000", tuple(batch), 20, most=True),
    ]


@dataclass(frozen=True)
class Again:
    """A sampler that gives recorded steps again: what is left is the cost of whoever watches it."""

    steps: Any

    def __call__(self, model: Any, canvas: Any, rngs: Any) -> Any:
        """The steps."""
        yield from self.steps


def watched(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """SmolLM2, 32 steps: the guard's own time, offline and at every step, over the time of the generation."""
    model = demur.load("smollm2", dtype="float32", device="cpu")
    prompts = [Prompt(str(i), p.text) for i, p in enumerate(demur.starter("harmless", 8))]
    sampler, seconds, ratios = Autoregressive(), [], []
    guard = _guard(model, sampler, prompts)
    own = watching(model, KEYS)
    for batch in (1, 8):
        canvas = own.canvas(prompts[:batch], T)
        spent, steps = timed(clock, lambda c=canvas: list(sampler(own, c, seeded(0, c.rows))))
        generation = [spent]
        generation += [
            timed(clock, lambda c=canvas: list(sampler(own, c, seeded(0, c.rows))))[0] for _ in range(1 if quick else 4)
        ]
        again = Again(steps)
        object.__setattr__(again, "undefended", sampler)
        traces = generate(model, prompts[:batch], sampler, batch=batch)

        def offline(traces: Any = traces) -> None:
            guard.judge_all(traces)

        took = in_turn(
            clock,
            {
                "steps alone": lambda c=canvas, a=again: list(a(own, c, None)),
                "steps, watched": lambda c=canvas, a=again: list(Watch(guard)(a)(own, c, None)),
                "steps, watched by twos": lambda c=canvas, a=again: list(Watch(guard, every=2)(a)(own, c, None)),
                "steps, watched by fours": lambda c=canvas, a=again: list(Watch(guard, every=4)(a)(own, c, None)),
                "signal and score, offline": offline,
            },
            5 if quick else 25,
        )
        case = f"guard on SmolLM2, batch {batch}"
        whole = float(np.median(generation))
        online, twos, fours = (
            [w - a for w, a in zip(took[name], took["steps alone"], strict=True)]
            for name in ("steps, watched", "steps, watched by twos", "steps, watched by fours")
        )
        seconds += listed(case, {"generation": generation, **took})
        shares = {
            "signal and score, offline": took["signal and score, offline"],
            "score alone, offline": _scores(guard, traces, clock),
            "at every step, online": online,
            "at every second step, online": twos,
            "at every fourth step, online": fours,
        }
        for name, spent in shares.items():
            limit = 0.1 if "online" in name else 0.01
            percent = tuple(100 * s / whole for s in spent)
            ratios.append(Ratio(case, f"{name}, percent of the generation", percent, limit, most=True))
    return seconds, ratios


def _scores(guard: Any, traces: Any, clock: Clock) -> list[float]:
    sigma = np.stack([guard.anchors.signal(trace) for trace in traces])
    return [timed(clock, lambda: guard.detector.errors_of(sigma))[0] for _ in range(25)]


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
    detector = SRIGuard(epochs=2, min_samples=1, threshold="quantile")
    guard = fit_guard(anchors, traces[:4], traces[4:], detector=detector)
    guard.detector.threshold_ = -np.inf
    return replace(guard, prefix=replace(guard.prefix, limit=np.inf))
