"""What samplers do with numbers, settings and ends; and pooled states against a computation by brute force."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import small
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import ALL_KEYS, CAUSAL, DIFFUSION, MASK, ROWS, assert_close
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from demur.models import Bidirectional, Causal
from demur.pooling import Pooler
from demur.samplers import (
    SAMPLERS,
    Autoregressive,
    BlockDiffusion,
    Dice,
    JointThreshold,
    MaskedDiffusion,
    filtered,
    seeded,
)
from demur.samplers.rules import even
from demur.types import Canvas, DemurError, Step

logits_rows = st.lists(
    st.lists(st.sampled_from([-9.0, -2.5, -1.0, 0.0, 0.5, 0.5, 1.0, 3.0, 8.0]), min_size=12, max_size=12),
    min_size=1,
    max_size=3,
).map(torch.tensor)


# -- filters ------------------------------------------------------------------------------------------------


@given(logits_rows, st.integers(1, 20), st.floats(0.01, 1.0))
def test_filters_keep_what_the_warpers_of_transformers_keep(logits: Tensor, k: int, p: float) -> None:
    ids = torch.zeros((len(logits), 1), dtype=torch.long)
    top_k = TopKLogitsWarper(k)(ids, logits)
    assert torch.equal(filtered(logits, k, None), top_k)
    assert torch.equal(filtered(logits, None, p), TopPLogitsWarper(p)(ids, logits))
    assert torch.equal(filtered(logits, k, p), TopPLogitsWarper(p)(ids, top_k))


@pytest.mark.parametrize("p", [0.25, 0.5, 0.75, 1e-9])
def test_filters_agree_where_the_nucleus_ends_exactly_at_p_and_where_it_is_empty(p: float) -> None:
    ids = torch.zeros((1, 1), dtype=torch.long)
    for logits in (torch.zeros((1, 4)), torch.randn((50, 999), generator=torch.Generator().manual_seed(0))):
        assert torch.equal(filtered(logits, None, p), TopPLogitsWarper(p)(ids, logits))


@given(logits_rows, st.floats(0.001, 1.0))
def test_filters_leave_at_least_the_most_likely_token(logits: Tensor, p: float) -> None:
    kept = filtered(logits, None, p).isfinite()
    assert kept.any(dim=-1).all()
    best = logits == logits.max(dim=-1, keepdim=True).values
    assert (kept & best).any(dim=-1).all()


# -- sampling -----------------------------------------------------------------------------------------------

LOGITS = torch.tensor([2.0, 1.0, 0.0, 0.0, -1.0, -3.0, 1.5, -0.5])


def _chi_square(counts: Tensor, probs: Tensor) -> float:
    expected = probs * counts.sum()
    used = expected > 0
    assert counts[~used].sum() == 0
    return float(((counts - expected)[used] ** 2 / expected[used]).sum())


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.0])
@pytest.mark.parametrize("filters", [{}, {"top_k": 3}, {"top_p": 0.8}, {"top_k": 4, "top_p": 0.7}])
def test_autoregressive_frequencies_are_the_softmax_at_the_temperature(temperature: float, filters: Any) -> None:
    rows = 4000
    model = small.Constant(LOGITS)
    canvas = Canvas(torch.zeros((rows, 2), dtype=torch.long), torch.tensor([[False, True]] * rows), _none(rows, 2))
    (step,) = Autoregressive(temperature=temperature, **filters)(model, canvas, torch.Generator().manual_seed(1))
    warped = TemperatureLogitsWarper(temperature)(None, LOGITS[None])
    if "top_k" in filters:
        warped = TopKLogitsWarper(filters["top_k"])(None, warped)
    if "top_p" in filters:
        warped = TopPLogitsWarper(filters["top_p"])(None, warped)
    probs = warped.softmax(dim=-1)[0]
    counts = torch.bincount(step.ids[:, 1], minlength=8).float()
    assert _chi_square(counts, probs) < 26.1, "more than 1 in 2,000 at 7 degrees of freedom"
    torch.testing.assert_close(step.confidence[:, 1], probs[step.ids[:, 1]])


def _none(rows: int, width: int) -> Tensor:
    return torch.zeros((rows, width), dtype=torch.bool)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.0])
@pytest.mark.parametrize("generators", ["one", "a row each"])
def test_diffusion_frequencies_are_the_softmax_at_the_temperature(temperature: float, generators: str) -> None:
    rows, width = 4, 1000
    canvas = Canvas(torch.zeros((rows, width), dtype=torch.long), ~_none(rows, width), _none(rows, width))
    rngs = torch.Generator().manual_seed(2) if generators == "one" else seeded(2, rows)
    steps = MaskedDiffusion(steps=2, temperature=temperature)(small.Constant(LOGITS), canvas, rngs)
    step = next(iter(steps))
    counts = torch.bincount(step.predictions.flatten(), minlength=8).float()
    assert _chi_square(counts, (LOGITS / temperature).softmax(dim=-1)) < 26.1
    torch.testing.assert_close(step.confidence, LOGITS.softmax(dim=-1)[step.predictions]), "without noise"


def test_temperature_0_takes_the_first_of_the_most_likely() -> None:
    logits = torch.tensor([0.0, 3.0, 1.0, 3.0])
    canvas = Canvas(torch.zeros((1, 4), dtype=torch.long), torch.tensor([[False, True, True, True]]), _none(1, 4))
    for sampler in (Autoregressive(), MaskedDiffusion(steps=3)):
        assert small.steps_of(small.Constant(logits), canvas, sampler)[-1].ids.tolist() == [[0, 1, 1, 1]]


@pytest.mark.parametrize("temperature", [1e-3, 1.0, 50.0, 1e3, 1e6])
def test_suppressed_tokens_are_not_drawn_at_any_temperature(temperature: float) -> None:
    allowed = (3, 6)
    sampler = MaskedDiffusion(steps=1, temperature=temperature, suppress=tuple(i for i in range(8) if i not in allowed))
    canvas = Canvas(torch.zeros((1, 500), dtype=torch.long), ~_none(1, 500), _none(1, 500))
    for logits in (LOGITS, LOGITS - 2000):
        (step,) = small.steps_of(small.Constant(logits), canvas, sampler)
        assert set(step.ids[0].tolist()) <= set(allowed)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(0, 9))
def test_a_rows_numbers_do_not_depend_on_other_rows(counts: list[int], seed: int) -> None:
    together = Dice(seeded(seed, len(counts)), len(counts)).rand(counts, 3)
    alone = [Dice(seeded(seed + i, 1), 1).rand([count], 3) for i, count in enumerate(counts)]
    assert torch.equal(together, torch.cat(alone))
    probs = together.new_ones((sum(counts), 5)) / 5
    drawn = Dice(seeded(seed, len(counts)), len(counts)).multinomial(probs, counts)
    parts = [Dice(seeded(seed + i, 1), 1).multinomial(probs[:count], [count]) for i, count in enumerate(counts)]
    assert torch.equal(drawn, torch.cat(parts))


def test_random_remasking_commits_every_place_equally_often() -> None:
    canvas = Canvas(torch.zeros((600, 4), dtype=torch.long), ~_none(600, 4), _none(600, 4))
    sampler = MaskedDiffusion(steps=4, remasking="random")
    step = next(iter(sampler(small.Constant(LOGITS), canvas, torch.Generator().manual_seed(0))))
    assert _chi_square(step.committed.sum(dim=0).float(), torch.full((4,), 0.25)) < 17.8


def test_low_confidence_remasking_commits_the_most_confident() -> None:
    class Rising(small.Constant):
        def forward(self, canvas: Canvas, score: Tensor | None, **more: Any) -> Any:
            out = super().forward(canvas, score, **more)
            return replace(out, logits=out.logits * torch.where(score)[1][:, None])

    canvas = Canvas(torch.zeros((1, 6), dtype=torch.long), ~_none(1, 6), _none(1, 6))
    steps = small.steps_of(Rising(LOGITS), canvas, MaskedDiffusion(steps=3))
    assert [torch.where(step.committed[0])[0].tolist() for step in steps] == [[4, 5], [2, 3], [0, 1]]


class Sloping(small.Constant):
    """The surer of a token, the further left in the row; of every eight columns the last two are not sure at all."""

    def forward(self, canvas: Canvas, score: Tensor | None, **more: Any) -> Any:
        out = super().forward(canvas, score, **more)
        column = torch.where(score)[1]
        out.logits[:, 0] += torch.where(column % 8 < 6, 9.0 + canvas.width - column, 0.0)
        return out


@pytest.mark.parametrize("width", [16, 40, 200])
@pytest.mark.parametrize(
    "settings", [{"alg_temp": 1e-3}, {"alg_temp": 1e-3, "remasking": "margin"}, {"threshold": 0.9}]
)
def test_what_is_drawn_or_dynamic_stays_in_its_block(settings: Any, width: int) -> None:
    """Weights that underflow, or a quota larger than what is left of a block, let nothing else in."""
    canvas = Canvas(torch.zeros((1, width), dtype=torch.long), ~_none(1, width), _none(1, width))
    sampler = MaskedDiffusion(steps=width // 4, block_length=8, **settings)
    open_ = canvas.open
    for step in small.steps_of(Sloping(LOGITS), canvas, sampler):
        current = int(torch.where(open_[0])[0][0]) // 8
        assert {c // 8 for c in torch.where(step.committed[0])[0].tolist()} == {current}
        open_ = step.open
    assert not open_.any()


def test_late_tokens_are_committed_last() -> None:
    class Alternating(small.Constant):
        """Token 1 at even columns, much more likely than token 2 at odd ones."""

        def forward(self, canvas: Canvas, score: Tensor | None, **more: Any) -> Any:
            out = super().forward(canvas, score, **more)
            odd = torch.where(score)[1] % 2 == 1
            out.logits[~odd, 1], out.logits[odd, 2] = 30.0, 9.0
            return out

    canvas = Canvas(torch.zeros((1, 6), dtype=torch.long), ~_none(1, 6), _none(1, 6))
    plain = small.steps_of(Alternating(LOGITS), canvas, MaskedDiffusion(steps=2))
    late = small.steps_of(Alternating(LOGITS), canvas, MaskedDiffusion(steps=2, late=(1,)))
    assert torch.where(plain[0].committed[0])[0].tolist() == [0, 2, 4]
    assert torch.where(late[0].committed[0])[0].tolist() == [1, 3, 5]
    assert plain[-1].ids.tolist() == late[-1].ids.tolist() == [[1, 2] * 3]


# -- the plan -----------------------------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(1, 300))
def test_even_parts_differ_by_at_most_one_and_the_first_are_the_larger(n_open: int, steps: int) -> None:
    parts = [quota(n_open) for quota in even(n_open, steps)]
    assert len(parts) == steps
    assert sum(parts) == n_open
    assert parts == sorted(parts, reverse=True)
    assert parts[0] - parts[-1] <= 1


@given(st.integers(1, 64), st.one_of(st.none(), st.integers(1, 64)), st.one_of(st.none(), st.integers(1, 100)))
def test_a_plan_fills_blocks_in_their_order_within_its_steps(n_open: int, block: int | None, steps: int | None) -> None:
    sampler = MaskedDiffusion(steps=steps, block_length=block)
    size = block or n_open
    n_blocks = math.ceil(n_open / size)
    if steps is not None and steps < n_blocks:
        with pytest.raises(DemurError, match=f"{steps} steps for {n_blocks} blocks") as caught:
            sampler.plan(n_open)
        small.one_line(caught.value)
        return
    plan = small.planned(sampler, n_open)
    assert len(plan) == (n_open if steps is None else steps)
    ends = [end for end, _ in plan]
    assert ends == sorted(ends)
    assert sorted(set(ends)) == [min((b + 1) * size, n_open) for b in range(n_blocks)]
    for b, end in enumerate(sorted(set(ends))):
        counts = [count for at, count in plan if at == end]
        assert sum(counts) == end - b * size
        assert counts == sorted(counts, reverse=True)
        assert counts[0] - counts[-1] <= 1
    spent = [ends.count(end) for end in sorted(set(ends))]
    assert max(spent) - min(spent) <= 1


def test_plans_of_the_official_settings() -> None:
    """LLaDA's own division: 128 tokens in 128 steps, 64 steps, blocks of 32; and one that does not come out even."""
    assert small.planned(MaskedDiffusion(steps=128), 128) == [(128, 1)] * 128
    assert small.planned(MaskedDiffusion(steps=64, block_length=32), 128) == [
        (32 * b, 2) for b in (1, 2, 3, 4) for _ in range(16)
    ]
    assert small.planned(MaskedDiffusion(steps=5), 16) == [(16, 4), (16, 3), (16, 3), (16, 3), (16, 3)]
    assert small.planned(MaskedDiffusion(steps=3), 2) == [(2, 1), (2, 1), (2, 0)]
    assert small.planned(MaskedDiffusion(steps=3), 0) == []


