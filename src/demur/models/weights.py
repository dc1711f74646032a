"""The weights of a network that is loaded: who they are, and whether they are all there."""

from __future__ import annotations

import hashlib
import warnings
from contextlib import suppress

import torch
from torch import Tensor

from demur.types import DemurError, DemurWarning

HOLE = 8
"""Rows of zeros, one after the other, from which on a matrix has a hole. Training leaves none; a download that set the
file's length first and then broke off leaves thousands. Fewer may be neurons that somebody has switched off.
"""


def fingerprint(net: torch.nn.Module) -> str:
    """Sixteen hex digits of the weights: names, shapes, and up to 512 evenly spaced elements of every tensor.

    A sample, so that it takes milliseconds for 8B parameters too; two checkpoints of one architecture differ in it
    unless every sampled element is equal. Quantised tensors are hashed by their stored bytes. Of layers with adapters
    (LoRA), it is also hashed which of these are on and how they are scaled.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        step = max(1, flat.numel() // 512)
        sample = flat[::step][:512].cpu()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update((sample.float() if sample.is_floating_point() else sample.long()).contiguous().numpy().tobytes())
    for name, module in net.named_modules():
        if isinstance(getattr(module, "scaling", None), dict) and hasattr(module, "active_adapters"):  # of peft
            on = [] if module.disable_adapters else [(key, module.scaling.get(key)) for key in module.active_adapters]
            digest.update(f"{name}{on}{module.merged}".encode())
    return digest.hexdigest()[:16]


def check_finite(net: torch.nn.Module, name: str) -> None:
    """Raise if any weight is NaN or infinite, naming the tensor."""
    for key, tensor in net.state_dict().items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        values = tensor.float() if tensor.dtype.itemsize == 1 else tensor  # torch does not look at float8
        ends = torch.stack(torch.aminmax(values))  # no copy of the weights, as isfinite makes; NaN is both ends
        if not bool(torch.isfinite(ends).all()):
            raise DemurError(
                f"{name}: tensor {key} holds NaN or infinite values",
                "finite weights",
                "download or convert the checkpoint again",
            )


def say_zeros(net: torch.nn.Module, name: str, tokens: int | None) -> None:
    """Warn of matrices of zeros, or with ``HOLE`` rows of zeros one after the other: files that were not filled to
    their end look so, and load without an error. ``tokens``: how many the tokenizer knows; rows for ids behind them
    are padding and may be zeros.
    """
    vocabulary = net.get_input_embeddings().num_embeddings  # type: ignore[operator]
    holes: list[tuple[str, int, int]] = []
    for key, tensor in net.state_dict().items():
        if not tensor.is_floating_point() or tensor.ndim < 2 or tensor.dtype.itemsize == 1:
            continue
        rows = tensor.reshape(-1, tensor.shape[-1])
        if len(rows) == vocabulary and tokens is not None:
            rows = rows[:tokens]
        longest = _longest_run_of_zeros(rows)
        if longest >= min(HOLE, len(rows)) > 0:
            holes.append((key, longest, len(rows)))
    holes += _norms_of_zeros(net)
    if holes:
        key, longest, of = holes[0]
        warnings.warn(
            f"{name}: {len(holes)} tensors hold zeros only or have a hole of zeros "
            f"({key}: {longest} of its {of} rows, one after the other), as where a download was broken off; "
            "compare the size and hash of the file with those of its source",
            DemurWarning,
            stacklevel=5,
        )


def _norms_of_zeros(net: torch.nn.Module) -> list[tuple[str, int, int]]:
    """Norms whose weights are zeros, and which make zeros of what they read; those of some families add 1 to theirs."""
    found = []
    for name, module in net.named_modules():
        weight = getattr(module, "weight", None)
        if "norm" not in type(module).__name__.lower() or not isinstance(weight, Tensor) or weight.ndim != 1:
            continue
        if weight.device.type == "meta" or bool(weight.any()):
            continue
        with torch.no_grad(), suppress(Exception):  # a norm that reads more than one thing
            made = module(torch.linspace(1, 2, len(weight), dtype=weight.dtype, device=weight.device)[None])
            if isinstance(made, Tensor) and not bool(made.any()):
                found.append((f"{name}.weight", len(weight), len(weight)))
    return found


def _longest_run_of_zeros(rows: Tensor) -> int:
    """How many rows of zeros stand one after the other at most. Only rows that begin with a zero are read."""
    maybe = (rows[:, 0] == 0).nonzero()[:, 0]
    empty = maybe[~rows[maybe].any(dim=1)] if len(maybe) else maybe
    longest = run = 0
    before = -2
    for row in empty.tolist():
        run = run + 1 if row == before + 1 else 1
        longest, before = max(longest, run), row
    return longest
