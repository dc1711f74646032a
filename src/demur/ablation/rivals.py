"""Rivals of SRI Guard under its own protocol: one anchor set, one harmless fit set, one test set, for all of them.

A rival is a function from a :class:`Setting` to a scorer; scores are higher for what is more anomalous, everywhere.
Those that are not ``supervised`` see harmless prompts and the anchors only. The supervised one sees successful
attacks, never the one it is tested on nor the requests that it is tested on (:func:`demur.ablation.protocol.ablate`),
and is an upper reference, not a competitor. The file is long because all rivals stand in it, side by side; those that
follow a path of states are computed in ``paths``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import logit

from demur.ablation import paths
from demur.ablation.material import LAST, Material, anchored, sigma_of
from demur.guards.detectors import fitted, named, scored
from demur.guards.estimator import SRIGuard
from demur.signals.whitened import fit_whitened
from demur.traces import Key
from demur.types import DemurError

Scores = Float[NDArray[np.float64], "n"]
Scorer = Callable[[Material], Scores]
FIRST: Key = ("first", "generated")
MIDDLE: Key = ("middle", "generated")
PRODUCING: Key = ("last", "producing")
RESPONSE: Key = ("last", "response")
MASKED: Key = ("last", "masked")
CAUSAL_KEYS: tuple[Key, ...] = (LAST, MIDDLE, FIRST, PRODUCING)
"""What the rivals read of a model that writes from left to right."""
CANVAS_KEYS: tuple[Key, ...] = (LAST, MIDDLE, FIRST, RESPONSE, MASKED)
"""What they read of one that sees its whole answer at every step."""


@dataclass(frozen=True, eq=False)
class Setting:
    """What a detector may learn from: answered harmless and refused harmful prompts (anchors), harmless ones to fit on.

    ``harmful`` are all answers to the harmful prompts of the anchors, refused or not (default: the refused ones).
    ``attacked`` and ``controls`` (successful attacks and the same attacks on harmless requests, by attack, without the
    one under test, its kin, and the requests under test) are for supervised rivals only.
    """

    good: Material
    bad: Material
    fit: Material
    seed: int = 0
    harmful: Material | None = None
    attacked: Mapping[str, Material] = field(default_factory=dict)
    controls: Mapping[str, Material] = field(default_factory=dict)

    @property
    def all_harmful(self) -> Material:
        """All answers to the harmful prompts of the anchors."""
        return self.bad if self.harmful is None else self.harmful

    def sigma(self, m: Material, key: Key = LAST) -> Float[NDArray[np.float64], "n T"]:
        """The signal under this setting's anchors."""
        return sigma_of(m, self.good, self.bad, key)


@dataclass(frozen=True)
class Rival:
    """A detector by name: what it looks at, where the idea comes from, and how it is made.

    ``seeded``: its fit begins at random, so that it needs several seeds.
    """

    about: str
    source: str
    make: Callable[[Setting], Scorer]
    needs: tuple[Key, ...] = (LAST,)
    supervised: bool = False
    seeded: bool = False


# ---------------------------------------------------------------------------------------------------------------------
# The signal, seen by an autoencoder


def _autoencoder(setting: Setting, of: Callable[[Material], NDArray[np.float64]]) -> Scorer:
    """SRI Guard's detector on any rows of numbers."""
    detector = SRIGuard(threshold="quantile", alpha=0.01, random_state=setting.seed, calibration=0.1)
    detector.fit(of(setting.fit))
    return lambda m: detector.errors(of(m)) if len(m) else np.empty(0)


def sri(key: Key) -> Callable[[Setting], Scorer]:
    """SRI Guard's detector on sigma of one layer and pooling mode."""
    return lambda setting: _autoencoder(setting, lambda m: setting.sigma(m, key))


def _differences(setting: Setting) -> Scorer:
    """sigma's changes from step to step, after its first value."""

    def of(m: Material) -> NDArray[np.float64]:
        return np.diff(setting.sigma(m), axis=1, prepend=0.5).astype(np.float64)

    return _autoencoder(setting, of)


def _log_ratio(setting: Setting) -> Scorer:
    """The log ratio of distances before the sigmoid, standardised per step: sigma saturates, this does not."""

    def raw(m: Material) -> NDArray[np.float64]:
        sigma = np.clip(setting.sigma(m), 1e-9, 1 - 1e-9)
        return 0.1 * np.log(sigma / (1 - sigma))

    known = raw(setting.fit)
    centre, spread = known.mean(axis=0), known.std(axis=0) + 1e-6
    return _autoencoder(setting, lambda m: np.asarray((raw(m) - centre) / spread, dtype=np.float64))


