"""What a model needs, computed from its configuration before anybody downloads it: memory, time, and the GPU that fits.

Nothing here was measured; ``demur.models.sizes`` has the formulas of memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demur.models import BUILT_IN, DTYPES
from demur.models.families import family_of
from demur.models.loading import best_device
from demur.models.locate import locate
from demur.models.memory import free_memory, most_rows, rows_within
from demur.models.sizes import BYTES, Shape, context_of, memory_of
from demur.types import OFFERS, DemurError, Kind, Need

ESTIMATE = "an estimate from the configuration, not measured"

_LLAMA = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
_QWEN = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
_QWEN |= {"num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False}
_LLADA = {"model_type": "llada", "d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32}
_LLADA |= {"mlp_hidden_size": 12288, "embedding_size": 126464}
KNOWN: Mapping[str, Mapping[str, Any]] = {
    "GSAI-ML/LLaDA-8B-Instruct": _LLADA,
    "GSAI-ML/LLaDA-1.5": _LLADA,
    "Dream-org/Dream-v0-Instruct-7B": _QWEN | {"model_type": "Dream"},
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA
    | {"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256},
    "Qwen/Qwen2.5-7B-Instruct": _QWEN | {"model_type": "qwen2"},
    "smollm2": _LLAMA
    | {"hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
    | {"intermediate_size": 1536, "vocab_size": 49152, "tie_word_embeddings": True},
}
"""What the public ``config.json`` of the documented models says, for machines that cannot reach the hub."""


@dataclass(frozen=True)
class Card:
    """A GPU: memory in GB, bandwidth in GB/s and dense bf16 operations in TFLOP/s, as its maker gives them."""

    name: str
    memory: float
    bandwidth: float
    tflops: float


CARDS = (
    Card("RTX 4080 16 GB", 16, 717, 97),
    Card("A10 24 GB", 24, 600, 125),
    Card("RTX 4090 24 GB", 24, 1008, 165),
    Card("A100 40 GB", 40, 1555, 312),
    Card("L40S 48 GB", 48, 864, 362),
    Card("A100 80 GB", 80, 2039, 312),
    Card("H100 80 GB", 80, 3350, 989),
    Card("H200 141 GB", 141, 4800, 989),
)
_USED, _READ, _ROOM, _LAUNCH = 0.35, 0.6, 0.92, 0.4e-3
"""Shares of a card's operations, bandwidth and memory that a plain loop gets; the fewest seconds a layer takes."""


@dataclass(frozen=True)
class Here:
    """What this machine has for a model: device, dtype, GB that are free (None: unknown), the largest batch that
    ``--batch auto`` would begin with (0 if not even one row fits), and whether the batch that was asked for ``fits``.
    """

    device: str
    dtype: str
    free: float | None
    batch: int | None
    fits: bool | None = None


@dataclass(frozen=True)
class Needs:
    """Memory in GB by what it is for, and for each card the seconds of one batch (None: it does not fit)."""

    model: str
    kind: str
    parameters: int
    dtype: str
    batch: int
    prompt: int
    length: int
    steps: int
    gigabytes: Mapping[str, float]
    seconds: Mapping[str, float | None]
    here: Here
    context: int | None = None
    """How many places a row of this model has at most, prompt and answer together."""

    @property
    def counts_steps(self) -> bool:
        """Whether the steps of a sampler say how many passes there are: without a cache, every step is one."""
        return Need.CACHE not in OFFERS[Kind(self.kind)]

    @property
    def total(self) -> float:
        """All of the memory."""
        return sum(self.gigabytes.values())

    def row(self) -> dict[str, Any]:
        """As JSON would hold it."""
        gb = {name: round(size, 3) for name, size in (*self.gigabytes.items(), ("total", self.total))}
        asked = {name: getattr(self, name) for name in ("model", "kind", "parameters", "dtype", "batch", "prompt")}
        asked |= {"length": self.length, "steps": self.steps}
        seconds = {name: None if s is None else round(s, 1) for name, s in self.seconds.items()}
        return asked | {
            "gigabytes": gb,
            "seconds_a_batch": seconds,
            "here": asdict(self.here),
            "context": self.context,
            "note": ESTIMATE,
        }


