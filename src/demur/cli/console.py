"""Where the command line meets the terminal: encodings, closed pipes, interrupts, and errors in one line.

What a console cannot show is shown as ``?``, never a traceback. JSON that demur prints is ASCII and needs none of this.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer

from demur.cli.once import once
from demur.types import DemurError, DemurWarning

ClickException: type[Exception] = typer.BadParameter.__mro__[2]
"""What a wrong use raises: click's own, or that of typer's copy of click."""

STOPPED = 130
"""The exit status after Ctrl-C, as shells have it; the command line's own framework returns it too."""

GO_ON = {
    "watch": "nothing is lost but this answer; give the same command again",
    "demo": "give the same command again; its anchors came with the package",
    "ablate": "finished pairs of organisms are kept, and a named model's answers: the same command goes on from there",
    "evaluate": "what was finished is kept: the same command with --resume goes on from there",
    "report": "nothing was changed; give the same command again",
    "replay": "with --out, what was finished is kept: the same command with --resume goes on",
    "anchors fit": "what was answered is kept in the cache: the same command goes on from there",
    "guard fit": "what was answered is kept in the cache: the same command goes on from there",
    "guard run": "with --json, what was printed is whole; ask the rest again",
    "organism train": "checkpoints are kept: the same command goes on from the last one",
}
"""How to go on after Ctrl-C, by command."""


def tolerant() -> None:
    """Lets standard output and error show what their encoding has, and ``?`` for the rest."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):  # a stream that somebody put there, or a closed one
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def of_some_size() -> None:
    """Takes sizes of nothing out of the environment, where some editors and services put them (``COLUMNS=0``): with
    them the terminal's views, and every line, have no room and are not shown.
    """
    for name in ("COLUMNS", "LINES"):
        if os.environ.get(name, "1").strip().lstrip("0") == "":
            del os.environ[name]


def run(app: Callable[..., Any]) -> int:
    """Runs the commands and returns the exit status: 2 and one line for whatever a user can cause, 130 after Ctrl-C."""
    tolerant()
    of_some_size()
    try:
        with _warnings_in_one_line():
            status = once(app)(standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return _closed()
    except (KeyboardInterrupt, typer.Abort):
        status = STOPPED
    except DemurError as error:
        return _refused(str(error))
    except ClickException as error:
        return _misused(error)
    except UnicodeError as error:
        return _refused(f"a text that is no Unicode ({error}); expected UTF-8; set the terminal to UTF-8")
    if status == STOPPED:
        _stopped()
    return status if isinstance(status, int) else 0


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """What demur warns of is told as its errors are, without a line of its source, and once a command, although a file
    may be read twice. Other warnings are Python's.
    """
    before = warnings.formatwarning
    said: set[str] = set()

    def told(message: Warning | str, category: type[Warning], *more: Any, **named: Any) -> str:
        if not issubclass(category, DemurWarning):
            return before(message, category, *more, **named)
        line = f"demur: {' '.join(str(message).split())}\n"
        fresh = line not in said
        said.add(line)
        return line if fresh else ""

    warnings.formatwarning = told
    try:
        yield
    finally:
        warnings.formatwarning = before


def _stopped() -> None:
    """After Ctrl-C, where the command has not said itself how to go on."""
    said = " ".join(word for word in sys.argv[1:3] if not word.startswith("-"))
    then = next((how for name, how in GO_ON.items() if f"{said} ".startswith(f"{name} ")), "")
    print(f"\ndemur: stopped{then and '; '}{then}", file=sys.stderr)


_PYTHON = re.compile(r"columns=\{[^{}]*\}, or (?=--column)")
"""What errors say to those who call demur from Python, before they say the option."""


def _refused(line: str) -> int:
    line = _PYTHON.sub("", line)
    print(f"demur: {' '.join(line.split())}", file=sys.stderr)
    return 2


def _misused(error: Any) -> int:
    """A wrong option or argument; a command without any, which shows its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    path = error.ctx.command_path if getattr(error, "ctx", None) is not None else "demur"
    line = _checked(error) or error.format_message().rstrip(".")
    option = getattr(error, "option_name", None)
    if option is not None and len(option) > 1 and option[1:2].isdigit():
        line += "; a text that begins with a dash is asked with --text='-5 + 3'"
    if option in ("-m", "--model") and any(part.name in ("model", "models") for part in error.ctx.command.params):
        line += f"; the model is named without one: {path} MODEL"
    return _refused(f"{line}; see {path} --help")


_WANTED = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
}
"""What newer versions of typer expect, by pydantic's word for what is wrong; older ones say it themselves."""


def _checked(error: Any) -> str:
    """What came for an option and what was expected, where a newer typer has checked it: its own words leave out what
    came. Empty for all other errors.
    """
    faults = getattr(error.__cause__, "errors", None)
    if not callable(faults) or getattr(error, "param", None) is None:
        return ""
    first, param = faults()[0], error.param
    called = " / ".join(param.opts) if param.param_type_name == "option" else param.human_readable_name
    bounds = {name: _number(bound) for name, bound in first.get("ctx", {}).items()}
    wanted = _WANTED.get(first["type"], "").format(**bounds)
    if not wanted:
        said = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
        came, _, choices = said.partition(" is not one of ")
        wanted = f"one of {choices}" if choices and came == repr(first["input"]) else f"something else ({said})"
    return f"{called} {first['input']!s:.60}; expected {wanted}"


def _number(bound: Any) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _closed() -> int:
    """Whoever read the output has gone, as ``head`` does: no word of it, now or when Python flushes at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
