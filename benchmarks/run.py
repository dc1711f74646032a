"""Side by side in one run: `demur bench` on the small models, the plain way, demur with and without capture, and more.

    python benchmarks/run.py [--quick] [--check] [--threads 1] [--clock wall] [--out out/bench.json]

How it measures. Everything runs in one process on the same weights, and every timed run is checked: the same tokens,
and phi within 1e-4 of the plain way's. Variants take turns (A B C, then C B A), and a ratio is always taken of two runs
that stood beside each other; its median, quartiles, minimum and maximum are given. Capture costs a few per cent, which
is less than a shared machine's noise. So the turns are shorter there: generations with and without capture advance in
lockstep, one step each, in rotating order, and are compared step by step as well as as wholes.

"Capture" is everything a user gets: pooled states, the record of every step and, in the end, the traces.

One thread is the default: with more, OpenMP's barriers wait for whatever else the machine is doing. Threads help the
plain way more than ours (it computes long passes, ours waits for memory), so look at ``--threads 2`` too.
``--clock cpu`` counts processor time instead of wall time: the number to look at on a machine that is never quiet.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import experiments
import families
import guards
import naive
import numpy as np
import recording
import torch
import waits
from measure import (
    CLOCKS,
    Clock,
    Ratio,
    Seconds,
    Steps,
    finished,
    in_lockstep,
    in_turn,
    listed,
    overhead,
    pairwise,
    same,
    same_tokens,
    say,
    timed,
)

import demur
from demur.bench import bench
from demur.models import Bidirectional
from demur.models.network import Identity
from demur.samplers import Autoregressive, MaskedDiffusion, seeded
from demur.traces import Recorder, Trace, spec_of, watching
from demur.types import Canvas, Prompt

THEIRS = "transformers generate"
TARGETS = {1: (3.5, 1.01), 8: (15.0, 1.01)}
"""By batch size: how many times faster than the plain way, at least, and what capture may cost, at most."""


def main() -> int:
    options = _options()
    torch.set_num_threads(options.threads)
    begun, load = time.perf_counter(), os.getloadavg()[0]
    seconds: list[Seconds] = []
    ratios: list[Ratio] = []
    parts = {part.__name__: part for part in PARTS}
    for name in options.only or parts:
        say(f"{name} ...")
        took, compared = parts[name](options.quick, CLOCKS[options.clock])
        seconds, ratios = seconds + took, ratios + compared
        machine = _machine() | {"load_before": round(load, 2), "load_after": round(os.getloadavg()[0], 2)}
        machine |= {"quick": options.quick, "clock": options.clock}
        machine |= {"parts": " ".join(parts), "total_seconds": round(time.perf_counter() - begun, 1)}
        _write(options.out, machine, seconds, ratios)  # after every part, so that an interrupted run leaves what it saw
        print(_tables(took, compared), flush=True)
    print(_report(machine, seconds, ratios))
    missed = [ratio for ratio in ratios if ratio.met is False]
    return 1 if options.check and missed else 0


# ---------------------------------------------------------------------------------------------------------------------
# What `demur bench` measures, on the small models


def small_models(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """The organism's two models and SmolLM2, as ``demur bench`` measures them on anybody's machine."""
    kind = "wall" if clock is CLOCKS["wall"] else "processor"
    seconds: list[Seconds] = []
    ratios: list[Ratio] = []
    for name in ("organism/ar", "organism/diffusion", "smollm2"):
        try:
            model = demur.load(name, dtype="float32", device="cpu")
        except demur.DemurError as error:
            print(f"{name} skipped: {error}")
            continue
        lengths = (32,) if quick or name != "smollm2" else (32, 256)
        found = bench(model, batches=(1, 8), lengths=lengths, rounds=2 if quick else 5, told=say)
        for case in found.cases:
            called = f"{name}, batch {case.batch}, {case.taken} tokens"
            took = {variant: [getattr(run, kind) for run in runs] for variant, runs in case.seconds.items()}
            seconds += listed(called, took)
            ratios += [Ratio(called, one.what, getattr(one, kind), one.most, most=True) for one in case.ratios]
            for note in case.notes:
                print(f"! {called}: {note}")
    return seconds, ratios


# ---------------------------------------------------------------------------------------------------------------------
# The signal alone


def signal_alone(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """64 traces of 32 steps of 576 numbers against two anchors."""
    rng = np.random.default_rng(0)
    phi = (1 + rng.standard_normal((64, 32, 576))).astype(np.float32)
    harmless, harmful = ((1 + rng.standard_normal((32, 576))).astype(np.float32) for _ in range(2))
    vectors, near, away = list(torch.from_numpy(phi)), torch.from_numpy(harmless), torch.from_numpy(harmful)
    plain = np.array(naive.signal(vectors, near, away))
    same("sigma", demur.refusal_signal(phi, harmless, harmful), plain)
    took = in_turn(
        clock,
        {
            "naive": lambda: naive.signal(vectors, near, away),
            "demur": lambda: demur.refusal_signal(phi, harmless, harmful),
        },
        rounds=5 if quick else 15,
    )
    case = "signal, 64 x 32 x 576"
    ratio = Ratio(case, "naive / demur", pairwise(took["naive"], took["demur"]), target=50)
    return listed(case, took), [ratio]


# ---------------------------------------------------------------------------------------------------------------------
# Masked diffusion


def masked_diffusion(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """A small random LLaDA-like model: what is measured is everything around the network, and the head's width."""
    case, steps, length, prompt = "diffusion, random model", 32, 128, list(range(10, 42))
    model = _random_llada()
    pools = [("last", "generated")]
    sampler = MaskedDiffusion(steps=steps, suppress=(model.mask_id,))
    canvas = model.canvas_of([prompt], length)
    asked = [Prompt(id="0", text="-")]
    spec = spec_of(model, sampler, length, steps=steps)

    def plain() -> naive.Answer:
        return naive.masked_diffusion(model.net, prompt, length, steps, model.mask_id)

    def ours() -> Steps:
        return captured(model, sampler, canvas, asked, spec, pools)

    def without() -> Steps:
        return bare(model, sampler, canvas)

    expected, got = plain(), finished(ours())[0]
    same_tokens(case, got.tokens(), expected.tokens)
    same(case, got.phi["last", "generated"], expected.phi.numpy())
    finished(without())
    rounds = 3 if quick else 5
    whole: dict[str, list[float]] = {"naive": [], "demur, capture": [], "demur, no capture": []}
    steps_of: list[dict[str, list[float]]] = []
    for _ in range(rounds):
        whole["naive"].append(timed(clock, plain)[0])
        took, given = in_lockstep(clock, {"demur, capture": ours, "demur, no capture": without})
        same_tokens(case, given["demur, capture"][0].tokens(), expected.tokens)
        same_tokens(case, given["demur, no capture"][0, len(prompt) :], expected.tokens)
        steps_of.append(took)
        for name, parts in took.items():
            whole[name].append(sum(parts))
    ratios = [
        Ratio(case, "naive / demur, capture", pairwise(whole["naive"], whole["demur, capture"])),
        Ratio(case, "naive / demur, no capture", pairwise(whole["naive"], whole["demur, no capture"])),
        *overhead(case, "capture", steps_of, "demur, capture", "demur, no capture", whole_limit=1.02),
    ]
    return listed(case, whole), ratios


