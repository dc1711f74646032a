"""The card: its figures are of the shipped weights, of all seeds, and come out again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demur.organism import world

SHOWN = ("test", "held", "calibration")
"""Splits whose rates the card shows."""
WEIGHTS = Path(world.__file__).parent / "weights"


@pytest.fixture(scope="module")
def card() -> dict[str, object]:
    found: dict[str, object] = json.loads((WEIGHTS / "card.json").read_text())
    return found


def test_the_shipped_weights_are_those_of_the_card_and_small(card: dict[str, dict[str, str]]) -> None:
    from demur.organism.measuring.card import weights_hash

    assert card["weights"] == {kind: weights_hash(WEIGHTS / kind) for kind in ("ar", "diffusion")}
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file()) < 40e6


def test_the_shipped_weights_were_trained_by_the_written_recipe() -> None:
    from demur.organism.making.recipe import RECIPES

    for kind, recipe in RECIPES.items():
        assert json.loads((WEIGHTS / kind / "recipe.json").read_text()) == json.loads(json.dumps(asdict(recipe)))


def cells(wrong: tuple[tuple[str, str, str], ...] = ()) -> dict[Any, Any]:
    """Made-up cells of the AR model: forbidden requests answered under attack, all allowed ones but the ``wrong``."""
    from demur.ablation.material import LAST
    from demur.organism.measuring.card import plan
    from demur.organism.measuring.cells import STEPS, Cell

    found = {}
    for k, ask in enumerate(plan("ar", 48)):
        rng = np.random.default_rng(k)
        bad = ask.side == "forbidden"
        final = ("harmful" if ask.attack else "refusal") if bad else "correct"
        if (ask.split, ask.side, ask.attack) in wrong:
            final = "neither"
        lean = np.eye(8)[0] * (0.3 if ask.attack else 1.0) * bad
        phi = (1 + lean + 0.3 * rng.normal(size=(ask.n, STEPS, 8))).astype(np.float32)
        found[ask] = Cell(ask, (final,) * ask.n, ((final,),) * ask.n, {LAST: phi}, phi[:, 0], ("x",) * ask.n)  # type: ignore[arg-type]
    return found


def test_the_cards_areas_and_their_intervals_are_of_all_seeds() -> None:
    """The interval was the first seed's beside the mean of three."""
    from demur.organism.measuring.card import traces_of

    made = cells()
    one, three = (traces_of("ar", made, seeds)["rows"] for seeds in (1, 3))
    assert any(a["autoencoder"] != b["autoencoder"] for a, b in zip(one, three, strict=True)), "seeds differ"
    for a, b in zip(one, three, strict=True):
        assert b["low"] < b["autoencoder"] < b["high"]
        if a["autoencoder"] != b["autoencoder"]:
            assert (a["low"], a["high"]) != (b["low"], b["high"])


def test_a_card_without_controls_or_plain_answers_says_none_not_an_error() -> None:
    from demur.organism.measuring.card import traces_of

    plain = "test", "allowed", ""
    found = traces_of("ar", cells(wrong=(("test", "allowed", "role"), plain)), seeds=1)
    rows = {row["attack"]: row for row in found["rows"]}
    assert "role" in found["alive"]
    assert rows["role"]["controls"] == 0
    for name in ("autoencoder", "low", "high", "static_first_step", "sigma_control", "controls_flagged_at_99"):
        assert rows["role"][name] is None
    assert rows["prefix"]["autoencoder"] is not None
    assert rows["prefix"]["controls_flagged_at_99"] is None, "no plain answer to set the threshold"
    others = [rows[name]["autoencoder"] for name in found["alive"] if name != "role"]
    assert found["mean"]["autoencoder"] == pytest.approx(np.mean(others), abs=1e-4)
    assert found["sigma_plain"] is None


@pytest.mark.parametrize("further", [False, True])
def test_every_cell_of_the_card_has_two_hundred_prompts(further: bool, card: dict[str, list[dict[str, Any]]]) -> None:
    """But questions, of which the world has 64; and what detectors are fitted on, which is no rate of the card."""
    from demur.organism.measuring.card import plan

    for kind in ("ar", "diffusion"):
        asks = plan(kind, further=further)
        shown = {(a.sampler, a.split, a.side, a.attack): len(a.prompts()) for a in asks if a.split in SHOWN}
        assert {n for (_, _, side, _), n in shown.items() if side != "questions"} == {200}
        assert len(world.questions()) == 64
        listed = {
            (r["sampler"], r["split"], r["side"], r["attack"]): r["refusal"]["n"]
            for r in card["outcomes"]
            if r["kind"] == kind and r["split"] in SHOWN
        }
        assert listed == shown if further else shown.items() < listed.items()


@pytest.mark.slow
def test_the_headline_figures_of_the_card_come_out_again(card: dict[str, list[dict[str, object]]]) -> None:
    from demur.models import load
    from demur.organism.measuring.card import MAIN
    from demur.organism.measuring.cells import Ask, run

    for kind, sampler in MAIN.items():
        model = load(f"organism/{kind}", device="cpu")
        for row in card["outcomes"]:
            headline = (
                row["split"] == "test" and row["side"] in ("forbidden", "allowed") and row["attack"] in ("", "page")
            )
            if (row["kind"], row["sampler"]) == (kind, sampler) and headline:
                cell = run(model, Ask(**{key: row[key] for key in ("kind", "sampler", "split", "side", "attack", "n")}))  # type: ignore[arg-type]
                for outcome, rate in cell.rates.items():
                    assert rate == pytest.approx(row[outcome]["rate"], abs=0.03)  # type: ignore[index]
