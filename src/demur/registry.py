"""Parts by name: ours, those of installed packages, and any class as ``module:Class``."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.types import DemurError, DemurWarning

if TYPE_CHECKING:
    from importlib import metadata


@dataclass(frozen=True, eq=False)
class Registry:
    """The parts of one kind, such as attacks. What stands behind a name is imported when it is asked for.

    ``kind`` is the word for one of them, in errors. ``group`` is where installed packages register theirs (an entry
    point group); ``own`` are ours, each as ``module:name``. Wherever a name is taken, ``module:Class`` is taken too: a
    class that need not be registered, of an installed module or of one in the current folder. It is imported, so its
    code runs: take no recipe with such a name from somebody whose code you would not run. ``reserved`` are names that
    mean something else where a part is named.
    """

    kind: str
    group: str
    own: Mapping[str, str] = field(default_factory=dict)
    reserved: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[str]:
        """All names: ours in their order, then those of packages."""
        return iter([*self.own, *sorted(self.packaged)])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self.own or name in self.packaged)

    @cached_property
    def packaged(self) -> Mapping[str, metadata.EntryPoint]:
        """Entry points of installed packages. A name of ours is ours, whatever a package says; it, and a name that
        could not be written where a part is named, is left out with a warning.
        """
        found: dict[str, metadata.EntryPoint] = {}
        for point in self._points:
            if point.name in self.own or point.name in self.reserved:
                self._left_out(point, "a name of demur's own")
            elif not re.fullmatch(r"\w[\w-]*", point.name):
                self._left_out(point, "a name is letters, digits, - and _")
            else:
                found.setdefault(point.name, point)
        return found

    @cached_property
    def _points(self) -> tuple[metadata.EntryPoint, ...]:
        from importlib import metadata  # here: it takes longer to load than all of this package's names

        return tuple(metadata.entry_points(group=self.group))

    def _left_out(self, point: metadata.EntryPoint, why: str) -> None:
        said = f"left out: {self.kind} {point.name!r} of {_package(point)} ({why}); {point.value} finds it"
        warnings.warn(said, DemurWarning, stacklevel=4)

    def __getitem__(self, name: str) -> Any:
        """As :meth:`get`."""
        return self.get(name)

    def knows(self, name: str) -> bool:
        """Whether a name may stand for a part: one of :meth:`__iter__`, or of the form ``module:Class``."""
        return name in self or is_path(name)

    def get(self, name: str) -> Any:
        """What stands behind a name. Raises for one that is unknown, and for what can not be imported."""
        is_path(name)  # raises for what is no text
        if name in self.own:
            return imported(self.own[name], self.kind)
        if name in self.packaged:
            point = self.packaged[name]
            if others := {
                other.value: other for other in self._points if other.name == name and other.value != point.value
            }:
                several = [point, *others.values()]
                raise DemurError(
                    f"{self.kind} {name!r}, which {' and '.join(_package(one) for one in several)} both register",
                    "one of them",
                    f"name it by module:Class: {' or '.join(one.value for one in several)}",
                )
            try:
                return point.load()
            except (Exception, SystemExit) as error:  # whatever a package's own code raises
                raise _broken(f"{self.kind} {name!r} ({point.value})", error) from error
        if is_path(name):
            part = imported(name, self.kind)
            if not callable(part):
                raise DemurError(f"{self.kind} {name!r}, a {type(part).__name__}", "a class or a function", "mend it")
            return part
        raise DemurError(
            f"{self.kind} {name!r}{near(name, self)}",
            f"{', '.join(self)}, or module:Class",
            "name one of these",
        )

    def make(self, name: str) -> Any:
        """What the part of a name gives without any settings. Raises as :meth:`get`, and for one that can not be made
        so.
        """
        part = self.get(name)
        try:
            return part()
        except DemurError:
            raise
        except (Exception, SystemExit) as error:  # whatever somebody else's class raises
            said = " ".join(str(error).split())[:160]
            raise DemurError(
                f"{self.kind} {name!r} could not be made ({type(error).__name__}: {said})",
                "a class that needs no settings",
                "see docs/extending.md",
            ) from error

    def working(self) -> Iterator[tuple[str, Any]]:
        """All names with what stands behind them. One of a package that can not be imported is left out, with a
        warning: a broken package breaks nobody who does not ask for it.
        """
        yield from self._those(self.get)

    def made(self) -> Iterator[tuple[str, Any]]:
        """All names with what their parts give without settings; left out as by :meth:`working`."""
        yield from self._those(self.make)

    def _those(self, give: Callable[[str], Any]) -> Iterator[tuple[str, Any]]:
        for name in self:
            try:
                yield name, give(name)
            except DemurError as error:
                if name in self.own:
                    raise
                warnings.warn(f"left out: {error.came}", DemurWarning, stacklevel=3)

    def name_of(self, part: Any) -> str:
        """The name under which :meth:`get` finds a class or function again."""
        path = f"{part.__module__}:{part.__qualname__}"
        registered = {point.value: name for name, point in self.packaged.items()}
        return next((name for name, own in self.own.items() if own == path), registered.get(path, path))


def is_path(name: Any) -> bool:
    """Whether a name is of the form ``module:Class``. Raises for what is no text."""
    if not isinstance(name, str):
        came = f"a {type(name).__name__} in the place of a name"
        raise DemurError(came, "a name, or module:Class", "write it as a text")
    module, _, attribute = name.partition(":")
    return bool(attribute) and all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))


def imported(path: str, kind: str) -> Any:
    """What ``module:name`` names, also of a module in the current folder. Raises where there is none."""
    module_name, _, attribute = path.partition(":")
    try:
        if _lies_here(module_name) and str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # last, so that no file in a folder hides an installed module
            importlib.invalidate_caches()
        module: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the module's own code raises
        raise _broken(f"{kind} {path!r}", error) from error
    part = module
    for name in attribute.split("."):
        if not hasattr(part, name):
            known = [other for other in vars(part) if not other.startswith("_")]
            raise DemurError(
                f"{kind} {path!r}{near(name, known)}",
                f"a class or function of {module_name}{_hides(module)}",
                "mend it",
            )
        part = getattr(part, name)
    return part


def near(name: str, known: Any) -> str:
    """``; did you mean ...?`` where one of the known names is like it; else nothing."""
    matches = difflib.get_close_matches(str(name), [str(other) for other in known], n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def _lies_here(module: str) -> bool:
    top = Path.cwd() / module.partition(".")[0]
    return top.is_dir() or top.with_suffix(".py").is_file()


def _hides(module: Any) -> str:
    """Words for a module that is another one than the file, or folder, of its name that lies here."""
    file = getattr(module, "__file__", None)
    if not _lies_here(module.__name__) or (file and Path(file).resolve().is_relative_to(Path.cwd().resolve())):
        return ""
    return f" (which is {file or 'built in'}, and not the one of this folder: give that another name)"


def _package(point: metadata.EntryPoint) -> str:
    """The package that registers something."""
    return f"the package {point.dist.name}" if point.dist is not None else "a package"


def _broken(what: str, error: BaseException) -> DemurError:
    said = " ".join(str(error).split())[:160]
    return DemurError(
        f"{what} could not be imported ({type(error).__name__}: {said})", "a module that can be imported", "mend it"
    )
