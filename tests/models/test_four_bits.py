"""Layers of four bits compute the numbers that they hold, whatever was read or asked before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from test_checkpoints import SIZES, saved
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig

from demur.models import load
from demur.traces import generate
from demur.types import Prompt

functional = pytest.importorskip("bitsandbytes").functional
pytestmark = pytest.mark.filterwarnings("ignore")

WIDE = SIZES | {"hidden_size": 64, "intermediate_size": 128}


def logits(net: Any) -> Tensor:
    with torch.no_grad():
        return net(torch.tensor([[5, 70, 80, 90, 100, 110, 120]])).logits[0]  # type: ignore[no-any-return]


def in_four_bits(whole: Path, twice: bool = False, kind: str = "nf4") -> Any:
    how = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_compute_dtype=torch.float32,
        bnb_4bit_use_double_quant=twice,
    )  # fmt: skip
    return AutoModelForCausalLM.from_pretrained(
        whole, quantization_config=how, device_map="cpu", dtype=torch.float32
    ).eval()


def wanted(whole: Path, twice: bool = False, kind: str = "nf4") -> Tensor:
    """The logits of a whole model with the numbers that the layers of four bits hold before anybody asked them."""
    few, net = in_four_bits(whole, twice, kind), AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32)
    with torch.no_grad():
        for name, module in few.named_modules():
            if hasattr(getattr(module, "weight", None), "quant_state"):
                numbers = functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
                net.get_submodule(name).weight.copy_(numbers)
    return logits(net.eval())


def check_known(kind: str) -> None:
    """Skips where bitsandbytes knows no such numbers on a CPU (fp4, in older versions)."""
    try:
        functional.quantize_4bit(torch.ones(64, 64), quant_type=kind)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        pytest.skip(f"{kind} on a CPU: {error}"[:100])


def asked(net: Any) -> None:
    logits(net)


def saved_before(net: Any) -> None:
    logits(net)
    net.state_dict()


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("before", [lambda _: None, asked, saved_before])
def test_a_net_in_memory_computes_its_numbers(
    before: Callable[[Any], None], twice: bool, kind: str, tmp_path: Path
) -> None:
    check_known(kind)
    whole = saved(tmp_path / "whole", LlamaConfig(**WIDE))
    net = in_four_bits(whole, twice, kind)
    before(net)
    model: Any = load(net, tokenizer=small.byte_level())
    # A pass before may have rounded the scales to bf16.
    torch.testing.assert_close(
        logits(model.net), wanted(whole, twice, kind), rtol=0, atol=1e-4 if before.__name__ == "<lambda>" else 0.2
    )


@pytest.mark.parametrize("what", ["made while loading", "stored"])
def test_neither_loading_nor_generating_nor_saving_changes_them(what: str, tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole", LlamaConfig(**WIDE))
    if what == "stored":
        in_four_bits(whole).save_pretrained(tmp_path / "small")
        small.byte_level().save_pretrained(tmp_path / "small")
        model: Any = load(tmp_path / "small", device="cpu")
    else:
        model = load(whole, quantize="4bit", device="cpu")
    right = wanted(whole)
    torch.testing.assert_close(logits(model.net), right, rtol=0, atol=1e-4)
    first = generate(model, [Prompt("a", "Hi", harmful=False)], length=4)[0]
    model.net.state_dict()
    torch.testing.assert_close(logits(model.net), right, rtol=0, atol=1e-4)
    assert generate(model, [Prompt("a", "Hi", harmful=False)], length=4)[0].text() == first.text()
