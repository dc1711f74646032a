"""Checkpoints that hold more, less or something else than a model takes: one line each. And good ones, which load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig, Qwen3Config

from demur.defenses.perplexity import Perplexity
from demur.models import load
from demur.traces import generate, teacher_forced
from demur.types import DemurError, DemurWarning, Message, Prompt

SIZES: dict[str, Any] = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": None, "eos_token_id": 256,
    "pad_token_id": 257,
}  # fmt: skip
LLADA: dict[str, Any] = {
    "model_type": "llada", "block_type": "llama", "d_model": 32, "n_heads": 4, "n_kv_heads": 4, "n_layers": 2,
    "mlp_hidden_size": 64, "mlp_ratio": 2, "embedding_size": 264, "vocab_size": 264, "max_sequence_length": 128,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "mask_token_id": 258, "eos_token_id": 256, "pad_token_id": 257,
}  # fmt: skip
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

OWN_HOOKS = pytest.mark.filterwarnings("ignore:.*has got hooks:demur.types.DemurWarning")


def saved(folder: Path, config: Any = None) -> Path:
    """A whole checkpoint with its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny.native(config or LlamaConfig(**SIZES), seed=3).save_pretrained(folder)
    small.byte_level().save_pretrained(folder)
    return folder


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> None:
    tensors = change(load_file(folder / WEIGHTS))
    save_file(
        {name: x.contiguous().clone() for name, x in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"}
    )


def configured(folder: Path, file: str = "config.json", **settings: Any) -> None:
    path = folder / file
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(old | settings))


def sharded(folder: Path) -> list[Path]:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    tiny.write_checkpoint(folder, json.loads((folder / "config.json").read_text()), tensors)
    return sorted(folder.glob("model-*.safetensors"))


