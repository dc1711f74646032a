"""The pretend device, and what the engine asks of one: results are the CPU's bits, and the host waits once a step."""

from __future__ import annotations

import importlib
import itertools
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import test_families as families
import torch
from test_guards import ASKED, KEYS, limited, subject, tiny_guard

import demur
from demur.attacks.search import RandomSearch
from demur.defenses import DiffuGuard
from demur.guards import DETECTORS, Guard, Watch, stopping_criteria
from demur.guards.tail import Tail
from demur.models import bidirectional
from demur.samplers import (
    Autoregressive,
    BlockDiffusion,
    JointThreshold,
    MaskedDiffusion,
    SeededBlocks,
    autoregressive_order,
    bd3lm,
    dream,
    llada2,
    mdlm,
    rules,
    sdar,
    seeded,
    steps_of,
)
from demur.testing import PROMPTS, Counts, PretendDevice, tiny
from demur.traces import Recorder, Trace, spec_of, teacher_forced, watching
from demur.types import POOLS, Kind

WORDS = ("Hi", "Tell me a story about a river that runs uphill.", "Why?", "How do I sharpen a knife?")


@pytest.fixture(autouse=True)
def _as_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CPU does by itself, and differently by a bit or a tie: of equal scores it takes those that official code
    takes there, and it projects a token that stands in many places once.
    """
    monkeypatch.setattr(rules, "as_topk", lambda score, count, *_: rules.leftmost(score, count))
    monkeypatch.setattr(bidirectional, "_once", lambda *_: [])


def recorded(
    model: Any,
    sampler: Any,
    prompts: Any,
    length: int,
    device: PretendDevice | None = None,
    keys: Any = None,
    steps: int = 32,
) -> list[Trace]:
    """Traces of a batch, by default with the states of every mode that the model has."""
    modes = ("generated", "producing") if model.kind is Kind.CAUSAL else POOLS
    keys = keys or [("last", pool) for pool in modes]
    watched = watching(model, keys)
    canvas = watched.canvas(prompts, length)
    spec = spec_of(model, getattr(sampler, "undefended", sampler), length, steps=steps)
    recorder = Recorder(watched, canvas, prompts, spec, keys)
    running = recorder(steps_of(sampler, watched, canvas, seeded(0, canvas.rows)))
    for _ in running if device is None else device.steps(running):
        pass
    return recorder.traces()


def assert_same_bits(ours: list[Trace], theirs: list[Trace]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert np.array_equal(one.commits, other.commits)
        assert np.array_equal(one.guesses.tokens, other.guesses.tokens)
        assert np.array_equal(one.guesses.confidence, other.guesses.confidence, equal_nan=True)
        assert one.phi.keys() == other.phi.keys()
        assert all(np.array_equal(one.phi[key], other.phi[key]) for key in one.phi)


def prompts_of(n: int) -> list[demur.Prompt]:
    return [demur.Prompt(f"q{i}", WORDS[i % len(WORDS)], harmful=False) for i in range(n)]


def mean(counts: list[Counts]) -> tuple[float, float, float]:
    """Operations outside the network, waits and copies of a step, without the last and the first two: a guard looks at
    the first step, and copies its tables, while the second is made.
    """
    middle = counts[2:-1] or counts[1:] or counts
    return tuple(sum(getattr(one, kind) for one in middle) / len(middle) for kind in ("outside", "waits", "copies"))  # type: ignore[return-value]


# -- the device itself --------------------------------------------------------------------------------------


def test_tensors_of_two_sides_in_one_operation_are_an_error_that_names_both() -> None:
    with PretendDevice() as device:
        there, here = device.place(torch.ones(2, 3)), torch.ones(3)
        with pytest.raises(RuntimeError, match=r"mixed devices in .*mul.*: device \(2, 3\), host \(3,\)"):
            there * here
        assert there.device.type != "cpu"
        assert (there * torch.tensor(2.0)).sum().item() == 12, "a number may come from either side"
        with pytest.raises(TypeError, match="use cpu"):
            there.numpy()


@pytest.mark.parametrize(
    ("asks", "waits", "copies"),
    [
        (lambda x: x + 1, 0, 0),
        (lambda x: x.sum().item(), 1, 0),
        (lambda x: x.tolist(), 1, 0),
        (lambda x: bool(x.any()), 1, 0),
        (lambda x: x.nonzero(), 1, 0),
        (lambda x: x[x > 0], 1, 0),
        (lambda x: x.masked_fill(x > 0, 0), 0, 0),
        (lambda x: torch.nonzero_static(x, size=2), 0, 0),
        (lambda x: x.cpu(), 1, 0),
        (lambda x: x.to("cpu"), 1, 0),
        (lambda x: torch.equal(x, x), 1, 0),
        (lambda x: torch.multinomial(x, 1), 1, 0),
        (lambda x: torch.zeros(3, device=x.device), 0, 0),
        (lambda x: torch.tensor([1, 2], device=x.device), 0, 1),
        (lambda x: torch.ones(2).to(x.device), 0, 1),
        (lambda x: x[:, [0, 1]], 0, 1),
    ],
)
def test_what_waits_and_what_copies(asks: Any, waits: int, copies: int) -> None:
    with PretendDevice() as device:
        there = device.place(torch.ones(2, 3))
        device.clear()
        asks(there)
    assert (device.total.waits, device.total.copies) == (waits, copies)
    lines = {line for line, kind in device.by_line if kind in ("waits", "copies")}
    assert all(line.startswith("test_pretend.py:") for line in lines), "the line that asked is named"
    assert len(device.table().splitlines()) == 2 + len(device.by_line.keys() & {(x, k) for x in lines for k in KINDS})


KINDS = ("waits", "copies")


def test_a_placed_model_is_a_copy_and_gradients_flow_on_it() -> None:
    model = tiny(Kind.CAUSAL)
    with PretendDevice() as device:
        placed = device.place(model)
        assert placed.device.type != "cpu"
        assert model.device.type == "cpu"
        ids = torch.tensor([[1, 2, 3]])
        placed.net(input_ids=ids.to(placed.device)).logits.sum().backward()
        theirs = placed.net.lm_head.weight.grad.cpu()
    model.net(input_ids=ids).logits.sum().backward()
    assert torch.equal(theirs, model.net.lm_head.weight.grad)
    model.net.zero_grad()


def test_both_rules_for_ties_take_the_same_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    score = torch.rand((6, 40), generator=torch.Generator().manual_seed(0))
    score[:, ::3] = -torch.inf
    count, among = torch.tensor([0, 1, 5, 5, 20, 26]), [slice(0, None)] * 6
    assert torch.equal(rules.as_topk(score, count, among), rules.leftmost(score, count))
    tied = torch.tensor([[0.5, 0.9, 0.5, 0.5]])
    assert rules.leftmost(tied, torch.tensor([2])).tolist() == [[True, True, False, False]]


# -- the engine on it ---------------------------------------------------------------------------------------

SEEDING = "seeding"
"""A model whose blocks a causal pass begins; the others are the tiny ones of their kind."""
RUNS: dict[str, tuple[Kind | str, Any]] = {
    "greedy": (Kind.CAUSAL, Autoregressive()),
    "sampled": (Kind.CAUSAL, Autoregressive(temperature=0.8, top_k=50, top_p=0.9)),
    "no cache": (Kind.CAUSAL, Autoregressive(cache=False)),
    "low-confidence": (Kind.MASKED, MaskedDiffusion(steps=5)),
    "blocks": (Kind.MASKED, MaskedDiffusion(steps=6, block_length=4)),
    "ar-order": (Kind.MASKED, autoregressive_order()),
    "mdlm": (Kind.MASKED, mdlm(steps=5)),
    "gumbel": (Kind.MASKED, MaskedDiffusion(steps=4, temperature=0.7)),
    "random": (Kind.MASKED, MaskedDiffusion(steps=4, remasking="random")),
    "threshold": (Kind.MASKED, MaskedDiffusion(steps=8, threshold=0.02)),
    "high threshold": (Kind.MASKED, MaskedDiffusion(steps=8, threshold=0.9)),
    "entropy bound": (Kind.MASKED, MaskedDiffusion(steps=8, remasking="entropy", entropy_bound=6.0)),
    "dream": (Kind.MASKED, dream(steps=5, temperature=0.5, top_p=0.9)),
    "dream's origin": (Kind.MASKED, dream("origin", steps=5, temperature=0.5)),
    "dream's alg_temp": (Kind.MASKED, dream(steps=5, alg_temp=0.5)),
    "revising": (Kind.MASKED, MaskedDiffusion(steps=6, revise=0.4)),
    "guided": (Kind.MASKED, MaskedDiffusion(steps=4, cfg_scale=1.0)),
    "diffuguard": (Kind.MASKED, DiffuGuard(limit=0.0)(MaskedDiffusion(steps=4, suppress=(258,)))),
    "sdar": (Kind.BLOCK, sdar(steps=3, temperature=0.7)),
    "sdar, sequential": (Kind.BLOCK, sdar(remasking="sequential")),
    "llada2": (Kind.BLOCK, llada2(steps=4, threshold=0.02)),
    "bd3lm": (Kind.BLOCK, bd3lm(steps=3, temperature=0.5)),
    "by entropy": (Kind.BLOCK, BlockDiffusion(remasking="entropy", entropy_bound=5.0)),
    "editing": (Kind.BLOCK, JointThreshold(threshold=0.1, edit_threshold=0.05)),
    "editing, cached": (Kind.BLOCK, JointThreshold(threshold=0.1, edit_threshold=0.05, at_least=2, cache=True)),
    "editing, drawn": (Kind.BLOCK, JointThreshold(threshold=0.1, edit_threshold=0.05, temperature=0.7, top_k=9)),
    "seeded": (SEEDING, SeededBlocks()),
    "seeded, no cache": (SEEDING, SeededBlocks(cache=False)),
    "seeded, drawn": (SEEDING, SeededBlocks(temperature=0.7)),
    "seeded, by threshold": (SEEDING, SeededBlocks(threshold=0.05)),
    "seeded model, edited": (SEEDING, JointThreshold(threshold=0.1, edit_threshold=0.05)),
}


def run_of(name: str) -> tuple[Any, Any]:
    """A model and a sampler."""
    kind, sampler = RUNS[name]
    return small.seeding(8) if kind == SEEDING else tiny(kind), sampler


@pytest.mark.parametrize("name", RUNS)
def test_on_a_device_a_batch_gives_the_bits_of_the_cpu(name: str) -> None:
    (model, sampler), prompts = run_of(name), prompts_of(3)
    expected = recorded(model, sampler, prompts, 8)
    with PretendDevice() as device:
        assert_same_bits(recorded(device.place(model), sampler, prompts, 8), expected)


DRAWN = {
    "editing, drawn", "seeded, drawn",
    "sampled", "gumbel", "random", "dream", "dream's origin", "dream's alg_temp", "sdar", "sdar, sequential", "bd3lm",
    "by entropy",
}  # fmt: skip
"""Numbers are drawn on the host for them, and copied."""
OTHERS = {"diffuguard", "threshold", "seeded, by threshold"}
"""A repair asks for more, once a row; a low threshold fills everything in two steps, each a block's first one."""
MOST = 90
"""Operations outside the network, a step."""


