"""From what a header says to the configuration of a native class: what has no place there is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from demur.models.gguf.header import Header, refused

_SHAPE = {
    "context_length": ("max_position_embeddings",),
    "embedding_length": ("hidden_size",),
    "block_count": ("num_hidden_layers",),
    "feed_forward_length": ("intermediate_size",),
    "vocab_size": ("vocab_size",),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps", "layer_norm_eps"),
    "attention.layer_norm_epsilon": ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps"),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
}
"""Keys that are an attribute of the configuration: the first one of these that it has is set to the file's value."""

_ELSEWHERE = (
    "rope.freq_base", "rope.freq_base_swa", "rope.dimension_count",
    "attention.value_length", "attention.sliding_window", "attention.causal",
    "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.attn_factor",
    "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scale_linear",
    "rope.scaling.finetuned",  # tells of the training, not of the computation
    "tensor_data_layout",  # of the file that was converted
    "use_parallel_residual",  # transformers reads it off the tensors
    "nextn_predict_layers",  # layers for speculative decoding, which are not taken
)  # fmt: skip
"""Keys that are read below, and those that change no result."""

_OWN = {
    "lfm2": ("shortconv.l_cache",),
    "qwen35": ("ssm.", "rope.dimension_sections", "full_attention_interval"),
    "qwen35moe": ("ssm.", "rope.dimension_sections", "full_attention_interval"),
    "gpt-oss": ("expert_gating_func",),
    "minimax-m2": ("expert_gating_func",),
}
"""Keys that transformers' translation of an architecture reads; a name with a dot at its end is a beginning."""

_NOTHING = (0, 0.0, False, "", None)
_PARTIAL = ("stablelm", "phi3", "nemotron", "minimax-m2")
"""Architectures whose native class may rotate a part of each head."""
_GEMMA_27B = {"gemma2": 46, "gemma3": 62}
"""The query is scaled by the size of a head; but of these models, by their number of blocks, by hidden size / heads."""


def configured(header: Header, config: Any) -> Any:
    """transformers' configuration of the file, corrected by what the header says. Raises for what has no place."""
    arch = header.architecture
    _check_keys(header)
    _check_said(header, config)
    found = config.to_dict()
    new = _numbers(header, config) | _window(header, config)
    head = header.says("attention.key_length") or found.get("head_dim")
    if header.says("attention.value_length", head) != head and arch not in _OWN:
        raise refused(header, f"keys of {head} and values of {header.says('attention.value_length')}", "equal ones")
    if arch in _GEMMA_27B:
        whole = header.says("block_count") == _GEMMA_27B[arch]
        new["query_pre_attn_scalar"] = new["hidden_size"] // new["num_attention_heads"] if whole else head
    if arch == "llama" and "blk.0.attn_q.bias" in header.tensors:
        new["attention_bias"] = True
    new["tie_word_embeddings"] = "output.weight" not in header.tensors or found.get("tie_word_embeddings", False)
    if arch not in _OWN and (rotation := _rotation(header, config, found)) is not None:
        new["rope_parameters"] = rotation
    return type(config).from_dict(found | new | _ends(header))


def _check_said(header: Header, config: Any) -> None:
    """Raise for a file that leaves out what llama.cpp wants said: the class would take a number of its own."""
    if header.says("context_length") is None:
        raise refused(header, "it does not say how long its context is", f"{header.architecture}.context_length")
    norms = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
    if header.says(norms[0]) is None and header.says(norms[1]) is None:
        raise refused(header, "it does not say the epsilon of its norms", f"{header.architecture}.{norms[0]}")
    if header.says("expert_count") and not header.says("expert_used_count"):
        raise refused(
            header,
            f"it does not say how many of its {header.says('expert_count')} experts read a token",
            f"{header.architecture}.expert_used_count",
        )
    width = getattr(config, "sliding_window", None)
    said = header.says("attention.sliding_window")
    if width and width < header.says("context_length") and said is None and header.architecture != "gemma2":
        # For Gemma 2, llama.cpp has the width that the class has.
        raise refused(header, "it does not say its sliding window", f"{header.architecture}.attention.sliding_window")


def _ends(header: Header) -> dict[str, Any]:
    """The tokens that begin and end a text, none where the file names none: a class has numbers of its own, which are
    other words here. Files of SentencePiece's pieces have 1 and 2, as in llama.cpp.
    """
    usual = {"bos": 1, "eos": 2} if header.fields.get("tokenizer.ggml.model") == "llama" else {}
    named = {name: header.fields.get(f"tokenizer.ggml.{name}_token_id", usual.get(name)) for name in ("bos", "eos")}
    return {f"{name}_token_id": i for name, i in named.items()}


