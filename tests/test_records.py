"""Laws of records: one schema for every unit of a run, old runs too; what docs/records.md says is what a record is."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import demur
from demur import artefact
from demur.experiment import record
from demur.experiment.record import Record, documented, kinds
from demur.experiment.store import Store
from demur.types import DemurError, DemurWarning

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
            artefact.write(folder / "units" / record.name_of(key, data), data)
        else:
            store.add(key, [*map(Record.of, rows)])
    store.begin({"finished": finished, "units": list(units), "config": {"judge": "dictionary"}})
    return store


def test_every_unit_has_the_documented_schema_whatever_is_missing_in_it(tmp_path: Path) -> None:
    run_in(tmp_path / "run", UNITS)
    for path in (tmp_path / "run" / "units").glob("*.parquet"):
        assert parquet.read_schema(path).equals(record.schema())
    frame = pd.read_parquet(tmp_path / "run" / "units")
    assert len(frame) == 6
    assert list(frame.columns) == list(kinds())


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
    assert table.column_names[: len(kinds())] == list(kinds())


def test_a_column_that_the_schema_does_not_know_is_kept(tmp_path: Path) -> None:
    run_in(tmp_path / "run", {"aa": [row(more=1)], "bb": [row(more=None)], "cc": [row(more=2.5)]})
    kept = demur.rows(tmp_path / "run", as_="arrow").column("more").to_pylist()
    assert [None if value is None else float(value) for value in kept] == [1.0, None, 2.5]


def test_rows_are_those_that_the_manifest_counts(tmp_path: Path) -> None:
    store = run_in(tmp_path / "run", {"aa": UNITS["aa"]})
    store.add("zz", [Record.of(row(unit="zz"))])
    assert set(demur.rows(tmp_path / "run")["unit"]) == {"aa"}
    store.begin({"finished": False, "config": {"judge": "dictionary"}})
    with pytest.warns(DemurWarning, match=r"is not finished \(2 units\)"):
        assert set(demur.rows(tmp_path / "run")["unit"]) == {"aa", "zz"}
    run_in(tmp_path / "empty", {}, finished=False)
    with pytest.warns(DemurWarning, match=r"is not finished \(0 units\)"):
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


@pytest.mark.parametrize("name", ["._0123-0123456789ab.parquet", "notes.parquet", "0123-0123456789ab (1).parquet"])
def test_files_that_others_left_beside_the_units_are_passed_over(name: str, tmp_path: Path) -> None:
    units = tmp_path / "units"
    units.mkdir()
    (units / name).write_bytes(b"x")
    (tmp_path / "manifest.json").write_text('{"finished": false}', encoding="utf-8")
    with pytest.warns(DemurWarning, match="is not finished"):
        assert len(demur.rows(tmp_path)) == 0
    assert not Store(tmp_path).files()


@pytest.mark.parametrize("text", ["[]", "3", '{"finished": true}'])
def test_a_manifest_of_something_else_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(DemurError, match="manifest"):
        demur.rows(tmp_path)


# -- what a record is ----------------------------------------------------------------------------------------


def test_the_page_s_table_is_made_of_the_dataclass() -> None:
    page = (Path(__file__).parent.parent / "docs" / "records.md").read_text(encoding="utf-8")
    cells = [line.strip("|").split("|") for line in page.splitlines() if line[:1] == "|"]
    lines = [tuple(cell.strip() for cell in line) for line in cells]
    begin = lines.index(("field", "type", "unit", "meaning")) + 2
    assert lines[begin : begin + len(kinds())] == documented()
    assert all(meaning for *_, meaning in documented())


@pytest.mark.parametrize("values", [*UNITS["aa"], *UNITS["bb"], *UNITS["cc"], *UNITS["dd"], row(more=1)])
def test_a_record_is_read_again_as_it_was(values: dict[str, Any]) -> None:
    made = Record.of(values)
    (read,) = map(Record.of, record.from_bytes(record.to_bytes([made])).to_pylist())
    assert read == made
    assert Record.of(made.plain()) == made
    assert Record.of(made) is made


def test_fields_that_an_older_file_lacks_have_defaults_and_others_are_named() -> None:
    old = row()
    for name in ("group", "prefill", "texts_at", "seconds"):
        old.pop(name, None)
    made = Record.of(old | {"parent": "q7"})
    assert (made.group, made.prefill, made.texts, made.seconds) == ("", "", None, 0.0)
    assert made.request == "q7"
    assert Record.of(row(group=None)) == Record.of({name: value for name, value in row().items() if name != "group"})
    with pytest.raises(DemurError, match="a row without model, outcome"):
        Record.of({name: value for name, value in row().items() if name not in ("model", "outcome")})


def test_a_file_says_its_format_and_one_of_a_newer_format_is_not_guessed_at() -> None:
    data = record.to_bytes([Record.of(row())])
    table = parquet.read_table(io.BytesIO(data))
    assert table.schema.metadata[record.FORMAT_KEY] == str(record.FORMAT).encode()
    newer = table.replace_schema_metadata({record.FORMAT_KEY: str(record.FORMAT + 1)})
    buffer = io.BytesIO()
    parquet.write_table(newer, buffer)
    with pytest.raises(DemurError, match="records of format 3"):
        record.from_bytes(buffer.getvalue())
    assert len(record.from_bytes(inferred([row()]))) == 1, "files of version 0.1.0 name none"


def test_a_reading_reads_the_mark_that_the_template_opened() -> None:
    """A record's text is what was generated; its answer says whether a thought was open before it."""
    from demur.experiment.record import said_in
    from demur.judges import read_answer

    text = "I can't tell.</think>Lift the bar and push."
    assert read_answer(said_in(text, f"<think>{text}", "")).value == "answers"
    assert said_in(text, text, "") == text, "nobody opened one"
    assert said_in("Lift.", "Sure: Lift.", "Sure: ") == "Lift.", "what an attack prefilled is not the model's"
    assert said_in(text, "", "") == "Lift the bar and push.", "version 0.1.0 did not say"


READS = """
import os, sys
import pyarrow.parquet, pandas
import demur
threads = lambda: len(os.listdir("/proc/self/task"))
before = threads()
assert len(demur.rows(sys.argv[1])) == 6
assert demur.rows(sys.argv[1], as_="arrow").num_rows == 6
print(threads() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted where Linux lists them")
def test_reading_starts_no_threads_that_a_process_could_end_among(tmp_path: Path) -> None:
    """Arrow's own threads abort a process that ends while they live, now and then, after all its work (exit 134)."""
    run_in(tmp_path / "run", UNITS)
    line = [sys.executable, "-c", READS, str(tmp_path / "run")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr
