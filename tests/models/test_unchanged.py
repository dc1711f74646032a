"""A model that is another one than was loaded is named wherever a spec is made of it."""

from __future__ import annotations

import copy
import pickle
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import small
import torch

import demur
from demur.testing import tiny
from demur.types import DemurError, DemurWarning, Prompt

ASKED = [Prompt("q", "How do I bake bread?", harmful=False)]


@pytest.fixture
def model() -> Any:
    """Loaded from memory, with a net and a tokenizer of its own."""
    known = tiny("causal")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DemurWarning)
        return demur.load(copy.deepcopy(known.net), tokenizer=copy.deepcopy(known.tokenizer))


def answered(model: Any) -> Any:
    return demur.generate(model, ASKED, length=2, steps=2)[0]


def other_template(model: Any) -> None:
    model.tokenizer.chat_template = model.tokenizer.chat_template.replace("assistant:", "bot:")


def no_template(model: Any) -> None:
    model.tokenizer.chat_template = None


def more_tokens(model: Any) -> None:
    model.tokenizer.add_tokens(["bread"])


def other_epsilon(model: Any) -> None:
    model.net.config.rms_norm_eps *= 2


def other_weights(model: Any) -> None:
    with torch.no_grad():
        model.net.model.layers[0].mlp.down_proj.weight.mul_(2)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_template, "the chat template of"), (no_template, "the chat template of"),
        (more_tokens, "the tokenizer of"), (other_epsilon, "rms_norm_eps"), (other_weights, "the weights of"),
    ],
)  # fmt: skip
def test_what_has_changed_since_it_was_loaded_is_one_line(model: Any, change: Callable[[Any], None], says: str) -> None:
    answered(model)
    change(model)
    with pytest.raises(DemurError, match=says) as caught:
        answered(model)
    small.one_line(caught.value)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_looked_at_as_the_original_is(model: Any, copied: Callable[[Any], Any]) -> None:
    other = copied(model)
    assert (answered(other).tokens() == answered(model).tokens()).all()
    other_weights(other)
    answered(model)
    with pytest.raises(DemurError, match="the weights of"):
        answered(other)


def test_what_a_copy_has_got_is_said_of_the_copy_too(model: Any) -> None:
    hooked, worded = copy.deepcopy(model), copy.deepcopy(model)
    hooked.net.model.norm.register_forward_hook(lambda module, given, output: output)
    with pytest.warns(DemurWarning, match="hooks of your own"):
        answered(copy.deepcopy(hooked))
    more_tokens(worded)
    with pytest.raises(DemurError, match="the tokenizer of"):
        answered(worded)


def test_a_model_of_before_is_named_after_its_network_was_loaded_again_as_it_is_now(model: Any) -> None:
    answered(model)
    other_weights(model)
    again = demur.load(model.net, tokenizer=model.tokenizer)
    answered(again)
    with pytest.raises(DemurError, match="the weights of"):
        answered(model)
    answered(again)
    with torch.no_grad():
        model.net.model.layers[0].mlp.down_proj.weight.div_(2)  # as they were
    answered(model)


def test_settings_that_change_no_token_are_nobodys_business(model: Any) -> None:
    before = answered(model)
    model.tokenizer.padding_side = "right"
    model.tokenizer.add_special_tokens({"pad_token": "<mine>"})
    model.tokenizer.truncation_side = "left"
    model.tokenizer.model_max_length = 3
    model.net.config.use_cache = False
    model.net.generation_config.max_length = 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (answered(model).tokens() == before.tokens()).all()


def steered(_module: Any, _given: Any, output: Any) -> Any:
    return output


def hooked(block: Any) -> None:
    block.register_forward_hook(steered)


def hooked_before(block: Any) -> None:
    block.register_forward_pre_hook(lambda _module, _given: None)


def with_a_pass_of_its_own(block: Any) -> None:
    inner = block.forward

    def forward(_self: Any, *given: Any, **more: Any) -> Any:
        return inner(*given, **more)

    block.forward = types.MethodType(forward, block)


@pytest.mark.parametrize("change", [hooked, hooked_before, with_a_pass_of_its_own])
def test_hooks_and_passes_of_ones_own_are_said_once_whenever_they_came(
    model: Any, change: Callable[[Any], None]
) -> None:
    change(model.net.model.layers[1].mlp)
    with pytest.warns(DemurWarning, match=r"hooks of your own .*\(model\.layers\.1\.mlp.*not in the spec"):
        answered(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answered(model)
    with pytest.warns(DemurWarning, match=r"hooks of your own \(model\.layers\.1\.mlp.*not in the spec"):
        again = demur.load(model.net, tokenizer=model.tokenizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answered(again)


def test_an_autocast_to_another_dtype_is_one_line(model: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(DemurError, match="autocast") as caught:
        answered(model)
    small.one_line(caught.value)
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        answered(model)
