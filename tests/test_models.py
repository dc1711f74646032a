"""The one door for models: what it loads, what it refuses, and how; files are written whole or not at all."""

from __future__ import annotations

import ast
import copy
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
import small
import tiny
import torch
from safetensors.torch import load_file, save_file
from small import CAUSAL, DIFFUSION, PROMPTS, ROWS, assert_close

import demur
from demur import artefact, models
from demur.models import Bidirectional, Causal, bidirectional, load
from demur.models.chat import text_of
from demur.samplers import Autoregressive, MaskedDiffusion
from demur.signals import Anchors
from demur.traces import Recorder, Trace, generate, spec_of, teacher_forced
from demur.types import DemurError, Prompt

SOURCE = Path(demur.__file__).parent
LLADA = golden.llada_default_config()
DREAM = {
    "model_type": "Dream", "vocab_size": 128, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu", "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": False, "mask_token_id": 120, "eos_token_id": 121,
    "bos_token_id": 121, "pad_token_id": 121,
}  # fmt: skip


def refused(name: Any, **settings: Any) -> str:
    """What :func:`load` says of a model that it does not load."""
    with pytest.raises(DemurError) as caught:
        load(name, device=settings.pop("device", "cpu"), **settings)
    return small.one_line(caught.value)


def llada_folder(tmp_path: Path, **changes: Any) -> Path:
    """A tiny LLaDA checkpoint whose config.json says something else than its tensors."""
    folder, _ = tiny.llada_checkpoint(tmp_path / "llada", LLADA)
    (folder / "config.json").write_text(json.dumps(LLADA | changes))
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Changes the tensors of the first shard."""
    file = sorted(folder.glob("*.safetensors"))[0]
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


# -- the package --------------------------------------------------------------------------------------------


def test_importing_demur_is_fast_and_loads_neither_torch_nor_numpy_nor_transformers() -> None:
    script = (
        "import sys, time; begun = time.perf_counter(); import demur; took = time.perf_counter() - begun\n"
        "heavy = {'torch', 'numpy', 'transformers', 'safetensors', 'tokenizers', 'jaxtyping', 'rich', 'typer'}\n"
        "print(took, sorted(heavy & set(sys.modules)))\n"
        "import demur.types, demur.refusals, demur.redaction, demur.views.scene\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "dir(demur); demur.DemurError; demur.Prompt\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    first, second, third = done.stdout.splitlines()
    took, heavy = first.split(" ", 1)
    assert float(took) < 0.5
    assert heavy == second == third == "[]"


def test_every_name_of_the_package_is_found_and_no_other() -> None:
    assert set(demur.__all__) <= set(dir(demur))
    for name in demur.__all__:
        assert getattr(demur, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = demur.nothing


def test_no_code_runs_remote_code_or_reads_a_pickle() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.keyword):
                assert node.arg not in ("trust_remote_code", "allow_pickle", "weights_only"), where
            if isinstance(node, ast.Attribute) and node.attr == "from_pretrained" and path.name != "merging.py":
                assert "NO_CODE" in path.read_text() or "state_dict=" in path.read_text(), where
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "dill", "joblib", "shelve", "marshal"} & {name.split(".")[0] for name in names}, where
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in (("torch", "load"), ("np", "load"), ("numpy", "load")), where


# -- what is loaded -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 3])
def test_a_sharded_llada_checkpoint_is_loaded_under_its_own_names(tmp_path: Path, shards: int) -> None:
    tensors = {name: tiny.recipe(name, shape) for name, shape in tiny.llada_shapes(LLADA).items()}
    model = load(tiny.write_checkpoint(tmp_path / "m", LLADA, tensors, shards), device="cpu")
    assert isinstance(model, Bidirectional)
    assert (model.mask_id, model.shift, model.stop_ids) == (250, 0, (251,))
    state = model.net.state_dict()
    assert len(state) == len(tensors)
    assert torch.equal(state["lm_head.weight"], tensors["model.transformer.ff_out.weight"])
    assert torch.equal(state["model.layers.1.mlp.up_proj.weight"], tensors["model.transformer.blocks.1.up_proj.weight"])
    assert model.identity.dtype == "float32"
    last = small.steps_of(model, model.canvas_of(ROWS, 4), MaskedDiffusion(steps=2, suppress=(250,)))[-1]
    assert not last.open.any()


def dream_folder(tmp_path: Path, **changes: Any) -> tuple[Path, Any]:
    from transformers import Qwen2ForCausalLM

    from demur.models.configs import dream_config

    net = Qwen2ForCausalLM(dream_config(DREAM)).float().eval()
    tiny.fill(net, 1)
    return tiny.write_checkpoint(tmp_path / "dream", DREAM | changes, net.state_dict(), shards=2), net


def test_a_sharded_dream_checkpoint_is_loaded_and_shifted(tmp_path: Path) -> None:
    folder, net = dream_folder(tmp_path)
    model = load(folder, device="cpu")
    assert isinstance(model, Bidirectional)
    assert (model.mask_id, model.shift) == (120, 1)
    canvas = model.canvas_of([[1, 2, 3]], 2)
    mask = torch.zeros((1, 1, 5, 5))
    with torch.no_grad():
        theirs = net(input_ids=canvas.ids, attention_mask=mask, use_cache=False).logits[0]
    ours = model.forward(canvas, canvas.open).logits
    assert_close(ours, theirs[2:4])
    first = torch.zeros_like(canvas.open)
    first[0, 0] = True
    assert_close(model.forward(canvas, first).logits[0], theirs[0], "the first position is scored by itself")


@pytest.mark.filterwarnings("ignore:.*splits texts otherwise", "ignore:.*opens an answer by")
def test_a_causal_checkpoint_with_its_tokenizer_is_loaded(tmp_path: Path) -> None:
    net = small.causal("qwen").net
    net.save_pretrained(tmp_path)
    small.byte_level("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}> ").save_pretrained(tmp_path)
    model, polite = load(tmp_path, device="cpu"), load(tmp_path, device="cpu", system="Be kind.")
    assert isinstance(model, Causal)
    assert (model.mask_id, model.shift, model.stop_ids) == (None, 1, (256,))
    prompt = PROMPTS[1]
    assert text_of(model.tokenizer, prompt, None) == f"user: {prompt.text}\n> "
    ours, theirs = generate(model, [prompt], length=4)[0], generate(polite, [prompt], length=4)[0]
    assert bytes(ours.start[~ours.open].tolist()).decode() == f"user: {prompt.text}\n> "
    assert bytes(theirs.start[~theirs.open].tolist()).decode().startswith("system: Be kind.\nuser: Tell")
    assert [d.split(":")[0] for d in ours.spec.differences(theirs.spec)] == ["template"]
    own = replace(prompt, system="Mine.", prefill="Sure, ")
    assert text_of(polite.tokenizer, own, "Be kind.") == f"system: Mine.\nuser: {prompt.text}\n> Sure, "


def test_a_mask_token_that_the_configuration_leaves_null_is_the_tokenizers(tmp_path: Path) -> None:
    small._net("qwen3").save_pretrained(tmp_path)
    small.byte_level().save_pretrained(tmp_path)
    for named in ({"mask_token_id": None}, {}):
        raw = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "a2d-qwen3"}
        raw.pop("mask_token_id", None)
        (tmp_path / "config.json").write_text(json.dumps(raw | named))
        assert load(tmp_path, device="cpu").mask_id == small.MASK


def test_a_system_prompt_that_no_template_takes_is_one_line(tmp_path: Path, llama: Causal) -> None:
    llama.net.save_pretrained(tmp_path)
    small.byte_level().save_pretrained(tmp_path)
    asked = replace(PROMPTS[0], system="Be kind.")
    for call in (
        lambda: load(tmp_path, device="cpu", system="Be kind."),
        lambda: llama.canvas([PROMPTS[1], asked], 2),
        lambda: replace(llama, system="Be kind.").canvas(PROMPTS, 2),
    ):
        with pytest.raises(DemurError, match="without a chat template") as caught:
            call()
        small.one_line(caught.value)
    replace(llama, system="Be kind.").canvas([replace(asked, system="")], 2)  # none at all, in so many words


def test_a_begin_of_sequence_comes_once_from_the_tokenizer_or_from_the_template(llama: Causal) -> None:
    prompt = PROMPTS[0]
    plain = replace(llama, tokenizer=small.beginning(None)).canvas([prompt], 1).ids[0].tolist()
    templated = replace(llama, tokenizer=small.beginning("<pad>{{ messages[0].content }}")).canvas([prompt], 1)
    assert plain == templated.ids[0].tolist() == [small.PAD, *prompt.text.encode(), small.PAD]


def test_weights_are_told_apart_and_a_copy_is_the_same(tmp_path: Path) -> None:
    folder, _ = tiny.llada_checkpoint(tmp_path / "a", LLADA)
    other, _ = tiny.llada_checkpoint(tmp_path / "b", LLADA, seed=1)
    copy, _ = tiny.llada_checkpoint(tmp_path / "c", LLADA)
    hashes = [load(path, device="cpu").identity.weights for path in (folder, other, copy)]
    assert hashes[0] == hashes[2] != hashes[1]


def test_tied_weights_are_no_missing_weights(tmp_path: Path) -> None:
    config = LLADA | {"weight_tying": True}
    folder, _ = tiny.llada_checkpoint(tmp_path / "tied", config)
    net = load(folder, device="cpu").net
    assert net.lm_head.weight is net.model.embed_tokens.weight


def test_low_precision_is_what_was_asked_for(tmp_path: Path) -> None:
    model = load(llada_folder(tmp_path), dtype="bf16", device="cpu")
    assert model.net.dtype == torch.bfloat16
    assert model.identity.dtype == "bfloat16"
    assert model.net.config._attn_implementation == "sdpa_after_fp32_rope", "LLaDA rotates in fp32 unless it says no"
    folder = llada_folder(tmp_path, rope_full_precision=False)
    assert load(folder, dtype="bf16", device="cpu").net.config._attn_implementation == "sdpa"
    traces = [generate(small.diffusion("llada"), PROMPTS[:1], MaskedDiffusion(steps=2), length=4) for _ in range(2)]
    assert traces[0][0].phi["last", "generated"].dtype == np.float32


# -- positions and padding ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CAUSAL, *DIFFUSION])
def test_padding_changes_no_logit_and_no_state(name: str) -> None:
    """Positions count from a row's own start; nothing attends to padding, whatever tokens stand there."""
    model: Any = (small.causal if name in CAUSAL else small.diffusion)(name)
    model = model.watching("first", "last")
    canvas = model.canvas_of(ROWS, 3)
    if name in DIFFUSION:  # the first place of a padded row is open too
        canvas.open[1, canvas.starts()[1]] = True
    out = model.forward(canvas, canvas.open)
    other = model.forward(replace(canvas, ids=torch.where(canvas.pad, 99, canvas.ids)), canvas.open)
    assert_close(out.logits, other.logits, "tokens in padding")
    rows = torch.where(canvas.open)[0]
    for i, (row, start) in enumerate(zip(ROWS, canvas.starts(), strict=True)):
        one = replace(model.canvas_of([row], 3), open=canvas.open[i : i + 1, start:])
        alone = model.forward(one, one.open)
        assert start == len(ROWS[0]) - len(row)
        assert_close(out.logits[rows == i], alone.logits, f"logits of row {i}")
        begin = max(out.start, start + alone.start)  # from where both passes show states
        for layer in ("first", "last"):
            mine, its = out.hidden[layer][i, begin - out.start :], alone.hidden[layer][0, begin - start - alone.start :]
            assert_close(mine, its, f"{layer} states of row {i}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llada", "dream", "qwen3", "block"])
