"""Any detector in scikit-learn's grammar: an outlier detector with a threshold of its own.

There, higher is more normal: ``score_samples`` is the negated score, ``decision_function = score_samples -
threshold_``, and -1 is predicted below 0. What :class:`demur.types.Verdict` holds is the score itself
(:meth:`SRIGuard.errors`): higher is more anomalous. A guard does not need this module, nor scikit-learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from demur.guards.autoencoder import Autoencoder
from demur.guards.conformal import Rule, threshold_of
from demur.guards.detectors import Detector, Scores, Signals, check_limit, fitted, named, scored


class SRIGuard(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """A detector of harmless signals and its threshold.

    Parameters
    ----------
    alpha : the false-positive rate that may not be exceeded, in (0, 1).
    threshold : ``conformal`` (split-conformal: the promise holds for every finite sample) or ``quantile`` (the paper's:
        the 1 - alpha quantile of the calibration errors, without a promise).
    detector : a detector's name (:data:`demur.guards.detectors.DETECTORS`, ``module:Class``).
    hidden, epochs, batch_size, learning_rate, patience, validation, min_samples : of :meth:`Autoencoder.fit`; other
        detectors have no use for them.
    calibration : share of X that is kept for the threshold where ``fit`` gets no calibration set of its own.
    random_state : seed of weights, splits and batches; None draws one.

    Learned: ``detector_``, ``threshold_`` (in units of ``score_samples``), ``n_fit_``, ``n_calibration_``,
    ``n_features_in_`` (T).
    """

    def __init__(
        self,
        *,
        alpha: float = 0.01,
        threshold: Rule = "conformal",
        detector: str = "autoencoder",
        hidden: tuple[int, int] = (32, 8),
        epochs: int = 300,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        patience: int = 30,
        calibration: float = 0.25,
        validation: float = 0.1,
        min_samples: int = 32,
        random_state: int | None = 0,
    ) -> None:
        self.alpha = alpha
        self.threshold = threshold
        self.detector = detector
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.patience = patience
        self.calibration = calibration
        self.validation = validation
        self.min_samples = min_samples
        self.random_state = random_state

    def fit(self, X: Signals, y: object = None, *, calibration: Signals | None = None) -> SRIGuard:
        """Fits on harmless signals, sets the threshold on others, and returns itself. ``y`` is ignored.

        ``calibration``: harmless signals that the fit does not see; without it a share of X is held back. Signals of
        refused prompts must not be among them: :func:`demur.guards.fit_guard` sees to that. Raises for fewer than
        ``min_samples``, for too few calibration signals for ``alpha``, and for a detector or a limit that could never
        flag anything.
        """
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        rng = np.random.default_rng(self.random_state)
        if calibration is None:
            order = rng.permutation(len(X))
            kept = max(1, round(self.calibration * len(X)))
            held, X = X[order[:kept]], X[order[kept:]]
        else:
            held = validate_data(self, calibration, dtype=np.float64, reset=False)
        made = named(self.detector)
        if made is Autoencoder:
            names = ("hidden", "epochs", "batch_size", "learning_rate", "patience", "validation", "min_samples")
            settings: dict[str, Any] = {name: getattr(self, name) for name in names}
            self.detector_: Detector = Autoencoder.fit(X, seed=rng, **settings)
        else:
            self.detector_ = fitted(made.fit, X, held, int(rng.integers(2**31)))
        self.n_fit_ = len(X)
        self._set_threshold(held)
        return self

    def calibrate(self, X: Signals) -> SRIGuard:
        """Sets the threshold anew, on harmless signals that the fit did not see."""
        check_is_fitted(self)
        self._set_threshold(validate_data(self, X, dtype=np.float64, reset=False))
        return self

    def _set_threshold(self, held: Signals) -> None:
        limit = threshold_of(scored(self.detector_, held), self.alpha, self.threshold)
        if held.min() >= 0 and held.max() <= 1:  # numbers of other ranges are none of the signals that are tried there
            check_limit(self.detector_, held, limit)
        self.threshold_, self.n_calibration_ = -limit.value, limit.n

    @property
    def offset_(self) -> float:
        """scikit-learn's name for ``threshold_``."""
        check_is_fitted(self)
        return self.threshold_

    def errors(self, X: Signals) -> Scores:
        """The detector's scores: higher is more anomalous."""
        check_is_fitted(self)
        return scored(self.detector_, validate_data(self, X, dtype=np.float64, reset=False))

    def score_samples(self, X: Signals) -> Scores:
        """Negated scores: higher is more normal, as everywhere in scikit-learn."""
        return -self.errors(X)

    def decision_function(self, X: Signals) -> Scores:
        """``score_samples - threshold_``: below 0 is an anomaly."""
        return np.asarray(self.score_samples(X) - self.threshold_)

    def predict(self, X: Signals) -> NDArray[np.int64]:
        """-1 for anomalies (failed recovery), 1 for the rest."""
        return np.where(self.decision_function(X) >= 0, 1, -1)  # nan is none of the rest
