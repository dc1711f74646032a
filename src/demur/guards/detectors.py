"""Detectors: what a guard holds. Each has seen signals of harmless prompts only, and says how unlike them a signal is.

A detector is a frozen dataclass with a ``name``, a class method ``fit`` and a call. What it keeps to, so that a guard
can hold it, promise something of it and save it:

- scores: one number a row, higher is more anomalous; offline, any order-preserving change of them gives the same guard;
- rows are independent: a row's score does not depend on its neighbours;
- state: its fields are arrays, tuples of arrays, numbers and texts. A file holds these and the name, never a pickle.

Nothing here knows of anchors, thresholds or models. Scoring needs NumPy alone. The file is
long because all detectors but one stand in it, to be compared side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from demur.guards import telling
from demur.guards.conformal import InvalidData, Threshold
from demur.registry import Registry
from demur.types import DemurError, DemurWarning

Signals = Float[NDArray[np.float64], "n T"]
Scores = Float[NDArray[np.float64], "n"]


@runtime_checkable
class Detector(Protocol):
    """A fitted detector. ``logarithmic`` (default False): scores are above 0 and are compared by their logarithms while
    a generation runs, as errors of very different sizes are.
    """

    name: ClassVar[str]

    @classmethod
    def fit(cls, harmless: Signals, *, seed: int = 0) -> Self:
        """Learns from signals of harmless prompts, T values a row. Raises :class:`InvalidData` for too few."""
        ...

    def __call__(self, sigma: Signals) -> Scores:
        """How unlike the harmless signals each row is; higher is more anomalous."""
        ...


Fit = Callable[..., Detector]
"""``fit(harmless, seed=0)``: a detector's class method, or one with settings of its own (``functools.partial``)."""


def scored(detector: Detector, sigma: Signals) -> Scores:
    """Scores of signals; nan for a row that is not finite, whatever the detector makes of it.

    The detector sees a copy, whose rows lie one behind the other in memory: sums over strides may round otherwise.
    """
    known: NDArray[np.bool_] = np.asarray(np.isfinite(sigma).all(axis=1))
    whole = np.array(sigma, dtype=np.float64, order="C")
    if not known.all():
        whole[~known] = 0.5  # any signal: its score is not used
    try:
        scores = np.asarray(detector(whole))
    except DemurError:
        raise
    except Exception as error:  # whatever somebody else's class raises
        said = " ".join(str(error).split())[:200]
        raise InvalidData(
            f"the detector {detector.name} failed on {len(sigma)} signals ({type(error).__name__}: {said})",
            "one number a row, for unfinished signals too, which hold their last value",
            "mend its __call__",
        ) from error
    if scores.shape != (len(sigma),) or scores.dtype.kind not in "biuf":
        raise InvalidData(
            f"the detector {detector.name} gave {scores.dtype} of shape {scores.shape} for {len(sigma)} signals",
            "one number a row",
            "mend its __call__",
        )
    return np.where(known, scores.astype(np.float64), np.nan)


def fitted(fit: Fit, harmless: Signals, others: Signals, seed: int) -> Detector:
    """A detector that was fitted on some harmless signals and keeps its contract on others. Raises, in one line,
    whatever goes wrong in somebody else's code.
    """
    try:
        made = fit(harmless.copy(), seed=seed)
        if not callable(made) or not isinstance(getattr(made, "name", None), str):
            raise InvalidData(
                f"fit gave a {type(made).__name__}", "a fitted detector, with a name and a call", "mend its fit"
            )
        check(made, others)
    except (DemurError, DemurWarning):  # a warning is raised where whoever runs this makes errors of them
        raise
    except Exception as error:
        raise InvalidData(
            f"the detector failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})",
            "one that can be fitted and called as docs/guard.md says",
            "mend it; the cause is above in Python, and try it on some signals by itself",
        ) from error
    return made