def test_columns_left_out_of_the_last_block_change_nothing_of_the_others(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small.block("response") if name == "block" else small.diffusion(name)
    model = Bidirectional(**(vars(model) | {"net": copy.deepcopy(model.net).to(dtype)})).watching("first", "last")
    canvas, before = model.canvas_of(ROWS, 6), _hooks(model)
    part = model.forward(canvas, canvas.open)
    monkeypatch.setattr(bidirectional, "LIKE_LLAMA", ())
    whole = model.forward(canvas, canvas.open)
    assert part.start == canvas.width - 7
    assert whole.start == 0
    seen = ~canvas.pad[:, part.start :]
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    assert_close(part.logits.float(), whole.logits.float(), "logits", tolerance)
    for layer in ("first", "last"):
        assert part.hidden[layer].shape[1] == 7
        mine, its = part.hidden[layer][seen].float(), whole.hidden[layer][:, part.start :][seen].float()
        assert_close(mine, its, f"{layer} states", tolerance)
    assert _hooks(model) == before, "no hook is left behind"


def test_what_is_scored_before_the_open_places_is_computed_too(llada: Bidirectional) -> None:
    canvas = llada.canvas_of([ROWS[0]], 4)
    score = canvas.open.clone()
    score[0, 2] = True
    out = llada.watching("last").forward(canvas, score)
    assert out.start == 1
    assert out.hidden["last"].shape[1] == canvas.width - 1
    assert llada.watching("last").forward(replace(canvas, open=torch.zeros_like(score)), None).start == 0


@pytest.mark.parametrize("name", [*CAUSAL, *DIFFUSION])
def test_positions_count_from_a_rows_own_start(name: str) -> None:
    """Most models only see differences of positions; GPT-2 and those who extend their context see more."""
    model: Any = (small.causal if name in CAUSAL else small.diffusion)(name)
    seen: list[Any] = []
    handle = model.net.get_decoder().register_forward_pre_hook(
        lambda _m, _a, more: seen.append(more["position_ids"]), with_kwargs=True
    )
    try:
        canvas = model.canvas_of(ROWS, 3)
        small.steps_of(model, canvas, Autoregressive() if name in CAUSAL else MaskedDiffusion(steps=2))
    finally:
        handle.remove()
    expected = (torch.arange(canvas.width) - canvas.pad.sum(dim=1, keepdim=True)).clamp(min=0)
    if name in CAUSAL:
        assert torch.equal(torch.cat(seen, dim=1), expected)
    else:
        assert all(torch.equal(positions, expected) for positions in seen)


@pytest.mark.parametrize("name", [*CAUSAL, *DIFFUSION])
def test_a_canvas_is_prompts_padded_on_the_left_and_open_at_the_end(name: str) -> None:
    model: Any = (small.causal if name in CAUSAL else small.diffusion)(name)
    canvas = model.canvas(PROMPTS, 5)
    assert (canvas.rows, canvas.width) == (3, max(len(p.text.encode()) for p in PROMPTS) + 5)
    for i, (prompt, start) in enumerate(zip(PROMPTS, canvas.starts(), strict=True)):
        assert bytes(canvas.ids[i, start:-5].tolist()).decode() == prompt.text
        assert canvas.pad[i].tolist() == [c < start for c in range(canvas.width)]
        assert canvas.open[i].tolist() == [c >= canvas.width - 5 for c in range(canvas.width)]
    assert (canvas.ids[canvas.open] == (small.MASK if name in DIFFUSION else small.PAD)).all()


@pytest.mark.parametrize("given_id", [-1, 264, 5000])
def test_a_padding_token_that_is_no_row_of_the_embedding_is_not_used(given_id: int, llama: Causal) -> None:
    from types import SimpleNamespace

    odd = replace(llama, tokenizer=SimpleNamespace(pad_token_id=given_id, eos_token_id=None))
    assert 0 <= odd.pad_id < small.VOCABULARY
    assert small.steps_of(odd, odd.canvas_of(ROWS, 2), Autoregressive())


# -- prompts that can't be ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "length", "says"),
    [
        ([], 3, "no prompts"),
        ([Prompt("p", "")], 3, "prompt 'p' is empty"),
        ([Prompt("p", " \n\t ")], 3, "prompt 'p' is empty"),
        ([Prompt("ok", "hello"), Prompt("long", "x" * 250)], 7, "prompt 'long' takes 250 tokens and the answer 7"),
        ([Prompt("p", "x")], 256, "at most 256 together"),
        ([Prompt("p", "x")], -1, "length -1"),
    ],
)
@pytest.mark.parametrize("name", ["llama", "llada"])
def test_a_prompt_that_does_not_fit_is_one_line(name: str, prompts: Any, length: int, says: str) -> None:
    model: Any = (small.causal if name in CAUSAL else small.diffusion)(name)
    with pytest.raises(DemurError) as caught:
        model.canvas(prompts, length)
    assert says in small.one_line(caught.value)


