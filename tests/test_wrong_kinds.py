"""Python given something of another kind: one line that says what came and what was expected, never a traceback from
inside, and never a result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import demur
from demur import attacks, guards, judges, prompts, samplers, traces
from demur.organism.attacks import attack
from demur.organism.world import prompts as world
from demur.types import DemurError, Prompt

PROMPT = Prompt("q1", "How do I open the gate?")


@pytest.fixture(scope="module")
def model() -> Any:
    return demur.load("organism/ar")


@pytest.fixture(scope="module")
def trace(model: Any) -> Any:
    return demur.generate(model, world("test", forbidden=False, n=1), length=4, steps=4)[0]


NOTHING = [
    None,
    3,
    2.5,
    True,
    b"x",
    object(),
    {},
    {"a": 1},
    np.zeros(3),
    np.array(3),
    torch.zeros(2),
    Path("x"),
    lambda x: x,
]
NO_PROMPT = [*NOTHING, "text", [], [PROMPT], (PROMPT,), Prompt]
NO_TEXT = [one for one in NOTHING if one is not None] + [None, PROMPT, ["text"]]
NO_SHARE = [None, "0.1", True, 0, 1, -1, 3, 2.5, float("nan"), float("inf"), [], [0.1], {}, object()]

Call = Callable[[Any], object]
TEXT_ATTACKS = ["plain", "suppression", "prefix", "role", "delay", "flip", "encoded", "many-shot", "prefill"]


def pair() -> Any:
    return attacks.Pair(lambda _: "{}", lambda _: "no", lambda *_: 1, rounds=1, streams=1)


OF_A_PROMPT: dict[str, Call] = {
    **{name: attacks.make(name) for name in TEXT_ATTACKS},
    "infill": attacks.make("infill", mask="<m>"),
    "parallel": attacks.make("parallel", mask="<m>"),
    "pair": lambda it: pair()(it),
    "pair, search": lambda it: pair().search(it),
    "translated": lambda it: attacks.Translated(lambda _: "{}").search(it),
    "attacked": lambda it: attacks.attacked(it, "mine"),
    "organism": lambda it: attack("page", it),
    "reading": lambda it: judges.RefusalReading()(it, "no"),
    "judge_all": lambda it: judges.judge_all(judges.Dictionary(), [(it, "no")]),
    "distinct": lambda it: prompts.distinct([it]),
    "dealt": lambda it: prompts.dealt([it]),
    "digest": lambda it: prompts.digest([it]),
}
OF_A_TEXT: dict[str, Call] = {
    "task_of": attacks.task_of,
    "opening_of": attacks.opening_of,
    "encoded": lambda it: attacks.encoded(it, "rot13"),
    "encoded, code": lambda it: attacks.encoded("abc", it),
    "flipped": attacks.flipped,
    "flipped, mode": lambda it: attacks.flipped("abc", it),
    "attacked, name": lambda it: attacks.attacked(PROMPT, it),
    "organism, name": lambda it: attack(it, PROMPT),
    "dictionary": lambda it: judges.Dictionary()(PROMPT, it),
    "reading, text": lambda it: judges.judge_all(judges.RefusalReading(), [(PROMPT, it)]),
    "split": lambda it: world(it, forbidden=True, n=1),
    "starter": prompts.starter,
    "packaged": prompts.packaged,
}
OF_A_SHARE: dict[str, Call] = {
    "conformal": lambda it: guards.conformal_threshold([0.1] * 40, it),
    "quantile": lambda it: guards.quantile_threshold([0.1] * 40, it),
    "spread": lambda it: guards.spread(40, it),
    "spread, level": lambda it: guards.spread(40, 0.1, it),
}


def calls(those: dict[str, Call], wrong: list[Any]) -> Iterator[Any]:
    yield from (pytest.param(call, wrong, id=name) for name, call in those.items())


@pytest.mark.parametrize(
    ("call", "wrong"),
    [*calls(OF_A_PROMPT, NO_PROMPT), *calls(OF_A_TEXT, NO_TEXT), *calls(OF_A_SHARE, NO_SHARE)],
)
def test_what_is_of_another_kind_is_said_in_one_line(call: Call, wrong: list[Any]) -> None:
    for value in wrong:
        with pytest.raises(DemurError) as error:
            call(value)
        said = str(error.value)
        assert "\n" not in said
        assert "; expected " in said, said


@pytest.mark.parametrize(
    "name", ["generate", "watching", "spec_of", "build", "canvas_for", "chat_by", "steps_of", "scripted_refusals"]
)
def test_what_is_no_model_is_said_in_one_line(name: str, model: Any) -> None:
    sampler = demur.Autoregressive()
    of_model: dict[str, Call] = {
        "generate": lambda it: demur.generate(it, [PROMPT]),
        "watching": lambda it: traces.watching(it, [("last", "generated")]),
        "spec_of": lambda it: traces.spec_of(it, sampler, 4),
        "build": lambda it: samplers.build("ar", it),
        "canvas_for": lambda it: attacks.canvas_for(it, [PROMPT], 4),
        "chat_by": attacks.chat_by,
        "steps_of": lambda it: samplers.steps_of(sampler, it, model.canvas([PROMPT], 4), samplers.seeded(0, 1)),
        "scripted_refusals": lambda it: demur.scripted_refusals(it, [PROMPT]),
    }
    for value in [*NOTHING, "organism/ar", PROMPT, model.net, type(model), [model]]:
        with pytest.raises(DemurError, match="expected"):
            of_model[name](value)


def test_what_is_no_trace_no_guard_and_no_judge_is_said_in_one_line(model: Any, trace: Any) -> None:
    for value in [*NOTHING, "text", [trace], PROMPT]:
        for call in (guards.acted, lambda it: guards.spared(it, 1), lambda it: guards.stopping_criteria(it, model.net)):
            with pytest.raises(DemurError, match="in the place of"):
                call(value)
        if not callable(value):
            with pytest.raises(DemurError, match="in the place of a judge"):
                judges.judge_all(value, [(PROMPT, "no")])
    for value in (None, "1", 1.5, True, [1]):
        with pytest.raises(DemurError, match="expected"):
            guards.spared(trace, value)
    for value in (None, 3, PROMPT, "text", [PROMPT], ["ab"], [(PROMPT,)], {"a": "b"}):
        with pytest.raises(DemurError, match="in the place of"):
            judges.judge_all(judges.Dictionary(), value)


def test_numbers_of_another_kind_are_said_in_one_line(model: Any, trace: Any) -> None:
    for value in (None, "3", 2.5, True, [], -1):
        for call in (
            lambda it: samplers.seeded(0, it),
            lambda it: world("test", forbidden=True, n=it),
            lambda it: guards.spread(it, 0.1),
            lambda it: model.canvas([PROMPT], it),
            lambda it: trace.aligned("last", "generated", it if it is not None else "all"),
        ):
            with pytest.raises(DemurError, match="expected"):
                call(value)
    for value in (None, 0, 1, "no", [], {}):
        with pytest.raises(DemurError, match="true or false"):
            world("test", forbidden=value, n=1)
        with pytest.raises(DemurError, match="true or false"):
            prompts.packaged("harmful", value)
    for value in ("text", PROMPT, None, {"a": 1}, ["text"], [None], 3, np.array(3)):
        for call in (prompts.distinct, prompts.dealt, prompts.digest, lambda it: model.canvas(it, 4)):
            with pytest.raises(DemurError, match="in the place of"):
                call(value)


def test_an_unknown_split_is_named_with_those_that_there_are() -> None:
    with pytest.raises(DemurError, match=r"'nosuch'.*train or anchors or guard"):
        world("nosuch", forbidden=True, n=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("ends", [".json", ".CSV", ".pt", ".npz", ".pkl", ".txt", ".yaml", ".parquet", ".gguf"])
def test_what_is_saved_takes_no_name_of_another_kind_of_file(trace: Any, tmp_path: Path, ends: str) -> None:
    path = tmp_path / f"kept{ends}"
    path.write_text("what somebody else has written")
    with pytest.raises(DemurError, match=r"for a demur trace file.*\.safetensors"):
        trace.save(path)
    assert path.read_text() == "what somebody else has written"


@pytest.mark.parametrize("name", ["kept", "kept.safetensors", "kept.v2", "kept.trace"])
def test_what_is_saved_takes_any_other_name(trace: Any, tmp_path: Path, name: str) -> None:
    again = demur.Trace.load(trace.save(tmp_path / name))
    assert (again.prompt, again.commits.tolist()) == (trace.prompt, trace.commits.tolist())


def test_prompts_and_pairs_may_come_in_anything_that_has_an_order(model: Any) -> None:
    """Also in what can be read once."""
    asked = world("test", forbidden=False, n=3)
    whole, digest = model.canvas(asked, 4).ids.tolist(), prompts.digest(asked)
    ways: list[Callable[[list[Any]], Any]] = [tuple, iter, lambda it: (x for x in it), deque, pd.Series]
    for way in [*ways, lambda it: np.array(it, dtype=object), lambda it: dict(enumerate(it)).values()]:
        assert model.canvas(way(asked), 4).ids.tolist() == whole
        assert len(model.chat.encode(way(asked), length=4, context=None)) == 3
        assert prompts.digest(way(asked)) == digest
        assert prompts.distinct(way(asked)) == asked
        assert prompts.dealt(way(asked)) == prompts.dealt(asked)
        pairs = [(one, "I cannot help with that.") for one in asked]
        for written in (way(pairs), way([list(pair) for pair in pairs])):
            assert [verdict.flagged for verdict in judges.judge_all(judges.Dictionary(), written)] == [False] * 3
    assert prompts.dealt({*asked}) == prompts.dealt(asked), "their order hangs on nothing but their words"


def test_what_can_not_be_asked_is_no_attacker_no_target_no_judge_and_no_translator() -> None:
    """Said when the attack is made, not when somebody waits for what it finds."""
    for value in [one for one in [*NOTHING, "gpt", PROMPT] if not callable(one)]:
        for make in (
            attacks.Translated,
            lambda it: attacks.Pair(it, str, lambda *_: 1),
            lambda it: attacks.Pair(str, it, lambda *_: 1),
            lambda it: attacks.Pair(str, str, it),
            lambda it: attacks.Crescendo(it, lambda *_: 1),
            lambda it: attacks.Crescendo(str, it),
        ):
            with pytest.raises(DemurError, match="; expected a function; "):
                make(value)
