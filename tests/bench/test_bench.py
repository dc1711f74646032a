"""demur bench: variants in turns, ratios of neighbours, and a sheet that names the machine and nobody else."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import small
import torch

import demur
from demur import cli
from demur.bench import as_json, as_markdown, bench, in_turns, machine, plain
from demur.bench.cases import _differences, asked
from demur.bench.machine import named
from demur.bench.measure import Compared, Took, compared
from demur.samplers import Autoregressive, MaskedDiffusion, seeded
from demur.traces import generate


def test_variants_take_turns_in_changing_order_and_are_waited_for() -> None:
    seen: list[str] = []
    waits: list[int] = []
    variants = {name: (lambda name=name: seen.append(name) or name) for name in "abc"}
    took, gave = in_turns(variants, 4, waited=lambda: waits.append(len(seen)))
    rounds = ["".join(seen[i : i + 3]) for i in range(0, 12, 3)]
    assert rounds == ["abc", "cba", "bca", "acb"]
    assert {name: len(runs) for name, runs in took.items()} == {"a": 4, "b": 4, "c": 4}
    assert gave == {"a": "a", "b": "b", "c": "c"}
    assert waits == [n for i in range(12) for n in (i, i + 1)], "before and behind every run"


def test_a_ratio_is_of_one_round_and_its_promise_goes_by_the_steadier_time() -> None:
    took = {"x": [Took(2.0, 1.0), Took(9.0, 1.1)], "y": [Took(1.0, 1.0), Took(3.0, 1.0)]}
    ratio = compared(took, "x", "y", 1.1)
    assert (ratio.wall, ratio.processor) == ((2.0, 3.0), (1.0, 1.1))
    assert ratio.steadier == ratio.processor
    assert ratio.met is True
    assert Compared("x", (1.2,), (1.3,), 1.1).met is False
    assert Compared("x", (1.2,), (1.3,)).met is None


@pytest.mark.parametrize("name", ["organism/ar", "organism/diffusion"])
def test_the_bare_way_writes_the_tokens_of_the_sampler(name: str) -> None:
    model: Any = demur.load(name, device="cpu")
    canvas = model.canvas(asked(model, 3), 8)
    assert bool(canvas.pad.any()), "prompts of different lengths, so that there is padding"
    if name.endswith("ar"):
        sampler, tokens = Autoregressive(), plain.generated(model, canvas, 8)
    else:
        sampler, tokens = MaskedDiffusion(steps=4), plain.denoised(model, canvas, 8, 4)
    *_, last = sampler(model.watching(), canvas, seeded(0, 3))
    ours = last.ids[:, -8:]
    assert tokens.shape[1] <= 8
    assert torch.equal(tokens, ours[:, : tokens.shape[1]])
    assert model.net.generation_config.temperature == demur.load(name, device="cpu").net.generation_config.temperature


def test_a_bench_has_every_variant_and_no_difference(tmp_path: Path) -> None:
    model: Any = demur.load("organism/ar", device="cpu")
    found = bench(model, batches=(2,), lengths=(3, 100_000), rounds=1)
    (case,) = found.cases
    assert set(case.seconds) == {"bare", "demur", "capture", "capture, producing", "guard", "replay"}
    assert {ratio.what for ratio in case.ratios} >= {"capture / bare", "guard / bare", "bare / replay"}
    assert case.notes == ()
    assert any("100000 tokens was left out" in note for note in found.notes)
    assert all(ratio.most is None for ratio in case.ratios), "nothing is promised for so small a model"
    sheet = as_markdown([found])
    for word in (
        found.machine["processor"],
        f"torch {metadata.version('torch')}",
        "| 2 | 3 | capture |",
        "! batch 2, 100000",
    ):
        assert word in sheet
    (again,) = json.loads(as_json([found]))["benches"]
    assert again["machine"]["demur"]
    assert again["cases"][0]["ratios"][0]["median_wall"] > 0


def test_a_sheet_names_neither_the_machine_nor_its_folders(tmp_path: Path) -> None:
    import getpass
    import platform

    text = json.dumps(machine(torch.device("cpu")))
    assert platform.node() not in text or not platform.node()
    assert f"/{getpass.getuser()}" not in text
    (tmp_path / "mine").mkdir()
    assert named(str(tmp_path / "mine")) == "mine"
    assert named("owner/model") == "owner/model"


def test_what_differs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = demur.load("organism/ar", device="cpu")
    real = plain.generated

    def other(*how: Any) -> Any:
        tokens = real(*how)
        tokens[0] += 1
        return tokens

    monkeypatch.setattr(plain, "generated", other)
    (case,) = bench(model, batches=(2,), lengths=(3,), rounds=1).cases
    assert case.notes == ("1 of 2 rows of `bare` have other tokens than the captured ones",)


def test_a_case_that_does_not_fit_into_memory_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = demur.load("organism/ar", device="cpu")
    real = plain.generated

    def full(model: Any, canvas: Any, length: int) -> Any:
        if canvas.rows > 2:
            raise torch.OutOfMemoryError("out of memory")
        return real(model, canvas, length)

    monkeypatch.setattr(plain, "generated", full)
    found = bench(model, batches=(3, 2), lengths=(3,), rounds=1)
    assert [case.batch for case in found.cases] == [2]
    assert found.notes == ("batch 3, 3 tokens was left out: memory ran out on cpu",)


def test_a_sheet_speaks_of_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    masked: Any = demur.load("organism/diffusion", device="cpu")
    for model, absent in ((masked, ("`replay`",)), (small.blocks("qwen3"), ("`replay`", "`bare`"))):
        found = bench(model, batches=(1,), lengths=(4,), rounds=1)
        (said,) = [line for line in as_markdown([found]).splitlines() if "One round, so no spread is known" in line]
        for name in {*found.cases[0].seconds} - {"capture, producing"}:
            assert f"`{name}`" in said
        assert not any(name in said for name in absent)
    monkeypatch.chdir(tmp_path)
    arguments = ["organism/ar", "no/such-model", "--batch", "1", "--length", "4", "--rounds", "1", "--out", "b"]
    monkeypatch.setattr(sys, "argv", ["demur", "bench", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code
    assert "capture / bare" in capsys.readouterr().out, "a model that fails takes nothing away from the one before"
    assert json.loads((tmp_path / "b.json").read_text())["benches"][0]["model"] == "organism/ar"


def test_the_command_writes_both_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["organism/diffusion", "--batch", "1", "--length", "4", "--rounds", "1", "--out", "b.md"]
    monkeypatch.setattr(sys, "argv", ["demur", "bench", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert "capture / bare" in capsys.readouterr().out
    assert "organism/diffusion" in (tmp_path / "b.md").read_text()
    assert json.loads((tmp_path / "b.json").read_text())["format"] == 1


def test_answers_that_end_early_are_compared_up_to_their_end() -> None:
    model = small.ending(small.causal("llama"), *range(60, 200))
    traces = generate(model, small.PROMPTS, length=16)
    assert min(trace.steps for trace in traces) < 16
    rows = torch.tensor([[max(token, 0) for token in trace.tokens().tolist()] for trace in traces])
    assert not list(_differences({"bare": rows}, traces))
    rows[1, 0] += 1
    assert list(_differences({"bare": rows}, traces)) == [
        f"1 of {len(traces)} rows of `bare` have other tokens than the captured ones"
    ]
