"""What every adapter needs to know of a transformers model: its trunk, its head, its blocks."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from demur.models.alone import check_padding
from demur.types import DemurError, Identity, Layer, Need  # noqa: F401 (Identity was here in version 0.1.0)


class KVCache:
    """Keys and values of the first ``columns`` columns. One generation's own; only adapters write to it."""

    def __init__(self, net: Any) -> None:
        from transformers import DynamicCache

        self.columns = 0
        self.kv = DynamicCache(config=net.config.get_text_config(decoder=True))

    def keep(self, columns: int, of: int) -> None:
        """Of the ``of`` columns that it holds now, keeps the first ``columns``."""
        if columns < of:
            self.kv.crop(columns - of)  # transformers takes how many to remove, as a negative number
        self.columns = columns


def forgetting(config: Any) -> Any:
    """Keys and values that nobody keeps. Without any, transformers asks the device at every pass whether the positions
    are those of several texts; what is computed is the same.
    """
    from transformers import DynamicCache

    class Forgetting(DynamicCache):  # type: ignore[misc]
        def update(self, key_states: Any, value_states: Any, *_: Any, **_more: Any) -> tuple[Any, Any]:
            return key_states, value_states

    return Forgetting(config=config)


def decoder_of(net: Any) -> Any:
    """The trunk: ids in, ``last_hidden_state`` (after the final norm) out."""
    trunk = net.get_decoder()
    if trunk is net:  # Llama 4 names a prefix that its text model does not have
        trunk = getattr(net, "model", net)
    return trunk if hasattr(trunk, "config") else net.base_model  # a masked LM calls its output layer `decoder`


def cached(module: torch.nn.Module, kv: Any) -> dict[str, Any]:
    """Keys and values as the keyword argument of a module's pass. transformers 5.24 renamed it."""
    return {_name_of_cache(type(module).forward): kv}


@cache
def _name_of_cache(forward: Callable[..., Any]) -> str:
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


def head_of(net: Any) -> Callable[[Float[Tensor, "k d"]], Float[Tensor, "k v"]]:
    """The map from states after the final norm to logits, for any rows of any positions.

    Some families scale or cap their logits after the linear layer (Gemma 2: soft cap; Cohere, Granite: scale).
    :func:`check_head` proves at loading time that what is done here is what the model does.
    """
    config = net.config.get_text_config(decoder=True)
    linear = net.get_output_embeddings()
    before = getattr(net, "head", None)  # ModernBERT's prediction head stands between the trunk and the linear layer
    cap = getattr(config, "final_logit_softcapping", None)
    times = getattr(config, "logit_scale", None)
    over = getattr(config, "logits_scaling", None)

    def head(states: Float[Tensor, "k d"]) -> Float[Tensor, "k v"]:
        states = states.to(linear.weight.device)
        logits: Float[Tensor, "k v"] = linear(before(states) if before is not None else states)
        if times is not None:
            logits = logits * times
        if over is not None:
            logits = logits / over
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        if logits.dtype == torch.float16 and not bool(torch.isfinite(logits).all()):
            raise not_finite(net, logits.dtype)
        return logits

    return head


_REPORT = "please report the model's name"