# -- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Autoregressive(temperature=-1), "temperature -1"),
        (lambda: Autoregressive(temperature=math.nan), "temperature nan"),
        (lambda: Autoregressive(temperature=math.inf), "temperature inf"),
        (lambda: Autoregressive(top_p=0.0), "top_p 0.0"),
        (lambda: Autoregressive(top_p=1.5), "top_p 1.5"),
        (lambda: Autoregressive(top_k=0), "top_k=0"),
        (lambda: MaskedDiffusion(temperature=-0.1), "temperature -0.1"),
        (lambda: MaskedDiffusion(temperature=math.nan), "temperature nan"),
        (lambda: MaskedDiffusion(cfg_scale=-1.0), "cfg_scale -1.0"),
        (lambda: MaskedDiffusion(steps=0), "steps=0"),
        (lambda: MaskedDiffusion(block_length=0), "block_length=0"),
        (lambda: MaskedDiffusion(remasking="luck"), "low_confidence, margin, entropy, random, origin"),  # type: ignore[arg-type]
        (lambda: MaskedDiffusion(suppress=(-1,)), "suppress (-1,)"),
        (lambda: MaskedDiffusion(sampling="gumble"), "sampling 'gumble'"),  # type: ignore[arg-type]
        (lambda: MaskedDiffusion(schedule="odd"), "schedule 'odd'"),  # type: ignore[arg-type]
        (lambda: MaskedDiffusion(late=(1,), sampling="categorical"), "late tokens with categorical"),
        (lambda: MaskedDiffusion(revise=1.0), "revise=1.0"),
        (lambda: MaskedDiffusion(entropy_bound=1.0), "entropy_bound with remasking 'low_confidence'"),
        (lambda: MaskedDiffusion(top_p=0.5), "top_p or top_k with Gumbel noise"),
        (lambda: BlockDiffusion(sampling="gumble"), "sampling 'gumble'"),  # type: ignore[arg-type]
        (lambda: BlockDiffusion(schedule="odd"), "schedule 'odd'"),  # type: ignore[arg-type]
        (lambda: BlockDiffusion(quota="half"), "quota 'half'"),  # type: ignore[arg-type]
        (lambda: BlockDiffusion(steps=0), "steps=0"),
        (lambda: MaskedDiffusion(steps=2.5), "(steps 2.5); expected a whole number or null"),  # type: ignore[arg-type]
        (lambda: MaskedDiffusion(steps="4"), "(steps '4'); expected a whole number or null"),  # type: ignore[arg-type]
        (lambda: MaskedDiffusion(steps=True), "(steps True); expected a whole number or null"),
        (lambda: MaskedDiffusion(block_length=1.0), "(block_length 1.0)"),  # type: ignore[arg-type]
        (lambda: MaskedDiffusion(threshold=float("nan")), "threshold=nan"),
        (lambda: BlockDiffusion(threshold="0.9"), "(threshold '0.9'); expected a number or null"),  # type: ignore[arg-type]
        (lambda: JointThreshold(edit_threshold=float("nan")), "edit_threshold=nan"),
        (lambda: Autoregressive(top_k=2.5), "(top_k 2.5)"),  # type: ignore[arg-type]
        (lambda: Autoregressive(temperature="1"), "(temperature '1')"),  # type: ignore[arg-type]
        (lambda: Autoregressive(top_p=True), "(top_p True)"),
    ],
)
def test_bad_settings_are_refused_when_a_sampler_is_made(make: Any, says: str) -> None:
    with pytest.raises(DemurError) as caught:
        make()
    assert says in small.one_line(caught.value)


