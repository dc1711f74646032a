"""Laws of the causal architectures that docs/models.md names: each a tiny random model of its own native class, saved
to a disk and loaded from there.

Sliding windows, chunks, convolutions and linear attention keep their past in other ways than a plain cache does, and
that is where padding and caches break without a word. So the rows here are longer than every window.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import small
import tiny
import torch
import transformers

import demur
from demur.models import Causal, causal
from demur.samplers import Autoregressive
from demur.types import DemurError, Identity, Kind

# Tiny tokenizers split by other rules than Qwen's class, which is said.
pytestmark = pytest.mark.filterwarnings("ignore:.*splits texts otherwise")

COMMON = {
    "vocab_size": small.VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": None,
    "eos_token_id": small.EOS, "pad_token_id": small.PAD,
}  # fmt: skip
HEADS = COMMON | {"head_dim": 8}
WINDOW = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"] * 2, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_conv_kernel_dim": 3,
}  # fmt: skip
SHARED = {"shared_expert_intermediate_size": 16}
NO_ROPE = {"no_rope_layers": [1, 1, 1, 0]}
LLAMA4 = HEADS | NO_ROPE | {
    "intermediate_size_mlp": 64, "num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2,
    "attention_chunk_size": 8,
}  # fmt: skip
GLM4 = HEADS | {
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "moe_intermediate_size": 16, "first_k_dense_replace": 1,
}  # fmt: skip
GEMMA4 = HEADS | WINDOW | {"global_head_dim": 16, "num_kv_shared_layers": 0}
PER_LAYER = {"num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 264}
GEMMA4_EXPERTS = {
    "hidden_size_per_layer_input": 0, "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2,
    "moe_intermediate_size": 16, "attention_k_eq_v": True, "num_global_key_value_heads": 1,
}  # fmt: skip
GPT_OSS = {"num_local_experts": 4, "num_experts_per_tok": 2}
CONVOLUTIONS = {"layer_types": ["conv", "full_attention"] * 2, "conv_L_cache": 3}
YARN = {
    "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16, "beta_fast": 32.0,
    "beta_slow": 1.0, "llama_4_scaling_beta": 0.1,
}  # fmt: skip
PLAIN_YARN = {key: value for key, value in YARN.items() if key != "llama_4_scaling_beta"}

STATES = {
    "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_d_conv": 3,
    "mamba_expand": 2, "mamba_chunk_size": 16,
}  # fmt: skip

ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "llama4_text": lambda: transformers.Llama4TextConfig(**LLAMA4),
    "gpt_oss": lambda: transformers.GptOssConfig(**HEADS | WINDOW | GPT_OSS),
    "qwen3": lambda: transformers.Qwen3Config(**HEADS),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(**HEADS | EXPERTS, decoder_sparse_step=1),
    "qwen3_next": lambda: transformers.Qwen3NextConfig(**HEADS | LINEAR | EXPERTS | SHARED, decoder_sparse_step=1),
    "qwen3_5_text": lambda: transformers.Qwen3_5TextConfig(**HEADS | LINEAR),
    "qwen3_5_moe_text": lambda: transformers.Qwen3_5MoeTextConfig(**HEADS | LINEAR | EXPERTS | SHARED),
    "gemma3_text": lambda: transformers.Gemma3TextConfig(**HEADS | WINDOW),
    "gemma4_text": lambda: transformers.Gemma4TextConfig(**GEMMA4),
    "glm4_moe": lambda: transformers.Glm4MoeConfig(**GLM4),
    "olmo3": lambda: transformers.Olmo3Config(**COMMON | WINDOW),
    "smollm3": lambda: transformers.SmolLM3Config(**COMMON | NO_ROPE),
    "lfm2": lambda: transformers.Lfm2Config(**COMMON | CONVOLUTIONS, block_auto_adjust_ff_dim=False),
    "ministral3": lambda: transformers.Ministral3Config(**HEADS, rope_parameters=YARN),
    "gemma4_text/per-layer": lambda: transformers.Gemma4TextConfig(**GEMMA4 | PER_LAYER),
    "gemma4_text/experts": lambda: transformers.Gemma4TextConfig(**GEMMA4 | GEMMA4_EXPERTS),
    "gpt_oss/yarn": lambda: transformers.GptOssConfig(**HEADS | WINDOW | GPT_OSS | {"rope_parameters": PLAIN_YARN}),
    "smollm3/window": lambda: transformers.SmolLM3Config(**COMMON | NO_ROPE, use_sliding_window=True, sliding_window=4),
    "lfm2_moe": lambda: transformers.Lfm2MoeConfig(**COMMON | CONVOLUTIONS | EXPERTS, num_dense_layers=1),
    "falcon_h1": lambda: transformers.FalconH1Config(**HEADS | STATES, mamba_d_ssm=64),
    "bamba": lambda: transformers.BambaConfig(**COMMON | STATES, attn_layer_indices=[1, 3]),
    "granitemoehybrid": lambda: transformers.GraniteMoeHybridConfig(
        **COMMON | STATES, layer_types=["mamba", "attention"] * 2, num_local_experts=2, num_experts_per_tok=1,
        shared_intermediate_size=32,
    ),
    "nemotron_h": lambda: transformers.NemotronHConfig(
        **HEADS, hybrid_override_pattern="M*M-", mamba_num_heads=4, mamba_head_dim=16, ssm_state_size=8, n_groups=1,
        conv_kernel=3, chunk_size=16,
    ),
}  # fmt: skip
FAST = ("gpt_oss", "lfm2", "qwen3_5_text")
"""One with windows and experts, one with convolutions, one with linear attention."""
EVERY = pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
ROWS = ([*range(30, 100)], [5], [*range(160, 181)])
"""Ragged; the first row is longer than every window, chunk and convolution, and than linear attention's own chunks."""
GREEDY, SAMPLED = Autoregressive(), Autoregressive(temperature=0.8, top_k=40, top_p=0.95)
LENGTH = 12


