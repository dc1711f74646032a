"""What stands beside the guard costs, all of it in the same rounds: docs/rivals.md.

    python benchmarks/rivals.py MODEL [--length 32] [--batch 1] [--rounds 10] [--quick] [--out out/rivals.json]

How it measures. A round is one greedy generation of MODEL without anything, and then every defense on the same prompts,
in an order that turns from round to round. Figures are the extra processor time of the one thread, in percent of the
undefended generation of the same round, so that others on the machine and a clock that drifts count little. What acts
while an answer is written (the guard, any-depth) is timed inside the generation that it watches, as in cost.py: never a
difference of two runs. What looks at prompts and finished answers is timed by itself. The first round of a batch
size is not counted.

No defense acts here: the guard's limits are infinite, and any-depth finds no refusal. So each costs what it costs on an
answer that it lets pass. Only prompts whose answers have all their tokens are asked.

The two moderation models have the shape of Qwen3Guard-Stream-0.6B and Qwen3Guard-Gen-0.6B and random weights, which do
for time; both share one trunk, which saves memory. They read MODEL's tokens and its chat template, without the policy
that the makers' template writes, and the second writes ``SAID`` tokens, as many as a verdict of its form has. So they
are cheaper here than the real ones. Everything runs on one thread of a CPU.

The last rows are single looks of other monitors at the states of finished answers, which somebody has pooled already.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cost
import numpy as np
import torch
from cost import PROCESSOR, WALL, lived, now
from measure import Ratio, Seconds, say

import demur
from demur.ablation.material import Material
from demur.ablation.rivals import LAST, MIDDLE, RIVALS, Setting
from demur.defenses import AnyDepth, Moderation, Perplexity, SelfExamine, TokenModeration, any_depth
from demur.guards import Watch
from demur.models import Causal
from demur.models.token_moderation import LEVELS, TokenModerator, _net
from demur.samplers import Autoregressive
from demur.traces import Trace, generate, watching
from demur.types import Identity, Prompt

SHAPE = {
    "vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
    "max_position_embeddings": 32_768, "guard_inner_size": 512,
}  # fmt: skip
"""Of Qwen3-0.6B: the trunk of both moderation models."""
SAID = 14
"""Tokens of a verdict: ``Safety: Safe``, and the lines of categories and refusal behind it."""
MONITORS = {
    "look: rolling mean": "whitened, rolling",
    "look: coherence of segments": "segments, mean turn",
    "look: SRI of a middle layer": "SRI, middle layer",
    "look: a probe for each step": "probes, supervised",
}
"""Monitors of ``demur ablate``, by what the table calls them."""
UNDEFENDED = "the undefended generation"
LAST_PASS = "  of it the pass that feeds the last token back"
Took = Callable[[Sequence[Prompt], Sequence[Trace], cost.Lived], Mapping[str, np.ndarray]]
"""Extra seconds by both clocks, by row of the table; of what was asked and answered, beside the undefended generation.
"""


@dataclass(frozen=True, eq=False)
class Bench:
    """What is timed: a model, prompts whose answers have all tokens, these answers, and two moderation models."""

    model: Any
    prompts: tuple[Prompt, ...]
    traces: tuple[Trace, ...]
    gen: Any
    stream: TokenModerator

    @classmethod
    def of(cls, model: Any, asked: Sequence[Prompt], length: int, n: int, shape: Mapping[str, Any] = SHAPE) -> Bench:
        """With the first ``n`` of the prompts that are answered in full."""
        kept: list[Trace] = []
        for begin in range(0, len(asked), n):
            found = generate(
                model, asked[begin : begin + n], Autoregressive(), batch=n, length=length, steps=length,
                pools=[LAST, MIDDLE],
            )  # fmt: skip
            kept += [trace for trace in found if trace.steps == length]
            if len(kept) >= n:
                break
        if len(kept) < n:
            raise SystemExit(f"only {len(kept)} of {len(asked)} answers have {length} tokens, and {n} are wanted")
        kept = kept[:n]
        return cls(model, tuple(trace.prompt for trace in kept), tuple(kept), *moderators(model, shape))


def moderators(model: Any, shape: Mapping[str, Any]) -> tuple[Any, TokenModerator]:
    """Two moderation models of one random trunk, with the tokenizer and the template of ``model``."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    raw = dict(shape) | {
        f"{side}_{what}_map": dict.fromkeys(map(str, range(n)))
        for side in ("response", "query") for what, n in (("risk_level", 3), ("category", 8))
    }  # fmt: skip
    config = Qwen3Config(**{key: value for key, value in shape.items() if key != "guard_inner_size"}, eos_token_id=None)
    with torch.device("meta"):
        writes, reads = Qwen3ForCausalLM(config), _net(raw)(config)
    writes = writes.to_empty(device="cpu").eval()
    writes.tie_weights()
    reads.model = writes.model
    for name, part in reads.named_children():
        if name != "model":
            part.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for numbers in (*writes.parameters(), *reads.parameters()):
        numbers.detach().uniform_(-0.03, 0.03, generator=generator)
    writes.model.rotary_emb = type(writes.model.rotary_emb)(config)  # its frequencies are no weights
    gen = Causal(net=writes, tokenizer=model.tokenizer, identity=Identity("Qwen3Guard-Gen, at random"))
    return gen, TokenModerator("Qwen3Guard-Stream", reads.eval(), model.tokenizer, LEVELS)