@pytest.mark.parametrize("seed", [2**64, 2**64 - 2, -(2**63) - 1, 10**20, 1.5, "3", True, None])
def test_a_seed_that_torch_does_not_take_is_one_line(seed: Any) -> None:
    with pytest.raises(DemurError, match=r"seed=.*a whole number from"):
        seeded(seed, 3)


@pytest.mark.parametrize("seed", [2**64 - 3, -(2**63), 0, np.int64(7)])
def test_every_other_seed_is_taken(seed: Any) -> None:
    assert len({generator.initial_seed() for generator in seeded(seed, 3)}) == 3


@pytest.mark.parametrize(
    ("name", "sampler", "rows", "length", "holes", "count", "says"),
    [
        ("llama", Autoregressive(), ROWS, 3, None, 2, "2 generators for 3 rows"),
        ("llada", MaskedDiffusion(steps=2), ROWS, 3, None, 4, "4 generators for 3 rows"),
        ("llada", Autoregressive(), ROWS, 3, None, 3, "diffusion model llada"),
        ("llada", Autoregressive(), ROWS, 3, ([0], [], []), 3, "a canvas with holes"),
        ("llada", Autoregressive(), ROWS, 0, ([8], [0], []), 3, "a canvas with holes"),
        ("llama", Autoregressive(), [[], [1, 2]], 3, None, 2, "a row without a given token"),
        ("llama", MaskedDiffusion(steps=2, cfg_scale=1.0), ROWS, 3, None, 3, "guidance on a causal model"),
        ("llada", MaskedDiffusion(steps=2, block_length=2), ROWS, 8, None, 3, "2 steps for 4 blocks"),
        ("llada", MaskedDiffusion(steps=2, suppress=(999,)), ROWS, 3, None, 3, "below 264"),
        ("llada", MaskedDiffusion(steps=2, late=(999,)), ROWS, 3, None, 3, "below 264"),
    ],
)
def test_what_a_sampler_can_not_do_is_one_line(
    name: str, sampler: Any, rows: Any, length: int, holes: Any, count: int, says: str
) -> None:
    if name in CAUSAL:
        model: Any = small.causal(name)
        canvas = model.canvas_of(rows, length)
    else:
        model = small.diffusion(name)
        canvas = model.canvas_of(rows, length, holes=holes)
    with pytest.raises(DemurError) as caught:
        list(sampler(model, canvas, seeded(0, count)))
    assert says in small.one_line(caught.value)


