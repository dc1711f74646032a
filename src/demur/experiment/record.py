"""A record: what a run keeps of one generation. Its Parquet schema and the table in docs/records.md are made of it.

A record knows neither its run's recipe nor its prompt's file; ``unit`` is the key by which both are found.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from demur.extras import need
from demur.judges import Reading, read_answer
from demur.redaction import label
from demur.refusals import REFUSAL, conclusion
from demur.types import DemurError

FORMAT = 2
"""The format of files of records, as their metadata say. 1: files without a number, such as those of version 0.1.0, in
which each file's types were inferred from its values. A change of what a field *means* is no change of this one; it
counts in :data:`demur.experiment.units.FORMAT`, which makes other units.
"""
FORMAT_KEY = b"demur.record"


def _said(meaning: str, unit: str = "", **how: Any) -> Any:
    """A field with what docs/records.md says of it."""
    return field(metadata={"meaning": meaning, "unit": unit}, **how)


def _beside(**how: Any) -> Any:
    """A field that is in no file: what somebody has said of a record since."""
    return field(metadata={"beside": True}, **how)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One generation of a run: who was asked what, what came of it, and what a guard saw. Frozen; fields that a file of
    an older version lacks have their defaults.

    What is in no file stands at the end: what a judge said, how a report reads the record, and columns that this
    version does not know.
    """

    unit: str = _said("the key of the unit of work, as in the file's name", default="")
    model: str = _said("who was asked")
    sampler: str = _said("how it generates, with the settings that differ; empty: its family's own way", default="")
    attack: str = _said("`plain` where there is none")
    defense: str = _said("`none` where there is none")
    role: str = _said(
        "`harmful`, `controls` (harmless, under the same attack) or `plain` (harmless, plainly)", default="harmful"
    )
    seed: int = _said("of sampling", default=0)
    id: str = _said("the prompt's id")
    parent: str = _said("the id of the request behind an attacked prompt; else the id", default="")
    group: str = _said(
        "what records share that are no independent facts: the request, or what a world says (the organism's craft)",
        default="",
    )
    prompt: str = _said("what was asked", default="")
    prefill: str = _said("the beginning of the answer that an attack put there", default="")
    text: str = _said("what was generated, or the refusal that a defense put in its place", default="")
    answer: str = _said("what judges read: the whole answer, with the prefill", default="")
    outcome: str = _said(
        "of the last text. By the dictionary: `refusal`, `answer` (no refusal, and nobody judged harm) or `unscored` "
        "(empty, or thoughts alone); by the reading also `unclear`. By a world's judge: `refusal`, `harmful`, and "
        "words of its own (the organism's: `correct`, `neither`)"
    )
    path: tuple[str, ...] = _said("outcomes of the text after each step", default=())
    sigma: tuple[float, ...] | None = _said(
        "the signal, T values: 1 = complying, 0 = refusing; null where nothing was generated, or where a state was not "
        "finite",
        "0 to 1",
        default=None,
    )
    score: float | None = _said(
        "the guard's, higher is more anomalous; a filter's own where it stopped the prompt; null without a guard",
        default=None,
    )
    flagged_by: str = _said("the defense that acted; empty: none", default="")
    flagged_step: int | None = _said("its step, 0 before the first; null: none acted", "steps", default=None)
    steps: int = _said("steps taken", "steps", default=0)
    passes: int = _said("forward passes", "passes", default=0)
    texts: tuple[str, ...] | None = _said("answers on the way, where a recipe asks for them", default=None)
    texts_at: tuple[int, ...] | None = _said("the steps of these", "steps", default=None)
    fields: str | None = _said(
        "numbers of trace fields, one a step, by their names: a JSON object of lists; where a recipe asks for them",
        default=None,
    )
    seconds: float = _said("of generation and defense; the only field that differs from run to run", "s", default=0.0)

    verdict: Mapping[str, Any] | None = _beside(default=None)
    """What a model as judge said; None where nobody was to be asked (:func:`demur.experiment.judging.judged`)."""
    refused: bool | None = _beside(default=None)
    """Whether it refuses by the dictionary, where a model judged its harm: an answer may do both."""
    way: tuple[str, ...] | None = _beside(default=None)
    """Outcomes at the steps that a model judged, the last one's too."""
    drawn: bool | None = _beside(default=None)
    """Whether who wrote it draws its tokens, as all rows of its run show; None where nobody has looked at them all."""
    more: Mapping[str, Any] = _beside(default_factory=lambda: MappingProxyType({}))
    """Columns of its file that this version does not know."""

    @property
    def said(self) -> str:
        """What a reading of refusals reads: see :func:`said_in`."""
        return said_in(self.text, self.answer, self.prefill)

    @classmethod
    def of(cls, row: Mapping[str, Any] | Record) -> Self:
        """A row of a file as a record. Raises where one lacks a field without a default."""
        if isinstance(row, cls):
            return row
        assert isinstance(row, Mapping)
        known = kinds()
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in row.items()
            if name in known and (value is not None or known[name].endswith(" or null"))
        }
        more = {name: value for name, value in row.items() if name not in known}
        try:
            return cls(**values, more=MappingProxyType(more))
        except TypeError as error:
            needed = [one.name for one in fields(cls) if one.name in known and one.default is MISSING]
            lacking = [name for name in needed if name not in values]
            raise DemurError(f"a row without {', '.join(lacking)}", "a row of demur evaluate", "") from error

    def plain(self) -> dict[str, Any]:
        """The fields that a file holds, and what it held beside them, as JSON may hold them."""
        values = {name: getattr(self, name) for name in kinds()}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()} | dict(self.more)

    def __repr__(self) -> str:
        """In short, without words: a record does not say whether its prompt is harmless."""
        who = self.label
        what = ("model", "sampler", "attack", "defense", "role", "seed", "outcome", "score", "flagged_by")
        said = {name: getattr(self, name) for name in what}
        told = [f"{name}={value!r}" for name, value in said.items() if value not in ("", None)]
        return f"Record({', '.join([repr(who), *told])})"

    @property
    def label(self) -> str:
        """The id as logs, errors and views may say it: see :attr:`demur.types.Prompt.label`."""
        return label(self.id, [self.prompt, self.prefill, self.text, self.answer])

    @property
    def request(self) -> str:
        """What it shares with records that are no independent facts."""
        return self.group or self.parent or self.id


