"""Signals as a person sees them: pages of scenes, and what a signal says in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demur import artefact
from demur.traces import Trace
from demur.views.page import fragment, page
from demur.views.scene import ZONES, Scene


@dataclass(frozen=True, repr=False)
class Shown:
    """Scenes that a notebook draws as the page; :meth:`save` writes it as a file."""

    scenes: tuple[Scene, ...]

    def _repr_html_(self) -> str:
        return fragment(self.scenes)

    def __repr__(self) -> str:
        """In short, without a word of prompt or answer."""
        ends = ", ".join(f"{s.sigma[0]:.2f} to {s.sigma[-1]:.2f}" for s in self.scenes[:4] if s.sigma)
        more = ", ..." if len(self.scenes) > 4 else ""
        redacted = sum(scene.redacted for scene in self.scenes)
        return (
            f"Shown({len(self.scenes)} generations, {redacted} redacted; sigma from first to last step: {ends}{more})"
        )

    def save(self, path: str | Path) -> Path:
        """Writes one self-contained HTML page."""
        return artefact.write(Path(path), page(self.scenes))


def reading(trace: Trace, sigma: Sequence[float] | None) -> str:
    """What text and hidden states say of a whole generation, in plain words."""
    said = "The text reads as a refusal" if trace.refused() else "The text does not read as a refusal"
    if sigma is None or not len(sigma):
        return f"{said}."
    low, high = ZONES
    last = sigma[-1]
    zone = "in the zone of refusal" if last < low else "in the zone of compliance" if last > high else "in between"
    inside = f"The hidden state ends {zone} (sigma {last:.2f})"
    below = [t for t, value in enumerate(sigma, 1) if value <= high]
    above = [t for t, value in enumerate(sigma, 1) if value > high]
    if last > high and below:
        inside += f", after {len(below)} of {len(sigma)} steps at or below {high:g}; the first was step {below[0]}"
    elif last < low and above:
        inside += f", after {len(above)} of {len(sigma)} steps above {high:g}; the first was step {above[0]}"
    elif max(sigma) - min(sigma) < 0.05:
        inside += " and stays there from the first step on"
    return f"{said}. {inside}."
