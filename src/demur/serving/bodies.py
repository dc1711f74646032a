"""From bytes to a JSON object, strictly: nothing is guessed, and nothing is taken twice.

Python's reader takes more than JSON allows, and lets the last of two equal keys win. What two readers read differently
is a way past whoever looked first; so it is refused here.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from demur.serving.errors import Refused, wrong
from demur.serving.limits import Limits

_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_NAME = "a JSON object in UTF-8"


def read(raw: bytes, limits: Limits) -> dict[str, Any]:
    """The object of a body. Raises :class:`Refused` for what is none, or what two readers could read differently:
    two equal keys, NaN, numbers of more than 19 digits, control characters, halves of a surrogate pair.
    """
    if len(raw) > limits.body:
        raise too_large(limits)
    _check_depth(raw, limits)
    try:
        found = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_int=_whole,
            parse_float=_real,
        )
    except (ValueError, RecursionError) as error:
        raise wrong(f"a body that is no JSON ({_said(error)})", _NAME, "look at what the client sends") from None
    if not isinstance(found, dict):
        raise wrong(f"a body that is {_kind(found)}", _NAME, "send the parameters as one object")
    check_text(found)
    return found


def too_large(limits: Limits) -> Refused:
    """A body above the limit: 413."""
    message = f"a body above {limits.body} bytes; expected at most {limits.body}; send less"
    return Refused(413, message, None, "body_too_large")


def check_text(value: Any, at: str = "") -> None:
    """Raises for texts, keys too, that hold a control character other than tab and line ends, or half a pair."""
    if isinstance(value, str):
        if strange := _CONTROL.search(value):
            sign = f"U+{ord(strange.group()):04X}"
            raise wrong(
                f"a text with {sign}",
                "texts without control characters and half pairs",
                "take it out",
                param=at or None,
            )
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_text(key, at)
            check_text(inner, f"{at}.{key}".lstrip(".")[:80])
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            check_text(inner, f"{at}.{i}".lstrip(".")[:80])


def _check_depth(raw: bytes, limits: Limits) -> None:
    depth = 0
    for bracket in _BRACKET.finditer(_TEXT.sub(b"", raw)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > limits.depth:
            raise wrong(f"JSON deeper than {limits.depth}", f"at most {limits.depth} brackets in one another")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key that comes twice")
    return made


def _no_number(name: str) -> Any:
    raise ValueError(f"{name}, which JSON does not know")


def _whole(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError("a whole number that 64 bits do not hold")
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number that is too large")
    return number


def _said(error: Exception) -> str:
    """What was wrong, in words that hold nothing of the body."""
    if isinstance(error, UnicodeDecodeError):
        return f"bytes that are no UTF-8, at {error.start}"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.split(':')[0]}, at character {error.pos}"
    return "too deep" if isinstance(error, RecursionError) else str(error)


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false"}
    return kinds.get(type(value), "null")