USUAL = (
    "greedy",
    "no cache",
    "sampled",
    "ar-order",
    "blocks",
    "sdar",
    "editing",
    "seeded",
)  # the others are slow tests


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in USUAL else [pytest.mark.slow]) for name in sorted(RUNS.keys() - OTHERS)],
)
def test_the_host_waits_once_a_step_whatever_the_batch(name: str) -> None:
    (model, sampler), seen = run_of(name), []
    for batch in (1, 5):
        with PretendDevice() as device:
            recorded(device.place(model), sampler, prompts_of(batch), 12, device, [("last", "generated")])
        outside, waits, copies = mean(device.each)
        assert waits <= 1, device.table()
        assert copies == 0 or name in DRAWN, device.table()
        seen.append(outside)
    if name not in DRAWN:
        assert abs(seen[1] - seen[0]) <= 4, "operations do not grow with the batch"
    assert max(seen) <= MOST or name in ("dream's alg_temp", "seeded, drawn"), "which draw a row, or twice, at a time"


@pytest.mark.parametrize("kind", ["ar", "diffusion", "blocks", "editing", "seeded"])
def test_a_guard_at_work_costs_one_wait_more(kind: str) -> None:
    guard = limited(tiny_guard(kind), np.inf)
    model, plain = subject(kind)
    sampler = Watch(guard)(plain)
    for batch in (1, 8):
        asked = ASKED[:batch]
        expected = recorded(model, sampler, asked, 8, None, KEYS, steps=8)
        with PretendDevice() as device:
            assert_same_bits(recorded(device.place(model), sampler, asked, 8, device, KEYS, steps=8), expected)
        outside, waits, copies = mean(device.each)
        assert waits <= 2, device.table()
        assert copies == 0, device.table()
        assert outside <= MOST


