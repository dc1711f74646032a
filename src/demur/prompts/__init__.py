"""Prompts: two starter sets of our own writing, and one door for everybody else's.

``starter`` gives the sets that come with the package, ``load`` reads a file or a public data set, ``save``
writes JSON Lines that ``load`` reads back unchanged, ``distinct`` drops what comes twice, ``digest`` is a SHA-256
over ids and texts.

The starter sets have 120 harmless and 120 harmful requests, one sentence each, twelve in each of ten
categories per set. Topic and form are kept from giving them away: 41 of the harmless requests share
vocabulary with harmful ones (an airport scanner, killing a process; they carry a ``note`` in the file), both
sets have the same share of questions, imperatives and statements, and about the same length. The harmful ones
carry no details; they exist to be refused.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TextIO

from demur.types import DemurError, Prompt

SETS = ("harmless", "harmful")
"""The starter sets, by name."""

TEXT_COLUMNS = ("text", "prompt", "instruction", "goal", "Goal", "request")
"""Where ``load`` looks for the request when it is not told, first match wins."""


@dataclass(frozen=True)
class Public:
    """A public data set: its id on the Hugging Face hub, the column of the request, its label, configuration and split
    (empty: the one that is asked for), and the value that a column must have for a row to be taken.
    """

    name: str
    text: str
    harmful: bool
    config: str = ""
    split: str = ""
    only: tuple[str, str] | None = None


PUBLIC: Mapping[str, Public] = {
    "advbench": Public("walledai/AdvBench", "prompt", True),
    "alpaca": Public("tatsu-lab/alpaca", "instruction", False, only=("input", "")),
    "jailbreakbench": Public("JailbreakBench/JBB-Behaviors", "Goal", True, "behaviors", "harmful"),
    "jailbreakbench-benign": Public("JailbreakBench/JBB-Behaviors", "Goal", False, "behaviors", "benign"),
    "wildjailbreak": Public(
        "allenai/wildjailbreak", "adversarial", True, "eval", "train", ("data_type", "adversarial_harmful")
    ),
}
"""Public data sets by short name. ``wildjailbreak`` holds attacked prompts, of the evaluation part (Jiang et al.,
arXiv:2406.18510; gated), ``jailbreakbench`` the behaviours of Chao et al., arXiv:2404.01318."""

_FIELDS = {f.name: f.default for f in fields(Prompt)}
_ALWAYS = ("id", "text", "harmful", "category", "source", "licence")
_LABELS = dict.fromkeys(("true", "1", "1.0", "yes"), True) | dict.fromkeys(("false", "0", "0.0", "no"), False)
_GIVE_A_FILE = "or give a local .jsonl, .json, .csv or .parquet file"

Row = tuple[int, str, Mapping[str, Any]]
"""Number of the row (from 1), the place that an error names, and the row's columns."""

Rows = Generator[Row, None, None]


def starter(name: Literal["harmless", "harmful"], n: int | None = None) -> list[Prompt]:
    """The first ``n`` prompts of a starter set, 1 <= n <= 120, or all of them.

    The order is fixed and goes round the categories, so that the counts of any two categories differ by at
    most one: ten prompts and more cover them all. Raises `DemurError` for another name or another ``n``.
    """
    if name not in SETS:
        raise DemurError(f"starter set {name!r}", "harmless or harmful", "use `load` for everything else")
    path = Path(__file__).with_name(f"{name}.jsonl")
    prompts = [_prompt(row, path.stem, "demur starter set") for row in _jsonl(path)]
    if n is not None and not 1 <= n <= len(prompts):
        raise DemurError(f"n={n}", f"1 to {len(prompts)}, the size of the starter set {name!r}")
    return prompts[:n]


