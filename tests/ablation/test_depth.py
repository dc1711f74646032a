"""Every layer in every pooling mode, from answers that are generated once."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import small
from made_up import sets
from test_recording import ASKED, SIZES, THROWN

from demur.ablation import depth
from demur.ablation.material import Material
from demur.ablation.protocol import CONTROL, PLAIN, Sets
from demur.ablation.recording import gather
from demur.ablation.splits import Questions
from demur.traces import Kept
from demur.types import DemurError

SIZES_ALONE = {name: value for name, value in SIZES.items() if name != "pools"}


def test_layers_are_blocks_by_number_and_what_the_head_reads() -> None:
    model = small.causal("llama")
    blocks = model.net.config.num_hidden_layers
    every = depth.layers_of(model, "all")
    assert every == (*map(str, range(1, blocks + 1)), "last")
    assert depth.layers_of(model, "1, last,1") == ("1", "last")
    assert set(depth.keys_of(model, every)) == {(layer, pool) for layer in every for pool in ("generated", "producing")}
    for wrong in ("all,last", "0", str(blocks + 1), "", "second"):
        with pytest.raises(DemurError, match="block number from 1 to"):
            depth.layers_of(model, wrong)


def test_a_model_whose_blocks_nobody_can_count_is_one_line() -> None:
    class Foreign:
        name = "foreign"

    with pytest.raises(DemurError, match="foreign, whose blocks nobody can count"):
        depth.layers_of(Foreign(), "all")  # type: ignore[arg-type]


def test_states_of_other_layers_are_read_from_the_folder_and_not_generated(tmp_path: Path) -> None:
    model, kept = small.causal("llama"), Kept(tmp_path)
    keys = depth.keys_of(model, depth.layers_of(model, "all"))

    def read(part: Any, kept: Kept | None, recorded: Any) -> Material:
        return gather(model, "set", ASKED, THROWN, **SIZES_ALONE, pools=part, recorded=recorded, kept=kept)

    whole = read(keys, None, None)
    for begin in range(0, len(keys), 2):
        part = keys[begin : begin + 2]
        found = read(part, kept, keys)
        assert tuple(found.phi) == part, "no more is held than is asked for"
        for key in part:
            np.testing.assert_array_equal(found.phi[key], whole.phi[key])
    assert kept.made == len(ASKED), "once"


def test_what_a_sweep_costs_is_known_before_it_begins() -> None:
    model, prompts = small.causal("llama"), ASKED[:4]
    asked = Questions(prompts, prompts, prompts, prompts, prompts, prompts, {"a": prompts}, {"a": prompts})
    keys = depth.keys_of(model, ("1", "last"))
    cost = depth.cost_of(model, depth.without_guard(asked), keys, 6)
    d = model.net.config.hidden_size
    assert (cost.answers, cost.width) == (4 * 6 + 1, d)
    assert cost.whole == 25 * 4 * 6 * d * 4
    assert [len(part) for part in cost.groups(keys, room=3 * cost.of_a_key)] == [3, 1]
    assert [len(part) for part in cost.groups(keys, room=1)] == [1, 1, 1, 1]
    assert "25 answers" in str(cost)


KEYS: tuple[Any, ...] = (("1", "generated"), ("1", "producing"), ("last", "generated"), ("last", "producing"))


def in_depth(pools: Any) -> Sets:
    """Made-up answers whose first layer knows nothing."""
    known, noise = sets(), np.random.default_rng(0)

    def cut(m: Material) -> Material:
        phi = next(iter(m.phi.values()))
        blank = (1 + 0.05 * noise.normal(size=phi.shape)).astype(np.float32)
        return replace(m, phi={key: blank if key[0] == "1" else phi for key in pools})

    parts: dict[str, Any] = {name: cut(getattr(known, name)) for name in ("good", "bad", "fit", "calibrate", "plain")}
    for side in ("attacked", "controls"):
        parts[side] = {name: cut(m) for name, m in getattr(known, side).items()}
    return replace(known, **parts)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """A sweep of two layers, a group of keys at a time."""
    held: list[tuple[Any, Any]] = []

    def recorded(*_: Any, pools: Any, recorded: Any, **__: Any) -> Sets:
        held.append((pools, recorded))
        return in_depth(pools)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(depth, "record_sets", recorded)
        asked = Questions(ASKED, ASKED, ASKED, ASKED, ASKED, [], {}, {})
        found = depth.sweep(small.causal("llama"), THROWN, asked, KEYS, seeds=(0,), steps=6, room=1)
    assert held == [((key,), KEYS) for key in KEYS]
    return found


def test_a_sweep_finds_the_layer_that_knows(report: dict[str, Any]) -> None:
    assert report["layers"] == ["1", "last"]
    assert {(line["detector"], line["layer"], line["pool"]) for line in report["lines"]} == {
        (reading, *key) for reading in ("paper", "whitened, last") for key in KEYS
    }
    for line in report["lines"]:
        assert line["low"] <= line["auroc"] <= line["high"]
        assert line["auroc"] > 0.95 if line["layer"] == "last" else 0.3 < line["auroc"] < 0.7, line
    assert {(row["attack"], row["against"]) for row in report["rows"]} == {
        (a, n) for a in ("a", "b") for n in (PLAIN, CONTROL)
    }


def test_a_sweep_is_shown_by_depth(report: dict[str, Any], tmp_path: Path) -> None:
    page, data = depth.write_sweep(report, tmp_path, pictures=True)
    assert json.loads(data.read_text(encoding="utf-8")) == report
    text = page.read_text(encoding="utf-8")
    assert text.count("\n## ") == 4, "both readings, both modes"
    assert "looks better than it is" in text
    assert "█  whitened, last, generated, against plain harmless answers" in text
    pictures = sorted(path.name for path in (tmp_path / "layers").iterdir())
    assert len(pictures) == 8
    for name in pictures:
        assert (f"(layers/{name})" in text) == name.endswith(".png")
    curve = depth.curves_of(report)["paper", "generated"]
    (first, last) = depth.rows_of(curve, report["layers"])
    assert first[0] == "1"
    assert last[1].startswith(f"{curve[PLAIN]['last']['auroc']:.3f} (")
    assert depth.rows_of({}, ["1"])[0] == ["1", *["-"] * 6]


def test_a_disk_without_room_is_one_line_before_anything_is_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from demur.cli import layers

    cost, free = depth.Cost(answers=1000, keys=len(KEYS), steps=32, width=4096), SimpleNamespace(free=10**9)
    monkeypatch.setattr(layers.shutil, "disk_usage", lambda _: free)
    with pytest.raises(DemurError, match=r"2\.1 GB of states, and 1\.0 GB free"):
        layers._tell_cost(cost, KEYS, Kept(tmp_path))
    free.free = 3 * 10**9
    layers._tell_cost(cost, KEYS, Kept(tmp_path))
    layers._tell_cost(depth.Cost(8000, len(KEYS), 32, 4096), KEYS, None)
    said = " ".join(capsys.readouterr().err.split())
    assert "1000 answers, each with 4 states (layers x pooling modes) at 32 steps: 2.10 GB in the cache" in said
    assert "generated 4 times: --keep does it once" in said


def test_a_profile_is_a_bar_a_layer() -> None:
    values = {"1": 0.0, "2": 0.5, "3": 1.0, "5": math.nan}
    curve = {layer: {"auroc": value} for layer, value in values.items()}
    assert depth.profile(curve, ["1", "2", "3", "4", "5"]) == "▁▅█  "