def test_experts_are_asked_once_a_layer_how_many_tokens_each_has() -> None:
    model, rows = families.model("llada2"), [[5, 6, 7, 8], [9, 10]]
    sampler = JointThreshold(threshold=0.1, edit_threshold=0.05)
    with PretendDevice() as device:
        placed = device.place(model).watching("last")
        for _ in device.steps(sampler(placed, placed.canvas_of(rows, 8), seeded(0, 2))):
            pass
    with_experts = families.LLADA2["num_hidden_layers"] - families.LLADA2["first_k_dense_replace"]
    assert max(step.waits for step in device.each[1:]) <= 1 + with_experts, device.table()


@pytest.mark.slow
def test_the_table_of_the_benchmark_names_every_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    importlib.import_module("waits").waits(True, None)
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    assert [line[1] for line in lines] == ["bare", "watched", "bare", "watched", "sdar", "joint-threshold", "nemotron"]
    assert all(float(line[4]) <= (2.1 if line[1] == "watched" else 1.1) for line in lines)


MANY = [demur.Prompt(f"q{i}", f"Prompt {i} about {i * i}") for i in range(7000, 7032)]
BATCHES = (1, 8, 32)
SLOW = [(name, False) for name in sorted(DETECTORS) if name != "last"]


def never(name: str, *, whole: bool = False) -> Guard:
    """A guard by a detector that looks at every step and never acts; at ``whole`` answers, also behind step T."""
    guard = limited(tiny_guard(detector=name), np.inf)
    return replace(guard, tail=Tail(24, replace(guard.threshold, value=np.inf))) if whole else guard


