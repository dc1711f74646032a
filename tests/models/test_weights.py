"""Weights that load and are not there: holes of zeros, where a download broke off in a file of full length."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import tiny
import torch
from safetensors import safe_open
from transformers import Gemma3TextConfig, LlamaConfig

from demur.models import load
from demur.models.weights import HOLE, say_zeros
from demur.types import DemurError, DemurWarning

SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": None, "eos_token_id": 256,
    "pad_token_id": 257,
}  # fmt: skip
TOKENS = len(small.byte_level())


def network() -> Any:
    return tiny.native(LlamaConfig(**SIZES), seed=3)


def zeroed(key: str, rows: slice) -> Any:
    net = network()
    with torch.no_grad():
        net.state_dict()[key][rows] = 0
    return net


@pytest.mark.parametrize(
    ("key", "rows"),
    [
        ("model.layers.0.mlp.up_proj.weight", slice(None)),
        ("model.layers.1.mlp.up_proj.weight", slice(64 - HOLE, None)),
        ("model.layers.1.mlp.gate_proj.weight", slice(20, 20 + HOLE)),
        ("model.layers.0.self_attn.k_proj.weight", slice(0, HOLE)),
        ("model.embed_tokens.weight", slice(100, None)),
        ("lm_head.weight", slice(TOKENS - HOLE, TOKENS)),
        ("model.norm.weight", slice(None)),
        ("model.layers.1.input_layernorm.weight", slice(None)),
    ],
)
def test_a_hole_is_said_with_its_tensor_and_size(key: str, rows: slice) -> None:
    with pytest.warns(DemurWarning, match=rf"m: 1 tensors .*\({key}: \d+ of its \d+ rows"):
        say_zeros(zeroed(key, rows), "m", TOKENS)


@pytest.mark.parametrize(
    ("key", "rows", "tokens"),
    [
        ("model.norm.weight", slice(0, 0), TOKENS),
        ("model.embed_tokens.weight", slice(TOKENS, None), TOKENS),  # padding up to a round number
        ("model.embed_tokens.weight", slice(257, 258), TOKENS),  # the padding token
        ("model.layers.0.mlp.up_proj.weight", slice(3, 3 + HOLE - 1), TOKENS),  # neurons that are switched off
        ("model.layers.0.mlp.up_proj.weight", slice(0, None, 2), TOKENS),
        ("model.norm.weight", slice(0, 0), None),
    ],
)
def test_zeros_that_belong_there_are_not(key: str, rows: slice, tokens: int | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say_zeros(zeroed(key, rows), "m", tokens)


def test_norms_that_add_1_to_their_weights_may_hold_zeros() -> None:
    net = tiny.native(Gemma3TextConfig(**SIZES, head_dim=8), seed=3)
    with torch.no_grad(), warnings.catch_warnings():
        net.model.norm.weight.zero_()
        warnings.simplefilter("error")
        say_zeros(net, "m", TOKENS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.norm.weight", 0.0), ("lm_head.weight", 0.0), ("model.layers.1.mlp.up_proj.weight", 1e30),
        ("model.embed_tokens.weight", 0.0), ("model.embed_tokens.weight", 1e25),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*zeros only")
def test_a_model_that_tells_no_token_from_another_is_one_line(key: str, value: float, tmp_path: Path) -> None:
    net = network()
    with torch.no_grad():
        net.state_dict()[key].mul_(value)
    net.save_pretrained(tmp_path)
    small.byte_level().save_pretrained(tmp_path)
    with pytest.raises(DemurError, match="gives every token of its vocabulary the same logit"):
        load(tmp_path)


@pytest.mark.parametrize("ends_at", [0.5, 0.8, 0.95])
def test_a_file_of_full_length_that_was_not_filled_to_its_end_is_said(ends_at: float, tmp_path: Path) -> None:
    network().save_pretrained(tmp_path)
    small.byte_level().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    with safe_open(file, "np") as tensors:
        assert all(np.abs(tensors.get_tensor(name)).sum() for name in tensors.keys())  # noqa: SIM118 (no mapping)
    data = bytearray(file.read_bytes())
    end = int(len(data) * ends_at)
    file.write_bytes(bytes(data[:end]) + bytes(len(data) - end))
    with (
        pytest.warns(DemurWarning, match="as where a download was broken off"),
        pytest.raises(DemurError, match="the same logit"),  # the last norm is gone, too
    ):
        load(tmp_path, device="cpu")