def check(detector: Detector, sigma: Signals) -> None:
    """Raises if scores of some harmless signals are not finite, change when they are asked again, or depend on the rows
    beside them, if the detector would not come back from a file, and if its scores do not tell signals apart
    (:func:`demur.guards.telling.check_telling`, which also warns of what may be a fault).
    """
    some = sigma[:8]
    together = scored(detector, some)
    if not np.isfinite(together).all():
        raise InvalidData(
            f"the detector {detector.name} gives scores that are not finite", "numbers", "look at its fit"
        )

    def near(scores: Scores) -> bool:
        """What float32 rounds is no dependence; what tells signals from each other is the measure."""
        return np.allclose(scores, together, rtol=1e-6, atol=1e-3 * float(np.ptp(together)) + 1e-12)

    if not near(scored(detector, some)):
        raise InvalidData(
            f"the detector {detector.name} gives the same signals other scores when it is asked again",
            "scores that depend on the signal alone",
            "keep no state in __call__, and draw nothing there",
        )
    alone = np.array([scored(detector, some[i : i + 1])[0] for i in range(len(some))])
    if not near(alone):
        raise InvalidData(
            f"the detector {detector.name} scores a signal otherwise in a batch", "rows that are independent",
            "score each row by itself, without means over rows",
        )  # fmt: skip
    if getattr(detector, "logarithmic", False) and (together < 0).any():
        raise InvalidData(
            f"the detector {detector.name} is logarithmic and gives scores below 0", "scores above 0", "leave that out"
        )
    again = restored(type(detector), *state_of(detector))
    if not near(scored(again, some)):
        raise InvalidData(
            f"the detector {detector.name} scores otherwise once it is made of its fields again",
            "all that it has learnt in its fields",
            "look at what its fit keeps elsewhere",
        )
    telling.check_telling(detector.name, partial(scored, detector), sigma)


def check_limit(detector: Detector, sigma: Signals, limit: Threshold) -> None:
    """Raises for a limit, set on harmless signals, that no score can exceed: see
    :func:`demur.guards.telling.check_limit`.
    """
    score = partial(scored, detector)
    telling.check_limit(detector.name, score, sigma.shape[1], score(sigma), limit)


# ---------------------------------------------------------------------------------------------------------------------
# Plain ones


@dataclass(frozen=True, eq=False)
class Mean:
    """1 minus the mean of sigma. It learns nothing: only its threshold is fitted to harmless prompts."""

    name: ClassVar[str] = "mean"
    logarithmic: ClassVar[bool] = True

    @classmethod
    def fit(cls, harmless: Signals, *, seed: int = 0) -> Self:
        """The same, whatever comes."""
        del harmless, seed
        return cls()

    def __call__(self, sigma: Signals) -> Scores:
        """In [0, 1]."""
        return np.asarray(1.0 - sigma.mean(axis=1))


@dataclass(frozen=True, eq=False)
class Last:
    """1 minus sigma at step T: where the whole answer stands. While it is written, where it stands so far.

    With pooled states, sigma at a step is of everything up to it, so that earlier steps are no further evidence.
    """

    name: ClassVar[str] = "last"
    logarithmic: ClassVar[bool] = True

    @classmethod
    def fit(cls, harmless: Signals, *, seed: int = 0) -> Self:
        """The same, whatever comes."""
        del harmless, seed
        return cls()

    def __call__(self, sigma: Signals) -> Scores:
        """In [0, 1]."""
        return np.asarray(1.0 - sigma[:, -1])


@dataclass(frozen=True, eq=False)
class SlidingWindow:
    """1 minus the lowest mean of ``width`` successive steps: a hesitation that is short, and may be anywhere.

    The idea of windows over a trajectory is that of arXiv:2604.07727; this one looks at sigma, not at states.
    """

    width: int = 4
    name: ClassVar[str] = "window"
    logarithmic: ClassVar[bool] = True

    @classmethod
    def fit(cls, harmless: Signals, *, seed: int = 0, width: int = 4) -> Self:
        """The same, whatever comes; the window is cut at T."""
        del seed
        if width < 1:
            raise InvalidData(f"a window of {width} steps", "at least 1", "4 is the default")
        return cls(min(width, harmless.shape[1]))

    def __call__(self, sigma: Signals) -> Scores:
        """In [0, 1]."""
        windows = np.lib.stride_tricks.sliding_window_view(sigma, self.width, axis=1)
        return np.asarray(1.0 - windows.mean(axis=2).min(axis=1))


@dataclass(frozen=True, eq=False)
class Mahalanobis:
    """The squared Mahalanobis distance from the mean harmless signal, by a shrunk covariance (Ledoit and Wolf 2004)."""

    centre: Float[NDArray[np.float64], "T"]
    precision: Float[NDArray[np.float64], "T T"]
    name: ClassVar[str] = "mahalanobis"
    logarithmic: ClassVar[bool] = True

    @classmethod
    def fit(cls, harmless: Signals, *, seed: int = 0) -> Self:
        """Mean and covariance of harmless signals."""
        from sklearn.covariance import LedoitWolf

        del seed
        enough(harmless)
        known = LedoitWolf().fit(harmless)
        return cls(np.asarray(known.location_), np.asarray(known.precision_))

    def __call__(self, sigma: Signals) -> Scores:
        """At least 0, in squared standard deviations."""
        off = sigma - self.centre
        return np.asarray(np.vecdot(np.matvec(self.precision, off), off))