@pytest.mark.parametrize("rows", [[], [[1, 2]]])
def test_a_canvas_needs_rows_and_room(rows: Any, llama: Causal) -> None:
    with pytest.raises(DemurError) as caught:
        llama.canvas_of(rows, -1 if rows else 3)
    small.one_line(caught.value)
    with pytest.raises(DemurError, match="a hole at 2 in a row of 2") as caught:
        small.diffusion("llada").canvas_of([[1, 2]], 0, holes=[[2]])
    small.one_line(caught.value)


@pytest.mark.parametrize("name", ["llama", "llada"])
def test_nothing_open_is_no_step(name: str) -> None:
    model: Any = small.causal(name) if name in CAUSAL else small.diffusion(name)
    sampler = Autoregressive() if name in CAUSAL else MaskedDiffusion(steps=3)
    assert small.steps_of(model, model.canvas_of(ROWS, 0), sampler) == []


def test_samplers_by_name_are_what_they_say() -> None:
    assert SAMPLERS["ar"]() == Autoregressive()
    assert SAMPLERS["low-confidence"](steps=4) == MaskedDiffusion(steps=4)
    assert SAMPLERS["random"](steps=4) == MaskedDiffusion(steps=4, remasking="random")
    assert SAMPLERS["ar-order"](temperature=0.5) == MaskedDiffusion(steps=None, block_length=1, temperature=0.5)


