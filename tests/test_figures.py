"""Pictures are drawn from the numbers they are given, and can be written as PDF, SVG and PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_dynamics import classes

from demur import dynamics, figures
from demur.dynamics import Rate
from demur.types import DemurError


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
