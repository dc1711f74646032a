"""Whether a model is still the one that was loaded: what its specs say of it was read then.

Somebody trains the network on, adds a vector in a hook, gives the tokenizer another chat template or switches autocast
on. Traces would go on naming what was loaded, and anchors and guards of that would read them without a word.
"""

from __future__ import annotations

import itertools
import warnings
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch

from demur.models.computed import computed_by
from demur.models.weights import fingerprint
from demur.types import DemurError, DemurWarning

_LOADED: WeakKeyDictionary[torch.nn.Module, tuple[str, list[Any]]] = WeakKeyDictionary()
"""Of each network that was loaded, its fingerprint, and what tells cheaply whether its weights are still those."""
_FOREIGN: WeakKeyDictionary[torch.nn.Module, frozenset[tuple[str, str]]] = WeakKeyDictionary()
"""Of each network that was loaded, where it has hooks and passes of others (:func:`foreign_parts`)."""
_WRITTEN: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()
"""Of each tokenizer that came with a model, what it makes of a text."""
_PROBE = " Is it late?\n 12 "


def remember(model: Any) -> None:
    """Takes note of a model's network and tokenizer as they are now."""
    _LOADED[model.net] = model.identity.weights, _counted(model.net)
    _FOREIGN[model.net] = frozenset(foreign_parts(model.net))
    _note_tokenizer(model)


def _note_tokenizer(model: Any) -> None:
    if model.tokenizer is not None:
        with suppress(TypeError):  # one of somebody else, which nothing can point at weakly
            _WRITTEN[model.tokenizer] = _written(model.tokenizer)


def remember_copy(model: Any) -> None:
    """Takes note of the copy of a model, if its weights are those of its identity; if not, it is taken for changed. Its
    hooks and passes are said once more, since nobody knows which of them the original had when it was loaded.
    """
    if isinstance(model.net, torch.nn.Module) and model.identity.weights and model.net not in _LOADED:
        same = fingerprint(model.net) == model.identity.weights
        _LOADED[model.net] = model.identity.weights if same else "", _counted(model.net)
        _note_tokenizer(model)


def check_unchanged(model: Any) -> None:
    """Raises if a model that was loaded here is another one by now: its weights (trained, a steering vector in a bias,
    an adapter switched, another dtype), its configuration, its chat template, what its tokenizer makes of a text. So
    does one that is in training mode, whose dropout makes each pass another, and one under an autocast to another
    dtype. Warns of hooks and passes that came after loading. Milliseconds; of what was not loaded here it says nothing.
    """
    net, name = getattr(model, "net", None), model.name
    if not isinstance(net, torch.nn.Module) or (found := _LOADED.get(net)) is None:
        return
    weights, known = found  # of the last model that it was loaded as: others may have been since, or before
    if net.training:
        raise DemurError(f"{name} is in training mode", "a network without dropout", "call net.eval()")
    if (now := _counted(net)) != known or weights != model.identity.weights:
        same_types = [one[-1] for one in now] == [one[-1] for one in known] or weights != model.identity.weights
        if fingerprint(net) != model.identity.weights or not same_types:
            raise _changed(f"the weights of {name} have")
        _LOADED[net] = model.identity.weights, now
    _check_autocast(net, name)
    _check_settings(model, net, name)
    _check_texts(model, name)
    said = _FOREIGN.get(net, frozenset())
    if more := [part for part in foreign_parts(net) if part not in said]:
        _FOREIGN[net] = said.union(more)
        warnings.warn(
            f"{name} has got hooks of your own since it was loaded or copied ({places(more)}): {IN_RESULTS}",
            DemurWarning,
            stacklevel=4,
        )


IN_RESULTS = (
    "what they change is in the results and not in the spec, so that anchors and guards of the plain model are taken "
    "for its own"
)


