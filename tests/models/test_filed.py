"""A tokenizer writes the tokens that its files describe; what does not agree is said, or refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small
import tiny
from test_checkpoints import SIZES, configured, saved
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaConfig, Qwen2Config

from demur.models import load
from demur.models.filed import as_filed, say_sizes
from demur.types import DemurError, DemurWarning, Prompt

TEMPLATE = "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '\n' }}{% endfor %}<|assistant|>"
NAMED = TEMPLATE.replace("'<|' + m['role'] + '|>'", "'<|user|>'")
PLAIN = {"special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
ASKED = "I can't bake 1212 loaves of BREAD at home, nor  á é:\n\nhow do they?"


def quietly(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load(folder)


def said(folder: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(folder)
    return [str(one.message) for one in caught if issubclass(one.category, DemurWarning)]


def rewritten(folder: Path, change: Callable[[Any], None]) -> None:
    path = folder / "tokenizer.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def with_pieces(value: Any, *pieces: str) -> None:
    """Two merges and more pieces, so that a text can be joined in several ways."""
    words = value["model"]["vocab"]
    for piece in ("12", "ea", *pieces):
        words[piece] = len(words)
    value["model"]["merges"] = [["1", "2"], ["e", "a"]]
    for i, token in enumerate(value["added_tokens"]):
        token["id"] = len(words) + i


def by_digits(value: Any) -> None:
    with_pieces(value)
    digits = {"type": "Digits", "individual_digits": True}
    value["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, value["pre_tokenizer"]]}


def lower(value: Any) -> None:
    value["normalizer"] = {"type": "Lowercase"}


def composed(value: Any) -> None:
    value["normalizer"] = {"type": "NFD"}


def prefixed(value: Any) -> None:
    value["normalizer"] = {"type": "Prepend", "prepend": "x"}


def joined(value: Any) -> None:
    with_pieces(value, "lo")
    value["model"]["ignore_merges"] = True


@pytest.mark.parametrize("change", [by_digits, lower, composed, prefixed, joined])
@pytest.mark.parametrize("kind", ["Qwen2Tokenizer", "GPT2Tokenizer", "GPTNeoXTokenizer", "CohereTokenizer"])
def test_a_text_is_split_as_the_file_says_whatever_the_class(
    kind: str, change: Callable[[Any], None], tmp_path: Path
) -> None:
    folder = saved(tmp_path / "m")
    rewritten(folder, change)
    configured(folder, "tokenizer_config.json", tokenizer_class=kind)
    lines = said(folder)
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer = quietly(folder).tokenizer
    for text in (ASKED, "lo", "12", "  x  "):
        assert list(tokenizer(text, add_special_tokens=False)["input_ids"]) == own.encode(text).ids
    if type(tokenizer).__name__ != kind:
        assert any(kind in line and "tokenizer.json" in line for line in lines), lines


def test_the_class_of_a_model_type_is_looked_at_too(tmp_path: Path) -> None:
    # transformers takes the tokenizer class of Qwen2 by the model's type, whatever tokenizer_config.json names.
    folder = saved(tmp_path / "m", Qwen2Config(**SIZES))
    rewritten(folder, by_digits)
    assert quietly(folder).tokenizer("1212", add_special_tokens=False)["input_ids"] == [49, 50, 49, 50]


def test_what_is_split_alike_is_left_as_it_is(tmp_path: Path) -> None:
    for kind in ("TokenizersBackend", "PreTrainedTokenizerFast"):
        folder = saved(tmp_path / kind)
        configured(folder, "tokenizer_config.json", tokenizer_class=kind)
        assert said(folder) == []


def test_a_byte_level_file_under_the_name_of_llama_s_class_is_read_as_such(tmp_path: Path) -> None:
    # As DeepSeek's files are. Newer versions of transformers look at the file themselves, older ones build another one.
    folder = saved(tmp_path / "m")
    configured(folder, "tokenizer_config.json", tokenizer_class="LlamaTokenizer")
    own, tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json")), quietly(folder).tokenizer
    for text in (ASKED, "lo", "12", "  x  "):
        assert list(tokenizer(text, add_special_tokens=False)["input_ids"]) == own.encode(text).ids


@pytest.mark.parametrize("kind", ["TokenizersBackend", "Qwen2Tokenizer"])
def test_a_tokenizer_splits_a_text_in_one_way(kind: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")

    def drops(value: Any) -> None:
        with_pieces(value)
        value["model"]["dropout"] = 0.5

    rewritten(folder, drops)
    configured(folder, "tokenizer_config.json", tokenizer_class=kind)
    assert any("at random" in line for line in said(folder)) or kind != "TokenizersBackend"
    models = [quietly(folder) for _ in range(2)]
    rows = {tuple(m.tokenizer("12" * 40, add_special_tokens=False)["input_ids"]) for m in models for _ in range(5)}
    assert rows == {(256,) * 40}
    assert len({m.identity.template for m in models}) == 1


def test_a_tokenizer_of_ones_own_that_splits_at_random_is_refused(tmp_path: Path) -> None:
    import copy

    tokenizer = copy.deepcopy(small.byte_level())
    tokenizer.backend_tokenizer.model.dropout = 0.1
    for net in (saved(tmp_path / "m"), tiny.native(LlamaConfig(**SIZES), seed=3)):
        with pytest.raises(DemurError, match="at random"):
            load(net, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("file", "tokens"),
    [
        ("tokenizer_config.json", {"65": {"content": "<|user|>", **PLAIN}, "259": {"content": "<|is|>", **PLAIN}}),
        ("tokenizer_config.json", {"263": {"content": "<|user|>", **PLAIN}}),
        ("tokenizer_config.json", {"256": {"content": "<pad>", **PLAIN}, "257": {"content": "<eos>", **PLAIN}}),
        ("added_tokens.json", {"<|user|>": 70}),
        ("added_tokens.json", {"<eos>": 258}),
    ],
)  # fmt: skip
def test_a_token_with_two_ids_is_one_line(file: str, tokens: dict[str, Any], tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    if file == "tokenizer_config.json":
        configured(folder, file, added_tokens_decoder=tokens)
    else:
        configured(folder, file, **tokens)
    with pytest.raises(DemurError, match=rf"{file} says that '<.*>' is token \d+, and the tokenizer makes it"):
        load(folder)


@pytest.mark.parametrize("ids", [(256, 258, 257), (257, 258, 259), (65, 257, 258), (256, 257, 300)])
def test_so_is_one_whose_id_in_the_vocabulary_s_own_file_is_not_to_be_had(ids: tuple[int, ...], tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")

    def renumber(value: Any) -> None:
        for token, i in zip(value["added_tokens"], ids, strict=True):
            token["id"] = i

    rewritten(folder, renumber)
    with pytest.raises(DemurError, match=r"tokenizer.json says that '<.*>' is token \d+, and the tokenizer makes it"):
        load(folder)


def test_files_that_agree_on_their_tokens_say_nothing(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    ids = {"256": "<eos>", "257": "<pad>", "258": "<mask>", "259": "<|user|>", "260": "<|end|>"}
    decoder = {i: {"content": content, **PLAIN} for i, content in ids.items()}
    configured(folder, "tokenizer_config.json", added_tokens_decoder=decoder, chat_template=TEMPLATE)
    # The second file is older, and not read where the first one names tokens.
    configured(folder, "added_tokens.json", **{"<|user|>": 12})
    assert said(folder) == []


@pytest.mark.parametrize(
    ("settings", "file", "content"),
    [
        ({"eos_token": "<|nope|>"}, "tokenizer_config.json", "<|nope|>"),
        ({"eos_token": {"content": "<|im_end|>", "__type": "AddedToken", **PLAIN}}, "tokenizer_config.json",
         "<|im_end|>"),
        ({"bos_token": "<bos>"}, "tokenizer_config.json", "<bos>"),
        ({"eos_token": "<|Ende→|>"}, "special_tokens_map.json", "<|Ende→|>"),
        ({"additional_special_tokens": ["<|user|>"], "chat_template": NAMED},
         "tokenizer_config.json", "<|user|>"),
    ],
)  # fmt: skip
def test_an_end_that_no_vocabulary_holds_is_said(
    settings: dict[str, Any], file: str, content: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "m")
    configured(folder, file, **settings)
    assert any(repr(content) in line and "new id 259" in line for line in said(folder))


def test_marks_that_nobody_writes_are_passed_over(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    configured(folder, "tokenizer_config.json", pad_token="[PAD]", additional_special_tokens=["<tool>"])
    assert said(folder) == []


@pytest.mark.parametrize(("rows", "odd"), [(259, False), (264, False), (320, False), (400, True), (4000, True)])
def test_a_tokenizer_that_may_be_another_models_is_said(rows: int, odd: bool, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", LlamaConfig(**SIZES | {"vocab_size": rows}))
    assert any("another model's" in line for line in said(folder)) is odd


def test_of_public_models_none_is_taken_for_another_ones() -> None:
    # Rows of the embedding, and tokens of the tokenizer, as their files say.
    public = {"phi-2": (51200, 50295), "Qwen2.5-7B": (152064, 151665), "gpt-j": (50400, 50257), "mamba": (50280, 50277)}
    public |= {"deepseek-coder": (32256, 32022), "LLaDA": (126464, 126349), "gemma-3": (262208, 262145)}

    class Table:
        def __init__(self, rows: int) -> None:
            self.num_embeddings = rows

        def get_input_embeddings(self) -> Any:
            return self

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, (rows, tokens) in public.items():
            say_sizes(name, range(tokens), Table(rows))


@pytest.mark.parametrize("form", ["text", "named", "processor"])
def test_two_chat_templates_that_differ_are_said(form: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    (folder / "chat_template.jinja").write_text(TEMPLATE)

    def write(template: str) -> None:
        named: Any = [{"name": "tool_use", "template": "{{ 1 }}"}, {"name": "default", "template": template}]
        file = "chat_template.json" if form == "processor" else "tokenizer_config.json"
        configured(folder, file, chat_template=named if form == "named" else template)

    write(TEMPLATE.replace("<|", "[|"))
    assert sum("chat_template.jinja, which is used" in line for line in said(folder)) == 1
    assert "<|user|>Hi" in quietly(folder).chat.text(Prompt("a", "Hi", harmful=False))
    write(TEMPLATE + "\n")
    assert said(folder) == []


def test_pieces_behind_a_mark_begin_as_in_the_file_of_a_sentencepiece_model(tmp_path: Path) -> None:
    """As in the files of Llama 2 and Mistral 7B: each stretch between marks gets a blank, also one with a blank."""
    folder = saved(tmp_path / "m")
    words = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "▁▁", *"Howareyu"]
    marks = [{"id": i, "content": words[i], **PLAIN} for i in range(3)]
    blanks = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    model = {"type": "BPE", "vocab": {word: i for i, word in enumerate(dict.fromkeys(words))}, "byte_fallback": True}
    model |= {"merges": [["▁", "▁"]], "unk_token": "<unk>", "fuse_unk": True}

    def change(value: Any) -> None:
        value |= {"added_tokens": marks, "normalizer": {"type": "Sequence", "normalizers": blanks}, "model": model}
        value |= {"pre_tokenizer": None, "post_processor": None, "decoder": None}

    rewritten(folder, change)
    named = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named | {"legacy": False}))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    configured(folder, model_type="llama")
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = as_filed("m", AutoTokenizer.from_pretrained(folder), folder, {})
    for text in (" you", "How are you", "<s>How are</s> you", "</s>\n</s>  How"):
        assert list(tokenizer(text, add_special_tokens=False)["input_ids"]) == own.encode(text).ids
