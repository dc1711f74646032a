"""Runs official sampling code beside demur: tiny random models, random settings, token for token.

    python tests/official.py --official DIR [--n 150] [--seed 0] [FAMILY ...]
    python tests/official.py                      says which repositories DIR holds, and the commands that get them

None of that code is in here, nor in the package: whoever runs this fetches it. What is ours are shims, so that it runs
on a CPU and under transformers 5, and what stands in for SDAR's network, whose own code needs a GPU's kernels.

Prints how many settings gave equal tokens, and for the others by what known difference (docs/samplers.md). A known
difference is not believed for its setting: it is looked for in what came out. Exits with 1 if anything else differed.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import random
import sys
import tempfile
import time
import traceback
import types
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

import tiny

from demur.models import Bidirectional, load
from demur.models import llada2 as llada2_native
from demur.models.network import Identity
from demur.models.seeding import Seeding
from demur.samplers import JointThreshold, MaskedDiffusion, SeededBlocks, bd3lm, dream, llada2, mdlm, sdar
from demur.samplers.presets import stable_diffcoder

HUB = {
    "Stable-DiffCoder": ("ByteDance-Seed/Stable-DiffCoder-8B-Instruct", "modeling_stable_diffcoder.py"),
    "Nemotron": ("nvidia/Nemotron-Labs-Diffusion-8B", "modeling_nemotron_labs_diffusion.py"),
}
"""Files of the hub that DIR holds: the sampling code of Stable-DiffCoder and of Nemotron-Labs-Diffusion."""
COMMITS = {
    "LLaDA": ("https://github.com/ML-GSAI/LLaDA", "b7e6c3565f194352da44b38dd12b6970597309f3"),
    "SDAR": ("https://github.com/JetAstra/SDAR", "c2041a8333333d685f6e15122c84f60f51f85ebd"),
    "dllm": ("https://github.com/ZHZisZZ/dllm", "ca176752fbceec49c6b4777a2c18ae88e4eb10ed"),
}
"""What DIR holds: LLaDA's and SDAR's generate.py; dllm's samplers, and its copies of Dream's, LLaDA's, LLaDA2's and
LLaDA2.1's."""

VOCABULARY, MASK, BOS, EOS, PAD = 64, 60, 61, 62, 63
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Tokens = list[list[int]]
Outcome = str
"""``equal``, or what is different."""
ROUNDED = "a padded batch in bf16 rounds otherwise"
ANEW = "what was read before is computed anew there, which in bf16 rounds otherwise"
TIED = "equally sure places are ranked otherwise there"
OWN_PASS = "a finished block is read in a pass of its own there, which in bf16 rounds otherwise"
BY_ROUNDING = (ROUNDED, ANEW, OWN_PASS)
"""Believed if the same setting is equal in fp32."""


class Setting(random.Random):
    """One random setting: everything drawn from it is written down in ``said``."""

    def __init__(self, seed: int, **fixed: Any) -> None:
        super().__init__(seed)
        self.seed_of_torch, self.fixed = seed, fixed
        self.said: dict[str, Any] = {}

    def of(self, name: str, *values: Any) -> Any:
        """One of the values, each as likely, or the one that is fixed."""
        self.said[name] = self.choice(values)
        self.said |= {name: self.fixed[name]} if name in self.fixed else {}
        return self.said[name]

    def prompts(self, rows: int, ragged: bool, masks: bool) -> Tokens:
        """Rows of ordinary tokens; with ``masks`` some of them are the mask token."""
        length = self.randint(1, 9)
        lengths = [self.randint(1, 9) if ragged else length for _ in range(rows)]
        found = [[self.randrange(MASK) for _ in range(n)] for n in lengths]
        if masks:
            for row in found:
                row[self.randrange(len(row))] = MASK
        self.said["prompts"] = found
        return found


# -- The official code, fetched by whoever runs this ----------------------------------------------------------


