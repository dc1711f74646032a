"""benchmarks/rivals.py: everything beside the guard is timed in the same rounds, on answers that it lets pass."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import tiny
import torch
from transformers import LlamaConfig

from demur.defenses import DEFENSES
from demur.models import Causal
from demur.types import Prompt

LENGTH = 26
SHAPE = {
    "vocab_size": small.VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "guard_inner_size": 8,
}  # fmt: skip


@pytest.fixture
def rivals(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    for name in ("rivals", "cost", "measure", "run"):
        sys.modules.pop(name, None)
    import rivals

    return rivals


@pytest.fixture
def model() -> Causal:
    llama = small.causal("llama")
    config = LlamaConfig(**llama.net.config.to_dict() | {"max_position_embeddings": 2048})
    talks = small.byte_level("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
                             "{% if add_generation_prompt %}assistant: {% endif %}")  # fmt: skip
    return Causal(net=tiny.native(config, seed=8), tokenizer=talks, identity=llama.identity)


@pytest.mark.slow
def test_every_rival_is_timed_beside_the_generation_of_its_own_round(
    rivals: Any, model: Causal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The quick mode, to its end."""
    out = tmp_path / "rivals.json"
    monkeypatch.setattr(rivals.demur, "load", lambda name, **how: model)
    arguments = ["tiny", "--quick", "--length", str(LENGTH), "--batch", "1", "--batch", "2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["rivals.py", *arguments])
    threads = torch.get_num_threads()
    try:
        assert rivals.main() == 0
    finally:
        torch.set_num_threads(threads)
    found = json.loads(out.read_text())
    assert [len(of["runs"]) for of in found["seconds"]] == [1, 1], "the first round is not counted"
    for batch in (1, 2):
        case = f"tiny, batch {batch}, {LENGTH} tokens, processor"
        took = {ratio["what"]: ratio for ratio in found["ratios"] if ratio["case"] == case}
        assert all(len(ratio["pairs"]) == 1 and np.isfinite(ratio["pairs"]).all() for ratio in took.values())
        left = {"sri-guard-offline", "diffuguard"}  # a look, under its own name, and for diffusion models alone
        assert {*DEFENSES.own} - left <= {what.split(",")[0] for what in took}
        assert {*rivals.MONITORS, "look: the default guard"} <= {*took}
        assert took["any-depth, every 10"]["median"] > took["any-depth, every 25"]["median"] > 0
        assert took["sri-guard, default, every step"]["median"] > took[rivals.LAST_PASS]["median"] > 0
        said = capsys.readouterr().out if batch == 1 else said
        assert case in said
    assert said.count("\n| self-examine | ") == 3, "after each batch size, and both at the end"


def test_the_moderation_models_share_a_trunk_and_read_the_whole_answer(
    rivals: Any, model: Causal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [Prompt(str(i), f"Prompt {i} about {i * i}") for i in range(24)]
    bench = rivals.Bench.of(model, asked, LENGTH, 4, rivals.SHAPE | SHAPE)
    assert [trace.steps for trace in bench.traces] == [LENGTH] * 4, "answers that end early are not asked"
    trunk, widths = bench.gen.net.model, []
    assert bench.stream.net.model is trunk
    whole = type(trunk).forward

    def counted(self: Any, *args: Any, **named: Any) -> Any:
        widths.append(named["input_ids"].shape[1])
        return whole(self, *args, **named)

    monkeypatch.setattr(type(trunk), "forward", counted)
    said = len(model.tokenizer(bench.traces[0].answer(), add_special_tokens=False)["input_ids"])
    rivals.Moderation(bench.gen, form="qwen3guard", tokens=rivals.SAID).review(bench.traces[:1])
    assert widths[0] > said, "request and answer, in one pass"
    assert widths[1:] == [1] * (rivals.SAID - 1), "and as many tokens as a verdict has"
    widths.clear()
    rivals.TokenModeration(bench.stream).review(bench.traces[:1])
    (width,) = widths
    assert width > said


def test_answers_that_end_early_leave_too_few_and_that_is_said(rivals: Any, model: Causal) -> None:
    with pytest.raises(SystemExit, match="answers have 26 tokens, and 4 are wanted"):
        rivals.Bench.of(model, [Prompt("q", "One")], LENGTH, 4, rivals.SHAPE | SHAPE)
