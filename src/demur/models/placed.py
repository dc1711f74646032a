"""What a checkpoint stores, compared with what the model took.

No tensor is left out, doubled or misread without a word.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from demur.models.checkpoint import Stored, optional_file
from demur.models.idle import BLOCK, idle
from demur.types import DemurError, DemurWarning


def check_left_over(
    name: str, unread: Iterable[str], stored: Mapping[str, Stored], raw: Mapping[str, Any], net: Any
) -> None:
    """Raise if the model did not take a tensor that is not known to be idle, or a copy of one that it did take."""
    left = [key for key in sorted(unread) if not idle(key, raw, stored[key].shape if key in stored else None)]
    left = [key for key in left if not (key in stored and _is_the_embedding(stored[key], key, net))]
    if not left:
        return
    what = ""
    block = max((int(found[1]) for key in left if (found := BLOCK.search(key))), default=-1)
    blocks = getattr(net.config.get_text_config(decoder=True), "num_hidden_layers", None)
    if isinstance(blocks, int) and block >= blocks:
        what = f": it has blocks up to {block + 1}, and config.json says {blocks}"
    raise DemurError(
        f"{name}: {len(left)} tensors have no place in {type(net).__name__} ({left[0]} ...){what}",
        "a checkpoint whose every tensor is used, since one that is not may change the results",
        "check config.json, or take the checkpoint that it belongs to",
    )


def _is_the_embedding(tensor: Stored, key: str, net: Any) -> bool:
    """Whether a left-over tensor is the embedding once more, which tied models store under the head's name."""
    embedding = net.get_input_embeddings().weight
    if not key.endswith(("lm_head.weight", "embed_out.weight", "ff_out.weight", "decoder.weight", "output.weight")):
        return False
    return tuple(embedding.shape) == tensor.shape and _same_rows(tensor, key, embedding)


def _same_rows(tensor: Stored, key: str, weight: Any) -> bool:
    from safetensors import safe_open

    with safe_open(tensor.file, framework="pt") as data:
        part = data.get_slice(key)
        for start in range(0, tensor.shape[0], 4096):
            rows = part[start : start + 4096].to(weight.dtype)
            if not torch.equal(rows, weight[start : start + 4096].detach().to("cpu")):
                return False
    return True


_HEADS = ("lm_head.weight", "embed_out.weight", "model.transformer.ff_out.weight", "language_model.lm_head.weight")


def check_tied_head(name: str, stored: Mapping[str, Stored], raw: Mapping[str, Any]) -> None:
    """Raise if a checkpoint that is said to be tied stores a head with other rows than its vocabulary has."""
    key = next((key for key in _HEADS if key in stored), None)
    text = raw.get("text_config") if isinstance(raw.get("text_config"), Mapping) else raw
    rows = (text or {}).get("embedding_size") or (text or {}).get("vocab_size")
    if key is not None and isinstance(rows, int) and len(stored[key].shape) == 2 and stored[key].shape[0] != rows:
        raise DemurError(
            f"{name}: config.json ties the head to an embedding of {rows} tokens, and the checkpoint holds "
            f"{key} of {stored[key].shape[0]}",
            "one of the two",
            "set tie_word_embeddings (LLaDA: weight_tying) and vocab_size to what the model was trained with",
        )


def check_own_head(name: str, stored: Mapping[str, Stored], net: Any) -> None:
    """Raise if a checkpoint that is said to be tied stores a head of its own, and the model does not use it."""
    head = net.get_output_embeddings()
    key = next((key for key in _HEADS if key in stored), None)
    if key is None or head is None or not head.weight.is_floating_point() or head.weight.device.type == "meta":
        return
    if tuple(head.weight.shape) == stored[key].shape and not _same_rows(stored[key], key, head.weight):
        raise DemurError(
            f"{name}: config.json ties the head to the embedding, and the checkpoint has another head ({key})",
            "one of the two",
            "set tie_word_embeddings (LLaDA: weight_tying) in config.json to what the model was trained with",
        )


_FREQUENCIES = re.compile(r"inv_freq$")
_SMALLEST = 6e-8
"""A step of fp16 near zero: stored in it, the slowest frequencies of a large base are rounded by more than a share."""
_OF_OTHERS = re.compile(r"vision|visual|image|audio|speech")


def say_other_rotation(name: str, stored: Mapping[str, Stored], net: Any) -> None:
    """Warn of rotary frequencies in a checkpoint that are not those which config.json asks for: transformers goes by
    config.json, and one of the two is not what the model was trained with. Old checkpoints hold them unscaled.
    """
    from safetensors import safe_open

    kept = [values.float().cpu() for key, values in net.named_buffers() if _FREQUENCIES.search(key)]
    theta = getattr(net.config.get_text_config(decoder=True), "rope_parameters", None) or {}
    for key in sorted(key for key in stored if _FREQUENCIES.search(key) and not _OF_OTHERS.search(key)):
        with safe_open(stored[key].file, framework="pt") as data:
            values = data.get_tensor(key).float().flatten()
        base, places = theta.get("rope_theta"), torch.arange(len(values)) / max(1, len(values))
        plain = [float(base) ** -places] if isinstance(base, int | float) else []
        same = [one for one in (*kept, *plain) if one.shape == values.shape]
        if same and not any(torch.allclose(one, values, rtol=0.02, atol=_SMALLEST) for one in same):
            warnings.warn(
                f"{name}: the checkpoint holds rotary frequencies ({key}) that are not those of config.json, by which "
                "the model turns its positions: check rope_theta and rope_scaling (rope_parameters) in config.json",
                DemurWarning,
                stacklevel=6,
            )
            return


