"""Where samplers and official code part ways, and who is right; and settings at their edges.

Ties, dtypes and predicted masks as in the official code; given tokens, padding and chance as they should be.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import small
import tiny
import torch
from small import MASK, ROWS
from torch import Tensor

from demur.models import Bidirectional
from demur.models import llada2 as llada2_native
from demur.models.network import Identity, head_of
from demur.samplers import Autoregressive, BlockDiffusion, MaskedDiffusion, bd3lm, dream, llada2, sdar, seeded
from demur.samplers.rules import tempered
from demur.types import Canvas, DemurError, Forward


class Scripted:
    """A block or masked model whose logits are given for each column, and are the same at every pass."""

    name, layers, stop_ids, own, system = "scripted", (), (), False, None

    def __init__(self, logits: Tensor, block_length: int | None = None, mask_id: int = 9, shift: int = 0) -> None:
        self.logits, self.block_length, self.mask_id, self.shift = logits, block_length, mask_id, shift
        self.kind = "masked" if block_length is None else "block"

    def new_cache(self) -> None:
        return None

    def watching(self, *layers: str) -> Scripted:
        return self

    def blocks(self, canvas: Canvas) -> Tensor:
        columns = torch.arange(canvas.width)[None] - canvas.pad.sum(dim=1, keepdim=True)
        return torch.div(columns, self.block_length, rounding_mode="floor")

    def forward(self, canvas: Canvas, score: Tensor, **_: Any) -> Forward:
        columns = torch.where(score)[1] - canvas.pad.sum(dim=1)[torch.where(score)[0]]
        return Forward(logits=self.logits[columns].clone(), hidden={})


def canvas_of(rows: list[list[int]], length: int, mask: int = 9) -> Canvas:
    width = max(map(len, rows)) + length
    ids = torch.tensor([[0] * (width - length - len(row)) + row + [mask] * length for row in rows])
    pad = torch.tensor([[i < width - length - len(row) for i in range(width)] for row in rows])
    open_ = torch.zeros_like(pad)
    open_[:, width - length :] = True
    return Canvas(ids, open_, pad)


# -- Ties -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [4, 8, 16, 40, 64])
@pytest.mark.parametrize("given", [0, 1, 3])
@pytest.mark.parametrize("sampler", [sdar(steps=4, top_k=1), bd3lm(steps=4), llada2(steps=4, threshold=2.0)])
def test_ties_are_ranked_over_the_whole_block(sampler: BlockDiffusion, given: int, length: int) -> None:
    """Which of equal scores topk takes depends on what else it ranks: the block with -inf where nothing is masked."""
    logits = torch.full((length, 10), -torch.inf)
    logits[torch.arange(length), torch.arange(length) % 7] = 5.0  # certain of every token: all scores are 1
    model = Scripted(logits, block_length=length)
    canvas = canvas_of([[1] * given], length - given)
    masked = canvas.open[0].clone()
    for step in small.steps_of(model, canvas, sampler):
        score = torch.where(masked, 1.0, -torch.inf)
        count = min(len(step.committed[0].nonzero()), int(masked.sum()))
        assert set(torch.where(step.committed[0])[0].tolist()) == set(torch.topk(score, count).indices.tolist())
        masked = step.open[0]
    assert not masked.any()


# -- Dtypes ---------------------------------------------------------------------------------------------------


def test_a_threshold_is_rounded_as_the_scores_are() -> None:
    """In bf16 a probability of 0.8516 is not above 0.85, which rounds to it."""
    odds = math.log(0.8516 / 0.1484)
    logits = torch.tensor([[odds, 0.0] + [-40.0] * 8] * 4, dtype=torch.bfloat16)
    probs = logits.softmax(dim=-1)[:, 0]
    threshold = float(probs[0]) - 1e-4  # below the probability, and the same number in bf16
    assert not bool(probs[0] > threshold)
    canvas = canvas_of([[]], 4)
    few, more = (
        small.steps_of(Scripted(x, block_length=4), canvas, sdar(steps=4, temperature=0.0, threshold=threshold))
        for x in (logits, logits.float())
    )
    assert int(few[0].committed.sum()) == 1
    assert int(more[0].committed.sum()) == 4


def _llada2(dtype: torch.dtype) -> Any:
    raw = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "num_shared_experts": 1, "num_experts_per_tok": 2,
        "n_group": 2, "topk_group": 1, "moe_intermediate_size": 16, "first_k_dense_replace": 1, "rms_norm_eps": 1e-06,
        "max_position_embeddings": 128, "rope_theta": 600000.0, "partial_rotary_factor": 0.5,
    }  # fmt: skip
    shapes = tiny.llada2_shapes(raw)
    return llada2_native.native_net(raw, ((name, tiny.recipe(name, shape)) for name, shape in shapes.items()), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_llada2_gives_logits_in_fp32_and_the_others_in_their_own_dtype(dtype: torch.dtype) -> None:
    """Each as its official code: LLaDA2 takes its logits to fp32 before anything is done with them."""
    net = _llada2(dtype)
    model = Bidirectional(net=net, tokenizer=None, identity=Identity("llada2"), mask_id=60, block_length=4)
    canvas = model.canvas_of([[1, 2, 3]], 5)
    out = model.watching("last").forward(canvas, canvas.open)
    assert out.logits.dtype is torch.float32
    assert out.hidden["last"].dtype is dtype
    assert net(input_ids=canvas.ids).logits.dtype is torch.float32
    half = net.lm_head.weight.dtype
    assert half is dtype
    assert torch.equal(out.logits, torch.nn.functional.linear(out.hidden["last"][0, 3:], net.lm_head.weight).float())
    for name in ("llada", "dream"):
        other = small._net(name)
        import copy

        low = copy.deepcopy(other).to(dtype)
        assert head_of(low)(torch.zeros(1, 32, dtype=dtype)).dtype is dtype


# -- A mask that is predicted ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stubborn", [[0], [3], [1, 2], [4, 5, 6, 7], list(range(12))])
@pytest.mark.parametrize(
    "sampler",
    [
        sdar(steps=4),
        sdar(steps=4, remasking="sequential"),
        sdar(steps=2, threshold=0.5),
        bd3lm(steps=3),
        llada2(steps=6),
    ],
    ids=["sdar", "sequential", "dynamic", "bd3lm", "llada2"],
)
def test_the_next_block_is_begun_where_the_mask_itself_was_predicted(
    sampler: BlockDiffusion, stubborn: list[int]
) -> None:
    logits = torch.full((12, 10), -torch.inf)
    logits[torch.arange(12), torch.arange(12) % 7] = 5.0
    logits[stubborn] = -torch.inf
    logits[stubborn, 9] = 5.0
    canvas = canvas_of([[]], 12)
    steps = small.steps_of(Scripted(logits, block_length=4), canvas, sampler)
    # A place that keeps its mask uses up what was planned: others of its block may be left with it (so officially).
    left = set(torch.where(steps[-1].open[0])[0].tolist())
    assert {*stubborn} <= left
    assert {i // 4 for i in left} == {i // 4 for i in stubborn}
    assert steps[-1].ids[0].tolist() == [9 if i in left else i % 7 for i in range(12)]
    assert len(steps) <= 3 * sampler.steps


@pytest.mark.parametrize("cache", [True, False])
def test_rows_that_left_a_mask_do_not_depend_on_their_batch(cache: bool) -> None:
    """Some rows leave places open in their blocks, others do not; each is as it is alone, in its seed."""
    model = small.block("start")
    net = model.net
    bias = net.get_output_embeddings().bias.data
    kept = bias.clone()
    try:
        bias[MASK] = 5.0  # now and then the mask is drawn
        sampler = BlockDiffusion(steps=2, temperature=1.0, cache=cache)
        canvas = model.canvas_of(ROWS, 16)
        together = list(sampler(model, canvas, seeded(0, 3)))[-1]
        assert bool(together.open.any())
        for i, row in enumerate(ROWS):
            (alone,) = list(sampler(model, model.canvas_of([row], 16), [torch.Generator().manual_seed(i)]))[-1:]
            assert together.ids[i, -16:].tolist() == alone.ids[0, -16:].tolist()
    finally:
        bias.copy_(kept)


# -- Known differences: what demur does, and why ---------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("given", [1, 3, 5, 6, 7])
def test_a_quota_above_what_is_masked_overwrites_nothing(steps: int, given: int) -> None:
    """SDAR's topk then takes places that are -inf, and writes guesses over the prompt."""
    model = Scripted(torch.randn(8, 10, generator=torch.Generator().manual_seed(given)), block_length=8)
    model.logits[:, 9] = -torch.inf
    canvas = canvas_of([[8] * given], 8 - given)
    steps_taken = small.steps_of(model, canvas, sdar(steps=steps))
    assert steps_taken[-1].ids[0, :given].tolist() == [8] * given
    written: set[int] = set()
    for step in steps_taken:
        now = set(torch.where(step.committed[0])[0].tolist())
        assert not now & written
        written |= now
    assert not steps_taken[-1].open.any()


