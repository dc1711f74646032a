"""What is asked is asked once: dice by prompt, kept answers, several pooled states at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

from demur.ablation.material import LAST, Material
from demur.ablation.recording import gather, row_seeds
from demur.ablation.rivals import CAUSAL_KEYS
from demur.samplers import Autoregressive
from demur.traces import Kept, Trace, generate
from demur.types import DemurError, Prompt

ASKED = [Prompt(f"q{i}", f"Question {i}", harmful=False) for i in range(6)]
THROWN = Autoregressive(temperature=1.5)
SIZES: dict[str, Any] = {"length": 6, "steps": 6, "pools": CAUSAL_KEYS}


def answers(prompts: list[Prompt], kept: Kept | None = None, seed: int = 0, batch: int = 4) -> Material:
    return gather(small.causal("llama"), "set", prompts, THROWN, **SIZES, seed=seed, batch=batch, kept=kept)


def traces_in(kept: Kept) -> dict[str, Trace]:
    found = [Trace.load(path) for path in kept.folder.rglob("*.safetensors")]
    return {f"{trace.prompt.id} {trace.spec.seed}": trace for trace in found}


def test_a_prompt_has_the_same_answer_in_every_split(tmp_path: Path) -> None:
    """Dice by place in a set gave a prompt another answer, and another file, after every shuffle."""
    one, other = Kept(tmp_path / "one"), Kept(tmp_path / "other")
    answers(ASKED[:4], one)
    answers(ASKED[2:], other, batch=3)
    first, second = traces_in(one), traces_in(other)
    shared = first.keys() & second.keys()
    assert {name.split()[0] for name in shared} == {"q2", "q3"}
    for name in shared:
        assert first[name].commits.tolist() == second[name].commits.tolist()


def test_what_is_kept_is_not_generated_again_whatever_the_split(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    fresh = answers(ASKED[:4], kept)
    assert (kept.reused, kept.made) == (0, 4)
    again = answers(ASKED[:4], kept)
    assert (kept.reused, kept.made) == (4, 4)
    for key in CAUSAL_KEYS:
        np.testing.assert_array_equal(again.phi[key], fresh.phi[key])
    np.testing.assert_array_equal(again.asked, fresh.asked)
    mixed = answers([ASKED[5], *ASKED[1:4]], kept)
    assert (kept.reused, kept.made) == (7, 5)
    rows = {group: row for row, group in enumerate(mixed.groups)}
    for row, group in enumerate(fresh.groups):
        if group in rows:
            np.testing.assert_array_equal(mixed.phi[LAST][rows[group]], fresh.phi[LAST][row])
    answers(ASKED[:4], kept, seed=1)
    assert (kept.reused, kept.made) == (7, 9), "another seed, other answers"
    renamed = answers([replace(prompt, id=f"new {prompt.id}") for prompt in ASKED[:4]], kept)
    assert kept.made == 9, "a model does not read ids"
    assert renamed.groups == tuple(f"new {group}" for group in fresh.groups)


def test_a_kept_trace_is_generated_again_from_the_seed_that_it_names(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    answers(ASKED, kept)
    for trace in traces_in(kept).values():
        assert trace.spec.seed is not None
        (again,) = generate(small.causal("llama"), trace.prompt, THROWN, length=6, steps=6, seed=trace.spec.seed)
        assert again.commits.tolist() == trace.commits.tolist()


def test_a_broken_file_is_made_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    answers(ASKED[:2], kept)
    next(iter(tmp_path.rglob("*.safetensors"))).write_bytes(b"half")
    answers(ASKED[:2], kept)
    assert (kept.reused, kept.made) == (1, 3)


def test_a_prompt_that_stands_twice_in_a_set_has_two_answers() -> None:
    seeds = row_seeds([ASKED[0], ASKED[1], replace(ASKED[0], id="again")], 0)
    assert len(set(seeds)) == 3
    assert seeds[:2] == row_seeds(ASKED[:2], 0)
    assert all(0 <= seed < 2**48 for seed in seeds)


def test_no_prompts_are_an_error_that_names_the_set() -> None:
    with pytest.raises(DemurError, match="no prompts for the set"):
        answers([])
