"""Tiny models with tiny tokenizers, and what tests need to look at generations. Nothing here is read from a disk."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import tiny
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from demur.models import Bidirectional, Causal
from demur.models.chat import template_hash
from demur.models.network import Identity
from demur.models.seeding import Seeding
from demur.models.vocabulary import token_bytes
from demur.models.weights import fingerprint
from demur.samplers import Autoregressive, MaskedDiffusion, seeded
from demur.traces import Guesses, Recorder, Trace, spec_of
from demur.types import Canvas, DemurError, Prompt, Spec, Step

CAUSAL = ("llama", "qwen", "gemma", "gpt2")
DIFFUSION = ("llada", "dream")
LAYERS = ("first", "middle", "3", "last")
AR_KEYS = tuple((layer, pool) for layer in LAYERS for pool in ("generated", "producing"))
ALL_KEYS = tuple((layer, pool) for layer in LAYERS for pool in ("generated", "producing", "response", "masked"))
PROMPTS = (
    Prompt("short", "Hi", harmful=False),
    Prompt("long", "Tell me a story about 你好 🙂.", harmful=False),
    Prompt("middle", "What time is it?", harmful=True),
)
ROWS = ((70, 71, 72, 73, 74, 75, 76, 77, 78), (5,), (20, 21, 22, 23))
"""Ragged token rows; the first is longer than Gemma's sliding window."""

EOS, PAD, MASK, VOCABULARY = 256, 257, 258, 264
"""Special tokens after the 256 bytes; the last five rows of the embedding are no token."""


# -- tokenizers ---------------------------------------------------------------------------------------------


def _byte_characters() -> list[str]:
    """The stand-ins of byte-level BPE for the bytes 0 to 255."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in kept else chr(next(others)) for b in range(256)]


@cache
def byte_level(template: str | None = None) -> Any:
    """Byte-level BPE without merges: one token a byte, so that most characters are split."""
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(_byte_characters())}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>", mask_token="<mask>"
    )
    tokenizer.chat_template = template
    return tokenizer


def beginning(template: str | None) -> Any:
    """The byte-level tokenizer, which puts ``<pad>`` in front of a text where special tokens are asked for."""
    tokenizer = copy.deepcopy(byte_level(template))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<pad> $A", special_tokens=[("<pad>", PAD)]
    )
    return tokenizer


@cache
def sentencepiece_like(strip: bool) -> Any:
    """Pieces with ``▁`` for blanks and bytes for characters out of vocabulary, as in Llama 2 (strip) and Gemma."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    names += ["▁", "▁he", "llo", "▁Sure", "▁▁", *"abcdefghijklmnopqrstuvwxyz,.!?ASé"]
    backend = Tokenizer(
        models.BPE(
            vocab={n: i for i, n in enumerate(names)}, merges=[], byte_fallback=True, unk_token="<unk>", fuse_unk=True
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


OTHER_DECODERS = ("bytes", "blanks", "metaspace", "wordpiece", "none")


@cache
def with_decoder(kind: str) -> Any:
    """A handful of words under one of the rarer decoders."""
    names = ["<unk>", "hello", "you", "##r", ".", "x", "▁hello", "▁you", "<0xC3>", "<0xA9>"]
    backend = Tokenizer(models.WordLevel(vocab={n: i for i, n in enumerate(names)}, unk_token="<unk>"))
    decoder = {
        "bytes": lambda: decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()]),
        "blanks": lambda: decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()]),
        "metaspace": decoders.Metaspace,
        "wordpiece": decoders.WordPiece,
    }
    if kind in decoder:
        backend.decoder = decoder[kind]()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


# -- models -------------------------------------------------------------------------------------------------


@cache
def _net(name: str) -> Any:
    from transformers import Gemma3TextConfig, GPT2Config, LlamaConfig, Ministral3Config, Qwen2Config, Qwen3Config

    common = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "bos_token_id": None, "eos_token_id": EOS, "pad_token_id": PAD,
    }  # fmt: skip
    window = {"head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
    old = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256}
    old |= {"bos_token_id": None, "eos_token_id": EOS, "pad_token_id": PAD}
    config = {
        "gpt2": lambda: GPT2Config(**old),
        "llama": lambda: LlamaConfig(**common),
        "qwen": lambda: Qwen2Config(**common),
        "gemma": lambda: Gemma3TextConfig(**common, **window),
        "llada": lambda: LlamaConfig(**common),
        "dream": lambda: Qwen2Config(**common),
        "qwen3": lambda: Qwen3Config(**common, head_dim=8),
        "ministral3": lambda: Ministral3Config(**common, head_dim=8),
    }[name]()
    return tiny.native(config, seed=3 + len(name))


