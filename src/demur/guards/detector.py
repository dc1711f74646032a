"""SRI Guard's detector: a tiny autoencoder of harmless signals, as a scikit-learn outlier detector.

Rahimi et al., arXiv:2602.02600, section 5: T-32-8-32-T, ReLU, squared error, fitted on harmless signals only. Fitting
uses torch; scoring is NumPy, in float64, and sums up each row by itself, so that a row's score has the same bits alone
and in any batch.

The grammar is scikit-learn's, where higher is more normal: ``score_samples`` is the negated squared reconstruction
error, ``decision_function = score_samples - threshold_``, and -1 is predicted below 0. What
:class:`demur.types.Verdict` holds is the error itself (:meth:`SRIGuard.errors`): there, higher is more anomalous.
"""

from __future__ import annotations

from itertools import pairwise
from threading import Lock
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.guards.conformal import InvalidData, conformal_threshold, quantile_threshold
from demur.guards.grammar import BaseEstimator, OutlierMixin, check_is_fitted, validate_data

Signals = Float[NDArray[np.float64], "n T"]
_FITTING = Lock()


class SRIGuard(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """An autoencoder that knows harmless signals; what it can not reconstruct is an anomaly.

    Parameters
    ----------
    alpha : the false-positive rate that may not be exceeded, in (0, 1).
    threshold : ``conformal`` (split-conformal: the promise holds for every finite sample) or ``quantile`` (the paper's:
        the 1 - alpha quantile of the calibration errors, without a promise).
    hidden : sizes of the outer hidden layers and of the code.
    epochs, batch_size, learning_rate, patience : fitting stops when the held-out error has not fallen for ``patience``
        epochs, and the best weights are kept.
    calibration : share of X that is kept for the threshold where ``fit`` gets no calibration set of its own.
    validation : share of the rest that decides when to stop.
    min_samples : the fewest signals to fit on.
    random_state : seed of weights, splits and batches; None draws one.

    Learned: ``weights_`` and ``biases_`` (float32), ``threshold_`` (in units of ``score_samples``), ``n_fit_``,
    ``n_calibration_``, ``n_features_in_`` (T), ``losses_`` (held-out error by epoch).
    """

    def __init__(
        self,
        *,
        alpha: float = 0.01,
        threshold: Literal["conformal", "quantile"] = "conformal",
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
        ``min_samples`` and for too few calibration signals for ``alpha``.
        """
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        rng = np.random.default_rng(self.random_state)
        if calibration is None:
            order = rng.permutation(len(X))
            kept = max(1, round(self.calibration * len(X)))
            held, X = X[order[:kept]], X[order[kept:]]
        else:
            held = validate_data(self, calibration, dtype=np.float64, reset=False)
        if len(X) < self.min_samples:
            raise InvalidData(
                f"{len(X)} signals to fit on (n_samples = {len(X)})",
                f"at least {self.min_samples}; the paper has 1,200",
                "use more harmless prompts, or lower min_samples",
            )
        self.weights_, self.biases_, self.losses_ = _fitted(self, X, rng)
        self.n_fit_, self.n_calibration_ = len(X), len(held)
        self.threshold_ = 0.0
        self._set_threshold(held)
        return self

    def calibrate(self, X: Signals) -> SRIGuard:
        """Sets the threshold anew, on harmless signals that the fit did not see."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        self.n_calibration_ = len(X)
        self._set_threshold(X)
        return self

    def _set_threshold(self, held: Signals) -> None:
        if self.threshold not in ("conformal", "quantile"):
            raise InvalidData(f"threshold {self.threshold!r}", "conformal or quantile", "name one of these")
        errors = self.errors(held)
        if self.threshold == "conformal":
            self.threshold_ = -conformal_threshold(errors, self.alpha)
        else:
            self.threshold_ = -quantile_threshold(errors, 1 - self.alpha)

    @property
    def offset_(self) -> float:
        """scikit-learn's name for ``threshold_``."""
        check_is_fitted(self)
        return self.threshold_

    # -- scoring ----------------------------------------------------------------------------------------------------

    def reconstruct(self, X: Signals) -> Signals:
        """What the autoencoder makes of signals."""
        check_is_fitted(self)
        return self._passed(validate_data(self, X, dtype=np.float64, reset=False))

    def errors(self, X: Signals) -> Float[NDArray[np.float64], "n"]:
        """Squared reconstruction errors, summed over the steps: higher is more anomalous."""
        check_is_fitted(self)
        return self.errors_of(validate_data(self, X, dtype=np.float64, reset=False))

    def errors_of(self, X: Signals) -> Float[NDArray[np.float64], "n"]:
        """:meth:`errors` of a finite float64 array, unchecked: what runs beside every step of a generation."""
        off = self._passed(X)
        off -= X
        found: Float[NDArray[np.float64], "n"] = np.vecdot(off, off)
        return found

    def _passed(self, X: Signals) -> Signals:
        *layers, last = self._layers()
        out = np.empty((len(X), X.shape[1] + 1))
        out[:, :-1], out[:, -1] = X, 1.0  # the one that carries the biases: an addition less for every layer
        for layer in layers:
            # One product a row: a product of matrices may round a row otherwise in another batch.
            out = np.matvec(layer, out)
            np.maximum(out, 0.0, out=out)
        made: Signals = np.matvec(last, out)
        return made

    def _layers(self) -> list[NDArray[np.float64]]:
        """Weights with their biases as one more column, in float64, kept beside the float32 ones as long as those are
        the same objects. All but the last have one more row, which hands on the one that the biases are multiplied by.
        """
        known = self.__dict__.get("_double")
        if known is None or known[0] is not self.weights_:
            joined = [
                np.column_stack([w, b]).astype(np.float64) for w, b in zip(self.weights_, self.biases_, strict=True)
            ]
            handed_on = [np.vstack([layer, np.eye(1, layer.shape[1], layer.shape[1] - 1)]) for layer in joined[:-1]]
            known = self.weights_, [*handed_on, joined[-1]]
            self._double = known
        layers: list[NDArray[np.float64]] = known[1]
        return layers

    def score_samples(self, X: Signals) -> Float[NDArray[np.float64], "n"]:
        """Negated errors: higher is more normal, as everywhere in scikit-learn."""
        return -self.errors(X)

    def decision_function(self, X: Signals) -> Float[NDArray[np.float64], "n"]:
        """``score_samples - threshold_``: below 0 is an anomaly."""
        found: Float[NDArray[np.float64], "n"] = self.score_samples(X) - self.threshold_
        return found

    def predict(self, X: Signals) -> NDArray[np.int64]:
        """-1 for anomalies (failed recovery), 1 for the rest."""
        return np.where(self.decision_function(X) < 0, -1, 1)


def _fitted(
    guard: SRIGuard, X: Signals, rng: np.random.Generator
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]], list[float]]:
    """Adam on the mean squared error; the weights of the epoch with the lowest held-out error.

    In one thread: on products this small more of them only wait for each other, on a busy machine ten times as long.
    """
    import torch

    with _FITTING:  # of two at once the second would take the first one's single thread for the number to go back to
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return _descended(guard, X, rng)
        finally:
            torch.set_num_threads(threads)


