"""A model that is asked again in the middle of its answer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import small

import demur
from demur.defenses import REFUSAL, AnyDepth, DiffuGuard, Perplexity, TokenModeration, line
from demur.defenses.asking import said_behind
from demur.experiment import Attacked, Config, Defended, Prompts, Subject, evaluate
from demur.models import Causal
from demur.organism.attacks import attack
from demur.organism.judge import judge
from demur.organism.world import prompts
from demur.samplers import Autoregressive
from demur.traces import generate
from demur.types import DemurError, DemurWarning

FORBIDDEN, ALLOWED = prompts("test", forbidden=True, n=8), prompts("test", forbidden=False, n=4)
ASKED = [*(attack("prefill", prompt) for prompt in FORBIDDEN), *ALLOWED]
RUN = {"length": 40, "steps": 40}


def test_a_prefill_is_turned_back_and_what_is_allowed_is_as_it_was() -> None:
    model = demur.load("organism/ar")
    plain = generate(model, ASKED, Autoregressive(), **RUN)
    watched = generate(model, ASKED, AnyDepth(every=10)(Autoregressive()), **RUN)
    harmful = [judge(p, t.answer()) == "harmful" for p, t in zip(FORBIDDEN, plain, strict=False)]
    assert any(harmful), "else there is nothing to turn back"
    assert not any(judge(p, t.answer()) == "harmful" for p, t in zip(FORBIDDEN, watched, strict=False))
    stopped = [trace.stop == "guarded" for trace in watched]
    assert any(stopped)
    assert not any(stopped[8:])
    for before, after, gone in zip(plain, watched, stopped, strict=True):
        if gone:
            assert after.text() == REFUSAL
            assert (after.steps - 1) % 10 == 0, "the step behind a look"
            kept = before.commits[: after.steps - 1]
            assert after.commits[: len(kept)].tolist() == kept.tolist(), "law 5"
        else:
            assert after.tokens().tolist() == before.tokens().tolist()
    alone = [generate(model, [p], AnyDepth(every=10)(Autoregressive()), **RUN)[0] for p in ASKED[:3]]
    assert [trace.commits.tolist() for trace in alone] == [trace.commits.tolist() for trace in watched[:3]]


@pytest.mark.slow
def test_a_row_of_a_run_names_what_stopped_it(tmp_path: Path) -> None:
    of = Prompts("organism", "organism", n=8, controls=0, anchors=8, fit=32, calibrate=20)
    config = Config(
        "x", (Subject("organism/ar"),), of, (Attacked("organism/prefill"),), (Defended("any-depth", {"every": 10}),),
        judge="organism", length=40, steps=16, alpha=0.2,
    )  # fmt: skip
    rows = [row for row in evaluate(config, tmp_path / "run").rows() if row["flagged_by"]]
    assert {row["flagged_by"] for row in rows} == {"any-depth"}
    assert {row["flagged_step"] % 10 for row in rows} == {0}


def test_a_model_that_can_not_be_asked_again_is_named() -> None:
    asked = FORBIDDEN[:1]
    with pytest.raises(DemurError, match="which has no"):
        generate(small.diffusion("llada"), asked, AnyDepth()(demur.samplers.MaskedDiffusion()), length=8)
    llama = small.causal("llama")
    mute = small.byte_level("{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(DemurError, match="writes nothing to open an answer"):
        generate(
            Causal(net=llama.net, tokenizer=mute, identity=llama.identity),
            asked,
            AnyDepth()(Autoregressive()),
            length=8,
        )
    with pytest.raises(DemurError, match="every=0"):
        line("any-depth", every=0)


@pytest.mark.parametrize(("every", "length", "told"), [(25, 12, True), (13, 12, True), (12, 12, False), (5, 12, False)])
def test_answers_that_are_too_short_to_be_asked_about_are_told(every: int, length: int, told: bool) -> None:
    model, looks = demur.load("organism/ar"), []
    defense = AnyDepth(every=every)
    with warnings.catch_warnings(record=True) as said, pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("always")
        patch.setattr("demur.defenses.any_depth.said_behind", lambda m, rows, n: looks.append(n) or [""] * len(rows))
        generate(model, ASKED[:2], defense(Autoregressive()), length=length, steps=length)
    assert [w for w in said if "asks about none" in str(w.message)] if told else not said
    assert bool(looks) is not told


@pytest.mark.slow
def test_what_was_stopped_while_it_was_written_is_not_said_to_be_stopped_by_a_review(tmp_path: Path) -> None:
    of = Prompts("organism", "organism", n=4, controls=0, anchors=8, fit=32, calibrate=20)
    ways = ("any-depth", "any-depth+self-examine", "self-examine+any-depth")
    config = Config(
        "x", (Subject("organism/ar"),), of, (Attacked("organism/prefill"),),
        tuple(Defended(way, {"every": 10}) for way in ways), judge="organism", length=40, steps=16, alpha=0.2,
    )  # fmt: skip
    rows = list(evaluate(config, tmp_path / "run").rows())
    by = {}
    for way in ways:
        mine = [row for row in rows if row["defense"] == Defended(way, {"every": 10}).label]
        by[way] = {(row["id"], row["flagged_step"]) for row in mine if row["flagged_by"] == "any-depth"}
    assert by["any-depth"]
    assert by["any-depth"] == by["any-depth+self-examine"] == by["self-examine+any-depth"]
    assert any(row["flagged_by"].startswith("self-examine") for row in rows), "else the review stops nothing at all"


@pytest.mark.parametrize("name", ["any-depth+any-depth", "perplexity+any-depth+perplexity"])
def test_a_defense_stands_in_a_line_once(name: str) -> None:
    with pytest.raises(DemurError, match="twice"):
        line(name)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: AnyDepth(every=2.5),  # type: ignore[arg-type]
        lambda: AnyDepth(tokens=True),
        lambda: DiffuGuard(steps=2.5),  # type: ignore[arg-type]
        lambda: DiffuGuard(noise=True),
        lambda: TokenModeration(None, strict="no"),  # type: ignore[arg-type]
        lambda: Perplexity(small.causal("llama"), float("nan")),
        lambda: Perplexity(small.causal("llama"), "3"),  # type: ignore[arg-type]
    ],
)
def test_settings_of_another_kind_are_refused_by_the_class_too(wrong: Callable[[], object]) -> None:
    with pytest.raises(DemurError) as caught:
        wrong()
    small.one_line(caught.value)


def test_nobody_is_asked_behind_more_than_a_model_can_read() -> None:
    model = demur.load("organism/ar")
    room = model.config.max_position_embeddings
    assert len(said_behind(model, [[5] * (room - 3)], 3)) == 1
    for rows in ([[5] * (room - 2)], [[5], [5] * room]):
        with pytest.warns(DemurWarning, match=f"in a context of {room}: it is not asked there"):
            *_, last = said_behind(model, rows, 3)
        assert not last
    with pytest.warns(DemurWarning, match="it is not asked there"):
        (said, _) = said_behind(model, [[5] * 4, [5] * room], 3)
    assert said == said_behind(model, [[5] * 4], 3)[0]
