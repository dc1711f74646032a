"""What a guard costs inside vLLM: the same requests without and with it, in turns, in one engine.

    python benchmarks/vllm_cost.py organism/ar [--rows 1 8 32] [--rounds 15] [--tokens 48] [--out FILE]

The guard is made up (random anchors of the right size, whitened, with whole answers): what it costs does not depend on
what it knows. It looks at every token and acts on none. A pair is one round without and one with the guard, in changing
order. Told are the median of the pairs' ratios and the quartiles, in processor time of the process (``--clock wall``:
by the clock on the wall), and the processor time of a look itself, which a busy machine disturbs least. Needs vLLM: see
docs/vllm.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

T, LOUD = 32, 128


def made_up(model: Any, path: Path) -> Path:
    """A guard of a model, of random anchors."""
    from demur.guards import Guard
    from demur.guards.conformal import Threshold
    from demur.guards.detectors import Last
    from demur.guards.prefix import Prefix
    from demur.guards.tail import Tail
    from demur.samplers import Autoregressive
    from demur.signals import Anchors
    from demur.signals.whitened import fit_whitened
    from demur.traces import spec_of

    d = model.net.config.hidden_size
    states = np.random.default_rng(0).normal(size=(2, max(8, LOUD // T + 4), T, d)).astype(np.float32)
    spec = spec_of(model, Autoregressive(), T, steps=T).at("last", "generated", "whitened")
    # no score of this detector is above 1, nor its logarithm above 0: it never acts
    ones, never = np.ones(T, np.float32), Threshold(1.0, 0.01, "conformal", 100)
    sides = [side.mean(axis=0) for side in states]
    anchors = Anchors(*sides, ones, ones, spec, "observed", 8, 8, 8, 8, whitened=fit_whitened(*states))
    prefix = Prefix(Last(), np.zeros(T), np.ones(T), never)
    behind = Tail(4 * T, replace(never, value=1.0 - 1e-9))
    guard = Guard(anchors, Last(), never, prefix, np.zeros((2, T)), (), (), tail=behind)
    return guard.save(path)


def as_folder(name: str, where: Path) -> tuple[str, Any]:
    """A model of demur as a folder that vLLM reads, and the model."""
    import demur

    model = demur.load(name, dtype="float32")
    model.net.save_pretrained(where)
    model.tokenizer.save_pretrained(where)
    return str(where), model


LOOKS: list[float] = []
"""Processor time of every look, in seconds."""


def look_timed() -> None:
    from demur.engines.vllm.processor import GuardProcessor

    own = GuardProcessor.apply

    def timed(self: Any, logits: Any, ctx: Any = None) -> Any:
        begin = time.thread_time()
        found = own(self, logits, ctx)
        if self.desk.rows:
            LOOKS.append(time.thread_time() - begin)
        return found

    GuardProcessor.apply = timed


def seconds(llm: Any, rows: int, tokens: int, guard: str | None, clock: Any) -> float:
    from vllm import SamplingParams

    extra = {"demur": guard} if guard else None
    params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, extra_args=extra)
    prompts = [{"prompt_token_ids": [5 + i, 6, 7, 8, 9, 10, 11, 12]} for i in range(rows)]
    begin = clock()
    llm.generate(prompts, params, use_tqdm=False)
    return float(clock() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--clock", choices=["cpu", "wall"], default="cpu")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    clock = time.process_time if asked.clock == "cpu" else time.perf_counter
    with tempfile.TemporaryDirectory() as scratch:
        folder, model = as_folder(asked.model, Path(scratch) / "model")
        guard = made_up(model, Path(scratch) / "guard.safetensors")
        os.environ |= {"DEMUR_GUARDS": f"g={guard}", "DEMUR_MODE": "watch", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        from vllm import LLM

        llm = LLM(
            folder,
            dtype="float32",
            enforce_eager=True,
            max_model_len=256,
            max_num_seqs=64,
            disable_log_stats=True,
            worker_extension_cls="demur.engines.vllm.extension.Extension",
            enable_prefix_caching=False,
            gpu_memory_utilization=0.4,  # of the memory, also of a CPU: other processes need some
        )
        look_timed()
        told = []
        for rows in asked.rows:
            for which in (None, "g"):
                seconds(llm, rows, asked.tokens, which, clock)
            LOOKS.clear()
            off, on = [], []
            for turn in range(asked.rounds):
                for which in (None, "g") if turn % 2 else ("g", None):
                    (on if which else off).append(seconds(llm, rows, asked.tokens, which, clock))
            ratios = [a / b for a, b in zip(on, off, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            token, guarded, look = (1e3 * statistics.median(x) for x in (off, on, LOOKS))
            token, guarded = token / asked.tokens, guarded / asked.tokens
            times = {"ms_a_step": token, "ms_a_step_guarded": guarded, "look_ms": look, "look_share": look / token}
            spread = {"rounds": asked.rounds, "ratio": middle, "quartiles": [low, high]}
            told.append({"model": asked.model, "rows": rows, "clock": asked.clock, **times, **spread})
            print(json.dumps(told[-1]), flush=True)
        seen = [one for one in llm.collective_rpc("demur_verdicts")[0] if not one["watched"]]
        assert not seen, seen[0]
    if asked.out:
        asked.out.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
