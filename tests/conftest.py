"""What every test stands on: one thread, reproducible examples, tiny random models made once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from demur.models import Bidirectional, Causal

torch.set_num_threads(1)

# ``HYPOTHESIS_PROFILE=wide`` looks at more examples, other ones at every run.
_quiet = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
settings.register_profile("fast", max_examples=30, derandomize=True, **_quiet)
settings.register_profile("wide", max_examples=400, **_quiet)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture(scope="session")
def llama() -> Causal:
    """A tiny causal model with a byte-level tokenizer."""
    import small

    return small.causal("llama")


@pytest.fixture(scope="session")
def llada() -> Bidirectional:
    """A tiny masked-diffusion model with a byte-level tokenizer."""
    import small

    return small.diffusion("llada")
