"""A YAML file, read strictly: every mistake is named with its line. What the file is about, it does not know."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import isinf
from pathlib import Path
from typing import Any, TypeVar

from demur.extras import need
from demur.registry import near
from demur.types import DemurError

T = TypeVar("T")
LARGEST = 2**31 - 1
"""No number of a file is larger."""


def composed(source: Path, whole: str) -> Any:
    """A file's tree of nodes, which know their lines; None for an empty one. ``whole``: where a whole one is to be
    seen. Raises for what is no YAML.
    """
    yaml = need("yaml", "evaluate", "to read recipes")
    try:
        return yaml.compose(_text(source, whole), Loader=_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        said = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise DemurError(f"{source}{line}: no YAML ({said})", "a mapping of settings", whole) from error
    except RecursionError as error:
        raise DemurError(f"{source} is nested too deeply", "a recipe", whole) from error


def _text(source: Path, whole: str) -> str:
    """A file's text: UTF-8, with or without a byte order mark, with any line ends. Raises for another encoding."""
    try:
        data = source.read_bytes()
    except OSError as error:
        raise DemurError(f"{source} could not be read ({error.strerror or error})", "a YAML file", whole) from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DemurError(f"{source} is UTF-16", "UTF-8", "save it once more, with the encoding UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        came = f"{source}, line {line}: the byte 0x{data[error.start]:02x} is no UTF-8"
        raise DemurError(came, "a file in UTF-8", "save it once more, with the encoding UTF-8") from error


def _loader() -> Any:
    """YAML 1.2's booleans, true and false: ``yes``, ``no``, ``on`` and ``off`` are words that somebody may look for."""
    yaml = need("yaml", "evaluate")

    class Loader(yaml.SafeLoader):  # type: ignore[misc,name-defined]
        """SafeLoader with fewer booleans."""

    words = "yYnNoO"
    Loader.yaml_implicit_resolvers = {
        sign: [(tag, pattern) for tag, pattern in known if sign not in words or not tag.endswith(":bool")]
        for sign, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


class Nodes:
    """Walks YAML's node tree, which knows its lines. ``whole`` says where a whole file is to be seen."""

    def __init__(self, path: Path, whole: str) -> None:
        self.path, self.whole = path, whole

    def wrong(self, node: Any, came: str, expected: str) -> DemurError:
        """An error at a node's line."""
        return DemurError(f"{self.path}, line {node.start_mark.line + 1}: {came}", expected, self.whole)

    def mapping(self, node: Any, known: Sequence[str], what: str) -> dict[str, Any]:
        """A mapping's nodes by key; unknown and double keys are errors that name what is known."""
        if node.id != "mapping":
            raise self.wrong(node, f"{what} is no mapping", f"keys of {', '.join(known)}")
        found: dict[str, Any] = {}
        for key, value in node.value:
            if key.id != "scalar":
                raise self.wrong(key, f"a key of {what} that is no word", ", ".join(known))
            if key.value not in known:
                came = f"unknown key {key.value!r} in {what}{near(key.value, known)}"
                raise self.wrong(key, came, ", ".join(known))
            if key.value in found:
                raise self.wrong(key, f"{key.value!r} stands twice in {what}", "once")
            found[key.value] = value
        return found

    def plain(self, node: Any) -> Any:
        """Any node as Python data; keys that stand twice are errors."""
        yaml = need("yaml", "evaluate")
        self.once(node)
        try:
            return yaml.constructor.SafeConstructor().construct_document(node)
        except yaml.constructor.ConstructorError as error:
            raise self.wrong(node, f"no plain data ({error.problem})", "texts, numbers, lists and mappings") from error
        except (ValueError, OverflowError) as error:  # a date that is none, a number of thousands of digits
            raise self.wrong(node, "a value that is none", "texts, numbers, lists and mappings") from error

    def once(self, node: Any) -> None:
        """Raises for a key that stands twice, at any depth: YAML would keep the last one."""
        if node.id == "mapping":
            keys: list[str] = []
            for key, value in node.value:
                if key.id != "scalar":
                    raise self.wrong(key, "a key that is no word", "names of settings")
                if key.value in keys:
                    raise self.wrong(key, f"{key.value!r} stands twice", "once")
                keys.append(key.value)
                self.once(value)
        elif node.id == "sequence":
            for item in node.value:
                self.once(item)
        else:
            self.sound(node)

    def sound(self, node: Any) -> None:
        """Raises for a number that is none, or another one than it looks like: infinite, a time of day, which YAML
        1.1 counts in seconds, or one with a zero before it, which it counts in eights.
        """
        if node.tag.endswith((":int", ":float")):
            value = node.value.lower().replace("_", "")
            if ":" in value or value.lstrip("+-") in (".inf", ".nan"):
                raise self.wrong(node, f"the number {node.value}", "a finite number without colons")
            if node.tag.endswith(":int") and re.match(r"[-+]?0[0-9]", value):
                raise self.wrong(
                    node, f"the number {node.value}", "one without a zero before it, which YAML counts in eights"
                )
            if node.tag.endswith(":float") and isinf(float(value)):
                raise self.wrong(node, f"the number {node.value}", "a finite number")

    def number(self, node: Any, what: str, least: int) -> int:
        """A whole number."""
        value = self.plain(node)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.wrong(node, f"{what} is {value!r}", f"a whole number of at least {least}")
        if value > LARGEST:
            raise self.wrong(node, f"{what} is too large", f"a whole number of at most {LARGEST:,}")
        return value

    def text(self, node: Any, what: str) -> str:
        """A text."""
        value = self.plain(node)
        if not isinstance(value, str) or not value.strip():
            shown = repr(value) if isinstance(value, str) or node.id != "scalar" else node.value
            quoted = ", in quotes" if node.id == "scalar" and value not in (None, "") else ""
            raise self.wrong(node, f"{what} is {shown}", f"a text{quoted}")
        return value

    def several(self, node: Any, what: str, one: Callable[[Any], T]) -> tuple[T, ...]:
        """A list of at least one, in which nothing stands twice: rows of equal parts would be counted twice."""
        items = node.value if node.id == "sequence" else [node]
        if not items:
            raise self.wrong(node, f"{what} is empty", "at least one")
        found: list[T] = []
        for item in items:
            made = one(item)
            if made in found:
                raise self.wrong(item, f"{what}: one stands twice", "each once")
            found.append(made)
        return tuple(found)

    def named(self, node: Any, what: str) -> tuple[str, dict[str, Any]]:
        """``NAME`` or ``NAME: {settings}``."""
        if node.id == "scalar":
            return self.text(node, what), {}
        if node.id == "mapping" and len(node.value) == 1 and node.value[0][0].id == "scalar":
            (key, value) = node.value[0]
            settings = self.plain(value)
            if isinstance(settings, dict):
                return str(key.value), settings
        raise self.wrong(node, f"{what} is neither a name nor NAME: {{settings}}", "one of these")
