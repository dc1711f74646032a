"""Configurations of checkpoints in the words of the native classes that run them.

Facts of the checkpoints: their public ``config.json`` files and modelling code. What a native class does not compute is
refused here, before any weight is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demur.types import DemurError


def llada_config(raw: Mapping[str, Any]) -> Any:
    """LLaDA's configuration in Llama's words. Raises for variants that no Llama computes."""
    from transformers import LlamaConfig

    required = {
        "block_type": "llama",
        "layer_norm_type": "rms",
        "alibi": False,
        "rope": True,
        "activation_type": "silu",
    }
    required |= {"attention_layer_norm": False, "input_emb_norm": False, "scale_logits": False}
    required |= {"include_bias": False, "include_qkv_bias": False, "bias_for_layer_norm": False}
    for key, value in required.items():
        if (found := raw.get(key, value)) != value and (found or value):  # None is False
            raise DemurError(f"a LLaDA checkpoint with {key}={found!r}", f"{key}={value!r}", "this one can't be run")
    return LlamaConfig(
        vocab_size=raw.get("embedding_size") or raw["vocab_size"],
        hidden_size=raw["d_model"],
        intermediate_size=raw.get("mlp_hidden_size") or raw["mlp_ratio"] * raw["d_model"],
        num_hidden_layers=raw["n_layers"],
        num_attention_heads=raw["n_heads"],
        num_key_value_heads=raw.get("n_kv_heads") or (1 if raw.get("multi_query_attention") else raw["n_heads"]),
        max_position_embeddings=raw["max_sequence_length"],
        rms_norm_eps=raw["rms_norm_eps"],
        rope_parameters={"rope_type": "default", "rope_theta": raw["rope_theta"]},
        tie_word_embeddings=bool(raw.get("weight_tying")),
        bos_token_id=None,
        eos_token_id=raw.get("eos_token_id"),
        pad_token_id=raw.get("pad_token_id"),
    )


def dream_config(raw: Mapping[str, Any]) -> Any:
    """Dream's configuration in Qwen2's words."""
    from transformers import Qwen2Config

    if raw.get("rope_scaling"):
        raise DemurError(
            f"a Dream checkpoint with rope_scaling={raw['rope_scaling']!r}", "none", "this one can't be run"
        )
    copied: tuple[str, ...] = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
    )
    copied += ("num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings")
    copied += ("bos_token_id", "eos_token_id", "pad_token_id")
    return Qwen2Config(
        **{key: raw[key] for key in copied if key in raw},
        rope_parameters={"rope_type": "default", "rope_theta": raw["rope_theta"]},
        use_sliding_window=False,
    )


def organism_config(raw: Mapping[str, Any]) -> Any:
    """The built-in diffusion organism's configuration: a Llama's own, under another ``model_type``."""
    from transformers import LlamaConfig

    return LlamaConfig(**{key: value for key, value in raw.items() if key not in ("model_type", "mask_token_id")})


def a2d_config(raw: Mapping[str, Any]) -> Any:
    """The configuration of the causal model that an A2D model was made from."""
    from transformers import AutoConfig

    rest = {k: v for k, v in raw.items() if k not in ("model_type", "auto_map", "architectures")}
    return AutoConfig.for_model(str(raw["model_type"]).removeprefix("a2d-"), **rest)


def sdar_config(raw: Mapping[str, Any]) -> Any:
    """SDAR's configuration: a Qwen3's under another name."""
    from transformers import Qwen3Config

    return Qwen3Config(**{k: v for k, v in raw.items() if k not in _SDAR_ALONE})


def sdar_moe_config(raw: Mapping[str, Any]) -> Any:
    """SDAR-MoE's configuration: a Qwen3-MoE's under another name. Raises if experts may be weighted otherwise."""
    from transformers import Qwen3MoeConfig

    if "norm_topk_prob" not in raw:
        raise DemurError(
            "an SDAR-MoE checkpoint without norm_topk_prob", "whether the experts' weights add up to 1", "add it"
        )
    return Qwen3MoeConfig(**{k: v for k, v in raw.items() if k not in _SDAR_ALONE})


_SDAR_ALONE = ("model_type", "auto_map", "architectures", "block_size", "mask_token_id", "fuse_cross_entropy")


def stable_diffcoder_config(raw: Mapping[str, Any]) -> Any:
    """Stable-DiffCoder's configuration, which is a Llama's."""
    from transformers import LlamaConfig

    return LlamaConfig(**{k: v for k, v in raw.items() if k not in ("model_type", "auto_map", "architectures")})


def nemotron_config(raw: Mapping[str, Any]) -> Any:
    """Nemotron-Labs-Diffusion's configuration, which is a Ministral 3's. Raises for what that does not compute."""
    from transformers import Ministral3Config

    for key in ("sliding_window", "attention_bias", "mlp_bias"):
        if raw.get(key):
            raise DemurError(
                f"a Nemotron-Labs-Diffusion checkpoint with {key}={raw[key]!r}", "none", "this one can't be run"
            )
    if not raw.get("rope_parameters"):
        raise DemurError(
            "a Nemotron-Labs-Diffusion checkpoint without rope_parameters", "those that it was trained with", "add them"
        )
    own: tuple[str, ...] = (
        "model_type",
        "auto_map",
        "architectures",
        "attn_implementation",
        "mask_token_id",
        "block_size",
    )
    own += ("dlm_paradigm", "dlm_loss_weight", "ar_loss_weight", "dp_varying_mask_ratio", "rope_theta", "rope_scaling")
    return Ministral3Config(**{k: v for k, v in raw.items() if k not in own})
