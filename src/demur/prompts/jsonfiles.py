"""JSON and JSON Lines, and plain text with one request a line, as rows."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from demur.prompts.encoding import reading
from demur.prompts.rows import Row, Rows, Wants, kind_of, shown_name
from demur.types import DemurError, DemurWarning

_DIGITS = 4300
"""Python turns no longer numbers into integers; they stay text."""


class _Repeated(dict[str, Any]):
    """An object in which a key comes twice and says two things."""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeated = _Repeated(found)
    repeated.key = next((key for key, value in pairs if found[key] != value), "")
    return repeated


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _DIGITS else digits


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def json_lines(path: Path) -> Rows:
    """One JSON object per line; blank lines are passed over. A file that begins with [ is read as one list, and one
    whose first line is a lone { as objects over several lines.
    """
    with reading(path, None) as file:
        number = 0
        for line, text in enumerate(file, 1):
            stripped = text.strip().lstrip("\ufeff")  # a mark within the file: several were put together
            if not stripped:
                continue
            if not number and (stripped.startswith("[") or stripped == "{"):
                yield from json_values(path)
                return
            number += 1
            where = f"{path}, line {line}"
            try:
                value = _DECODER.decode(stripped)
            except (ValueError, RecursionError) as error:
                ahead = len(text.rstrip()) - len(stripped)
                raise _broken(where, error, ahead, stripped) from error
            yield _row(value, number, where)


def json_values(path: Path, wants: Wants = lambda name: False) -> Rows:
    """One JSON list, or objects one after the other, read in pieces of 64 KiB, so that a limit holds however long the
    file is. An object that is no row itself, but holds one list of rows under a key, such as ``{"data": [...]}``, is
    that list.
    """
    for number, (line, value) in enumerate(_values(path), 1):
        where = f"{path}, line {line}"
        key = _key_of_rows(value, where, wants) if number == 1 else None
        if key is None:
            yield _row(value, number, where)
            continue
        for at, row in enumerate(value[key], 1):
            yield _row(row, at, f"{path}, number {at} of {shown_name(key)!r}")
        return


def _key_of_rows(value: Any, where: str, wants: Wants) -> str | None:
    """The one key under which an object holds a list of rows. None for a row; raises for several such keys."""
    if not isinstance(value, dict) or any(wants(str(name)) for name in value):
        return None
    keys = [key for key, rows in value.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
    if len(keys) > 1:
        raise DemurError(
            f"{where}: an object with lists of rows under {', '.join(map(shown_name, keys))}",
            "one list of rows",
            "write the one that you mean into a file of its own",
        )
    return keys[0] if keys else None


def _row(value: Any, number: int, where: str) -> Row:
    """An object as a row; a string is a request, a list a conversation."""
    if isinstance(value, _Repeated) and value.key:
        raise DemurError(
            f"{where}: the key {value.key!r} comes twice and says two things", "every key once", "take one of them out"
        )
    if isinstance(value, str):
        value = {"text": value}
    elif isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        value = {"messages": value}
    if not isinstance(value, dict):
        raise DemurError(f"{where} is {kind_of(value)}", "an object with the columns of one prompt, or its text")
    return Row(number, where, value)


def _broken(where: str, error: Exception, ahead: int = 0, text: str = "") -> DemurError:
    """The error for broken JSON. ``ahead``: characters of the line before ``text``."""
    if isinstance(error, RecursionError):
        return DemurError(f"{where}: broken JSON (nested too deeply)", "some hundred levels at most", "flatten it")
    if not isinstance(error, json.JSONDecodeError):
        return DemurError(f"{where}: broken JSON ({error})", "one JSON object per prompt")
    if text[error.pos :].strip() == "," and error.msg == "Extra data":
        return DemurError(
            f"{where}: broken JSON (a comma behind the object, column {ahead + error.colno})",
            "one JSON object a line without commas between them",
            "take the commas off, or put the objects into [ ] with no comma before the ]",
        )
    column = ahead + error.colno if text else error.colno
    return DemurError(f"{where}: broken JSON ({error.msg}, column {column})", "one JSON object per prompt")


_EXPECTED = {
    "start": "a list of objects, which begins with [, or objects one after the other",
    "next": "a comma or ]",
    "more": "an object after the object before, without a comma",
    "item": "an object; a comma before the ] is one too many",
    "end": "nothing more",
}


def _values(path: Path) -> Iterator[tuple[int, Any]]:
    """Line and value of every item of a list, or of every value of a file that is no list."""
    size, blank = 1 << 16, re.compile(r"[ \t\r\n\ufeff]*")
    text, at, line, state = "", 0, 1, "start"
    marks = {"start": "[", "first": "]", "next": ",]", "item": "", "more": "", "end": ""}
    with reading(path, None) as file:
        while True:
            match = blank.match(text, at)
            start = match.end() if match else at
            line, at = line + text.count("\n", at, start), start
            if at == len(text):
                text, at = file.read(size), 0
                if text:
                    continue
                if state in ("end", "more"):
                    return
                raise DemurError(f"{path}, line {line}: the file ends before its list does", "one JSON list")
            sign = text[at]
            if sign in marks[state]:
                state = {"[": "first", ",": "item", "]": "end"}[sign]
                at += 1
            elif state in ("first", "item") or (state in ("start", "more") and sign in '{"['):
                try:
                    value, end = _DECODER.raw_decode(text, at)
                except (ValueError, RecursionError) as error:
                    if state == "item" and sign == "]":
                        raise _unexpected(path, line, sign, state) from error
                    if more := file.read(max(size, len(text) - at)):  # the object may end further on
                        text, at = text[at:] + more, 0
                        continue
                    offset = error.pos if isinstance(error, json.JSONDecodeError) else at
                    raise _broken(f"{path}, line {line + text.count(chr(10), at, offset)}", error) from error
                yield line, value
                line, at = line + text.count("\n", at, end), end
                state = "next" if state in ("first", "item") else "more"
            else:
                raise _unexpected(path, line, sign, state)


def _unexpected(path: Path, line: int, sign: str, state: str) -> DemurError:
    return DemurError(f"{path}, line {line}: broken JSON (found {sign!r})", _EXPECTED[state])


_SEEN = 50
"""So many lines of a text file are looked at for what they have in common."""
_MARKED = (
    (r"\(?\d{1,4}[.):]\s", "a number"),
    (r"[-*+•–]\s", "the mark of a list"),
    (r"[\"'“‘«].*[\"'”’»]\s*[,;]?$", "quotation marks"),
    (r"\[.*\],?$", "brackets"),
    (r".*,$", "a comma at its end"),
)
"""What stands around each line of a list, and belongs to no request."""


def text_lines(path: Path, wants: Wants) -> Rows:
    """One request a line, blank lines passed over. Raises for what looks like a table or JSON under a wrong name. Warns
    where every line wears the marks of a list, and of lines that look like comments: these are asked, too.
    """
    with reading(path, None) as file:
        lines = ((line, text) for line, raw in enumerate(file, 1) if (text := raw.strip().lstrip("\ufeff")))
        first = list(islice(lines, _SEEN))
        if first and (kind := _other_kind(first[0][1], wants)):
            came = f"{path}, line {first[0][0]}: this looks like {kind}"
            raise DemurError(came, "one request a line", f"name the file {kind}")
        _say_marks(path, first)
        for number, (line, text) in enumerate(chain(first, lines), 1):
            yield Row(number, f"{path}, line {line}", {"text": text})


def _say_marks(path: Path, lines: Sequence[tuple[int, str]]) -> None:
    """Warns of what stands around all lines, and of a comment."""
    marks = [kind for form, kind in _MARKED if all(re.match(form, text) for _, text in lines)]
    if len(lines) < 2 and marks != ["brackets"]:  # one request may begin with a number
        marks = []
    comment = next((line for line, text in lines if re.match(r"#(?!#)\s|//\s|;\s|<!--", text)), None)
    if marks:
        what = f"every line has {' and '.join(marks)}"
    elif comment is not None:
        what = f"line {comment} looks like a comment"
    else:
        return
    warnings.warn(
        f"{path}: {what}, and is asked with it: a text file holds one request a line and nothing else",
        DemurWarning,
        stacklevel=5,
    )


def _other_kind(text: str, wants: Wants) -> str:
    """The suffix that a first line speaks for; empty where it may be a request."""
    if text[0] in "{[":
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return ""
        return ".jsonl" if isinstance(value, dict) else ".json" if isinstance(value, list) else ""
    names = re.split(r"[,;\t|]", text)
    heads = [name.strip(' "') for name in names]
    known = [wants(head) for head in heads]
    tight = all(name == name.strip() for name in names)  # prose has a blank behind its commas
    if all(re.fullmatch(r"[\w-]{0,40}", head) for head in heads) and (all(known) or (any(known) and tight)):
        return ".tsv" if "\t" in text else ".csv"
    return ""
