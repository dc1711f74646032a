"""The machine that figures are from: hardware and versions, and nothing that names its owner."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("demur", "torch", "transformers", "numpy", "accelerate", "bitsandbytes")


def machine(device: torch.device) -> dict[str, Any]:
    """Hardware, versions and the day, as JSON may hold them. No names of hosts, users or folders."""
    found: dict[str, Any] = {"device": device.type, "processor": _processor(), "cores": os.cpu_count()}
    found |= {"threads": torch.get_num_threads(), "memory_gb": _memory(), "system": platform.system()}
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        found |= {"accelerator": about.name, "accelerator_memory_gb": round(about.total_memory / 1e9, 1)}
        found |= {"cuda": str(torch.version.cuda), "accelerators": torch.cuda.device_count()}
    elif device.type == "mps":
        found |= {"accelerator": f"{platform.machine()}, Metal"}
    found["python"] = platform.python_version()
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found["load"] = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return found | {"day": f"{datetime.now(UTC):%Y-%m-%d}"}


def named(model: str) -> str:
    """A model's name as it may leave the machine: of a folder or file, its last part."""
    return Path(model).expanduser().name if os.path.exists(Path(model).expanduser()) else model


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _memory() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
