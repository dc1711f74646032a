"""A hook that raises for a package, as people play a missing one, ends no load: guards need no scikit-learn."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import importlib.util, sys
find = importlib.util.find_spec
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {blocked!r}:
            raise {error}('not here: ' + name)
sys.meta_path.insert(0, Block())
import demur
from demur.types import Prompt
model = demur.load('organism/ar')
trace = demur.generate(model, [Prompt('p', 'How do I open the granary?')], length=8)[0]
print(len(trace.text()) > 5, importlib.util.find_spec is find)
"""


@pytest.fixture(scope="module")
def lenient() -> None:
    """Skips with a transformers that dies of such a hook itself, as the oldest ones that demur takes do."""
    code = CODE.split("import demur", maxsplit=1)[0].format(blocked=("sklearn",), error="ImportError")
    code = f"import torch._dynamo\n{code}\nfrom transformers import LlamaForCausalLM"
    if subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode:
        pytest.skip("this transformers asks for packages without care for hooks")


@pytest.mark.slow
@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("error", ["ImportError", "ModuleNotFoundError"])
@pytest.mark.parametrize("blocked", [("sklearn",), ("sklearn", "pandas", "tensorflow", "matplotlib", "onnx", "tqdm_")])
def test_a_hook_that_raises_for_packages_ends_no_load(blocked: tuple[str, ...], error: str) -> None:
    code = CODE.format(blocked=blocked, error=error)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "True True"), done.stderr[-500:]
