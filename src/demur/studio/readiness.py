"""What this machine has: for ``demur doctor`` and ``demur models``."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Literal

from demur.models import BUILT_IN, FAMILIES, cache_dir
from demur.models.families import packaged_families
from demur.models.locate import locate
from demur.types import DemurError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

State = Literal["ok", "untested", "optional", "missing", "bad"]
"""``untested``: there, in a version that demur was not tested with. ``optional``: not there, and nothing needs it yet.
``missing``: a part of the first steps is not there. ``bad``: demur does not work."""

BRINGS = {
    "smollm2": "a real model that comes as a package",
    "data": "prompts from the hub and from Parquet",
    "plots": "pictures for papers",
    "evaluate": "demur evaluate and demur report",
    "judges": "judges and models behind an endpoint",
    "ray": "experiments on a cluster",
    "adapters": "models with an adapter beside them",
    "multi-gpu": "a model on several devices",
    "serve": "demur serve and demur proxy",
    "telemetry": "demur serve --telemetry",
    "quantized": "4-bit weights",
    "vllm": "the guard inside vLLM",
}
"""What an extra of demur is for."""


@dataclass(frozen=True)
class Check:
    """One finding; ``fix`` is a command or empty. ``section``: machine, packages, extras or models."""

    name: str
    state: State
    found: str
    fix: str = ""
    section: str = "machine"


def cached(repo: str) -> bool:
    """Whether the hub cache holds a configuration and weights of ``repo``."""
    return repo in _cached_repos()


def _cached_repos() -> set[str]:
    """The models of the hub cache that have a configuration and weights."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except (CacheNotFound, OSError):
        return set()
    whole = set()
    for repo in repos:
        names = {file.file_name for revision in repo.revisions for file in revision.files}
        if "config.json" in names and any(name.endswith(".safetensors") for name in names):
            whole.add(repo.repo_id)
    return whole


def ready(model: str) -> str:
    """Whether a model could be loaded offline, in words."""
    if model in BUILT_IN:
        return "built in"
    if os.path.exists(model):
        return "a local folder or file"
    return "ready offline" if cached(model) else f"not here: hf download {model}"


@dataclass(frozen=True)
class Offered:
    """A model that demur runs, or a heading of such (``family`` alone)."""

    family: str
    model: str = ""
    ready: bool = False
    says: str = ""


def offered() -> Iterator[Offered]:
    """Every family with what it is, then its models with whether they are ready offline."""
    yield Offered("built in")
    for name, what in BUILT_IN.items():
        try:
            _ = locate(name, None)
            yield Offered("built in", name, True, f"ready offline; {what}")
        except DemurError as error:
            yield Offered("built in", name, False, f"not here: {error.then.removeprefix('run: ')}; {what}")
    here = _cached_repos()
    ours = [family for family in FAMILIES if not set(family.examples) <= set(BUILT_IN)]  # else it is named above
    for family in (*ours, *(family for _, family in packaged_families())):
        yield Offered(family.name, says=f"{family.describes}; {family.needs}")
        for example in family.examples:
            there = example in here
            yield Offered(family.name, example, there, "ready offline" if there else f"not here: hf download {example}")
    yield Offered("your own", says="a folder with config.json and safetensors, or a .gguf file")


def checks(everything: bool = False) -> Iterator[Check]:
    """Every finding, in the order a person would look. ``everything``: also models of the hub that are not here."""
    yield from _machine()
    yield from _packages()
    yield from _extras()
    yield from _models(everything)


def _machine() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        yield Check("device", "ok", f"cuda, {name}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free")
    elif torch.backends.mps.is_available():
        yield Check("device", "ok", "mps")
    else:
        cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
        yield Check("device", "ok", f"cpu, {cores} (models up to some 1B)")
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        small = memory < 3
        yield Check("memory", "bad" if small else "ok", f"{memory:.0f} GB", "3 GB run smollm2" if small else "")
    folder = cache_dir()
    there = next(place for place in [folder, *folder.absolute().parents] if os.path.exists(place))
    room = shutil.disk_usage(there).free / 1e9
    fine = room > 2 and there.is_dir() and os.access(there, os.W_OK)
    fix = "" if fine else "set DEMUR_CACHE to a roomy folder that can be written"
    yield Check("cache", "ok" if fine else "bad", f"{folder}, {room:.0f} GB free", fix)
    if os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE"):
        yield Check("hub", "optional", "offline by HF_HUB_OFFLINE", "unset HF_HUB_OFFLINE to download models")


