"""Families of block diffusion as checkpoints: recognised by their own config.json, run on their native class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small
import tiny
import torch
import transformers

import demur
from demur.models.families import FAMILIES, family_of, own_class
from demur.samplers import JointThreshold, build, seeded
from demur.types import DemurError, DemurWarning, Kind

COMMON = {
    "vocab_size": small.VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
    "bos_token_id": None, "eos_token_id": small.EOS, "pad_token_id": small.PAD, "rope_theta": 10000.0,
}  # fmt: skip
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "norm_topk_prob": True}
ROWS = ([70, 71, 72, 73, 74, 75, 76], [9, 8])


def stored(folder: Path, config: Any, says: dict[str, Any]) -> Path:
    """A tiny random checkpoint whose config.json says what the published ones say."""
    tiny.native(config, seed=3).save_pretrained(folder)
    small.byte_level(None).save_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | says))
    return folder


def laws(model: Any, length: int = 9) -> None:
    """A row alone is the row in a batch; a cache changes nothing; given tokens stay."""
    sampler = build(None, model)
    keys = [("last", pool) for pool in ("generated", "response", "masked")]
    canvas = model.canvas_of(ROWS, length)
    together = small.record(model, canvas, sampler, keys, range(2))
    for i, row in enumerate(ROWS):
        (alone,) = small.record(model, model.canvas_of([row], length), sampler, keys, [i])
        small.assert_same(together[i], alone)
    for holed in (canvas, model.canvas_of(ROWS, 3, [[1, 2, 5], [1]])):
        *_, last = sampler(model, holed, seeded(0, 2))
        assert torch.equal(last.ids[~holed.open], holed.ids[~holed.open])


@pytest.mark.filterwarnings("ignore:.*splits texts otherwise")
def test_sdar_moe_is_a_qwen3_moe_with_blocks(tmp_path: Path) -> None:
    says = {"model_type": "sdar_moe", "architectures": ["SDARMoeForCausalLM"], "mask_token_id": small.MASK}
    config = transformers.Qwen3MoeConfig(**COMMON | MOE, decoder_sparse_step=1)
    path = stored(tmp_path, config, says | {"block_size": 4})
    model = demur.load(path, dtype="float32", device="cpu")
    assert (model.kind, model.block_length, model.preferred) == (Kind.BLOCK, 4, "sdar")
    assert type(model.net).__name__ == "Qwen3MoeForCausalLM"
    native = tiny.native(config, seed=3)
    for name, tensor in native.state_dict().items():
        assert torch.equal(tensor, model.net.state_dict()[name]), name
    laws(model)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in raw.items() if k != "norm_topk_prob"}))
    with pytest.raises(DemurError) as caught:
        demur.load(path, dtype="float32", device="cpu")
    small.one_line(caught.value)


def test_stable_diffcoder_says_llama_and_is_told_by_its_class(tmp_path: Path) -> None:
    says = {"architectures": ["StableDiffcoderForCausalLM"], "auto_map": {"AutoModelForCausalLM": "x.y"}}
    config = transformers.LlamaConfig(**COMMON)
    model = demur.load(stored(tmp_path, config, says), dtype="bfloat16", device="cpu")
    assert (model.kind, model.block_length, model.preferred) == (Kind.BLOCK, 4, "stable-diffcoder")
    assert family_of({"model_type": "llama"} | says, "x").name == "stable-diffcoder"
    assert family_of({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "x").name == "causal"
    canvas = model.canvas_of(ROWS[:1], 4)
    logits = model.forward(canvas, canvas.open).logits
    assert logits.dtype == torch.float64
    assert torch.equal(logits, logits.bfloat16().double())
    laws(demur.load(tmp_path, dtype="float32", device="cpu"))


def test_a_class_that_comes_as_code_is_said_where_its_model_type_is_native(tmp_path: Path) -> None:
    says = {"architectures": ["SomethingElseForDiffusion"], "auto_map": {"AutoModelForCausalLM": "x.y"}}
    path = stored(tmp_path, transformers.LlamaConfig(**COMMON), says)
    with pytest.warns(DemurWarning, match="SomethingElseForDiffusion"):
        model = demur.load(path, dtype="float32", device="cpu")
    assert any("SomethingElseForDiffusion" in note for note in model.notes)
    assert own_class({"architectures": ["Phi3ForCausalLM"], "auto_map": {"AutoConfig": "x.y"}}) == ()
    assert own_class({"architectures": ["SomethingElse"]}) == ()


def test_llada_2_1_gets_the_sampler_that_edits_by_its_name() -> None:
    family = next(family for family in FAMILIES if family.name == "llada2")
    assert family.sampler_of("inclusionAI/LLaDA2.1-mini") == "joint-threshold"
    assert family.sampler_of("inclusionAI/LLaDA2.0-mini") == "llada2"
    assert JointThreshold().edit_threshold == 0.5


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_has_a_row_in_docs_models(family: Any) -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert f"| `{family.name}` |" in text
    for example in family.examples:
        assert example in text, example
