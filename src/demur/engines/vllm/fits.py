"""Whether a guard belongs to the engine that runs: the same weights, numbers, chat template, and the engine that it was
calibrated in. No vLLM.

A guard of demur's own engine may be used where an engine computes the same function: unquantised weights of the same
dtype, with keys and values of it. What an engine quantises moves the states, and with them sigma: such a guard is to be
calibrated there. docs/decisions/0018-inside-an-engine.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from demur.models.chat import template_hash
from demur.types import DemurError, Spec


@dataclass(frozen=True)
class Engine:
    """An engine as it runs. ``model`` is a folder, or a name that could not be found; ``dtype`` as specs name it; empty
    ``quantization`` and ``kv_dtype``: none, and that of the model.
    """

    name: str
    version: str
    model: str
    dtype: str
    quantization: str = ""
    kv_dtype: str = ""


def differences(spec: Spec, engine: Engine, weights: str, template: str | None) -> list[str]:
    """In what a guard's spec and an engine differ, in words. ``weights``: the engine's fingerprint, empty where it is
    not known; ``template``: the hash of what its chat template writes, None where there is no tokenizer.
    """
    found = []
    if spec.sampler.rpartition(":")[2].lower() not in ("autoregressive", "ar"):
        found.append(f"sampler: {spec.sampler!r} against one that writes from left to right")
    named = (engine.name, engine.version) if spec.engine else ("", "")
    for field, mine, its in (
        ("engine", spec.engine, named[0]),
        ("engine_version", spec.engine_version, named[1]),
        ("quantization", spec.quantization, engine.quantization),
        ("kv_dtype", spec.kv_dtype, engine.kv_dtype),
        ("dtype", spec.dtype, engine.dtype),
    ):
        if mine != its:
            found.append(f"{field}: {mine or 'none'!r} against {its or 'none'!r}")
    if not weights:
        found.append("weights: they could not be read (a model of the hub must be in its cache first)")
    elif spec.weights != weights:
        found.append(f"weights: {spec.weights or 'unknown'!r} against {weights!r}")
    if template is not None and spec.template != template:
        found.append(f"template: {spec.template!r} against {template!r}")
    return found


def check(spec: Spec, engine: Engine, weights: str, tokenizer: Any, unchecked: bool) -> tuple[str, ...]:
    """Notes for verdicts of a guard that is taken all the same because the operator says so (``unchecked``). Raises in
    one line for a guard of something else. ``weights``: the fingerprint of those that the engine runs.
    """
    template = None if tokenizer is None else template_hash(tokenizer, None, spec.template_args)
    different = differences(spec, engine, weights, template)
    if not different:
        return ()
    if unchecked:
        return (f"unchecked: guard against engine: {'; '.join(different)}",)
    raise DemurError(
        f"a guard of {spec.model} for {engine.name} {engine.version} with {engine.model} "
        f"(guard against engine: {'; '.join(different)})",
        "a guard that was calibrated on this",
        "measure it: demur guard check GUARD --engine URL, with DEMUR_UNCHECKED=1 for that run",
    )


def folder_of(model: str, revision: str | None) -> str:
    """Where a model lies: its own folder, or that of the hub's cache; the name itself where it is not there."""
    from huggingface_hub import snapshot_download

    if Path(model).expanduser().is_dir():
        return str(Path(model).expanduser())
    try:
        return snapshot_download(model, revision=revision, local_files_only=True)
    except (OSError, ValueError):
        return model


def folder_fingerprint(model: str, dtype: str) -> str:
    """The fingerprint (:func:`demur.models.weights.fingerprint`) that the weights of a folder have once they are loaded
    with a dtype, read off its safetensors files: some elements of each tensor, in seconds for any size. Empty where
    there are none, or where they are not what a network of transformers holds.
    """
    from safetensors import safe_open

    target = getattr(torch, dtype.partition(",")[0], None)
    found: dict[str, tuple[tuple[int, ...], torch.Tensor]] = {}
    for path in sorted(Path(model).expanduser().glob("*.safetensors")) if Path(model).expanduser().is_dir() else ():
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                flat = (tensor := file.get_tensor(name)).reshape(-1)
                sample = flat[:: max(1, flat.numel() // 512)][:512]
                floats = sample.is_floating_point() and isinstance(target, torch.dtype)
                found[name] = (tuple(tensor.shape), sample.to(target) if floats else sample)
    if not found:
        return ""
    ties = "lm_head.weight" not in found and "model.embed_tokens.weight" in found
    if ties:
        found["lm_head.weight"] = found["model.embed_tokens.weight"]
    digest = hashlib.sha256()
    for name, (shape, sample) in sorted(found.items()):
        digest.update(f"{name}{shape}".encode())
        digest.update((sample.float() if sample.is_floating_point() else sample.long()).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
