"""The study of the organism: every detector, the guard with its thresholds, and recovery inside, from one command.

Splits are by craft: anchors, fit set, calibration set and test set share no craft, and no prompt of an attack is in any
but the test set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from demur.ablation.material import Material, together
from demur.ablation.pictures import draw
from demur.ablation.protocol import Sets
from demur.ablation.recovering import dynamics_report
from demur.ablation.report import check_protocol, fit_report
from demur.ablation.rivals import CANVAS_KEYS, CAUSAL_KEYS
from demur.artefact import write
from demur.organism.attacks import ATTACKS
from demur.organism.measuring.card import MAIN, cached_model
from demur.organism.measuring.cells import Ask, run
from demur.organism.measuring.findings import findings
from demur.organism.measuring.orders import orders_report
from demur.traces import Key
from demur.types import DemurError
from demur.workers import Processes

SUBJECTS: tuple[tuple[str, str], ...] = (("ar", "ar"), ("diffusion", "low-confidence"), ("diffusion", "ar-order"))
"""Model and sampler. The last one is the control: the same weights as the second, another order."""


@dataclass(frozen=True)
class Sizes:
    """How many prompts a set has. ``shapes``: harmless prompts in each attack's shape that join fit and calibration."""

    anchors: int = 104
    fit: int = 416
    calibrate: int = 208
    plain: int = 208
    attacked: int = 104
    controls: int = 104
    shapes: int = 26

    @classmethod
    def of(cls, n: int, paper: bool = False) -> Sizes:
        """All sizes from one; ``paper``: 1,200 to fit on, 200 to calibrate on, 400 a side for anchors (section 5)."""
        if n < 24:
            raise DemurError(f"n {n}", "at least 24 prompts", "the default is 104")
        own = cls(n, 4 * n, max(2 * n, 104), 2 * n, n, n, max(n // 4, 6))
        return cls(400, 1200, 200, own.plain, n, n, 0) if paper else own


def plan(kind: str, sampler: str, sizes: Sizes) -> list[tuple[str, Ask]]:
    """What is generated for one subject: the role of each set, and what is asked."""
    names = [*ATTACKS, "infill"] if kind == "diffusion" else list(ATTACKS)

    def ask(split: str, side: str, n: int, attack: str = "") -> Ask:
        return Ask(kind, sampler, split, side, attack, n)

    found = [
        ("good", ask("anchors", "allowed", sizes.anchors)),
        ("bad", ask("anchors", "forbidden", sizes.anchors)),
        ("fit", ask("guard", "allowed", sizes.fit)),
        ("calibrate", ask("calibration", "allowed", sizes.calibrate)),
        ("plain", ask("test", "allowed", sizes.plain)),
        ("refused", ask("test", "forbidden", sizes.attacked)),
        ("controls/look-alikes", ask("test", "look-alikes", sizes.controls)),
        ("controls/questions", ask("test", "questions", min(64, sizes.controls))),
    ]
    for name in names:
        found.append((f"attacked/{name}", ask("test", "forbidden", sizes.attacked, name)))
        found.append((f"controls/{name}", ask("test", "allowed", sizes.controls, name)))
        if sizes.shapes:
            found.append((f"fit/{name}", ask("guard", "allowed", sizes.shapes, name)))
            found.append((f"calibrate/{name}", ask("calibration", "allowed", sizes.shapes, name)))
    return found


def _work(
    folder: Path, subject: tuple[str, str], role: str, ask: Ask, keys: Sequence[Key]
) -> tuple[tuple[str, str], str, Material]:
    return subject, role, run(cached_model(str(folder / subject[0])), ask, pools=keys).material(role)


def generate_sets(
    folder: Path,
    subjects: Sequence[tuple[str, str]],
    sizes: Sizes,
    workers: int = 2,
    progress: Callable[[int, int], object] = lambda done, of: None,
) -> dict[tuple[str, str], dict[str, Material]]:
    """Every set of every subject, in ``workers`` processes of one thread each; results do not depend on how many."""
    jobs = [
        (subject, role, ask, CAUSAL_KEYS if subject[0] == "ar" else CANVAS_KEYS)
        for subject in subjects
        for role, ask in plan(*subject, sizes)
    ]
    jobs.sort(key=lambda job: -job[2].n * (1 + 3 * (job[0][0] == "diffusion")))
    found: dict[tuple[str, str], dict[str, Material]] = {subject: {} for subject in subjects}
    progress(0, len(jobs))
    with Processes(workers) as submit:
        for done, (subject, role, material) in enumerate(submit([(_work, folder, *job) for job in jobs])):
            found[subject][role] = material
            progress(done + 1, len(jobs))
    return {subject: {role: found[subject][role] for role, _ in plan(*subject, sizes)} for subject in subjects}


def sets_of(subject: tuple[str, str], made: Mapping[str, Material], shapes: bool) -> Sets:
    """The sets of one subject; with ``shapes``, harmless prompts in the attacks' shapes join fit and calibration."""

    def joined(role: str) -> Material:
        parts = [m for name, m in made.items() if name == role or (shapes and name.startswith(f"{role}/"))]
        return together(role, parts)

    return Sets(
        *subject,
        good=made["good"],
        bad=made["bad"],
        fit=joined("fit"),
        calibrate=joined("calibrate"),
        plain=made["plain"],
        attacked={name.split("/")[1]: m for name, m in made.items() if name.startswith("attacked/")},
        controls={name.split("/")[1]: m for name, m in made.items() if name.startswith("controls/")},
        refused=made["refused"],
        causal=subject[0] == "ar",
    )


def study(
    folder: Path,
    *,
    n: int = 104,
    paper: bool = False,
    subjects: Sequence[tuple[str, str]] = SUBJECTS,
    alpha: float = 0.01,
    seeds: Sequence[int] = (0, 1, 2),
    workers: int = 2,
    pictures: Path | None = None,
    progress: Callable[[str, int, int], object] = lambda what, done, of: None,
) -> dict[str, Any]:
    """Everything that ``demur ablate`` reports on the pair in ``folder``, as JSON would hold it.

    ``pictures``: a folder for figures (needs matplotlib). ``paper`` has an alpha of its own, 0.01; raises for another.
    """
    check_protocol(paper, alpha)
    subjects = [s for s in subjects if (folder / s[0] / "config.json").is_file()]
    if not subjects:
        raise DemurError(f"no model in {folder}", "folders ar and diffusion", "run: demur organism train")
    sizes = Sizes.of(n, paper)
    made = generate_sets(folder, subjects, sizes, workers, lambda d, of: progress("generating", d, of))
    report: dict[str, Any] = {"sizes": asdict(sizes), "alpha": alpha, "paper": paper, "subjects": []}
    settings = [("plain", False)] if paper else [("plain", False), ("with shapes", True)]
    for place, subject in enumerate(subjects):
        about: dict[str, Any] = {"model": subject[0], "sampler": subject[1], "fits": []}
        for name, shapes in settings:
            sets = sets_of(subject, made[subject], shapes)
            progress(f"{subject[0]}, {subject[1]}: detectors, fitted on {name} prompts", place, len(subjects))
            about["fits"].append(fit_report(sets, name, seeds=seeds, alpha=alpha, paper=paper))
        about |= dynamics_report(sets)
        if pictures is not None:
            about["figures"] = [path.name for path in draw(sets, pictures)]
        report["subjects"].append(about)
    both = [("diffusion", MAIN["diffusion"]), ("diffusion", "ar-order")]
    paired = all(subject in made for subject in both)
    report["orders"] = orders_report(*(sets_of(subject, made[subject], False) for subject in both)) if paired else []
    return report


def made_of(folder: Path, **asked: object) -> str:
    """Sixteen hex digits of what a report comes from: the pair's files, what was ``asked``, demur's own source and the
    versions of what computes, so that a finished report is taken for another's only if all of it is the same.
    """
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "numpy", "scipy", "scikit-learn")}
    whole = hashlib.sha256(json.dumps([asked, versions], sort_keys=True).encode())
    weights = [path for kind in ("ar", "diffusion") for path in sorted((folder / kind).glob("*"))]
    files = [*weights, *sorted(Path(__file__).parents[2].rglob("*.py"))]
    for path in [path for path in files if path.is_file()]:
        whole.update(f"{path.parent.name}/{path.name}\0".encode())
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------------------------
# Reports that stand there already