def _identity(name: str) -> Identity:
    return Identity(name, weights=fingerprint(_net(name)), template=template_hash(byte_level(), None))


@cache
def causal(name: str) -> Causal:
    """A tiny random causal model (one of ``CAUSAL``): four blocks, a vocabulary of bytes."""
    return Causal(net=_net(name), tokenizer=byte_level(), identity=_identity(name))


@cache
def diffusion(name: str) -> Bidirectional:
    """A tiny random masked-diffusion model (one of ``DIFFUSION``); Dream predicts position i at column i - 1."""
    return Bidirectional(
        net=_net(name), tokenizer=byte_level(), identity=_identity(name), mask_id=MASK, shift=int(name == "dream")
    )


@cache
def blocks(name: str) -> Bidirectional:
    """A tiny random model of blocks of four: ``qwen3``, or ``ministral3``, whose blocks a causal pass begins."""
    if name == "ministral3":
        return seeding(4)
    return Bidirectional(
        net=_net(name), tokenizer=byte_level(), identity=_identity(name), mask_id=MASK, block_length=4, preferred="sdar"
    )


@cache
def seeding(length: int) -> Seeding:
    """A tiny random model like Nemotron-Labs-Diffusion, with blocks of so many places."""
    common = {"net": _net("ministral3"), "tokenizer": byte_level(), "identity": _identity("ministral3")}
    return Seeding(**common, mask_id=MASK, block_length=length)


def ending(model: Causal, *eos: int) -> Causal:
    """The same causal model, which ends its answers at other tokens as well."""
    net = copy.copy(model.net)
    net.generation_config = copy.copy(net.generation_config)
    net.generation_config.eos_token_id = [EOS, *eos]
    return Causal(**(vars(model) | {"net": net}))


@cache
def block(partition: str) -> Bidirectional:
    """A tiny model that is causal over blocks of four, which predicts neither the mask nor an end of sequence."""
    model = diffusion("llada")
    net = copy.deepcopy(model.net)
    old = net.get_output_embeddings()
    head = torch.nn.Linear(old.in_features, old.out_features)
    head.weight.data, head.bias.data = old.weight.data.clone(), torch.zeros(old.out_features)
    head.bias.data[[MASK, EOS]] = -1e4
    net.set_output_embeddings(head)
    return Bidirectional(**(vars(model) | {"net": net, "block_length": 4, "partition": partition}))


class Constant:
    """A model whose logits are the same everywhere: for what samplers do with numbers."""

    name, layers, shift, stop_ids, kind, own = "constant", (), 0, (), "causal", False

    def __init__(self, logits: Tensor, mask_id: int | None = None) -> None:
        self.logits, self.mask_id = logits, mask_id

    def new_cache(self) -> None:
        return None

    def watching(self, *layers: str) -> Constant:
        return self

    def forward(self, canvas: Canvas, score: Tensor | None, **_: Any) -> Any:
        from demur.types import Forward

        count = 0 if score is None else int(score.sum())
        return Forward(logits=self.logits.repeat(count, 1), hidden={})


# -- generations --------------------------------------------------------------------------------------------


def ar_samplers() -> dict[str, Autoregressive]:
    """Autoregressive settings that laws are tested under."""
    return {
        "greedy": Autoregressive(),
        "sampled": Autoregressive(temperature=1.0),
        "filtered": Autoregressive(temperature=0.7, top_k=20, top_p=0.9),
        "uncached": Autoregressive(temperature=1.0, cache=False),
    }


def diffusion_samplers() -> dict[str, MaskedDiffusion]:
    """Masked-diffusion settings that laws are tested under."""
    return {
        "greedy": MaskedDiffusion(steps=4),
        "blocks": MaskedDiffusion(steps=6, block_length=4, temperature=0.7),
        "random": MaskedDiffusion(steps=5, remasking="random", temperature=1.0),
        "guided": MaskedDiffusion(steps=4, cfg_scale=1.5, temperature=0.5),
        "ar-order": MaskedDiffusion(steps=None, block_length=1, temperature=1.0, suppress=(MASK,)),
    }