def half(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def in_eight_bits(folder: Path, dtype: torch.dtype = torch.float8_e4m3fn) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        scales = {}
        for name in [name for name in tensors if "proj" in name]:
            scale = tensors[name].abs().max() / 100
            scales[f"{name}_scale"] = scale.reshape(1)
            tensors[name] = (tensors[name] / scale).to(dtype)
        return tensors | scales

    rewritten(folder, change)


def relisted(folder: Path) -> None:
    sharded(folder)
    path = folder / INDEX
    path.write_text(path.read_text().replace('"lm_head.weight"', '"lm_head.weightx"'))


def misplaced(folder: Path) -> None:
    first, second = sharded(folder)
    listed = json.loads((folder / INDEX).read_text())
    listed["weight_map"]["lm_head.weight"] = {first.name: second.name, second.name: first.name}[
        listed["weight_map"]["lm_head.weight"]
    ]
    (folder / INDEX).write_text(json.dumps(listed))


def adapted(folder: Path, base: str = "owner/base") -> None:
    configured(folder, "adapter_config.json", peft_type="LORA", base_model_name_or_path=base, r=4, lora_alpha=8,
               target_modules=["q_proj"], task_type="CAUSAL_LM")  # fmt: skip
    shapes = {"A": (4, 32), "B": (32, 4)}
    save_file(
        {
            f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_{x}.weight": tiny.recipe(f"{i}{x}", shapes[x])
            for i in range(3)
            for x in "AB"
        },
        folder / "adapter_model.safetensors",
    )


def renamed(prefix: str) -> Callable[[Path], None]:
    return lambda d: rewritten(d, lambda t: {prefix + name: x for name, x in t.items()})


def moved(to: str) -> Callable[[Path], Any]:
    return lambda d: (d / WEIGHTS).rename(d / to)


def settings_of(file: str, **settings: Any) -> Callable[[Path], None]:
    return lambda d: configured(d, file, **settings)


def with_more(**more: Tensor) -> Callable[[Path], None]:
    return lambda d: rewritten(d, lambda t: t | {name.replace("__", "."): x for name, x in more.items()})


def grown(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([x, x[:8]]) if x.shape[0] == 264 else x for name, x in tensors.items()}


def doubled(tensors: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return tensors | {new + name.removeprefix(old): 2 * x for name, x in tensors.items() if name.startswith(old)}


def in_two_files(folder: Path) -> None:
    first, second = (load_file(file) for file in sharded(folder))
    name = sorted(first)[0]
    save_file(second | {name: 2 * first[name]}, sorted(folder.glob("model-*"))[1], metadata={"format": "pt"})


def elsewhere(folder: Path, to: str) -> None:
    first, _ = sharded(folder)
    (folder / INDEX).write_text((folder / INDEX).read_text().replace(first.name, to))


def linked_to_nothing(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("../../blobs/4d7a21")


DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a shard missing": (lambda d: sharded(d)[1].unlink(), "1 of 2 weight files are missing (model-00002"),
    "all shards missing": (lambda d: [file.unlink() for file in sharded(d)], "2 of 2 weight files are missing"),
    "a shard half loaded": (
        lambda d: (p := sharded(d)[1]).rename(p.with_suffix(".safetensors.incomplete")),
        "model-00002-of-00002.safetensors.incomplete",
    ),
    "a shard cut": (
        lambda d: half(sharded(d)[1]),
        "a safetensors file is broken: model-00002-of-00002.safetensors is cut off at",
    ),
    "weights cut": (lambda d: half(d / WEIGHTS), "is cut off at byte"),
    "weights empty": (lambda d: (d / WEIGHTS).write_bytes(b""), "model.safetensors has 0 bytes"),
    "weights are text": (
        lambda d: (d / WEIGHTS).write_text("<html>not found</html>"),
        "its header is longer than the file",
    ),
    "weights a pointer": (lambda d: (d / WEIGHTS).write_bytes(POINTER), "model.safetensors is a Git LFS pointer"),
    "a shard a pointer": (lambda d: sharded(d)[0].write_bytes(POINTER), "is a Git LFS pointer"),
    "tokenizer a pointer": (
        lambda d: (d / "tokenizer.json").write_bytes(POINTER),
        "tokenizer.json is a Git LFS pointer",
    ),
    "index names what no shard has": (
        relisted,
        "1 tensors are missing: model.safetensors.index.json lists lm_head.weightx in",
    ),
    "index names another shard": (misplaced, "lists lm_head.weight in"),
    "index cut": (lambda d: (sharded(d), half(d / INDEX)), f"{INDEX} is no JSON"),
    "one tensor in two files": (in_two_files, "1 tensors are in two files (lm_head.weight in model-00001"),
    "index names a file above": (lambda d: elsewhere(d, "../other.safetensors"), "outside the model's folder"),
    "index names a file anywhere": (lambda d: elsewhere(d, "/tmp/other.safetensors"), "outside the model's folder"),
    "index names a pickle": (lambda d: elsewhere(d, "pytorch_model.bin"), "'pytorch_model.bin' as a file of weights"),
    "index is a list": (
        lambda d: (sharded(d), (d / INDEX).write_text('{"weight_map": ["a"]}')),
        "as a file of weights",
    ),
    "index without metadata": (
        lambda d: (sharded(d), (d / INDEX).write_text((d / INDEX).read_text().replace('"metadata"', '"of"'))),
        "has no metadata",
    ),
    "a link to nothing": (linked_to_nothing, "model.safetensors is a link to a file that is not there"),
    "names with and without the trunk's": (
        lambda d: rewritten(d, lambda t: doubled(t, "model.layers.0.mlp.", "layers.0.mlp.")),
        "are one tensor of LlamaForCausalLM, stored twice",
    ),
    "a tied head of other rows": (
        lambda d: (
            rewritten(d, lambda t: t | {"lm_head.weight": t["lm_head.weight"][:256]}),
            configured(d, tie_word_embeddings=True),
        ),
        "holds lm_head.weight of 256",
    ),
    "a norm of integers": (
        lambda d: rewritten(d, lambda t: t | {"model.norm.weight": torch.ones(32, dtype=torch.int64)}),
        "stored in I64 (model.norm.weight",
    ),
    "a head of bits": (
        lambda d: rewritten(d, lambda t: t | {"lm_head.weight": t["lm_head.weight"] > 0}),
        "stored in BOOL (lm_head.weight",
    ),
    "weights of an adapter without its config": (
        lambda d: (adapted(d), (d / "adapter_config.json").unlink()),
        "no adapter_config.json",
    ),
    "index of nothing": (lambda d: (sharded(d), (d / INDEX).write_text("{}")), "lists no tensor"),
    "one shard under the whole name": (lambda d: shutil.copy(sharded(d)[0], d / WEIGHTS), "tensors are missing ("),
    "shards without index": (lambda d: (sharded(d), (d / INDEX).unlink()), "is a shard without an index"),
    "a pickle": (moved("pytorch_model.bin"), "pytorch_model.bin is a pickle"),
    "the maker's format": (moved("consolidated.safetensors"), "in the maker's own format"),
    "half a download": (moved("model.safetensors.incomplete"), "a download that was not finished"),
    "another name": (moved("weights.safetensors"), "rename it"),
    "no weights": (lambda d: (d / WEIGHTS).unlink(), "there are no weights"),
    "no config": (lambda d: (d / "config.json").unlink(), "holds no config.json"),
    "a tensor missing": (
        lambda d: rewritten(d, lambda t: {k: v for k, v in t.items() if "1.mlp.up" not in k}),
        "1 tensors are missing (model.layers.1.mlp.up_proj.weight",
    ),
    "the head missing": (
        lambda d: rewritten(d, lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"}),
        "1 tensors are missing (lm_head.weight",
    ),
    "a value head": (with_more(v_head__weight=torch.zeros(1, 32)), "1 tensors have no place in LlamaForCausalLM"),
    "biases": (with_more(model__layers__0__self_attn__q_proj__bias=torch.ones(32)), "have no place"),
    "norms of queries": (with_more(model__layers__0__self_attn__q_norm__weight=torch.ones(8)), "have no place"),
    "more blocks than it says": (settings_of("config.json", num_hidden_layers=2), "up to 3, and config.json says 2"),
    "fewer blocks than it says": (settings_of("config.json", num_hidden_layers=4), "9 tensors are missing"),
    "tokens added": (lambda d: rewritten(d, grown), "is (272, 32), not (264, 32)"),
    "compiled": (renamed("_orig_mod."), "named as those of a wrapped model (_orig_mod."),
    "distributed": (renamed("module."), "named as those of a wrapped model (module."),
    "fsdp": (renamed("_fsdp_wrapped_module."), "wrapped model"),
    "adapted and not merged": (renamed("base_model.model."), "wrapped model"),
    "fp8 of ModelOpt": (
        lambda d: (in_eight_bits(d), configured(d, "hf_quant_config.json", quantization={"quant_algo": "FP8"})),
        "stored in F8_E4M3 (",
    ),
    "fp8 of nobody": (in_eight_bits, "config.json does not say how to scale them"),
    "int8 of nobody": (lambda d: in_eight_bits(d, torch.int8), "stored in I8"),
    "fp8 of an unknown method": (
        lambda d: (in_eight_bits(d), configured(d, quantization_config={"quant_method": "modelopt"})),
        "quantised by 'modelopt', which transformers does not load",
    ),
    "8 bits of bitsandbytes": (
        lambda d: configured(d, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        "a row depends on its neighbours",
    ),
    "an adapter beside the model": (adapted, "a whole model and an adapter (for owner/base)"),
    "a kernel of the hub": (settings_of("config.json", attn_implementation="owner/kernel"), "asks to run the kernel"),
    "tekken alone": (
        lambda d: ([file.unlink() for file in d.glob("*token*")], (d / "tekken.json").write_text("{}")),
        "tekken.json only",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_a_checkpoint_lacks_or_holds_too_much_is_one_line(case: str, tmp_path: Path) -> None:
    harm, says = DAMAGED[case]
    harm(saved(tmp_path / "model"))
    with pytest.raises(DemurError) as caught:
        load(tmp_path / "model", device="cpu")
    line = str(caught.value)
    assert says in line
    assert "\n" not in line
    assert "network" not in line, "the files are to blame"


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_a_quantiser_that_is_not_installed_is_named(method: str, tmp_path: Path) -> None:
    if find_spec({"compressed-tensors": "compressed_tensors"}.get(method, "gptqmodel")) is not None:
        pytest.skip("it is installed")
    in_eight_bits(saved(tmp_path))
    settings = {"config_groups": {}, "format": "float-quantized"} if method == "compressed-tensors" else {"bits": 4}
    configured(tmp_path, quantization_config={"quant_method": method, "group_size": 128} | settings)
    with pytest.raises(DemurError, match="needs a package that is missing"):
        load(tmp_path, device="cpu")


# -- what must load -----------------------------------------------------------------------------------------


def test_fp8_in_blocks_is_scaled_back(tmp_path: Path) -> None:
    whole = load(saved(tmp_path / "whole"), device="cpu").net.model.layers[1].mlp.up_proj.weight.detach()
    saved(tmp_path / "blocks")

    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        for name in [name for name in tensors if "proj" in name]:
            scale = tensors[name].abs().max() / 448
            tensors[name], tensors[f"{name}_scale_inv"] = (
                (tensors[name] / scale).to(torch.float8_e4m3fn),
                scale.reshape(1, 1),
            )
        return tensors

    rewritten(tmp_path / "blocks", change)
    settings = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    configured(tmp_path / "blocks", quantization_config=settings)
    read = load(tmp_path / "blocks", device="cpu").net.model.layers[1].mlp.up_proj.weight
    assert torch.allclose(read, whole, atol=float(whole.abs().max()) / 10)


IDLE: dict[str, dict[str, Tensor]] = {
    "rotary tables": {"model.layers.0.self_attn.rotary_emb.inv_freq": 1e4 ** -(torch.arange(4) / 4)},
    "position numbers": {"model.embeddings.position_ids": torch.arange(8)},
    "drafting heads": {"mtp.fc.weight": torch.ones(4, 4), "model.mtp.layers.0.mlp.up_proj.weight": torch.ones(4, 4)},
    "a vision tower": {
        "vision_tower.blocks.0.attn.weight": torch.ones(4, 4),
        "model.visual.patch.weight": torch.ones(2),
    },
    "an audio tower": {"audio_tower.layers.0.fc1.weight": torch.ones(4, 4)},
    "scales of an 8-bit cache": {"model.layers.0.self_attn.k_scale": torch.ones(1)},
}


@pytest.mark.parametrize("case", IDLE)
def test_what_no_result_depends_on_may_be_left_over(case: str, tmp_path: Path) -> None:
    plain = load(saved(tmp_path / "plain"), device="cpu").identity.weights
    rewritten(saved(tmp_path / "more"), lambda t: t | IDLE[case])
    assert load(tmp_path / "more", device="cpu").identity.weights == plain


def test_blocks_that_only_draft_tokens_may_be_left_over_where_the_config_counts_them(tmp_path: Path) -> None:
    more = {
        "model.layers.3.mlp.up_proj.weight": torch.ones(64, 32),
        "model.layers.3.eh_proj.weight": torch.ones(32, 64),
    }
    rewritten(saved(tmp_path), lambda t: t | more)
    with pytest.raises(DemurError, match="up to 4, and config"):
        load(tmp_path, device="cpu")
    configured(tmp_path, num_nextn_predict_layers=1)
    load(tmp_path, device="cpu")


def test_masks_of_old_checkpoints_may_be_left_over(tmp_path: Path) -> None:
    config = GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=264, eos_token_id=256, bos_token_id=256
    )
    plain = load(saved(tmp_path, config), device="cpu").identity.weights
    rewritten(tmp_path, lambda t: t | {"transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64).tril()})
    assert load(tmp_path, device="cpu").identity.weights == plain


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_whole_weights_of_any_width_are_read(dtype: torch.dtype, tmp_path: Path) -> None:
    first = load(saved(tmp_path), device="cpu").net.state_dict()
    expected = {name: x.clone() for name, x in first.items()}  # they may still lie in the file, which is written anew
    rewritten(tmp_path, lambda t: {name: x.to(dtype) for name, x in t.items()})
    for name, tensor in load(tmp_path, device="cpu").net.state_dict().items():
        assert torch.equal(tensor, expected[name].to(dtype).float()), name


@pytest.mark.filterwarnings("ignore:.*splits texts otherwise")
@pytest.mark.parametrize("family", ["llama", "a2d-qwen3", "sdar", "llada"])
def test_a_tied_model_may_store_its_head_and_a_head_of_its_own_is_used(family: str, tmp_path: Path) -> None:
    if family == "llada":
        tiny.llada_checkpoint(tmp_path, LLADA | {"weight_tying": False})
        small.byte_level().save_pretrained(tmp_path)
        files = sorted(tmp_path.glob("*.safetensors"))
        tensors = {name: x for file in files for name, x in load_file(file).items()}
        for file in [*files, tmp_path / INDEX]:
            file.unlink()
        save_file(tensors, tmp_path / WEIGHTS, metadata={"format": "pt"})
        names, tie = ("model.transformer.wte.weight", "model.transformer.ff_out.weight"), {"weight_tying": True}
    else:
        kind = LlamaConfig if family == "llama" else Qwen3Config
        saved(tmp_path, kind(**SIZES, head_dim=8, tie_word_embeddings=False))
        names, tie = ("model.embed_tokens.weight", "lm_head.weight"), {"tie_word_embeddings": True}
        if family != "llama":
            tie |= {"model_type": family, "mask_token_id": 258}  # type: ignore[dict-item]
    embedding, head = names
    configured(tmp_path, **tie)
    own = load_file(tmp_path / WEIGHTS)[head]
    assert torch.equal(load(tmp_path, device="cpu").net.get_output_embeddings().weight, own)
    rewritten(tmp_path, lambda t: t | {head: t[embedding]})
    copied = load(tmp_path, device="cpu")
    assert torch.equal(copied.net.get_output_embeddings().weight, copied.net.get_input_embeddings().weight)
    rewritten(tmp_path, lambda t: {name: x for name, x in t.items() if name != head})
    assert load(tmp_path, device="cpu").identity.weights == copied.identity.weights


def test_a_whole_file_beside_an_old_index_is_read(tmp_path: Path) -> None:
    plain = load(saved(tmp_path), device="cpu").identity.weights
    whole = (tmp_path / WEIGHTS).read_bytes()
    sharded(tmp_path)[0].unlink()
    (tmp_path / WEIGHTS).write_bytes(whole)
    assert load(tmp_path, device="cpu").identity.weights == plain


@pytest.mark.parametrize("write", ["./{}", "{}", ".//{}"])
def test_an_index_may_name_a_file_in_two_ways(write: str, tmp_path: Path) -> None:
    plain = load(saved(tmp_path), device="cpu").identity.weights
    sharded(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    listed = {name: file if i % 2 else write.format(file) for i, (name, file) in enumerate(index["weight_map"].items())}
    (tmp_path / INDEX).write_text(json.dumps(index | {"weight_map": listed}))
    assert load(tmp_path, device="cpu").identity.weights == plain


def test_what_a_shard_holds_and_the_index_does_not_name_is_read(tmp_path: Path) -> None:
    plain = load(saved(tmp_path), device="cpu").identity.weights
    sharded(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    for name in [name for name in index["weight_map"] if "mlp" in name]:
        del index["weight_map"][name]
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert load(tmp_path, device="cpu").identity.weights == plain


@pytest.mark.parametrize("ask", ["prompt", "prefill", "turn", "answer", "perplexity", "diffusion"])
def test_a_token_that_the_network_does_not_know_is_one_line(ask: str, tmp_path: Path) -> None:
    """The tokenizer has 259 tokens, the network 100: letters up to ``c``."""
    small_one: dict[str, Any] = SIZES | {"vocab_size": 100, "eos_token_id": 1, "pad_token_id": 2}
    if ask == "diffusion":
        saved(tmp_path, Qwen3Config(**small_one, head_dim=8))
        configured(tmp_path, model_type="a2d-qwen3", mask_token_id=3)
    else:
        saved(tmp_path, LlamaConfig(**small_one))
    if ask == "turn":
        plain = "{% for m in messages %}{{ m.role[0] | upper }}:{{ m.content }}\n{% endfor %}A:"
        configured(tmp_path, "tokenizer_config.json", chat_template=plain)
    model, odd = load(tmp_path, device="cpu"), "ABCxyz"
    asked: dict[str, Prompt] = {
        "prompt": Prompt("p", odd), "prefill": Prompt("p", "ABC", prefill=odd), "diffusion": Prompt("p", odd),
        "turn": Prompt("p", "ABC", messages=(Message("user", odd), Message("assistant", "ABC"))),
    }  # fmt: skip
    how: Any = {
        "answer": lambda: teacher_forced(model, [Prompt("p", "ABC")], [odd], steps=4),
        "perplexity": lambda: Perplexity.fitted(model, [Prompt("p", odd)] * 20, 0.1),  # type: ignore[arg-type]
    }.get(ask, lambda: generate(model, [asked[ask]], length=4, steps=4))
    with pytest.raises(DemurError, match="token 120, and an embedding of 100 rows") as caught:
        how()
    assert odd not in small.one_line(caught.value)
    if ask != "turn":
        assert generate(model, [Prompt("p", "ABC")], length=4, steps=4)


# -- adapters, code, devices --------------------------------------------------------------------------------


def test_an_adapter_without_peft_is_one_line(tmp_path: Path) -> None:
    if find_spec("peft") is not None:
        pytest.skip("peft is installed")
    saved(tmp_path / "base")
    (tmp_path / "adapter").mkdir()
    adapted(tmp_path / "adapter", str(tmp_path / "base"))
    with pytest.raises(DemurError, match=r"is an adapter \(LORA, for .*merge it first"):
        load(tmp_path / "adapter", device="cpu")


def test_an_adapter_is_added_to_its_base_and_a_foreign_one_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base = load(saved(tmp_path / "base"), device="cpu")
    (tmp_path / "adapter").mkdir()
    adapted(tmp_path / "adapter", str(tmp_path / "base"))
    merged = load(tmp_path / "adapter", device="cpu")
    low = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    a, b = (low[f"base_model.model.model.layers.1.self_attn.q_proj.lora_{x}.weight"] for x in "AB")
    before, after = (m.net.model.layers[1].self_attn.q_proj.weight for m in (base, merged))
    assert torch.allclose(after, before + 8 / 4 * (b @ a), atol=1e-5)
    assert merged.identity.weights != base.identity.weights
    assert merged.canvas([Prompt("p", "Hi")], 2).ids.tolist() == base.canvas([Prompt("p", "Hi")], 2).ids.tolist()
    saved(tmp_path / "base", LlamaConfig(**SIZES | {"num_hidden_layers": 2}))
    with pytest.raises(DemurError, match="do not agree"):
        load(tmp_path / "adapter", device="cpu")


@pytest.mark.parametrize("asks", ["tokenizer", "config", "generation"])
def test_code_of_a_folder_is_never_run_and_nobody_is_asked(
    asks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def yes(*_: object) -> str:
        pytest.fail("somebody was asked")

    monkeypatch.setattr("builtins.input", yes)
    saved(tmp_path)
    ran = tmp_path / "RAN"
    run = f"open({str(ran)!r}, 'w').write('x')\n"
    for file in ("tokenization_own.py", "configuration_own.py", "custom_generate/generate.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(f"{run}def generate(model, **_): pass\n")
    if asks == "tokenizer":
        both = ["tokenization_own.Own", "tokenization_own.Own"]
        configured(tmp_path, "tokenizer_config.json", auto_map={"AutoTokenizer": both}, tokenizer_class="Own")
        with pytest.raises(DemurError, match="asks to run code of its own"):
            load(tmp_path, device="cpu")
    else:
        if asks == "config":
            configured(tmp_path, auto_map={"AutoConfig": "configuration_own.Own"})
        load(tmp_path, device="cpu")  # by the native class
    assert not ran.exists()
    assert capsys.readouterr().out == ""


def test_weights_on_the_disk_are_one_line(tmp_path: Path) -> None:
    saved(tmp_path)
    names = ["model.embed_tokens", "model.layers.0", "model.layers.1", "model.layers.2", "model.norm", "lm_head"]
    places = dict.fromkeys([*names, "model.rotary_emb"], "cpu") | {"model.layers.1": "disk"}
    with pytest.raises(DemurError, match="offloaded") as caught:
        load(tmp_path, device_map=places)
    assert "network" not in str(caught.value)


@OWN_HOOKS
def test_half_precision_that_overflows_is_named_at_loading_and_in_a_generation(tmp_path: Path) -> None:
    net = tiny.native(LlamaConfig(**SIZES), seed=3)
    with torch.no_grad():
        net.model.layers[1].mlp.down_proj.weight *= 3000
        net.model.layers[1].mlp.up_proj.weight *= 300
    net.save_pretrained(tmp_path)
    small.byte_level().save_pretrained(tmp_path)
    load(tmp_path, dtype="float32", device="cpu")
    with pytest.raises(DemurError, match=r"float16 that are not finite.*65504.*bfloat16 or float32"):
        load(tmp_path, dtype="float16", device="cpu")
    model = load(saved(tmp_path / "good"), dtype="float32", device="cpu")

    def overflows(_: Any, given: tuple[torch.Tensor], made: torch.Tensor) -> torch.Tensor:
        return made.masked_fill((given[0] == ord("x"))[..., None], float("inf"))

    model.net.model.embed_tokens.register_forward_hook(overflows)
    with pytest.raises(DemurError, match="not finite"):
        generate(model, [Prompt("p", "Hi x")], length=4)


# -- architectures ------------------------------------------------------------------------------------------


def test_of_several_streams_the_active_one_is_captured(tmp_path: Path) -> None:
    from transformers import CONFIG_MAPPING

    more = {"head_dim": 8, "sliding_window": 4, "vocab_size_per_layer_input": 264, "hidden_size_per_layer_input": 8}
    more |= {"layer_types": ["sliding_attention", "full_attention", "full_attention"], "num_kv_shared_layers": 0}
    config = CONFIG_MAPPING["gemma3n_text"](**SIZES, **more, laurel_rank=4, activation_sparsity_pattern=[0.0] * 3)
    net = AutoModelForCausalLM.from_config(config).float().eval()
    tiny.fill(net, 1, skip=("inv_freq", "scale", "scalar"))
    net.save_pretrained(tmp_path)
    small.byte_level().save_pretrained(tmp_path)
    model = load(tmp_path, device="cpu")
    prompts = [Prompt("a", "How do I bake"), Prompt("b", "Hi")]
    for layer in ("first", "2", "last"):
        made = generate(model, prompts, length=5, pools=[(layer, "generated")])
        forced = teacher_forced(model, prompts, ["Mix it"] * 2, pools=[(layer, "generated")])
        assert all(trace.phi[layer, "generated"].shape == (trace.steps, 32) for trace in made)
        assert all(np.isfinite(trace.phi[layer, "generated"]).all() for trace in [*made, *forced])
    ids = torch.tensor([[5, 6, 7]])
    canvas = model.canvas_of([[5, 6, 7]], 0)
    blocks: list[Tensor] = []
    handle = model.net.model.layers[0].register_forward_hook(lambda _m, _i, out: blocks.append(out))
    hidden = model.watching("first").forward(canvas, None).hidden["first"]
    handle.remove()
    assert blocks[0].shape == (4, 1, ids.shape[1], 32)
    assert torch.equal(hidden, blocks[0][config.altup_active_idx])


def test_llama_4_text_models_run_as_their_own_class_says(tmp_path: Path) -> None:
    from transformers import Llama4TextConfig

    more = {"head_dim": 8, "intermediate_size_mlp": 64, "num_local_experts": 2, "num_experts_per_tok": 1}
    config = Llama4TextConfig(**SIZES | {"pad_token_id": 257}, **more, attention_chunk_size=8, no_rope_layers=[1, 1, 0])
    net = AutoModelForCausalLM.from_config(config).float().eval()
    tiny.fill(net, 1)
    net.save_pretrained(tmp_path)
    small.byte_level().save_pretrained(tmp_path)
    model = load(tmp_path, device="cpu")
    rows = [[70, 71, 72, 73, 74, 75, 76, 77, 78, 79], [5, 6, 7]]
    canvas = model.canvas_of(rows, 0)
    hidden = model.watching("first", "last").forward(canvas, ~canvas.pad)
    for row, ids in enumerate(rows):
        whole = net(input_ids=torch.tensor([ids]), output_hidden_states=True)
        assert torch.allclose(hidden.hidden["last"][row, -len(ids) :], whole.hidden_states[-1][0], atol=1e-4)
        assert torch.allclose(hidden.hidden["first"][row, -len(ids) :], whole.hidden_states[1][0], atol=1e-4)


# -- models that are in memory ------------------------------------------------------------------------------


def test_a_model_in_memory_is_used_as_it_is(tmp_path: Path) -> None:
    saved(tmp_path)
    net, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    held, read = load(net, tokenizer=tokenizer), load(tmp_path, device="cpu")
    assert held.net is net
    assert held.identity == read.identity, "the same spec: anchors of one serve the other"
    tokens = [generate(m, [Prompt("p", "How?")], length=6)[0].tokens().tolist() for m in (held, read)]
    assert tokens[0] == tokens[1]
    compiled = load(torch.compile(net), tokenizer=tokenizer)
    assert compiled.net is net


class _FromACheckpoint(torch.nn.Module):
    """Stands for a class that came with a LLaDA checkpoint: a configuration, a head, tensors under LLaDA's names."""

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        super().__init__()
        self.named = {name: torch.nn.Parameter(x, requires_grad=False) for name, x in tensors.items()}
        self.held = torch.nn.ParameterList(self.named.values())
        self.dtype, self.device = torch.float32, torch.device("cpu")

        class Config:
            name_or_path = "owner/llada"

            def to_dict(self) -> dict[str, Any]:
                return dict(config)

        self.config = Config()

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Tensor]:
        return {name: x.data for name, x in self.named.items()}

    def get_output_embeddings(self) -> Any:
        return self


def test_a_diffusion_model_in_memory_gets_a_native_class_around_the_same_tensors(tmp_path: Path) -> None:
    tiny.llada_checkpoint(tmp_path, LLADA | {"weight_tying": False})
    tensors = {name: x for file in tmp_path.glob("*.safetensors") for name, x in load_file(file).items()}
    net = _FromACheckpoint(tensors, LLADA | {"weight_tying": False}).eval()
    held = load(net, tokenizer=small.byte_level())
    read = load(tmp_path, device="cpu")
    assert (held.name, held.kind, held.mask_id) == ("owner/llada", "masked", 258)
    assert held.identity.weights == read.identity.weights
    stored = net.state_dict()["model.transformer.blocks.1.up_proj.weight"]
    assert held.net.model.layers[1].mlp.up_proj.weight.data_ptr() == stored.data_ptr()


def _net(**more: Any) -> Any:
    return tiny.native(LlamaConfig(**SIZES, **more), seed=3)


def _on_meta() -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(LlamaConfig(**SIZES)).eval()


def _broken() -> Any:
    net = _net()
    with torch.no_grad():
        net.model.norm.weight[3] = float("nan")
    return net


def _in_part(dtype: torch.dtype, part: str) -> Any:
    net = _net()
    layer = net.get_submodule(part)
    layer.weight = torch.nn.Parameter(layer.weight.to(dtype), requires_grad=False)
    return net


@pytest.mark.parametrize(
    ("make", "settings", "says"),
    [
        (lambda: _net().train(), {}, "training mode"),
        (_on_meta, {}, "meta device"),
        (_broken, {}, "holds NaN"),
        (lambda: _net().model, {}, "no language-model head"),
        (lambda: torch.nn.Linear(2, 2), {}, "a model of transformers"),
        (lambda: torch.nn.DataParallel(_net()), {}, "net.module"),
        (lambda: 7, {}, "a int came instead of a model"),
        (lambda: _in_part(torch.float8_e4m3fn, "model.layers.0.mlp.up_proj"), {}, "float8 weights that nothing scales"),
        (lambda: _in_part(torch.float16, "lm_head"), {}, "its head in torch.float16"),
        (_net, {"dtype": "bfloat16"}, "leave them out"),
        (_net, {"device": "cpu"}, "leave them out"),
        (_net, {"tokenizer": "gpt2"}, "a str came as the tokenizer"),
    ],
)
def test_a_net_that_can_not_be_used_is_one_line(make: Any, settings: Any, says: str) -> None:
    with pytest.raises(DemurError, match=says):
        load(make(), **{"tokenizer": small.byte_level()} | settings)


def test_hooks_of_a_user_are_spoken_of_and_those_of_libraries_are_not(recwarn: pytest.WarningsRecorder) -> None:
    net = _net()
    net(input_ids=torch.tensor([[1, 2]]), output_hidden_states=True)  # transformers may leave hooks of its own
    load(net, tokenizer=small.byte_level())
    assert not [w for w in recwarn if issubclass(w.category, DemurWarning)]
    net.model.layers[1].register_forward_hook(lambda module, given, output: None)
    with pytest.warns(DemurWarning, match=r"hooks of your own \(model.layers.1\)"):
        load(net, tokenizer=small.byte_level())


def _trained(net: Any) -> None:
    step = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.tensor([[70, 71, 72]])).logits.sum().backward()
    step.step()


def _steered(net: Any) -> None:
    with torch.no_grad():
        net.model.norm.weight.add_(0.1)


CHANGED: dict[str, Callable[[Any], Any]] = {
    "trained": _trained, "one tensor": _steered,
    "other weights loaded": lambda net: net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()}),
    "a head of its own": lambda net: net.set_output_embeddings(torch.nn.Linear(32, 264, bias=False)),
    "another dtype": lambda net: net.to(torch.float64), "half of it": lambda net: net.half(),
    "a bias put in": lambda net: net.lm_head.register_parameter("bias", torch.nn.Parameter(torch.ones(264))),
}  # fmt: skip


@pytest.mark.parametrize("how", CHANGED)
@pytest.mark.parametrize("where", ["folder", "memory"])
def test_weights_that_change_after_loading_are_no_more_those_of_the_spec(how: str, where: str, tmp_path: Path) -> None:
    saved(tmp_path)
    net = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = load(tmp_path, device="cpu") if where == "folder" else load(net, tokenizer=tokenizer)
    asked: dict[str, Any] = {"prompts": [Prompt("p", "Hi")], "length": 3, "steps": 3}
    before = generate(model, **asked)[0].spec
    CHANGED[how](model.net)
    with pytest.raises(DemurError, match="have changed since it was loaded"):
        generate(model, **asked)
    model.net.eval()
    again = load(model.net, tokenizer=tokenizer)
    other = generate(again, **asked)[0].spec
    assert (other.weights, other.dtype) != (before.weights, before.dtype)


def test_a_net_in_training_mode_is_one_line(tmp_path: Path) -> None:
    model = load(saved(tmp_path), device="cpu")
    model.net.train()
    with pytest.raises(DemurError, match=r"is in training mode.*call net\.eval\(\)"):
        generate(model, [Prompt("p", "Hi")], length=3, steps=3)
    model.net.eval()
    assert generate(model, [Prompt("p", "Hi")], length=3, steps=3)


@OWN_HOOKS
def test_what_changes_no_weight_is_no_change(tmp_path: Path) -> None:
    model, asked = load(saved(tmp_path), device="cpu"), [Prompt("p", "Hi")]
    first = generate(model, asked, length=3, steps=3)[0]
    with torch.no_grad():
        model.net.model.norm.weight.mul_(1.0)
        model.net.load_state_dict({name: x.clone() for name, x in model.net.state_dict().items()})
    model.net.lm_head.register_forward_hook(lambda *_: None)
    for parameter in model.net.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.clone()
    assert generate(model, asked, length=3, steps=3)[0].spec == first.spec


def test_which_adapter_is_on_and_how_it_is_scaled_is_in_the_weights_hash() -> None:
    peft = pytest.importorskip("peft")
    hashes = set()
    for alpha in (8, 16):
        net = peft.get_peft_model(_net(), peft.LoraConfig(r=4, lora_alpha=alpha, target_modules=["q_proj"]))
        for i, weight in enumerate(net.parameters()):
            if weight.shape[0] == 4 or weight.shape[-1] == 4:
                weight.data = tiny.recipe(f"{i}", weight.shape)
        hashes.add(load(net.eval(), tokenizer=small.byte_level()).identity.weights)
        with net.disable_adapter():
            hashes.add(load(net, tokenizer=small.byte_level()).identity.weights)
    assert len(hashes) == 3, "both scales, and neither"


def test_an_adapted_net_in_memory_goes_on_using_its_adapter(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    saved(tmp_path / "base")
    (tmp_path / "adapter").mkdir()
    adapted(tmp_path / "adapter", str(tmp_path / "base"))
    net = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    held = load(net.eval(), tokenizer=small.byte_level())
    ids = torch.tensor([[5, 6, 7]])
    canvas = held.canvas_of([[5, 6, 7]], 0)
    assert torch.allclose(
        held.forward(canvas, None).hidden["last"][0], held.net.model(input_ids=ids).last_hidden_state[0]
    )
    assert held.identity.weights != load(tmp_path / "base", device="cpu").identity.weights
