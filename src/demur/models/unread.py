"""What ``config.json`` says of the computation and the native class does not compute.

transformers keeps a field that its class does not know, and computes as if it were not there: a Llama with a sliding
window, capped logits or scaled embeddings runs as a plain Llama. Of a field that is written twice it takes one.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import Mapping
from typing import Any

from demur.models.computed import ELSE, known_facts

COMPUTES = re.compile(
    r"window|soft_?cap|multiplier|alibi|qk_?(?:layer)?norm|query_pre_attn|clip_qkv|scale_emb|scale_depth|dim_model_base|"
    r"(?:^|_)mup(?:_|$)|logits?_scal|(?:attention|attn|residual|embedding|embeddings|query|qk|softmax)_scal|parallel_attn|"
    r"parallel_residual|swiglu|clamp|sinks?$|bidirectional|dual_chunk|attention_chunk|no_rope|nope_|(?:attention|attn|mlp|qkv|head)_bias$"
)
"""Names of fields that change what is computed, in the families that have them."""
_NORMED = re.compile(r"(?:^|[._])(?:q|query)_?(?:layer)?norm$")
"""Names of parts that make queries even. Some classes always have them, and no field for it."""
_PARTS = ("rotary_pct", "rotary_percentage", "rope_pct", "rope_percent", "partial_rotary_factor")
_BASES = ("rope_theta", "rotary_emb_base", "rotary_base", "rope_base")


def unread(raw: Mapping[str, Any], net: Any) -> tuple[str, ...]:
    """A line for each thing that a raw ``config.json`` says and the net does not compute; none if there is none."""
    said = raw.get("text_config") if isinstance(raw.get("text_config"), Mapping) else raw
    said = {str(key): value for key, value in (said or {}).items()}
    config = net.config.get_text_config(decoder=True)
    known = known_facts(config.__class__)
    if known is None:
        return ()
    known = known | {*(getattr(config, "attribute_map", None) or {})}
    fields = [key for key in said if key not in known and COMPUTES.search(key) and not ELSE.search(key)]
    fields = [key for key in fields if not _taken(key, said[key], net, config)]
    window = getattr(config, "sliding_window", None) if "sliding_window" in known else None  # Gemma 2 says it twice
    fields = [key for key in fields if not (_says_nothing(key, said) or ("window" in key and said[key] == window))]
    lines = []
    if fields:
        says = ", ".join(f"{key} {str(said[key])[:40]}" for key in fields[:4])
        lines.append(
            f"config.json says {says}{' ...' if fields[4:] else ''}, which {type(net).__name__} does not compute: the "
            "results are those of a model without it"
        )
    return (*lines, *_other_names(said, known, config), *_windows(said, config), *_rotation(said, config, net))


def other_type(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """A line on a ``config.json`` whose class is one of transformers', and of another model type; none if it is not."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind, named = str(raw.get("model_type") or ""), [str(name) for name in raw.get("architectures") or ()]
    own = getattr(getattr(transformers, named[0], None), "config_class", None) if named else None
    other = str(getattr(own, "model_type", None) or "")
    mapped = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    if mapped is None or not named:  # a type of a family of ours, or of a package, which knows its class
        return ()
    if _WITHOUT_TEXT.search(named[0]) and "LMHead" not in named[0]:
        return (
            f"config.json names {named[0]}, which writes no text: demur asks it for some as {mapped}, and its head was "
            "trained for something else or not at all",
        )
    # A text part may have a type of its own (llama4_text), and some types run on another one's class.
    if not other or other.partition("_")[0] == kind.partition("_")[0] or named[0] in (mapped, *mapped):
        return ()
    return (
        f"config.json names {named[0]}, a class of {other}, and the model type {kind}: demur goes by the type; "
        "correct the one that is wrong",
    )


_WITHOUT_TEXT = re.compile(r"(?:Classification|QuestionAnswering|MultipleChoice|Reward\w*|Embedding|Regression|Model)$")
"""Names of classes that rate, sort or embed texts."""


