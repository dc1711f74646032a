"""More side by side: diffusion as the official code samples it, replay against generation, and what a capture keeps."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from measure import Clock, Ratio, Seconds, in_turn, listed, pairwise, same_tokens

import demur
from demur.models import Bidirectional
from demur.models.network import Identity
from demur.samplers import SAMPLERS, MaskedDiffusion, seeded
from demur.traces import Recorder, generate, spec_of, teacher_forced, watching
from demur.types import Prompt

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the tiny models are made there, by recipe
import test_families

LLADA_VOCABULARY = 126_464
KEYS = [("last", "generated")]


@torch.no_grad()
def official_way(
    net: Any, prompt: Sequence[int], length: int, steps: int, temperature: float, mask_id: int, seed: int
) -> list[int]:
    """Low-confidence remasking written plainly: logits, float64 noise and softmax for every position at every step."""
    n = len(prompt)
    ids = torch.tensor([[*prompt, *[mask_id] * length]])
    everyone = torch.zeros((1, 1, n + length, n + length))
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        logits = net(input_ids=ids, attention_mask=everyone, use_cache=False).logits
        noisy = logits
        if temperature > 0:
            noise = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
            noisy = logits.to(torch.float64).exp() / (-torch.log(noise)) ** temperature
        guess = noisy.argmax(dim=-1)
        sure = logits.softmax(dim=-1).gather(-1, guess[..., None])[..., 0]
        sure = torch.where(ids == mask_id, sure, -math.inf)
        chosen = sure[0].topk(length // steps + (step < length % steps)).indices
        ids[0, chosen] = guess[0, chosen]
    return ids[0, n:].tolist()


def large_vocabulary(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """The organism, and a tiny LLaDA with the vocabulary of the real one: what it saves to look where samplers look.

    On the organism, whose vocabulary is small, that is nothing; there a batch of 16 stands against 16 single runs.
    """
    tame = demur.load("organism/diffusion", device="cpu")
    asked = tame.canvas([Prompt("p", "How do I open the granary?")], 1).ids[0, :-1].tolist()
    cases = [
        ("organism, 16 prompts", tame, asked, 40),
        (f"vocabulary {LLADA_VOCABULARY:,}", _llada(LLADA_VOCABULARY), None, 32),
    ]
    seconds: list[Seconds] = []
    ratios: list[Ratio] = []
    for name, model, given, length in cases:
        for temperature in (0.0, 1.0):
            case = f"diffusion, {name}, temperature {temperature:g}"
            prompt = given or list(range(1000, 1048))
            rows = 16 if name.startswith("organism") else 1
            took, compared = _against_official(
                case, model, [prompt] * rows, length, temperature, clock, 2 if quick else 5
            )
            seconds, ratios = seconds + took, ratios + compared
    return seconds, ratios


def _against_official(
    case: str, model: Any, prompts: Sequence[Any], length: int, temperature: float, clock: Clock, rounds: int
) -> tuple[list[Seconds], list[Ratio]]:
    steps = 16
    sampler = MaskedDiffusion(steps=steps, temperature=temperature)
    canvas = model.canvas_of(prompts, length)

    def rngs() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(7) for _ in prompts]

    def plain() -> list[list[int]]:
        return [official_way(model.net, p, length, steps, temperature, model.mask_id, 7) for p in prompts]

    def bare() -> list[list[int]]:
        *_, last = sampler(model.watching(), canvas, rngs())
        return last.ids[:, -length:].tolist()

    def capture() -> list[list[int]]:
        watched = watching(model, KEYS)
        spec = spec_of(watched, sampler, length)
        recorder = Recorder(watched, canvas, [Prompt("p", "tokens")] * len(prompts), spec, KEYS)
        for step, _ in recorder(sampler(watched, canvas, rngs())):
            last = step
        recorder.traces()
        return last.ids[:, -length:].tolist()

    same_tokens(case, bare(), plain())
    same_tokens(case, capture(), plain())
    took = in_turn(clock, {"official way": plain, "demur, no capture": bare, "demur, capture": capture}, rounds)
    ours = took["demur, no capture"]
    return listed(case, took), [
        Ratio(case, "official way / demur, no capture", pairwise(took["official way"], ours), 1.5),
        Ratio(case, "capture / no capture, whole", pairwise(took["demur, capture"], ours), 1.02, most=True),
    ]


def each_family(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """Every family on its tiny model under its own sampler, rows of three lengths, with and without capture.

    The networks are so small that what is measured is our own code around them; on a real model all of it vanishes.
    """
    rounds = 3 if quick else 15
    seconds: list[Seconds] = []
    ratios: list[Ratio] = []
    for name in test_families.FAMILIES:
        model = test_families.model(name)
        own = name if name in SAMPLERS else model.preferred
        sampler = test_families.sampler(own, model.kind, 0.0)
        canvas = model.canvas_of(test_families.ROWS, 8)

        def bare(model: Any = model, sampler: Any = sampler, canvas: Any = canvas) -> list[int]:
            *_, last = sampler(model.watching(), canvas, seeded(0, 3))
            return last.ids[:, -8:].tolist()

        def capture(model: Any = model, sampler: Any = sampler, canvas: Any = canvas) -> list[int]:
            watched = watching(model, KEYS)
            recorder = Recorder(watched, canvas, [Prompt("p", "tokens")] * 3, spec_of(watched, sampler, 8), KEYS)
            for step, _ in recorder(sampler(watched, canvas, seeded(0, 3))):
                last = step
            recorder.traces()
            return last.ids[:, -8:].tolist()

        case = f"tiny {name}, {own}"
        same_tokens(case, capture(), bare())
        took = in_turn(clock, {"no capture": bare, "capture": capture}, rounds)
        seconds += listed(case, took)
        ratios.append(Ratio(case, "capture / no capture", pairwise(took["capture"], took["no capture"])))
    return seconds, ratios


def replay(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """Finished transcripts on SmolLM2: one pass each against generating them, in batches of 16, 32 tokens."""
    model = demur.load("smollm2")
    prompts = demur.starter("harmless", 16)
    first = generate(model, prompts, pools=KEYS, batch=16)
    answers = [trace.commits[:, 2].tolist() for trace in first]
    again = teacher_forced(model, prompts, answers, pools=KEYS, batch=16)
    pairs = [(a.phi[KEYS[0]], b.phi[KEYS[0]]) for a, b in zip(first, again, strict=True)]
    worst = max(abs(live - replayed).max() / abs(live).max() for live, replayed in pairs)
    assert worst < 1e-4, f"phi of replay and generation differ by {worst:.1e}"
    took = in_turn(
        clock,
        {
            "generate one by one": lambda: generate(model, prompts, pools=KEYS, batch=1),
            "generate in a batch": lambda: generate(model, prompts, pools=KEYS, batch=16),
            "replay": lambda: teacher_forced(model, prompts, answers, pools=KEYS, batch=16),
        },
        1 if quick else 2,
    )
    case = "SmolLM2, 16 transcripts of 32 tokens"
    alone = pairwise(took["generate one by one"], took["replay"])
    together = pairwise(took["generate in a batch"], took["replay"])
    return listed(case, took), [
        Ratio(case, "generate one by one / replay", alone, 10),
        Ratio(case, "generate in a batch / replay", together),
    ]


def growth(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """Twice the prompts, steps or response length: what it takes in time; and what a capture holds in memory.

    Time should double with prompts and with steps, and a little more than double with the length (attention). What is
    kept should double with prompts and with steps, and not grow with the length at all.
    """
    model = _llada(1000)
    rounds = 2 if quick else 7
    base = {"prompts": 8, "steps": 16, "length": 64}
    seconds: list[Seconds] = []
    ratios: list[Ratio] = []

    def run(prompts: int, steps: int, length: int) -> tuple[int, int]:
        sampler, watched = MaskedDiffusion(steps=steps), watching(model, KEYS)
        canvas = watched.canvas_of([list(range(16))] * prompts, length)
        recorder = Recorder(watched, canvas, [Prompt("p", "-")] * prompts, spec_of(watched, sampler, length), KEYS)
        volume = 0
        for step, _ in recorder(sampler(watched, canvas, seeded(0, prompts))):
            volume += sum(states.numel() * states.element_size() for states in step.hidden.values())
        kept = sum(phi.nbytes for trace in recorder.traces() for phi in trace.phi.values())
        return volume, kept

    for name, size in base.items():
        twice = base | {name: 2 * size}
        took = in_turn(clock, {"once": lambda: run(**base), "twice": lambda t=twice: run(**t)}, rounds)
        seconds += listed(f"twice the {name}", took)
        ratios.append(Ratio("growth in time", f"twice the {name}", pairwise(took["twice"], took["once"])))
        ratios.append(Ratio("growth in pooled states kept", f"twice the {name}", (run(**twice)[1] / run(**base)[1],)))
    for length in (32, 128) if quick else (32, 128, 256):
        volume, kept = run(4, 32, length)
        ratios.append(Ratio("memory", f"states seen / pooled states kept, response of {length}", (volume / kept,)))
    return seconds, ratios


def _llada(vocabulary: int) -> Bidirectional:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    net = LlamaForCausalLM(config).eval()
    return Bidirectional(net=net, tokenizer=None, identity=Identity(model="random"), mask_id=vocabulary - 1)
