"""What a recorded answer takes: bytes of its trace, and resident memory while it is recorded, at growing lengths.

    python benchmarks/recording.py TOKENS [--bare]

prints one line of JSON. Every length runs in a process of its own, since memory that was once resident is used again;
one process more generates the same tokens without recording them. What recording adds is the difference of the two.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from measure import Clock, Ratio, Seconds

from demur.models import Causal
from demur.samplers import Autoregressive, seeded
from demur.traces import Recorder, spec_of, watching
from demur.types import Identity, Prompt

LENGTHS = (256, 1024, 4096)
MIB = 2**20
KEYS = [("last", "generated")]
WARM_UP = 16


def linear_traces(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """Answers of 256, 1,024 and 4,096 tokens of a small random causal model, which ends none of them."""
    lengths = LENGTHS[:2] if quick else LENGTHS
    seen = {length: (_measured(length, bare=True), _measured(length, bare=False)) for length in lengths}
    ratios = []
    for length, (bare, recorded) in seen.items():
        case, last = f"one AR answer of {length:,} tokens", length == LENGTHS[-1]
        added = (recorded["resident"] - bare["resident"]) / MIB
        kept = recorded["bytes"] / MIB
        ratios.append(
            Ratio(case, "MiB that recording adds to what is resident", (added,), 60 if last else None, most=True)
        )
        ratios.append(Ratio(case, "MiB of the trace's file beside phi", (kept,), 1 if last else None, most=True))
        ratios.append(Ratio(case, "bytes of it for a token", (recorded["bytes"] / length,)))
    for shorter, longer in pairwise(lengths):
        more = seen[longer][1]["bytes"] / seen[shorter][1]["bytes"]
        what = f"{longer:,} tokens / {shorter:,} tokens, the trace's bytes"
        ratios.append(Ratio("growth of a trace", what, (more,), 1.05 * longer / shorter, most=True))
    took = [Seconds(f"one AR answer of {n:,} tokens", "recorded", (r["seconds"],)) for n, (_, r) in seen.items()]
    took += [Seconds(f"one AR answer of {n:,} tokens", "not recorded", (b["seconds"],)) for n, (b, _) in seen.items()]
    return took, ratios


def _measured(length: int, *, bare: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, str(length), *(["--bare"] if bare else [])]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def _one(length: int, *, bare: bool) -> dict[str, Any]:
    """Bytes of the trace's file without phi, growth of the peak of resident memory in bytes, and seconds."""
    torch.set_num_threads(1)
    model = _llama()
    _run(model, WARM_UP, bare=bare)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far is forgotten
    before, begun = _resident("VmRSS"), time.perf_counter()
    trace = _run(model, length, bare=bare)
    found = {"seconds": time.perf_counter() - begun, "resident": _resident("VmHWM") - before, "bytes": 0}
    if trace is not None:
        with tempfile.TemporaryDirectory() as folder:
            size = trace.save(Path(folder) / "trace").stat().st_size
        found["bytes"] = size - sum(phi.nbytes for phi in trace.phi.values())
    return found


def _run(model: Causal, length: int, *, bare: bool) -> Any:
    sampler, watched = Autoregressive(), watching(model, [] if bare else KEYS)
    canvas = watched.canvas_of([list(range(16))], length)
    steps = sampler(watched, canvas, seeded(0, 1))
    if bare:
        for _ in steps:
            pass
        return None
    recorder = Recorder(watched, canvas, [Prompt("p", "-")], spec_of(watched, sampler, length), KEYS)
    for _ in recorder(steps):
        pass
    (trace,) = recorder.traces()
    if trace.steps != length:
        raise SystemExit(f"an answer of {trace.steps} tokens, not of {length}")
    return trace


def _resident(what: str) -> int:
    """Bytes, of Linux: resident now (``VmRSS``) or at most so far (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def _llama() -> Causal:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2 * max(LENGTHS),
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return Causal(net=LlamaForCausalLM(config).eval(), tokenizer=None, identity=Identity(model="random"))


if __name__ == "__main__":
    print(json.dumps(_one(int(sys.argv[1]), bare="--bare" in sys.argv)))
