"""A GGUF file's weights in a native class, every one in its place: what is missing or left over is an error."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demur.models.gguf.blocks import all_dequantised, dequantised
from demur.models.gguf.header import Header, refused
from demur.models.gguf.tokenizer import stops
from demur.types import DemurError


def native_net(header: Header, config: Any, dtype: torch.dtype, tokenizer: Any = None) -> Any:
    """The native model with the file's weights, dequantised one tensor after the other; ``tokenizer`` tells which
    tokens end an answer by their text. Raises if a tensor is missing or left over.
    """
    from transformers import AutoModelForCausalLM

    config.name_or_path = header.files[0].name
    kind = AutoModelForCausalLM._model_mapping[type(config)]
    if _translated_while_loading(header):
        net, report = _loaded_by_transformers(header, kind, config, dtype)
        left: list[str] = []
    else:
        with torch.device("meta"):
            empty = kind(config)
        state, left = _state(header, empty, config, dtype)
        net, report = kind.from_pretrained(
            None, config=config, state_dict=state, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
        )
    lost = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    left += sorted(report["unexpected_keys"])
    if lost or left:
        which = f"{len(lost)} tensors are missing or of another shape" if lost else f"{len(left)} tensors have no place"
        raise DemurError(
            f"{header.files[0].name}: {which} ({(lost or left)[0]} ...)",
            f"every weight of {type(net).__name__} as the header describes it, and no more",
            "download or convert the model again",
        )
    if "rope_freqs.weight" in header.tensors:
        _turn_by(net, torch.from_numpy(dequantised(header.tensors["rope_freqs.weight"])))
    net.generation_config.eos_token_id = stops(header, tokenizer) or net.generation_config.eos_token_id
    return net


def _translated_while_loading(header: Header) -> bool:
    """Whether transformers translates the architecture while loading (since 5.23), and only so."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    return header.architecture not in (*GGUF_SUPPORTED_ARCHITECTURES, "qwen2moe", "qwen3moe", "gpt-oss", "minimax-m2")


def _loaded_by_transformers(header: Header, kind: Any, config: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import GgufConfig

    if len(header.files) > 1:
        raise refused(header, "several parts of this architecture", "one file: llama-gguf-split --merge")
    file = header.files[0]
    return kind.from_pretrained(  # type: ignore[no-any-return]
        file.parent,
        config=config,
        gguf_file=file.name,
        dtype=dtype,
        quantization_config=GgufConfig(dequantize=True),  # whole weights: kernels for packed ones come from the hub
        output_loading_info=True,
    )


def _state(header: Header, net: Any, config: Any, dtype: torch.dtype) -> tuple[dict[str, Tensor], list[str]]:
    """The net's tensors by name, and the names of the file's tensors that found no place."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)(config=config.to_dict())
    names = get_gguf_hf_weights_map(_Names(net), processor)
    parts = Counter(names.values())
    state: dict[str, Tensor] = {}
    left: list[str] = []
    gathered = {"tensors": state}
    for name, values in all_dequantised(header):
        done = processor.process(weights=values, name=name, tensor_key_mapping=names, parsed_parameters=gathered)
        native = names.get(done.name) if done.name is not None else names.get(name.removesuffix(".weight"))
        if done.name is not None:
            if native is None:
                left += [] if _idle(header, name, values, state, names) else [name]
                continue
            state[native] = torch.from_numpy(np.ascontiguousarray(done.weights))
        elif native is not None:  # experts: one of the parts of a native tensor
            parts[native] -= 1
            if parts[native] > 0:
                continue
        if native in state and state[native].ndim > 1:  # norms and biases may stay in fp32: the loader casts them
            state[native] = state[native].to(dtype)
    return state, left


class _Names:
    """What transformers asks of a model to map names: its own and, once more without the prefix, its trunk's. Of the
    model itself it would ask every layer, and build all names again for each.
    """

    def __init__(self, net: Any, trunk: bool = True) -> None:
        self.config, self.net, self.trunk = net.config, net, trunk

    def state_dict(self) -> Mapping[str, Any]:
        """The names of the tensors."""
        return self.net.state_dict()  # type: ignore[no-any-return]

    def named_children(self) -> list[tuple[str, _Names]]:
        """The trunk."""
        prefix = self.net.base_model_prefix
        return (
            [(prefix, _Names(getattr(self.net, prefix), trunk=False))]
            if self.trunk and hasattr(self.net, prefix)
            else []
        )


def _idle(header: Header, name: str, values: Any, state: Mapping[str, Tensor], names: Mapping[str, str]) -> bool:
    """Whether a tensor changes no result: factors that are applied elsewhere, tables that are computed, blocks of
    speculative decoding, and a head that is the embedding once more.
    """
    if name == "rope_freqs.weight" or name.endswith((".attn_rot_embd", ".rotary_emb.inv_freq")):
        return True
    block = re.match(r"blk\.(\d+)\.", name)
    more = int(header.says("nextn_predict_layers", 0) or 0)
    if block and more and int(block[1]) >= int(header.says("block_count")) - more:
        return True
    embedding = state.get(names.get("token_embd.weight", ""))
    return (
        name == "output.weight"
        and embedding is not None
        and bool(torch.equal(torch.from_numpy(np.ascontiguousarray(values)).to(embedding.dtype), embedding))
    )


def _turn_by(net: Any, factors: Tensor) -> None:
    """Divides the rotary embedding's frequencies by the file's factors (Llama 3.1), as llama.cpp does."""
    rotary = net.get_decoder().rotary_emb
    if rotary.inv_freq.shape != factors.shape:
        raise DemurError(
            f"{len(factors)} rotary factors for {len(rotary.inv_freq)} frequencies", "one for each", "convert it again"
        )
    for name in ("inv_freq", "original_inv_freq"):
        if hasattr(rotary, name):
            setattr(rotary, name, getattr(rotary, name) / factors.to(rotary.inv_freq.device))
