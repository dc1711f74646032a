"""Pictures are drawn from the numbers they are given, and can be written as PDF, SVG and PNG."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_dynamics import classes

from demur import dynamics, figures
from demur.dynamics import Rate
from demur.models import Bidirectional, Causal
from demur.signals import Anchors, fit_anchors
from demur.traces import Trace, generate, teacher_forced
from demur.types import DemurError, Prompt


def test_trajectories_draw_each_class_and_its_band(tmp_path: Path) -> None:
    made = dynamics.bands(classes(0.2))
    figure = figures.trajectories(made, "a title")
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines[:3]] == ["harmless (n 60)", "refused (n 60)", "jb (n 60)"]
    assert np.allclose(axes.lines[1].get_ydata(), made[1].median)
    assert len(axes.collections) == 3
    for kind in ("pdf", "svg", "png"):
        figure.savefig(tmp_path / f"f.{kind}")
    assert "harmless (n 60)" in (tmp_path / "f.svg").read_text(), "text stays text"


def test_regions_show_every_point() -> None:
    plane = dynamics.plane(classes(0.2))
    (axes,) = figures.regions(plane).axes
    drawn = np.concatenate([c.get_offsets() for c in axes.collections if len(c.get_offsets()) > 1])
    assert np.allclose(np.sort(drawn, axis=0), np.sort(plane.points, axis=0))


def test_a_roc_names_its_area() -> None:
    (axes,) = figures.roc({"all": (np.array([2.0, 3.0]), np.array([1.0, 2.0]))}).axes
    assert axes.lines[1].get_label() == "all (0.88)"


def test_bars_have_wilsons_intervals_and_undefined_rates_are_left_out() -> None:
    figure = figures.rates({"a": {"x": Rate(8, 10), "y": Rate(0, 0)}, "b": {"x": Rate(1, 10)}}, "rate")
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [0.8, 0.1]
    low = axes.collections[0].get_segments()[0][:, 1]
    assert low == pytest.approx(Rate(8, 10).interval)
    with pytest.raises(DemurError, match="no rates"):
        figures.rates({}, "rate")


def test_a_notebook_shows_a_figure_whole_and_a_figure_can_be_copied() -> None:
    figure = figures.rates({"a": {"x": Rate(8, 10)}}, "rate")
    shown = figure._repr_png_()  # type: ignore[attr-defined]
    assert shown.startswith(b"\x89PNG")
    assert shown.endswith(b"IEND\xaeB`\x82")
    assert pickle.loads(pickle.dumps(figure))._repr_png_().startswith(b"\x89PNG")


# -- signals of traces ----------------------------------------------------------------------------------------


def fitted(llama: Causal) -> tuple[list[Trace], Anchors]:
    """Three traces and anchors that fit them."""
    asked = [
        Prompt("fine", "Hi", harmful=False),
        Prompt("how to rob a bank", "Rob the bank", harmful=True),
        Prompt("c", "Hi"),
    ]
    answers = ["Hello you there", "I'm sorry, I can't.", "X"]
    traces = teacher_forced(llama, asked, answers)
    return traces, fit_anchors(traces[:1], traces[1:2])


def test_signals_draw_a_line_a_trace_over_zones_and_references(llama: Causal, tmp_path: Path) -> None:
    traces, anchors = fitted(llama)
    figure = figures.signals(traces, anchors, "a title")
    (axes,) = figure.axes
    named = {line.get_label(): line for line in axes.lines}
    assert len(axes.lines) == 5
    for trace, sigma in zip(traces, anchors.signals(traces), strict=True):
        drawn = named[trace.prompt.label].get_ydata()
        assert np.allclose(drawn, sigma[: trace.steps])
    for name, curve in anchors.references:
        assert np.allclose(named[name].get_ydata(), curve)
    assert [round(float(p.get_y()), 2) for p in axes.patches] == [0.0, 0.3, 0.5]
    for kind in ("pdf", "svg", "png"):
        figure.savefig(tmp_path / f"f.{kind}")
    assert "bank" not in (tmp_path / "f.svg").read_text(), "an id that is a text is not shown"
    assert len(figures.signals(traces[0], anchors).axes[0].lines) == 3
    many = figures.signals(traces * 4, anchors).axes[0]
    assert len(many.get_legend().get_texts()) == 2, "of many lines, the references alone are named"
    assert figures.signals(traces, anchors, names=["a", "b", "c"]).axes[0].lines[2].get_label() == "a"


def test_signals_say_what_they_can_not_draw(llama: Causal, llada: Bidirectional) -> None:
    traces, anchors = fitted(llama)
    with pytest.raises(DemurError, match="no traces"):
        figures.signals([], anchors)
    with pytest.raises(DemurError, match="2 names for 3 traces"):
        figures.signals(traces, anchors, names=["a", "b"])
    other = generate(llada, [Prompt("p", "Hi")], length=8)
    with pytest.raises(DemurError, match="anchors of another spec"):
        figures.signals(other, anchors)


BACKENDS = ["", "agg", "TkAgg", "nonsense", "module://matplotlib_inline.backend_inline", "../x"]


@pytest.mark.parametrize(
    "backend", ["module://not.there", *(pytest.param(other, marks=pytest.mark.slow) for other in BACKENDS)]
)
def test_pictures_need_no_display_and_no_backend(backend: str, tmp_path: Path) -> None:
    code = (
        "import sys, os\n"
        "from demur import figures\n"
        "from demur.dynamics import Rate\n"
        "for path in sys.argv[1:]:\n"
        "    figures.rates({'a': {'x': Rate(8, 10)}}, 'rate').savefig(path)\n"
        "assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)\n"
        f"assert os.environ.get('MPLBACKEND', '') == {backend!r}\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "DISPLAY"} | {"MPLBACKEND": backend}
    paths = [tmp_path / f"f.{kind}" for kind in ("svg", "png", "pdf")]
    ran = subprocess.run([sys.executable, "-c", code, *map(str, paths)], env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-500:]
    assert all(path.stat().st_size > 1000 for path in paths)


def test_who_asks_for_matplotlib_first_needs_no_backend() -> None:
    code = "from demur.extras import need\nneed('matplotlib', 'evaluate', 'for the report')\nfrom demur import figures"
    env = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline_that_is_missing"}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-500:]


def test_anchors_show_a_trace_in_a_notebook(llama: Causal, tmp_path: Path) -> None:
    traces, anchors = fitted(llama)
    shown = anchors.show(traces)
    assert len(shown.scenes) == 3
    for trace, scene in zip(traces, shown.scenes, strict=True):
        assert scene.sigma == pytest.approx(anchors.signal(trace)[: trace.steps])
        assert scene.redacted == (trace.prompt.harmful is not False)
        assert scene.references == tuple((name, curve[: trace.steps]) for name, curve in anchors.references)
        assert scene.verdict
    html = shown._repr_html_()
    assert html.startswith('<div class="demur"><iframe')
    for text in (html, repr(shown), shown.save(tmp_path / "x.html").read_text()):
        assert "bank" not in text
    assert len(repr(shown)) < 300
    assert anchors.show(traces[1], show_harmful=True).scenes[0].prompt == "Rob the bank"
    with pytest.raises(DemurError, match="no traces"):
        anchors.show([])