@pytest.mark.parametrize("name", ["llada", "dream"])
@pytest.mark.parametrize("steps", [2, 5])
def test_masks_in_a_prompt_are_given_tokens_and_take_nothing_from_the_answer(name: str, steps: int) -> None:
    """LLaDA's and dllm's code fill them with what was planned for the answer, which then keeps holes."""
    model = small.diffusion(name)
    canvas = model.canvas_of([[5, MASK, 6, MASK]], 6)
    last = small.steps_of(model, canvas, MaskedDiffusion(steps=steps, suppress=(MASK,)))[-1]
    assert last.ids[0, :4].tolist() == [5, MASK, 6, MASK]
    assert not last.open.any()
    holes = model.canvas_of([[5, MASK, 6, MASK]], 6, holes=[[1, 3]])  # who wants them filled says so
    filled = small.steps_of(model, holes, MaskedDiffusion(steps=steps, suppress=(MASK,)))[-1]
    assert MASK not in filled.ids[0].tolist()


@pytest.mark.parametrize(
    "sampler",
    [
        dream("maskgit_plus", steps=4, temperature=1.0, alg_temp=0.5),
        dream("entropy", steps=4, alg_temp=1.0),
        dream("maskgit_plus", steps=4, temperature=1.0, top_k=1),
        MaskedDiffusion(steps=4, temperature=1.0, schedule="linear"),
        MaskedDiffusion(steps=4, remasking="random", schedule="linear"),
    ],
    ids=["alg_temp", "entropy", "ties", "gumbel", "random"],
)
def test_a_padded_rows_chance_and_ties_are_its_own(sampler: MaskedDiffusion) -> None:
    """Official code draws for a padded batch as a whole, and ranks ties with the padding: a row then depends on it."""
    for name in ("llada", "dream"):
        model = small.diffusion(name)
        together = list(sampler(model, model.canvas_of(ROWS, 8), seeded(0, 3)))[-1].ids[:, -8:]
        for i, row in enumerate(ROWS):
            alone = list(sampler(model, model.canvas_of([row], 8), [torch.Generator().manual_seed(i)]))[-1]
            assert together[i].tolist() == alone.ids[0, -8:].tolist()


