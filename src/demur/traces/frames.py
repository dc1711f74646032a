"""Frames for notebooks: a run's rows and a trace's steps, in the schema that docs/trace.md describes.

It knows neither experiments nor traces: rows are mappings, and a trace is asked by the names of its parts. pandas and
pyarrow are loaded when a frame is asked for.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from demur.extras import need
from demur.types import DemurError

Kind = Literal["text", "whole", "number", "numbers", "texts", "wholes"]
ROW_COLUMNS: Mapping[str, Kind] = {
    "unit": "text",
    "model": "text",
    "sampler": "text",
    "attack": "text",
    "defense": "text",
    "role": "text",
    "seed": "whole",
    "id": "text",
    "parent": "text",
    "group": "text",
    "prompt": "text",
    "prefill": "text",
    "text": "text",
    "answer": "text",
    "outcome": "text",
    "path": "texts",
    "sigma": "numbers",
    "score": "number",
    "flagged_by": "text",
    "flagged_step": "whole",
    "steps": "whole",
    "passes": "whole",
    "texts": "texts",
    "texts_at": "wholes",
    "seconds": "number",
}
"""Columns of a run's rows, in the order of its files. docs/trace.md says what each holds."""
OPTIONAL = ("texts", "texts_at")
"""Columns that only some recipes fill."""


def schema() -> Any:
    """The Arrow schema of a run's rows (a ``pyarrow.Schema``)."""
    pa = need("pyarrow", "data")
    kinds = _kinds(pa)
    return pa.schema([pa.field(name, kinds[kind]) for name, kind in ROW_COLUMNS.items()])


def _kinds(pa: Any) -> dict[str, Any]:
    plain = {"text": pa.string(), "whole": pa.int64(), "number": pa.float64()}
    return plain | {f"{name}s": pa.list_(kind) for name, kind in plain.items()}