# -- guidance, ends, caches ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIFFUSION)
def test_guidance_mixes_two_passes_and_keeps_the_states_of_the_conditional_one(name: str) -> None:
    model = small.diffusion(name).watching("middle", "last")
    canvas = model.canvas_of(ROWS, 4, holes=([1], [], []))
    step = next(iter(MaskedDiffusion(steps=4, cfg_scale=1.5)(model, canvas, seeded(0, 3))))
    given_tokens = ~canvas.open & ~canvas.pad
    blind = replace(canvas, ids=torch.where(given_tokens, MASK, canvas.ids))
    with_prompt, without = model.forward(canvas, canvas.open), model.forward(blind, canvas.open)
    guided = without.logits + 2.5 * (with_prompt.logits - without.logits)
    assert torch.equal(step.predictions[canvas.open], guided.argmax(dim=-1))
    assert not torch.equal(step.predictions[canvas.open], with_prompt.logits.argmax(dim=-1))
    assert step.passes == 2
    for layer in ("middle", "last"):
        assert torch.equal(step.hidden[layer], with_prompt.hidden[layer])
        assert not torch.allclose(step.hidden[layer], without.hidden[layer])


@pytest.mark.parametrize("cache", [True, False])
def test_rows_of_a_batch_end_separately(cache: bool, llama: Causal) -> None:
    free = small.steps_of(llama, llama.canvas_of(ROWS, 8), Autoregressive())[-1].ids[:, -8:]
    model = small.ending(llama, int(free[0, 2]), int(free[2, 5]))
    ends = [next((t for t, i in enumerate(row) if i in model.stop_ids), 7) for row in free.tolist()]
    assert len(set(ends)) > 1
    steps = small.steps_of(model, model.canvas_of(ROWS, 8), Autoregressive(cache=cache))
    assert len(steps) == max(ends) + 1
    for t, step in enumerate(steps):
        assert step.live.tolist() == [t <= end for end in ends]
        assert torch.equal(step.committed.any(dim=1), step.live)
    last = steps[-1]
    for i, end in enumerate(ends):
        assert last.ids[i, -8:][: end + 1].tolist() == free[i, : end + 1].tolist()
        assert last.open[i].sum() == 7 - end
        assert (last.ids[i, -8:][end + 1 :] == model.pad_id).all(), "nothing is written after the end"


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_cache_changes_nothing_but_the_time(name: str, temperature: float) -> None:
    model = small.causal(name).watching("first", "last")
    canvas = model.canvas_of(ROWS, 10)
    ours, theirs = (
        small.steps_of(model, canvas, Autoregressive(temperature=temperature, cache=cache)) for cache in (True, False)
    )
    assert len(ours) == len(theirs)
    for mine, its in zip(ours, theirs, strict=True):
        assert torch.equal(mine.ids, its.ids)
        assert mine.passes == its.passes
        for layer in ("first", "last"):
            assert_close(mine.hidden[layer], its.hidden[layer])


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("cache", [True, False])
def test_a_step_that_is_kept_keeps_its_own_columns_alone(cache: bool, own: bool, llama: Causal) -> None:
    model = llama.watching("last", own=own)
    for step in Autoregressive(cache=cache)(model, model.canvas_of(ROWS, 4), seeded(0, 3)):
        states = step.hidden["last"]
        assert states.shape[1] == 1 + own
        assert states.untyped_storage().nbytes() == states.nbytes