# ---------------------------------------------------------------------------------------------------------------------
# The schema

KINDS: Mapping[str, str] = {"str": "text", "int": "whole number", "float": "number"}
"""Types of fields, in the words of docs/records.md."""
OPTIONAL = ("texts", "texts_at", "fields")
"""Fields that only some recipes fill; where no record of a unit has them, its rows are read without them, as in version
0.1.0: what a digest of rows says stays what it was.
"""
TIMED = ("seconds",)
"""Fields that differ from run to run."""


@cache
def kinds() -> Mapping[str, str]:
    """The type of every field that a file holds, in the order of its columns: ``text``, ``number``, ``whole number`` or
    ``list of`` one of these, with ``or null`` where there may be none.
    """
    stored = [one for one in fields(Record) if not one.metadata.get("beside")]
    return MappingProxyType({one.name: _in_words(str(one.type)) for one in stored})


def _in_words(annotation: str) -> str:
    plain, _, empty = annotation.partition(" | ")
    inner = plain.removeprefix("tuple[").removesuffix(", ...]")
    listed = "list of " if plain.startswith("tuple[") else ""
    return f"{listed}{KINDS[inner]}{' or null' if empty else ''}"


def documented() -> list[tuple[str, str, str, str]]:
    """Name, type, unit and meaning of every field, as docs/records.md has them."""
    known = {one.name: one.metadata for one in fields(Record)}
    return [(name, kind, known[name]["unit"], known[name]["meaning"]) for name, kind in kinds().items()]