def steps_of(model: Any, canvas: Canvas, sampler: Any, seed: int = 0) -> list[Step]:
    """All steps of a generation with one generator per row."""
    return list(sampler(model, canvas, seeded(seed, canvas.rows)))


def record(model: Any, canvas: Canvas, sampler: Any, keys: Sequence[Any], seeds: Iterable[int]) -> list[Trace]:
    """Traces of a canvas of token rows."""
    watched = model.watching(*dict.fromkeys(layer for layer, _ in keys))
    recorder = Recorder(watched, canvas, [PROMPTS[0]] * canvas.rows, spec_of(watched, sampler, canvas.width), keys)
    for _ in recorder(sampler(watched, canvas, [torch.Generator().manual_seed(s) for s in seeds])):
        pass
    return recorder.traces()


def assert_same(ours: Trace, theirs: Trace, tolerance: float = 1e-5) -> None:
    """Two traces of one generation: tokens exactly equal, states and confidence to float tolerance."""
    for name in ("start", "open", "commits", "predictions"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    for name in ("stop", "passes", "pieces", "special", "prompt"):
        assert getattr(ours, name) == getattr(theirs, name), name
    np.testing.assert_allclose(ours.confidence, theirs.confidence, rtol=0, atol=tolerance, err_msg="confidence")
    assert ours.phi.keys() == theirs.phi.keys()
    for key, phi in ours.phi.items():
        assert_close(phi, theirs.phi[key], str(key), tolerance)


def assert_close(ours: Any, theirs: Any, what: str = "", tolerance: float = 1e-5) -> None:
    """Within ``tolerance`` of the largest magnitude (at least 1), and of the same shape."""
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    assert ours.shape == theirs.shape, what
    scale = max(1.0, float(np.abs(theirs).max(initial=0.0)))
    np.testing.assert_allclose(ours / scale, theirs / scale, rtol=0, atol=tolerance, err_msg=what)


SPEC = Spec("model", "r1", "w1", "float32", "t1", "Autoregressive", {"temperature": 0.0}, 4)


def trace_of(
    tokens: Sequence[int],
    pieces: Mapping[int, bytes],
    special: Iterable[int] = (),
    *,
    phi: Mapping[Any, Any] | None = None,
    spec: Spec = SPEC,
    prompt: Prompt = PROMPTS[0],
) -> Trace:
    """A trace of tokens committed one by one from left to right, without a model."""
    n = len(tokens)
    guesses = Guesses.of_steps(n, np.arange(n), np.arange(n), np.array(tokens, dtype=np.int32), np.ones(n))
    commits = [(i, i + 1, token) for i, token in enumerate(tokens)]
    return Trace(
        prompt=prompt,
        spec=spec,
        start=np.zeros(n + 1, dtype=np.int32),
        open=np.arange(n + 1) > 0,
        commits=np.array(commits, dtype=np.int32).reshape(-1, 3),
        guesses=guesses,
        phi=phi if phi is not None else {("last", "generated"): np.ones((n, 2), dtype=np.float32)},
        pieces=pieces,
        special=frozenset(special),
        stop="full",
        passes=n,
        seconds=0.0,
    )


def written(tokenizer: Any, tokens: Sequence[int]) -> Trace:
    """A trace of tokens whose bytes come from a tokenizer."""
    pieces, special = token_bytes(tokenizer, [0, *tokens])
    return trace_of(tokens, pieces, special)


def said(text: str, **more: Any) -> Trace:
    """A trace of one token that says ``text``."""
    return trace_of([1], {0: b"", 1: text.encode()}, **more)


def asked_apart(traces: Iterable[Trace]) -> list[Trace]:
    """The same traces, each as the answer to a prompt of its own."""
    return [replace(one, prompt=replace(one.prompt, text=f"{one.prompt.text} {i}")) for i, one in enumerate(traces)]


def one_line(error: DemurError) -> str:
    """What an error says, which must be one line that names what came, what was expected and what to do next."""
    text = str(error)
    assert "\n" not in text
    assert error.came
    assert error.expected
    assert error.then
    assert f"expected {error.expected}" in text
    return text


def planned(sampler: Any, n_open: int) -> list[tuple[int, int]]:
    """A row's plan as (end of the block, how many to commit), for schedules that do not look at what is open."""
    return [(turn.end, turn.quota(turn.end)) for turn in sampler.plan(n_open)]
