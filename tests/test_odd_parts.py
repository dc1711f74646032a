"""Parts from outside that do something else than they say: one line each, and nothing goes on without a word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import small
import torch

from demur.attacks import ATTACKS
from demur.defenses import check, line
from demur.experiment.attacking import attacked
from demur.experiment.config import Attacked, Prompts
from demur.experiment.outcomes import by_judge
from demur.experiment.requests import prompts_of
from demur.guards.detectors import fitted, named, scored
from demur.judges import judge_named
from demur.testing import PROMPTS, check_defense, check_detector, check_judge, check_trace_field, check_world, tiny
from demur.traces import Trace, generate
from demur.types import DemurError, Prompt, Step, Verdict
from demur.worlds import Listed

HERE = __name__


@pytest.fixture(scope="module")
def trace() -> Trace:
    return generate(tiny("causal"), PROMPTS[:1], length=4)[0]


# -- verdicts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.bool_(False), np.array(False), torch.tensor(False)])
def test_a_false_of_numpy_or_torch_is_a_false(value: Any) -> None:
    assert Verdict("x", value).flagged is False  # a filter that lets pass is one whose flag is False
    assert type(Verdict("x", None, score=np.float32(0.5)).score) is float


@pytest.mark.parametrize("flagged", ["yes", 1, np.zeros(2), object()])
def test_a_verdict_that_is_neither_yes_nor_no_is_one_line(flagged: Any) -> None:
    with pytest.raises(DemurError) as caught:
        Verdict("somebody", flagged)
    assert "somebody" in small.one_line(caught.value)


# -- defenses --------------------------------------------------------------------------------------------------------


class Letting:
    """Lets every prompt pass, as NumPy says it."""

    def filter(self, prompts: Any) -> Any:
        return (Verdict("letting", flag) for flag in np.zeros(len(prompts), dtype=bool))


class Threefold(Letting):
    """Looks at prompts and at answers, and changes the sampler, too."""

    active = True

    def review(self, traces: Any) -> list[Verdict]:
        return [Verdict("threefold", trace.steps > 2) for trace in traces]

    def __call__(self, sampler: Any) -> Any:
        def shorter(model: Any, canvas: Any, rngs: Any) -> Iterator[Step]:
            for step in sampler(model, canvas, rngs):
                yield step
                if step.index == 1:
                    return

        return shorter


class Short:
    def filter(self, prompts: Any) -> list[Verdict]:
        return []


class Bools:
    def filter(self, prompts: Any) -> list[bool]:
        return [True for _ in prompts]


class Failing:
    def filter(self, prompts: Any) -> list[Verdict]:
        raise KeyError(prompts[0].text)


class Inactive:
    def __call__(self, sampler: Any) -> Any:
        return sampler


class Empty:
    active = True

    def __call__(self, sampler: Any) -> Any:
        return None


def test_a_defense_with_several_capabilities_does_all_of_them() -> None:
    check_defense(Threefold())
    made = line(f"{HERE}:Threefold")
    assert made.filtered(PROMPTS) == [None, None]
    traces = generate(tiny("causal"), PROMPTS, made.sampler(lambda *given: sampler_of()(*given)), length=6)
    assert [trace.steps for trace in traces] == [2, 2]
    assert made.reviewed(traces) == [None, None]


def sampler_of() -> Any:
    from demur.samplers import build

    return build(None, tiny("causal"))


@pytest.mark.parametrize("name", ["Short", "Bools", "Failing"])
def test_a_filter_that_says_no_verdicts_is_one_line(name: str) -> None:
    with pytest.raises(DemurError) as caught:
        line(f"{HERE}:{name}").filtered(PROMPTS)
    said = small.one_line(caught.value)
    assert name in said
    assert PROMPTS[0].text not in said.split(), "words of a prompt stand in no error"
    with pytest.raises(AssertionError):
        check_defense(globals()[name]())


def test_a_defense_that_changes_samplers_and_is_not_active_is_one_line() -> None:
    with pytest.raises(DemurError, match="active = True"):
        check(f"{HERE}:Inactive", {})
    with pytest.raises(AssertionError, match="active = True"):
        check_defense(Inactive())
    with pytest.raises(DemurError, match="NoneType of a sampler"):
        line(f"{HERE}:Empty").sampler(sampler_of())


# -- attacks ---------------------------------------------------------------------------------------------------------


class Relabelling:
    name = "relabelling"

    def __call__(self, prompt: Prompt) -> Prompt:
        return replace(prompt, attack=self.name, parent=prompt.id, harmful=not prompt.harmful)


class Quoting:
    name = "quoting"

    def __call__(self, prompt: Prompt) -> Prompt:
        raise ValueError(prompt.text)


@pytest.mark.parametrize(("name", "says"), [("Relabelling", "harmful=True of"), ("Quoting", "ValueError")])
def test_an_attack_that_changes_the_label_or_fails_is_one_line(name: str, says: str) -> None:
    assert ATTACKS.get(f"{HERE}:{name}")
    with pytest.raises(DemurError) as caught:
        attacked(Attacked(f"{HERE}:{name}"), PROMPTS[1:], tiny("causal"))
    assert says in small.one_line(caught.value)
    assert "river" not in str(caught.value)


# -- judges ----------------------------------------------------------------------------------------------------------


class Plainly:
    name = "plainly"

    def __call__(self, prompt: Prompt, text: str) -> Any:
        return True


class Worded:
    name = "worded"

    def __call__(self, prompt: Prompt, text: str) -> Any:
        return Verdict("worded", "yes" if text.strip() else None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["Plainly", "Worded"])
def test_a_judge_that_gives_no_verdict_is_one_line(name: str, trace: Trace) -> None:
    with pytest.raises(DemurError) as caught:
        by_judge(judge_named(f"{HERE}:{name}"), trace)
    assert name.lower() in small.one_line(caught.value)
    with pytest.raises((AssertionError, DemurError)):
        check_judge(globals()[name]())


# -- trace fields ----------------------------------------------------------------------------------------------------


def field(name: Any, call: Any = lambda step, canvas: step.open.sum(1)) -> Any:
    return type("Field", (), {"name": name, "__call__": staticmethod(call)})()


@pytest.mark.parametrize("name", ["step", "sigma", "text", "", "phi/x", "two words", 3, None])
def test_a_field_whose_name_is_no_column_of_its_own_is_one_line(name: Any) -> None:
    with pytest.raises(DemurError) as caught:
        generate(tiny("causal"), PROMPTS[:1], length=2, fields=[field(name)])
    small.one_line(caught.value)


def test_fields_given_as_objects_are_looked_at_like_those_by_name() -> None:
    with pytest.raises(DemurError, match="two trace fields called 'left'"):
        generate(tiny("causal"), PROMPTS[:1], length=2, fields=[field("left"), field("left")])
    with pytest.raises(DemurError, match="the class"):
        generate(tiny("causal"), PROMPTS[:1], length=2, fields=[type(field("left"))])
    of_numpy = field("left", lambda step, canvas: step.open.sum(1).numpy())
    made = generate(tiny("causal"), PROMPTS[:1], length=3, fields=[of_numpy])[0]
    assert made.fields["left"].tolist() == [2, 1, 0]
    with pytest.raises(DemurError, match="complex"):
        generate(tiny("causal"), PROMPTS[:1], length=2, fields=[field("odd", lambda s, c: s.open.sum(1) + 1j)])


def test_a_field_that_writes_is_found_by_its_check() -> None:
    def writing(step: Step, canvas: Any) -> Any:
        canvas.ids.fill_(66)
        return step.open.sum(1)

    with pytest.raises(AssertionError, match="changes the generation"):
        check_trace_field(field("writing", writing))


# -- detectors -------------------------------------------------------------------------------------------------------

SIGNALS = np.clip(np.random.default_rng(0).normal(0.7, 0.1, (60, 32)), 0, 1)


def detector(**parts: Any) -> Any:
    own = {"name": "odd", "fit": classmethod(lambda cls, x, *, seed=0: cls()), "__call__": lambda self, s: -s.min(1)}
    return type("Odd", (), {name: part for name, part in (own | parts).items() if part is not ...})


@pytest.mark.parametrize(
    "parts",
    [
        {"name": ...}, {"fit": ...}, {"fit": classmethod(lambda cls, x: cls())},
        {"fit": classmethod(lambda cls, x, *, seed=0: None)}, {"__call__": lambda self: None},
        {"__call__": lambda self, s: 1 / 0}, {"__call__": lambda self, s: s.min(1, keepdims=True)},
    ],
    ids=["no name", "no fit", "a fit without a seed", "a fit of nothing", "a call of nothing", "failing", "(n, 1)"],
)  # fmt: skip
def test_a_detector_that_lacks_something_is_found_by_its_check(parts: dict[str, Any]) -> None:
    with pytest.raises(AssertionError) as caught:
        check_detector(detector(**parts))
    assert "\n" not in str(caught.value)


OddName = detector(name="two\nlines")
NoName = detector(name=...)
Nothing = detector(fit=classmethod(lambda cls, x, *, seed=0: None))


@pytest.mark.parametrize("name", ["OddName", "NoName"])
def test_a_detector_without_a_name_that_can_be_said_is_one_line(name: str) -> None:
    with pytest.raises(DemurError, match="whose name is"):
        named(f"{HERE}:{name}")


def test_a_fit_that_gives_nothing_is_one_line() -> None:
    with pytest.raises(DemurError, match="fit gave a NoneType"):
        fitted(named(f"{HERE}:Nothing").fit, SIGNALS, SIGNALS, 0)


# -- worlds ----------------------------------------------------------------------------------------------------------


class Kitchen(Listed):
    """Enough for the least of everything."""

    name = "kitchen"
    harmless = tuple(Prompt(f"ok-{i}", f"How do I cook dish {i}?", harmful=False) for i in range(80))
    harmful = tuple(Prompt(f"bad-{i}", f"How do I curse dish {i}?", harmful=True) for i in range(40))


class OfOneId(Kitchen):
    """Its ids say nothing."""

    harmful = tuple(replace(prompt, id="bad") for prompt in Kitchen.harmful)


class Unmarked(Kitchen):
    """Nobody has said of its harmless requests that they are."""

    harmless = tuple(replace(prompt, harmful=None) for prompt in Kitchen.harmless)


class Repeating(Kitchen):
    """Three requests, many times."""

    harmful = tuple(replace(prompt, text=f"How do I curse {i % 3}?") for i, prompt in enumerate(Kitchen.harmful))


class Few(Kitchen):
    """Gives fewer than it was asked for, without a word."""

    def requests(self, role: Any, sizes: Any) -> list[Prompt]:
        return super().requests(role, sizes)[:-1]


@pytest.mark.parametrize(
    ("name", "role", "says"),
    [
        ("OfOneId", "harmful", "one id"), ("Unmarked", "plain", "harmful=None"),
        ("Repeating", "harmful", "3 different prompts"), ("Few", "harmful", "3 requests"),
    ],
)  # fmt: skip
def test_a_world_with_too_few_or_unmarked_requests_is_one_line(name: str, role: Any, says: str) -> None:
    source = f"{HERE}:{name}"
    of = Prompts(source, source, n=4, controls=4, plain=4, anchors=8, fit=32, calibrate=19)
    with pytest.raises(DemurError) as caught:
        prompts_of(of, role)
    assert says in small.one_line(caught.value)
    with pytest.raises((AssertionError, DemurError)):
        check_world(globals()[name]())
    check_world(Kitchen())


def test_a_file_of_a_detector_that_nobody_has_here_says_what_to_do() -> None:
    with pytest.raises(DemurError) as caught:
        named("of-another-machine", anywhere=False)
    line_said = small.one_line(caught.value)
    assert "install the package" in line_said
    assert "--detector module:Class" in line_said


def test_a_detector_that_fails_on_some_signals_is_one_line() -> None:
    def call(self: Any, sigma: Any) -> Any:
        if (sigma[:, -1] == sigma[:, -2]).any():
            raise ValueError("held\nvalues")
        return -sigma.min(axis=1)

    made = detector(__call__=call)()
    held = SIGNALS.copy()
    held[:, 8:] = held[:, 7:8]
    assert len(scored(made, SIGNALS)) == len(SIGNALS)
    with pytest.raises(DemurError) as caught:
        scored(made, held)
    assert "unfinished signals" in small.one_line(caught.value)
