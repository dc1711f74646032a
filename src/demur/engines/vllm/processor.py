"""``vllm.logits_processors``: which row is which request, and what a flag does to its logits.

One class speaks to both model runners of vLLM, since each loads the entry point and refuses the other's. V1 tells of
rows that come, move and go, and shows the list of a request's tokens. V2 has a slot for each request and tells, with
every step, which row is whose and how long it is.
"""

from __future__ import annotations

import hashlib
import weakref
from pathlib import Path
from typing import Any

import torch
import vllm
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.sample.logits_processor import LogitsProcessor as V1  # noqa: N814
from vllm.v1.sample.logits_processor import MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as V2  # noqa: N814

from demur.engines.vllm import fits, layer
from demur.engines.vllm.desk import Desk, Post
from demur.engines.vllm.host_look import look_of
from demur.engines.vllm.look import check_readable
from demur.engines.vllm.options import GUARD, ID, REQUEST, Mode, asked, check_params, operators
from demur.engines.vllm.request import Request
from demur.guards import Guard
from demur.guards.drawing import NEUTRAL
from demur.types import DemurError

_RUNNING: list[weakref.ref[GuardProcessor]] = []


def running_desk() -> Desk | None:
    """The desk of the processor that runs in this process; None where there is none."""
    found = _RUNNING[-1]() if _RUNNING else None
    return None if found is None else found.desk


