"""Renoising diffusion: every place may be written again until its canvas is done (DiffusionGemma)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.kinds import check_kinds
from demur.samplers.asked import places
from demur.samplers.dice import Dice, Rngs
from demur.samplers.given import firsts, mean_of_open, one_after_another
from demur.types import Canvas, DemurError, Denoising, Need, Step, lacking


@dataclass(frozen=True)
class Renoise:
    """DiffusionGemma's sampler (transformers' native ``generate``): entropy-bounded acceptance, the rest renoised.

    A canvas starts as random tokens. In each of up to ``steps`` steps tokens are drawn at a temperature that falls
    linearly from ``t_max`` to ``t_min``; those with the lowest entropies are accepted while the entropies before them
    add up to at most ``entropy_bound`` (nats; Ben-Hamu et al., arXiv:2505.24857), the others are replaced by random
    tokens, accepted ones of earlier steps included. The next step sees this step's logits (self-conditioning). A canvas
    is done when its most probable tokens were the same for ``stability`` steps and the mean entropy is below
    ``confidence``, or after ``steps``; it then holds its most probable tokens, not the accepted ones.

    Given tokens may stand between the open places: they never move (:mod:`demur.samplers.given`).

    In a step, ``committed`` are the accepted places (at a canvas's last step: all), ``predictions`` the most probable
    tokens, ``confidence`` minus the entropy in nats.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.RENOISE})
    whole: ClassVar[bool] = True  # ``steps`` are those of a whole answer

    steps: int = 48
    entropy_bound: float = 0.1
    t_min: float = 0.4
    t_max: float = 0.8
    stability: int = 1
    confidence: float = 0.005

    def __post_init__(self) -> None:
        check_kinds(self, vars(self), type(self).__name__)
        if self.steps < 1 or self.entropy_bound <= 0 or self.stability < 0:
            raise DemurError(
                f"steps={self.steps}, entropy_bound={self.entropy_bound}, stability={self.stability}",
                "steps of at least 1, a bound above 0, a stability of at least 0",
                "leave them out for the model's own",
            )

    def __call__(self, model: Denoising, canvas: Canvas, rngs: Rngs) -> Iterator[Step]:
        """Steps of all canvases. Raises for a model that does not denoise random canvases."""
        begins = _begins(model, canvas)
        if len(set(begins)) > 1:
            yield from one_after_another(self, model, canvas, rngs, begins)
        else:
            yield from self._from(begins[0], model, canvas, rngs)

    def _from(self, first: int, model: Denoising, canvas: Canvas, rngs: Rngs) -> Iterator[Step]:
        """Steps of rows whose first open places lie in one column."""
        dice, index = Dice(rngs, canvas.rows), 0
        cache = model.new_cache()
        stops = torch.tensor(model.stop_ids, dtype=torch.long, device=canvas.ids.device)
        temperatures = self._temperatures().to(canvas.ids.device)
        ids, open_ = canvas.ids.clone(), canvas.open.clone()
        ended = torch.zeros(canvas.rows, dtype=torch.bool, device=ids.device)
        for begin in range(first, canvas.width, model.canvas_length):
            here = slice(begin, min(begin + model.canvas_length, canvas.width))
            free = canvas.open[:, here]
            # What the host knows of the rows: it reads who is done, once a step.
            over, opened = torch.stack([ended, free.any(dim=1)]).tolist()
            if not any(opened):
                continue  # all is given, and read before the next canvas
            model.read(replace(canvas, ids=_ended_at(ids, ended, stops, canvas.open, model.pad_id)), cache, begin)
            going = ~ended & free.any(dim=1)
            seen = [own and not one for one, own in zip(over, opened, strict=True)]
            draft = self._random(model, dice, _Rows.of(going, seen, dice), ids[:, here])
            draft = torch.where(free, self._begun(draft, ids[:, here], begin == first), ids[:, here])
            best, history = draft, torch.full((self.stability, *draft.shape), -1, device=ids.device)
            before: Float[Tensor, "b m v"] | None = None
            # The official code draws on for rows that have ended; with a single generator that is done here, too.
            done = ~free.any(dim=1) if dice.shared else ~going
            done_seen = [not own for own in opened] if dice.shared else [not one for one in seen]
            for left in range(self.steps, 0, -1):
                going = ~done
                drawn = _Rows.of(going, [not one for one in done_seen], dice)
                live = going & ~ended
                out = model.denoise(canvas, cache, draft, before)
                logits = (out.logits / temperatures[left]).unflatten(0, draft.shape)  # type: ignore[no-untyped-call]
                entropy = _entropy(logits)
                accepted = self._accept(entropy.masked_fill(~free, torch.inf))
                renoised = torch.where(
                    accepted, self._sample(logits, dice, drawn, draft), self._random(model, dice, drawn, draft)
                )
                draft = torch.where(going[:, None] & free, renoised, draft)
                best = torch.where(going[:, None] & free, logits.argmax(dim=-1), best)
                if before is not None:
                    logits = torch.where(going[:, None, None], logits, before.to(logits.dtype))
                stable = (history == best[None]).all(dim=-1).all(dim=0)
                history = torch.cat([history, best[None]])[1:] if self.stability else history
                done = done | (stable & (mean_of_open(entropy, free) < self.confidence) & going)
                before = logits.to(model.net.model.decoder.embed_tokens.weight.dtype)
                finishing = (done | (left == 1)) & live
                committed = _put((accepted | finishing[:, None]) & live[:, None] & free, here, torch.zeros_like(open_))
                ids[:, here] = torch.where(live[:, None], torch.where(finishing[:, None], best, draft), ids[:, here])
                open_[:, here] = torch.where(live[:, None], free & ~committed[:, here], open_[:, here])
                blank = torch.full(ids.shape, torch.nan, dtype=torch.float32, device=ids.device)
                if not all(map(max, done_seen, over)):  # else rows that have ended are drawn for, and no one else
                    yield Step(
                        index=index,
                        ids=ids.clone(),
                        open=open_.clone(),
                        committed=committed,
                        predictions=_put(torch.where(committed[:, here], ids[:, here], best), here, ids.clone()),
                        confidence=_put(torch.where(live[:, None] & free, -entropy, float("nan")), here, blank),
                        live=live,
                        hidden=out.hidden,
                        start=out.start,
                        span="canvas",
                        passes=1 + (left == self.steps),
                    )
                    index += 1
                done_seen = done.tolist()
                if all(done_seen):
                    break
            ended = ended | (torch.isin(ids[:, here], stops) & free).any(dim=1)
            if bool(ended.all()):
                return

    def _accept(self, entropy: Float[Tensor, "b m"]) -> Bool[Tensor, "b m"]:
        """The places with the lowest entropies, while those before them add up to at most the bound."""
        ordered, order = entropy.sort(dim=-1)
        taken = ordered.cumsum(dim=-1) - ordered <= self.entropy_bound
        return torch.zeros_like(taken).scatter(-1, order, taken)

    def _begun(self, draft: Int[Tensor, "b m"], standing: Int[Tensor, "b m"], first: bool) -> Int[Tensor, "b m"]:
        """What a canvas begins with: random tokens, whatever stands there; ``first``: whether it is a row's first."""
        return draft

    def _temperatures(self) -> Float[Tensor, "s+1"]:
        """By how many steps are left."""
        return self.t_min + (self.t_max - self.t_min) * (torch.arange(self.steps + 1, dtype=torch.float32) / self.steps)

    @staticmethod
    def _sample(
        logits: Float[Tensor, "b m v"], dice: Dice, rows: _Rows, draft: Int[Tensor, "b m"]
    ) -> Int[Tensor, "b m"]:
        """Tokens drawn for some rows; the others keep their draft."""
        probs = logits[rows.which].softmax(dim=-1, dtype=torch.float32)
        sampled, size = draft.clone(), draft.shape[1]
        sampled[rows.which] = dice.multinomial(probs.flatten(0, 1), [size * one for one in rows.drawn]).view(-1, size)
        return sampled

    @staticmethod
    def _random(model: Denoising, dice: Dice, rows: _Rows, instead: Int[Tensor, "b m"]) -> Int[Tensor, "b m"]:
        """Random tokens for some rows; the others keep theirs."""
        noise, size = instead.clone(), instead.shape[1]
        numbers = dice.randint(model.vocabulary, [size * one for one in rows.drawn])
        noise[rows.which] = numbers.to(noise.device).view(-1, size)
        return noise


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows that are drawn for: ``which`` they are, on the device, and 1 or 0 for each row, on the host."""

    which: Int[Tensor, "r"]
    drawn: list[int]

    @classmethod
    def of(cls, going: Bool[Tensor, "b"], seen: Sequence[bool], dice: Dice) -> _Rows:
        """Those that are going, ``seen`` the same on the host; all, if a single generator draws, as officially."""
        if dice.shared or all(seen):
            return cls(torch.arange(len(seen), device=going.device), [1] * len(seen))
        return cls(places(going[None], sum(seen))[1], [int(one) for one in seen])


@dataclass(frozen=True)
class SeededRenoise(Renoise):
    """Renoising that begins its first canvas with the tokens that stand in the open places, not with random ones.

    They are no given tokens: each may be renoised and written again (``decoder_input_ids`` of transformers' generate).
    Write them into ``canvas.ids``: ``replace(canvas, ids=...)``. Later canvases begin at random.
    """

    def _begun(self, draft: Int[Tensor, "b m"], standing: Int[Tensor, "b m"], first: bool) -> Int[Tensor, "b m"]:
        """The tokens that stand in the open places, for the first canvas."""
        return standing if first else draft


def _begins(model: Denoising, canvas: Canvas) -> list[int]:
    """Each row's first open column; the canvas's width where nothing is open. Raises for what can't be run."""
    if lacking(model, Renoise.needs):
        raise DemurError(
            f"renoising on the {model.kind} model {model.name}", "a model like DiffusionGemma", "use another sampler"
        )
    return firsts(canvas)


def _put(values: Tensor, here: slice, canvas: Tensor) -> Tensor:
    """The canvas with these values in one of its windows."""
    canvas[:, here] = values
    return canvas


def _entropy(logits: Float[Tensor, "b m v"]) -> Float[Tensor, "b m"]:
    """Entropies in nats, with torch's own rounding: acceptance compares them with a bound."""
    known = torch.distributions.Categorical(logits=logits, validate_args=False)
    entropy: Float[Tensor, "b m"] = known.entropy()  # type: ignore[no-untyped-call]
    return entropy


def _ended_at(
    ids: Int[Tensor, "b n"], ended: Bool[Tensor, "b"], stops: Int[Tensor, "e"], ours: Bool[Tensor, "b n"], pad: int
) -> Int[Tensor, "b n"]:
    """Ids as the official code passes them on: in rows that have ended, padding follows the end of sequence that stands
    in one of ``ours``, the places that were not given.
    """
    ends = torch.isin(ids, stops) & ours
    after = (ends.long().cumsum(dim=1) - ends.long() > 0) & ended[:, None]
    return ids.masked_fill(after, pad)
