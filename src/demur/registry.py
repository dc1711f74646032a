"""Parts by name: ours, those of installed packages, and any class as ``module:Class``."""

from __future__ import annotations

import difflib
import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping
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
    code runs: take no recipe with such a name from somebody whose code you would not run.
    """

    kind: str
    group: str
    own: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        """All names: ours in their order, then those of packages."""
        return iter([*self.own, *sorted(self.packaged)])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self.own or name in self.packaged)

    @cached_property
    def packaged(self) -> Mapping[str, metadata.EntryPoint]:
        """Entry points of installed packages. A name of ours is ours, whatever a package says."""
        from importlib import metadata  # here: it takes longer to load than all of this package's names

        points = metadata.entry_points(group=self.group)
        return {point.name: point for point in points if point.name not in self.own}

    def __getitem__(self, name: str) -> Any:
        """As :meth:`get`."""
        return self.get(name)

    def knows(self, name: str) -> bool:
        """Whether a name may stand for a part: one of :meth:`__iter__`, or of the form ``module:Class``."""
        return name in self or is_path(name)

    def get(self, name: str) -> Any:
        """What stands behind a name. Raises for one that is unknown, and for what can not be imported."""
        if name in self.own:
            return imported(self.own[name], self.kind)
        if name in self.packaged:
            point = self.packaged[name]
            try:
                return point.load()
            except Exception as error:  # whatever a package's own code raises
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
        except Exception as error:  # whatever somebody else's class raises
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
        for name in self:
            try:
                yield name, self.get(name)
            except DemurError as error:
                if name in self.own:
                    raise
                warnings.warn(f"left out: {error.came}", DemurWarning, stacklevel=2)

    def name_of(self, part: Any) -> str:
        """The name under which :meth:`get` finds a class or function again."""
        path = f"{part.__module__}:{part.__qualname__}"
        registered = {point.value: name for name, point in self.packaged.items()}
        return next((name for name, own in self.own.items() if own == path), registered.get(path, path))


def is_path(name: str) -> bool:
    """Whether a name is of the form ``module:Class``."""
    module, _, attribute = name.partition(":")
    return bool(attribute) and all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))


def imported(path: str, kind: str) -> Any:
    """What ``module:name`` names, also of a module in the current folder. Raises where there is none."""
    module_name, _, attribute = path.partition(":")
    try:
        if _lies_here(module_name) and str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # last, so that no file in a folder hides an installed module
            importlib.invalidate_caches()
        part: Any = importlib.import_module(module_name)
    except Exception as error:  # whatever the module's own code raises
        raise _broken(f"{kind} {path!r}", error) from error
    for name in attribute.split("."):
        if not hasattr(part, name):
            known = [other for other in vars(part) if not other.startswith("_")]
            raise DemurError(f"{kind} {path!r}{near(name, known)}", f"a class or function of {module_name}", "mend it")
        part = getattr(part, name)
    return part


def near(name: str, known: Any) -> str:
    """``; did you mean ...?`` where one of the known names is like it; else nothing."""
    matches = difflib.get_close_matches(str(name), [str(other) for other in known], n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def _lies_here(module: str) -> bool:
    top = Path.cwd() / module.partition(".")[0]
    return top.is_dir() or top.with_suffix(".py").is_file()


def _broken(what: str, error: Exception) -> DemurError:
    said = " ".join(str(error).split())[:160]
    return DemurError(
        f"{what} could not be imported ({type(error).__name__}: {said})", "a module that can be imported", "mend it"
    )
