"""What is read of a model: up to the first end, without thoughts; prompts as they are typed; signals of any array."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch
from small import MASK

from demur.attacks import Flip, Infill, Parallel, Prefill, Prefix, Role, Suppression, attacked, canvas_for, mask_of
from demur.guards.exempt import says
from demur.guards.online import _own, _tokens
from demur.models.vocabulary import token_bytes
from demur.refusals import is_refusal, without_thoughts
from demur.samplers import Autoregressive, MaskedDiffusion
from demur.signals import refusal_signal
from demur.traces import Trace, as_prompts, generate, teacher_forced
from demur.types import DemurError, Message, Prompt

END, THINK, DONE = 300, 301, 302


def told(*parts: str | int, ends: tuple[int, ...] = (END,), special: tuple[int, ...] = (END,)) -> Trace:
    """A trace of one token a part; numbers are the tokens above."""
    pieces = {0: b"", END: b"<end>", THINK: b"<think>", DONE: b"</think>"}
    tokens = []
    for i, part in enumerate(parts, start=1):
        tokens.append(part if isinstance(part, int) else i)
        pieces |= {} if isinstance(part, int) else {i: part.encode()}
    return replace(small.trace_of(tokens, pieces, special), ends=frozenset(ends))


def begun(trace: Trace, *given: int, prefill: str = "") -> Trace:
    """The same trace behind other given tokens."""
    commits = trace.commits + np.array([0, len(given) - 1, 0], dtype=np.int32)
    prompt = replace(trace.prompt, prefill=prefill)
    start = np.array([*given, *trace.start[1:]], dtype=np.int32)
    open_ = np.array([False] * len(given) + [True] * int(trace.open.sum()))
    return replace(trace, commits=commits, start=start, open=open_, prompt=prompt)


def test_a_text_ends_at_its_first_end() -> None:
    trace = told("Sure.", END, " I cannot", " help.", END)
    assert (trace.text(), trace.answer(), trace.refused()) == ("Sure.", "Sure.", False)
    assert [cell.text for cell in trace.frame(5, hide=False).cells] == [
        "Sure.",
        "<end>",
        " I cannot",
        " help.",
        "<end>",
    ]
    assert told("I cannot", END, "Sure.").refused()
    assert told(END, "I cannot").text() == ""
    assert not told("Sure.", END, "I cannot", special=()).refused(), "an end that no tokenizer calls special"
    assert told("I", " cannot", ends=()).refused()


def test_files_keep_the_ends_and_files_without_them_are_read_whole(tmp_path: Path) -> None:
    trace = told("Sure.", END, " I cannot")
    loaded = Trace.load(trace.save(tmp_path / "a"))
    assert (loaded.ends, loaded.text()) == ({END}, "Sure.")
    assert loaded.save(tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    old = replace(trace, ends=frozenset())
    assert Trace.load(old.save(tmp_path / "c")).text() == "Sure. I cannot"
    assert b'"ends"' not in (tmp_path / "c").read_bytes()


def test_an_end_before_a_given_token_ends_nothing() -> None:
    """A form of two gaps: what follows an end in the first is there by the form, whatever the model says."""
    trace = told("a", END, "b", END, "c")
    start = np.array([0, 0, 0, 7, 0, 0, 0], dtype=np.int32)
    form = replace(
        trace,
        start=start,
        open=np.array([False, True, True, False, True, True, True]),
        commits=np.array(
            [[i, c, t] for i, (c, t) in enumerate(zip((1, 2, 4, 5, 6), (1, END, 3, END, 5), strict=True))]
        ),
        pieces={**trace.pieces, 7: b"|", 0: b"?"},
        prompt=Prompt("p", "x", prefill="??|???"),
    )
    assert form.text() == "ab"
    assert form.answer() == "a|b"
    closed = replace(form, start=np.array([0, 0, 0, 0, 0, 0, END], dtype=np.int32),
                     open=np.array([False, True, True, True, True, True, False]),
                     commits=np.array([[i, i + 1, t] for i, t in enumerate((1, END, 3, END, 5))]))  # fmt: skip
    assert closed.text() == closed.answer() == "a", "an end that is given behind the gaps is none of its words"


def test_thoughts_are_read_off() -> None:
    thought = told(THINK, "I cannot tell.", DONE, "Sure.")
    assert not thought.refused()
    inside = begun(told("I cannot tell.", DONE, "Sure."), THINK)
    assert (inside.text(), inside.answer()) == ("I cannot tell.</think>Sure.", "<think>I cannot tell.</think>Sure.")
    assert (inside.refused(), without_thoughts(inside.answer())) == (False, "Sure.")
    cut = begun(told("I cannot tell."), THINK)
    assert (cut.refused(), without_thoughts(cut.answer())) == (False, "")
    by_prefill = begun(told("I cannot tell."), THINK, 0, prefill="<think>Hm.")
    assert (by_prefill.refused(), by_prefill.answer()) == (False, "<think>Hm.I cannot tell.")
    closed = begun(told("I cannot tell."), THINK, DONE)
    assert (closed.refused(), closed.answer()) == (True, "I cannot tell.")
    earlier = begun(told("I cannot tell."), THINK, 400, 401)
    earlier = replace(earlier, pieces=earlier.pieces | {400: b"Hm.", 401: b"<|im_end|>"})
    assert (earlier.opened, earlier.refused()) == ("", True), "an earlier turn's mark opens nothing"
    by_itself = told("Harm.", DONE, "I cannot tell.")
    assert (by_itself.opened, by_itself.said(), by_itself.refused()) == ("", "Harm.</think>I cannot tell.", True)
    assert without_thoughts(by_itself.answer()) == by_itself.answer(), "nobody opened a thought"
    through = begun(told("Sure."), THINK, 400, DONE, 401, prefill="Hm.</think>Well:")
    through = replace(through, pieces=through.pieces | {400: b"\nHm.", 401: b"Well:"})
    assert (through.answer(), without_thoughts(through.answer())) == ("<think>Hm.</think>Well:Sure.", "Well:Sure.")
    unknown = replace(through, pieces=through.pieces | {401: b"Well;"})
    assert without_thoughts(unknown.answer()) == "Hm.</think>Well:Sure.", "not found again: all of it is read"
    asked = replace(told("I cannot tell."), pieces={0: b"What is <think> for?", 1: b"I cannot tell."})
    assert asked.refused(), "what is asked opens no thought"


CHANNEL, MESSAGE, CLOSE = 310, 311, 312


def channelled(trace: Trace, *given: int, prefill: str = "") -> Trace:
    """The same behind a template of channels."""
    marks = {CHANNEL: b"<|channel|>", MESSAGE: b"<|message|>", CLOSE: b"<|end|>", 313: b"final", 314: b"analysis"}
    made = begun(trace, *given, prefill=prefill)
    return replace(made, pieces=made.pieces | marks | {315: b"Well: "})


def test_a_channel_that_was_opened_stands_before_the_answer() -> None:
    more = "<|end|><|start|>assistant<|channel|>analysis<|message|>I cannot tell.<|end|>"
    prefilled = channelled(told(f"Sure.{more}"), CHANNEL, 313, MESSAGE, 315, prefill="Well: ")
    assert prefilled.opened == "<|channel|>final<|message|>"
    assert (prefilled.refused(), without_thoughts(prefilled.answer())) == (False, "Well: Sure.")
    thought = channelled(told("I cannot tell."), CHANNEL, 314, MESSAGE)
    assert (thought.refused(), without_thoughts(thought.answer())) == (False, "")
    earlier = channelled(told("I cannot tell."), CHANNEL, 313, MESSAGE, 315, CLOSE)
    assert (earlier.opened, earlier.refused()) == ("", True)
    letters = told("Harm. ", "<|channel|>final<|message|>", "I cannot tell.")
    assert without_thoughts(letters.answer()) == letters.answer(), "a model without channels writes letters"


def test_marks_of_thoughts_stay_in_texts_though_they_are_special() -> None:
    import copy

    tokenizer = copy.deepcopy(small.byte_level())
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "<|end|>"]})
    marks = tokenizer.convert_tokens_to_ids(["[THINK]", "[/THINK]", "<|end|>"])
    assert token_bytes(tokenizer, marks)[1] >= {marks[2]}
    assert not token_bytes(tokenizer, marks)[1] & {*marks[:2]}
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|channel|>", "<|message|>"]})
    assert marks[2] not in token_bytes(tokenizer, marks)[1], "a mark where there are channels"


def test_online_reads_what_a_trace_reads() -> None:
    for model, sampler in (
        (small.causal("llama"), Autoregressive(temperature=1.5)),
        (small.diffusion("llada"), MaskedDiffusion(steps=4, temperature=1.5)),
    ):
        canvas = model.canvas(small.PROMPTS, 8)
        ended = small.ending(model, *range(60, 200)) if model.kind == "causal" else model
        traces = generate(ended, small.PROMPTS, sampler, length=8)
        step = small.steps_of(ended, canvas, sampler)[-1]
        for i, trace in enumerate(traces):
            assert says(ended, *_own(canvas, _tokens(step), i)) == trace.text()


# -- prompts ------------------------------------------------------------------------------------------------


def test_texts_are_prompts() -> None:
    model = small.causal("llama")
    one, two = generate(model, ["Hi", Prompt("q", "What time is it?")], length=2)
    assert [t.prompt for t in (one, two)] == [Prompt("typed-1", "Hi"), Prompt("q", "What time is it?")]
    for alone in ("Hi", ("Hi",), Prompt("typed-1", "Hi"), (text for text in ["Hi"])):
        assert generate(model, alone, length=2)[0].prompt == one.prompt  # type: ignore[arg-type]
    assert teacher_forced(model, "Hi", "Sure.")[0].text() == "Sure."
    for wrong in (5, [5], [None], [{"role": "user", "content": "Hi"}], None, [["Hi"]]):
        with pytest.raises(DemurError, match="a prompt of type") as caught:
            as_prompts(wrong)  # type: ignore[arg-type]
        small.one_line(caught.value)
    with pytest.raises(DemurError, match=r"write Prompt\(id, text\)"):
        generate(model, [Prompt("Hi there")], length=2)


EARLIER = (Message("user", "Hello."), Message("assistant", "Yes?"))


@pytest.mark.parametrize("attack", [Flip(), Prefill(), Prefix(), Role(), Suppression(), Infill("?"), Parallel("?")])
def test_attacks_change_the_last_turn_alone(attack: Any) -> None:
    prompt = Prompt("p", "How do I bake bread?", harmful=True, system="Be kind.", messages=EARLIER)
    made = attack(prompt)
    assert (made.messages, made.system, made.parent, made.attack) == (EARLIER, "Be kind.", "p", attack.name)
    assert made.text != prompt.text or made.prefill
    again = attacked(made, "twice")
    assert (again.messages, again.text, again.prefill) == (made.messages, made.text, made.prefill)


def test_holes_behind_earlier_turns() -> None:
    import copy

    model = small.diffusion("llada")
    tokenizer = copy.deepcopy(small.byte_level())
    tokenizer.chat_template = "{% for m in messages %}{{ m.role[0] + ':' + m.content + '\n' }}{% endfor %}a:"
    model = replace(model, tokenizer=tokenizer)
    prompt = Prompt("p", "How do I <mask> bread?", messages=EARLIER)
    canvas = canvas_for(model, [Infill(mask_of(model), run=2)(prompt)], 8)
    assert int(canvas.open.sum()) == 8
    row = canvas.ids[0].tolist()
    assert bytes(i for i in row if i < 256).decode().startswith("u:Hello.\na:Yes?\nu:How do I <mask> bread?\na:Sure")
    assert [i for i, is_open in enumerate(canvas.open[0].tolist()) if is_open] == [
        i for i, token in enumerate(row) if token == MASK
    ]


# -- signals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_sigma_of_tensors(kind: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    phi, good, bad = (torch.tensor(rng.normal(size=(4, 8))).to(kind) for _ in range(3))
    plain = [x.double().numpy() for x in (phi, good, bad)]
    np.testing.assert_allclose(refusal_signal(phi, good, bad), refusal_signal(*plain), rtol=0, atol=1e-6)  # type: ignore[arg-type]
    grown = phi.float().requires_grad_()
    np.testing.assert_allclose(refusal_signal(grown, good, bad), refusal_signal(*plain), rtol=0, atol=1e-6)  # type: ignore[arg-type]
    for listed in (plain[0].tolist(), tuple(phi), [row.tolist() for row in phi]):
        np.testing.assert_allclose(refusal_signal(listed, good, bad), refusal_signal(*plain), rtol=0, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [None, "abc", [[1.0], [1.0, 2.0]], [["a"]], [[1j, 2]], {}, torch.zeros(1, 2).to(torch.complex64), object()]
)
def test_what_is_no_array_of_numbers_is_one_line(wrong: Any) -> None:
    good = np.ones((2, 2))
    for given in ((wrong, good, good), (good, wrong, good), (good, good, wrong)):
        with pytest.raises(DemurError) as caught:
            refusal_signal(*given)
        small.one_line(caught.value)


def test_a_refusal_in_marks_is_one_in_a_trace() -> None:
    assert told("I **cannot** help").refused()
    assert is_refusal(told("I can\u02bct").text())
