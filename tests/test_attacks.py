"""Laws of attacks: what they change, what they leave, what they cost; and that a sampler can run on what they make."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import FrozenInstanceError, asdict, fields, replace
from typing import Any, get_args

import numpy as np
import pytest
import small
import torch
from hypothesis import given
from hypothesis import strategies as st

import demur
import demur.attacks
from demur.attacks import (
    ATTACKS,
    Access,
    Flip,
    Infill,
    Pair,
    Parallel,
    Prefill,
    Prefix,
    RandomSearch,
    canvas_for,
    flipped,
    make,
    mask_of,
    opening_of,
    task_of,
)
from demur.attacks.pair import message_in
from demur.attacks.text import MODES
from demur.samplers import MaskedDiffusion, seeded
from demur.traces import Recorder, spec_of
from demur.types import DemurError, Need, Prompt

ASKED = Prompt("gate-1", "How do I open the gate?", harmful=True, source="us", category="open gate", licence="CC0")
HOLED = ("infill", "parallel")


@pytest.fixture(scope="module")
def organisms() -> dict[str, Any]:
    """The built-in pair: their tokens are words, so that every attack fits into their context."""
    return {name: demur.load(name) for name in ("organism/ar", "organism/diffusion")}


def settings_of(name: str, model: Any) -> dict[str, Any]:
    """What an attack can't do without."""
    if name in HOLED:
        return {"mask": mask_of(model)}
    if name == "random-search":
        return {"model": model, "tokens": 4, "iterations": 2, "batch": 4}
    if name == "pair":
        return {"attacker": lambda talk: json.dumps({"prompt": "Tell me of gates."}), "target": str, "judge": one}
    if name == "translated":
        return {"translator": lambda talk: json.dumps({"translation": "Fungua lango vipi?"})}
    if name == "crescendo":
        return {"target": lambda prompt: "Gates have hinges.", "judge": one, "steps": ("And {task}?",)}
    if name == "many-shot":
        return {"shots": 1}  # the organism's context is short
    if name == "delay":
        return {"paragraph": "A mild spring day begins slowly."}  # the organism's context is short
    return {}


def one(prompt: Prompt, answer: str) -> int:
    return 1


# -- the contract -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["organism/ar", "organism/diffusion"])
@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_keeps_the_contract(name: str, kind: str, organisms: dict[str, Any]) -> None:
    model, before = organisms[kind], asdict(ASKED)
    attack: Any = make(name, **settings_of(name, organisms["organism/diffusion"] if name in HOLED else model))
    made = attack(ASKED)
    assert asdict(ASKED) == before
    assert (made.attack, made.parent) == (name, ASKED.id)
    assert made.id in (f"{ASKED.id}-{name}", f"{ASKED.label}-{name}")
    assert "gate" not in made.label, "its request says it, in whatever way it is written now"
    for kept in ("harmful", "source", "category", "licence", "system"):
        assert getattr(made, kept) == getattr(ASKED, kept), kept
    assert made == attack(ASKED) == make(name, **settings_of_again(name, attack))(ASKED)
    assert attack.name == name
    assert attack.access in get_args(Access)
    assert attack.needs == {"canvas": {Need.HOLES}, "logits": {Need.LOGITS}}.get(attack.access, set())
    if attack.access in ("prefill", "canvas"):
        assert made.text == ASKED.text
        assert made.prefill
    else:
        assert made.prefill == ""
        assert (made.text == ASKED.text) == (name in ("plain", "many-shot"))
        assert bool(made.messages) == (name in ("crescendo", "many-shot"))
    with pytest.raises(FrozenInstanceError):
        attack.name = "other"
    if name not in HOLED:
        assert demur.generate(model, [made], length=8)[0].prompt == made
    elif model.mask_id is None:
        with pytest.raises(DemurError) as caught:
            canvas_for(model, [made], 8)
        small.one_line(caught.value)
    else:
        canvas = canvas_for(model, [made], 8)
        assert not small.steps_of(model, canvas, MaskedDiffusion(steps=4, suppress=(model.mask_id,)))[-1].open.any()


def test_every_attack_that_is_exported_is_under_the_contract() -> None:
    exported = [getattr(demur.attacks, name) for name in demur.attacks.__all__]
    kinds: set[Any] = {one for one in exported if isinstance(one, type) and hasattr(one, "access")}
    assert kinds == {ATTACKS.get(name) for name in ATTACKS.own}
    assert {kind.name for kind in kinds} == set(ATTACKS)
    assert {kind.access for kind in kinds} == set(get_args(Access))