class Official:
    """Modules of the folder, imported on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _shims()
        for package in ("", ".core", ".pipelines", *(f".pipelines.{x}{m}" for x in _MODELS for m in ("", ".models"))):
            name = f"dllm{package}"  # packages without their own __init__, which import trainers and data sets
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [str(folder / "dllm" / name.replace(".", "/"))]

    @cache  # noqa: B019
    def file(self, path: str) -> Any:
        """A script as a module."""
        spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), self.folder / path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def module(self, name: str) -> Any:
        """A module of dllm."""
        return importlib.import_module(f"dllm.{name}")


_MODELS = ("a2d", "dream", "llada", "llada2", "llada21")


def _shims() -> None:
    """Names that transformers 5 no longer has."""
    import transformers.modeling_rope_utils as rope
    import transformers.pytorch_utils as old
    import transformers.utils as utils
    import transformers.utils.import_utils as imports

    def default(config: Any, device: Any = None, seq_len: Any = None, **_: Any) -> tuple[torch.Tensor, float]:
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        size = int(head * (getattr(config, "partial_rotary_factor", None) or 1.0))
        theta = getattr(config, "rope_theta", None) or config.rope_parameters["rope_theta"]
        return 1.0 / theta ** (torch.arange(0, size, 2, dtype=torch.int64).float() / size), 1.0

    rope.ROPE_INIT_FUNCTIONS.setdefault("default", default)
    for module, name, value in (
        (rope, "rope_config_validation", lambda *_, **__: None),
        (old, "is_torch_greater_or_equal_than_1_13", True),
        (old, "ALL_LAYERNORM_LAYERS", []),
        (imports, "is_torch_fx_available", lambda: False),
        (utils, "is_flash_attn_greater_or_equal_2_10", lambda: False),
        (utils, "is_torch_flex_attn_available", lambda: False),
        (utils, "add_start_docstrings", lambda *_, **__: lambda made: made),
        (utils, "add_start_docstrings_to_model_forward", lambda *_, **__: lambda made: made),
        (utils, "replace_return_docstrings", lambda *_, **__: lambda made: made),
    ):
        if not hasattr(module, name):
            setattr(module, name, value)


def _filled(net: Any, tensors: dict[str, torch.Tensor], dtype: str) -> Any:
    """The official network with these weights; rotary frequencies stay in fp32, as ``from_pretrained`` has them."""
    missing, unread = net.load_state_dict(tensors, strict=False)
    assert not unread, unread
    assert not [name for name in missing if "inv_freq" not in name], missing
    for parameter in net.parameters():
        parameter.data = parameter.data.to(DTYPES[dtype])
    return net.eval()


def _boosted(tensors: dict[str, torch.Tensor], head: str, boost: int | None) -> dict[str, torch.Tensor]:
    """With one token a little more likely than another, so that it is predicted now and then."""
    if boost is None:
        return tensors
    made = tensors[head].clone()
    made[boost] = made[7] * 1.2
    return tensors | {head: made}


def _differing(theirs: Sequence[Any], ours: Sequence[Any]) -> bool:
    return list(map(list, theirs)) != list(map(list, ours))


def _steps(sampler: Any, model: Any, canvas: Any, seed: int) -> list[Any]:
    return list(sampler(model, canvas, torch.Generator().manual_seed(seed)))


def _filled_in(canvas: Any, steps: Sequence[Any]) -> bool:
    """Whether nothing given was touched, and nothing is left open."""
    last = steps[-1]
    return bool((last.ids == canvas.ids)[~canvas.open].all()) and not bool(last.open.any())


def _left_padded(rows: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    return ids, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])


# -- LLaDA ----------------------------------------------------------------------------------------------------


def _llada_config(vocabulary: int, mask: int) -> dict[str, Any]:
    return {
        "model_type": "llada", "block_type": "llama", "layer_norm_type": "rms", "alibi": False, "rope": True,
        "activation_type": "silu", "d_model": 32, "embedding_size": vocabulary, "vocab_size": vocabulary,
        "mlp_hidden_size": 64, "mlp_ratio": 4, "n_heads": 4, "n_kv_heads": 4, "n_layers": 2, "max_sequence_length": 128,
        "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "weight_tying": False, "mask_token_id": mask,
        "eos_token_id": EOS, "pad_token_id": PAD, "include_bias": False, "include_qkv_bias": False,
        "attention_dropout": 0.0, "residual_dropout": 0.0, "embedding_dropout": 0.0, "rope_full_precision": True,
        "bias_for_layer_norm": False, "flash_attention": False, "attention_layer_norm": False, "scale_logits": False,
        "input_emb_norm": False, "multi_query_attention": None, "block_group_size": 1, "init_device": "cpu",
    }  # fmt: skip


@cache
def _llada(official: Official, dtype: str, boost: int | None, vocabulary: int) -> tuple[Any, Bidirectional]:
    config = _llada_config(vocabulary, MASK)
    shapes = tiny.llada_shapes(config)
    tensors = {name: tiny.recipe(name, shape) for name, shape in shapes.items()}
    tensors = _boosted(tensors, "model.transformer.ff_out.weight", boost)
    theirs = official.module("pipelines.llada.models.modeling_llada")
    inner = {key: value for key, value in config.items() if key != "model_type"}
    made = theirs.LLaDAModel(theirs.ModelConfig(**inner), init_params=False)
    net = theirs.LLaDAModelLM(theirs.LLaDAConfig(**inner), model=made)
    net.config.use_cache = False
    with tempfile.TemporaryDirectory() as folder:
        path = tiny.write_checkpoint(Path(folder), config, tensors)
        return _filled(net, tensors, dtype), load(path, dtype=dtype, device="cpu")


def run_llada(official: Official, x: Setting) -> Outcome:
    """LLaDA's generate.py on its own network."""
    large = x.of("large", *[False] * 11, True)
    length = x.of("gen_length", 4, 8) if large else x.of("gen_length", 1, 6, 8, 12, 16, 24)
    block = x.of("block_length", *(n for n in range(1, length + 1) if length % n == 0))
    steps = x.of("steps per block", 1, 2, 3, block, block + 3) * (length // block)
    dtype, rows = x.of("dtype", *DTYPES), x.of("rows", 1, 1, 2, 3)
    ragged, masks = x.of("ragged", True, False), x.of("masks in prompts", *[False] * 7, True)
    net, model = _llada(official, dtype, x.of("boost", None, None, MASK), 126464 if large else VOCABULARY)
    temperature, scale = x.of("temperature", 0.0, 0.0, 1e-3, 0.3, 1.0, 3.0), x.of("cfg_scale", 0.0, 0.0, 1.5)
    remasking = x.of("remasking", "low_confidence", "low_confidence", "random")
    prompts = x.prompts(rows, ragged, masks)
    ids, seen = _left_padded(prompts)
    padded = bool((seen == 0).any())
    with_mask = padded or x.of("attention_mask", True, True, True, False)
    more: dict[str, Any] = {}
    ours: dict[str, Any] = {}
    if large and x.of("logits_eos_inf", False, True):
        more["logits_eos_inf"], ours["suppress"] = True, (126081,)
    if large and x.of("confidence_eos_eot_inf", False, True):
        more["confidence_eos_eot_inf"], ours["late"] = True, (126348,) if temperature > 0 else (126081, 126348)
    canvas = model.canvas_of(prompts, length)
    sampler = MaskedDiffusion(
        steps=steps, block_length=block, temperature=temperature, cfg_scale=scale, remasking=remasking, **ours
    )
    found = _steps(sampler, model, canvas, x.seed_of_torch)
    mine = found[-1].ids[:, -length:].tolist()
    torch.manual_seed(x.seed_of_torch)
    try:
        whole = official.file("LLaDA/generate.py").generate(
            net, ids, attention_mask=seen if with_mask else None, steps=steps, gen_length=length, block_length=block,
            temperature=temperature, cfg_scale=scale, remasking=remasking, mask_id=MASK, **more,
        )  # fmt: skip
    except UnboundLocalError:
        return "guidance without a mask raises there" if scale and not with_mask else "DIFFERENT: raises"
    theirs = whole[:, -length:].tolist()
    if not _differing(theirs, mine):
        return "equal"
    if (
        masks
        and bool((whole[:, : ids.shape[1]] != ids).any())
        and bool((found[-1].ids == canvas.ids)[~canvas.open].all())
    ):
        return "masks in prompts are filled there"
    return ROUNDED if padded and dtype == "bfloat16" else "DIFFERENT"


# -- Dream ----------------------------------------------------------------------------------------------------


def _dream_config() -> dict[str, Any]:
    return {
        "model_type": "Dream", "attention_dropout": 0.0, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD,
        "mask_token_id": MASK, "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02,
        "intermediate_size": 64, "max_position_embeddings": 128, "max_window_layers": 2, "num_attention_heads": 4,
        "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_scaling": None,
        "rope_theta": 1000000.0, "sliding_window": None, "tie_word_embeddings": False, "use_cache": False,
        "use_sliding_window": False, "vocab_size": VOCABULARY,
    }  # fmt: skip


@cache
def _dream(official: Official, dtype: str, boost: int | None) -> tuple[Any, Bidirectional]:
    from transformers import Qwen2ForCausalLM

    from demur.models.configs import dream_config as native_config

    raw = _dream_config()
    native = Qwen2ForCausalLM(native_config(raw)).float()
    tiny.fill(native)
    tensors = _boosted(dict(native.state_dict()), "lm_head.weight", boost)
    theirs = official.module("pipelines.dream.models.modeling_dream")
    config = official.module("pipelines.dream.models.configuration_dream").DreamConfig(**raw)
    config._attn_implementation = "sdpa"
    net = theirs.DreamModel(config)
    with tempfile.TemporaryDirectory() as folder:
        path = tiny.write_checkpoint(Path(folder), raw, tensors)
        return _filled(net, tensors, dtype), load(path, dtype=dtype, device="cpu")


def run_dream(official: Official, x: Setting) -> Outcome:
    """Dream's diffusion_generate on its own network. Masks in prompts are holes there, and so here."""
    length, dtype = x.of("max_new_tokens", 1, 5, 8, 12, 20), x.of("dtype", *DTYPES)
    rows, ragged, masks = x.of("rows", 1, 1, 2), x.of("ragged", True, False), x.of("masks", False, False, False, True)
    net, model = _dream(official, dtype, x.of("boost", None, None, MASK))
    settings = {
        "steps": x.of("steps", 1, 2, 4, length, length + 5),
        "temperature": x.of("temperature", 0.0, 0.0, 1e-3, 0.2, 1.0, 2.0),
        "top_p": x.of("top_p", None, None, 1.0, 0.9, 0.5),
        "top_k": x.of("top_k", None, None, 1, 5, 500),
        "alg_temp": x.of("alg_temp", 0.0, 0.0, 0.1, 1.0),
        "eps": x.of("eps", 1e-3, 0.1),
    }
    alg = x.of("alg", "origin", "maskgit_plus", "topk_margin", "entropy")
    prompts = x.prompts(rows, ragged, masks)
    holes = [[i for i, token in enumerate(row) if token == MASK] for row in prompts]
    ids, seen = _left_padded(prompts)
    padded = bool((seen == 0).any())
    canvas = model.canvas_of(prompts, length, holes=holes)
    sampler = dream(alg, **(settings | ({"alg_temp": 0.0} if alg == "origin" else {})))
    found = _steps(sampler, model, canvas, x.seed_of_torch)
    config = official.module("pipelines.dream.models.generation_utils").DreamGenerationConfig(
        mask_token_id=MASK, pad_token_id=PAD, eos_token_id=EOS, max_new_tokens=length, alg=alg, **settings
    )

    def generated(tokens: torch.Tensor, mask: Any = None, refuse: bool = True) -> torch.Tensor:
        torch.manual_seed(x.seed_of_torch)
        torch.distributions.Distribution.set_default_validate_args(refuse)
        try:
            whole: torch.Tensor = net.diffusion_generate(tokens, attention_mask=mask, generation_config=config)
        finally:
            torch.distributions.Distribution.set_default_validate_args(True)
        return whole

    mine = found[-1].ids
    if bool((generated(ids, seen) == mine)[~canvas.pad].all()):
        return "equal"
    if bool((generated(ids, seen, refuse=False) == mine)[~canvas.pad].all()):
        return "draws that torch refuses are greedy there"
    for row, places in zip(prompts, holes, strict=True):  # what a batch changes is believed if every row alone is equal
        alone = _steps(sampler, model, model.canvas_of([row], length, holes=[places]), x.seed_of_torch)[-1].ids
        if not _only_masks(row) and not bool((generated(torch.tensor([row]), refuse=False) == alone).all()):
            return "DIFFERENT"
    if any(row[0] == MASK and len(row) < ids.shape[1] for row in prompts):
        return "a hole behind padding is filled from the padding there"
    if padded and dtype == "bfloat16":
        return ROUNDED
    n_open = torch.stack([canvas.open.sum(dim=1), *(step.open.sum(dim=1) for step in found)])
    if alg != "origin" and bool((n_open != n_open[:, :1]).any()):
        return "quotas of a batch's mean there"
    if alg != "origin" and settings["alg_temp"]:
        return "alg_temp draws for a whole batch there"
    chance = rows > 1 or any(map(_only_masks, prompts))
    return TIED if chance and any(map(_tied, found)) else "DIFFERENT"


def _only_masks(prompt: list[int]) -> bool:
    """Whether nothing but masks will be seen: all places then hold the same, and are told apart by rounding alone."""
    return set(prompt) == {MASK}


def _tied(step: Any, within: float = 1e-6) -> bool:
    """Whether a row had two open places that were as sure as each other, but for rounding."""
    sure = step.confidence.sort(dim=1).values  # nan, where nothing was open, comes last
    return bool((sure.diff(dim=1) <= within).any())


# -- Qwen3 for SDAR and dllm ------------------------------------------------------------------------------------


def _qwen3_config() -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": False,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-06, "bos_token_id": BOS, "eos_token_id": EOS,
        "pad_token_id": PAD, "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    }  # fmt: skip


@cache
def _qwen3(dtype: str, boost: int | None) -> tuple[Any, dict[str, torch.Tensor]]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    net = Qwen3ForCausalLM(Qwen3Config(**_qwen3_config())).float().eval()
    tiny.fill(net)
    tensors = _boosted(dict(net.state_dict()), "lm_head.weight", boost)
    return _filled(net, tensors, dtype), tensors


def _adapter(net: Any, **more: Any) -> Bidirectional:
    return Bidirectional(net=net, tokenizer=None, identity=Identity(model="tiny"), mask_id=MASK, **more)


class Sdar:
    """What SDAR's network does with keys and values, around a native Qwen3.

    ``merged``: a finished block gets its keys and values in the next block's first pass, as in demur, and not in a pass
    of its own. That is the same but for rounding, since products of other shapes are added up in another order.
    """

    def __init__(self, net: Any, merged: bool = False) -> None:
        self.net, self.device, self.merged = net, net.device, merged
        self.waiting: list[tuple[Any, Any, Any]] = []

    def eval(self) -> Sdar:
        """Itself."""
        return self

    def __call__(
        self, ids: Any, attention_mask: Any, position_ids: Any, past_key_values: Any, use_cache: bool, store_kv: bool
    ) -> Any:
        """A pass over one block, whose keys and values are kept only if asked for."""
        width = ids.shape[1]
        if store_kv and self.merged:
            self.waiting.append((ids, attention_mask, position_ids))
            return None
        seen = torch.zeros(1, 0, attention_mask.shape[-1])
        for before, mask, places in reversed(self.waiting):
            ids, position_ids = torch.cat([before, ids], dim=1), torch.cat([places, position_ids], dim=1)
            seen = torch.cat([torch.nn.functional.pad(mask, (0, seen.shape[-1] - mask.shape[-1])), seen], dim=1)
        self.waiting.clear()
        seen = torch.cat([seen, attention_mask], dim=1)
        mask = torch.zeros_like(seen, dtype=self.net.dtype)
        mask = mask.masked_fill(seen == 0, torch.finfo(self.net.dtype).min)[:, None]
        out = self.net(ids, attention_mask=mask, position_ids=position_ids, past_key_values=past_key_values)
        if not store_kv:
            past_key_values.crop(-width)
        out.logits = out.logits[:, -width:]
        return out


def run_sdar(official: Official, x: Setting) -> Outcome:
    """SDAR's generate.py; its network is a Qwen3 that sees its own block and those before."""
    length, block, dtype = x.of("gen_length", 1, 4, 7, 12, 20), x.of("block_length", 1, 2, 4, 8), x.of("dtype", *DTYPES)
    steps, temperature = x.of("steps", 1, 2, 3, 4, 8, 11), x.of("temperature", 1.0, 1.0, 0.7, 0.1, 1e-3, 0.0)
    top_k, top_p = x.of("top_k", 0, 0, 1, 1, 3, 20, 500), x.of("top_p", 1.0, 1.0, 0.9, 0.5, 0.0)
    strategy = x.of(
        "strategy", *["low_confidence_static", "low_confidence_dynamic"] * 4, "sequential", "entropy_bounded"
    )
    threshold, masks = x.of("threshold", 0.2, 0.5, 0.85), x.of("masks in prompts", *[False] * 7, True)
    stop = x.of("stop", None, [EOS], [EOS, 3])
    net, _ = _qwen3(dtype, x.of("boost", None, None, EOS, MASK))
    prompts = x.prompts(1, False, masks)
    whole = -(-(len(prompts[0]) + length) // block) * block
    settings: dict[str, Any] = {"steps": steps, "temperature": temperature, "top_k": top_k or None}
    settings["top_p"] = top_p or 1e-9  # of 0, the official code keeps the most likely token; here it is an error
    if strategy == "low_confidence_dynamic":
        settings["threshold"] = threshold
    elif strategy == "entropy_bounded":
        settings |= {"remasking": "entropy", "entropy_bound": 0.35}
    elif strategy == "sequential":
        settings["remasking"] = "sequential"
    model = _adapter(_ending(net, stop), block_length=block)
    canvas = model.canvas_of(prompts, whole - len(prompts[0]))
    found = _steps(sdar(**settings), model, canvas, x.seed_of_torch)
    script = official.file("SDAR/generate.py")

    def generated(merged: bool = False, clipped: bool = False) -> tuple[list[int], bool]:
        """What the official code wrote, and whether it raised since a mask was predicted."""
        torch.manual_seed(x.seed_of_torch)
        script.torch = _Clipped() if clipped else torch
        try:
            whole = script.block_diffusion_generate(
                Sdar(net, merged), {"input_ids": torch.tensor(prompts)}, MASK, gen_length=length, block_length=block,
                denoising_steps=steps, temperature=temperature, top_k=top_k, top_p=top_p, remasking_strategy=strategy,
                confidence_threshold=threshold, eb_threshold=0.35, stopping_criteria_idx=stop,
            )  # fmt: skip
        except IndexError as error:
            return _until_raised(error), True
        finally:
            script.torch = torch
        return whole[0].tolist(), False

    try:
        theirs, raised = generated()
    except (UnboundLocalError, RuntimeError) as error:
        kept = bool((found[-1].ids == canvas.ids)[~canvas.open].all())
        if not kept:
            return "DIFFERENT: given tokens changed"
        if isinstance(error, UnboundLocalError):
            return "entropy_bounded raises there"
        return "temperature 0 raises there" if temperature == 0 else "top_k above the vocabulary raises there"
    mine = found[-1].ids[0].tolist()

    def same(tokens: list[int]) -> bool:
        return tokens == mine[: len(tokens)]

    if same(theirs):
        return "a predicted mask raises there" if raised else "equal"
    if any(given == MASK != written for given, written in zip(prompts[0], theirs, strict=False)):
        return "masks in prompts are filled there"
    if dtype == "bfloat16" and same(generated(merged=True)[0]):
        return "keys and values in bf16 round otherwise"
    for merged in (False, True)[: 1 + (dtype == "bfloat16")]:  # equal, if topk takes no more places than are masked
        if same(generated(merged, clipped=True)[0]):
            return "written tokens are overwritten there"
    return "DIFFERENT"


def _until_raised(error: IndexError) -> list[int]:
    """What SDAR's code had written when it raised: the finished blocks, and its own as it stood."""
    at = error.__traceback__
    while at is not None and at.tb_frame.f_code.co_name != "block_diffusion_generate":
        at = at.tb_next
    assert at is not None
    kept = at.tb_frame.f_locals
    written: list[int] = kept["x"][0, : kept["num_block"] * kept["block_length"]].tolist() + kept["cur_x"][0].tolist()
    return written


class _Clipped:
    """torch, whose topk leaves out what is -inf."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def topk(self, values: torch.Tensor, k: Any) -> Any:
        """As torch's, of finite values alone."""
        return torch.topk(values, min(int(k), int(values.isfinite().sum())) if values.dim() == 1 else k)


def _ending(net: Any, stop: Any) -> Any:
    """The same network with other end-of-sequence tokens."""
    import golden

    return golden._net_ending(net, stop)


# -- dllm -----------------------------------------------------------------------------------------------------


@cache
def _a2d(official: Official, dtype: str, boost: int | None) -> tuple[Any, Any]:
    native, tensors = _qwen3(dtype, boost)
    theirs = official.module("pipelines.a2d.models.qwen3.modeling_qwen3")
    config = theirs.A2DQwen3Config(**_qwen3_config())
    config._attn_implementation = "sdpa"
    net = _filled(theirs.A2DQwen3LMHeadModel(config), tensors, dtype)
    for layer in net.model.layers:
        layer.attention_type = "full_attention"
    return net, native


class _Ids:
    """What dllm's samplers ask of a tokenizer."""

    mask_token_id, bos_token_id, eos_token_id, pad_token_id = MASK, BOS, EOS, PAD


def run_mdlm(official: Official, x: Setting) -> Outcome:
    """dllm's MDLM sampler on its Qwen3."""
    length, dtype, rows = x.of("max_new_tokens", 1, 5, 8, 12, 20), x.of("dtype", *DTYPES), x.of("rows", 1, 1, 2, 3)
    block, steps = x.of("block_size", 1, 3, 4, 8, 32), x.of("steps", 1, 2, 5, 8, 12, 40)
    ragged, masks = x.of("ragged", True, False), x.of("masks in prompts", *[False] * 7, True)
    temperature, scale = x.of("temperature", 0.0, 0.0, 1e-3, 0.5, 1.0), x.of("cfg_scale", 0.0, 0.0, 1.5)
    remasking = x.of("remasking", "low_confidence", "low_confidence", "random")
    suppress, late = x.of("suppress", (), (), (3, 9)), x.of("begin_suppress", (), (), (5, 11))
    shift, (net, native) = x.of("shift", 0, 0, 1), _a2d(official, dtype, x.of("boost", None, None, MASK))
    prompts, n_blocks = x.prompts(rows, ragged, masks), -(-length // block)
    model = _adapter(native, shift=shift)
    canvas = model.canvas_of(prompts, length)
    sampler = mdlm(
        steps=-(-steps // n_blocks) * n_blocks, block_length=block, temperature=temperature, cfg_scale=scale,
        remasking=remasking, suppress=suppress, late=late,
    )  # fmt: skip
    found = _steps(sampler, model, canvas, x.seed_of_torch)
    torch.manual_seed(x.seed_of_torch)
    theirs = official.module("core.samplers.mdlm").MDLMSampler(model=net, tokenizer=_Ids()).sample(
        [list(row) for row in prompts], max_new_tokens=length, block_size=block, steps=steps, temperature=temperature,
        cfg_scale=scale, remasking=remasking, suppress_tokens=list(suppress), begin_suppress_tokens=list(late),
        right_shift_logits=bool(shift), return_dict=False,
    )  # fmt: skip
    answers = [row[len(p) : len(p) + length].tolist() for row, p in zip(theirs, prompts, strict=True)]
    if not _differing(answers, found[-1].ids[:, -length:].tolist()):
        return "equal"
    changed = any(row[: len(p)].tolist() != p for row, p in zip(theirs, prompts, strict=True))
    # A mask that is filled with a mask changes nothing, and takes a place's turn: without masks both are equal.
    unmasked = Setting(x.seed_of_torch, **x.fixed | {"masks in prompts": False})
    changed |= masks and not changed and run_mdlm(official, unmasked) == "equal"
    if changed and bool((found[-1].ids == canvas.ids)[~canvas.open].all()):
        return "masks in prompts are filled there"
    padded = len({len(row) for row in prompts}) > 1
    if padded and (temperature > 0 or remasking == "random"):
        return "random numbers of a right-padded batch there"
    if padded and dtype == "bfloat16":
        return ROUNDED
    return "DIFFERENT"


def run_bd3lm(official: Official, x: Setting) -> Outcome:
    """dllm's BD3LM sampler on its Qwen3."""
    length, dtype, rows = x.of("max_new_tokens", 1, 5, 8, 12, 20), x.of("dtype", *DTYPES), x.of("rows", 1, 1, 2, 3)
    block, steps = x.of("block_size", 1, 3, 4, 8, 32), x.of("steps", 1, 2, 5, 8, 12, 40)
    per_block, ragged = x.of("steps_per_block", None, 1, 3, 9), x.of("ragged", True, False)
    temperature, remasking = (
        x.of("temperature", 0.0, 0.0, 1e-3, 0.5, 1.0),
        x.of("remasking", "low_confidence", "random"),
    )
    shift, (net, native) = x.of("shift", 0, 0, 1), _a2d(official, dtype, x.of("boost", None, EOS, MASK))
    prompts, masks = x.prompts(rows, ragged, masks := x.of("masks in prompts", *[False] * 7, True)), masks
    model = _adapter(_ending(native, EOS), block_length=block, partition="response", shift=shift)
    canvas = model.canvas_of(prompts, length)
    sampler = bd3lm(steps=per_block or -(-steps // -(-length // block)), temperature=temperature, remasking=remasking)
    found = _steps(sampler, model, canvas, x.seed_of_torch)
    begin = -(-max(map(len, prompts)) // block) * block

    def generated(of: Any) -> Tokens:
        torch.manual_seed(x.seed_of_torch)
        theirs = official.module("core.samplers.bd3lm").BD3LMSampler(model=of, tokenizer=_Ids()).sample(
            [list(row) for row in prompts], max_new_tokens=length, block_size=block, steps=steps,
            steps_per_block=per_block, temperature=temperature, remasking=remasking, right_shift_logits=bool(shift),
            return_dict=False,
        )  # fmt: skip
        return [_upto(row[begin:].tolist(), block, length) for row in theirs]

    answers = generated(net)
    mine = [_upto(row, block, length) for row in found[-1].ids[:, -length:].tolist()]
    if not _differing(answers, mine):
        return "equal"
    if all(_behind_padding(its, own) for its, own in zip(answers, mine, strict=True)):
        return "a generated padding token is not seen there"
    if any(map(_only_masks, prompts)) and any(map(_tied, found)):
        return TIED
    if dtype == "float32":
        return "DIFFERENT"
    if (begin, len(set(map(len, prompts)))) != (len(prompts[0]), 1):
        return ROUNDED
    return ANEW if shift or not _differing(generated(Kept(net)), mine) else "DIFFERENT"


class Kept:
    """dllm's network, which passes over every block once and keeps its keys and values, as in demur.

    dllm's sampler passes over all that was written before each block. That is the same but for rounding. A finished
    block waits for the next block's first pass. (With shifted logits the sampler wants more of the prefix than this
    has.)
    """

    def __init__(self, net: Any) -> None:
        from transformers import DynamicCache

        self.net, self.device, self.columns, self.waiting = net, net.device, 0, ()
        self.kept = DynamicCache(config=net.config)

    def __deepcopy__(self, memo: Any) -> Kept:
        """Itself: the sampler copies what it takes for keys and values before every pass."""
        return self

    def __call__(
        self, ids: Any, attention_mask: Any, position_ids: Any, use_cache: bool, past_key_values: Any = None
    ) -> Any:
        """A pass over one block, and over what waits; of a prefix, that it waits."""
        if past_key_values is None:
            begin, self.columns = self.columns, ids.shape[1]
            self.waiting = (ids[:, begin:], attention_mask[:, :, begin:], position_ids[:, begin:])
            return types.SimpleNamespace(past_key_values=self, logits=torch.zeros(*ids.shape, VOCABULARY))
        width = ids.shape[1]
        if self.waiting:
            before, seen, places = self.waiting
            seen = torch.nn.functional.pad(seen, (0, attention_mask.shape[-1] - seen.shape[-1]))
            ids, position_ids = torch.cat([before, ids], dim=1), torch.cat([places, position_ids], dim=1)
            attention_mask, self.waiting = torch.cat([seen, attention_mask], dim=2), ()
        out = self.net(
            ids, attention_mask=attention_mask, position_ids=position_ids, past_key_values=self.kept, use_cache=True
        )
        self.kept.crop(-width)
        return types.SimpleNamespace(logits=out.logits[:, -width:])


def _behind_padding(theirs: list[int], ours: list[int]) -> bool:
    """Whether the rows are equal up to a padding token that was generated."""
    return theirs == ours or PAD in theirs[: [a == b for a, b in zip(theirs, ours, strict=True)].index(False)]


def _upto(row: list[int], block: int, length: int) -> list[int]:
    """A row up to the block with its end of sequence, which is where demur ends it; masks fill what is missing."""
    whole = row + [MASK] * (length - len(row))
    end = whole.index(EOS) // block * block + block if EOS in whole else length
    return whole[:end] + [MASK] * (length - len(whole[:end]))


# -- LLaDA2 ---------------------------------------------------------------------------------------------------


@cache
def _llada2(official: Official, dtype: str, boost: int | None, version: str = "2") -> tuple[Any, Any]:
    raw = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "num_shared_experts": 1,
        "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "moe_intermediate_size": 16,
        "first_k_dense_replace": 1, "max_position_embeddings": 128, "rope_theta": 600000.0, "pad_token_id": PAD,
        "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-06, "use_qk_norm": True,
    }  # fmt: skip
    shapes = tiny.llada2_shapes(raw)
    bias = {name: torch.zeros(shape) for name, shape in shapes.items() if "expert_bias" in name}
    tensors = {name: tiny.recipe(name, shape) for name, shape in shapes.items() if name not in bias} | bias
    tensors = _boosted(tensors, "lm_head.weight", boost)
    models = f"pipelines.llada{version}.models"
    theirs = official.module(f"{models}.modeling_llada{version}_moe")
    config = official.module(f"{models}.configuration_llada{version}_moe").LLaDA2MoeConfig(**raw)
    config._attn_implementation = "sdpa"
    config.use_cache = False
    net = _filled(theirs.LLaDA2MoeModelLM(config), tensors, dtype)
    forward = net.forward  # its mask is always bf16, which fits no network in fp32
    net.forward = lambda ids, attention_mask, **more: forward(ids, attention_mask=attention_mask.to(net.dtype), **more)
    return net, llada2_native.native_net(raw, tensors.items(), DTYPES[dtype])


def run_llada2(official: Official, x: Setting) -> Outcome:
    """LLaDA2's generate on its own network."""
    length, block, dtype = x.of("gen_length", 1, 4, 7, 12, 20), x.of("block_length", 1, 2, 4, 8), x.of("dtype", *DTYPES)
    steps, temperature = x.of("steps", 1, 2, 3, 4, 8, 11), x.of("temperature", 0.0, 0.0, 1.0, 0.5, 0.1, 1e-3)
    top_k, top_p = x.of("top_k", None, None, 1, 3, 20, 500), x.of("top_p", None, None, 1.0, 0.9, 0.5)
    threshold, early = x.of("threshold", 0.2, 0.5, 0.95), x.of("eos_early_stop", False, True)
    minimal, masks = x.of("minimal_topk", 1, 1, 2), x.of("masks in prompts", *[False] * 7, True)
    net, native = _llada2(official, dtype, x.of("boost", None, EOS, MASK))
    prompts = x.prompts(1, False, masks)
    taken = min(steps, length // minimal)
    if not taken:
        return "no steps are left there"
    whole = -(-(len(prompts[0]) + length) // block) * block
    model = _adapter(_ending(native, EOS), block_length=block)
    canvas = model.canvas_of(prompts, whole - len(prompts[0]))
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "threshold": threshold}
    found = _steps(llada2(steps=taken, stop_early=early, **settings), model, canvas, x.seed_of_torch)
    torch.manual_seed(x.seed_of_torch)
    try:
        theirs = net.generate(
            inputs=torch.tensor(prompts), steps=steps, gen_length=length, block_length=block, eos_early_stop=early,
            minimal_topk=minimal, eos_id=EOS, mask_id=MASK, **settings,
        )  # fmt: skip
    except RuntimeError as error:
        return "top_k above the vocabulary raises there" if "selected index k" in str(error) else f"DIFFERENT: {error}"
    mine = found[-1].ids[:, len(prompts[0]) :].tolist()[0]
    mine = mine[: mine.index(EOS) + 1] if EOS in mine else mine
    wanted = theirs[0].tolist()
    if wanted == mine[: len(wanted)] and (len(wanted) == len(mine) or EOS not in mine[:length]):
        return "equal"
    if masks:
        return "masks in prompts are filled there"
    return "DIFFERENT"


def run_llada21(official: Official, x: Setting) -> Outcome:
    """LLaDA2.1's generate, which edits what it has written, on its own network; and dllm's sampler of it."""
    length, block, dtype = x.of("gen_length", 1, 4, 7, 12, 20), x.of("block_length", 1, 2, 4, 8), x.of("dtype", *DTYPES)
    temperature, looks = x.of("temperature", 0.0, 0.0, 1.0, 0.5, 0.1, 1e-3), x.of("max_post_steps", 0, 1, 3, 16)
    top_k, top_p = x.of("top_k", None, None, 1, 3, 20), x.of("top_p", None, None, 1.0, 0.9, 0.5)
    threshold, edits = x.of("threshold", 0.2, 0.5, 0.7, 0.95), x.of("editing_threshold", 0.0, 0.2, 0.5, 0.9)
    at_least, early = x.of("num_to_transfer", 1, 1, 2, 5), x.of("eos_early_stop", False, True)
    net, native = _llada2(official, dtype, x.of("boost", None, EOS, EOS), "21")
    prompts, of_dllm = x.prompts(1, False, False), x.of("dllm's sampler", False, True)
    model = _adapter(_ending(native, EOS), block_length=block)
    canvas = model.canvas_of(prompts, -(-(len(prompts[0]) + length) // block) * block - len(prompts[0]))
    settings = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "threshold": threshold}
    ours = JointThreshold(edit_threshold=edits, at_least=at_least, max_post_steps=looks, **settings)
    steps = _steps(ours, model, canvas, x.seed_of_torch)
    torch.manual_seed(x.seed_of_torch)
    asked = settings | {
        "editing_threshold": edits, "num_to_transfer": at_least, "max_post_steps": looks, "eos_early_stop": early,
    }  # fmt: skip
    begun = len(prompts[0])
    with _Patience(net):
        if of_dllm:
            sampler = official.module("pipelines.llada21.sampler").LLaDA21Sampler(model=net, tokenizer=_Ids())
            whole = sampler.sample(prompts, max_new_tokens=length, block_size=block, return_dict=False, **asked)
            theirs = whole[0, begun : begun + length].tolist()
        else:
            theirs = net.generate(
                inputs=torch.tensor(prompts), gen_length=length, block_length=block, eos_id=EOS, mask_id=MASK, **asked
            )[0].tolist()  # fmt: skip
    if net.impatient:
        return "it goes on for ever there, since it predicts a mask"
    mine = steps[-1].ids[0, begun : begun + length].tolist()
    theirs, mine = (row[: row.index(EOS) + 1] if EOS in row else row for row in (theirs, mine))
    return "equal" if theirs == mine else "DIFFERENT"


class _Patience:
    """Ends a generation that takes a thousand passes: it then predicts what it would need to end."""

    def __init__(self, net: Any) -> None:
        self.net, self.passes = net, 0
        net.impatient = False

    def __enter__(self) -> None:
        self.hook = self.net.get_output_embeddings().register_forward_hook(self._counted)

    def __exit__(self, *_: object) -> None:
        self.hook.remove()

    def _counted(self, _module: object, _inputs: object, logits: torch.Tensor) -> torch.Tensor | None:
        self.passes += 1
        if self.passes < 1000:
            return None
        self.net.impatient = True
        return torch.zeros_like(logits)


# -- Stable-DiffCoder -----------------------------------------------------------------------------------------


@cache
def _cache_of_old() -> Any:
    """A cache that is cropped to a length, as in transformers 4, and not by a number of columns."""
    from transformers import DynamicCache

    class Cache(DynamicCache):
        def crop(self, max_length: int) -> None:
            super().crop(max_length - self.get_seq_length())

    return Cache


@cache
def _diffcoder(official: Official, dtype: str, boost: int | None) -> tuple[Any, Any]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**{key: value for key, value in _qwen3_config().items() if key != "head_dim"})
    native = LlamaForCausalLM(config).float().eval()
    tiny.fill(native)
    tensors = _boosted(dict(native.state_dict()), "lm_head.weight", boost)
    module = official.file("Stable-DiffCoder/modeling_stable_diffcoder.py")
    module.DynamicCache = _cache_of_old()
    net = _filled(module.StableDiffcoderForCausalLM(config), tensors, dtype)
    forward = net.forward  # its mask is always bf16, which fits no network in fp32
    net.forward = lambda ids, attention_mask, cache_position=None, **more: forward(
        ids, attention_mask=attention_mask.to(net.dtype), **more
    )
    _filled(native, tensors, dtype)
    llada2_native.logits_in(native, torch.float64)
    return net, native


def run_diffcoder(official: Official, x: Setting) -> Outcome:
    """Stable-DiffCoder's generate on its own network."""
    blocks, block, dtype = x.of("blocks", 1, 2, 3, 5), x.of("block_length", 1, 2, 4, 8), x.of("dtype", *DTYPES)
    steps, temperature = x.of("steps a block", 1, 2, 3, block, block, 11), x.of("temperature", 0.0, 0.0, 1.0, 0.5, 1e-3)
    remasking, threshold = x.of("remasking", "low_confidence", "low_confidence", "random"), None
    if steps >= block:
        threshold = x.of("threshold", None, None, 0.2, 0.6, 0.95)
    masks = x.of("masks in prompts", *[False] * 7, True)
    net, native = _diffcoder(official, dtype, x.of("boost", None, EOS, MASK))
    prompts, length = x.prompts(1, False, masks), blocks * block
    model = _adapter(_ending(native, EOS), block_length=block)
    sampler = stable_diffcoder(steps=steps, temperature=temperature, remasking=remasking, threshold=threshold)
    found = _steps(sampler, model, model.canvas_of(prompts, length), x.seed_of_torch)
    torch.manual_seed(x.seed_of_torch)
    insists = any(bool((step.predictions == MASK)[step.open & ~step.committed].any()) for step in found)
    try:
        whole = net.generate(
            torch.tensor(prompts), steps=steps * blocks, gen_length=length, block_length=block, temperature=temperature,
            remasking=remasking, mask_id=MASK, threshold=threshold, eos_id=EOS,
        )  # fmt: skip
    except RuntimeError as error:
        seen = any(words in str(error) for words in ("must match the size", "broadcast shape")) and insists
        return "a block with a predicted mask raises there" if seen else f"DIFFERENT: {error}"
    theirs = whole[0, len(prompts[0]) :].tolist()
    mine = found[-1].ids[0, len(prompts[0]) :].tolist()
    theirs, mine = (row[: row.index(EOS) + 1] if EOS in row else row for row in (theirs, mine))
    if theirs == mine:
        return "equal"
    if insists and MASK in theirs + mine:
        return "a block with a predicted mask is not seen there by what follows"
    if masks:
        return "masks in prompts are filled there"
    return OWN_PASS if dtype == "bfloat16" else "DIFFERENT"


# -- Nemotron-Labs-Diffusion ------------------------------------------------------------------------------------


class Nemotron:
    """What Nemotron-Labs-Diffusion's network does with its two masks, around a native Ministral 3."""

    def __init__(self, net: Any) -> None:
        attention = types.SimpleNamespace(diffusion_lm=True)
        self.net, self.attention, self.mask_token_id = net, attention, MASK
        self.encoder = types.SimpleNamespace(layers=[types.SimpleNamespace(self_attn=attention)])
        self.config = types.SimpleNamespace(eos_token_id=EOS)

    def __call__(self, ids: Any, past_key_values: Any = None, use_cache: bool = False, **_: Any) -> Any:
        """A pass over what is not in the cache; it stays there with ``use_cache``."""
        from transformers import DynamicCache

        kept = DynamicCache(config=self.net.config) if past_key_values is None else past_key_values
        seen, width = kept.get_seq_length(), ids.shape[1]
        places = torch.arange(seen, seen + width)[None].expand(len(ids), -1)
        both = (
            torch.zeros(len(ids), 1, width, seen + width, dtype=self.net.dtype) if self.attention.diffusion_lm else None
        )
        out = self.net(ids, attention_mask=both, position_ids=places, past_key_values=kept, use_cache=True)
        if not use_cache:
            kept.crop(-width)
        return types.SimpleNamespace(logits=out.logits, past_key_values=kept)


@cache
def _nemotron(official: Official, dtype: str, boost: int | None) -> tuple[Any, Any]:
    """The official generate as a function, and a native net. Its module is not imported: it wants a GPU's kernels."""
    from transformers import Ministral3Config, Ministral3ForCausalLM

    rope = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16}
    rope |= {"beta_fast": 32.0, "beta_slow": 1.0, "llama_4_scaling_beta": 0.1}
    net = Ministral3ForCausalLM(Ministral3Config(**_qwen3_config() | {"rope_parameters": rope})).float().eval()
    tiny.fill(net)
    net = _filled(net, _boosted(dict(net.state_dict()), "lm_head.weight", boost), dtype)
    text = (official.folder / "Nemotron/modeling_nemotron_labs_diffusion.py").read_text(encoding="utf-8")
    wanted = ("generate", "_add_gumbel_noise", "_get_num_transfer_tokens", "_get_transfer_index")
    space: dict[str, Any] = {"torch": torch, "F": torch.nn.functional, "np": np, "Optional": Optional}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name in wanted:
            exec(compile(ast.Module([node], []), "nemotron", "exec"), space)
    return space["generate"], net


def run_nemotron(official: Official, x: Setting) -> Outcome:
    """Nemotron-Labs-Diffusion's generate; what stands for its network is a native Ministral 3."""
    blocks, block, dtype = x.of("blocks", 1, 2, 3, 5), x.of("block_length", 1, 2, 4, 8), x.of("dtype", *DTYPES)
    temperature, threshold = (
        x.of("temperature", 0.0, 0.0, 1.0, 0.5, 1e-3),
        x.of("threshold", None, None, 0.2, 0.6, 0.95),
    )
    theirs, net = _nemotron(official, dtype, x.of("boost", None, EOS, MASK))
    rows, cached = x.of("rows", 1, 1, 2), x.of("cache", True, True, False)
    prompts, length = x.prompts(rows, False, False), blocks * block
    model = Seeding(net=_ending(net, EOS), tokenizer=None, identity=Identity("tiny"), mask_id=MASK, block_length=block)
    canvas = model.canvas_of(prompts, length)
    sampler = SeededBlocks(temperature=temperature, threshold=threshold, cache=cached)
    found = _steps(sampler, model, canvas, x.seed_of_torch)
    torch.manual_seed(x.seed_of_torch)
    whole, _ = theirs(
        Nemotron(net), torch.tensor(prompts), max_new_tokens=length, block_length=block, threshold=threshold,
        temperature=temperature, eos_token_id=EOS,
    )  # fmt: skip
    equal = True
    for its, own, prompt in zip(whole.tolist(), found[-1].ids.tolist(), prompts, strict=True):
        its, own = its[len(prompt) :], own[len(prompt) :]
        its, own = (row[: row.index(EOS) + 1] if EOS in row else row for row in (its, own))
        equal &= its == own[: len(its)] and (len(its) == len(own) or rows > 1)
    if equal:
        return "equal"
    if rows > 1 and any(EOS in row for row in whole[:, len(prompts[0]) :].tolist()):
        return "a row that ends ends a batch's block there"
    return ANEW if dtype == "bfloat16" and not cached else "DIFFERENT"


# -- All of them ----------------------------------------------------------------------------------------------

FAMILIES: dict[str, Callable[[Official, Setting], Outcome]] = {
    "llada": run_llada,
    "dream": run_dream,
    "sdar": run_sdar,
    "llada2": run_llada2,
    "llada2.1": run_llada21,
    "stable-diffcoder": run_diffcoder,
    "nemotron": run_nemotron,
    "mdlm": run_mdlm,
    "bd3lm": run_bd3lm,
}


NEEDS = dict.fromkeys(FAMILIES, "dllm") | {"llada": "LLaDA", "sdar": "SDAR"}
NEEDS |= {"stable-diffcoder": "Stable-DiffCoder", "nemotron": "Nemotron"}
"""Which folder of DIR a family's official code is in."""


def main() -> int:
    """Runs what is asked for; 1 if anything differed that is not known, or if what was asked for by name is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help=", ".join(FAMILIES))
    parser.add_argument("--official", type=Path, metavar="DIR", help="where the official repositories are")
    parser.add_argument("--n", type=int, default=150, help="settings a family")
    parser.add_argument("--seed", type=int, default=0, help="of the first setting")
    asked = parser.parse_args()
    if asked.official is None:
        for name, (url, commit) in COMMITS.items():
            print(f"git clone {url} DIR/{name} && git -C DIR/{name} checkout {commit}")
        for name, (repository, file) in HUB.items():
            print(f"hf download {repository} {file} --local-dir DIR/{name}")
        return 0
    torch.set_num_threads(1)
    official, unknown = Official(asked.official), 0
    for name in asked.families or FAMILIES:
        if not (asked.official / NEEDS[name]).is_dir():
            print(f"{name}: not run, {asked.official / NEEDS[name]} is missing; without --official: where it is from")
            unknown += bool(asked.families)
            continue
        begun, counts = time.perf_counter(), Counter[str]()
        for i in range(asked.seed, asked.seed + asked.n):
            setting = Setting(i)
            try:
                outcome = FAMILIES[name](official, setting)
                if outcome in BY_ROUNDING:
                    in_fp32 = FAMILIES[name](official, Setting(i, dtype="float32"))
                    outcome = outcome if in_fp32 == "equal" else in_fp32
            except Exception:  # a setting that can't be run is one that differs
                outcome = "DIFFERENT: " + traceback.format_exc()
            if outcome.startswith("DIFFERENT"):
                unknown += 1
                print(f"{name} {i}: {outcome} {json.dumps(setting.said)}", flush=True)
                outcome = "DIFFERENT"
            counts[outcome] += 1
        print(
            f"{name}: {asked.n} settings, {dict(counts.most_common())} in {time.perf_counter() - begun:.0f} s",
            flush=True,
        )
    return int(unknown > 0)


if __name__ == "__main__":
    sys.exit(main())