def _descended(
    guard: SRIGuard, X: Signals, rng: np.random.Generator
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]], list[float]]:
    import torch

    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    sizes = (X.shape[1], guard.hidden[0], guard.hidden[1], guard.hidden[0], X.shape[1])
    weights, biases = [], []
    for before, after in pairwise(sizes):
        bound = before**-0.5
        weights.append(((torch.rand(after, before, generator=generator) * 2 - 1) * bound).requires_grad_())
        biases.append(((torch.rand(after, generator=generator) * 2 - 1) * bound).requires_grad_())

    def passed(x: torch.Tensor) -> torch.Tensor:
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            x = torch.nn.functional.linear(x, weight, bias)
            x = x.relu() if i < 3 else x
        return x

    order = rng.permutation(len(X))
    kept = max(1, round(guard.validation * len(X)))
    x = torch.tensor(X[order], dtype=torch.float32)
    held, seen = x[:kept], x[kept:] if len(x) > kept else x
    optimizer = torch.optim.Adam([*weights, *biases], lr=guard.learning_rate)
    best: tuple[float, list[Any]] = (np.inf, [])
    losses: list[float] = []
    waited = 0
    for _ in range(guard.epochs):
        for rows in torch.split(torch.randperm(len(seen), generator=generator), guard.batch_size):
            with torch.enable_grad():  # whoever calls may have switched it off for the model's sake
                optimizer.zero_grad()
                loss = ((passed(seen[rows]) - seen[rows]) ** 2).mean()
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            losses.append(float(((passed(held) - held) ** 2).mean()))
        waited += 1
        if not best[1] or losses[-1] < best[0]:
            best, waited = (losses[-1], [tensor.detach().clone().numpy() for tensor in (*weights, *biases)]), 0
        if waited >= guard.patience:
            break
    return best[1][:4], best[1][4:], losses
