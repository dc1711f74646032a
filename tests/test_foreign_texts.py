"""A file of prompts that is something else, or whose requests wear the signs of something else: said, or refused."""

from __future__ import annotations

import gzip
import io
import json
import time
import warnings
import zipfile
from pathlib import Path

import pytest

from demur.prompts import load, transcripts
from demur.prompts.encoding import damage_of
from demur.types import DemurError, DemurWarning, Prompt


def said(path: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(path)
    return [str(one.message) for one in caught if issubclass(one.category, DemurWarning)]


def packed() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("xl/workbook.xml", "<x/>")
    return data.getvalue()


FOREIGN = {
    "packed file": packed(),
    "old spreadsheet": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 20,
    "gzip": gzip.compress(b"How are you?\n"),
    "Parquet": b"PAR1\x15\x04",
    "Arrow": b"ARROW1\0\0",
    "a PDF": b"%PDF-1.7\n%\xe2\xe3",
    "data base": b"SQLite format 3\0",
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n",
    "web page": b"\n<!DOCTYPE html>\n<html><body>Not Found</body></html>\n",
    "a web page": b"\xef\xbb\xbf<html lang='en'>\n",
}


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".jsonl", ".json"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_of_another_kind_is_named_whatever_it_is_called(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"prompts{suffix}"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(DemurError, match=kind):
        load(path)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["1. How are you?", "2. Who are you?"], "a number"),
        (["1) How are you?", "", "2) Who are you?"], "a number"),
        (["(1) How are you?", "(12) Who are you?"], "a number"),
        (["- How are you?", "* Who are you?", "• Why?"], "the mark of a list"),
        (['"How are you?"', '"Who are you?"'], "quotation marks"),
        (["“How are you?”", "“Who are you?”"], "quotation marks"),
        (['"How are you?",', '"Who are you?",'], "quotation marks and a comma"),
        (["How are you?,", "Who are you?,"], "a comma at its end"),
        (["['How are you?', 'Who are you?']"], "brackets"),
        (["# requests of May", "How are you?"], "line 1 looks like a comment"),
        (["How are you?", "// the rest is harmful", "Who are you?"], "line 2 looks like a comment"),
    ],
)
def test_the_marks_of_a_list_are_no_part_of_a_request(lines: list[str], says: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(lines) + "\n")
    told = said(path)
    assert len(told) == 1
    assert says in told[0]
    assert [prompt.text for prompt in load_quietly(path)] == [line for line in lines if line]


def load_quietly(path: Path) -> list[Prompt]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(load(path))


@pytest.mark.parametrize(
    "lines",
    [
        ["How are you?", "Who are you?"],
        ["1. How are you?"],
        ["2 eggs, how long?", "10 ways to say no?"],
        ["- How are you?", "Who are you?"],
        ["#metoo: what is it?", "C# or F#?", "### Instruction"],
        ['"Hamlet" is by whom?', '"Faust" is by whom?'],
        ["3.5 or 4?", "2.0 or 3?"],
        ["How do I bake 50% more bread, at 20%?", "What does &c. mean?", r"What is $\nabla x$, or \nu?"],
        ["Ünïcode, ﬁne, 你好 🙂?", "AT&T; who is it?"],
    ],
)
def test_requests_that_only_look_like_it_are_let_be(lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert said(path) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("What is R&amp;D?", "HTML"), ("It&#39;s late, isn&#x27;t it?", "HTML"), ("a &lt;b&gt;\n\nc", "HTML"),
        ("How%20are%20you%3F", "address"), ("%48ow+are+you%3F", "address"),
        (r"How are you?\nTell me.", "source"), (r"Wie sp\u00e4t ist es?", "source"), (r"One:\n\nTwo", "source"),
        ("How\0 are you?", "U+0000"), ("How \x1b[1mare\x1b[0m you?", "U+001B"), ("How are\x7f you?", "U+007F"),
        ("Wie spÃ¤t?", "CP1252"), ("Wie sp\ufffdt?", "U+FFFD"), ("a" * 32767, "spreadsheets"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_request_in_the_signs_of_something_else_is_spoken_of(
    text: str, says: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"prompts{suffix}"
    quoted = text.replace('"', '""')
    content = json.dumps({"prompt": text}) if suffix == ".jsonl" else f'prompt\n"{quoted}"\n'
    path.write_text(content + "\n", encoding="utf-8", newline="")
    assert any(says in line for line in said(path)), said(path)


def test_an_answer_may_be_full_of_such_signs_and_is_told_only_of_letters_that_are_lost(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    for answer, odd in (
        (r"Write &lt;b&gt; and print('a\n')", False), ("%20", False), ("Wie spÃ¤t", True), ("a\0b", True),
    ):  # fmt: skip
        path.write_text(json.dumps({"prompt": "How?", "response": answer}) + "\n")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert transcripts(path)[0].response == answer
        assert bool(caught) is odd
        assert all("it is read as it stands" in str(one.message) for one in caught)


def test_the_sets_that_come_with_the_package_wear_none() -> None:
    from demur.prompts import packaged

    for side in ("harmless", "harmful"):
        for prompt in packaged(side):
            assert damage_of(prompt.text) == ("", ""), prompt.id


def test_a_long_text_is_looked_at_in_no_time() -> None:
    begun = time.perf_counter()
    behind = "%41%42x" * 20_000 + " and then words"
    for text in (
        behind,
        "%2" * 100_000,
        "a\\" * 100_000,
        "&" * 200_000,
        "%20" * 60_000 + " ",
        "\\n" * 100_000,
        "x " * 100_000,
    ):
        damage_of(text)
    assert time.perf_counter() - begun < 2.0