def load(
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    harmful: bool | None = None,
    split: str = "train",
    limit: int | None = None,
) -> list[Prompt]:
    """The first ``limit`` prompts (at least one; all if None) of a file, a starter set or a public data set.

    ``source`` is the path of a ``.jsonl``, ``.json`` (a list), ``.csv`` or ``.parquet`` file in UTF-8; or
    ``harmless`` or ``harmful``, the starter sets; or one of :data:`PUBLIC`, such as ``advbench`` or ``alpaca``
    (rows with an ``input`` are left out); or ``hf:owner/name``, any data set of the Hugging Face hub,
    ``hf:owner/name:config`` where it has several configurations. A ``Path`` is always a file. ``split`` matters to
    such data sets only. Files are read as a stream, and with a ``limit`` the hub is too; without one the data set
    is kept in the hub's cache and later found there offline.

    ``columns`` maps fields of `Prompt` to the source's own columns, as in ``{"text": "question"}``; an empty
    column (``{"id": ""}``) leaves the field out. A field that is not mapped is read from the column of its
    own name if there is one, the text from the first of text, prompt, instruction, goal, Goal, request, the
    licence from ``license`` too. Missing ids are made of the source's stem and the number of the row
    (``mine-0001``), missing sources of the file's name or the data set's id. Unknown columns are ignored.
    ``harmful`` is the label of rows that bring none.

    Raises `DemurError`, in one line that names file and line, for a source that is not there or cannot be
    read, broken JSON or CSV, another encoding, an empty text, an id that comes twice, a label that
    contradicts ``harmful``, and a source without any row; and for a data set that is gated, unknown, out of
    reach, or without ``demur[data]``.
    """
    if limit is not None and limit < 1:
        raise DemurError(f"limit={limit}", "a number of at least 1, or None for everything")
    unknown = sorted(set(columns or ()) - set(_FIELDS))
    if unknown:
        raise DemurError(f"columns for {', '.join(unknown)}", f"fields of Prompt: {', '.join(_FIELDS)}")
    rows, stem, name, preset = _open(source, split, limit)
    mapping: dict[str, str] = dict(columns or {})
    label: bool | None = None
    if preset is not None:
        mapping.setdefault("text", preset.text)
        label = preset.harmful
    prompts: list[Prompt] = []
    seen: dict[str, str] = {}
    with closing(rows):
        for row in rows:
            prompt = _prompt(row, stem, name, columns=mapping, label=label, harmful=harmful)
            if prompt.id in seen:
                raise DemurError(
                    f"{row[1]}: the id {prompt.id!r} came before, at {seen[prompt.id]}",
                    "every id once",
                    "columns={'id': ''} numbers the rows instead",
                )
            seen[prompt.id] = row[1]
            prompts.append(prompt)
            if len(prompts) == limit:
                break
    if not prompts:
        raise DemurError(f"{name} has no prompts", "at least one row")
    return prompts


def save(prompts: Sequence[Prompt], path: str | Path) -> None:
    """Writes prompts as JSON Lines, one object per line in UTF-8, all at once or not at all.

    The same prompts give the same bytes. Fields with their default value are left out, except id, text,
    harmful, category, source and licence. Raises `DemurError` for a suffix other than ``.jsonl``, a folder
    that is not there, an id that comes twice or is empty, an empty text, and half of a surrogate pair, which
    is no Unicode: what ``save`` takes, ``load`` gives back.
    """
    from demur import artefact  # not above: prompts are read without NumPy

    path = Path(path)
    if path.suffix.lower() != ".jsonl":
        raise DemurError(f"cannot save prompts to {path}", "a name that ends in .jsonl")
    if not path.parent.is_dir():
        raise DemurError(f"no folder {path.parent} to save prompts in", "one that is there", "make it first")
    lines: list[str] = []
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise DemurError(f"two prompts have the id {prompt.id!r}", "every id once", f"{path} is left as it was")
        if not prompt.id or not prompt.text.strip():
            raise DemurError(f"the prompt with the id {prompt.id!r} has no {'text' if prompt.id else 'id'}", "both")
        seen.add(prompt.id)
        row = {k: getattr(prompt, k) for k, v in _FIELDS.items() if k in _ALWAYS or getattr(prompt, k) != v}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    try:
        data = "".join(lines).encode("utf-8")
    except UnicodeEncodeError as error:
        bad = next(p.id for p in prompts if not _is_unicode("".join(str(getattr(p, k)) for k in _FIELDS)))
        raise DemurError(f"prompt {bad!r} holds half of a surrogate pair", "Unicode text") from error
    artefact.write(path, data)


