"""Files that demur writes: arrays as safetensors, with a JSON card in the file's own header. Never a pickle.

One file holds both, so that a card can not be separated from what it describes. The card names a hash of itself and
the arrays; loading checks it. Writing goes to a temporary file that is renamed when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from demur.types import DemurError

Arrays = Mapping[str, NDArray[Any]]
Made = TypeVar("Made")


def place_of(path: Any) -> Path:
    """A path as somebody gave it, with ``~`` as their home, as a shell has it: ``--out=~/x`` reaches a program as it
    stands. Raises for what is no path.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(plain := os.fspath(path), str) or "\0" in plain:
        raise DemurError(f"a {type(path).__name__} that is no path", "the path of a file or a folder", "name one")
    with suppress(RuntimeError):  # no home is known
        return Path(path).expanduser()
    return Path(path)


def write(path: str | Path, content: bytes | str) -> Path:
    """Writes a whole file or nothing: temporary file in the same folder, then rename. A link is followed, so that the
    file lands where it points; who may read it is what the system says (umask), or what it was before. Raises naming
    what failed.
    """
    target = place_of(path)
    data = content.encode() if isinstance(content, str) else content
    scratch: Path | None = None
    if target.exists() and not target.is_file():  # renaming onto a device would replace it
        kind, then = ("a folder", "name a file in it") if target.is_dir() else ("no regular file", "name another place")
        raise DemurError(f"{target} is {kind}", "the name of a file", then)
    try:
        place = Path(os.path.realpath(target)) if target.is_symlink() else target
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_name(f".{place.name[:100]}-{os.getpid()}-{secrets.token_hex(4)}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        scratch = draft
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if place.exists():
            draft.chmod(place.stat().st_mode & 0o777)
        draft.replace(place)
    except OSError as error:
        raise DemurError(
            f"{target} could not be written ({error.strerror or error})",
            f"room for {len(data):,} bytes and the right to write there",
            "free space or name another place; nothing half-written was left",
        ) from error
    finally:  # after an interrupt too; once renamed, there is nothing to remove
        if scratch is not None:
            scratch.unlink(missing_ok=True)
    return target


def write_once(path: str | Path, content: str) -> str:
    """Writes a whole file unless it is there, and returns what is there: of several who write, the first one's."""
    target = place_of(path)
    if not target.is_file():
        draft = write(target.with_name(f".{target.name}-{os.getpid()}-{secrets.token_hex(4)}"), content)
        try:
            os.link(draft, target)
        except FileExistsError:
            pass
        except OSError:  # a file system without links: the last one's, then
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    return target.read_text(encoding="utf-8")


OTHERS = (
    ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".tab", ".txt", ".md", ".html", ".yaml", ".yml", ".toml", ".tex",
    ".py", ".ipynb", ".log", ".parquet", ".arrow", ".xlsx", ".pdf", ".png", ".jpg", ".svg", ".pt", ".pth", ".ckpt",
    ".bin", ".gguf", ".npy", ".npz", ".pkl", ".pickle", ".zip", ".gz",
)  # fmt: skip
"""Ends of names that say what a file of demur's is not."""


def save(path: str | Path, kind: str, arrays: Arrays, card: Mapping[str, Any]) -> Path:
    """Writes arrays and card in the newest format of their kind. Saving what was so loaded gives the same bytes. Raises
    for a name that says another kind of file, over which it would be written, or for which others would take it.
    """
    place = place_of(path)
    ends = place.suffix.lower()
    if ends in OTHERS:
        raise DemurError(
            f"{place} for a demur {kind} file",
            "a name that ends in .safetensors",
            f"for example: {place.with_suffix('.safetensors')}",
        )
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    whole = dict(card) | {"kind": kind, "format": FORMATS[kind][-1]}
    whole["sha256"] = _digest(arrays, whole)
    return write(path, to_bytes(arrays, metadata={"demur": json.dumps(whole, sort_keys=True, ensure_ascii=False)}))


def load(path: str | Path, kind: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and card of a file that :func:`save` wrote. Raises for a missing, broken, foreign or changed file."""
    source = place_of(path)
    if source.is_dir():
        raise DemurError(f"{source} is a folder", f"a demur {kind} file", "name the file in it")
    if not source.is_file():
        raise DemurError(f"no file {source}", f"a demur {kind} file", f"make one: {_MAKE.get(kind, 'demur --help')}")
    if not _begins_as_one(source):
        raise DemurError(f"{source} is no file that demur writes", f"a demur {kind} file", "name another file")
    with reading(source, kind):
        with safe_open(source, framework="np") as file:
            card = json.loads((file.metadata() or {}).get("demur", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if card.get("kind") != kind:
            raise DemurError(
                f"{source} holds {card.get('kind', 'no demur artefact')!r}", repr(kind), "name another file"
            )
        if card.get("format") not in FORMATS[kind]:
            raise DemurError(
                f"{source} has format {card.get('format')}",
                f"format {' or '.join(map(str, FORMATS[kind]))}",
                "make it again, or read it with its demur",
            )
        if card.pop("sha256", None) != _digest(arrays, card):
            raise DemurError(
                f"{source}: arrays and card are not the ones that were written together",
                "an untouched file",
                "make it again",
            )
    del card["kind"], card["format"]
    return arrays, card


def _begins_as_one(path: Path) -> bool:
    """Whether a file begins as a safetensors file does: eight bytes of a length, then JSON. An empty one may have."""
    try:
        with path.open("rb") as file:
            begin = file.read(9)
    except OSError:
        return True  # it is said where the file is read
    return len(begin) < 9 or begin[8:] == b"{"


@contextmanager
def reading(path: str | Path, kind: str) -> Iterator[None]:
    """Whatever goes wrong while a file is understood is one line that names it: a digest can be made anew by hand, so
    that card and arrays may say anything.
    """
    try:
        yield
    except DemurError:
        raise
    except KeyError as error:
        raise _broken(path, kind, f"it lacks {error}") from error
    except (
        SafetensorError, OSError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError,
    ) as error:  # fmt: skip
        raise _broken(path, kind, " ".join(str(error).split())) from error


def _broken(path: str | Path, kind: str, why: str) -> DemurError:
    return DemurError(
        f"{path} is broken ({why[:200]})", f"a whole demur {kind} file", f"make it again: {_MAKE.get(kind, 'demur')}"
    )


def made(cls: type[Made], said: Mapping[str, Any]) -> Made:
    """A dataclass of what a card says. Raises a TypeError for missing or unknown fields and for values of other types,
    numbers that are not finite among them. Lists become tuples.
    """
    hints = get_type_hints(cls)
    for name, value in said.items():
        if name in hints and not _fits(value, hints[name]):
            raise TypeError(f"{name} is {value!r:.60}")
    return cls(
        **{name: tuple(value) if get_origin(hints.get(name)) is tuple else value for name, value in said.items()}
    )


def _fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(each, args[0]) for each in value)
    if isinstance(value, bool) or hint is Any:
        return hint in (bool, Any)
    if hint is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, origin or hint)


_MAKE = {
    "anchors": "demur anchors fit MODEL",
    "guard": "demur guard fit MODEL",
    "trace": "demur watch PROMPT --save FILE",
}


FORMATS: Mapping[str, tuple[int, ...]] = {"anchors": (1,), "guard": (1,), "trace": (1, 2)}
"""By kind, the formats that are read; the last one is written. A kind has a new one when the meaning of what it stores
changes. Traces of format 1, version 0.1.0's, hold a prediction for every step and place.
"""


def _digest(arrays: Arrays, card: Mapping[str, Any]) -> str:
    """sha256 of a card (without this digest) and the arrays that belong to it."""
    digest = hashlib.sha256(json.dumps(card, sort_keys=True, ensure_ascii=False).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
