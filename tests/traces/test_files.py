"""Files of traces: the format is a trace's own, and what version 0.1.0 wrote is read as it was meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
from safetensors import safe_open

from demur import artefact
from demur.guards import Guard
from demur.signals import Anchors
from demur.traces import Trace, generate
from demur.types import DemurError

OLDER = Path(__file__).parent.parent / "older"
"""Traces of the organism by version 0.1.0: a masked generation, an autoregressive one and the replay of that."""


def _inside(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["demur"])  # noqa: SIM118


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("diffusion", "To open the granary, Sorry need key"),
        ("ar", "To open the granary, you need key"),
        ("replayed", "To open the granary, you need key"),
    ],
)
def test_a_trace_of_version_0_1_says_what_it_said(kind: str, says: str, tmp_path: Path) -> None:
    path = OLDER / f"trace-0.1.0-{kind}.safetensors"
    arrays, card = _inside(path)
    assert card["format"] == 1
    trace = Trace.load(path)
    for name in ("start", "open", "commits", "predictions", "confidence"):
        ours = getattr(trace, name)
        assert (ours.dtype, ours.shape, ours.tobytes()) == (
            arrays[name].dtype,
            arrays[name].shape,
            arrays[name].tobytes(),
        ), name
    np.testing.assert_array_equal(trace.phi["last", "generated"], arrays["phi/last/generated"])
    assert (trace.text(), trace.stop, trace.steps) == (says, card["stop"], len(arrays["predictions"]))
    new = trace.save(tmp_path / "new")
    again = Trace.load(new)
    assert _inside(new)[1]["format"] == 2
    assert again.save(tmp_path / "again").read_bytes() == new.read_bytes()
    small.assert_same(again, trace, tolerance=0.0)


def test_a_file_holds_no_array_of_steps_times_places(tmp_path: Path, llama: Any) -> None:
    (trace,) = generate(llama, small.PROMPTS[:1], length=40)
    arrays, card = _inside(trace.save(tmp_path / "t"))
    assert card["format"] == 2
    assert max(array.size for name, array in arrays.items() if not name.startswith("phi/")) <= 3 * 40 + len(trace.start)


@pytest.mark.parametrize("format_", [0, 3, None, "2"])
def test_a_file_of_another_format_is_one_line(format_: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small.said("Yes").save(tmp_path / "whole")
    arrays, card = artefact.load(path, "trace")
    with monkeypatch.context() as patch:
        patch.setattr(artefact, "FORMATS", {"trace": (format_,)})
        artefact.save(tmp_path / "other", "trace", arrays, card)
    with pytest.raises(DemurError, match="format 1 or 2") as caught:
        Trace.load(tmp_path / "other")
    small.one_line(caught.value)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"guesses/places": np.array([7], np.int32)}, "beyond the 1"),
        ({"guesses/begins": np.array([0, 2], np.int32)}, "follow each other"),
        ({"guesses/tokens": None}, "lacks 'tokens'"),
        ({"predictions": np.zeros((1, 1), np.int32)}, "lacks 'confidence'"),
    ],
)
def test_a_file_whose_guesses_fit_nothing_is_one_line(changed: dict[str, Any], says: str, tmp_path: Path) -> None:
    arrays, card = artefact.load(small.said("Yes").save(tmp_path / "whole"), "trace")
    kept = {name: array for name, array in (arrays | changed).items() if array is not None}
    forged = artefact.save(tmp_path / "forged", "trace", kept, card)
    with pytest.raises(DemurError, match=says) as caught:
        Trace.load(forged)
    small.one_line(caught.value)


def test_the_module_s_name_of_version_0_1_0_still_leads_here() -> None:
    import demur.trace
    import demur.traces

    assert demur.trace.generate is demur.traces.generate
    assert demur.trace.Trace is demur.traces.Trace
    assert set(demur.trace.__all__) == set(demur.traces.__all__)
    for name in ("STEPS", "Key", "DEFAULT", "Recorder", "teacher_forced", "spec_of", "watching", "default_sampler"):
        assert getattr(demur.trace, name) is getattr(demur.traces, name)


WORDS = ("Some words, no tensors", '{"id": "a", "text": "b"}', "text,label\na,b\n")


@pytest.mark.parametrize(
    "read",
    [Trace.load, Anchors.load, Guard.load],
    ids=["trace", "anchors", "guard"],
)
@pytest.mark.parametrize("content", WORDS, ids=len)
def test_a_file_that_is_no_tensors_at_all_is_not_called_broken(read: Any, content: str, tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text(content)
    with pytest.raises(DemurError, match=r"note\.txt is no file that demur writes"):
        read(path)
    path.write_bytes((2**40).to_bytes(8, "little") + b"{" + b"x" * 20)  # begins as one
    with pytest.raises(DemurError, match=r"note\.txt is broken \("):
        read(path)
