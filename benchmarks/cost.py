"""What guards cost inside living generations of a causal model, and a moderation model that reads the same answers.

    python benchmarks/cost.py MODEL [--rounds 12] [--no-moderation] [--out out/cost.json]

How it measures. Generations without a guard, under the default guard and under the paper's take turns, each of 32 steps
and with a look at every step. A clock is read whenever the sampler hands over a step and whenever it is asked for the
next one. So every step splits into the sampler's time and the time of whoever watches, and the guard's share is taken
of the very generation that it watches: never a difference of two runs. What iterating costs without a guard is taken
off. Both wall time and the thread's processor time are read; with others on the machine look at the latter.

The guard's own time is all of it: what it checks and sets up before the first step, the copy of the states that it
reads out of a pass (it stands inside the sampler, and is moved to the guard), pooling, sigma, the transfer, the rows
and the look. Not in it: the pass that feeds the very last token back, which ``generated`` pooling is defined by. That
is given by itself. Parts are timed in generations of their own, since every clock takes time too.

The guards never act: their anchors are noise around real states, and nothing reaches their limits. The moderation model
has the shape of Qwen3-0.6B and random weights, which do for time. It reads prompt and answer in one pass and gives one
token. It gets no policy to read, which makes it cheaper than a real one.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from measure import Ratio, Seconds, say

import demur
from demur.defenses import any_depth
from demur.guards import Autoencoder, Guard, Watch, fit_guard, online
from demur.samplers import Autoregressive, autoregressive, seeded, steps_of
from demur.signals import Anchors
from demur.signals.whitened import Whitened, fit_whitened
from demur.traces import Trace, generate, watching
from demur.types import DemurWarning, Prompt

T = 32
KEYS: Any = [("last", "generated")]
BATCHES = (1, 8)
GOALS = {1: 0.5, 8: 0.3}
"""By batch size: percent of a generation that the default guard may take, looking at every step."""
CHEAPER = 100
"""So many times cheaper than a moderation model the default guard should be."""
CLOCKS: tuple[Callable[[], float], ...] = (time.perf_counter, time.thread_time)
WALL, PROCESSOR = 0, 1


def now() -> np.ndarray:
    """Both clocks, in seconds: wall time, and this thread's processor time."""
    return np.array([clock() for clock in CLOCKS])


@dataclass
class Lived:
    """One generation, in seconds by both clocks: its sampler's steps, and the rest, step by step and at the ends.

    ``beside`` are stretches between two steps. ``capture`` is what the sampler took for states that a guard reads.
    """

    steps: list[np.ndarray] = field(default_factory=list)
    beside: list[np.ndarray] = field(default_factory=list)
    whole: np.ndarray = field(default_factory=lambda: np.zeros(2))
    capture: np.ndarray = field(default_factory=lambda: np.zeros(2))

    @property
    def generation(self) -> np.ndarray:
        """The sampler's own time."""
        return np.sum(self.steps, axis=0) - self.capture

    @property
    def own(self) -> np.ndarray:
        """The time of whoever watches."""
        return self.whole - self.generation

    @property
    def fed_back(self) -> np.ndarray:
        """The last step's time: of the pass that feeds the last token back, and nothing else."""
        return self.steps[-1]


def lived(watch: Callable[[Any], Any], model: Any, prompts: Sequence[Prompt], length: int = T) -> Lived:
    """A generation under ``watch``, the guard's or any-depth's, to its end."""
    found, sampler = Lived(), Autoregressive()
    canvas = model.canvas(prompts, length)

    def clocked(*run: Any) -> Iterator[Any]:
        """:func:`demur.samplers.steps_of`, with a clock at every border."""
        steps, left = steps_of(*run), None
        while True:
            begun = now()
            if left is not None:
                found.beside.append(begun - left)
            step = next(steps, None)
            left = now()
            if step is None:
                return
            found.steps.append(left - begun)
            yield step

    def copied(*states: Any) -> Any:
        begun = now()
        columns = real_columns(*states)
        found.capture += now() - begun
        return columns

    real_columns = autoregressive._columns
    with ExitStack() as open_:
        for owner in (online, any_depth):
            open_.enter_context(patch.object(owner, "steps_of", clocked))
        open_.enter_context(patch.object(autoregressive, "_columns", copied))
        begun = now()
        watched = watch(sampler)
        steps = clocked(sampler, model, canvas, seeded(0, canvas.rows)) if watched is sampler else None
        for _ in steps or watched(model, canvas, seeded(0, canvas.rows)):
            pass
        found.whole = now() - begun
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Parts