def _packages() -> Iterator[Check]:
    """Python and what demur requires, each against the versions that demur says it was tested with."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    try:
        bounds = str(metadata.metadata("demur")["Requires-Python"] or ">=3.11")
    except metadata.PackageNotFoundError:
        bounds = ">=3.11"
    fine = SpecifierSet(bounds).contains(version, prereleases=True)
    yield Check("python", "ok" if fine else "bad", version, "" if fine else f"install Python {bounds}", "packages")
    needed = [one for one in _requirements() if not _of_extra(one)]
    if not needed:
        yield Check("demur", "untested", "runs from source, its versions are not known", "pip install -e .", "packages")
        return
    for one in sorted(needed, key=lambda one: one.name):
        state, found = fits(one)
        fix = "" if state == "ok" else f"pip install '{one.name}{one.specifier}'"
        yield Check(one.name, "bad" if state == "missing" else state, found, fix, "packages")


def _requirements() -> list[Requirement]:
    from packaging.requirements import Requirement

    try:
        return [Requirement(line) for line in metadata.requires("demur") or ()]
    except metadata.PackageNotFoundError:
        return []


def _of_extra(requirement: Requirement, extra: str = "") -> bool:
    """Whether a requirement comes with an extra: with any, or with this one and not without."""
    marker = requirement.marker
    if marker is None:
        return False
    return not marker.evaluate({"extra": ""}) and (not extra or bool(marker.evaluate({"extra": extra})))


def fits(requirement: Requirement) -> tuple[State, str]:
    """Whether a package is there, in a version that a requirement admits; and what is there, in words.

    Versions are compared as such: 3.9 is older than 3.11. Below the range a package is ``bad``, above it ``untested``.
    """
    from packaging.version import InvalidVersion, Version

    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return "missing", "not installed"
    try:
        version = Version(found)
    except InvalidVersion:
        return "untested", f"{found}, which is no version"
    if requirement.specifier.contains(version, prereleases=True):
        return "ok", found
    low = [s for s in requirement.specifier if s.operator in (">=", ">", "~=", "==") and Version(s.version) > version]
    if low:
        return "bad", f"{found}, older than what demur needs ({requirement.specifier})"
    return "untested", f"{found}, which demur was not tested with ({requirement.specifier})"


def _extras() -> Iterator[Check]:
    """Every extra of demur: whole, or the command that brings it."""
    try:
        names = metadata.metadata("demur").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return
    for extra in [name for name in names if name not in ("dev", "test")]:
        parts = [one for one in _requirements() if _of_extra(one, extra)]
        states = {one.name: fits(one) for one in parts}
        why = f" ({BRINGS[extra]})" if extra in BRINGS else ""
        fix = f"pip install 'demur[{extra}]'"
        lacking = [name for name, (state, _) in states.items() if state == "missing"]
        wrong = {name: found for name, (state, found) in states.items() if state in ("bad", "untested")}
        if lacking:
            yield Check(extra, "optional", f"without {', '.join(lacking)}{why}", fix, "extras")
        elif wrong:
            worst: State = "bad" if any(states[name][0] == "bad" for name in wrong) else "untested"
            said = "; ".join(f"{name} {found}" for name, found in wrong.items())
            yield Check(extra, worst, f"{said}{why}", fix, "extras")
        else:
            said = ", ".join(f"{name} {found}" for name, (_, found) in states.items())
            yield Check(extra, "ok", f"{said}{why}", "", "extras")


def _models(everything: bool) -> Iterator[Check]:
    """The shipped models, and those of the hub that are in its cache; all others are optional."""
    for name in BUILT_IN:
        try:
            _ = locate(name, None)
            yield Check(name, "ok", "ready", "", "models")
        except DemurError as error:
            yield Check(name, "missing", error.came, error.then.removeprefix("run: "), "models")
    here = _cached_repos()
    families = [family for family in FAMILIES if not set(family.examples) <= set(BUILT_IN)]
    there = {family.name: [example for example in family.examples if example in here] for family in families}
    for family in families:
        if there[family.name]:
            yield Check(f"{family.name} models", "ok", ", ".join(there[family.name]), "", "models")
        elif everything:
            fix = f"hf download {family.examples[0]}"
            yield Check(f"{family.name} models", "optional", "none in the hub cache", fix, "models")
    others = sum(not found for found in there.values())
    if others and not everything:
        said = f"{others} families have no model here; demur doctor --all names them"
        yield Check("hub models", "optional", said, "demur models", "models")
