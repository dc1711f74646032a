"""Adapters (LoRA and the like): found in a folder, and merged into their base to the last tensor."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from demur.models.checkpoint import INDEX, WHOLE, optional_file, read_json, stored_in
from demur.models.weights import fingerprint
from demur.types import DemurError, DemurWarning


def adapter_at(name: str, where: str | Path, hub: Mapping[str, Any]) -> dict[str, Any] | None:
    """The ``adapter_config.json`` of a folder that holds an adapter (LoRA and the like); None for others. Raises for an
    adapter beside a whole model, where nobody can know whether it is merged already, and where peft is missing.
    """
    path = optional_file(where, hub, "adapter_config.json")
    if path is None:
        if isinstance(where, Path) and (where / "adapter_model.safetensors").exists():
            raise DemurError(
                f"{name} holds weights of an adapter (adapter_model.safetensors) and no adapter_config.json",
                "an adapter with its configuration, or a whole model alone",
                "download that file too; move the adapter's weights away if they are merged already",
            )
        return None
    settings = read_json(path, name)
    base = str(settings.get("base_model_name_or_path") or "")
    whole = any(optional_file(where, hub, file) for file in (WHOLE, INDEX))
    if whole:
        raise DemurError(
            f"{name} holds a whole model and an adapter (for {base or 'a model it does not name'})",
            "one of them",
            "move the adapter to a folder of its own, or delete adapter_config.json if it is merged already",
        )
    if not base:
        raise DemurError(f"{name} is an adapter that names no base", "base_model_name_or_path", "merge it first")
    from importlib.util import find_spec

    if find_spec("peft") is None:
        raise DemurError(
            f"{name} is an adapter ({settings.get('peft_type', 'unknown')}, for {base})",
            "a whole model, or the package peft to load it with",
            "pip install peft, or merge it first (peft's merge_and_unload, then save the result)",
        )
    if optional_file(where, hub, "adapter_model.safetensors") is None:
        raise DemurError(
            f"{name} has no adapter_model.safetensors", "the adapter's weights", "download or save it again"
        )
    drawn = str(settings.get("init_lora_weights") or "")
    if re.match(r"pissa_niter|corda|lora_ga", drawn):
        raise DemurError(
            f"{name} is an adapter that began with init_lora_weights={drawn!r}: it belongs to a base that was changed "
            "by draws or data which no file holds",
            "an adapter of the base as it was (peft: save_pretrained with path_initial_model_for_weight_conversion)",
            "convert it, or merge it where it was trained",
        )
    if settings.get("layer_replication"):
        raise DemurError(
            f"{name} is an adapter with layer_replication: several of its layers share the weights of one",
            "layers with weights of their own, into which theirs can be merged",
            "save the base with its layers doubled, and train or convert the adapter for that",
        )
    if settings.get("peft_type") == "LORA" and (lost := [key for key in ("r", "lora_alpha") if key not in settings]):
        raise DemurError(
            f"{name}: adapter_config.json says no {' and no '.join(lost)}, for which peft would take its default",
            "the rank and the scale that the adapter was trained with",
            "add them, or download the file again",
        )
    return settings


def check_base(name: str, base: str, raw: Mapping[str, Any]) -> None:
    """Raises for a base whose weights lie in 4 bits: what is added to them would be rounded away, since the sum is
    rounded to 4 bits again.
    """
    settings = raw.get("quantization_config") or {}
    if settings.get("load_in_4bit") or settings.get("_load_in_4bit"):
        raise DemurError(
            f"{name} is an adapter of {base}, whose weights lie in 4 bits: merged into them, what it learnt is rounded "
            "away",
            "a base with whole weights, or the adapter beside its base, as it was trained",
            "name the base with whole weights in adapter_config.json (base_model_name_or_path); or load both with peft "
            "(AutoPeftModelForCausalLM) and give demur.load(net, tokenizer=tok), which lets the adapter stand beside",
        )


def merged(name: str, net: Any, where: str | Path, hub: Mapping[str, Any]) -> Any:
    """The net with an adapter's weights added in. Raises unless the adapter's every tensor has its place."""
    from peft import PeftModel, get_peft_model_state_dict

    options = {key: value for key, value in hub.items() if key == "revision"}
    marks, before = fingerprint(net), _logits(net)
    adapted = PeftModel.from_pretrained(net, str(where), autocast_adapter_dtype=False, **options)
    file = optional_file(where, hub, "adapter_model.safetensors")
    stored = set(stored_in(name, file)) if file is not None else set()
    placed = set(get_peft_model_state_dict(adapted))
    if stored != placed:
        which = sorted(stored ^ placed)
        raise DemurError(
            f"{name}: {len(which)} tensors of the adapter and its base do not agree ({which[0]} ...)",
            "an adapter of this base model",
            "check base_model_name_or_path, or merge it first",
        )
    if not hasattr(adapted, "merge_and_unload"):
        raise DemurError(f"{name} is an adapter that can't be merged", "LoRA or the like", "merge it first")
    _untie(adapted)
    asked = _logits(adapted)
    whole = adapted.merge_and_unload()
    _check_same(name, (before, asked, _logits(whole)), net.dtype)
    if (file is not None and _does_nothing(file)) or (
        fingerprint(whole) == marks and not any("token_adapter" in key for key in stored)
    ):
        warnings.warn(
            f"{name}: the adapter changes nothing of its base, as one that was never trained (a factor of zeros, or a "
            "scale of 0)",
            DemurWarning,
            stacklevel=6,
        )
    return whole


def _untie(adapted: Any) -> None:
    """Gives the head rows of its own where an adapter is on it or on the embedding, and both are one tensor: merging
    would write into both what belongs to one of them, or twice what belongs to both.
    """
    inner, outer = adapted.get_input_embeddings(), adapted.get_output_embeddings()
    if outer is None or not any(hasattr(part, "base_layer") for part in (inner, outer)):
        return
    inner, outer = (part.get_base_layer() if hasattr(part, "get_base_layer") else part for part in (inner, outer))
    if inner.weight is outer.weight:
        outer.weight = torch.nn.Parameter(inner.weight.detach().clone(), requires_grad=False)
        adapted.get_base_model().config.get_text_config(decoder=True).tie_word_embeddings = False
        adapted.get_base_model().config.tie_word_embeddings = False


def _logits(net: Any) -> torch.Tensor | None:
    """What a net makes of a few tokens, spread over its vocabulary; None for one that takes more than tokens."""
    rows = net.get_input_embeddings().weight.shape[0]
    device = net.get_input_embeddings().weight.device
    ids = [1 + i * (rows - 2) // _PROBED for i in range(_PROBED)] if rows > 2 else [0]
    was = net.training
    net.eval()
    try:
        with torch.no_grad():
            logits: torch.Tensor = net(input_ids=torch.tensor([ids], device=device), use_cache=False).logits
    except (TypeError, ValueError, AttributeError):  # an encoder with a decoder
        return None
    finally:
        net.train(was)
    return logits.float()


_PROBED = 12
"""So many tokens are read with an adapter beside its base, and again once it is merged."""


def _check_same(name: str, logits: Sequence[torch.Tensor | None], dtype: torch.dtype) -> None:
    """Raises where merging an adapter makes another model than the base with its adapter is: by more than rounding, and
    by more than a share of what the adapter does.
    """
    base, adapted, merged = logits
    if base is None or adapted is None or merged is None:
        return
    difference = float((merged - adapted).abs().max())
    rounding = 16 * torch.finfo(dtype).eps * float(adapted.abs().max())
    effect = float((adapted - base).abs().max())
    if not difference <= rounding + 0.01 * effect and bool(adapted.isfinite().all()):
        raise DemurError(
            f"{name}: merged into its base, the adapter makes another model than beside it (logits differ by "
            f"{difference:.2g}, and by {effect:.2g} where the adapter is off)",
            "an adapter whose weights can be added to those of its base",
            "merge it with the program that it was trained with, and save the result",
        )


def _does_nothing(file: Path) -> bool:
    """Whether a file holds nothing but LoRA, which adds nothing: products with a second factor of zeros."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as data:
        names = list(data.keys())
        if not names or not all(".lora_A." in name or ".lora_B." in name for name in names):
            return False
        return not any(bool(data.get_tensor(name).float().any()) for name in names if ".lora_B." in name)