def _taken(key: str, value: Any, net: Any, config: Any) -> bool:
    """Whether a field counts although the configuration does not keep it: it makes others of it (``layer_types`` of
    Gemma 3's ``sliding_window_pattern``), or the class always computes so (queries that are made even, the limit of
    GPT-OSS in older versions).
    """
    if key == "swiglu_limit" and any(getattr(part, "limit", None) == value for _, part in _parts(net)):
        return True
    if re.search("qk_?(?:layer)?norm", key) and any(_NORMED.search(name) for name, _ in _parts(net)):
        return True
    return _quoted(key, _source(config))


def _parts(net: Any) -> list[tuple[str, Any]]:
    return list(net.named_modules()) if hasattr(net, "named_modules") else []


def _source(of: Any) -> str:
    """The source of the module of a configuration's or a net's class; empty where it has none."""
    try:
        return inspect.getsource(sys.modules[type(of).__module__])
    except (KeyError, OSError, TypeError):
        return ""


def _says_nothing(key: str, said: Mapping[str, Any]) -> bool:
    """Whether a field's value is that of a model without it."""
    value = said[key]
    if not value or value == "none" or (re.search(r"scal|multiplier|clamp", key) and value in (1, 1.0)):
        return True
    if "window" in key:
        off = said.get("use_sliding_window") is False or not isinstance(value, int)
        return off or value is True or value >= (said.get("max_position_embeddings") or float("inf"))
    return False


_NAMES = (
    re.compile(r"^(?:rms_?norm|layer_?norm|norm|rms|ln)_?(?:eps|epsilon)$"),
    re.compile(r"^(?:hidden_act|hidden_activation|activation_function|activation|act_fn|hidden_act_fn|afn)$"),
)
"""Names that one thing has in the configurations of different families: the class reads one of them."""
_ALIKE = {"swish": "silu", "swiglu": "silu", "gelu_new": "gelu_pytorch_tanh", "gelu_tanh": "gelu_pytorch_tanh"}
_ALIKE |= {"gelu_fast": "gelu_pytorch_tanh", "geglu": "gelu"}


def _other_names(said: Mapping[str, Any], known: frozenset[str], config: Any) -> list[str]:
    """Epsilons and activations under a name of another family, where the class computes with another value. Where the
    file says the class's own name too, the other one may be left over from a conversion: nobody can tell, and the line
    says so.
    """
    lines = []
    for names in _NAMES:
        read = {key: getattr(config, key, None) for key in sorted(known) if names.match(key)}
        used = {_ALIKE.get(str(value), str(value)) for value in read.values()}
        for key, value in said.items():
            if not names.match(key) or key in known or value is None or not read:
                continue
            if _ALIKE.get(str(value), str(value)) not in used and not _gemma(config, value):
                own, taken = next(((one, read[one]) for one in read if one in said), next(iter(read.items())))
                line = f"config.json says {key} {str(value)[:40]}, and {own} {taken} is computed"
                both = ", which stands there too: if the other is left over from a conversion, take it out"
                lines.append(line + (both if said.get(own) is not None else ""))
    return lines


def _gemma(config: Any, value: Any) -> bool:
    """Whether this is the activation by which old files of Gemma mean another one."""
    return str(config.model_type).startswith("gemma") and value == "gelu"


def _windows(said: Mapping[str, Any], config: Any) -> list[str]:
    """A window that is on, and lists of layers of which none has one."""
    width, kinds = said.get("sliding_window"), getattr(config, "layer_types", None)
    if said.get("use_sliding_window") is not True or not isinstance(width, int) or not kinds:
        return []
    if any("sliding" in str(kind) for kind in kinds) or _says_nothing("sliding_window", said):
        return []
    if isinstance(first := said.get("max_window_layers"), int) and first >= len(kinds) and "layer_types" not in said:
        return []
    return [f"config.json says use_sliding_window and a sliding_window of {width}, and no layer has one (layer_types)"]


