"""Trajectories, plane, ROC and recovery of one model's sets, as PDF and PNG (needs matplotlib)."""

from __future__ import annotations

from pathlib import Path

from demur import figures
from demur.ablation.protocol import Sets, living
from demur.ablation.recovering import classes_of, recoveries
from demur.ablation.rivals import RIVALS
from demur.dynamics import bands, plane


def draw(sets: Sets, out: Path) -> list[Path]:
    """Writes the figures that have enough signals; their names begin with model and sampler."""
    subject = sets.model, sets.sampler
    groups = {name: m.requests for name, m in classes_of(sets).items()}
    classes = {name: sets.sigma(m) for name, m in classes_of(sets).items()}
    title = f"{subject[0]}, {subject[1]}"
    made = {"trajectories": figures.trajectories(bands(classes), title)}
    full = {name: sigma for name, sigma in classes.items() if len(set(groups[name])) >= 10}
    if len(full) > 1:
        made["plane"] = figures.regions(plane(full, groups={name: groups[name] for name in full}), title)
    score = RIVALS["SRI, last layer"].make(sets.setting)
    against = {name: m.answered for name, m in sets.controls.items() if len(m.answered)}
    curves = {name: (score(m), score(against[name])) for name, m in living(sets).items() if name in against}
    if curves:
        made["roc"] = figures.roc(curves, f"{title}: attacks against the same on allowed requests")
    found = {name: {f"lambda_r {r:g}": rate for r, rate in of.items()} for name, of in recoveries(sets).items()}
    made["irr"] = figures.rates(found, "internal recovery rate", title)
    written = []
    for name, figure in made.items():
        for kind in ("pdf", "png"):
            path = out / f"{'-'.join(subject).replace('/', '-')}-{name}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
            written.append(path)
    return written
