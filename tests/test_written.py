"""Files land where a link points, and whoever may read them is whom the user lets; a terminal of no size shows all."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demur import artefact, cli
from demur.types import DemurError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="modes and links of POSIX")


@pytest.fixture(params=[0o022, 0o077, 0o027, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_for_whom_the_umask_lets(umask: int, tmp_path: Path) -> None:
    assert mode(artefact.write(tmp_path / "a" / "b.txt", "x")) == 0o666 & ~umask
    artefact.write_once(tmp_path / "once.txt", "x")
    assert mode(tmp_path / "once.txt") == 0o666 & ~umask


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o664, 0o444])
def test_a_file_that_is_written_anew_stays_for_whom_it_was(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(kept)
    artefact.write(path, "new")
    assert (path.read_text(), mode(path)) == ("new", kept)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("form", ["{}", "../far/{}"])
def test_a_link_is_followed(form: str, there: bool, tmp_path: Path) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    near.mkdir()
    far.mkdir()
    target = (near / form.format("real.txt")).resolve()
    if there:
        target.write_text("old")
    links = [near / "link.txt", near / "second.txt"]
    links[0].symlink_to(form.format("real.txt"))
    links[1].symlink_to("link.txt")
    for i, link in enumerate(links):
        assert artefact.write(link, f"new {i}") == link
        assert link.is_symlink()
        assert target.read_text() == f"new {i}"
    assert {path.name for path in tmp_path.rglob("*")} == {"near", "far", "link.txt", "second.txt", "real.txt"}


def test_a_link_to_a_place_where_nobody_may_write_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "there.txt").symlink_to("/proc/nowhere/x.txt")
    with pytest.raises(DemurError, match=r"there\.txt"):
        artefact.write(tmp_path / "there.txt", "x")
    assert (tmp_path / "there.txt").is_symlink()


def test_a_long_name_has_room_for_its_draft(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 250 + ".txt")
    assert artefact.write(path, "x").read_text() == "x"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["COLUMNS", "LINES"])
@pytest.mark.parametrize("size", ["0", "00", "", " "])
def test_a_terminal_of_no_size_shows_what_there_is(
    name: str, size: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, size)
    monkeypatch.setattr(sys, "argv", ["demur", "recipe"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert "organism" in capsys.readouterr().out