_FROM_LENGTH = ("yarn", "llama3", "longrope")
"""Kinds of scaling that are reckoned from the length before it."""


def _ropes_left(said: Mapping[str, Any], config: Any, net: Any) -> list[str]:
    """Settings of the rotary positions that their kind does not read, and a length that is taken for another one."""
    lines: list[str] = []
    heard = _Heard(lines, _source(net) + _source(config))
    of_ropes = logging.getLogger("transformers.modeling_rope_utils")
    level = of_ropes.level
    of_ropes.addHandler(heard)
    of_ropes.setLevel(logging.WARNING)
    try:
        getattr(config, "validate_rope", lambda: None)()
    finally:
        of_ropes.removeHandler(heard)
        of_ropes.setLevel(level)
    for name in ("rope_scaling", "rope_parameters"):
        one = said.get(name)
        if not isinstance(one, Mapping):
            continue
        kind = one.get("rope_type", one.get("type"))
        if kind is None and one.get("factor") not in (None, 1, 1.0):
            lines.append(
                f"config.json says {name} with a factor of {one['factor']} and no rope_type: nothing is scaled"
            )
        length = "original_max_position_embeddings"
        if kind in _FROM_LENGTH and length not in one and length not in said:
            lines.append(
                f"config.json says {name} of the kind {kind} without {length}: max_position_embeddings "
                f"({getattr(config, 'max_position_embeddings', None)}) is taken for the length before scaling"
            )
    return [*dict.fromkeys(lines)]


class _Heard(logging.Handler):
    """Keeps what transformers says of settings that it does not read."""

    def __init__(self, lines: list[str], read: str) -> None:
        super().__init__(logging.WARNING)
        self.lines, self.read = lines, read

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a line."""
        found = re.search(r"Unrecognized keys in .* for 'rope_type'='(\w+)': \{(.*)\}", record.getMessage())
        if found is None:
            return
        text = self.read + _of_kind(found[1])
        keys = sorted(key for key in found[2].replace("'", "").split(", ") if not _quoted(key, text))
        if keys:
            says = f"the rotary positions of config.json have {', '.join(keys)}"
            self.lines.append(f"{says}, which the kind {found[1]} does not read")


def _of_kind(kind: str) -> str:
    """The source of what computes a kind of rotary positions; empty for the usual ones, which each class computes."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    function = ROPE_INIT_FUNCTIONS.get(kind)
    return inspect.getsource(function) if function is not None else ""


def _quoted(key: str, text: str) -> bool:
    return re.search(rf"[\"']{re.escape(key)}[\"']", text) is not None


def _rotation(said: Mapping[str, Any], config: Any, net: Any) -> list[str]:
    """What is said of the rotary positions beside what is computed: base, part of a head, scaling."""
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, Mapping) or not parameters:
        return []
    each = [one for one in parameters.values() if isinstance(one, Mapping)] or [parameters]
    lines = _ropes_left(said, config, net)
    for keys, name in ((_BASES, "rope_theta"), (_PARTS, "partial_rotary_factor")):
        used = {float(one[name]) for one in each if one.get(name) is not None} or ({1.0} if keys is _PARTS else set())
        for key in keys:
            value = said.get(key)
            if isinstance(value, int | float) and value and used and value not in used:
                lines.append(f"config.json says {key} {value:g}, and {sorted(used)[0]:g} is computed (rope_parameters)")
    old, new = said.get("rope_scaling"), said.get("rope_parameters")
    if isinstance(old, Mapping) and isinstance(new, Mapping) and old and new:
        both = [{k: v for k, v in one.items() if k not in ("rope_theta", "type")} for one in (old, new)]
        kinds = [one.get("rope_type", one.get("type", "default")) for one in (old, new)]
        if kinds[0] != kinds[1] or any(both[0][key] != both[1][key] for key in both[0].keys() & both[1].keys()):
            kind = each[0].get("rope_type")
            lines.append(f"config.json has a rope_scaling and rope_parameters that differ: {kind!r} is computed")
    return lines