@pytest.mark.parametrize("name", CAUSAL)
def test_greedy_decoding_is_that_of_transformers(name: str) -> None:
    model = small.causal(name)
    for row in ROWS:
        ids = torch.tensor([row])
        theirs = model.net.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False)
        ours = small.steps_of(model, model.canvas_of([row], 10), Autoregressive())
        assert ours[-1].ids[0, : theirs.shape[1]].tolist() == theirs[0].tolist()


# -- pooling by brute force ---------------------------------------------------------------------------------

PLACE = {"first": 1, "middle": 2, "3": 3, "last": -1}
"""Where a layer of a model of four blocks is in ``hidden_states`` (the first entry are the embeddings)."""


def _hidden_states(model: Any, ids: Tensor) -> Any:
    """All states of one row without padding, from transformers itself."""
    more = {}
    if isinstance(model, Bidirectional):
        more["attention_mask"] = torch.zeros((1, 1, len(ids), len(ids)))
    with torch.no_grad():
        return model.net.get_decoder()(
            input_ids=ids[None], output_hidden_states=True, use_cache=False, **more
        ).hidden_states


@pytest.mark.parametrize("name", CAUSAL)
def test_autoregressive_pooling_equals_means_of_the_finished_sequence(name: str) -> None:
    """``generated``: of the tokens so far; ``producing``: one column earlier; held after the end of sequence."""
    free = small.causal(name)
    full = small.steps_of(free, free.canvas_of(ROWS, 8), Autoregressive())[-1].ids[:, -8:]
    model = small.ending(free, int(full[0, 2]), int(full[1, 4])).watching(*PLACE)
    keys = [(layer, pool) for layer in PLACE for pool in ("generated", "producing")]
    canvas = model.canvas_of(ROWS, 8)
    pooler = Pooler(canvas, keys)
    live = [(step, pooler(step)) for step in Autoregressive()(model, canvas, seeded(0, 3))]
    ended = 0
    for i, row in enumerate(ROWS):
        n, taken = len(row), sum(bool(step.live[i]) for step, _ in live)
        ended += taken < len(live)
        states = _hidden_states(model, torch.tensor([*row, *full[i, :taken].tolist()]))
        for (layer, pool), (t, (_, phi)) in ((key, at) for key in keys for at in enumerate(live)):
            count = min(t + 1, taken)
            begin = n - (pool == "producing")
            expected = states[PLACE[layer]][0, begin : begin + count].mean(dim=0)
            assert_close(phi[layer, pool][i], expected, f"{layer} {pool} of row {i} at step {t}")
    assert ended