def test_dreams_quotas_are_each_rows_own() -> None:
    """The official code takes the mean of what is masked in a batch."""
    model, sampler = small.diffusion("dream"), dream("maskgit_plus", steps=3, suppress=(MASK,))
    rows, holes = [list(ROWS[0]), list(ROWS[2])], [[0, 1, 2, 3, 4, 5], []]
    together = small.steps_of(model, model.canvas_of(rows, 6, holes=holes), sampler)
    for i in range(2):
        alone = small.steps_of(model, model.canvas_of([rows[i]], 6, holes=[holes[i]]), sampler)
        assert [int(s.committed[i].sum()) for s in together] == [int(s.committed[0].sum()) for s in alone]


# -- Edges ----------------------------------------------------------------------------------------------------

LOGITS = torch.tensor(
    [[2.0, 1.0, -3.0], [-8.0, -8.5, -9.0], [0.0, 0.0, -1.0], [1e4, 1e4, 5e3], [-1e4, -2e4, -torch.inf]]
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [5e-324, 1e-45, 1e-38, 1e-6, 1e-4, 1e-3])
def test_temperatures_near_0_are_the_limit_of_low_ones(temperature: float, dtype: torch.dtype) -> None:
    probs = tempered(LOGITS.to(dtype), temperature).softmax(dim=-1)
    assert bool(probs.isfinite().all())
    likeliest = LOGITS.to(dtype) == LOGITS.to(dtype).amax(dim=-1, keepdim=True)
    torch.testing.assert_close(
        probs[[0, 2, 3, 4]], (likeliest / likeliest.sum(dim=-1, keepdim=True)).to(dtype)[[0, 2, 3, 4]]
    )


@pytest.mark.parametrize("temperature", [0.01, 0.3, 1.0, 5.0])
def test_other_temperatures_divide_and_do_nothing_else(temperature: float) -> None:
    assert torch.equal(tempered(LOGITS, temperature), LOGITS / temperature)


