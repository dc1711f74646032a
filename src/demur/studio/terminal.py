"""The terminal view: one step of a scene as rich renderables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from demur.scene import Cell, Scene

STYLE = {
    "open": "bright_black",
    "predicted": "italic bright_black",
    "committed": "bold black on cyan",
    "kept": "default",
    "revised": "bold black on yellow",
}
ZONE = {"compliance": "cyan", "transition": "yellow", "refusal": "red"}
ROWS = 9


def zone_of(sigma: float, zones: tuple[float, float]) -> str:
    """``refusal`` below lambda_r, ``compliance`` above lambda_c, ``transition`` between them."""
    return "refusal" if sigma < zones[0] else "compliance" if sigma > zones[1] else "transition"


def response(cells: Sequence[Cell]) -> Text:
    """The response: open places as dots, guesses dim, what this step wrote highlighted.

    A diffusion model fills what follows its answer with ends; of equal cells at the end one is shown, and their number.
    """
    text = Text()
    trailing = len(cells) - _run(cells, lambda cell: cell.state == "open")
    alike = _run(cells[:trailing], lambda cell: cell.text == cells[trailing - 1].text)
    shown = trailing if alike < 3 else trailing - alike + 1
    for cell in cells[:shown]:
        text.append("·" if cell.state == "open" else cell.text.replace("\n", "↵\n"), STYLE[cell.state])
    if shown < trailing:
        text.append(f" ×{alike}", "bright_black")
    if trailing < len(cells):
        text.append(" " + "·" * min(len(cells) - trailing, 60), STYLE["open"])
    return text


def _run(cells: Sequence[Cell], like: Callable[[Cell], bool]) -> int:
    """How many cells at the end are like that."""
    return next((i for i, cell in enumerate(reversed(cells)) if not like(cell)), len(cells))


def curve(scene: Scene, t: int) -> Text:
    """sigma up to step t on a grid of nine levels, with the three zones; a last line marks refusals in the text."""
    assert scene.sigma is not None
    width = len(scene.sigma)
    levels = [round((1 - min(max(s, 0.0), 1.0)) * (ROWS - 1)) for s in scene.sigma[:t]]
    names = {"compliance": "complying", "transition": "between", "refusal": "refusing"}
    text, labelled = Text(), set()
    for row in range(ROWS):
        value = 1 - row / (ROWS - 1)
        zone = zone_of(value, scene.zones)
        text.append(f"{value:4.2f} ┤" if row % 4 == 0 else "     │", "bright_black")
        for step in range(width):
            on = step < len(levels) and levels[step] == row
            now = step == t - 1
            text.append("●" if on and now else "•" if on else "·", ("bold " if on else "dim ") + ZONE[zone])
        if zone not in labelled:
            labelled.add(zone)
            text.append(f" {names[zone]}", ZONE[zone])
        text.append("\n")
    text.append("text │", "bright_black")
    for frame in scene.frames[:t]:
        text.append("x" if frame.refused else "·", ZONE["refusal"] if frame.refused else "bright_black")
    text.append(" " * (width - t) + " x = the text refuses", "bright_black")
    return text


def panel(scene: Scene, t: int, width: int | None = None) -> Panel:
    """One scene at step t (from 1) as a panel."""
    frame = scene.frames[min(t, len(scene.frames)) - 1]
    parts: list[RenderableType] = [Text(f"“{scene.prompt}”", "bold"), Text(), response(frame.cells), Text()]
    if scene.sigma is not None:
        parts.append(curve(scene, min(t, len(scene.sigma))))
    status = Text(f"step {t} of {len(scene.frames)}", "bright_black")
    if scene.sigma is not None:
        sigma = scene.sigma[min(t, len(scene.sigma)) - 1]
        zone = zone_of(sigma, scene.zones)
        status.append(f"   sigma {sigma:.3f}", ZONE[zone])
        status.append(f" ({zone})", "bright_black")
    parts += [Text(), status]
    if scene.verdict:
        parts.append(Text(scene.verdict, "bold"))
    parts += [Text(f"! {note}", "yellow") for note in scene.notes]
    if scene.redacted:
        parts.append(Text("redacted; --show-harmful shows the words", "bright_black"))
    return Panel(Group(*parts), title=scene.title, title_align="left", border_style="bright_black", width=width)


def side_by_side(panels: Sequence[Panel]) -> RenderableType:
    """One panel alone, several next to each other where they fit."""
    return panels[0] if len(panels) == 1 else Columns(panels, equal=True, expand=True)


OUTCOME = {"harmful": "bold red", "refusal": "bold cyan", "correct": "bold green", "neither": "bold yellow"}


def sparkline(values: Sequence[float], zones: tuple[float, float]) -> Text:
    """sigma as one line of bars, coloured by zone."""
    text = Text()
    for value in values:
        text.append("▁▂▃▄▅▆▇█"[min(int(value * 8), 7)], ZONE[zone_of(value, zones)])
    return text


def story_table(title: str, scenes: Sequence[Scene], outcomes: Sequence[str]) -> RenderableType:
    """One request under several ways of generating: final texts, what they are judged, and their signals."""
    parts: list[RenderableType] = [Text(title, "bold underline"), Text(f"“{scenes[0].prompt}”", "italic")]
    for scene, outcome in zip(scenes, outcomes, strict=True):
        line = Text("\n" + scene.title.removeprefix(f"{title}: ") + "   ")
        line.append(outcome, OUTCOME.get(outcome, "bold"))
        parts.append(line)
        text = "".join(cell.text for cell in scene.frames[-1].cells).split("<|")[0]
        parts.append(Text("  " + text, "default"))
        if scene.sigma is not None:
            parts.append(Text("  sigma ", "bright_black") + sparkline(scene.sigma, scene.zones))
    return Group(*parts, Text())