def _random_llada() -> Bidirectional:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.2,  # wide enough for guesses that no rounding changes
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return Bidirectional(
        net=LlamaForCausalLM(config).eval(), tokenizer=None, identity=Identity(model="random"), mask_id=31_999
    )


# ---------------------------------------------------------------------------------------------------------------------
# Autoregressive


@dataclass(frozen=True, eq=False)
class Asked:
    """Some prompts as every variant takes them: token rows without padding, and the canvas."""

    prompts: tuple[Prompt, ...]
    rows: tuple[tuple[int, ...], ...]
    canvas: Canvas

    @classmethod
    def of(cls, model: Any, prompts: Sequence[Prompt], length: int) -> Asked:
        canvas = model.canvas(prompts, length)
        kept = ~(canvas.pad | canvas.open)
        rows = tuple(tuple(ids[k].tolist()) for ids, k in zip(canvas.ids, kept, strict=True))
        return cls(tuple(prompts), rows, canvas)


def autoregressive(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """SmolLM2 135M in fp32, greedy, at batch 1, 4, 8 and 16. A plain run of one prompt serves them all."""
    try:
        model = demur.load("smollm2", dtype="float32", device="cpu")
    except demur.DemurError as error:
        print(f"autoregressive cases skipped: {error}")
        return [], []
    # Eight rounds, one for each prompt, and larger batches after some of them; a quick run has half the steps.
    steps, rounds = (16, (0, 5)) if quick else (32, tuple(range(8)))
    batched = {8: (0,)} if quick else {4: (1, 5), 8: (0, 3, 6), 16: (2, 7)}
    sampler = Autoregressive()
    prompts = demur.starter("harmless", max(batched))
    together = {size: Asked.of(model, prompts[:size], steps) for size in batched}
    alone = [Asked.of(model, [prompt], steps) for prompt in prompts[:8]]
    _warm_up(model, sampler, prompts[:8])
    runs: dict[int, dict[str, list[float]]] = {size: {} for size in (1, *batched)}
    steps_of: dict[int, list[dict[str, list[float]]]] = {size: [] for size in runs}
    batch_tokens: dict[int, torch.Tensor] = {}
    answers: dict[int, naive.Answer] = {}
    checked: list[tuple[str, int, str, Trace]] = []

    def ours(size: int, asked: Asked) -> torch.Tensor:
        """One round of everything but the plain way; the tokens, on which all of them agree."""
        case, backwards = f"AR, batch {size}", len(steps_of[size]) % 2 == 1
        if backwards:
            spent, tokens = timed(clock, lambda: transformers_generate(model, asked, steps))
        took, given = in_lockstep(clock, _variants(model, sampler, asked, steps))
        if not backwards:
            spent, tokens = timed(clock, lambda: transformers_generate(model, asked, steps))
        for name, parts in took.items():
            runs[size].setdefault(name, []).append(sum(parts))
        runs[size].setdefault(THEIRS, []).append(spent)
        steps_of[size].append(took)
        same_tokens(case, given["demur, no capture"][:, -steps:], tokens)
        for pool in ("producing", "generated"):
            for row, trace in enumerate(given[f"demur, capture {pool}"]):
                same_tokens(case, trace.tokens(), tokens[row][: trace.steps])
                checked.append((case, prompts.index(asked.prompts[row]), pool, trace))
        return tokens

    for done, i in enumerate(rounds):
        say(f"autoregressive, round {done + 1} of {len(rounds)}")
        spent, answers[i] = timed(
            clock, lambda i=i: naive.autoregressive(model.net, alone[i].rows[0], steps, model.stop_ids)
        )
        if len(answers[i].tokens) < steps:
            raise SystemExit(f"prompt {prompts[i].id} ends before {steps} steps: the variants would not do equal work")
        runs[1].setdefault("naive", []).append(spent)
        same_tokens("AR, batch 1", ours(1, alone[i])[0], answers[i].tokens)
        for size, when in batched.items():
            if done in when:
                batch_tokens[size] = ours(size, together[size])
    for i, answer in answers.items():
        for size, tokens in batch_tokens.items():
            if i < size:
                same_tokens(f"AR, batch {size}", tokens[i], answer.tokens)
    for case, i, pool, trace in checked:
        if i in answers:
            _check_phi(f"{case}, {pool}", trace.phi["last", pool], answers[i], pool)

    seconds: list[Seconds] = []
    ratios: list[Ratio] = []
    for size, of in runs.items():
        # The plain way has no batches: a batch costs it `size` times a prompt, beside the nearest one.
        when = rounds if size == 1 else batched[size]
        of["naive"] = [size * spent for spent in runs[1]["naive"]] if size > 1 else of["naive"]
        nearest = [min(range(len(when)), key=lambda b, r=r, w=when: abs(w[b] - r)) for r in range(len(rounds))]
        case, (least, capture_target) = f"AR, batch {size}", TARGETS.get(size, (None, None))
        for name in (name for name in of if name != "naive"):
            pairs = tuple(of["naive"][r] / of[name][b] for r, b in enumerate(nearest))
            ratios.append(Ratio(case, f"naive / {name}", pairs, least if "capture " in name else None))
        ours_only = [name for name in of if name not in ("naive", THEIRS)]
        ratios += [Ratio(case, f"{name} / {THEIRS}", pairwise(of[name], of[THEIRS])) for name in ours_only]
        for pool in ("producing", "generated"):
            name, without = f"demur, capture {pool}", "demur, no capture"
            ratios += overhead(case, f"capture {pool}", steps_of[size], name, without, whole_limit=capture_target)
        seconds += listed(case, dict(sorted(of.items())))
    return seconds, ratios


def _variants(model: Any, sampler: Any, asked: Asked, steps: int) -> dict[str, Callable[[], Steps]]:
    spec = spec_of(model, sampler, steps, steps=steps)

    def capture(pool: str) -> Callable[[], Steps]:
        return lambda: captured(model, sampler, asked.canvas, asked.prompts, spec, [("last", pool)])

    return {
        "demur, no capture": lambda: bare(model, sampler, asked.canvas),
        "demur, capture producing": capture("producing"),
        "demur, capture generated": capture("generated"),
    }


def _warm_up(model: Any, sampler: Any, prompts: Sequence[Prompt]) -> None:
    """Every variant on two tokens of every prompt; checked, so that a difference shows before anything is timed."""
    short = 2
    for group in (prompts[:1], prompts):
        asked = Asked.of(model, group, short)
        tokens = transformers_generate(model, asked, short)
        _, given = in_lockstep(time.perf_counter, _variants(model, sampler, asked, short))
        same_tokens("warm-up", given["demur, no capture"][:, -short:], tokens)
        for row, ids in enumerate(asked.rows):
            answer = naive.autoregressive(model.net, ids, short, model.stop_ids)
            same_tokens("warm-up", tokens[row], answer.tokens)
            for pool in ("producing", "generated"):
                trace = given[f"demur, capture {pool}"][row]
                _check_phi("warm-up", trace.phi["last", pool], answer, pool)


def _check_phi(case: str, phi: np.ndarray, answer: naive.Answer, pool: str) -> None:
    """``generated`` is compared up to the last step but one: the plain way does not feed the last token back."""
    if pool == "producing":
        same(case, phi, answer.phi.numpy())
    else:
        own = answer.own.numpy()
        same(case, phi[: len(own)], own.cumsum(axis=0) / np.arange(1, len(own) + 1)[:, None])


@torch.no_grad()
def transformers_generate(model: Any, asked: Asked, steps: int) -> torch.Tensor:
    """Greedy, with its key-value cache, on the same left-padded rows; the new tokens."""
    width = asked.canvas.width - steps
    ids = asked.canvas.ids[:, :width]
    seen = (~asked.canvas.pad[:, :width]).long()
    out = model.net.generate(
        input_ids=ids, attention_mask=seen, do_sample=False, max_new_tokens=steps, pad_token_id=model.pad_id
    )
    return out[:, width:]


# ---------------------------------------------------------------------------------------------------------------------
# Our generations, as iterators


def bare(model: Any, sampler: Any, canvas: Canvas) -> Steps:
    """Step by step without capture; nothing is kept. Returns the final token rows."""
    ids = canvas.ids
    for step in sampler(model.watching(), canvas, seeded(0, canvas.rows)):
        ids = step.ids
        yield
    return ids


def captured(
    model: Any, sampler: Any, canvas: Canvas, prompts: Sequence[Prompt], spec: Any, pools: Sequence[tuple[str, str]]
) -> Steps:
    """The same with everything a user gets: states pooled and steps recorded as they come. Returns the traces."""
    watched = watching(model, pools)
    recorder = Recorder(watched, canvas, prompts, spec, pools)
    for _ in recorder(sampler(watched, canvas, seeded(0, canvas.rows))):
        yield
    return recorder.traces()


# ---------------------------------------------------------------------------------------------------------------------
# Reporting


def _spread(values: Sequence[float], digits: int) -> tuple[str, ...]:
    """Median, quartiles, extremes."""
    low, q1, mid, q3, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    return f"{mid:.{digits}f}", f"{q1:.{digits}f} - {q3:.{digits}f}", f"{low:.{digits}f} - {high:.{digits}f}"


def _report(machine: Mapping[str, Any], seconds: Sequence[Seconds], ratios: Sequence[Ratio]) -> str:
    about = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items())
    missed = [f"{ratio.case}: {ratio.what} {ratio.median:.3f}" for ratio in ratios if ratio.met is False]
    judged = sum(ratio.target is not None for ratio in ratios)
    lines = ["", about, "", f"{judged - len(missed)} of {judged} targets met", *missed, ""]
    lines += [
        "Ratios above 1: the first takes longer. `a step` leaves out each generation's last step, where a model that",
        "captures may feed the last token back (`generated` needs this pass) and where the traces are put together.",
        "The plain way has no batches: n prompts cost it n times one prompt, measured on eight prompts.",
    ]
    return "\n".join(lines)


