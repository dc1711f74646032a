"""Scenes as one self-contained HTML page: canvas, sigma curve and verdict, played step by step.

The page loads nothing. Its content security policy forbids every request, and every script and style but its
own, which it names by their hashes; scene data travels as JSON and reaches the document as text only. The
same scenes give the same bytes.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, get_args

from demur.types import DemurError
from demur.views.scene import CellState, Frame, Scene

STATES: tuple[CellState, ...] = get_args(CellState)
"""The cell states in the order in which the page's integers count them."""

FRAGMENT_HEIGHT = 640
"""The height of a fragment in CSS pixels until its own script has measured it."""


def page(scenes: Sequence[Scene], title: str = "demur", about: Sequence[str] = ()) -> str:
    """One complete HTML document that plays the scenes side by side; write it to a file as UTF-8.

    Neighbours of one ``request`` stand under one heading. All scenes share one step, from 1 to the number of frames of
    the longest; a shorter scene holds its last frame. The page opens at the last step. ``about`` are paragraphs that
    stand once, on top; so does a note that every scene has. The size is four to six bytes per cell and frame, the texts
    once, and 40 kB for the page itself.

    Raises ``DemurError`` where there is no scene, a scene has no frame, sigma or a reference is not one value
    per frame or leaves [0, 1], or zones are not 0 <= lambda_r <= lambda_c <= 1.
    """
    return _document(scenes, title, embedded=False, about=about)


def fragment(scenes: Sequence[Scene]) -> str:
    """The same for a notebook's ``_repr_html_``: one ``<div>`` that may stand many times in a page.

    The page sits in a frame of its own, so that its styles, names and keys never meet the notebook's. The
    frame takes the height of its content; without scripts it shows the final texts. Raises as ``page`` does.
    """
    document = _document(scenes, "demur", embedded=True)
    label = escape(_plain("demur: " + ", ".join(scene.title for scene in scenes)))
    # No sandbox: the script reaches the frame to set its height, and the policy inside admits no other.
    return (
        f'<div class="demur"><iframe title="{label}" width="100%" height="{FRAGMENT_HEIGHT}" style="border:0"'
        f' srcdoc="{escape(document)}"></iframe></div>'
    )


def data(scenes: Sequence[Scene], about: Sequence[str] = ()) -> str:
    """What the page's script reads, as JSON that may stand in HTML: for documents that hold many groups of scenes.

    Raises as ``page`` does.
    """
    if not scenes:
        raise DemurError("no scenes", "at least one", "pass the scenes as a list: page([scene])")
    for scene in scenes:
        _check(scene)
    return _json(_data(scenes, about))


def shell(title: str = "demur") -> tuple[str, str]:
    """A page without scenes, in two parts: with some scenes' ``data`` between them it is complete."""
    before, after = _filled(title, "alone", "\0", "").split("\0")
    return before, after


def _document(scenes: Sequence[Scene], title: str, embedded: bool, about: Sequence[str] = ()) -> str:
    """The template with styles, script, the policy that names them, the data and the static texts."""
    told = data(scenes, about)
    said = [f"<p>{escape(_plain(text))}</p>" for text in about]
    still = "\n".join((*said, *(_still(scene) for scene in scenes)))
    return _filled(title, "embedded" if embedded else "alone", told, still)


def _filled(title: str, place: str, told: str, still: str) -> str:
    style, dark, script = (asset(name) for name in ("page.css", "dark.css", "page.js"))
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {source(script)}",
            f"style-src {source(style)} {source(dark)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return Template(asset("page.html")).substitute(
        policy=policy,
        title=escape(_plain(title)),
        place=place,
        style=style,
        dark=dark,
        script=script,
        data=told,
        still=still,
    )