def defenses_of(bench: Bench) -> list[Took]:
    """Everything that is timed."""
    model, length = bench.model, bench.traces[0].steps
    bare, own = model.watching(), watching(model, [LAST])

    def around(name: str, watch: Callable[[Any], Any], of: Any, last_pass: str = "") -> Took:
        def took(asked: Sequence[Prompt], answers: Sequence[Trace], plain: cost.Lived) -> Mapping[str, np.ndarray]:
            with patch.object(any_depth, "is_refusal", lambda text: False):
                seen = lived(watch, of, asked, length)
            extra = seen.own - plain.own * min(len(seen.steps), length) / len(plain.steps)
            if of is bare:
                return {name: extra}
            return {name: extra + seen.fed_back} | ({last_pass: seen.fed_back} if last_pass else {})

        return took

    def looking(name: str, look: Callable[[Sequence[Prompt], Sequence[Trace]], object]) -> Took:
        def took(asked: Sequence[Prompt], answers: Sequence[Trace], plain: cost.Lived) -> Mapping[str, np.ndarray]:
            begun = now()
            look(asked, answers)
            return {name: now() - begun}

        return took

    guards, surprise = cost.guards_of(bench.traces), Perplexity(model, math.inf)
    found = [
        around("sri-guard, default, every step", Watch(guards["default"]), own, LAST_PASS),
        around("sri-guard, the paper's, every step", Watch(guards["paper's"]), own),
        *[around(f"any-depth, every {every}", AnyDepth(every), bare) for every in (10, 25)],
        looking("perplexity", lambda asked, answers: surprise.filter(asked)),
    ]
    asks = {
        "self-examine": SelfExamine(model),
        "token-moderation": TokenModeration(bench.stream),
        "moderation": Moderation(bench.gen, form="qwen3guard", tokens=SAID),
    }
    found += [looking(name, lambda asked, answers, d=defense: d.review(answers)) for name, defense in asks.items()]
    found.append(looking("look: the default guard", lambda asked, answers: guards["default"].judge_all(answers)))
    setting = setting_of(bench.traces)
    for name, rival in MONITORS.items():
        score = RIVALS[rival].make(setting)
        found.append(looking(name, lambda asked, answers, score=score: score(material(answers))))
    return found


def material(traces: Sequence[Trace], noise: float = 0.0, n: int = 0) -> Material:
    """States of answers; with ``noise`` so many rows around them."""
    rng, rows = np.random.default_rng(0), [traces[i % len(traces)] for i in range(n or len(traces))]
    phi = {key: np.stack([trace.aligned(*key) for trace in rows]) for key in (LAST, MIDDLE)}
    if noise:
        phi = {key: (x + noise * x.std() * rng.normal(size=x.shape)).astype(np.float32) for key, x in phi.items()}
    first = phi[LAST][:, 0]
    return Material("timed", phi, first, np.zeros(phi[LAST].shape[:2], bool))


def setting_of(traces: Sequence[Trace]) -> Setting:
    """What monitors learn from: noise around real states, as much of it as their fits need."""
    good, bad, fit = (material(traces, noise, 64) for noise in (0.1, 1.0, 0.2))
    return Setting(good, bad, fit, attacked={"noise": bad})