@dataclass(frozen=True, eq=False)
class IsolationForest:
    """How soon random cuts set a signal apart from harmless ones (Liu, Ting and Zhou 2008).

    scikit-learn grows the trees; they are kept as arrays, one row a tree, and read by NumPy, so that a guard needs
    neither scikit-learn nor a pickle. ``feature`` is -1 in leaves; ``depth`` is what a leaf adds to a path's length.
    """

    centre: Float[NDArray[np.float64], "T"]
    scale: Float[NDArray[np.float64], "T"]
    feature: Int[NDArray[np.int32], "trees nodes"]
    cut: Float[NDArray[np.float64], "trees nodes"]
    left: Int[NDArray[np.int32], "trees nodes"]
    right: Int[NDArray[np.int32], "trees nodes"]
    depth: Float[NDArray[np.float64], "trees nodes"]
    expected: float
    name: ClassVar[str] = "isolation-forest"

    @classmethod
    def fit(cls, harmless: Signals, *, seed: int = 0) -> Self:
        """A hundred trees on standardised harmless signals."""
        from sklearn.ensemble import IsolationForest as Forest

        enough(harmless)
        centre, scale = harmless.mean(axis=0), harmless.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        grown = Forest(random_state=seed).fit((harmless - centre) / scale)
        trees = [estimator.tree_ for estimator in grown.estimators_]
        nodes = max(tree.node_count for tree in trees)
        feature, left, right = (np.full((len(trees), nodes), -1, dtype=np.int32) for _ in range(3))
        cut, depth = (np.zeros((len(trees), nodes)) for _ in range(2))
        for i, (tree, columns) in enumerate(zip(trees, grown.estimators_features_, strict=True)):
            n, inner = tree.node_count, tree.children_left >= 0
            feature[i, :n] = np.where(inner, columns[np.maximum(tree.feature, 0)], -1)
            cut[i, :n], left[i, :n], right[i, :n] = tree.threshold, tree.children_left, tree.children_right
            level = np.zeros(n)
            for node in range(n):  # parents come before their children
                if inner[node]:
                    level[[tree.children_left[node], tree.children_right[node]]] = level[node] + 1
            depth[i, :n] = np.where(inner, 0.0, level + _path_length(tree.n_node_samples))
        expected = float(_path_length(np.array([grown.max_samples_]))[0])
        return cls(centre, scale, feature, cut, left, right, depth, expected)

    @cached_property
    def height(self) -> int:
        """Steps from a root to the deepest leaf."""
        inner = self.feature >= 0
        level = np.zeros(inner.shape, dtype=np.int64)
        trees = np.arange(len(inner))
        for node in range(inner.shape[1]):  # parents come before their children
            for children in (self.left[:, node], self.right[:, node]):
                to, of = children[inner[:, node]], trees[inner[:, node]]
                level[of, to] = level[of, node] + 1
        return int(level.max())

    def __call__(self, sigma: Signals) -> Scores:
        """2^-(mean path length / expected one): in (0, 1), near 1 for what is set apart at once."""
        x = ((sigma - self.centre) / self.scale).astype(np.float32).astype(np.float64)  # what the trees were grown on
        trees, rows = np.arange(len(self.feature)), np.arange(len(x))[:, None]
        at = np.zeros((len(x), len(trees)), dtype=np.int64)
        for _ in range(self.height):
            feature = self.feature[trees, at]
            goes_left = x[rows, np.maximum(feature, 0)] <= self.cut[trees, at]
            following = np.where(goes_left, self.left[trees, at], self.right[trees, at])
            at = np.where(feature >= 0, following, at)
        paths = self.depth[trees, at].mean(axis=1)
        return np.asarray(2.0 ** (-paths / self.expected))


def _path_length(n: NDArray[Any]) -> Float[NDArray[np.float64], "k"]:
    """The mean path length of a search that fails in a binary tree of n samples (Liu et al. 2008, equation 1)."""
    n = np.asarray(n, dtype=np.float64)
    more = np.maximum(n, 3.0)
    long = 2.0 * (np.log(more - 1.0) + np.euler_gamma) - 2.0 * (more - 1.0) / more
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, long))


