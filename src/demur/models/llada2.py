"""LLaDA2 on a native class: its layers are GLM-4-MoE's with fused projections and one bias more.

Facts of the checkpoint: the public modelling code of LLaDA2 (``LLaDA2MoeModelLM``). Queries, keys and values are one
matrix, experts are stored one by one, and the attention's output projection may have a bias. Experts' outputs are
weighted and added in fp32, and logits are taken to fp32 before anything is done with them; in bf16 either is enough to
change tokens, so both are done here too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from demur.types import DemurError

_RENAMED = (
    (r"^model\.word_embeddings\.", "model.embed_tokens."),
    (r"\.attention\.dense\.", ".self_attn.o_proj."),
    (r"\.attention\.query_layernorm\.", ".self_attn.q_norm."),
    (r"\.attention\.key_layernorm\.", ".self_attn.k_norm."),
    (r"\.mlp\.gate\.expert_bias$", ".mlp.gate.e_score_correction_bias"),
)
_FUSED = re.compile(r"(model\.layers\.\d+)\.attention\.query_key_value\.(weight|bias)$")
_EXPERT = re.compile(r"(model\.layers\.\d+\.mlp\.experts)\.(\d+)\.(gate|up|down)_proj\.weight$")


def native_config(raw: Mapping[str, Any]) -> Any:
    """LLaDA2's configuration in GLM-4-MoE's words. Raises for a variant that the native class does not compute."""
    from transformers import Glm4MoeConfig

    if raw.get("rope_scaling") or raw.get("norm_head") or raw.get("use_sliding_window"):
        raise DemurError(
            "a LLaDA2 checkpoint with rope_scaling, norm_head or sliding windows", "none of these", "use another"
        )
    config = Glm4MoeConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_hidden_layers=raw["num_hidden_layers"],
        num_attention_heads=raw["num_attention_heads"],
        num_key_value_heads=raw["num_key_value_heads"],
        max_position_embeddings=raw["max_position_embeddings"],
        rms_norm_eps=raw["rms_norm_eps"],
        attention_bias=raw.get("use_qkv_bias", False),
        use_qk_norm=raw.get("use_qk_norm", True),
        n_routed_experts=raw["num_experts"],
        n_shared_experts=raw.get("num_shared_experts") or 0,
        num_experts_per_tok=raw["num_experts_per_tok"],
        n_group=raw["n_group"],
        topk_group=raw["topk_group"],
        routed_scaling_factor=raw.get("routed_scaling_factor", 2.5),
        norm_topk_prob=raw["num_experts_per_tok"] > 1,
        moe_intermediate_size=raw["moe_intermediate_size"],
        first_k_dense_replace=raw.get("first_k_dense_replace", 0),
        tie_word_embeddings=raw.get("tie_word_embeddings", False),
        pad_token_id=raw.get("pad_token_id"),
        eos_token_id=raw.get("eos_token_id"),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": raw["rope_theta"],
            "partial_rotary_factor": raw.get("partial_rotary_factor", 0.5),
        },
    )
    config.head_dim = raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"]
    return config


def checkpoint_tensors(where: str | Path, hub: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a folder's or a hub repository's safetensors files, one at a time, mapped and not copied."""
    from huggingface_hub import snapshot_download
    from safetensors import safe_open

    folder = where
    if not isinstance(where, Path):
        options = {k: v for k, v in hub.items() if k in ("revision", "local_files_only")}
        folder = snapshot_download(where, allow_patterns=["*.safetensors", "*.json"], **options)
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                yield name, tensors.get_tensor(name)