@pytest.mark.parametrize("name", DIFFUSION)
@pytest.mark.parametrize(
    "sampler",
    [
        MaskedDiffusion(steps=4, suppress=(MASK,)),
        MaskedDiffusion(steps=None, block_length=3, temperature=1.0, suppress=(MASK,)),
        MaskedDiffusion(steps=9, remasking="random", suppress=(MASK,)),
    ],
    ids=["greedy", "blocks", "more-steps-than-tokens"],
)
def test_diffusion_pooling_equals_means_over_the_steps_own_pass(name: str, sampler: MaskedDiffusion) -> None:
    """Four modes on four layers; ``masked`` holds its last value when nothing is masked any more."""
    model = small.diffusion(name).watching(*PLACE)
    canvas = model.canvas_of(ROWS, 5, holes=([2, 8], [], [0]))
    pooler = Pooler(canvas, ALL_KEYS)
    live = [(step, pooler(step)) for step in sampler(model, canvas, seeded(0, 3))]
    for i, start in enumerate(canvas.starts()):
        held: dict[Any, Tensor] = {}
        before, opened = canvas.ids[i, start:], canvas.open[i, start:]
        for t, (step, phi) in enumerate(live):
            still = step.open[i, start:]
            states = _hidden_states(model, before)
            produced = {max(int(c) - model.shift, 0) for c in torch.where(opened)[0]}
            places = {
                "generated": torch.where(opened & ~still)[0].tolist(),
                "producing": sorted(produced),
                "response": torch.where(opened)[0].tolist(),
                "masked": torch.where(still)[0].tolist(),
            }
            for key in ALL_KEYS:
                if places[key[1]] and step.live[i]:
                    held[key] = states[PLACE[key[0]]][0, places[key[1]]].mean(dim=0)
                assert_close(phi[key][i], held[key], f"{key} of row {i} at step {t}")
            before = step.ids[i, start:]
        assert not live[-1][0].open[i].any()


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_pooling_before_anything_is_committed_is_zero_and_then_held(bad: float) -> None:
    """A step may commit nothing: ``generated`` is zero until something is, whatever states hold; ``masked`` is not."""
    model = small.diffusion("llada").watching("last")
    canvas = model.canvas_of([[1, 2, 3]], 3)
    out = model.forward(canvas, canvas.open)
    nothing = torch.zeros_like(canvas.open)
    live = torch.ones(1, dtype=torch.bool)
    step = Step(0, canvas.ids, canvas.open, nothing, canvas.ids, canvas.ids.float(), live, out.hidden)
    pooler = Pooler(canvas, [("last", pool) for pool in ("generated", "masked", "response")])
    phi = pooler(replace(step, hidden={"last": out.hidden["last"] + bad}))
    assert (phi["last", "generated"] == 0).all()
    assert phi["last", "masked"].isfinite().all() == (bad == 0)
    assert torch.equal(phi["last", "masked"].nan_to_num(), phi["last", "response"].nan_to_num())
    over = replace(step, live=~live, committed=canvas.open)
    assert (pooler(over)["last", "generated"] == 0).all(), "a row that has ended keeps its value"


