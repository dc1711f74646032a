"""What a replay holds in memory as its transcripts grow longer and more, and what chunks change in the numbers.

    python benchmarks/replay_memory.py [--quick] [--out out/replay-memory.json]

Each case runs in a process of its own, which says the most memory that it has held (VmHWM) and, in MB, what was added
to that after loading. Numbers: transcripts of the organism, lines written to a file. Lengths: a random Llama of four
layers (hidden 256, 8 kB of keys and values a token in fp32) and a context of 32,768.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CASES: tuple[tuple[str, int, int | None], ...] = (
    ("number", 256, 512), ("number", 1024, 512), ("number", 4096, 512),
    ("length", 1024, 512), ("length", 4096, 512), ("length", 16384, 512),
    ("length", 1024, None), ("length", 4096, None), ("length", 16384, None),
)  # fmt: skip
"""What grows, how many (transcripts, or tokens of an answer), columns of a pass (None: everything in one)."""


def measured(what: str, n: int, chunk: int | None) -> dict[str, Any]:
    """One case, in this process."""
    import demur

    model: Any = demur.load("organism/ar", device="cpu")
    if what == "length":
        model = _random(model)
    _touch(model)
    loaded = _peak()
    sigma = _number(model, n, chunk) if what == "number" else _length(model, n, chunk)
    return {"what": what, "n": n, "chunk": chunk, "peak_mb": _peak() // 10**6, "added_mb": (_peak() - loaded) // 10**6,
            "sigma": sigma}  # fmt: skip


def _touch(model: Any) -> None:
    from demur.traces import teacher_forced

    teacher_forced(model, "How do I open the granary?", "You turn the iron key twice.")


def _anchors(model: Any) -> Any:
    """Anchors of noise: what they say does not matter here."""
    from demur.signals import Anchors
    from demur.traces import teacher_forced

    (trace,) = teacher_forced(model, "How do I open the granary?", "You turn the iron key twice.")
    ones, size = np.ones(32, np.float32), trace.phi["last", "generated"].shape[1]
    good, bad = (np.random.default_rng(seed).normal(size=(32, size)).astype(np.float32) for seed in (0, 1))
    return Anchors(good, bad, ones, ones, trace.spec.at("last", "generated"), "observed", 8, 8, 8, 8)


def _number(model: Any, n: int, chunk: int | None) -> float:
    from demur.prompts import Transcript
    from demur.studio.growing import Growing
    from demur.studio.replaying import WINDOW, replaying
    from demur.types import Prompt

    def rows() -> Iterator[Transcript]:
        for i in range(n):
            asked = Prompt(str(i), "How do I open the granary?", harmful=False)
            yield Transcript(asked, "You turn the iron key twice. " * (1 + i % 9), f"row {i}", i)

    total = 0.0
    with tempfile.TemporaryDirectory() as folder:
        file = Growing(Path(folder) / "lines.jsonl", {}, WINDOW)
        file.begun(False)
        for found in replaying(model, rows(), _anchors(model), steps=32, wanted=("last", "generated"), chunk=chunk):
            file.add([json.dumps([round(float(x), 6) for x in one.sigma]) for one in found])
            total += sum(float(one.sigma.sum()) for one in found)
            del found
        file.finish()
    return round(total, 6)


def _length(model: Any, n: int, chunk: int | None) -> list[float]:
    from demur.traces import teacher_forced
    from demur.types import Prompt

    answer = np.random.default_rng(0).integers(10, 200, size=n).tolist()
    answer = [token for token in answer if token not in model.stop_ids]
    (trace,) = teacher_forced(
        model, [Prompt("p", "How do I open the granary?")], [answer], steps=len(answer), batch=16, chunk=chunk
    )
    phi = trace.phi["last", "generated"]
    return [round(float(x), 6) for x in (phi[31].sum(), phi[-1].sum(), np.abs(phi).max())]


def _random(model: Any) -> Any:
    from dataclasses import replace

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=model.net.config.vocab_size, hidden_size=256, intermediate_size=768, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=32768, initializer_range=0.1,
        eos_token_id=model.stop_ids[0], pad_token_id=model.stop_ids[0], bos_token_id=None,
    )  # fmt: skip
    return replace(model, net=LlamaForCausalLM(config).eval())


def _peak() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="without the longest")
    parser.add_argument("--out", type=Path, default=Path("out/replay-memory.json"))
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measured(*CASES[options.case])))
        return
    found = []
    print("| what grows | n | chunk | peak, MB | added, MB | sigma, or states |\n| --- | --: | --: | --: | --: | --- |")
    for number, (_, n, _chunk) in enumerate(CASES):
        if options.quick and n > 4096:
            continue
        command = [sys.executable, __file__, "--case", str(number)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"| {' | '.join(map(str, found[-1].values()))} |", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