@pytest.mark.parametrize("tiny_one", [1e-40, 1e-30, 1e-6])
def test_a_tiny_temperature_is_greedy_in_every_kind(tiny_one: float) -> None:
    ar, masked, block = small.causal("llama"), small.diffusion("dream"), small.block("start")
    for model, greedy, cold in (
        (ar, Autoregressive(), Autoregressive(temperature=tiny_one)),
        (ar, Autoregressive(), Autoregressive(temperature=tiny_one, top_k=5, top_p=0.9)),
        (masked, MaskedDiffusion(steps=4), MaskedDiffusion(steps=4, temperature=tiny_one)),
        (block, sdar(temperature=0.0, remasking="sequential"), sdar(temperature=tiny_one, remasking="sequential")),
    ):
        ours, theirs = (small.steps_of(model, model.canvas_of(ROWS, 8), x)[-1].ids for x in (greedy, cold))
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Autoregressive(temperature=1.0), Autoregressive(temperature=1.0, top_p=1.0, top_k=10**6)),
        (
            dream("entropy", steps=5, temperature=1.0),
            dream("entropy", steps=5, temperature=1.0, top_p=1.0, top_k=10**6),
        ),
        (sdar(), sdar(top_p=1.0, top_k=10**6)),
        (llada2(temperature=1.0), llada2(temperature=1.0, top_p=1.0, top_k=10**6)),
    ],
    ids=["ar", "dream", "sdar", "llada2"],
)
def test_filters_that_keep_everything_change_nothing(one: Any, other: Any) -> None:
    make = small.causal("llama") if isinstance(one, Autoregressive) else None
    model = make or (small.block("start") if isinstance(one, BlockDiffusion) else small.diffusion("dream"))
    ours, theirs = (small.steps_of(model, model.canvas_of(ROWS, 8), x)[-1].ids for x in (one, other))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("steps", "length"),
    [
        pytest.param(steps, length, marks=[pytest.mark.slow] * (steps == 50))
        for steps in (1, 3, 4, 8, 50)
        for length in (1, 5, 7, 8)
    ],
)
def test_any_number_of_steps_fills_any_length_of_blocks(steps: int, length: int) -> None:
    """Steps above the length, and lengths that no block divides; fewer steps than blocks are one line."""
    masked, block = small.diffusion("llada"), small.block("start")
    for sampler in (sdar(steps=steps), bd3lm(steps=steps), llada2(steps=steps)):
        assert not small.steps_of(block, block.canvas_of(ROWS, length), sampler)[-1].open.any()
    for blocks in (None, 3, 4, 100):
        sampler = MaskedDiffusion(steps=steps, block_length=blocks, suppress=(MASK,))
        canvas = masked.canvas_of(ROWS, length)
        if steps < -(-length // (blocks or length)):
            with pytest.raises(DemurError, match="steps for") as caught:
                small.steps_of(masked, canvas, sampler)
            small.one_line(caught.value)
        else:
            assert not small.steps_of(masked, canvas, sampler)[-1].open.any()


@pytest.mark.parametrize("make", [Autoregressive, sdar, llada2, dream])
@pytest.mark.parametrize("wrong", [{"top_p": 0.0}, {"top_p": 1.01}, {"top_k": 0}, {"temperature": -1e-9}])
def test_what_no_sampler_can_do_is_one_line(make: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(DemurError, match=next(iter(wrong))) as caught:
        make(**wrong)
    small.one_line(caught.value)


def test_a_single_generator_draws_for_ended_rows_too_and_one_each_does_not() -> None:
    """As dllm's code draws; with one generator a row nothing of a row depends on when another ended."""
    model = small.block("response")
    free = list(bd3lm(steps=2, temperature=1.0)(model, model.canvas_of(ROWS, 16), seeded(0, 3)))[-1].ids[:, -16:]
    net = small.ending(replace_causal(model), int(free[0, 1])).net
    ending = Bidirectional(**(vars(model) | {"net": net}))
    sampler = bd3lm(steps=2, temperature=1.0)
    cut = list(sampler(ending, ending.canvas_of(ROWS, 16), seeded(0, 3)))[-1]
    assert bool(cut.open[0].any()), "the first row has ended"
    assert cut.ids[0, -16:-12].tolist() == free[0, :4].tolist()
    for i in (1, 2):
        done = cut.ids[i, -16:][~cut.open[i, -16:]].tolist()
        assert done == free[i, : len(done)].tolist()
    shared, alone = (
        list(sampler(m, m.canvas_of(ROWS, 16), torch.Generator().manual_seed(3)))[-1] for m in (ending, model)
    )
    for i in range(3):
        done = shared.ids[i, -16:][~shared.open[i, -16:]].tolist()
        assert done == alone.ids[i, -16:][: len(done)].tolist()


def replace_causal(model: Bidirectional) -> Any:
    """A causal adapter around the same network, which :func:`small.ending` takes."""
    return replace(small.causal("llama"), net=model.net)
