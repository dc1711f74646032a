"""What `demur doctor --model` estimates beside what a process really takes at its peak, on a CPU.

    python benchmarks/memory.py [--model organism/ar ...] [--out out/memory.json]

Each case runs in a process of its own: a model is loaded, and one batch is generated and recorded. Peak memory is what
the kernel says of the process (VmHWM). "All" is the whole process beside the whole estimate. "The batch" is what the
generation added beside the parts of the estimate that are neither weights nor context.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CASES = (
    ("organism/ar", 1, 64, 32),
    ("organism/ar", 64, 64, 64),
    ("organism/diffusion", 1, 64, 32),
    ("organism/diffusion", 64, 64, 64),
    ("smollm2", 1, 256, 32),
    ("smollm2", 16, 256, 64),
    ("smollm2", 64, 256, 64),
    ("random diffusion", 1, 64, 128),
    ("random diffusion", 16, 64, 128),
)
"""Model, rows, tokens of a prompt, places of an answer."""
RANDOM = {
    "model_type": "llama", "vocab_size": 126_464, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": False,
}  # fmt: skip
"""Small layers under the vocabulary of LLaDA: what a head over a whole answer takes."""
STEPS = 32


def measured(name: str, batch: int, prompt: int, length: int) -> dict[str, Any]:
    """One case, in this process."""
    import torch

    import demur
    from demur.models.sizes import Shape, memory_of
    from demur.samplers import build, seeded
    from demur.traces import DEFAULT, Recorder, spec_of, watching
    from demur.types import Prompt

    model: Any = _random() if name.startswith("random") else demur.load(name, dtype="float32", device="cpu")
    loaded = _peak()
    shape = Shape.of(model.net.config.to_dict(), name)
    sampler = build(None, model, steps=STEPS)
    watched = watching(model, DEFAULT)
    tokens = torch.randint(10, 100, (batch, prompt), generator=torch.Generator().manual_seed(0)).tolist()
    canvas = watched.canvas_of(tokens, length)
    spec = spec_of(watched, sampler, length, steps=STEPS)
    recorder = Recorder(watched, canvas, [Prompt("p", "-")] * batch, spec, DEFAULT)
    for _ in recorder(sampler(watched, canvas, seeded(0, batch))):
        pass
    recorder.traces()
    parts = memory_of(shape, model.kind, "float32", batch=batch, prompt=prompt, length=length, steps=STEPS)
    of_batch = sum(parts.values()) - parts["weights"] - parts["context and spare"]
    peak = _peak()
    return {
        "case": f"{name}, {batch} x ({prompt} + {length})",
        "estimate_gb": round(sum(parts.values()) / 1e9, 3),
        "peak_gb": round(peak / 1e9, 3),
        "all": round(sum(parts.values()) / peak, 2),
        "batch_estimate_gb": round(of_batch / 1e9, 3),
        "batch_peak_gb": round((peak - loaded) / 1e9, 3),
        "the_batch": round(of_batch / (peak - loaded), 2) if peak - loaded > 2e7 else None,
        "parts_gb": {key: round(value / 1e9, 4) for key, value in parts.items()},
    }


def _random() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    from demur.models import Bidirectional
    from demur.types import Identity

    net = LlamaForCausalLM(LlamaConfig(**RANDOM)).eval()
    return Bidirectional(net=net, tokenizer=None, identity=Identity(model="random"), mask_id=126_463)


def _peak() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="only cases of this model; repeatable")
    parser.add_argument("--out", type=Path, default=Path("out/memory.json"))
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measured(*CASES[options.case])))
        return
    found = []
    print("| case | estimate, GB | peak, GB | all | batch: estimate, GB | batch: peak, GB | the batch |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    for number, case in enumerate(CASES):
        if options.model and case[0] not in options.model:
            continue
        command = [sys.executable, __file__, "--case", str(number)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        names = ("case", "estimate_gb", "peak_gb", "all", "batch_estimate_gb", "batch_peak_gb", "the_batch")
        print(f"| {' | '.join('-' if (x := found[-1][name]) is None else str(x) for name in names)} |", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
