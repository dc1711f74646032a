"""A device that is not there: tensors that say they live elsewhere, computed on the CPU, with an account of what a real
accelerator would have waited for.

Two mistakes cost most on an accelerator, and neither shows on a CPU: an operation of tensors on two devices, which
fails, and a host that asks the device for a value at every turn, which makes both wait. Both are seen here, without an
accelerator and with the bits of the CPU.

The file is long because what a call may do on a device is one list: make, move, read, mix.
"""

from __future__ import annotations

import copy
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, get_default_nowrap_functions
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")

DEVICE = torch.device("meta")
"""What the tensors say of themselves. It is the one device whose name needs no driver."""

WAITS = frozenset(
    {
        "_local_scalar_dense", "nonzero", "masked_select", "equal", "multinomial", "bincount", "unique_dim",
        "_unique", "_unique2", "unique_consecutive", "_linalg_check_errors",
    }
)  # fmt: skip
"""Operations whose result, or its shape, the host has to read."""
_STORAGE = frozenset({"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "lift_fresh", "set_"})


@dataclass(frozen=True)
class Counts:
    """What was asked of the device: operations ``in_network`` (inside a module's call) and ``outside`` it, ``waits`` of
    the host for the device, and ``copies`` from the host to the device.
    """

    in_network: int = 0
    outside: int = 0
    waits: int = 0
    copies: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(self.all, other.all, strict=True)))

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(a - b for a, b in zip(self.all, other.all, strict=True)))

    @property
    def all(self) -> tuple[int, int, int, int]:
        """The four numbers."""
        return self.in_network, self.outside, self.waits, self.copies


@dataclass
class PretendDevice:
    """A pretend accelerator; see the module. Used as a context, in which its tensors are made and counted::

        with PretendDevice() as device:
            placed = device.place(model)
            for step in device.steps(sampler(placed, placed.canvas(prompts, 32), seeded(0, 4))):
                ...
        print(device.table())

    A tensor on the device and one on the host in one operation raise a RuntimeError that names the operation and both
    sides, as an accelerator does; a number (a tensor without dimensions) may come from either. ``by_line`` counts what
    each line asked for, by ``(file:line, kind)``, where a line is the innermost one that is not of a library; of
    demur's own, always. It is the CPU that computes, by its own kernels: results are its bits. What it does not know is
    how long anything takes.
    """

    total: Counts = field(default_factory=Counts)
    each: list[Counts] = field(default_factory=list)
    by_line: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __enter__(self) -> PretendDevice:
        self._open = ExitStack()
        self._open.enter_context(_Operations(self))
        self._open.enter_context(_Calls(self))
        return self

    def __exit__(self, *problem: object) -> None:
        self._open.close()

    def place(self, thing: T) -> T:
        """A copy of a tensor, a network or a model of demur's on the device; what was given stays where it is. Of a
        network, parameters and buffers move, as with ``.to``.
        """
        if isinstance(thing, Tensor):
            return _moved(thing)  # type: ignore[return-value]
        if isinstance(thing, torch.nn.Module):
            return _moved_net(copy.deepcopy(thing))  # type: ignore[return-value]
        if is_dataclass(thing) and hasattr(thing, "net"):
            return replace(thing, net=self.place(thing.net))  # type: ignore[type-var]
        raise TypeError(f"a {type(thing).__name__} can't be placed: give a tensor, a network or a model")

    def steps(self, steps: Iterable[T]) -> Iterator[T]:
        """The same steps; ``each`` then holds what each of them took, and what was done with it before the next."""
        before, waiting = self.total, iter(steps)
        for step in waiting:
            yield step
            self.each.append(self.total - before)
            before = self.total

    def clear(self) -> None:
        """Counts from nothing again."""
        self.total = Counts()
        self.each.clear()
        self.by_line.clear()

    def table(self, kinds: Iterable[str] = ("waits", "copies"), most: int = 20) -> str:
        """The lines that asked for most, as a Markdown table; ``kinds`` are names of :class:`Counts`."""
        found = [(n, line, kind) for (line, kind), n in self.by_line.items() if kind in set(kinds)]
        rows = [f"| {line} | {kind} | {n} |" for n, line, kind in sorted(found, key=lambda x: (-x[0], x[1:]))[:most]]
        return "\n".join(["| line | kind | times |", "| --- | --- | --: |", *rows])

    def count(self, kind: str) -> None:
        """One more of a kind, at the line that is running."""
        line, in_network = _line()
        if kind == "operations":
            kind = "in_network" if in_network else "outside"
        self.total += Counts(**{kind: 1})
        self.by_line[line, kind] += 1


