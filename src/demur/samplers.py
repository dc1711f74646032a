"""Samplers: lazy generators of steps. Settings are frozen fields; calling a sampler on a canvas starts a generation.

Randomness comes from explicit generators only. ``rngs`` is one ``torch.Generator`` per row (law 1: a row does not
depend on its neighbours), or a single one for the whole batch, which is how the official implementations draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.types import Canvas, DemurError, Forward, Step

Rngs = Sequence[torch.Generator] | torch.Generator


def seeded(seed: int, rows: int, device: str | torch.device = "cpu") -> list[torch.Generator]:
    """One generator per row, seeded ``seed``, ``seed + 1`` ...: a row's stream does not depend on the batch."""
    return [torch.Generator(device).manual_seed(seed + i) for i in range(rows)]


@dataclass(frozen=True)
class Dice:
    """Draws numbers for ragged rows, laid end to end, either from one generator per row or from one for all."""

    rngs: Rngs

    def rand(self, counts: Sequence[int], *tail: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "k ..."]:
        """Uniform numbers in [0, 1): ``counts[i]`` entries of shape ``tail`` for row i."""
        if isinstance(self.rngs, torch.Generator):
            g = self.rngs
            return torch.rand((sum(counts), *tail), generator=g, dtype=dtype, device=g.device)
        return torch.cat(
            [
                torch.rand((count, *tail), generator=g, dtype=dtype, device=g.device)
                for count, g in zip(counts, self.rngs, strict=True)
            ]
        )

    def multinomial(self, probs: Float[Tensor, "k v"], counts: Sequence[int]) -> Int[Tensor, "k"]:
        """One draw from each row of ``probs``."""
        if isinstance(self.rngs, torch.Generator):
            return self._draw(probs, self.rngs)
        parts = torch.split(probs, list(counts))
        return torch.cat([self._draw(part, g) for part, g in zip(parts, self.rngs, strict=True)])

    @staticmethod
    def _draw(probs: Float[Tensor, "k v"], generator: torch.Generator) -> Int[Tensor, "k"]:
        if not len(probs):
            return torch.empty(0, dtype=torch.long, device=probs.device)
        drawn = torch.multinomial(probs.to(generator.device), 1, replacement=True, generator=generator)
        return drawn[:, 0].to(probs.device)


def _check_rngs(rngs: Rngs, rows: int) -> None:
    if not isinstance(rngs, torch.Generator) and len(rngs) != rows:
        raise DemurError(
            f"{len(rngs)} generators for {rows} rows",
            "one per row, or a single one",
            "use seeded(seed, rows)",
        )


def _check_temperature(temperature: float) -> None:
    if not 0 <= temperature < math.inf:
        raise DemurError(f"temperature {temperature}", "a finite number, at least 0", "0 is greedy, 1 the model's own")


# ---------------------------------------------------------------------------------------------------------------------
# Autoregressive


