"""Tiny random models of real architectures, made by recipe at run time: no weights are stored anywhere.

The recipe is by tensor *name*, so that a checkpoint under its original names and the native class that it is mapped to
can be compared. For every floating-point tensor NAME, z is standard normal from a generator seeded with
(seed * 1000003 + crc32(NAME)) mod 2^31, and the tensor is

- 1 + 0.1 z   for vectors of norms (the name contains ``norm`` or ``ln_f``), 0.1 z for other vectors,
- z           for embeddings (``wte`` or ``embed`` in the name),
- gain * z / sqrt(columns) for other matrices; gain 2 for the output head, 1.5 for the rest.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor


def recipe(name: str, shape: Sequence[int], seed: int = 0) -> Tensor:
    """One tensor of the recipe, fp32."""
    generator = torch.Generator().manual_seed((seed * 1000003 + zlib.crc32(name.encode())) % 2**31)
    z = torch.randn(tuple(shape), generator=generator)
    if len(shape) <= 1:
        return 1 + 0.1 * z if "norm" in name or "ln_f" in name else 0.1 * z
    if "wte" in name or "embed" in name:
        return z
    head = "lm_head" in name or name.endswith("transformer.ff_out.weight")
    return (2.0 if head else 1.5) * z / math.sqrt(shape[-1])


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names and fp32 bytes in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(name.encode())
        sha.update(tensors[name].contiguous().numpy().tobytes())
    return sha.hexdigest()


@torch.no_grad()
def fill(net: torch.nn.Module, seed: int = 0, skip: Sequence[str] = ()) -> str:
    """Writes the recipe into every floating-point tensor of ``net`` and returns the digest."""
    state = {n: p for n, p in net.state_dict(keep_vars=True).items() if p.is_floating_point()}
    made = {n: recipe(n, p.shape, seed) for n, p in sorted(state.items()) if not any(s in n for s in skip)}
    for name, tensor in made.items():
        state[name].copy_(tensor.to(state[name].dtype))
    return digest(made)


def llada_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a LLaDA checkpoint, as its own modelling code names them."""
    d, ff = config["d_model"], config["mlp_hidden_size"] or config["mlp_ratio"] * config["d_model"]
    kv = d // config["n_heads"] * (config["n_kv_heads"] or config["n_heads"])
    shapes: dict[str, tuple[int, ...]] = {"model.transformer.wte.weight": (config["embedding_size"], d)}
    for i in range(config["n_layers"]):
        block = f"model.transformer.blocks.{i}."
        shapes |= {block + name + ".weight": (d,) for name in ("attn_norm", "ff_norm")}
        shapes |= {block + "q_proj.weight": (d, d), block + "attn_out.weight": (d, d)}
        shapes |= {block + "k_proj.weight": (kv, d), block + "v_proj.weight": (kv, d)}
        shapes |= {
            block + "ff_proj.weight": (ff, d),
            block + "up_proj.weight": (ff, d),
            block + "ff_out.weight": (d, ff),
        }
    shapes["model.transformer.ln_f.weight"] = (d,)
    if not config.get("weight_tying"):
        shapes["model.transformer.ff_out.weight"] = (config["embedding_size"], d)
    return shapes


def llada2_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a LLaDA2 checkpoint, as its own modelling code names them."""
    d, head = config["hidden_size"], config["head_dim"]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    expert, dense = config["moe_intermediate_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.word_embeddings.weight": (config["vocab_size"], d)}

    def mlp(prefix: str, inner: int) -> dict[str, tuple[int, ...]]:
        wide = {f"{prefix}.{name}_proj.weight": (inner, d) for name in ("gate", "up")}
        return wide | {f"{prefix}.down_proj.weight": (d, inner)}

    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        shapes[f"{layer}.attention.query_key_value.weight"] = ((heads + 2 * groups) * head, d)
        shapes |= {f"{layer}.attention.dense.weight": (d, heads * head), f"{layer}.attention.dense.bias": (d,)}
        shapes |= {f"{layer}.attention.{name}_layernorm.weight": (head,) for name in ("query", "key")}
        shapes |= {f"{layer}.{name}_layernorm.weight": (d,) for name in ("input", "post_attention")}
        if i < config["first_k_dense_replace"]:
            shapes |= mlp(f"{layer}.mlp", dense)
            continue
        for e in range(config["num_experts"]):
            shapes |= mlp(f"{layer}.mlp.experts.{e}", expert)
        shapes[f"{layer}.mlp.gate.weight"] = (config["num_experts"], d)
        shapes[f"{layer}.mlp.gate.expert_bias"] = (config["num_experts"],)
        shapes |= mlp(f"{layer}.mlp.shared_experts", expert * config["num_shared_experts"])
    return shapes | {"model.norm.weight": (d,), "lm_head.weight": (config["vocab_size"], d)}


def write_checkpoint(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], shards: int = 2) -> Path:
    """A checkpoint as the hub has it: config.json and sharded safetensors with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(config)))
    names = sorted(tensors)
    index: dict[str, str] = {}
    for s in range(shards):
        file = f"model-{s + 1:05d}-of-{shards:05d}.safetensors"
        part = {n: tensors[n].contiguous() for n in names[s::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


def llada_checkpoint(
    folder: Path, config: Mapping[str, Any], seed: int = 0, boost: Sequence[Any] | None = None
) -> tuple[Path, str]:
    """A random LLaDA checkpoint under its original names, and the digest of its weights before ``boost``.

    ``boost`` = (row, factor[, source]) makes one row of the output head the multiple of another, so that a chosen token
    is predicted often.
    """
    tensors = {name: recipe(name, shape, seed) for name, shape in llada_shapes(config).items()}
    sha = digest(tensors)
    if boost:
        head = tensors["model.transformer.ff_out.weight"]
        row, factor, *source = boost
        head[row] = head[source[0] if source else row] * factor
    return write_checkpoint(folder, config, tensors), sha


def native(config: Any, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A random causal LM of a transformers configuration."""
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_config(config).float().eval()
    fill(net, seed)
    return net.to(dtype)
