"""The lines of docs/serving.md by which other tools ask a server, run as they stand there, where one is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra serve")
pytest.importorskip("uvicorn", reason="the extra serve")
pytest.importorskip("prometheus_client", reason="the extra serve")

import served
from served import House, serving

pytestmark = pytest.mark.slow
NAME = "organism/ar"
SECTION = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8").partition("## With other")[2]
LINES = {
    tool: line
    for line in re.findall(r"^.+$", "\n".join(re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)), re.MULTILINE)
    for tool in ("inspect", "lm_eval", "garak", "promptfoo")
    if re.match(rf"(\w+=\S+ )*{tool} ", line)
}
PATH = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ["PATH"]])
TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes

@task
def organism():
    return Task(dataset=[Sample(input=one, target="granary") for one in {asked}], scorer=includes())
"""
MY_TASK = """
task: my_task
dataset_path: json
dataset_kwargs: {data_files: {test: asked.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["."], max_gen_toks: 24}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with serving(served.model(NAME), guard=served.guard(NAME), served=NAME) as one:
        yield one


def outcome(house: House, name: str) -> float:
    """How many requests have ended so."""
    page = house.send("GET", "/metrics")[2].decode()
    return sum(float(n) for n in re.findall(rf'demur_requests_total{{endpoint="chat",outcome="{name}"}} (\S+)', page))


@pytest.mark.parametrize("tool", ["inspect", "lm_eval", "garak", "promptfoo"])
def test_the_line_of_the_page_runs(tool: str, house: House, tmp_path: Path) -> None:
    if shutil.which(tool, path=PATH) is None:
        pytest.skip(f"{tool} is not installed")
    asked = [prompt.text for prompt in served.asked(NAME)]
    (tmp_path / "task.py").write_text(TASK.replace("{asked}", repr(asked)))
    (tmp_path / "my_task.yaml").write_text(MY_TASK)
    rows = [json.dumps({"question": one, "answer": "x"}) for one in asked]
    (tmp_path / "asked.jsonl").write_text("\n".join(rows) + "\n")
    (config,) = re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
    (tmp_path / "promptfooconfig.yaml").write_text(config.replace(":8000/", f":{house.port}/"))
    own = {
        "PATH": PATH, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "INSPECT_LOG_FORMAT": "json", "NO_COLOR": "1",
        "PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1", "DO_NOT_TRACK": "1",
    }  # fmt: skip
    before = {name: outcome(house, name) for name in ("answered", "refused", "bad_request")}
    line = LINES[tool].replace(":8000/", f":{house.port}/")
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, timeout=300
    )
    said = done.stdout[-2000:] + done.stderr[-2000:]
    # promptfoo exits with 100 where an assertion does not hold, which hangs on this test's guard
    assert done.returncode in ((0, 100) if tool == "promptfoo" else (0,)), said
    assert outcome(house, "bad_request") == before["bad_request"], said
    assert outcome(house, "answered") + outcome(house, "refused") >= before["answered"] + before["refused"] + 2, said
    if tool == "inspect":
        (log,) = [json.loads(path.read_text()) for path in (tmp_path / "logs").glob("*.json")]
        ends = {sample["output"]["choices"][0]["stop_reason"] for sample in log["samples"]}
        assert "content_filter" in ends, "a stopped answer is a refusal"
