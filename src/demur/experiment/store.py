"""A run on disk: a manifest, prepared guards, and one Parquet file for every finished unit, all of one schema
(:data:`demur.traces.frames.ROW_COLUMNS`).

A unit's file is written whole or not at all, and its name ends in a hash of its bytes. So a run may be killed at any
moment: what is there is finished, what is damaged is noticed, and the rest is done again by ``--resume``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur import artefact
from demur.traces import frames
from demur.types import DemurError

Row = Mapping[str, Any]
TIMED = ("seconds",)
"""Columns that differ from run to run."""


@dataclass(frozen=True)
class Store:
    """One run's folder."""

    folder: Path

    @property
    def manifest(self) -> dict[str, Any]:
        """What the run is, and where it was made. Raises if there is none."""
        path = self.folder / "manifest.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise DemurError(
                f"no run in {self.folder}", "a folder of demur evaluate", "see: demur runs list"
            ) from error
        except (OSError, ValueError) as error:
            raise DemurError(f"{path} is broken ({error})", "JSON", "run: demur evaluate ... --resume") from error
        return found

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Writes the manifest."""
        artefact.write(self.folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    def add(self, key: str, rows: Sequence[Row]) -> Path:
        """Writes a unit's rows, whole or not at all."""
        data = frames.to_bytes(rows)
        return artefact.write(self.folder / "units" / frames.name_of(key, data), data)

    def files(self) -> dict[str, Path]:
        """Finished units' files by key; damaged ones are not looked for here."""
        return frames.files_in(self.folder / "units")

    def whole(self) -> dict[str, Path]:
        """Finished units whose bytes are what they were. Nothing is changed."""
        return {
            key: path
            for key, path in self.files().items()
            if frames.digest_of(path.read_bytes()) == path.stem.split("-")[1]
        }

    def set_aside(self) -> None:
        """Renames damaged files (``.damaged``), so that nobody takes them for finished units."""
        whole = self.whole()
        for key, path in self.files().items():
            if key not in whole:
                path.replace(path.with_suffix(".damaged"))

    def rows(self, keys: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """All rows (or those of some units), unit by unit. Raises, naming the file, for a damaged one.

        Optional columns that a unit leaves empty are not in its rows, as in those of version 0.1.0: what a digest of
        rows says stays what it was.
        """
        files = self.files()
        for key in files if keys is None else keys:
            if key not in files:
                raise DemurError(f"unit {key} of {self.folder} is not done", "a finished run", "add --resume")
            path = files[key]
            data = path.read_bytes()
            if frames.digest_of(data) != path.stem.split("-")[1]:
                raise DemurError(
                    f"{path} is damaged", "the bytes that were written", "run: demur evaluate ... --resume"
                )
            table = frames.from_bytes(data)
            empty = [name for name in frames.OPTIONAL if table[name].null_count == table.num_rows]
            yield from table.drop_columns(empty).to_pylist()

    def digest(self, keys: Sequence[str]) -> str:
        """A hash over all rows but their times: equal for two runs that found the same."""
        sha = hashlib.sha256()
        for row in self.rows(keys):
            kept = {name: value for name, value in row.items() if name not in TIMED}
            sha.update(json.dumps(kept, sort_keys=True, default=str).encode())
        return sha.hexdigest()[:16]
