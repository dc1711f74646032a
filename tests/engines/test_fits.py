"""Whether a guard belongs to an engine, and what a spec says of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_guards import made

from demur import load
from demur.engines.vllm import fits
from demur.guards import Guard
from demur.models.locate import organism_path
from demur.types import DemurError, Spec

OURS = made().spec
ENGINE = fits.Engine("vllm", "0.32.0", "m", "float32")
CALIBRATED = replace(OURS, engine="vllm", engine_version="0.32.0")


def differences(spec: Spec, engine: fits.Engine = ENGINE, weights: str = "w", template: Any = "none") -> str:
    return "; ".join(fits.differences(spec, engine, weights, template))


def test_a_guard_of_the_same_function_belongs_and_so_does_one_that_was_calibrated_there() -> None:
    assert not differences(OURS)
    assert not differences(CALIBRATED)
    assert not differences(replace(CALIBRATED, quantization="fp8", kv_dtype="fp8"),
                           replace(ENGINE, quantization="fp8", kv_dtype="fp8"))  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "engine", "word"),
    [
        (OURS, replace(ENGINE, quantization="fp8"), "quantization"),
        (OURS, replace(ENGINE, kv_dtype="fp8"), "kv_dtype"),
        (OURS, replace(ENGINE, dtype="bfloat16"), "dtype"),
        (CALIBRATED, replace(ENGINE, version="0.33.0"), "engine_version"),
        (replace(CALIBRATED, engine="other"), ENGINE, "engine"),
        (replace(CALIBRATED, quantization="fp8"), ENGINE, "quantization"),
        (replace(OURS, weights="v"), ENGINE, "weights"),
        (replace(OURS, template="t"), ENGINE, "template"),
        (replace(OURS, sampler="MaskedDiffusion"), ENGINE, "sampler"),
    ],
)
def test_one_of_something_else_does_not(spec: Spec, engine: fits.Engine, word: str) -> None:
    assert differences(spec, engine).startswith(f"{word}:")


def test_weights_that_can_not_be_read_are_no_match() -> None:
    assert "weights" in differences(OURS, weights="")
    assert fits.folder_fingerprint("owner/name-on-the-hub", "float32") == ""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_fingerprint_of_a_folder_is_that_of_the_loaded_network(dtype: str) -> None:
    model = load("organism/ar", dtype=dtype)
    assert fits.folder_fingerprint(str(organism_path("organism/ar")), dtype) == model.identity.weights


def test_what_does_not_belong_is_refused_in_one_line_or_noted_where_the_operator_says_so(tmp_path: Path) -> None:
    engine = replace(ENGINE, model=str(tmp_path))
    with pytest.raises(DemurError, match="weights") as error:
        fits.check(OURS, engine, "", None, unchecked=False)
    assert "\n" not in str(error.value)
    assert "weights" in fits.check(OURS, engine, "", None, unchecked=True)[0]


def test_a_guard_keeps_its_engine_in_its_file_and_one_without_has_the_bytes_of_before(tmp_path: Path) -> None:
    plain = made()
    there = replace(plain, anchors=replace(plain.anchors, spec=replace(
        plain.spec, engine="vllm", engine_version="0.32.0", quantization="fp8", kv_dtype="fp8")))  # fmt: skip
    read = Guard.load(there.save(tmp_path / "g.safetensors")).spec
    assert (read.engine, read.engine_version, read.quantization, read.kv_dtype) == ("vllm", "0.32.0", "fp8", "fp8")
    assert not {"engine", "engine_version", "quantization", "kv_dtype"} & {*plain.spec.plain()}
    assert read.key != plain.spec.key
    with pytest.raises(DemurError, match="engine"):
        there.check(replace(plain.spec, layer="", pool=""))
