"""The shape of signals: planes, class regions and separability, estimated on signals that took no part in the fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from demur.dynamics.rates import Rate
from demur.numbers import signals_of
from demur.types import DemurError

Sigma = Float[NDArray[np.float64], "n T"]


@dataclass(frozen=True, eq=False)
class Plane:
    """Signals on two axes, and the regions of a linear classifier there.

    ``points`` are held-out coordinates for ``lda``: each signal is projected by axes that were fitted without its fold
    and aligned with the axes of all. ``regions`` are class indices on the grid ``x`` by ``y``.
    """

    kind: Literal["lda", "pca"]
    names: tuple[str, ...]
    labels: Int[NDArray[np.int64], "n"]
    points: Float[NDArray[np.float64], "n 2"]
    x: Float[NDArray[np.float64], "g"]
    y: Float[NDArray[np.float64], "g"]
    regions: Int[NDArray[np.int64], "g g"]


def plane(
    classes: Mapping[str, Sigma], kind: Literal["lda", "pca"] = "lda", *, folds: int = 5, grid: int = 160
) -> Plane:
    """Projects classes of signals onto two axes (LDA: arXiv:2602.02600, figure 13). Raises for classes too small
    and for signals of one step.

    LDA fitted and shown on the same signals separates anything in enough dimensions; hence the folds. Linear
    discriminants are shrunk (Ledoit and Wolf 2004), since neighbouring steps are nearly collinear.
    """
    from sklearn.linear_model import LogisticRegression

    names, x, y = _stacked(classes, folds)
    if x.shape[1] < 2:
        raise DemurError("signals of 1 step", "at least 2 for a plane", "generate more steps, or show the values")
    if kind == "pca":
        points = (x - x.mean(axis=0)) @ _widest(x, 2)
    else:
        whole = _discriminants(x, y)
        points = np.empty((len(x), 2))
        for seen, kept in _folds(y, folds):
            axes = _discriminants(x[seen], y[seen])
            # Signs and, in two dimensions, the rotation of axes are free: turn this fold's onto everybody's.
            turn = _rotation(axes(x[seen]), whole(x[seen]))
            points[kept] = axes(x[kept]) @ turn
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.06 * (high - low) + 1e-9
    xs, ys = (np.linspace(low[i] - margin[i], high[i] + margin[i], grid) for i in (0, 1))
    places = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    spread = points.std(axis=0) + 1e-12
    regions = LogisticRegression(max_iter=500).fit(points / spread, y).predict(places / spread)
    return Plane(kind, names, y, points, xs, ys, regions.reshape(grid, grid))


@dataclass(frozen=True)
class Separability:
    """How well classes of signals can be told apart by a linear rule on signals it has not seen.

    ``accuracy`` in [0, 1] is the mean recall over classes (chance: 1 / classes); ``low`` and ``high`` its 95%
    interval; ``recall`` by class. ``ratio`` is the held-out Fisher ratio: scatter between class means over scatter
    within, along the fitted axes, less what means of so few signals scatter by themselves. Without a difference it is 0
    on average, and so may be below; of different classes that do not scatter at all it is inf.
    """

    accuracy: float
    low: float
    high: float
    recall: Mapping[str, float]
    ratio: float
    n: int


def separability(classes: Mapping[str, Sigma], *, folds: int = 5, seed: int = 0, resamples: int = 1000) -> Separability:
    """Cross-validated: every signal is judged by discriminants fitted without its fold. Raises for classes too
    small.

    The interval is the wider of a bootstrap over signals, which has no width where all are told apart, and of the one
    that Wilson's of each class's recall make for their mean (squared distances add: Zou and Donner 2008).
    """
    names, x, y = _stacked(classes, folds)
    told, between, within = np.empty(len(x), dtype=np.int64), 0.0, 0.0
    for seen, kept in _folds(y, folds):
        told[kept] = _lda("lsqr", x[seen], y[seen]).predict(x[kept])
        points = _discriminants(x[seen], y[seen])(x[kept])
        centre = points.mean(axis=0)
        apart, inside = 0.0, 0.0
        for k in range(len(names)):
            mine = points[y[kept] == k]
            apart += len(mine) * float(((mine.mean(axis=0) - centre) ** 2).sum())
            inside += float(((mine - mine.mean(axis=0)) ** 2).sum())
        # As in an analysis of variance: means of equal classes still scatter, by the variance inside for each but one.
        variance = inside / (len(points) - len(names))
        between += apart - (len(names) - 1) * variance
        within += len(points) * variance
    right = told == y
    rng = np.random.default_rng(seed)
    members = [np.nonzero(y == k)[0] for k in range(len(names))]
    drawn = [np.mean([right[rng.choice(rows, len(rows))].mean() for rows in members]) for _ in range(resamples)]
    ends = np.quantile(drawn, [0.025, 0.975])
    rates = [Rate.of(right[rows]) for rows in members]
    accuracy = float(np.mean([rate.value for rate in rates]))
    down, up = (math.hypot(*(rate.interval[i] - rate.value for rate in rates)) / len(rates) for i in (0, 1))
    low, high = min(float(ends[0]), accuracy - down), max(float(ends[1]), accuracy + up)
    ratio = between / within if within else math.inf if between else 0.0
    return Separability(accuracy, low, high, {n: r.value for n, r in zip(names, rates, strict=True)}, ratio, len(x))


@dataclass(frozen=True, eq=False)
class Bands:
    """A class of signals over the steps: its median and the quantiles on both sides of it."""

    name: str
    n: int
    low: Float[NDArray[np.float64], "T"]
    median: Float[NDArray[np.float64], "T"]
    high: Float[NDArray[np.float64], "T"]


def bands(classes: Mapping[str, Sigma], inside: float = 0.8) -> list[Bands]:
    """Quantile bands that hold the share ``inside`` of each class at each step; empty classes are left out. Raises for
    signals that are not finite.
    """
    edge = (1 - inside) / 2
    return [
        Bands(name, len(sigma), *np.quantile(sigma, [edge, 0.5, 1 - edge], axis=0))
        for name, sigma in ((name, signals_of(of)) for name, of in classes.items() if _count(of) != 0)
    ]


# ---------------------------------------------------------------------------------------------------------------------


def _count(sigma: Any) -> int:
    """How many signals there are; -1 for what has no length, which is no signal."""
    try:
        return len(sigma)
    except TypeError:
        return -1


def _stacked(
    classes: Mapping[str, Sigma], folds: int
) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.int64]]:
    counts = {name: _count(sigma) for name, sigma in classes.items()}
    if len(counts) < 2 or min(counts.values()) < 2 * folds:
        raise DemurError(
            f"classes of {', '.join(f'{name} {n}' for name, n in counts.items()) or 'nothing'}",
            f"two or more classes of at least {2 * folds} signals, for {folds} folds",
            "generate more, or leave the small class out",
        )
    signals = [signals_of(sigma) for sigma in classes.values()]
    if len({sigma.shape[1] for sigma in signals}) > 1:
        raise DemurError(
            f"signals of {', '.join(str(sigma.shape[1]) for sigma in signals)} steps",
            "equally many",
            "cut all at the same T (demur.dynamics.held)",
        )
    return tuple(classes), np.concatenate(signals), np.repeat(np.arange(len(counts)), list(counts.values()))


def _folds(y: NDArray[np.int64], folds: int) -> Any:
    from sklearn.model_selection import StratifiedKFold

    return StratifiedKFold(folds, shuffle=True, random_state=0).split(y, y)


class _Shrunk:
    """Ledoit and Wolf's covariance of standardised columns, as scikit-learn's ``shrinkage="auto"`` has it, and a ridge.

    Saturated signals, a class at 0 and one at 1, scatter nowhere; without the ridge there is nothing to invert.
    """

    covariance_: Float[NDArray[np.float64], "T T"]

    def fit(self, x: Sigma) -> _Shrunk:
        from sklearn.covariance import ledoit_wolf

        spread = x.std(axis=0)
        spread[spread < 1e-12] = 1.0
        made = ledoit_wolf((x - x.mean(axis=0)) / spread, assume_centered=True)[0]
        self.covariance_ = made * np.outer(spread, spread) + 1e-9 * np.eye(x.shape[1])
        return self


def _lda(solver: str, x: Sigma, y: Int[NDArray[np.int64], "n"]) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver=solver, covariance_estimator=_Shrunk()).fit(x, y)


def _discriminants(x: Sigma, y: Int[NDArray[np.int64], "n"]) -> Any:
    """A map of signals onto two discriminant axes; with two classes the second is the widest direction across."""
    with np.errstate(invalid="ignore"):  # its explained variance is 0 / 0 where all signals are one; the axes are not
        lda = _lda("eigen", x, y)
    axes = np.asarray(lda.scalings_)[:, : min(2, len(np.unique(y)) - 1)]
    centre = x.mean(axis=0)
    if axes.shape[1] < 2:
        rest = x - centre
        unit = axes[:, :1] / np.linalg.norm(axes[:, :1])
        axes = np.concatenate([axes, _widest(rest - rest @ unit @ unit.T, 1)], axis=1)

    def onto(signals: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = (signals - centre) @ axes
        return found

    return onto


def _widest(x: Sigma, k: int) -> Float[NDArray[np.float64], "T k"]:
    """The first k principal axes; 0 where no signal differs from another."""
    from sklearn.decomposition import PCA

    if np.ptp(x, axis=0).max() < 1e-9:
        return np.zeros((x.shape[1], k))
    axes: Float[NDArray[np.float64], "T k"] = PCA(k).fit(x).components_.T
    return axes


def _rotation(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The orthogonal map that brings one set of points closest to another (Schoenemann 1966)."""
    from scipy.linalg import orthogonal_procrustes

    turn: NDArray[np.float64] = orthogonal_procrustes(mine, theirs)[0]
    return turn