@cache
def loaded(name: str) -> Any:
    """The tiny model of an architecture, as ``demur.load`` makes it of a folder."""
    with TemporaryDirectory() as folder:
        path = Path(folder)
        tiny.native(ARCHITECTURES[name](), seed=3).save_pretrained(path)
        small.byte_level(None).save_pretrained(path)
        return demur.load(path, dtype="float32", device="cpu")


def written(model: Any, row: list[int], sampler: Autoregressive, seed: int = 0) -> list[int]:
    """The tokens that a row is continued by, drawn as transformers draws them: by one generator."""
    canvas = model.canvas_of([row], LENGTH)
    *_, last = sampler(model, canvas, torch.Generator().manual_seed(seed))
    return last.ids[0, len(row) :][~last.open[0, len(row) :]].tolist()


def generated(model: Any, row: list[int], seed: int = 0, **asked: Any) -> list[int]:
    """What transformers' own generate continues a row by."""
    torch.manual_seed(seed)
    ids = torch.tensor([row])
    whole = model.net.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=LENGTH, pad_token_id=small.PAD, **asked
    )
    tokens: list[int] = whole[0, len(row) :].tolist()
    return tokens


@EVERY
def test_tokens_are_those_of_generate(name: str) -> None:
    model = loaded(name)
    assert model.kind == Kind.CAUSAL
    assert model.net.config.model_type == name.partition("/")[0]
    for row in ROWS:
        assert written(model, row, GREEDY) == generated(model, row, do_sample=False)
    asked = {"do_sample": True, "temperature": 0.8, "top_k": 40, "top_p": 0.95}
    assert written(model, ROWS[2], SAMPLED, seed=7) == generated(model, ROWS[2], seed=7, **asked)