def _check_keys(header: Header) -> None:
    """Raise for a key of the architecture that nothing here or in transformers' translation reads."""
    own = _OWN.get(header.architecture, ())
    for key, value in header.fields.items():
        name = key.removeprefix(f"{header.architecture}.")
        if name == key or name in _SHAPE or name in _ELSEWHERE or any(name.startswith(mine) for mine in own):
            continue
        if value in _NOTHING or (name.endswith("scale") and value == 1):
            continue
        raise refused(header, f"{key}={str(value)[:40]} changes results and is not known")
    if header.says("attention.causal", True) is False:
        raise refused(header, "attention.causal is false", "a causal model")


def _numbers(header: Header, config: Any) -> dict[str, Any]:
    """Sizes, numbers of heads and the like, under the names that the configuration has for them."""
    new: dict[str, Any] = {}
    for key, names in _SHAPE.items():
        value = header.says(key)
        if isinstance(value, list):
            value = value[0] if len(set(value)) == 1 else None  # by layer: lfm2's own translation takes them
        if not value:
            continue
        name = next((name for name in names if hasattr(config, name)), None)
        if name is not None:
            new[name] = value
        elif key not in ("context_length", "vocab_size"):
            raise refused(header, f"{header.architecture}.{key}={value} has no place in {type(config).__name__}")
    return new


def _window(header: Header, config: Any) -> dict[str, Any]:
    """The sliding window: set where the class has one that is on, let be where it covers the context, else refused."""
    width = header.says("attention.sliding_window")
    if not width or width >= header.says("context_length", 0):
        return {}
    if getattr(config, "sliding_window", None) is None and config.model_type not in ("mistral", "phi3", "starcoder2"):
        raise refused(header, f"a sliding window of {width} has no place in {type(config).__name__}")
    return {"sliding_window": width}


def _rotation(header: Header, config: Any, found: Mapping[str, Any]) -> dict[str, Any] | None:
    """The parameters of the rotary embedding. Raises for factors by length (LongRoPE) and a part of each head."""
    old = getattr(config, "rope_parameters", None)
    scaling = _scaling(header)
    if old is None:
        if scaling or "rope_freqs.weight" in header.tensors:
            raise refused(header, "scaled rotary positions for a class without them")
        return None
    if any(name.startswith("rope_factors_") for name in header.tensors):
        raise refused(header, "rotary factors for short and long texts (LongRoPE)")
    by_kind = isinstance(old.get("full_attention"), Mapping)  # Gemma 3: sliding layers have their own, unscaled
    of = dict(old["full_attention"] if by_kind else old)
    of["rope_theta"] = header.says("rope.freq_base", 10000.0)  # llama.cpp's, whatever the class has
    heads = header.says("attention.head_count")
    size = header.says("attention.key_length") or (
        header.says("embedding_length") // heads if isinstance(heads, int) else found.get("head_dim")
    )
    turned = header.says("rope.dimension_count", size)
    if turned != size and header.architecture not in _PARTIAL:
        raise refused(header, f"{turned} of {size} dimensions of a head are rotated", "all of them")
    if header.architecture in _PARTIAL or "partial_rotary_factor" in of:  # a class may rotate a part, unasked
        of["partial_rotary_factor"] = turned / size
    of |= scaling or {"rope_type": "default"}
    local = header.says("rope.freq_base_swa")  # of the layers with a sliding window
    if not by_kind:
        if local not in (None, of.get("rope_theta")):
            raise refused(header, f"rope.freq_base_swa={local:g} beside {of.get('rope_theta'):g}", "one base")
        return of
    sliding = dict(old.get("sliding_attention") or {}) | ({} if local is None else {"rope_theta": local})
    return dict(old) | {"full_attention": of} | ({"sliding_attention": sliding} if sliding else {})


def _scaling(header: Header) -> dict[str, Any]:
    """Scaled rotary positions in transformers' words; empty where there are none."""
    kind = str(header.says("rope.scaling.type", "linear"))
    factor = float(header.says("rope.scaling.factor", header.says("rope.scale_linear", 0.0)) or 1.0)
    stretched = float(header.says("rope.scaling.attn_factor", 1.0) or 1.0)
    if kind == "none" or (factor == 1.0 and stretched == 1.0):
        return {}
    if kind == "linear" and stretched == 1.0:
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        raise refused(header, f"rope.scaling.type={kind!r} with attn_factor={stretched:g}", "linear or yarn")
    found: dict[str, Any] = {"rope_type": "yarn", "factor": factor}
    found["original_max_position_embeddings"] = int(
        header.says("rope.scaling.original_context_length") or header.says("context_length")
    )
    if stretched != 1.0:
        found["attention_factor"] = stretched * (1.0 + 0.1 * math.log(factor))
    for key, name in (("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")):
        value = header.says(f"rope.scaling.{key}")
        if value is not None:
            found[name] = value
    return found