class GuardProcessor(V1, V2):  # type: ignore[misc]
    """The guards of ``DEMUR_GUARDS``. Without that it does nothing."""

    def __init__(self, vllm_config: Any, where: Any, is_pin_memory: bool = False) -> None:
        """``where``: the device (V1), or the state of V2's requests, which knows it."""
        self.states = None if isinstance(where, torch.device) else where
        device = where if isinstance(where, torch.device) else where.device
        self.desk: Desk | None = None
        self.slots: dict[int, Request] = {}
        options = operators()
        if not options.guards:
            return
        if not layer.is_registered():
            then = "set VLLM_PLUGINS=demur,..., or leave it out: the plugin demur of vllm.general_plugins is needed too"
            raise DemurError("a guard whose layer was not loaded", "both plugins of demur", then)
        layer.check_config(vllm_config)
        posts, engine = _posts(vllm_config, device)
        self.desk = Desk(posts, options, device, engine)
        _RUNNING[:] = [weakref.ref(self)]

    # -- of requests, in the frontend -------------------------------------------------------------------------------

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raises ValueError, which is a 400, for what a request may not ask. Notes which HTTP request it came by."""
        try:
            found = check_params(operators(), sampling_params)
        except DemurError as error:
            raise ValueError(str(error)) from error
        if found.guard and not found.id and (tag := REQUEST.get()):
            sampling_params.extra_args = {**(sampling_params.extra_args or {}), GUARD: found.guard, ID: tag}

    def is_argmax_invariant(self) -> bool:
        """Greedy tokens change when a guard acts; and a processor that is said to change none is not called for
        greedy requests.
        """
        return False

    # -- V1 ---------------------------------------------------------------------------------------------------------

    def update_state(self, batch_update: Any) -> None:
        """Rows that have gone, come and moved since the last step."""
        if batch_update is None or self.desk is None:
            return
        for index in batch_update.removed:
            self.desk.remove(index)
        for index, params, _, out in batch_update.added:
            request = _request(params, out)
            if request is None:
                self.desk.remove(index)
            else:
                self.desk.add(index, request)
        for source, target, how in batch_update.moved:
            self.desk.move(source, target, how == MoveDirectionality.SWAP)

    # -- V2 ---------------------------------------------------------------------------------------------------------

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """A request takes a slot, which nobody else has any more."""
        if self.desk is None:
            return False
        request = _request(sampling_params, None)
        if request is None:
            self.desk.remove(req_idx)
        else:
            self.desk.add(req_idx, request)
        return request is not None

    # -- both -------------------------------------------------------------------------------------------------------

    def apply(self, logits: Any, ctx: Any = None) -> Any:
        """One look at all rows."""
        states = layer.take_states()
        if self.desk is None or not self.desk.rows:
            return logits
        if ctx is None:
            rows = [(i, each, len(each.out or ())) for i, each in self.desk.rows.items() if i < len(logits)]
            return self.desk.step(logits, states, rows)
        return self.desk.step(logits, states, self._of_v2(ctx), ctx.input_ids)

    def _of_v2(self, ctx: Any) -> list[tuple[int, Request, int]]:
        """Rows with their requests and the tokens written. One that is still reading its prompt, or reads its tokens
        again after it was put aside, is none.
        """
        assert self.desk is not None
        slots, seen = ctx.idx_mapping_np.tolist(), ctx.seq_lens_upper_bound_np.tolist()
        prompt, read = self.states.prompt_len.np, self.states.prefill_len.np  # type: ignore[union-attr]
        rows = []
        for row, (slot, length) in enumerate(zip(slots, seen, strict=False)):
            request = self.desk.rows.get(slot)
            if request is not None and length >= read[slot]:
                rows.append((row, request, int(length - prompt[slot])))
        return rows


class ShowsTokens(V1, V2):  # type: ignore[misc]
    """Changes nothing. That it is named (``--logits-processors``) makes the V1 runner fill in sampled tokens, which it
    otherwise leaves out under asynchronous scheduling.
    """

    def __init__(self, vllm_config: Any, where: Any, is_pin_memory: bool = False) -> None:
        """Needs nothing."""

    def is_argmax_invariant(self) -> bool:
        """It changes no logits."""
        return True

    def update_state(self, batch_update: Any) -> None:
        """Keeps nothing."""

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """No request needs it."""
        return False

    def apply(self, logits: Any, ctx: Any = None) -> Any:
        """The same logits."""
        return logits


def _request(params: Any, out: list[int] | None) -> Request | None:
    """A request under its guard; None for one without."""
    found = asked(operators(), params.extra_args)  # what else there is to check was checked in the frontend
    if not found.guard:
        return None
    stops = [token for token in (params.eos_token_id,) if token is not None and not params.ignore_eos]
    stops += sorted({*params.all_stop_token_ids} - {*stops})
    notes = []
    if not stops and operators().guards[found.guard].mode is not Mode.WATCH:
        notes.append("without a stop token it can not be ended")
    if params.max_tokens == 1:  # vLLM's beam search makes a request of every token
        notes.append("an answer of one token: beam search asks for each by itself, and no guard follows it")
    return Request(
        found.guard, found.id, params, out, tuple(stops), params.max_tokens, params.min_tokens, params.temperature,
        notes=tuple(notes), drawn={name: getattr(params, name, None) for name in NEUTRAL},
    )  # fmt: skip


def _posts(config: Any, device: torch.device) -> tuple[dict[str, Post], dict[str, Any]]:
    """The guards, each with its eyes, and what is told of the engine. Raises for a guard that is not of it."""
    options, model, cache = operators(), config.model_config, config.cache_config
    kv = str(cache.cache_dtype)
    dtype = str(model.dtype).removeprefix("torch.")
    kv = "" if kv in ("auto", dtype) else kv
    engine = fits.Engine(
        "vllm", vllm.__version__, fits.folder_of(model.model, model.revision), dtype, model.quantization or "", kv
    )
    tokenizer = None if model.skip_tokenizer_init else cached_tokenizer_from_config(model)
    weights = fits.folder_fingerprint(engine.model, engine.dtype)
    posts = {}
    for name, named in options.guards.items():
        guard = Guard.load(named.path)
        check_readable(guard)
        notes = fits.check(guard.spec, engine, weights, tokenizer, options.unchecked)
        if guard.anchors.harmless.shape[1] != model.get_hidden_size():
            raise DemurError(
                f"the guard {name}, of states of size {guard.anchors.harmless.shape[1]}",
                f"{model.get_hidden_size()}, the model's",
                "name a guard of this model",
            )
        words: tuple[int, ...] = ()
        if named.mode is Mode.REFUSE:
            if tokenizer is None:
                raise DemurError("a refusal without a tokenizer", "one that can write it", "use the mode stop")
            words = tuple(tokenizer.encode(options.refusal, add_special_tokens=False))
        look = look_of(guard, device, acts=named.mode is not Mode.WATCH)
        digest = hashlib.sha256(Path(named.path).read_bytes()).hexdigest()
        posts[name] = Post(guard, look, named.mode, words, notes, digest)
    told = {
        "engine": engine.name, "engine_version": engine.version, "quantization": engine.quantization,
        "kv_dtype": engine.kv_dtype, "dtype": engine.dtype, "weights": weights,
    }  # fmt: skip
    return posts, told
