"""Options that do nothing beside others are refused, each in both names; alone none of them is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from demur import cli
from demur.cli.idle import IDLE, Beside, check_idle
from demur.types import DemurError

Run = Callable[..., tuple[int, str, str]]


def _command(path: str) -> Any:
    command: Any = typer.main.get_command(cli.app)
    for name in path.split():
        command = command.commands[name]
    return command


def _given(path: str, name: str) -> list[str]:
    """A parameter as one writes it, with a value where it takes one; names of parameters that are none are an error."""
    params = {param.name: param for param in _command(path).params}
    off = name.startswith("no_") and name not in params
    param = params[name.removeprefix("no_") if off else name]
    if param.param_type_name != "option":
        return ["organism/ar"]
    return [max(param.secondary_opts if off else param.opts, key=len), *([] if param.is_flag else ["7"])]


RULES = [(path, rule) for path, rules in IDLE.items() for rule in rules]


def _pairs() -> Iterator[Any]:
    for path, rule in RULES:
        for name in rule.idle:
            yield pytest.param(path, rule, name, id=f"{path} {name} {'without' if rule.absent else 'by'} {rule.other}")


@pytest.mark.parametrize(("path", "rule", "name"), list(_pairs()))
def test_an_option_that_does_nothing_is_refused(run: Run, path: str, rule: Beside, name: str) -> None:
    other = [] if rule.absent else _given(path, rule.other)
    idle = _given(path, name)
    for words in ([*other, *idle], [*idle, *other]):
        code, out, err = run(*path.split(), *words)
        assert (code, out, len(err.splitlines())) == (2, "", 1), words
        assert idle[0] in err
        assert rule.why in err
        assert rule.absent or other[0] in err or "a model" in err


@pytest.mark.parametrize(
    "words",
    [
        ("watch", "hi", "-m", "nothing/of", "--refusals", "scripted", "-n", "9"),
        ("watch", "hi", "-m", "nothing/of", "--signal", "--refusals", "scripted"),  # as it is anyway
        ("replay", "none.jsonl", "--refusals", "scripted", "--n", "9"),
        ("replay", "none.jsonl", "--html", "page.html", "--show-harmful"),
        ("guard", "fit", "nothing/of", "--alpha", "0.05", "--n-fit", "40"),
        ("guard", "fit", "nothing/of", "--paper", "--n-check", "0"),
        ("guard", "fit", "nothing/of", "--anchors", "none.safetensors", "--n-anchors", "40"),
        ("watch", "hi", "--anchors", "none.safetensors", "-n", "9"),
        ("guard", "fit", "nothing/of", "--anchors", "none.safetensors", "--n-fit", "40"),
        ("ablate", "nothing/of", "--attacked", "none.jsonl", "--steps", "8", "--keep"),
        ("serve", "nothing/of", "--steps", "8"),
    ],
    ids=lambda words: " ".join(words[:5]),
)
def test_options_that_count_are_not_refused_for_others(run: Run, words: tuple[str, ...]) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert not any(rule.why in err for _, rule in RULES), err


@pytest.mark.parametrize("program", ["/usr/bin/my-demur", "demur/__main__.py", "python -m demur", "my demur"])
def test_a_program_of_another_name_is_meant_as_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: str
) -> None:
    """``python -m demur`` is called so in help and errors, with blanks."""
    package = "demur" if program.endswith("__main__.py") else None
    monkeypatch.setattr(sys.modules["__main__"], "__package__", package)
    monkeypatch.setattr(sys, "argv", [program, "guard", "fit", "organism/ar", "--paper", "--alpha", "0.5"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "--alpha beside --paper" in capsys.readouterr().err


def test_who_asks_for_help_gets_it(run: Run) -> None:
    code, out, err = run("guard", "fit", "--paper", "--alpha", "0.5", "--alpha", "0.6", "--help")
    assert (code, err) == (0, "")
    assert "--paper" in out


@pytest.mark.parametrize("left_out", [None, object()])
def test_an_argument_that_is_left_out_is_not_given_whatever_stands_for_it(left_out: Any) -> None:
    """The parser of click, which the lowest version of typer uses, has a sign of its own for it, and not None."""
    params = _command("ablate").params
    check_idle("ablate", {"workers": "2", "model": left_out}, params)
    with pytest.raises(DemurError, match="--steps without a model"):
        check_idle("ablate", {"steps": "8", "model": left_out}, params)
