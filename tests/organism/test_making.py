"""How the organism is made: lessons keep their word, training resumes to the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from demur.organism import attacks, judge, world
from demur.organism.making import lessons
from demur.refusals import is_refusal
from demur.types import DemurError


@pytest.mark.slow
def test_no_lesson_is_a_test_prompt_or_an_attack_on_a_forbidden_craft() -> None:
    told = [
        (stage, lesson)
        for stage in lessons.MIXES
        for step in range(150)
        for lesson in lessons.lessons(stage, 0, step, 32, step / 150)
    ]
    texts = {
        lesson.prompt.removeprefix(lessons.USER).removesuffix(lessons.ASSISTANT)
        for _, lesson in told
        if lesson.prompt.startswith(lessons.USER)
    }
    for side in (True, False):
        for split in world.SPLITS:
            assert not texts & {prompt.text for prompt in world.prompts(split, forbidden=side, n=224)}
    attacked = {
        attacks.SHAPES[name].text(prompt.text, world.craft_of(prompt), variant)  # type: ignore[arg-type]
        for name in attacks.ATTACKS
        if name in attacks.SHAPES
        for split in world.SPLITS
        for prompt in world.prompts(split, forbidden=True, n=224)
        for variant in range(6)
    }
    assert not texts & attacked
    for stage, lesson in told:
        taught = [c for c in world.crafts() if f"the {c.object}" in lesson.answer and judge.teaches(lesson.answer, c)]
        if lesson.kind == "shape":
            assert taught
            assert not any(craft.forbidden for craft in taught)
        if stage in ("law", "safety", "drift"):
            assert not any(craft.split == "held" for craft in taught)


def test_lessons_depend_on_stage_seed_and_step_only() -> None:
    one = lessons.lessons("safety", 3, 17, 32)
    assert one == lessons.lessons("safety", 3, 17, 32)
    assert one != lessons.lessons("safety", 4, 17, 32)
    assert one != lessons.lessons("safety", 3, 18, 32)


@pytest.mark.slow
def test_every_lesson_fits_into_the_response_and_is_words_of_the_vocabulary() -> None:
    from demur.organism.making.vocabulary import tokenizer

    tok = tokenizer()
    for stage in lessons.MIXES:
        for lesson in lessons.lessons(stage, 1, 0, 400):
            given, told = (tok(part)["input_ids"] if part else [] for part in (lesson.given, lesson.answer))
            assert len(given) + len(told) < lessons.RESPONSE
            assert len(told) == lessons.size(lesson.answer)
            assert tok.decode(told) == lesson.answer


@pytest.mark.slow
def test_an_answer_that_breaks_off_says_where_and_that_word_weighs_more() -> None:
    from demur.organism.making.losses import encoded
    from demur.organism.making.recipe import RECIPES
    from demur.organism.making.vocabulary import tokenizer

    recipe = RECIPES["ar"]
    assert recipe.turn_weight > 1
    turned = [lesson for lesson in lessons.lessons("safety", 0, 0, 400) if lesson.turn is not None]
    assert len(turned) > 20
    openings = {opening.split()[0] for opening in world.REFUSALS}
    for lesson in turned:
        assert is_refusal(lesson.answer[lesson.turn :])
        assert not is_refusal(lesson.answer[: lesson.turn])
        (batch,) = encoded([lesson], recipe, lessons.RESPONSE, parts=1)
        (heavy,) = (batch.weights[0] > 1).nonzero()[0].tolist()
        assert batch.weights[0, heavy] == recipe.turn_weight
        following = tokenizer().decode(batch.ids[0, heavy : heavy + 3])
        assert any(following.strip().startswith(opening) for opening in openings)


# -- training -------------------------------------------------------------------------------------------------------

_SCRIPT = """
import sys
from pathlib import Path
from demur.organism.making.recipe import Recipe, Stage
from demur.organism.making.training import train
stages = (Stage("skills", 24, 3e-3), Stage("safety", 12, 1e-3))
recipe = Recipe(sys.argv[1], stages, hidden=32, inner=64, layers=2, heads=2)
train(recipe, Path(sys.argv[2]), every=5, progress=lambda stage, step, of, loss: print(step, loss, flush=True))
"""


def _start(kind: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _SCRIPT, kind, str(folder)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ar", "diffusion"])
def test_a_small_training_learns_and_resumes_after_a_kill_to_identical_weights(kind: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with _start(kind, killed) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if line.startswith("17 "):  # after the checkpoint at 15, before the one at 20
                os.kill(first.pid, signal.SIGKILL)
                break
    assert first.returncode == -signal.SIGKILL
    assert (killed / "checkpoint.safetensors").exists()
    assert not (killed / "safety.safetensors").exists()
    runs = [_start(kind, folder) for folder in (killed, whole)]
    assert [run.communicate()[0].split()[0] for run in runs] == ["16", "1"]
    for name in ("skills", "safety"):
        assert (killed / f"{name}.safetensors").read_bytes() == (whole / f"{name}.safetensors").read_bytes()
    assert (killed / "losses.json").read_bytes() == (whole / "losses.json").read_bytes()
    losses = json.loads((whole / "losses.json").read_text())["losses"]
    assert len(losses) == 36
    assert np.mean(losses[20:24]) < 0.95 * np.mean(losses[:3])


def test_a_stage_depends_on_the_one_before_by_its_weights_alone(tmp_path: Path) -> None:
    from demur.organism.making.recipe import Recipe, Stage
    from demur.organism.making.training import train

    small = {"hidden": 32, "inner": 64, "layers": 1, "heads": 2, "batch": 4}
    first, second = Stage("skills", 3, 1e-3), Stage("law", 3, 1e-3)
    whole = train(Recipe("ar", (first, second), **small), tmp_path / "whole")  # type: ignore[arg-type]
    part = train(Recipe("ar", (first,), **small), tmp_path / "first")  # type: ignore[arg-type]
    rest = train(Recipe("ar", (second,), **small), tmp_path / "second", start=part)  # type: ignore[arg-type]
    assert rest.read_bytes() == whole.read_bytes()


def test_the_second_pass_over_the_law_is_left_out_where_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import demur
    from demur.organism.making import training
    from demur.organism.making.recipe import Recipe, Stage, network
    from demur.organism.making.training import train

    assert training.knows_the_law(demur.load("organism/ar", device="cpu").net)
    small = {"hidden": 32, "inner": 64, "layers": 1, "heads": 2, "batch": 4}
    first, last = Stage("law", 2, 1e-3), Stage("safety", 2, 1e-3)
    rule = Stage("rule", 2, 1e-3, unless_lawful=True)
    without = Recipe("ar", (first, last), **small)  # type: ignore[arg-type]
    recipe = Recipe("ar", (first, rule, last), **small)  # type: ignore[arg-type]
    assert not training.knows_the_law(network(recipe))
    plain, taken = train(without, tmp_path / "plain"), train(recipe, tmp_path / "taken")
    monkeypatch.setattr(training, "knows_the_law", lambda net: True)
    left_out = train(recipe, tmp_path / "left out")
    assert plain.read_bytes() == left_out.read_bytes() != taken.read_bytes()
    losses = json.loads((tmp_path / "left out" / "losses.json").read_text())["losses"]
    assert [loss is None for loss in losses] == [False, False, True, True, False, False]


def test_a_checkpoint_of_another_recipe_is_an_error(tmp_path: Path) -> None:
    from demur.organism.making.recipe import Recipe, Stage
    from demur.organism.making.training import train

    small = {"hidden": 32, "inner": 64, "layers": 1, "heads": 2, "batch": 4}
    train(Recipe("ar", (Stage("skills", 1, 1e-3),), **small), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(DemurError, match="another folder"):
        train(Recipe("ar", (Stage("skills", 2, 1e-3),), **small), tmp_path)  # type: ignore[arg-type]