def needs(
    model: str, *, dtype: str = "auto", batch: int = 1, length: int = 128, steps: int = 32, prompt: int = 256
) -> Needs:
    """What one batch needs: ``batch`` prompts of ``prompt`` tokens each, answered with ``length`` tokens; ``steps`` are
    those of a diffusion sampler. Raises for a model whose configuration is not to be had, and for an unknown dtype.
    """
    raw = configuration(model)
    shape, family = Shape.of(raw, model), family_of(raw, model)
    kind = family.kind
    called = str({"auto": "bfloat16", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}.get(dtype, dtype))
    if called not in BYTES:
        raise DemurError(f"dtype {dtype!r}", f"auto, {', '.join(DTYPES)} or 4bit", "name one of these")
    sizes = {"prompt": prompt, "length": length, "steps": steps, "block": family.block_length or 1}
    parts = memory_of(shape, kind, called, batch=batch, **sizes)
    passes = length if kind == "causal" else max(length, steps) if kind == "block" else steps
    seconds = {}
    for card in CARDS:
        fits = sum(parts.values()) <= _ROOM * card.memory * 1e9
        seconds[card.name] = (
            _seconds(shape, card, parts["weights"], kind, batch, prompt, length, passes) if fits else None
        )
    gigabytes = {name: size / 1e9 for name, size in parts.items()}
    here = _here(shape, kind, None if dtype == "auto" else called, batch, sizes)
    context = context_of(raw)
    return Needs(model, kind, shape.parameters, called, batch, prompt, length, steps, gigabytes, seconds, here, context)


def _here(shape: Shape, kind: str, dtype: str | None, batch: int, sizes: Mapping[str, int]) -> Here:
    """What fits here, in a dtype (None: the one that ``auto`` is on this device)."""
    import torch

    device = torch.device(best_device())
    dtype = dtype or ("float32" if device.type == "cpu" else "bfloat16")
    free = free_memory(device)
    if free is None:
        return Here(device.type, dtype, None, None)
    alone = memory_of(shape, kind, dtype, batch=0, **sizes)
    left = free - alone["weights"] - alone["context and spare"]
    most = rows_within(left, most_rows(device), shape, kind, dtype, **sizes)
    fits = rows_within(left, batch, shape, kind, dtype, **sizes) == batch
    return Here(device.type, dtype, round(free / 1e9, 1), most, fits)


def _seconds(
    shape: Shape, card: Card, weights: float, kind: str, batch: int, prompt: int, length: int, passes: int
) -> float:
    """A batch's time: each pass reads the weights and computes two operations a weight and token, whichever is slower.

    A cached pass sees a token a row, or a block's; a pass of masked diffusion sees the whole canvas.
    """
    compute, read = card.tflops * 1e12 * _USED, card.bandwidth * 1e9 * _READ
    share = min(1.0, batch * shape.active / shape.parameters) if shape.active < shape.parameters else 1.0

    def one(tokens: int) -> float:
        return max(2 * shape.active * tokens / compute, weights * share / read, shape.layers * _LAUNCH)

    if kind in ("causal", "block"):
        return one(batch * prompt) + passes * one(batch * (1 if kind == "causal" else 32))
    return passes * one(batch * (prompt + length))


def configuration(model: str) -> Mapping[str, Any]:
    """The raw ``config.json`` of a folder, a built-in model, a documented one, or one of the hub (its cache first)."""
    if model in BUILT_IN and model not in KNOWN:
        return _config_at(Path(locate(model, None)[0]), model)
    path = Path(model).expanduser()
    if model not in KNOWN and path.exists():
        if path.suffix.lower() == ".gguf":
            raise DemurError(f"{model} is a .gguf file", "a folder or a hub id with a config.json", "name its origin")
        return _config_at(path, model)
    if model in KNOWN:
        return KNOWN[model]
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise DemurError(
            f"no model {model!r}", "a folder, a built-in name or a hub id owner/name", "run `demur models`"
        )
    return _hub_config(model)


def _config_at(folder: Path, model: str) -> Mapping[str, Any]:
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DemurError(f"{model} has no config.json to read ({error})", "one", "name a folder of a model") from error
    if not isinstance(raw, dict):
        raise DemurError(f"the config.json of {model} holds no object", "one", "name a folder of a model")
    return raw


def _hub_config(model: str) -> Mapping[str, Any]:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    from demur.models import hub_is_reachable

    here = try_to_load_from_cache(model, "config.json")
    if isinstance(here, str):
        return _config_at(Path(here).parent, model)
    try:
        if not hub_is_reachable():  # asked first: the hub's own client tries for half a minute
            raise ConnectionError("the hub can not be reached")
        return _config_at(Path(hf_hub_download(model, "config.json")).parent, model)
    except DemurError:
        raise
    except Exception as error:  # what a download can raise is no closed list
        documented = ", ".join(name for name in KNOWN if "/" in name)
        first = (str(error).strip().splitlines() or [""])[0][:120]
        raise DemurError(
            f"the configuration of {model} is not here and could not be fetched ({type(error).__name__}: {first})",
            f"a folder, the hub, or one of {documented}",
            "download its config.json and name the folder",
        ) from error
