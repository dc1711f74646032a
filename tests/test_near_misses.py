"""Near misses of a notebook: what looks like an argument and is another thing is one line, and never run as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import demur
from demur import prompts
from demur.attacks import make
from demur.guards import Watch, fit_guard
from demur.judges import judge_named, read_answer
from demur.redaction import hidden
from demur.samplers import build
from demur.types import DemurError

ASKED = [demur.Prompt("a", "How do I open the granary?", harmful=False)]
SMALL: dict[str, Any] = {"length": 4, "steps": 4}


@pytest.fixture(scope="module")
def model() -> Any:
    return demur.load("organism/ar", device="cpu")


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        (pd.DataFrame({"text": ["Hi"], "id": ["x"]}), "prompts in a DataFrame"),
        ({"a": "Hi"}, "prompts in a dict"),
        ({"Hi", "Ho"}, "prompts in a set"),
        (b"Hi", "of type int"),
        ("prompts.csv", "name of a file"),
        ("data/prompts.JSONL", "name of a file"),
        (["Hi", "./prompts.jsonl.gz"], "name of a file"),
        ("demur-harmful-001", "the id of a prompt"),
        (["organism-test-forbidden-0000"], "the id of a prompt"),
        ("harmless", "of a set of prompts"),
        ("hf:owner/name", "of a set of prompts"),
        ([["Hi"]], "of type list"),
        (Path("prompts.csv"), "of type"),
        (None, "of type NoneType"),
    ],
)
def test_what_is_no_list_of_prompts_is_never_asked(model: Any, prompts: Any, says: str) -> None:
    for ask in (
        lambda: demur.generate(model, prompts, **SMALL),
        lambda: demur.teacher_forced(model, prompts, "Yes", steps=4),
    ):
        with pytest.raises(DemurError, match=says):
            ask()


@pytest.mark.parametrize(
    "prompts",
    [
        ["How do I open notes.txt?"], ("Hi",), (one for one in ["Hi"]), pd.Series(["Hi"]), np.array(["Hi"]),
        "Harmless things?", [demur.Prompt("q", "harmless")], [demur.Prompt("q", "prompts.csv")], "and/or",
    ],
    ids=lambda prompts: type(prompts).__name__,
)  # fmt: skip
def test_texts_in_any_order_are_asked(model: Any, prompts: Any) -> None:
    assert len(demur.generate(model, prompts, **SMALL)) == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"pools": None}, "pairs of a layer"), ({"pools": "last"}, "pairs of a layer"),
        ({"pools": ("last", "generated")}, "pairs of a layer"), ({"pools": ["last/generated"]}, "pairs of a layer"),
        ({"pools": [(2, "generated")]}, "write it as a text: '2'"), ({"pools": [(9, "generated")]}, "1 to 4"),
        ({"batch": True}, "batch=True"), ({"batch": 2.0}, "batch=2.0"), ({"batch": "8"}, "batch='8'"),
        ({"progress": 3}, "progress=3"), ({"kept": "folder"}, "in the place of kept"),
    ],
)  # fmt: skip
def test_settings_of_another_kind_are_one_line(model: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(DemurError, match=says):
        demur.generate(model, ASKED, **SMALL | settings)


def test_numbers_of_numpy_are_numbers(model: Any) -> None:
    numbers = {"length": np.int64(4), "steps": np.int32(4), "batch": np.int64(2), "seed": np.uint8(3)}
    (one,), (other,) = demur.generate(model, ASKED, **numbers), demur.generate(model, ASKED, **SMALL, seed=3)
    assert one.text() == other.text()


@pytest.mark.parametrize("given", [None, "organism/ar", 3, torch.nn.Linear(2, 2)])
def test_what_is_no_model_is_one_line(given: Any) -> None:
    for call in (lambda: demur.generate(given, ASKED), lambda: demur.teacher_forced(given, ASKED, ["Yes"])):
        with pytest.raises(DemurError, match="instead of a model"):
            call()


@pytest.mark.parametrize(
    ("responses", "says"),
    [
        ({"a": "Yes"}, "responses in a dict"), ({"Yes"}, "responses in a set"), (b"Yes", "responses in a bytes"),
        (pd.DataFrame({"a": ["Yes"]}), "responses in a DataFrame"), ([b"Yes"], "a response of the type bytes"),
        ([None], "a response of the type NoneType"), ([float("nan")], "a response of the type float"),
        ([[5.7]], "token 5.7"), ([[5.0]], "token 5.0"), ([[-1]], "token -1"), ([[10**6]], "from 0 to"),
        ([[True]], "token True"), ([["5"]], "token '5'"),
    ],
)  # fmt: skip
def test_what_is_no_response_is_never_replayed(model: Any, responses: Any, says: str) -> None:
    with pytest.raises(DemurError, match=says):
        demur.teacher_forced(model, ASKED, responses, steps=4)


@pytest.mark.parametrize(
    "rows",
    [[[5, 7]], (one for one in [[5, 7]]), np.array([[5, 7]]), torch.tensor([[5, 7]])],
    ids=lambda rows: type(rows).__name__,
)
def test_rows_of_tokens_of_any_library_are_replayed(model: Any, rows: Any) -> None:
    (trace,) = demur.teacher_forced(model, ASKED, rows, steps=4)
    assert trace.tokens(2).tolist()[:2] == [5, 7]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"system": 3}, "system of the type int"), ({"system": b"x"}, "system of the type bytes"),
        ({"revision": 3}, "revision of the type int"), ({"template_args": [1]}, "template_args of the type list"),
        ({"template_args": "enable_thinking=false"}, "template_args of the type str"),
        ({"block_length": 0}, "block_length=0"), ({"block_length": "8"}, "block_length='8'"),
        ({"block_length": 2.5}, "block_length=2.5"), ({"block_length": 8}, "block_length=8 for organism/ar, a causal"),
        ({"dtype": torch.int8}, "dtype torch.int8"), ({"device": "meta"}, "no weights are"),
        ({"device": 1.5}, "device"),
    ],
)  # fmt: skip
def test_settings_of_loading_of_another_kind_are_one_line(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(DemurError, match=says):
        demur.load("organism/ar", **{"device": "cpu"} | settings)


@pytest.mark.parametrize("device", [torch.device("cpu"), "cpu:0", torch.device("cpu", 0)])
def test_a_device_in_any_form_has_the_same_dtype(device: Any) -> None:
    assert demur.load("organism/ar", device=device).identity.dtype == "float32"


@pytest.mark.parametrize("name", ["Organism/AR", "organism/ar ", " organism/ar", "SMOLLM2", "SmolLM2\n"])
def test_a_built_in_name_in_other_letters_is_no_hub_id(name: str) -> None:
    with pytest.raises(DemurError, match=f"did you mean '{name.strip().lower()}'"):
        demur.load(name)


@pytest.mark.parametrize("name", ["/dev/null", "/dev/zero"])
def test_what_is_neither_folder_nor_file_is_no_model(name: str) -> None:
    with pytest.raises(DemurError, match="neither a folder nor a file"):
        demur.load(name)


@pytest.mark.parametrize("n", ["3", 3.0, True, float("nan"), 0, 121, -1, [3]])
def test_a_number_of_starter_prompts_is_a_whole_number(n: Any) -> None:
    with pytest.raises(DemurError, match="n="):
        demur.starter("harmless", n)
    assert len(demur.starter("harmless", np.int64(3))) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["source", "category", "licence", "attack"])
def test_fields_of_a_prompt_are_texts(field: str) -> None:
    make: Callable[[Any], demur.Prompt] = lambda value: replace(ASKED[0], **{field: value})  # noqa: E731
    assert getattr(make(None), field) == ""
    for value in (3, b"x", ["x"], 0.5):
        with pytest.raises(DemurError, match=f"whose {field} is of the type"):
            make(value)


@pytest.fixture(scope="module")
def trace(model: Any) -> demur.Trace:
    return demur.generate(model, [demur.Prompt("b", "How do I open the granary?")], **SMALL)[0]


@pytest.fixture(scope="module")
def anchors(model: Any) -> demur.Anchors:
    sides = demur.starter("harmless", 4), demur.starter("harmful", 4)
    return demur.anchors_of(model, *sides, refusals="scripted", steps=4, length=4)


@pytest.mark.parametrize("word", ["no", "false", "False", "yes", 1, 0, None, [], ["x"]])
def test_only_true_shows_harmful_words(trace: demur.Trace, anchors: demur.Anchors, word: Any) -> None:
    assert hidden(trace.prompt, word)
    for view in (trace.scene, lambda **more: anchors.show(trace, **more)):
        with pytest.raises(DemurError, match="show_harmful"):
            view(show_harmful=word)
    assert not hidden(trace.prompt, True)
    assert not hidden(trace.prompt, np.True_)  # type: ignore[arg-type]
    assert hidden(trace.prompt, np.False_)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [None, "t.safetensors", 3, {"a": 1}, ASKED, [None]])
def test_what_is_no_trace_is_one_line(anchors: demur.Anchors, given: Any) -> None:
    for call in (anchors.signals, anchors.show, lambda it: demur.fit_anchors(it, it), lambda it: anchors.beyond(it)):
        with pytest.raises(DemurError, match="in the place of"):
            call(given)


def test_one_trace_is_no_list_and_a_generator_is_one(trace: demur.Trace, anchors: demur.Anchors) -> None:
    for call in (lambda: anchors.signals(trace), lambda: demur.fit_anchors(trace, trace)):  # type: ignore[arg-type]
        with pytest.raises(DemurError, match="one trace in the place of"):
            call()
    assert anchors.signals(one for one in [trace, trace]).shape == (2, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("t", ["1", 1.5, True, 99, -1, np.float64(1)])
def test_a_step_is_a_whole_number(trace: demur.Trace, t: Any) -> None:
    for call in (trace.text, trace.tokens, trace.states, trace.refused, trace.answer, lambda it: trace.frame(it, True)):
        with pytest.raises(DemurError, match="step "):
            call(t)
    assert trace.text(np.int64(2)) == trace.text(2)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [0, -1, 1.5, "4", True])
def test_steps_to_align_are_a_whole_number(trace: demur.Trace, steps: Any) -> None:
    with pytest.raises(DemurError, match="steps="):
        trace.aligned("last", "generated", steps)


@pytest.mark.parametrize("at_least", ["3", 0.5, True, None])
def test_how_many_answers_at_least_is_a_whole_number(trace: demur.Trace, at_least: Any) -> None:
    with pytest.raises(DemurError, match="at_least="):
        demur.fit_anchors([trace], [trace], at_least=at_least)


@pytest.mark.parametrize("given", ["x", 3, [1]])
def test_a_frame_takes_anchors(trace: demur.Trace, given: Any) -> None:
    with pytest.raises(DemurError, match="in the place of anchors"):
        trace.to_frame(given)


@pytest.mark.parametrize("path", [None, 3, b"x", ["a"], "a\0b"])
def test_what_is_no_path_is_one_line(trace: demur.Trace, path: Any) -> None:
    for call in (demur.rows, demur.Anchors.load, demur.Trace.load, trace.save):
        with pytest.raises(DemurError, match="that is no path"):
            call(path)


def test_a_home_is_the_users_and_no_folder_of_that_name(
    trace: demur.Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    assert trace.save("~/kept/t.safetensors") == tmp_path / "home" / "kept" / "t.safetensors"
    assert demur.Trace.load("~/kept/t.safetensors").text() == trace.text()
    assert not list((tmp_path / "here").iterdir())


def test_scripted_refusals_take_one_text_and_a_generator(model: Any) -> None:
    assert len(demur.scripted_refusals(model, "How do I open it?", steps=4)) == 1  # type: ignore[arg-type]
    assert len(demur.scripted_refusals(model, (one for one in ASKED), steps=4)) == 1  # type: ignore[arg-type]


def test_what_holds_a_guard_and_a_sampler_is_looked_at() -> None:
    for given in (None, "g.safetensors", Path("g.safetensors")):
        with pytest.raises(DemurError, match="in the place of a guard"):
            Watch(given)  # type: ignore[arg-type]
    guard: Any = object()
    for settings in ({"hold": 1.5}, {"hold": "2"}, {"late": True}, {"every": 2.0}):
        with pytest.raises(DemurError, match="a whole number"):
            Watch(guard, **settings)  # type: ignore[arg-type]
    for sampler in ("ar", demur.Autoregressive, None, 3):
        with pytest.raises(DemurError, match="in the place of a sampler"):
            Watch(guard)(sampler)  # type: ignore[arg-type]


def test_what_a_guard_is_fitted_on_is_looked_at(anchors: demur.Anchors, trace: demur.Trace) -> None:
    for given, says in ((None, "in the place of anchors"), ("a.safetensors", "in the place of anchors")):
        with pytest.raises(DemurError, match=says):
            fit_guard(given, [trace], [trace])  # type: ignore[arg-type]
    for sides in ((ASKED, ASKED), (trace, trace), (None, None)):
        with pytest.raises(DemurError, match="in the place of traces to fit on"):
            fit_guard(anchors, *sides)  # type: ignore[arg-type]
    with pytest.raises(DemurError, match="upto='4'"):
        fit_guard(anchors, [trace], [trace], upto="4")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [None, 3, b"prefix", ["prefix"]])
def test_what_is_no_name_is_one_line(model: Any, name: Any) -> None:
    for call in (make, judge_named, *([] if name is None else [lambda it: build(it, model)])):
        with pytest.raises(DemurError, match="in the place of a name"):
            call(name)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": "4"}, "steps='4'"), ({"steps": 0}, "steps=0"), ({"settings": "top_k=3"}, "settings of the type str"),
        ({"settings": [1]}, "settings of the type list"), ({"model": None}, "instead of a model"),
        ({"model": "organism/ar"}, "instead of a model"),
    ],
)  # fmt: skip
def test_what_builds_a_sampler_is_looked_at(model: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(DemurError, match=says):
        build("ar", **{"model": model} | settings)


@pytest.mark.parametrize("given", [(None,), (3,), (b"x",), ("I can not.", None), ("Hi", 3), (float("nan"),)])
def test_an_answer_that_is_no_text_is_not_read(given: Any) -> None:
    with pytest.raises(DemurError, match="of the type"):
        read_answer(*given)


def test_what_is_saved_and_loaded_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ("Hi", ASKED[0], None, ["Hi"], [None]):
        with pytest.raises(DemurError, match="prompts"):
            prompts.save(given, tmp_path / "x.jsonl")  # type: ignore[arg-type]
    for place in (None, 3, b"x"):
        with pytest.raises(DemurError, match="no path"):
            prompts.save(ASKED, place)  # type: ignore[arg-type]
        with pytest.raises(DemurError, match="prompts from a"):
            prompts.load(place)  # type: ignore[arg-type]
    prompts.save(ASKED, tmp_path / "x.jsonl")
    for more in ({"columns": "text=a"}, {"columns": ["text"]}, {"harmful": "no"}, {"harmful": 0}):
        with pytest.raises(DemurError, match=r"columns of the type|harmful="):
            prompts.load(tmp_path / "x.jsonl", **more)  # type: ignore[arg-type]
    monkeypatch.setenv("HOME", str(tmp_path))
    prompts.save((one for one in ASKED), "~/y.jsonl")  # type: ignore[arg-type]
    assert [one.text for one in prompts.load("~/y.jsonl")] == [ASKED[0].text]
    assert (tmp_path / "y.jsonl").is_file()


def test_what_has_an_order_is_a_list(model: Any) -> None:
    pairs = {"How do I bake?": "Mix flour.", "What is rye?": "A grain."}
    made = demur.teacher_forced(model, pairs.keys(), pairs.values(), steps=4)
    for asked in (tuple(pairs), iter(pairs), pd.Series([*pairs]), np.array([*pairs]), np.array([*pairs], dtype=object)):
        again = demur.teacher_forced(model, asked, pd.Series([*pairs.values()]), steps=4)
        assert [trace.prompt.text for trace in again] == [trace.prompt.text for trace in made] == [*pairs]
    pools = {("last", "generated"): 1}.keys()
    assert demur.generate(model, pairs.keys(), pools=pools, **SMALL)[1].prompt.text == "What is rye?"
    with pytest.raises(DemurError, match="pairs of a layer"):
        demur.generate(model, ASKED, pools=[["last", "generated"]], **SMALL)


@pytest.mark.parametrize("nothing", [None, float("nan"), np.float64("nan"), pd.NA])
def test_an_empty_cell_of_a_table_is_an_empty_field(nothing: Any) -> None:
    made = demur.Prompt("a", "Hi", category=nothing, source=nothing, licence=nothing, attack=nothing, parent=nothing)
    assert made == demur.Prompt("a", "Hi")


def test_a_path_of_another_library_is_a_path(tmp_path: Path) -> None:
    class Named:
        """A path that is no ``Path``, as pytest's and cloud libraries' are."""

        def __fspath__(self) -> str:
            return str(tmp_path / "p.jsonl")

    own: Any = Named()
    prompts.save(ASKED, own)
    assert prompts.load(own) == ASKED


def test_every_set_by_name_is_known_as_one(model: Any) -> None:
    for name in (*prompts.SETS, *prompts.MORE_SETS, *prompts.PUBLIC):
        with pytest.raises(DemurError, match="of a set of prompts"):
            demur.generate(model, name, **SMALL)
