"""Tensors of a checkpoint that a model need not take, each with the reason why no result depends on it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

IDLE: tuple[tuple[str, str], ...] = (
    (
        r"(^|\.)(rotary_emb|rotary_pos_emb|rope|rotary_embedding)\.(original_)?(inv_freq|freqs)$",
        "config.json gives them",
    ),
    (r"(^|\.)(attn|attention|self_attn|crossattention)\.(masked_bias|causal_mask)$", "a causal mask as a table"),
    (r"(^|\.)position_ids$", "numbers from 0 on"),
    (r"(^|\.)(mtp|mtp_layers|mtp_block|nextn)\.", "heads that draft further tokens; no state or logit reads them"),
    (
        r"(^|\.)(vision_tower|vision_model|visual|vision_encoder|vision_embed_tokens|image_encoder|audio_tower|"
        r"audio_model|audio_encoder|speech_encoder|multi_modal_projector|mm_projector|vision_projection|embed_vision|"
        r"embed_audio|image_newline|patch_merger|vision_language_adapter|pre_mm_projector_norm)(\.|$)",
        "they read images or sound, and no text passes them",
    ),
    (r"\.(k_scale|v_scale)$", "for keys and values kept in 8 bits, which is not done here"),
)
"""Names of tensors that may be left over, each with the reason why no result depends on them."""

_MASK = re.compile(r"(^|\.)(attn|attention|crossattention)\.bias$")
BLOCK = re.compile(r"(?:^|\.)layers\.(\d+)\.")
"""A block's number in a tensor's name."""


def idle(key: str, raw: Mapping[str, Any], shape: Sequence[int] | None = None) -> bool:
    """Whether a left-over tensor is known to change nothing: see :data:`IDLE`; also causal masks that carry a
    parameter's name (four dimensions), and the blocks after the last one that only draft further tokens.
    """
    if any(re.search(form, key) for form, _ in IDLE):
        return True
    if shape is not None and len(shape) == 4 and _MASK.search(key):
        return True
    text = raw.get("text_config") if isinstance(raw.get("text_config"), Mapping) else raw
    drafting, blocks = (text or {}).get("num_nextn_predict_layers"), (text or {}).get("num_hidden_layers")
    block = BLOCK.search(key)
    if block and isinstance(drafting, int) and isinstance(blocks, int):
        return blocks <= int(block[1]) < blocks + drafting
    return False
