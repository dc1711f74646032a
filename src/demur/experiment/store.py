"""A run on disk: a manifest, prepared guards, and one Parquet file of records for every finished unit.

A unit's file is written whole or not at all, and its name ends in a hash of its bytes. So a run may be killed at any
moment: what is there is finished, what is damaged is noticed, and the rest is done again by ``--resume``.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur import artefact
from demur.experiment.record import OPTIONAL, TIMED, Record, files_in, from_bytes, is_whole, name_of, to_bytes
from demur.types import DemurError, DemurWarning


@dataclass(frozen=True)
class Store:
    """One run's folder."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))  # a text is taken, too

    @property
    def manifest(self) -> dict[str, Any]:
        """What the run is, and where it was made. Raises if there is none."""
        path = self.folder / "manifest.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DemurError(
                f"no run in {self.folder}", "a folder of demur evaluate", "see: demur runs list"
            ) from error
        except (OSError, ValueError) as error:
            raise DemurError(f"{path} is broken ({error})", "JSON", "run: demur evaluate ... --resume") from error
        if not isinstance(found, dict) or (found.get("finished") and not isinstance(found.get("units"), list)):
            raise DemurError(f"{path} is no run's manifest", "a folder of demur evaluate", "see: demur runs list")
        return found

    @property
    def counted(self) -> list[str]:
        """Keys of the units that the manifest is of: all those of a finished run; of another one those of its recipe
        that are done, and nothing that an older recipe left beside them.
        """
        manifest = self.manifest
        if manifest.get("finished"):
            return list(manifest["units"])
        files = self.files()
        wanted = manifest.get("wanted")  # version 0.1.0 did not say
        return list(files) if wanted is None else [key for key in wanted if key in files]

    def tell_unfinished(self) -> None:
        """Warns of a run that is not finished: rates of its rows are those of some cells, or of a part of one."""
        manifest = self.manifest
        if not manifest.get("finished"):
            of = manifest.get("wanted")
            there = f"{len(self.counted)} of {len(of)}" if of else f"{len(self.counted)}"
            then = "the rows are what is there so far; demur evaluate ... --resume goes on"
            warnings.warn(f"{self.folder} is not finished ({there} units): {then}", DemurWarning, stacklevel=3)

    def left_behind(self, recipe: str, keys: Sequence[str]) -> str:
        """Says what of another recipe's run in this folder counts no more in one of ``recipe`` with the units ``keys``;
        empty where nothing is lost.
        """
        try:
            before = self.manifest
        except DemurError:
            return ""
        old = {*before.get("units", ()), *(before.get("wanted") or ())}
        if before.get("key") == recipe or not (lost := old.difference(keys)):
            return ""
        return (
            f"this folder held the run {before.get('key', '')} of another recipe: {len(lost)} of its {len(old)} units "
            "count no more. They stay until demur runs gc; name another --out to keep that run"
        )

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Writes the manifest."""
        artefact.write(self.folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    def add(self, key: str, records: Sequence[Record]) -> Path:
        """Writes a unit's records, whole or not at all."""
        data = to_bytes(records)
        return artefact.write(self.folder / "units" / name_of(key, data), data)

    def files(self) -> dict[str, Path]:
        """Finished units' files by key; damaged ones are not looked for here."""
        return files_in(self.folder / "units")

    def whole(self) -> dict[str, Path]:
        """Finished units whose bytes are what they were. Nothing is changed."""
        return {key: path for key, path in self.files().items() if is_whole(path, path.read_bytes())}

    def set_aside(self) -> None:
        """Renames damaged files (``.damaged``), so that nobody takes them for finished units."""
        whole = self.whole()
        for key, path in self.files().items():
            if key not in whole:
                path.replace(path.with_suffix(".damaged"))

    def tables(self, keys: Sequence[str] | None = None) -> Iterator[tuple[str, Any]]:
        """The Arrow table of every unit (or of some), with its key. Raises, naming the file, for a damaged one."""
        files = self.files()
        for key in files if keys is None else keys:
            if key not in files:
                raise DemurError(f"unit {key} of {self.folder} is not done", "a finished run", "add --resume")
            data = files[key].read_bytes()
            if not is_whole(files[key], data):
                raise DemurError(
                    f"{files[key]} is damaged", "the bytes that were written", "run: demur evaluate ... --resume"
                )
            yield key, from_bytes(data)

    def records(self, keys: Sequence[str] | None = None) -> Iterator[Record]:
        """All records (or those of some units), unit by unit. Raises as :meth:`tables` does."""
        for _, table in self.tables(keys):
            yield from map(Record.of, table.to_pylist())

    def rows(self, keys: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """The same as plain data, for digests and comparisons. Raises as :meth:`tables` does.

        Optional fields that a unit leaves empty are not in its rows, as in those of version 0.1.0: what a digest of
        rows says stays what it was.
        """
        for _, table in self.tables(keys):
            empty = [name for name in OPTIONAL if table[name].null_count == table.num_rows]
            yield from table.drop_columns(empty).to_pylist()

    def digest(self, keys: Sequence[str]) -> str:
        """A hash over all rows but their times: equal for two runs that found the same."""
        sha = hashlib.sha256()
        for row in self.rows(keys):
            kept = {name: value for name, value in row.items() if name not in TIMED}
            sha.update(json.dumps(kept, sort_keys=True, default=str).encode())
        return sha.hexdigest()[:16]