def test_a_prompt_may_fill_the_context_to_the_last_place(llama: Causal) -> None:
    assert generate(llama, [Prompt("p", "x" * 250)], length=6)[0].steps == 6


def test_no_room_for_an_answer_is_one_line(llama: Causal, llada: Bidirectional) -> None:
    for model in (llama, llada):
        with pytest.raises(DemurError, match="without steps") as caught:
            generate(model, PROMPTS, length=0)
        small.one_line(caught.value)


def test_a_row_without_an_open_place_is_one_line_and_names_its_prompt(llada: Bidirectional) -> None:
    canvas = llada.canvas_of([[65, 66], [67, 68]], 0, holes=[[1], []])
    prompts = [Prompt("holed", "x"), Prompt("whole", "y")]
    with pytest.raises(DemurError, match="whole") as caught:
        Recorder(llada, canvas, prompts, spec_of(llada, MaskedDiffusion(), 1), [("last", "generated")])
    small.one_line(caught.value)


@pytest.mark.parametrize("counts", [{"batch": 0}, {"steps": 0}, {"batch": -2}])
def test_counts_below_one_are_one_line(llama: Causal, counts: dict[str, int]) -> None:
    for call in (
        lambda: generate(llama, PROMPTS, length=2, **counts),  # type: ignore[arg-type]
        lambda: teacher_forced(llama, PROMPTS, ["a", "b", "c"], **counts),  # type: ignore[arg-type]
    ):
        with pytest.raises(DemurError, match="at least 1") as caught:
            call()
        small.one_line(caught.value)


