"""What an argument of the command line asks: a text, an id, a file of prompts or a set by name. One rule for all.

A name is never asked as a text. What is a file, a set or an id is looked up; what only looks like one is refused, with
the nearest that there is. A sentence (words with blanks between them) is a text, and ``--text`` makes one of anything.
"""

from __future__ import annotations

import glob
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demur import worlds
from demur.cli.once import keys_once
from demur.types import DemurError, DemurWarning

if TYPE_CHECKING:
    from demur.types import Prompt

PROMPT_FILES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".tab", ".txt", ".parquet")
"""Suffixes of files that may hold prompts, whether demur reads them or not."""
OTHER_FILES: tuple[str, ...] = (
    ".md",
    ".yaml",
    ".yml",
    ".xlsx",
    ".xls",
    ".gz",
    ".bz2",
    ".xz",
    ".zip",
    ".arrow",
    ".feather",
    ".pkl",
)
OTHER_FILES += (".safetensors", ".gguf", ".html", ".pdf")
"""Suffixes of other files that somebody may take for one of prompts."""

TEXT = "--text 'WORDS' asks the words as they stand"

Texts = Annotated[
    list[str] | None,
    typer.Option("--text", help="A text to ask as it stands, whatever it looks like; may come several times."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="Where a file's field stands, FIELD=COLUMN, such as text=question."),
]


def asked(
    given: Sequence[str] | None,
    texts: Sequence[str] | None = None,
    *,
    harmful: bool | None = None,
    columns: Mapping[str, str] | None = None,
) -> list[Prompt]:
    """The prompts of arguments, in their order, then those of ``texts``, which are asked as they stand.

    ``harmful`` marks what brings no mark: typed texts and rows of files. ``columns`` as in :func:`demur.prompts.load`.
    Raises for no prompt at all, an empty one, one that is not UTF-8, and for a name that is not there.
    """
    prompts: list[Prompt] = []
    for argument, times in Counter(given or ()).items():
        if times > 1 and is_file_name(argument):
            warnings.warn(
                DemurWarning(f"{argument} is given {times} times: its prompts are asked as often"), stacklevel=2
            )
    for argument in given or ():
        text = as_typed(argument)
        named = _named(text, argument, harmful, columns)
        prompts += [_typed(text, harmful)] if named is None else named
    if columns and not any(_is_read(argument) for argument in given or ()):
        raise DemurError("--column, and no file or set whose columns it names", "a file of prompts", "leave it out")
    prompts += [_typed(as_typed(text), harmful) for text in texts or ()]
    if not prompts:
        raise DemurError("nothing to ask", "a text, an id or a file of prompts", "for example: 'How are you?'")
    typed = [i for i, prompt in enumerate(prompts) if prompt.id == "typed"]
    if len(typed) > 1:
        for number, i in enumerate(typed, 1):
            prompts[i] = replace(prompts[i], id=f"typed-{number}")
    _check_ids(prompts)
    return prompts


def _check_ids(prompts: Sequence[Prompt]) -> None:
    """Raises for one id of two requests, whose answers nobody could tell apart: two files may number their rows alike.
    The same request may come twice.
    """
    known: dict[str, Prompt] = {}
    for prompt in prompts:
        first = known.setdefault(prompt.id, prompt)
        if first != prompt:
            where = " and ".join(dict.fromkeys(one.source for one in (first, prompt) if one.source))
            raise DemurError(
                f"the id {prompt.label!r} for two requests{where and f', in {where}'}",
                "every id once",
                "give the files names of their own, and their rows ids of their own or none (--column id=)",
            )


def as_typed(text: str) -> str:
    """A text of the command line as it was meant: under a locale that is not UTF-8 (LC_ALL=C), UTF-8 arrives in pieces.

    Raises for bytes that are not UTF-8 either.
    """
    try:
        return text.encode(sys.getfilesystemencoding(), "surrogateescape").decode("utf-8")
    except UnicodeError:
        pass
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DemurError(
            f"a text that is not UTF-8 (its character {error.start + 1} of {len(text)})",
            "a text in UTF-8",
            "set the terminal to UTF-8, or put the text into a file in UTF-8",
        ) from error
    return text


def columns_of(items: Sequence[str] | None) -> dict[str, str]:
    """``--column FIELD=COLUMN`` as a mapping. Raises for another form and for a field that prompts do not have."""
    from dataclasses import fields

    from demur.types import Prompt

    keys_once("--column", items)
    known = [field.name for field in fields(Prompt)]
    columns = {}
    for item in items or ():
        field, sign, column = as_typed(item).partition("=")
        if not sign or field not in known:
            near = get_close_matches(field, known, 1)
            then = f"did you mean {near[0]}={column or 'COLUMN'}?" if near else "for example: --column text=question"
            raise DemurError(f"--column {item}", f"FIELD=COLUMN with a field of {', '.join(known)}", then)
        columns[field] = column
    return columns


