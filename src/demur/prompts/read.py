"""The one door that prompts and transcripts come in by: files, starter sets, public data sets."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from demur.prompts.columns import FIELDS, Reading, answer_of, check_no_label, label_of, prompt_of
from demur.prompts.encoding import PACKED, damage_of, stem_of, suffix_of
from demur.prompts.finished import odd
from demur.prompts.hub import PUBLIC, hub_rows
from demur.prompts.jsonfiles import json_lines, json_values, text_lines
from demur.prompts.order import rest_of, say_sorted
from demur.prompts.rows import Rows, Wants, check_given, left_out, mapped
from demur.prompts.starters import MORE_SETS, SETS, SOURCE, starter_file
from demur.prompts.tables import SEPARATORS, parquet, separated
from demur.types import DemurError, DemurWarning, Prompt

Side = Literal["harmless", "harmful"]


def _separated(path: Path, wants: Wants) -> Rows:
    return separated(path, SEPARATORS[suffix_of(path)], wants)


_READERS: Mapping[str, Callable[[Path, Wants], Rows]] = {
    ".jsonl": lambda path, wants: json_lines(path),
    ".ndjson": lambda path, wants: json_lines(path),
    ".json": json_values,
    ".csv": _separated,
    ".tsv": _separated,
    ".tab": _separated,
    ".parquet": parquet,
    ".txt": text_lines,
}
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".tsv", ".txt", ".ndjson", ".tab")
"""What a file's name may end in, in any case; all but Parquet may be packed, with ``.gz`` behind it."""
_OTHER = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save the sheet as CSV in UTF-8"),
    **dict.fromkeys((".zip", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tgz"), "unpack it first"),
    **dict.fromkeys((".arrow", ".feather", ".pkl", ".pickle", ".npz"), "write it as Parquet or as JSON Lines"),
}


@dataclass(frozen=True)
class Transcript:
    """A finished answer: the prompt, the response (empty where there is none), and its place in the file."""

    prompt: Prompt
    response: str
    where: str
    row: int

    def __repr__(self) -> str:
        """In short; without words, as the prompt's."""
        return f"Transcript({self.prompt!r}, {len(self.response)} characters, row={self.row})"


def load(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    harmful: bool | None = None,
    side: Side | None = None,
    split: str = "train",
    limit: int | None = None,
) -> list[Prompt]:
    """The first ``limit`` prompts (at least one; all if None) of a file, a starter set or a public data set.

    ``source`` is the path of a file in UTF-8 (:data:`SUFFIXES`; JSON Lines, a JSON list, CSV, TSV, Parquet, or text
    with one request a line); or ``harmless`` or ``harmful``, the starter sets; or ``blunt``, ``everyday``, ``check`` or
    ``matched`` (:data:`MORE_SETS`); or one of :data:`PUBLIC`, such as ``advbench`` or ``alpaca`` (rows with an
    ``input`` are left out); or ``hf:owner/name``, any data set of the Hugging Face hub, ``hf:owner/name:config`` where
    it has several configurations. A ``Path`` is always a file. ``split`` matters to such data sets only. Files are read
    as a stream, and with a ``limit`` the hub is too; without one the data set is kept in the hub's cache and later
    found there offline.

    ``columns`` maps fields of `Prompt` to the source's own columns, as in ``{"text": "question"}``; an empty column
    (``{"id": ""}``) leaves the field out. A field that is not mapped is read from the column of its own name, in any
    case; the request from :data:`TEXT_COLUMNS` or, as a list of turns, :data:`CONVERSATION_COLUMNS`. Two columns that
    could be the request and say different things are an error. Missing ids are made of the source's stem and the number
    of the row (``mine-0001``), missing sources of the file's name or the data set's id. Unknown columns are ignored,
    and what comes twice is kept (:func:`distinct` drops it). The page docs/prompts.md has examples.

    ``harmful`` is the label of rows that bring none; a row that says the contrary is an error. ``side`` takes the rows
    of one label instead, so that one file can serve both sides: of a source without any labels all rows, marked with
    it. Rows without a label among others that have one are an error, since nobody can say whose they are. Warns where a
    ``limit`` takes the first rows of a sorted file (:mod:`demur.prompts.order`).

    Raises `DemurError`, in one line that names file and line, for a source that is not there or cannot be read, broken
    JSON or CSV, another encoding, an empty text, an id that comes twice, a label that contradicts ``harmful``, and a
    source without any row, or without one of the ``side``; and for a data set that is gated, unknown, out of reach, or
    without ``demur[data]``.
    """
    rows, reading = opened(source, columns, harmful, side, split, limit, answers=False)
    prompts: list[Prompt] = []
    seen: dict[str, str] = {}
    damaged = framed = False
    with closing(rows):
        for row in rows:
            prompt = prompt_of(row, reading)
            if prompt.id in seen:
                raise DemurError(
                    f"{row.where}: the id {prompt.label!r} came before, at {seen[prompt.id]}",
                    "every id once",
                    f"number the rows instead: {left_out('id')}",
                )
            seen[prompt.id] = row.where
            prompts.append(prompt)
            damaged = damaged or _say_damage(prompt.text, row.where)
            framed = framed or _say_framed(prompt.text, row.where)
            if len(prompts) == limit:
                if not _is_named(source):  # a file: to read on costs no download
                    say_sorted(reading.name, prompts, limit, rest_of(rows, reading))
                break
    if not prompts:
        raise DemurError(f"{reading.name} has no prompts", "at least one row", "look whether it was written to its end")
    return prompts


def transcripts(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    harmful: bool | None = None,
    side: Side | None = None,
    split: str = "train",
    limit: int | None = None,
) -> list[Transcript]:
    """Finished answers of the same sources as :func:`load`, read in the same way, and with the same arguments.

    The answer is what the column ``response`` holds, another one of :data:`RESPONSE_COLUMNS`, the one that
    ``columns={"response": ...}`` names, or the assistant's turn at the end of ``messages``. Where it begins with the
    row's ``prefill``, this is taken off: the answer is what was generated. Rows without an answer are kept, with an
    empty one. Ids may come twice, since one prompt may have several answers; missing ones are the row's number.

    Raises as :func:`load` does, and for two columns that could be the answer and say different things.
    """
    return list(each_transcript(source, columns=columns, harmful=harmful, side=side, split=split, limit=limit))


def each_transcript(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    harmful: bool | None = None,
    side: Side | None = None,
    split: str = "train",
    limit: int | None = None,
) -> Iterator[Transcript]:
    """The same one by one, while the source is read: a file of any length takes the memory of a row. What is wrong with
    a row is raised when its turn comes.
    """
    rows, reading = opened(source, columns, harmful, side, split, limit, answers=True)
    found, damaged, framed = 0, False, False
    told: set[str] = set()
    with closing(rows):
        for row in rows:
            response, prompt = answer_of(row, reading), prompt_of(row, reading)
            if prompt.id == f"{reading.stem}-{row.number:04d}":
                prompt = replace(prompt, id=str(row.number))
            if prompt.prefill and response.startswith(prompt.prefill):
                response = response.removeprefix(prompt.prefill)
            response = odd(prompt, response, row, told)
            damaged = damaged or _say_damage(prompt.text, row.where) or _say_damage(response, row.where, answer=True)
            framed = framed or _say_framed(prompt.text, row.where)
            yield Transcript(prompt, response, row.where, row.number)
            found += 1
            if found == limit:
                break
    if not found:
        raise DemurError(f"{reading.name} has no transcripts", "at least one row with a prompt and a response")


def _say_damage(text: str, where: str, *, answer: bool = False) -> bool:
    """Warns of a text that lost its letters before it came here. Whether it did."""
    damage, then = damage_of(text, answer=answer)
    if damage:
        warnings.warn(
            f"{where}: the text holds {damage}; it is {'read' if answer else 'asked'} as it stands: {then}",
            DemurWarning,
            stacklevel=3,
        )
    return bool(damage)


_FRAMES = re.compile(
    r"\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|startoftext\|>)?\s*(?:<\|im_start\|>|<\|start_header_id\|>|<\|start\|>"
    r"|<start_of_turn>|<\|(?:user|system|User|System)\|>|<｜User｜>|\[INST\]|<<SYS>>"
    r"|(?:###\s*(?:Instruction|Human|User)\s*:?|(?:Human|USER|User)\s*:)(?=[\s\S]*\n\s*(?:###\s*)?"
    r"(?:Response|Assistant|ASSISTANT)\s*:?\s*$))"
)
"""How a text begins that a chat template has written; the wordy ones, if the answer's turn is opened at its end."""


def _say_framed(text: str, where: str) -> bool:
    """Warns of a text that stands in a chat template already. Whether it does."""
    framed = _FRAMES.match(text) is not None
    if framed:
        warnings.warn(
            f"{where}: the text seems to stand in a chat template already, and is asked inside of the model's: its "
            "marks are read as letters; write the request alone",
            DemurWarning,
            stacklevel=3,
        )
    return framed


# --- from a source to rows ----------------------------------------------------------------------------------


def opened(
    source: str | Path,
    columns: Mapping[str, str] | None,
    harmful: bool | None,
    side: Side | None,
    split: str,
    limit: int | None,
    *,
    answers: bool,
) -> tuple[Rows, Reading]:
    """The rows of a source, those of one side if so, and how they are read. Raises for arguments that do not fit."""
    fields = (*FIELDS, "response") if answers else tuple(FIELDS)
    check_given(source, columns, harmful, limit)
    if side not in (None, *SETS):
        raise DemurError(f"side={side!r}", " or ".join(SETS), "leave it out to take every row")
    if harmful is not None and side is not None and harmful != (side == "harmful"):
        raise DemurError(f"side={side!r} with harmful={harmful}", "one of them", "leave `harmful` out")
    unknown = sorted(set(columns or ()) - set(fields))
    if unknown:
        near = difflib.get_close_matches(unknown[0], fields, n=1)
        then = f"did you mean {near[0]}?" if near else ""
        raise DemurError(f"columns for {', '.join(unknown)}", f"fields of Prompt: {', '.join(fields)}", then)
    if empty := [field for field in ("text", "response") if (columns or {}).get(field) == ""]:
        raise DemurError(
            f"an empty column for {empty[0]}", "the name of a column", "leave it out to have one looked for"
        )
    reading = Reading("", "", dict(columns or {}), None, harmful, answers)
    rows, reading = _open(source, split, limit, reading)
    if side is None:
        return rows, reading
    return _of_side(rows, reading, side == "harmful"), replace(reading, harmful=side == "harmful")


def _of_side(rows: Rows, reading: Reading, wanted: bool) -> Rows:
    """The rows of one label; all of a source without labels. Raises if no row fits, or if some rows have no label."""
    said: dict[bool | None, str] = {}
    fits = 0
    with closing(rows):
        for row in rows:
            label = label_of(row, reading)
            said.setdefault(label, row.where)
            if None in said and len(said) > 1:
                raise DemurError(
                    f"{said[None]} has no label, and other rows have one",
                    "a label on every row, or on none, to take the rows of one side",
                    f"name the column of the labels: {mapped('harmful')}; or ignore it: {left_out('harmful')}",
                )
            if label is None and "harmful" not in reading.columns:
                check_no_label(row, reading)
            if label is None or label == wanted:
                fits += 1
                yield row
            elif reading.label is not None and reading.columns.get("harmful", "-") == "-" and len(said) == 1:
                break  # a public set is of one side
    if said and not fits:
        ours = reading.name.startswith("demur ") and reading.stem in (*SETS, *MORE_SETS)  # whose labels are right
        raise DemurError(
            f"{reading.name} has no {SETS[wanted]} rows, they all say harmful={not wanted}",
            f"a source with {SETS[wanted]} rows",
            "name another one" + ("" if ours else f", or ignore the labels: {left_out('harmful')}"),
        )


def _open(source: str | Path, split: str, limit: int | None, reading: Reading) -> tuple[Rows, Reading]:
    """Rows of a source, and its name, stem, label and text column."""
    if isinstance(source, str) and _is_named(source):
        if source in (*SETS, *MORE_SETS):
            name = SOURCE if source in SETS else f"demur {source} set"
            return json_lines(starter_file(source)), replace(reading, stem=source, name=name)
        return _public(source, split, limit, reading)
    path = Path(source).expanduser()
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        raise DemurError(f"cannot read prompts from {str(source)[:80]!r} ({error})", "the path of a file") from error
    if not there:
        raise _missing(source, path)
    suffix = suffix_of(path)
    if suffix not in _READERS or not path.is_file() or (suffix == ".parquet" and path.suffix.lower() == PACKED):
        then = _OTHER.get(path.suffix.lower(), "") if path.is_file() else "name a file in it"
        if not (path.is_file() or path.is_dir()):
            came, then = f"{path} is no regular file (a pipe or a device)", "write what comes out of it to a file"
            raise DemurError(came, "a file of prompts, which may be read twice", then)
        raise DemurError(f"cannot read prompts from {path}", f"a file that ends in {', '.join(SUFFIXES)}", then)
    reading = replace(reading, stem=stem_of(path), name=path.name)
    return _READERS[suffix](path, reading.wants), reading


def _is_named(source: str | Path) -> bool:
    """Whether a source is a set by name, of the package or of a hub; what is none is a file."""
    return isinstance(source, str) and (source in (*SETS, *MORE_SETS, *PUBLIC) or source.startswith("hf:"))


def _public(source: str, split: str, limit: int | None, reading: Reading) -> tuple[Rows, Reading]:
    """Rows of a data set of the hub, by its short name or its id."""
    known = PUBLIC.get(source)
    if known is not None:
        name, config, split, stem = known.name, known.config, known.split or split, source
        reading = replace(reading, columns={"text": known.text} | dict(reading.columns), label=known.harmful)
    else:
        name, _, config = source.removeprefix("hf:").partition(":")
        stem = name.rpartition("/")[2] + ("" if split == "train" else f"-{split}")
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        raise DemurError(f"the data set {source!r}", "hf:owner/name or hf:owner/name:config")
    reading = replace(reading, stem=stem, name=name)
    only = known.only if known is not None else None
    rows = hub_rows(name, config, split, limit, lambda column: reading.wants(column) or (only or "-")[0] == column)
    return (rows if only is None else _only(rows, *only)), reading


def _only(rows: Rows, column: str, value: str) -> Rows:
    with closing(rows):
        for row in rows:
            if (row.values.get(column) or "") == value:
                yield row


def _missing(source: str | Path, path: Path) -> DemurError:
    """The error for a file that is not there, with the nearest name that is."""
    bare = isinstance(source, str) and path.name == source and suffix_of(path) not in _READERS
    named = [*SETS, *MORE_SETS, *PUBLIC] if bare else []
    if not path.parent.is_dir():
        is_id = re.fullmatch(r"[\w-]+/[\w.-]+", str(source)) and suffix_of(path) not in _READERS
        then = f"a data set of the hub is written hf:{source}" if is_id else ""
        return DemurError(f"there is no folder {path.parent}", "the path of a prompt file", then)
    try:
        here = [p.name for p in path.parent.iterdir() if suffix_of(p) in _READERS]
    except OSError:
        here = []
    near = difflib.get_close_matches(path.name, [*named, *here], n=1, cutoff=0.3)
    then = f"did you mean {near[0] if near[0] in named else path.parent / near[0]}?" if near else ""
    known = f"a prompt file ({', '.join(SUFFIXES)}), {', '.join([*SETS, *MORE_SETS, *PUBLIC])} or hf:owner/name"
    return DemurError(f"there is no file {path}", known, then)
