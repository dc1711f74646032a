"""Laws of imports and files. Imports point downwards, also inside of functions, where they stand for a reason alone."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "demur"

HEAVY = {
    "numpy": "`import demur` loads none",
    "torch": "`import demur` loads none",
    "transformers": "takes seconds",
    "tokenizers": "comes with transformers",
    "safetensors": "loads torch",
    "huggingface_hub": "only for models of the hub",
    "sklearn": "takes a second; scoring needs none",
    "scipy": "takes half a second",
    "rich": "only where something is drawn",
    "packaging": "only for `demur doctor`",
}
"""Packages that are loaded when they are needed, and why."""
EXTRAS = {
    "openai",
    "peft",
    "gguf",
    "matplotlib",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "pandas",
    "pyarrow",
    "ray",
    "yaml",
    "vllm",
    "fastapi",
}
"""Packages that an installation may lack."""
STANDARD = {
    "resource": "Windows has none",
    "fcntl": "Windows has none",
    "socket": "only where the network is asked",
    "urllib": "only where the network is asked",
    "importlib": "only where something is looked for that may be missing",
    "concurrent": "`demur --help` starts no threads",
    "tempfile": "`demur --help` writes nothing",
    "dataclasses": "beside an import of demur's that is heavy",
}
"""Modules of the standard library."""
LAZY = {
    "attacks": "attacks in words load no NumPy; what a translator says is read by judges, which do",
    "ablation": "a study loads torch and scikit-learn",
    "cli": "a command loads what it runs: `demur --help` loads no torch",
    "defenses": "demur.models takes seconds, and most defenses ask no model",
    "engines": "an engine loads its plugins one by one, and the worker's with torch",
    "guards": "a guard judges with NumPy alone; what follows a generation loads torch",
    "organism": "its world needs no torch; training, measuring and anchors do",
    "prompts": "writing loads what files are made with",
    "signals": "anchors are read with NumPy alone; fitting them loads torch",
    "studio": "`demur doctor` looks for packages before it loads them",
    "trace": "frames load pandas",
    "traces": "frames load pandas, and generating loads torch",
}
"""Parts of demur that import others inside of functions, and why. experiment, report, models and samplers do not."""


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def inside_functions(path: Path) -> Iterator[tuple[str, int]]:
    """What a module imports inside of functions, with the lines."""
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    yield from ((name.name, node.lineno) for name in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module == "demur":
                    yield from ((f"demur.{name.name}", node.lineno) for name in node.names)
                elif isinstance(node, ast.ImportFrom):
                    yield str(node.module), node.lineno


@cache
def contracts() -> list[dict[str, list[str]]]:
    """The contracts of layers in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    every = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    return [contract for contract in every if contract["type"] == "layers"]


CONTAINERS = [container for contract in contracts() for container in contract["containers"]]
"""Packages whose modules have an order."""


@cache
def layers(container: str) -> dict[str, int]:
    """The heights of a container's modules: 0 is the highest."""
    (of,) = (contract["layers"] for contract in contracts() if container in contract["containers"])
    return {name.strip(): height for height, layer in enumerate(of) for name in layer.split("|")}


def upwards(importer: str, imported: str, container: str) -> bool:
    """Whether an import points to a higher layer of the container, or to a sibling in its own one."""
    heights = layers(container)
    parts = [name.removeprefix(f"{container}.").split(".")[0] for name in (importer, imported)]
    if not all(name.startswith(f"{container}.") for name in (importer, imported)) or parts[0] == parts[1]:
        return False
    return all(part in heights for part in parts) and heights[parts[1]] <= heights[parts[0]]


def test_no_import_inside_a_function_points_upwards() -> None:
    found = [
        f"{path}:{line} imports {imported}"
        for path in modules()
        for imported, line in inside_functions(path)
        for container in CONTAINERS
        if upwards(name_of(path), imported, container)
    ]
    assert found == []
    assert upwards("demur.guards.guard", "demur.experiment.work", "demur")
    assert upwards("demur.experiment.units", "demur.experiment.work", "demur.experiment")
    assert not upwards("demur.experiment.work", "demur.experiment.units", "demur.experiment")


def test_every_import_inside_a_function_has_a_reason() -> None:
    found = []
    for path in modules():
        own = path.relative_to(SOURCE).with_suffix("").parts[0]
        for imported, line in inside_functions(path):
            top = imported.partition(".")[0]
            allowed = own in LAZY if top == "demur" else top in {*HEAVY, *EXTRAS, *STANDARD}
            if not allowed:
                found.append(f"{path.relative_to(ROOT)}:{line} imports {imported}")
    assert found == []
    assert set(STANDARD) <= set(sys.stdlib_module_names)


def test_code_for_any_world_names_none() -> None:
    """Who it is that lives in a world stands in the registry, and in the lists of models that ship with the package."""
    found = []
    for part in ("experiment", "guards", "report", "attacks", "defenses", "judges", "samplers", "dynamics", "prompts"):
        for path in sorted((SOURCE / part).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
            found += [f"{path}: {name}" for name in names if name == "organism" or str(name).startswith("organism/")]
    assert found == []


PACKAGES = sorted(SOURCE.rglob("__init__.py"))


def is_name_only(node: ast.stmt) -> bool:
    """Whether a statement of an ``__init__.py`` gives names and does nothing: an import, a text, ``__all__``, homes of
    names, their lookup.
    """
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING" and not node.orelse and all(map(is_name_only, node.body))
    if not isinstance(node, ast.Assign):
        return False
    targets, value = ast.unparse(node.targets[0]), ast.unparse(node.value)
    if targets in ("(__getattr__, __dir__)", "__getattr__, __dir__"):
        return value == "looked_up(__name__, _HOMES)"
    if targets == "__all__":
        return value == "list(_HOMES)" or isinstance(ast.literal_eval(node.value), list)
    return targets in ("_HOMES", "__version__") and bool(ast.literal_eval(node.value))


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.parent.name)
def test_a_package_holds_names_only(path: Path) -> None:
    found = [ast.unparse(node) for node in ast.parse(path.read_text(encoding="utf-8")).body if not is_name_only(node)]
    assert found == []


@pytest.mark.parametrize("path", [p for p in PACKAGES if "_HOMES" in p.read_text()], ids=lambda path: path.parent.name)
def test_names_that_are_looked_up_are_those_that_type_checkers_see(path: Path) -> None:
    """Of the same modules, too."""
    tree, package = ast.parse(path.read_text(encoding="utf-8")), name_of(path)
    (seen,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in seen.body if isinstance(node, ast.ImportFrom)]
    homes = {
        name.name: str(node.module).removeprefix(f"{package}.") for node in imports for name in node.names
    }  # fmt: skip
    (given,) = (n for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "_HOMES")
    assert ast.literal_eval(given.value) == homes


LONG = 350
"""Lines of a file that need no reason."""


def test_a_long_file_says_why() -> None:
    found = []
    for path in modules():
        text = path.read_text(encoding="utf-8")
        reason = re.search(r"\blong\s+because\b", ast.get_docstring(ast.parse(text)) or "")
        if (len(text.splitlines()) > LONG) != bool(reason):
            found.append(f"{path.relative_to(ROOT)}: {len(text.splitlines())} lines, reason: {bool(reason)}")
    assert found == []