def _typed(text: str, harmful: bool | None) -> Prompt:
    from demur.refusals import shows_nothing
    from demur.types import Prompt

    if shows_nothing(text):
        raise DemurError(
            f"the prompt {text!r} is empty", "the text of a request", "type one, or name a file of prompts"
        )
    return Prompt(id="typed", text=text, harmful=harmful)


def _named(text: str, argument: str, harmful: bool | None, columns: Mapping[str, str] | None) -> list[Prompt] | None:
    """The prompts of an id, a set, a file or a pattern of files; None for a text. Raises for a name of nothing."""
    from demur.prompts import MORE_SETS, PUBLIC, SETS

    if text.strip() == "-":
        then = f"put them into a file and name that; {TEXT}"
        raise DemurError("'-', which no command reads prompts from", "a text, an id or a file of prompts", then)
    bare = _BESIDE_A_NAME.sub("", text) if len(text) <= LONGEST_NAME else text
    if (prompt := _by_id(text) or _by_id(bare)) is not None:
        return [prompt]
    if re.fullmatch(r"\$\{?[A-Za-z_]\w*\}?|%[A-Za-z_]\w*%", bare):
        raise DemurError(f"{bare}, a variable that the shell has left as it is", "its value", f"unquote it; {TEXT}")
    if text in (*SETS, *MORE_SETS, *PUBLIC) or re.fullmatch(r"hf:\S+", text):
        return _read(text, harmful, columns)
    place = os.path.expanduser(argument)
    if os.path.lexists(place):
        return _read(Path(place), harmful, columns)
    if files := sorted(glob.glob(place)) if glob.has_magic(place) else []:
        return [prompt for file in files for prompt in _read(Path(file), harmful, columns)]
    if is_file_name(text) or (bare != text and is_file_name(bare)):
        raise _no_file(text)
    if is_id(text) or is_id(bare):
        near = get_close_matches(text.lower(), _ids(), 1, 0.6)
        raise DemurError(
            f"no prompt has the id {_shown_id(text)!r}",
            "an id of a packaged set (demur-harmless-001 to -120) or of a world, such as the organism's",
            f"did you mean {near[0]}? {TEXT}" if near else TEXT,
        )
    if text.lower().endswith(PROMPT_FILES):
        print("note: a prompt ends like the name of a file that is not there; it is asked as a text", file=sys.stderr)
    elif _LIKE_AN_ID.fullmatch(text):
        print("note: a prompt of one word ends in a number; no prompt has this id: asked as a text", file=sys.stderr)
    return None


_LIKE_AN_ID = re.compile(r"[^\W\d]\S*[-_/#:]\d+")
"""What may be an id of somebody's own file, where that file was not named, or a request of one word."""


def _is_read(argument: str) -> bool:
    """Whether an argument is the name of what has columns."""
    from demur.prompts import MORE_SETS, PUBLIC, SETS

    text, place = as_typed(argument), os.path.expanduser(argument)
    known = text in (*SETS, *MORE_SETS, *PUBLIC) or text.startswith("hf:") or os.path.lexists(place)
    return known or (glob.has_magic(place) and bool(glob.glob(place)))


_BESIDE_A_NAME = re.compile(r"^[\s'\"`(<\u2018\u201c]+|(?::\d+(?:-\d+)?|[\s'\"`,;:!)>\u2019\u201d])+$")
"""What stands beside a name that was copied with it: blanks, quotes, a comma, the number of a line."""
LONGEST_NAME = 1024
"""What is longer is a text: no name is looked for in it, which would take long where it holds many blanks."""


def _read(source: str | Path, harmful: bool | None, columns: Mapping[str, str] | None) -> list[Prompt]:
    """A file's prompts or a set's. Nobody has read them: what brings no mark gets the one that was asked for."""
    from demur.prompts import load

    if isinstance(source, Path) and source.is_dir():
        raise DemurError(f"{source} is a folder", "a file of prompts", f"name a file in it; {TEXT}")
    try:
        prompts = load(source, columns=columns)
    except DemurError as error:
        if isinstance(source, Path) and source.suffix.lower() not in PROMPT_FILES:
            raise DemurError(error.came, error.expected, "; ".join(filter(None, [error.then, TEXT]))) from error
        raise
    return [prompt if prompt.harmful is not None else replace(prompt, harmful=harmful) for prompt in prompts]


