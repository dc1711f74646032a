"""A setting of another type than its field's is refused, in recipes and in Python: none is taken as something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import one_line

from demur.attacks.named import make
from demur.defenses import check
from demur.experiment import read
from demur.models import load
from demur.models.chat import Chat
from demur.samplers import Autoregressive, MaskedDiffusion
from demur.traces import Trace, generate
from demur.types import DemurError

pytest.importorskip("yaml")

RECIPE = """name: x
models: [organism/ar]
prompts: {harmful: organism, harmless: organism, n: 8, controls: 4, anchors: 8, fit: 64, calibrate: 100, plain: 8}
"""
LLM = "judge: {llm: {model: m, base_url: 'http://h/v1', "


@pytest.mark.parametrize(
    "line",
    [
        "defenses: [{moderation: {model: m, strict: no}}]",
        "defenses: [{moderation: {model: m, strict: 'false'}}]",
        "defenses: [{moderation: {model: m, threshold: true}}]",
        "defenses: [{moderation: {model: m, threshold: '0.5'}}]",
        "defenses: [{token-moderation: {model: m, strict: off}}]",
        "defenses: [{any-depth: {every: true}}]",
        "defenses: [{any-depth: {tokens: 2.5}}]",
        "defenses: [{perplexity: {alpha: 5e-2}}]",
        f"{LLM}budget: {{requests: true}}}}}}",
        f"{LLM}budget: {{requests: '100'}}}}}}",
        f"{LLM}budget: {{tokens: 2.7}}}}}}",
        f"{LLM}timeout: true}}}}",
        f"{LLM}patience: '60'}}}}",
        f"{LLM}threshold: 4.5}}}}",
    ],
)
def test_a_recipe_s_setting_of_another_kind_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "e.yaml").write_text(f"{RECIPE}{line}\n")
    with pytest.raises(DemurError, match=r"line 4: .* with a setting of another kind"):
        read(tmp_path / "e.yaml")


@pytest.mark.parametrize("settings", ["temperature: true", "cache: no", "top_k: 1.0", "top_k: '5'", "temperature: '0'"])
def test_so_is_one_of_a_sampler(tmp_path: Path, settings: str) -> None:
    models = f"{{name: organism/ar, samplers: [{{ar: {{{settings}}}}}]}}"
    (tmp_path / "e.yaml").write_text(RECIPE.replace("[organism/ar]", models))
    with pytest.raises(DemurError, match="sampler ar with a setting of another kind"):
        read(tmp_path / "e.yaml")


@pytest.mark.parametrize(
    "made",
    [
        lambda: Autoregressive(cache="no"),  # type: ignore[arg-type]
        lambda: Autoregressive(temperature=True),
        lambda: MaskedDiffusion(steps=True),
        lambda: MaskedDiffusion(block_length=8.0),  # type: ignore[arg-type]
    ],
)
def test_python_is_told_too(made: Any) -> None:
    with pytest.raises(DemurError, match="with a setting of another kind"):
        made()


def test_what_fits_is_taken(tmp_path: Path) -> None:
    check("moderation", {"model": "m", "strict": True, "threshold": 1})
    check("perplexity", {"alpha": 0.01})
    Autoregressive(temperature=1, top_k=5, cache=False)
    MaskedDiffusion(steps=None, suppress=[1, 2])  # type: ignore[arg-type]
    (tmp_path / "e.yaml").write_text(
        f"{RECIPE}{LLM}threshold: 4, timeout: 5, budget: {{requests: null, tokens: 9}}}}}}\n"
    )
    read(tmp_path / "e.yaml")


@pytest.mark.parametrize("question", ["Is this harmful?", "Say yes or no.", "{{prompt}} {{answer}}"])
def test_self_examination_asks_about_something(question: str) -> None:
    with pytest.raises(DemurError, match="neither the request nor the answer"):
        check("self-examine", {"question": question})
    check("self-examine", {"question": question + " {answer}"})
    check("self-examine", {"question": question + " {prompt}"})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("prefill", {"beginning": ""}),
        ("prefill", {"beginning": "\u200b \u3164"}),
        ("prefix", {"beginning": " "}),
        ("role", {"who": ""}),
        ("delay", {"paragraph": "\n"}),
        ("suppression", {"banned": []}),
        ("suppression", {"banned": ["sorry", ""]}),
    ],
)
def test_an_attack_without_words_is_none(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(DemurError, match="it says nothing"):
        make(name, **settings)


class _Tokenizer:
    """What :class:`Chat` looks at of a tokenizer before it is used."""

    chat_template = "{% if enable_thinking %}<think>{% endif %}{% if mode == 'off' %}x{% endif %}{{ messages }}"


@pytest.mark.parametrize("word", ["false", "False", "no", "No", "on", "none", "null", "0", "true", "yes", " no "])
def test_a_word_for_true_or_false_is_none_in_a_template(word: str) -> None:
    with pytest.raises(DemurError, match="which a template takes as true") as caught:
        Chat(_Tokenizer(), None, {"enable_thinking": word})
    assert "enable_thinking=false" in one_line(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("enable_thinking", False), ("mode", "off"), ("mode", "deep"), ("mode", 0), ("enable_thinking", "")],
)
def test_what_a_template_knows_is_taken(name: str, value: object) -> None:
    assert Chat(_Tokenizer(), None, {name: value}).template_args == {name: value}


@pytest.mark.parametrize("hidden", ["take the powder", ["take", "powder"], {"take": "powder"}, ("powder" * 5,)])
def test_an_error_shows_no_words_that_may_be_a_request(hidden: Any) -> None:
    for wrong in (
        lambda: make("prefix", beginning=hidden if not isinstance(hidden, str) else [hidden]),
        lambda: make("many-shot", shots=hidden),
        lambda: check("moderation", {"model": "m", "strict": hidden}),
        lambda: check("perplexity", {"alpha": hidden}),
    ):
        with pytest.raises(DemurError) as caught:
            wrong()
        assert "powder" not in one_line(caught.value)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("role", {"who": "somebody with powder"}),
        ("suppression", {"banned": ("powder",)}),
        ("delay", {"paragraph": "Of powder."}),
        ("prefill", {"beginning": "Take the powder"}),
        ("prefix", {"beginning": "Take the powder"}),
        ("infill", {"mask": "<m>", "leads": ("Take the powder",)}),
    ],
)
def test_an_attack_shows_no_words_that_it_holds(name: str, settings: dict[str, Any]) -> None:
    assert "powder" not in repr(make(name, **settings))


def test_numbers_of_numpy_are_numbers_and_are_saved_as_such(tmp_path: Path) -> None:
    """A sweep over an array hands them on, and a file holds none of them."""
    sampler = Autoregressive(np.float32(0.5), top_k=np.int64(5), top_p=np.float64(0.5), cache=np.bool_(False))  # type: ignore[arg-type]
    plain = Autoregressive(0.5, top_k=5, top_p=0.5, cache=False)
    model, seed = load("organism/ar"), np.int64(3)
    found, same = (
        generate(model, ["Hi"], one, length=int(n), steps=n, seed=s)[0]  # type: ignore[arg-type]
        for one, n, s in ((sampler, np.int64(4), seed), (plain, 4, 3))
    )
    found.save(tmp_path / "found.safetensors")
    assert Trace.load(tmp_path / "found.safetensors").spec == same.spec
    assert found.text() == same.text()
    with pytest.raises(DemurError, match="true or false"):
        Autoregressive(cache=np.int64(0))  # type: ignore[arg-type]


def test_counts_of_a_tensor_are_numbers_and_are_saved_as_such(tmp_path: Path) -> None:
    model, three = load("organism/diffusion"), torch.tensor(3)
    found = generate(model, ["Hi"], length=three, steps=three)[0]  # type: ignore[arg-type]
    found.save(tmp_path / "found.safetensors")
    read, same = Trace.load(tmp_path / "found.safetensors"), generate(model, ["Hi"], length=3, steps=3)[0]
    assert not read.spec.differences(same.spec)
    assert read.text() == same.text()
