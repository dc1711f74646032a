"""Laws of frames: tidy rows of a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import demur
from demur.traces import frames
from demur.types import DemurError

<<<<<<< HEAD
pytest.importorskip("pandas")
=======
pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
parquet = pytest.importorskip("pyarrow.parquet")


def row(**values: Any) -> dict[str, Any]:
    """A generation as a unit stores it."""
    plain: dict[str, Any] = {
        "unit": "u", "model": "m", "sampler": "ar", "attack": "plain", "defense": "none", "role": "harmful", "seed": 0,
        "id": "q1", "parent": "q1", "group": "q1", "prompt": "How?", "prefill": "", "text": "So.", "answer": "So.",
        "outcome": "answer", "path": ["answer"], "sigma": [0.5, 0.25], "score": 1.5, "flagged_by": "",
        "flagged_step": None, "steps": 2, "passes": 2, "seconds": 0.5,
    }  # fmt: skip
    return plain | values


BLOCKED = {"sigma": None, "score": None, "flagged_by": "perplexity", "flagged_step": 0, "path": ["refusal"]}
UNITS: dict[str, list[dict[str, Any]]] = {
    "aa": [row(unit="aa"), row(unit="aa", id="q2", flagged_step=2)],
    "bb": [row(unit="bb", **BLOCKED)],  # every signal and score is None
    "cc": [row(unit="cc"), row(unit="cc", id="q2", texts=["S", "So"], texts_at=[1, 2])],  # the first row has no texts
    "dd": [row(unit="dd", path=[], score=2, flagged_step=None)],  # empty list, whole number
}


def inferred(rows: list[dict[str, Any]]) -> bytes:
    """A unit's file as version 0.1.0 wrote it."""
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), buffer, compression="zstd")
    return buffer.getvalue()


def run_in(folder: Path, units: dict[str, list[dict[str, Any]]], *, old: bool = False, finished: bool = True) -> Store:
    store = Store(folder)
    for key, rows in units.items():
        if old:
            data = inferred(rows)
            artefact.write(folder / "units" / frames.name_of(key, data), data)
        else:
            store.add(key, rows)
    store.begin({"finished": finished, "units": list(units), "config": {"judge": "dictionary"}})
    return store


def test_every_unit_has_the_documented_schema_whatever_is_missing_in_it(tmp_path: Path) -> None:
    run_in(tmp_path / "run", UNITS)
    for path in (tmp_path / "run" / "units").glob("*.parquet"):
        assert parquet.read_schema(path).equals(frames.schema())
    frame = pd.read_parquet(tmp_path / "run" / "units")
    assert len(frame) == 6
    assert list(frame.columns) == list(frames.ROW_COLUMNS)


def test_rows_have_the_name_of_version_0_1_too() -> None:
    import demur.frames

    assert (demur.frames.schema, demur.frames.rows) == (frames.schema, demur.rows)


def test_what_a_row_holds_is_read_again_unchanged(tmp_path: Path) -> None:
    store = run_in(tmp_path / "run", UNITS)
    read = list(store.rows())
    for before, after in zip([r for rows in UNITS.values() for r in rows], read, strict=True):
        assert {name: value for name, value in after.items() if value is not None} == {
            name: value for name, value in before.items() if value is not None
        }
    assert "texts" not in read[0]
    assert next(r for r in read if r["unit"] == "cc" and r["id"] == "q2")["texts_at"] == [1, 2]


@pytest.mark.parametrize("key", ["aa", "bb"])
def test_a_digest_of_rows_is_that_of_version_0_1(key: str, tmp_path: Path) -> None:
    old = run_in(tmp_path / "old", {key: UNITS[key]}, old=True)
    new = run_in(tmp_path / "new", {key: UNITS[key]})
    assert old.digest([key]) == new.digest([key])


@pytest.mark.parametrize("old", [True, False])
def test_rows_of_old_and_new_runs_make_one_frame(old: bool, tmp_path: Path) -> None:
    units = {key: rows for key, rows in UNITS.items() if not old or key != "cc"}  # which lost its texts then
    run_in(tmp_path / "run", units, old=old)
    frame = demur.rows(tmp_path / "run")
    assert len(frame) == sum(map(len, units.values()))
    assert frame["score"].dtype == float
    assert frame["flagged_step"].tolist()[1] == 2
    assert frame.loc[frame["unit"] == "bb", "sigma"].isna().all()
    assert frame["judge"].isna().all()
    table = demur.rows(str(tmp_path / "run"), as_="arrow")
    assert table.schema.field("sigma").type == pa.list_(pa.float64())
    assert table.column_names[: len(frames.ROW_COLUMNS)] == list(frames.ROW_COLUMNS)


def test_a_column_that_the_schema_does_not_know_is_kept(tmp_path: Path) -> None:
    run_in(tmp_path / "run", {"aa": [row(more=1)], "bb": [row(more=None)], "cc": [row(more=2.5)]})
    kept = demur.rows(tmp_path / "run", as_="arrow").column("more").to_pylist()
    assert [None if value is None else float(value) for value in kept] == [1.0, None, 2.5]


