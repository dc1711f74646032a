"""The guard inside vLLM beside ``Watch``: the same tokens, the same sigma, the same steps. Needs vLLM: `make test-vllm`.

Each engine has a process of its own (tests/engines/inside.py), and each is loaded once.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm.config") is None if importlib.util.find_spec("vllm") else True,
                       reason="vLLM is not installed: make test-vllm"),
]  # fmt: skip
SCRIPT = Path(__file__).with_name("inside.py")
CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "1",
}


def environment() -> dict[str, str]:
    own = {**os.environ, **CPU}
    openmp = Path(sys.prefix) / "lib" / "libiomp5.so"
    return own | ({"LD_PRELOAD": str(openmp)} if openmp.is_file() else {})


def run(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], env=environment(), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("inside")
    run("reference", str(made))
    return made


@pytest.fixture(scope="session")
def known(folder: Path) -> Any:
    return json.loads((folder / "reference.json").read_text())


def served(folder: Path, name: str, **settings: Any) -> Any:
    out = folder / f"{name}.json"
    run("engine", str(folder), json.dumps({"out": str(out), **settings}))
    return json.loads(out.read_text())


def near(mine: Any, its: Any, within: float = 1e-5) -> bool:
    return all(abs(a - b) <= within for a, b in zip(mine, its, strict=True))


def expected_stop(known: Any, guard: str, i: int) -> int | None:
    """What ``Watch`` did; but the state of an answer's very last token is never computed in an engine."""
    told = known["guards"][guard]
    stop = told["stops"][i]
    return None if stop == known["steps"][i] and told["pool"] == "generated" else stop


def compare(came: Any, known: Any) -> dict[str, int]:
    """Asserts that every answer is that of ``generate``, and sigma and flags are those of ``Watch``."""
    count = {"tokens": 0, "sigma": 0, "flagged": 0, "aborted": 0}
    for i, (answer, verdict, guard) in enumerate(zip(came["answers"], came["verdicts"], came["guards"], strict=True)):
        if i in came["aborted"]:
            count["aborted"] += 1
            continue
        acts, told = verdict["mode"] != "watch", known["guards"][guard]
        length, stop = known["steps"][i], expected_stop(known, guard, i)
        assert verdict["watched"], verdict["why"]
        assert (verdict["step"], verdict["flagged"]) == (stop, stop is not None), (i, guard)
        steps = length - (told["pool"] == "generated")
        if acts and stop is not None:
            steps = stop
            kept = stop if told["pool"] == "generated" else stop - 1
            assert answer[:kept] == known["answers"][i][:kept]
            assert verdict["acted"]
        else:
            assert answer == known["answers"][i][:length]
            assert not verdict["acted"]
            count["tokens"] += 1
        assert verdict["steps"] == steps, (i, guard)
        own = min(steps, len(told["sigma"][i]))
        assert near(verdict["sigma"], told["sigma"][i][:own]), (i, guard)
        behind = steps - len(told["sigma"][i])
        if guard == "whole" and behind > 0:
            assert near([verdict["last"]], [told["beyond"][i][behind - 1]])
        count["sigma"] += 1
        count["flagged"] += stop is not None
    return count


def test_sigma_and_steps_are_those_of_watch_in_batches_that_come_and_go(folder: Path, known: Any) -> None:
    came = served(folder, "plain", llm={"async_scheduling": False})
    assert compare(came, known)["sigma"] == len(known["ids"]) == 100
    counters = came["status"]["counters"]
    assert sum(c["let pass"] + c["flagged"] for c in counters.values()) + sum(
        c["running or just over"] for c in counters.values()
    ) == len(known["ids"])


def test_under_asynchronous_scheduling_no_step_behind_the_end_is_looked_at(folder: Path, known: Any) -> None:
    asks = ["demur.engines.vllm.processor:ShowsTokens"]
    came = served(folder, "async", llm={"async_scheduling": True, "logits_processors": asks})
    assert came["async"]
    compare(came, known)


def test_asynchronous_scheduling_that_hides_the_tokens_is_refused_at_the_start(folder: Path) -> None:
    with pytest.raises(AssertionError, match="asynchronous scheduling in the V1 model runner"):
        served(folder, "hidden", llm={"async_scheduling": True}, n=1)


def test_prompts_in_pieces_kept_prefixes_and_a_cache_that_is_too_small(folder: Path, known: Any) -> None:
    small = {
        "async_scheduling": False, "enable_chunked_prefill": True, "max_num_batched_tokens": 16, "max_num_seqs": 16,
        "enable_prefix_caching": True, "block_size": 16, "num_gpu_blocks_override": 40,
    }  # fmt: skip
    compare(served(folder, "small", llm=small), known)


def test_aborted_requests_leave_their_neighbours_alone(folder: Path, known: Any) -> None:
    count = compare(served(folder, "abort", llm={"async_scheduling": False}, abort=True), known)
    assert count["aborted"] > 5


@pytest.mark.parametrize("mode", ["stop", "refuse"])
def test_a_flag_ends_the_answer(folder: Path, known: Any, mode: str) -> None:
    from demur.engines.vllm.options import REFUSAL

    came = served(folder, mode, llm={"async_scheduling": False}, mode=mode)
    assert compare(came, known)["flagged"] > 20
    from demur import load

    words = load("organism/ar").tokenizer(REFUSAL, add_special_tokens=False)["input_ids"] if mode == "refuse" else []
    for i, (answer, verdict, guard) in enumerate(zip(came["answers"], came["verdicts"], came["guards"], strict=True)):
        if verdict["acted"]:
            kept = verdict["step"] - (known["guards"][guard]["pool"] == "producing")
            whole = [*known["answers"][i][:kept], *words, known["eos"][0]]
            assert answer == whole[: len(answer)]
            assert len(answer) == min(len(whole), 40)


def test_compiled_and_in_a_process_of_its_own(folder: Path, known: Any) -> None:
    came = served(folder, "compiled", llm={"async_scheduling": False, "enforce_eager": False})
    compare(came, known)


def test_an_engine_of_another_dtype_is_refused_in_one_line(folder: Path) -> None:
    with pytest.raises(AssertionError, match="dtype: 'float32' against 'bfloat16'"):
        served(folder, "bf16", llm={"dtype": "bfloat16", "async_scheduling": False}, n=1)


def test_an_unchecked_guard_says_so_in_every_verdict(folder: Path) -> None:
    llm = {"dtype": "bfloat16", "async_scheduling": False}
    came = served(folder, "unchecked", llm=llm, n=12, env={"DEMUR_UNCHECKED": "1"})
    assert all("unchecked" in verdict["notes"][0] for verdict in came["verdicts"])