def distinct(prompts: Iterable[Prompt]) -> list[Prompt]:
    """Each request once, at its first place: sets that share none are cut from these. Two are one request if system
    prompt, earlier turns, text and prefill are equal, whatever their ids.
    """
    return list({(p.system, p.messages, p.text, p.prefill): p for p in reversed([*prompts])}.values())[::-1]


def digest(prompts: Sequence[Prompt]) -> str:
    """SHA-256 over ids and texts, in order, as 64 hex digits: what a card says of its prompts."""
    sha = hashlib.sha256()
    for prompt in prompts:
        sha.update(json.dumps([prompt.id, prompt.text]).encode() + b"\n")
    return sha.hexdigest()


# --- from a row to a prompt ---------------------------------------------------------------------------------


def _prompt(
    row: Row,
    stem: str,
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    label: bool | None = None,
    harmful: bool | None = None,
) -> Prompt:
    """One row as a prompt. ``label`` is the source's own, ``harmful`` the one that was asked for."""
    number, where, values = row
    made: dict[str, Any] = {"id": f"{stem}-{number:04d}", "source": name}
    for field in _FIELDS:
        column = _column(field, values, columns or {}, where)
        value = None if column is None else values[column]
        if field == "text":
            made[field] = _text(value, column, where)
        elif field == "harmful":
            made[field] = _label(value, where)
        elif (plain := _plain(value)) is not None and (plain or field != "id"):
            made[field] = plain
    for field, value in made.items():
        if isinstance(value, str) and not _is_unicode(value):
            raise DemurError(f"{where}: the {field} holds half of a surrogate pair", "Unicode text")
    own = label if made["harmful"] is None else made["harmful"]
    if harmful is not None and own not in (None, harmful):
        raise DemurError(
            f"{where} says harmful={own}, and harmful={harmful} was asked for",
            "labels that agree",
            "leave `harmful` out to keep the source's own, or columns={'harmful': ''} to ignore them",
        )
    made["harmful"] = own if harmful is None else harmful
    return Prompt(**made)


def _column(field: str, values: Mapping[str, Any], columns: Mapping[str, str], where: str) -> str | None:
    """The source's column for a field of ours; None if it has none."""
    if field in columns:
        if not columns[field] and field != "text":
            return None
        if columns[field] not in values:
            raise DemurError(f"{where} has no column {columns[field]!r}", f"one of {_listed(values)}")
        return columns[field]
    names = {"text": TEXT_COLUMNS, "licence": ("licence", "license")}.get(field, (field,))
    found = next((name for name in names if name in values), None)
    if found is None and field == "text":
        raise DemurError(
            f"{where} has the columns {_listed(values)}",
            f"one of {', '.join(TEXT_COLUMNS)}",
            "name the one that holds the request: columns={'text': '...'}",
        )
    return found


def _plain(value: Any) -> str | None:
    """A value as a string, None for None and nan; lists and objects as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - nan is what differs from itself
        return None
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _text(value: Any, column: str | None, where: str) -> str:
    """The request as it stands, or an error that names the line where there is none."""
    if value is not None and not isinstance(value, str):
        raise DemurError(f"{where}: the column {column!r} holds a {type(value).__name__}", "the text of a request")
    if value is None or not value.strip():
        raise DemurError(f"{where}: the column {column!r} is empty", "the text of a request")
    return value


def _label(value: Any, where: str) -> bool | None:
    """True, False, or None where the row says nothing."""
    key = (_plain(value) or "").strip().lower()
    if key and key not in _LABELS:
        raise DemurError(f"{where}: harmful is {value!r}", "true, false, or nothing")
    return _LABELS.get(key)


def _is_unicode(text: str) -> bool:
    """False if the text holds half of a surrogate pair, which no file and no tokenizer takes."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _listed(values: Mapping[str, Any]) -> str:
    """The names of the columns, the first dozen of them."""
    names = [str(name) for name in values]
    return (", ".join(names[:12]) + (", ..." if len(names) > 12 else "")) or "none"


