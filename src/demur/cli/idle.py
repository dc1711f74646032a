"""Options that do nothing beside others. Who gives them believes that they count: each is refused, with the option that
takes its place. Numbers of prompts for anchors that are there already change nothing that anybody reads, and pass.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from demur.types import DemurError


class Beside(NamedTuple):
    """Where ``other`` is given, or with ``absent`` where it is not, these ``idle`` ones do nothing, and ``why``."""

    other: str
    idle: tuple[str, ...]
    why: str
    absent: bool = False


_ANCHORS = "anchors that are there are not fitted"
_OF_ANCHORS = (
    Beside("anchors", ("refusals",), _ANCHORS),
    Beside("guard", ("refusals",), "a guard brings its anchors, which are not fitted"),
)

IDLE: dict[str, tuple[Beside, ...]] = {
    "watch": (*_OF_ANCHORS, Beside("no_signal", ("refusals",), "without a signal there are no anchors")),
    "replay": (*_OF_ANCHORS, Beside("html", ("show_harmful",), "it shows the words of a page", absent=True)),
    "guard fit": (
        Beside("anchors", ("harmful", "refusals"), _ANCHORS),
        Beside("paper", ("n_anchors", "n_fit", "n_calibrate", "threshold", "alpha"), "the paper has its own"),
    ),
    "ablate": (
        Beside("model", ("workers", "again"), "it is for the organism's pairs"),
        Beside(
            "model",
            ("harmless", "harmful", "steps", "temperature", "dtype", "device", "keep", "no_keep"),
            "the organism has its own",
            absent=True,
        ),
        Beside("layers", ("alpha",), "layers are compared without a guard"),
    ),
}
"""By command, without the program's name. A flag that is switched off has the name ``no_flag``."""


def check_idle(command: str, given: Mapping[str, Any], params: Sequence[Any]) -> None:
    """Raises for an option among the ``given`` ones (values by the names of parameters, as the parser has them) that
    does nothing. An argument that is left out stands among them too: as None, or as a sign of click's own.
    """
    called = {param.name: _called(param, param.opts) for param in params}
    called |= {f"no_{param.name}": _called(param, param.secondary_opts) for param in params if param.secondary_opts}
    said = {name: value for name, value in given.items() if isinstance(value, str | bool | list | tuple)}
    there = {f"no_{name}" if value is False else name for name, value in said.items()}
    for rule in IDLE.get(command, ()):
        if (rule.other in there) == rule.absent:
            continue
        for name in rule.idle:
            if name in there:
                raise DemurError(
                    f"{called[name]} {'without' if rule.absent else 'beside'} {called[rule.other]}",
                    f"{called[rule.other]} as well" if rule.absent else "one of them",
                    f"leave it out: {rule.why}",
                )


def _called(param: Any, names: Sequence[str]) -> str:
    """An option by its longest name, an argument as a word."""
    return max(names, key=len) if param.param_type_name == "option" else f"a {param.name}"
