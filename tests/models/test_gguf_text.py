"""How a GGUF file's text is read and answered is what its header says; what the header leaves open is told."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from test_gguf import FF, GROUPS, HEADS, LAYERS, D, net_of, own_cache, tensors_of, write  # noqa: F401 (a fixture)

from demur.models import load
from demur.models.gguf import opened
from demur.types import DemurError, DemurWarning, Prompt

TEMPLATE = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}[answer]"
PIECES = {203: "▁h", 204: "he", 205: "▁he", 206: "h", 207: "e", 208: "▁▁"}
"""Words in the places of bytes that no test writes."""


def pieces(path: Path, more: Callable[[Any], Any] = lambda w: None) -> Path:
    """A file whose tokens are SentencePiece's."""
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(512)
    w.add_embedding_length(D)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(FF)
    w.add_head_count(HEADS)
    w.add_head_count_kv(GROUPS)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(1e4)
    w.add_rope_dimension_count(D // HEADS)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁"]
    w.add_tokenizer_model("llama")
    w.add_token_list([PIECES.get(i, token) for i, token in enumerate(tokens)])
    scores = {203: -3.0, 204: -2.0, 205: -1.0, 206: -9.0, 207: -9.0, 208: -4.0}
    w.add_token_scores([scores.get(i, 0.0) for i in range(260)])
    w.add_token_types([2, 3, 3, *(1 if i in PIECES else 6 for i in range(3, 259)), 1])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    more(w)
    for name, values in tensors_of(net_of()).items():
        w.add_tensor(name, values)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def said(path: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(path, device="cpu")
    return [str(one.message) for one in caught if issubclass(one.category, DemurWarning)]


@pytest.mark.parametrize(
    ("blank", "text", "row"),
    [
        (None, "he he", [205, 205]),
        (True, "he he", [205, 205]),
        (False, "he he", [204, 205]),
        (False, "h", [206]),
        (False, " he", [205]),
        (False, "e\nhe", [207, 13, 204]),
    ],
)
def test_a_blank_is_put_before_a_text_where_the_header_wants_one(
    blank: bool | None, text: str, row: list[int], tmp_path: Path
) -> None:
    more = (lambda w: None) if blank is None else (lambda w: w.add_add_space_prefix(blank))
    path = pieces(tmp_path / "m.gguf", more)
    for _ in range(2):  # also where the tokenizer is read from what was kept of the first time
        model: Any = load(path, device="cpu")
        assert list(model.tokenizer(text, add_special_tokens=False)["input_ids"]) == row
        assert model.canvas([Prompt("a", text, harmful=False)], 0).ids[0].tolist() == [1, *row]
        assert model.tokenizer.decode(row) == text


def test_a_file_that_does_not_say_how_text_is_split_is_spoken_of(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", tensors_of(net_of()))
    assert said(path) == []
    data = path.read_bytes()
    assert b"tokenizer.ggml.pre\x08" in data
    path.write_bytes(data.replace(b"tokenizer.ggml.pre\x08", b"tokenizer.ggml.old\x08"))
    assert any("does not say how text is split" in line for line in said(path))


def test_pieces_of_sentencepiece_need_no_way_to_split(tmp_path: Path) -> None:
    assert said(pieces(tmp_path / "m.gguf")) == []


@pytest.mark.parametrize("names", [("tool_use",), ("rag", "tool_use")])
@pytest.mark.parametrize("default", [False, True])
def test_named_templates_without_a_default_one_are_spoken_of(
    names: tuple[str, ...], default: bool, tmp_path: Path
) -> None:
    def more(w: Any) -> None:
        for name in names:
            w.add_string(f"tokenizer.chat_template.{name}", TEMPLATE)
        w.add_array("tokenizer.chat_templates", list(names))

    path = write(tmp_path / "m.gguf", tensors_of(net_of()), more=more, template=TEMPLATE if default else None)
    assert any(f"none but tokenizer.chat_template.{names[0]}" in line for line in said(path)) is not default


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("penalty_repeat", 1.1, True), ("penalty_repeat", 1.0, False), ("min_p", 0.05, True), ("min_p", 0.0, False),
        ("mirostat", 2, True), ("mirostat", 0, False), ("xtc_probability", 0.5, True), ("temp", 0.7, False),
        ("top_k", 20, False), ("top_p", 0.8, False), ("sequence", "kpt", False), ("penalty_last_n", 64, False),
    ],
)  # fmt: skip
def test_what_a_file_asks_of_samplers_and_none_does_is_said(key: str, value: Any, told: bool, tmp_path: Path) -> None:
    def more(w: Any) -> None:
        add = {int: w.add_uint32, float: w.add_float32, str: w.add_string}[type(value)]
        add(f"general.sampling.{key}", value)

    path = write(tmp_path / "m.gguf", tensors_of(net_of()), more=more)
    assert any(f"general.sampling.{key}" in line for line in said(path)) is told


@pytest.mark.parametrize(
    ("one", "other"),
    [("blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"), ("blk.0.attn_q.weight", "blk.1.attn_q.weight"),
     ("token_embd.weight", "output.weight")],
)  # fmt: skip
@pytest.mark.parametrize("shift", [0, 32])
def test_tensors_that_lie_over_one_another_are_one_line(one: str, other: str, shift: int, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", tensors_of(net_of()))
    tensors, data = opened(path).tensors, bytearray(path.read_bytes())
    first = min(place.start for place in tensors.values())
    at = data.index(other.encode()) + len(other) + 4 + 16 + 4  # a name, dimensions, two of these, a type
    data[at : at + 8] = struct.pack("<Q", tensors[one].start - first + shift)
    path.write_bytes(data)
    with pytest.raises(DemurError, match="lie over one another"):
        load(path, device="cpu")


@pytest.mark.parametrize("name", ["attn_q", "ffn_up", "attn_norm"])
def test_a_tensor_that_a_file_lists_twice_is_one_line(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", tensors_of(net_of()))
    path.write_bytes(path.read_bytes().replace(f"blk.1.{name}.".encode(), f"blk.0.{name}.".encode()))
    with pytest.raises(DemurError, match=rf"lists tensor blk\.0\.{name}\.weight twice"):
        load(path, device="cpu")
