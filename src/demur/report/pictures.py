"""The paper's figures of a run, as SVG."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from demur import figures
from demur.dynamics import bands, plane
from demur.experiment.record import Record
from demur.report.readings import read_rate
from demur.report.selection import Selection, facts, outcomes, sigmas, subject_name
from demur.report.tables import internal_recovery


def pictures(of: Selection) -> list[tuple[str, str]]:
    """Figures as SVG, without a ground of their own: trajectories and planes of each subject, ROC, IRR."""
    made = []
    found = internal_recovery(of)
    if found:
        made.append(("Figures 5 and 6: internal recovery rate", figures.rates(found, "IRR")))
    curves = {}
    for subject in of.subjects:
        where = {"model": subject[0], "sampler": subject[1], "defense": "none"}
        # Each answer once: a copy among those that an axis is fitted on would be held out in name alone.
        plain = [r for r in facts(of.where(**where, role="plain")) if r.outcome != "refusal"]
        asked = facts(of.where(**where, role="harmful"))
        refused = [r for r in asked if r.attack == "plain" and r.outcome == "refusal"]
        broken = [r for r in asked if r.attack != "plain"]
        broken = [r for r, h in zip(broken, outcomes(broken, "harmful"), strict=True) if h]
        shown = {"harmless": plain, "refused": refused, "jailbroken": broken}
        classes = {name: sigmas(rows) for name, rows in shown.items()}
        classes = {name: sigma for name, sigma in classes.items() if len(sigma)}
        groups = {name: [row.request for row in shown[name] if row.sigma is not None] for name in classes}
        name = subject_name(subject)
        if classes:
            made.append(
                (f"Figure 12: sigma against step, {name}{_of_which(refused)}", figures.trajectories(bands(classes)))
            )
        full = {kind: sigma for kind, sigma in classes.items() if len(set(groups[kind])) >= 10}
        if len(full) > 1:
            seen = plane(full, groups={kind: groups[kind] for kind in full})
            made.append((f"Figure 13: signals on two discriminants, held out, {name}", figures.regions(seen)))
        both = [[r.score for r in side if r.score is not None] for side in (broken, plain)]
        if min(map(len, both)) >= 10:
            curves[name] = tuple(map(np.array, both))
    if curves:
        made.append(("Figure 14: ROC of SRI Guard, successful attacks against plain harmless", figures.roc(curves)))  # type: ignore[arg-type]
    return [(title, _svg(figure)) for title, figure in made]


def _of_which(refused: list[Record]) -> str:
    """How many of the refusals of a figure, which the run's judge or the dictionary took, read as refusals."""
    if not refused:
        return ""
    return f" ({read_rate(refused, 'refuses')} of the refused read as refusals)"


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