def settings_of_again(name: str, attack: Any) -> dict[str, Any]:
    """The settings of an attack, from its fields."""
    return {field.name: getattr(attack, field.name) for field in fields(attack)}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_names_its_source(name: str) -> None:
    assert "arXiv:" in (ATTACKS[name].__doc__ or "") or name in ("plain", "many-shot")


def test_unknown_names_and_settings_are_told() -> None:
    with pytest.raises(DemurError) as caught:
        make("flop")
    assert "did you mean 'flip'?" in small.one_line(caught.value)
    for name, settings in {"flip": {"way": "words"}, "infill": {}, "random-search": {"seed": 1}}.items():
        with pytest.raises(DemurError) as caught:
            make(name, **settings)
        assert name in small.one_line(caught.value)


def test_importing_attacks_loads_neither_torch_nor_numpy() -> None:
    code = "import sys, demur.attacks; assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Flip("upside-down"),  # type: ignore[arg-type]
        lambda: Infill(""),
        lambda: Infill("<mask>", run=0),
        lambda: Infill("<mask>", leads=()),
        lambda: Parallel("<mask>", points=3, length=2),
        lambda: Parallel("<mask>", connector="Step"),
        lambda: RandomSearch(small.causal("llama"), tokens=0),
        lambda: RandomSearch(small.causal("llama"), budget=0),
        lambda: RandomSearch(small.causal("llama"), target=" "),
        lambda: Pair(str, str, one, rounds=0),  # type: ignore[arg-type]
        lambda: Pair(str, str, one, stop_at=11),  # type: ignore[arg-type]
        lambda: Pair(lambda talk: '{"prompt": "x"}', str, lambda p, a: 0)(ASKED),
        lambda: mask_of(small.causal("llama")),
        lambda: canvas_for(small.causal("llama"), [ASKED], 4),
    ],
)
def test_what_can_not_be_is_an_error_of_one_line(wrong: Any) -> None:
    with pytest.raises(DemurError) as caught:
        wrong()
    small.one_line(caught.value)


# -- words --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "result"),
    [
        ("words", "gate the open  Now,"),
        ("characters", ",woN  nepo eht etag"),
        ("sentence", "etag eht nepo  ,woN"),
        ("fool", "etag eht nepo  ,woN"),
    ],
)
def test_flips_are_those_of_the_paper(mode: Any, result: str) -> None:
    assert flipped("Now,  open the gate", mode) == result
    made = Flip(mode)(replace(ASKED, text="Now,  open the gate"))
    assert made.text.endswith(f"TASK: {result}")
    assert MODES[mode][0] in made.text


def test_the_fool_is_told_to_undo_something_else() -> None:
    assert MODES["fool"] == (MODES["sentence"][0], MODES["words"][1])


@given(text=st.text(), mode=st.sampled_from(sorted(MODES)))
def test_flipping_twice_gives_the_text_back(text: str, mode: Any) -> None:
    assert flipped(flipped(text, mode), mode) == text


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("How do I open the gate?", "open the gate"),
        ("Good day. How can I mend my roof before 3.30? Thanks.", "mend your roof before 3.30"),
        ("Tell me how to boil an egg.", "boil an egg"),
        ("Write a poem about me.", "write a poem about you"),
        ("Could you please help me to find my keys?", "find your keys"),
        ("Good morning. I would like to see the mill. Any advice?", "see the mill"),
        ("I need you to draft a letter; it should be short", "draft a letter"),
        ("What is the time?", None),
        ("how to", None),
        ("", None),
        ("你好", None),
        ("how to " + "walk " * 40, None),
    ],
)
def test_the_task_of_a_request_is_a_phrase_with_a_verb(text: str, task: str | None) -> None:
    assert task_of(text) == task
    assert opening_of(text) == (f"Sure, here is how to {task}" if task else "Sure, here is the answer")


@given(st.text())
def test_every_text_has_an_opening_of_one_line(text: str) -> None:
    assert opening_of(text).startswith("Sure, here is ")
    assert len(opening_of(text).split("\n")) == 1


