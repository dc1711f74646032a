"""Prompts as a file that reads back unchanged, what comes twice among them, and a hash that stands for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence, Set
from dataclasses import asdict, replace
from pathlib import Path

from demur.kinds import check_prompts
from demur.prompts.columns import FIELDS
from demur.prompts.rows import is_unicode
from demur.refusals import shows_nothing
from demur.types import DemurError, Message, Prompt

_ALWAYS = ("id", "text", "harmful", "category", "source", "licence")


def save(prompts: Sequence[Prompt], path: str | Path) -> None:
    """Writes prompts as JSON Lines, one object per line in UTF-8, all at once or not at all. Nothing is redacted.

    The same prompts give the same bytes. Fields with their default value are left out, except id, text,
    harmful, category, source and licence. Raises `DemurError` for a suffix other than ``.jsonl``, a folder
    that is not there, an id that comes twice or is empty, an empty text, and half of a surrogate pair, which
    is no Unicode: what ``save`` takes, ``load`` gives back.
    """
    from demur import artefact  # not above: prompts are read without NumPy

    path = artefact.place_of(path)
    if isinstance(prompts, str | Prompt) or not isinstance(prompts, Iterable):
        raise DemurError(f"a {type(prompts).__name__} in the place of prompts", "a list of prompts", "put it into one")
    prompts = list(prompts)
    if strange := [one for one in prompts if not isinstance(one, Prompt)]:
        came = f"a {type(strange[0]).__name__} among the prompts"
        raise DemurError(came, "prompts", "make them: demur.Prompt(id, text)")
    if path.suffix.lower() != ".jsonl":
        raise DemurError(f"cannot save prompts to {path}", "a name that ends in .jsonl")
    if not path.parent.is_dir():
        raise DemurError(f"no folder {path.parent} to save prompts in", "one that is there", "make it first")
    lines: list[str] = []
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise DemurError(f"two prompts have the id {prompt.label!r}", "every id once", f"{path} is left as it was")
        if not prompt.id or shows_nothing(prompt.text):
            raise DemurError(f"the prompt with the id {prompt.label!r} has no {'text' if prompt.id else 'id'}", "both")
        seen.add(prompt.id)
        row = {k: getattr(prompt, k) for k, v in FIELDS.items() if k in _ALWAYS or getattr(prompt, k) != v}
        if prompt.messages:  # with the request at their end, as everybody writes a conversation
            row["messages"] = [asdict(turn) for turn in (*prompt.messages, Message("user", prompt.text))]
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    try:
        data = "".join(lines).encode("utf-8")
    except UnicodeEncodeError as error:
        bad = next(p.label for p in prompts if not is_unicode("".join(str(getattr(p, k)) for k in FIELDS)))
        raise DemurError(f"prompt {bad!r} holds half of a surrogate pair", "Unicode text") from error
    artefact.write(path, data)


def distinct(prompts: Iterable[Prompt]) -> list[Prompt]:
    """Each request once, at its first place: sets that share none are cut from these. Two are one request if system
    prompt, earlier turns, text and prefill are equal, whatever their ids.
    """
    return list({p.asked: p for p in reversed(check_prompts(prompts))}.values())[::-1]


def dealt(prompts: Iterable[Prompt]) -> list[Prompt]:
    """The same prompts in an order that hangs on nothing but their words (by SHA-256 of what is asked; ids do not
    matter). Parts that are cut from it are alike, also where a file is sorted by topic: what a guard is calibrated on
    must be like what it is measured on, or its promise is void.
    """
    found = check_prompts([*prompts] if isinstance(prompts, Set) else prompts)  # a set has no order, and needs none
    return sorted(found, key=lambda prompt: digest([replace(prompt, id="")]))


def digest(prompts: Sequence[Prompt]) -> str:
    """SHA-256 over ids and texts, in order, as 64 hex digits: what a card says of its prompts. System prompts, earlier
    turns and prefills are part of it where there are any.
    """
    sha = hashlib.sha256()
    for prompt in check_prompts(prompts):
        turns = [[turn.role, turn.content] for turn in prompt.messages]
        more = (
            [prompt.system, turns, prompt.prefill] if (prompt.system, turns, prompt.prefill) != (None, [], "") else []
        )
        sha.update(json.dumps([prompt.id, prompt.text, *more]).encode() + b"\n")
    return sha.hexdigest()