def foreign_parts(net: torch.nn.Module) -> list[tuple[str, str]]:
    """Where a network has hooks, or a pass in place of its class's, that are none of the libraries' own, which place
    tensors, gather states or compile; and what each is called.
    """
    found = []
    for at, module in net.named_modules():
        place = at or type(net).__name__
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        found += [(place, _called(hook)) for hook in hooks if _is_a_stranger(hook)]
        own = module.__dict__.get("forward")
        found += [(f"{place}.forward", _called(own))] if own is not None and _is_a_stranger(own) else []
    return found


def places(parts: list[tuple[str, str]]) -> str:
    """The first of the places, for one line."""
    return f"{parts[0][0]}{' ...' if parts[1:] else ''}"


def _called(part: Any) -> str:
    return str(getattr(part, "__qualname__", type(part).__name__)).rpartition(".")[2]


def _is_a_stranger(part: Any) -> bool:
    while isinstance(part, partial):
        part = part.func
    origin = getattr(part, "__module__", None) or type(part).__module__
    return str(origin).split(".")[0] not in ("transformers", "accelerate", "torch", "peft", "demur")


def _changed(what: str) -> DemurError:
    return DemurError(
        f"{what} changed since it was loaded",
        "those that its traces, anchors and guards name",
        "load it again as it is now: demur.load(net, tokenizer=tokenizer)",
    )


def _check_autocast(net: Any, name: str) -> None:
    """Raises where passes would compute in another dtype than the spec says."""
    weights = next((weight for weight in net.parameters() if weight.is_floating_point()), None)
    if weights is None or not torch.is_autocast_enabled(weights.device.type):
        return
    other = torch.get_autocast_dtype(weights.device.type)
    if other != weights.dtype:
        raise DemurError(
            f"{name} under an autocast to {other}, with weights in {weights.dtype}",
            "passes in the dtype that the spec says",
            "leave torch.autocast out, or load the model in that dtype",
        )


def _check_settings(model: Any, net: Any, name: str) -> None:
    """Raises where the configuration says something else of what is computed."""
    then = model.identity.computed
    now = computed_by(net) if then else {}
    if wrong := [fact for fact in then if fact in now and now[fact] != then[fact]]:
        fact = wrong[0]
        raise _changed(f"the configuration of {name} ({fact}: {then[fact]!r:.40}, now {now[fact]!r:.40}) has")


def _check_texts(model: Any, name: str) -> None:
    """Raises where the chat template is another one, or the tokenizer makes something else of a text."""
    source, tokenizer = model.identity.source, getattr(model, "tokenizer", None)
    if source and hasattr(model, "chat") and model.chat.source != source:
        raise _changed(f"the chat template of {name} has")
    with suppress(TypeError):
        if (known := _WRITTEN.get(tokenizer)) is not None and _written(tokenizer) != known:
            raise _changed(f"the tokenizer of {name} has")


def _written(tokenizer: Any) -> list[Any]:
    """What a tokenizer makes of a text, and which words were given to it as tokens. Marks that it writes nowhere by
    itself, as one for padding, change no text.
    """
    try:
        added = [one.content for one in tokenizer.added_tokens_decoder.values() if not one.special]
        return [sorted(added), list(tokenizer(_PROBE)["input_ids"])]
    except Exception:  # it has no token for a letter of it: tokenizers raises just this
        return []


def _counted(net: torch.nn.Module) -> list[Any]:
    """Which tensors there are and where, how often each was written (torch counts, but not what is written through
    ``.data``), and which adapters are on.
    """
    found: list[Any] = []
    for name, module in net.named_modules():
        tensors = itertools.chain(module._parameters.items(), module._buffers.items())
        found += [
            (name, own, id(t), t.data_ptr(), -1 if t.is_inference() else t._version, t.dtype)
            for own, t in tensors
            if t is not None
        ]
        if isinstance(getattr(module, "scaling", None), dict) and hasattr(module, "active_adapters"):  # of peft
            found.append((name, module.disable_adapters, [*module.active_adapters], {**module.scaling}, module.merged))
    return found