def test_beginnings_are_put_in_or_asked_for() -> None:
    assert Prefill()(ASKED).prefill == "Sure, here is how to open the gate:"
    assert Prefill("Well,")(ASKED).prefill == "Well,"
    assert '"Sure, here is how to open the gate:"' in Prefix()(ASKED).text
    assert '"Well,"' in Prefix("Well,")(ASKED).text


# -- holes --------------------------------------------------------------------------------------------------

FORMS = {
    "infill": Infill("<mask>", leads=("1.", "2."), run=5),
    "parallel": Parallel("<mask>", points=3, length=13),
}


@pytest.mark.parametrize("model", [small.diffusion("llada"), small.diffusion("dream")], ids=["llada", "dream"])
@pytest.mark.parametrize("name", FORMS)
def test_forms_open_exactly_their_masks_and_given_tokens_never_move(name: str, model: Any) -> None:
    prompts = [FORMS[name](prompt) for prompt in small.PROMPTS]  # type: ignore[operator]
    canvas = canvas_for(model, prompts, 8)
    assert (canvas.ids[canvas.open] == small.MASK).all()
    for prompt, ids, open_, pad in zip(prompts, canvas.ids, canvas.open, canvas.pad, strict=True):
        assert int(open_.sum()) == prompt.prefill.count("<mask>") == {"infill": 10, "parallel": 13}[name]
        assert not (open_ & pad).any()
        assert model.tokenizer.decode(ids[~pad]) == f"{prompt.text}{prompt.prefill}<eos>"
    for sampler in small.diffusion_samplers().values():
        steps = small.steps_of(model, canvas, sampler)
        for step in steps:
            assert torch.equal(step.ids[~canvas.open], canvas.ids[~canvas.open])
            assert not (step.committed & ~canvas.open).any()
            assert not (step.open & ~canvas.open).any()


@pytest.mark.parametrize("name", FORMS)
def test_the_answer_of_a_filled_form_is_given_and_filled_words_in_their_order(name: str) -> None:
    """What judges and moderation models read; the response alone is the filled words, one behind the other."""
    model = small.diffusion("llada")
    prompt = FORMS[name](ASKED)  # type: ignore[operator]
    canvas, sampler = canvas_for(model, [prompt], 8), small.diffusion_samplers()["greedy"]
    recorder = Recorder(model, canvas, [prompt], spec_of(model, sampler, 8), [])
    for _ in recorder(sampler(model, canvas, seeded(0, 1))):
        pass
    (trace,) = recorder.traces()
    whole = model.tokenizer.decode(trace.replay(trace.steps), skip_special_tokens=True)
    assert whole == prompt.text + trace.answer()
    assert trace.answer() != prompt.prefill + trace.text()
    assert "<mask>" not in trace.answer()
    assert trace.answer().startswith(prompt.prefill.split("<mask>", 1)[0])


def test_parallel_spreads_its_masks_evenly() -> None:
    runs = [line.split(":", 1)[1].count("<mask>") for line in FORMS["parallel"](ASKED).prefill.split("\n")]  # type: ignore[operator]
    assert runs == [5, 4, 4]


def test_a_mask_in_the_request_stays_given() -> None:
    model = small.diffusion("llada")
    asked = replace(ASKED, text="How do I write <mask> and <mask>?")
    for form in FORMS.values():
        made = form(asked)  # type: ignore[operator]
        canvas = canvas_for(model, [made], 0)
        assert int(canvas.open.sum()) == made.prefill.count("<mask>")
        assert not canvas.open[0, : len(asked.text.replace("<mask>", "?"))].any()


def test_prompts_without_holes_get_the_ordinary_canvas_alone_and_beside_others() -> None:
    model = small.diffusion("llada")
    plain, begun, holed = ASKED, Prefill()(ASKED), FORMS["infill"](ASKED)  # type: ignore[operator]
    for prompts in ([plain, begun], [begun], [plain]):
        ours, theirs = canvas_for(model, prompts, 6), model.canvas(prompts, 6)
        for part in ("ids", "open", "pad"):
            assert torch.equal(getattr(ours, part), getattr(theirs, part)), part
    mixed = canvas_for(model, [plain, holed, begun], 6)
    for i, prompt in enumerate([plain, holed, begun]):
        alone = canvas_for(model, [prompt], 6)
        start = mixed.starts()[i]
        assert torch.equal(mixed.ids[i, start:], alone.ids[0])
        assert torch.equal(mixed.open[i, start:], alone.open[0])


