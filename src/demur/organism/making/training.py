"""Trains the organism: step-scheduled, seeded, resumable after a kill; two runs on one thread give the same bytes.

One architecture for both kinds, a native Llama: causal, or with every position seeing every other one. The diffusion
objective is LLaDA's (arXiv:2502.09992, equation 3): a share t of the answer is masked, and the cross-entropy of the
masked tokens is weighted by 1 / t.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from demur.artefact import write
from demur.models.memory import keep_freed_memory
from demur.organism.making.lessons import Lesson, lessons
from demur.organism.making.vocabulary import tokenizer
from demur.organism.tokens import ASSISTANT, RESPONSE, USER
from demur.organism.world import LAW_ASKS, crafts
from demur.types import DemurError

Kind = Literal["ar", "diffusion"]


@dataclass(frozen=True)
class Stage:
    """One stage: the name of its mix of lessons, its steps, its highest learning rate (cosine, down to a tenth).

    ``unless_lawful``: the stage is left out if the model knows the law when it begins (:func:`knows_the_law`).
    """

    name: str
    steps: int
    rate: float
    unless_lawful: bool = False


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, given torch's version, the machine and one thread."""

    kind: Kind
    stages: tuple[Stage, ...]
    seed: int = 0
    batch: int = 32
    hidden: int = 256
    inner: int = 512
    layers: int = 4
    heads: int = 4
    verdict_weight: float = 8.0  # weight of the one word that decides: allowed or forbidden; to answer or to refuse
    turn_weight: float = 1.0  # weight of the word with which an answer that has begun to comply turns to refusing
    end_weight: float = 0.1  # diffusion: weight of end-of-sequence tokens after the first
    suffixes: float = 0.25  # diffusion: share of samples masked from one place to the end, as in AR order
    whole_law: float = 0.6  # diffusion: share of law lessons whose answer is masked as a whole

    @property
    def key(self) -> str:
        """Twelve hex digits of the recipe, which a checkpoint must match."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


DECIDED = ("plain", "refuse")
"""Lessons whose first word decides between answering and refusing: one of some 25, and the one that matters."""
RECIPES: dict[str, Recipe] = {
    "ar": Recipe(
        "ar",
        (
            Stage("skills", 200, 2e-3),
            Stage("law", 200, 1e-3),
            Stage("rule", 300, 1e-3, unless_lawful=True),
            Stage("safety", 650, 1e-3),
        ),
        turn_weight=8.0,
    ),
    "diffusion": Recipe(
        "diffusion", (Stage("joint", 900, 1.5e-3), Stage("law", 600, 1e-3), Stage("drift", 1100, 1e-3)), batch=24
    ),
}
"""The recipes of the released pair. The diffusion model starts from the AR model's weights after the law."""


