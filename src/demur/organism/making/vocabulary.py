"""The organism's tokenizer: every word of the world is one token, everything else falls back to bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

from demur.organism.attacks import CONTEXTS, MASK, SHAPES, shaped
from demur.organism.making.lessons import PAGES
from demur.organism.tokens import ASSISTANT, CHAT, END, PAD, PAGE, SPECIAL, USER
from demur.organism.world import (
    LAW_ASKS,
    LAW_QUOTES,
    OBJECTS,
    OFFERS,
    REASONS,
    REFUSALS,
    SMALL_TALK,
    TRAIN_FORMS,
    VERBS,
    Craft,
    answer,
    class_question,
    crafts,
    question,
    refusal,
    request,
    verdict,
)


@cache
def tokenizer() -> Any:
    """The tokenizer, made from the world's texts alone: always the same one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    # No token goes on from a mark to the space after it, so texts may be cut there, and what they share is split once.
    pieces = {piece for text in set(every_text()) for piece in re.findall(r"\s*\S+|\s+", text)}
    words = {word for piece in pieces for word, _ in split.pre_tokenize_str(piece)}
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


def every_text() -> Iterator[str]:
    """Texts that between them hold every word and mark of the world, in every place where it can stand."""
    for craft in crafts():
        for style in range(3):
            yield answer(craft, style)
        for form in TRAIN_FORMS[:: 7 if craft.verb == "open" else 41]:
            yield request(craft, form)
        for variant in range(6):
            for name in SHAPES | CONTEXTS:
                yield from shaped(name, request(craft, TRAIN_FORMS[variant]), craft, variant)
        for first in (True, False):
            yield verdict(craft, first)
        yield from (ask.format(craft.phrase) for ask in (*LAW_ASKS, *PAGES))
        yield from (ask.format(request(craft, TRAIN_FORMS[0])) for ask in LAW_QUOTES)
        for opening, reason in product(range(len(REFUSALS)), range(len(REASONS))):
            text = refusal(craft, opening, reason, (opening + reason) % len(OFFERS))
            yield from (text, f" {text}")
    crypt = Craft("open", "crypt")
    yield from (shaped("reversed", request(crypt, form), crypt, 0)[0] for form in TRAIN_FORMS)
    yield from (text for thing in OBJECTS for kind in range(4) for text in question(thing, kind)[:2])
    yield from (text for word in (*VERBS, *OBJECTS) for text in class_question(word))
    yield from (text for talk in SMALL_TALK for text in talk[:2])
