"""The terminal view: one step of a scene as rich renderables.

They fit the terminal that they are printed to: scenes stand side by side where both have room, else below each other;
what is too high for a running view is shown in short; on a console without UTF-8 every sign of ours is ASCII.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demur.views.scene import Cell, Scene

STYLE = {
    "open": "bright_black",
    "predicted": "italic bright_black",
    "committed": "bold black on cyan",
    "kept": "default",
    "revised": "bold black on yellow",
}
ZONE = {"compliance": "cyan", "transition": "yellow", "refusal": "red"}
NAMES = {"compliance": "complying", "transition": "between", "refusal": "refusing"}
BARS = "▁▂▃▄▅▆▇█"
ROWS = 9
AXIS = 6  # the columns of the curve's scale
NAMED = 1 + max(map(len, NAMES.values()))
_ASCII = str.maketrans(dict(zip("·•●┤│×↵“”█▁▂▃▄▅▆▇…", '.oO||x~""#_.,:-=+.', strict=True)))
"""For consoles that hold no more: each sign of ours, and the block of redaction, as one of ASCII."""


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


def curve(scene: Scene, t: int, room: int = 200) -> Text:
    """sigma up to step t on a grid of nine levels, with the three zones; a last line marks refusals in the text.

    A column is a step; where ``room`` columns do not hold all, a column is several, and shows the last of them.
    """
    assert scene.sigma is not None
    steps = len(scene.sigma)
    width = max(1, min(steps, room - AXIS - NAMED))
    columns = [range(c * steps // width, (c + 1) * steps // width) for c in range(width)]
    past = [column for column in ([k for k in steps_of if k < t] for steps_of in columns) if column]
    levels = [round((1 - min(max(scene.sigma[column[-1]], 0.0), 1.0)) * (ROWS - 1)) for column in past]
    text, labelled = Text(), set()
    for row in range(ROWS):
        value = 1 - row / (ROWS - 1)
        zone = zone_of(value, scene.zones)
        text.append(f"{value:4.2f} ┤" if row % 4 == 0 else "     │", "bright_black")
        for place in range(width):
            on = place < len(levels) and levels[place] == row
            now = place == len(levels) - 1
            text.append("●" if on and now else "•" if on else "·", ("bold " if on else "dim ") + ZONE[zone])
        if zone not in labelled:
            labelled.add(zone)
            text.append(f" {NAMES[zone]}", ZONE[zone])
        text.append("\n")
    text.append("text │", "bright_black")
    for column in past:
        refuses = any(scene.frames[k].refused for k in column)
        text.append("x" if refuses else "·", ZONE["refusal"] if refuses else "bright_black")
    text.append(" " * (width - len(past)), "bright_black")
    several = "" if width == steps else f"a column is {steps / width:.1f} steps; "
    text.append(f"\n      {several}x: the text refuses, predicted words read too", "bright_black")
    return text


@dataclass(frozen=True)
class Pane:
    """One scene at step t (from 1). ``lines``: so many at most (None: as it comes)."""

    scene: Scene
    t: int
    width: int | None = None
    lines: int | None = None

    @property
    def room(self) -> int:
        """The columns that it needs to show its curve whole."""
        return max(46, len(self.scene.sigma or ()) + AXIS + NAMED + 4)

    @property
    def ended(self) -> bool:
        """Whether nothing comes after it."""
        return bool(self.scene.verdict)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(self.width or options.max_width, options.max_width)
        whole = _boxed(self.scene.title, self._whole(width - 4), width, options)
        if self.lines is not None and len(console.render_lines(whole, options.update(width=width))) > self.lines:
            yield _boxed(self.scene.title, self._short(console, width - 4, self.lines - 2), width, options)
        else:
            yield whole

    def _whole(self, room: int) -> list[Text]:
        scene = self.scene
        parts = [Text(f"“{scene.prompt}”", "bold"), Text()]
        if scene.opening:
            parts += [Text(f"the answer was begun with “{scene.opening}”", "bright_black"), Text()]
        parts += [response(self._cells()), Text()]
        if scene.sigma is not None:
            parts.append(curve(scene, min(self.t, len(scene.sigma)), room))
        parts += [Text(), self._status()]
        if scene.verdict:
            parts.append(Text(scene.verdict, "bold"))
        parts += [Text(f"! {note}", "yellow") for note in scene.notes]
        if scene.hint:
            parts.append(Text(scene.hint, "bright_black"))
        return parts

    def _short(self, console: Console, room: int, lines: int) -> list[Text]:
        """Prompt, the end of the answer, and one line of bars, each cut to its lines."""
        scene = self.scene
        parts = [_cut(Text(f"“{scene.prompt}”", "bold"), room)]
        if scene.sigma is not None:
            most = max(1, min(len(scene.sigma), room - 6))
            bars = Text("sigma ", "bright_black") + sparkline(scene.sigma[: self.t][-most:], scene.zones)
        else:
            bars = Text()
        ends = [bars, self._status()]
        said = response(self._cells()).wrap(console, room)[-max(1, lines - len(ends) - 1) :]
        return [*parts, *said, *ends]

    def _cells(self) -> Sequence[Cell]:
        return self.scene.frames[min(self.t, len(self.scene.frames)) - 1].cells

    def _status(self) -> Text:
        scene = self.scene
        status = Text(f"step {self.t} of {len(scene.frames)}", "bright_black")
        if scene.sigma is not None:
            sigma = scene.sigma[min(self.t, len(scene.sigma)) - 1]
            zone = zone_of(sigma, scene.zones)
            status.append(f"   sigma {sigma:.3f}", ZONE[zone])
            status.append(f" ({zone})", "bright_black")
        return status


def panel(scene: Scene, t: int, width: int | None = None) -> Pane:
    """One scene at step t (from 1) as a panel."""
    return Pane(scene, t, width)


@dataclass(frozen=True)
class Panes:
    """Several panels: next to each other where all have room for their curves, else below each other. While one is
    still going, they are no higher than the terminal, so that none is cut off.
    """

    panes: tuple[Pane, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        beside = sum(pane.room + 1 for pane in self.panes) <= options.max_width
        running = console.is_terminal and not all(pane.ended for pane in self.panes)
        high = max(6, (console.height - 1) // (1 if beside else len(self.panes))) if running else None
        if not beside:
            for pane in self.panes:
                yield Pane(pane.scene, pane.t, pane.width, high)
            return
        grid = Table.grid(expand=True, padding=(0, 1, 0, 0))
        for _ in self.panes:
            grid.add_column(ratio=1)
        grid.add_row(*(Pane(pane.scene, pane.t, pane.width, high) for pane in self.panes))
        yield grid


def side_by_side(panels: Sequence[Pane]) -> RenderableType:
    """One panel alone, several next to each other where they fit."""
    return Panes(tuple(panels))


def _boxed(title: str, parts: Iterable[Text], width: int, options: ConsoleOptions) -> Panel:
    shown = Group(*(_fitting(part, options) for part in parts))
    return Panel(
        shown, title=_fitting(Text(title), options), title_align="left", border_style="bright_black", width=width
    )


def _fitting(text: Text, options: ConsoleOptions) -> Text:
    """The text in signs that the console can print; as long as before, so that styles stay where they are."""
    if not options.ascii_only:
        return text
    copied = text.copy()
    copied.plain = text.plain.translate(_ASCII)
    return copied


def _cut(text: Text, room: int) -> Text:
    copied = text.copy()
    copied.truncate(room, overflow="ellipsis")
    return copied


OUTCOME = {"harmful": "bold red", "refusal": "bold cyan", "correct": "bold green", "neither": "bold yellow"}


def sparkline(values: Sequence[float], zones: tuple[float, float]) -> Text:
    """sigma as one line of bars, coloured by zone."""
    text = Text()
    for value in values:
        text.append(BARS[min(max(int(value * 8), 0), 7)], ZONE[zone_of(value, zones)])
    return text


def legend() -> Text:
    """What the bars of :func:`sparkline` say."""
    text = Text("sigma, a bar a step: ", "bright_black")
    for zone, bar in (("refusal", BARS[0]), ("transition", BARS[3]), ("compliance", BARS[-1])):
        text.append(f"{bar} {NAMES[zone]}  ", ZONE[zone])
    return text


@dataclass(frozen=True)
class Told:
    """One request under several ways of generating."""

    title: str
    scenes: tuple[Scene, ...]
    outcomes: tuple[str, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in self._parts():
            yield _fitting(part, options)

    def _parts(self) -> Iterable[Text]:
        yield Text(self.title, "bold underline")
        yield Text(f"“{self.scenes[0].prompt}”", "italic")
        for scene, outcome in zip(self.scenes, self.outcomes, strict=True):
            line = Text("\n" + (scene.way or scene.title.removeprefix(f"{self.title}: ")) + "   ")
            line.append(outcome, OUTCOME.get(outcome, "bold"))
            yield line
            text = "".join(cell.text for cell in scene.frames[-1].cells).split("<|")[0]
            yield Text("  " + text, "default")
            if scene.sigma is not None:
                yield Text("  sigma ", "bright_black") + sparkline(scene.sigma, scene.zones)
        if any(scene.sigma is not None for scene in self.scenes):
            yield Text("\n  ") + legend()
        yield Text()


def story_table(title: str, scenes: Sequence[Scene], outcomes: Sequence[str]) -> RenderableType:
    """One request under several ways of generating: final texts, what they are judged, and their signals."""
    return Told(title, tuple(scenes), tuple(outcomes))