def _whitened(setting: Setting) -> Scorer:
    """sigma of states whitened by the harmless answers' own scatter (shrunk), so that no loud direction rules
    cosines.
    """
    from sklearn.covariance import LedoitWolf

    from demur.signals import refusal_signal

    states = setting.good.phi[LAST]
    scatter = (states - states.mean(axis=0)).reshape(-1, states.shape[-1])
    covariance = LedoitWolf().fit(scatter).covariance_
    values, vectors = np.linalg.eigh(covariance)
    white = (vectors / np.sqrt(np.maximum(values, 1e-9 * values.max()))) @ vectors.T
    anchors = anchored(setting.good, setting.bad, LAST)
    centre = np.mean(anchors, axis=(0, 1))  # between the two: seen from either of them, its own side would be noise
    good, bad = ((a - centre) @ white for a in anchors)

    def of(m: Material) -> NDArray[np.float64]:
        return refusal_signal((m.phi[LAST] - centre) @ white, good, bad) if len(m) else np.empty((0, len(good)))

    return _autoencoder(setting, of)


def whitened_reading(of: Callable[[NDArray[np.float64]], Scores], key: Key = LAST) -> Callable[[Setting], Scorer]:
    """1 - the whitened signal of anchors, read by a plain statistic: the default guard for causal models, and its
    like.
    """

    def made(setting: Setting) -> Scorer:
        read = fit_whitened(setting.good.phi[key], setting.all_harmful.phi[key])
        return lambda m: 1.0 - of(read(m.phi[key])) if len(m) else np.empty(0)

    return made


def _segments(of: Callable[..., Any], read_off: Callable[..., Scores]) -> Callable[[Setting], Scorer]:
    """How the whitened states of successive windows agree."""

    def made(setting: Setting) -> Scorer:
        good, bad, fit = (m.phi[LAST] for m in (setting.good, setting.all_harmful, setting.fit))
        score = paths.fit_segments(good, bad, fit, of, read_off)
        return lambda m: score(m.phi[LAST]) if len(m) else np.empty(0)

    return made


def _markov(setting: Setting) -> Scorer:
    """How unlikely a path of states is under a hidden Markov model of harmless ones."""
    score = paths.fit_markov(setting.fit.phi[LAST], setting.seed)
    return lambda m: score(m.phi[LAST]) if len(m) else np.empty(0)


def _with_direction(of: Callable[[NDArray[np.float64]], Scores]) -> Callable[[Setting], Scorer]:
    """What the whitened signal says of the answer and the refusal direction of the prompt, together."""

    def made(setting: Setting) -> Scorer:
        read = fit_whitened(setting.good.phi[LAST], setting.all_harmful.phi[LAST])
        direction = _direction(setting)

        def both(m: Material) -> tuple[Scores, Scores]:
            return -logit(np.clip(of(read(m.phi[LAST])), 1e-9, 1 - 1e-9)), direction(m)

        together = paths.fit_sum(*both(setting.fit))
        return lambda m: together(*both(m)) if len(m) else np.empty(0)

    return made


def _layers(setting: Setting) -> Scorer:
    """sigma of the first, the middle and the last layer, one behind the other."""
    keys = (FIRST, MIDDLE, LAST)
    return _autoencoder(setting, lambda m: np.concatenate([setting.sigma(m, key) for key in keys], axis=1))


def _text(setting: Setting) -> Scorer:
    """The text-level signal (1 until the text refuses) in place of sigma."""
    return _autoencoder(setting, lambda m: (1.0 - m.refused).astype(np.float64))


def _at_last(sigma: NDArray[np.float64]) -> Scores:
    return sigma[:, -1]


def _over_steps(sigma: NDArray[np.float64]) -> Scores:
    return np.asarray(sigma.mean(axis=1))


# ---------------------------------------------------------------------------------------------------------------------
# The signal, seen otherwise


def _static(setting: Setting) -> Scorer:
    return lambda m: 1.0 - setting.sigma(m)[:, 0]


def _mean(setting: Setting) -> Scorer:
    return lambda m: 1.0 - setting.sigma(m).mean(axis=1)


def _last(setting: Setting) -> Scorer:
    return lambda m: 1.0 - setting.sigma(m)[:, -1]


