"""Contracts of every family: checkpoints load by their own names, and a row does not depend on its batch neighbours."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import tiny
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from demur.guards import Autoencoder, Guard, Watch, fit_guard
from demur.guards.rows import new_rows
from demur.models import Bidirectional, Causal, Renoising, load
from demur.models.llada2 import native_net
from demur.models.network import Identity
from demur.pooling import Pooler
from demur.samplers import SAMPLERS, fitting, seeded
from demur.signals import Anchors
from demur.traces import Recorder, Trace, generate, spec_of
from demur.types import OFFERS, DemurError, Kind, Prompt

MASK, PAD, EOS = 250, 252, 253
COMMON = {
    "vocab_size": 256, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "rms_norm_eps": 1e-6,
}  # fmt: skip
LLADA2 = COMMON | {
    "model_type": "llada2_moe", "num_hidden_layers": 3, "num_experts": 8, "num_shared_experts": 1, "n_group": 2,
    "num_experts_per_tok": 2, "topk_group": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1,
    "rope_theta": 600000.0, "partial_rotary_factor": 0.5, "pad_token_id": PAD, "mask_token_id": MASK,
}  # fmt: skip
ROWS = ([15, 52, 121, 86, 163, 147, 167], [9], [201, 159, 7, 107])
FAMILIES = (
    "llama",
    "qwen",
    "gemma",
    "gpt2",
    "llada",
    "dream",
    "a2d",
    "bd3lm",
    "modernbert",
    "sdar",
    "llada2",
    "gemma-diffusion",
)


@cache
def model(name: str) -> Any:
    """A tiny random model of a family, fp32."""
    if name in small.CAUSAL:
        return small.causal(name)
    if name in small.DIFFUSION:
        return small.diffusion(name)
    identity = Identity(name)
    if name == "gemma-diffusion":
        return Renoising(net=_gemma(), tokenizer=None, identity=identity)
    if name == "modernbert":
        return Bidirectional(net=_modernbert(), tokenizer=None, identity=identity, mask_id=MASK)
    if name == "llada2":
        shapes = tiny.llada2_shapes(LLADA2)
        net = native_net(LLADA2, ((n, tiny.recipe(n, s)) for n, s in shapes.items()), torch.float32)
        return Bidirectional(net=net, tokenizer=None, identity=identity, mask_id=MASK, block_length=4)
    blocks = {"a2d": None, "bd3lm": 4, "sdar": 4}[name]
    return Bidirectional(
        net=_qwen3(), tokenizer=None, identity=identity, mask_id=MASK, block_length=blocks,
        partition="response" if name == "bd3lm" else "start",
    )  # fmt: skip


def _qwen3() -> Any:
    from transformers import Qwen3Config

    return tiny.native(Qwen3Config(**COMMON, eos_token_id=EOS, pad_token_id=PAD))


def _modernbert() -> Any:
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    kept = {k: COMMON[k] for k in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads")}
    special = {"pad_token_id": PAD, "bos_token_id": 251, "eos_token_id": EOS, "cls_token_id": 251, "sep_token_id": EOS}
    config = ModernBertConfig(**kept, **special, num_hidden_layers=3, max_position_embeddings=256, local_attention=8)
    net = ModernBertForMaskedLM(config).float().eval()
    tiny.fill(net)
    return net


def _gemma() -> Any:
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

    text = COMMON | {
        "global_head_dim": 8, "num_global_key_value_heads": 1, "sliding_window": 16, "num_experts": 4,
        "layer_types": ["sliding_attention", "full_attention"], "top_k_experts": 2, "moe_intermediate_size": 16,
        "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 8,
    }  # fmt: skip
    config = DiffusionGemmaConfig(
        text_config=text, vision_config=vision, canvas_length=8, image_token_id=250, boi_token_id=251, eoi_token_id=252
    )
    net = DiffusionGemmaForBlockDiffusion(config).float().eval()
    tiny.fill(net, 0, skip=("scale", "scalar", "vision", "inv_freq"))
    return net


def sampler(name: str, kind: str, temperature: float) -> Any:
    """A sampler by name with settings that suit a response of eight tokens."""
    hot: dict[str, Any] = {} if name == "renoising" else {"temperature": temperature}
    if name == "joint-threshold":
        return SAMPLERS[name](threshold=0.1, edit_threshold=0.05, cache=True, **hot)
    if name in ("sdar", "llada2", "bd3lm", "stable-diffcoder"):
        return SAMPLERS[name](steps=3, **hot)
    if name == "renoising":
        return SAMPLERS[name](steps=5, entropy_bound=1.0, t_max=0.4 + temperature)
    if name in ("ar", "ar-order"):
        return SAMPLERS[name](**hot)
    extra: dict[str, Any] = {"revise": 0.3} if name == "revising" else {}
    return SAMPLERS[name](steps=5, suppress=(MASK,) if kind == "masked" else (), **hot, **extra)


def run(adapter: Any, rows: Any, chosen: Any, seeds: list[int], length: int = 8) -> list[Trace]:
    """Traces of token rows, each from a generator of its own seed."""
    keys = [("last", "generated"), ("last", "producing"), ("first", "generated")]
    if adapter.kind != "causal":
        keys += [("last", "response"), ("last", "masked")]
    watched = adapter.watching("first", "last")
    canvas = watched.canvas_of(rows, length)
    prompts = [Prompt(str(i), "tokens") for i in range(len(rows))]
    recorder = Recorder(watched, canvas, prompts, spec_of(watched, chosen, length), keys)  # type: ignore[arg-type]
    rngs = [g for seed in seeds for g in seeded(seed, 1)]
    for _ in recorder(chosen(watched, canvas, rngs)):
        pass
    return recorder.traces()


def equal(one: Trace, other: Trace, tolerance: float = 1e-5) -> None:
    """Tokens, predictions and events the same; phi within ``tolerance`` of its largest element."""
    assert one.commits.tolist() == other.commits.tolist()
    assert one.predictions.tolist() == other.predictions.tolist()
    assert one.stop == other.stop
    for key, phi in one.phi.items():
        assert np.abs(phi - other.phi[key]).max() <= tolerance * max(1.0, np.abs(phi).max()), key


def ending(adapter: Any, *stops: int) -> Any:
    """The same model, which ends its answers at these tokens as well."""
    net = copy.copy(adapter.net)
    net.generation_config = copy.copy(net.generation_config)
    net.generation_config.eos_token_id = list(stops)
    return replace(adapter, net=net)


CASES = [  # LLaDA2.1's sampler fits any model of blocks; its many steps are tried on its own family, elsewhere slowly
    pytest.param(family, name, marks=[pytest.mark.slow] if name == "joint-threshold" and family != "llada2" else [])
    for family in FAMILIES
    for name in fitting(model(family).offers)
]


@pytest.mark.parametrize(("family", "name"), CASES)
@settings(max_examples=2, phases=[Phase.generate])
@given(st.permutations(range(3)), st.sampled_from([0.0, 0.7]), st.integers(0, 99))
def test_a_row_alone_is_the_row_in_any_batch(family: str, name: str, order: list[int], heat: float, seed: int) -> None:
    adapter = model(family)
    chosen = sampler(name, adapter.kind, heat)
    rows = [ROWS[i] for i in order]
    together = run(adapter, rows, chosen, [seed + i for i in order])
    for i, trace in zip(order, together, strict=True):
        # DiffusionGemma feeds its logits back at every step, and with them their rounding.
        equal(run(adapter, [ROWS[i]], chosen, [seed + i])[0], trace, 1e-3 if adapter.kind == "renoising" else 1e-5)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_one_seed_is_one_trace_that_replays_and_survives_saving(family: str, name: str, tmp_path: Path) -> None:
    adapter = model(family)
    chosen = sampler(name, adapter.kind, 0.7)
    one, other = (run(adapter, ROWS[:1], chosen, [5])[0] for _ in range(2))
    equal(one, other, 0.0)
    watched = adapter.watching()
    *_, last = chosen(watched, watched.canvas_of(ROWS[:1], 8), seeded(5, 1))
    closed = ~last.open[0].numpy()
    assert one.replay(one.steps)[closed].tolist() == last.ids[0].numpy()[closed].tolist()
    again = Trace.load(one.save(tmp_path / "a")).save(tmp_path / "b")
    assert again.read_bytes() == (tmp_path / "a").read_bytes()
    for t in range(1, one.steps + 1):
        assert len(one.frame(t, hide=False).cells) == 8


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sampler_of_another_kind_is_refused_in_one_line(family: str) -> None:
    adapter = model(family)
    for name, kind in (("ar", "causal"), ("sdar", "block"), ("renoising", "renoising")):
        if adapter.kind == kind:
            continue
        with pytest.raises(DemurError) as caught:
            list(sampler(name, kind, 0.0)(adapter, adapter.canvas_of(ROWS[:1], 8), seeded(0, 1)))
        small.one_line(caught.value)


@pytest.mark.parametrize("family", ["sdar", "llada2", "bd3lm"])
@pytest.mark.parametrize("name", fitting(OFFERS[Kind.BLOCK]))
def test_a_cache_changes_neither_tokens_nor_states(family: str, name: str) -> None:
    rows = [ROWS[0], [*reversed(ROWS[0])]]
    cached = sampler(name, "block", 0.7)
    plain = run(model(family), rows, replace(cached, cache=False), [1, 2], length=13)
    for ours, theirs in zip(run(model(family), rows, cached, [1, 2], length=13), plain, strict=True):
        equal(ours, theirs)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("family", ["sdar", "llada2"])
def test_pooled_states_of_a_row_that_has_ended_stay_as_they_are(family: str, cache: bool) -> None:
    adapter = model(family)
    chosen = replace(sampler("llada2", "block", 0.0), cache=cache)
    rows, keys = [ROWS[0], [*reversed(ROWS[0])]], [("last", pool) for pool in ("generated", "response", "masked")]
    stop = int(run(adapter, rows[:1], chosen, [1], length=13)[0].tokens()[2])
    watched = ending(adapter, stop).watching("last")
    canvas = watched.canvas_of(rows, 13)
    pooler, before, ended = Pooler(canvas, keys), None, 0  # type: ignore[arg-type]
    for step in chosen(watched, canvas, seeded(0, 2)):
        phi = pooler(step)
        for i in torch.where(~step.live)[0].tolist():
            assert before is not None
            ended += 1
            for key, states in phi.items():
                assert torch.equal(states[i], before[key][i]), key
        before = phi
    assert ended > 3, "no row ended before the other"


def test_revising_masks_committed_tokens_again_and_the_trace_holds_it() -> None:
    trace = run(model("llada"), ROWS[:1], sampler("revising", "masked", 0.7), [3], length=24)[0]
    opened = trace.commits[trace.commits[:, 2] < 0]
    assert len(opened), "nothing was masked again"
    assert trace.stop == "full"
    states = {cell.state for t in range(1, trace.steps + 1) for cell in trace.frame(t, hide=False).cells}
    assert {"committed", "kept", "predicted"} <= states
    step, column, _ = opened[0]
    assert trace.replay(int(step))[column] >= 0
    assert trace.replay(int(step) + 1)[column] == trace.start[column]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_where_nothing_is_open_no_step_is_taken(family: str, name: str) -> None:
    adapter = model(family)
    assert not list(sampler(name, adapter.kind, 0.0)(adapter, adapter.canvas_of(ROWS, 0), seeded(0, 3)))


def test_renoised_tokens_are_revised() -> None:
    trace = run(model("gemma-diffusion"), ROWS[:1], SAMPLERS["renoising"](steps=12, entropy_bound=2.0), [1], 16)[0]
    states = [cell.state for t in range(1, trace.steps + 1) for cell in trace.frame(t, hide=False).cells]
    assert states.count("revised") > 3
    assert trace.stop in ("full", "end-of-sequence")


HASTY = SAMPLERS["renoising"](steps=8, entropy_bound=1.0, stability=0, confidence=0.6)
"""Rows finish a canvas after two to eight steps: whoever is ahead waits for its neighbours before the next one."""


@pytest.mark.parametrize("seed", [0, 3, 6, 9])
@pytest.mark.parametrize("stops", [(1,), (1, *range(0, 256, 23))], ids=["full", "ending"])
def test_a_row_that_waits_for_its_neighbours_between_two_canvases_has_its_own_trace(
    stops: tuple[int, ...], seed: int
) -> None:
    adapter = ending(model("gemma-diffusion"), *stops)
    seeds = [seed, seed + 1, seed + 2]
    watched = adapter.watching()
    canvas = watched.canvas_of(ROWS, 16)
    *steps, last = HASTY(watched, canvas, [g for one in seeds for g in seeded(one, 1)])
    live = torch.stack([step.live for step in (*steps, last)])
    together = run(adapter, ROWS, HASTY, seeds, 16)
    waited = False
    for i, trace in enumerate(together):
        own = torch.where(live[:, i])[0]
        waited |= bool(own[-1] + 1 > len(own))
        closed = ~last.open[i, canvas.starts()[i] :].numpy()
        assert (trace.stop == "full") == bool(closed.all())
        final = last.ids[i, canvas.starts()[i] :].numpy()
        assert trace.replay(trace.steps)[closed].tolist() == final[closed].tolist()
        equal(run(adapter, ROWS[i : i + 1], HASTY, seeds[i : i + 1], 16)[0], trace, 1e-3)
    assert waited, "no row waited"


def test_finished_canvases_of_a_renoising_model_stay_in_the_mean() -> None:
    watched = model("gemma-diffusion").watching("last")
    canvas = watched.canvas_of(ROWS, 24)
    pooler = Pooler(canvas, [("last", "response"), ("last", "generated"), ("last", "masked")])
    first, states = canvas.width - 24, torch.zeros(3, 24, 32)  # of every place of the response, as last passed
    reached, before = [0, 0, 0], {}
    for step in HASTY(watched, canvas, seeded(0, 3)):
        phi, here = pooler(step), step.start - first
        for i in torch.where(step.live)[0].tolist():
            states[i, here : here + 8], reached[i] = step.hidden["last"][i], here + 8
        for i, upto in enumerate(reached):
            marks = ~step.open[i, first : first + upto]
            if step.live[i]:
                small.assert_close(phi["last", "response"][i], states[i, :upto].mean(dim=0))
                small.assert_close(phi["last", "generated"][i], states[i, :upto][marks].mean(dim=0))
                if not marks[here:upto].all():
                    small.assert_close(phi["last", "masked"][i], states[i, :upto][~marks].mean(dim=0))
                continue
            assert all(torch.equal(value[i], before[key][i]) for key, value in phi.items())
        before = phi
    assert reached == [24, 24, 24]


@cache
def watched_gemma() -> tuple[Any, Guard]:
    """DiffusionGemma with texts, and a guard of it whose refusal anchor is made up: it refuses nothing."""
    texts = replace(ending(model("gemma-diffusion"), 1, *range(0, 256, 23)), tokenizer=small.byte_level())
    asked = [Prompt(f"p{i}", f"Prompt {i} about {i * i}", harmful=False) for i in range(44)]
    made = generate(texts, asked, HASTY, length=16, steps=10, batch=1)
    phi = np.stack([trace.aligned("last", "generated") for trace in made])
    away = phi[::2].mean(axis=0) + 0.5 * np.random.default_rng(0).normal(size=phi.shape[1:]).astype(np.float32)
    ones = np.ones(10, np.float32)
    spec = made[0].spec.at("last", "generated")
    anchors = Anchors(phi.mean(axis=0), away, ones, ones, spec, "observed", 44, 44, 44, 44)
    return texts, fit_guard(anchors, made[:32], made[32:], alpha=0.4, detector=partial(Autoencoder.fit, epochs=20))


@cache
def unwatched_gemma() -> tuple[list[Prompt], list[Trace]]:
    """Twelve other prompts, and what DiffusionGemma makes of each where nobody watches."""
    asked = [Prompt(f"q{i}", f"Prompt {i} about {i * i}", harmful=False) for i in range(7000, 7012)]
    return asked, generate(watched_gemma()[0], asked, HASTY, length=16, steps=10, batch=1)


@pytest.mark.parametrize(("online", "every"), [(True, 1), (True, 3), (False, 1)])
def test_a_guard_counts_the_steps_of_a_row_that_waits_between_two_canvases(online: bool, every: int) -> None:
    texts, guard = watched_gemma()
    asked, plain = unwatched_gemma()
    z = guard.prefix.scores(np.stack([guard.anchors.signal(trace) for trace in plain]))
    middle = np.sort(z.max(axis=1))[5:7].mean()  # holds both fates
    limit = replace(guard.prefix.threshold, value=float(middle))
    watched = Watch(replace(guard, prefix=replace(guard.prefix, threshold=limit)), online=online, every=every)
    together, alone = (
        generate(texts, asked, watched(HASTY), length=16, steps=10, batch=batch) for batch in (len(asked), 1)
    )
    assert {"guarded"} < {trace.stop for trace in together}
    for one, same, free in zip(alone, together, plain, strict=True):
        assert (same.stop, same.steps) == (one.stop, one.steps)
        assert same.commits.tolist() == one.commits.tolist()
        if same.stop != "guarded":
            equal(free, same, 1e-3)


@pytest.mark.parametrize(("every", "hold", "late"), [(1, 1, 0), (1, 2, 1), (2, 2, 0), (4, 4, 0), (4, 4, 1), (3, 5, 0)])
def test_what_a_row_has_written_before_it_waits_does_not_leave_before_it_was_looked_at(
    every: int, hold: int, late: int
) -> None:
    texts, guard = watched_gemma()
    asked, plain = unwatched_gemma()
    never = replace(guard, prefix=replace(guard.prefix, threshold=replace(guard.prefix.threshold, value=1e9)))
    seeing = texts.watching(guard.spec.layer, own=guard.spec.pool == "generated")
    rows, left = new_rows(guard, len(asked)), np.zeros(len(asked), dtype=int)
    watch = Watch(never, every=every, hold=hold, late=late)
    for step in watch(HASTY)(seeing, seeing.canvas(asked, 16), seeded(0, len(asked)), rows):
        left += step.live.cpu().numpy()
        assert (left <= [row.looked for row in rows]).all()
    assert left.tolist() == [trace.steps for trace in plain], "all of it has left in the end"


# -- loading by the checkpoints' own names ----------------------------------------------------------------------


def checkpoint(folder: Path, name: str) -> Path:
    """A random checkpoint of a family as the hub has it."""
    if name == "llada2":
        tensors = {n: tiny.recipe(n, s) for n, s in tiny.llada2_shapes(LLADA2).items()}
        return tiny.write_checkpoint(folder, LLADA2, tensors, shards=3)
    net = {"a2d": _qwen3, "sdar": _qwen3, "modernbert": _modernbert, "diffusion_gemma": _gemma}[name]()
    net.save_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text()) | {"mask_token_id": MASK}
    if name in ("a2d", "sdar"):
        raw |= {"model_type": {"a2d": "a2d-qwen3", "sdar": "sdar"}[name], "auto_map": {"AutoModel": "remote.Code"}}
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


@pytest.mark.parametrize("name", ["a2d", "sdar", "modernbert", "llada2", "diffusion_gemma"])
def test_checkpoints_load_under_their_own_names_and_run(name: str, tmp_path: Path) -> None:
    adapter = load(checkpoint(tmp_path / name, name), device="cpu")
    like = model({"diffusion_gemma": "gemma-diffusion"}.get(name, name))
    assert type(adapter) is type(like)
    chosen = sampler(adapter.preferred, adapter.kind, 0.0)
    if adapter.kind == "block":
        like = replace(like, block_length=adapter.block_length)
    equal(run(adapter, ROWS, chosen, [0, 1, 2])[0], run(like, ROWS, chosen, [0, 1, 2])[0])
    assert SAMPLERS[adapter.preferred]
    assert adapter.preferred in fitting(adapter.offers)


def test_a_block_length_of_ones_own_is_taken_and_makes_other_traces(tmp_path: Path) -> None:
    adapter = load(checkpoint(tmp_path / "sdar", "sdar"), device="cpu", block_length=16)
    assert isinstance(adapter, Bidirectional)
    assert adapter.block_length == 16
    chosen = SAMPLERS[adapter.preferred]
    own, other = (spec_of(replace(adapter, block_length=n), chosen, 32) for n in (16, 4))
    assert own.differences(other) == ["block_length: 16 against 4"]
    assert own.key != other.key
    assert replace(own, computed={}).differences(other) == [], "specs of before know none"
    assert not isinstance(adapter, Causal)
