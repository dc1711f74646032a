"""A tokenizer, held against the files that it was read from.

transformers builds many tokenizers anew by rules of their class, and of ``tokenizer.json`` takes the words alone: how a
text is made even, where it is split and how pieces are joined are then the class's, and the model reads other tokens
than it was trained on. A token that one file names and another does not know gets a new id at the end. Neither says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demur.models.checkpoint import NO_CODE, optional_file, read_json
from demur.types import DemurError, DemurWarning

FILE, CONFIG, ADDED = "tokenizer.json", "tokenizer_config.json", "added_tokens.json"
TEMPLATE, PROCESSORS = "chat_template.jinja", "chat_template.json"
"""Where tokenizers have their chat template, and where processors of some models, which take pictures too, had it."""

PROBES = (
    "How do I bake a loaf of bread, and what's it cost in 2024?",
    "  Two blanks,   three;\ttab\n\n\nthree lines \n and one more.  ",
    "I'LL, they've, DON'T; e.g. (a-b)/c_d == 3.14159, 1000000 x 123456789!",
    "Ünïcode: naïve café, ﬁne ① Ｆｕｌｌ, e\u0301, ½, ™, Straße, İstanbul.",
    "你好，世界。こんにちは 안녕하세요 Привет мир مرحبا नमस्ते 🙂👩‍👩‍👧",
    "def f(x):\n    if x > 0:\n        return x  # camelCase snake_case HTTPServer\n\t\treturn None\n",
)
"""Texts that two ways to split, to join or to make even would write in other tokens."""

PIECES = 512
"""So many single tokens of a vocabulary are read, too: some tokenizers take a word that is a token before any rule."""

SPARE = 1.1
"""A model may have this many times the rows that its tokenizer has tokens: rows are filled up to a round number. Of
public models the fullest up has 2% more.
"""


def as_filed(name: str, tokenizer: Any, where: str | Path, hub: Mapping[str, Any], ours: bool = False) -> Any:
    """The tokenizer as its files describe it: of its own ``tokenizer.json`` where the class would split otherwise, and
    with one way to write a text. Raises where two files give a token two ids. Warns of what it changes, and of ends and
    begins that are in no vocabulary. ``ours``: the files were written here, of a GGUF file, which knows less of it than
    the class does (Qwen's NFC).
    """
    if not ours and getattr(tokenizer, "is_fast", False) and optional_file(where, hub, FILE) is not None:
        tokenizer = _split_by_file(name, tokenizer, where, hub)
    if _drops(tokenizer):
        tokenizer.backend_tokenizer.model.dropout = None
        warnings.warn(
            f"{name}: {FILE} has texts split at random (dropout), as in training; this is switched off",
            DemurWarning,
            stacklevel=6,
        )
    paths = [optional_file(where, hub, file) for file in (FILE, CONFIG, ADDED)]
    files = [read_json(path, name) if path is not None else {} for path in paths]
    named = _named(*files)
    _check_ids(name, tokenizer, named)
    if files[0]:
        _say_made_up(name, tokenizer, files[0], named)
    return tokenizer


def check_steady(tokenizer: Any) -> None:
    """Raises for a tokenizer of the user's own that splits texts at random."""
    if _drops(tokenizer):
        raise DemurError(
            "a tokenizer that splits texts at random (dropout), as in training",
            "one that writes a text in one way",
            "set tokenizer.backend_tokenizer.model.dropout = None",
        )


def say_sizes(name: str, tokenizer: Any, net: Any) -> None:
    """Warns where a model has many more rows than its tokenizer has tokens, as where it is another model's."""
    rows = net.get_input_embeddings().num_embeddings
    if tokenizer is not None and rows > SPARE * len(tokenizer) + 64:
        warnings.warn(
            f"{name}: the tokenizer has {len(tokenizer)} tokens and the model {rows}: it may be another model's",
            DemurWarning,
            stacklevel=4,
        )


def say_templates(name: str, template: str | None, where: str | Path, hub: Mapping[str, Any]) -> None:
    """Warns of chat templates in other files beside the one that is used, if they say something else."""
    if template is None:
        if optional_file(where, hub, PROCESSORS) is not None:
            came = f"{name}: prompts are asked without a chat template: the one in {PROCESSORS} is a processor's"
            warnings.warn(f"{came}; write it into {TEMPLATE} to use it", DemurWarning, stacklevel=4)
        return
    for file in (CONFIG, PROCESSORS):
        found = optional_file(where, hub, file)
        other = read_json(found, name).get("chat_template") if found is not None else None
        if isinstance(other, list):  # by name
            named = {str(one.get("name")): one.get("template") for one in other if isinstance(one, Mapping)}
            other = named.get("default")
        if isinstance(other, str) and other.strip() != template.strip():
            warnings.warn(
                f"{name}: the chat template in {file} is another one than that in {TEMPLATE}, which is used; "
                "delete the one that the model was not trained with",
                DemurWarning,
                stacklevel=4,
            )


def _drops(tokenizer: Any) -> bool:
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    return bool(getattr(model, "dropout", None))


def _split_by_file(name: str, tokenizer: Any, where: str | Path, hub: Mapping[str, Any]) -> Any:
    """The tokenizer, or, where its class has rules of its own and these write something else, the one of the file."""
    from transformers import PreTrainedTokenizerFast

    if type(tokenizer) is PreTrainedTokenizerFast:  # it has none
        return tokenizer
    plain = PreTrainedTokenizerFast.from_pretrained(where, **hub, **NO_CODE)
    models = [one.backend_tokenizer.model for one in (plain, tokenizer)]
    kept = [getattr(model, "dropout", None) for model in models]
    for model, dropout in zip(models, kept, strict=True):
        if dropout:
            model.dropout = None
    marks = [str(token.content) for token in plain.added_tokens_decoder.values() if token.special][:4]
    texts = [*PROBES, *(f"{mark}How are{mark} you? {mark}\n{mark}  Well." for mark in marks)]
    texts += [plain.decode([i]) for i in range(0, len(plain), max(1, len(plain) // PIECES))]
    other = [text for text in texts if _ids(plain, text) != _ids(tokenizer, text)]
    if kept[0]:
        models[0].dropout = kept[0]
    if not other:
        return tokenizer if not kept[0] else plain
    warnings.warn(
        f"{name}: {type(tokenizer).__name__} of transformers splits texts otherwise than the model's own {FILE} "
        f"({len(other)} of {len(texts)} texts); the file's way is taken",
        DemurWarning,
        stacklevel=7,
    )
    return plain


def _ids(tokenizer: Any, text: str) -> list[int] | None:
    """The tokens of a text; None where it has a sign for which the tokenizer has none, not even an unknown one."""
    try:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    except Exception:  # tokenizers raises just this
        return None


def _check_ids(name: str, tokenizer: Any, named: Sequence[_Named]) -> None:
    """Raises where a file names a token with another id than the tokenizer gives it."""
    ids: dict[tuple[str, str], list[int]] = {}
    for file, content, i in named:
        ids.setdefault((file, content), []).append(i)
    for (file, content), wanted in ids.items():
        has = tokenizer.convert_tokens_to_ids(content)
        if has in wanted or has is None:
            continue
        raise DemurError(
            f"{name}: {file} says that {content[:40]!r} is token {wanted[0]}, and the tokenizer makes it token {has}",
            "files of one tokenizer, since the model was trained with one of the two",
            "download all files of the tokenizer again, or save it anew",
        )


_Named = tuple[str, str, int]
"""A file, a token in it, and the id that it has there."""


def _named(whole: Mapping[str, Any], config: Mapping[str, Any], added: Mapping[str, Any]) -> list[_Named]:
    """The added tokens of the three files. transformers reads the third one where the second one says nothing."""
    found: list[tuple[str, Any, Any]] = [
        (FILE, token.get("content"), token.get("id")) for token in _items(whole.get("added_tokens"))
    ]
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, Mapping) and decoder:
        found += [(CONFIG, token.get("content"), i) for i, token in decoder.items() if isinstance(token, Mapping)]
    else:
        found += [(ADDED, content, i) for content, i in added.items()]
    return [(file, content, int(i)) for file, content, i in found if isinstance(content, str) and str(i).isdecimal()]


def _items(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _say_made_up(name: str, tokenizer: Any, whole: Mapping[str, Any], named: Sequence[_Named]) -> None:
    """Warns of begins, ends, masks and marks of the template that no vocabulary holds: they are the last ids."""
    template = str(getattr(tokenizer, "chat_template", None) or "")
    roles = {str(getattr(tokenizer, f"{role}_token", None)): role for role in ("mask", "bos", "eos")}
    marks = {str(token.content) for token in getattr(tokenizer, "added_tokens_decoder", {}).values()}
    vocabulary = (whole.get("model") or {}).get("vocab") or {}
    pieces = vocabulary if isinstance(vocabulary, Mapping) else {str(piece[0]) for piece in vocabulary}
    known = {content for _, content, _ in named}
    for content in sorted(marks - known):
        if (content not in roles and content not in template) or content in pieces:
            continue
        warnings.warn(
            f"{name}: {content[:40]!r} ({roles.get(content, 'special')} token) is in no vocabulary of its files: it "
            f"gets the new id {tokenizer.convert_tokens_to_ids(content)}, with which the model was not trained",
            DemurWarning,
            stacklevel=6,
        )