_MARKED = re.compile(r"(\.{0,2}[/\\]|~|[A-Za-z]:[/\\]|[A-Za-z][A-Za-z+.-]*://)\S")


def is_file_name(text: str) -> bool:
    """Whether a text that is no file reads like the name of one.

    With blanks it is a sentence, unless a path begins before the first of them: ``./my prompts.csv``.
    """
    lower = text.strip().lower()
    known = lower.endswith((*PROMPT_FILES, *OTHER_FILES))
    if re.search(r"\s", text.strip()):
        first = re.split(r"\s", text.strip())[0]
        return known and bool(_MARKED.match(first) or re.search(r"\w[/\\]\w", first) or _near(text))
    if known or _MARKED.match(lower) or "*" in text:
        return True
    if glob.has_magic(text) and re.search(r"[/\\]|\.\w+$", text):
        return True
    if "/" not in text and "\\" not in text:
        return False
    in_a_folder = Path(text).parent != Path() and Path(text).parent.is_dir()
    return in_a_folder or bool(re.search(r"\.[a-z][a-z0-9]*$", lower))


_ID = re.compile(
    rf"(demur|{'|'.join(map(re.escape, worlds.WORLDS.own))})[-_].*|(?:everyday|check|matched)/\S+"
    r"|.*[-_](harmless|harmful|forbidden|allowed)[-_]?\d*|\w+([-_]\w+)+[-_]\d{3,}"
)


def is_id(text: str) -> bool:
    """Whether a text that is no id reads like one: a starter set's, a world's, or one with a slip in it."""
    if re.search(r"\s", text) or not text.strip():
        return False
    slip = len(text) > 6 and bool(re.search(r"\d", text)) and bool(get_close_matches(text.lower(), _ids(), 1, 0.8))
    return slip or bool(_ID.fullmatch(text.lower()))


def _shown_id(text: str) -> str:
    """What was typed for an id, where its words are those of ids; else a label, since it may be a request."""
    from demur.redaction import label

    words = {word for known in _ids() for word in known.split("-") if word.isalpha()}
    typed = [word for word in re.split(r"[\W_\d]+", text.lower()) if word]
    return text if all(get_close_matches(word, words, 1, 0.75) for word in typed) else label(text, [text])


def _by_id(text: str) -> Prompt | None:
    for _, make in worlds.WORLDS.working():
        world: worlds.World = make()
        if (prompt := world.by_id(text)) is not None:
            return prompt
    from demur.prompts.starters import by_id

    return by_id(text) if _OWN_ID.match(text) else None


_OWN_ID = re.compile(r"demur-|(?:everyday|check|matched)/")


@cache
def _ids() -> list[str]:
    """Ids to compare a slip with: all of the packaged sets, and those that worlds name."""
    from demur.prompts.starters import ids

    own = [name for _, world in worlds.WORLDS.working() for name in world().ids()]
    return [*ids(), *own]


def _near(text: str) -> str | None:
    """The nearest name in the same folder, or None."""
    parent, name = os.path.split(os.path.expanduser(text))
    try:
        there = {entry.lower(): entry for entry in os.listdir(parent or ".")}
    except (OSError, ValueError):
        return None
    near = get_close_matches(name.lower(), there, 1, 0.75)
    return os.path.join(parent, there[near[0]]) if near else None


def _no_file(text: str) -> DemurError:
    folder = os.path.dirname(os.path.expanduser(text))
    if glob.has_magic(text) and not os.path.isdir(folder or "."):
        came = f"there is no folder {folder!r} for {text!r}"
    elif glob.has_magic(text):
        came = f"no file matches {text!r}"
    elif folder and "://" not in text and not os.path.isdir(folder):
        came = f"there is no file {text!r}, nor the folder {folder!r}"
    else:
        came = f"there is no file {text!r}"
    near = _near(text)
    expected = "the path of a prompt file, an id or a text"
    return DemurError(came, expected, f"did you mean {near!r}? {TEXT}" if near else TEXT)


def side(name: str, harmful: bool, columns: Mapping[str, str] | None = None, limit: int | None = None) -> list[Prompt]:
    """One side of what a command learns from: the prompts of a set or a file that are harmless, or harmful.

    A file whose rows say which they are serves both sides; one without any labels is all of this side.
    """
    from demur.prompts import load

    return load(name, columns=columns, limit=limit, side="harmful" if harmful else "harmless")