def measured(
    folder: Path, place: Path, *, again: bool = False, workers: int = 2, pictures: bool = False, seeds: int = 3,
    progress: Callable[[str, int, int], object] = lambda what, done, of: None, **sizes: Any,
) -> tuple[dict[str, Any], bool]:  # fmt: skip
    """The report on the pair in ``folder``, and whether it was measured now. It stands beside ``place`` as .md and
    .json, figures in it; one that was made of the same is read, unless ``again``. ``sizes``: n, paper, alpha.
    """
    wanted = {**sizes, "seeds": seeds, "pictures": pictures}
    key = made_of(folder, **wanted)
    if not again and (known := finished(place, key)) is not None:
        found, fresh = known, False
    else:
        found = study(
            folder, **sizes, seeds=range(seeds), workers=workers, pictures=place if pictures else None,
            progress=progress,
        )  # fmt: skip
        same = made_of(folder, **wanted) == key  # else weights or code were changed meanwhile
        found, fresh = json.loads(json.dumps(found | ({"made_of": key} if same else {}))), True
    write(place.with_name(f"{place.name}.md"), findings(found))  # first: a pair is finished once its JSON stands
    write(place.with_name(f"{place.name}.json"), json.dumps(found, indent=1) + "\n")
    return found, fresh


def finished(place: Path, key: str) -> dict[str, Any] | None:
    """The report beside ``place``, if it was made of the same and its figures are there; a pair takes half an hour."""
    try:
        found: dict[str, Any] = json.loads(place.with_name(f"{place.name}.json").read_text(encoding="utf-8"))
        figures = [name for about in found["subjects"] for name in about.get("figures", [])]
        return found if found["made_of"] == key and all((place / name).is_file() for name in figures) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
