"""Where an answer ends: no step behind its end is judged, and the guard's verdict is that of the answer."""

from __future__ import annotations

from functools import cache

import pytest

pytest.importorskip("fastapi", reason="the extra serve")
pytest.importorskip("uvicorn", reason="the extra serve")
pytest.importorskip("prometheus_client", reason="the extra serve")

import served
from served import serving, together, whole

from demur.traces import generate
from demur.types import Prompt

AT = 4


@cache
def cut() -> tuple[Prompt, str]:
    """A request, and the letter that is the fourth token of its answer, and no token before."""
    model = served.model()
    for i in range(400):
        prompt = Prompt(f"c{i}", f"Tell me of mill {i}.")
        (trace,) = generate(model, [prompt], length=AT)
        pieces, special = model.pieces(tokens := trace.tokens().tolist())
        *before, letter = [pieces[token] for token in tokens]
        if letter.isalpha() and letter not in before and not special & {*tokens} and b"".join(before).isascii():
            return prompt, letter.decode()
    raise AssertionError("no answer has a letter there")


@pytest.mark.parametrize("hold", [0, 1, 3])
@pytest.mark.parametrize("behind", [0, 1, 3])
def test_a_step_behind_a_stop_string_stops_no_answer_that_the_guard_has_let_pass(hold: int, behind: int) -> None:
    prompt, stop = cut()
    with serving(guard=served.flagging_at(AT + behind), hold=hold) as house:
        said = whole(house.chat(prompt, seed=0, stop=stop)[1])
        assert together(house.chat(prompt, seed=0, stop=stop, stream=True)[1]) == said
    stopped = behind < max(hold, 1)  # a step is held until this many, itself among them, were looked at
    assert (said["finish"], said["demur"]["verdict"]["flagged"]) == (("content_filter" if stopped else "stop"), stopped)
    assert said["demur"]["verdict"]["step"] == (AT + behind if stopped else None)
    if not stopped:
        assert said["demur"]["steps"] == AT
        assert said["demur"]["looked"] == AT + max(hold, 1) - 1