def _check(scene: Scene) -> None:
    """Raises ``DemurError`` where the parts of a scene do not fit together."""
    name, steps = f"scene {scene.title!r}", len(scene.frames)
    if not steps:
        raise DemurError(f"{name} has no frames", "one per step", "record at least one step")
    low, high = scene.zones
    if not 0 <= low <= high <= 1:
        raise DemurError(
            f"{name} has zones {low} and {high}",
            "0 <= lambda_r <= lambda_c <= 1",
            "give them as (lambda_r, lambda_c)",
        )
    curves = [] if scene.sigma is None else [("sigma", scene.sigma)]
    curves += [(f"reference {label!r}", values) for label, values in scene.references]
    for label, lower, upper in scene.bands:
        curves += [(f"lower edge of band {label!r}", lower), (f"upper edge of band {label!r}", upper)]
        if any(a > b for a, b in zip(lower, upper, strict=False)):
            raise DemurError(f"band {label!r} of {name} has its edges crossed", "lower <= upper", "swap them")
    for label, values in curves:
        if len(values) != steps:
            raise DemurError(
                f"{label} of {name} has {len(values)} values",
                f"{steps}, one per frame",
                "make the frames and the curve from the same trace",
            )
        wrong = [k for k, value in enumerate(values) if not (math.isfinite(value) and 0 <= value <= 1)]
        if wrong:
            raise DemurError(
                f"{label} of {name} is {values[wrong[0]]} at step {wrong[0] + 1}",
                "a number from 0 to 1",
                "fit the anchors again: demur anchors fit",
            )


def _data(scenes: Sequence[Scene], about: Sequence[str]) -> dict[str, Any]:
    """What the script reads. A cell is one integer: its text's place in ``pieces`` times 5, plus state."""
    pieces: dict[str, int] = {"": 0}
    states = {state: number for number, state in enumerate(STATES)}

    def row(frame: Frame) -> list[int]:
        return [
            pieces.setdefault("" if cell.state == "open" else _plain(cell.text), len(pieces)) * len(STATES)
            + states[cell.state]
            for cell in frame.cells
        ]

    told = [
        {
            "title": _plain(scene.title),
            "prompt": _plain(scene.prompt),
            "model": _plain(scene.model),
            "sampler": _plain(scene.sampler),
            "verdict": _plain(scene.verdict),
            "notes": [_plain(note) for note in scene.notes],
            "redacted": bool(scene.redacted),
            "request": _plain(scene.request),
            "way": _plain(scene.way),
            "opening": _plain(scene.opening),
            "hint": _plain(scene.hint),
            "zones": [float(value) for value in scene.zones],
            "sigma": None if scene.sigma is None else [float(value) for value in scene.sigma],
            "references": [[_plain(label), [float(value) for value in values]] for label, values in scene.references],
            "bands": [[_plain(label), *([float(v) for v in edge] for edge in edges)] for label, *edges in scene.bands],
            "refused": [int(frame.refused) for frame in scene.frames],
            "frames": [row(frame) for frame in scene.frames],
        }
        for scene in scenes
    ]
    said = [_plain(text) for text in about]
    return {"states": list(STATES), "pieces": list(pieces), "about": said, "scenes": told}


def _still(scene: Scene) -> str:
    """One scene without scripts: its last frame as text, and what was said of it."""
    text = "".join("▯" if cell.state == "open" else cell.text for cell in scene.frames[-1].cells)
    rows = [
        ("Model", scene.model),
        ("Sampler", scene.sampler),
        ("Prompt", scene.prompt),
        ("The answer was begun with", scene.opening),
        *(("Note", note) for note in (*scene.notes, scene.hint)),
        ("Final text, redacted" if scene.redacted else "Final text", text),
        ("Sigma", "no anchors" if scene.sigma is None else f"{scene.sigma[-1]:.2f} at the last step"),
        ("Verdict", scene.verdict),
    ]
    listed = "".join(f"<dt>{name}</dt><dd>{escape(_plain(value))}</dd>" for name, value in rows if value)
    return f'<section class="scene"><h2>{escape(_plain(scene.title))}</h2><dl>{listed}</dl></section>'


def _json(data: object) -> str:
    """JSON that no HTML parser can end early and no JavaScript parser can misread."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _plain(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot hold, as U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def asset(name: str) -> str:
    """One of the files that this page, and a report, are made of."""
    return (files("demur.views") / "files" / name).read_text("utf-8")


def source(text: str) -> str:
    """The source expression by which a content security policy admits exactly this text."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