def _lowest(setting: Setting) -> Scorer:
    return lambda m: 1.0 - setting.sigma(m).min(axis=1)


def _outlier(make: Callable[[int], Any]) -> Callable[[Setting], Scorer]:
    """A scikit-learn outlier detector on standardised sigma."""

    def made(setting: Setting) -> Scorer:
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        pipe = make_pipeline(StandardScaler(), make(setting.seed)).fit(setting.sigma(setting.fit))
        return lambda m: -np.asarray(pipe.score_samples(setting.sigma(m))) if len(m) else np.empty(0)

    return made


def _forest(seed: int) -> Any:
    from sklearn.ensemble import IsolationForest

    return IsolationForest(random_state=seed)


def _svm(_seed: int) -> Any:
    from sklearn.svm import OneClassSVM

    return OneClassSVM(nu=0.01)


def _mahalanobis(setting: Setting) -> Scorer:
    from sklearn.covariance import LedoitWolf

    known = LedoitWolf().fit(setting.sigma(setting.fit))
    return lambda m: np.asarray(known.mahalanobis(setting.sigma(m))) if len(m) else np.empty(0)


# ---------------------------------------------------------------------------------------------------------------------
# Other people's ideas on the same states


def _direction(setting: Setting) -> Scorer:
    """Cosine of the prompt's last state with the difference of means of refused and answered prompts."""
    away = setting.bad.asked.mean(axis=0, dtype=np.float64) - setting.good.asked.mean(axis=0, dtype=np.float64)
    away /= np.linalg.norm(away) + 1e-12
    centre = (setting.bad.asked.mean(axis=0) + setting.good.asked.mean(axis=0)) / 2

    def score(m: Material) -> Scores:
        x = m.asked.astype(np.float64) - centre
        found: Scores = x @ away / (np.linalg.norm(x, axis=1) + 1e-12)
        return found

    return score


def _windows(setting: Setting, width: int = 4) -> Scorer:
    """The largest lean, over sliding windows of steps, from the centroid of answering to the one of refusing."""
    good, bad = (phi.mean(axis=0) for phi in anchored(setting.good, setting.bad, LAST))

    def score(m: Material) -> Scores:
        phi = m.phi[LAST].astype(np.float64)
        sums = np.cumsum(np.pad(phi, ((0, 0), (1, 0), (0, 0))), axis=1)
        size = min(width, phi.shape[1])
        mean = (sums[:, size:] - sums[:, :-size]) / size
        near, away = (1 - (mean @ a) / (np.linalg.norm(mean, axis=-1) * np.linalg.norm(a) + 1e-12) for a in (good, bad))
        found: Scores = (near - away).max(axis=1)
        return found

    return score


