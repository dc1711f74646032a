"""Laws of the starter sets and of the one door that prompts come in by."""

from __future__ import annotations

import csv
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import demur.prompts as door
from demur.experiment.requests import prompts_of
from demur.hub import REST, takes_connection
from demur.prompts import SETS, TEXT_COLUMNS, dealt, digest, distinct, load, packaged, save, starter
from demur.prompts import hub as hub_door
from demur.types import DemurError, Message, Prompt

FOLDER = Path(door.__file__).parent

# Beginnings of words that give a harmful request away to whoever looks at its words alone.
ALARMING = (
    "accident|airport|attack|beat|bomb|break|burgl|cheat|drug|dog|fake|forge|gun|hit|injur|invoice|kidnap|kill|knife|"
    "murder|painkill|password|pick|poison|rob|scanner|script|secret|smuggl|sniff|steal|stole|theft|trap|vaccin|virus"
)

AWKWARD = [
    Prompt("a,1", 'Say "yes", then\nstop,\r\nplease', True, "mine", "quotes", "MIT"),
    Prompt("b", "  leading and trailing  ", False, "mine", "space"),
    Prompt("c", "naïve 你好 🙂 \u2028 end", None, "mine", "letters"),
    Prompt("d", "plain", True, "mine", attack="flip", parent="a,1", prefill="Sure,\n", system="Be brief."),
]


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def write(path: Path, *records: Any) -> Path:
    """The records as JSON Lines; strings as they are."""
    lines = (r if isinstance(r, str) else json.dumps(r) for r in records)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def error_of(source: Any, **settings: Any) -> DemurError:
    with pytest.raises(DemurError) as caught:
        load(source, **settings)
    assert "\n" not in str(caught.value)
    return caught.value


# --- starter sets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_a_starter_set_has_120_prompts_in_ten_categories_of_twelve(name: str) -> None:
    prompts = starter(name)
    assert len(prompts) == 120
    counts = Counter(p.category for p in prompts)
    assert len(counts) == 10
    assert set(counts.values()) == {12}
    assert [p.id for p in prompts] == [f"demur-{name}-{n:03d}" for n in range(1, 121)]
    assert {(p.harmful, p.source, p.licence) for p in prompts} == {(name == "harmful", "demur starter set", "CC0-1.0")}


def test_no_text_and_no_id_comes_twice_in_the_two_sets() -> None:
    prompts = starter("harmless") + starter("harmful")
    plain = {re.sub(r"\W+", " ", p.text.lower()).strip() for p in prompts}
    assert len(plain) == len({p.id for p in prompts}) == 240
    assert not {p.category for p in prompts if p.harmful} & {p.category for p in prompts if not p.harmful}


@pytest.mark.parametrize("name", SETS)
def test_every_beginning_of_a_starter_set_is_balanced(name: str) -> None:
    whole = starter(name)
    for n in range(1, 121):
        part = starter(name, n)
        assert part == whole[:n]
        counts = Counter(p.category for p in part)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert len(counts) == min(n, 10)


def test_the_two_sets_are_equally_long() -> None:
    harmless, harmful = ([len(p.text.split()) for p in starter(name)] for name in SETS)
    assert abs(statistics.mean(harmless) / statistics.mean(harmful) - 1) < 0.25
    for low, high in zip(statistics.quantiles(harmless, n=10), statistics.quantiles(harmful, n=10), strict=True):
        assert abs(low - high) <= 2
    assert max(harmless + harmful) <= 20


def test_form_does_not_tell_the_two_sets_apart() -> None:
    def forms(prompts: list[Prompt]) -> Counter[str]:
        kinds = {"?": "question"}
        return Counter(
            kinds.get(p.text[-1], "statement" if p.text.split()[0] in ("I", "My") else "imperative") for p in prompts
        )

    for n in range(20, 121):
        harmless, harmful = forms(starter("harmless", n)), forms(starter("harmful", n))
        assert len(harmless) == len(harmful) == 3
        assert all(abs(harmless[form] - harmful[form]) / n < 0.15 for form in harmless)
    assert all(p.text.endswith((".", "?")) for name in SETS for p in starter(name))


def test_at_least_24_harmless_requests_share_an_alarming_word_with_a_harmful_one() -> None:
    def alarming(text: str) -> set[str]:
        return set(re.findall(rf"\b(?:{ALARMING})", text.lower()))

    harmful = set().union(*(alarming(p.text) for p in starter("harmful")))
    noted = [r for r in rows("harmless") if "note" in r]
    assert len(noted) == 41 >= 24
    assert {r["note"] for r in noted} == {"shares vocabulary with harmful requests"}
    assert [r["text"] for r in noted if not alarming(r["text"]) & harmful] == []
    assert len({r["category"] for r in noted}) == 10
    assert f"{len(noted)} of the harmless" in " ".join((door.__doc__ or "").split())


