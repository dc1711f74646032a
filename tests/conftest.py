"""What every test stands on: one thread, reproducible examples, tiny random models made once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from demur.models import Bidirectional, Causal

torch.set_num_threads(1)
threadpool_limits(1)  # NumPy's, too
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start

# ``HYPOTHESIS_PROFILE=wide`` looks at more examples, other ones at every run.
_quiet = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
settings.register_profile("fast", max_examples=30, derandomize=True, **_quiet)
settings.register_profile("wide", max_examples=400, **_quiet)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


LONGEST = (
    "test_docs.py", "test_dist.py", "test_study.py", "test_page.py", "test_laws.py", "test_experiment.py",
    "test_defenses.py", "test_endpoint_runs.py", "test_families.py", "test_misuse.py", "test_detectors.py",
    "test_plugins.py", "test_cli.py", "test_models.py", "test_online.py", "test_exactness.py", "test_units.py",
    "test_protocol.py", "test_organism.py", "test_guards.py", "test_judges.py", "test_replies.py", "test_hf.py",
    "test_making.py",
)  # fmt: skip
"""Files that take longest, in their order: begun first, or else one worker ends alone. What is not here follows."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first; the order within a file stays."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


LOADING_ITSELF = ("test_models.py", "test_loading.py", "test_families.py")


@pytest.fixture(scope="session", autouse=True)
def built_in_models_are_loaded_once() -> Iterator[None]:
    """The built-in models stay loaded from test to test, as they do in a notebook; loading SmolLM2 takes seconds of a
    core. Files that test loading itself load anew, and so does what was asked for in another way before.
    """
    import demur.models.loading
    from demur.models import BUILT_IN

    load, kept = demur.models.loading._load, {}

    def remembered(name: str, *rest: Any, **more: Any) -> Any:
        if name not in BUILT_IN or any(file in os.environ.get("PYTEST_CURRENT_TEST", "") for file in LOADING_ITSELF):
            return load(name, *rest, **more)
        key = (name, *map(str, rest), *(f"{what}={value}" for what, value in sorted(more.items()) if what != "source"))
        if key not in kept:
            kept[key] = load(name, *rest, **more)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demur.models.loading, "_load", remembered)
        yield


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


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs ``demur`` in an empty folder: exit code, output, errors."""
    from demur import cli

    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["demur", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call
