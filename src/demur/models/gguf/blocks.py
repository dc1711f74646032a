"""Numbers out of quantised blocks: the package ``gguf`` unpacks them, in pieces whose memory is used again."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from demur.models.gguf.header import Header, Place

AT_ONCE = 2**16
"""Elements that are unpacked together. Every step of the package's arithmetic makes an array of that many. Smaller ones
cost calls; of larger ones the allocator gives the memory back, and the system clears it again. Measured on a busy core,
in millions of elements of Q5_0, Q8_0, Q4_K and Q6_K per second of CPU: with 2**18 184, 86, 404, 301; with 2**17 202,
156, 380, 337; with 2**16 249, 165, 319, 299; with 2**15 203, 121, 256, 264. A whole file of 0.5B parameters takes 2.9,
3.2 and 4.0 s with 2**16, 2**17 and 2**18, and the system clears 11,000, 294,000 and 531,000 pages.
"""


def all_dequantised(header: Header) -> Iterator[tuple[str, Any]]:
    """Every tensor in fp32, in the file's order; a few are made ahead, by threads."""
    ahead: deque[tuple[str, Future[Any]]] = deque()
    workers = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        for name, place in header.tensors.items():
            ahead.append((name, pool.submit(dequantised, place)))
            if len(ahead) > workers:
                first, future = ahead.popleft()
                yield first, future.result()
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result()


def dequantised(place: Place, at_once: int = AT_ONCE) -> Any:
    """One tensor in fp32. The result does not depend on ``at_once``: every block is unpacked by itself."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    kind = GGMLQuantizationType(place.kind)
    block, size = GGML_QUANT_SIZES[kind]
    stored = np.memmap(place.file, mode="r", dtype=np.uint8, offset=place.start, shape=(place.size,))
    blocks = stored.reshape(-1, size)
    values = np.empty((len(blocks), block), dtype=np.float32)
    step = max(1, at_once // block)
    for start in range(0, len(blocks), step):
        # As one long row, since the package takes sixteen rows at a time in Python: a vocabulary has 150,000.
        row = dequantize(np.ascontiguousarray(blocks[start : start + step]).reshape(1, -1), kind)
        values[start : start + step] = row.reshape(-1, block)
    return values.reshape(place.shape)
