"""A file as text: UTF-8, packed or not; what is something else is named with the way out."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO

from demur.types import DemurError

PACKED = ".gz"
"""The suffix of packed files that are read as they are."""
_MARKS = ((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))


def suffix_of(path: Path) -> str:
    """The suffix that says what a file holds, in lower case: ``.jsonl`` of ``a.JSONL`` and of ``a.jsonl.gz``."""
    return (path.with_suffix("") if path.suffix.lower() == PACKED else path).suffix.lower()


def stem_of(path: Path) -> str:
    """The file's name without its suffixes."""
    return (path.with_suffix("") if path.suffix.lower() == PACKED else path).stem


@contextmanager
def reading(path: Path, newline: str | None) -> Iterator[TextIO]:
    """The file as UTF-8 text, with or without a byte order mark; what goes wrong is a `DemurError`."""
    try:
        with _bytes(path) as raw:
            head = raw.read(400)
            if _is_wide(head):
                raise _misencoded(path)
            _check_kind(path, head)
            raw.seek(0)
            with io.TextIOWrapper(raw, encoding="utf-8-sig", newline=newline) as file:
                yield file
    except UnicodeDecodeError as error:
        raise _misencoded(path) from error
    except (OSError, EOFError, zlib.error) as error:
        what = getattr(error, "strerror", None) or error
        packed = path.suffix.lower() == PACKED
        raise DemurError(
            f"cannot read {path} ({what})", f"a whole {PACKED} file" if packed else "a file that can be read"
        ) from error


def _bytes(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix.lower() == PACKED else open(path, "rb")  # type: ignore[return-value]


_KINDS = (
    (rb"PK\x03\x04", "a packed file (.zip, .xlsx, .ods)", "unpack it, or save the sheet as CSV in UTF-8"),
    (rb"\xd0\xcf\x11\xe0", "an old spreadsheet (.xls)", "save the sheet as CSV in UTF-8"),
    (rb"\x1f\x8b", "packed by gzip", "name it with .gz behind"),
    (rb"BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf", "a packed file", "unpack it first"),
    (rb"PAR1", "Parquet", "name it .parquet"),
    (rb"ARROW1", "Arrow", "write it as Parquet or as JSON Lines"),
    (rb"%PDF-", "a PDF", "write its text into a file"),
    (rb"SQLite format 3", "a data base", "write its rows as CSV or as JSON Lines"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file", "run: git lfs pull"),
    (rb"\s*<!doctype html|\s*<html[\s>]", "a web page, such as a site sends for a wrong address", "download it again"),
)
"""What files of other kinds begin with, under whatever name."""


def _check_kind(path: Path, head: bytes) -> None:
    """Raise for a file of another kind than its name says."""
    for begins, kind, then in _KINDS:
        if re.match(rb"(?:\xef\xbb\xbf)?(?:" + begins + rb")", head, re.IGNORECASE):
            raise DemurError(f"{path} is {kind}", "a file of text, as its name says", then)


def _is_wide(head: bytes) -> bool:
    """Whether a file begins as UTF-16 or UTF-32 do: with their mark, or with every second byte zero."""
    return head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")) or (
        len(head) >= 4 and (head[0] == 0) != (head[1] == 0) and head.count(0) * 3 >= len(head)
    )


def _misencoded(path: Path) -> DemurError:
    """The error for a file that is not UTF-8; reads it again to find the line and to guess what it is."""
    where, byte, guess = str(path), "", ""
    with _bytes(path) as file:
        head = file.read(400)
        file.seek(0)
        if _is_wide(head):
            guess = next((name for mark, name in _MARKS if head.startswith(mark)), "")
            guess = guess or ("UTF-16LE" if head[1] == 0 else "UTF-16BE")
            where, byte = f"{path}, line 1", f" (byte 0x{head[0]:02x})"
        for line, raw in enumerate([] if guess else file, 1):
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as error:
                where, byte, guess = f"{path}, line {line}", f" (byte 0x{raw[error.start]:02x})", _one_byte(raw)
                break
    if not guess:
        return DemurError(
            f"{where}: not UTF-8{byte}",
            "UTF-8",
            "its encoding can not be told (GB18030, Shift_JIS and Cyrillic code pages look like this): save it as "
            "UTF-8 (in a spreadsheet: CSV UTF-8), or use iconv -f ITS-ENCODING -t UTF-8",
        )
    looks = "CP1252 (of Windows) or LATIN1" if guess == "LATIN1" else guess
    name = path.with_suffix("").name if path.suffix.lower() == PACKED else path.name
    unpack = f"gunzip {path.name}; " if name != path.name else ""
    convert = f"{unpack}iconv -f {guess} -t UTF-8 {name} > utf8{Path(name).suffix}"
    return DemurError(
        f"{where}: not UTF-8{byte}", "UTF-8", f"it looks like {looks}; convert it, for example: {convert}"
    )


ANEW = "save the file anew from its source, as UTF-8"
CELL = 32767
"""Characters of a spreadsheet's cell: what is longer is cut there without a word."""
_CONTROL = re.compile(r"[\0-\x08\x0e-\x1f\x7f]")
_OF_REQUESTS = (
    (r"(?is).*?(&(?:amp|lt|gt|quot|apos|nbsp|#\d{2,6}|#x[0-9a-f]{2,5});).*", "HTML", "html.unescape"),
    (r".*?(\\u[0-9a-fA-F]{4}|(?<=[\w.,;:?!)\]])\\n(?=\\n|[A-Z0-9 *-]|$)).*", "a program's source", "json.loads"),
    (r"(?=.*?(%[2-7][0-9A-F]))(?:%[0-9A-F]{2}|[\w.~!*'()+-])*+", "an address", "unquote"),
)
"""Texts in the signs of something else: what shows it, what writes so, and what of Python turns them into letters. A
full match; of the second kind a text has no line breaks.
"""


def damage_of(text: str, *, answer: bool = False) -> tuple[str, str]:
    """What has happened to a text before it was saved as UTF-8, and what to do, in words; empty for one that looks
    whole. Nobody can be sure of it: a request may be about such signs, and an ``answer`` is often full of them.
    """
    if "\ufffd" in text:
        return "letters that were lost, each a U+FFFD", ANEW
    if found := _CONTROL.search(text):
        return f"control characters (U+{ord(found[0]):04X}), which no view shows", "take them out"
    if not text.isascii() and _misread(text):
        return "letters of UTF-8 that were read as CP1252 or LATIN1, two or three for each", ANEW
    if len(text) == CELL:
        return f"{CELL:,} characters, at which spreadsheets cut a cell", "take it from its source"
    for form, writer, then in () if answer else _OF_REQUESTS:
        if found := re.fullmatch(form, text.strip()):
            return f"signs as {writer} writes them ({found[1]})", f"turn them into letters, with {then} of Python say"
    return "", ""


def _misread(text: str) -> bool:
    for encoding in ("cp1252", "latin-1"):
        try:
            text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        return True
    return False


def _one_byte(raw: bytes) -> str:
    """CP1252 or LATIN1 for a line that may be in it; empty where letters beyond ASCII are too many for it."""
    beyond = [byte for byte in raw if byte >= 0x80]
    letters = len(beyond) + sum(chr(byte).isalpha() for byte in raw if byte < 0x80)
    if len(beyond) > 0.4 * letters:
        return ""
    if all(byte >= 0xA0 for byte in beyond):
        return "LATIN1"
    return "" if {*beyond} & {0x81, 0x8D, 0x8F, 0x90, 0x9D} else "CP1252"
