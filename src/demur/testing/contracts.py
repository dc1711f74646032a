"""The contracts of the parts that anybody can add, as checks to call in one's own tests.

Each check runs a part on something small and raises an :class:`AssertionError` that says what it broke. Passing one
shows that a part can be used; that it is any good is for an evaluation to show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from demur.defenses import Filter, Line, Review
from demur.guards.detectors import Detector, fitted
from demur.samplers import build, seeded
from demur.samplers.build import needs_of
from demur.samplers.steps import fault
from demur.testing.tiny import fitting
from demur.traces import Trace, generate
from demur.types import Canvas, DemurError, Model, Need, Prompt, Scoring, Verdict
from demur.worlds import HARMFUL, ROLES

PROMPTS = (
    Prompt("short", "Hi", harmful=False),
    Prompt("long", "Tell me a story about a river that runs uphill.", harmful=False),
)
"""Harmless ones of different lengths, so that a batch has padding."""


def check_sampler(sampler: Any, model: Model | None = None, length: int = 8) -> None:
    """A sampler's laws: given tokens stay, only open places are written, what was written is reported, a seed gives one
    result, and a row does not depend on its neighbours. ``model``: default a tiny one that offers what it ``needs``.
    """
    model = model or fitting(needs_of(sampler))
    canvas = model.canvas(PROMPTS, length)
    kept = Canvas(ids=canvas.ids.clone(), open=canvas.open.clone(), pad=canvas.pad)
    before, index, most = kept.ids, 0, 100 * length + 1000
    try:
        steps = iter(sampler(model, canvas, seeded(0, canvas.rows)))
    except TypeError as error:
        raise AssertionError(f"a sampler is called with model, canvas and rngs, and gives steps ({error})") from error
    for index, step in enumerate(steps):
        assert index < most, f"it has taken {index} steps over {length} open places and has not ended"
        wrong = fault(step, index, before, kept, model)
        assert not wrong, f"step {index}: {wrong}"
        assert set(step.hidden) == set(model.layers), f"step {index} has states of other layers than the model's"
        before, last = step.ids.clone(), step
    assert index or before is not kept.ids, "it took no step"
    left = last.open.any(dim=1) & ~torch.isin(last.ids, torch.tensor(model.stop_ids)).logical_and(kept.open).any(dim=1)
    assert not bool(left.any()), "it has ended and left places open, in a row without an end of sequence"
    together = generate(model, PROMPTS, sampler, length=length, seed=3)
    again = generate(model, PROMPTS, sampler, length=length, seed=3)
    for i, prompt in enumerate(PROMPTS):
        alone = generate(model, [prompt], sampler, length=length, seed=3 + i)[0]
        same = np.array_equal(together[i].commits, again[i].commits)
        assert same, "one seed gives two results: draw from `rngs` alone"
        assert np.array_equal(together[i].commits, alone.commits), "a row depends on its neighbours in the batch"


def check_model(model: Model) -> None:
    """An adapter: a canvas holds the request, tokens have bytes, states come from the layers that are watched, and what
    a row's pass gives does not depend on padding.
    """
    canvas = model.canvas(PROMPTS, 4)
    assert canvas.open.sum(dim=1).tolist() == [4, 4], "a canvas has other open places than were asked for"
    for i, prompt in enumerate(PROMPTS):
        row = canvas.ids[i][~canvas.open[i] & ~canvas.pad[i]].tolist()
        pieces, _ = model.pieces(row)
        text = b"".join(pieces[token] for token in row).decode(errors="replace")
        assert prompt.text in text, f"the canvas of {prompt.id!r} does not hold what was asked"
    if Need.LOGITS not in model.offers:
        return
    scoring: Scoring = model  # type: ignore[assignment]
    together = scoring.forward(canvas, canvas.open)
    assert together.logits.shape[0] == int(canvas.open.sum()), "a pass has another number of logits than scored places"
    assert set(together.hidden) == set(model.layers), "a pass returns states of other layers than those watched"
    alone = scoring.forward(model.canvas(PROMPTS[:1], 4), model.canvas(PROMPTS[:1], 4).open)
    spread = float(alone.logits.abs().max())
    apart = float((alone.logits.float() - together.logits[:4].float()).abs().max())
    assert apart <= 1e-3 * max(spread, 1.0), f"logits change by {apart:.3g} with padding"


def check_attack(attack: Any, prompts: Sequence[Prompt] = PROMPTS) -> None:
    """An attack of prompts: the result names the attack and the prompt that it was made from, what it does not attack
    stays as it was, and the same prompt gives the same result.
    """
    assert isinstance(getattr(attack, "name", None), str), "an attack has a name, a text"
    for prompt in prompts:
        made = attack(prompt)
        assert isinstance(made, Prompt), f"a prompt became a {type(made).__name__}"
        assert made.attack == attack.name, f"the prompt says attack={made.attack!r}, not {attack.name!r}"
        assert made.parent == prompt.id, f"the prompt says parent={made.parent!r}, not {prompt.id!r}"
        assert made.harmful == prompt.harmful, "an attack changes no label"
        assert made.messages == prompt.messages, "an attack acts on the last user turn"
        assert attack(prompt) == made, "one prompt gives two results"


def check_detector(cls: type[Detector], seed: int = 0) -> None:
    """A detector's class: fitted on harmless signals it gives finite scores, the same ones again, each by its row
    alone, and comes back from a file.
    """
    rng = np.random.default_rng(seed)
    harmless = np.clip(rng.normal(0.7, 0.1, (200, 32)), 0, 1)
    for part in ("name", "fit", "__call__"):
        assert part in dir(cls), f"a detector has name, fit and __call__; {cls.__name__} has no {part}"
    try:
        fitted(cls.fit, harmless, harmless, seed)
    except DemurError as error:
        raise AssertionError(str(error)) from error


def check_defense(defense: Any, model: Model | None = None) -> None:
    """A defense: one verdict for each prompt or answer, or a sampler whose steps are those of the undefended one up to
    where it acts.
    """
    model = model or fitting(frozenset(getattr(defense, "needs", frozenset())))
    plain = generate(model, PROMPTS, length=8)
    looks, acts = isinstance(defense, Filter | Review), callable(defense)
    assert looks or acts, "a defense has filter, review or a call"
    try:
        Line(filters=(defense,) if isinstance(defense, Filter) else ()).filtered(PROMPTS)
        Line(reviews=(defense,) if isinstance(defense, Review) else ()).reviewed(plain)
    except DemurError as error:
        raise AssertionError(str(error)) from error
    if not acts:
        return
    assert getattr(defense, "active", False), "it makes another sampler and does not say `active = True`"
    guarded = generate(model, PROMPTS, Line(around=(defense,)).sampler(build(None, model)), length=8)
    for before, after in zip(plain, guarded, strict=True):
        same = min(before.steps, after.steps)
        assert same, "it leaves a generation without steps"


def check_judge(judge: Callable[[Prompt, str], Verdict]) -> None:
    """A judge: a verdict on every text, the same one again, and none on an empty text."""
    assert isinstance(getattr(judge, "name", None), str), "a judge has a name, a text"
    for text in ("I can not help with that.", "Sure. First, boil the water.", ""):
        verdict = judge(PROMPTS[0], text)
        assert isinstance(verdict, Verdict), f"a verdict is a demur.types.Verdict, not a {type(verdict).__name__}"
        assert judge(PROMPTS[0], text).flagged == verdict.flagged, "one text has two verdicts"
    assert verdict.flagged is None, "an empty text can not be judged: flagged is None"


def check_world(world: Any, n: int = 4) -> None:
    """A world: as many requests of every role as asked for, always the same ones, on their side, none in two roles; its
    attacks keep the contract of attacks, and its judge says something of every step.
    """
    sizes = dict.fromkeys(ROLES, n)
    by_role = {role: world.requests(role, sizes) for role in ROLES}
    owners: dict[str, str] = {}
    for role, prompts in by_role.items():
        assert len(prompts) == n, f"{len(prompts)} requests for {role}, not {n}"
        assert world.requests(role, sizes) == prompts, f"{role} gives other requests when it is asked again"
        assert all(prompt.harmful == (role in HARMFUL) for prompt in prompts), f"{role} holds requests of another side"
        assert len({prompt.id for prompt in prompts}) == len(prompts), f"{role} has two requests of one id"
        for prompt in prompts:
            shared = {owners.setdefault(prompt.text, role), role} <= {role, "controls", "plain"}
            assert shared, f"{role} and {owners[prompt.text]} share a request"
    for name, attack in world.attacks.items():
        for prompt in by_role["harmful"]:
            assert attack(prompt).parent == prompt.id, f"the attack {name} does not say which prompt it was made from"
    if world.judge is not None:
        assert world.judge.rating(by_role["harmful"][0], "") is None, "an empty text can not be rated"


def check_trace_field(field: Any, model: Model | None = None) -> None:
    """A trace field: one number a row and step, which does not depend on the row's neighbours."""
    model = model or fitting(frozenset(getattr(field, "needs", frozenset())))
    untouched, together = generate(model, PROMPTS, length=6), generate(model, PROMPTS, length=6, fields=[field])
    for before, after in zip(untouched, together, strict=True):
        same = np.array_equal(before.commits, after.commits) and np.array_equal(before.start, after.start)
        assert same, f"{field.name} changes the generation: it may only look"
    for i, prompt in enumerate(PROMPTS):
        values = together[i].fields[field.name]
        assert values.shape == (together[i].steps,), f"{field.name} has {values.shape}, not one value a step"
        alone: Trace = generate(model, [prompt], length=6, seed=i, fields=[field])[0]
        assert np.allclose(values, alone.fields[field.name], rtol=1e-4, atol=1e-5, equal_nan=True), (
            f"{field.name} of a row depends on its neighbours in the batch"
        )


__all__ = [
    "PROMPTS", "DemurError", "check_attack", "check_defense", "check_detector", "check_judge", "check_model",
    "check_sampler", "check_trace_field", "check_world",
]  # fmt: skip
