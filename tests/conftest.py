"""What every test stands on: one thread, reproducible examples, tiny random models made once."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, settings

import small
from demur.models import Bidirectional, Causal

torch.set_num_threads(1)

# ``HYPOTHESIS_PROFILE=wide`` looks at more examples, other ones at every run.
_quiet = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
settings.register_profile("fast", max_examples=30, derandomize=True, **_quiet)
settings.register_profile("wide", max_examples=400, **_quiet)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture(scope="session")
def model() -> Callable[[str], Causal | Bidirectional]:
    """A tiny model by name: ``small.CAUSAL`` or ``small.DIFFUSION``."""
    return small.model


@pytest.fixture(scope="session")
def llama() -> Causal:
    """A causal model with a byte-level tokenizer."""
    return small.model("llama")


@pytest.fixture(scope="session")
def llada() -> Bidirectional:
    """A masked-diffusion model with a byte-level tokenizer."""
    return small.model("llada")
