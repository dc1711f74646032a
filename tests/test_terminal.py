"""The terminal view fits any terminal: nothing is cut, no line is wider, every console can print it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.live import Live

from demur.studio.terminal import Pane, curve, panel, side_by_side, story_table
from demur.views.scene import Cell, Frame, Scene


def scene(steps: int, title: str = "one", verdict: str = "", words: int = 40, **more: object) -> Scene:
    """Words that come one by one, sigma that rises; the text refuses from the fourth step on."""
    frames = tuple(
        Frame(
            tuple(Cell(f" word{i}", "kept" if i < k else "committed" if i == k else "open") for i in range(words)),
            k > 2,
        )
        for k in range(steps)
    )
    sigma = tuple(k / max(1, steps - 1) for k in range(steps))
    return Scene(title, "How do I do it?", "m", "s", frames, sigma, verdict=verdict, **more)  # type: ignore[arg-type]


def printed(
    renderable: object, width: int = 80, height: int = 24, encoding: str = "utf-8", terminal: bool = True
) -> str:
    """What a console of this size and encoding gets; a sign that it can not hold is an error."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", newline="\n")
    console = Console(
        file=file, width=width, height=height, force_terminal=terminal, color_system=None, legacy_windows=False
    )
    console.print(renderable)
    file.flush()
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [40, 80, 100, 200])
@pytest.mark.parametrize("steps", [1, 12, 32, 128, 500])
def test_no_line_is_wider_than_the_terminal(width: int, steps: int) -> None:
    for verdict in ("", "It refuses."):
        panes = [panel(scene(steps, name, verdict), steps) for name in ("one", "two")]
        lines = printed(side_by_side(panes), width).splitlines()
        assert max(map(len, lines)) <= width
        assert sum("complying" in line or "sigma" in line for line in lines) >= 1


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (60, 20), (160, 24)])
@pytest.mark.parametrize("count", [1, 2])
def test_what_runs_is_no_higher_than_the_terminal_and_every_panel_is_there(width: int, height: int, count: int) -> None:
    panes = [panel(scene(32, f"title {i}", words=200), 20) for i in range(count)]
    shown = printed(side_by_side(panes), width, height)
    assert len(shown.splitlines()) < height
    for i in range(count):
        assert f"title {i}" in shown
    assert shown.count("step 20 of 32") == count
    assert "word19" in shown, "the end of what is written, where something must be left out"


def test_a_live_view_of_two_cuts_none() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, height=24, force_terminal=True, color_system=None)
    with Live(console=console, auto_refresh=False) as live:
        live.update(side_by_side([panel(scene(32, "first"), 9), panel(scene(32, "second"), 9)]), refresh=True)
        running = file.getvalue()
        live.update(side_by_side([panel(scene(32, "first", "End."), 32), panel(scene(32, "second", "End."), 32)]))
    assert "second" in running
    assert "..." not in running
    assert file.getvalue()[len(running) :].count("End.") >= 2


def test_side_by_side_where_both_curves_have_room() -> None:
    panes = [panel(scene(32, "first", "End."), 32), panel(scene(32, "second", "End."), 32)]
    (line,) = [line for line in printed(side_by_side(panes), 130).splitlines() if "first" in line]
    assert "second" in line
    (line,) = [line for line in printed(side_by_side(panes), 80).splitlines() if "first" in line]
    assert "second" not in line


def test_a_file_gets_everything() -> None:
    shown = printed(side_by_side([panel(scene(32), 20), panel(scene(32), 20)]), terminal=False)
    assert shown.count("1.00") == 2


@pytest.mark.parametrize("encoding", ["cp1252", "gbk", "ascii", "latin-1", "utf-8"])
def test_every_console_can_print_it(encoding: str) -> None:
    hidden = scene(32, verdict="It refuses.", words=3, redacted=True, hint="Redacted.", opening="x")
    cells = (Cell("███ of", "kept"), Cell("\n", "kept"), *[Cell("<|end|>", "kept")] * 5, Cell("", "open"))
    hidden = Scene(**{**vars(hidden), "frames": (*hidden.frames[:-1], Frame(cells, False)), "prompt": "██ a ███"})
    for renderable in (side_by_side([panel(hidden, 32), panel(hidden, 5)]), story_table("t", [hidden], ["harmful"])):
        shown = printed(renderable, encoding=encoding)
        assert shown.isascii() == (encoding != "utf-8")


def test_a_long_curve_is_folded_and_says_so() -> None:
    lines = curve(scene(128), 128, room=60).plain.splitlines()
    assert max(map(len, lines)) <= 60 + 30
    assert "a column is" in lines[-1]
    assert "●" in lines[0]  # the last step is at the top, folded or not
    assert "a column" not in curve(scene(32), 32, room=76).plain
    assert "x: the text refuses" in lines[-1]


def test_bars_have_a_legend() -> None:
    shown = printed(story_table("t", [scene(32)], ["harmful"]))
    assert "refusing" in shown
    assert "complying" in shown
    assert "a bar a step" in shown


def test_a_hidden_scene_says_what_shows_it() -> None:
    shown = printed(Pane(scene(4, verdict="End.", hint="Redacted: --harmless or --show-harmful."), 4))
    assert "--harmless or --show-harmful" in shown