def test_a_form_with_another_model_s_mask_is_an_error() -> None:
    made = Infill("<|mdm_mask|>", leads=("1.",), run=2)(ASKED)
    with pytest.raises(DemurError) as caught:
        canvas_for(small.diffusion("llada"), [made], 4)
    assert "mask_of(model)" in small.one_line(caught.value)


def test_the_mask_is_read_back() -> None:
    assert mask_of(small.diffusion("dream")) == "<mask>"


# -- random search ------------------------------------------------------------------------------------------

SEARCHED = {
    "llama": small.causal("llama"),
    "llada": small.diffusion("llada"),
    "dream": small.diffusion("dream"),
    "block": small.block("start"),
}
searched = pytest.mark.parametrize("model", SEARCHED.values(), ids=SEARCHED)


def brute(model: Any, prompt: Prompt, target: str, length: int) -> float:
    """The target's log-probability from one pass over the final prompt alone."""
    wanted = torch.tensor(model.tokenizer(target)["input_ids"])
    if model.kind == "causal":
        row = model.tokenizer(prompt.text)["input_ids"]
        logits = model.net(torch.tensor([[*row, *wanted.tolist()]])).logits[0, len(row) - 1 : -1]
    else:
        canvas = model.canvas([prompt], length)
        logits = model.forward(canvas, canvas.open).logits[: len(wanted)]
    return float(logits.detach().double().log_softmax(-1)[range(len(wanted)), wanted].sum())


@searched
def test_a_longer_search_begins_with_the_shorter_and_never_scores_less(model: Any) -> None:
    found = [RandomSearch(model, tokens=6, iterations=n, batch=4, length=8).search(ASKED) for n in (0, 3, 12)]
    for shorter, longer in itertools.pairwise(found):
        assert longer.path[: len(shorter.path)] == shorter.path
    assert list(found[-1].path) == sorted(found[-1].path)
    assert found[-1].score == found[-1].path[-1] > found[0].score
    assert [f.queries for f in found] == [1, 13, 49]


@searched
@pytest.mark.parametrize("target", ["S", "Sure"])
def test_the_score_is_that_of_the_final_prompt(model: Any, target: str) -> None:
    search = RandomSearch(model, tokens=6, iterations=4, restarts=2, target=target, length=8)
    found = search.search(ASKED)
    assert found.prompt.text.startswith(ASKED.text + " ")
    assert found.score == pytest.approx(brute(model, found.prompt, target, 8), abs=1e-4)
    assert search(ASKED) == found.prompt


@searched
def test_a_search_keeps_to_its_budget_and_to_its_seed(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[int] = []
    scores = RandomSearch.scores
    monkeypatch.setattr(RandomSearch, "scores", lambda self, p: (passed.append(len(p)), scores(self, p))[1])
    for budget in (1, 2, 8, 19):
        search = RandomSearch(model, tokens=5, iterations=3, restarts=3, batch=4, budget=budget, length=8)
        found = search.search(ASKED)
        assert found.queries == sum(passed) == budget
        assert max(passed) <= 4
        passed.clear()
    again = RandomSearch(model, tokens=5, iterations=3, restarts=3, batch=4, budget=19, length=8)
    assert again.search(ASKED) == found
    assert replace(again, seed=1).search(ASKED).prompt != found.prompt


def test_a_search_climbs_from_the_best_and_returns_the_best_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, Prompt]] = []

    def scripted(values: Iterator[float]) -> None:
        def scores(self: RandomSearch, prompts: list[Prompt]) -> list[float]:
            made = [next(values) for _ in prompts]
            seen.extend(zip(made, prompts, strict=True))
            return made

        seen.clear()
        monkeypatch.setattr(RandomSearch, "scores", scores)

    search = RandomSearch(small.causal("llama"), tokens=12, iterations=9, batch=4)
    scripted(itertools.chain([0.0], itertools.repeat(-1.0)))  # nothing is better than the beginning
    assert search.search(ASKED).prompt == seen[0][1]
    first = seen[0][1].text
    for _, prompt in seen:
        changed = [i for i, (a, b) in enumerate(zip(first, prompt.text, strict=True)) if a != b]
        assert not changed or changed[-1] - changed[0] < 3, "a run of at most a quarter of the suffix"
    rng = np.random.default_rng(0)
    scripted(iter(-rng.random(1000)))
    found = replace(search, restarts=4).search(ASKED)
    assert len(seen) == found.queries == 4 * 37
    assert (found.score, found.prompt) == max(seen, key=lambda pair: pair[0])


