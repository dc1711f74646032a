"""Running an experiment: what is missing is done, in this process, in several, or on Ray; nothing is done twice."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from demur.defenses import UNREADABLE
from demur.experiment.asking import judge_of
from demur.experiment.attacking import kind_of, reads_answers, searches, translates
from demur.experiment.config import Config, Subject, content_of
from demur.experiment.engines import Ray
from demur.experiment.fit import answers_there, answers_wanted, prepared_of, prepared_path, preparing, share
from demur.experiment.fitting import left_out
from demur.experiment.journal import Journal
from demur.experiment.judging import NOT_JUDGED, Judging, judge, same_judge
from demur.experiment.queries import check_access, most_queries
from demur.experiment.searched import asked_of, search_files, what_searches_found
from demur.experiment.store import Store
from demur.experiment.units import Unit, bundles_of, units_of
from demur.experiment.work import work
from demur.extras import need
from demur.types import DemurError
from demur.workers import Processes

Engine = Literal["process", "ray"]
Progress = Callable[[str, int, int], object]
SECONDS = 2.0
"""How often it is counted how many answers there are for anchors and guards."""


@dataclass(frozen=True)
class Plan:
    """What a run would do: all its units, and which of them are finished."""

    units: tuple[Unit, ...]
    done: frozenset[str]

    @property
    def missing(self) -> tuple[Unit, ...]:
        """Units that are not finished."""
        return tuple(unit for unit in self.units if unit.key not in self.done)

    @property
    def bundles(self) -> list[tuple[Unit, ...]]:
        """The missing units as they are done: those that share their answers together, model after model."""
        models = list(dict.fromkeys(unit.subject.model for unit in self.units))
        return sorted(bundles_of(self.missing), key=lambda bundle: models.index(bundle[0].subject.model))

    @property
    def generations(self) -> int:
        """How many answers are generated for the missing units."""
        return sum(units[0].end - units[0].begin for units in self.bundles)

    def answers(self, config: Config, subject: Subject) -> tuple[int, int]:
        """How many answers of one subject the missing units take, with its anchors and guard, and how many its
        searches may ask it for at most, one by one.
        """
        mine = [units[0] for units in self.bundles if units[0].subject == subject]
        of = config.prompts
        shaped = 2 * of.shapes * len(config.in_own_words)
        guards = of.fit + of.calibrate + shaped if of.fit else 0
        first = of.sizes["anchors/harmless"] + of.sizes["anchors/harmful"] + guards if mine else 0
        of_it = [unit for unit in self.searches if unit.subject == subject and reads_answers(unit.attack)]
        asked = sum(map(self.queries, of_it))
        return first + sum(unit.end - unit.begin for unit in mine), asked

    def queries(self, unit: Unit) -> int:
        """How many answers the search of a unit may ask for at most; 0 for one that reads none. A translator's are no
        answers of the subject.
        """
        if not reads_answers(unit.attack) and not translates(unit.attack):
            return 0
        return (unit.end - unit.begin) * most_queries(kind_of(unit.attack.name), unit.attack.settings)

    @property
    def searches(self) -> list[Unit]:
        """Missing units whose attacks are searches, one for each that finds prompts of its own."""
        found: dict[object, Unit] = {}
        for unit in self.missing:
            if searches(unit.attack):
                own = unit.subject
                who: object = own.name if reads_answers(unit.attack) else (own.model, own.dtype)
                who = "" if translates(unit.attack) else who
                found.setdefault((who, unit.attack.label, unit.role, unit.begin, unit.end), unit)
        return list(found.values())


def plan(config: Config, folder: Path) -> Plan:
    """The units of an experiment, and what of them is there and whole. Nothing is changed."""
    units = tuple(units_of(config))
    return Plan(units, frozenset(Store(folder).whole()) & frozenset(unit.key for unit in units))


def evaluate(
    config: Config,
    folder: Path,
    *,
    resume: bool = False,
    engine: Engine = "process",
    workers: int = 1,
    progress: Progress = lambda what, done, of: None,
    say: Callable[[str], object] | None = None,
) -> Store:
    """Runs an experiment into a folder and returns it.

    With ``resume`` only what is missing is done, also after a change of the configuration: units are keyed by what they
    hold, not by the file they come from; a judge that had no answer is asked again. ``say`` hears the lines of the
    run's ``log.txt``. ``progress(what, done, of)`` may be called from another thread. Raises without ``resume`` if the
    folder holds a run already, and before anything is generated where a package or a key is missing.
    """
    store = Store(folder)
    if (folder / "manifest.json").exists() and not resume:
        raise DemurError(f"{folder} holds a run", "a new folder", "add --resume to go on, or name another --out")
    need("pyarrow", "evaluate", "to keep rows")
    store.set_aside()
    todo = plan(config, folder)
    if config.asks_a_model and todo.missing:
        judge_of(config.judge_settings).endpoint.check()  # a missing key is said before a day of generating
    for attack in {unit.attack.label: unit.attack for unit in todo.searches}.values():
        check_access(attack.name, attack.settings)
    runner = Ray(workers) if engine == "ray" else Processes(workers, "add --resume, perhaps with fewer --workers")
    with Journal(folder, say) as journal:
        journal.line(
            f"{config.name} ({config.key}), demur {metadata.version('demur')}: {len(todo.missing)} of "
            f"{len(todo.units)} units to do, {todo.generations} generations, {engine}, {workers} workers"
        )
        if other := store.left_behind(config.key, [unit.key for unit in todo.units]):
            journal.line(other)

        def both(what: str, done: int, of: int) -> None:
            journal.progress(what, done, of)
            progress(what, done, of)

        _run(config, store, todo, runner, both, journal.line)
    return store


def _run(
    config: Config, store: Store, todo: Plan, runner: Any, progress: Progress, line: Callable[[str], object]
) -> None:
    """Does what is missing, then judges, then writes what came of it."""
    sessions, folder = _sessions(store), store.folder
    keys = [unit.key for unit in todo.units]
    if todo.missing or not _finished(store, config, keys):  # else the same judge is asked again: the run stays whole
        store.begin(manifest_of(config, finished=False) | {"sessions": sessions, "wanted": keys})
    subjects, place = _subjects(todo.missing), folder.resolve()  # workers may stand elsewhere
    bundles, every = todo.bundles, len(bundles_of(todo.units))
    done = every - len(bundles)
    unkept: list[str] = []
    with runner as submit:
        with _told_of_answers(place, config, subjects, progress):
            for jobs in preparing(place, config, subjects, runner.workers):
                if unkept and jobs[0][0] is share:
                    continue  # nothing could be kept: it would be answered twice
                for why in submit(jobs):
                    if why and not unkept:  # each of many workers names a file of its own
                        line(f"{UNKEPT} ({why})")
                        unkept.append(why)
        for at, _ in enumerate(chain([()], submit([(_search, place, config, unit) for unit in todo.searches]))):
            if todo.searches:
                progress("searching attacks", at, len(todo.searches))
        progress("generating", done, every)
        for _ in submit([(_work, place, config, units) for units in bundles]):
            done += 1
            progress("generating", done, every)
    verdicts = _judged(config, store, todo.units, progress).plain()
    end = what_came_of(config, store, todo.units) | {"sessions": sessions} | verdicts
    end |= {"unkept": unkept} if unkept else {}
    end["subjects"] = {subject.name: _identity(folder, config, subject) for subject in _subjects(todo.units)}
    store.begin(manifest_of(config, finished=True) | end)


UNKEPT = "answers for anchors and guards could not be kept meanwhile: a stop would have cost them"


def what_came_of(config: Config, store: Store, units: Sequence[Unit]) -> dict[str, Any]:
    """What a manifest says of finished units, beside what a model judged."""
    keys = [unit.key for unit in units]
    searched = what_searches_found(search_files(store.folder, config, units))
    return {"rows": store.digest(keys), "units": keys, "unread": _unread(store, units), "searches": searched}


def _judged(config: Config, store: Store, units: Sequence[Unit], progress: Progress) -> Judging:
    if not config.asks_a_model:
        return NOT_JUDGED
    try:
        return judge(config, store, units, progress)
    except DemurError as error:
        then = f"{error.then or 'mend that'}; every answer is kept: add --resume"
        raise DemurError(error.came, error.expected, then) from error


def _unread(store: Store, units: Sequence[Unit]) -> dict[str, int]:
    """By defense, how many prompts and answers it stopped since its own verdict could not be read."""
    found: dict[str, int] = {}
    for unit in units:
        if not unit.defense.none:
            n = sum(record.flagged_by.endswith(UNREADABLE) for record in store.records([unit.key]))
            if n:
                found[unit.defense.label] = found.get(unit.defense.label, 0) + n
    return found


def _finished(store: Store, config: Config, keys: Sequence[str]) -> bool:
    """Whether the folder holds a finished run of just these units, and of the same judge: while another one reads, its
    verdicts stand beside the first one's.
    """
    with suppress(DemurError):
        manifest = store.manifest
        return bool(manifest["finished"]) and manifest["units"] == [*keys] and same_judge(manifest, config)
    return False


def _identity(folder: Path, config: Config, subject: Subject) -> dict[str, str]:
    """What the model of a subject was, as its guard knows it: every row was measured with that guard, which refuses
    other weights.
    """
    path = prepared_path(folder, config, subject)
    if not path.is_file():  # a finished run that somebody has cleaned up
        return {}
    spec = prepared_of(path, config).spec
    return {name: getattr(spec, name) for name in ("model", "revision", "weights", "dtype", "template")}


def _subjects(units: Sequence[Unit]) -> list[Subject]:
    return [s for i, s in enumerate(u.subject for u in units) if s not in [u.subject for u in units[:i]]]


@contextmanager
def _told_of_answers(folder: Path, config: Config, subjects: Sequence[Subject], progress: Progress) -> Iterator[None]:
    """Meanwhile, tells how many answers there are for anchors and guards, by the files that workers leave, wherever
    these work: a subject can take hours.
    """
    of = sum(answers_wanted(config, subject) for subject in subjects)
    over = threading.Event()

    def told() -> None:
        there = sum(answers_there(folder, config, subject) for subject in subjects)
        progress("anchors and guards", min(there, of), of)

    def tell() -> None:
        while not over.wait(SECONDS):
            told()

    if not subjects:
        yield
        return
    told()
    thread = threading.Thread(target=tell, name="answers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    told()


def _search(folder: Path, config: Config, unit: Unit) -> None:
    with _named(unit):
        asked_of(folder, config, unit)


@contextmanager
def _named(unit: Unit) -> Iterator[None]:
    """Errors say in which unit they came."""
    try:
        yield
    except DemurError as error:
        raise DemurError(f"{unit.name}: {error.came}", error.expected, error.then) from error


def _work(folder: Path, config: Config, units: tuple[Unit, ...]) -> None:
    with _named(units[0]):
        done = work(folder, config, units)
    for one in done:
        for i, trace in enumerate(one.shown):
            trace.save(folder / "traces" / f"{one.unit.key}-{i}.safetensors")
        Store(folder).add(one.unit.key, one.records)  # last: a unit whose records are there is finished


# ---------------------------------------------------------------------------------------------------------------------
# Provenance


def what_is_run(config: Config) -> dict[str, Any]:
    """What a manifest says of a configuration."""
    content = json.loads(json.dumps(content_of(config)))
    return {"name": config.name, "config": content, "key": config.key, "left_out": left_out(config)}


def manifest_of(config: Config, *, finished: bool) -> dict[str, Any]:
    """The configuration, and where and with what it is run."""
    return what_is_run(config) | {"finished": finished} | _here()


def _here() -> dict[str, Any]:
    """Where, when and with what something is run."""
    import torch

    names = ("demur", "torch", "transformers", "numpy", "scikit-learn", "pyarrow")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    machine = {"system": platform.platform(), "processor": platform.processor(), "cores": os.cpu_count(), "gpus": gpus}
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in names},
        "python": platform.python_version(),
        "machine": machine,
        "git": _git(),
    }


def _sessions(store: Store) -> list[dict[str, Any]]:
    """What this run was worked on with, one entry for each start that differs from the one before: what was done by an
    older version, or on another machine, is still told after the last resume.
    """
    before: list[dict[str, Any]] = []
    with suppress(DemurError):
        before = list(store.manifest.get("sessions", []))
    now = _here()
    same = before and {**before[-1], "written": ""} == {**now, "written": ""}
    return before if same else [*before, now]


def _git() -> str:
    """The commit of the package's own checkout, with ``+`` if there are changes; empty where there is none."""
    here = Path(__file__).parent
    try:
        run = [["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--", "."]]
        said = [_said(line, here) for line in run]
    except (OSError, subprocess.SubprocessError):
        return ""
    return said[0] + ("+" if said[1] else "")


def _said(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    return done.stdout.strip()
