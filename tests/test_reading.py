"""Laws of the reader: files as spreadsheets, scripts and loggers write them are read right, or refused in one line."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from demur.prompts import RESPONSE_COLUMNS, TEXT_COLUMNS, load, save, transcripts
from demur.prompts.columns import LABELS, NO, YES
from demur.prompts.encoding import damage_of
from demur.types import DemurError, DemurWarning, Message, Prompt

ASK = "How, then, do I bake?"
TURNS = [{"role": "user", "content": ASK}]
SHARE = [{"from": "human", "value": ASK}]


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


def texts(path: Path, **settings: Any) -> list[str]:
    return [prompt.text for prompt in load(path, **settings)]


def error_of(path: Path, reader: Any = load, **settings: Any) -> str:
    with pytest.raises(DemurError) as caught:
        reader(path, **settings)
    said = str(caught.value)
    assert "\n" not in said
    assert path.name in said
    return said


# --- tables -------------------------------------------------------------------------------------------------

TABLES = {
    "semicolons": f"text;harmful\n{ASK};true\n",
    "semicolons, another text": f'category;prompt\nfood;"{ASK}"\n',
    "tabs": f"text\tharmful\n{ASK}\ttrue\n",
    "bars": f"text|harmful\n{ASK}|true\n",
    "told": f"sep=;\ntext;harmful\n{ASK};true\n",
    "told in quotes, with a mark": f'\ufeff"sep=|"\r\nTEXT|n\r\n{ASK}|1\r\n',
    "blank lines at both ends": f'\n\ntext,harmful\n"{ASK}",true\n,\n  ,\n\n,,,\n',
    "blank heads": f'text,,\n"{ASK}",,\n',
    "a number without a head": f',text\n0,"{ASK}"\n',
    "cells behind the last head": f'text,n\n"{ASK}",1,,\n',
    "carriage returns alone": f'text,harmful\r"{ASK}",true\r',
    "a large cell elsewhere": f'text,answer\n"{ASK}",{"x" * 200_000}\n',
    "blanks around the heads": f'text , harmful\n"{ASK}", true\n',
    "a blank behind every comma": f'harmful, text\ntrue, "{ASK}"\n',
    "spaced head": f'n,Forbidden Prompt\n1,"{ASK}"\n',
    "a column's name in another language": f'frage;PROMPT\nx;"{ASK}"\n',
}


@pytest.mark.parametrize("case", TABLES)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".CSV", ".csv.gz"])
def test_tables_are_read_however_their_cells_are_separated(case: str, suffix: str, tmp_path: Path) -> None:
    data = TABLES[case].encode()
    path = put(tmp_path, f"p{suffix}", gzip.compress(data, mtime=0) if suffix.endswith("gz") else data)
    assert texts(path) == [ASK]
    assert load(path)[0].id == "p-0001"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('text,harmful\n"Say \\"hello\\" to me",true\n', "not behind a backslash"),
        ('text,harmful\n"Say \\", then go",true\n', "not behind a backslash"),
        ('text,harmful\n"a \\", b"\n', "not behind a backslash"),
        ('text\n"Say "hello" to me"\n', 'written twice ("")'),
        ('text,n\n"How?\n', "unexpected end of data"),
        ("text,n\nHow?\n", "has 1 cells; expected 2"),
        ("text,n\nHow, then?,2\n", "has 3 cells; expected 2"),
        ("How do I bake?\nHow do I cook?\n", "a table needs a first line with its columns' names"),
        ("id,text\n1,x\n1,y\n", "number the rows instead: columns={'id': ''}, or --column id="),
        ("text\nx\nNaN\n", "stands for a missing value"),
    ],
)
def test_tables_that_can_not_be_read_say_why(content: str, says: str, tmp_path: Path) -> None:
    assert says in error_of(put(tmp_path, "p.csv", content))


def test_reading_leaves_the_limits_of_the_csv_module_alone(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    path = put(tmp_path, "p.csv", f"text\n{'x' * 200_000}\ny\n")
    assert len(load(path, limit=1)[0].text) == 200_000
    assert csv.field_size_limit() == before


# --- JSON and text ------------------------------------------------------------------------------------------

ROW = json.dumps({"text": ASK})
JSONS = {
    "a mark on every line": f"\ufeff{ROW}\n\ufeff{ROW}\n",
    "a list": f"[{ROW},\n{ROW}]",
    "objects over several lines": f'{{\n  "text": "{ASK}"\n}}\n{{\n"text": "{ASK}"}}\n',
    "carriage returns alone": f"{ROW}\r{ROW}\r",
    "texts": f"{json.dumps(ASK)}\n{json.dumps(ASK)}\n",
    "a list of texts": json.dumps([ASK, ASK]),
    "a number of 5,000 digits": f'{{"text": "{ASK}", "n": {"9" * 5000}}}\n{ROW}',
    "conversations": json.dumps([TURNS, TURNS]),
}


@pytest.mark.parametrize("case", JSONS)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".ndjson"])
def test_json_is_read_in_every_usual_shape(case: str, suffix: str, tmp_path: Path) -> None:
    assert texts(put(tmp_path, f"p{suffix}", JSONS[case])) == [ASK, ASK]


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"text": "x"},\n{"text": "y"},\n', "line 1: broken JSON"),
        ('[{"text": "x"},\n]', "line 2: broken JSON"),
        ('{"text": "x", "text": "y"}', "the key 'text' comes twice"),
        ('{"text": "x", "more": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
        ('{"text": {"0": "x"}}', "orient='records'"),
        ('{"text": ["x", "y"]}', "the column 'text' holds a list"),
        ('{"text": "x \\ud800"}', "line 1: the text holds half of a surrogate pair"),
        ('{"text": "x", "id": "\\udfff"}', "line 1: the id holds half of a surrogate pair"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "half of a surrogate pair"),
        ('{"text": "x", "id": 1}\n{"text": "y", "id": 1.0}', "line 2: the id '1' came before"),
    ],
)
def test_json_that_can_not_be_read_says_why(suffix: str, content: str, says: str, tmp_path: Path) -> None:
    assert says in error_of(put(tmp_path, f"p{suffix}", content))


def test_a_text_file_has_a_request_a_line_and_is_no_table(tmp_path: Path) -> None:
    assert texts(put(tmp_path, "p.txt", f"\ufeff{ASK}\r\n\r\n  Text, please \n")) == [ASK, "Text, please"]
    for content, kind in (
        ("text,harmful\nx,true", ".csv"),
        ("prompt\nx", ".csv"),
        (ROW, ".jsonl"),
        (f"[{ROW}]", ".json"),
    ):
        assert f"this looks like {kind}" in error_of(put(tmp_path, "p.txt", content))


@pytest.mark.parametrize(
    ("encoding", "words", "guess"),
    [
        ("utf-16", "Wie grüße ich?", "UTF-16"),
        ("utf-16-le", "How do I bake?", "UTF-16LE"),
        ("utf-16-be", "How do I bake?", "UTF-16BE"),
        ("utf-32", "How do I bake?", "UTF-32"),
        ("latin1", "Wie grüße ich?", "LATIN1"),
        ("cp1252", "Say “hello” to me", "CP1252"),
        ("gb18030", "我怎么烤面包", "can not be told"),
        ("cp1251", "Как испечь хлеб", "can not be told"),
        ("shift_jis", "パンの焼き方は", "can not be told"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".txt"])
def test_another_encoding_is_guessed(encoding: str, words: str, guess: str, suffix: str, tmp_path: Path) -> None:
    said = error_of(put(tmp_path, f"p{suffix}", f"{'text' if suffix == '.csv' else 'Hi'}\n{words}\n".encode(encoding)))
    assert "not UTF-8" in said
    assert guess in said


@pytest.mark.parametrize(
    "content", [b"x", gzip.compress(b"text\nx\n", mtime=0)[:-6], gzip.compress(b"text\nx\n", mtime=0)[:12] + b"zzzz"]
)
def test_a_packed_file_that_is_none_is_one_line(content: bytes, tmp_path: Path) -> None:
    assert "cannot read" in error_of(put(tmp_path, "p.csv.gz", content))


# --- Parquet ------------------------------------------------------------------------------------------------


def table(path: Path, **columns: Any) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path)
    return path


def odd(kind: str) -> Any:
    """Two values that Python can not hold."""
    pa = pytest.importorskip("pyarrow")
    far = pa.array([9_000_000_000_000_000, 0], pa.int64())
    raw = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\4\0\0\0\x08\0\0\0"), pa.py_buffer(b"caf\xe9How?")]
    )
    return {
        "far": lambda: far.cast(pa.timestamp("ms")),
        "far day": lambda: pa.array([2_000_000_000, 0], pa.int32()).cast(pa.date32()),
        "zone": lambda: pa.array([0, 1], pa.int64()).cast(pa.timestamp("us", tz="Mars/Olympus")),
        "long": lambda: pa.array([2**62, 2]).cast(pa.duration("s")),
        "raw": lambda: raw,
        "raw list": lambda: pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), raw),
    }[kind]()


@pytest.mark.parametrize("kind", ["far", "far day", "zone", "long", "raw", "raw list"])
def test_columns_that_nobody_reads_can_not_break_a_parquet_file(kind: str, tmp_path: Path) -> None:
    path = table(tmp_path / "p.parquet", text=[ASK, "y"], other=odd(kind))
    assert texts(path) == [ASK, "y"]
    path = table(tmp_path / "q.parquet", text=[ASK, "y"], category=odd(kind))
    assert "row 1: the column 'category' can not be read" in error_of(path)
    assert texts(path, columns={"category": ""}) == [ASK, "y"]


def test_parquet_names_the_row_whose_text_is_not_utf8(tmp_path: Path) -> None:
    assert "row 1: the column 'text' can not be read (not UTF-8, byte 0xe9)" in error_of(
        table(tmp_path / "p.parquet", text=odd("raw"))
    )
    assert texts(table(tmp_path / "b.parquet", text=[b"How?", "grüße".encode()])) == ["How?", "grüße"]
    assert "row 2" in error_of(table(tmp_path / "c.parquet", text=[b"How?", b"gr\xfc"]))


def test_parquet_holds_conversations_and_gaps(tmp_path: Path) -> None:
    path = table(tmp_path / "p.parquet", messages=[TURNS, TURNS], id=[1.0, None], harmful=[None, 1.0])
    assert [(p.id, p.text, p.harmful) for p in load(path)] == [("1", ASK, None), ("p-0002", ASK, True)]
    assert "row 1 has the columns frage; expected one of" in error_of(table(tmp_path / "q.parquet", frage=["x"]))


# --- columns ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TEXT_COLUMNS, "Behavior", "Forbidden Prompt", "PROMPT", "User-Prompt", "Goal"])
def test_the_request_is_found_in_any_case(name: str, tmp_path: Path) -> None:
    assert texts(put(tmp_path, "p.jsonl", json.dumps({"n": 1, name: ASK}))) == [ASK]
    assert texts(put(tmp_path, "p.csv", f'n,{name}\n1,"{ASK}"\n')) == [ASK]


@pytest.mark.parametrize("column", ["messages", "conversations", "conversation", "prompt", "text"])
@pytest.mark.parametrize("turns", [TURNS, SHARE, [{"role": "User", "content": [{"type": "text", "text": ASK}]}]])
def test_a_conversation_is_found_and_taken_apart(column: str, turns: list[Any], tmp_path: Path) -> None:
    whole = [{"role": "system", "content": "Be brief."}, *SHARE, {"from": "gpt", "value": "So."}, *turns]
    quoted = json.dumps(whole).replace('"', '""')
    for name, content in (("p.jsonl", json.dumps({column: whole})), ("q.csv", f'messages\n"{quoted}"\n')):
        (prompt,) = load(put(tmp_path, name, content))
        assert (prompt.system, prompt.text, prompt.prefill) == ("Be brief.", ASK, "")
        assert prompt.messages == (Message("user", ASK), Message("assistant", "So."))
    (prompt,) = load(put(tmp_path, "r.csv", f'messages\n"{whole!r}"\n'))  # as pandas writes a list
    assert prompt.text == ASK


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        ([{"role": "tool", "content": "x"}], "of the role 'tool'"),
        ([{"role": "user", "content": None}], "turn 1 of the column 'messages' has no content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "a part that is no text"),
        ([{"role": "user", "content": " "}], "is empty"),
        ([{"role": "system", "content": "x"}], "the user's request at the end"),
        (["x"], "holds a list"),
        ("x", "no list of messages"),
        ([{"role": "user", "content": "x"}, {"role": "system", "content": "x"}], "at most at the beginning"),
    ],
)
def test_what_is_no_conversation_says_why(turns: Any, says: str, tmp_path: Path) -> None:
    assert says in error_of(put(tmp_path, "p.jsonl", json.dumps({"messages": turns})))


def test_an_answer_at_the_end_is_no_prefill_unless_somebody_says_so(tmp_path: Path) -> None:
    path = put(tmp_path, "p.jsonl", json.dumps({"messages": [*TURNS, {"role": "assistant", "content": "Sure, "}]}))
    assert "ends with the assistant's turn" in error_of(path)
    assert [(p.text, p.prefill) for p in load(path, columns={"prefill": ""})] == [(ASK, "")]
    assert [(p.text, p.prefill) for p in load(path, columns={"messages": "messages"})] == [(ASK, "Sure, ")]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"text": "x", "prompt": "y"}, "the columns 'text' and 'prompt' say different things"),
        ({"Question": "x", "instruction": "y"}, "'instruction' and 'Question'"),
        ({"prompt": "x", "messages": TURNS}, "'messages' and 'prompt'"),
        ({"question": "x", "input": "y"}, "'question' and 'input'"),
        ({"text": "rendered", "messages": [*TURNS, {"role": "assistant", "content": "a"}]}, "ends with the assistant"),
        ({"text": None, "goal": "x"}, "the column 'text' is empty"),
        ({"system": "a", "messages": [{"role": "system", "content": "b"}, *TURNS]}, "'system' and 'the first message'"),
    ],
)
def test_two_columns_that_say_different_things_are_an_error(row: dict[str, Any], says: str, tmp_path: Path) -> None:
    assert says in error_of(put(tmp_path, "p.jsonl", json.dumps(row)))


def test_columns_that_agree_or_stand_behind_are_none(tmp_path: Path) -> None:
    for row, text in (
        ({"text": ASK, "prompt": f" {ASK}"}, ASK),
        ({"text": "", "prompt": ASK}, ASK),
        ({"prompt": ASK, "goal": "behind", "behavior": "name"}, ASK),
        ({"Goal": ASK, "Behavior": "Baking", "input": "kept"}, ASK),
        ({"instruction": "Put in order.", "input": "b, a", "output": "a, b"}, "Put in order.\n\nb, a"),
        ({"instruction": ASK, "input": ""}, ASK),
        ({"prompt": ASK, "messages": TURNS}, ASK),
    ):
        assert texts(put(tmp_path, "p.jsonl", json.dumps(row))) == [text]
    path = put(tmp_path, "p.jsonl", json.dumps({"text": "x", "prompt": "y"}))
    assert texts(path, columns={"text": "prompt"}) == ["y"]


@pytest.mark.parametrize("word", [*YES, *NO, "TRUE", "Falsch", " Y ", "NA", ""])
def test_labels_are_read_in_any_case_and_several_languages(word: str, tmp_path: Path) -> None:
    path = put(tmp_path, "p.csv", f"text,Harmful\n{ASK.replace(',', '')},{word}\n")
    assert load(path)[0].harmful is LABELS[word.strip().lower()]


@pytest.mark.parametrize("value", ["perhaps", "2", "0.7", -1, [1]])
def test_another_label_is_an_error(value: Any, tmp_path: Path) -> None:
    said = error_of(put(tmp_path, "p.jsonl", json.dumps({"text": "x", "harmful": value})))
    assert "expected true, false, or nothing" in said
    assert "--column harmful=" in said


def test_a_labelled_file_serves_both_sides(tmp_path: Path) -> None:
    path = put(tmp_path, "p.csv", "text,harmful\na,yes\nb,no\nc,TRUE\nd,0\n")
    assert texts(path, side="harmful") == ["a", "c"]
    assert [(p.text, p.harmful, p.id) for p in load(path, side="harmless", limit=1)] == [("b", False, "p-0002")]
    words = put(tmp_path, "w.csv", "text,label\na,unsafe\nb,safe\n")
    assert texts(words, side="harmful", columns={"harmful": "label"}) == ["a"]
    plain = put(tmp_path, "q.csv", "text\na\nb\n")
    assert [(p.text, p.harmful) for p in load(plain, side="harmful")] == [("a", True), ("b", True)]
    some = put(tmp_path, "s.csv", "text,harmful\na,\nb,no\n")
    assert "line 2 has no label, and other rows have one" in error_of(some, side="harmful")
    assert texts(some, side="harmful", columns={"harmful": ""}) == ["a", "b"]
    one = put(tmp_path, "o.csv", "text,harmful\na,no\nb,no\n")
    assert "has no harmful rows, they all say harmful=False" in error_of(one, side="harmful")
    for name in ("label", "unsafe", "not_safe"):
        unclear = put(tmp_path, "u.csv", f"text,{name}\na,1\nb,0\n")
        assert "nobody has said whether it marks harm" in error_of(unclear, side="harmful")
        assert texts(unclear, side="harmful", columns={"harmful": name}) == ["a"]
        assert texts(unclear, side="harmful", columns={"harmful": ""}) == ["a", "b"]
        assert [p.harmful for p in load(unclear)] == [None, None]
    with pytest.raises(DemurError, match="has no harmless rows") as ours:
        load("harmful", side="harmless")
    assert "labels" not in str(ours.value), "those of the package are right: nobody is told to ignore them"
    assert "ignore the labels: columns={'harmful': ''}, or --column harmful=" in error_of(one, side="harmful")
    with pytest.raises(DemurError, match="harmless or harmful"):
        load(path, side="both")  # type: ignore[arg-type]
    with pytest.raises(DemurError, match="one of them"):
        load(path, side="harmful", harmful=False)


def test_a_conversation_is_saved_as_everybody_writes_it(tmp_path: Path) -> None:
    turns = (Message("user", "a"), Message("assistant", "b"))
    asked = [
        Prompt("1", "c", messages=turns, system="s"),
        Prompt("2", "a", messages=turns),
        Prompt("3", "x", prefill="y"),
    ]
    save(asked, tmp_path / "p.jsonl")
    assert load(tmp_path / "p.jsonl") == asked
    assert json.loads((tmp_path / "p.jsonl").read_text().splitlines()[0])["messages"][-1]["content"] == "c"
    plain = put(tmp_path, "plain.jsonl", "\n".join(json.dumps(prompt.plain()) for prompt in asked))
    assert load(plain) == asked


# --- transcripts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*RESPONSE_COLUMNS, "Response", "MODEL OUTPUT"])
def test_the_answer_is_found_under_every_usual_name(name: str, tmp_path: Path) -> None:
    for path in (
        put(tmp_path, "t.jsonl", json.dumps({"prompt": ASK, name: "So."})),
        put(tmp_path, "t.csv", f'prompt;{name}\n"{ASK}";So.\n'),
    ):
        (one,) = transcripts(path)
        assert (one.prompt.text, one.response, one.prompt.id) == (ASK, "So.", "1")


ANSWERED = [*TURNS, {"role": "assistant", "content": "So."}]


@pytest.mark.parametrize(
    ("row", "asked", "response"),
    [
        ({"messages": ANSWERED}, ASK, "So."),
        ({"messages": ANSWERED, "prompt": ASK, "response": "So."}, ASK, "So."),
        ({"conversations": [*SHARE, {"from": "gpt", "value": "So."}]}, ASK, "So."),
        ({"messages": TURNS, "output": "So."}, ASK, "So."),
        ({"prompt": TURNS, "completion": [{"role": "assistant", "content": "So."}]}, ASK, "So."),
        ({"prompt": ASK, "response": {"role": "assistant", "content": "So."}}, ASK, "So."),
        ({"prompt": ASK, "responses": 1, "generation": ["So."]}, ASK, "So."),
        ({"input": ASK, "output": "So."}, ASK, "So."),
        ({"prompt": ASK, "prefill": "Sure, ", "response": "so."}, ASK, "so."),
        ({"prompt": ASK, "prefill": "Sure, ", "response": "Sure, so."}, ASK, "so."),
        ({"prompt": ASK, "response": None}, ASK, ""),
        ({"prompt": ASK, "response": "", "answer": " "}, ASK, ""),
        ({"prompt": ASK, "response": []}, ASK, ""),
        ({"prompt": ASK, "response": 4}, ASK, "4"),
    ],
)
def test_an_answer_is_what_was_generated(row: dict[str, Any], asked: str, response: str, tmp_path: Path) -> None:
    (one,) = transcripts(put(tmp_path, "t.jsonl", json.dumps(row)))
    assert (one.prompt.text, one.response) == (asked, response)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": ASK, "response": "a", "output": "b"}, "'response' and 'output' say different things"),
        ({"messages": ANSWERED, "response": "b"}, "say different things"),
        ({"prompt": ASK, "response": ["a", "b"]}, "holds 2 values; expected one answer"),
        ({"prompt": ASK, "reponse": "a"}, "name the one that holds the answer: columns={'response': '...'}"),
        ({"prompt": "", "response": "a"}, "the column 'prompt' is empty"),
        ({"response": "a"}, "has the columns response"),
        ({"prompt": ASK, "response": "Mix \ud83d flour"}, "the response holds half of a surrogate pair"),
    ],
)
def test_a_row_that_is_no_transcript_is_named(row: dict[str, Any], says: str, tmp_path: Path) -> None:
    said = error_of(put(tmp_path, "t.jsonl", "\n" + json.dumps(row)), transcripts)
    assert says in said
    assert "line 2" in said


def test_an_answers_column_may_be_named_and_ids_may_come_twice(tmp_path: Path) -> None:
    path = put(tmp_path, "t.csv", "id,text,b\n7,x,first\n7,x,second\n")
    found = transcripts(path, columns={"response": "b"})
    assert [(one.prompt.id, one.row, one.response) for one in found] == [("7", 1, "first"), ("7", 2, "second")]
    with pytest.raises(DemurError, match="did you mean response"):
        transcripts(path, columns={"reponse": "b"})
    with pytest.raises(DemurError, match="fields of Prompt"):
        load(path, columns={"response": "b"})
    with pytest.raises(DemurError, match="an empty column for text"):
        load(path, columns={"text": ""})


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"Behavior": "Sum it up", "ContextString": "The tale."}, "The tale.\n\n---\n\nSum it up"),
        ({"Behavior": "Sum it up", "ContextString": ""}, "Sum it up"),
        ({"instruction": "Sum it up", "context": "The tale."}, "Sum it up\n\nThe tale."),
        ({"question": "Who came?", "context": "The tale."}, "Who came?\n\nThe tale."),
        ({"question": "Who came?", "context": None}, "Who came?"),
        ({"query": "Who came?", "notes": "The tale."}, "Who came?"),
    ],
)
def test_the_passage_that_a_request_is_about_is_asked_with_it(row: dict[str, Any], asked: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([row]), encoding="utf-8")
    assert load(tmp_path / "a.json")[0].text == asked


def test_a_passage_may_be_left_out_by_name_and_one_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    path = put(tmp_path, "p.json", json.dumps([{"question": "Who came?", "context": "The tale."}]))
    assert texts(path, columns={"text": "question"}) == ["Who came?"]
    path = put(tmp_path, "q.json", json.dumps([{"question": "Who came?", "context": {"title": ["The tale."]}}]))
    assert "the column 'context' beside 'question' holds an object" in error_of(path)
    assert texts(path, columns={"text": "question"}) == ["Who came?"]


@pytest.mark.parametrize(
    "names",
    ["A B C D", "a b", "option_a option_b option_c", "Option 1,Option 2", "choice1 choice2 choice3", "opa opb opc opd",
     "sol1 sol2", "ending0 ending1 ending2 ending3", "distractor1 distractor2", "Choice-A,Choice-B", "1 2 3",
     "opción_a opción_b", "A B C D E F G"],
)  # fmt: skip
@pytest.mark.parametrize("request_column", ["question", "prompt", "goal", "messages"])
def test_choices_in_a_column_each_are_an_error_and_the_request_alone_can_be_named(
    names: str, request_column: str, tmp_path: Path
) -> None:
    columns = names.split("," if "," in names else None)
    row: dict[str, Any] = {request_column: TURNS if request_column == "messages" else ASK}
    row |= {column: f"choice {i}" for i, column in enumerate(columns)} | {"subject": "baking"}
    field = "messages" if request_column == "messages" else "text"
    paths = [put(tmp_path, "p.jsonl", json.dumps(row))]
    if request_column != "messages":
        with (tmp_path / "p.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerow(row)
        paths.append(tmp_path / "p.csv")
    for path in paths:
        said = error_of(path)
        assert f"the columns {', '.join(columns)} beside {request_column!r} hold a choice each" in said
        assert f"--column {field}={request_column}" in said
        assert texts(path, columns={field: request_column}) == [ASK]


@pytest.mark.parametrize("names", [["A"], ["b", "c"], ["choice_b"], ["2", "3"], ["A", "1"], ["grade_a", "grade_b"]])
def test_columns_that_are_not_counted_through_are_no_choices(names: list[str], tmp_path: Path) -> None:
    row = {"question": ASK} | dict.fromkeys(names, "x")
    assert texts(put(tmp_path, "p.json", json.dumps([row]))) == [ASK]


@pytest.mark.parametrize(
    ("beside", "told"),
    [
        ({"answer_a": "x", "answer_b": "y"}, "'answer_a', 'answer_b' beside 'prompt' are not asked"),
        ({"Answer 1": "x", "Answer 2": "y"}, "'Answer 1', 'Answer 2' beside 'prompt' are not asked"),
        ({"context": "The tale."}, "'context' beside 'prompt' is not asked"),
        ({"background": "The tale."}, "'background' beside 'prompt' is not asked"),
    ],
)
def test_what_may_belong_to_a_request_is_left_aside_with_one_warning(
    beside: dict[str, str], told: str, tmp_path: Path
) -> None:
    rows = [{"prompt": f"{ASK} {i}"} | beside for i in range(3)]
    path = put(tmp_path, "p.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.warns(DemurWarning, match=told) as caught:
        assert len(load(path)) == 3
    assert len(caught) == 1
    empty = [row | dict.fromkeys(beside, "") for row in rows]
    assert len(load(put(tmp_path, "q.jsonl", "\n".join(map(json.dumps, empty))))) == 3, "without a warning"


def test_choices_in_parquet_are_seen_although_only_known_columns_are_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"question": [ASK], "opa": ["x"], "opb": ["y"], "note": [1]}).to_parquet(tmp_path / "p.parquet")
    assert "the columns opa, opb beside 'question'" in error_of(tmp_path / "p.parquet")


def test_rows_under_one_key_of_an_object_are_the_rows(tmp_path: Path) -> None:
    rows = [{"text": ASK}, {"text": "And then?"}]
    path = put(tmp_path, "p.json", json.dumps({"version": 1, "data": rows, "notes": ["a"]}, indent=1))
    assert texts(path) == [ASK, "And then?"]
    assert texts(path, limit=1) == [ASK]
    said = error_of(put(tmp_path, "q.json", json.dumps({"data": [rows[0], {"text": ""}]})))
    assert "number 2 of 'data'" in said
    two = error_of(put(tmp_path, "r.json", json.dumps({"train": rows, "test": rows})))
    assert "lists of rows under train, test; expected one list of rows" in two
    assert texts(put(tmp_path, "s.json", json.dumps({"messages": TURNS, "tags": rows}))) == [ASK], "a row by itself"


@pytest.mark.parametrize("turn", [{"content": None, "tool_calls": [{"id": "a"}]}, {}])
def test_a_turn_without_text_names_its_row_and_what_to_do(turn: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"messages": [*TURNS, {"role": "assistant", **said}]} for said in ({"content": "So."}, turn)]
    path = put(tmp_path, "t.jsonl", "\n".join(map(json.dumps, rows)))
    said = error_of(path, transcripts)
    assert "line 2: turn 2 of the column 'messages' has no content" in said
    assert "take the row out" in said


def test_a_refusal_in_a_field_of_its_own_is_the_answer(tmp_path: Path) -> None:
    row = {"messages": [*TURNS, {"role": "assistant", "content": None, "refusal": "I can't."}]}
    assert transcripts(put(tmp_path, "t.jsonl", json.dumps(row)))[0].response == "I can't."


@pytest.mark.parametrize("head", ["Bake bread,Cook soup", "Bake bread", "¿Pan?,x y", "Bread?"])
def test_the_words_of_a_table_without_a_header_are_not_repeated(head: str, tmp_path: Path) -> None:
    for name in ("p.csv", "p.tsv"):
        said = error_of(put(tmp_path, name, f"{head}\n{head}\n"))
        assert not any(word in said for word in ("Bake", "Cook", "Pan", "Bread", "x y"))
        assert "one of" in said


@pytest.mark.parametrize("words", ["WAAR ONWAAR", "PRAWDA FAŁSZ", "ИСТИНА ЛОЖЬ", "DOĞRU YANLIŞ", "harmful unharmful"])
def test_labels_of_more_spreadsheets_are_read(words: str, tmp_path: Path) -> None:
    yes, no = words.split()
    (tmp_path / "a.csv").write_text(f"\u200btext;harmful\nOne?;{yes}\nTwo?;{no}\n", encoding="utf-8")
    assert [prompt.harmful for prompt in load(tmp_path / "a.csv")] == [True, False]


# -- what belongs to a request, an answer or a label, under a name that others gave it ------------------------


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("passage", "The tale."),
        ("Choices", {"text": ["a", "b"], "label": ["A", "B"]}),
        ("options", ["a", "b"]),
        ("history", [["Hi", "Hello"]]),
        ("image", "cat.png"),
        ("tools", [{"name": "search"}]),
    ],
)
@pytest.mark.parametrize("request_", [{"question": ASK}, {"messages": TURNS}])
def test_a_column_that_belongs_to_the_request_is_not_left_out_without_a_word(
    column: str, value: Any, request_: dict[str, Any], tmp_path: Path
) -> None:
    path = put(tmp_path, "p.json", json.dumps([request_ | {column: value}]))
    said = error_of(path)
    (name,) = request_
    assert f"the column '{column}' beside '{name}'" in said
    assert "tale" not in said
    assert texts(path, columns={"messages" if name == "messages" else "text": name}) == [ASK]
    empty = put(tmp_path, "q.json", json.dumps([request_ | {column: type(value)()}, request_ | {column: 4, "id": "b"}]))
    assert texts(empty) == [ASK, ASK], "nothing, and a number, belong to no request"


@pytest.mark.parametrize("name", ["system_message", "system_instruction", "sys_prompt", "System Message"])
def test_a_system_prompt_is_found_under_every_usual_name(name: str, tmp_path: Path) -> None:
    path = put(tmp_path, "p.json", json.dumps([{"prompt": ASK, name: "Be short."}]))
    assert load(path)[0].system == "Be short."
    two = put(tmp_path, "q.json", json.dumps([{"prompt": ASK, "system": "Be long.", name: "Be short."}]))
    assert "say different things; expected one system a row" in error_of(two)
    same = put(tmp_path, "r.json", json.dumps([{"prompt": ASK, "system": None, name: "Be short."}]))
    assert load(same)[0].system == "Be short."


@pytest.mark.parametrize("name", ["model_answer", "prediction", "generated_text", "llm_response"])
def test_a_data_set_s_own_answer_is_not_taken_for_the_model_s(name: str, tmp_path: Path) -> None:
    row = {"question": ASK, "answer": "The right one.", name: "What it said."}
    path = put(tmp_path, "p.json", json.dumps([row]))
    assert f"the columns 'answer' and '{name}' say different things" in error_of(path, transcripts)
    assert transcripts(path, columns={"response": name})[0].response == "What it said."
    classed = put(tmp_path, "q.json", json.dumps([{"prompt": ASK, "response": "So.", "prediction": 1}]))
    assert transcripts(classed)[0].response == "So."


@pytest.mark.parametrize(
    "label",
    [{"prompt_harm_label": "unharmful"}, {"harm": 0}, {"type": "benign"}, {"is_toxic": True}, {"Kind": "Unsafe"}],
)
def test_no_side_is_taken_of_a_source_with_labels_of_another_name(label: dict[str, Any], tmp_path: Path) -> None:
    (column,) = label
    path = put(tmp_path, "p.json", json.dumps([{"prompt": ASK} | label]))
    said = error_of(path, side="harmless")
    assert f"the column '{column}'" in said
    assert texts(path, side="harmless", columns={"harmful": ""}) == [ASK]
    plain = put(tmp_path, "q.json", json.dumps([{"prompt": ASK, "type": "question", "category": "food"}]))
    assert texts(plain, side="harmless") == [ASK]


@pytest.mark.parametrize("value", ["#NAME?", "#REF!", "#N/A", "#VALUE!", "NaT"])
def test_what_a_spreadsheet_could_not_make_is_no_request(value: str, tmp_path: Path) -> None:
    assert "stands for a missing value" in error_of(put(tmp_path, "p.csv", f"text,harmful\n{value},true\n"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("How do I \ufffd\ufffd?", "U+FFFD"),
        ("Où est le café ?".encode().decode("cp1252"), "read as CP1252"),
        ("Où à?".encode().decode("latin-1"), "read as CP1252"),
    ],
)
@pytest.mark.parametrize("reader", [load, transcripts])
def test_a_text_that_lost_its_letters_before_is_said_once(text: str, says: str, reader: Any, tmp_path: Path) -> None:
    rows = [{"text": text, "response": "So."}] * 3
    with pytest.warns(DemurWarning) as caught:
        reader(put(tmp_path, "p.json", json.dumps(rows)))
    (said,) = [str(one.message) for one in caught]
    assert says in said
    assert "line 1" in said
    assert text not in said


@pytest.mark.parametrize("text", ["Où est le café ?", "日本語で", "naïve Ärger", "Ã la carte", "price: £5, 5 °C", "🙂"])
def test_texts_beyond_ascii_are_whole(text: str) -> None:
    assert damage_of(text) == ("", "")


@pytest.mark.parametrize(
    "column",
    [
        "ctxs",
        "suffix",
        "adv_suffix",
        "Jailbreak",
        "adversarial prompt",
        "files",
        "code",
        "schema",
        "few-shot",
        "instances",
    ],
)
def test_what_may_be_a_part_of_the_request_is_named_once(column: str, tmp_path: Path) -> None:
    rows = [{"prompt": f"{ASK} {i}", column: ["x"]} for i in range(3)]
    with pytest.warns(DemurWarning, match=f"'{column}' beside 'prompt' is not asked") as caught:
        assert len(load(put(tmp_path, "p.jsonl", "\n".join(map(json.dumps, rows))))) == 3
    assert len(caught) == 1


@pytest.mark.parametrize("column", ["chat_history", "previous turns", "conversation_history"])
def test_turns_in_a_column_of_their_own_are_not_lost(column: str, tmp_path: Path) -> None:
    path = put(tmp_path, "p.json", json.dumps([{"prompt": ASK, column: TURNS}]))
    assert f"the column {column!r} beside 'prompt'" in error_of(path)


@pytest.mark.parametrize(
    "frame",
    ["<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", "<s>[INST] {} [/INST]", "<start_of_turn>user\n{}",
     "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{}", "### Instruction:\n{}\n\n### Response:\n",
     "Human: {}\n\nAssistant:", "USER: {}\nASSISTANT:", "<|user|>\n{}"],
)  # fmt: skip
def test_a_text_in_a_template_of_its_own_is_said_once(frame: str, tmp_path: Path) -> None:
    rows = [{"prompt": frame.format(ASK), "response": "So."}] * 2
    path = put(tmp_path, "p.jsonl", "\n".join(map(json.dumps, rows)))
    for reader in (load, transcripts):
        with pytest.warns(DemurWarning, match="in a chat template already") as caught:
            reader(path)
        assert len(caught) == 1


@pytest.mark.parametrize(
    "text", ["Human: a short history", "What does [INST] mean?", "User: what is it?", "### Title", "<b>"]
)
def test_other_texts_stand_in_no_template(text: str, tmp_path: Path) -> None:
    assert texts(put(tmp_path, "p.jsonl", json.dumps({"prompt": text}))) == [text]
