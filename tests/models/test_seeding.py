"""Nemotron-Labs-Diffusion: one checkpoint, two ways of reading. Beside its own code: tests/official.py."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import tiny
import torch
import transformers
from safetensors.torch import save_file

import demur
from demur.models.seeding import Seeding
from demur.samplers import Autoregressive, SeededBlocks, build, seeded
from demur.types import DemurError, Identity, Kind, Need

YARN = {
    "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16, "beta_fast": 32.0,
    "beta_slow": 1.0, "llama_4_scaling_beta": 0.1,
}  # fmt: skip
COMMON = {
    "vocab_size": small.VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
    "bos_token_id": None, "eos_token_id": small.EOS, "pad_token_id": small.PAD, "rope_parameters": YARN,
}  # fmt: skip
SAYS = {
    "model_type": "nemotron_labs_diffusion", "architectures": ["NemotronLabsDiffusionModel"], "block_size": 4,
    "dlm_paradigm": "bidirectional", "mask_token_id": small.MASK, "attn_implementation": "sdpa",
    "dlm_loss_weight": None, "ar_loss_weight": 1.0, "dp_varying_mask_ratio": False, "sliding_window": None,
}  # fmt: skip
ROWS = ([70, 71, 72, 73, 74, 75, 76], [9, 8], [*range(100, 130)])
KEYS = tuple(("last", pool) for pool in ("generated", "response", "masked"))
SETTINGS = {
    "greedy": SeededBlocks(), "hot": SeededBlocks(temperature=0.7, steps=2), "sure": SeededBlocks(threshold=0.1),
}  # fmt: skip


@cache
def net() -> Any:
    return tiny.native(transformers.Ministral3Config(**COMMON), seed=3)


def model(length: int = 4) -> Seeding:
    return Seeding(
        net=net(), tokenizer=small.byte_level(None), identity=Identity("tiny"), mask_id=small.MASK, block_length=length
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint under the names that its own modelling code has."""
    folder = tmp_path_factory.mktemp("nemotron")
    renamed = {
        key.replace("model.", "encoder.", 1).replace("lm_head.", "diffusion_head."): value.contiguous()
        for key, value in net().state_dict().items()
    }
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    raw = {key: value for key, value in net().config.to_dict().items() if value is not None}
    (folder / "config.json").write_text(json.dumps(raw | SAYS))
    small.byte_level(None).save_pretrained(folder)
    return folder


def test_one_checkpoint_is_a_block_model_and_a_causal_one(path: Path) -> None:
    blocks = demur.load(path, dtype="float32", device="cpu")
    causal = demur.load(f"demur.models.families:NEMOTRON_AUTOREGRESSIVE@{path}", dtype="float32", device="cpu")
    assert (blocks.kind, blocks.block_length, blocks.preferred) == (Kind.BLOCK, 4, "nemotron")
    assert (causal.kind, causal.preferred) == (Kind.CAUSAL, "ar")
    assert blocks.identity.weights == causal.identity.weights
    assert Need.SEED in blocks.offers
    assert demur.load(path, dtype="float32", device="cpu", block_length=8).block_length == 8
    for name, tensor in net().state_dict().items():
        assert torch.equal(tensor, blocks.net.state_dict()[name]), name
    own = blocks.causal()
    canvas = own.canvas_of(ROWS[:1], 12)
    *_, last = Autoregressive()(own, canvas, seeded(0, 1))
    theirs = net().generate(torch.tensor([ROWS[0]]), max_new_tokens=12, do_sample=False, pad_token_id=small.PAD)
    assert last.ids[0].tolist()[: theirs.shape[1]] == theirs[0].tolist()
    assert isinstance(build(None, blocks), SeededBlocks)


def test_blocks_of_one_place_are_autoregressive_decoding() -> None:
    for row in ROWS:
        *_, ours = SeededBlocks()(model(1), model(1).canvas_of([row], 9), seeded(0, 1))
        causal = model(1).causal()
        *_, theirs = Autoregressive()(causal, causal.canvas_of([row], 9), seeded(0, 1))
        assert ours.ids.tolist() == theirs.ids.tolist()


def test_the_first_token_of_every_block_is_the_causal_models() -> None:
    of = model()
    *_, last = SeededBlocks()(of, of.canvas_of(ROWS[:1], 12), seeded(0, 1))
    tokens = last.ids[0].tolist()
    for begin in (7, 11, 15):
        logits = net()(torch.tensor([tokens[:begin]])).logits[0, -1]
        assert tokens[begin] == int(logits.argmax())


