"""Memory: what a device has left, how large a batch may be for it, and what a CPU's allocator does with freed pages."""

from __future__ import annotations

import ctypes
import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from demur.models.sizes import Shape, memory_of
from demur.types import DemurError, DemurWarning, Kind, Model

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``."""
_MOST = (2**31 - 1, 32 * 2**20)
"""Block sizes from which memory is mapped afresh: the first that the library takes (before 2.35 up to 32 MiB)."""


@cache
def keep_freed_memory() -> bool:
    """Makes glibc's allocator keep freed memory, for the life of this process; whether it does.

    Every step allocates the same activations again. By itself glibc gives blocks of some 100 KB to 32 MB back to the
    system at every free, and the system clears each page again when it is touched next: on small models that is up to
    half of the time of a pass. Nothing is set where the environment sets it (``MALLOC_TRIM_THRESHOLD_`` or the like),
    and where the C library is another one. What is computed does not change.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    mapped = any(mallopt(_MMAP_THRESHOLD, size) for size in _MOST)
    return bool(mallopt(_TRIM_THRESHOLD, _MOST[0])) and mapped


# -- how much there is --------------------------------------------------------------------------------------

MOST = {"cpu": 32}
MOST_ELSEWHERE = 256
"""Rows of the largest batch that ``auto`` takes: on a CPU, larger ones gain nothing and wait for their longest row."""
UNKNOWN = 8
"""Rows where nobody can say how much memory there is, or what the model takes."""
SHARE = 0.6
"""How much of the free memory a plan may use. Of what a batch took, the estimate was 0.7 to 2.2 times as much
(docs/hardware.md), and a CPU's memory that runs out ends in no error but in a kill.
"""


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process can still get: of a GPU, with what torch holds and does not use; of a CPU, what the system
    calls available, within the limits of the process's control groups (containers, jobs of a scheduler). None: unknown.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - int(torch.mps.current_allocated_memory())
    if device.type != "cpu":
        return None
    limits = [*_left_in_groups()]
    with suppress(OSError, ValueError, IndexError):
        limits.append(1024 * int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]))
    return min(limits, default=None)


def _left_in_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """What the control groups of this process (version 2) leave it, the pages of files that can be dropped included."""
    with suppress(OSError):
        for line in own.read_text().splitlines():
            if not line.startswith("0::/"):
                continue
            group = root / line.removeprefix("0::/")
            for folder in (group, *group.parents):
                if folder != root and root not in folder.parents:
                    break
                with suppress(OSError, ValueError, IndexError):
                    most = int((folder / "memory.max").read_text())  # "max" is no number
                    stat = (folder / "memory.stat").read_text()
                    dropped = int(stat.split("inactive_file ")[1].split()[0])
                    yield most - int((folder / "memory.current").read_text()) + dropped


def batch_that_fits(model: Model, *, rows: int, prompt: int, length: int, steps: int) -> int:
    """Rows of a batch for the memory that is free now, by the estimate of :mod:`demur.models.sizes`: ``rows``, or what
    pays on the device if that is less, halved until no more than ``SHARE`` of the memory is needed; at least 1.

    ``prompt`` and ``length``: tokens of the longest prompt, places of an answer. Of a network whose sizes its
    configuration does not say, and of memory that nobody knows, it is at most ``UNKNOWN``. Where not even one row fits,
    by the estimate, it warns and names what would: a row is tried all the same, and a CPU may end without a word.
    """
    most = max(1, min(rows, most_rows(model.device)))
    free, known = free_memory(model.device), _known(model)
    if free is None or known is None:
        return min(most, UNKNOWN)
    block = int(getattr(model, "block_length", None) or 1)
    fits = rows_within(free, most, *known, prompt=prompt, length=length, steps=steps, block=block)
    if not fits:
        row = f"one row of {prompt + length} places"
        then = what_fits(model, prompt=prompt, length=length, steps=steps) or "close what else needs memory"
        warnings.warn(
            f"by the estimate not even {row} fits into the {free / 1e9:.2f} GB that are free on {model.device}; it is "
            f"tried all the same: {then}",
            DemurWarning,
            stacklevel=2,
        )
    return max(1, fits)


def what_fits(model: Model, *, prompt: int, length: int, steps: int) -> str:
    """What of one row would fit, in words: a half of the answer, a quarter ...; of a row that is only read
    (``length`` 0), of its columns. By the estimate, for the memory that is free now; empty where nobody can say.
    """
    free, known = free_memory(model.device), _known(model)
    if free is None or known is None:
        return ""
    block, half = int(getattr(model, "block_length", None) or 1), (length or prompt) // 2
    while half:
        sizes = {"prompt": prompt if length else half, "length": half if length else 0, "block": block}
        shape, kind, dtype = known
        if rows_within(free, 1, shape, kind, dtype, steps=min(steps, half), **sizes):
            return f"an answer of {half} places would fit" if length else f"a pass of {half} columns would fit"
        half //= 2
    return ""


def most_rows(device: torch.device) -> int:
    """How many rows pay on a device at most."""
    return MOST.get(device.type, MOST_ELSEWHERE)


def rows_within(free: float, most: int, shape: Shape, kind: str, dtype: str, **sizes: int) -> int:
    """``most`` rows, halved until what a batch needs beside the model is no more than ``SHARE`` of ``free`` bytes; 0 if
    not even one row does. ``sizes``: prompt, length, steps and block of :func:`demur.models.sizes.memory_of`.
    """
    size = most
    while size:
        need = memory_of(shape, kind, dtype, batch=size, **sizes)
        if sum(need.values()) - need["weights"] - need["context and spare"] <= SHARE * free:
            break
        size //= 2
    return size


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or torch's allocator of a CPU, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def let_go(device: torch.device) -> None:
    """Gives what nobody holds any more back to the device, so that a smaller batch can have it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _known(model: Model) -> tuple[Shape, Kind, str] | None:
    """A loaded model as :func:`memory_of` takes it; None where its configuration lacks the sizes."""
    try:
        shape = Shape.of(model.net.config.to_dict(), model.name)
    except (DemurError, AttributeError):
        return None
    dtype = "float32" if getattr(model.net, "dtype", None) == torch.float32 else "bfloat16"
    return shape, model.kind, dtype