# --- from a source to rows ----------------------------------------------------------------------------------


def _open(source: str | Path, split: str, limit: int | None) -> tuple[Rows, str, str, Public | None]:
    """Rows of a source, stem of the ids it lacks, its name; text column and label of a known data set."""
    if isinstance(source, str):
        if source in SETS:
            return _jsonl(Path(__file__).with_name(f"{source}.jsonl")), source, "demur starter set", None
        stem, known = source, None
        if source in PUBLIC:
            known = PUBLIC[source]
            name, config, split = known.name, known.config, known.split or split
        else:
            name, _, config = source.removeprefix("hf:").partition(":")
            stem = name.rpartition("/")[2]
        if known or source.startswith("hf:"):
            if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
                raise DemurError(f"the data set {source!r}", "hf:owner/name or hf:owner/name:config")
            rows = _hub(name, config, split, limit)
            if known is not None and known.only is not None:
                column, value = known.only
                rows = (row for row in rows if (row[2].get(column) or "") == value)
            whole = split == "train" or known is not None
            return rows, stem if whole else f"{stem}-{split}", name, known
    path = Path(source).expanduser()
    if not path.exists():
        raise _missing(source, path)
    if path.suffix.lower() not in _READERS or not path.is_file():
        raise DemurError(f"cannot read prompts from {path}", f"a file that ends in {', '.join(_READERS)}")
    return _READERS[path.suffix.lower()](path), path.stem, path.name, None


def _missing(source: str | Path, path: Path) -> DemurError:
    """The error for a file that is not there, with the nearest name that is."""
    named = [*SETS, *PUBLIC] if isinstance(source, str) and path.name == source else []
    if not path.parent.is_dir():
        is_id = re.fullmatch(r"[\w-]+/[\w.-]+", str(source)) and path.suffix.lower() not in _READERS
        then = f"a data set of the hub is written hf:{source}" if is_id else ""
        return DemurError(f"there is no folder {path.parent}", "the path of a prompt file", then)
    try:
        here = [p.name for p in path.parent.iterdir() if p.suffix.lower() in _READERS]
    except OSError:
        here = []
    near = difflib.get_close_matches(path.name, [*named, *here], n=1, cutoff=0.3)
    then = f"did you mean {near[0] if near[0] in named else path.parent / near[0]}?" if near else ""
    known = f"a prompt file ({', '.join(_READERS)}), {', '.join([*SETS, *PUBLIC])} or hf:owner/name"
    return DemurError(f"there is no file {path}", known, then)


