"""Folders of runs: which there are below one, and what in a run's folder nobody needs any more."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from demur.experiment.config import Config
from demur.experiment.fit import prepared_path, unfinished
from demur.experiment.judging import kept, same_judge
from demur.experiment.runs import what_came_of, what_is_run
from demur.experiment.searched import search_files
from demur.experiment.store import Store
from demur.experiment.units import units_of
from demur.types import DemurError


def runs_in(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Runs below a folder, with their manifests, newest first. What is no run of demur's is passed over."""
    found = []
    for path in sorted(folder.glob("*/manifest.json")):
        with suppress(DemurError):
            manifest = Store(path.parent).manifest
            if isinstance(manifest, dict) and {"written", "finished", "config"} <= set(manifest):
                found.append((path.parent, manifest))
    return sorted(found, key=lambda item: str(item[1]["written"]), reverse=True)


def _left_unfinished(folder: Path, config: Config) -> list[Path]:
    """Folders of answers for anchors and guards that no subject of the configuration has, or that has them made
    already.
    """
    paths = [prepared_path(folder, config, subject) for subject in config.subjects]
    own = {unfinished(path) for path in paths if not path.is_file()}
    return [path for path in (folder / "prepared").glob("*.unfinished") if path not in own]


HOUR = 3600
"""A half-written file that is younger may belong to a run that is going on."""


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > HOUR
    except OSError:  # gone meanwhile
        return False


def superfluous(folder: Path, config: Config) -> list[Path]:
    """What no unit of the configuration needs: units of older configurations, damaged and unfinished files. Raises for
    the configuration of another run.
    """
    store, kept = Store(folder), {unit.key for unit in units_of(config)}
    if (name := store.manifest["name"]) != config.name:
        raise DemurError(f"the recipe of {config.name}", f"that of {name}, which {folder} holds", "name that one")
    extra = [path for key, path in store.files().items() if key not in kept]
    extra += [path for path in (folder / "traces").glob("*.safetensors") if path.name.split("-")[0] not in kept]
    extra += [path for path in (folder / "judged").glob("*.json") if path.stem not in kept]
    searched = search_files(folder, config, units_of(config))
    extra += [path for path in (folder / "attacked").glob("*.json") if path not in searched]
    extra += (folder / "units").glob("*.damaged")
    left = _left_unfinished(folder, config)
    extra += [path for other in left for path in other.rglob("*.safetensors") if not path.name.startswith(".")]
    scratch = [path for where in ("attacked", "units") for path in (folder / where).glob(".*")]
    scratch += [path for other in left for path in other.rglob(".*") if path.is_file()]
    return extra + [path for path in scratch if _is_old(path)]


def _without_folders(folders: Sequence[Path]) -> None:
    """Removes folders in which nothing is left, and what they hold of such; one that holds a file stays."""
    for folder in folders:
        inside = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
        for empty in (*inside, folder):
            with suppress(OSError):
                empty.rmdir()


def collect(folder: Path, config: Config) -> list[Path]:
    """Removes what is :func:`superfluous`, and writes into the manifest what is left: units, and everything that is
    said of them. Raises as that does.
    """
    store, extra, left = Store(folder), superfluous(folder, config), _left_unfinished(folder, config)
    for path in extra:
        path.unlink(missing_ok=True)
    _without_folders(left)
    manifest, units = store.manifest, units_of(config)
    keys = [unit.key for unit in units]
    if manifest["finished"] and manifest["units"] != keys:
        about = manifest | what_is_run(config)
        if {*keys} <= {*store.whole()} and same_judge(manifest, config):
            names = {subject.name for subject in config.subjects}
            about |= what_came_of(config, store, units) | kept(config, store, units).plain()
            about["subjects"] = {name: of for name, of in manifest.get("subjects", {}).items() if name in names}
        else:
            about |= {"finished": False, "wanted": keys}
        store.begin(about)
    return extra
