"""Moderation models that judge every token: Qwen3Guard-Stream.

Facts of the checkpoint, by its public serving code (``Qwen3ForGuardModel``) and evaluation: a Qwen3 trunk, and behind
its final norm one small head for answers and one for requests: a projection, an RMS norm, and a linear layer for the
risk and one for the category. The maker's class is code on the hub, which is never run here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from demur.models import checkpoint, placed
from demur.models.chat import Chat
from demur.models.control import Sealed, answer_row, bare_row, control_tokens, row_of, sealed
from demur.models.filed import as_filed
from demur.models.hooks import import_compiler
from demur.models.loading import device_of, dtype_of, quiet
from demur.models.locate import locate, pinned, plain_errors
from demur.models.weights import check_finite
from demur.types import DemurError, Message, Prompt

ARCHITECTURE = "Qwen3ForGuardModel"
LEVELS = ("Safe", "Unsafe", "Controversial")


def _net(raw: dict[str, Any]) -> type[Any]:
    """The network's class; in a function, since transformers is slow to import."""
    from transformers import Qwen3Config, Qwen3Model, Qwen3PreTrainedModel
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    inner = raw["guard_inner_size"]

    class Guarded(Qwen3PreTrainedModel):  # type: ignore[misc, unused-ignore]
        config_class = Qwen3Config

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model = Qwen3Model(config)
            for side in ("", "query_"):
                levels, categories = (
                    len(raw[f"{side or 'response_'}{what}_map"]) for what in ("risk_level", "category")
                )
                setattr(self, f"{side}risk_level_category_pre", torch.nn.Linear(config.hidden_size, inner, bias=False))
                norm = Qwen3RMSNorm(inner, eps=config.rms_norm_eps)
                setattr(self, f"{side}risk_level_category_layernorm", norm)
                setattr(self, f"{side}risk_level_head", torch.nn.Linear(inner, levels, bias=False))
                setattr(self, f"{side}category_head", torch.nn.Linear(inner, categories, bias=False))
            self.post_init()

        def risks(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b r"]:
            """Logits of an answer's levels of risk, of hidden states behind the final norm."""
            inner = self.risk_level_category_layernorm(self.risk_level_category_pre(hidden))
            logits: Tensor = self.risk_level_head(inner)
            return logits

    return Guarded


@dataclass(frozen=True, eq=False)
class TokenModerator:
    """Judges each token of an answer by those before it. ``levels``: what each place of its output means."""

    name: str
    net: Any
    tokenizer: Any
    levels: tuple[str, ...]

    def beginning(self, answer: str, tokens: int) -> str:
        """The first ``tokens`` of an answer, in the moderator's own tokens, as text."""
        text: str = self.tokenizer.decode(self._row(answer)[:tokens])
        return text

    def _row(self, answer: str) -> list[int]:
        """The tokens of an answer. A control token that it holds is letters: it can not end its own turn."""
        controls = control_tokens(self.tokenizer, Chat(self.tokenizer).template or "")
        (turn,), seals = sealed([Message("assistant", answer)], controls)
        if not seals:
            return answer_row(self.tokenizer, answer)
        return row_of(self.tokenizer, Sealed(turn.content, seals, controls), templated=True)

    @torch.no_grad()
    def risks(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Float[Tensor, "k r"]]:
        """Probabilities of each level after each of the k tokens of an answer, in the moderator's own tokens, and after
        those that the template closes its turn with, which the makers' evaluation counts too. None for an empty answer.

        One pass for an answer gives what one for each token would: the trunk is causal. What a prompt prefills is
        part of the answer, and read there. Raises as :meth:`Chat.encode` does, and for an answer that leaves no room in
        the context.
        """
        chat = Chat(self.tokenizer, None, {"enable_thinking": False} if self._thinks else {})
        context = self.net.config.max_position_embeddings
        closed = bare_row(self.tokenizer, chat.closing)
        found = []
        for prompt, answer in zip(prompts, answers, strict=True):
            said = self._row(answer)
            said += closed if said else []
            (row,) = chat.encode([replace(prompt, prefill="")], length=len(said), context=context)
            ids = torch.tensor([row + said], device=self.net.device)
            hidden = self.net.model(input_ids=ids, use_cache=False).last_hidden_state[0, len(row) :]
            found.append(self.net.risks(hidden).float().softmax(dim=-1).cpu())
        return found

    @property
    def _thinks(self) -> bool:
        return "enable_thinking" in (Chat(self.tokenizer).template or "")


def load_token_moderator(
    name: str, *, dtype: str | torch.dtype = "auto", device: str | None = None, revision: str | None = None
) -> TokenModerator:
    """Qwen3Guard-Stream by local folder or hub id. ``dtype`` and ``device`` as in :func:`demur.load`.

    Raises for another architecture, for tensors that are missing, of another shape or left over, for weights that are
    not finite, and for a configuration whose levels are not the three that are known.
    """
    import transformers
    from transformers import PreTrainedConfig

    device = device_of(device)
    kind = dtype_of(dtype, device)
    where, at = locate(name, revision)
    hub = {} if not isinstance(where, str) else pinned(where, at)
    import_compiler()
    with plain_errors(name):
        if not isinstance(where, str):
            checkpoint.check_pointers(name, where)
        raw, _ = PreTrainedConfig.get_config_dict(where, **hub)
        if ARCHITECTURE not in (raw.get("architectures") or ()):
            came = f"{name} of architecture {', '.join(raw.get('architectures') or ['none'])}"
            raise DemurError(
                came, ARCHITECTURE, "name a Qwen3Guard-Stream checkpoint, Qwen/Qwen3Guard-Stream-0.6B, say"
            )
        levels = tuple(raw["response_risk_level_map"][key] for key in sorted(raw["response_risk_level_map"], key=int))
        if {*levels} != {*LEVELS} or len(levels) != len(LEVELS):
            raise DemurError(f"{name} with levels {', '.join(levels)}", ", ".join(LEVELS), "check its config.json")
        stored = checkpoint.tensors_of(name, where, hub, raw)
        placed.check_names(name, stored)
        config = transformers.Qwen3Config.from_dict(
            {key: value for key, value in raw.items() if key not in ("auto_map", "architectures", "model_type")}
        )
        with quiet():
            net, report = _net(raw).from_pretrained(
                where, config=config, dtype=kind, use_safetensors=True, output_loading_info=True,
                ignore_mismatched_sizes=True, **hub, **checkpoint.NO_CODE,
            )  # fmt: skip
        wrong = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
        if wrong:
            raise DemurError(
                f"{name}: {len(wrong)} tensors are missing or of another shape ({wrong[0]} ...)",
                "a checkpoint that holds every weight that config.json describes",
                "download it again",
            )
        # The head of the language model that it was trained from may be there; nothing here reads it.
        unread = [key for key in report["unexpected_keys"] if key != "lm_head.weight"]
        placed.check_left_over(name, unread, stored, raw, net)
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, **hub, **checkpoint.NO_CODE)
        tokenizer = as_filed(name, tokenizer, where, hub)
    net = net.to(device).eval()
    check_finite(net, name)
    return TokenModerator(name, net, tokenizer, levels)
