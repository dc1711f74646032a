"""From what a header says of tokens to a tokenizer of transformers, and to the tokens that end an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demur.models.checkpoint import NO_CODE
from demur.models.gguf.header import Header, refused

_ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>",
    "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<｜end▁of▁sentence｜>",
    "<|END_OF_TURN_TOKEN|>",
)  # fmt: skip
"""Control tokens that end a generation by their text, as in llama.cpp (``llama-vocab.cpp``): many files name but one
token, of the sequence or of the turn."""


def stops(header: Header, tokenizer: Any = None) -> list[int]:
    """The tokens that end an answer: of the sequence, of the turn, of the message; and control tokens of the
    ``tokenizer`` that say so.
    """
    found = {header.fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")}
    added = getattr(tokenizer, "added_tokens_decoder", {})
    ends = {str(token.content): i for i, token in added.items() if token.special and str(token.content) in _ENDS}
    if "<|return|>" in ends and "<|call|>" in ends:  # gpt-oss: it closes a channel, and the answer goes on
        ends.pop("<|end|>", None)
    return sorted(int(i) for i in {*found, *ends.values()} if i is not None and 0 <= int(i) < 2**31)


_BY_GPT2 = ("default", "gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "jina-v1-en", "jina-v2-code", "roberta-bpe")
_BY_DIGIT = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
"""``tokenizer.ggml.pre``: how text is split before merges. The second kind splits off every digit first."""


def tokenizer_of(header: Header, where: Path, config: Any) -> Any:
    """The file's tokenizer. Raises where its way to split text is not known."""
    from tokenizers import pre_tokenizers, processors

    try:
        tokenizer = _class_for(config).from_pretrained(where.parent, gguf_file=where.name, **NO_CODE)
    except (AttributeError, TypeError) as error:
        wanted = {
            "bos_token_id": "names no token for the beginning, and this version of transformers asks for one",
            "scores": "gives its pieces no scores, and this version of transformers asks for them",
        }
        lacks = [what for key, what in wanted.items() if f"tokenizer.ggml.{key}" not in header.fields]
        if not lacks:
            raise
        raise refused(
            header,
            f"it {lacks[0]}",
            "a newer transformers (5.23 reads such files)",
        ) from error
    if header.fields.get("tokenizer.ggml.model") != "llama" and "tokenizer.ggml.eos_token_id" not in header.fields:
        tokenizer.eos_token = None  # older versions of transformers take one by its text
    splits = header.fields.get("tokenizer.ggml.pre", "default")
    if header.fields.get("tokenizer.ggml.model") == "gpt2":
        if splits in _BY_DIGIT:
            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
            )
        elif splits not in (*_BY_GPT2, *_known_splits()):
            raise refused(header, f"its text is split as in {splits!r}", "a way to split text that is known")
    pieces = header.fields.get("tokenizer.ggml.model") == "llama"  # those of SentencePiece
    if pieces and header.fields.get("tokenizer.ggml.add_space_prefix", True) is False:
        _begin_without_blank(tokenizer.backend_tokenizer)
    first = header.fields.get("tokenizer.ggml.bos_token_id")
    if (
        header.fields.get("tokenizer.ggml.add_bos_token", pieces)  # where a file says nothing, these have one
        and first is not None
        and tokenizer("a")["input_ids"][0] != first
    ):
        name = tokenizer.convert_ids_to_tokens(first)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{name} $A", special_tokens=[(name, first)]
        )
    return tokenizer


def _begin_without_blank(backend: Any) -> None:
    """No blank before a text, which transformers writes for every tokenizer of SentencePiece's kind."""
    from tokenizers import decoders, normalizers, pre_tokenizers

    if isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=False)
    elif backend.normalizer is not None:
        backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def odd_text(header: Header) -> list[str]:
    """What a header leaves open of how text is read and answered, a line each."""
    fields, lines = header.fields, []
    if fields.get("tokenizer.ggml.model") == "gpt2" and "tokenizer.ggml.pre" not in fields:
        lines.append(
            "an old file, which does not say how text is split before it becomes tokens (tokenizer.ggml.pre): numbers "
            "and blanks may become other tokens than the model was trained with; take a newer file"
        )
    named = sorted(key for key in fields if key.startswith("tokenizer.chat_template."))
    if named and "tokenizer.chat_template" not in fields:
        lines.append(f"prompts are asked without a chat template: the file has none but {', '.join(named)[:120]}")
    asked = {key: fields[key] for key in sorted(fields) if key.startswith("general.sampling.")}
    asked = {key: value for key, value in asked.items() if key.split(".")[-1] not in _OF_SAMPLERS}
    asked = {key: value for key, value in asked.items() if value != _IDLE.get(key.split(".")[-1], 0)}
    if asked:
        says = ", ".join(f"{key} {str(value)[:40]}" for key, value in asked.items())
        lines.append(f"the file asks for {says}: demur does not do it; its samplers go by the model's own logits")
    return lines


_OF_SAMPLERS = ("temp", "top_k", "top_p", "sequence", "penalty_last_n", "mirostat_tau", "mirostat_eta", "xtc_threshold")
"""Keys of ``general.sampling`` that samplers have, and those that mean nothing without another one."""
_IDLE = {"penalty_repeat": 1}


def _class_for(config: Any) -> Any:
    """The class that ``AutoTokenizer`` takes for a configuration; itself where it would look at more than that.

    It would read the configuration from the file once more, which takes long (:mod:`demur.models.gguf.excerpt`).
    """
    from transformers import AutoTokenizer
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING

    kind = TOKENIZER_MAPPING.get(type(config), None)
    if kind is None or getattr(config, "tokenizer_class", None) or kind.__name__ == "MistralCommonBackend":
        return AutoTokenizer
    return kind


def _known_splits() -> Sequence[str]:
    """What transformers splits by rule (since 5.23; before, it went by the architecture)."""
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    except ImportError:
        return ("llama-bpe", "llama3", "qwen2", "falcon", "bloom")
    return tuple(GGUF_PRE_TOKENIZER_SPLITS)
