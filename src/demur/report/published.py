"""Figures of the paper, to stand beside a run's own where it is of one of the paper's models.

Rahimi et al., arXiv:2602.02600, tables 1 to 3, 13 and 14 (:data:`VERSION` says of which version). Where a cell of ours
has no counterpart, it stays empty.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

VERSION = (
    "Published figures are those of arXiv:2602.02600 as they were collected when this project began. Whether they are "
    "of its v1 (February 2026) or its v3 (EMNLP 2026) was not written down, so compare with the version at hand."
)
"""Where published figures come from, as far as it is known; report and documentation say it in these words.

What was looked at to settle it: the reference code (three commits of February 2026, hence of v1's time) holds no
figures. Recovery from harmful intermediate texts, which table 1 measures, is in the abstract of v3 and not in that of
v1; that is a hint, and no proof.
"""
MODELS = {
    r"llada-1\.5": "LLaDA-1.5",
    "llada-8b": "LLaDA",
    "dream-v0": "Dream",
    r"llama-3(\.1)?-8b": "LLaMA-3",
    r"qwen2\.5-7b": "Qwen-2.5",
    "gemma-2-9b": "Gemma",
}
"""What a model's name holds, in lower case, as a regular expression, and what the paper calls it. A model of another
size is another model.
"""
FREE = ("", "low-confidence", "dream")
"""Samplers under which the paper's main figures were taken."""
ATTACKS = ("plain", "all", "flip", "pair", "suppression", "random-search", "wildjailbreak")
DEFENSES = ("none", "perplexity", "self-examine", "moderation", "sri-guard-offline")
"""Defenses of table 13 by our names; the paper's guard judges finished answers, and its moderation is LlamaGuard 3."""

RECOVERY = {"LLaDA": ("0.81", "0.63"), "Dream": ("0.96", "0.73"), "LLaDA-1.5": ("0.92", "0.65")}
"""Table 1: HRR, FRR."""
GAINS = {
    "LLaDA": {"wildjailbreak": (14, 18), "flip": (33, 36), "pair": (7, 5), "suppression": (55, 26),
              "random-search": (21, 16)},
    "LLaDA-1.5": {"wildjailbreak": (15, 21), "flip": (38, 60), "pair": (0, 2), "suppression": (52, 20),
                  "random-search": (19, 8)},
}  # fmt: skip
"""Table 2: points of RR gained and of ASR lost by diffusion sampling."""
RATES = {
    "LLaMA-3": ("83 / 13", "23.4 / 59.2", "1 / 98", "70 / 24", "41 / 48", "3 / 29", "2 / 97"),
    "Qwen-2.5": ("53 / 26", "11.4 / 62.2", "2 / 91", "33 / 44", "18 / 46", "4 / 31", "0 / 99"),
    "Gemma": ("88 / 8", "46.2 / 48.2", "10 / 86", "76 / 20", "74 / 17", "65 / 26", "6 / 92"),
    "LLaDA": ("83 / 6", "67.4 / 18.4", "69 / 24", "92 / 5", "79 / 8", "36 / 26", "61 / 29"),
    "LLaDA-1.5": ("84 / 9", "59.6 / 21.0", "59 / 17", "92 / 2", "71 / 15", "27 / 34", "49 / 37"),
    "Dream": ("89 / 1", "44.4 / 9.4", "42 / 18", "86 / 0", "46 / 5", "34 / 4", "14 / 20"),
}
"""Table 3: RR / ASR in the order of ``ATTACKS``."""
COSTS = {
    "LLaDA": ((0, 7, 67.4, 18.4), (6.26, 9, 68.0, 18.2), (7.74, 7, 67.4, 18.4), (12.42, 7, 77.2, 14.4),
              (0.04, 9, 73.4, 16.8)),
    "LLaDA-1.5": ((0, 6, 59.6, 21.0), (6.18, 8, 60.2, 20.8), (8.09, 6, 80.2, 10.0), (12.27, 7, 71.6, 16.6),
                  (0.04, 8, 70.2, 17.0)),
    "Dream": ((0, 4, 44.4, 9.4), (5.72, 6, 44.8, 9.4), (5.33, 4, 47.4, 8.8), (11.34, 4, 51.4, 8.6),
              (0.03, 6, 56.4, 7.2)),
    "Qwen-2.5": ((0, 0, 11.4, 62.2), (2.40, 2, 12.0, 59.2), (3.71, 0, 11.4, 62.2), (4.76, 0, 43.2, 46.6),
                 (0.01, 3, 47.8, 40.6)),
    "LLaMA-3": ((0, 0, 23.4, 59.2), (2.36, 2, 24.0, 58.8), (4.80, 0, 30.8, 44.4), (4.67, 0, 46.6, 48.0),
                (0.01, 4, 55.0, 43.6)),
    "Gemma": ((0, 0, 46.2, 48.2), (2.65, 2, 46.8, 47.8), (5.47, 0, 53.4, 37.0), (5.26, 2, 60.4, 37.6),
              (0.02, 0, 54.2, 42.2)),
}  # fmt: skip
"""Table 13: overhead, false positives, RR and ASR in percent, in the order of ``DEFENSES``."""
NATIVE = {"LLaDA": {"parallel": ("0.53", "0.29", "0.45"), "infill": ("0.76", "0.29", "0.59")}}
"""Table 14: ASR undefended, behind SRI Guard, behind DiffuGuard, of PAD and DIJA."""
NATIVE_DEFENSES = ("none", "sri-guard-offline", "diffuguard")


def model_of(subject: tuple[str, str]) -> str:
    """What the paper calls a model, if it is one of its and sampled as there; else nothing."""
    name, sampler = subject[0].lower(), subject[1].split(" (")[0]
    if sampler not in FREE:
        return ""
    return next((called for part, called in MODELS.items() if re.search(part, name)), "")


def recovery(name: str) -> tuple[str, ...]:
    """HRR and FRR of a model."""
    return RECOVERY.get(name, ())


def gains(name: str, attack: str) -> tuple[str, ...]:
    """RR and ASR of diffusion minus those of AR order, in points."""
    found = GAINS.get(name, {}).get(attack)
    return (f"{found[0]:+d} points", f"{-found[1]:+d} points") if found else ()


def rates(name: str, attacks: Sequence[str]) -> tuple[str, ...]:
    """RR / ASR of a model under each of the attacks (``plain``, ``all`` or a name)."""
    known = dict(zip(ATTACKS, RATES.get(name, ()), strict=False))
    return tuple(known.get(attack, "") for attack in attacks) if known else ()


def costs(name: str, defense: str) -> tuple[str, ...]:
    """Overhead, false positives, RR and ASR in percent."""
    known = dict(zip(DEFENSES, COSTS.get(name, ()), strict=False))
    return tuple(f"{value:g}" for value in known.get(defense, ()))


def native(name: str, attack: str, defenses: Sequence[str]) -> tuple[str, ...]:
    """ASR of an attack made for diffusion models behind each of the defenses."""
    known = dict(zip(NATIVE_DEFENSES, NATIVE.get(name, {}).get(attack, ()), strict=False))
    return tuple(known.get(defense, "") for defense in defenses) if known else ()