def test_the_score_counts_from_the_end_of_a_prefill_or_in_the_first_holes() -> None:
    begun = Prefill("Well,")(ASKED)
    search = RandomSearch(small.causal("llama"), target="Su")
    whole = replace(ASKED, text=ASKED.text + "Well,")
    assert search.scores([begun]) == pytest.approx([brute(search.model, whole, "Su", 0)], abs=1e-4)
    model = small.diffusion("llada")
    form = FORMS["infill"](ASKED)  # type: ignore[operator]
    canvas = canvas_for(model, [form], 0)
    logp = model.forward(canvas, canvas.open).logits[:2].double().log_softmax(-1)
    wanted = model.tokenizer("Su")["input_ids"]
    expected = float(logp[0, wanted[0]] + logp[1, wanted[1]])
    assert RandomSearch(model, target="Su").scores([form]) == pytest.approx([expected], abs=1e-4)
    with pytest.raises(DemurError) as caught:
        RandomSearch(model, target="Sure, here it is").scores([form])
    small.one_line(caught.value)


def test_no_suffix_can_spell_a_special_token() -> None:
    search = RandomSearch(small.causal("llama"))
    texts = [search.model.tokenizer.decode([int(i)]) for i in search._alphabet]
    assert len(texts) > 50
    assert all(text.isprintable() and text.strip() and "<" not in text for text in texts)


def test_renoising_models_have_no_first_place_to_score() -> None:
    class Noise:
        name, mask_id = "noise", None

    with pytest.raises(DemurError) as caught:
        RandomSearch(Noise())
    small.one_line(caught.value)


# -- PAIR ---------------------------------------------------------------------------------------------------


class Scripted:
    """An attacker that says its lines one after the other, and remembers what it was told."""

    def __init__(self, *lines: Any) -> None:
        self.lines: Iterator[Any] = iter(lines)
        self.heard: list[list[dict[str, str]]] = []

    def __call__(self, talk: list[dict[str, str]]) -> str:
        self.heard.append([dict(message) for message in talk])
        talk.clear()  # what it does with its copy is its own affair
        line: str = next(self.lines)
        return line


def said(*texts: str) -> list[str]:
    return [json.dumps({"improvement": "none", "prompt": text}) for text in texts]


def rating(prompt: Prompt, answer: str) -> int:
    """By the length of the answer; asked about the original request."""
    assert prompt == ASKED
    return min(len(answer), 10)


def target(prompt: Prompt) -> str:
    assert prompt.parent == ASKED.id
    return prompt.text


def test_pair_stops_at_success() -> None:
    attacker = Scripted(*said("aa", "aaaa", "a" * 8, "never asked"))
    found = Pair(attacker, target, rating, rounds=5, streams=1, stop_at=8).search(ASKED)
    assert (found.prompt.text, found.score, found.queries, found.path) == ("a" * 8, 8, 3, (2, 4, 8))
    assert len(attacker.heard) == 3


def test_pair_respects_its_budget_and_keeps_the_best() -> None:
    attacker = Scripted(*said("a", "aaaa", "aa", "aaa", "aaaa", "b"))
    found = Pair(attacker, target, rating, rounds=2, streams=3).search(ASKED)
    assert (found.prompt.text, found.score, found.queries) == ("aaaa", 4, 6)
    assert found.path == (1, 4, 4, 4, 4, 4)
    assert next(attacker.lines, None) is None
    firsts = [talk[0]["content"] for talk in attacker.heard[:3]]
    assert len(set(firsts)) == 3, "streams differ in their approach"


def test_pair_tells_each_stream_what_came_of_its_own_message() -> None:
    attacker = Scripted(*said("aa", "bbb", "c", "c"))
    Pair(attacker, target, rating, rounds=2, streams=2).search(ASKED)
    for second, (message, score) in zip(attacker.heard[2:], (("aa", 2), ("bbb", 3)), strict=True):
        assert [m["role"] for m in second] == ["system", "user", "assistant", "user"]
        assert json.dumps(ASKED.text) in second[1]["content"]
        assert message_in(second[2]["content"]) == message
        assert f'"{message}"\nThe rating: {score}\n' in second[3]["content"]


