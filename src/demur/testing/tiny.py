"""Tiny random models of every kind, with a tokenizer of bytes: enough to try a part of one's own in milliseconds."""

from __future__ import annotations

import math
import zlib
from functools import cache
from typing import Any

import torch

from demur.models.bidirectional import Bidirectional
from demur.models.causal import Causal
from demur.models.chat import Chat
from demur.models.computed import computed_by
from demur.models.weights import fingerprint
from demur.types import OFFERS, DemurError, Identity, Kind, Model, Need

EOS, PAD, MASK = 256, 257, 258
"""The special tokens, after the 256 bytes."""
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@cache
def tiny(kind: Kind | str = Kind.CAUSAL) -> Model:
    """A model of a kind with two blocks of 32 dimensions, always the same one. Its chat template writes ``role: text``
    lines. Raises for ``renoising``, for which there is no tiny model here.
    """
    kind = Kind(kind)
    if kind is Kind.RENOISING:
        raise DemurError("a tiny renoising model", "causal, masked or block", "use DiffusionGemma's classes")
    net, tokenizer = _net(), _tokenizer()
    identity = Identity(
        f"tiny {kind}", weights=fingerprint(net), computed=computed_by(net), **Chat(tokenizer).described()
    )
    if kind is Kind.CAUSAL:
        return Causal(net=net, tokenizer=tokenizer, identity=identity)
    return Bidirectional(
        net=net, tokenizer=tokenizer, identity=identity, mask_id=MASK,
        block_length=4 if kind is Kind.BLOCK else None, preferred="sdar" if kind is Kind.BLOCK else "low-confidence",
    )  # fmt: skip


def fitting(needs: frozenset[Need]) -> Model:
    """A tiny model that offers what is needed. Raises if none does."""
    for kind in (Kind.CAUSAL, Kind.MASKED, Kind.BLOCK):
        if needs <= OFFERS[kind] | {Need.CHAT}:
            return tiny(kind)
    raise DemurError(f"the needs {', '.join(sorted(needs))}", "those of one kind of model", "leave some out")


@cache
def _net() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=264, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=None, eos_token_id=EOS, pad_token_id=PAD,
        tie_word_embeddings=False,
    )  # fmt: skip
    net = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in net.state_dict(keep_vars=True).items():
            if weight.is_floating_point():
                z = torch.randn(
                    weight.shape,
                    dtype=torch.float32,
                    generator=torch.Generator().manual_seed(zlib.crc32(name.encode())),
                )
                scale = 1 if "embed" in name else 1.5 / math.sqrt(weight.shape[-1])
                weight.copy_(1 + 0.1 * z if weight.ndim == 1 else scale * z)
    return net


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    names = [chr(b) if b in kept else chr(next(others)) for b in range(256)]  # byte-level BPE's names of bytes
    backend = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    special = {"eos_token": "<eos>", "pad_token": "<pad>", "mask_token": "<mask>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    tokenizer.chat_template = TEMPLATE
    return tokenizer