def test_states_are_causal_where_finished_and_both_ways_in_the_block() -> None:
    of = model().watching("last")
    *steps, last = SeededBlocks()(of, of.canvas_of(ROWS[:1], 8), seeded(0, 1))
    first = next(step for step in (*steps, last) if step.settled == 11)  # the first step of the second block
    causal = net().model(torch.tensor([last.ids[0, :11].tolist()])).last_hidden_state
    small.assert_close(first.hidden["last"][0, :4], causal[0, 7:11].detach())
    assert first.hidden["last"].shape[1] == 8
    assert (first.settled, first.passes) == (11, 2)
    moved = [step for step in steps if step.start == 11]
    assert moved[0].hidden["last"].shape[1] == 4
    assert moved[0].passes == 1


@pytest.mark.parametrize("name", SETTINGS)
def test_a_row_alone_is_the_row_in_a_batch_and_a_cache_changes_nothing(name: str) -> None:
    sampler, of = SETTINGS[name], model()
    together = small.record(of, of.canvas_of(ROWS, 10), sampler, KEYS, range(3))
    for i, row in enumerate(ROWS):
        canvas = of.canvas_of([row], 10)
        (alone,) = small.record(of, canvas, sampler, KEYS, [i])
        small.assert_same(together[i], alone, 2e-5)
        without = type(sampler)(**vars(sampler) | {"cache": False})
        (plain,) = small.record(of, canvas, without, KEYS, [i])
        small.assert_same(plain, alone, 2e-5)


def test_given_tokens_never_move_and_a_given_first_place_needs_no_seed() -> None:
    row, holes = [*range(70, 90)], [3, 4, 6, 8, 9, 16]
    of = model()
    canvas = of.canvas_of([row, row[2:]], 3, [holes, [3, 4, 5]])
    steps = list(SeededBlocks(temperature=0.5)(of, canvas, seeded(0, 2)))
    for step in steps:
        assert torch.equal(step.ids[~canvas.open], canvas.ids[~canvas.open])
        assert not bool((step.committed & ~canvas.open).any())
    assert not bool(steps[-1].open.any())
    for i, (own, places) in enumerate(((row, holes), (row[2:], [3, 4, 5]))):
        *_, alone = SeededBlocks(temperature=0.5)(of, of.canvas_of([own], 3, [places]), seeded(i, 1))
        assert alone.ids[0].tolist() == steps[-1].ids[i, -len(alone.ids[0]) :].tolist()


@pytest.mark.parametrize("name", SETTINGS)
def test_rows_whose_holes_begin_in_different_columns_are_the_rows_alone(name: str) -> None:
    mask, of = small.MASK, model()
    rows = [[70, mask, 72, mask, 74], [9, 8, mask], [*range(100, 107)], [90, mask, 92, mask, 94], [50, 51]]
    holes = [[1, 3], [2], [], [1, 3], []]  # two rows begin together, and so do two others
    together = small.record(of, of.canvas_of(rows, 9, holes), SETTINGS[name], KEYS, range(5))
    for i, (row, own) in enumerate(zip(rows, holes, strict=True)):
        (alone,) = small.record(of, of.canvas_of([row], 9, [own]), SETTINGS[name], KEYS, [i])
        small.assert_same(together[i], alone, 2e-5)


def test_an_end_of_sequence_ends_a_row_once_nothing_is_open_before_it() -> None:
    free = small.record(model(), model().canvas_of(ROWS[:1], 12), SeededBlocks(), KEYS, [0])[0]
    stop = int(free.tokens()[5])
    of = Seeding(**vars(model()) | {"net": small.ending(model().causal(), stop).net})
    (trace,) = small.record(of, of.canvas_of(ROWS[:1], 12), SeededBlocks(), KEYS, [0])
    tokens = trace.tokens().tolist()
    assert trace.steps < free.steps
    upto = free.tokens().tolist().index(stop)
    assert tokens[: upto + 1] == free.tokens().tolist()[: upto + 1]
    assert np.isfinite(trace.phi["last", "generated"]).all()


def test_what_can_not_be_run_is_refused_in_one_line(path: Path) -> None:
    raw = json.loads((path / "config.json").read_text())
    for wrong in ({"dlm_paradigm": "autoregressive"}, {"mask_token_id": -1}, {"sliding_window": 8}):
        (path / "config.json").write_text(json.dumps(raw | wrong))
        with pytest.raises(DemurError) as caught:
            demur.load(path, dtype="float32", device="cpu")
        small.one_line(caught.value)
    (path / "config.json").write_text(json.dumps(raw))
    for other in (small.diffusion("llada"), small.block("start")):
        with pytest.raises(DemurError) as caught:
            list(SeededBlocks()(other, other.canvas_of(ROWS[:1], 4), seeded(0, 1)))
        small.one_line(caught.value)
    with pytest.raises(DemurError) as caught:
        list(SeededBlocks()(model(), model().canvas_of([[]], 4), seeded(0, 1)))
    small.one_line(caught.value)
    with pytest.raises(DemurError):
        SeededBlocks(steps=0)
