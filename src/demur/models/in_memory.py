"""A transformers model that is in memory already: taken as it is, without a copy, or refused in one line."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from demur.models.families import Family
from demur.models.llada2 import native_net
from demur.models.unchanged import IN_RESULTS, foreign_parts, places
from demur.types import DemurError, DemurWarning, Need


def unwrapped(net: Any) -> Any:
    """The transformers model itself, out of ``torch.compile`` or PEFT. Raises for what is none, is being trained, or
    has no weights.
    """
    if not isinstance(net, torch.nn.Module):
        inner = " (of a pipeline, give its .model)" if hasattr(net, "model") else ""
        raise DemurError(
            f"a {type(net).__name__} came instead of a model",
            f"a name, a folder, a .gguf file, a hub id, or a model of transformers{inner}",
            "run `demur models` for names",
        )
    if hasattr(net, "_orig_mod"):  # the same module, uncompiled
        net = net._orig_mod
    if hasattr(net, "peft_config") and hasattr(net, "get_base_model"):
        if getattr(net, "active_peft_config", None) is not None and net.active_peft_config.is_prompt_learning:
            raise DemurError(
                f"an adapter of kind {net.active_peft_config.peft_type}, which adds tokens of its own",
                "LoRA or the like, which stands in the model's layers",
                "use another adapter",
            )
        net = net.get_base_model()  # its layers hold the adapter, and go on using it
    name = type(net).__name__
    if not (hasattr(net, "config") and hasattr(net, "get_output_embeddings")):
        then = "give it net.module" if hasattr(net, "module") else "load it with AutoModelForCausalLM"
        raise DemurError(f"a {name} came", "a model of transformers with a language-model head", then)
    if any(weight.device.type == "meta" for weight in net.parameters()):
        raise DemurError(
            f"{name} has weights on the meta device: they were not loaded, or are offloaded to the cpu or disk",
            "every weight in memory, on the device that computes with it",
            "load the model whole first",
        )
    if getattr(net, "is_loaded_in_8bit", False):
        raise DemurError(f"{name} holds 8-bit weights, with which a row depends on its neighbours", "4bit", "load that")
    if any(module.training and not isinstance(module, torch.nn.ModuleList) for module in net.modules()):
        raise DemurError(
            f"{name} is in training mode, in which dropout is random", "evaluation mode", "call net.eval()"
        )
    _check_weights(net)
    if hooked := foreign_parts(net):
        warnings.warn(
            f"{name} has hooks of your own ({places(hooked)}): {IN_RESULTS}",
            DemurWarning,
            stacklevel=3,
        )
    return net


def _check_weights(net: Any) -> None:
    """Raise for weights that the net can't compute with: float8 that nothing scales, several dtypes."""
    name, kinds = type(net).__name__, {weight.dtype for weight in net.parameters() if weight.is_floating_point()}
    if getattr(net, "hf_quantizer", None) is not None:
        return
    if any(kind.itemsize == 1 for kind in kinds):
        raise DemurError(f"{name} holds float8 weights that nothing scales", "bf16, fp16 or fp32", "load it whole")
    head = net.get_output_embeddings()
    if head is not None and hasattr(head, "weight") and head.weight.dtype != net.get_input_embeddings().weight.dtype:
        raise DemurError(
            f"{name} has its embedding in {net.get_input_embeddings().weight.dtype} and its head in "
            f"{head.weight.dtype}",
            "one dtype, which is part of the spec",
            "convert it: net.to(torch.bfloat16)",
        )


def check_tokenizer(tokenizer: Any) -> Any:
    """A tokenizer, also out of a processor. Raises for what is none."""
    if tokenizer is not None and hasattr(tokenizer, "tokenizer"):
        tokenizer = tokenizer.tokenizer
    if tokenizer is not None and not (callable(tokenizer) and hasattr(tokenizer, "convert_ids_to_tokens")):
        raise DemurError(
            f"a {type(tokenizer).__name__} came as the tokenizer",
            "a tokenizer of transformers",
            "load it with AutoTokenizer.from_pretrained and give that",
        )
    return tokenizer


def native(net: Any, family: Family, raw: Mapping[str, Any]) -> Any:
    """The net as the family's native class runs it: itself, or, where its class came with its checkpoint (LLaDA, Dream
    ...), a native model around the same tensors. (LLaDA2's experts are stacked, which copies them.)
    """
    import transformers

    if family.config is None:
        expected = "ForCausalLM" if Need.CAUSAL in family.offers else family.net
        if net.get_output_embeddings() is None:
            raise DemurError(
                f"{type(net).__name__} has no language-model head",
                f"a class like {expected}",
                "load it with that class",
            )
        return net
    if family.read_by_us:
        return native_net(raw, net.state_dict().items(), net.dtype)
    config = family.config(raw)
    kind = getattr(transformers, family.net)
    if family.net.startswith("Auto"):
        kind = kind._model_mapping[type(config)]
    made, report = kind.from_pretrained(
        None,
        config=config,
        state_dict=net.state_dict(),
        dtype=net.dtype,
        key_mapping=dict(family.keys),
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    wrong = sorted(report["missing_keys"]) + sorted(str(k) for k in report["mismatched_keys"])
    wrong += sorted(report["unexpected_keys"])
    if wrong:
        raise DemurError(
            f"{type(net).__name__}: {len(wrong)} tensors do not fit the native class ({wrong[0]} ...)",
            f"the tensors of a {family.name} model as its configuration describes it",
            "load it by its name or folder instead",
        )
    return made
