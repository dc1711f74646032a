"""Text that leaves is never taken back: parts put together are the whole, for every family and sampler."""

from __future__ import annotations

import codecs
import time
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import small
import test_families
from hypothesis import given
from hypothesis import strategies as st

from demur.models.seeding import Seeding
from demur.samplers import (
    Autoregressive,
    BlockDiffusion,
    JointThreshold,
    MaskedDiffusion,
    Renoise,
    SeededBlocks,
    build,
    seeded,
)
from demur.samplers.build import fitting
from demur.serving.group import Group, Stage, Vocabulary
from demur.serving.order import Answer, Done, Failed, Order, Said, Ticket
from demur.serving.settled import Settled
from demur.serving.texts import Text
from demur.testing.tiny import tiny
from demur.traces import generate, text_of
from demur.types import Need, Prompt

BYTES = {i: bytes([i]) for i in range(256)}
END, SPECIAL = 256, 257
TOKENS = st.lists(
    st.one_of(st.sampled_from([*b"ab", *"é🙂".encode(), END, SPECIAL, -1]), st.integers(0, 255)), max_size=24
)


def told(tokens: list[int], cuts: list[int], stops: list[str], most: int | None = None) -> tuple[str, list[str], Text]:
    text = Text(BYTES, {END, SPECIAL}, {END}, stops, most)
    parts, begin = [], 0
    for cut in [*sorted(cuts), len(tokens)]:
        parts.append(text.feed(tokens[begin : max(cut, begin)]))
        begin = max(cut, begin)
    parts.append(text.close())
    return "".join(parts), parts, text


@given(TOKENS, st.lists(st.integers(0, 24), max_size=6))
def test_parts_put_together_are_the_text_that_a_trace_reads(tokens: list[int], cuts: list[int]) -> None:
    end = tokens.index(END) if END in tokens else len(tokens)
    whole = text_of(tokens[:end], BYTES, {END, SPECIAL})
    assert told(tokens, cuts, [])[0] == whole


@given(TOKENS, st.lists(st.integers(0, 24), max_size=6), st.lists(st.text("ab🙂", min_size=1, max_size=3), max_size=3))
def test_a_stop_string_never_leaves_and_where_the_parts_are_cut_changes_nothing(
    tokens: list[int], cuts: list[int], stops: list[str]
) -> None:
    whole, _, text = told(tokens, cuts, stops)
    one_by_one = told(tokens, [*range(len(tokens))], stops)
    assert (whole, text.finish, text.tokens) == (one_by_one[0], one_by_one[2].finish, one_by_one[2].tokens)
    assert not any(stop in whole for stop in stops)
    assert told(tokens, cuts, [])[0].startswith(whole)


@given(TOKENS, st.lists(st.integers(0, 24), max_size=4), st.integers(1, 9))
def test_an_answer_has_no_more_tokens_than_were_asked_for(tokens: list[int], cuts: list[int], most: int) -> None:
    whole, _, text = told(tokens, cuts, [], most)
    assert text.tokens <= most
    assert whole == told(tokens, [], [], most)[0]
    assert text.finish == ("stop" if END in [t for t in tokens if t >= 0][:most] else "length")


def test_a_character_leaves_when_it_is_whole() -> None:
    text = Text(BYTES, set(), set())
    assert [text.feed([byte]) for byte in "é🙂".encode()] == ["", "é", "", "", "", "🙂"]
    assert text.feed([0xF0]) == ""
    assert text.close() == "\ufffd", "what is never completed is told as the replacement character, as a trace tells it"


def test_what_may_be_the_beginning_of_a_stop_string_waits() -> None:
    text = Text(BYTES, set(), set(), ["STOP"])
    assert text.feed([*b"aST"]) == "a"
    assert text.feed([*b"A"]) == "STA"
    assert text.feed([*b"STO"]) == ""
    assert text.feed([*b"P and more"]) == ""
    assert (text.finish, text.so_far) == ("stop", "aSTA")


# -- samplers -------------------------------------------------------------------------------------------------------


def seeding() -> Seeding:
    """A model whose blocks begin with a token of its causal pass: any Llama will do."""
    named = vars(small.diffusion("llada")) | {"block_length": 4}
    return Seeding(**{name: value for name, value in named.items() if name in Seeding.__dataclass_fields__})


