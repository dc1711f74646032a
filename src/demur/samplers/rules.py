"""The pieces that masked-diffusion samplers are composed of: schedules, candidates, confidences and selections.

Each is a plain function, so that a sampler is a choice among them and a new one is a line in a dict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.types import DemurError


@dataclass(frozen=True)
class Quota:
    """How many of the ``n`` positions of a block that are still open a step commits: ``fixed``, or a ``share`` of them
    (an fp32 number, rounded down), or what spreads them evenly over the steps ``left`` (0: none of this).

    It is three numbers and not a function, so that the quotas of all rows stand in a table on the model's device.
    """

    fixed: int = 0
    share: float = 0.0
    left: int = 0

    def __call__(self, n: int) -> int:
        """For one row, on the host."""
        spread = -(-n // self.left) if self.left else 0
        return self.fixed + int(np.float32(n) * np.float32(self.share)) + spread


def counted(
    n: Int[Tensor, "b"], fixed: Int[Tensor, "b"], share: Float[Tensor, "b"] | None, left: Int[Tensor, "b"] | None
) -> Int[Tensor, "b"]:
    """What each row's :class:`Quota` says of its ``n``, at most ``n``; the same numbers as on the host. None: all 0."""
    count = fixed
    if share is not None:
        count = count + (n.float() * share).long()
    if left is not None:
        count = count + torch.where(left > 0, (n + left - 1) // left.clamp(min=1), 0)
    return torch.minimum(count, n)


def check_temperature(temperature: float) -> None:
    """Raises unless it is finite and not negative."""
    if not 0 <= temperature < math.inf:
        raise DemurError(f"temperature {temperature}", "a finite number, at least 0", "0 is greedy, 1 the model's own")


def check_nucleus(top_k: int | None, top_p: float | None) -> None:
    """Raises unless 0 < top_p <= 1 and top_k >= 1, where they are given."""
    if top_p is not None and not 0 < top_p <= 1:
        raise DemurError(f"top_p {top_p}", "0 < top_p <= 1", "leave it out to sample from every token")
    check_count("top_k", top_k, "leave it out to sample from every token")


def check_count(name: str, value: int | None, then: str) -> None:
    """Raises unless a setting that counts is at least 1, where it is given."""
    if value is not None and value < 1:
        raise DemurError(f"{name}={value}", "at least 1", then)


def check_threshold(name: str, value: float | None) -> None:
    """Raises for a threshold of nan: nothing would ever be surer than that."""
    if value is not None and math.isnan(value):
        raise DemurError(f"{name}={value}", "a number, such as 0.9", "leave it out, or name one")


# -- Schedules: how many positions each step of a block commits -----------------------------------------------


def even(n_open: int, steps: int) -> list[Quota]:
    """Equally many at every step, the first ones one more (LLaDA, arXiv:2502.09992, Appendix B.4)."""
    return [Quota(n_open // steps + (i < n_open % steps)) for i in range(steps)]


def linear(n_open: int, steps: int) -> list[Quota]:
    """What a linear noise schedule expects of the rest, rounded; steps that commit nothing are left out (MDLM)."""
    return _expected(n_open, steps, lambda t: 1 - t)


def cosine(n_open: int, steps: int) -> list[Quota]:
    """The same under a cosine schedule: few commits at first, many at the end (MaskGIT, arXiv:2202.04200)."""
    return _expected(n_open, steps, lambda t: np.float32(1 - np.cos(np.float32(np.pi / 2) * (1 - t))))


def dream(n_open: int, steps: int, eps: float = 1e-3) -> list[Quota]:
    """Dream's: of the n still open, int(n (1 - s/t)) between times t and s from 1 to eps, the rest at the last step.

    A step may commit nothing.
    """
    return [Quota(share=share) for share in coins(steps, eps)[:-1]] + [Quota(left=1)]


def coins(steps: int, eps: float = 1e-3) -> list[float]:
    """Each open position's chance at each step, 1 - s/t between times from 1 to eps; 1 at the last (Dream's origin)."""
    times = torch.linspace(1, eps, steps + 1, dtype=torch.float32)
    return [float(1 - times[i + 1] / times[i]) if i < steps - 1 else 1.0 for i in range(steps)]


def _expected(n_open: int, steps: int, alpha: Callable[[np.float32], np.float32]) -> list[Quota]:
    """Rounded expectations n (1 - (1 - alpha(s)) / (1 - alpha(t))) of a noise schedule, in fp32 as officially."""
    one, counts = np.float32(1), []
    for i in range(steps, 0, -1):
        s, t = np.float32((i - 1) / steps), np.float32(i / steps)
        keep = float((one - alpha(s)) / (one - alpha(t)))
        count = min(round(n_open * (1 - keep)), n_open)  # Python and torch both round half to even
        n_open -= count
        counts += [count] if count else []
    return [Quota(count) for count in counts]


SCHEDULES: dict[str, Callable[[int, int], list[Quota]]] = {
    "even": even,
    "linear": linear,
    "cosine": cosine,
    "dream": dream,
}


# -- Candidates: a guess for every position, and the probabilities it was taken from --------------------------

SAMPLINGS = ("gumbel", "categorical")


def tempered(logits: Float[Tensor, "k v"], temperature: float) -> Float[Tensor, "k v"]:
    """Logits over a temperature above 0. Where that overflows (the official code then fails on nan), the limit of low
    temperatures: 0 for the highest logits, -inf for the rest.
    """
    scaled = logits / temperature
    if temperature >= _SAFE:
        return scaled
    best = logits.amax(dim=-1, keepdim=True)
    lost = ~scaled.amax(dim=-1, keepdim=True).isfinite()
    only_best = torch.zeros_like(logits).masked_fill(logits < best, -torch.inf)
    return torch.where(lost, only_best, scaled)


_SAFE = 0.01
"""Temperatures from here on overflow for no logit below 655, even in fp16."""


def filtered(logits: Float[Tensor, "k v"], top_k: int | None, top_p: float | None) -> Float[Tensor, "k v"]:
    """Logits with everything outside the top k, then outside the nucleus p, at -inf, as transformers' warpers do it."""
    logits = among_top(logits, top_k)
    if top_p is not None and top_p < 1:
        ascending, order = logits.sort(descending=False)
        out = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
        out[..., -1:] = False  # at least one token stays
        logits = logits.masked_fill(out.scatter(-1, order, out), -torch.inf)
    return logits


def among_top(logits: Float[Tensor, "k v"], top_k: int | None) -> Float[Tensor, "k v"]:
    """Logits below the k-th highest at -inf."""
    if top_k is None:
        return logits
    return logits.masked_fill(logits < logits.topk(min(top_k, logits.shape[-1])).values[..., -1:], -torch.inf)


def nucleus(logits: Float[Tensor, "k v"], top_p: float | None) -> Float[Tensor, "k v"]:
    """Logits outside the nucleus at -inf, summed from the highest, as the diffusion models' official code does it.

    It differs from :func:`filtered` in what rounding and ties do at the nucleus's edge.
    """
    if top_p is None or top_p >= 1:
        return logits
    descending, order = logits.sort(descending=True)
    out = descending.softmax(dim=-1).cumsum(dim=-1) > top_p
    out[..., 1:] = out[..., :-1].clone()  # the token that crosses p still belongs to it
    out[..., 0] = False
    return logits.masked_fill(out.scatter(-1, order, out), -torch.inf)


def gumbel(logits: Float[Tensor, "k v"], temperature: float, noise: Float[Tensor, "k v"]) -> Int[Tensor, "k"]:
    """Guesses at a temperature by Gumbel noise: argmax exp(l) / (-log u)^temperature, in float64; ``noise`` are the
    numbers u.

    In low precision Gumbel-max changes what is sampled (Zheng et al., arXiv:2409.02908); hence float64.
    """
    device = torch.device("cpu") if logits.device.type == "mps" else logits.device  # mps has no float64
    wide = logits.to(device, torch.float64)
    noisy = wide.exp() / (-torch.log(noise.to(device))) ** temperature
    # What is suppressed stays so at any temperature: (-log u)^temperature may underflow, and 0 / 0 would win.
    return noisy.masked_fill(wide == -torch.inf, -torch.inf).argmax(dim=-1).to(logits.device)


def pieces(
    logits: Float[Tensor, "k v"], counts: Sequence[int], drawn: bool, whole: bool
) -> Iterator[tuple[int | None, slice]]:
    """Slices of the places that are worked on together, so that what is computed of their logits fits beside them.

    Where tokens are ``drawn`` a slice is a row's, of which ``counts`` says how many places it has: its generator draws
    once; and if the batch draws as a ``whole``, there is one slice. Each comes with its row, or None for any rows.
    """
    k, vocabulary = logits.shape
    most = max(2, CELLS.get(logits.device.type, BEYOND) // vocabulary)
    if k <= most or (drawn and whole):
        yield None, slice(0, k)
    elif drawn:
        begin = 0
        for row, count in enumerate(counts):
            if count:
                yield row, slice(begin, begin + count)
            begin += count
    else:
        yield from ((None, slice(begin, begin + most)) for begin in range(0, k, most))


def joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """What was computed of pieces, guesses and how sure they are, one piece behind the other."""
    guesses, sure = zip(*parts, strict=True)
    return parts[0] if len(parts) == 1 else (torch.cat(guesses), torch.cat(sure))


CELLS = {"cpu": 2**20}
"""How many logits are worked on together on a CPU, whose caches hold so many and no more."""
BEYOND = 2**28
"""The same on other devices, which want few operations, each as large as memory allows (1 GiB in fp32)."""


# -- Confidences: which guesses are trusted, higher is surer --------------------------------------------------


def probability(probs: Float[Tensor, "k v"], guess: Int[Tensor, "k"]) -> Float[Tensor, "k"]:
    """The guess's own probability: the least sure are masked again (LLaDA's low confidence, Dream's maskgit_plus)."""
    return probs.gather(-1, guess[:, None])[:, 0]


def margin(probs: Float[Tensor, "k v"], guess: Int[Tensor, "k"]) -> Float[Tensor, "k"]:
    """Distance between the two highest probabilities (Dream's topk_margin; Kim et al., arXiv:2502.06768)."""
    best = probs.sort(dim=-1, descending=True).values
    return best[:, 0] - best[:, 1]


def negative_entropy(probs: Float[Tensor, "k v"], guess: Int[Tensor, "k"]) -> Float[Tensor, "k"]:
    """Minus the entropy in nats (Dream's entropy)."""
    return (probs * torch.log(probs + 1e-10)).sum(dim=-1)


CONFIDENCE: dict[str, Callable[[Float[Tensor, "k v"], Int[Tensor, "k"]], Float[Tensor, "k"]]] = {
    "low_confidence": probability,
    "margin": margin,
    "entropy": negative_entropy,
}


# -- Chance in the order of commits ---------------------------------------------------------------------------


def annealing(steps: int, start: float) -> list[float]:
    """The share of chance at each of ``steps`` steps, from ``start`` evenly down to 0 (DiffuGuard, arXiv:2509.24296).

    A single step has ``start``, as in the official code; the paper's formula is 0 / 0 there.
    """
    return [start * (1 - i / (steps - 1)) if steps > 1 else start for i in range(steps)]


def annealed(score: Float[Tensor, "k"], noise: Float[Tensor, "k"], share: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
    """``(1 - share) * score + share * noise`` for scores and noise in [0, 1]; the score itself for a share of 0."""
    return torch.where(share > 0, (1 - share) * score + share * noise, score)


def but_not(some: Bool[Tensor, "*n"], others: Bool[Tensor, "*n"]) -> Bool[Tensor, "*n"]:
    """``some & ~others``, in one operation: true is more than false."""
    return some > others


# -- Selections: which positions of each row a step commits ---------------------------------------------------
#
# All rows at once: ``score`` is -inf where nothing may be committed, and ``count`` says how many each row commits.


def surest(
    score: Float[Tensor, "b n"], count: Int[Tensor, "b"], among: Sequence[slice], ranked: Int[Tensor, "b"] | None = None
) -> Bool[Tensor, "b n"]:
    """The ``count`` highest scores of each row, whose positions all stand in the columns ``among``, row by row.

    A row of fewer positions commits all of them. Where scores at the edge are equal, a CPU takes those that the
    official code takes there, an accelerator the ones furthest to the left. ``ranked``: how many the official code
    ranks, of which it takes ``count``; None: as many.
    """
    return as_topk(score, count, among, ranked) if score.device.type == "cpu" else leftmost(score, count)


def as_topk(
    score: Float[Tensor, "b n"], count: Int[Tensor, "b"], among: Sequence[slice], ranked: Int[Tensor, "b"] | None = None
) -> Bool[Tensor, "b n"]:
    """Of equal scores, those that torch's topk takes on a CPU: that depends on what else is ranked. Rows that rank as
    many columns for as many places go into one call.
    """
    chosen = torch.zeros(score.shape, dtype=torch.bool, device=score.device)
    alike: dict[tuple[int, int, int, int], list[int]] = {}
    of = count if ranked is None else ranked
    for row, (columns, k, n) in enumerate(zip(among, count.tolist(), of.tolist(), strict=True)):
        begin, end, _ = columns.indices(score.shape[1])
        if k and begin < end:
            alike.setdefault((begin, end, k, min(n, end - begin)), []).append(row)
    for (begin, end, k, n), rows in alike.items():
        best = torch.topk(score[rows, begin:end], n).indices[:, :k]
        chosen[torch.tensor(rows)[:, None], best + begin] = True
    return chosen


def leftmost(score: Float[Tensor, "b n"], count: Int[Tensor, "b"]) -> Bool[Tensor, "b n"]:
    """Of equal scores, those furthest to the left: one sort for all rows, which asks the device for nothing."""
    order = score.sort(dim=1, descending=True, stable=True).indices
    best = torch.arange(score.shape[1], device=score.device) < count[:, None]
    return best.scatter(1, order, best)  # every column is somewhere in the order: none keeps what it had


def above(
    score: Float[Tensor, "b n"], count: Int[Tensor, "b"], among: Sequence[slice], threshold: float
) -> Bool[Tensor, "b n"]:
    """Everything above the threshold if that is at least ``count``, else the surest ``count`` (dynamic decoding)."""
    sure = score > threshold
    enough = sure.sum(dim=1) >= count
    return torch.where(enough[:, None], sure, surest(score, count, among))


def bounded(score: Float[Tensor, "b n"], bound: float) -> Bool[Tensor, "b n"]:
    """The surest positions while the entropies of those accepted before add up to at most ``bound``; at least one.

    ``score`` is minus the entropy. Ben-Hamu et al., arXiv:2505.24857: all accepted entropies but the largest bound what
    is lost by committing at once.
    """
    entropy, order = (-score).sort(dim=1)
    finite = torch.isfinite(entropy)
    taken = finite & (torch.where(finite, entropy, 0.0).cumsum(dim=1) - entropy <= bound)
    taken[:, 0] |= finite[:, 0]
    return torch.zeros_like(taken).scatter(1, order, taken)
