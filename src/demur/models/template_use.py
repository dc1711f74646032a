"""What a chat template does with an argument: it writes it into the prompt, asks whether it is true, or both.

A text such as ``no`` is a language to a template that writes it, and true to one that asks ``{% if thinking %}``. And
whether it takes what a turn says as a text, or as a list of parts only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from jinja2 import Environment, nodes
from jinja2.ext import Extension

_PART = re.compile(r"""\[\s*['"]text['"]\s*\]|\.text\b|\.get\(\s*['"]text['"]""")
"""Where a template reads the text of a part."""


def takes_parts(template: str, asked: str, written: Callable[[bool], str]) -> bool:
    """Whether a template writes a turn only where its content is a list of parts, one of them the text, as those of
    models that see images do, and Llama Guard 3's of 1B. ``written``: a request ``asked``, as parts or as a text.
    """

    def holds(parts: bool) -> bool:
        try:
            return asked in written(parts)
        except Exception:  # jinja2 raises what the template's author wrote
            return False

    return _PART.search(template) is not None and not holds(False) and holds(True)


@lru_cache(maxsize=256)
def use_of(template: str, name: str) -> tuple[bool, bool]:
    """Whether a template writes the value of an argument, and whether it asks anything of it (is it true, is it there,
    is it equal). Both are False for a template that can not be read: then nobody knows.
    """
    try:
        tree = _parsed(template)
    except Exception:  # jinja2 raises what an extension's author wrote
        return False, False
    macros = {macro.name: [arg.name for arg in macro.args] for macro in tree.find_all(nodes.Macro)}
    written: set[str] = set()
    goes_to: list[tuple[str, str]] = []
    for output in tree.find_all(nodes.Output):
        for part in output.nodes:
            written |= set(_values(part))
    for assigned in tree.find_all(nodes.Assign):
        target = assigned.target
        own = f"{target.name}.{target.attr}" if isinstance(target, nodes.NSRef) else getattr(target, "name", "")
        goes_to += [(value, own) for value in _values(assigned.node)]
        if isinstance(assigned.node, nodes.Call):  # namespace(key=value)
            goes_to += [(v, f"{own}.{pair.key}") for pair in assigned.node.kwargs for v in _values(pair.value)]
    for call in tree.find_all(nodes.Call):
        given = macros.get(getattr(call.node, "name", ""))
        if given is not None:
            pairs = [*zip(given, call.args, strict=False), *((pair.key, pair.value) for pair in call.kwargs)]
            goes_to += [(value, own) for own, arg in pairs for value in _values(arg)]
    names = {name}
    while more := {own for value, own in goes_to if value in names} - names:
        names |= more
    loads = sum(one.name == name and one.ctx == "load" for one in tree.find_all(nodes.Name))
    as_value = sum(value == name for place in _places(tree) for value in _values(place))
    return bool(names & written), loads > as_value or bool(names - {name})


def _places(tree: Any) -> Iterator[Any]:
    """What a template writes, expression by expression."""
    for output in tree.find_all(nodes.Output):
        yield from output.nodes


def _values(node: Any) -> Iterator[str]:
    """Names whose values are part of the value of an expression; not those that are only asked about."""
    kind = type(node).__name__
    if kind == "Name":
        yield node.name
    if kind == "Getattr" and type(node.node).__name__ == "Name":
        yield f"{node.node.name}.{node.attr}"
    for part in _parts(node, kind):
        yield from _values(part)


def _parts(node: Any, kind: str) -> list[Any]:
    """The parts of an expression that its value is made of."""
    if kind == "Call":  # a method of a text, such as "{}".format(x); a macro's arguments go their own way
        of_text = type(node.node).__name__ == "Getattr"
        return [node.node.node, *node.args, *(pair.value for pair in node.kwargs)] if of_text else []
    if kind in _BINARY:  # also `x or "en"`, whose value may be x
        return [node.left, node.right]
    found: list[Any] = []
    for name in _MADE_OF.get(kind, ()):
        part = getattr(node, name)
        found += part if isinstance(part, list) else [part] if part is not None else []
    return found


_BINARY = ("Add", "And", "Div", "FloorDiv", "Mod", "Mul", "Or", "Pow", "Sub")
_MADE_OF = {
    "Getattr": ("node",), "CondExpr": ("expr1", "expr2"), "Filter": ("node", "args"), "Concat": ("nodes",),
    "Getitem": ("node", "arg"), "List": ("items",), "Tuple": ("items",),
}  # fmt: skip


def _parsed(template: str) -> Any:
    """The tree of a template, with the tags that those of chats may have."""

    class Generation(Extension):
        """``{% generation %}``, which marks what an assistant says."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    # no HTML is written: the tree is only looked at
    return Environment(extensions=["jinja2.ext.loopcontrols", Generation]).parse(template)  # noqa: S701