def enough(harmless: Signals, least: int = 32) -> None:
    """Raises for fewer than ``least`` signals, and for what is no array of finite numbers, signals by steps."""
    if not isinstance(harmless, np.ndarray) or harmless.ndim != 2 or harmless.dtype.kind not in "fiu":
        shape = getattr(harmless, "shape", None)
        came = f"signals of shape {tuple(shape)}" if shape is not None else f"a {type(harmless).__name__}"
        raise InvalidData(came, "an array of numbers, signals by steps", "np.asarray(...), one signal a row")
    if not np.isfinite(harmless).all():
        raise InvalidData("signals that are not finite", "finite values", "leave these generations out")
    if len(harmless) < least:
        raise InvalidData(
            f"{len(harmless)} signals to fit on (n_samples = {len(harmless)})",
            f"at least {least}; the paper has 1,200",
            "use more harmless prompts, or lower min_samples",
        )


# ---------------------------------------------------------------------------------------------------------------------
# By name, and from files

DETECTORS = Registry(
    kind="detector",
    group="demur.detectors",
    own={
        "autoencoder": "demur.guards.autoencoder:Autoencoder",
        "isolation-forest": "demur.guards.detectors:IsolationForest",
        "last": "demur.guards.detectors:Last",
        "mahalanobis": "demur.guards.detectors:Mahalanobis",
        "mean": "demur.guards.detectors:Mean",
        "window": "demur.guards.detectors:SlidingWindow",
    },
)
"""Detectors by name."""


def named(name: str, *, anywhere: bool = True) -> type[Detector]:
    """A detector's class by name: one of :data:`DETECTORS`, or ``module:Class``, if ``anywhere``. A file can name
    anything, so files are read without ``anywhere``.

    Raises for a name that is none of these, and for a class that is no detector.
    """
    if name not in DETECTORS and not anywhere:
        then = "install the package that registers it, or say where its class is: --detector module:Class, "
        then += "Guard.load(path, detector=...)"
        raise DemurError(f"detector {name!r:.80}, which no package here has", ", ".join(DETECTORS), then)
    found = DETECTORS.get(name)
    if not (isinstance(found, type) and callable(getattr(found, "fit", None)) and "__call__" in dir(found)):
        raise DemurError(f"{name!r} is no detector", "a class with fit and __call__", "see docs/extending.md")
    if not (isinstance(called := getattr(found, "name", None), str) and called.isprintable() and called.strip()):
        raise DemurError(f"the detector {name!r}, whose name is {called!r:.80}", "a text", "see docs/extending.md")
    return found


def name_of(cls: type[Detector]) -> str:
    """The name under which :func:`named` finds a detector's class again."""
    return DETECTORS.name_of(cls)


def state_of(detector: Detector) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """A detector as arrays and a card of what JSON can hold."""
    arrays: dict[str, NDArray[Any]] = {}
    card: dict[str, Any] = {"name": name_of(type(detector)), "tuples": [], "fields": {}}
    if not hasattr(detector, "__dataclass_fields__"):
        raise InvalidData(f"the detector {detector.name}, a {type(detector).__name__}", "a dataclass", "make it one")
    for field in fields(detector):  # type: ignore[arg-type]
        value = getattr(detector, field.name)
        value = value.item() if isinstance(value, np.generic) else value
        if _kept(value):
            arrays[field.name] = value
        elif isinstance(value, tuple) and value and all(_kept(part) for part in value):
            card["tuples"].append(field.name)
            arrays |= {f"{field.name}/{i}": part for i, part in enumerate(value)}
        elif _plain(value):
            card["fields"][field.name] = list(value) if isinstance(value, tuple) else value
        else:
            what = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
            raise InvalidData(
                f"the field {field.name} of the detector {detector.name} holds a {what}",
                "an array of numbers, a tuple of such, a number, a text, or a tuple of numbers and texts",
                "keep what it has learnt in such fields",
            )
    return arrays, card


def _kept(value: Any) -> bool:
    """Whether it is an array that a file can hold."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.dtype.isnative


def _plain(value: Any) -> bool:
    """Whether it is what JSON can hold."""
    if isinstance(value, tuple | list):
        return all(_plain(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str)


def restored(cls: type[Detector], arrays: Mapping[str, NDArray[Any]], card: Mapping[str, Any]) -> Detector:
    """The detector that :func:`state_of` took apart. Raises if the class has other fields."""
    values: dict[str, Any] = {name: array for name, array in arrays.items() if "/" not in name}
    for name in card["tuples"]:
        count = sum(key.startswith(f"{name}/") for key in arrays)
        values[name] = tuple(arrays[f"{name}/{i}"] for i in range(count))
    values |= {name: tuple(value) if isinstance(value, list) else value for name, value in card["fields"].items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise DemurError(
            f"a {card['name']} with the fields {', '.join(values) or 'none'} ({error})",
            "those of the detector's class",
            "fit the guard again: demur guard fit",
        ) from error