@cache
def subjects() -> dict[str, tuple[Any, Any]]:
    """Models and samplers of every kind, those among them that write a place again."""
    masked, block, gemma = tiny("masked"), tiny("block"), test_families.model("gemma-diffusion")
    made: dict[str, tuple[Any, Any]] = {"ar": (tiny("causal"), Autoregressive(temperature=1.0))}
    made |= {name: (masked, build(name, masked, steps=8)) for name in fitting(masked.offers)}
    made |= {f"block {name}": (block, build(name, block)) for name in fitting(block.offers) if name not in made}
    made["uncached"] = (block, BlockDiffusion(cache=False))
    made["editing"] = (
        small.block("start"),
        JointThreshold(threshold=0.0, edit_threshold=0.0, temperature=1.0, max_post_steps=3),
    )
    made["editing, kept"] = (
        small.block("start"),
        JointThreshold(threshold=0.2, edit_threshold=0.0, cache=True, max_post_steps=3),
    )
    made["revising more"] = (masked, MaskedDiffusion(steps=12, block_length=4, revise=0.5, temperature=1.0))
    made["seeded"] = (seeding(), SeededBlocks(temperature=0.7))
    made["renoising"] = (gemma, Renoise(steps=5, entropy_bound=1.0))
    made["hasty"] = (gemma, Renoise(steps=8, entropy_bound=1.0, stability=0, confidence=0.6))
    return made


QUICK = ["ar", "low-confidence", "revising more", "block sdar", "editing", "seeded", "renoising"]
SLOW = [
    "random", "ar-order", "margin", "entropy", "dream", "mdlm", "revising", "block bd3lm", "block llada2",
    "block joint-threshold", "uncached", "editing, kept", "hasty",
]  # fmt: skip
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
"""One of each way to settle is tried every time."""
ROWS = [[70, 71, 72, 73, 74, 75, 76, 77], [9, 8], [*range(100, 111)], [5, 6, 7]]
LENGTH = 16


def orders(sampler: Any, named: str = "it", **more: Any) -> list[Order]:
    return [
        Order(f"o{i}", True, "m", tuple(row), sampler, named, {}, 7 + i, LENGTH, LENGTH, unwatched="nobody", **more)
        for i, row in enumerate(ROWS)
    ]


def run(stage: Stage, several: list[Order]) -> list[tuple[list[str], Answer]]:
    """What is told of orders that are generated together: the parts of each text, and the answer."""
    events: list[list[Any]] = [[] for _ in several]
    now = time.monotonic()
    group = Group(stage, [Ticket(order, events[i].append, now, now + 60) for i, order in enumerate(several)])
    while group.advance():
        pass
    assert not group.waited_for
    made = []
    for told_of in events:
        assert not any(isinstance(event, Failed) for event in told_of)
        (done,) = [event for event in told_of if isinstance(event, Done)]
        made.append(([event.text for event in told_of if isinstance(event, Said)], done.answer))
    return made


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_to_be_final_is_never_written_again(name: str) -> None:
    model, sampler = subjects()[name]
    canvas = model.canvas_of(ROWS, LENGTH)
    settled, ever = Settled(sampler, len(ROWS), LENGTH), []
    for step in sampler(model, canvas, seeded(7, len(ROWS))):
        open_ = step.open[:, -LENGTH:].cpu().numpy()
        ever.append((settled(step, open_).copy(), step.ids[:, -LENGTH:].clone(), open_))
    last = ever[-1][1]
    for counts, ids, open_ in ever:
        for row, count in enumerate(counts):
            assert ids[row, :count].tolist() == last[row, :count].tolist()
            assert not open_[row, :count].any()
    if getattr(sampler, "commits_are_final", False) or Need.RENOISE in model.offers:
        assert any(0 < counts.max() < LENGTH for counts, _, _ in ever[:-1]) or name in ("random", "mdlm", "dream")


@pytest.mark.parametrize("name", NAMES)
def test_a_group_says_what_generate_says_and_each_row_what_it_says_alone(name: str) -> None:
    model, sampler = subjects()[name]
    stage = Stage(model, Vocabulary(model))
    together = run(stage, orders(sampler))
    for order, (parts, answer) in zip(orders(sampler), together, strict=True):
        assert "".join(parts) == answer.text
        ((alone_parts, alone),) = run(stage, [order])
        assert (answer.text, answer.finish, answer.tokens) == (alone.text, alone.finish, alone.tokens)
        assert "".join(alone_parts) == alone.text
    traced = small.record(model, model.canvas_of(ROWS, LENGTH), sampler, (("last", "generated"),), range(7, 11))
    assert [trace.text() for trace in traced] == [answer.text for _, answer in together]
    assert [trace.steps for trace in traced] == [answer.steps for _, answer in together]


def test_an_answer_is_that_of_generate() -> None:
    model = tiny("causal")
    sampler = Autoregressive(temperature=1.0)
    asked = Prompt("q", "How do I boil an egg?")
    (trace,) = generate(model, [asked], sampler, length=LENGTH, seed=5)
    row = tuple(model.canvas([asked], LENGTH).ids[0, :-LENGTH].tolist())
    order = replace(orders(sampler)[0], row=row, seed=5)
    ((_, answer),) = run(Stage(model, Vocabulary(model)), [order])
    assert answer.text == trace.text()


def test_parts_come_while_the_answer_is_written() -> None:
    model, sampler = subjects()["ar"]
    parts, _ = run(Stage(model, Vocabulary(model)), orders(sampler))[0]
    assert len(parts) > LENGTH // 3
    assert all(codecs.decode(part.encode(), "utf-8") == part for part in parts)
