"""Randomness: explicit generators, one per row, or one for a whole batch as the official implementations draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from demur.kinds import check_seed, fits, shown
from demur.types import DemurError

Rngs = Sequence[torch.Generator] | torch.Generator


def seeded(seed: int, rows: int, device: str | torch.device = "cpu") -> list[torch.Generator]:
    """One generator per row, seeded ``seed``, ``seed + 1`` ...: a row's stream does not depend on the batch. Raises for
    a seed that torch does not take, also for the last row.
    """
    if not fits(rows, int) or rows < 0:
        raise DemurError(f"{shown(rows)} rows", "how many rows there are", "for example: seeded(0, len(prompts))")
    check_seed(seed, -(2**63), 2**64 - rows + 1)
    return [torch.Generator(device).manual_seed(int(seed) + i) for i in range(rows)]


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
        groups = [len(probs)] if self.shared else list(counts)
        own = [(part, self.of(i)) for i, part in enumerate(torch.split(probs, groups)) if len(part)]
        if not own:
            return torch.empty(0, dtype=torch.long, device=probs.device)
        if all(g.device == probs.device for _, g in own):
            return torch.cat([torch.multinomial(part, 1, generator=g)[:, 0] for part, g in own])
        noise = torch.cat([_exponential(part, g) for part, g in own]).to(probs.device)
        return (probs / noise).argmax(dim=-1)

    def choose(self, weights: Float[Tensor, "n"], count: int, row: int) -> Int[Tensor, "c"]:
        """``count`` places drawn without replacement by weight, for one row."""
        generator = self.of(row)
        if not count:
            return torch.empty(0, dtype=torch.long, device=weights.device)
        if generator.device == weights.device:
            return torch.multinomial(weights, count, generator=generator)
        return (weights / _exponential(weights, generator).to(weights.device)).topk(count).indices


def _exponential(like: Float[Tensor, "..."], generator: torch.Generator) -> Float[Tensor, "..."]:
    """The numbers by which torch's multinomial divides probabilities, to take the largest.

    Generators are the host's, so that a seed means the same everywhere. So it is numbers that go to the device, and the
    host never waits for probabilities to come from there. The draws are those of torch's multinomial on a CPU, bit for
    bit; that they are probabilities at all is not asked of the device.
    """
    noise = torch.empty(like.shape, dtype=like.dtype, device=generator.device)
    return noise.exponential_(1, generator=generator)
