"""DiffuGuard: masked diffusion that commits in a less greedy order, and repairs what a template has led astray.

After Li et al., *DiffuGuard: How Intrinsic Safety is Lost and Found in Diffusion Large Language Models*,
arXiv:2509.24296, and its official code (github.com/zhrli324/DiffuGuard, ``utility/generate_function_llada.py``).

- *Stochastic annealing remasking*: position i is committed by (1 - a_n) p_i + a_n r_i with r_i uniform in [0, 1) and
  a_n = a_0 (1 - (n - 1) / (N - 1)) at step n of N. The steps are those of a block, as in the code; the paper says all,
  which is the same where there is one block. A sampler that orders by entropy has exp(-entropy) in place of p_i (ours).
- *Block-level audit*: the safety divergence SD = 1 - cos(h_origin, h_attacked) of mean last-layer states, once, at the
  first step. Above the limit, the first block, once it is done, is *repaired*: a share of its places is masked again
  and filled in a few steps more, each place with the logit of the token that it held at -inf. The order there is
  random, as in the code.

What differs, and why:

- The paper and its code know the request behind an attack; here it is read off the canvas. Everything given behind the
  chat template's beginning of the answer is the attack's template, everything before it the request; h_origin is of
  the same canvas with the template masked. Both means are over the first block's open places: they stand in the same
  columns, so that without a template SD is 0. (The code's audit takes the origin's mean over a whole prompt; its
  detection measures a tail of masks behind both, as here the block.) An attack that rewrites the request leaves no
  template to see, and nothing is repaired: so it is in the paper's ablation, where the repair changes nothing under
  WildJailbreak.
- Given tokens never move. The code also masks a template's own words between the holes, and may write others.
- Places are never filled by the mask token in a repair, nor left open by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from demur.kinds import check_kinds
from demur.samplers import MaskedDiffusion
from demur.samplers.repair import Repair
from demur.types import Canvas, DemurError, Forward, Need, Prompt, Scoring, Step, lacking


@dataclass(frozen=True)
class DiffuGuard:
    """A defense: ``DiffuGuard()(sampler)`` is a masked-diffusion sampler with DiffuGuard in it.

    ``noise`` is a_0 in [0, 1], ``limit`` the SD in [0, 2] above which a row is repaired (the paper's lambda), ``share``
    of the first block's places that is masked again (gamma, in [0, 1]), ``steps`` the most that a repair takes.
    Defaults: the paper's, Table 6. (The code's own default limit is 0.35.) States may be of any scale, but how far SD
    spreads is a model's own: see :func:`divergence` before trusting a limit.

    It costs one forward pass more for the audit, and for repaired rows one for each step of the repair.
    """

    needs: ClassVar[frozenset[Need]] = MaskedDiffusion.needs
    active: ClassVar[bool] = True
    guarded: ClassVar[bool] = False

    noise: float = 0.3
    limit: float = 0.1
    share: float = 0.9
    steps: int = 8

    def __post_init__(self) -> None:
        own = ("noise", "limit", "share", "steps")
        check_kinds(self, {name: getattr(self, name) for name in own}, "diffuguard")
        for name, most in (("noise", 1), ("limit", 2), ("share", 1)):
            if not 0 <= getattr(self, name) <= most:
                raise DemurError(f"{name}={getattr(self, name)}", f"0 to {most}", "the paper's is the default")
        if self.steps < 1:
            raise DemurError(f"steps={self.steps}", "at least 1", "share=0 repairs nothing")

    def __call__(self, sampler: Any) -> Remasked:
        """The sampler with DiffuGuard in it. Raises for one that does not commit a planned number by confidence."""
        if not isinstance(sampler, MaskedDiffusion):
            raise DemurError(
                f"DiffuGuard around {type(sampler).__name__}",
                "MaskedDiffusion itself: a masked-diffusion model, and no defense between the two",
                "leave diffuguard out for this model, or wrap other defenses around it",
            )
        for name, value in (("threshold", sampler.threshold), ("entropy_bound", sampler.entropy_bound)):
            if value is not None:
                raise DemurError(
                    f"DiffuGuard with {name}={value}", "a planned number of commits a step", "leave it out"
                )
        if sampler.remasking == "origin":
            raise DemurError("DiffuGuard with remasking 'origin'", "an order by confidence", "use another remasking")
        return Remasked(sampler, self)


@dataclass(frozen=True)
class Remasked:
    """A masked-diffusion sampler with DiffuGuard in it. A row's steps do not depend on its batch."""

    undefended: MaskedDiffusion
    guard: DiffuGuard

    def __call__(self, model: Scoring, canvas: Canvas, rngs: Any) -> Iterator[Step]:
        """The sampler's steps in another order, then those of repairs. Raises unless the model is a masked one."""
        if lacking(model, self.undefended.needs):
            raise DemurError(
                f"DiffuGuard on the {model.kind} model {model.name}",
                "a masked-diffusion model, whose answers can be masked again",
                "leave diffuguard out for this model",
            )
        watching = model.watching(*dict.fromkeys((*model.layers, "last")))
        repair = Repair(self.guard.noise, self.guard.share, self.guard.steps, self._audit)
        return self.undefended(watching, canvas, rngs, repair)

    def _audit(self, model: Scoring, canvas: Canvas, out: Forward, block: Bool[Tensor, "b n"]) -> tuple[Any, int]:
        """Which rows are to be repaired, and the one forward pass that it takes to know."""
        return divergence(model, canvas, out, block) > self.guard.limit, 1