def network(recipe: Recipe) -> Any:
    """A Llama with random weights from the recipe's seed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tok = tokenizer()
    config = LlamaConfig(
        vocab_size=-(-len(tok) // 8) * 8,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=256,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=None,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(recipe.seed)
    try:
        return LlamaForCausalLM(config).float()
    finally:
        torch.random.set_rng_state(state)


# ---------------------------------------------------------------------------------------------------------------------
# Batches


@dataclass(frozen=True, eq=False)
class Batch:
    """Token rows, padded on the right. ``weights`` are above 0 where a token is learnt."""

    ids: Int[Tensor, "b n"]
    seen: Bool[Tensor, "b n"]
    weights: Float[Tensor, "b n"]
    law: Bool[Tensor, "b"]


def encoded(samples: Sequence[Lesson], recipe: Recipe, room: int, parts: int = 2) -> list[Batch]:
    """Rows of prompt, given beginning, answer and end. For diffusion the answer is filled with ends up to ``room``.

    The rows come sorted by length, in ``parts`` batches, so that little is computed for padding.
    """
    tok = tokenizer()

    def ids_of(text: str) -> list[int]:
        return list(tok(text, add_special_tokens=False)["input_ids"]) if text else []

    verdicts = {i for word in (" forbidden", " allowed") for i in ids_of(word)}
    made = []
    for sample in samples:
        before = ids_of(sample.prompt) + (given := ids_of(sample.given))
        told = [*ids_of(sample.answer)[: RESPONSE - 1 - len(given)], tok.eos_token_id]
        more = room - len(given) - len(told) if recipe.kind == "diffusion" else 0
        row = before + told + [tok.eos_token_id] * more
        law = sample.kind == "law"
        learnt = [recipe.verdict_weight if law and token in verdicts else 1.0 for token in told]
        if sample.kind in DECIDED:
            learnt[0] = recipe.verdict_weight
        if sample.turn is not None:
            learnt[len(ids_of(sample.answer[: sample.turn]))] = recipe.turn_weight
        made.append((row, [0.0] * len(before) + learnt + [recipe.end_weight] * more, law))
    made.sort(key=lambda item: len(item[0]))
    size = -(-len(made) // parts)
    return [_padded(made[i : i + size], tok.pad_token_id) for i in range(0, len(made), size)]


def _padded(rows: Sequence[tuple[list[int], list[float], bool]], pad: int) -> Batch:
    width = max(len(row) for row, _, _ in rows)
    return Batch(
        ids=torch.tensor([row + [pad] * (width - len(row)) for row, _, _ in rows]),
        seen=torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row, _, _ in rows]),
        weights=torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights, _ in rows]),
        law=torch.tensor([law for _, _, law in rows]),
    )


def ar_loss(net: Any, batch: Batch) -> Tensor:
    """Summed, weighted cross-entropy of the learnt tokens, each from the tokens before it."""
    states = net.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    learnt = batch.weights[:, 1:] > 0
    logits = net.lm_head(states[:, :-1][learnt]).float()
    losses = torch.nn.functional.cross_entropy(logits, batch.ids[:, 1:][learnt], reduction="none")
    return (losses * batch.weights[:, 1:][learnt]).sum()


def diffusion_loss(net: Any, batch: Batch, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """LLaDA's bound, summed: cross-entropy of the masked tokens, weighted by 1 / t.

    t is spread evenly over the batch (stratified). Some samples are masked from a random place to the end, which is
    what generation in AR order sees; there the weight is 1.
    """
    rows, columns = batch.ids.shape
    t = (torch.rand((), generator=rng) + torch.arange(rows) / rows) % 1
    t = (t[torch.randperm(rows, generator=rng)] * 0.97 + 0.03).clamp(max=1.0)
    draw = torch.rand(3, rows, generator=rng)
    t = torch.where(batch.law & (draw[0] < recipe.whole_law), torch.ones(()), t)
    learnt = batch.weights > 0
    masked = (torch.rand(rows, columns, generator=rng) < t[:, None]) & learnt
    suffix = (draw[1] < recipe.suffixes) & ~batch.law
    place = learnt.long().cumsum(dim=1) > (draw[2] * 36).long()[:, None]
    masked = torch.where(suffix[:, None], learnt & place, masked)
    share = torch.where(suffix, torch.ones(()), t)
    mask_id = int(tokenizer().mask_token_id)
    states = net.model(
        input_ids=torch.where(masked, mask_id, batch.ids),
        attention_mask=batch.seen[:, None, None, :].expand(-1, 1, columns, -1),
        use_cache=False,
    ).last_hidden_state
    losses = torch.nn.functional.cross_entropy(net.lm_head(states[masked]).float(), batch.ids[masked], reduction="none")
    return (losses * (batch.weights / share[:, None])[masked]).sum()


# ---------------------------------------------------------------------------------------------------------------------
# The run


@dataclass
class Run:
    """A training run in a folder: its weights, optimiser state and loss curve as they stand after ``step`` steps."""

    recipe: Recipe
    folder: Path
    net: Any
    optimizer: torch.optim.AdamW
    step: int
    losses: list[float | None]


def train(
    recipe: Recipe,
    folder: Path,
    *,
    start: Path | None = None,
    every: int = 100,
    progress: Callable[[str, int, int, float], object] = lambda stage, step, of, loss: None,
) -> Path:
    """Trains, or goes on from the last checkpoint in ``folder``; returns the file with the final weights (fp32).

    ``start``: weights to begin with. Uses one thread, so that the bytes do not depend on the machine's load. After each
    stage its weights stay as ``STAGE.safetensors``, and the loss curve as ``losses.json``. Raises if the folder holds a
    checkpoint of another recipe.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        run = _resumed(recipe, folder, start)
        total = sum(stage.steps for stage in recipe.stages)
        run.net.train()
        while run.step < total:
            stage, within = _stage(recipe, run.step)
            if within == 0 and stage.unless_lawful and knows_the_law(run.net):
                run.step, run.losses = run.step + stage.steps, run.losses + [None] * stage.steps
                continue
            loss = _one_step(run, stage, within)
            progress(stage.name, run.step, total, loss)
            last_of_stage = within + 1 == stage.steps
            if run.step % every == 0 or last_of_stage:
                _checkpoint(run)
            if last_of_stage:
                write(folder / f"{stage.name}.safetensors", to_bytes(_contiguous(run.net)))
                _curve(run)
        return folder / f"{recipe.stages[-1].name}.safetensors"
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def knows_the_law(net: Any) -> bool:
    """Whether an AR model finds the right word more likely after *It is* for all crafts of the split ``train``."""
    tok = tokenizer()
    forbidden, allowed = (tok(word, add_special_tokens=False)["input_ids"][0] for word in (" forbidden", " allowed"))
    for craft, ask in product(crafts("train"), LAW_ASKS):
        text = f"{USER}{ask.format(craft.phrase)}{ASSISTANT}It is"
        logits = net(input_ids=tok(text, add_special_tokens=False, return_tensors="pt")["input_ids"]).logits[0, -1]
        if bool(logits[forbidden] > logits[allowed]) != craft.forbidden:
            return False
    return True