def schema() -> Any:
    """The Arrow schema of a file of records (a ``pyarrow.Schema``); its metadata hold the format's number."""
    pa = need("pyarrow", "data")
    plain = {"text": pa.string(), "whole number": pa.int64(), "number": pa.float64()}
    types = {name: kind.removesuffix(" or null") for name, kind in kinds().items()}
    columns = [
        (name, pa.list_(plain[kind.removeprefix("list of ")]) if kind.startswith("list of ") else plain[kind])
        for name, kind in types.items()
    ]
    return pa.schema(columns, metadata={FORMAT_KEY: str(FORMAT)})


def to_bytes(records: Sequence[Record]) -> bytes:
    """Records as a Parquet file. A column that the schema does not know stands behind the others, with the type that
    its values have: nothing that was measured is lost.
    """
    pa, parquet = need("pyarrow", "evaluate"), need("pyarrow.parquet", "evaluate")
    known = schema()
    rows = [record.plain() for record in records]
    others = dict.fromkeys(name for row in rows for name in row if name not in known.names)
    arrays = {one.name: pa.array([row[one.name] for row in rows], one.type) for one in known}
    arrays |= {name: pa.array([row.get(name) for row in rows]) for name in others}
    buffer = io.BytesIO()
    parquet.write_table(pa.table(arrays).replace_schema_metadata(known.metadata), buffer, compression="zstd")
    return buffer.getvalue()


def from_bytes(data: bytes) -> Any:
    """The Arrow table of a file of records, its columns in the types and the order of :func:`schema`, others behind
    them. What an older file lacks is null. Raises for a file of a newer format.
    """
    pa, parquet = need("pyarrow", "data"), need("pyarrow.parquet", "evaluate")
    # By one thread: a process that ends while Arrow's own threads live is aborted now and then, with all its work done.
    table = parquet.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    number = int((table.schema.metadata or {}).get(FORMAT_KEY, 1))
    if number > FORMAT:
        raise DemurError(f"records of format {number}", f"at most {FORMAT}", "install a newer version of demur")
    known = schema()
    arrays = {
        one.name: table[one.name].cast(one.type)
        if one.name in table.column_names
        else pa.nulls(table.num_rows, one.type)
        for one in known
    }
    arrays |= {name: table[name] for name in table.column_names if name not in arrays}
    return pa.table(arrays)


# ---------------------------------------------------------------------------------------------------------------------
# Files


def name_of(key: str, data: bytes) -> str:
    """The file of a unit: its key, and a hash of its bytes, by which damage is noticed."""
    return f"{key}-{digest_of(data)}.parquet"


def digest_of(data: bytes) -> str:
    """Twelve hex digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:12]


def is_whole(path: Path, data: bytes) -> bool:
    """Whether a unit's file holds the bytes that :func:`name_of` named it by."""
    return digest_of(data) == path.stem.split("-")[1]


def files_in(folder: Path) -> dict[str, Path]:
    """Finished units' files by key: of a folder's files those that :func:`name_of` named. File managers and backups
    leave others beside them.
    """
    named = (path for path in sorted(folder.glob("*.parquet")) if re.fullmatch(r"\w+-[0-9a-f]{12}", path.stem))
    return {path.stem.split("-")[0]: path for path in named}


def said_in(text: str, answer: str, prefill: str) -> str:
    """What a record's model said, behind the mark of a thought that its chat template opened: the ``answer`` has it.
    Behind a prefill it is the ``text`` alone. Files without answers (version 0.1.0) do not say whether one was opened:
    there, as ever, what stands before a closing mark is a thought.
    """
    if not answer:
        return conclusion(text)
    return text if prefill else answer


def read_in_run(text: str, request: str) -> Reading:
    """How a text of a run reads. The sentence that a defense puts in an answer's place refuses whatever was asked, also
    a request for a no to be worded.
    """
    if text.strip() == REFUSAL:
        return Reading("refuses", "a defense's refusal, or one in its words", at=0)
    return read_answer(text, request)