def test_a_model_without_a_tokenizer_takes_token_rows_only(llama: Causal) -> None:
    bare = replace(llama, tokenizer=None)
    with pytest.raises(DemurError, match="without a tokenizer") as caught:
        bare.canvas(PROMPTS, 3)
    small.one_line(caught.value)
    (trace,) = small.record(bare, bare.canvas_of([[65, 66]], 2), Autoregressive(), [("last", "generated")], [0])
    assert trace.text() == "".join(f"{i} " for i in trace.tokens())


def test_a_template_that_refuses_a_system_prompt_says_so(llama: Causal) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    strict = replace(llama, tokenizer=small.byte_level(template + "{{ messages[0].content }}"))
    assert strict.canvas(PROMPTS[:1], 1).width == 3
    with pytest.raises(DemurError, match="no system role") as caught:
        replace(strict, system="Be kind.").canvas(PROMPTS, 1)
    assert "leave the system prompt out" in small.one_line(caught.value)


# -- layers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["0", "5", "-1", "mid", "", "1.0", "²", 2])
def test_a_layer_out_of_range_is_one_line(layer: Any, llama: Causal) -> None:
    with pytest.raises(DemurError, match="from 1 to 4") as caught:
        generate(llama, PROMPTS[:1], length=2, pools=[(layer, "generated")])
    small.one_line(caught.value)