def _probes(setting: Setting) -> Scorer:
    """Supervised: a linear probe per step on labelled states; how often it hesitates, ties broken by how much.

    Raises without a successful attack to learn from.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    harm = [m.phi[LAST] for m in setting.attacked.values() if len(m)]
    fine = [setting.fit.phi[LAST], *[m.phi[LAST] for m in setting.controls.values() if len(m)]]
    if not harm:
        raise DemurError("no successful attack to learn from", "one, and another to test on", "add attacks")
    x = np.concatenate([*harm, *fine])
    y = np.repeat([1, 0], [sum(map(len, harm)), sum(map(len, fine))])
    parts = min(32, *x[:, 0].shape)
    probes = [
        make_pipeline(
            StandardScaler(),
            PCA(parts, svd_solver="full"),  # no dice, so no seed
            LogisticRegression(class_weight="balanced", max_iter=500),
        ).fit(x[:, t], y)
        for t in range(x.shape[1])
    ]

    def score(m: Material) -> Scores:
        if not len(m):
            return np.empty(0)
        sure = np.stack([p.predict_proba(m.phi[LAST][:, t])[:, 1] for t, p in enumerate(probes)], axis=1)
        found: Scores = (sure > 0.5).sum(axis=1) + sure.mean(axis=1)
        return found

    return score


_PAPER = "Rahimi et al., arXiv:2602.02600, table 4"
_REFERENCE = "its reference code"
RIVALS: dict[str, Rival] = {
    "SRI, last layer": Rival("autoencoder of sigma: SRI Guard", _PAPER, sri(LAST), seeded=True),
    "SRI, middle layer": Rival("the same, middle layer", _PAPER, sri(MIDDLE), (MIDDLE,), seeded=True),
    "SRI, first layer": Rival("the same, first layer", _PAPER, sri(FIRST), (FIRST,), seeded=True),
    "text-level signal": Rival("autoencoder of 'does the text refuse yet'", _PAPER, _text, seeded=True),
    "static first step": Rival("1 - sigma at the first step", _PAPER, _static),
    "SRI, producing": Rival("states that produced the tokens", _REFERENCE, sri(PRODUCING), (PRODUCING,), seeded=True),
    "SRI, response": Rival("all response positions", _REFERENCE, sri(RESPONSE), (RESPONSE,), seeded=True),
    "SRI, masked": Rival("positions still masked", "ours", sri(MASKED), (MASKED,), seeded=True),
    "SRI, three layers": Rival("sigma of three layers together", "ours", _layers, (FIRST, MIDDLE, LAST), seeded=True),
    "SRI, whitened": Rival("states whitened by harmless scatter", "ours", _whitened, seeded=True),
    "SRI, log ratio": Rival("before the sigmoid, standardised", "ours", _log_ratio, seeded=True),
    "SRI, differences": Rival("sigma's changes over steps", "ours", _differences, seeded=True),
    "whitened, last": Rival("1 - the whitened signal at T", "ours", whitened_reading(_at_last)),
    "whitened, mean": Rival("1 - its mean over steps", "ours", whitened_reading(_over_steps)),
    "whitened, lowest": Rival("1 - its minimum over steps", "ours", whitened_reading(lambda s: s.min(axis=1))),
    "whitened, rolling": Rival(
        f"1 - its lowest mean of {paths.WIDTH} steps", "ours", whitened_reading(lambda s: paths.rolling(s).min(axis=1))
    ),
    "whitened, last + direction": Rival("sum with the refusal direction", "ours", _with_direction(_at_last)),
    "whitened, mean + direction": Rival("sum with the refusal direction", "ours", _with_direction(_over_steps)),
    "segments, mean turn": Rival(
        "1 - cosine of successive windows' whitened states", "ours", _segments(paths.turns, lambda x: x.mean(axis=1))
    ),
    "segments, odd turns": Rival(
        "the same, how far off harmless ones either way",
        "ours",
        _segments(paths.turns, lambda x: np.abs(x).mean(axis=1)),
    ),
    "segments, largest jump": Rival(
        "distance of successive windows' whitened states", "ours", _segments(paths.jumps, lambda x: x.max(axis=1))
    ),
    "hidden Markov": Rival("likelihood of the path of states", "after Rabiner 1989", _markov, seeded=True),
    "last sigma": Rival("1 - sigma at T", "ours", _last),
    "mean of sigma": Rival("1 - mean over steps", "ours", _mean),
    "lowest sigma": Rival("1 - minimum over steps", "ours", _lowest),
    "Mahalanobis": Rival("of sigma, shrunk covariance", "Ledoit and Wolf 2004", _mahalanobis),
    "isolation forest": Rival("of sigma", "Liu et al. 2008", _outlier(_forest), seeded=True),
    "one-class SVM": Rival("of sigma", "Schoelkopf et al. 2001", _outlier(_svm)),
    "refusal direction": Rival("cosine, prompt only", "Arditi et al., arXiv:2406.11717", _direction),
    "sliding window": Rival("windows of states, two centroids", "after arXiv:2604.07727", _windows),
    "probes, supervised": Rival("probe per step, attacks seen", "after arXiv:2605.25893", _probes, supervised=True),
}
"""By name. The families of TrajGuard and D2-Monitor are represented by their ideas, not by their authors' code."""


def available(keys: Mapping[Key, Any], detectors: Sequence[str] = ()) -> dict[str, Rival]:
    """The rivals whose states were recorded; ``detectors`` are others to stand beside them (:func:`of_detector`)."""
    every = RIVALS | {name: of_detector(name) for name in detectors}
    return {name: rival for name, rival in every.items() if all(key in keys for key in rival.needs)}


def of_detector(name: str) -> Rival:
    """A detector of sigma by its name or ``module:Class``, as a guard holds it. Raises where there is none."""
    cls = named(name)

    def made(setting: Setting) -> Scorer:
        learnt = setting.sigma(setting.fit)
        detector = fitted(cls.fit, learnt, learnt, setting.seed)
        return lambda m: scored(detector, setting.sigma(m))

    return Rival(f"the detector {cls.name}, of sigma", "named at the command line", made, seeded=True)
