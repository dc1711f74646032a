"""Loading large checkpoints: key renaming must not cost a second copy in memory."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch

CONFIG = {
    "model_type": "llada", "block_type": "llama", "layer_norm_type": "rms", "alibi": False, "rope": True,
    "activation_type": "silu", "d_model": 2048, "n_heads": 16, "n_kv_heads": 16, "n_layers": 8, "mlp_hidden_size": 5632,
    "mlp_ratio": 4, "embedding_size": 32768, "vocab_size": 32768, "max_sequence_length": 1024, "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0, "weight_tying": False, "mask_token_id": 32000, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip

MEASURE = """
import resource, sys
from pathlib import Path
import torch, transformers
from transformers import LlamaForCausalLM
from demur.models import load
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
model = load(Path(sys.argv[1]), dtype="bfloat16", device="cpu")
print(peak() - before, sum(p.numel() * p.element_size() for p in model.net.parameters()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 4])
def test_a_sharded_checkpoint_loads_through_renaming_in_little_more_than_its_size(tmp_path: Path, shards: int) -> None:
    tensors = {}
    for name, shape in tiny.llada_shapes(CONFIG).items():
        generator = torch.Generator().manual_seed(len(tensors))
        tensors[name] = torch.randn(shape, generator=generator, dtype=torch.bfloat16).mul_(0.02)
    tiny.write_checkpoint(tmp_path, CONFIG, tensors, shards=shards)
    size = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert size > 1e9
    del tensors
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown, held = map(int, done.stdout.split())
    print(json.dumps({"size": size, "peak": grown, "parameters": held, "ratio": round(grown / size, 3)}))
    assert held == pytest.approx(size, rel=0.01)
    assert grown <= 1.15 * size


FAULTS = """
import resource
import demur
from demur.models.memory import keep_freed_memory
model = demur.load("organism/diffusion", device="cpu")
prompts = demur.starter("harmless", 4)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
demur.generate(model, prompts, length=32)
before = faults()
demur.generate(model, prompts, length=32)
print(faults() - before, keep_freed_memory())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")
def test_a_generation_on_a_cpu_takes_its_memory_from_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_TUNABLES"))]:
        monkeypatch.delenv(name)

    def measured() -> tuple[int, bool]:
        done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
        faults, kept = done.stdout.split()
        return int(faults), kept == "True"

    faults, kept = measured()
    assert kept
    assert faults < 3000, "pages that the system had to clear in a second generation"
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")
    left, kept = measured()
    assert not kept, "who sets the allocator himself is left alone"
    assert left > 10 * max(faults, 100)