class OnDevice(Tensor):
    """A tensor that says it is on the device. Its memory is the CPU's."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Outside the device's context: the same, uncounted."""
        return _called(None, func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """Sees every call of torch: where its tensors are, and where its result goes."""

    def __init__(self, device: PretendDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(self.device, func, args, kwargs or {})


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation that a call is made of. One is the device's if a call on the device is running."""

    def __init__(self, device: PretendDevice) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _running[-1]:
            name = func._schema.name.partition("::")[2]
            if name in WAITS or _reads_a_mask(name, args) or (name == "repeat_interleave" and len(args) < 2):
                self.device.count("waits")
            if not (func.is_view or name in _STORAGE):  # these start nothing
                self.device.count("operations")
            if name == "histc" and not args[0].is_floating_point():  # a kernel for whole numbers that CPUs lack
                return func(args[0].float(), *args[1:], **(kwargs or {})).to(args[0].dtype)
        return func(*args, **(kwargs or {}))


_running: list[bool] = [False]
"""Whether what is running now runs on the device: the last entry."""


def _called(device: PretendDevice | None, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """A call of torch, as an accelerator would take it."""
    tensors = list(_tensors((args, kwargs)))
    here = [t for t in tensors if isinstance(t, OnDevice)]
    name = getattr(func, "__name__", str(func))
    if name == "__get__" and here and func in _GETTERS:
        return _GETTERS[func]
    to, args, kwargs = _destination(name, args, kwargs)
    if not here and to is not DEVICE:
        return _run(func, args, kwargs, False)

    def count(kind: str) -> None:
        if device is not None:
            device.count(kind)

    if not here:  # from the host to the device, or made there
        if tensors or name in ("tensor", "as_tensor", "asarray"):
            out = _moved(_run(func, args, kwargs, False))
            if out.numel():  # nothing is copied of what is empty
                count("copies")
            return out
        if isinstance(kwargs.get("generator"), torch.Generator):
            raise RuntimeError(f"mixed devices in {name}: a generator on the host for a tensor on the device")
        return _moved(_run(func, args, kwargs, device is not None))
    if name in ("numpy", "__array__"):
        raise TypeError("a tensor on the device can't become an array: use cpu() first")
    if name in ("cpu", "tolist") or (to is not None and to is not DEVICE):
        count("waits")
        out = _run(func, args, kwargs, False)
        return _on_host(out) if isinstance(out, Tensor) else out
    _check_sides(name, args, kwargs, count)
    out = _run(func, args, kwargs, True)
    return out if func in get_default_nowrap_functions() else _wrapped(out)


def _run(func: Any, args: Any, kwargs: dict[str, Any], on_device: bool) -> Any:
    _running.append(on_device)
    try:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)
    finally:
        _running.pop()


def _check_sides(name: str, args: Any, kwargs: dict[str, Any], count: Any) -> None:
    """Raises for tensors of two devices where torch does; counts the copies where it makes them by itself."""
    if name in ("__getitem__", "__setitem__", "index_put_", "index_put", "index"):
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        if any(isinstance(i, list | np.ndarray) or (isinstance(i, Tensor) and _foreign(i)) for i in index):
            count("copies")
        by_tensor = any(isinstance(i, Tensor | list | np.ndarray) for i in index)
        value = args[2] if len(args) > 2 else None
        if not isinstance(value, Tensor) or not _foreign(value):
            return
        if not by_tensor or value.ndim == 0:
            count("copies")
            return
    elif name == "copy_":
        count("copies" if isinstance(args[0], OnDevice) else "waits") if any(_foreign(t) for t in args[:2]) else None
        return
    elif name == "new_tensor":
        count("copies")
    strict = name in ("cat", "concat", "stack")
    sides = list(_tensors((args, kwargs)))
    if any(_foreign(t) and (t.ndim > 0 or strict) for t in sides):
        said = ", ".join(f"{'host' if _foreign(t) else 'device'} {tuple(t.shape)}" for t in sides)
        raise RuntimeError(f"mixed devices in {name}: {said}")


def _foreign(tensor: Tensor) -> bool:
    return not isinstance(tensor, OnDevice)


def _destination(name: str, args: Any, kwargs: dict[str, Any]) -> tuple[torch.device | None, Any, dict[str, Any]]:
    """The device that a call names, if any, and the call with the CPU in place of ours."""
    to: torch.device | None = None
    if kwargs.get("device") is not None:
        to = torch.device(kwargs["device"])
        kwargs = kwargs | {"device": "cpu"} if to == DEVICE else kwargs
    elif name == "to" and len(args) > 1:
        if isinstance(args[1], Tensor):
            to = DEVICE if isinstance(args[1], OnDevice) else args[1].device
        elif isinstance(args[1], str | torch.device):
            to = torch.device(args[1])
            args = (args[0], "cpu", *args[2:]) if to == DEVICE else args
    return (DEVICE if to == DEVICE else to), args, kwargs


def _moved(tensor: Tensor) -> Tensor:
    """A copy on the device."""
    return tensor.detach().clone().as_subclass(OnDevice).requires_grad_(tensor.requires_grad)


def _on_host(tensor: Tensor) -> Tensor:
    """A copy on the host, with its history."""
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.as_subclass(Tensor).clone()


def _moved_net(net: torch.nn.Module) -> torch.nn.Module:
    """The network with its parameters and buffers on the device; shared ones stay shared."""
    known: dict[int, Tensor] = {}
    for module in net.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    if id(tensor) not in known:
                        moved = _moved(tensor.detach())
                        wanted = tensor.requires_grad
                        is_weight = isinstance(tensor, torch.nn.Parameter)
                        known[id(tensor)] = torch.nn.Parameter(moved, requires_grad=wanted) if is_weight else moved
                    held[name] = known[id(tensor)]  # type: ignore[assignment]
    return net


def _wrapped(out: Any) -> Any:
    """What a call on the device gives: its tensors are there, too."""
    if isinstance(out, Tensor):
        return out if isinstance(out, OnDevice) else out.as_subclass(OnDevice)
    if isinstance(out, tuple) and hasattr(out, "_fields"):
        return type(out)(*map(_wrapped, out))
    if isinstance(out, tuple) and type(out) is not tuple and not isinstance(out, torch.Size):
        return type(out)(map(_wrapped, out))  # torch.return_types
    if type(out) in (list, tuple):
        return type(out)(map(_wrapped, out))
    return out


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))


