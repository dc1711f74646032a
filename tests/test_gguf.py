"""GGUF files: what a header says is what the native class computes, and what is missing or left over is an error."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
import small
import tiny
import torch
import transformers
from packaging.version import Version
from transformers import AddedToken, AutoConfig, AutoTokenizer, Gemma2Config, Gemma3TextConfig, LlamaConfig

from demur.models import cache_dir, load
from demur.models.gguf import Place, described, opened, stops
from demur.models.gguf.blocks import dequantised
from demur.models.gguf.config import configured
from demur.types import DemurError, DemurWarning, Prompt

D, FF, LAYERS, HEADS, GROUPS, WORDS = 32, 64, 2, 4, 2, 260
SIZES: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": D, "intermediate_size": FF, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
    "eos_token_id": 256, "pad_token_id": 257,
}  # fmt: skip
NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def net_of(**more: Any) -> Any:
    return tiny.native(LlamaConfig(**SIZES, **more), seed=4)


def tensors_of(net: Any) -> dict[str, Any]:
    """The net's tensors under llama.cpp's names and in its order of rows."""
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    names |= {"lm_head.weight": "output.weight"}
    for i in range(LAYERS):
        names |= {f"model.layers.{i}.{hf}.weight": f"blk.{i}.{ggml}.weight" for hf, ggml in NAMES.items()}
    found = {}
    for name, tensor in net.state_dict().items():
        values = tensor.numpy()
        for part, heads in (("q_proj", HEADS), ("k_proj", GROUPS)):
            if part in name:  # llama.cpp pairs neighbours where transformers pairs halves
                values = values.reshape(heads, 2, -1, D).swapaxes(1, 2).reshape(values.shape)
        found[names[name]] = np.ascontiguousarray(values)
    return found


def write(
    path: Path,
    tensors: Mapping[str, Any],
    arch: str = "llama",
    more: Callable[[Any], Any] = lambda w: None,
    template: str | None = None,
    pre: str = "default",
    base: float = 10000.0,
    begins: bool = False,
    blocks: int = LAYERS,
    rms: bool = True,
    words: Mapping[int, str] = MappingProxyType({}),
    kinds: Mapping[int, int] = MappingProxyType({}),
) -> Path:
    path.parent.mkdir(exist_ok=True)
    w = gguf.GGUFWriter(path, arch)
    w.add_context_length(512)
    w.add_embedding_length(D)
    w.add_block_count(blocks)
    w.add_feed_forward_length(FF)
    w.add_head_count(HEADS)
    w.add_head_count_kv(GROUPS)
    (w.add_layer_norm_rms_eps if rms else w.add_layer_norm_eps)(1e-5)
    w.add_rope_freq_base(base)
    w.add_rope_dimension_count(D // HEADS)
    usual = [*small._byte_characters(), "<eos>", "<pad>", "<|eot|>", "he"]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list([words.get(i, word) for i, word in enumerate(usual)])
    w.add_token_types([kinds.get(i, 3 if 256 <= i < 259 else 1) for i in range(len(usual))])
    w.add_token_merges(["h e", "h e"])  # transformers before 5.23 takes one alone for a list of letters
    if not begins:
        w.add_bos_token_id(256)  # which it asks for wherever there is an end
    w.add_eos_token_id(256)
    w.add_pad_token_id(257)
    if template:
        w.add_chat_template(template)
    more(w)
    for name, values in tensors.items():
        w.add_tensor(name, values)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))


def same(path: Path, net: Any) -> None:
    model = load(path, device="cpu")
    ids = torch.arange(60, 130)
    canvas = model.canvas_of([ids.tolist()], 0)
    states = model.forward(canvas, None).hidden["last"][0]
    expected = net.model(input_ids=ids[None]).last_hidden_state[0]
    assert torch.allclose(states, expected, atol=2e-4)


LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip


def test_a_file_is_the_model_that_it_was_made_of_and_leaves_no_weights_behind(tmp_path: Path) -> None:
    net = net_of()
    write(tmp_path / "M.GGUF", tensors_of(net))
    same(tmp_path / "M.GGUF", net)
    assert sum(file.stat().st_size for file in cache_dir().rglob("*") if file.is_file()) < 100_000
    first = load(tmp_path / "M.GGUF", device="cpu").identity
    net.save_pretrained(tmp_path / "folder")
    assert load(tmp_path / "folder", device="cpu").identity.weights == first.weights
    assert load(tmp_path / "M.GGUF", device="cpu", dtype="bfloat16").identity.weights == (
        load(tmp_path / "folder", device="cpu", dtype="bfloat16").identity.weights
    )


@pytest.mark.parametrize("kind", ["base", "linear", "yarn", "yarn by itself", "factors"])
def test_scaled_rotary_positions_are_those_of_the_header(kind: str, tmp_path: Path) -> None:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
    base, extra = 10000.0, {}

    def more(w: Any) -> None:
        if kind == "linear":
            w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            w.add_rope_scaling_factor(4.0)
        if kind.startswith("yarn"):
            w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            w.add_rope_scaling_factor(4.0)
        if kind == "yarn":
            w.add_rope_scaling_orig_ctx_len(128)

    if kind == "base":
        base = rope["rope_theta"] = 777.0
    elif kind == "linear":
        rope |= {"rope_type": "linear", "factor": 4.0}
    elif kind.startswith("yarn"):
        rope |= {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128 if kind == "yarn" else 512}
    else:
        rope, base = LLAMA3, 500000.0
    net = net_of(rope_parameters=rope)
    tensors = tensors_of(net)
    if kind == "factors":
        plain = 1.0 / base ** (torch.arange(0, D // HEADS, 2) / (D // HEADS))
        factors = plain / net.model.rotary_emb.inv_freq
        assert float(factors.max()) > 2
        extra = {"rope_freqs.weight": factors.numpy()}
    same(write(tmp_path / "m.gguf", tensors | extra, more=more, base=base), net)


OLD = Version(transformers.__version__) < Version("5.23")
"""Before 5.23 transformers makes no tokenizer of these architectures without scores, or without a token that begins, as
the files of these tests are; demur says so in one line. A model's own file has them.
"""
needs_5_23 = pytest.mark.skipif(OLD, reason="transformers before 5.23 makes no tokenizer of this test's file")


@needs_5_23
@pytest.mark.parametrize("local", [None, 10000.0, 500.0])
@pytest.mark.parametrize("arch", ["gemma2", "gemma3"])
def test_of_gemma_the_query_is_scaled_by_the_head_and_each_kind_of_layer_has_its_base(
    arch: str, local: float | None, tmp_path: Path
) -> None:
    sizes = SIZES | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16, "tie_word_embeddings": True}
    kinds = {"layer_types": ["sliding_attention", "full_attention"]}
    if arch == "gemma2":
        config: Any = Gemma2Config(**sizes, **kinds, final_logit_softcapping=5.0, attn_logit_softcapping=3.0)
    else:
        rope = {"full_attention": 20000.0, "sliding_attention": local or 10000.0}
        by_kind = {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in rope.items()}
        sizes |= {"num_hidden_layers": 6}  # every sixth is a full one
        config = Gemma3TextConfig(**sizes, rope_parameters=by_kind)
    net = tiny.native(config, seed=4)
    names = NAMES | {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm"}
    names |= {"post_feedforward_layernorm": "post_ffw_norm"}
    names |= {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
    outside = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    tensors = {}
    for name, tensor in net.state_dict().items():
        if name != "lm_head.weight":
            _, _, i, inner = ("", "", "", "") if name in outside else name.split(".", 3)
            theirs = outside.get(name) or f"blk.{i}.{names[inner.removesuffix('.weight')]}.weight"
            tensors[theirs] = (tensor + 1 if "norm" in theirs else tensor).numpy()

    def more(w: Any) -> None:
        w.add_key_length(8)
        w.add_value_length(8)
        w.add_sliding_window(16)
        if arch == "gemma2":
            w.add_attn_logit_softcapping(3.0)
            w.add_final_logit_softcapping(5.0)
        if local is not None:
            w.add_float32(f"{arch}.rope.freq_base_swa", local)

    base = 20000.0 if arch == "gemma3" else 10000.0
    path = write(tmp_path / "m.gguf", tensors, arch, more, base=base, blocks=config.num_hidden_layers)
    if arch == "gemma2" and local == 500.0:
        with pytest.raises(DemurError, match="freq_base_swa=500 beside 10000"):
            load(path, device="cpu")
    else:
        same(path, net)


def test_what_ends_a_turn_or_a_message_ends_an_answer(tmp_path: Path) -> None:
    tensors = tensors_of(net_of())
    model = load(write(tmp_path / "a.gguf", tensors, more=lambda w: w.add_eot_token_id(258)), device="cpu")
    assert model.stop_ids == (256, 258)
    model = load(write(tmp_path / "b.gguf", tensors, more=lambda w: w.add_eom_token_id(259)), device="cpu")
    assert model.stop_ids == (256, 259)


@pytest.mark.parametrize("text", ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>"])
def test_a_control_token_that_ends_turns_by_its_text_ends_an_answer(text: str, tmp_path: Path) -> None:
    def path_of(kind: int) -> Path:
        path = tmp_path / f"{kind}.gguf"
        return write(path, tensors_of(net_of()), words={258: text}, kinds={258: kind})

    assert load(path_of(3), device="cpu").stop_ids == (256, 258)
    if text != "<|endoftext|>":  # special for transformers whatever its type
        assert load(path_of(1), device="cpu").stop_ids == (256,), "an ordinary token that is written alike"


def test_of_channels_the_end_of_one_is_no_end() -> None:
    kinds = {"<|end|>": 1, "<|return|>": 2, "<|call|>": 3}
    tokenizer = SimpleNamespace(added_tokens_decoder={i: AddedToken(c, special=True) for c, i in kinds.items()})
    header = SimpleNamespace(fields={})
    assert stops(header, tokenizer) == [2, 3]


def test_a_begin_of_sequence_is_put_in_front_where_the_header_says_so(tmp_path: Path) -> None:
    def more(w: Any) -> None:
        w.add_bos_token_id(258)
        w.add_add_bos_token(True)

    model = load(write(tmp_path / "m.gguf", tensors_of(net_of()), more=more, begins=True), device="cpu")
    assert model.canvas([Prompt("p", "Hi")], 1).ids[0].tolist()[:3] == [258, 72, 105]


def test_digits_are_split_off_where_the_header_says_so(tmp_path: Path) -> None:
    tensors = tensors_of(net_of())
    for pre, digits in (("smollm", 3), ("gpt-2", 1)):
        tokenizer = load(write(tmp_path / f"{pre}.gguf", tensors, pre=pre), device="cpu").tokenizer
        assert len(tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("123")) == digits


def test_files_in_several_parts_are_read_together(tmp_path: Path) -> None:
    net = net_of()
    tensors = tensors_of(net)

    def more(number: int) -> Callable[[Any], None]:
        def add(w: Any) -> None:
            w.add_uint16("split.no", number)
            w.add_uint16("split.count", 2)
            w.add_int32("split.tensors.count", len(tensors))

        return add

    names = list(tensors)
    for number, part in enumerate((names[:7], names[7:])):
        file = tmp_path / f"m-{number + 1:05d}-of-00002.gguf"
        write(file, {name: tensors[name] for name in part}, more=more(number))
    same(tmp_path / "m-00001-of-00002.gguf", net)
    with pytest.raises(DemurError, match="is part 2 of 2"):
        load(tmp_path / "m-00002-of-00002.gguf", device="cpu")
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(DemurError, match=r"m-00002-of-00002\.gguf is not beside it"):
        load(tmp_path / "m-00001-of-00002.gguf", device="cpu")


def test_a_tied_head_may_be_stored_once_more(tmp_path: Path) -> None:
    net = net_of(tie_word_embeddings=True)
    tensors = tensors_of(net)
    tensors.pop("output.weight", None)
    same(write(tmp_path / "a.gguf", tensors), net)
    same(write(tmp_path / "b.gguf", tensors | {"output.weight": tensors["token_embd.weight"]}), net)


def test_quantised_blocks_are_the_package_s_own(tmp_path: Path) -> None:
    net = net_of()
    tensors = tensors_of(net)
    packed = gguf.quants.quantize(tensors["blk.1.ffn_up.weight"], gguf.GGMLQuantizationType.Q8_0)
    path = tmp_path / "m.gguf"

    def more(w: Any) -> None:
        w.add_tensor("blk.1.ffn_up.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)

    write(path, {name: x for name, x in tensors.items() if name != "blk.1.ffn_up.weight"}, more=more)
    expected = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)
    assert np.array_equal(load(path, device="cpu").net.model.layers[1].mlp.up_proj.weight.detach().numpy(), expected)


PLAIN_KINDS = (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)


@pytest.mark.parametrize("kind", [*PLAIN_KINDS, *gguf.quants._type_traits], ids=lambda kind: kind.name)
def test_in_pieces_blocks_are_what_the_package_makes_of_them_at_once(kind: Any, tmp_path: Path) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = 3 * 256 // block
    stored = np.random.default_rng(0).integers(0, 256, (4, count * size), dtype=np.uint8)
    (tmp_path / "blocks").write_bytes(b"before" + stored.tobytes())
    place = Place(tmp_path / "blocks", (4, count * block), int(kind), 6, stored.size)
    with np.errstate(all="ignore"):  # scales of random bits may be anything
        whole = gguf.quants.dequantize(stored, kind)
        for at_once in (1, 5 * block, 2**17):
            assert np.array_equal(dequantised(place, at_once).view(np.uint32), whole.view(np.uint32))


@pytest.mark.parametrize(
    "arch",
    [
        *(pytest.param(arch, marks=needs_5_23) for arch in ("llama", "gemma2", "gemma3", "phi3")),
        *("qwen2", "qwen3", "starcoder2"),
    ],
)
@pytest.mark.parametrize("sized", [False, True])
def test_what_is_read_the_short_way_is_what_transformers_reads_of_the_whole_file(
    arch: str, sized: bool, tmp_path: Path
) -> None:
    def more(w: Any) -> None:
        if sized:
            w.add_vocab_size(WORDS)

    tensors = dict.fromkeys(("token_embd.weight", "output.weight"), np.zeros((WORDS, D), dtype=np.float32))
    rms, template = arch != "starcoder2", "{{ messages }}"
    file = write(tmp_path / "only" / "m.gguf", tensors, arch, more, template=template, begins=True, rms=rms)
    header = opened(file)
    folder = described(header, tmp_path / "cache")
    config = configured(header, AutoConfig.from_pretrained(file.parent, gguf_file=file.name))
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(tmp_path / "theirs")
    config.save_pretrained(tmp_path / "theirs")
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "theirs").iterdir())
    for name in names:
        assert (folder / name).read_text() == (tmp_path / "theirs" / name).read_text(), name


def _unsaid(*keys: str) -> Callable[[Any], None]:
    def more(w: Any) -> None:
        for key in keys:
            for values in w.kv_data:
                values.pop(key, None)

    return more


def _without(part: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda t: {name: x for name, x in t.items() if part not in name}


def _with(name: str, *shape: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda t: t | {name: np.ones(shape, dtype=np.float32)}


WRONG: dict[str, tuple[Mapping[str, Any], Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "a tensor missing": ({}, _without("blk.1.ffn_down"), "1 tensors are missing"),
    "a block missing": ({}, _without("blk.1."), "9 tensors are missing"),
    "the norm missing": ({}, _without("output_norm"), "1 tensors are missing"),
    "the embedding missing": ({}, _without("token_embd"), "tensors are missing"),
    "a tensor too many": ({}, _with("blk.0.attn_q_norm.weight", 8), "have no place (blk.0.attn_q_norm.weight"),
    "experts": ({}, _with("blk.0.ffn_gate_inp.weight", 2, D), "have no place"),
    "a part of a bias": ({}, _with("blk.0.attn_q.bias", D), "missing"),
    "a block too many": ({}, _with("blk.2.attn_norm.weight", D), "have no place"),
    "factors by length": ({}, _with("rope_factors_long.weight", 4), "LongRoPE"),
    "factors of another size": ({}, _with("rope_freqs.weight", 3), "3 rotary factors"),
    "another architecture": ({"arch": "rwkv7"}, dict, "'rwkv7'"),
    "a scale of logits": ({"more": lambda w: w.add_logit_scale(0.5)}, dict, "llama.logit_scale=0.5"),
    "a scale of residuals": ({"more": lambda w: w.add_residual_scale(0.2)}, dict, "llama.residual_scale"),
    "a sliding window": ({"more": lambda w: w.add_sliding_window(64)}, dict, "sliding window of 64"),
    "no causal mask": ({"more": lambda w: w.add_causal_attention(False)}, dict, "attention.causal"),
    "other values than keys": ({"more": lambda w: w.add_value_length(16)}, dict, "keys of 8 and values of 16"),
    "a part of each head": ({"more": lambda w: w.add_uint32("llama.attention.key_length", 16)}, dict, "8 of 16"),
    "an unknown key": ({"more": lambda w: w.add_float32("llama.new_thing", 3.0)}, dict, "llama.new_thing=3.0"),
    "LongRoPE": (
        {"more": lambda w: (w.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE), w.add_rope_scaling_factor(4.0))},
        dict,
        "linear or yarn",
    ),
    "another way to split": ({"pre": "chameleon"}, dict, "'chameleon'"),
    "no epsilon": (
        {"more": _unsaid("llama.attention.layer_norm_rms_epsilon")},
        dict,
        "does not say the epsilon of its norms",
    ),
    "no length": ({"more": _unsaid("llama.context_length")}, dict, "does not say how long its context is"),
    "an adapter": ({"more": lambda w: w.add_type("adapter")}, dict, "no model by itself"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_would_change_results_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    settings, change, says = WRONG[case]
    path = write(tmp_path / "m.gguf", change(tensors_of(net_of())), **settings)
    for _ in range(2):  # nor is anything kept that would let it pass the next time
        with pytest.raises(DemurError) as caught:
            load(path, device="cpu")
        assert says in str(caught.value)
        assert "network" not in str(caught.value)
    assert not list(cache_dir().glob("gguf/.making*"))


@pytest.mark.parametrize("arch", ["qwen2moe", "qwen3moe"])
def test_experts_of_which_nobody_says_how_many_read_a_token_are_one_line(arch: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", tensors_of(net_of()), arch, lambda w: w.add_expert_count(8))
    with pytest.raises(DemurError, match="how many of its 8 experts"):
        load(path, device="cpu")


@pytest.mark.parametrize("key", ["tokenizer.ggml.eos_token_id", "llama.block_count", "llama.attention.head_count"])
@pytest.mark.parametrize("value", [2, 258])
def test_a_key_that_a_header_says_twice_is_one_line(key: str, value: int, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", tensors_of(net_of()))
    data = bytearray(path.read_bytes())
    name = key.encode()
    entry = len(name).to_bytes(8, "little") + name + (4).to_bytes(4, "little") + value.to_bytes(4, "little")
    count = int.from_bytes(data[16:24], "little") + 1
    path.write_bytes(bytes(data[:16]) + count.to_bytes(8, "little") + entry + bytes(data[24:]))
    with pytest.raises(DemurError, match=f"says {key} twice"):
        load(path, device="cpu")


@pytest.mark.parametrize(
    ("unsaid", "words", "stops_at"),
    [
        (("eos",), {}, ()),
        (("eos", "bos"), {}, ()),
        (("eos",), {258: "<|im_end|>"}, (258,)),
        ((), {}, (256,)),
    ],
)
def test_a_file_that_names_no_end_has_none_of_its_class(
    unsaid: tuple[str, ...], words: Mapping[int, str], stops_at: tuple[int, ...], tmp_path: Path
) -> None:
    keys = [f"tokenizer.ggml.{name}_token_id" for name in unsaid]
    path = write(tmp_path / "m.gguf", tensors_of(net_of()), more=_unsaid(*keys), words=words)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert load(path, device="cpu").stop_ids == stops_at
    assert any("no token ends an answer" in str(one.message) for one in caught) is (not stops_at)


def _described(header: Any, tmp_path: Path) -> Path:
    """The folder made of a header, where this version of transformers reads such a tokenizer."""
    try:
        return described(header, tmp_path / "cache")
    except DemurError as error:
        if "this version of transformers" not in str(error):
            raise
        pytest.skip(str(error)[:100])


@pytest.mark.parametrize("theta", [10000.0, 500000.0])
@pytest.mark.parametrize("arch", ["llama", "gemma3", "qwen3", "phi3"])
def test_a_base_that_is_not_said_is_that_of_llama_cpp(arch: str, theta: float, tmp_path: Path) -> None:
    def more(w: Any) -> None:
        w.add_sliding_window(512)
        if theta == 10000.0:
            _unsaid(f"{arch}.rope.freq_base")(w)

    tensors = dict.fromkeys(("token_embd.weight", "output.weight"), np.zeros((WORDS, D), dtype=np.float32))
    header = opened(write(tmp_path / "m.gguf", tensors, arch, more, base=theta))
    rope = AutoConfig.from_pretrained(_described(header, tmp_path)).rope_parameters
    assert rope.get("full_attention", rope)["rope_theta"] == theta


@pytest.mark.parametrize("said", [True, False])
def test_a_window_that_is_not_said_is_none_of_the_class(said: bool, tmp_path: Path) -> None:
    def more(w: Any) -> None:
        _unsaid("gemma3.context_length")(w)
        w.add_context_length(8192)
        if said:
            w.add_sliding_window(64)

    tensors = dict.fromkeys(("token_embd.weight", "output.weight"), np.zeros((WORDS, D), dtype=np.float32))
    header = opened(write(tmp_path / "m.gguf", tensors, "gemma3", more))
    if said:
        assert AutoConfig.from_pretrained(_described(header, tmp_path)).sliding_window == 64
    else:
        with pytest.raises(DemurError, match="does not say its sliding window"):
            described(header, tmp_path / "cache")


@pytest.mark.parametrize(("turned", "share"), [(8, 1.0), (4, 0.5), (2, 0.25), (None, 1.0)])
@pytest.mark.parametrize("arch", ["stablelm", "nemotron"])
def test_what_part_of_a_head_is_rotated_is_the_file_s_word(
    arch: str, turned: int | None, share: float, tmp_path: Path
) -> None:
    def more(w: Any) -> None:
        _unsaid(f"{arch}.rope.dimension_count")(w)
        if turned is not None:
            w.add_rope_dimension_count(turned)

    tensors = dict.fromkeys(("token_embd.weight", "output.weight"), np.zeros((WORDS, D), dtype=np.float32))
    header = opened(write(tmp_path / "m.gguf", tensors, arch, more, rms=False))
    config = AutoConfig.from_pretrained(described(header, tmp_path / "cache"))
    assert config.rope_parameters["partial_rotary_factor"] == share


@pytest.mark.parametrize("filled", [0, 40])
def test_a_tensor_of_zeros_is_said_and_one_with_a_tail_of_zeros(filled: int, tmp_path: Path) -> None:
    tensors = tensors_of(net_of())
    part = tensors["blk.1.ffn_up.weight"].copy()
    part[filled:] = 0
    path = write(tmp_path / "m.gguf", tensors | {"blk.1.ffn_up.weight": part})
    says = rf"m\.gguf: 1 tensors .*layers\.1\.mlp\.up_proj\.weight: {len(part) - filled} of its {len(part)} rows"
    with pytest.warns(DemurWarning, match=says):
        load(path, device="cpu")


ODD: dict[str, tuple[Mapping[str, Any], str]] = {
    "the other order of bytes": ({"edit": lambda b: b[:4] + b[7:3:-1] + b[8:]}, "little-endian"),
    "a type that nobody knows": ({"kind": 999}, "is of ggml's type 999"),
    "a type that is not unpacked": ({"kind": int(gguf.GGMLQuantizationType.I8)}, "is of ggml's type I8"),
    "fewer rows than words": ({"rows": WORDS - 10}, "2 tensors are missing or of another shape"),
    "more rows than words": ({"rows": WORDS + 40}, "2 tensors are missing or of another shape"),
    "the same tensor twice": (
        {"edit": lambda b: b.replace(b"blk.1.ffn_up.weight", b"blk.0.ffn_up.weight")},
        "duplicated tensor",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_file_is_one_line(case: str, tmp_path: Path) -> None:
    how, says = ODD[case]
    tensors = tensors_of(net_of())
    if "rows" in how:
        tables = {name: np.resize(tensors[name], (how["rows"], D)) for name in ("token_embd.weight", "output.weight")}
        tensors |= tables
    path = write(tmp_path / "m.gguf", tensors)
    data = bytearray(path.read_bytes())
    if "kind" in how:  # a name, the number of dimensions, two of these, and then the type
        at = data.index(b"blk.1.ffn_up.weight") + len(b"blk.1.ffn_up.weight") + 4 + 16
        data[at : at + 4] = int(how["kind"]).to_bytes(4, "little")
    path.write_bytes(how["edit"](bytes(data)) if "edit" in how else data)
    with pytest.raises(DemurError, match=says) as caught:
        load(path, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("template", ["{{ raise_exception('only once') }}", "{% if %}", "nothing"])
def test_a_template_that_fails_is_one_line(template: str, tmp_path: Path) -> None:
    model = load(write(tmp_path / "m.gguf", tensors_of(net_of()), template=template), device="cpu")
    with pytest.raises(DemurError, match="chat template"):
        model.canvas([Prompt("p", "Hi")], 1)


def test_keys_that_say_nothing_are_no_obstacle(tmp_path: Path) -> None:
    def more(w: Any) -> None:
        w.add_expert_count(0)
        w.add_logit_scale(1.0)
        w.add_sliding_window(512)
        w.add_key_length(D // HEADS)
        w.add_value_length(D // HEADS)
        w.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        w.add_rope_scaling_factor(1.0)

    net = net_of()
    same(write(tmp_path / "m.gguf", tensors_of(net), more=more), net)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_anywhere_is_one_line(keep: float, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", tensors_of(net_of()))
    data = path.read_bytes()
    path.write_bytes(data[: math.floor(len(data) * keep)])
    with pytest.raises(DemurError, match="cut off"):
        load(path, device="cpu")