def test_rows_are_those_that_the_manifest_counts(tmp_path: Path) -> None:
    store = run_in(tmp_path / "run", {"aa": UNITS["aa"]})
    store.add("zz", [row(unit="zz")])
    assert set(demur.rows(tmp_path / "run")["unit"]) == {"aa"}
    store.begin({"finished": False, "config": {"judge": "dictionary"}})
    assert set(demur.rows(tmp_path / "run")["unit"]) == {"aa", "zz"}
    run_in(tmp_path / "empty", {}, finished=False)
    assert demur.rows(tmp_path / "empty").empty


def test_what_a_judge_said_stands_beside_its_row(tmp_path: Path) -> None:
    run_in(tmp_path / "run", {"aa": UNITS["aa"], "bb": UNITS["bb"]})
    said = [{"id": "q2", "by": "rater", "flagged": True, "score": 0.9, "step": None, "why": "harm", "before": []}]
    artefact.write(tmp_path / "run" / "judged" / "aa.json", json.dumps(said))
    artefact.write(tmp_path / "run" / "judged" / "bb.json", "{broken")
    frame = demur.rows(tmp_path / "run").set_index(["unit", "id"])
    assert frame.loc[("aa", "q2"), ["judge", "judge_flagged", "judge_score", "judge_why"]].tolist() == [
        "rater", True, 0.9, "harm",
    ]  # fmt: skip
    assert frame["judge_flagged"].notna().sum() == 1


def test_a_folder_that_is_no_run_and_a_damaged_file_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DemurError, match="no run in"):
        demur.rows(tmp_path)
    run_in(tmp_path / "run", {"aa": UNITS["aa"]})
    with pytest.raises(DemurError, match="pandas or arrow"):
        demur.rows(tmp_path / "run", as_="polars")  # type: ignore[arg-type]
    (path,) = (tmp_path / "run" / "units").glob("*")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DemurError, match="damaged"):
        demur.rows(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DemurError, match=r"pip install 'demur\[data\]'"):
        demur.rows(tmp_path / "run")


# --- traces -------------------------------------------------------------------------------------------------
>>>>>>> 1a1298d39b17a3c8ad386c349d66a2588dd99e22


@pytest.fixture(scope="module")
def organism() -> tuple[Any, Any]:
    from demur.organism.anchors import own_anchors

    model = demur.load("organism/diffusion")
    sampler = demur.MaskedDiffusion(steps=8)
    return model, own_anchors(model, sampler, length=24, steps=8, layer="last", pool="generated", n=12)


def test_a_trace_is_a_row_a_step_and_says_what_the_trace_says(organism: tuple[Any, Any]) -> None:
    model, anchors = organism
    asked = [demur.Prompt("q1", "How do I open the granary?")]
    (trace,) = demur.generate(model, asked, demur.MaskedDiffusion(steps=8), length=24, steps=8)
    frame = trace.to_frame(anchors)
    assert frame["step"].tolist() == list(range(1, trace.steps + 1))
    assert frame["text"].tolist() == [trace.text(t) for t in frame["step"]]
    assert frame["refused"].tolist() == [trace.refused(t) for t in frame["step"]]
    np.testing.assert_allclose(frame["sigma"], anchors.signal(trace)[: trace.steps])
    assert (frame["committed"].cumsum() + frame["open"] == 24).all()
    assert "sigma" not in trace.to_frame()


def test_places_put_together_are_the_steps(organism: tuple[Any, Any]) -> None:
    model, anchors = organism
    asked = [demur.Prompt("q1", "How do I open the granary?")]
    (trace,) = demur.generate(model, asked, demur.MaskedDiffusion(steps=8), length=24, steps=8)
    places, steps = trace.to_frame(per="place"), trace.to_frame()
    assert len(places) == trace.steps * 24
    for t, part in places.groupby("step"):
        assert part["token"].tolist() == trace.tokens(int(t)).tolist()
        assert part["state"].isin(frames.WRITTEN).sum() == steps["committed"][int(t) - 1]
    with pytest.raises(DemurError, match="step or place"):
        trace.to_frame(per="token")
    with pytest.raises(DemurError, match="leave `per` out"):
        trace.to_frame(anchors, per="place")


def test_steps_behind_the_signals_end_have_none(organism: tuple[Any, Any]) -> None:
    model, _ = organism
    from demur.organism.anchors import own_anchors

    short = own_anchors(model, demur.MaskedDiffusion(steps=8), length=24, steps=4, layer="last", pool="generated", n=12)
    asked = [demur.Prompt("q1", "How do I open the granary?")]
    (trace,) = demur.generate(model, asked, demur.MaskedDiffusion(steps=8), length=24, steps=4)
    assert trace.to_frame(short)["sigma"].isna().tolist() == [False] * 4 + [True] * (trace.steps - 4)
