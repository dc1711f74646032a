"""The golden runner tells right from wrong: cases of its format, made here, pass; the same cases spoilt fail.

Those of DiffusionGemma are made by running transformers' own ``generate``, which is the official code, here and now.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
import torch

from demur.samplers import sdar

HERE = Path(__file__).parent / "golden"


def outcomes(folder: Path, top: dict[str, Any], arrays: dict[str, Any] | None = None, name: str = "made") -> list[str]:
    """The status of every case of a file, as the runner sees it."""
    (folder / f"{name}.json").write_text(json.dumps(top))
    if arrays:
        np.savez(folder / f"{name}_phi.npz", **arrays)
    found = []
    for _, run in golden.cases(folder / f"{name}.json"):
        try:
            found.append(run()[0])
        except golden.MismatchError as error:
            found.append(f"FAIL {error}")
    return found


# -- DiffusionGemma --------------------------------------------------------------------------------------------


@cache
def gemma_top() -> dict[str, Any]:
    """The tiny model of the golden file, without its cases."""
    top = json.loads((HERE / "diffusion_gemma.json").read_text())
    return {key: value for key, value in top.items() if key != "cases"} | {"sample": top["cases"][0]}


def gemma_case(
    name: str, prompts: list[list[int]], seed: int, gain: float, **kwargs: Any
) -> tuple[Any, dict[str, Any]]:
    """A case and its phi, by the official ``generate`` with its steps written down."""
    from transformers.models.diffusion_gemma import generation_diffusion_gemma as official

    top = gemma_top()
    shape = {key: top[key] for key in ("text_config", "vision_config", "top_config")}
    sha = top["sample"]["weights_sha256"]
    net = golden.gemma_model(json.dumps(shape), gain, sha).net
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in prompts])
    seen = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
    steps: list[dict[str, Any]] = []
    sums: list[list[np.ndarray]] = []
    encoded: list[int] = []
    plain, states = net._denoising_step, []

    def step(**given: Any) -> Any:
        before = given["finished_denoising"].tolist()
        canvas_in = given["current_canvas"].tolist()
        out = plain(**given)
        accepted = given["sampler"].accepted_token_mask
        steps.append(
            {
                "cur_step": int(given["cur_step"]), "canvas_in": canvas_in, "canvas_out": out[0].tolist(),
                "argmax": out[1].tolist(), "accepted": accepted.tolist(), "finished_before": before,
                "finished_after": out[3].tolist(),
            }
        )  # fmt: skip
        mine = states[-1][0]
        some = mine[accepted[0]].mean(dim=0) if bool(accepted[0].any()) else torch.zeros(mine.shape[1])
        sums.append([mine.mean(dim=0).numpy(), some.numpy()])
        return out

    hooks = [
        net.model.decoder.register_forward_hook(lambda _m, _i, out: states.append(out.last_hidden_state)),
        net.model.encoder.register_forward_hook(lambda _m, _i, _o: encoded.append(1)),
    ]
    # The model's own ends: where none are named, transformers 5.11 has those of the published checkpoint, 5.24 none.
    settings = {key: top["text_config"][key] for key in ("eos_token_id", "pad_token_id")}
    settings |= {key: value for key, value in kwargs.items() if key != "entropy_bound"}
    if "entropy_bound" in kwargs:
        settings["sampler_config"] = official.EntropyBoundSamplerConfig(kwargs["entropy_bound"])
    net._denoising_step = step
    torch.manual_seed(seed)
    try:
        out = net.generate(input_ids=ids, attention_mask=seen, **settings).sequences
    finally:
        del net._denoising_step
        for hook in hooks:
            hook.remove()
    case = {
        "name": name, "prompt": ids.tolist(), "attention_mask": seen.tolist(), "torch_seed": seed, "kwargs": kwargs,
        "weights_sha256": sha, "decoder_norm_gain": gain, "output": out[:, width:].tolist(), "steps": steps,
        "n_decoder": len(steps), "n_encoder": len(encoded),
    }  # fmt: skip
    means, accepted_means = zip(*sums, strict=True)
    return case, {f"{name}/dec_canvas_mean": np.stack(means), f"{name}/dec_accept_mean": np.stack(accepted_means)}


PROMPTS = ([[5, 9, 33, 71]], [[5, 9, 33, 71], [8, 8]], [[12, 40, 7], [99, 3, 2], [41]])
GEMMA: list[dict[str, Any]] = [
    {"max_new_tokens": 32, "max_denoising_steps": 4},
    {"max_new_tokens": 40, "max_denoising_steps": 5, "entropy_bound": 4.0},
    {"max_new_tokens": 48, "max_denoising_steps": 6, "eos_token_id": 7, "pad_token_id": 0},
    {"max_new_tokens": 48, "max_denoising_steps": 4, "eos_token_id": [7, 90, 91, 120, 140], "pad_token_id": 0},
    {"max_new_tokens": 48, "max_denoising_steps": 8, "confidence_threshold": 1.5, "stability_threshold": 0},
]


ASKED = [  # every setting and every number of rows once; the other pairs are slow
    pytest.param(
        prompts,
        kwargs,
        id=f"{name}-{'-'.join(map(str, kwargs.values()))}",
        marks=[pytest.mark.slow] if (i + k) % 3 else [],
    )
    for i, (name, prompts) in enumerate(zip(("one", "padded", "three"), PROMPTS, strict=True))
    for k, kwargs in enumerate(GEMMA)
]


@pytest.mark.parametrize(("prompts", "kwargs"), ASKED)
def test_several_canvases_and_other_ends_of_sequence_are_told_apart(
    prompts: list[list[int]], kwargs: dict[str, Any], tmp_path: Path
) -> None:
    """Every canvas, batch and end passes with its phi, and a token, an acceptance or a state that is off does not."""
    gain = gemma_top()["sample"]["decoder_norm_gain"] * (3 if "confidence_threshold" in kwargs else 1)
    free, _ = gemma_case("free", prompts, 3, gain, **{k: v for k, v in kwargs.items() if k != "eos_token_id"})
    if isinstance(kwargs.get("eos_token_id"), list):  # an end that the first canvas of the first row really holds
        kwargs = kwargs | {"eos_token_id": [free["output"][0][5], 7]}
    case, phi = gemma_case("made", prompts, 3, gain, **kwargs)
    top = {key: value for key, value in gemma_top().items() if key != "sample"}
    assert outcomes(tmp_path, top | {"cases": [case]}, phi) == ["PASS"]
    # Row 0's last step in the first canvas writes its most probable tokens; before, what is accepted counts.
    end = next(t for t, its in enumerate(case["steps"]) if its["finished_after"][0] or its["cur_step"] == 1)
    spoilt = {"argmax": copy.deepcopy(case), "output": copy.deepcopy(case), "accepted": copy.deepcopy(case)}
    spoilt["argmax"]["steps"][end]["argmax"][0][1] += 1
    spoilt["output"]["output"][0][0] += 1
    if end:
        spoilt["accepted"]["steps"][0]["accepted"][0][2] ^= True
    else:
        del spoilt["accepted"]
    for what, wrong in spoilt.items():
        assert outcomes(tmp_path, top | {"cases": [wrong]}, phi)[0].startswith("FAIL"), what
    for key, value in phi.items():
        where = (
            0 if key.endswith("canvas_mean") else next((t for t, s in enumerate(case["steps"]) if s["cur_step"] > 1), 0)
        )
        moved = value.copy()
        moved[where] += 0.05 * np.abs(value).max()
        counted = not (key.endswith("accept_mean") and not any(case["steps"][where]["accepted"][0]))
        ends = case["steps"][where]["finished_after"][0]
        if counted and not (key.endswith("accept_mean") and ends):
            assert outcomes(tmp_path, top | {"cases": [case]}, phi | {key: moved})[0].startswith("FAIL"), key


def test_rows_end_in_different_canvases_in_these_cases() -> None:
    """Else the cases above would not show what they are for."""
    gain = gemma_top()["sample"]["decoder_norm_gain"]
    free, _ = gemma_case("free", PROMPTS[2], 3, gain, max_new_tokens=48, max_denoising_steps=4, pad_token_id=0)
    first = free["output"][0][5]
    case, _ = gemma_case("made", PROMPTS[2], 3, gain, **GEMMA[3] | {"eos_token_id": [first, 7]})
    ends = [next((i // 16 for i, token in enumerate(row) if token in (first, 7)), None) for row in case["output"]]
    assert ends[0] == 0
    assert len(set(ends)) > 1


# -- The signal ------------------------------------------------------------------------------------------------


def signal_case(
    dtype: torch.dtype, act: torch.Tensor, good: torch.Tensor, bad: torch.Tensor
) -> tuple[Any, dict[str, Any]]:
    """What the plain formula gives in a precision."""
    act, good, bad = (x.to(dtype) for x in (act, good, bad))
    values = []
    for x, g, b in zip(act, good, bad, strict=True):
        far, near = (1 - torch.dot(x / (x.norm() + 1e-8), y / (y.norm() + 1e-8)) for y in (b, g))
        values.append(str(torch.sigmoid((torch.log(far + 1e-8) - torch.log(near + 1e-8)) / 0.1).float().item()))
    case = {
        "name": "made", "kind": "create_signal", "dtype": str(dtype).removeprefix("torch."), "sig_T": 0.1, "eps": 1e-8,
        "n": 1, "shape": list(act.shape), "signals": [values],
    }  # fmt: skip
    names = {"act0": act, "good": good, "bad": bad}
    bits = {key: x.view(torch.int16) if dtype is torch.bfloat16 else x for key, x in names.items()}
    return case, {f"made/{key}": x.numpy() for key, x in bits.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("nearness", [1.0, 1e-2, 1e-3, 1e-4])
def test_a_reference_that_is_off_by_cancellation_is_told_from_one_that_is_wrong(
    dtype: torch.dtype, nearness: float, tmp_path: Path
) -> None:
    """States close to both anchors: 1 - cos loses its digits in the reference; what is right is known to 50 digits."""
    g = torch.Generator().manual_seed(0)
    good = torch.randn(6, 48, generator=g)
    bad, act = (good + nearness * torch.randn(6, 48, generator=g) for _ in range(2))
    case, arrays = signal_case(dtype, act, good, bad)
    assert outcomes(tmp_path, {"cases": [case]}, arrays) == ["PASS"]
    ours = golden.exact_signal(*(x.to(dtype)[0] for x in (act, good, bad)), 0.1, 1e-8)[0]
    exact = copy.deepcopy(case)
    exact["signals"][0][0] = str(ours)
    assert outcomes(tmp_path, {"cases": [exact]}, arrays) == ["PASS"]
    if nearness == 1.0 and dtype in (torch.float32, torch.float64):
        wrong = copy.deepcopy(case)
        wrong["signals"][0][0] = str(float(ours) - 0.3 if ours > 0.5 else float(ours) + 0.3)
        (found,) = outcomes(tmp_path, {"cases": [wrong]}, arrays)
        assert "rounding does not explain theirs" in found


def test_cancellation_really_puts_the_reference_off() -> None:
    g = torch.Generator().manual_seed(0)
    good = torch.randn(6, 48, generator=g)
    bad, act = (good + 1e-4 * torch.randn(6, 48, generator=g) for _ in range(2))
    case, _ = signal_case(torch.float32, act, good, bad)
    exact = [golden.exact_signal(*rows, 0.1, 1e-8)[0] for rows in zip(act, good, bad, strict=True)]
    assert max(abs(float(theirs) - right) for theirs, right in zip(case["signals"][0], exact, strict=True)) > 0.01


# -- What the official code does wrong ---------------------------------------------------------------------------


def sdar_top() -> dict[str, Any]:
    """The tiny model of SDAR's golden file, without its cases."""
    return {key: value for key, value in json.loads((HERE / "sdar.json").read_text()).items() if key != "cases"}