@contextmanager
def by_part() -> Iterator[dict[str, np.ndarray]]:
    """While open, seconds of the guard's parts are added up by name."""
    took: dict[str, np.ndarray] = {}

    def timed(name: str, call: Any) -> Any:
        took[name] = np.zeros(2)

        def within(*args: Any, **options: Any) -> Any:
            begun = now()
            value = call(*args, **options)
            took[name] += now() - begun
            return value

        return within

    with ExitStack() as open_:
        for owner, attribute, name in (
            (online.Pooler, "__call__", "pooling"),
            (online.Signal, "__call__", "sigma"),
            (Whitened, "__call__", "of sigma: the whitened reading"),
            (online._Sight, "of", "_sight"),
            (online.Row, "observe", "the rows' notes"),
            (online, "look", "the look"),
            (online.Guarded, "_check", "the check before the first step"),
        ):
            open_.enter_context(patch.object(owner, attribute, timed(name, getattr(owner, attribute))))
        yield took


def parts_of(guard: Guard, model: Any, prompts: Sequence[Prompt]) -> dict[str, np.ndarray]:
    """Seconds of the guard's parts in one generation; the last part is what no other one holds."""
    with by_part() as took:
        seen = lived(Watch(guard), model, prompts)
    sight = took.pop("_sight")
    took["states of rows, steps taken"] = sight - took["pooling"] - took["sigma"]
    took["copy of the states"] = seen.capture
    inner = [seconds for name, seconds in took.items() if not name.startswith("of ")]
    took["setting up, loops, clocks"] = seen.own - np.sum(inner, axis=0)
    return {name: seconds / seen.generation for name, seconds in took.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Guards


def guards_of(traces: Sequence[Trace]) -> dict[str, Guard]:
    """The default guard and the paper's. They never act, and cost what any guard costs on an answer that it passes."""
    phi = np.stack([trace.aligned(*KEYS[0]) for trace in traces])
    rng, n, steps = np.random.default_rng(0), len(traces), phi.shape[1]
    noise = (phi + phi.std() * rng.normal(size=phi.shape)).astype(np.float32)
    ones = np.ones(steps, np.float32)
    spec = traces[0].spec.at(*KEYS[0])
    papers = Anchors(phi.mean(axis=0), noise.mean(axis=0), ones, ones, spec, "observed", n, n, n, n)
    whitened = replace(papers, spec=replace(spec, signal="whitened"), whitened=fit_whitened(phi, noise))
    autoencoder = partial(Autoencoder.fit, epochs=2, min_samples=1)
    return {"default": _never(whitened, traces, None), "paper's": _never(papers, traces, autoencoder)}


def _never(anchors: Anchors, traces: Sequence[Trace], detector: Any) -> Guard:
    half = len(traces) // 2
    kind = {} if detector is None else {"detector": detector}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DemurWarning)  # a guard that tells nothing is what is wanted
        guard = fit_guard(anchors, traces[:half], traces[half:], threshold="quantile", **kind)
    never = replace(guard.threshold, value=np.inf)
    return replace(guard, threshold=never, prefix=replace(guard.prefix, threshold=never))


# ---------------------------------------------------------------------------------------------------------------------
# The moderation model


