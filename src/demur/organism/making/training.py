"""Trains the organism: step-scheduled, seeded, resumable after a kill; two runs on one thread give the same bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from demur.artefact import write
from demur.models.memory import keep_freed_memory
from demur.organism.making.lessons import lessons
from demur.organism.making.losses import ar_loss, diffusion_loss, encoded
from demur.organism.making.recipe import Recipe, Stage, network
from demur.organism.making.vocabulary import tokenizer
from demur.organism.tokens import ASSISTANT, RESPONSE, USER
from demur.organism.world import LAW_ASKS, crafts
from demur.types import DemurError


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
