"""The paper's detector: a tiny autoencoder of harmless signals; what it can not reconstruct is an anomaly.

Rahimi et al., arXiv:2602.02600, section 5: T-32-8-32-T, ReLU, squared error, fitted on harmless signals only. Fitting
uses torch; scoring is NumPy, in float64, and sums up each row by itself, so that a row's score has the same bits alone
and in any batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from threading import Lock
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.guards.detectors import Scores, Signals, enough

_FITTING = Lock()


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """``weights`` and ``biases`` of its layers, in float32; ``losses`` are the held-out errors by epoch."""

    weights: tuple[Float[NDArray[np.float32], "_ _"], ...]
    biases: tuple[Float[NDArray[np.float32], "_"], ...]
    losses: tuple[float, ...] = ()
    name: ClassVar[str] = "autoencoder"
    logarithmic: ClassVar[bool] = True

    @classmethod
    def fit(
        cls,
        harmless: Signals,
        *,
        seed: int | np.random.Generator | None = 0,
        hidden: tuple[int, int] = (32, 8),
        epochs: int = 300,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        patience: int = 30,
        validation: float = 0.1,
        min_samples: int = 32,
    ) -> Self:
        """Fits on harmless signals; the weights of the epoch with the lowest held-out error are kept.

        ``hidden``: sizes of the outer layers and of the code. Fitting stops when the error on the share ``validation``
        has not fallen for ``patience`` epochs. Raises for fewer than ``min_samples`` signals.
        """
        enough(harmless, min_samples)
        settings = _Descent(hidden, epochs, batch_size, learning_rate, patience, validation)
        return cls(*_fitted(settings, harmless, np.random.default_rng(seed)))

    def __call__(self, sigma: Signals) -> Scores:
        """Squared reconstruction errors, summed over the steps: at least 0."""
        off = self.reconstruct(sigma)
        off -= sigma
        return np.asarray(np.vecdot(off, off))

    def reconstruct(self, sigma: Signals) -> Signals:
        """What the autoencoder makes of signals."""
        out = np.asarray(sigma, dtype=np.float64)
        for i, (weight, bias) in enumerate(self._layers):
            # One product a row: a product of matrices may round a row otherwise in another batch.
            out = np.matvec(weight, out) + bias
            if i + 1 < len(self._layers):
                np.maximum(out, 0.0, out=out)
        return out

    @cached_property
    def _layers(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Weights and biases in float64, taken once."""
        pairs = zip(self.weights, self.biases, strict=True)
        return [(weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in pairs]


@dataclass(frozen=True)
class _Descent:
    """How weights are found."""

    hidden: tuple[int, int]
    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    validation: float


Fitted = tuple[tuple[NDArray[np.float32], ...], tuple[NDArray[np.float32], ...], tuple[float, ...]]


def _fitted(settings: _Descent, X: Signals, rng: np.random.Generator) -> Fitted:
    """Adam on the mean squared error, in one thread: on products this small more of them only wait for each other, on a
    busy machine ten times as long.
    """
    import torch

    with _FITTING:  # of two at once the second would take the first one's single thread for the number to go back to
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return _descended(settings, X, rng)
        finally:
            torch.set_num_threads(threads)


def _descended(settings: _Descent, X: Signals, rng: np.random.Generator) -> Fitted:
    import torch

    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    sizes = (X.shape[1], settings.hidden[0], settings.hidden[1], settings.hidden[0], X.shape[1])
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
    kept = max(1, round(settings.validation * len(X)))
    x = torch.tensor(X[order], dtype=torch.float32)
    held, seen = x[:kept], x[kept:] if len(x) > kept else x
    optimizer = torch.optim.Adam([*weights, *biases], lr=settings.learning_rate)
    best: tuple[float, list[Any]] = (np.inf, [])
    losses: list[float] = []
    waited = 0
    for _ in range(settings.epochs):
        for rows in torch.split(torch.randperm(len(seen), generator=generator), settings.batch_size):
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
        if waited >= settings.patience:
            break
    return tuple(best[1][:4]), tuple(best[1][4:]), tuple(losses)
