"""Native transformers classes run as masked-diffusion LMs: one full 4D attention mask, no remote code.

LLaDA is a Llama with renamed keys, Dream a Qwen2 whose position i is predicted by column i - 1, A2D models are Qwen3.
Given a mask that lets every position see every other one, the native class computes the official model's logits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.models.adapter import Adapter
from demur.models.alone import check_rows
from demur.models.network import (
    KVCache,
    blocks_of,
    cached,
    check_states,
    decoder_of,
    head_of,
    in_this_thread,
    watched,
)
from demur.types import Canvas, DemurError, Forward, Kind


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Bidirectional(Adapter):
    """A masked-diffusion LM.

    ``shift`` is 1 where column i - 1 produces position i (Dream), else 0 (LLaDA). ``block_length``: a position sees its
    own block and those before it (SDAR, LLaDA2, BD3LM); None: every position sees every other. ``partition`` says
    where blocks are counted from: the row's first token, or the response's (the prompt's blocks then end there).
    """

    mask_id: int
    shift: int = 0
    block_length: int | None = None
    partition: Literal["start", "response"] = "start"
    preferred: str = "low-confidence"

    @property
    def kind(self) -> Kind:
        """``block`` if attention is causal over blocks, else ``masked``."""
        return Kind.MASKED if self.block_length is None else Kind.BLOCK

    @property
    def fill_id(self) -> int:
        """The mask."""
        return self.mask_id

    @torch.no_grad()
    def forward(
        self, canvas: Canvas, score: Bool[Tensor, "b n"] | None, cache: KVCache | None = None, keep: int = 0
    ) -> Forward:
        """One pass over the canvas; logits of the scored positions only, undone of the shift.

        What is given before the first open or scored position is read by every block, and the last block's output
        there is read by nobody: where :func:`sparing` knows the architecture it is not computed, and the states
        begin one column before that position.

        With a ``cache``, only the columns that it does not hold are passed; of those, it keeps the ones before ``keep``
        (the beginning of a block that is still being denoised), whose tokens must be final.
        """
        check_rows(self.net, canvas)
        passed = cache.columns if cache is not None else 0
        start = passed if cache is not None else self._read_from(canvas, score)
        mask = self._seen(canvas, score, passed)
        trunk = decoder_of(self.net)
        more = {} if cache is None else cached(trunk, cache.kv) | {"use_cache": True}
        with watched(self.net, self.layers) as states, sparing(self.net, canvas.ids[:, passed:], start - passed):
            last: Float[Tensor, "b m d"] = trunk(
                input_ids=canvas.ids[:, passed:],
                attention_mask=mask,
                position_ids=canvas.positions()[:, passed:],
                **more,
            ).last_hidden_state
        check_states(self.net, last, canvas.pad[:, canvas.width - last.shape[1] :])
        if cache is not None:
            cache.keep(keep, canvas.width)
        hidden = {layer: x[:, x.shape[1] - last.shape[1] :] for layer, x in states(last).items()}
        if score is None:
            return Forward(logits=last.new_empty((0, 0)), hidden=hidden, start=start)
        rows, where = canvas.scored(score)
        if self.shift:  # the first token of a row is scored by itself: there is no column before it
            where = torch.maximum(where - 1, canvas.pad.sum(dim=1)[rows])
        return Forward(logits=head_of(self.net)(last[rows, where - start]), hidden=hidden, start=start)

    def _read_from(self, canvas: Canvas, score: Bool[Tensor, "b n"] | None) -> int:
        """The first column whose last state anybody reads; 0 where the whole canvas is passed."""
        if not can_spare(self.net):
            return 0
        if canvas.known is not None:
            return max(canvas.known.first - 1, 0)
        read = canvas.open if score is None else canvas.open | score
        if not bool(read.any()):
            return 0
        return max(int(read.any(dim=0).long().argmax()) - 1, 0)

    def blocks(self, canvas: Canvas) -> Int[Tensor, "b n"]:
        """The number of every column's block, counted from where its row's ``partition`` says: 0 is the block that
        begins there. What is before has negative numbers, padding too, which no one sees.
        """
        if self.block_length is None:
            raise DemurError(
                f"block diffusion on {self.name}, which has no blocks",
                "a model with a block length (SDAR, LLaDA2, BD3LM)",
                "use a masked-diffusion sampler, or name the block length the model was trained with",
            )
        columns = torch.arange(canvas.width, device=canvas.ids.device)[None]
        first = canvas.pad.sum(dim=1) if self.partition == "start" else canvas.open.long().argmax(dim=1)
        return torch.div(columns - first[:, None], self.block_length, rounding_mode="floor")

    def _seen(self, canvas: Canvas, score: Bool[Tensor, "b n"] | None, start: int) -> Tensor | None:
        """What the columns from ``start`` on may see, in a pass that scores these places: the same in every pass."""
        mask: Tensor | None = canvas.once("mask", self._mask)
        if mask is None:
            return None
        return mask[:, : canvas.width] if mask.ndim == 2 else mask[:, :, start : canvas.width, : canvas.width]

    def _mask(self, canvas: Canvas) -> Tensor | None:
        """What may be seen, as the network wants it: additive and 4D if its own attention is causal, else by column."""
        if self.net.config.model_type in ENCODERS:
            return (~canvas.pad).long() if canvas.is_padded else None
        hidden: Bool[Tensor, "b 1 _ n"] = canvas.pad[:, None, None, :]
        if self.block_length is not None:
            block = self.blocks(canvas)
            hidden = hidden | (block[:, None, None, :] > block[:, None, :, None])
        mask: Float[Tensor, "b 1 n n"] = torch.zeros(
            (canvas.rows, 1, canvas.width, canvas.width), dtype=self.net.dtype, device=canvas.ids.device
        )
        return mask.masked_fill(hidden, torch.finfo(self.net.dtype).min)


ENCODERS = ("modernbert", "bert", "roberta")
"""Model types whose own attention is bidirectional already: they take a mask by column."""


class _Rotary(torch.nn.Module):
    """A rotary embedding whose angles stay in fp32."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, position_ids: Tensor) -> Any:
        """Cosines and sines in fp32, whatever the dtype of ``x``."""
        return self.inner(x.float(), position_ids)


def rotate_in_fp32(net: Any) -> None:
    """Makes a native Llama rotate queries and keys in fp32, as LLaDA does (``rope_full_precision``).

    The native class rotates in the model's dtype. In fp32 there is no difference; in bf16 tokens change.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any) -> Any:
        return sdpa_attention_forward(module, query.to(value.dtype), key.to(value.dtype), value, mask, **options)

    AttentionInterface.register("sdpa_after_fp32_rope", attend)
    net.config._attn_implementation = "sdpa_after_fp32_rope"
    net.model.rotary_emb = _Rotary(net.model.rotary_emb)


LIKE_LLAMA = ("llama", "qwen2", "qwen3")
"""Model types that are known well enough to leave out what :func:`sparing` does."""


def can_spare(net: Any) -> bool:
    """Whether :func:`sparing` knows the network: its blocks, at least two, and no more than one device."""
    blocks = list(blocks_of(net)) if net.config.model_type in LIKE_LLAMA else []
    return len(blocks) > 1 and not hasattr(blocks[-1], "_hf_hook")  # such a hook moves tensors to the block's device


@contextmanager
def sparing(net: Any, ids: Int[Tensor, "b m"], start: int) -> Iterator[None]:
    """While open, a pass over ``ids`` does not compute what nobody reads, nor twice what is the same.

    The last block computes the columns from ``start`` on only. They attend to all columns as ever: of those before, it
    makes keys and values and no more. With ``start`` above 0 the pass must have a 4D mask and no cache.

    On a CPU the first block projects every token once, wherever it stands: positions come in with the rotation after
    it, and most of a canvas is one token, the mask. (On a GPU, to know how many there are would take as long.)
    """
    handles = []
    if can_spare(net) and ids.device.type == "cpu":
        attention: Any = blocks_of(net)[0].self_attn
        kinds = _occurrences(ids)
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
            handles += _once(linear, *kinds)
    if start > 0:
        handles.append(blocks_of(net)[-1].register_forward_pre_hook(in_this_thread(_from(start)), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _occurrences(ids: Int[Tensor, "b m"]) -> tuple[Int[Tensor, "u"], Int[Tensor, "b m"]]:
    """Where, counted through all rows, each token stands (one place of each), and which of them every place holds."""
    tokens, which = torch.unique(ids, return_inverse=True)
    places = torch.arange(ids.numel(), device=ids.device)
    return torch.empty_like(tokens).scatter_(0, which.flatten(), places), which


def _once(linear: torch.nn.Module, places: Int[Tensor, "u"], which: Int[Tensor, "b m"]) -> list[Any]:
    """Hooks by which a layer sees one row of each kind, and gives all."""

    def few(_: object, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (args[0].flatten(0, 1)[places],)

    def all_again(_: object, _args: object, out: Tensor) -> Tensor:
        return out[which]

    return [
        linear.register_forward_pre_hook(in_this_thread(few)),
        linear.register_forward_hook(in_this_thread(all_again)),
    ]


def _from(start: int) -> Callable[..., tuple[tuple[Tensor, ...], dict[str, Any]]]:
    """A hook by which a block computes the columns from ``start`` on."""

    def narrow(block: Any, args: tuple[Tensor, ...], more: dict[str, Any]) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        (states,) = args
        cos, sin = more["position_embeddings"]
        before = _Before(block, states[:, :start], cos[:, :start], sin[:, :start])
        told = cached(block, before) | {"position_embeddings": (cos[:, start:], sin[:, start:]), "use_cache": True}
        told["attention_mask"] = more["attention_mask"][:, :, start:]
        told["position_ids"] = more["position_ids"][:, start:]
        return (states[:, start:],), more | told

    return narrow


@dataclass(frozen=True, eq=False)
class _Before:
    """What an attention layer asks of a cache: the keys and values of the columns before those it computes."""

    block: Any
    states: Float[Tensor, "b m d"]
    cos: Float[Tensor, "b m h"]
    sin: Float[Tensor, "b m h"]

    def update(self, key: Tensor, value: Tensor, _: int, **_more: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of all columns."""
        attention = self.block.self_attn
        states = self.block.input_layernorm(self.states)
        shape = (*states.shape[:-1], -1, attention.head_dim)
        first = attention.k_proj(states).view(shape)
        if hasattr(attention, "k_norm"):
            first = attention.k_norm(first)
        rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb  # the architecture's own
        _, first = rotate(first[:, :, :0].transpose(1, 2), first.transpose(1, 2), self.cos, self.sin)
        values = attention.v_proj(states).view(shape).transpose(1, 2)
        return torch.cat([first, key], dim=2), torch.cat([values, value], dim=2)