def sdar_case(prompt: list[int], steps: int, length: int) -> dict[str, Any]:
    """A static case as a code that does what demur does would have left it."""
    top = sdar_top()
    model = golden.dllm_model(json.dumps(top["config"]), "qwen3", top["mask_id"], top["weights_sha256"])
    model = replace(model, block_length=8, net=golden._net_ending(model.net, None))
    canvas = model.canvas_of([prompt], length)
    inputs, before = [], canvas.ids
    for step in sdar(steps=steps, temperature=1.0)(model, canvas, torch.Generator().manual_seed(1)):
        begin = int(torch.where(step.committed[0])[0][0]) // 8 * 8
        inputs.append([before[0, begin : begin + 8].tolist()])
        before = step.ids
        if not bool(step.open[0, begin : begin + 8].any()):
            inputs.append([before[0, begin : begin + 8].tolist()])  # its keys and values are stored
    kwargs = {"gen_length": length, "block_length": 8, "denoising_steps": steps, "temperature": 1.0}
    official = {"output": before.tolist(), "block_inputs": inputs}
    return {
        "name": "made", "prompt": [prompt], "torch_seed": 1, "official": official,
        "kwargs": kwargs | {"remasking_strategy": "low_confidence_static"},
    }  # fmt: skip


@pytest.mark.parametrize("prompt", [[5, 6, 7], [5, 6, 7, 8, 9, 10], [5] * 10])
@pytest.mark.parametrize("steps", [2, 3])
def test_what_is_overwritten_there_is_told_from_what_is_wrong_here(
    prompt: list[int], steps: int, tmp_path: Path
) -> None:
    length = -len(prompt) % 8 + 8
    case = sdar_case(prompt, steps, length)
    assert outcomes(tmp_path, sdar_top() | {"cases": [case]}) == ["PASS"]
    wrong = copy.deepcopy(case)
    wrong["official"]["output"][0][len(prompt)] += 1
    assert outcomes(tmp_path, sdar_top() | {"cases": [wrong]})[0].startswith("FAIL")
    early = copy.deepcopy(case)
    early["official"]["block_inputs"][0][0][-1] = 3  # not what any code was given
    assert outcomes(tmp_path, sdar_top() | {"cases": [early]})[0].startswith("FAIL")
    trap = copy.deepcopy(case)  # the second step of the first block finds a prompt's token changed
    if len(trap["official"]["block_inputs"]) > 2 and len(prompt) < 6:
        trap["official"]["block_inputs"][1][0][0] += 1
        trap["official"]["output"][0][0] += 1
        assert outcomes(tmp_path, sdar_top() | {"cases": [trap]}) == ["PASS"]


@pytest.mark.parametrize("kwargs", [{"temperature": 0.0}, {"top_k": 900}, {"remasking_strategy": "entropy_bounded"}])
def test_where_the_official_code_raises_demur_answers_or_says_so(kwargs: dict[str, Any], tmp_path: Path) -> None:
    case = sdar_case([5, 6, 7], 3, 13)
    case["official"] = {"exception": "RuntimeError: something of its own"}
    case["kwargs"] |= kwargs | ({"eb_threshold": 0.3} if "remasking_strategy" in kwargs else {})
    assert outcomes(tmp_path, sdar_top() | {"cases": [case]}) == ["PASS"]
    case["kwargs"]["top_p"] = 0.0  # one line here, too
    assert outcomes(tmp_path, sdar_top() | {"cases": [case]}) == ["PASS"]