def test_layers_by_name_are_blocks_by_number(llama: Causal) -> None:
    before = _hooks(llama)
    hidden = llama.watching("first", "1", "middle", "2", "last").forward(llama.canvas_of(ROWS, 1), None).hidden
    assert torch.equal(hidden["first"], hidden["1"])
    assert torch.equal(hidden["middle"], hidden["2"])
    assert _hooks(llama) == before, "no hook is left behind"


def _hooks(model: Causal | Bidirectional) -> int:
    """How many hooks the blocks have (transformers itself leaves some, once it has been asked for hidden states)."""
    return sum(len(block._forward_hooks) + len(block._forward_pre_hooks) for block in model.net.model.layers)


def test_hooks_are_removed_when_a_pass_fails(llama: Causal) -> None:
    before = _hooks(llama)
    canvas = llama.canvas_of([[5]], 1)
    canvas.ids[0, 0] = 999  # no such row
    with pytest.raises(IndexError):
        llama.watching("1").forward(canvas, None)
    assert _hooks(llama) == before


# -- what is not loaded -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("smolm2", "did you mean 'smollm2'?"),
        ("mymodle", "did you mean 'mymodel'?"),
        ("qzx", "run `demur models`"),
        ("./missing", "no model './missing'"),
        ("/no/such/folder", "no model '/no/such/folder'"),
        ("a/b/c", "no model 'a/b/c'"),
        ("missing.gguf", "no model 'missing.gguf'"),
        ("", "an empty model name"),
        ("notes.txt", "notes.txt is a file"),
        ("empty", "holds no config.json"),
        ("text.gguf", "no GGUF file"),
        ("magic.gguf", "magic.gguf could not be loaded"),
        ("cut.gguf", "cut.gguf could not be loaded"),
    ],
)
def test_a_name_that_is_no_model_is_one_line(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mymodel").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "text.gguf").write_text("notes")
    (tmp_path / "magic.gguf").write_bytes(b"GGUF")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 5, 5) + b"\x07\x00")
    assert says in refused(name)
    cache = tmp_path / "cache" / "gguf"
    assert not cache.exists() or not list(cache.iterdir()), "nothing half-made is left"


def _cut(folder: Path, change: Callable[[bytes], bytes]) -> Path:
    file = sorted(folder.glob("*.safetensors"))[0]
    file.write_bytes(change(file.read_bytes()))
    return folder