def costs(bench: Bench, name: str, batch: int, rounds: int) -> tuple[list[Seconds], list[Ratio]]:
    """Every figure of one batch size."""
    of_rounds, defenses = [], defenses_of(bench)
    for i in range(rounds + 1):
        say(f"batch {batch}, round {i} of {rounds}")
        of_rounds.append(_round(i, batch, bench, defenses))
    del of_rounds[0]
    case = f"{name}, batch {batch}, {bench.traces[0].steps} tokens"
    plain = Seconds(case, UNDEFENDED, tuple(float(took[UNDEFENDED][PROCESSOR]) for took in of_rounds))
    ratios = []
    for clock, said in ((PROCESSOR, "processor"), (WALL, "wall")):
        for what in of_rounds[0]:
            if what == UNDEFENDED:
                continue
            shares = tuple(100 * float(took[what][clock] / took[UNDEFENDED][clock]) for took in of_rounds)
            ratios.append(Ratio(f"{case}, {said}", what, shares))
    return [plain], ratios


def _round(i: int, batch: int, bench: Bench, defenses: Sequence[Took]) -> dict[str, np.ndarray]:
    """Everything once, in rotating order, in seconds by both clocks."""
    places = [(i + k) % len(bench.prompts) for k in range(batch)]
    asked, answers = [bench.prompts[k] for k in places], [bench.traces[k] for k in places]
    plain = lived(lambda sampler: sampler, bench.model.watching(), asked, answers[0].steps)
    found, turn = [{UNDEFENDED: plain.whole}], i % len(defenses)
    rows = [dict(took(asked, answers, plain)) for took in (*defenses[turn:], *defenses[:turn])]
    found += rows[len(defenses) - turn :] + rows[: len(defenses) - turn]
    return {name: seconds for part in found for name, seconds in part.items()}


def table(ratios: Sequence[Ratio]) -> Iterator[str]:
    """One row for a defense: by case the median of its rounds, and the least and the most."""
    cases = [case for case in dict.fromkeys(ratio.case for ratio in ratios) if case.endswith("processor")]
    yield f"| extra processor time | {' | '.join(cases)} |"
    yield f"| --- {'| --- ' * len(cases)}|"
    found = {(ratio.what, ratio.case): ratio for ratio in ratios}
    for what in dict.fromkeys(ratio.what for ratio in ratios):
        said = [found[what, case] for case in cases if (what, case) in found]
        cells = [
            f"{_short(r.median)}% ({_short(min(r.pairs))} to {_short(max(r.pairs))}, n {len(r.pairs)})" for r in said
        ]
        yield f"| {what} | {' | '.join(cells)} |"


def _short(percent: float) -> str:
    return f"{percent:.0f}" if abs(percent) >= 10 else f"{percent:.1f}" if abs(percent) >= 1 else f"{percent:.2f}"


def main() -> int:
    import run

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a causal chat model: a name, or a path")
    parser.add_argument("--length", type=int, action="append", help="tokens of an answer (default: 32); repeatable")
    parser.add_argument("--batch", type=int, action="append", help="prompts at once (default: 1 and 8); repeatable")
    parser.add_argument("--rounds", type=int, default=10, help="so many times everything; half of it at batch 8")
    parser.add_argument("--quick", action="store_true", help="one round, and moderation models of two small layers")
    parser.add_argument("--out", type=Path, default=Path("out/rivals.json"), help="where the numbers go, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    small = {"vocab_size": 60_000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "guard_inner_size": 16}
    load = os.getloadavg()[0]
    seconds: list[Seconds] = []
    ratios: list[Ratio] = []
    model = demur.load(options.model, dtype="float32", device="cpu")
    for length in options.length or (32,):
        asked = [Prompt(str(i), prompt.text) for i, prompt in enumerate(demur.starter("harmless", 40))]
        bench = Bench.of(model, asked, length, 8, SHAPE | small if options.quick else SHAPE)
        for batch in options.batch or (1, 8):
            rounds = 1 if options.quick else options.rounds if batch == 1 else max(1, options.rounds // 2)
            took, shares = costs(bench, options.model, batch, rounds)
            seconds, ratios = seconds + took, ratios + shares
            machine = run._machine() | {"load_before": round(load, 2), "load_after": round(os.getloadavg()[0], 2)}
            run._write(options.out, machine, seconds, ratios)  # an interrupted run leaves what it saw
            print("\n".join(table(shares)), flush=True)
    print("", *table(ratios), "", run._tables(seconds, ()), sep="\n")
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