def _reads_a_mask(name: str, args: Any) -> bool:
    """Whether places are those of a mask: the host must know how many. To fill them with one number, it need not."""
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return False
    masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
    fills = name != "index" and args[2].numel() == 1 and len(masks) == len([i for i in args[1] if i is not None])
    return bool(masks) and not fills


_GETTERS: dict[Any, Any] = {Tensor.device.__get__: DEVICE, Tensor.is_cpu.__get__: False}  # type: ignore[attr-defined]


def _line() -> tuple[str, bool]:
    """Where in our code something runs, as ``file:line``, and whether inside a module's call."""
    frame, line = sys._getframe(2), ""
    in_network = False
    while frame is not None:
        path = frame.f_code.co_filename
        if not line and (short := _own(path)):
            line = f"{short}:{frame.f_lineno}"
        if frame.f_code.co_name == "_call_impl" and path.endswith("nn/modules/module.py"):
            in_network = True
        if line and in_network:
            break
        frame = frame.f_back  # type: ignore[assignment]
    return line or "?", in_network


@cache
def _own(path: str) -> str:
    """A file as it is named in the table; empty for a library's, and for this one."""
    ours, file = Path(__file__).parents[1], Path(path)
    if path == __file__ or path.startswith("<"):
        return ""
    if file.is_relative_to(ours):
        return str(file.relative_to(ours.parent))
    libraries = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    return "" if any(file.is_relative_to(library) for library in libraries) else file.name
