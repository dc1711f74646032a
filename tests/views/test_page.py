"""Laws of the HTML page, the browser's part of them in a real Chromium."""

import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from demur.types import DemurError
from demur.views.page import FRAGMENT_HEIGHT, STATES, fragment, page
from demur.views.scene import Cell, Frame, Scene

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = "</script></noscript><!--<script><img src=x onerror=alert(1)>\"'&amp;\u2028\x00\ud800"


def written(steps: int, title: str = "left to right") -> Scene:
    """One cell more at each step, sigma falling from compliance to refusal; the text refuses from step 3."""
    cells = [f" w{i}" for i in range(steps)]
    return Scene(
        title=title,
        prompt="a request",
        model="a model",
        sampler="a sampler",
        frames=tuple(
            Frame(
                tuple(
                    Cell(text, "kept" if i < k else "committed") if i <= k else Cell("", "open")
                    for i, text in enumerate(cells)
                ),
                refused=k >= 2,
            )
            for k in range(steps)
        ),
        sigma=tuple(0.9 - 0.8 * k / max(1, steps - 1) for k in range(steps)),
        references=(("refused anchors", (0.1,) * steps), ("complied anchors", (0.8,) * steps)),
        zones=(0.3, 0.5),
        verdict=f"verdict of {title}",
    )


def denoised(steps: int, width: int, words: int = 5000) -> Scene:
    """Every cell in any state at any step."""
    draw = random.Random(0)
    states = [*STATES]
    return replace(
        written(steps, "denoised"),
        frames=tuple(
            Frame(
                tuple(Cell(f" piece{draw.randrange(words)}", draw.choice(states)) for _ in range(width)),
                False,
            )
            for _ in range(steps)
        ),
        sigma=tuple(draw.random() for _ in range(steps)),
        references=(),
    )


def hostile() -> Scene:
    """Markup wherever a scene has text."""
    cells = (Cell(HOSTILE, "kept"), Cell(HOSTILE, "predicted"), Cell(HOSTILE, "open"))
    return Scene(
        *(HOSTILE,) * 4,
        frames=(Frame(cells, False), Frame(cells, True)),
        sigma=(0.2, 0.6),
        references=((HOSTILE, (0.1, 0.1)),),
        bands=((HOSTILE, (0.1, 0.1), (0.3, 0.2)),),
        verdict=HOSTILE,
        notes=(HOSTILE, HOSTILE),
        redacted=True,
    )


def embedded(html: str) -> dict[str, object]:
    """The JSON block of a page."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])


class Elements(HTMLParser):
    """Collects the tags and attributes that a parser without scripts sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


# ---- What Python can tell