@contextmanager
def _reading(path: Path, newline: str) -> Iterator[TextIO]:
    """The file as UTF-8 text, with or without a byte order mark; what goes wrong is a `DemurError`."""
    try:
        with open(path, encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError as error:
        raise _misencoded(path) from error
    except OSError as error:
        raise DemurError(f"cannot read {path} ({error.strerror or error})", "a file that can be read") from error


def _misencoded(path: Path) -> DemurError:
    """The error for a file that is not UTF-8; reads it again to find the line."""
    where, byte = str(path), ""
    with open(path, "rb") as file:
        start = file.read(2)
        file.seek(0)
        for line, raw in enumerate(file, 1):
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as error:
                where, byte = f"{path}, line {line}", f" (byte 0x{raw[error.start]:02x})"
                break
    guess = "UTF-16" if start in (b"\xff\xfe", b"\xfe\xff") else "LATIN1"
    return DemurError(
        f"{where}: not UTF-8{byte}",
        "UTF-8",
        f"convert it, for example: iconv -f {guess} -t UTF-8 {path.name} > utf8{path.suffix}",
    )


def _object(value: Any, where: str) -> Mapping[str, Any]:
    """A JSON object, or an error."""
    if not isinstance(value, dict):
        raise DemurError(
            f"{where} is a JSON {type(value).__name__}",
            "an object with the columns of one prompt",
            "a file that is one list of objects must end in .json",
        )
    return value


def _broken(path: Path, line: int, error: Exception) -> DemurError:
    """The error for broken JSON."""
    what = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
    return DemurError(f"{path}, line {line}: broken JSON ({what})", "one JSON object per prompt")


def _jsonl(path: Path) -> Rows:
    """One JSON object per line; blank lines are passed over."""
    number = 0
    with _reading(path, "\n") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            number += 1
            try:
                value = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise _broken(path, line, error) from error
            yield number, f"{path}, line {line}", _object(value, f"{path}, line {line}")


def _json(path: Path) -> Rows:
    """One JSON list of objects, read in pieces of 64 KiB, so that a limit holds however long the list is."""
    size, decoder, blank = 1 << 16, json.JSONDecoder(), re.compile(r"[ \t\r\n]*")
    text, at, line, number, state = "", 0, 1, 0, "list"
    marks = {"list": "[", "first": "]", "next": ",]", "item": "", "end": ""}
    with _reading(path, "\n") as file:
        while True:
            match = blank.match(text, at)
            start = match.end() if match else at
            line, at = line + text.count("\n", at, start), start
            if at == len(text):
                text, at = file.read(size), 0
                if text:
                    continue
                if state == "end":
                    return
                raise DemurError(f"{path}, line {line}: the file ends before its list does", "one JSON list")
            if text[at] in marks[state]:
                state = {"[": "first", ",": "item", "]": "end"}[text[at]]
                at += 1
            elif state in ("first", "item"):
                try:
                    value, end = decoder.raw_decode(text, at)
                except (ValueError, RecursionError) as error:
                    if more := file.read(max(size, len(text) - at)):  # the object may end further on
                        text, at = text[at:] + more, 0
                        continue
                    offset = error.pos if isinstance(error, json.JSONDecodeError) else at
                    raise _broken(path, line + text.count("\n", at, offset), error) from error
                number += 1
                yield number, f"{path}, line {line}", _object(value, f"{path}, line {line}")
                line, at, state = line + text.count("\n", at, end), end, "next"
            else:
                raise DemurError(
                    f"{path}, line {line}: broken JSON (found {text[at]!r})",
                    {"list": "a list of objects, which begins with [", "next": "a comma or ]"}.get(
                        state, "nothing more"
                    ),
                    "one object per line belongs into a .jsonl file" if text[at] == "{" else "",
                )


def _csv(path: Path) -> Rows:
    """Comma-separated values with a header, quoted with double quotes; empty cells are None."""
    header: list[str] | None = None
    number = 0
    with _reading(path, "") as file:
        reader = csv.reader(file, strict=True)
        while True:
            where = f"{path}, line {reader.line_num + 1}"
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise DemurError(f"{where}: broken CSV ({error})", "cells with commas or quotes in quotes") from error
            if cells is None:
                return
            if not cells:
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if len(set(header)) < len(header):
                    raise DemurError(f"{where}: a column comes twice in {', '.join(header)}", "every column once")
                continue
            if len(cells) != len(header):
                raise DemurError(
                    f"{where} has {len(cells)} cells",
                    f"{len(header)}, as the header",
                    "put text with commas in quotes",
                )
            number += 1
            yield number, where, {name: cell or None for name, cell in zip(header, cells, strict=True)}


def _parquet(path: Path) -> Rows:
    """A Parquet file in batches of 1,024 rows; needs pyarrow."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise _not_installed(f"{path} needs pyarrow", "or give a .jsonl or .csv file") from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield number, f"{path}, row {number}", values
    except (pyarrow.ArrowException, OSError) as error:
        raise DemurError(f"cannot read {path} ({_first_line(error)})", "a Parquet file") from error


_READERS: Mapping[str, Callable[[Path], Rows]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}


# --- from the hub to rows -----------------------------------------------------------------------------------


def _hub(name: str, config: str, split: str, limit: int | None) -> Rows:
    """Rows of a data set of the Hugging Face hub, or of the hub's cache where the hub is out of reach."""
    try:
        import datasets
    except ImportError as error:
        raise _not_installed(f"the data set {name} needs `datasets`", _GIVE_A_FILE) from error
    offline = bool(datasets.config.HF_HUB_OFFLINE)
    reached = offline or _reachable(datasets.config.HF_ENDPOINT)
    try:
        with _cache_only(datasets.config, offline or not reached):
            table = datasets.load_dataset(name, config or None, split=split, streaming=limit is not None)
        for number, values in enumerate(table, 1):
            yield number, f"{name}, split {split}, row {number}", values
    except Exception as error:  # what a download can raise is no closed list
        raise _hub_error(name, split, error, offline) from error


def _reachable(endpoint: str, seconds: float = 5.0) -> bool:
    """Whether the hub takes a connection. Asked first, because `datasets` itself tries for half a minute.

    True where a proxy is set, which is asked by nobody but the real request.
    """
    import socket
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if {parts.scheme, "all"} & set(getproxies()) and not proxy_bypass(host):
        return True
    try:
        with socket.create_connection((host, parts.port or (80 if parts.scheme == "http" else 443)), seconds):
            return True
    except OSError:
        return False


@contextmanager
def _cache_only(config: Any, wanted: bool) -> Iterator[None]:
    """`datasets` in its offline mode for as long as the context lasts."""
    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = wanted
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _hub_error(name: str, split: str, error: BaseException, offline: bool) -> DemurError:
    """What went wrong with the hub, in one line that says what to do.

    Errors are told apart by the names of their classes, along the chain of causes: they come from several
    packages and have moved between them.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    names = {kind.__name__ for link in chain for kind in type(link).__mro__}
    page = f"https://huggingface.co/datasets/{name}"
    if "GatedRepoError" in names or any("gated dataset" in str(link) for link in chain):
        return DemurError(
            f"the data set {name} is gated",
            "an account that has accepted its terms",
            f"accept them at {page} and run `hf auth login`, {_GIVE_A_FILE}",
        )
    if offline and names & {"ConnectionError", "OfflineModeIsEnabled"}:
        return DemurError(
            f"offline mode is on and the data set {name} is not in the cache",
            "a data set that was loaded before",
            f"unset HF_HUB_OFFLINE and HF_DATASETS_OFFLINE, {_GIVE_A_FILE}",
        )
    if names & {"DatasetNotFoundError", "RepositoryNotFoundError"}:
        return DemurError(
            f"the hub shows no data set {name}",
            "one that exists and that your account may read",
            f"check {page}, run `hf auth login` if it is private, {_GIVE_A_FILE}",
        )
    if names & {"ConnectionError", "TimeoutError", "TransportError", "LocalEntryNotFoundError"}:
        return DemurError(
            f"the Hugging Face hub is out of reach and the data set {name} is not in the cache",
            "a network connection",
            f"try again with one, {_GIVE_A_FILE}",
        )
    return DemurError(
        f"cannot load the data set {name} ({type(error).__name__}: {_first_line(error)})",
        f"a data set with a split {split!r}",
        f"look at its splits and configurations (hf:{name}:<configuration>) at {page}, {_GIVE_A_FILE}",
    )


def _not_installed(came: str, otherwise: str) -> DemurError:
    """The error for a package that is not there."""
    return DemurError(came, "it to be installed", f"pip install 'demur[data]', {otherwise}")


def _first_line(error: BaseException) -> str:
    """The first line of what an error says, at most 200 characters."""
    return (str(error).strip().splitlines() or [""])[0][:200]
