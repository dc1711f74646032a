"""Autoregressive decoding on a causal adapter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from demur.kinds import check_kinds
from demur.samplers.dice import Dice, Rngs
from demur.samplers.rules import check_nucleus, check_temperature, filtered, tempered
from demur.types import Cached, Canvas, DemurError, Forward, Known, Need, Step, lacking


@dataclass(frozen=True)
class Autoregressive:
    """One token a step, left to right, never revised. Temperature 0 is greedy.

    Filters apply in the order of transformers: temperature, top-k, top-p. With ``cache`` keys and values are kept;
    without it every step passes the whole prefix again (the same tokens, more slowly).

    A step's ``hidden`` holds the column that produced the token and, for a model that wants a token's ``own`` state,
    that one as well: the token is fed back before the step is yielded, the last one too. Else it is fed back when the
    next step is asked for, so that a row takes as many passes as steps, whatever its neighbours do.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.CAUSAL, Need.CACHE})
    commits_are_final: ClassVar[bool] = True

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    cache: bool = True

    def __post_init__(self) -> None:
        check_kinds(self, vars(self), type(self).__name__)
        check_temperature(self.temperature)
        check_nucleus(self.top_k, self.top_p)

    def __call__(self, model: Cached, canvas: Canvas, rngs: Rngs) -> Iterator[Step]:
        """Steps until every row has ended or is full. Raises for a canvas whose open places are not one right tail."""
        if not bool(canvas.open.any()):
            return
        first = int(torch.where(canvas.open.any(dim=0))[0][0])
        if not bool((canvas.open[:, first:]).all()):
            raise DemurError(
                "a canvas with holes, or with open tails of different lengths",
                "open places at the right end only, equally many in every row",
                "use a masked-diffusion sampler to fill holes",
            )
        starts = canvas.starts()
        if max(starts) >= first:
            raise DemurError(
                "a row without a given token",
                "at least one token in every row for the first open place to follow",
                "begin the row with the begin-of-sequence token",
            )
        if lacking(model, self.needs):
            raise DemurError(
                f"autoregressive decoding of the diffusion model {model.name}",
                "a causal model",
                "use the sampler ar-order, which commits left to right on diffusion weights",
            )
        cache = model.new_cache() if self.cache else None
        dice = Dice(rngs, canvas.rows)
        stop = torch.tensor(model.stop_ids, dtype=torch.long, device=canvas.ids.device)
        ids, open_ = canvas.ids.clone(), canvas.open.clone()
        every, padded = torch.arange(canvas.rows, device=ids.device), max(starts) > 0
        kept: dict[str, Any] = {}
        live = torch.ones(canvas.rows, dtype=torch.bool, device=ids.device)

        def passed(upto: int, wanted: bool) -> Forward:
            score = torch.zeros_like(open_)
            if wanted:
                score[:, upto] = True
            places = every, torch.full_like(every, upto)
            now = replace(canvas, ids=ids, open=open_, known=Known(first, padded, places, canvas, kept))
            forward: Forward = model.forward(now, score if wanted else None, cache=cache, upto=upto)
            return forward

        out = passed(first, wanted=True)
        for index, column in enumerate(range(first, canvas.width)):
            token, probability = self._choose(out.logits, dice)
            committed = torch.zeros_like(open_)
            committed[:, column] = live
            ids[:, column] = torch.where(live, token, ids[:, column])
            open_[:, column] &= ~live
            confidence = torch.full(ids.shape, torch.nan, dtype=torch.float32, device=ids.device)
            confidence[:, column] = torch.where(live, probability, float("nan"))
            took_part, live = live, live & ~torch.isin(token, stop)
            more = column + 1 < canvas.width and bool(live.any())
            before = out
            if model.own:
                out = passed(column + 1, wanted=more)
            hidden = {
                layer: _columns(
                    states, column - 1 - before.start, out.hidden[layer] if model.own else None, column - out.start
                )
                for layer, states in before.hidden.items()
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
                passes=1 + (model.own and index == 0),
            )
            if not more:
                return
            if not model.own:
                out = passed(column + 1, wanted=True)

    def _choose(self, logits: Float[Tensor, "b v"], dice: Dice) -> tuple[Int[Tensor, "b"], Float[Tensor, "b"]]:
        """A token for every row and its probability under what was sampled from."""
        if self.temperature == 0:
            logits = logits.float()
            best, token = logits.max(dim=-1)
            return token, (logits - best[:, None]).exp_().sum(dim=-1).reciprocal()
        probs = filtered(tempered(logits.float(), self.temperature), self.top_k, self.top_p).softmax(dim=-1)
        token = dice.multinomial(probs, [1] * len(probs))
        return token, probs.gather(-1, token[:, None])[:, 0]


def _columns(
    before: Float[Tensor, "b m d"], producing: int, after: Float[Tensor, "b k d"] | None, own: int
) -> Float[Tensor, "b c d"]:
    """The state that produced a token and, where it was fed back, the token's own: copies, so that whoever keeps a step
    does not keep the whole pass.
    """
    first = _column(before, producing)
    return first.clone() if after is None else torch.cat([first, _column(after, own)], dim=1)


def _column(states: Float[Tensor, "b m d"], at: int) -> Float[Tensor, "b 1 d"]:
    return states if states.shape[1] == 1 else states[:, at : at + 1]