@EVERY
def test_a_row_alone_is_the_row_in_a_batch_and_a_cache_changes_nothing(name: str) -> None:
    model = loaded(name)
    together = small.record(model, model.canvas_of(ROWS, LENGTH), SAMPLED, small.AR_KEYS, range(3))
    plain = Autoregressive(temperature=0.8, top_k=40, top_p=0.95, cache=False)
    uncached = small.record(model, model.canvas_of(ROWS, LENGTH), plain, small.AR_KEYS, range(3))
    for i, row in enumerate(ROWS):
        (alone,) = small.record(model, model.canvas_of([row], LENGTH), SAMPLED, small.AR_KEYS, [i])
        small.assert_same(together[i], alone, 1e-4)
        small.assert_same(uncached[i], alone, 1e-4)


@EVERY
def test_states_of_blocks_are_transformers_own(name: str) -> None:
    model = loaded(name)
    watched = model.watching("1", "2", "3", "last")
    canvas = watched.canvas_of([ROWS[2], ROWS[0]], 0)
    found = watched.forward(canvas, None).hidden
    own = model.net(input_ids=torch.tensor([ROWS[2]]), output_hidden_states=True).hidden_states
    assert len(own) == 5
    for layer, states in zip(("1", "2", "3", "last"), own[1:], strict=True):
        small.assert_close(found[layer][0, -len(ROWS[2]) :], states[0].detach(), layer)


@pytest.mark.parametrize("name", [*causal.PLAIN, "mistral/window", "smollm3/window"])
def test_a_mask_made_here_gives_the_bits_of_one_that_transformers_makes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, _, window = name.partition("/")
    more = (GLM4 if kind == "glm4_moe" else HEADS) | {"sliding_window": 4 if window else None}
    more |= {"use_sliding_window": True} if window else {}
    net = tiny.native(transformers.AutoConfig.for_model(kind, **more), seed=3)
    model = Causal(net=net, tokenizer=None, identity=Identity(name))
    assert causal._takes_one_mask(model.config) == (not window)
    rows = [ROWS[2], ROWS[1], ROWS[0][:9]]
    samplers = (GREEDY, Autoregressive(cache=False))
    made_here = [small.record(model, model.canvas_of(rows, 6), one, small.AR_KEYS, range(3)) for one in samplers]
    monkeypatch.setattr(causal, "PLAIN", ())
    for ours, sampler in zip(made_here, samplers, strict=True):
        theirs = small.record(model, model.canvas_of(rows, 6), sampler, small.AR_KEYS, range(3))
        for one, other in zip(ours, theirs, strict=True):
            small.assert_same(one, other, 0)


# -- models that read images too ------------------------------------------------------------------------------

VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
QWEN_EYES = {
    "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32, "patch_size": 4,
    "num_position_embeddings": 16,
}  # fmt: skip
QWEN_TOKENS = {"image_token_id": 260, "video_token_id": 261, "vision_start_token_id": 262, "vision_end_token_id": 263}
LLAMA_EYES = VISION | {
    "image_size": 28, "patch_size": 14, "vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16,
}  # fmt: skip
LLAMA_TOKENS = {"boi_token_index": 260, "eoi_token_index": 261, "image_token_index": 262}
GEMMA_EYES = VISION | {"num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 8}
GEMMA_TOKENS = {"boi_token_id": 260, "eoi_token_id": 261, "image_token_id": 262, "audio_token_id": 263}


def _text(name: str) -> dict[str, Any]:
    described: dict[str, Any] = ARCHITECTURES[name]().to_dict()
    return described


SEEING: dict[str, Callable[[], Any]] = {
    "llama4": lambda: transformers.Llama4Config(
        text_config=_text("llama4_text"), vision_config=LLAMA_EYES, **LLAMA_TOKENS
    ),
    "qwen3_5": lambda: transformers.Qwen3_5Config(
        text_config=_text("qwen3_5_text"), vision_config=QWEN_EYES, **QWEN_TOKENS
    ),
    "qwen3_5_moe": lambda: transformers.Qwen3_5MoeConfig(
        text_config=_text("qwen3_5_moe_text"), vision_config=QWEN_EYES, **QWEN_TOKENS
    ),
    "gemma3": lambda: transformers.Gemma3Config(
        text_config=_text("gemma3_text"), vision_config=VISION | {"image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4, **LLAMA_TOKENS,
    ),
    "gemma4": lambda: transformers.Gemma4Config(
        text_config=_text("gemma4_text"), vision_config=GEMMA_EYES, audio_config=None, **GEMMA_TOKENS
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEING)
def test_a_model_that_sees_has_the_same_logits_for_text(name: str, tmp_path: Path) -> None:
    whole = transformers.AutoModelForImageTextToText.from_config(SEEING[name]()).float().eval()
    tiny.fill(whole, 3, skip=("scale", "scalar", "vision", "visual", "inv_freq", "multi_modal"))
    for weight in whole.parameters():
        if not weight.any():  # as a projection of Gemma 3 begins; a file with such a hole has been broken off
            torch.nn.init.normal_(weight, std=0.02)
    whole.save_pretrained(tmp_path)
    small.byte_level(None).save_pretrained(tmp_path)
    model = demur.load(tmp_path, dtype="float32", device="cpu")
    canvas = model.canvas_of([ROWS[2], ROWS[0]], 0)
    score = torch.zeros_like(canvas.open)
    score[0, -8:] = True
    theirs = whole(input_ids=torch.tensor([ROWS[2]])).logits[0, -9:-1]
    small.assert_close(model.forward(canvas, score).logits, theirs.detach(), name, 1e-4)


# -- what can not be exact is refused in one line ---------------------------------------------------------------


def _adapter(config: Any) -> Causal:
    return Causal(net=tiny.native(config, seed=3), tokenizer=small.byte_level(None), identity=Identity("tiny"))


def _refused(act: Callable[[], Any], *words: str) -> None:
    with pytest.raises(DemurError) as caught:
        act()
    small.one_line(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_padding_that_llama_4_counts_as_text_is_refused() -> None:
    model = _adapter(transformers.Llama4TextConfig(**LLAMA4, floor_scale=32))
    model.forward(model.canvas_of([ROWS[2], ROWS[1]], 0), None)  # 21 columns
    model.forward(model.canvas_of([ROWS[0]], 0), None)  # 70, without padding
    _refused(lambda: model.forward(model.canvas_of(ROWS, 0), None), "padded", "32")


def test_a_batch_on_both_sides_of_longrope_is_refused() -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    rope |= {"rope_theta": 1e4, "original_max_position_embeddings": 40}
    model = _adapter(transformers.Phi3Config(**COMMON, original_max_position_embeddings=40, rope_parameters=rope))
    long, short = [*range(30, 80)], [*range(30, 65)]
    for rows, length in (([long], 4), ([long, long[:45]], 4), ([short, [5]], 4)):
        model.forward(model.canvas_of(rows, length), None)
    _refused(lambda: model.forward(model.canvas_of([long, short], 4), None), "longrope", "40")
    _refused(lambda: model.forward(model.canvas_of([short], 10), None), "35 to 45 places")


def test_dynamic_rope_is_refused_beyond_its_length() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    model = _adapter(transformers.LlamaConfig(**COMMON | {"max_position_embeddings": 40}, rope_parameters=rope))
    model.forward(model.canvas_of([ROWS[2], [5]], 19), None)
    _refused(lambda: model.forward(model.canvas_of([ROWS[2]], 20), None), "dynamic RoPE", "at most 40")


def test_convolutions_that_read_padding_are_refused() -> None:
    config = transformers.Lfm2Config(**COMMON | CONVOLUTIONS, conv_bias=True)
    _refused(lambda: demur.load(tiny.native(config), tokenizer=small.byte_level(None)), "conv_bias")
