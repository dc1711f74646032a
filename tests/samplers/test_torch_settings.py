"""A caller who works in another precision (``torch.set_default_dtype``), or without gradients, gets the same tokens,
states and guards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import small
import test_families
import torch
from test_given import padded

from demur.guards import DETECTORS
from demur.samplers import Renoise, build
from demur.traces import Trace, generate
from demur.types import Prompt

ASKED = [Prompt("a", "Tell me"), Prompt("b", "How do I open it?")]
OTHER = (torch.float64, torch.bfloat16, torch.float16)


@contextmanager
def default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SUBJECTS: dict[str, Any] = {
    **{name: lambda name=name: (small.causal("llama"), small.ar_samplers()[name]) for name in ("greedy", "filtered")},
    **{
        f"masked {name}": lambda name=name: (small.diffusion("llada"), small.diffusion_samplers()[name])
        for name in small.diffusion_samplers()
    },
    **{
        name: lambda name=name: (small.diffusion("dream"), build(name, small.diffusion("dream"), steps=6))
        for name in ("dream", "mdlm", "entropy", "margin", "revising")
    },
    "sdar": lambda: (small.blocks("qwen3"), build("sdar", small.blocks("qwen3"), steps=6)),
    "llada2": lambda: (small.block("start"), build("llada2", small.block("start"), steps=6)),
    "joint-threshold": lambda: (small.block("start"), build("joint-threshold", small.block("start"))),
    "nemotron": lambda: (small.seeding(4), build("nemotron", small.seeding(4))),
    "renoising": lambda: (
        replace(test_families.model("gemma-diffusion"), tokenizer=padded()),
        Renoise(steps=5, entropy_bound=1.0),
    ),
}


def answers(model: Any, sampler: Any) -> list[Trace]:
    return generate(model, ASKED, sampler, length=8, steps=6, seed=3)


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_default_precision_changes_nothing(name: str) -> None:
    model, sampler = SUBJECTS[name]()
    if hasattr(sampler, "temperature") and name in ("dream", "mdlm", "entropy", "sdar", "llada2"):
        sampler = replace(sampler, temperature=0.8)
    plain = answers(model, sampler)
    for dtype in OTHER:
        with default(dtype):
            again = answers(model, sampler)
        for ours, theirs in zip(again, plain, strict=True):
            small.assert_same(ours, theirs, tolerance=0.0)
            np.testing.assert_array_equal(ours.phi["last", "generated"], theirs.phi["last", "generated"])


def test_what_torch_is_set_to_changes_no_detector() -> None:
    signals = np.random.default_rng(0).random((40, 8))
    fit = DETECTORS.get("autoencoder").fit
    plain = fit(signals, seed=1)
    for dtype in OTHER:
        with default(dtype):
            again = fit(signals, seed=1)
        np.testing.assert_array_equal(again(signals), plain(signals))
    for without in (torch.no_grad, torch.inference_mode):  # a detector is fitted there, too
        with without():
            np.testing.assert_array_equal(fit(signals, seed=1)(signals), plain(signals))
