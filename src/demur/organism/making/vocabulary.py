"""The organism's tokenizer: every word of the world is one token, everything else falls back to bytes."""

from __future__ import annotations

from functools import cache
from typing import Any

from demur.organism.attacks import MASK
from demur.organism.making.lessons import every_text
from demur.organism.tokens import ASSISTANT, CHAT, END, PAD, PAGE, SPECIAL, USER


@cache
def tokenizer() -> Any:
    """The tokenizer, made from the world's texts alone: always the same one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    words = {word for text in every_text() for word, _ in split.pre_tokenize_str(text)}
    names = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *sorted(w for w in words if len(w) > 1)]
    backend = Tokenizer(
        models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], ignore_merges=True, fuse_unk=False)
    )
    backend.pre_tokenizer = split
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        mask_token=MASK,
        additional_special_tokens=[USER, ASSISTANT, PAGE],
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = CHAT
    return made