def native_net(raw: Mapping[str, Any], tensors: Iterable[tuple[str, Tensor]], dtype: torch.dtype) -> Any:
    """A native model of a checkpoint's tensors, taken over one by one and not copied twice.

    Raises, naming the first, if tensors are missing or left over.
    """
    from transformers import Glm4MoeForCausalLM

    config = native_config(raw)
    with torch.device("meta"):
        net = Glm4MoeForCausalLM(config)
        if raw.get("use_bias", True):
            for layer in net.model.layers:
                old = layer.self_attn.o_proj
                layer.self_attn.o_proj = torch.nn.Linear(old.in_features, old.out_features, bias=True)
    state: dict[str, Tensor] = {}
    experts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors:
        value = tensor.to(dtype) if tensor.is_floating_point() else tensor
        if fused := _FUSED.match(name):
            heads, groups = raw["num_attention_heads"], raw["num_key_value_heads"]
            sizes = [heads * config.head_dim, groups * config.head_dim, groups * config.head_dim]
            for part, piece in zip("qkv", torch.split(value, sizes), strict=True):
                state[f"{fused[1]}.self_attn.{part}_proj.{fused[2]}"] = piece
        elif expert := _EXPERT.match(name):
            experts.setdefault(expert[1], {})[f"{expert[2]} {expert[3]}"] = value
        else:
            native = name
            for pattern, replacement in _RENAMED:
                native = re.sub(pattern, replacement, native)
            state[native] = value
    for prefix, found in experts.items():
        numbers = range(raw["num_experts"])
        if len(found) != 3 * len(numbers):
            raise DemurError(f"{prefix}: {len(found)} tensors", f"{3 * len(numbers)}", "download the checkpoint again")
        gates = [torch.cat([found.pop(f"{i} gate"), found.pop(f"{i} up")]) for i in numbers]
        state[f"{prefix}.gate_up_proj"] = torch.stack(gates)
        state[f"{prefix}.down_proj"] = torch.stack([found.pop(f"{i} down") for i in numbers])
    missing, unread = net.load_state_dict(state, assign=True, strict=False)
    if missing or unread:
        raise DemurError(
            f"a LLaDA2 checkpoint with {len(missing)} tensors missing and {len(unread)} left over "
            f"({[*missing, *unread][0]} ...)",
            "the tensors that its config.json describes",
            "download it again",
        )
    net.model.rotary_emb = type(net.model.rotary_emb)(config)
    sum_experts_in_fp32(net)
    logits_in(net, torch.float32)
    return net.eval()


def logits_in(net: Any, dtype: torch.dtype) -> None:
    """Makes a model give its logits in another dtype than its own."""

    def taken(_module: object, _inputs: object, logits: Tensor) -> Tensor:
        return logits.to(dtype)

    net.get_output_embeddings().register_forward_hook(taken)


def sum_experts_in_fp32(net: Any) -> None:
    """Makes a native mixture of experts weight and add the experts' outputs in fp32."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    def forward(
        self: Any, states: Float[Tensor, "n d"], chosen: Int[Tensor, "n k"], weights: Float[Tensor, "n k"]
    ) -> Float[Tensor, "n d"]:
        # Sorted by expert, so that a device is asked once for all of them, how many tokens each has.
        which, order = chosen.flatten().sort(stable=True)
        numbers = torch.arange(len(self.gate_up_proj) + 1, device=which.device)
        bounds = torch.searchsorted(which, numbers.to(which.dtype)).tolist()
        token, parts = order // chosen.shape[1], []
        for expert, (begin, end) in enumerate(itertools.pairwise(bounds)):
            if begin < end:
                mine = states[token[begin:end]]
                gate, up = torch.nn.functional.linear(mine, self.gate_up_proj[expert]).chunk(2, dim=-1)
                parts.append(torch.nn.functional.linear(self.act_fn(gate) * up, self.down_proj[expert]))
        by_expert = torch.cat(parts)
        outputs = torch.empty_like(by_expert)
        outputs[order] = by_expert
        outputs = outputs.view(*chosen.shape, -1)
        total: Float[Tensor, "n d"] = (outputs.to(weights.dtype) * weights[..., None]).sum(dim=1)
        return total.to(states.dtype)

    ALL_EXPERTS_FUNCTIONS.register("sum_in_fp32", forward)
    net.config._experts_implementation = "sum_in_fp32"
