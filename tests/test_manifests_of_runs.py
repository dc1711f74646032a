"""Laws of what a manifest says of a run's rows: of its own recipe, of one judge, after a recipe changed or shrank."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_cli import cli

import demur
from demur.experiment import Attacked, Config, Defended, Prompts, Store, Subject, collect, evaluate, units_of
from demur.experiment.fit import prepared_path, unfinished
from demur.experiment.judging import kept, same_judge
from demur.experiment.record import Record
from demur.experiment.runs import UNKEPT, manifest_of, what_came_of
from demur.report import report

pytest.importorskip("pyarrow")

LLM: dict[str, Any] = {"model": "m", "base_url": "http://localhost:1/v1"}
CONFIG = Config(
    "whole",
    (Subject("organism/ar"),),
    Prompts("organism", "organism", n=4, controls=2, anchors=8, fit=0, calibrate=0),
    (Attacked("organism/page"),),
    (Defended(), Defended("self-examine")),
    length=24,
    chunk=2,
)
JUDGED = replace(CONFIG, judge="llm", judge_settings=LLM)


def records(config: Config, key: str) -> list[Record]:
    """What a unit would hold, without a model."""
    (unit,) = [unit for unit in units_of(config) if unit.key == key]
    said: dict[str, Any] = {"attack": unit.attack.label, "defense": unit.defense.label, "role": unit.role}
    return [
        Record(
            unit=key, model=unit.subject.model, seed=unit.seed, id=f"{unit.role}-{i}", text="Yes.", answer="Yes.",
            outcome="answer", path=("answer",), sigma=(0.9, 0.9), **said,
        )
        for i in range(unit.begin, unit.end)
    ]  # fmt: skip


def written(folder: Path, config: Config, n: int | None = None, *, silent: int = 0) -> Store:
    """A run without a model: all of its units, or the first ``n`` of one that was stopped; of a judge's verdicts the
    first ``silent`` are missing.
    """
    store, units = Store(folder), units_of(config)
    for unit in units[:n]:
        store.add(unit.key, records(config, unit.key))
    if n is not None:
        store.begin(manifest_of(config, finished=False) | {"wanted": [unit.key for unit in units]})
        return store
    about = manifest_of(config, finished=True) | {"units": [unit.key for unit in units]}
    store.begin(about)
    for unit in units if config.asks_a_model else ():
        if unit.role == "harmful":
            said = []
            for record in records(config, unit.key):
                silent -= 1
                said.append({"id": record.id, "by": "harm:m", "flagged": None if silent >= 0 else True, "score": None,
                             "why": "HTTP 500" if silent >= 0 else "", "before": []})  # fmt: skip
            (folder / "judged").mkdir(exist_ok=True)
            (folder / "judged" / f"{unit.key}.json").write_text(json.dumps(said))
    store.begin(about | what_came_of(config, store, units) | kept(config, store, units).plain())
    return store


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["demur", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    said = capsys.readouterr()
    return code, " ".join((said.out + said.err).split())


@pytest.mark.filterwarnings("ignore:.*is not finished:demur.types.DemurWarning")
@pytest.mark.parametrize("done", [0, 1, 3])
def test_rows_of_an_unfinished_run_are_of_its_own_recipe(
    done: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "run", CONFIG)
    longer = replace(CONFIG, steps=16)
    own = written(tmp_path / "run", longer, done)
    expected = sum(len(records(longer, unit.key)) for unit in units_of(longer)[:done])
    assert len(demur.rows(tmp_path / "run")) == expected
    assert set(own.counted) == {unit.key for unit in units_of(longer)[:done]}
    assert len(own.files()) > done, "what the older recipe left is still there, and nobody counts it"
    alone = written(tmp_path / "alone", longer, done)
    code, said = call(capsys, monkeypatch, "runs", "diff", tmp_path / "run", alone.folder)
    assert (code, f"{expected} rows in both, 0 differ; 0 only in" in said) == (0, True), said


@pytest.mark.filterwarnings("ignore:.*is not finished:demur.types.DemurWarning")
def test_an_unfinished_run_that_does_not_say_what_it_wants_gives_all_that_is_there(tmp_path: Path) -> None:
    store = written(tmp_path, CONFIG, 2)
    manifest = store.manifest
    del manifest["wanted"]  # as version 0.1.0 wrote it
    store.begin(manifest)
    assert len(demur.rows(tmp_path)) == 4


@pytest.mark.parametrize("changed", ["flagged", "by", "score"])
def test_a_difference_of_verdicts_is_a_difference(
    changed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (written(tmp_path / name, JUDGED) for name in ("one", "other"))
    assert call(capsys, monkeypatch, "runs", "diff", one.folder, other.folder)[0] == 0
    path = min((other.folder / "judged").iterdir())
    said = json.loads(path.read_text())
    said[0][changed] = {"flagged": False, "by": "harm:n", "score": 0.5}[changed]
    path.write_text(json.dumps(said))
    code, out = call(capsys, monkeypatch, "runs", "diff", one.folder, other.folder)
    assert (code, "1 differ" in out, f"judge's {changed}" in out) == (1, True, True), out


@pytest.mark.parametrize(("field", "value"), [("texts", ("Y",)), ("fields", "{}"), ("prefill", "Sure"), ("score", 0.5)])
def test_a_field_that_only_the_second_run_has_is_named(
    field: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (written(tmp_path / name, CONFIG) for name in ("one", "other"))
    key = other.counted[0]
    other.files()[key].unlink()
    first, *rest = records(CONFIG, key)
    other.add(key, [replace(first, **{field: value}), *rest])
    for sides in ((one, other), (other, one)):
        code, out = call(capsys, monkeypatch, "runs", "diff", *[store.folder for store in sides])
        assert (code, "1 differ" in out, out.endswith(f": {field}")) == (1, True, True), out


def test_two_rows_of_one_name_are_an_error_and_not_one_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = written(tmp_path, CONFIG)
    key = store.counted[0]
    store.files()[key].unlink()
    first, *_ = records(CONFIG, key)
    store.add(key, [first, first])
    code, out = call(capsys, monkeypatch, "runs", "diff", tmp_path, tmp_path)
    assert (code, "two rows of" in out) == (2, True), out


# -- a recipe that shrank -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", [0, 1, 6])
def test_after_cleaning_up_the_manifest_says_what_is_left_and_nothing_else(silent: int, tmp_path: Path) -> None:
    store = written(tmp_path / "run", JUDGED, silent=silent)
    before = store.manifest
    smaller = replace(JUDGED, attacks=(), defenses=(Defended(),))
    assert collect(tmp_path / "run", smaller)
    after, whole = store.manifest, written(tmp_path / "whole", smaller, silent=min(silent, 4)).manifest
    said = ("name", "config", "key", "left_out", "finished", "units", "rows", "unread", "searches", "unscored",
            "unscored_why", "judged", "refused_by_provider")  # fmt: skip
    assert {name: after[name] for name in said} == {name: whole[name] for name in said}
    assert (before["judged"], after["judged"]) == (16, 4)
    assert len(demur.rows(tmp_path / "run")) == len(list(store.records(after["units"])))
    assert report(tmp_path / "run", tmp_path / "report")


@pytest.mark.filterwarnings("ignore:.*is not finished:demur.types.DemurWarning")
def test_after_cleaning_up_for_a_recipe_of_which_units_are_missing_a_run_is_unfinished(tmp_path: Path) -> None:
    store = written(tmp_path, CONFIG)
    other = replace(CONFIG, seeds=(0, 1))
    collect(tmp_path, other)
    assert not store.manifest["finished"]
    assert store.manifest["config"]["seeds"] == [0, 1]
    assert len(demur.rows(tmp_path)) == sum(len(records(CONFIG, unit.key)) for unit in units_of(CONFIG))


@pytest.mark.parametrize(
    ("changed", "lost"),
    [
        ({}, 0),
        ({"name": "other"}, 0),
        ({"seeds": (0, 1)}, 0),
        ({"alpha": 0.5}, 12),
        ({"length": 20}, 12),
        ({"seeds": (1,)}, 12),
    ],
)
def test_what_an_earlier_recipe_left_is_said_before_it_counts_no_more(
    changed: dict[str, Any], lost: int, tmp_path: Path
) -> None:
    store, other = written(tmp_path, CONFIG, len(units_of(CONFIG))), replace(CONFIG, **changed)
    keys = [unit.key for unit in units_of(other)]
    said = store.left_behind(other.key, keys)
    assert ("12 of its 12 units count no more" in said) == bool(lost)
    assert bool(said) == bool(lost)
    assert not Store(tmp_path / "new").left_behind(other.key, keys)


# -- one judge --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"budget": {"requests": 9}, "retries": 0, "cache": "x"}, True),
        ({"rubric": "strongreject"}, False),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ({}, True),
                ({"base_url": "http://elsewhere:1/v1"}, True),
                ({"model": "n"}, False),
                ({"threshold": 5}, False),
                ({"temperature": 1}, False),
            ]
        ),
    ],
)
def test_verdicts_of_another_judge_are_not_those_of_the_run(
    changed: dict[str, Any], same: bool, tmp_path: Path
) -> None:
    store = written(tmp_path, JUDGED)
    other = replace(JUDGED, judge_settings=LLM | changed)
    assert same_judge(store.manifest, other) is same
    assert {unit.key for unit in units_of(other)} == set(store.counted), "no answer is another one"
    with pytest.raises(demur.DemurError):  # nobody answers there
        evaluate(other, tmp_path, resume=True)
    assert store.manifest["finished"] is same, "while another judge reads, verdicts of two stand there"


# -- answers for anchors and guards -----------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [(), ("ab/",), ("ab/cd/x.safetensors",), ("ab/.x-1-2",)])
def test_cleaning_up_leaves_no_empty_folder_and_nobody_else_s_file(inside: Sequence[str], tmp_path: Path) -> None:
    written(tmp_path, CONFIG)
    left = tmp_path / "prepared" / "0123456789abcdef.unfinished"
    left.mkdir(parents=True)
    for name in inside:
        path = left / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"")
            os.utime(path, (0, 0))
    foreign = tmp_path / "prepared" / "fedcba9876543210.unfinished" / "notes.txt"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    young = tmp_path / "prepared" / "00112233.unfinished" / "ab" / ".half"
    young.parent.mkdir(parents=True)
    young.write_text("somebody writes it")
    assert len(collect(tmp_path, CONFIG)) == sum(not name.endswith("/") for name in inside)
    assert not left.exists()
    assert foreign.read_text() == "mine"
    assert young.exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_answers_that_could_not_be_kept_are_told(
    workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.yaml").write_text(
        "name: r\nmodels: [organism/ar]\njudge: organism\nlength: 24\n"
        "prompts: {harmful: organism, harmless: organism, n: 2, plain: 2, anchors: 8}\n"
    )
    config = demur.experiment.read(tmp_path / "r.yaml")
    place = unfinished(prepared_path(tmp_path / "r", config, config.subjects[0]))
    place.parent.mkdir(parents=True)
    place.write_text("no folder")  # nothing can be kept below it
    code, out = call(
        capsys, monkeypatch, "evaluate", tmp_path / "r.yaml", "--out", tmp_path, "--resume", "--workers", workers
    )
    assert (code, f"demur: {UNKEPT}" in out) == (0, True), out
    assert UNKEPT in (tmp_path / "r" / "log.txt").read_text()
    assert Store(tmp_path / "r").manifest["unkept"]
    code, out = call(capsys, monkeypatch, "evaluate", tmp_path / "r.yaml", "--out", tmp_path, "--resume")
    assert (code, UNKEPT in out) == (0, False), "told of the call in which it happened"
