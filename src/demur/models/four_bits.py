"""4-bit layers of bitsandbytes on a CPU: held as they were made.

On a processor with AVX512-BF16 the first pass packs a layer's weights anew and rounds their scales. Whoever reads the
weights then (``state_dict``, a save) has bitsandbytes undo that, which leaves the scales in another order: from then on
the layer computes something else, and nothing says so. So packing is switched off, and undone where it was done.
"""

from __future__ import annotations

from typing import Any

import torch


def as_made(net: torch.nn.Module) -> None:
    """Switches the packing of 4-bit layers off, and puts weights and scales that were packed back into their order."""
    for module in net.modules():
        if not hasattr(module, "support_avx512bf16_for_cpu"):
            continue
        module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            _unpack(module.weight, state)


def _unpack(weight: Any, state: Any) -> None:
    """One layer's. Packed scales are a matrix of blocks by rows; as they were made, one row after the other."""
    if getattr(state, "packing_format_for_cpu", False):
        from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse

        weight.data, weight.quant_state = _convert_weight_packed_for_cpu_inverse(weight.data, state)
        state = weight.quant_state
    if state.absmax.ndim == 2 and not state.nested:
        state.absmax = state.absmax.T.reshape(-1).float()