def moderation_model() -> Any:
    """The shape of Qwen3-0.6B, in fp32: 596 million parameters, at random."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=151_936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        net = Qwen3ForCausalLM(config)
    net = net.to_empty(device="cpu").eval()
    net.tie_weights()
    for numbers in (*net.parameters(), *net.buffers()):
        numbers.detach().uniform_(-0.03, 0.03)
    return net


@torch.no_grad()
def moderated(net: Any, ids: torch.Tensor, seen: torch.Tensor) -> np.ndarray:
    """Seconds of one pass over prompts and answers, padded on the left, and the token of the verdict."""
    begun = now()
    positions = (seen.long().cumsum(dim=1) - 1).clamp(min=0)
    out = net(input_ids=ids, attention_mask=seen.long(), position_ids=positions, use_cache=False, logits_to_keep=1)
    out.logits[:, -1].argmax(dim=-1).tolist()
    return now() - begun


# ---------------------------------------------------------------------------------------------------------------------
# All of it


def costs(
    name: str, rounds: int, batches: Sequence[int], moderation: bool
) -> Iterator[tuple[list[Seconds], list[Ratio]]]:
    """Every figure of one model, a batch size at a time."""
    model = demur.load(name, dtype="float32", device="cpu")
    prompts = [Prompt(str(i), prompt.text) for i, prompt in enumerate(demur.starter("harmless", 8))]
    traces = generate(model, prompts, Autoregressive(), batch=8, length=T, steps=T)
    guards = guards_of(traces)
    own = watching(model, KEYS)
    net = moderation_model() if moderation else None
    for batch in batches:
        of_batch = []
        for i in range(rounds if batch == 1 else max(1, rounds // 3)):
            say(f"batch {batch}, round {i + 1}")
            of_batch.append(_round(i, batch, own, prompts, traces, guards, net))
        seconds = [
            Seconds(f"{name}, batch {batch}", what, tuple(float(of[what][PROCESSOR]) for of in of_batch))
            for what in ("a step of the generation", "moderation, one look")
            if what in of_batch[0]
        ]
        yield seconds, _ratios(f"{name}, batch {batch}", batch, of_batch)


def _round(
    i: int,
    batch: int,
    model: Any,
    prompts: Sequence[Prompt],
    traces: Sequence[Trace],
    guards: Mapping[str, Guard],
    net: Any,
) -> dict[str, np.ndarray]:
    """Everything once, in rotating order; shares of the generation that stood beside it, by both clocks."""
    places = [(i + k) % len(prompts) for k in range(batch)]
    asked, answers = [prompts[k] for k in places], [traces[k] for k in places]
    bare = lived(lambda sampler: sampler, model, asked)
    plain = bare.generation
    found = {"a step of the generation": plain / len(bare.steps)}
    found["feeding the last token back"] = bare.fed_back / (plain - bare.fed_back)
    own: dict[str, np.ndarray] = {}
    for kind in list(guards) if i % 2 else reversed(list(guards)):
        guard = guards[kind]
        seen = lived(Watch(guard), model, asked)
        iterating = (bare.own - bare.capture) * len(seen.steps) / len(bare.steps)
        own[kind] = seen.own - iterating
        say(f"{kind} guard: {100 * own[kind] / seen.generation} percent (wall, processor), {own[kind]} seconds")
        found[f"{kind} guard, every step"] = own[kind] / seen.generation
        beside = np.median([b / s for b, s in zip(seen.beside[:-1], seen.steps[1:-1], strict=False)], axis=0)
        found[f"{kind} guard, a step between two others"] = beside
        begun = now()
        guard.judge_all(answers)
        judged = now() - begun
        found[f"{kind} guard, finished answers, without pooling"] = judged / plain
    for part, share in parts_of(guards["default"], model, asked).items():
        found[f"  {part}"] = share
    if net is not None:
        canvas = model.canvas(asked, T)
        ids, seen_ = canvas.ids % net.config.vocab_size, ~canvas.pad
        took = moderated(net, ids, seen_)
        say(f"moderation: {took} seconds, generation: {plain}")
        found["moderation, one look"] = took
        found["moderation, percent of the generation"] = took / plain
        found["moderation / default guard, every step"] = took / own["default"]
        read_once = found["  pooling"] + found["  copy of the states"]
        read_once = read_once + found["default guard, finished answers, without pooling"]
        found["moderation / default guard, finished answers, with pooling"] = took / (read_once * plain)
    return found


def _ratios(case: str, batch: int, rounds: Sequence[Mapping[str, np.ndarray]]) -> list[Ratio]:
    ratios = []
    for what in rounds[0]:
        if what in ("a step of the generation", "moderation, one look"):
            continue
        for clock, said in ((PROCESSOR, "processor"), (WALL, "wall")):
            times = what.startswith("moderation /")
            values = tuple(float(of[what][clock]) * (1 if times else 100) for of in rounds)
            target = CHEAPER if times else GOALS[batch] if what == "default guard, every step" else None
            unit = "times" if times else "percent"
            ratios.append(Ratio(f"{case}, {said}", f"{what}, {unit}", values, target, most=not times))
    return ratios


def main() -> int:
    import run

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a causal model: a name, or a path")
    parser.add_argument("--rounds", type=int, default=12, help="so many times everything; a third of it at batch 8")
    parser.add_argument("--batch", type=int, action="append", choices=BATCHES, help="only this batch size; repeatable")
    parser.add_argument("--no-moderation", action="store_true", help="without the moderation model (3 GB of memory)")
    parser.add_argument("--out", type=Path, default=Path("out/cost.json"), help="where the numbers go, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    seconds: list[Seconds] = []
    ratios: list[Ratio] = []
    batches = options.batch or BATCHES
    for took, shares in costs(options.model, options.rounds, batches, not options.no_moderation):
        seconds, ratios = seconds + took, ratios + shares
        machine = run._machine() | {"load_before": round(load, 2), "load_after": round(os.getloadavg()[0], 2)}
        run._write(
            options.out, machine, seconds, ratios
        )  # after every batch size: an interrupted run leaves what it saw
        print(run._tables(took, shares), flush=True)
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
