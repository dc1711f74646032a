"""Random search over a suffix, by the log-probability of an obedient beginning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from demur.attacks.found import Access, Found, Knows, attacked, check_settings, penalty
from demur.attacks.holes import canvas_for
from demur.kinds import check_prompt, check_seed
from demur.types import DemurError, Need, Prompt, Scoring

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class RandomSearch:
    """Random search: tokens of a suffix are changed at random, and a change stays if it makes the target likelier.

    Andriushchenko, Croce and Flammarion, *Jailbreaking Leading Safety-Aligned LLMs with Simple Adaptive Attacks*,
    arXiv:2404.02151, section 3. Departures: no hand-written template around the request; ``batch`` changes are tried at
    once and the best one may stay; each replaces a run of 1 to ``tokens // 4`` tokens, whatever the probability so far,
    so that a longer search begins with the shorter one.

    - ``tokens`` in the suffix, ``iterations`` rounds of ``batch`` candidates, from ``restarts`` random beginnings.
    - ``budget``: forward passes of one prompt in all; a batch of 8 costs 8.
    - ``target``: the first words of the answer. Score: the sum of its tokens' log-probabilities (at most 0). On a
      causal model each given the ones before; on a masked one all from the first pass over ``length`` masks, as the
      first step of a sampler sees them.

    - ``knows``: how suspicious a monitor finds the answer to each prompt (:class:`demur.attacks.knowing.Suspicion`),
      for an attacker who has it. The score is then the target's less ``weight`` times that. Each candidate costs one
      answer more, which ``budget`` does not count.

    Every candidate is scored as text, in the model's template, so that the score is that of the prompt as it is asked.
    """

    model: Scoring
    tokens: int = 20
    iterations: int = 100
    restarts: int = 1
    seed: int = 0
    budget: int = 1000
    batch: int = 8
    target: str = field(default="Sure", repr=False)
    length: int = 32
    knows: Knows | None = None
    weight: float = 0.0
    name: ClassVar[str] = "random-search"
    access: ClassVar[Access] = "logits"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.LOGITS})

    def __post_init__(self) -> None:
        check_settings(self)
        for name, least in {"tokens": 1, "iterations": 0, "restarts": 1, "budget": 1, "batch": 1, "length": 1}.items():
            if getattr(self, name) < least:
                raise DemurError(f"{name}={getattr(self, name)}", f"at least {least}", f"raise {name}")
        if not self.weight >= 0 or (self.weight and self.knows is None):
            expected = "at least 0, and with it what is known of a monitor"
            raise DemurError(f"weight={self.weight}", expected, "give knows=Suspicion(guard, model), or leave it out")
        check_seed(self.seed)
        if not self.target.strip():
            raise DemurError("an empty target", "words with which an answer begins", 'such as "Sure"')
        if not hasattr(self.model, "forward"):
            raise DemurError(
                f"random search on {self.model.name}, whose canvases start as noise",
                "a causal or masked-diffusion model",
                "use an attack on the text",
            )

    def __call__(self, prompt: Prompt) -> Prompt:
        """The request with the best suffix found."""
        check_prompt(prompt)
        return self.search(prompt).prompt

    def search(self, prompt: Prompt) -> Found:
        """The best suffix within the budget. ``path`` has a value for every beginning and every iteration."""
        check_prompt(prompt)
        import numpy as np

        rng = np.random.default_rng(self.seed)
        found, score, queries, path = attacked(prompt, self.name), -np.inf, 0, []
        for _ in range(self.restarts):
            if queries == self.budget:
                break
            suffix = rng.choice(self._alphabet, self.tokens)
            candidate = self._with(prompt, suffix)
            top = self._scores([candidate])[0]
            queries += 1
            if top > score:
                found, score = candidate, top
            path.append(score)
            for _ in range(self.iterations):
                room = min(self.batch, self.budget - queries)
                if not room:
                    break
                tried = [self._changed(suffix, rng) for _ in range(room)]
                candidates = [self._with(prompt, one) for one in tried]
                values = self._scores(candidates)
                queries += room
                best = int(np.argmax(values))
                if values[best] > top:
                    suffix, top = tried[best], values[best]
                    if top > score:
                        found, score = candidates[best], top
                path.append(score)
        if score == -np.inf:  # the request itself would be asked, as the best that was found
            came = f"random search on {prompt.label!r}: no one of {queries} suffixes has a finite score"
            raise DemurError(came, f"a target that {self.model.name} can begin with", "name another target, or dtype")
        return Found(found, float(score), queries, tuple(path))

    def scores(self, prompts: Sequence[Prompt]) -> list[float]:
        """The log-probability of the target as the beginning of the answer to each prompt, in one forward pass."""
        import torch

        model, n = self.model.watching(), len(self._target)
        causal = model.mask_id is None
        canvas = model.canvas(prompts, n) if causal else canvas_for(model, prompts, max(n, self.length))
        asked = canvas.open & (canvas.open.long().cumsum(dim=1) <= n)
        if bool((asked.sum(dim=1) < n).any()):
            raise DemurError(f"fewer open places than the {n} tokens of {self.target!r}", "one each", "shorten target")
        wanted: Int[Tensor, "k"] = torch.tensor(self._target, device=canvas.ids.device).repeat(canvas.rows)
        if causal:  # a causal model reads the target's first tokens; a masked one sees masks
            ids = canvas.ids.clone()
            ids[asked] = wanted
            canvas = replace(canvas, ids=ids)
        logits: Float[Tensor, "k v"] = model.forward(canvas, asked).logits
        logp = logits.float().log_softmax(dim=-1).gather(-1, wanted[:, None])[:, 0]
        scores: list[float] = logp.view(canvas.rows, n).sum(dim=1).tolist()
        return scores

    def _scores(self, prompts: Sequence[Prompt]) -> list[float]:
        """The target's, less what the monitor's suspicion takes off. What is no number is less than all others."""
        less = penalty(self.knows, prompts, self.weight)
        found = [score - off for score, off in zip(self.scores(prompts), less, strict=True)]
        return [-math.inf if math.isnan(score) else score for score in found]

    def _with(self, prompt: Prompt, suffix: Int[np.ndarray, "s"]) -> Prompt:
        text: str = self.model.tokenizer.decode(suffix.tolist())
        return attacked(prompt, self.name, text=f"{prompt.text} {text.strip()}")

    def _changed(self, suffix: Int[np.ndarray, "s"], rng: np.random.Generator) -> Int[np.ndarray, "s"]:
        """The suffix with a run of tokens drawn anew."""
        run = int(rng.integers(1, max(1, self.tokens // 4) + 1))
        begin = int(rng.integers(0, self.tokens - run + 1))
        changed = suffix.copy()
        changed[begin : begin + run] = rng.choice(self._alphabet, run)
        return changed

    @cached_property
    def _target(self) -> list[int]:
        return list(self.model.tokenizer(self.target, add_special_tokens=False)["input_ids"])

    @cached_property
    def _alphabet(self) -> Int[np.ndarray, "a"]:
        """Tokens that a person could type: printable, not blank, and no character with which a special token begins,
        so that no suffix spells one (it would end the user's turn, which is another attack).
        """
        import numpy as np

        tokenizer = self.model.tokenizer
        special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        begins = {tokenizer.convert_ids_to_tokens(i)[:1] for i in special}
        ids = [i for i in range(len(tokenizer)) if i not in special]
        texts = tokenizer.batch_decode([[i] for i in ids])
        typed = [
            i
            for i, text in zip(ids, texts, strict=True)
            if text.strip() and text.isprintable() and "\ufffd" not in text and not begins & set(text)
        ]
        if not typed:
            raise DemurError(f"no token of {self.model.name} can be typed", "a tokenizer of texts", "use another model")
        return np.array(typed)