def _without(folder: Path, pattern: str) -> Path:
    for file in folder.glob(pattern):
        file.unlink()
    return folder


def _poison(value: float) -> Callable[[Path], Path]:
    def change(tensors: dict[str, Any]) -> None:
        tensors[sorted(tensors)[0]].view(-1)[3] = value

    return lambda folder: edit(folder, change)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda f: _cut(f, lambda b: b[:-100]), "a safetensors file is broken"),
        (lambda f: _cut(f, lambda b: b""), "a safetensors file is broken"),
        (lambda f: _cut(f, lambda b: b"x" * len(b)), "a safetensors file is broken"),
        (lambda f: _without(f, "model-00001*"), "1 of 2 weight files are missing (model-00001"),
        (lambda f: _without(f, "*.safetensors*"), "there are no weights"),
        (lambda f: edit(f, lambda t: t.pop(sorted(t)[0])), "1 tensors are missing"),
        (_poison(float("nan")), "holds NaN or infinite values"),
        (_poison(float("inf")), "holds NaN or infinite values"),
    ],
)
def test_broken_weights_are_one_line(harm: Any, says: str, tmp_path: Path) -> None:
    folder = llada_folder(tmp_path)
    assert says in refused(harm(folder))


def test_weights_that_are_a_pickle_are_not_read(tmp_path: Path) -> None:
    folder = _without(llada_folder(tmp_path), "*.safetensors*")
    torch.save({"model.transformer.wte.weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    assert "pytorch_model.bin is a pickle" in refused(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "null", '{"model_type": "frobnicate"}', '{"model_type": "llada"}']
)
def test_a_broken_config_is_one_line(text: str, tmp_path: Path) -> None:
    folder = llada_folder(tmp_path)
    (folder / "config.json").write_text(text)
    refused(folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"block_type": "sequential"}, "block_type='sequential'"),
        ({"layer_norm_type": "default"}, "layer_norm_type='default'"),
        ({"activation_type": "gelu"}, "activation_type='gelu'"),
        ({"alibi": True}, "alibi=True"),
        ({"rope": False}, "rope=False"),
        ({"attention_layer_norm": True}, "attention_layer_norm=True"),
        ({"input_emb_norm": True}, "input_emb_norm=True"),
        ({"scale_logits": True}, "scale_logits=True"),
        ({"include_bias": True}, "include_bias=True"),
        ({"include_qkv_bias": True}, "include_qkv_bias=True"),
        ({"bias_for_layer_norm": True}, "bias_for_layer_norm=True"),
        ({"model_type": "frobnicate"}, "model type 'frobnicate'"),
        ({"n_layers": 3}, "9 tensors are missing"),
        ({"n_layers": 1}, "tensors have no place"),
        ({"n_kv_heads": 2}, "tensors are of another shape"),
        ({"mlp_hidden_size": 96}, "tensors are of another shape"),
        ({"n_heads": 3}, "could not be loaded"),
        ({"mask_token_id": None}, "names no mask token"),
        ({"mask_token_id": 256}, "mask_token_id is 256"),
        ({"mask_token_id": -1}, "mask_token_id is -1"),
    ],
)
def test_a_llada_variant_that_can_not_be_run_is_one_line(changes: Any, says: str, tmp_path: Path) -> None:
    assert says in refused(llada_folder(tmp_path, **changes))


def test_null_in_a_llada_config_is_no(tmp_path: Path) -> None:
    folder = llada_folder(tmp_path, bias_for_layer_norm=None, multi_query_attention=None, n_kv_heads=None)
    assert load(folder, device="cpu").mask_id == 250


def test_a_dream_variant_that_can_not_be_run_is_one_line(tmp_path: Path) -> None:
    folder, _ = dream_folder(tmp_path, rope_scaling={"rope_type": "yarn", "factor": 4.0})
    assert "rope_scaling" in refused(folder)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"device": "gpu"}, "device 'gpu'"),
        ({"device": "cuda:99"}, "device 'cuda:99'"),
    ],
)
def test_settings_that_are_none_are_one_line(settings: Any, says: str, tmp_path: Path) -> None:
    assert says in refused(llada_folder(tmp_path), **settings)


def test_a_broken_tokenizer_is_one_line(tmp_path: Path) -> None:
    folder = llada_folder(tmp_path)
    (folder / "tokenizer.json").write_text('{"model": 1}')
    assert "could not be loaded" in refused(folder)