_WRAPPED = (
    "_orig_mod.",
    "module.",
    "_fsdp_wrapped_module.",
    "_forward_module.",
    "base_model.model.",
    "_checkpoint_wrapped_module.",
)


def check_names(name: str, stored: Mapping[str, Stored]) -> None:
    """Raise for names that a wrapper has left in the checkpoint: a compiled, distributed or adapted model."""
    for prefix in _WRAPPED:
        found = [key for key in stored if prefix in key and (key.startswith(prefix) or prefix.startswith("_"))]
        if found:
            raise DemurError(
                f"{name}: its tensors are named as those of a wrapped model ({found[0]})",
                "the names of the model itself",
                f"save it again without the wrapper, or take {prefix!r} off the names",
            )


def check_names_once(name: str, stored: Mapping[str, Stored], keys: Mapping[str, str], net: Any) -> None:
    """Raise if two tensors of a checkpoint stand for one of the model's: under the name of the whole model and of its
    trunk, or under a family's old and new names (``keys``). transformers takes one of the two without a word.
    """
    own, prefix = net.state_dict().keys(), f"{net.base_model_prefix}."
    by_native: dict[str, str] = {}
    for key in sorted(stored):
        native = key
        for form, new in keys.items():
            native = re.sub(form, new, native)
        native = next((n for n in (native, prefix + native, native.removeprefix(prefix)) if n in own), "")
        if native and native in by_native:
            raise DemurError(
                f"{name}: {by_native[native]} and {key} are one tensor of {type(net).__name__}, stored twice",
                "every tensor under one name",
                "delete the one that is not the model's, and save it again",
            )
        by_native[native] = key


# -- quantised weights --------------------------------------------------------------------------------------

_PACKED = re.compile(r"(weight|bias|qweight|weight_packed|qzeros|gate_up_proj|down_proj|_blocks)$")
_WHOLE = ("F16", "BF16", "F32", "F64")


def _scaled(key: str, stored: Mapping[str, Stored]) -> bool:
    return key.endswith(("_scale_inv", "_scale")) or f"{key}_scale_inv" in stored or f"{key}_scale" in stored


def check_quantised(
    name: str,
    where: str | Path,
    hub: Mapping[str, Any],
    raw: Mapping[str, Any],
    stored: Mapping[str, Stored],
    converted: bool,
) -> None:
    """Raise for weights of few bits that nothing here would scale back, before they are read as if they were whole.

    ``converted``: the family's configuration is made by us, so that transformers would not see how it is quantised.
    """
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    text = raw.get("text_config")
    settings = raw.get("quantization_config") or (
        text.get("quantization_config") if isinstance(text, Mapping) else None
    )
    whole = "a checkpoint with whole weights (bf16, fp16, fp32)"
    if settings:
        method = str(
            settings.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in settings else "nothing named")
        )
        if method == "bitsandbytes":
            method += "_8bit" if settings.get("load_in_8bit") else "_4bit"
        if method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
            raise DemurError(
                f"{name} is quantised by {method!r}, which transformers does not load",
                whole,
                "take the unquantised model",
            )
        if method == "bitsandbytes_8bit":
            raise DemurError(
                f"{name} holds 8-bit weights (LLM.int8), with which a row depends on its neighbours", whole, "take 4bit"
            )
        if method != "bitnet" and all(
            tensor.dtype in _WHOLE for tensor in stored.values()
        ):  # that one rounds as it runs
            raise DemurError(
                f"{name}: config.json says that it is quantised by {method!r}, and every weight is stored whole",
                "a configuration of the weights that lie beside it",
                "take quantization_config out of config.json, or download the weights that belong to it; "
                "quantize='4bit' (--dtype 4bit) makes whole weights small while they are loaded",
            )
        bare = [key for key, tensor in stored.items() if tensor.dtype.startswith("F8") and not _scaled(key, stored)]
        if method == "fp8" and bare:
            raise DemurError(
                f"{name}: {len(bare)} tensors are stored in {stored[bare[0]].dtype} without their scales "
                f"({bare[0]}_scale_inv ...)",
                "every weight of eight bits with its scale",
                "download or convert it again",
            )
        if converted:
            raise DemurError(
                f"{name} is quantised by {method!r}, which its family's native class does not read",
                whole,
                "take that one",
            )
        return
    few = [
        key
        for key, tensor in stored.items()
        if tensor.dtype not in _WHOLE
        and (tensor.dtype.startswith("F") or (_PACKED.search(key) and not idle(key, raw, tensor.shape)))
    ]
    if few:
        how = optional_file(where, hub, "hf_quant_config.json")
        says = (
            "only hf_quant_config.json says how to scale them" if how else "config.json does not say how to scale them"
        )
        raise DemurError(
            f"{name}: {len(few)} tensors are stored in {stored[few[0]].dtype} ({few[0]} ...), and {says}",
            f"{whole}, or a quantization_config that transformers knows",
            "take the unquantised model",
        )