def test_the_blunt_set_is_like_the_harmful_starter_set_and_repeats_no_request_of_another() -> None:
    first, blunt = starter("harmful"), load("blunt")
    assert Counter(p.category for p in blunt) == Counter(p.category for p in first)
    assert {(p.harmful, p.source, p.licence) for p in blunt} == {(True, "demur blunt set", "CC0-1.0")}
    assert packaged("harmful")[:240] == [*first, *blunt]
    for n in (10, 60, 120):
        assert len({p.category for p in blunt[:n]}) == 10
        questions = [sum(p.text.endswith("?") for p in of[:n]) / n for of in (first, blunt)]
        assert abs(questions[0] - questions[1]) < 0.25
    lengths = [statistics.mean(len(p.text.split()) for p in of) for of in (first, blunt)]
    assert abs(lengths[0] / lengths[1] - 1) < 0.25
    held_out = load(Path(__file__).parent / "data" / "held_out_pairs.jsonl")
    others = [words(p.text) for p in [*first, *load("matched"), *held_out]]
    for i, prompt in enumerate(blunt):
        own = words(prompt.text)
        assert all(len(own & of) / len(own | of) < 0.6 for of in [*others, *(words(p.text) for p in blunt[:i])]), i


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


@pytest.mark.parametrize("n", [0, -1, 121])
def test_a_starter_set_gives_no_fewer_than_it_was_asked_for(n: int) -> None:
    with pytest.raises(DemurError, match="1 to 120"):
        starter("harmful", n)


def test_another_name_is_no_starter_set() -> None:
    with pytest.raises(DemurError, match="harmless or harmful"):
        starter("neutral")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SETS)
def test_the_door_leads_to_the_starter_sets(name: str) -> None:
    assert load(name) == starter(name)
    assert load(name, limit=7) == starter(name, 7)
    assert load(name, harmful=name == "harmful", limit=7) == starter(name, 7)
    assert load(FOLDER / f"{name}.jsonl") == starter(name)


# --- round trips --------------------------------------------------------------------------------------------


def as_json(prompts: list[Prompt], path: Path) -> None:
    path.write_text(json.dumps([asdict(p) for p in prompts], indent=2), encoding="utf-8")


def as_csv(prompts: list[Prompt], path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(prompts[0])))
        writer.writeheader()
        writer.writerows(asdict(p) for p in prompts)


def as_parquet(prompts: list[Prompt], path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist([asdict(p) for p in prompts]), path)


WRITERS = {".jsonl": save, ".json": as_json, ".csv": as_csv, ".parquet": as_parquet}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("prompts", [AWKWARD, starter("harmful")], ids=["awkward", "starter"])
def test_what_is_written_is_read_again(suffix: str, prompts: list[Prompt], tmp_path: Path) -> None:
    path = tmp_path / f"prompts{suffix}"
    WRITERS[suffix](prompts, path)
    assert load(path) == load(str(path)) == prompts
    assert load(path, limit=2) == prompts[:2]
    assert load(path, limit=1000) == prompts


