"""The paper's detector: a tiny autoencoder of harmless signals; what it can not reconstruct is an anomaly.

Rahimi et al., arXiv:2602.02600, section 5: T-32-8-32-T, ReLU, squared error, fitted on harmless signals only. Fitting
uses torch; scoring is NumPy, in float64, and sums up each row by itself, so that a row's score has the same bits alone
and in any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.guards.detectors import Scores, Signals, enough

if TYPE_CHECKING:
    import torch

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
            with torch.inference_mode(False), torch.enable_grad():  # whatever the caller has switched off
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
        weights.append(
            ((torch.rand(after, before, generator=generator, dtype=torch.float32) * 2 - 1) * bound).requires_grad_()
        )
        biases.append(((torch.rand(after, generator=generator, dtype=torch.float32) * 2 - 1) * bound).requires_grad_())

    def passed(x: torch.Tensor) -> torch.Tensor:
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            x = torch.nn.functional.linear(x, weight, bias)
            x = x.relu() if i < 3 else x
        return x

    order = rng.permutation(len(X))
    kept = max(1, round(settings.validation * len(X)))
    x = torch.tensor(X[order], dtype=torch.float32)
    held, seen = x[:kept], x[kept:] if len(x) > kept else x
    learnt = [*weights, *biases]
    step = _adam(learnt, settings.learning_rate)
    best: tuple[float, list[Any]] = (np.inf, [])
    losses: list[float] = []
    waited = 0
    for _ in range(settings.epochs):
        for rows in torch.split(torch.randperm(len(seen), generator=generator), settings.batch_size):
            with torch.enable_grad():  # whoever calls may have switched it off for the model's sake
                gradients = torch.autograd.grad(((passed(seen[rows]) - seen[rows]) ** 2).mean(), learnt)
            step(gradients)
        with torch.no_grad():
            losses.append(float(((passed(held) - held) ** 2).mean()))
        waited += 1
        if not best[1] or losses[-1] < best[0]:
            best, waited = (losses[-1], [tensor.detach().clone().numpy() for tensor in learnt]), 0
        if waited >= settings.patience:
            break
    return tuple(best[1][:4]), tuple(best[1][4:]), tuple(losses)


def _adam(tensors: list[torch.Tensor], rate: float) -> Callable[[Sequence[torch.Tensor]], None]:
    """A step of Adam (Kingma and Ba, arXiv:1412.6980, algorithm 1) down the gradients it is given, to the bit what
    ``torch.optim.Adam`` does; that one loads torch's compiler first, two seconds of a core in every process that fits.
    """
    import torch

    first, second, eps = 0.9, 0.999, 1e-8
    means = [(torch.zeros_like(tensor), torch.zeros_like(tensor)) for tensor in tensors]
    count = 0

    @torch.no_grad()
    def step(gradients: Sequence[torch.Tensor]) -> None:
        nonlocal count
        count += 1
        size, scale = rate / (1 - first**count), (1 - second**count) ** 0.5
        for tensor, gradient, (mean, square) in zip(tensors, gradients, means, strict=True):
            mean.lerp_(gradient, 1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            tensor.addcdiv_(mean, (square.sqrt() / scale).add_(eps), value=-size)

    return step
