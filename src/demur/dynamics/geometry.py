"""The shape of signals: planes, class regions and separability, estimated on signals that took no part in the fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from demur.dynamics.rates import Rate, effective
from demur.numbers import signals_of
from demur.types import DemurError

Sigma = Float[NDArray[np.float64], "n T"]
Groups = Mapping[str, Sequence[Any]]
"""The request behind each signal of each class, where several share one: what is fitted on one of them is not held out
from the others.
"""


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
    classes: Mapping[str, Sigma],
    kind: Literal["lda", "pca"] = "lda",
    *,
    groups: Groups | None = None,
    folds: int = 5,
    grid: int = 160,
) -> Plane:
    """Projects classes of signals onto two axes (LDA: arXiv:2602.02600, figure 13). ``groups`` are held out whole.
    Raises for classes of too few signals or groups, and for signals of one step.

    LDA fitted and shown on the same signals separates anything in enough dimensions; hence the folds. Linear
    discriminants are shrunk (Ledoit and Wolf 2004), since neighbouring steps are nearly collinear.
    """
    from sklearn.linear_model import LogisticRegression

    names, x, y, of = _stacked(classes, groups, folds)
    if x.shape[1] < 2:
        raise DemurError("signals of 1 step", "at least 2 for a plane", "generate more steps, or show the values")
    if kind == "pca":
        points = (x - x.mean(axis=0)) @ _widest(x, 2)
    else:
        whole = _discriminants(x, y)
        points = np.empty((len(x), 2))
        for seen, kept in _folds(y, of, folds):
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


def separability(
    classes: Mapping[str, Sigma],
    *,
    groups: Groups | None = None,
    folds: int = 5,
    seed: int = 0,
    resamples: int = 1000,
) -> Separability:
    """Cross-validated: every signal is judged by discriminants fitted without its fold. Raises for classes of too few
    signals or groups.

    The interval is the wider of a bootstrap over signals, which has no width where all are told apart, and of the one
    that Wilson's of each class's recall make for their mean (squared distances add: Zou and Donner 2008). ``groups``
    are held out and drawn whole, and Wilson's intervals are of as many signals as the sample is worth
    (:func:`demur.dynamics.rates.effective`).
    """
    names, x, y, of = _stacked(classes, groups, folds)
    told, between, within = np.empty(len(x), dtype=np.int64), 0.0, 0.0
    for seen, kept in _folds(y, of, folds):
        told[kept] = _lda("lsqr", x[seen], y[seen]).predict(x[kept])
        points = _discriminants(x[seen], y[seen])(x[kept])
        centre = points.mean(axis=0)
        apart, inside = 0.0, 0.0
        present = np.unique(y[kept])  # few groups may leave a class out of a fold
        for k in present:
            mine = points[y[kept] == k]
            apart += len(mine) * float(((mine.mean(axis=0) - centre) ** 2).sum())
            inside += float(((mine - mine.mean(axis=0)) ** 2).sum())
        # As in an analysis of variance: means of equal classes still scatter, by the variance inside for each but one.
        variance = inside / (len(points) - len(present))
        between += apart - (len(present) - 1) * variance
        within += len(points) * variance
    right = told == y
    rng = np.random.default_rng(seed)
    members = [np.nonzero(y == k)[0] for k in range(len(names))]
    if of is None:
        drawn = [np.mean([right[rng.choice(rows, len(rows))].mean() for rows in members]) for _ in range(resamples)]
    else:
        drawn = [_recall_of_drawn(right, members, of, rng) for _ in range(resamples)]
    ends = np.quantile(drawn, [0.025, 0.975])
    rates = [Rate.of(right[rows]) for rows in members]
    accuracy = float(np.mean([rate.value for rate in rates]))
    apart_by = [_interval(right[rows], None if of is None else of[rows]) for rows in members]
    down, up = (
        math.hypot(*(ends_of[i] - rate.value for ends_of, rate in zip(apart_by, rates, strict=True))) / len(rates)
        for i in (0, 1)
    )
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


def _recall_of_drawn(
    right: NDArray[np.bool_], members: Sequence[NDArray[np.int64]], of: NDArray[np.int64], rng: np.random.Generator
) -> float:
    """The mean recall of classes among groups that are drawn with replacement; a class of which none is drawn has no
    say.
    """
    n = int(of.max()) + 1
    times = np.bincount(rng.integers(n, size=n), minlength=n)[of]
    return float(np.mean([np.average(right[rows], weights=times[rows]) for rows in members if times[rows].any()]))


def _interval(right: NDArray[np.bool_], of: NDArray[np.int64] | None) -> tuple[float, float]:
    """Wilson's 95% interval of a class's recall; with groups, of as many signals as they are worth."""
    if of is None or len(np.unique(of)) == len(of):
        return Rate.of(right).interval
    n = effective(right.astype(np.int64), of)
    share, z2 = float(right.mean()), 1.959963984540054**2
    middle, half = share + z2 / (2 * n), math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2)))
    return (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)


def _stacked(
    classes: Mapping[str, Sigma], groups: Groups | None, folds: int
) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64] | None]:
    """Names, signals, and the class and the group of each; no groups where each signal is one of its own."""
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
    y = np.repeat(np.arange(len(counts)), list(counts.values()))
    return tuple(classes), np.concatenate(signals), y, _numbered(counts, groups, folds)


def _numbered(counts: Mapping[str, int], groups: Groups | None, folds: int) -> NDArray[np.int64] | None:
    """A number for each signal's group. Raises for other lengths, and for a class of too few groups to hold out."""
    if groups is None:
        return None
    lengths = {name: len(groups.get(name, ())) for name in counts}
    if lengths != dict(counts):
        raise DemurError(f"groups of {lengths} for signals of {dict(counts)}", "one for each signal", "name them all")
    every = [group for name in counts for group in groups[name]]
    if len(set(every)) == len(every):
        return None
    if few := [name for name in counts if len(set(groups[name])) < 2 * folds]:
        raise DemurError(
            f"signals of {len(set(groups[few[0]]))} requests in the class {few[0]}",
            f"at least {2 * folds}, for {folds} folds", "generate more, or leave the small class out",
        )  # fmt: skip
    number = {group: i for i, group in enumerate(dict.fromkeys(every))}
    return np.array([number[group] for group in every])


def _folds(y: NDArray[np.int64], of: NDArray[np.int64] | None, folds: int) -> Any:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if of is None:
        return StratifiedKFold(folds, shuffle=True, random_state=0).split(y, y)
    return StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(y, y, of)


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