def assert_bounds(each: list[tuple[float, float, float]], most_waits: int = 2) -> None:
    """What a step with a guard may take, whatever the batch; rows that end take some more, once."""
    for outside, waits, copies in each:
        assert waits <= most_waits
        assert copies == 0
        assert outside <= MOST
    assert max(outside for outside, _, _ in each) - min(outside for outside, _, _ in each) <= 10


@pytest.mark.parametrize(
    ("name", "whole"),
    [("last", False), *(pytest.param(*case, marks=pytest.mark.slow) for case in [*SLOW, ("last", True)])],
)
def test_whichever_detector_looks_the_host_waits_twice_a_step(name: str, whole: bool) -> None:
    guard, (model, plain), each = never(name, whole=whole), subject("ar"), []
    for batch in BATCHES:
        with PretendDevice() as device:
            recorded(device.place(model), Watch(guard)(plain), MANY[:batch], 20 if whole else 8, device, KEYS, steps=8)
        each.append(mean(device.each))
    assert_bounds(each)


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_inside_generate_the_guard_waits_once_beside_transformers_own(whole: bool) -> None:
    """How often transformers waits by itself depends on its version."""
    guard, (model, _), tokens = never("last", whole=whole), subject("ar"), 20 if whole else 8

    def counted(batch: int, watched: bool) -> tuple[float, float, float]:
        with PretendDevice() as device:
            placed = device.place(model)
            canvas, totals = placed.canvas(MANY[:batch], 0), [device.total]

            def count(ids: Any, _: Any) -> Any:
                totals.append(device.total)
                return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

            with stopping_criteria(guard, placed) if watched else nullcontext() as criteria:
                placed.net.generate(
                    input_ids=canvas.ids, attention_mask=(~canvas.pad).long(), do_sample=False, max_new_tokens=tokens,
                    pad_token_id=placed.pad_id, eos_token_id=list(placed.stop_ids),
                    stopping_criteria=[criteria, count] if watched else [count],
                )  # fmt: skip
            assert not watched or len(criteria.verdicts) == batch
        return mean([after - before for before, after in itertools.pairwise(totals)])

    each = [(counted(batch, True), counted(batch, False)) for batch in BATCHES]
    assert_bounds([(outside, waits - own[1], copies) for (outside, waits, copies), own in each], most_waits=1)


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("kind", ["ar", "diffusion", "editing", "seeded"])
def test_what_a_guard_stops_on_a_device_is_what_it_stops_on_the_cpu(kind: str, online: bool) -> None:
    guard = limited(tiny_guard(kind), 0.0) if online else tiny_guard(kind)
    model, plain = subject(kind)
    sampler = Watch(guard, online=online)(plain)
    expected = recorded(model, sampler, ASKED[:5], 8, None, KEYS, steps=8)
    with PretendDevice() as device:
        found = recorded(device.place(model), sampler, ASKED[:5], 8, None, KEYS, steps=8)
    assert_same_bits(found, expected)
    assert [trace.stop for trace in found] == [trace.stop for trace in expected]


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_gives_the_bits_of_the_cpu(family: str) -> None:
    model = families.model(family)
    name = model.preferred or "ar"
    sampler = families.sampler(name, model.kind, 0.7)
    rows = [[5, 6, 7, 8], [9, 10]]
    expected = families.run(model, rows, sampler, [0, 1])
    with PretendDevice() as device:
        assert_same_bits(families.run(device.place(model), rows, sampler, [0, 1]), expected)


def test_replay_and_a_search_that_reads_logits_give_the_bits_of_the_cpu() -> None:
    model, prompts, answers = tiny(Kind.CAUSAL), list(PROMPTS), ["Sure, hello.", "No."]
    search = RandomSearch(model, tokens=4, iterations=3, batch=4)
    expected = teacher_forced(model, prompts, answers), search(prompts[0])
    with PretendDevice() as device:
        placed = device.place(model)
        assert_same_bits(teacher_forced(placed, prompts, answers), expected[0])
        assert replace(search, model=placed)(prompts[0]).text == expected[1].text
