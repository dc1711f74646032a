"""Pictures for papers, with matplotlib (``pip install demur[plots]``). Every function gives a Figure, which a notebook
shows where it is a cell's last line.

``figure.savefig("name.pdf")`` keeps text as text. Colours are those of the HTML page and can be told apart without
seeing red or green.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.dynamics import LAMBDA_C, Bands, Plane, Rate
from demur.extras import need
from demur.types import DemurError
from demur.views.scene import ZONES

if TYPE_CHECKING:  # and no more: whoever draws rates waits for no torch
    from matplotlib.figure import Figure

    from demur.signals import Anchors
    from demur.traces import Trace

COLOURS = ("#0b7a75", "#b3401f", "#7a5ea8", "#8a6d00", "#2f5d9f", "#555555")
"""Harmless, refused, jailbroken, and then others."""
_OWN = {"harmless": 0, "refused": 1, "jailbroken": 2}
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "legend.frameon": False,
}


def signals(traces: Trace | Sequence[Trace], anchors: Anchors, title: str = "", *, names: Sequence[str] = ()) -> Figure:
    """sigma against step: a line for each trace over the zones, and the anchors' own curves, dashed.

    ``names`` are the lines' names (default: the prompts' ids, as :attr:`demur.Prompt.label` may say them); above eight
    lines, they go without. Raises for no trace, and for one that was not made under the anchors' spec.
    """
    shown = list(traces) if isinstance(traces, Sequence) else [traces]
    if not shown:
        raise DemurError("no traces", "at least one", "generate some first: demur.generate(model, prompts)")
    if names and len(names) != len(shown):
        raise DemurError(f"{len(names)} names for {len(shown)} traces", "one each", "leave names out")
    labels = list(names) or [trace.prompt.label for trace in shown]
    values = anchors.signals(shown)
    figure, axes = _axes(5.2, 3.0)
    low, high = ZONES
    for begin, end, colour in ((0.0, low, COLOURS[1]), (low, high, COLOURS[5]), (high, 1.0, COLOURS[0])):
        axes.axhspan(begin, end, color=colour, alpha=0.07, linewidth=0)
    steps = np.arange(1, anchors.spec.steps + 1)
    for (name, curve), colour in zip(anchors.references, (COLOURS[0], COLOURS[1]), strict=True):
        axes.plot(steps[: len(curve)], curve, color=colour, linewidth=1.1, linestyle="--", label=name)
    few = len(shown) <= MANY
    for i, (trace, label) in enumerate(zip(shown, labels, strict=True)):
        t = min(trace.steps, anchors.spec.steps)
        # Where few lines stand, each has a colour of its own; the zones keep theirs.
        colour = (*COLOURS[2:5], "#1b2126")[i % 4] if few else "#1b2126"
        look = "-" if i % 8 < 4 else "-."
        axes.plot(
            steps[:t], values[i, :t], color=colour, linewidth=2.0 if few else 0.9, alpha=1.0 if few else 0.35,
            linestyle=look, marker="o" if t == 1 else None, label=label if few else "_",
        )  # fmt: skip
    axes.set(xlabel="step", ylabel="sigma (1 complies, 0 refuses)", xlim=(0.5, len(steps) + 0.5), ylim=(-0.02, 1.02))
    axes.set_title(title)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, title="" if few else f"{len(shown)} traces")
    return figure


MANY = 8
"""So many lines can be told apart by colour and dashes."""


def trajectories(classes: Sequence[Bands], title: str = "") -> Figure:
    """sigma against step: each class's median, and a band that holds most of it (arXiv:2602.02600, figure 12)."""
    figure, axes = _axes(4.6, 2.9)
    for colour, band in zip(_colours([c.name for c in classes]), classes, strict=True):
        steps = np.arange(1, len(band.median) + 1)
        axes.fill_between(steps, band.low, band.high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(steps, band.median, color=colour, linewidth=1.8, label=f"{band.name} (n {band.n})")
    axes.axhline(LAMBDA_C, color="#999999", linewidth=0.8, linestyle=":")
    axes.set(xlabel="step", ylabel="sigma", ylim=(-0.02, 1.02), title=title)
    axes.legend(loc="best", fontsize=8)
    return figure


def regions(plane: Plane, title: str = "") -> Figure:
    """Signals on two axes, over the regions of a linear classifier (figure 13); held-out coordinates for LDA."""
    figure, axes = _axes(3.9, 3.4)
    colours = _colours(plane.names)
    levels = np.arange(len(plane.names) + 1) - 0.5
    axes.contourf(plane.x, plane.y, plane.regions, levels=levels, colors=colours, alpha=0.13)
    for k, name in enumerate(plane.names):
        mine = plane.points[plane.labels == k]
        axes.scatter(*mine.T, s=9, color=colours[k], linewidths=0, alpha=0.75, label=f"{name} (n {len(mine)})")
    kind = "LDA, held out" if plane.kind == "lda" else "PCA"
    axes.set(xlabel=f"{kind}, axis 1", ylabel="axis 2", title=title, xticks=[], yticks=[])
    axes.legend(loc="best", fontsize=8)
    return figure


def roc(
    curves: Mapping[str, tuple[Float[NDArray[np.float64], "p"], Float[NDArray[np.float64], "q"]]], title: str = ""
) -> Figure:
    """ROC curves of scores, by name: (positives, negatives), higher = more anomalous (figure 14)."""
    from sklearn.metrics import roc_auc_score, roc_curve

    figure, axes = _axes(3.4, 3.2)
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8, linestyle=":")
    for colour, (name, (positive, negative)) in zip(_colours(list(curves)), curves.items(), strict=True):
        marks = np.repeat([1, 0], [len(positive), len(negative)])
        scores = np.concatenate([positive, negative])
        false, true, _ = roc_curve(marks, scores)
        label = f"{name} ({roc_auc_score(marks, scores):.2f})"
        axes.plot(false, true, color=colour, linewidth=1.5, label=label)
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate", title=title, aspect="equal")
    axes.legend(loc="lower right", fontsize=7.5)
    return figure