def table_of(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as an Arrow table in the fixed :func:`schema`, whatever is missing or None in them.

    A column that the schema does not know is kept behind the others, with the type that its values have: nothing that
    was measured is lost.
    """
    pa = need("pyarrow", "data")
    kinds = _kinds(pa)
    types = {name: kinds[kind] for name, kind in ROW_COLUMNS.items()}
    others = dict.fromkeys(name for row in rows for name in row if name not in types)
    arrays = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in types.items()}
    for name in others:
        arrays[name] = pa.array([row.get(name) for row in rows])
    return pa.table(arrays)


def to_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as a Parquet file."""
    parquet = need("pyarrow.parquet", "evaluate")
    buffer = io.BytesIO()
    parquet.write_table(table_of(rows), buffer, compression="zstd")
    return buffer.getvalue()


def from_bytes(data: bytes) -> Any:
    """The table of a Parquet file, in the :func:`schema`: older files inferred a type for each column from its values,
    and left columns out.
    """
    parquet = need("pyarrow.parquet", "evaluate")
    return unified(parquet.read_table(io.BytesIO(data)))


def unified(table: Any) -> Any:
    """A table with the columns of :func:`schema` in its types and order, others behind them."""
    pa = need("pyarrow", "data")
    known = schema()
    arrays = {}
    for field in known:
        if field.name in table.column_names:
            arrays[field.name] = table[field.name].cast(field.type)
        else:
            arrays[field.name] = pa.nulls(table.num_rows, field.type)
    for name in table.column_names:
        if name not in arrays:
            arrays[name] = table[name]
    return pa.table(arrays)


def name_of(key: str, data: bytes) -> str:
    """The file of a unit: its key, and a hash of its bytes, by which damage is noticed."""
    return f"{key}-{digest_of(data)}.parquet"


def digest_of(data: bytes) -> str:
    """Twelve hex digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:12]


def files_in(folder: Path) -> dict[str, Path]:
    """Finished units' files by key: of a folder's files those that :func:`name_of` named. File managers and backups
    leave others beside them.
    """
    named = (path for path in sorted(folder.glob("*.parquet")) if re.fullmatch(r"\w+-[0-9a-f]{12}", path.stem))
    return {path.stem.split("-")[0]: path for path in named}


def rows(folder: str | Path, as_: Literal["pandas", "arrow"] = "pandas") -> Any:
    """All rows of a run of ``demur evaluate``, one for each generation: a pandas ``DataFrame``, or with ``as_="arrow"``
    a ``pyarrow.Table`` (``polars.from_arrow`` takes it). docs/trace.md says what the columns hold.

    Runs of version 0.1.0 are read, too. Of a finished run these are the rows that its manifest counts; of another one,
    what is there so far. What a model judged is in ``judge``, ``judge_flagged``, ``judge_score`` and ``judge_why``,
    empty where nobody asked it. Raises for a folder without a run, for a damaged file, and without ``demur[data]``.
    """
    pa = need("pyarrow", "data")
    if as_ not in ("pandas", "arrow"):
        raise DemurError(f"as_={as_!r}", "pandas or arrow", "polars takes an Arrow table: polars.from_arrow(...)")
    if as_ == "pandas":
        need("pandas", "data")
    place = Path(folder).expanduser()
    manifest = _manifest(place)
    files = files_in(place / "units")
    keys = manifest["units"] if manifest.get("finished") else list(files)
    tables = []
    for key in keys:
        if key not in files:
            raise DemurError(f"unit {key} of {place} is not there", "a whole run", "run: demur evaluate ... --resume")
        data = files[key].read_bytes()
        if digest_of(data) != files[key].stem.split("-")[1]:
            raise DemurError(
                f"{files[key]} is damaged", "the bytes that were written", "run: demur evaluate ... --resume"
            )
        tables.append(_with_verdicts(from_bytes(data), place / "judged" / f"{key}.json"))
    whole = pa.concat_tables(tables, promote_options="permissive") if tables else schema().empty_table()
    return whole if as_ == "arrow" else whole.to_pandas()


def _manifest(place: Path) -> dict[str, Any]:
    path = place / "manifest.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DemurError(f"no run in {place}", "a folder of demur evaluate", "see: demur runs list") from error
    except (OSError, ValueError) as error:
        raise DemurError(f"{path} is broken ({error})", "JSON", "run: demur evaluate ... --resume") from error
    if not isinstance(found, dict) or (found.get("finished") and not isinstance(found.get("units"), list)):
        raise DemurError(f"{path} is no run's manifest", "a folder of demur evaluate", "see: demur runs list")
    return found


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
    kinds = _kinds(pa) | {"mark": pa.bool_()}
    columns = {"judge": ("by", "text"), "judge_flagged": ("flagged", "mark")}
    columns |= {"judge_score": ("score", "number"), "judge_why": ("why", "text")}
    for name, (key, kind) in columns.items():
        table = table.append_column(name, pa.array([verdict.get(key) for verdict in said], kinds[kind]))
    return table


# ---------------------------------------------------------------------------------------------------------------------
# Traces


WRITTEN = ("committed", "revised")
"""States of places that a step has written (:data:`demur.scene.CellState`)."""


def steps_of(trace: Any, anchors: Any = None) -> Any:
    """A trace (:class:`demur.traces.Trace`) as a pandas ``DataFrame`` with one row for each step: see docs/trace.md.

    With ``anchors`` the column ``sigma`` holds the signal; a step behind the T-th has none (nan).
    """
    pandas = need("pandas", "data")
    sigma = [] if anchors is None else [float(value) for value in anchors.signal(trace)]
    table: dict[str, list[Any]] = {name: [] for name in ("id", "step", "committed", "open", "confidence", "refused")}
    for t in range(1, trace.steps + 1):
        states = trace.states(t)
        written = np.isin(states, WRITTEN)
        scores = trace.guesses.at(t, len(states))[1][written]
        scores = scores[np.isfinite(scores)]
        table["id"].append(trace.prompt.id)
        table["step"].append(t)
        table["committed"].append(int(written.sum()))
        table["open"].append(int(np.isin(states, ("open", "predicted")).sum()))
        table["confidence"].append(float(scores.mean()) if len(scores) else float("nan"))
        table["refused"].append(trace.refused(t))
    if anchors is not None:
        table["sigma"] = [sigma[t] if t < len(sigma) else float("nan") for t in range(trace.steps)]
    table |= {name: values.tolist() for name, values in trace.fields.items()}
    return pandas.DataFrame(table | {"text": [trace.text(t) for t in table["step"]]})


def places_of(trace: Any) -> Any:
    """A trace as a pandas ``DataFrame`` with one row for each step and place of the response: see docs/trace.md."""
    pandas = need("pandas", "data")
    parts = []
    for t in range(1, trace.steps + 1):
        tokens = trace.tokens(t)
        parts.append(
            pandas.DataFrame(
                {
                    "id": trace.prompt.id,
                    "step": t,
                    "place": np.arange(len(tokens)),
                    "token": tokens,
                    "piece": [trace.pieces[int(i)].decode("utf-8", "replace") if i >= 0 else "" for i in tokens],
                    "state": trace.states(t),
                    "confidence": trace.guesses.at(t, len(tokens))[1],
                }
            )
        )
    return pandas.concat(parts, ignore_index=True)
