"""The report on one model: detectors, guard, dynamics, as JSON would hold it, and as files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from demur.ablation.pictures import draw
from demur.ablation.protocol import Sets, ablate, summarised
from demur.ablation.recovering import dynamics_report, number
from demur.ablation.rivals import available
from demur.ablation.tables import findings
from demur.ablation.thresholds import Flags, blind, flags
from demur.artefact import write
from demur.guards.conformal import Rule
from demur.types import DemurError

PAPER_ALPHA = 0.01


def check_protocol(paper: bool, alpha: float) -> None:
    """Raises for the paper's protocol with another quantile than its 99%."""
    if paper and alpha != PAPER_ALPHA:
        raise DemurError(f"the paper's protocol with alpha {alpha:g}", "its 99% quantile, alpha 0.01", "leave one out")


def fit_report(
    sets: Sets,
    name: str,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    alpha: float = 0.01,
    paper: bool = False,
    detectors: Sequence[str] = (),
) -> dict[str, Any]:
    """Every detector and the guard with its threshold, for one fit set called ``name``. ``detectors``: others to stand
    beside ours.

    The guard is left out, and ``short`` says so, where there are too few calibration answers for ``alpha``.
    """
    threshold: Rule = "quantile" if paper else "conformal"
    rows = ablate(sets, seeds=seeds, detectors=detectors)
    n, needed = len(sets.calibrate.answered), 1 if paper else math.ceil(1 / alpha - 1 - 1e-9)
    enough = n >= needed
    return {
        "fit": name,
        "n_fit": len(sets.fit.answered),
        "n_calibrate": n,
        "short": None if enough else f"{n} calibration answers; alpha {alpha:g} needs {needed}",
        "rows": [asdict(row) for row in rows],
        "summary": [asdict(line) for line in summarised(rows)],
        "without": [name for name in available(sets.good.phi, detectors) if name not in {row.detector for row in rows}],
        "flags": [_flag_row(flag) for flag in flags(sets, alpha=alpha, threshold=threshold)] if enough else [],
        "blind": [asdict(line) for line in blind(sets, alpha=alpha, threshold=threshold)] if enough else [],
    }


def _flag_row(flag: Flags) -> dict[str, Any]:
    row = asdict(flag) | {"offline": flag.offline.row(), "online": flag.online.row()}
    return row | {"step": number(flag.step), "spared": number(flag.spared)}


def answered(sets: Sets) -> dict[str, dict[str, int]]:
    """How many prompts each set asked, and how many of them were answered and refused."""
    every = {"anchors, harmless": sets.good, "anchors, harmful": sets.bad, "fit": sets.fit}
    every |= {"calibrate": sets.calibrate, "plain": sets.plain}
    every |= {} if sets.refused is None else {"plain harmful": sets.refused}
    every |= {f"attacked/{name}": m for name, m in sets.attacked.items()}
    every |= {f"control/{name}": m for name, m in sets.controls.items()}
    return {
        name: {"asked": len(m), "answered": len(m.answered), "refused": len(m.refusing)} for name, m in every.items()
    }


def in_words(counts: Mapping[str, Mapping[str, int]]) -> str:
    """What made the anchors and the guard, in one line."""
    good, bad = counts["anchors, harmless"], counts["anchors, harmful"]
    fit, held = counts["fit"], counts["calibrate"]
    return (
        f"Anchors: {good['answered']} answers to {good['asked']} harmless prompts and {bad['refused']} refusals of "
        f"{bad['asked']} harmful ones. Fitted on {fit['answered']} answers of {fit['asked']}, calibrated on "
        f"{held['answered']} of {held['asked']}."
    )


def model_report(
    sets: Sets,
    *,
    seeds: Sequence[int],
    alpha: float,
    paper: bool,
    split: int | None,
    pictures: Path | None = None,
    detectors: Sequence[str] = (),
) -> dict[str, Any]:
    """Detectors, guard and dynamics of one model on sets of its own.

    ``split`` is the seed that shuffled the prompts; ``pictures`` a folder for figures (needs matplotlib).
    ``detectors``: others to stand beside ours.
    """
    fit = fit_report(sets, "plain", seeds=seeds, alpha=alpha, paper=paper, detectors=detectors)
    judged = all(m.harmful is not None for m in sets.attacked.values())
    about: dict[str, Any] = {"model": sets.model, "sampler": sets.sampler, "judged": judged, "fits": [fit]}
    about |= {"sets": answered(sets), "split": split} | dynamics_report(sets)
    if pictures is not None:
        about["figures"] = [path.name for path in draw(sets, pictures)]
    report = {"alpha": alpha, "paper": paper, "subjects": [about], "orders": []}
    found: dict[str, Any] = json.loads(json.dumps({"rows": fit["rows"], "summary": fit["summary"], **report}))
    return found


def write_report(report: Mapping[str, Any], out: Path) -> tuple[Path, Path]:
    """The report as ``ablation.md`` and ``ablation.json`` in a folder; returns both paths."""
    page, data = out / "ablation.md", out / "ablation.json"
    write(data, json.dumps(report, indent=1) + "\n")
    write(page, findings(report))
    return page, data