def _tables(seconds: Sequence[Seconds], ratios: Sequence[Ratio]) -> str:
    lines = [
        "",
        "| case | variant | seconds (median) | quartiles | extremes | runs |",
        "| --- | --- | --: | --: | --: | --: |",
    ]
    for found in seconds:
        row = (found.case, found.variant, *_spread(found.runs, 4 if max(found.runs) < 1 else 2), str(len(found.runs)))
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", "| case | ratio | median | quartiles | extremes | pairs | target |"]
    lines.append("| --- | --- | --: | --: | --: | --: | --- |")
    for ratio in ratios:
        wanted = ""
        if ratio.target is not None:
            wanted = f"{'at most' if ratio.most else 'at least'} {ratio.target:g}: {'met' if ratio.met else 'MISSED'}"
        digits = 2 if ratio.median >= 2 else 3
        row = (ratio.case, ratio.what, *_spread(ratio.pairs, digits), str(len(ratio.pairs)), wanted)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _machine() -> dict[str, Any]:
    cpu = platform.processor() or "unknown"
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = models[0] if models else cpu
    versions = {name: metadata.version(name) for name in ("demur", "torch", "transformers", "numpy")}
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    } | versions


def _write(path: Path, machine: Mapping[str, Any], seconds: Sequence[Seconds], ratios: Sequence[Ratio]) -> None:
    """Whole or not at all: a temporary file, renamed."""
    found = {
        "machine": dict(machine),
        "seconds": [asdict(found) | {"median": median(found.runs)} for found in seconds],
        "ratios": [asdict(ratio) | {"median": ratio.median, "met": ratio.met} for ratio in ratios],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".bench-", suffix=".json", delete=False) as file:
        json.dump(found, file, indent=1)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
    say(f"wrote {path}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half the steps and fewer rounds: under a minute")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default: 1)")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="wall time or processor time")
    parser.add_argument("--out", type=Path, default=Path("out/bench.json"), help="where the numbers go, as JSON")
    parser.add_argument(
        "--only", action="append", choices=[part.__name__ for part in PARTS], help="one part; repeatable"
    )
    return parser.parse_args()


PARTS = (
    small_models,
    signal_alone,
    masked_diffusion,
    autoregressive,
    families.large_vocabulary,
    families.each_family,
    families.replay,
    families.growth,
    recording.linear_traces,
    guards.scoring,
    guards.watched,
    experiments.prompts,
    experiments.ray,
    waits.waits,
)

if __name__ == "__main__":
    raise SystemExit(main())