def rates(groups: Mapping[str, Mapping[str, Rate]], label: str, title: str = "") -> Figure:
    """Bars with 95% intervals: group -> bar -> rate, as the IRR of models at three thresholds (figures 5 and 6)."""
    if not groups:
        raise DemurError("no rates", "at least one group", "measure some first")
    bars = list(dict.fromkeys(name for of in groups.values() for name in of))
    names = [name.replace(", ", ",\n") for name in groups]
    longest = max(len(line) for name in names for line in name.split("\n"))
    figure, axes = _axes(max(3.2, 0.9 + max(0.35 * len(bars), 0.085 * longest) * len(groups)), 2.8)
    width = 0.8 / len(bars)
    for k, (colour, bar) in enumerate(zip(_colours(bars), bars, strict=True)):
        for place, of in enumerate(groups.values()):
            if bar not in of or not of[bar].n:
                continue
            value, (low, high) = of[bar].value, of[bar].interval
            x = place + (k - (len(bars) - 1) / 2) * width
            axes.bar(x, value, width * 0.92, color=colour, label=bar if place == 0 else None)
            axes.errorbar(x, value, [[value - low], [high - value]], color="#222222", linewidth=0.9, capsize=2)
    axes.set(ylabel=label, ylim=(0, 1), title=title)
    axes.set_xticks(range(len(groups)), names, fontsize=8)
    axes.legend(fontsize=8)
    return figure


def depths(
    curves: Mapping[str, Sequence[tuple[float, float, float]]], layers: Sequence[str], label: str, title: str = ""
) -> Figure:
    """Lines over the layers of a model, with their 95% intervals: curve -> a value with its ends at each layer, nan
    where there is none.
    """
    if not curves:
        raise DemurError("no curves", "at least one", "measure some first")
    figure, axes = _axes(max(5.2, 1.6 + 0.16 * len(layers)), 3.0)
    places = range(len(layers))
    for colour, (name, points) in zip(_colours(list(curves)), curves.items(), strict=True):
        value, low, high = np.array(points).T
        axes.fill_between(places, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.plot(places, value, color=colour, linewidth=1.6, marker="o", markersize=2.5, label=name)
    every = max(1, len(layers) // 12)
    shown = [place for place in places if place % every == 0 or place == len(layers) - 1]
    axes.set_xticks(shown, [layers[place] for place in shown], fontsize=8)
    axes.set(xlabel="layer", ylabel=label, ylim=(-0.02, 1.02), title=title)
    axes.legend(loc="best", fontsize=7.5)
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    matplotlib = need("matplotlib", "plots")
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained", dpi=160)
        figure._repr_png_ = partial(_png, figure)  # type: ignore[attr-defined]
        return figure, figure.subplots()


def _png(figure: Figure) -> bytes:
    """The picture that a notebook shows of a figure in a cell's last line; without pyplot nobody else draws it."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()


def _colours(names: Sequence[str]) -> list[str]:
    """The three classes keep their colours, whichever of them are there; others get the rest in turn."""
    free = [c for i, c in enumerate(COLOURS) if i not in {_OWN[name] for name in names if name in _OWN}]
    others = [name for name in names if name not in _OWN]
    return [COLOURS[_OWN[n]] if n in _OWN else free[others.index(n) % len(free)] for n in names]
