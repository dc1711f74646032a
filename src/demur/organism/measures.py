"""Rates, areas and the small models that the card measures with. Numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from demur.types import DemurError


def wilson(k: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95% interval of a rate k / n, both ends in [0, 1]; (0, 1) for n = 0."""
    if n == 0:
        return 0.0, 1.0
    p, zz = k / n, z * z
    middle = (p + zz / (2 * n)) / (1 + zz / n)
    half = z * math.sqrt(p * (1 - p) / n + zz / (4 * n * n)) / (1 + zz / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def auroc(positive: Sequence[float] | NDArray[np.float64], negative: Sequence[float] | NDArray[np.float64]) -> float:
    """The chance that a positive scores above a negative, ties counting half; nan where a side is empty."""
    if not len(positive) or not len(negative):
        return math.nan
    order = np.sort(np.asarray(negative, dtype=np.float64))
    x = np.asarray(positive, dtype=np.float64)
    below, upto = np.searchsorted(order, x, "left"), np.searchsorted(order, x, "right")
    return float(np.mean((below + upto) / 2) / len(order))


def auroc_interval(a: float, positives: int, negatives: int) -> tuple[float, float]:
    """A 95% interval of an area (Hanley and McNeil 1982, equation 2); nan where it is undefined."""
    if math.isnan(a):
        return math.nan, math.nan
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = a * (1 - a) + (positives - 1) * (q1 - a * a) + (negatives - 1) * (q2 - a * a)
    half = 1.96 * math.sqrt(max(variance, 0.0) / (positives * negatives))
    return max(0.0, a - half), min(1.0, a + half)


def reconstruction_errors(
    fit: Float[NDArray[np.float64], "m T"],
    seen: Sequence[Float[NDArray[np.float64], "n T"]],
    *,
    seed: int = 0,
    steps: int = 1500,
) -> list[Float[NDArray[np.float64], "n"]]:
    """Squared reconstruction errors of ``seen`` under an autoencoder T-32-8-32-T that was fitted on ``fit`` alone.

    The paper's guard (arXiv:2602.02600, section 5): ReLU, squared loss. Full batches, Adam at 3e-3, ``steps`` steps.
    """
    if len(fit) < 8:
        raise DemurError(f"{len(fit)} signals to fit on", "at least 8", "raise n")
    width = fit.shape[1]
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    sizes = (width, 32, 8, 32, width)
    layers: list[torch.nn.Module] = []
    for i in range(4):
        layers += [torch.nn.Linear(sizes[i], sizes[i + 1])] + ([torch.nn.ReLU()] if i < 3 else [])
    net = torch.nn.Sequential(*layers)
    torch.random.set_rng_state(state)
    x = torch.tensor(fit, dtype=torch.float32)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = ((net(x) - x) ** 2).mean()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return [
            ((net(y) - y) ** 2).sum(dim=1).double().numpy()
            for y in (torch.tensor(s, dtype=torch.float32).reshape(-1, width) for s in seen)
        ]


def bag_of_words_auroc(texts: Sequence[str], harmful: Sequence[bool], groups: Sequence[str], folds: int = 5) -> float:
    """Cross-validated area of a logistic regression on the words of prompts; no group is on both sides of a fold.

    Every prompt is scored by a model that has not seen it; areas are averaged over folds.
    """
    words = sorted({word for text in texts for word in text.lower().split()})
    index = {word: i for i, word in enumerate(words)}
    x = torch.zeros(len(texts), len(words))
    for row, text in enumerate(texts):
        for word in text.lower().split():
            x[row, index[word]] = 1.0
    y = torch.tensor([float(h) for h in harmful])
    names = sorted(set(groups))
    fold = torch.tensor([names.index(group) * 7 % folds for group in groups])
    areas = []
    for k in range(folds):
        seen, kept = fold != k, fold == k
        weight = torch.zeros(len(words), requires_grad=True)
        bias = torch.zeros(1, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=100)

        def closure(
            seen: torch.Tensor = seen, weight: torch.Tensor = weight, bias: torch.Tensor = bias
        ) -> torch.Tensor:
            optimizer.zero_grad()  # noqa: B023
            logits = x[seen] @ weight + bias
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y[seen])
            loss = loss + 0.5 * weight.pow(2).sum() / len(y)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        scores = (x[kept] @ weight + bias).detach().double().numpy()
        right = y[kept].numpy() > 0
        areas.append(auroc(scores[right], scores[~right]))
    return float(np.nanmean(areas))
