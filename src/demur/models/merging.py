"""Adapters (LoRA and the like): found in a folder, and merged into their base to the last tensor."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demur.models.checkpoint import INDEX, WHOLE, optional_file, read_json, stored_in
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
    if settings.get("peft_type") == "LORA" and (lost := [key for key in ("r", "lora_alpha") if key not in settings]):
        raise DemurError(
            f"{name}: adapter_config.json says no {' and no '.join(lost)}, for which peft would take its default",
            "the rank and the scale that the adapter was trained with",
            "add them, or download the file again",
        )
    return settings


def merged(name: str, net: Any, where: str | Path, hub: Mapping[str, Any]) -> Any:
    """The net with an adapter's weights added in. Raises unless the adapter's every tensor has its place."""
    from peft import PeftModel, get_peft_model_state_dict

    options = {key: value for key, value in hub.items() if key == "revision"}
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
    if file is not None and _does_nothing(file):
        warnings.warn(
            f"{name}: every lora_B of the adapter is zero: it changes nothing, as one that was never trained",
            DemurWarning,
            stacklevel=6,
        )
    if not hasattr(adapted, "merge_and_unload"):
        raise DemurError(f"{name} is an adapter that can't be merged", "LoRA or the like", "merge it first")
    return adapted.merge_and_unload()


def _does_nothing(file: Path) -> bool:
    """Whether a file holds nothing but LoRA, which adds nothing: products with a second factor of zeros."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as data:
        names = list(data.keys())
        if not names or not all(".lora_A." in name or ".lora_B." in name for name in names):
            return False
        return not any(bool(data.get_tensor(name).float().any()) for name in names if ".lora_B." in name)
