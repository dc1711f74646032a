"""A checkpoint of LLaDA-8B's real shape with random weights: what loading takes, and whether a step computes the model.

    python benchmarks/large_checkpoint.py FOLDER [--layers 32] [--keep] [--threads 2] [--out out/large.json]

It writes the checkpoint itself (bf16, a shard a layer, 16 GB), in FOLDER, and deletes it in the end. Then, in a process
of its own, `demur.load` reads it and one step of a canvas of 128 places runs. A second process computes the same step
in a plain loop over the layers, which reads the files of one layer after the other and knows nothing of demur. States
and tokens are compared. Peak memory is what the kernel says of the whole process (VmHWM), Python and torch included.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention, silu

CONFIG = {
    "model_type": "llada", "block_type": "llama", "layer_norm_type": "rms", "alibi": False, "rope": True,
    "activation_type": "silu", "d_model": 4096, "n_heads": 32, "n_kv_heads": 32, "n_layers": 32,
    "mlp_hidden_size": 12288, "mlp_ratio": 4, "embedding_size": 126464, "vocab_size": 126464,
    "max_sequence_length": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "rope_full_precision": True,
    "weight_tying": False, "mask_token_id": 126336, "eos_token_id": 126081, "pad_token_id": 126081,
}  # fmt: skip
"""What the public config.json of LLaDA-8B-Instruct says."""
PROMPT, LENGTH, STEPS = list(range(1000, 1032)), 128, 32
ALLOWED = 1.5
"""GiB beside the weights that loading may take at its peak."""


def main() -> int:
    options = _options()
    torch.set_num_threads(options.threads)
    if options.part:
        return {"demur": _demur, "plain": _plain}[options.part](options.folder)
    begun = time.perf_counter()
    size = _write(options.folder, options.layers)
    say(f"wrote {size / 2**30:.2f} GiB in {time.perf_counter() - begun:.0f} s")
    try:
        found = {"layers": options.layers, "weights_gib": round(size / 2**30, 3)}
        found |= json.loads(_own_process(options, "demur")) | json.loads(_own_process(options, "plain"))
        found |= _compared(options.folder)
    finally:
        if not options.keep:
            shutil.rmtree(options.folder)
    found["loading_beside_weights_gib"] = round(found["peak_gib_loading"] - found["weights_gib"], 3)
    print(json.dumps(found, indent=1))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if found["tokens_equal"] and found["loading_beside_weights_gib"] <= ALLOWED else 1


def _write(folder: Path, layers: int) -> int:
    """The checkpoint, a shard at a time, so that no more than a shard is in memory; its size in bytes."""
    folder.mkdir(parents=True)
    config = CONFIG | {"n_layers": layers}
    (folder / "config.json").write_text(json.dumps(config))
    d, inner, tokens = config["d_model"], config["mlp_hidden_size"], config["embedding_size"]
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)

    def parts() -> Any:
        yield {"model.transformer.wte.weight": drawn(tokens, d)}
        for i in range(layers):
            block = f"model.transformer.blocks.{i}."
            square = {f"{block}{name}.weight": drawn(d, d) for name in ("q_proj", "k_proj", "v_proj", "attn_out")}
            gates = {f"{block}{name}.weight": drawn(inner, d) for name in ("ff_proj", "up_proj")}
            norms = {f"{block}{name}.weight": 1 + drawn(d) for name in ("attn_norm", "ff_norm")}
            yield square | gates | norms | {f"{block}ff_out.weight": drawn(d, inner)}
        yield {"model.transformer.ff_out.weight": drawn(tokens, d), "model.transformer.ln_f.weight": 1 + drawn(d)}

    where: dict[str, str] = {}
    size = 0
    for number, tensors in enumerate(parts(), start=1):
        file = f"model-{number:05d}-of-{layers + 2:05d}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, file)
        size += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return size


def _own_process(options: argparse.Namespace, part: str) -> str:
    say(f"{part} ...")
    command = [sys.executable, __file__, str(options.folder), "--part", part, "--threads", str(options.threads)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _peak() -> float:
    """The most memory that this process has held, in GiB: its own pages and those of files that it has mapped."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def _demur(folder: Path) -> int:
    """Loads, takes one step, and leaves states, guesses and commits beside the checkpoint."""
    import demur
    from demur.samplers import MaskedDiffusion, seeded

    start, begun = _peak(), time.perf_counter()
    model: Any = demur.load(folder, dtype="bfloat16", device="cpu")
    loaded, took = _peak(), time.perf_counter() - begun
    canvas = model.canvas_of([PROMPT], LENGTH)
    begun = time.perf_counter()
    step = next(iter(MaskedDiffusion(steps=STEPS)(model.watching("last"), canvas, seeded(0, 1))))
    seconds = time.perf_counter() - begun
    kept = {"states": step.hidden["last"][0].contiguous(), "committed": step.committed[0].to(torch.uint8)}
    save_file(kept | {"tokens": step.predictions[0]}, folder / "demur.step")
    print(json.dumps({
        "peak_gib_before": round(start, 3), "peak_gib_loading": round(loaded, 3), "peak_gib_step": round(_peak(), 3),
        "seconds_loading": round(took, 1), "seconds_step": round(seconds, 1),
    }))  # fmt: skip
    return 0


