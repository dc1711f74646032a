"""Randomness: explicit generators, one per row, or one for a whole batch as the official implementations draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from demur.types import DemurError

Rngs = Sequence[torch.Generator] | torch.Generator


def seeded(seed: int, rows: int, device: str | torch.device = "cpu") -> list[torch.Generator]:
    """One generator per row, seeded ``seed``, ``seed + 1`` ...: a row's stream does not depend on the batch."""
    return [torch.Generator(device).manual_seed(seed + i) for i in range(rows)]


@dataclass(frozen=True)
class Dice:
    """Draws numbers for ragged rows, laid end to end. Raises if there is not one generator per row, or a single one."""

    rngs: Rngs
    rows: int

    def __post_init__(self) -> None:
        if not self.shared and len(self.rngs) != self.rows:  # type: ignore[arg-type]
            raise DemurError(
                f"{len(self.rngs)} generators for {self.rows} rows",  # type: ignore[arg-type]
                "one per row, or a single one",
                "use seeded(seed, rows)",
            )

    @property
    def shared(self) -> bool:
        """Whether one generator serves the whole batch."""
        return isinstance(self.rngs, torch.Generator)

    def of(self, row: int) -> torch.Generator:
        """The generator of one row."""
        return self.rngs if isinstance(self.rngs, torch.Generator) else self.rngs[row]

    def rand(self, counts: Sequence[int], *tail: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "k ..."]:
        """Uniform numbers in [0, 1): ``counts[i]`` entries of shape ``tail`` for row i."""
        groups = [sum(counts)] if self.shared else counts
        parts = []
        for row, count in enumerate(groups):
            g = self.of(row)
            parts.append(torch.rand((count, *tail), generator=g, dtype=dtype, device=g.device))
        return torch.cat(parts)

    def randint(self, high: int, counts: Sequence[int]) -> Int[Tensor, "k"]:
        """Uniform integers in [0, high): ``counts[i]`` for row i."""
        groups = [sum(counts)] if self.shared else counts
        draw = [torch.randint(high, (n,), generator=self.of(i), device=self.of(i).device) for i, n in enumerate(groups)]
        return torch.cat(draw)

    def multinomial(self, probs: Float[Tensor, "k v"], counts: Sequence[int]) -> Int[Tensor, "k"]:
        """One draw from each row of ``probs``, of which ``counts[i]`` belong to row i of the batch."""
        parts = [probs] if self.shared else torch.split(probs, list(counts))
        return torch.cat([self._draw(part, 1, self.of(i))[:, 0] for i, part in enumerate(parts)])

    def choose(self, weights: Float[Tensor, "n"], count: int, row: int) -> Int[Tensor, "c"]:
        """``count`` places drawn without replacement by weight, for one row."""
        return self._draw(weights[None], count, self.of(row))[0]

    @staticmethod
    def _draw(probs: Float[Tensor, "k v"], count: int, generator: torch.Generator) -> Int[Tensor, "k c"]:
        if not len(probs) or not count:
            return torch.empty((len(probs), count), dtype=torch.long, device=probs.device)
        return torch.multinomial(probs.to(generator.device), count, generator=generator).to(probs.device)
