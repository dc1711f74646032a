"""What a network computes with beside its weights, read off its configuration: rotary base and scaling, epsilons,
scales, windows, heads, experts.

Two folders may hold one set of weights and another ``rope_theta``: the weights' hash does not tell them apart, and the
states are others. So these facts stand in a spec, each under its name, and two specs differ where a fact that both know
differs. They are no hash: versions of transformers know other facts of one model, and a fact that only one side knows
says nothing. What is said of size is in the weights; what is random, of special tokens, of output or of training is no
part of it (:data:`ELSE`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

LONG = 160
"""A list of facts that takes more letters is a hash."""
Fact = str | int | float | bool | None
ELSE = re.compile(
    r"dropout|pdrop|classifier|summary_|sparse_pred|flash|upcast|_token|token_id|initializ|init_|_init|^use_cache$|vocab|cache_implementation|^output_(?:attentions|hidden|router|scores)|^return_|label|loss|"
    r"aux_|jitter|gradient|checkpointing|dtype|quantization|version|architectures|auto_map|attn_implementation|"
    r"pretraining_tp|tie_|name_or_path|chunk_size_feed_forward|problem_type|prun|is_encoder_decoder|is_decoder|"
    r"cross_attention|response_length|max_position_embeddings$|^(?:model_type|task_specific_params|prefix|sep|"
    r"finetuning_task|tokenizer_class|use_bfloat16|bos|eos|pad)\b|^_"
)
"""Names of facts that change nothing of what a network computes, or that weights, dtype and template say."""


SET_TO_NOTHING = re.compile(r"window|softcap|chunk")
"""Names of facts whose absence is one. Of others, nothing means "as usual", which another file may write out."""


def computed_by(net: Any) -> dict[str, Fact]:
    """The facts of a network's text part, by name; those inside of another one as ``outer.inner``. Empty for a network
    without a configuration.

    Numbers have six digits: a file of another kind keeps them in less. Of a list of layers, how many of which follow
    one another (``sliding*5 full*1``). Only what the configuration's class knows: it reads nothing else.
    """
    config = getattr(net, "config", None)
    if config is None:
        return {}
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    known = known_facts(config.__class__)
    said = {name: value for name, value in config.to_dict().items() if known is None or name in known}
    found = dict(_facts(said))
    if any(found.get(name) == "dynamic" for name in found if name.endswith("rope_type")):
        found["max_position_embeddings"] = _fact(getattr(config, "max_position_embeddings", None))
    return dict(sorted(found.items()))


@cache
def known_facts(of: type) -> frozenset[str] | None:
    """What a class of configurations knows; None where it can't be made without more."""
    try:
        return frozenset(of().to_dict())
    except Exception:  # some classes need settings; then everything that is said counts
        return None


def _facts(said: Mapping[str, Any], outer: str = "") -> list[tuple[str, Fact]]:
    found: list[tuple[str, Fact]] = []
    for name, value in said.items():
        if ELSE.search(str(name)) and not (outer and "max_position_embeddings" in str(name)):
            continue
        if isinstance(value, Mapping):
            found += _facts(value, f"{outer}{name}.")
        elif value is not None or SET_TO_NOTHING.search(str(name)):
            found.append((f"{outer}{name}", _fact(value)))
    return found


def _fact(value: Any) -> Fact:
    if isinstance(value, float):
        short = float(f"{value:.6g}")
        return int(short) if short.is_integer() else short
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Sequence):
        said = " ".join(f"{item}*{len([*same])}" for item, same in groupby(map(_fact, value)))
        return said if len(said) <= LONG else f"sha256 {hashlib.sha256(said.encode()).hexdigest()[:12]}"
    return str(value)