def divergence(model: Scoring, canvas: Canvas, out: Forward, block: Bool[Tensor, "b n"]) -> Float[Tensor, "b"]:
    """SD of each row, in [0, 2]: how far what is given of an answer moves the states at the marked places.

    ``out`` is the pass over the canvas, with the layer ``last``. 0 where nothing is given, or marked.
    """
    given = given_of_answer(model, canvas)
    origin = replace(canvas, ids=canvas.ids.masked_fill(given, -1 if model.mask_id is None else model.mask_id))
    weights = block.float()[:, None, :]
    plain, attacked = (
        torch.bmm(weights[:, :, run.start :], run.hidden["last"].float())[:, 0]  # a sum points where the mean does
        for run in (model.watching("last").forward(origin, None), out)
    )
    found = 1 - torch.nn.functional.cosine_similarity(plain, attacked, dim=-1)
    return torch.where(given.any(dim=1) & block.any(dim=1), found, 0.0)


def given_of_answer(model: Scoring, canvas: Canvas) -> Bool[Tensor, "b n"]:
    """The given tokens of each row's answer: what stands behind the chat template's beginning of one.

    Where a row holds no such beginning (a model without a chat template, a canvas of bare tokens), its answer begins
    at its first open place.
    """
    header, times = _header(model)
    answer = torch.zeros_like(canvas.open)
    for i, start in enumerate(canvas.starts()):
        row = canvas.ids[i, start:].tolist()
        ends = _ends(row, header)
        places = canvas.open[i, start:].nonzero()[:, 0].tolist()
        begin = ends[times - 1] if 0 < times <= len(ends) else min(places, default=len(row))
        answer[i, start + begin :] = True
    return answer & ~canvas.open


def _header(model: Scoring) -> tuple[list[int], int]:
    """The tokens that every request in the chat template ends with, and how often they stand in one."""
    if model.tokenizer is None or getattr(model.tokenizer, "chat_template", None) is None:
        return [], 0
    one, other = (model.canvas([Prompt("x", text)], 1).ids[0, :-1].tolist() for text in ("A", "7?"))
    size = next((n for n, (a, b) in enumerate(zip(one[::-1], other[::-1], strict=False)) if a != b), 0)
    header = one[len(one) - size :]
    return header, len(_ends(one, header))


def _ends(row: Sequence[int], part: Sequence[int]) -> list[int]:
    """Where ``part`` ends in a row, every time."""
    n = len(part)
    return [i + n for i in range(len(row) - n + 1) if list(row[i : i + n]) == list(part)] if n else []