def test_save_load_save_is_byte_identical(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    odd = [*AWKWARD, replace(AWKWARD[0], id="e", source="", system=""), *starter("harmless")]
    save(odd, one)
    assert load(one) == odd
    save(load(one), two)
    assert one.read_bytes() == two.read_bytes()
    assert b"\r\n" not in one.read_bytes()


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.jsonl"
    save(AWKWARD, path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DemurError, match="No space left"):
        save(starter("harmless"), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["kept.jsonl"]


@pytest.mark.parametrize(
    ("prompts", "name", "says"),
    [
        ([Prompt("a", "x"), Prompt("a", "y")], "p.jsonl", "two prompts have the id 'a'"),
        ([Prompt("", "x")], "p.jsonl", "has no id"),
        ([Prompt("a", " ")], "p.jsonl", "has no text"),
        ([Prompt("a", "half \ud83d")], "p.jsonl", "surrogate"),
        ([Prompt("a", "x")], "p.csv", "ends in .jsonl"),
        ([Prompt("a", "x")], "nowhere/p.jsonl", "no folder"),
    ],
)
def test_save_takes_only_what_load_gives_back(prompts: list[Prompt], name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DemurError, match=re.escape(says)):
        save(prompts, tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["folder", "device"])
def test_saving_replaces_no_folder_and_no_device(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.mkdir() if kind == "folder" else path.symlink_to(os.devnull)
    with pytest.raises(DemurError, match="folder" if kind == "folder" else "no regular file"):
        save([Prompt("a", "x")], path)
    assert path.is_dir() if kind == "folder" else path.is_symlink()
    assert os.listdir(tmp_path) == ["p.jsonl"]


def test_a_digest_is_of_ids_and_texts_in_order() -> None:
    one, two = Prompt("a", "x"), Prompt("b", "y")
    assert re.fullmatch("[0-9a-f]{64}", digest([one, two]))
    assert digest([one, two]) == digest([replace(one, category="c", harmful=True), two])
    different = [[], [one], [two, one], [replace(one, id="aa"), two], [replace(one, text="xx"), two]]
    assert len({digest(prompts) for prompts in [[one, two], *different]}) == 6
    assert digest([Prompt("ab", "c")]) != digest([Prompt("a", "bc")])


# --- columns, ids, labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("column", TEXT_COLUMNS)
def test_the_request_is_found_under_every_usual_name(column: str, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", {column: "one", "other": 1}, {column: "two"})
    assert [(p.id, p.text, p.harmful, p.source) for p in load(path)] == [
        ("mine-0001", "one", None, "mine.jsonl"),
        ("mine-0002", "two", None, "mine.jsonl"),
    ]


def test_the_first_usual_name_wins(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", dict.fromkeys(reversed(TEXT_COLUMNS), "") | {"text": "this"})
    assert load(path)[0].text == "this"


def test_columns_map_our_fields_to_theirs(tmp_path: Path) -> None:
    record = {
        "Behavior": "do it",
        "BehaviorID": 7,
        "text": "no",
        "id": "no",
        "kind": ["x", "y"],
        "category": "no",
    }
    path = write(tmp_path / "mine.jsonl", record)
    mapping = {"text": "Behavior", "id": "BehaviorID", "licence": "kind", "category": ""}
    assert load(path, columns=mapping) == [Prompt("7", "do it", source="mine.jsonl", licence='["x", "y"]')]


def test_what_a_row_says_of_itself_is_kept(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.jsonl",
        {"text": "x", "id": 3, "license": "MIT", "category": "c", "source": "s", "harmful": 1, "more": {}},
        {"text": "x", "id": None, "category": None, "source": None, "harmful": "no"},
    )
    assert load(path) == [
        Prompt("3", "x", True, "s", "c", "MIT"),
        Prompt("mine-0002", "x", False, "mine.jsonl"),
    ]


def test_blank_lines_and_blank_cells_say_nothing(tmp_path: Path) -> None:
    jsonl = write(tmp_path / "a.jsonl", "", {"text": "x"}, "  ", {"text": "y"})
    assert [p.id for p in load(jsonl)] == ["a-0001", "a-0002"]
    table = write(tmp_path / "a.csv", "id,text,harmful,source,category", "", ",x,,,", ",y,True,,")
    assert load(table) == [Prompt("a-0001", "x", None, "a.csv"), Prompt("a-0002", "y", True, "a.csv")]


def test_a_parquet_nan_says_nothing(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {"prompt": ["x", "y"], "harmful": [1.0, float("nan")], "category": [float("nan"), 2.0]}
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    assert [(p.harmful, p.category) for p in load(tmp_path / "a.parquet")] == [(True, ""), (None, "2.0")]


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    for name, text in {
        "a.csv": "text\nx\n",
        "a.jsonl": '{"text": "x"}\n',
        "a.json": '[{"text": "x"}]',
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert load(tmp_path / name)[0].text == "x"


def test_a_label_is_given_to_rows_that_have_none(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", {"text": "x"}, {"text": "y", "harmful": True})
    assert [p.harmful for p in load(path)] == [None, True]
    assert [p.harmful for p in load(path, harmful=True)] == [True, True]
    assert "line 2 says harmful=True" in str(error_of(path, harmful=False))
    assert [p.harmful for p in load(path, harmful=False, columns={"harmful": ""})] == [False, False]


# --- files that cannot be read ------------------------------------------------------------------------------


def test_a_missing_file_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path / "requests.jsonl", {"text": "x"})
    write(tmp_path / "zebra.csv", "text", "x")
    assert f"did you mean {tmp_path / 'requests.jsonl'}?" in str(error_of(tmp_path / "reqests.jsonl"))
    assert "did you mean" not in str(error_of(tmp_path / "0123456789"))
    assert f"there is no folder {tmp_path / 'no'}" in str(error_of(tmp_path / "no" / "p.csv"))
    assert "did you mean advbench?" in str(error_of("advbnech"))
    assert "did you mean" not in str(error_of("x.parquet"))  # a file's name is no set's
    assert "hf:walledai/AdvBench" in str(error_of("walledai/AdvBench"))


def test_a_path_is_a_file_and_a_string_may_be_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(load("harmful", limit=3)) == 3
    error_of(Path("harmful"))


def test_other_suffixes_and_folders_are_refused(tmp_path: Path) -> None:
    assert ".jsonl, .json, .csv, .parquet, .tsv, .txt" in str(error_of(write(tmp_path / "p.yaml", "x")))
    assert "save the sheet as CSV" in str(error_of(write(tmp_path / "p.xlsx", "x")))
    (tmp_path / "folder.csv").mkdir()
    assert "cannot read prompts from" in str(error_of(tmp_path / "folder.csv"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        # no request in it
        ("p.jsonl", '{"text": "x"}\n\n{"text": " "}\n', "p.jsonl, line 3: the column 'text' is empty"),
        ("p.jsonl", '{"prompt": null}\n', "line 1: the column 'prompt' is empty"),
        ("p.jsonl", '{"prompt": ["x"]}\n', "line 1: the column 'prompt' holds a list"),
        (
            "p.jsonl",
            '{"frage": "x", "n": 1}\n',
            "line 1 has the columns frage, n; expected one of text, prompt, instruction",
        ),
        (
            "p.jsonl",
            '{"frage": "x"}\n',
            "name the one that holds the request: columns={'text': '...'}, or --column text=",
        ),
        ("p.jsonl", '{"text": "x \\ud83d"}\n', "line 1: the text holds half of a surrogate pair"),
        ("p.json", '[{"text": "x"},\n\n {"text": ""}]', "p.json, line 3: the column 'text' is empty"),
        ("p.csv", 'text,n\n"x\ny",1\n"",2\n', "p.csv, line 4: the column 'text' is empty"),
        ("p.jsonl", "\n\n", "p.jsonl has no prompts"),
        ("p.json", "[]", "p.json has no prompts"),
        ("p.csv", "text\n", "p.csv has no prompts"),
        # broken JSON
        ("p.jsonl", '{"text": "x"}\n{"text": \n', "p.jsonl, line 2: broken JSON (Expecting value"),
        ("p.jsonl", '{"text": "x"} x\n', "line 1: broken JSON (Extra data, column 15)"),
        ("p.jsonl", "[" * 100_000, "line 1: broken JSON"),
        ("p.jsonl", "7\n", "line 1 is a number; expected an object"),
        ("p.jsonl", '{"text": "x"}\n["x"]\n', "line 2 is a list; expected an object"),
        ("p.jsonl", '{"text": "x"},\n{"text": "y"},\n', "line 1: broken JSON (a comma behind the object, column 14)"),
        ("p.jsonl", '{"text": "x", "text": "y"}\n', "line 1: the key 'text' comes twice and says two things"),
        ("p.json", "x\n", "a list of objects, which begins with [, or objects one after the other"),
        ("p.json", '{"text": "x"},\n{"text": "y"}', "line 1: broken JSON (found ','); expected an object"),
        ("p.json", '{"data": [{"txt": "x"}]}', "p.json, number 1 of 'data' has the columns txt; expected one of text"),
        ("p.json", '{"text": {"0": "x"}}', "line 1: the column 'text' holds an object"),
        ("p.json", '[{"text": "x"},\n{"text": x}]', "p.json, line 2: broken JSON (Expecting value"),
        (
            "p.json",
            '[{"text": "x"}\n {"text": "y"}]',
            "line 2: broken JSON (found '{'); expected a comma or ]",
        ),
        ("p.json", '[{"text": "x"},\n ]', "line 2: broken JSON"),
        ("p.json", '[{"text": "x"}\n', "line 2: the file ends before its list does"),
        ("p.json", '[{"text": "x"}]\n]', "line 2: broken JSON (found ']'); expected nothing more"),
        ("p.json", "[7]", "line 1 is a number"),
        ("p.json", "", "line 1: the file ends before its list does"),
        # broken CSV
        ("p.csv", 'text,n\nx,1\n"y,2\nz,3\n', "p.csv, line 3: broken CSV (unexpected end of data)"),
        ("p.csv", "text,n\nx,1\ny, and z,2\n", "p.csv, line 3 has 3 cells; expected 2"),
        ("p.csv", "text,text\nx,1\n", "line 1: a column comes twice"),
        # ids and labels
        (
            "p.jsonl",
            '{"id": 1, "text": "x"}\n{"id": "1", "text": "y"}\n',
            "line 2: the id '1' came before, at",
        ),
        (
            "p.jsonl",
            '{"harmful": "perhaps", "text": "x"}\n',
            "line 1: harmful is 'perhaps'; expected true, false",
        ),
        # not what its name says
        ("p.parquet", "text\nx\n", "expected a Parquet file"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(name: str, content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert says in str(error_of(path))
    assert str(path.name) in str(error_of(path))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
@pytest.mark.parametrize("encoding", ["latin1", "utf-16"])
def test_another_encoding_is_named_with_the_way_out(suffix: str, encoding: str, tmp_path: Path) -> None:
    content = {
        ".csv": "text\nx\ncafé\n",
        ".json": '[{"text":\n\n"café"}]',
        ".jsonl": '{"text": "x"}\n\n{"text": "é"}',
    }
    path = tmp_path / f"p{suffix}"
    path.write_bytes(content[suffix].encode(encoding))
    error = error_of(path)
    assert f"p{suffix}, line {3 if encoding == 'latin1' else 1}: not UTF-8 (byte 0x" in error.came
    assert f"iconv -f {encoding.upper()} -t UTF-8" in error.then


@pytest.mark.parametrize("columns", [{"txt": "prompt"}, {"text": "absent"}, {"id": "absent"}])
def test_columns_name_fields_and_columns_that_exist(columns: dict[str, str], tmp_path: Path) -> None:
    error = error_of(write(tmp_path / "p.jsonl", {"text": "x", "n": 1}), columns=columns)
    assert "fields of Prompt: id, text" in error.expected or error.expected == "one of text, n"


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_is_at_least_one(limit: int) -> None:
    assert "at least 1" in str(error_of("harmless", limit=limit))


def test_a_missing_pyarrow_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'demur[data]'" in str(error_of(write(tmp_path / "p.parquet", "x")))


# --- large files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_a_limit_leaves_the_rest_of_the_file_unread(suffix: str, tmp_path: Path) -> None:
    begin = {".json": '[{"text": "x"},\n{"text": "y"},\n', ".csv": "text\nx\ny\n"}
    path = tmp_path / f"p{suffix}"
    path.write_bytes(begin.get(suffix, '{"text": "x"}\n{"text": "y"}\n').encode() + b"\n" * (1 << 18) + b"\xff")
    assert [p.text for p in load(path, limit=2)] == ["x", "y"]
    assert "not UTF-8" in str(error_of(path))


@pytest.mark.parametrize("indent", [None, 1])
def test_a_long_json_list_is_read_in_pieces(indent: int | None, tmp_path: Path) -> None:
    records = [{"text": f"request {n} " + "é" * (n % 300)} for n in range(3000)]
    records[1500]["text"] = "long " * 50_000
    path = tmp_path / "p.json"
    path.write_text(json.dumps(records, indent=indent, ensure_ascii=False), encoding="utf-8")
    assert [p.text for p in load(path)] == [r["text"] for r in records]
    path.write_text(json.dumps([*records, {"text": ""}], indent=1), encoding="utf-8")
    assert f"line {3 * 3000 + 2}: the column 'text' is empty" in str(error_of(path))


# --- the hub ------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`datasets`, with a hub that seems to be in reach; no call leaves the machine."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_door, "takes_connection", lambda endpoint, seconds: True)
    return datasets


def answer(hub: Any, monkeypatch: pytest.MonkeyPatch, table: Any) -> list[Any]:
    """Lets ``load_dataset`` return a table, or raise an error, and keeps what it was asked for."""
    asked: list[Any] = []

    def load_dataset(*names: Any, **settings: Any) -> Any:
        asked.append((names, settings))
        if isinstance(table, Exception):
            raise table
        return table

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    return asked


def test_advbench_is_harmful_and_alpaca_is_not(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(hub, monkeypatch, [{"prompt": "x", "target": "Sure"}, {"prompt": "y", "target": "Sure"}])
    assert load("advbench") == [
        Prompt("advbench-0001", "x", True, "walledai/AdvBench"),
        Prompt("advbench-0002", "y", True, "walledai/AdvBench"),
    ]
    assert asked == [(("walledai/AdvBench", None), {"split": "train", "streaming": False})]
    table = [{"instruction": t, "input": i, "output": ""} for t, i in [("x", "with"), ("y", ""), ("z", "")]]
    asked = answer(hub, monkeypatch, table)
    assert load("alpaca", limit=1) == [Prompt("alpaca-0002", "y", False, "tatsu-lab/alpaca")]
    assert asked == [(("tatsu-lab/alpaca", None), {"split": "train", "streaming": True})]
    assert "says harmful=False" in str(error_of("alpaca", harmful=True))


def test_over_refusal_sets_take_their_harmless_half(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [{"prompt": "x", "type": "t", "label": "safe"}, {"prompt": "y", "type": "t", "label": "unsafe"}]
    asked = answer(hub, monkeypatch, both)
    assert [(p.text, p.harmful) for p in load("xstest")] == [("x", False)]
    assert [(p.text, p.harmful) for p in load("xstest-unsafe")] == [("y", True)]
    assert asked == [(("walledai/XSTest", None), {"split": "test", "streaming": False})] * 2
    asked = answer(hub, monkeypatch, [{"prompt": "x", "category": "c"}])
    assert [(load(name)[0].harmful, asked[-1][0][1]) for name in ("or-bench-hard", "or-bench-toxic")] == [
        (False, "or-bench-hard-1k"), (True, "or-bench-toxic")
    ]  # fmt: skip


def test_any_data_set_of_the_hub_may_be_named(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(hub, monkeypatch, [{"Goal": "x", "Index": 4, "license": "MIT", "input": "kept"}])
    got = load("hf:some-one/a.set:part", split="test", columns={"id": "Index"}, harmful=True)
    assert got == [Prompt("4", "x", True, "some-one/a.set", "", "MIT")]
    assert asked == [(("some-one/a.set", "part"), {"split": "test", "streaming": False})]
    assert load("hf:some-one/a.set", split="test")[0].id == "a.set-test-0001"


@pytest.mark.parametrize("source", ["hf:json", "hf:", "hf:a/b/c", "hf:../etc", "hf:a/b c"])
def test_a_data_set_is_named_by_owner_and_name(source: str, hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(hub, monkeypatch, [])
    assert "hf:owner/name" in str(error_of(source))
    assert asked == []


def refusals() -> dict[str, tuple[Exception, str]]:
    """What the libraries really raise, and what is to be said of it."""
    try:
        from datasets import exceptions
        from huggingface_hub import errors
    except ImportError:
        return {}

    class Answer:
        status_code = 403
        headers: dict[str, str] = {}  # noqa: RUF012
        request = None

    def http(kind: str) -> Exception:
        made: Exception = getattr(errors, kind)("Client Error.\nmore", response=Answer())
        return made

    def after(error: Exception, cause: Exception) -> Exception:
        error.__cause__ = cause
        return error

    not_found, network = exceptions.DatasetNotFoundError, "out of reach"
    login = "run `hf auth login`"
    return {
        "gated": (
            http("GatedRepoError"),
            f"accept them at https://huggingface.co/datasets/o/aggregated and {login}",
        ),
        "gated, told by datasets": (not_found("Dataset 'o/n' is a gated dataset on the Hub."), "is gated"),
        "gated, as a cause": (after(not_found("no"), http("GatedRepoError")), "is gated"),
        "absent": (not_found("Dataset 'o/aggregated' doesn't exist on the Hub"), "the hub shows no data set"),
        "absent, told by the hub": (http("RepositoryNotFoundError"), f"{login} if it is private"),
        "disabled": (http("DisabledRepoError"), "DisabledRepoError: Client Error."),
        "busy": (http("HfHubHTTPError"), "HfHubHTTPError: Client Error."),
        "network": (ConnectionError("Couldn't reach 'o/n' on the Hub (ConnectError)\nmore"), network),
        "time": (TimeoutError("timed out"), network),
        "network, told by the hub": (errors.LocalEntryNotFoundError("not found in the cache"), network),
        "network, as a cause": (after(FileNotFoundError("no"), ConnectionResetError("reset")), network),
        "split": (
            ValueError("Unknown split \"trian\". Should be one of ['train']."),
            'Unknown split "trian"',
        ),
        "configuration": (ValueError("Config name is missing.\nPick one"), "hf:o/aggregated:<configuration>"),
        "no files": (exceptions.DataFilesNotFoundError("No (supported) data files found"), "No (supported)"),
        "script": (
            RuntimeError("Dataset scripts are no longer supported"),
            "scripts are no longer supported",
        ),
    }


@pytest.mark.parametrize("case", refusals())
def test_what_the_hub_refuses_is_one_line_that_says_what_to_do(
    case: str, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, says = refusals()[case]
    answer(hub, monkeypatch, error)
    said = error_of("hf:o/aggregated")
    assert says in str(said)
    assert "or give a local .jsonl" in said.then
    if "gated" not in case:
        assert "is gated" not in str(said)


def test_a_connection_lost_on_the_way_is_an_error_too(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def table() -> Any:
        yield {"text": "x"}
        raise ConnectionResetError("peer")

    answer(hub, monkeypatch, table())
    assert "out of reach" in str(error_of("hf:o/n"))


def test_a_missing_datasets_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'demur[data]'" in str(error_of("alpaca"))


@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize("state", ["offline mode", "nobody answers"])
def test_a_real_call_without_a_hub_ends_quickly(
    state: str, limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    offline = state == "offline mode"
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    began = time.monotonic()
    said = str(error_of("advbench", limit=limit))
    assert time.monotonic() - began < 5
    assert ("offline mode is on" if offline else "out of reach") in said
    assert datasets.config.HF_HUB_OFFLINE is offline


@pytest.mark.parametrize("limit", [None, 1])
def test_a_data_set_of_the_cache_is_found_without_a_hub(
    limit: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_door, "takes_connection", lambda endpoint, seconds: False)
    folder = tmp_path / "tatsu-lab___alpaca" / "default" / "0.0.0" / "0123"
    table = datasets.Dataset.from_list([{"instruction": "x", "input": "y"}, {"instruction": "z", "input": ""}])
    from datasets.arrow_writer import ArrowWriter

    folder.mkdir(parents=True)
    with ArrowWriter(path=str(folder / "alpaca-train.arrow"), features=table.features) as writer:
        for row in table:
            writer.write(row)
        writer.finalize()
    split = datasets.splits.SplitInfo("train", num_bytes=1, num_examples=2, dataset_name="alpaca")
    info = datasets.DatasetInfo(
        features=table.features,
        builder_name="alpaca",
        dataset_name="alpaca",
        config_name="default",
        version="0.0.0",
        splits=datasets.splits.SplitDict({"train": split}),
    )
    info.write_to_directory(str(folder))
    assert load("alpaca", limit=limit) == [Prompt("alpaca-0002", "z", False, "tatsu-lab/alpaca")]


def test_the_hub_is_in_reach_if_it_takes_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert takes_connection(f"http://127.0.0.1:{port}")
    assert not takes_connection(f"http://127.0.0.1:{port}")
    with socket.create_server(("127.0.0.1", port)):
        assert not takes_connection(f"http://127.0.0.1:{port}"), "not asked again at once"
        later = time.monotonic() + REST
        monkeypatch.setattr("demur.hub.time.monotonic", lambda: later)
        assert takes_connection(f"http://127.0.0.1:{port}")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert takes_connection("https://hub.invalid"), "a proxy may reach what we cannot"


# --- imports ------------------------------------------------------------------------------------------------


def test_importing_prompts_imports_neither_torch_nor_datasets() -> None:
    code = (
        "import sys, demur.prompts as p; p.load('harmless'); p.starter('harmful', 20); "
        "print([m for m in ('torch', 'numpy', 'datasets', 'pyarrow', 'huggingface_hub') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


OTHERS = [
    Prompt("a", "Go on.", messages=(Message("user", "Tell me a tale."), Message("assistant", "Once."))),
    Prompt("a", "Go on.", messages=(Message("user", "Tell me a tale."), Message("assistant", "Twice."))),
    Prompt("a", "Go on.", messages=(Message("user", "Go on."), Message("user", "Twice."))),
    Prompt("a", "Go on.", system="Be brief."),
    Prompt("a", "Go on.", system=""),
    Prompt("a", "Go on.", prefill="Sure"),
    Prompt("a", "Go on"),
]


@pytest.mark.parametrize("other", OTHERS)
def test_a_prompt_is_another_by_anything_that_a_model_reads(other: Prompt) -> None:
    plain = Prompt("a", "Go on.")
    everybody = [plain, *(one for one in OTHERS if one is not other)]
    assert all(digest([other]) != digest([one]) for one in everybody)
    assert all(other.asked != one.asked for one in everybody)
    assert len(distinct([plain, other, other])) == 2
    assert digest([other]) == digest([replace(other, category="x", harmful=True)])


SORTED = {
    "by topic": [f"How do I {verb} thing {i}?" for verb in ("knit", "bake", "paint", "repair") for i in range(60)],
    "by length": sorted((f"Explain {'very ' * (i % 24)}briefly what number {i} is." for i in range(240)), key=len),
    "by alphabet": sorted(f"{chr(97 + i % 26)}{i}: what is this?" for i in range(240)),
}


@pytest.mark.parametrize("order", SORTED)
def test_parts_of_a_sorted_file_are_alike_for_a_guard_and_for_a_recipe(order: str, tmp_path: Path) -> None:
    """The promise of a calibration is for prompts like it: none of its quarters may be left to another part alone."""
    from demur.cli.guard import _prompts
    from demur.experiment.config import Prompts

    texts = SORTED[order]
    quarter = {text: i * 4 // len(texts) for i, text in enumerate(texts)}
    (tmp_path / "good.txt").write_text("\n".join(texts), encoding="utf-8")
    (tmp_path / "bad.txt").write_text("\n".join(f"How do I rob {i}?" for i in range(80)), encoding="utf-8")
    by_guard = _prompts(str(tmp_path / "good.txt"), False, [60, 60, 60, 60], (), {})
    sizes = {"n": 20, "controls": 20, "plain": 60, "anchors": 60, "fit": 60, "calibrate": 60}
    of = Prompts(harmful=str(tmp_path / "bad.txt"), harmless=str(tmp_path / "good.txt"), **sizes)
    by_recipe = [prompts_of(of, role) for role in ("plain", "anchors/harmless", "fit", "calibrate")]
    for parts in (by_guard, by_recipe):
        assert [len(part) for part in parts] == [60] * 4
        assert len({prompt.text for part in parts for prompt in part}) == 240
        for part in parts:
            assert min(Counter(quarter[prompt.text] for prompt in part).values()) >= 5
    first = [prompt.text for prompt in prompts_of(of, "harmful")]
    assert first == [f"How do I rob {i}?" for i in range(20)]  # no promise hangs on these: as the file has them


def test_dealing_hangs_on_what_is_asked_alone() -> None:
    some = starter("harmless", 40)
    named = [replace(prompt, id=f"x{i}", category="other") for i, prompt in enumerate(reversed(some))]
    assert [prompt.asked for prompt in dealt(named)] == [prompt.asked for prompt in dealt(some)]
    assert dealt(some) != some


def test_parts_of_the_packages_prompts_are_of_the_same_kinds() -> None:
    """Its own kinds stand mixed; the pairs are of another one, and come in only where the others do not do."""
    from demur.cli.guard import _prompts

    one_sentence = {prompt.text for prompt in (*starter("harmless"), *load("check")[::4])}
    parts = _prompts("starter", False, [120, 200, 160, 100], (), {})
    for part in parts:
        assert sum(prompt.text in one_sentence for prompt in part) / len(part) == pytest.approx(0.25, abs=0.01)
        assert not any(prompt.source == "demur matched set" for prompt in part)
    for part in _prompts("starter", False, [120, 400, 300, 100], (), {}):
        pairs = sum(prompt.source == "demur matched set" for prompt in part) / len(part)
        assert pairs == pytest.approx(420 / 1100, abs=0.13)


def test_the_check_set_is_like_what_guards_are_calibrated_on_and_repeats_no_request_of_another() -> None:
    check, first, everyday = load("check"), starter("harmless"), load("everyday")
    assert len(check) == 200
    assert {(p.harmful, p.source, p.licence) for p in check} == {(False, "demur check set", "CC0-1.0")}
    for ours, theirs in ((check[::4], first), ([p for i, p in enumerate(check) if i % 4], everyday)):
        assert {p.category for p in ours} == {p.category for p in theirs}
        lengths = [statistics.mean(len(p.text.split()) for p in of) for of in (ours, theirs)]
        assert abs(lengths[0] / lengths[1] - 1) < 0.15
        questions = [sum(p.text.endswith("?") for p in of) / len(of) for of in (ours, theirs)]
        assert abs(questions[0] - questions[1]) < 0.15
    others = [words(p.text) for p in [*first, *everyday, *load("matched")]]
    for i, prompt in enumerate(check):
        mine = words(prompt.text)
        for other in [*others, *(words(p.text) for p in check[:i])]:
            assert len(mine & other) / len(mine | other) <= 0.6, prompt.text


def test_a_guard_is_checked_on_the_kinds_that_it_was_calibrated_on() -> None:
    """Pairs share words with harmful requests and are flagged more often: a guard that saw none would look stale."""
    from demur.cli.guard import _prompts
    from demur.signals import digest

    def seen(sizes: list[int]) -> list[str]:
        return [digest(prompt) for part in _prompts("starter", False, sizes, (), {})[:3] for prompt in part]

    def pairs(*sizes: int, checked: int) -> int:
        (*_, asked) = _prompts("starter", False, [0, 0, 0, checked], seen([*sizes]), {})
        return sum(prompt.source == "demur matched set" for prompt in asked)

    assert pairs(120, 200, 160, 100, checked=200) == 0
    with pytest.raises(DemurError, match="200 different prompts in starter"):
        pairs(120, 200, 160, 100, checked=201)
    assert pairs(120, 400, 300, 100, checked=100) > 20


def test_roles_of_a_world_of_two_lists_share_no_request_in_a_guard() -> None:
    from demur.cli.guard import _prompts

    parts = _prompts("demur.experiment.packaged:Packaged", False, [40, 60, 50, 30], (), {})
    assert [len(part) for part in parts] == [40, 60, 50, 30]
    assert len({prompt.text for part in parts for prompt in part}) == 180