@torch.no_grad()
def check_head(net: Any) -> None:
    """Raise unless trunk and head give the model's own logits on eight tokens, and these are finite; and unless logits
    tell tokens apart: a norm or a head of zeros, or values that overflow inside, make all of them the same.
    """
    vocabulary = net.get_input_embeddings().num_embeddings
    ids = torch.arange(8, device=net.device)[None] * max(1, vocabulary // 8) % vocabulary
    whole = net(input_ids=ids).logits
    last = getattr(decoder_of(net)(input_ids=ids), "last_hidden_state", None)
    if last is None:
        raise DemurError(
            f"{type(net).__name__} has a trunk of another kind",
            "one that returns its last hidden state",
            _REPORT,
        )
    if not bool(torch.isfinite(last).all()):
        raise not_finite(net, last.dtype)
    parts = head_of(net)(last[0])
    if not torch.allclose(whole[0].float(), parts.float().to(whole.device), atol=1e-4, rtol=1e-3, equal_nan=True):
        raise DemurError(
            f"{type(net).__name__} changes its logits after the LM head in a way that demur does not know",
            "logits that are the head's output, scaled or soft-capped as in Gemma, Cohere or Granite",
            _REPORT,
        )
    if whole.shape[-1] > 1 and bool((whole.amax(dim=-1) == whole.amin(dim=-1)).all()):
        raise DemurError(
            f"{type(net).__name__} gives every token of its vocabulary the same logit, whatever it reads",
            "a model that predicts something",
            "check the checkpoint: a norm or the head holds zeros (was the download broken off?), or values overflow",
        )


@torch.no_grad()
def check_batching(model: Any) -> None:
    """Raise unless a causal model computes the same with padding, with a cache too, and plainly, on three tokens.

    State-space and hybrid models take no notice of padding, or keep another kind of cache; they would be wrong.
    """
    check_padding(model.net)
    row = [1, 2, 3]
    whole = model.forward(model.canvas_of([row], 0), None).hidden["last"][0]
    canvas = model.canvas_of([[3, 2, 1, *row, *row], row], 0)
    padded = model.forward(canvas, None).hidden["last"][1, -len(row) :]
    cache = model.new_cache()
    for upto in (canvas.width - 2, canvas.width - 1, canvas.width):  # a prompt, then token by token
        cached = model.forward(canvas, None, cache=cache, upto=upto).hidden["last"][1, -1:]
    allowed = (0.02 if whole.dtype == torch.float32 else 0.2) * max(1.0, float(whole.abs().max()))
    for what, got, expected in (("padding", padded, whole), ("a cache", cached, whole[2:])):
        if not float((got.float() - expected.float()).abs().max()) <= allowed:
            raise DemurError(
                f"{type(model.net).__name__} computes something else with {what}",
                "an attention model, whose result depends on neither padding nor cache",
                "this architecture can't be run",
            )


def blocks_of(net: Any) -> torch.nn.ModuleList:
    """The transformer blocks, found as the trunk's module list of the configured length."""
    config = net.config.get_text_config(decoder=True)
    for module in decoder_of(net).modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == config.num_hidden_layers:
            return module
    raise DemurError(
        f"{type(net).__name__} has no list of {config.num_hidden_layers} blocks", "one", "use layer `last`"
    )


def block_index(layer: Layer, n_blocks: int) -> int:
    """Which block (from 0) a layer name means. Raises for a name that is none and a number out of range."""
    if layer == "first":
        return 0
    if layer == "middle":
        return max(n_blocks // 2, 1) - 1
    known = {str(number): number - 1 for number in range(1, n_blocks + 1)}  # "01" would be another name in a spec
    if isinstance(layer, str) and layer in known:
        return known[layer]
    number = str(layer).strip().lstrip("0") if str(layer).strip().isdecimal() else ""
    raise DemurError(
        f"layer {layer!r} came",
        f"first, middle, last or a block number from 1 to {n_blocks}",
        f"write it as a text: {number!r}" if number in known else "name one of these",
    )


@contextmanager
def watched(
    net: Any, layers: tuple[Layer, ...]
) -> Iterator[Callable[[Float[Tensor, "b m d"]], Mapping[Layer, Float[Tensor, "b m d"]]]]:
    """While open, blocks named in ``layers`` keep their output; calling the result with the last states collects all.

    ``last`` needs no hook: it is what the trunk returns anyway. So the default capture adds nothing to a pass.
    Each thread collects what its own passes gave.
    """
    kept = threading.local()
    handles = []
    inner = [layer for layer in layers if layer != "last"]
    if inner:
        blocks = blocks_of(net)
        for layer in inner:

            def keep(_m: object, _i: object, output: Any, layer: Layer = layer) -> None:
                vars(kept)[layer] = _one_stream(net, output[0] if isinstance(output, tuple) else output)

            handles.append(blocks[block_index(layer, len(blocks))].register_forward_hook(keep))

    def collect(last: Float[Tensor, "b m d"]) -> Mapping[Layer, Float[Tensor, "b m d"]]:
        mine = vars(kept)
        return {layer: last if layer == "last" else mine[layer].to(last.device) for layer in layers}

    try:
        yield collect
    finally:
        for handle in handles:
            handle.remove()


def in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that changes nothing in passes of other threads, which may run through the same network meanwhile."""
    owner = threading.get_ident()

    def mine(*given: Any) -> Any:
        return hook(*given) if threading.get_ident() == owner else None

    return mine


def _one_stream(net: Any, output: Tensor) -> Float[Tensor, "b m d"]:
    """A block's output. Of Gemma 3n's several streams (AltUp) the active one, which its attention and MLP compute; the
    others are predicted from it. Raises for other models of several streams.
    """
    if output.ndim == 3:
        return output
    active = getattr(net.config.get_text_config(decoder=True), "altup_active_idx", None)
    if output.ndim != 4 or active is None:
        raise DemurError(
            f"the blocks of {type(net).__name__} return states of {output.ndim} dimensions",
            "rows, columns and features",
            "use the layer `last`",
        )
    return output[active]


def check_states(net: Any, states: Float[Tensor, "b m d"], pad: Bool[Tensor, "b m"]) -> None:
    """Raise if a state outside the padding is NaN or infinite, saying what to load the model in.

    On an accelerator only fp16 is looked at: to ask the device takes time at every step, and finite weights overflow
    nothing in bf16 and fp32, which reach to 3e38 (fp16: 65504).
    """
    if states.device.type != "cpu" and states.dtype != torch.float16:
        return
    if bool((torch.isfinite(states).all(dim=-1) | pad).all()):
        return
    raise not_finite(net, states.dtype)


def not_finite(net: Any, dtype: torch.dtype) -> DemurError:
    """What to say of a model whose pass gives NaN or infinite values although its weights are finite."""
    kind = str(dtype).removeprefix("torch.")
    came = f"{type(net).__name__} gives values in {kind} that are not finite"
    if dtype == torch.float16:
        return DemurError(
            f"{came}: they pass 65504, the largest number of this dtype",
            "a dtype that the model's values fit into",
            "load it in bfloat16 or float32 (dtype=..., --dtype ...)",
        )
    return DemurError(came, "finite ones", "check the checkpoint: its weights are finite, and yet overflow")


def stop_ids(net: Any, tokenizer: Any) -> tuple[int, ...]:
    """The end-of-sequence tokens of a model's generation config, config and tokenizer together, sorted.

    A configuration may name one or several, and ones that are none (-1, null, a number beyond the vocabulary).
    """
    config = net.config.get_text_config(decoder=True)
    owners = (getattr(net, "generation_config", None), config, tokenizer)
    named = [getattr(owner, "eos_token_id", None) for owner in owners]
    return tuple(sorted({*token_ids(named, net.get_input_embeddings().num_embeddings)}))


def odd_ends(net: Any, tokenizer: Any, offers: frozenset[Need], filed: bool = True) -> tuple[str, ...]:
    """What is odd about the ends of a model's answers: a named one that is no token, or none at all for a causal model,
    which writes on to the length; a line each.

    ``filed``: the ends were named in files of transformers; those of a GGUF header are read by rules of their own.
    -1 and null are how files say that there is none, and nothing is said of them where another one is named.
    """
    vocabulary = net.get_input_embeddings().num_embeddings
    config = net.config.get_text_config(decoder=True)
    lines: list[str] = []
    owners = (("generation_config.json", getattr(net, "generation_config", None)), ("config.json", config))
    for file, owner in owners if filed else ():
        named = getattr(owner, "eos_token_id", None)
        several = named if isinstance(named, list | tuple) else [named]
        odd = [one for one in several if one not in (None, -1, "") and not token_ids(one, vocabulary)]
        if odd and str(odd[0]) not in "".join(lines):
            lines.append(f"{file} names the end of sequence {str(odd[0])[:40]}, which is no token: it ends no answer")
    if Need.CAUSAL in offers and not stop_ids(net, tokenizer):
        lines.append("no token ends an answer: each is as long as was asked for")
    return tuple(lines)


def token_ids(named: Any, vocabulary: int) -> list[int]:
    """The ids of tokens that a configuration's value names: a number, also written as text or with a point, or a list
    of these. What is no token is left out.
    """
    if isinstance(named, list | tuple | set):
        return [i for one in named for i in token_ids(one, vocabulary)]
    if isinstance(named, Tensor):
        return token_ids(named.tolist(), vocabulary)
    try:
        number = float(named) if named is not None and not isinstance(named, bool) else -1.0
    except (TypeError, ValueError):
        return []
    return [int(number)] if number.is_integer() and 0 <= number < vocabulary else []


ASKED = (
    "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "suppress_tokens", "begin_suppress_tokens", "forced_decoder_ids", "presence_penalty",
    "frequency_penalty", "logit_bias", "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id",
    "sequence_bias", "exponential_decay_length_penalty", "min_length", "min_new_tokens", "num_beams",
    "num_beam_groups", "diversity_penalty", "length_penalty", "constraints", "force_words_ids", "guidance_scale",
    "penalty_alpha", "dola_layers", "typical_p", "epsilon_cutoff", "eta_cutoff", "min_p", "top_h",
    "renormalize_logits", "watermarking_config", "stop_strings",
)  # fmt: skip
"""Fields of a generation config that change tokens beside temperature, top-k and top-p, which samplers have."""
_TOKENS = ("forced_bos_token_id", "forced_eos_token_id")
"""Fields that name a token, of which 0 is one, too."""
_IDLE: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (1.0,), "encoder_repetition_penalty": (1.0,), "num_beams": (0, 1), "num_beam_groups": (0, 1),
    "diversity_penalty": (0.0,), "length_penalty": (1.0, 0.0), "guidance_scale": (0, 1.0), "typical_p": (0, 1.0),
    "penalty_alpha": (0.0,), "renormalize_logits": (False,),
}  # fmt: skip


def unheeded(net: Any) -> tuple[str, ...]:
    """What a causal model's generation config asks for and no sampler here does, in one line; none if it is nothing.

    ``temperature``, ``top_k``, ``top_p`` and ``do_sample`` are not among it: the sampler says what is done.
    """
    config = getattr(net, "generation_config", None)
    values = {name: getattr(config, name, None) for name in ASKED}
    asked = {
        name: value
        for name, value in values.items()
        if value not in (None, [], {}, "", *_IDLE.get(name, () if name in _TOKENS else (0,)))
    }
    if not asked:
        return ()
    says = ", ".join(f"{name} {str(value)[:40]}" for name, value in asked.items())
    return (f"generation_config.json asks for {says}: demur does not do it; its samplers go by the model's own logits",)