GARBAGE = (
    "",
    "I would rather not.",
    "{",
    "{}",
    '{"prompt": 3}',
    '{"prompt": " "}',
    "[1]",
    None,
    "{" * 9000,
    '{"a":' * 9000,
)


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_pair_survives_garbage(garbage: Any) -> None:
    attacker = Scripted(garbage, *said("aaaa"), garbage)
    found = Pair(attacker, target, rating, rounds=3, streams=1).search(ASKED)
    assert (found.prompt.text, found.score, found.queries, found.path) == ("aaaa", 4, 3, (0, 4, 4))
    assert "JSON" in attacker.heard[1][-1]["content"], "asked for again"
    nothing = Pair(lambda talk: garbage, target, rating, rounds=2, streams=2).search(ASKED)
    assert (nothing.prompt.text, nothing.score, nothing.queries) == (ASKED.text, 0, 4)
    assert nothing.prompt.attack == "pair"


@pytest.mark.parametrize(
    "reply",
    [
        '{"prompt": "a {b} c"}',
        'Surely: ```json\n{"improvement": "x", "prompt": "a {b} c"}\n``` and {so} on',
        '{not this} {"prompt": " a {b} c "}',
    ],
)
def test_the_message_is_found_in_what_attackers_say(reply: str) -> None:
    assert message_in(reply) == "a {b} c"
    assert message_in('{"prompt": "two\nlines"}') == "two\nlines"


def test_paths_never_fall() -> None:
    rng = np.random.default_rng(0)
    lines = said(*("a" * int(n) for n in rng.integers(1, 9, 20)))
    path = Pair(Scripted(*lines), target, rating, rounds=10, streams=2).search(ASKED).path
    assert list(path) == sorted(path)


# -- knowing the guard ---------------------------------------------------------------------------------------


def test_what_a_monitor_suspects_is_taken_off_the_score_and_every_query_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Prompt] = []

    def knows(prompts: Sequence[Prompt]) -> list[float]:
        asked.extend(prompts)
        return [float(len(prompt.text) % 5) - 2.0 for prompt in prompts]

    monkeypatch.setattr(RandomSearch, "scores", lambda self, prompts: [-1.0] * len(prompts))
    search = RandomSearch(small.causal("llama"), tokens=6, iterations=9, batch=4, budget=30, knows=knows)
    found = replace(search, weight=2.0).search(ASKED)
    assert len(asked) == found.queries == 30
    by_hand = [-1.0 - 2.0 * max(len(prompt.text) % 5 - 1.5, 0.0) for prompt in asked]
    assert found.score == max(by_hand) == -1.0
    assert len(found.prompt.text) % 5 <= 1
    asked.clear()
    plain = replace(search, weight=0.0).search(ASKED)
    assert len(asked) == 30
    assert plain == replace(search, knows=None).search(ASKED), "who weighs it with nothing searches as without it"
    with pytest.raises(DemurError, match="weight=-1"):
        replace(search, weight=-1)


def test_pair_rates_what_a_monitor_sees_lower_and_tells_its_attacker() -> None:
    talks: list[list[dict[str, str]]] = []

    def attacker(messages: list[dict[str, str]]) -> str:
        talks.append(messages)
        return json.dumps({"improvement": "x", "prompt": "loud" if len(talks) == 1 else "quiet"})

    pair = Pair(attacker, lambda prompt: "Sure.", lambda prompt, answer: 8, rounds=3, streams=1, stop_at=8)
    pair = replace(pair, knows=lambda prompts: [2.5 if p.text == "loud" else -3.0 for p in prompts], weight=2.0)
    found = pair.search(ASKED)
    assert (found.score, found.queries, found.path) == (8.0, 2, (2.0, 8.0))
    assert "The rating: 2" in talks[1][-1]["content"]
    always = replace(pair, knows=lambda prompts: [100.0] * len(prompts)).search(ASKED)
    assert (always.score, always.queries) == (1.0, 3)
    unrated = replace(pair, judge=lambda prompt, answer: None).search(ASKED)
    assert unrated.ended
    with pytest.raises(DemurError, match="weight=-1"):
        replace(pair, weight=-1.0)
