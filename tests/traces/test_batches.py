"""Batches for the memory there is: ``auto`` finds what fits, a number that does not fit names one that does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import demur
from demur.experiment import read
from demur.experiment.answers import run_prompts
from demur.models import memory
from demur.models.sizes import memory_of
from demur.samplers import Autoregressive
from demur.traces import batches
from demur.types import DemurError, DemurWarning

PROMPTS = [demur.Prompt(str(i), "How do I open the granary?"[: 12 + 2 * i], harmful=False) for i in range(8)]


@pytest.fixture(scope="module")
def model() -> Any:
    return demur.load("organism/ar", device="cpu")


@pytest.fixture
def limited(model: Any) -> Iterator[Callable[..., list[int]]]:
    """Makes the network run out of memory above so many rows; the rows of every pass so far."""
    handles = []

    def limit(most: int, error: Callable[[], Exception] = lambda: torch.OutOfMemoryError("full")) -> list[int]:
        seen: list[int] = []

        def check(_module: Any, _args: Any, given: dict[str, Any]) -> None:
            seen.append(len(given["input_ids"]))
            if seen[-1] > most:
                raise error()

        handles.append(model.net.get_decoder().register_forward_pre_hook(check, with_kwargs=True))
        return seen

    yield limit
    for handle in handles:
        handle.remove()


def test_a_batch_that_does_not_fit_names_one_that_does(model: Any, limited: Any) -> None:
    limited(3)
    with pytest.raises(DemurError) as caught:
        demur.generate(model, PROMPTS, length=4, batch=8)
    said = str(caught.value)
    assert said.startswith("8 rows at once do not fit into the memory of cpu; expected a batch of 2, which does")
    assert "batch='auto'" in said
    assert "\n" not in said
    assert len(demur.generate(model, PROMPTS, length=4, batch=2)) == 8  # as it says


def test_where_not_even_a_row_fits_no_batch_is_named(model: Any, limited: Any) -> None:
    limited(0)
    for batch in (4, "auto"):
        with pytest.raises(DemurError, match=r"(1 row|4 rows) at once") as caught:
            demur.generate(model, PROMPTS[:4], length=4, batch=batch)
        assert "batch of" not in str(caught.value)


def test_where_not_even_a_row_fits_the_line_names_what_would(
    model: Any, limited: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    need = {n: _of_a_row(model, n) for n in (4, 32, 64)}
    assert need[4] < need[32] < need[64]
    monkeypatch.setattr(memory, "free_memory", lambda _device: (need[32] + need[64]) / 2 / memory.SHARE)
    limited(0)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: r\nmodels: [organism/ar]\nprompts: {harmful: organism, harmless: organism, n: 8}\nlength: 64\n"
    )
    config = replace(read(recipe), batch="auto")
    for run in (
        lambda: demur.generate(model, PROMPTS[:1], length=64, batch="auto"),
        lambda: run_prompts(config, model, Autoregressive(), PROMPTS[:1], 0),
    ):
        with (
            pytest.warns(DemurWarning, match="not even one row of .* an answer of 32 places would fit"),
            pytest.raises(DemurError, match="an answer of 32 places would fit, by an estimate"),
        ):
            run()
    with pytest.raises(DemurError, match="an answer of 32 places would fit"):
        demur.generate(model, PROMPTS, length=64, batch=8)
    monkeypatch.setattr(memory, "free_memory", lambda _device: 1)
    with pytest.warns(DemurWarning), pytest.raises(DemurError, match="take shorter answers; or take another dtype"):
        demur.generate(model, PROMPTS[:1], length=64, batch="auto")


def _of_a_row(model: Any, length: int) -> float:
    prompt = model.canvas(PROMPTS[:1], 1).width - 1
    shape, kind, dtype = memory._known(model)  # type: ignore[misc]
    need = memory_of(shape, kind, dtype, batch=1, prompt=prompt, length=length, steps=32)
    return sum(need.values()) - need["weights"] - need["context and spare"]


def test_auto_halves_until_it_fits_and_no_row_depends_on_it(model: Any, limited: Any) -> None:
    expected = demur.generate(model, PROMPTS, length=6, batch=1)
    seen = limited(3)
    found = demur.generate(model, PROMPTS, length=6, batch="auto")
    tried = list(dict.fromkeys(seen))
    assert tried == [8, 4, 2]
    assert seen[seen.index(2) :] == [2] * (len(seen) - 2), "no later group is larger"
    for got, alone in zip(found, expected, strict=True):
        assert np.array_equal(got.commits, alone.commits)
        assert np.allclose(got.phi["last", "generated"], alone.phi["last", "generated"], atol=1e-5)


def test_the_allocator_of_a_cpu_is_heard_and_other_errors_are_not_swallowed(model: Any, limited: Any) -> None:
    limited(4, lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."))
    assert len(demur.generate(model, PROMPTS, length=4, batch="auto")) == 8
    limited(0, lambda: RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        demur.generate(model, PROMPTS, length=4, batch="auto")


def test_a_plan_goes_by_the_memory_that_is_free(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"rows": 32, "prompt": 100, "length": 100, "steps": 32}
    sizes = []
    for free in (10**12, 50_000_000, 20_000_000, 1):
        monkeypatch.setattr(memory, "free_memory", lambda _device, free=free: free)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            sizes.append(memory.batch_that_fits(model, **asked))
        assert len(said) == (free == 1), "where not even one row fits, it says so"
    assert sizes[0] == 32
    assert sizes == sorted(sizes, reverse=True)
    assert 1 < sizes[1] < 32
    assert sizes[-1] == 1
    monkeypatch.setattr(memory, "free_memory", lambda _device: None)
    assert memory.batch_that_fits(model, **asked) == memory.UNKNOWN


def test_a_control_group_limits_what_is_free(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/job/step\n")
    for folder, most in (("job", "1000"), ("job/step", "max")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "memory.max").write_text(f"{most}\n")
        (tmp_path / folder / "memory.current").write_text("700\n")
        (tmp_path / folder / "memory.stat").write_text("anon 5\ninactive_file 100\n")
    assert list(memory._left_in_groups(tmp_path, own)) == [400]
    assert memory.free_memory(torch.device("cpu")) > 0
    assert memory.free_memory(torch.device("meta")) is None


@pytest.mark.parametrize("batch", [0, -1, "all"])
def test_what_is_no_batch_is_one_line(model: Any, batch: Any) -> None:
    with pytest.raises(DemurError, match="batch="):
        demur.generate(model, PROMPTS, batch=batch)


@pytest.mark.slow
def test_a_recipe_may_leave_the_batch_to_the_memory(tmp_path: Path, model: Any, limited: Any) -> None:
    recipe = tmp_path / "r.yaml"
    prompts = "prompts: {harmful: organism, harmless: organism, n: 8}"
    recipe.write_text(f"name: r\nmodels: [organism/ar]\n{prompts}\nbatch: auto\n")
    config = read(recipe)
    assert config.batch == "auto"

    expected = run_prompts(read_with(recipe, tmp_path, "1"), model, Autoregressive(), PROMPTS, 0)
    limited(3)
    found = run_prompts(config, model, Autoregressive(), PROMPTS, 0)
    assert [t.commits.tolist() for t in found] == [t.commits.tolist() for t in expected]
    with pytest.raises(DemurError, match="batch"):
        read_with(recipe, tmp_path, "some")


def read_with(recipe: Path, folder: Path, batch: str) -> Any:
    other = folder / "other.yaml"
    other.write_text(recipe.read_text().replace("auto", batch))
    return read(other)


def test_a_plan_measures_the_longest_prompt(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {}
    monkeypatch.setattr(batches, "batch_that_fits", lambda _model, **sizes: seen.update(sizes) or 1)
    batches.plan(model, PROMPTS, length=5, steps=32)
    assert seen["prompt"] == model.canvas([PROMPTS[-1]], 5).width - 5
    assert (seen["rows"], seen["length"]) == (8, 5)
