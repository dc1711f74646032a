"""What a checkpoint stores beside its weights says how they are meant; where config.json says else, it is told."""

from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from safetensors.torch import load_file, save_file
from test_checkpoints import SIZES, adapted, configured, rewritten, saved
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from demur.models import load
from demur.types import DemurError, DemurWarning, Prompt

HALF = torch.arange(4) / 4
"""A head has eight dimensions, of which two turn together."""


def said(folder: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(folder)
    return [str(one.message) for one in caught if issubclass(one.category, DemurWarning)]


def storing(folder: Path, values: Tensor, at: str = "model.layers.{}.self_attn.rotary_emb.inv_freq") -> None:
    more = {at.format(i): values for i in range(3 if "{}" in at else 1)}
    rewritten(folder, lambda tensors: tensors | more)


@pytest.mark.parametrize(
    "values", [5e5**-HALF, 1e6**-HALF, 1e4**-HALF / 4, (1e4 * 2.0 ** (8 / 6)) ** -HALF, torch.ones(4)]
)
@pytest.mark.parametrize("at", ["model.layers.{}.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"])
def test_a_stored_rotation_that_config_json_does_not_ask_for_is_said_once(
    at: str, values: Tensor, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "m")
    storing(folder, values, at)
    assert sum("rotary frequencies" in line for line in said(folder)) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("rope", "values"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, 1e4**-HALF),
        ({"rope_type": "default", "rope_theta": 5e5}, 5e5**-HALF),
        ({"rope_type": "default", "rope_theta": 3e8}, 3e8**-HALF),  # in fp16, the last one is 5% off
        # Old files hold the frequencies without the scaling, newer ones with it.
        ({"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}, 1e4**-HALF),
        ({"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}, 1e4**-HALF / 4),
    ],
)
def test_one_that_it_asks_for_is_not(rope: dict[str, Any], values: Tensor, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", LlamaConfig(**SIZES, rope_parameters=rope))
    storing(folder, values.to(dtype))
    assert said(folder) == []


def test_a_rotation_of_a_part_of_each_head_is_read_as_such(tmp_path: Path) -> None:
    sizes = {"vocab_size": 264, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": 256}
    ends: dict[str, Any] = {"bos_token_id": None, "eos_token_id": 256}
    config = GPTNeoXConfig(**sizes, **ends, rope_parameters={"rope_type": "default", "rope_theta": 1e4,
                                                             "partial_rotary_factor": 0.5})  # fmt: skip
    for theta, odd in ((1e4, False), (1e5, True)):
        folder = saved(tmp_path / str(theta), config)
        storing(folder, theta ** -(torch.arange(2) / 2), "gpt_neox.layers.{}.attention.rotary_emb.inv_freq")
        assert any("rotary frequencies" in line for line in said(folder)) is odd


@pytest.mark.parametrize("lost", [1, 3, 21])
def test_eight_bit_weights_without_all_their_scales_are_one_line(lost: int, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")

    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        scales = {}
        for name in [name for name in sorted(tensors) if "proj" in name]:
            scale = tensors[name].abs().max() / 448
            tensors[name] = (tensors[name] / scale).to(torch.float8_e4m3fn)
            scales[f"{name}_scale_inv"] = scale.reshape(1, 1)
        for name in list(scales)[:lost]:
            del scales[name]
        return tensors | scales

    rewritten(folder, change)
    configured(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
    with pytest.raises(DemurError, match=rf"{lost} tensors are stored in F8_E4M3 without their scales"):
        load(folder)


@pytest.mark.filterwarnings("ignore:.*another model's")
@pytest.mark.parametrize("unknown", ["<unk>", None])
@pytest.mark.parametrize("text", ["how do you 你 ?", "<|end|> how 🙂 do", "ß"])
def test_a_sign_without_a_token_and_without_an_unknown_one_is_one_line(text: str, unknown: str | None) -> None:
    from demur.models.control import bare_row

    words = {word: i for i, word in enumerate(("<|end|>", "how", "do", "you", "?"))}
    backend = Tokenizer(models.WordLevel(vocab=words, **({"unk_token": unknown} if unknown else {})))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    with pytest.raises(DemurError, match="has no token"):
        bare_row(tokenizer, text)
    with pytest.raises(DemurError, match="has no token"):
        load(small._net("llama"), tokenizer=tokenizer).canvas([Prompt("a", text, harmful=False)], 4)


def lora(folder: Path, base: Path, second: float, **settings: Any) -> Path:
    folder.mkdir()
    adapted(folder, str(base))
    path = folder / "adapter_config.json"
    said = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))
    file = folder / "adapter_model.safetensors"
    save_file({n: x * (second if "lora_B" in n else 1) for n, x in load_file(file).items()}, file)
    return folder


@pytest.mark.skipif(find_spec("peft") is None, reason="needs the extra adapters")
@pytest.mark.parametrize("lost", [("lora_alpha",), ("r",), ("r", "lora_alpha")])
def test_an_adapter_that_says_no_scale_is_one_line(lost: tuple[str, ...], tmp_path: Path) -> None:
    folder = lora(tmp_path / "a", saved(tmp_path / "m"), 1.0, **dict.fromkeys(lost))
    with pytest.raises(DemurError, match=f"says no {lost[0]}"):
        load(folder)


@pytest.mark.skipif(find_spec("peft") is None, reason="needs the extra adapters")
@pytest.mark.parametrize(("second", "idle"), [(0.0, True), (1e-6, False), (1.0, False)])
def test_an_adapter_that_changes_nothing_is_said(second: float, idle: bool, tmp_path: Path) -> None:
    base = saved(tmp_path / "m")
    folder = lora(tmp_path / "a", base, second)
    assert any("changes nothing" in line for line in said(folder)) is idle


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"load_in_4bit": True},
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        {"quant_method": "mxfp4"},
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "compressed-tensors", "format": "pack-quantized"},
    ],
)
def test_whole_weights_under_a_configuration_of_small_ones_are_one_line(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = saved(tmp_path / "m")
    configured(folder, quantization_config=settings)
    with pytest.raises(DemurError, match="every weight is stored whole"):
        load(folder)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the extra quantized")
@pytest.mark.filterwarnings("ignore")
def test_weights_that_lie_in_four_bits_are_those_that_are_made_so_while_loading(tmp_path: Path) -> None:
    sizes = SIZES | {"hidden_size": 64, "intermediate_size": 128}
    whole = saved(tmp_path / "whole", LlamaConfig(**sizes))
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    net = AutoModelForCausalLM.from_pretrained(whole, quantization_config=how, device_map="cpu", dtype=torch.float32)
    net.save_pretrained(tmp_path / "small")
    small.byte_level().save_pretrained(tmp_path / "small")
    made, read = load(whole, quantize="4bit", device="cpu"), load(tmp_path / "small", device="cpu")
    assert read.identity.dtype == made.identity.dtype == "float32, 4bit"
    assert read.identity.weights == made.identity.weights