# -- the hub ------------------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """No name is resolved and nothing is connected to; the hub's cache is empty. Returns who was asked for."""
    from huggingface_hub import constants

    asked: list[Any] = []

    def nobody(address: Any, *_: Any, **__: Any) -> Any:
        asked.append(address)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", nobody)
    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return asked


def test_a_hub_id_without_a_network_is_one_line_at_once(
    no_network: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    begun = time.perf_counter()
    says = refused("owner/name")
    assert time.perf_counter() - begun < 5
    assert "owner/name is not in the cache" in says
    assert "network" in says
    assert len(no_network) <= 2, "asked by demur and by huggingface_hub's own greeting, and not again and again"
    assert capfd.readouterr() == ("", ""), "nobody else reports retries"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        ("GatedRepoError", "accept its terms"),
        ("RepositoryNotFoundError", "the hub shows no model owner/name"),
        ("RevisionNotFoundError", "no revision 'v9' of owner/name"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    error: str, says: str, no_network: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.utils.hub
    from huggingface_hub import errors

    def refuse(*_: Any, **__: Any) -> Any:
        kind = getattr(errors, error)
        raise kind.__new__(kind)  # its constructor wants a response of the library that happens to be used

    monkeypatch.setattr("demur.models.locate.hub_is_reachable", lambda: True)
    monkeypatch.setattr(transformers.utils.hub, "hf_hub_download", refuse)
    assert says in refused("owner/name", revision="v9")


def test_offline_mode_asks_nobody(no_network: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused("owner/name")
    assert no_network == []


def test_a_hub_model_in_the_cache_is_loaded_without_a_network(no_network: list[Any], tmp_path: Path) -> None:
    home = tmp_path / "hub" / "models--owner--name"
    revision = "0123456789abcdef0123456789abcdef01234567"
    folder, _ = tiny.llada_checkpoint(home / "snapshots" / revision, LLADA)
    small.byte_level().save_pretrained(folder)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(revision)
    model = load("owner/name", device="cpu")
    assert model.name == "owner/name"
    assert model.identity.revision == revision
    assert model.canvas(PROMPTS, 3).rows == 3


# -- files --------------------------------------------------------------------------------------------------


@contextmanager
def _at_most(size: int) -> Iterator[None]:
    """Files of this process may not grow beyond ``size`` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _trace() -> Trace:
    return small.said("Hello")


@pytest.mark.parametrize("there", [True, False], ids=["replacing", "new"])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(there: bool, tmp_path: Path) -> None:
    target = tmp_path / "t.safetensors"
    before = {target.name: _trace().save(target).read_bytes()} if there else {}
    with _at_most(100), pytest.raises(DemurError) as caught:
        replace(_trace(), passes=9).save(target)
    assert "could not be written" in small.one_line(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("verb", ["fsync", "fdopen"])
@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "interrupt"]
)
def test_whatever_stops_a_write_leaves_nothing_half_written(
    verb: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int, *_: Any) -> Any:
        if verb == "fdopen":
            os.close(handle)
        raise error

    monkeypatch.setattr(artefact.os, verb, fail)
    expected = DemurError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        _trace().save(tmp_path / "new" / "t.safetensors")
    if isinstance(caught.value, DemurError):
        assert "No space left on device" in small.one_line(caught.value)
    assert not list((tmp_path / "new").iterdir())


def test_a_file_is_not_written_over_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    for target, says in (
        ("folder", "is a folder"),
        ("pipe", "no regular file"),
        ("file/under", "could not be written"),
    ):
        with pytest.raises(DemurError, match=says) as caught:
            _trace().save(tmp_path / target)
        small.one_line(caught.value)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "pipe"]


def _raw(path: Path, card: Any, **tensors: Any) -> Path:
    from safetensors.numpy import save_file as save

    save(tensors or {"x": np.zeros(2)}, path, metadata={} if card is None else {"demur": card})
    return path


@pytest.mark.parametrize("kind", [Trace, Anchors])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p, "no file"),
        (lambda p: p.parent, "is a folder"),
        (lambda p: _raw(p, None), "no demur artefact"),
        (lambda p: _raw(p, "{"), "broken"),
        (lambda p: _raw(p, '{"kind": "guard"}'), "holds 'guard'"),
        (lambda p: (p.write_bytes(b""), p)[1], "broken"),
        (lambda p: (p.write_bytes(b"\x80\x04pickle"), p)[1], "broken"),
        (lambda p: (_trace().save(p), p.write_bytes(p.read_bytes()[:-1]), p)[2], "broken"),
    ],
)
def test_a_file_that_is_none_of_ours_is_one_line(kind: Any, make: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(DemurError, match=says) as caught:
        kind.load(make(tmp_path / "file.safetensors"))
    small.one_line(caught.value)


def test_a_file_whose_arrays_were_changed_is_refused(tmp_path: Path) -> None:
    path = _trace().save(tmp_path / "t.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DemurError, match="not the ones") as caught:
        Trace.load(path)
    small.one_line(caught.value)
    with pytest.raises(DemurError, match="holds 'trace'"):
        Anchors.load(_trace().save(tmp_path / "u.safetensors"))
    with pytest.raises(DemurError, match="not the ones"):
        Trace.load(_raw(tmp_path / "v.safetensors", '{"kind": "trace", "format": 1}'))
    with pytest.raises(DemurError, match="format None"):
        Trace.load(_raw(tmp_path / "w.safetensors", '{"kind": "trace"}'))


def test_a_file_whose_card_was_changed_is_refused(tmp_path: Path) -> None:
    path = _trace().save(tmp_path / "t.safetensors")
    data = path.read_bytes()
    assert data.count(b"float32") > 0
    path.write_bytes(data.replace(b"float32", b"float64"))
    with pytest.raises(DemurError, match=r"not the ones|broken"):
        Trace.load(path)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DEMUR_CACHE", raising=False)
    assert models.cache_dir() == tmp_path / "demur"
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "mine"))
    assert models.cache_dir() == tmp_path / "mine"


@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_a_state_space_that_padding_changes_is_refused(kind: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    small_one: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
    if kind == "mamba2":
        small_one |= {"num_heads": 4, "head_dim": 16, "n_groups": 1, "expand": 2}
    net = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **small_one)).float()
    tiny.fill(net)
    net.save_pretrained(tmp_path)
    try:
        model = load(tmp_path, device="cpu")
    except DemurError as error:
        small.one_line(error)
        return
    # Since 5.24 transformers leaves padding out of a state space. What loads must then not depend on it at all.
    rows = [[3, 2, 1, 5, 6, 7, 8, 9, 4], [4, 9, 11]]
    canvas = model.canvas_of(rows, 0)
    together = model.forward(canvas, None).hidden["last"]
    cache = model.new_cache()
    for column in (canvas.width - 2, canvas.width - 1, canvas.width):  # a prompt, then token by token
        stepped = model.forward(canvas, None, cache=cache, upto=column).hidden["last"]
    for i, row in enumerate(rows):
        alone = model.forward(model.canvas_of([row], 0), None).hidden["last"][0]
        assert torch.allclose(together[i, -len(row) :], alone, atol=1e-4)
        assert torch.allclose(stepped[i, -1], alone[-1], atol=1e-4)


# -- quantised weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["organism/ar", "organism/diffusion"])
def test_four_bit_weights_keep_the_direction_of_states_and_have_a_spec_of_their_own(name: str) -> None:
    plain, model = models.load(name, dtype="float32"), models.load(name, dtype="float32", quantize="4bit")
    assert model.identity.dtype == "float32, 4bit"
    assert model.identity.weights != plain.identity.weights
    canvas = model.canvas_of([[15, 16, 17, 18], [19, 110, 11, 12]], 4)
    everything = torch.zeros_like(canvas.open)
    ours, theirs = (m.forward(canvas, everything).hidden["last"] for m in (model, plain))
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=-1).mean() > 0.8
    assert not torch.equal(ours, theirs)
    alone = model.forward(model.canvas_of([[15, 16, 17, 18]], 4), everything[:1]).hidden["last"]
    assert torch.allclose(alone[0], ours[0], atol=1e-4)


@pytest.mark.parametrize(("quantize", "said"), [("8bit", "depends on its neighbours"), ("3bit", "expected 4bit")])
def test_what_would_break_a_law_or_does_not_exist_is_refused(quantize: str, said: str, tmp_path: Path) -> None:
    small.causal("llama").net.save_pretrained(tmp_path)
    with pytest.raises(DemurError, match=said):
        models.load(tmp_path, quantize=quantize)


def test_an_adapter_without_a_kind_can_not_be_made() -> None:
    from demur.models.adapter import Adapter

    with pytest.raises(TypeError, match="fill_id"):
        Adapter(net=None, tokenizer=None, identity=None)  # type: ignore[abstract, arg-type]
