"""The laws of the core (docs: architecture), each at least one test. Law 7 belongs to guards and comes with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import ALL_KEYS, AR_KEYS, CAUSAL, DIFFUSION, MASK, PROMPTS, ROWS, VOCABULARY, assert_close, assert_same
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from demur.models import Bidirectional, Causal
from demur.pooling import Pooler
from demur.samplers import Autoregressive, BlockDiffusion, MaskedDiffusion, autoregressive_order, seeded
from demur.signals import refusal_signal
from demur.traces import Guesses, Recorder, Trace, generate, spec_of, teacher_forced
from demur.types import DemurError

AR = small.ar_samplers()
MD = small.diffusion_samplers()
EVERY = [pytest.param(small.causal, m, s, AR_KEYS, id=f"{m}-{n}") for m in CAUSAL for n, s in AR.items()] + [
    pytest.param(small.diffusion, m, s, ALL_KEYS, id=f"{m}-{n}") for m in DIFFUSION for n, s in MD.items()
]


# -- Law 1: one seed, one trace; a row's trace does not depend on its neighbours -----------------------------


@pytest.mark.parametrize(("make", "name", "sampler", "keys"), EVERY)
def test_law_1_a_row_does_not_depend_on_its_batch(make: Any, name: str, sampler: Any, keys: Any) -> None:
    model = make(name)
    together = generate(model, PROMPTS, sampler, length=9, seed=5, pools=keys, batch=3)
    alone = generate(model, PROMPTS, sampler, length=9, seed=5, pools=keys, batch=1)
    assert len(together) == len(alone) == 3
    for ours, theirs in zip(together, alone, strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("name", CAUSAL)
def test_law_1_holds_for_masked_diffusion_on_causal_weights(name: str) -> None:
    model, sampler = small.causal(name), MaskedDiffusion(steps=4, temperature=1.0)
    together = small.record(model, model.canvas_of(ROWS, 6), sampler, ALL_KEYS, range(3))
    for i, row in enumerate(ROWS):
        (alone,) = small.record(model, model.canvas_of([row], 6), sampler, ALL_KEYS, [i])
        assert_same(together[i], alone)


@pytest.mark.parametrize("name", DIFFUSION)
@pytest.mark.parametrize("sampler", MD.values(), ids=MD)
def test_law_1_holds_for_holes_anywhere(name: str, sampler: MaskedDiffusion) -> None:
    model = small.diffusion(name)
    holes = ([0, 3, 4], [], [1])
    together = small.record(model, model.canvas_of(ROWS, 4, holes=holes), sampler, ALL_KEYS, range(3))
    for i, (row, own) in enumerate(zip(ROWS, holes, strict=True)):
        (alone,) = small.record(model, model.canvas_of([row], 4, holes=[own]), sampler, ALL_KEYS, [i])
        assert_same(together[i], alone)


def test_law_1_holds_for_filled_templates_and_their_specs() -> None:
    import demur
    from demur.organism.attacks import attack
    from demur.organism.measuring.cells import infill, sampler_of
    from demur.organism.world import prompts

    model, sampler = demur.load("organism/diffusion", device="cpu"), sampler_of("low-confidence", 8)
    asked = [attack("infill", prompt) for prompt in prompts("test", forbidden=False, n=200)]
    asked = sorted(asked, key=lambda prompt: len(model.tokenizer(prompt.text + prompt.prefill)["input_ids"]))[::199]
    together = infill(model, asked, sampler)
    assert len(together[0].start) < len(together[1].start), "one row should be padded"
    for i, prompt in enumerate(asked):
        (alone,) = infill(model, [prompt], sampler)
        assert not alone.spec.differences(together[i].spec)
        assert_same(alone, together[i])


@pytest.mark.parametrize("name", DIFFUSION)
def test_law_1_holds_for_a_first_place_that_is_open_behind_padding(name: str) -> None:
    model = small.diffusion(name)
    sampler = MaskedDiffusion(steps=3)
    rows, holes = ([9, 5, 6], [7] * 8), ([0], [])
    together = small.record(model, model.canvas_of(rows, 2, holes=holes), sampler, ALL_KEYS, [0, 1])
    (alone,) = small.record(model, model.canvas_of(rows[:1], 2, holes=holes[:1]), sampler, ALL_KEYS, [0])
    assert_same(together[0], alone)


@pytest.mark.parametrize(("make", "name", "sampler", "keys"), EVERY)
def test_law_1_one_seed_gives_one_trace(make: Any, name: str, sampler: Any, keys: Any) -> None:
    once, again = (generate(make(name), PROMPTS[:1], sampler, length=8, seed=11, pools=keys) for _ in range(2))
    assert_same(once[0], again[0], tolerance=0.0)


def test_law_1_seeds_make_a_difference_where_there_is_chance() -> None:
    for model, sampler in ((small.causal("llama"), AR["sampled"]), (small.diffusion("llada"), MD["random"])):
        texts = {generate(model, PROMPTS[:1], sampler, length=8, seed=s)[0].tokens().tobytes() for s in range(5)}
        assert len(texts) > 1


def test_law_1_a_row_that_ended_says_so_whatever_its_neighbours_do(llama: Causal) -> None:
    first = generate(llama, PROMPTS[:1], Autoregressive(), length=6)[0]
    model = small.ending(llama, int(first.tokens()[1]))
    recorder = _recorder(model, 2, length=9)
    for _ in islice(recorder(Autoregressive()(recorder.model, recorder.canvas, seeded(0, 2))), 5):
        pass
    ended, stopped = recorder.traces()
    assert (ended.stop, ended.steps) == ("end-of-sequence", 2)
    assert (stopped.stop, stopped.steps) == ("stopped", 5)
    alone = generate(model, PROMPTS[:1], Autoregressive(), length=9, pools=recorder.pooler.wanted)[0]
    assert_same(ended, alone)


@pytest.mark.parametrize("keys", [AR_KEYS, [("last", "producing")]], ids=["own", "producing"])
def test_law_1_a_row_that_ended_took_as_many_passes_as_alone(llama: Causal, keys: Any) -> None:
    model = small.ending(llama, int(generate(llama, PROMPTS[:1], length=6)[0].tokens()[1]))
    together, alone = (generate(model, PROMPTS, length=9, pools=keys, batch=batch) for batch in (3, 1))
    assert together[0].steps < max(trace.steps for trace in together)
    for ours, theirs in zip(together, alone, strict=True):
        assert_same(ours, theirs)


def _recorder(model: Any, rows: int, length: int, sampler: Any = None, keys: Any = AR_KEYS) -> Recorder:
    watched = model.watching(*dict.fromkeys(layer for layer, _ in keys))
    canvas = watched.canvas(PROMPTS[:rows], length)
    return Recorder(watched, canvas, PROMPTS[:rows], spec_of(watched, sampler or Autoregressive(), length), keys)


# -- Law 2: every open place gets filled; a given token never moves; committed + open = all ------------------


@st.composite
def fillings(draw: st.DrawFn) -> tuple[Any, list[list[int]], int, list[list[int]], MaskedDiffusion]:
    """A model, a ragged canvas with holes, and settings of a sampler that can fill it."""
    model = small.diffusion(draw(st.sampled_from(DIFFUSION)))
    token = st.one_of(st.integers(0, 255), st.just(MASK))
    rows = draw(st.lists(st.lists(token, max_size=6), min_size=1, max_size=3))
    length = draw(st.integers(0, 7))
    holes = [draw(st.lists(st.integers(0, len(row) - 1), unique=True)) if row else [] for row in rows]
    n_open = [length + len(own) for own in holes]
    if not any(n_open) or not all(len(row) + length for row in rows):
        length, n_open = length + 1, [n + 1 for n in n_open]
    block = draw(st.one_of(st.none(), st.integers(1, 9)))
    n_blocks = max(-(-n // (block or n)) for n in n_open if n)
    steps = draw(st.one_of(st.none(), st.integers(n_blocks, max(n_open) + 4)))
    sampler = MaskedDiffusion(
        steps=steps,
        block_length=block,
        temperature=draw(st.sampled_from([0.0, 0.3, 1.0, 500.0])),
        remasking=draw(st.sampled_from(["low_confidence", "random"])),
        cfg_scale=draw(st.sampled_from([0.0, 0.0, 2.0])),
        suppress=(MASK,),
        late=draw(st.sampled_from([(), (1, 2), tuple(range(256))])),
    )
    if draw(st.integers(0, 4)) == 0:
        sampler = autoregressive_order(suppress=(MASK,), temperature=sampler.temperature)
    return model, rows, length, holes, sampler


@settings(max_examples=max(40, settings.default.max_examples))
@given(fillings(), st.integers(0, 3))
def test_law_2_every_place_is_filled_by_plan_and_given_tokens_stay(filling: Any, seed: int) -> None:
    model, rows, length, holes, sampler = filling
    canvas = model.canvas_of(rows, length, holes=holes)
    plans = [small.planned(sampler, int(n)) for n in canvas.open.sum(dim=1)]
    rank = canvas.open.long().cumsum(dim=1)
    ids, open_ = canvas.ids, canvas.open
    steps = small.steps_of(model.watching(), canvas, sampler, seed)
    assert len(steps) == max(map(len, plans))
    for t, step in enumerate(steps):
        assert step.index == t
        assert step.live.tolist() == [t < len(plan) for plan in plans]
        assert step.committed.sum(dim=1).tolist() == [plan[t][1] if t < len(plan) else 0 for plan in plans]
        assert not (step.committed & ~open_).any(), "a token was written where none was asked for"
        assert torch.equal(step.ids, torch.where(step.committed, step.predictions, ids))
        assert torch.equal(step.open, open_ & ~step.committed)
        assert torch.equal(step.predictions[~open_], ids[~open_])
        guessed = open_ & step.live[:, None]
        assert torch.equal(~step.confidence.isnan(), guessed)
        assert not (step.predictions[guessed] == MASK).any(), "a suppressed token was predicted"
        for i, plan in enumerate(plans):  # nothing is written beyond the current block, nothing is left behind it
            if t < len(plan):
                assert not (step.committed[i] & (rank[i] > plan[t][0])).any()
                if t + 1 == len(plan) or plan[t + 1][0] > plan[t][0]:
                    assert not (step.open[i] & (rank[i] <= plan[t][0])).any()
        ids, open_ = step.ids, step.open
    assert not open_.any()
    assert torch.equal(ids[~canvas.open], canvas.ids[~canvas.open])


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    """Rules that masked and block diffusion share, in any combination that a sampler takes."""
    of = st.sampled_from
    chosen: dict[str, Any] = {
        "temperature": draw(of([0.0, 0.5, 1.0])),
        "sampling": draw(of(["gumbel", "categorical"])),
        "remasking": draw(of(["low_confidence", "margin", "entropy", "random"])),
        "schedule": draw(of(["even", "linear", "cosine"])),
    }
    if chosen["sampling"] == "categorical":
        chosen |= {"top_k": draw(of([None, 3])), "top_p": draw(of([None, 0.5, 0.9]))}
    more = draw(of(["nothing", "threshold", "entropy_bound"]))
    if more == "threshold":
        chosen["threshold"] = draw(of([0.0, 0.05, 0.2, 0.9]))
    if more == "entropy_bound":
        chosen |= {"entropy_bound": draw(of([0.1, 2.0, 10.0])), "remasking": "entropy"}
    return chosen


@st.composite
def masked_rules(draw: st.DrawFn) -> MaskedDiffusion:
    """The same and those of masked diffusion alone."""
    chosen = draw(rules()) | {"block_length": draw(st.sampled_from([None, 2, 3])), "suppress": (MASK,)}
    chosen["steps"] = draw(st.sampled_from([None, 7, 12]))
    own = draw(st.sampled_from(["nothing", "origin", "dream", "alg_temp", "revise"]))
    if own == "origin" and "entropy_bound" not in chosen:
        chosen["remasking"] = "origin"
    if own == "dream":
        chosen["schedule"] = "dream"
    if own == "alg_temp":
        chosen["alg_temp"] = draw(st.sampled_from([1.0, 0.1, 1e-3]))
    if own == "revise":
        chosen["revise"] = draw(st.sampled_from([0.1, 0.5, 0.9]))
    return MaskedDiffusion(**chosen)


def _filled_in_order(model: Any, canvas: Any, sampler: Any, seed: int, block: Any) -> None:
    """Every place is filled once its block is current, blocks from left to right; given tokens never move."""
    ids, open_ = canvas.ids, canvas.open
    for step in small.steps_of(model.watching(), canvas, sampler, seed):
        assert not (step.committed & ~open_).any(), "a token was written where none was asked for"
        current = torch.where(open_, block, block.max() + 1).amin(dim=1)
        assert not (step.committed & (block > current[:, None])).any(), "a block was begun before the last was full"
        assert torch.equal(step.ids[~canvas.open], canvas.ids[~canvas.open])
        assert (step.ids[step.open] == model.mask_id).all()
        assert not (step.ids[canvas.open & ~step.open] == model.mask_id).any()
        ids, open_ = step.ids, step.open
    assert not open_.any()
    assert torch.equal(ids[~canvas.open], canvas.ids[~canvas.open])


@settings(max_examples=max(50, settings.default.max_examples))
@given(masked_rules(), st.sampled_from(DIFFUSION), st.integers(1, 7), st.integers(0, 9))
def test_law_2_holds_for_every_rule_of_masked_diffusion(
    sampler: MaskedDiffusion, name: str, length: int, seed: int
) -> None:
    model = small.diffusion(name)
    canvas = model.canvas_of(ROWS, length, holes=([2, 7], [], [0, 3]))
    rank = canvas.open.long().cumsum(dim=1) - 1
    _filled_in_order(model, canvas, sampler, seed, rank // (sampler.block_length or 99))


@settings(max_examples=max(40, settings.default.max_examples))
@given(rules(), st.sampled_from(["start", "response"]), st.integers(1, 4), st.integers(1, 9), st.integers(0, 9))
def test_law_2_holds_for_every_rule_of_block_diffusion(
    chosen: dict[str, Any], partition: str, steps: int, length: int, seed: int
) -> None:
    model = small.block(partition)
    sampler = BlockDiffusion(steps=steps, quota=("block", "open")[seed % 2], **chosen)  # type: ignore[arg-type]
    canvas = model.canvas_of(ROWS, length)
    _filled_in_order(model, canvas, sampler, seed, model.blocks(canvas))


@given(st.integers(1, 8), st.integers(0, 50))
def test_law_2_ar_order_commits_one_token_a_step_from_left_to_right(length: int, seed: int) -> None:
    model = small.diffusion("dream").watching()
    canvas = model.canvas_of(ROWS, length, holes=([2], [], [0, 3]))
    order = [torch.where(row)[0].tolist() for row in canvas.open]
    for t, step in enumerate(
        small.steps_of(model, canvas, autoregressive_order(temperature=1.0, suppress=(MASK,)), seed)
    ):
        for i, places in enumerate(order):
            assert torch.where(step.committed[i])[0].tolist() == places[t : t + 1]


@pytest.mark.parametrize("sampler", AR.values(), ids=AR)
def test_law_2_autoregression_writes_left_to_right_and_moves_nothing(sampler: Autoregressive, llama: Causal) -> None:
    canvas = llama.canvas_of(ROWS, 7)
    steps = small.steps_of(llama, canvas, sampler)
    ids, open_ = canvas.ids, canvas.open
    for t, step in enumerate(steps):
        column = canvas.width - 7 + t
        assert torch.where(step.committed.any(dim=0))[0].tolist() == [column]
        assert torch.equal(step.committed[:, column], step.live)
        assert torch.equal(torch.where(step.committed, ids, step.ids), ids)
        assert torch.equal(step.open, open_ & ~step.committed)
        ids, open_ = step.ids, step.open
    ended = torch.isin(ids, torch.tensor(llama.stop_ids)).any(dim=1)
    assert torch.equal(open_.any(dim=1), ended & open_.any(dim=1)), "a row is left open only after its end of sequence"
    assert len(steps) == 7


def test_law_2_a_mask_token_that_was_given_is_text(llada: Bidirectional) -> None:
    canvas = llada.canvas_of([[MASK, 65, MASK]], 3)
    assert canvas.open.sum() == 3
    last = small.steps_of(llada.watching(), canvas, MaskedDiffusion(steps=2, suppress=(MASK,)))[-1]
    assert last.ids[0, :3].tolist() == [MASK, 65, MASK]
    assert not last.open.any()


def test_law_2_a_predicted_mask_stays_open_unless_it_is_suppressed() -> None:
    logits = torch.zeros(8)
    logits[5] = 9.0
    model = small.Constant(logits, mask_id=5)
    canvas = small.diffusion("llada").canvas_of([[1, 2]], 4)
    assert small.steps_of(model, canvas, MaskedDiffusion(steps=4))[-1].open.sum() == 4
    assert not small.steps_of(model, canvas, MaskedDiffusion(steps=4, suppress=(5,)))[-1].open.any()


# -- Law 3: greedy masked diffusion with block length 1 on a causal adapter is autoregression ----------------


@pytest.mark.parametrize("name", CAUSAL)
def test_law_3_block_length_1_on_causal_weights_equals_autoregression(name: str) -> None:
    model = small.causal(name).watching()
    canvas = model.canvas_of(ROWS, 12)
    theirs = small.steps_of(model, canvas, Autoregressive())
    ours = small.steps_of(model, canvas, MaskedDiffusion(block_length=1, steps=None))
    assert len(ours) == len(theirs) == 12
    for mine, its in zip(ours, theirs, strict=True):
        assert torch.equal(mine.committed, its.committed)
        assert torch.equal(mine.ids[mine.committed], its.ids[its.committed])


@pytest.mark.parametrize("name", CAUSAL)
def test_law_3_holds_up_to_the_end_of_sequence(name: str) -> None:
    free = small.causal(name).watching()
    canvas = free.canvas_of(ROWS, 10)
    full = small.steps_of(free, canvas, MaskedDiffusion(block_length=1, steps=None))[-1].ids[:, -10:]
    model = small.ending(free, int(full[0, 3]), int(full[1, 6]))
    for i, row in enumerate(full.tolist()):
        ends = [t for t, token in enumerate(row) if token in model.stop_ids]
        alone = model.canvas_of(ROWS[i : i + 1], 10)
        steps = small.steps_of(model, alone, Autoregressive())
        assert len(steps) == (ends[0] + 1 if ends else 10)
        assert steps[-1].ids[0, -10:][: len(steps)].tolist() == row[: len(steps)]


# -- Law 4: samplers equal their official implementations ----------------------------------------------------


@pytest.mark.slow
def test_law_4_golden_facts_of_the_official_code_are_reproduced(capsys: pytest.CaptureFixture[str]) -> None:
    assert golden.main([str(Path(golden.__file__).parent / "golden")]) == 0
    *lines, last = capsys.readouterr().out.strip().splitlines()
    assert ", 0 failed, " in last
    later = {line.split()[1].split("/")[0] for line in lines if line.startswith("UNSUPPORTED")}
    assert later <= {"a2d_dllm", "diffusion_gemma", "llada2", "modernbert_mdlm", "sdar"}
    passed = {line.split()[1].split("/")[0] for line in lines if line.startswith("PASS")}
    assert passed >= {"llada", "dream", "reference_wrappers", "sri"}


# -- Law 5: up to where it was stopped, a generation is the one that was not stopped --------------------------


@pytest.mark.parametrize(("make", "name", "sampler", "keys"), EVERY)
def test_law_5_stopping_early_gives_a_prefix(make: Any, name: str, sampler: Any, keys: Any) -> None:
    model = make(name)
    whole = generate(model, PROMPTS, sampler, length=7, seed=2, pools=keys)
    for taken in (1, 3):
        recorder = _recorder(model, 3, 7, sampler, keys)
        for _ in islice(recorder(sampler(recorder.model, recorder.canvas, seeded(2, 3))), taken):
            pass
        for ours, theirs in zip(recorder.traces(), whole, strict=True):
            assert (ours.steps, ours.stop) == (taken, "stopped")
            _assert_prefix(ours, theirs)


def _assert_prefix(ours: Trace, theirs: Trace) -> None:
    np.testing.assert_array_equal(ours.start, theirs.start)
    np.testing.assert_array_equal(ours.commits, theirs.commits[theirs.commits[:, 0] < ours.steps])
    np.testing.assert_array_equal(ours.predictions, theirs.predictions[: ours.steps])
    np.testing.assert_array_equal(ours.confidence, theirs.confidence[: ours.steps])
    for key, phi in ours.phi.items():
        np.testing.assert_array_equal(phi, theirs.phi[key][: ours.steps])
    for t in range(ours.steps + 1):
        assert ours.text(t) == theirs.text(t)


@pytest.mark.parametrize(
    ("model", "sampler"),
    [
        (small.causal("llama"), AR["greedy"]),
        (small.causal("llama").watching("last", own=False), AR["greedy"]),
        (small.diffusion("llada"), MD["greedy"]),
    ],
    ids=["llama", "llama-producing", "llada"],
)
def test_law_5_a_generation_that_is_stopped_computes_nothing_more(model: Any, sampler: Any) -> None:
    calls = []
    handle = model.net.get_decoder().register_forward_hook(lambda *_: calls.append(1))
    try:
        steps = sampler(model, model.canvas(PROMPTS, 8), seeded(0, 3))
        assert not calls, "a sampler is lazy"
        taken = list(islice(steps, 2))
        assert len(calls) == sum(step.passes for step in taken)
        steps.close()
        assert len(calls) == sum(step.passes for step in taken)
    finally:
        handle.remove()


def test_law_5_a_watcher_between_sampler_and_recorder_changes_nothing(llada: Bidirectional) -> None:
    seen = []

    class Watched:
        """A defense that acts nowhere."""

        def __call__(self, model: Any, canvas: Any, rngs: Any) -> Iterator[Any]:
            for step in MD["blocks"](model, canvas, rngs):
                seen.append(step.index)
                yield step

    ours = generate(llada, PROMPTS, Watched(), length=6, pools=ALL_KEYS)
    theirs = generate(llada, PROMPTS, MD["blocks"], length=6, pools=ALL_KEYS)
    assert seen == list(range(6))
    for mine, its in zip(ours, theirs, strict=True):
        assert_same(mine, its, tolerance=0.0)


# -- Law 6: replay gives the final canvas; save, load, save gives the same bytes -----------------------------


@pytest.mark.parametrize(("make", "name", "sampler", "keys"), EVERY)
def test_law_6_replay_equals_every_canvas(make: Any, name: str, sampler: Any, keys: Any) -> None:
    model = make(name)
    recorder = _recorder(model, 3, 6, sampler, keys)
    live = [step for step, _ in recorder(sampler(recorder.model, recorder.canvas, seeded(4, 3)))]
    for i, (trace, pad) in enumerate(zip(recorder.traces(), recorder.canvas.starts(), strict=True)):
        np.testing.assert_array_equal(trace.replay(0), recorder.canvas.ids[i, pad:])
        for t, step in enumerate(live[: trace.steps], 1):
            np.testing.assert_array_equal(trace.replay(t), step.ids[i, pad:])
            known = torch.where(step.confidence[i].isnan(), -1, step.predictions[i])[recorder.canvas.open[i]]
            kept = step.ids[i][recorder.canvas.open[i]]
            done = (recorder.canvas.open & ~step.open)[i][recorder.canvas.open[i]]
            np.testing.assert_array_equal(trace.tokens(t), torch.where(done, kept, known))
        np.testing.assert_array_equal(trace.replay(trace.steps), live[-1].ids[i, pad:])


def test_law_6_replay_refuses_steps_that_were_not_taken(llama: Causal) -> None:
    trace = generate(llama, PROMPTS[:1], length=3)[0]
    for t in (-1, 4):
        with pytest.raises(DemurError, match="0 to 3") as caught:
            trace.replay(t)
        small.one_line(caught.value)


def _traces_of_all_kinds() -> list[Trace]:
    llama, llada = small.causal("llama"), small.diffusion("llada")
    short = small.ending(llama, int(generate(llama, PROMPTS[:1], length=4)[0].tokens()[2]))
    chat = replace(llada, tokenizer=small.byte_level("{% for m in messages %}{{ m.content }}\n{% endfor %}"))
    loud = replace(PROMPTS[1], system="Be brief.", prefill="Sure, “é”\n", parent="p", attack="flip", harmful=None)
    return [
        *generate(short, PROMPTS, length=8, pools=AR_KEYS),
        *generate(chat, [loud, *PROMPTS], MD["blocks"], length=7, pools=ALL_KEYS, seed=3),
        *teacher_forced(llama, PROMPTS[:2], ["Sorry, 你好", [1, 2, 256]], pools=AR_KEYS),
    ]


def test_law_6_save_load_save_is_byte_identical(tmp_path: Path) -> None:
    for i, trace in enumerate(_traces_of_all_kinds()):
        first = trace.save(tmp_path / f"{i}.a")
        loaded = Trace.load(first)
        assert loaded.save(tmp_path / f"{i}.b").read_bytes() == first.read_bytes()
        assert_same(loaded, trace, tolerance=0.0)
        assert not loaded.spec.differences(trace.spec)
        assert (loaded.spec.key, loaded.spec.seed) == (trace.spec.key, trace.spec.seed)
        assert (loaded.seconds, loaded.origin, loaded.spec.versions) == (
            trace.seconds,
            trace.origin,
            trace.spec.versions,
        )
        assert loaded.confidence.tobytes() == trace.confidence.tobytes()
        assert [loaded.text(t) for t in range(loaded.steps + 1)] == [trace.text(t) for t in range(trace.steps + 1)]
        assert loaded.scene() == trace.scene()


# -- Law 8: teacher-forced replay gives what the live generation gave -----------------------------------------


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("steps", [5, 9, 16])
def test_law_8_teacher_forced_states_and_sigma_equal_live_ones(name: str, steps: int) -> None:
    free = small.causal(name)
    tokens = [trace.tokens() for trace in generate(free, PROMPTS, length=9)]
    model = small.ending(free, int(tokens[0][2]), int(tokens[2][6]))
    live = generate(model, PROMPTS, AR["greedy"], length=9, steps=steps, pools=AR_KEYS)
    lengths = [trace.steps for trace in live]
    assert len(set(lengths)) > 1
    assert [trace.stop for trace in live].count("end-of-sequence") >= 1
    answers = [[int(t) for t in trace.tokens() if t >= 0] for trace in live]
    replayed = teacher_forced(model, PROMPTS, answers, steps=steps, pools=AR_KEYS, batch=2)
    noise = np.random.default_rng(0)
    for ours, theirs in zip(replayed, live, strict=True):
        assert not ours.spec.differences(theirs.spec)
        assert ours.steps == min(theirs.steps, steps)
        assert ours.text() == theirs.text(ours.steps)
        if theirs.steps <= steps:
            assert ours.stop == theirs.stop
        for key in AR_KEYS:
            assert_close(ours.aligned(*key), theirs.aligned(*key), str(key))
            anchors = noise.standard_normal((2, steps, theirs.phi[key].shape[1]))
            sigmas = [refusal_signal(trace.aligned(*key), *anchors) for trace in (ours, theirs)]
            np.testing.assert_allclose(*sigmas, rtol=0, atol=1e-4)


def test_law_8_holds_for_sampled_answers_and_for_an_end_at_the_last_place(llama: Causal) -> None:
    sampler = Autoregressive(temperature=1.0)
    free = generate(llama, PROMPTS, sampler, length=6, seed=8)
    model = small.ending(llama, int(free[1].tokens()[-1]))
    live = generate(model, PROMPTS, sampler, length=6, seed=8, steps=6, pools=AR_KEYS)
    assert live[1].stop == "end-of-sequence"
    answers = [[int(t) for t in trace.tokens() if t >= 0] for trace in live]
    for ours, theirs in zip(
        teacher_forced(model, PROMPTS, answers, steps=6, pools=AR_KEYS, sampler=sampler), live, strict=True
    ):
        assert ours.stop == theirs.stop
        assert not ours.spec.differences(theirs.spec)
        for key in AR_KEYS:
            assert_close(ours.aligned(*key), theirs.aligned(*key), str(key))


@pytest.mark.parametrize("name", CAUSAL)
def test_law_8_a_replay_ends_with_the_end_of_sequence(name: str) -> None:
    """What is after it, padding or another end, no live generation would have taken."""
    free = small.causal(name)
    model = small.ending(free, int(generate(free, PROMPTS[:1], length=9)[0].tokens()[3]))
    (live,) = generate(model, PROMPTS[:1], length=9, pools=AR_KEYS)
    answer = [int(t) for t in live.tokens() if t >= 0]
    assert (live.stop, len(answer)) == ("end-of-sequence", live.steps)
    (replayed,) = teacher_forced(model, PROMPTS[:1], [[*answer, answer[-1], small.EOS, 65]], pools=AR_KEYS)
    assert (replayed.stop, replayed.steps) == (live.stop, live.steps)
    for key in AR_KEYS:
        assert_close(replayed.aligned(*key), live.aligned(*key), str(key))


def test_law_8_a_text_without_its_end_lacks_that_state_alone(llama: Causal) -> None:
    by_text = teacher_forced(llama, PROMPTS[:1], ["Yes."], pools=AR_KEYS)[0]
    whole = teacher_forced(llama, PROMPTS[:1], [[*b"Yes.", small.EOS]], pools=AR_KEYS)[0]
    assert (by_text.steps, whole.steps) == (4, 5)
    for key in AR_KEYS:
        assert_close(by_text.phi[key], whole.phi[key][:4], str(key))


def test_law_8_a_text_is_its_tokens(llama: Causal) -> None:
    text = "I cannot help. 你好 🙂"
    by_text, by_token = (
        teacher_forced(llama, PROMPTS[:1], [answer], pools=AR_KEYS)[0] for answer in (text, list(text.encode()))
    )
    assert_same(by_text, by_token, tolerance=0.0)
    assert by_text.text() == text


def test_law_8_room_in_the_context_does_not_depend_on_neighbours(llama: Causal) -> None:
    long = replace(PROMPTS[0], text="x" * 250)
    alone = teacher_forced(llama, [long], [[1, 2]], steps=32)
    together = teacher_forced(llama, [long, PROMPTS[0]], [[1, 2], list(range(32))], steps=32)
    assert_same(together[0], alone[0])


# -- Law 9: decoding never invents ----------------------------------------------------------------------------

TEXTS = ("Hello 🙂", "你好，世界", "e\u0301 👩‍👩‍👧 é", "a\u2028b\x00c", "naïve “quotes”", " 🏳️‍🌈 ")


def _cells(trace: Trace, t: int) -> str:
    return "".join(cell.text for cell in trace.frame(t, hide=False).cells)


@given(st.one_of(st.sampled_from(TEXTS), st.text(min_size=1, max_size=12)))
def test_law_9_characters_split_over_tokens_survive(text: str) -> None:
    tokenizer = small.byte_level()
    tokens = tokenizer(text)["input_ids"]
    trace = small.written(tokenizer, tokens)
    assert trace.text() == text == tokenizer.decode(tokens, skip_special_tokens=True)
    assert _cells(trace, trace.steps) == text
    for t in range(1, trace.steps + 1):
        said = trace.text(t)
        assert said == tokenizer.decode(tokens[:t], skip_special_tokens=True)
        assert _cells(trace, t) == said
        assert text.startswith(said.rstrip("\ufffd")), "a character that is in no text"


@given(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12))
def test_law_9_any_tokens_decode_as_their_tokenizer_decodes_them(tokens: list[int]) -> None:
    tokenizer = small.byte_level()
    trace = small.written(tokenizer, tokens)
    for t in range(trace.steps + 1):
        assert trace.text(t) == tokenizer.decode(tokens[:t], skip_special_tokens=True)
    if max(tokens) < 256:
        assert _cells(trace, trace.steps) == trace.text()


@pytest.mark.parametrize("strip", [True, False], ids=["llama-2", "gemma"])
@given(text=st.one_of(st.sampled_from(TEXTS), st.text(min_size=1, max_size=12), st.text("aehlo SA.,é你🙂", min_size=1)))
def test_law_9_holds_for_pieces_with_byte_fallback(strip: bool, text: str) -> None:
    tokenizer = small.sentencepiece_like(strip)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    trace = small.written(tokenizer, tokens)
    decoded = tokenizer.decode(tokens, skip_special_tokens=True)
    # Llama 2's decoder drops the blank before the first word; here every token keeps its own bytes.
    assert trace.text().removeprefix(" " if strip else "") == decoded
    assert _cells(trace, trace.steps) == trace.text()


@pytest.mark.parametrize("kind", small.OTHER_DECODERS)
def test_law_9_other_decoders_differ_in_the_first_blank_at_most(kind: str) -> None:
    tokenizer = small.with_decoder(kind)
    for names in (["hello", "you", "##r", "."], ["▁hello", "▁you", "x"], ["hello", "<0xC3>", "<0xA9>", "▁you"]):
        tokens = tokenizer.convert_tokens_to_ids(names)
        trace = small.written(tokenizer, tokens)
        assert trace.text().lstrip(" ") == tokenizer.decode(tokens, skip_special_tokens=True).lstrip(" "), names


def test_law_9_holds_where_another_mark_stands_for_blanks() -> None:
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("_a", -1.0), ("b", -1.0), ("_", -2.0)], unk_id=0))
    backend.decoder = decoders.Metaspace(replacement="_")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>")
    trace = small.written(tokenizer, [1, 2, 1, 3, 2])
    assert trace.text().removeprefix(" ") == tokenizer.decode([1, 2, 1, 3, 2]) == "ab a b"


def test_law_9_an_unfinished_character_is_one_replacement_character_not_many() -> None:
    tokenizer = small.sentencepiece_like(strip=False)
    tokens = tokenizer.convert_tokens_to_ids(["llo", "<0xF0>", "<0x9F>", "<0x99>", "<0x82>", "A"])
    trace = small.written(tokenizer, tokens)
    assert [trace.text(t) for t in range(7)] == ["", "llo", "llo\ufffd", "llo\ufffd", "llo\ufffd", "llo🙂", "llo🙂A"]
    assert [_cells(trace, t) for t in range(1, 7)] == [trace.text(t) for t in range(1, 7)]


def test_law_9_halves_on_both_sides_of_an_unknown_place_make_no_character() -> None:
    """A mask between two bytes of a character: neither the text nor the cells may join them."""
    trace = small.trace_of([1, 2, 3], {0: b"", 1: "é".encode()[:1], 2: b"x", 3: "é".encode()[1:]})
    guessed = np.array([[1, -1, 3]] * 3, dtype=np.int32)
    known = np.where(guessed < 0, np.nan, np.float32(1))
    holed = replace(trace, commits=trace.commits[[0, 2]], guesses=Guesses.of_dense(guessed, known))
    assert holed.tokens().tolist() == [1, -1, 3]
    assert holed.text() == _cells(holed, 3) == "\ufffd\ufffd"


def test_law_9_special_tokens_and_masks_are_in_cells_but_not_in_the_text() -> None:
    trace = small.written(small.byte_level(), [72, small.MASK, 105, small.EOS, 263])
    assert trace.text() == "Hi"
    assert _cells(trace, 5) == "H<mask>i<eos><unused 263>"


@pytest.mark.parametrize("pool", [("last", "generated")])
def test_law_9_live_texts_are_the_tokenizers_own(pool: Any, llama: Causal, llada: Bidirectional) -> None:
    for model, sampler in ((llama, AR["sampled"]), (llada, MD["random"])):
        for trace in generate(model, PROMPTS, sampler, length=12, seed=1, pools=[pool]):
            for t in range(trace.steps + 1):
                known = [int(i) for i in trace.tokens(t) if i >= 0]
                assert trace.text(t) == model.tokenizer.decode(known, skip_special_tokens=True)


def test_pooled_states_are_those_of_the_same_pass_however_many_are_asked_for(llama: Causal) -> None:
    """Watching more layers and modes changes neither tokens nor the states of the others."""
    few = generate(llama, PROMPTS, AR["sampled"], length=5, pools=[("last", "generated")])
    many = generate(llama, PROMPTS, AR["sampled"], length=5, pools=AR_KEYS)
    for ours, theirs in zip(few, many, strict=True):
        np.testing.assert_array_equal(ours.predictions, theirs.predictions)
        np.testing.assert_array_equal(ours.phi["last", "generated"], theirs.phi["last", "generated"])
    with pytest.raises(DemurError, match="autoregressive trace"):
        Pooler(llama.canvas(PROMPTS, 2), [("last", "masked")])(
            small.steps_of(llama.watching("last"), llama.canvas(PROMPTS, 2), Autoregressive())[0]
        )