@dataclass(frozen=True)
class Autoregressive:
    """One token a step, left to right, never revised. Temperature 0 is greedy.

    Filters apply in the order of transformers: temperature, top-k, top-p. With ``cache`` keys and values are kept;
    without it every step passes the whole prefix again (the same tokens, more slowly).

    A step's ``hidden`` holds two columns: the one that produced the token and, since the token is fed back before the
    step is yielded, the token's own. The last token is fed back only if the model captures layers.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    cache: bool = True

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise DemurError(f"top_p {self.top_p}", "0 < top_p <= 1", "leave it out to sample from every token")
        if self.top_k is not None and self.top_k < 1:
            raise DemurError(f"top_k {self.top_k}", "at least 1", "leave it out to sample from every token")

    def __call__(self, model: Any, canvas: Canvas, rngs: Rngs) -> Iterator[Step]:
        """Steps until every row has ended or is full. Raises for a canvas whose open places are not one right tail."""
        _check_rngs(rngs, canvas.rows)
        if not bool(canvas.open.any()):
            return
        first = int(torch.where(canvas.open.any(dim=0))[0][0])
        if not bool((canvas.open[:, first:]).all()):
            raise DemurError(
                "a canvas with holes, or with open tails of different lengths",
                "open places at the right end only, equally many in every row",
                "use a masked-diffusion sampler to fill holes",
            )
        if max(canvas.starts()) >= first:
            raise DemurError(
                "a row without a given token",
                "at least one token in every row for the first open place to follow",
                "begin the row with the begin-of-sequence token",
            )
        if model.mask_id is not None:
            raise DemurError(
                f"autoregressive decoding of the masked-diffusion model {model.name}",
                "a causal model",
                "use the sampler ar-order, which commits left to right on diffusion weights",
            )
        cache = model.new_cache() if self.cache else None
        dice = Dice(rngs)
        stop = torch.tensor(model.stop_ids, dtype=torch.long, device=canvas.ids.device)
        ids, open_ = canvas.ids.clone(), canvas.open.clone()
        live = torch.ones(canvas.rows, dtype=torch.bool, device=ids.device)

        def passed(upto: int, wanted: bool) -> Forward:
            score = torch.zeros_like(open_)
            if wanted:
                score[:, upto] = True
            now = replace(canvas, ids=ids, open=open_)
            forward: Forward = model.forward(now, score if wanted else None, cache=cache, upto=upto)
            return forward

        out = passed(first, wanted=True)
        for index, column in enumerate(range(first, canvas.width)):
            token, probability = self._choose(out.logits, dice)
            committed = torch.zeros_like(open_)
            committed[:, column] = live
            ids[:, column] = torch.where(live, token, ids[:, column])
            open_[:, column] &= ~live
            confidence = torch.full(ids.shape, float("nan"), device=ids.device)
            confidence[:, column] = torch.where(live, probability, float("nan"))
            took_part, live = live, live & ~torch.isin(token, stop)
            more = column + 1 < canvas.width and bool(live.any())
            before = {layer: h[:, column - 1 - out.start].unsqueeze(1) for layer, h in out.hidden.items()}
            out = passed(column + 1, wanted=more) if more or model.layers else out
            hidden = {
                layer: torch.cat([h, out.hidden[layer][:, column - out.start].unsqueeze(1)], dim=1)
                for layer, h in before.items()
            }
            yield Step(
                index=index,
                ids=ids.clone(),
                open=open_.clone(),
                committed=committed,
                predictions=ids.clone(),
                confidence=confidence,
                live=took_part,
                hidden=hidden,
                start=column - 1,
                span="new",
                shift=1,
                passes=(index == 0) + (more or bool(model.layers)),
            )
            if not more:
                return

    def _choose(self, logits: Float[Tensor, "b v"], dice: Dice) -> tuple[Int[Tensor, "b"], Float[Tensor, "b"]]:
        """A token for every row and its probability under what was sampled from."""
        if self.temperature == 0:
            token = logits.argmax(dim=-1)
            return token, logits.float().softmax(dim=-1).gather(-1, token[:, None])[:, 0]
        probs = filtered(logits.float() / self.temperature, self.top_k, self.top_p).softmax(dim=-1)
        token = dice.multinomial(probs, [1] * len(probs))
        return token, probs.gather(-1, token[:, None])[:, 0]


def filtered(logits: Float[Tensor, "k v"], top_k: int | None, top_p: float | None) -> Float[Tensor, "k v"]:
    """Logits with everything outside the top k and the nucleus p at -inf; at least one token stays."""
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None and top_p < 1:
        ascending, order = logits.sort(descending=False)
        out = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
        out[..., -1:] = False
        logits = logits.masked_fill(out.scatter(-1, order, out), -torch.inf)
    return logits


# ---------------------------------------------------------------------------------------------------------------------
# Masked diffusion


def even(n_open: int, steps: int) -> list[int]:
    """How many of ``n_open`` positions each of ``steps`` steps commits: equally many, the first ones one more.

    LLaDA (arXiv:2502.09992, Appendix B.4): a linear noise schedule commits the same expected number at every step.
    """
    return [n_open // steps + (i < n_open % steps) for i in range(steps)]


def _low_confidence(
    logits: Float[Tensor, "k v"],
    guess: Int[Tensor, "k"],
    dice: Dice,
    lengths: Sequence[int],
    places: Int[Tensor, "k"],
) -> Float[Tensor, "k"]:
    """Confidence = probability of the guess under the logits without noise: the least sure ones are masked again."""
    return logits.softmax(dim=-1).gather(-1, guess[:, None])[:, 0]


def _random(
    logits: Float[Tensor, "k v"],
    guess: Int[Tensor, "k"],
    dice: Dice,
    lengths: Sequence[int],
    places: Int[Tensor, "k"],
) -> Float[Tensor, "k"]:
    """Confidence = a uniform number for every column of the row, prompt included, as the official code draws them."""
    return dice.rand(lengths).to(logits.device)[places]


REMASKING: dict[str, Callable[..., Float[Tensor, "k"]]] = {
    "low_confidence": _low_confidence,
    "random": _random,
}


@dataclass(frozen=True)
class MaskedDiffusion:
    """LLaDA's sampler (arXiv:2502.09992, Algorithms 4 and 5; its generate.py), on any adapter and any open places.

    Every step predicts all open positions, commits some of the current block and leaves the rest masked. ``steps`` is
    the number of steps in all (None: one for each open position). ``block_length`` counts open positions from the left
    (None: all are one block); blocks are filled left to right. ``temperature`` scales Gumbel noise in float64.
    ``cfg_scale`` guides with a second pass whose given tokens are masked; states are those of the conditional half.
    ``suppress`` are tokens never predicted; ``late`` tokens get no confidence, so that they are committed last.

    A position whose prediction is the mask token itself stays open (as in the official code); suppress the mask id to
    rule that out.
    """

    steps: int | None = 32
    block_length: int | None = None
    temperature: float = 0.0
    remasking: Literal["low_confidence", "random"] = "low_confidence"
    cfg_scale: float = 0.0
    suppress: tuple[int, ...] = ()
    late: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.remasking not in REMASKING:
            raise DemurError(f"remasking {self.remasking!r}", " or ".join(REMASKING), "name one of these")
        for name in ("steps", "block_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DemurError(f"{name}={value}", "at least 1", "or None: a step for each open position, one block")
        _check_temperature(self.temperature)
        if not 0 <= self.cfg_scale < math.inf:
            raise DemurError(f"cfg_scale {self.cfg_scale}", "a finite number, at least 0", "0 is no guidance")
        if min((*self.suppress, *self.late), default=0) < 0:
            raise DemurError(
                f"suppress {self.suppress}, late {self.late}",
                "token ids from 0",
                "look them up in the tokenizer",
            )

    def plan(self, n_open: int) -> list[tuple[int, int]]:
        """For one row with ``n_open`` open positions: the end of the current block (in open positions, counted from
        the left) and how many to commit, for each step. Raises if there are fewer steps than blocks.
        """
        if n_open == 0:
            return []
        block = self.block_length or n_open
        n_blocks = -(-n_open // block)
        steps = n_open if self.steps is None else self.steps
        if steps < n_blocks:
            raise DemurError(
                f"{steps} steps for {n_blocks} blocks ({n_open} open positions, block length {block})",
                "at least one step a block",
                f"use at least {n_blocks} steps or longer blocks",
            )
        plan = []
        for b, block_steps in enumerate(even(steps, n_blocks)):
            end = min((b + 1) * block, n_open)
            plan += [(end, count) for count in even(end - b * block, block_steps)]
        return plan

    def __call__(self, model: Any, canvas: Canvas, rngs: Rngs) -> Iterator[Step]:
        """Steps until every row's plan is done; rows with fewer open positions may end earlier."""
        _check_rngs(rngs, canvas.rows)
        dice = Dice(rngs)
        starts = canvas.starts()
        # A row's numbers are drawn for its own columns, so that they are the same with any padding; a single generator
        # draws for the padding as well, as the official code does.
        drawn_from = [0] * canvas.rows if isinstance(rngs, torch.Generator) else starts
        lengths = [canvas.width - start for start in drawn_from]
        firsts = torch.tensor(
            [sum(lengths[:i]) - start for i, start in enumerate(drawn_from)], device=canvas.ids.device
        )
        plans = [self.plan(int(n)) for n in canvas.open.sum(dim=1).tolist()]
        rank: Int[Tensor, "b n"] = canvas.open.long().cumsum(dim=1)  # 1 for the first open position of a row
        ids, open_ = canvas.ids.clone(), canvas.open.clone()
        device = ids.device
        for index in range(max(map(len, plans), default=0)):
            now = [plan[index] if index < len(plan) else (0, 0) for plan in plans]
            live: Bool[Tensor, "b"] = torch.tensor([index < len(plan) for plan in plans], device=device)
            asked = open_ & live[:, None]
            out = self._forward(model, replace(canvas, ids=ids, open=open_), canvas.open, asked)
            logits = out.logits
            if max((*self.suppress, *self.late), default=0) >= logits.shape[-1]:
                raise DemurError(
                    f"suppress {self.suppress}, late {self.late}",
                    f"token ids below {logits.shape[-1]}, the size of the vocabulary",
                    "look them up in the tokenizer",
                )
            if self.suppress:
                logits[:, list(self.suppress)] = -torch.inf
            rows, columns = torch.where(asked)
            places = columns + firsts[rows]
            guess = self._noisy(logits, dice, lengths, places).argmax(dim=-1)
            if self.late:
                logits[:, list(self.late)] = -torch.inf
            sure = REMASKING[self.remasking](logits, guess, dice, lengths, places)
            predictions, confidence = ids.clone(), torch.full(ids.shape, float("nan"), device=device)
            predictions[asked], confidence[asked] = guess, sure.float()
            committed = torch.zeros_like(open_)
            for i, (end, count) in enumerate(now):
                score = torch.full((canvas.width - starts[i],), -torch.inf, dtype=sure.dtype, device=device)
                mine = rows == i
                score[columns[mine] - starts[i]] = sure[mine]
                score[rank[i, starts[i] :] > end] = -torch.inf
                chosen = torch.topk(score, min(count, len(score))).indices + starts[i]
                committed[i, chosen[open_[i, chosen]]] = True
            if model.mask_id is not None:
                committed &= predictions != model.mask_id
            ids = torch.where(committed, predictions, ids)
            open_ = open_ & ~committed
            yield Step(
                index=index,
                ids=ids,
                open=open_,
                committed=committed,
                predictions=predictions,
                confidence=confidence,
                live=live,
                hidden=out.hidden,
                start=out.start,
                span="all",
                shift=model.shift,
                passes=1 + (self.cfg_scale > 0),
            )

    def _forward(self, model: Any, now: Canvas, opened: Bool[Tensor, "b n"], asked: Bool[Tensor, "b n"]) -> Forward:
        """The conditional pass, guided away from the one in which the given tokens are masked too."""
        out: Forward = model.forward(now, asked)
        if self.cfg_scale == 0:
            return out
        if model.mask_id is None:
            raise DemurError(
                "classifier-free guidance on a causal model", "a model with a mask token", "leave cfg_scale 0"
            )
        blind = torch.where(opened, now.ids, torch.where(now.pad, now.ids, model.mask_id))
        free: Forward = model.watching().forward(replace(now, ids=blind), asked)
        guided = free.logits + (self.cfg_scale + 1) * (out.logits - free.logits)
        return replace(out, logits=guided)

    def _noisy(
        self, logits: Float[Tensor, "k v"], dice: Dice, lengths: Sequence[int], places: Int[Tensor, "k"]
    ) -> Float[Tensor, "k v"]:
        """Logits whose argmax is a sample at the temperature: exp(l) / (-log u)^temperature, in float64.

        Gumbel-max in low precision changes what is sampled (Zheng et al., arXiv:2409.02908); hence float64.
        """
        if self.temperature == 0:
            return logits
        device = torch.device("cpu") if logits.device.type == "mps" else logits.device  # mps has no float64
        noise = dice.rand(lengths, logits.shape[-1], dtype=torch.float64)
        noise = noise[places.to(noise.device)].to(device)
        noisy = logits.to(device, torch.float64).exp() / (-torch.log(noise)) ** self.temperature
        # What is suppressed stays so at any temperature: (-log u)^temperature may underflow, and 0 / 0 would win.
        return noisy.masked_fill(logits.to(device) == -torch.inf, -torch.inf)


def autoregressive_order(**settings: Any) -> MaskedDiffusion:
    """The control of the paper's central experiment (Table 2): diffusion weights, one token a step, left to right."""
    return MaskedDiffusion(**{"steps": None, "block_length": 1} | settings)


SAMPLERS: dict[str, Callable[..., Autoregressive | MaskedDiffusion]] = {
    "ar": Autoregressive,
    "low-confidence": MaskedDiffusion,
    "random": lambda **settings: MaskedDiffusion(**{"remasking": "random"} | settings),
    "ar-order": autoregressive_order,
}
"""Samplers by the name the command line takes."""
