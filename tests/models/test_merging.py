"""An adapter that is merged is the base with its adapter, logit for logit; one that can not be is one line."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from test_checkpoints import SIZES, configured, saved
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig

from demur.models import load, merging
from demur.types import DemurError, DemurWarning

peft = pytest.importorskip("peft")

ON = ["q_proj", "v_proj"]


def logits(net: Any) -> Tensor:
    with torch.no_grad():
        return net(torch.tensor([[5, 70, 80, 90, 100, 110, 120]])).logits[0]  # type: ignore[no-any-return]


def trained(folder: Path, how: Any, tied: bool = False) -> tuple[Path, Tensor]:
    """An adapter whose every tensor was moved, saved beside its base; and the logits of the base with it."""
    base = saved(folder / "base", LlamaConfig(**SIZES, tie_word_embeddings=tied))
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), how)
        with torch.no_grad():
            for i, part in enumerate(p for p in adapted.parameters() if p.requires_grad):
                part.add_(0.3 * torch.randn(part.shape, generator=torch.Generator().manual_seed(i)))
        adapted.eval().save_pretrained(folder / "adapter")
    return folder / "adapter", logits(adapted)


def lora(**more: Any) -> Any:
    return peft.LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "lora_alpha": 8, "target_modules": ON} | more)


WAYS: dict[str, tuple[Any, bool]] = {
    "plain": (lambda: lora(), False),
    "with magnitudes (DoRA)": (lambda: lora(use_dora=True), False),
    "scaled by the root of the rank": (lambda: lora(use_rslora=True), False),
    "of a base changed by its own weights (PiSSA)": (lambda: lora(init_lora_weights="pissa"), False),
    "on the embedding of a tied model": (lambda: lora(target_modules=[*ON, "embed_tokens"]), True),
    "on the head of a tied model": (lambda: lora(target_modules=[*ON, "lm_head"]), True),
    "on both of a tied model": (lambda: lora(target_modules=[*ON, "embed_tokens", "lm_head"]), True),
    "a head of its own for a tied model": (lambda: lora(modules_to_save=["lm_head"]), True),
    "rows of its own for a tied model": (lambda: lora(trainable_token_indices=[70, 80]), True),
    "vectors (VeRA)": (lambda: peft.VeraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"), False),
    "factors (IA3)": (
        lambda: peft.IA3Config(
            target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
        ),
        False,
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", WAYS)
def test_a_merged_adapter_computes_what_the_base_with_it_computes(way: str, tmp_path: Path) -> None:
    how, tied = WAYS[way]
    adapter, wanted = trained(tmp_path, how(), tied)
    model: Any = load(adapter, device="cpu")
    torch.testing.assert_close(logits(model.net), wanted, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"layer_replication": [[0, 2], [1, 3]]}, "share the weights of one"),
        ({"init_lora_weights": "pissa_niter_4"}, "which no file holds"),
        ({"alora_invocation_tokens": [90, 100]}, "merging"),
    ],
)
def test_an_adapter_that_can_not_be_merged_is_one_line(settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    adapter, _ = trained(tmp_path, lora(**settings))
    with pytest.raises(DemurError, match=says):
        load(adapter, device="cpu")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("drawn", ["pissa_niter_16", "corda", "lora_ga"])
def test_a_base_that_was_changed_by_draws_or_data_is_not_to_be_had(drawn: str, tmp_path: Path) -> None:
    adapter, _ = trained(tmp_path, lora())
    configured(adapter, "adapter_config.json", init_lora_weights=drawn)
    with pytest.raises(DemurError, match="which no file holds"):
        load(adapter, device="cpu")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "lm_head.weight"])
def test_whatever_merging_does_otherwise_is_seen_by_its_logits(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, _ = trained(tmp_path, lora())
    merge = peft.tuners.lora.LoraModel.merge_and_unload

    def otherwise(self: Any, *more: Any, **named: Any) -> Any:
        net = merge(self, *more, **named)
        with torch.no_grad():
            net.get_parameter(part).mul_(1.2)
        return net

    monkeypatch.setattr(peft.tuners.lora.LoraModel, "merge_and_unload", otherwise)
    with pytest.raises(DemurError, match="makes another model than beside it"):
        load(adapter, device="cpu")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("settings", "idle"), [({"lora_alpha": 0}, True), ({"lora_alpha": 8}, False), ({"alpha_pattern": {"q": 2}}, False)]
)
def test_a_scale_of_nothing_is_said(settings: dict[str, Any], idle: bool, tmp_path: Path) -> None:
    adapter, _ = trained(tmp_path, lora())
    configured(adapter, "adapter_config.json", **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(adapter, device="cpu")
    told = [str(one.message) for one in caught if issubclass(one.category, DemurWarning)]
    assert any("changes nothing" in line for line in told) is idle


def test_probes_are_tokens_of_any_vocabulary() -> None:
    for rows in (1, 2, 3, 12, 264):
        net = AutoModelForCausalLM.from_config(
            LlamaConfig(**SIZES | {"vocab_size": rows, "eos_token_id": 0, "pad_token_id": 0})
        )
        assert merging._logits(net) is not None


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the extra quantized")
@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_a_base_in_four_bits_is_one_line_and_what_it_advises_works(tmp_path: Path) -> None:
    sizes = SIZES | {"hidden_size": 64, "intermediate_size": 128}
    whole = saved(tmp_path / "whole", LlamaConfig(**sizes))
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    net = AutoModelForCausalLM.from_pretrained(whole, quantization_config=how, device_map="cpu", dtype=torch.float32)
    net.save_pretrained(tmp_path / "small")
    small.byte_level().save_pretrained(tmp_path / "small")
    adapted = peft.get_peft_model(net, lora())
    with torch.no_grad():
        for part in (p for p in adapted.parameters() if p.requires_grad):
            part.add_(0.3)
    adapted.eval()
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "small")
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(DemurError, match="lie in 4 bits") as caught:
        load(tmp_path / "adapter", device="cpu")
    assert "base_model_name_or_path" in str(caught.value)
    beside = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", device_map="cpu").eval()
    model: Any = load(beside, tokenizer=small.byte_level())
    bare: Any = load(tmp_path / "small", device="cpu")
    assert (logits(model.net).float() - logits(bare.net).float()).abs().max() > 0.1, "the adapter is on"
    configured(tmp_path / "adapter", "adapter_config.json", base_model_name_or_path=str(whole))
    assert load(tmp_path / "adapter", device="cpu").identity.dtype == "float32"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("asked", [{"quantize": "4bit"}, {"device_map": "auto"}])
def test_an_adapter_in_four_bits_says_how_to_come_by_it(asked: dict[str, Any], tmp_path: Path) -> None:
    adapter, _ = trained(tmp_path, lora())
    with pytest.raises(DemurError, match="save the merged model once") as caught:
        load(adapter, device="cpu" if "quantize" in asked else None, **asked)
    assert next(iter(asked)) in str(caught.value)