@torch.no_grad()
def _plain(folder: Path) -> int:
    """The same step, layer by layer, from the files: a Llama with full attention and rotation in fp32."""
    config = json.loads((folder / "config.json").read_text())
    where = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]

    def read(name: str) -> Tensor:
        key = f"model.transformer.{name}.weight"
        with safe_open(folder / where[key], framework="pt") as file:
            return file.get_tensor(key)

    def norm(states: Tensor, name: str) -> Tensor:
        wide = states.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"])
        return read(name) * wide.to(states.dtype)

    ids = torch.tensor([*PROMPT, *[config["mask_token_id"]] * LENGTH])
    x: Float[Tensor, "1 n d"] = read("wte")[ids][None]
    n, heads = len(ids), config["n_heads"]
    size = config["d_model"] // heads
    frequencies = 1.0 / config["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.int64).float() / size)
    angles = torch.outer(torch.arange(n).float(), frequencies)
    cos, sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()
    everyone = torch.zeros((1, 1, n, n), dtype=x.dtype)

    def turned(states: Tensor) -> Tensor:
        wide = states.float()
        first, second = wide.chunk(2, dim=-1)
        return (wide * cos + torch.cat([-second, first], dim=-1) * sin).to(states.dtype)

    for i in range(config["n_layers"]):
        block = f"blocks.{i}."
        y = norm(x, f"{block}attn_norm")
        q, k, v = (
            linear(y, read(f"{block}{name}_proj")).view(1, n, heads, size).transpose(1, 2) for name in ("q", "k", "v")
        )
        attended = scaled_dot_product_attention(turned(q), turned(k), v, attn_mask=everyone)
        x = x + linear(attended.transpose(1, 2).reshape(1, n, -1), read(f"{block}attn_out"))
        y = norm(x, f"{block}ff_norm")
        x = x + linear(
            silu(linear(y, read(f"{block}ff_proj"))) * linear(y, read(f"{block}up_proj")), read(f"{block}ff_out")
        )
    states = norm(x, "ln_f")[0]
    logits = linear(states[len(PROMPT) :], read("ff_out")).float()
    sure, guess = logits.softmax(dim=-1).max(dim=-1)
    committed = torch.zeros(n, dtype=torch.uint8)
    committed[len(PROMPT) + sure.topk(LENGTH // STEPS).indices] = 1
    tokens = torch.cat([torch.tensor(PROMPT), guess])
    save_file({"states": states, "tokens": tokens, "committed": committed}, folder / "plain.step")
    print(json.dumps({"peak_gib_plain": round(_peak(), 3)}))
    return 0


def _compared(folder: Path) -> dict[str, Any]:
    ours, plain = ({}, {})
    for name, kept in (("demur", ours), ("plain", plain)):
        with safe_open(folder / f"{name}.step", framework="pt") as file:
            kept.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    columns = len(ours["states"])  # demur leaves out states that nobody reads
    theirs = plain["states"][-columns:]
    off = (ours["states"].float() - theirs.float()).abs().max() / theirs.float().abs().max()
    guesses = [kept["tokens"][len(PROMPT) :] for kept in (ours, plain)]
    return {
        "columns_compared": columns,
        "states_equal": torch.equal(ours["states"], theirs),
        "states_off_by": float(off),
        "guesses_equal": f"{int((guesses[0] == guesses[1]).sum())} of {LENGTH}",
        "commits_equal": torch.equal(ours["committed"], plain["committed"]),
        "tokens_equal": torch.equal(*guesses) and torch.equal(ours["committed"], plain["committed"]),
    }


def say(line: str) -> None:
    """Progress, apart from the result."""
    print(line, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the checkpoint goes; must not be there yet")
    parser.add_argument("--layers", type=int, default=32, help="fewer, for a smaller machine")
    parser.add_argument("--keep", action="store_true", help="do not delete the checkpoint")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="the result as JSON")
    parser.add_argument("--part", choices=["demur", "plain"], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
