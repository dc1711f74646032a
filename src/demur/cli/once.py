"""An option that takes one value is given once, and says something: of two, the framework would take the last and say
nothing, and an empty one stands for none.

Options that may come several times go on doing so. A flag may be repeated, but not beside its opposite.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer

from demur.cli.idle import check_idle
from demur.types import DemurError


def once(app: Callable[..., Any]) -> Callable[..., Any]:
    """The commands of ``app``, each of which refuses an option twice; what is no typer app is left as it is."""
    if not isinstance(app, typer.Typer):
        return app
    command: Any = typer.main.get_command(app)
    _watch_over(command)
    return command  # type: ignore[no-any-return]


def _watch_over(command: Any) -> None:
    for inner in getattr(command, "commands", {}).values():
        _watch_over(inner)
    make = command.make_parser

    def made(ctx: Any) -> Any:
        parser = make(ctx)
        parse = parser.parse_args

        def parsed(args: list[str]) -> Any:
            given = list(args)  # the parser empties the list that it gets
            found = parse(args=args)
            if any("--help" in param.opts for param in found[2]):
                return found  # who asks for help gets it, whatever else is there
            _check(found[2], given, ctx.command_path)
            _check_said(found[0], command.params, ctx.command_path)
            check_idle(_below(ctx), {param.name: found[0].get(param.name) for param in found[2]}, command.params)
            return found

        parser.parse_args = parsed
        return parser

    command.make_parser = made


def _below(ctx: Any) -> str:
    """A command's name below the program, which is called otherwise by ``python -m demur``: ``guard fit``."""
    return "" if ctx.parent is None else f"{_below(ctx.parent)} {ctx.info_name}".strip()


def _check(order: Sequence[Any], args: Sequence[str], path: str) -> None:
    """Raises for a parameter that came several times and holds one value. Values are not repeated: they may be words of
    a request.
    """
    for param, count in Counter(order).items():
        if count < 2 or param.param_type_name != "option" or param.multiple or getattr(param, "count", False):
            continue
        if not param.is_flag:
            raise DemurError(
                f"{_called(param)} given {_times(count)}", "one value", f"leave the others out; see {path} --help"
            )
        used = [name for name in args[: args.index("--")] if name] if "--" in args else args
        if any(name in used for name in param.opts) and any(name in used for name in param.secondary_opts):
            both = f"{param.opts[0]} and {param.secondary_opts[0]}"
            raise DemurError(f"{both} together", "one of them", f"leave the other out; see {path} --help")


MAY_BE_EMPTY = ("system", "model", "name")
"""Options whose empty text says something, or is told in their own words."""


def _check_said(opts: Mapping[str, Any], params: Sequence[Any], path: str) -> None:
    """Raises for an option with an empty text, as a variable of the shell leaves it that holds nothing: it would stand
    for none at all.
    """
    for param in params:
        if param.param_type_name != "option" or param.multiple or param.name in MAY_BE_EMPTY:
            continue
        if isinstance(value := opts.get(param.name), str) and not value.strip():
            then = f"leave it out, or see what the shell has put there; see {path} --help"
            raise DemurError(f"{_called(param)} with an empty text", "a value", then)


def _called(param: Any) -> str:
    return " / ".join(param.opts)


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"


def keys_once(option: str, items: Sequence[str] | None) -> None:
    """Raises where an option of the form KEY=VALUE gives one key several times, of which the last would count."""
    keys: Mapping[str, int] = Counter(re.split("=", item, maxsplit=1)[0].strip() for item in items or ())
    for key, count in keys.items():
        if count > 1:
            raise DemurError(f"{option} {key}=... given {_times(count)}", "every key once", "leave the others out")