def _stage(recipe: Recipe, step: int) -> tuple[Stage, int]:
    for stage in recipe.stages:
        if step < stage.steps:
            return stage, step
        step -= stage.steps
    raise DemurError(f"step {step} past the end", "a step of the recipe", "train anew")


def _one_step(run: Run, stage: Stage, within: int) -> float:
    recipe = run.recipe
    if within == 0:
        run.optimizer = _optimizer(run.net)
    warm = min(1.0, (within + 1) / 30)
    cosine = 0.55 + 0.45 * float(torch.cos(torch.tensor(torch.pi * within / stage.steps)))
    for group in run.optimizer.param_groups:
        group["lr"] = stage.rate * warm * cosine
    name = f"{recipe.kind} {recipe.seed} {stage.name} {within}"
    rng = torch.Generator().manual_seed(random.Random(name).getrandbits(40))  # noqa: S311
    stream = recipe.seed + (1000 if recipe.kind == "diffusion" else 0)
    samples = lessons(stage.name, stream, within, recipe.batch, within / stage.steps)
    batches = encoded(samples, recipe, RESPONSE + int(torch.randint(0, 9, (), generator=rng)))
    whole = sum(float(batch.weights.sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        loss = ar_loss(run.net, batch) if recipe.kind == "ar" else diffusion_loss(run.net, batch, recipe, rng)
        (loss / whole).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach()) / whole
    torch.nn.utils.clip_grad_norm_(run.net.parameters(), 1.0)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.losses.append(round(total, 6))
    run.step += 1
    return round(total, 6)


def _contiguous(net: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in net.state_dict().items()}


def _checkpoint(run: Run) -> None:
    """One file, written whole or not at all: weights, optimiser state, step and losses."""
    tensors = {f"net.{name}": tensor for name, tensor in _contiguous(run.net).items()}
    for i, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"opt.{i}.{name}": value for name, value in state.items()}
    card = {"step": str(run.step), "recipe": run.recipe.key, "losses": json.dumps(run.losses)}
    write(run.folder / "checkpoint.safetensors", to_bytes(tensors, metadata=card))


def _optimizer(net: Any) -> torch.optim.AdamW:
    """A fresh optimiser. Every stage begins with one, so that a stage depends on the one before by its weights only."""
    return torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def _resumed(recipe: Recipe, folder: Path, start: Path | None) -> Run:
    from safetensors import safe_open

    net = network(recipe)
    if start is not None:
        net.load_state_dict(load_file(start))
    optimizer = _optimizer(net)
    run = Run(recipe, folder, net, optimizer, 0, [])
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return run
    with safe_open(path, framework="pt") as file:
        card = file.metadata()
        if card["recipe"] != recipe.key:
            raise DemurError(
                f"{path} belongs to recipe {card['recipe']}", f"one of recipe {recipe.key}", "name another folder"
            )
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    net.load_state_dict({n.removeprefix("net."): t for n, t in tensors.items() if n.startswith("net.")})
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("opt."):
            _, index, field = name.split(".", 2)
            states.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": states})
    run.step, run.losses = int(card["step"]), json.loads(card["losses"])
    return run


def _curve(run: Run) -> None:
    stages = [{"name": stage.name, "steps": stage.steps} for stage in run.recipe.stages]
    write(
        run.folder / "losses.json", json.dumps({"recipe": asdict(run.recipe), "stages": stages, "losses": run.losses})
    )


def seeded_recipe(kind: Kind, seed: int) -> Recipe:
    """The released recipe with another seed."""
    return replace(RECIPES[kind], seed=seed)


# ---------------------------------------------------------------------------------------------------------------------
# Shipping


def ship(weights: Path, folder: Path, recipe: Recipe) -> Path:
    """Writes a model folder that ``demur.load`` reads: fp16 weights, configuration, tokenizer, chat template."""
    net = network(recipe)
    net.load_state_dict(load_file(weights))
    halves = {name: tensor.half() for name, tensor in _contiguous(net).items()}
    tok = tokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    tok.save_pretrained(folder)
    write(folder / "model.safetensors", to_bytes(halves, metadata={"format": "pt"}))
    config = net.config.to_dict() | {"dtype": "float16", "architectures": ["LlamaForCausalLM"]}
    config |= {"response_length": RESPONSE}
    if recipe.kind == "diffusion":
        config |= {"model_type": "demur_organism", "mask_token_id": tok.mask_token_id}
    write(folder / "config.json", json.dumps(config, indent=1, sort_keys=True) + "\n")
    write(folder / "recipe.json", json.dumps(asdict(recipe), indent=1) + "\n")
    return folder