def test_the_last_blocks_output_is_the_input_of_the_final_norm(llama: Causal) -> None:
    model = llama.watching("4", "last")
    canvas = model.canvas_of(ROWS, 2)
    hidden = model.forward(canvas, None).hidden
    assert_close(model.net.model.norm(hidden["4"]).detach(), hidden["last"])


@pytest.mark.parametrize(
    ("wanted", "says"), [(("last", "mean"), "generated or producing"), (("2", "generated"), "last")]
)
def test_pooling_of_what_is_not_there_is_one_line(wanted: Any, says: str, llama: Causal) -> None:
    model = llama.watching("last")
    canvas = model.canvas_of(ROWS, 2)
    with pytest.raises(DemurError) as caught:
        Pooler(canvas, [wanted])(small.steps_of(model, canvas, Autoregressive())[0])
    assert says in small.one_line(caught.value)


def test_a_whole_pass_covers_the_whole_canvas_on_causal_weights_too(llama: Causal) -> None:
    """Masked diffusion on causal weights: pooling reads the last column as well."""
    model = llama.watching("last")
    canvas = model.canvas_of([[1, 2]], 3)
    pooler = Pooler(canvas, [("last", "response")])
    step = next(iter(MaskedDiffusion(steps=1)(model, canvas, seeded(0, 1))))
    assert step.hidden["last"].shape[1] == canvas.width
    expected = _hidden_states(model, canvas.ids[0])[-1][0, 2:].mean(dim=0)
    assert_close(pooler(step)["last", "response"][0], expected)


def test_revising_on_causal_weights_is_one_line(llama: Causal) -> None:
    with pytest.raises(DemurError, match="mask token") as caught:
        small.steps_of(llama, llama.canvas_of([[65, 66]], 4), MaskedDiffusion(steps=4, revise=0.5))
    small.one_line(caught.value)
