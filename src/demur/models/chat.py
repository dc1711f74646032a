"""From prompts to token rows to a canvas: the chat template, the limits, the padding."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from demur.types import Canvas, DemurError, Prompt


def template_hash(tokenizer: Any, system: str | None) -> str:
    """Twelve hex digits of the chat template and the system prompt; ``none`` for a model without a template. Raises for
    a system prompt that there is no template for.
    """
    template = getattr(tokenizer, "chat_template", None)
    if template is None:
        if system:
            raise _no_place(system)
        return "none"
    return hashlib.sha256(f"{template}\0{system or ''}".encode()).hexdigest()[:12]


def text_of(tokenizer: Any, prompt: Prompt, system: str | None) -> str:
    """The prompt in the model's chat template, with the beginning of the answer if the prompt prefills one.

    A model without a template gets the plain text. ``prompt.system`` wins over ``system``; None leaves the system
    prompt to the template. Raises for a system prompt that the template refuses, or that there is no template for.
    """
    says = prompt.system if prompt.system is not None else system
    if getattr(tokenizer, "chat_template", None) is None:
        if says:
            raise _no_place(says)
        return prompt.text + prompt.prefill
    messages = [{"role": "system", "content": says}] if says is not None else []
    messages.append({"role": "user", "content": prompt.text})
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja2 raises what the template's author wrote
        raise DemurError(
            f"the chat template refused the prompt {prompt.id!r} ({error})",
            "a template that takes these roles" if says is not None else "a template that takes a user message",
            "leave the system prompt out" if says is not None else "check the tokenizer's chat_template",
        ) from error
    return text + prompt.prefill


def _no_place(system: str) -> DemurError:
    return DemurError(
        f"the system prompt {system[:40]!r} for a model without a chat template",
        "a template, which says where it belongs",
        "leave the system prompt out, or write it into the prompt's text",
    )


def encode(
    tokenizer: Any, prompts: Sequence[Prompt], *, length: int, context: int | None, system: str | None = None
) -> list[list[int]]:
    """Token rows of prompts. Raises for an empty prompt and for one that leaves no room for ``length`` tokens."""
    if not prompts:
        raise DemurError("no prompts came", "at least one", "give it a prompt")
    rows = []
    for prompt in prompts:
        if not prompt.text.strip():
            raise DemurError(f"prompt {prompt.id!r} is empty", "a text", "give it some words")
        if tokenizer is None:
            raise DemurError("a model without a tokenizer", "token rows", "use canvas_of(rows, length, ...)")
        ids = tokenizer(text_of(tokenizer, prompt, system), add_special_tokens=tokenizer.chat_template is None)
        row = list(ids["input_ids"])
        if not row:
            raise DemurError(
                f"prompt {prompt.id!r} is no token at all", "a text that the tokenizer knows", "give it words"
            )
        if context is not None and len(row) + length > context:
            raise DemurError(
                f"prompt {prompt.id!r} takes {len(row)} tokens and the answer {length}",
                f"at most {context} together, the model's context",
                "shorten the prompt or lower --length",
            )
        rows.append(row)
    return rows


def canvas_of(
    rows: Sequence[Sequence[int]],
    length: int = 0,
    *,
    fill: int,
    pad: int | None = None,
    device: torch.device | str = "cpu",
    holes: Sequence[Sequence[int]] | None = None,
) -> Canvas:
    """A canvas of token rows, padded on the left, each followed by ``length`` open places.

    ``fill`` is the token written into open places (the mask id of a diffusion model), ``pad`` the one in padding
    (default: ``fill``). ``holes`` opens places inside a row as well, given by row as positions counted from its
    start; what stood there is overwritten by ``fill``.
    """
    if not rows or length < 0:
        raise DemurError(
            f"{len(rows)} rows, length {length}", "at least one row, a length of at least 0", "give it both"
        )
    width = max(len(row) for row in rows) + length
    ids = torch.full((len(rows), width), fill, dtype=torch.long)
    open_ = torch.zeros((len(rows), width), dtype=torch.bool)
    padding = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        start = width - length - len(row)
        ids[i, start : start + len(row)] = torch.tensor(list(row), dtype=torch.long)
        open_[i, start + len(row) :] = True
        ids[i, :start] = fill if pad is None else pad
        padding[i, :start] = True
        for hole in holes[i] if holes is not None else ():
            if not 0 <= hole < len(row):
                raise DemurError(
                    f"a hole at {hole} in a row of {len(row)} tokens", "a position inside the row", "count from 0"
                )
            open_[i, start + hole], ids[i, start + hole] = True, fill
    return Canvas(ids=ids.to(device), open=open_.to(device), pad=padding.to(device))