def test_same_scenes_same_bytes_in_every_process():
    code = (
        "import hashlib, sys\n"
        "from demur.views.page import page\n"
        "from demur.views.scene import Cell, Frame, Scene\n"
        "cells = tuple(Cell(t, 'kept') for t in 'a b c d'.split())\n"
        "scene = Scene('t', 'p', 'm', 's', (Frame(cells, True),), (0.4,))\n"
        "assert page([scene]) == page([scene])\n"
        "assert not {'torch', 'numpy'} & set(sys.modules), 'the page needs the standard library only'\n"
        "print(hashlib.sha256(page([scene]).encode()).hexdigest())\n"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_a_page_loads_nothing_and_says_so():
    html = page([written(4), denoised(3, 5)])
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", html)
    for tag, attributes in Elements(html).seen:
        assert tag not in {"img", "iframe", "object", "embed", "base"}
        assert not {"src", "srcset", "action", "style"} & set(attributes)
        assert attributes.get("href") in {None, "data:,"}
    policy = next(a["content"] for t, a in Elements(html).seen if a.get("http-equiv"))
    assert policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


@pytest.mark.parametrize("make", [lambda s: page(s, HOSTILE), fragment], ids=["page", "fragment"])
def test_hostile_text_is_never_markup(make: Callable[[list[Scene]], str]):
    plain, evil = make([replace(written(2), notes=("a", "b"), redacted=True)]), make([hostile()])
    known = {"html", "head", "meta", "link", "title", "style", "script", "body", "noscript", "div", "iframe"}
    assert {tag for tag, _ in Elements(evil).seen} <= {tag for tag, _ in Elements(plain).seen} | known
    assert "<img" not in evil
    assert evil.count("</script") == plain.count("</script")
    assert evil.count("<!--") == plain.count("<!--")
    evil.encode()  # no lone surrogates


def test_data_survive_the_trip():
    html = page([hostile()])
    data = embedded(html)
    block = html.split('type="application/json">')[1].split("</script>")[0]
    assert not set("<>&\u2028\u2029") & set(block)
    assert data["scenes"][0]["prompt"] == HOSTILE.replace("\ud800", "\ufffd")
    assert page([replace(written(2), prompt="\ud83d\ude00")]).count("😀") == 2  # the block and the static text


def test_a_cell_is_its_text_and_state():
    scene = denoised(4, 9, words=6)
    data = embedded(page([scene, scene]))
    assert len(set(data["pieces"])) == len(data["pieces"]) <= 7
    for told in data["scenes"]:
        for frame, row in zip(scene.frames, told["frames"], strict=True):
            for cell, code in zip(frame.cells, row, strict=True):
                piece, state = divmod(code, len(STATES))
                assert data["states"][state] == cell.state
                assert data["pieces"][piece] == ("" if cell.state == "open" else cell.text)


def test_an_open_cell_tells_nothing_of_its_text():
    scene = replace(written(1), frames=(Frame((Cell("unsaid", "open"),), False),))
    assert "unsaid" not in page([scene])


def test_128_steps_of_128_tokens_stay_below_300_kb():
    assert len(page([denoised(128, 128)]).encode()) < 300_000
    assert len(fragment([denoised(128, 128)]).encode()) < 400_000


@pytest.mark.parametrize(
    ("scenes", "says"),
    [
        ([], "no scenes"),
        ([replace(written(2), frames=())], "no frames"),
        ([replace(written(3), sigma=(0.5, 0.5))], "sigma of scene 'left to right' has 2 values; expected 3"),
        ([replace(written(2), references=(("r", (0.5,)),))], "reference 'r' .* has 1 values; expected 2"),
        ([replace(written(2), bands=(("b", (0.5,), (0.6, 0.6)),))], "lower edge of band 'b' .* has 1 values"),
        ([replace(written(1), bands=(("b", (0.5,), (0.4,)),))], "band 'b' .* edges crossed"),
        ([replace(written(2), sigma=(0.5, float("nan")))], "nan at step 2; expected a number from 0 to 1"),
        ([replace(written(2), sigma=(1.5, 0.5))], "1.5 at step 1"),
        ([replace(written(2), zones=(0.6, 0.4))], "0.6 and 0.4; expected 0 <= lambda_r <= lambda_c <= 1"),
    ],
)
@pytest.mark.parametrize("make", [page, fragment])
def test_errors_say_what_came_and_what_was_expected(make: Callable[[list[Scene]], str], scenes: list[Scene], says: str):
    with pytest.raises(DemurError, match=says) as error:
        make(scenes)
    assert error.value.came
    assert error.value.expected
    assert error.value.then


def test_text_has_aa_contrast_in_both_themes():
    folder = files("demur.views") / "files"

    def colours(name: str) -> dict[str, str]:
        return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", (folder / name).read_text("utf-8")))

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    pairs = [(ink, on) for ink in ("ink", "dim") for on in ("ground", "card", "faint")]
    pairs += [("ink", on) for on in ("written", "revised", "warning")]
    pairs += [(name, on) for name in ("compliance", "transition", "refusal") for on in ("card", f"{name}-band")]
    pairs += [("dim", on) for on in ("written", "revised")] + [("on-accent", "accent")]
    for theme in (colours("page.css"), colours("page.css") | colours("dark.css")):
        for ink, on in pairs:
            low, high = sorted((light(theme[ink]), light(theme[on])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, f"{ink} on {on}: {theme[ink]} {theme[on]}"
    assert set(colours("page.css")) == set(colours("dark.css"))


# ---- What a browser shows


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        missing = "no Chromium; the page is tested in a real browser: apt-get install chromium"
        if os.environ.get("CI"):  # there, nothing may be left out
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


Show = Callable[..., AbstractContextManager[Page]]


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Show:
    """Opens a document from a file; on leaving, nothing has gone wrong and nothing was loaded."""

    @contextmanager
    def opened(html: str, **settings: object) -> Iterator[Page]:
        path = tmp_path / "page.html"
        path.write_text(html, "utf-8")
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        context.set_default_timeout(5000)
        tab = context.new_page()
        wrong: list[str] = []
        loaded: list[str] = []
        tab.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on("request", lambda request: loaded.append(request.url))
        tab.goto(path.as_uri())
        yield tab
        context.close()
        assert not wrong
        assert [url for url in loaded if not url.startswith(("data:", "about:"))] == [path.as_uri()]

    return opened


def at(tab: Page, step: int, total: int) -> None:
    """The step that the page shows, everywhere it shows one."""
    expect(tab.locator("#count")).to_have_text(f"step {step} of {total}")
    expect(tab.locator("#scrub")).to_have_value(str(step))


def test_every_cell_of_a_step_is_shown_in_its_state(show: Show):
    scene = denoised(3, 40)
    with show(page([scene])) as tab:
        at(tab, 3, 3)  # it opens at the last step
        tab.keyboard.press("Home")
        for step, frame in enumerate(scene.frames, start=1):
            at(tab, step, 3)
            cells = tab.locator(".canvas .cell")
            expect(cells).to_have_count(40)
            classes = cells.evaluate_all("all => all.map(cell => cell.className)")
            assert classes == [f"cell {cell.state}" for cell in frame.cells]
            texts = cells.evaluate_all("all => all.map(cell => cell.textContent)")
            assert texts == ["" if cell.state == "open" else cell.text for cell in frame.cells]
            tab.keyboard.press("ArrowRight")


def test_whitespace_and_hidden_characters_are_visible(show: Show):
    texts = ["a", "\n", "\t", "  ", "", "\u202ebc", "b", "\r\n\n"]
    scene = replace(written(1), frames=(Frame(tuple(Cell(text, "kept") for text in texts), False),))
    with show(page([scene])) as tab:
        cells = tab.locator(".canvas .cell")
        assert cells.all_text_contents() == ["a", "↵\n", "⇥\t", "  ", "∅", "U+202Ebc", "b", "↵\n↵\n"]
        expect(cells.nth(3).locator(".blank")).to_have_count(1)
        first, second, last = (cells.nth(i).locator(".ink").bounding_box() for i in (0, 4, 6))
        assert first["y"] < second["y"] == last["y"]  # the newline breaks the line


def test_cells_come_and_go_with_the_frame(show: Show):
    frames = tuple(Frame(tuple(Cell(f"{i}", "kept") for i in range(n)), False) for n in (2, 5, 0, 3))
    with show(page([replace(written(4), frames=frames)])) as tab:
        tab.keyboard.press("Home")
        for step, count in enumerate((2, 5, 0, 3)):
            expect(tab.locator(".canvas .cell")).to_have_count(count)
            assert tab.locator(".canvas").inner_text() == "".join(str(i) for i in range(count))
            at(tab, step + 1, 4)
            tab.keyboard.press("ArrowRight")


@pytest.mark.parametrize("motion", ["no-preference", pytest.param("reduce", marks=pytest.mark.slow)])
def test_it_plays_when_asked_and_stops_at_the_end(show: Show, motion: str):
    with show(page([written(50)]), reduced_motion=motion) as tab:
        tab.wait_for_timeout(300)
        at(tab, 50, 50)  # where it opens; it never plays by itself
        tab.select_option("#speed", "20")
        tab.click("#play")  # from the first; 2.5 seconds, so that a busy machine sees it play
        expect(tab.locator("#play")).to_have_text("Pause")
        at(tab, 50, 50)
        expect(tab.locator("#play")).to_have_text("Play")
        tab.select_option("#speed", "1")
        tab.click("#play")  # again from the first
        expect(tab.locator("#count")).to_have_text(re.compile("step [1-4] of 50"))
        tab.click("#play")
        expect(tab.locator("#play")).to_have_text("Play")


def test_keys_move_the_step(show: Show):
    with show(page([written(9)])) as tab:
        tab.keyboard.press("Home")
        for key, step in [
            ("ArrowRight", 2),
            ("ArrowRight", 3),
            ("ArrowLeft", 2),
            ("End", 9),
            ("ArrowRight", 9),
            ("Home", 1),
            ("ArrowLeft", 1),
        ]:
            tab.keyboard.press(key)
            at(tab, step, 9)
        tab.focus("#scrub")  # the same keys on the scrubber move once, not twice
        tab.keyboard.press("ArrowRight")
        at(tab, 2, 9)
        tab.keyboard.press("Space")
        expect(tab.locator("#play")).to_have_text("Pause")
        tab.keyboard.press("Space")
        expect(tab.locator("#play")).to_have_text("Play")
        tab.focus("#speed")  # a list keeps its own keys
        before = tab.locator("#count").inner_text()
        tab.keyboard.press("Home")
        assert tab.locator("#count").inner_text() == before


def test_every_control_is_reached_by_keyboard(show: Show):
    with show(page([written(3)])) as tab:
        reached = []
        for _ in range(5):
            tab.keyboard.press("Tab")
            reached.append(tab.evaluate("document.activeElement.id || document.activeElement.localName"))
        assert reached == ["play", "scrub", "speed", "theme", "summary"]


def test_the_scrubber_and_the_curve_move_the_step(show: Show):
    with show(page([written(10)])) as tab:
        tab.locator("#scrub").fill("7")
        at(tab, 7, 10)
        plot = tab.locator(".curve .lane").bounding_box()
        for step in (3, 10, 1):
            tab.mouse.click(plot["x"] + plot["width"] * (step - 0.5) / 10, plot["y"] - 60)
            at(tab, step, 10)
            dot = tab.locator(".curve .point").bounding_box()
            assert dot["x"] + dot["width"] / 2 == pytest.approx(plot["x"] + plot["width"] * (step - 0.5) / 10, abs=2)
        tab.mouse.move(plot["x"] + 2, plot["y"] - 60)
        tab.mouse.down()
        tab.mouse.move(plot["x"] + plot["width"] + 50, plot["y"] - 60)  # dragged past the end
        tab.mouse.up()
        at(tab, 10, 10)


def test_the_curve_shows_bands_and_says_them(show: Show):
    band = ("90% of harmless", (0.6,) * 5, (0.95,) * 5)
    with show(page([replace(written(5), bands=(band,))])) as tab:
        shape = tab.locator(".curve .spread.compliance")
        expect(shape).to_have_count(1)
        box, plot = shape.bounding_box(), tab.locator(".curve").bounding_box()
        assert box
        assert plot
        assert box["width"] > 0.6 * plot["width"]
        assert 0.25 * 190 < box["height"] < 0.45 * 190
        expect(tab.locator(".curves")).to_contain_text("90% of harmless")
        tab.locator("summary").click()
        assert tab.locator("thead th").all_inner_texts()[-2:] == ["90% of harmless, from", "90% of harmless, to"]
        assert tab.locator("tbody tr").first.locator("td").all_inner_texts()[-2:] == ["0.60", "0.95"]


def test_a_band_of_one_step_has_a_width(show: Show):
    with show(page([replace(written(1), bands=((HOSTILE, (0.2,), (0.4,)),))])) as tab:
        box = tab.locator(".curve .spread").bounding_box()
        assert box
        assert box["width"] > 8


def test_the_curve_shows_zones_references_refusals_and_says_them(show: Show):
    scene = replace(written(5), sigma=(0.9, 0.7, 0.5, 0.3, 0.1))  # a bound belongs to the transition
    with show(page([scene])) as tab:
        curve = tab.get_by_role("img", name="Sigma of left to right")
        expect(curve).to_have_count(1)
        expect(tab.locator(".curve .band")).to_have_count(3)
        expect(tab.locator(".curve .mark")).to_have_count(3)
        expect(tab.locator(".curve .reference[stroke-dasharray]")).to_have_count(2)
        expect(tab.locator(".curves")).to_contain_text("refused anchors")
        for name in ("compliance", "transition", "refusal", "text refuses"):
            expect(tab.locator(".curve text", has_text=re.compile(f"^{name}$"))).to_be_visible()
        zones = ["compliance", "compliance", "transition", "transition", "refusal"]
        tab.keyboard.press("Home")
        for step, (sigma, zone) in enumerate(zip(scene.sigma, zones, strict=True), start=1):
            expect(tab.locator(".value")).to_have_text(f"σ{sigma:.2f}")
            expect(tab.locator(".chip")).to_have_text(zone)
            expect(curve).to_have_attribute("aria-label", re.compile(f"At step {step}: {sigma:.2f}, {zone} zone"))
            expect(tab.locator(".said")).to_have_text("reads as a refusal" if step > 2 else "")
            tab.keyboard.press("ArrowRight")
        tab.locator("summary").click()
        rows = tab.locator("tbody tr")
        expect(rows).to_have_count(5)
        assert rows.nth(3).locator("th, td").all_inner_texts() == [
            "4",
            "0.30",
            "transition",
            "yes",
            "0.10",
            "0.80",
        ]


def test_labels_of_the_curve_never_overlap(show: Show):
    scenes = [
        replace(written(n), zones=zones) for n, zones in [(1, (0.5, 0.5)), (7, (0.01, 0.02)), (128, (0.97, 0.99))]
    ]
    with show(page(scenes)) as tab:
        for width in (1280, 320):
            tab.set_viewport_size({"width": width, "height": 900})
            tab.wait_for_function(
                "() => [...document.querySelectorAll('.curve')]"
                ".every(svg => Math.abs(svg.viewBox.baseVal.width - svg.clientWidth) < 1)"
            )
            boxes = tab.locator(".curve").evaluate_all(
                "all => all.map(svg => [...svg.querySelectorAll('text')].map(text => {"
                "const b = text.getBoundingClientRect();"
                "return [b.left, b.top + 2, b.right, b.bottom - 2] }))"
            )
            for one in boxes:
                for i, a in enumerate(one):
                    for b in one[:i]:
                        assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3], (width, a, b)


def test_the_status_speaks_when_the_reader_steps_and_not_while_playing(show: Show):
    with show(page([written(200)])) as tab:
        status = tab.get_by_role("status")
        tab.keyboard.press("Home")
        tab.keyboard.press("ArrowRight")
        expect(status).to_have_text("Step 2 of 200. sigma 0.90, compliance zone.")
        tab.select_option("#speed", "20")
        tab.click("#play")
        tab.wait_for_function("() => document.getElementById('scrub').value > 6")
        expect(status).to_have_text("Step 2 of 200. sigma 0.90, compliance zone.")
        tab.click("#play")
        expect(status).not_to_have_text("Step 2 of 200. sigma 0.90, compliance zone.")


def test_a_shorter_scene_holds_its_last_frame(show: Show):
    with show(page([written(3, "short"), written(6, "long")])) as tab:
        tab.keyboard.press("End")
        at(tab, 6, 6)
        short, long = tab.locator(".scene").nth(0), tab.locator(".scene").nth(1)
        expect(short.locator(".value")).to_have_text("σ0.10")
        expect(short.locator(".said")).to_contain_text("ended at step 3")
        expect(short.locator(".canvas .committed")).to_have_text("w2")
        expect(long.locator(".canvas .committed")).to_have_text("w5")
        expect(tab.get_by_role("status")).to_contain_text("short: sigma 0.10, refusal zone, ended at")


def test_without_anchors_the_canvas_stands_alone(show: Show):
    with show(page([replace(written(4), sigma=None, references=())])) as tab:
        expect(tab.locator(".bare")).to_contain_text("No anchors")
        expect(tab.locator(".bare code")).to_have_text("demur anchors fit")
        expect(tab.locator(".curve, .value, table")).to_have_count(0)
        tab.keyboard.press("End")
        expect(tab.locator(".canvas .committed")).to_have_text("w3")
        expect(tab.locator(".said")).to_have_text("reads as a refusal")


def test_scenes_stand_side_by_side_and_stack_on_narrow_screens(show: Show):
    html = page([written(3, "one"), replace(written(5, "a" * 80), prompt="b" * 3000, verdict="c" * 90)])
    with show(html) as tab:
        for width, columns in ((1280, 2), (375, 1), (320, 1)):
            tab.set_viewport_size({"width": width, "height": 800})
            boxes = [tab.locator("#scenes > .scene").nth(i).bounding_box() for i in (0, 1)]
            assert (boxes[0]["y"] == boxes[1]["y"]) == (columns == 2)
            assert (boxes[0]["x"] == boxes[1]["x"]) == (columns == 1)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width


def ends(count: int, states: tuple[str, ...] = ()) -> Frame:
    """A word, some ends of sequence, and open places."""
    cells = [Cell("done", "kept"), *[Cell("<|end|>", "committed")] * count]
    return Frame((*cells, *(Cell("", "open") for _ in states)), False)


def test_cells_that_repeat_at_the_end_are_folded_and_counted(show: Show):
    frames = (ends(2), ends(3), ends(14), ends(7, ("open", "open")))
    with show(page([replace(written(4), frames=frames)])) as tab:
        tab.keyboard.press("Home")
        for shown in ("done<|end|><|end|>", "done<|end|>×3", "done<|end|>×14", "done<|end|>×7"):
            assert tab.locator(".canvas").inner_text().replace(" ", "") == shown
            tab.keyboard.press("ArrowRight")
        expect(tab.locator(".canvas .cell")).to_have_count(10)  # all are there, for who counts places
        tab.keyboard.press("Home")
        expect(tab.locator(".canvas .times")).to_have_count(0)


def asked(request: str, ways: tuple[str, ...], note: str = "", steps: int = 4) -> list[Scene]:
    """One request under several ways of generating."""
    notes = (note,) if note else ()
    return [
        replace(
            written(steps, f"{request}: {way}"), request=request, way=way, prompt=f"prompt of {request}", notes=notes
        )
        for way in ways
    ]


def test_one_request_is_one_heading_one_prompt_and_one_row_of_verdicts(show: Show):
    ways = ("left to right", "all at once", "backwards")
    scenes = [*asked("first", ways, "everywhere"), *asked("second", ways[:2], "everywhere"), written(3, "alone")]
    scenes[-1] = replace(scenes[-1], notes=("everywhere", "here"))
    with show(page(scenes, about=["the law", "</p><b>"])) as tab:
        assert tab.locator("h2").all_inner_texts() == ["first", "second", "alone"]
        assert tab.locator("h3").all_inner_texts() == [*ways, *ways[:2]]
        assert tab.locator(".prompt .words").all_inner_texts() == ["prompt of first", "prompt of second", "a request"]
        assert [tab.locator(".notes li").nth(i).inner_text() for i in (0, 1)] == ["Noteeverywhere", "Notehere"]
        expect(tab.locator(".notes li")).to_have_count(2)
        expect(tab.locator("#about")).to_contain_text("the law")
        expect(tab.locator("#about")).to_contain_text("</p><b>")
        expect(tab.locator("#about #sigma")).to_be_visible()
        for width, columns in ((1280, 3), (800, 2), (390, 1)):
            tab.set_viewport_size({"width": width, "height": 900})
            boxes = [tab.locator(".ways").first.locator(".verdict").nth(i).bounding_box() for i in range(3)]
            assert len({round(box["x"]) for box in boxes}) == columns
            assert (boxes[0]["y"] == boxes[1]["y"]) == (columns > 1)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_what_is_redacted_says_what_shows_it(show: Show):
    scenes = [replace(scene, redacted=True, hint="say --harmless") for scene in asked("r", ("a", "b"))]
    with show(page([*scenes, replace(written(2), redacted=True, hint="say --show-harmful")])) as tab:
        assert tab.locator(".hint").all_inner_texts() == ["say --harmless", "say --show-harmful"]
        expect(tab.locator(".badge")).to_have_count(2)


def test_phones_get_no_keyboard_hints(show: Show):
    with show(page([written(3)])) as tab:
        expect(tab.locator(".keys")).to_be_visible()
    with show(page([written(3)]), viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True) as tab:
        expect(tab.locator(".keys")).to_be_hidden()
        expect(tab.locator(".legend")).to_be_visible()


def test_without_sigma_nobody_explains_it(show: Show):
    with show(page([replace(written(2), sigma=None, references=())])) as tab:
        expect(tab.locator("#sigma")).to_be_hidden()


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, which names faults of accessibility; from the package of the extra ``dev``."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        missing = "no axe-core; accessibility is tested with it: pip install axe-playwright-python"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    return (Path(found.origin).parent / "axe.min.js").read_text("utf-8")


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "dark"),
        pytest.param(1280, "light", marks=pytest.mark.slow),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
        pytest.param(390, "light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing(browser: Browser, tmp_path: Path, axe: str, scheme: str, width: int):
    scenes = [*asked("first", ("a", "b", "c"), "note"), *asked("second", ("a", "b")), hostile(), written(3), written(3)]
    scenes += [replace(written(2, "long"), prompt="word " * 900, sigma=None, redacted=True, hint="hidden")]
    path = tmp_path / "page.html"
    path.write_text(page(scenes, about=["the law"]), "utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    tab = context.new_page()
    tab.goto(path.as_uri())
    tab.locator("summary").first.click()
    tab.evaluate(axe)
    found = tab.evaluate("axe.run()")
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]] == []
    assert len(found["passes"]) > 20, "or else it has looked at nothing"
    context.close()


def test_the_theme_follows_the_system_until_the_button_is_pressed(show: Show):
    ground = "getComputedStyle(document.body).backgroundColor"
    seen = {}
    for scheme in ("light", "dark"):
        with show(page([written(3)]), color_scheme=scheme) as tab:
            seen[scheme] = tab.evaluate(ground)
            other = "Dark" if scheme == "light" else "Light"
            tab.get_by_role("button", name=f"{other} theme").click()
            assert tab.evaluate(ground) != seen[scheme]
            tab.emulate_media(color_scheme="light" if scheme == "dark" else "dark")
            tab.get_by_role("button", name=re.compile("theme")).click()
            assert tab.evaluate(ground) == seen[scheme]
    assert seen["light"] != seen["dark"]


def test_hostile_text_stays_text_in_the_browser(show: Show):
    with show(page([hostile(), hostile()], HOSTILE)) as tab:
        tab.keyboard.press("End")
        tab.locator(".canvas .kept").first.hover()
        tab.wait_for_timeout(100)
        expect(tab.locator("img")).to_have_count(0)
        expect(tab.locator("script")).to_have_count(2)
        for place in ("h1", "h2", ".prompt", ".made", ".notes", ".verdict", ".curves", ".canvas .kept"):
            expect(tab.locator(place).first).to_contain_text(
                "</script></noscript><!--<script><img src=x onerror=alert(1)>"
            )


def test_the_policy_stops_foreign_scripts_styles_and_requests(browser: Browser, tmp_path: Path):
    evil = (
        "<script>document.title = 'ran'</script>"
        "<img src='http://127.0.0.1:9/' onerror=\"document.title = 'ran'\">"
        "<style>h1 { color: rgb(1, 2, 3) }</style><p onclick='1' id=late></p></body>"
    )
    path = tmp_path / "page.html"
    path.write_text(page([written(2)], "quiet").replace("</body>", evil), "utf-8")
    tab = browser.new_page()
    sent: list[str] = []
    tab.on("requestfinished", lambda request: sent.append(request.url))
    tab.goto(path.as_uri())
    tab.keyboard.press("End")
    at(tab, 2, 2)
    refused = tab.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', error => error.name)")
    assert refused == "TypeError"
    assert tab.title() == "quiet"
    assert tab.locator("h1").evaluate("node => getComputedStyle(node).color") != "rgb(1, 2, 3)"
    assert [url for url in sent if url.startswith("http")] == []
    tab.close()


def test_without_scripts_the_final_text_and_verdict_are_there(show: Show):
    html = page([written(3, "one"), hostile()])
    with show(html, java_script_enabled=False) as tab:
        still = tab.locator(".still .scene")
        expect(still).to_have_count(2)
        expect(still.nth(0)).to_contain_text("w0 w1 w2")
        expect(still.nth(0)).to_contain_text("verdict of one")
        expect(still.nth(1)).to_contain_text("<img src=x onerror=alert(1)>")
        expect(tab.locator("#player")).to_be_hidden()
        expect(tab.locator("img")).to_have_count(0)


def test_fragments_live_in_one_page_without_touching_it_or_each_other(show: Show):
    host = (
        "<!doctype html><style>h2 { color: rgb(1, 2, 3) }</style><h2 id='count'>outer</h2>"
        f"{fragment([written(4, 'first')])}{fragment([hostile(), written(6, 'second')])}<p>after</p>"
    )
    with show(host, viewport={"width": 900, "height": 900}) as tab:
        first, second = tab.frames[1:]
        for frame, total in ((first, 4), (second, 6)):
            expect(frame.locator("#count")).to_have_text(f"step {total} of {total}")
            expect(frame.locator("img")).to_have_count(0)
        first.click("#play")
        first.click("#play")
        first.locator("#scrub").press("End")
        first.locator("#scrub").press("ArrowLeft")
        expect(first.locator("#count")).to_have_text("step 3 of 4")
        expect(second.locator("#count")).to_have_text("step 6 of 6")
        expect(tab.locator("#count")).to_have_text("outer")
        colours = {
            frame.locator("h2").first.evaluate("node => getComputedStyle(node).color") for frame in (first, second)
        }
        assert colours.isdisjoint({"rgb(1, 2, 3)"})
        for frame in (first, second):  # as high as its content, also when that grows
            inner = "() => document.body.getBoundingClientRect().height"
            fits = "() => Math.abs(frameElement.clientHeight - document.body.getBoundingClientRect().height) < 4"
            frame.wait_for_function(fits)
            before = frame.evaluate(inner)
            assert before != FRAGMENT_HEIGHT
            frame.locator("summary").first.click()
            frame.wait_for_function(fits)
            assert frame.evaluate(inner) > before
