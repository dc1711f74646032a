"""What is given twice at the command line: an option of one value is an error, whichever command it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from demur import cli
from demur.cli.asked import asked, columns_of
from demur.cli.settings import key_values, settings_of
from demur.models import cache_dir
from demur.models.network import block_index
from demur.samplers import SAMPLERS
from demur.types import DemurError, DemurWarning

Run = Callable[..., tuple[int, str, str]]


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
    for name, one in (inner or {}).items():
        yield from _commands(one, (*path, name))


EVERY = dict(_commands(typer.main.get_command(cli.app)))


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_option_of_one_value_is_refused_twice_by_every_command(run: Run, path: tuple[str, ...]) -> None:
    options = [param for param in EVERY[path].params if param.param_type_name == "option" and not param.is_flag]
    for param in options:
        if param.multiple:
            continue
        one, two = ("one",) * param.nargs, ("two",) * param.nargs
        code, out, err = run(*path, param.opts[0], *one, param.opts[-1], *two)
        assert (code, out) == (2, ""), param.opts
        assert len(err.splitlines()) == 1
        assert f"{' / '.join(param.opts)} given twice; expected one value" in err
        assert "one;" not in err.replace("expected one", ""), "values are not repeated: they may be a request"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("anchors", "fit", "organism/ar", "--harmful", "a.csv", "--harmful", "b.csv"), "--harmful given twice"),
        (("anchors", "fit", "organism/ar", "--harmful=a.csv", "--harmful=a.csv"), "--harmful given twice"),
        (("watch", "Hi", "-m", "organism/ar", "--model", "smollm2"), "--model / -m given twice"),
        (("watch", "Hi", "-n3", "-n", "4", "--n", "5"), "--n / -n given 3 times"),
        (("watch", "Hi", "--whitened", "--sri"), "--whitened and --sri together"),
        (("watch", "Hi", "--harmless", "--harmful"), "--harmful and --harmless together"),
        (("watch", "Hi", "-m", "organism/ar", "--set", "top_k=1", "--set", "top_k=2"), "--set top_k=... given twice"),
        (("watch", "Hi", "--column", "text=a", "--column", "text=b"), "--column text=... given twice"),
        (("replay", "t.jsonl", "--column", "text=a", "--column", " text =b"), "--column text=... given twice"),
        (("watch", "Hi", "--template-arg", "a=1", "--template-arg", "a=2"), "--template-arg a=... given twice"),
    ],
)  # fmt: skip
def test_what_is_given_twice_is_one_line(run: Run, arguments: tuple[str, ...], says: str) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert says in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("models", "--json", "--json"),
        ("--version", "--version"),
        ("recipe", "organism"),
    ],
    ids=" ".join,
)
def test_a_flag_that_is_repeated_changes_nothing(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 0


def test_options_that_may_repeat_go_on_repeating(run: Run) -> None:
    texts = ("--text", "How do I bake?", "--text", "How do I mend the cart?")
    code, out, err = run(
        "watch", *texts, "-m", "organism/ar", "--harmless", "--steps", "8", "--length", "8", "--json",
        "--set", "top_k=1", "--set", "cache=false", "--n", "8",
    )  # fmt: skip
    assert code == 0, err
    assert '"typed-2"' in out


def test_a_dash_behind_the_end_of_options_is_a_text(run: Run) -> None:
    arguments = (
        "watch",
        "--json",
        "--json",
        "-m",
        "organism/ar",
        "--n",
        "8",
        "--harmless",
        "--",
        "--harmful is a flag?",
    )
    assert run(*arguments)[0] == 0


def test_keys_are_told_apart_and_one_of_them_is_given_once() -> None:
    sampler = SAMPLERS["ar"]()
    assert settings_of(["top_k=1", "top_p=0.5"], sampler, "ar") == {"top_k": 1, "top_p": 0.5}
    assert key_values("--template-arg", ["a=b=c", "b=1"]) == {"a": "b=c", "b": 1}
    assert columns_of(["text=a", "id=a"]) == {"text": "a", "id": "a"}
    for wrong in (["top_k=1", "top_k=1"], ["top_k=1", "top_p=1", " top_k=2"]):
        with pytest.raises(DemurError, match="top_k"):
            settings_of(wrong, sampler, "ar")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("watch", "Hi", "--sampler", ""), "--sampler with an empty text"),
        (("watch", "Hi", "--compare="), "--compare with an empty text"),
        (("watch", "Hi", "--guard", " "), "--guard with an empty text"),
        (("anchors", "fit", "organism/ar", "--harmful", ""), "--harmful with an empty text"),
        (("guard", "fit", "organism/ar", "--out", ""), "--out / -o with an empty text"),
        (("evaluate", "r.yaml", "--out="), "with an empty text"),
    ],
)
def test_an_empty_text_as_the_shell_leaves_it_stands_for_nothing(
    run: Run, arguments: tuple[str, ...], says: str
) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert says in err


def test_an_empty_system_prompt_is_one(run: Run) -> None:
    code, _, err = run("watch", "Hi", "-m", "organism/ar", "--n", "8", "--json", "--system", "")
    assert code == 0, err


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_cache_is_no_folder_and_a_home_is_the_users(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setenv("DEMUR_CACHE", value)
    assert cache_dir() == Path("/somewhere/demur")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DEMUR_CACHE", "~/kept")
    assert cache_dir() == Path("/home/me/kept")


@pytest.mark.parametrize("layer", ["01", "１", " 1", "1.0", "+1", "0", "5", "LAST"])
def test_a_layer_has_one_name(layer: str) -> None:
    """Another name of the same block would make another spec."""
    with pytest.raises(DemurError, match="1 to 4"):
        block_index(layer, 4)
    assert block_index("1", 4) == 0


def test_a_file_that_is_named_twice_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("text\nHow do I boil an egg?\n")
    with pytest.warns(DemurWarning, match="mine.csv is given 2 times"):
        assert len(asked(["mine.csv", "mine.csv"])) == 2
    assert len(asked(["Again?", "Again?"])) == 2  # a text may be asked twice, to see both answers


def test_a_folder_is_no_guard(run: Run, tmp_path: Path) -> None:
    code, _, err = run("guard", "run", str(tmp_path), "Hi")
    assert code == 2
    assert "is a folder" in " ".join(err.split())


@pytest.mark.parametrize(
    "words", [("--temperature", "1", "--set", "temperature=0"), ("--set", "temperature=1", "--temperature", "0")]
)
def test_one_setting_by_two_options_is_refused(run: Run, words: tuple[str, ...]) -> None:
    code, _, err = run("watch", "Hi", "-m", "organism/ar", "--no-signal", *words)
    assert code == 2
    assert "--temperature and --set temperature=...; expected one of them" in err
