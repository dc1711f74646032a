"""A run's records as one table for notebooks: pandas or Arrow, with what a judge said beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from demur.artefact import place_of
from demur.experiment.record import read_in_run, said_in, schema
from demur.experiment.store import Store
from demur.extras import need
from demur.types import DemurError


def rows(folder: str | Path, as_: Literal["pandas", "arrow"] = "pandas") -> Any:
    """All records of a run of ``demur evaluate``, one for each generation. Nothing is redacted: they hold the words of
    prompts and answers, harmful ones too, and so does what you write from them (``to_csv``).

    A pandas ``DataFrame``, or with ``as_="arrow"`` a ``pyarrow.Table`` (``polars.from_arrow`` takes it).
    docs/records.md says what the columns hold.

    Runs of version 0.1.0 are read, too. Of a finished run these are the rows that its manifest counts; of another one,
    what is there so far of its recipe, with a warning. What a model judged is in ``judge``, ``judge_flagged``,
    ``judge_score`` and ``judge_why``, empty where nobody asked it; ``read`` and ``read_why`` are how the text reads
    (:func:`demur.judges.read_answer`): ``refuses``, ``answers``, ``unclear``, or null where it could not be read.
    Raises for a folder without a run, for a damaged file, and without ``demur[data]``.
    """
    pa = need("pyarrow", "data")
    if as_ not in ("pandas", "arrow"):
        raise DemurError(f"as_={as_!r}", "pandas or arrow", "polars takes an Arrow table: polars.from_arrow(...)")
    if as_ == "pandas":
        need("pandas", "data")
    store = Store(place_of(folder))
    store.tell_unfinished()
    tables = [
        _with_verdicts(table, store.folder / "judged" / f"{key}.json") for key, table in store.tables(store.counted)
    ]
    whole = pa.concat_tables(tables, promote_options="permissive") if tables else schema().empty_table()
    return whole if as_ == "arrow" else whole.to_pandas(use_threads=False)


def _with_verdicts(table: Any, path: Path) -> Any:
    """A unit's table with what a judge said of its rows, matched by id; refusals that a defense put there are nobody's
    to judge.
    """
    pa = need("pyarrow", "data")
    try:
        verdicts = {verdict["id"]: verdict for verdict in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, LookupError, TypeError):  # none was asked, or the file is broken: asked again
        verdicts = {}
    said = [verdicts.get(name, {}) for name in table["id"].to_pylist()]
    columns = {"judge": ("by", pa.string()), "judge_flagged": ("flagged", pa.bool_())}
    columns |= {"judge_score": ("score", pa.float64()), "judge_why": ("why", pa.string())}
    for name, (key, kind) in columns.items():
        table = table.append_column(name, pa.array([verdict.get(key) for verdict in said], kind))
    words = list(zip(*_words(table), strict=True))
    reading = {one: read_in_run(one[0] or "", one[1] or "") for one in dict.fromkeys(words)}  # equal answers, once
    found = [reading[one] for one in words]
    read = [one.value if one.readable else None for one in found]
    table = table.append_column("read", pa.array(read, pa.string()))
    return table.append_column("read_why", pa.array([one.why for one in found], pa.string()))


def _words(table: Any) -> tuple[list[Any], list[Any]]:
    texts, asked = table["text"].to_pylist(), table["prompt"].to_pylist()
    beside = [
        table[name].to_pylist() if name in table.column_names else [None] * len(texts) for name in ("answer", "prefill")
    ]
    said = [said_in(*(word or "" for word in words)) for words in zip(texts, *beside, strict=True)]
    return said, asked
