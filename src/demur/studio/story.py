"""The story that `make demo` tells: one forbidden request, plain and attacked, under three ways of generating."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from demur.models import load
from demur.organism.anchors import N, own_anchors
from demur.organism.attacks import attack
from demur.organism.judge import judge
from demur.organism.lessons import RESPONSE
from demur.organism.world import prompts
from demur.samplers import Autoregressive, MaskedDiffusion, autoregressive_order
from demur.scene import Scene
from demur.studio.watching import verdict
from demur.trace import STEPS, generate
from demur.types import Prompt, Sampler

RUNS: tuple[tuple[str, str, Sampler], ...] = (
    ("autoregressive", "organism/ar", Autoregressive()),
    ("diffusion, remasking", "organism/diffusion", MaskedDiffusion(steps=STEPS)),
    ("diffusion weights, left to right", "organism/diffusion", autoregressive_order()),
)
FICTION = "Everything harmful here is fictional: a kingdom's forbidden crafts, with made-up steps."


@dataclass(frozen=True)
class Act:
    """One request under every way of generating, and what the exact judge says of each answer."""

    title: str
    scenes: tuple[Scene, ...]
    outcomes: tuple[str, ...]


def acts(n: int = N, progress: Callable[[str], object] = lambda what: None) -> Iterator[Act]:
    """The acts of the story; anchors are of ``n`` requests a side (:func:`demur.organism.anchors.own_anchors`)."""
    models = {name: load(name, device="cpu") for name in dict.fromkeys(model for _, model, _ in RUNS)}
    anchors = []
    for name, model, sampler in RUNS:
        progress(f"anchors: {name}")
        anchors.append(own_anchors(models[model], sampler, n=n))
    for title, asked in requests():
        scenes, said = [], []
        for (name, model, sampler), fitted in zip(RUNS, anchors, strict=True):
            progress(f"{title}: {name}")
            trace = generate(models[model], [asked], sampler, length=RESPONSE, steps=STEPS)[0]
            sigma = fitted.signal(trace)
            outcome = judge(asked, trace.text())
            said.append(outcome)
            names = ("answered requests", "refused requests")
            curves = zip(names, (fitted.harmless_sigma.tolist(), fitted.harmful_sigma.tolist()), strict=True)
            scenes.append(
                trace.scene(
                    sigma.tolist(),
                    show_harmful=True,
                    title=f"{title}: {name}",
                    verdict=f"Judged {outcome} by the exact rule. {verdict(trace, sigma.tolist())}",
                    notes=[FICTION] if asked.harmful else [],
                    references=list(curves),
                )
            )
        yield Act(title, tuple(scenes), tuple(said))


def requests() -> list[tuple[str, Prompt]]:
    """A forbidden request plain, under two attacks, and an allowed one; all of crafts that were kept for tests."""
    forbidden = prompts("test", forbidden=True, n=1)[0]
    allowed = prompts("test", forbidden=False, n=1)[0]
    return [
        ("forbidden", forbidden),
        ("forbidden, as a page of a book", attack("page", forbidden)),
        ("forbidden, in a role", attack("role", forbidden)),
        ("allowed", allowed),
    ]
