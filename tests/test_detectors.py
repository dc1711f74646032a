"""Every detector keeps the contract that a guard asks of it: scores, independent rows, state without a pickle."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from test_guards import signals, tiny_guard, tiny_traces

from demur import artefact
from demur import guards as g
from demur.guards.detectors import DETECTORS, check, named, restored, scored, state_of
from demur.types import DemurError

NAMES = sorted(DETECTORS.own)


@cache
def fitted(name: str) -> Any:
    return named(name).fit(signals(600), seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_has_the_same_bits_alone_and_in_any_batch(name: str) -> None:
    detector, x = fitted(name), signals(500, seed=5)
    together = scored(detector, x)
    assert (np.array([scored(detector, x[i : i + 1])[0] for i in range(0, 500, 37)]) == together[::37]).all()
    assert (scored(detector, x[::-1])[::-1] == together).all()
    assert (scored(detector, np.asfortranarray(x)) == together).all()
    check(detector, x)


@pytest.mark.parametrize("name", NAMES)
def test_what_hesitates_has_a_higher_score_than_what_does_not(name: str) -> None:
    detector, odd = fitted(name), signals(200, seed=4)
    odd[:, 24 if name == "last" else 8 :][:, :8] = 0.1
    harmless = detector(signals(1000, seed=8))
    assert (detector(odd) > np.quantile(harmless, 0.99)).mean() > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_comes_back_from_arrays_and_a_card(name: str) -> None:
    detector, x = fitted(name), signals(50, seed=6)
    again = restored(named(name, anywhere=False), *state_of(detector))
    assert (again(x) == detector(x)).all()
    assert type(again) is type(detector)


@pytest.mark.parametrize(
    ("alpha", "name"),
    [
        pytest.param(alpha, name, marks=[pytest.mark.slow] * (name == "isolation-forest"))
        for alpha in (0.01, 0.1)
        for name in NAMES
    ],
)
def test_the_promise_holds_over_2000_splits_offline_and_online(name: str, alpha: float) -> None:
    """The pool is drawn anew for every split; the mean rate may not exceed alpha, nor fall far below it."""
    n, pool = 99, signals(4_000, seed=77)
    prefix = g.fit_prefix(fitted(name), signals(600), pool[:200], alpha=alpha)
    rng = np.random.default_rng(n)
    for scores in (scored(fitted(name), pool), prefix.scores(pool).max(axis=1)):
        rates = []
        for _ in range(2000):
            drawn = rng.choice(len(scores), n + 200, replace=False)
            limit = g.conformal_threshold(scores[drawn[:n]], alpha)
            rates.append((scores[drawn[n:]] > limit).mean())
        error = np.std(rates) / 2000**0.5
        assert np.mean(rates) <= alpha + 3 * error
        k = np.ceil((n + 1) * (1 - alpha) - 1e-9)
        assert np.mean(rates) >= (n + 1 - k) / (n + 1) - 4 * error


@pytest.mark.slow
def test_the_autoencoder_steps_as_torchs_adam_does(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from demur.guards import autoencoder

    def theirs(tensors: list[Any], rate: float) -> Any:
        adam = torch.optim.Adam(tensors, lr=rate)

        def step(gradients: Any) -> None:
            for tensor, gradient in zip(tensors, gradients, strict=True):
                tensor.grad = gradient
            adam.step()

        return step

    ours = g.Autoencoder.fit(signals(300))
    monkeypatch.setattr(autoencoder, "_adam", theirs)
    other = g.Autoencoder.fit(signals(300))
    for one, two in zip((*ours.weights, *ours.biases), (*other.weights, *other.biases), strict=True):
        assert (one == two).all()


def test_the_forest_scores_as_scikit_learns() -> None:
    from sklearn.ensemble import IsolationForest

    harmless, x = signals(300), np.concatenate([signals(100, seed=3), np.random.default_rng(0).random((100, 32))])
    for seed in (0, 1):
        ours = g.IsolationForest.fit(harmless, seed=seed)
        theirs = IsolationForest(random_state=seed).fit((harmless - ours.centre) / ours.scale)
        assert -theirs.score_samples((x - ours.centre) / ours.scale) == pytest.approx(ours(x), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_that_is_not_finite_has_no_score(name: str) -> None:
    x = signals(4)
    x[1, 3], x[2, 0] = np.nan, np.inf
    assert np.isfinite(scored(fitted(name), x)).tolist() == [True, False, False, True]


@pytest.mark.parametrize("name", NAMES)
def test_a_guard_of_any_detector_is_saved_judges_and_watches(name: str, tmp_path: Path) -> None:
    fit, other = tiny_traces(80), tiny_traces(40, offset=1000)
    guard = g.fit_guard(tiny_guard().anchors, fit, other, alpha=0.3, detector=name)
    path = guard.save(tmp_path / "guard.safetensors")
    again = g.Guard.load(path)
    assert again.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    fresh = tiny_traces(12, offset=5000)
    assert again.judge_all(fresh) == guard.judge_all(fresh)
    sigma = np.stack([guard.anchors.signal(trace) for trace in fresh])
    stops = again.prefix.stops(sigma)
    watched = tiny_traces(12, offset=5000, sampler=g.Watch(again)(_sampler()))
    assert [bool(g.acted(trace).flagged) for trace in watched] == (stops > 0).tolist()
    assert {True, False} == {*(stops > 0).tolist()}, "the case should hold both fates"


def _sampler() -> Any:
    from demur.samplers import Autoregressive

    return Autoregressive()


@dataclass(frozen=True, eq=False)
class Lowest:
    """A detector of somebody else."""

    name: ClassVar[str] = "lowest"

    @classmethod
    def fit(cls, harmless: np.ndarray, *, seed: int = 0) -> Lowest:
        return cls()

    def __call__(self, sigma: np.ndarray) -> np.ndarray:
        return np.asarray(1.0 - sigma.min(axis=1))


def test_somebody_elses_detector_is_held_and_a_file_can_not_say_what_is_imported(tmp_path: Path) -> None:
    fit, other = tiny_traces(80), tiny_traces(40, offset=1000)
    for detector in (Lowest, f"{__name__}:Lowest"):
        guard = g.fit_guard(tiny_guard().anchors, fit, other, alpha=0.3, detector=detector)  # type: ignore[arg-type]
        path = guard.save(tmp_path / "guard.safetensors")
        with pytest.raises(DemurError, match=r"say where its class is"):
            g.Guard.load(path)
        again = g.Guard.load(path, detector=Lowest)
        assert again.judge_all(fit[:5]) == guard.judge_all(fit[:5])


@dataclass(frozen=True, eq=False)
class Odd(Lowest):
    """One that does what ``how`` says with the signals."""

    how: Any = "plain"

    @classmethod
    def fit(cls, harmless: np.ndarray, *, seed: int = 0, how: str = "plain") -> Odd:
        harmless[:] = 0.0  # somebody's fit may well write into what it gets
        return cls({"module": torch.nn.Linear(2, 2)}.get(how, how))

    def __call__(self, sigma: np.ndarray) -> Any:
        low = 1.0 - sigma.min(axis=1)
        sigma[:] = 0.0
        kinds = {
            "plain": lambda: low,
            "float32": lambda: low.astype(np.float32),
            "ints": lambda: (low * 100).astype(int),
            "negative": lambda: low - 5,
            "tiny": lambda: low * 1e-9,
            "tensor": lambda: torch.from_numpy(low),
            "list": low.tolist,
            "ties": lambda: low > 0.5,
            "nan": lambda: low * np.nan,
            "chance": lambda: np.random.default_rng().random(len(low)),
            "neighbours": lambda: low - low.mean(),
            "short": lambda: low[1:],
            "texts": lambda: ["high"] * len(low),
            "complex": lambda: low + 1j,
            "error": lambda: low[1_000_000],
            "module": lambda: low,
        }
        return kinds[self.how if isinstance(self.how, str) else "module"]()


@pytest.mark.parametrize("how", ["plain", "float32", "ints", "negative", "tiny", "tensor", "list", "ties"])
def test_what_somebody_elses_scores_are_made_of_does_not_matter(how: str, tmp_path: Path) -> None:
    fit, other, fresh = tiny_traces(80), tiny_traces(40, offset=1000), tiny_traces(12, offset=5000)
    alpha = 0.45 if how == "ties" else 0.3  # 14 of 40 have the higher of two scores, which nothing can exceed
    guard = g.fit_guard(tiny_guard().anchors, fit, other, alpha=alpha, detector=partial(Odd.fit, how=how))
    again = g.Guard.load(guard.save(tmp_path / "guard.safetensors"), detector=Odd)
    assert again.judge_all(fresh) == guard.judge_all(fresh)
    if how in (
        "plain",
        "float32",
        "negative",
        "tiny",
        "tensor",
        "list",
    ):  # order is all that counts, also while it runs
        plain = g.fit_guard(tiny_guard().anchors, fit, other, alpha=0.3, detector=Lowest)
        sigma = plain.anchors.signals(fresh)
        assert [v.flagged for v in guard.judge_all(fresh)] == [v.flagged for v in plain.judge_all(fresh)]
        assert (guard.prefix.stops(sigma) == plain.prefix.stops(sigma)).all()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("nan", "not finite"),
        ("chance", "asked again"),
        ("neighbours", "otherwise in a batch"),
        ("short", "one number a row"),
        ("texts", "one number a row"),
        ("complex", "one number a row"),
        ("error", "IndexError"),
        ("module", "holds a Linear"),
        ("ties", "14 of 40 harmless signals at or above the limit 1 .* never flag"),
    ],
)
def test_what_is_wrong_with_somebody_elses_detector_is_one_line(how: str, says: str) -> None:
    with pytest.raises(DemurError, match=says) as error:
        g.fit_guard(
            tiny_guard().anchors, tiny_traces(80), tiny_traces(40, offset=1000), alpha=0.3,
            detector=partial(Odd.fit, how=how),
        )  # fmt: skip
    assert "\n" not in str(error.value)


def test_a_file_is_not_read_as_another_detectors(tmp_path: Path) -> None:
    guard = g.fit_guard(tiny_guard().anchors, tiny_traces(80), tiny_traces(40, offset=1000), alpha=0.3, detector="mean")
    with pytest.raises(DemurError, match="detector is 'mean'"):
        g.Guard.load(guard.save(tmp_path / "guard.safetensors"), detector=Lowest)


def _changed(whole: Any, path: tuple[str, ...], value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and card of a file with one thing put in, or taken out (``...``)."""
    arrays, card = dict(whole[0]), json.loads(json.dumps(whole[1]))
    holder = arrays if path[0] == "arrays" else card
    *above, last = path[1:] if path[0] == "arrays" else path
    for name in above:
        holder = holder[name]
    holder.pop(last) if value is ... else holder.__setitem__(last, value)
    return arrays, card


@pytest.mark.parametrize("version", ["today", "0.1.0"])
def test_files_made_by_hand_are_one_line_and_run_nothing(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A digest can be made anew by whoever changes a file, so that a file may say anything."""
    path = Path(__file__).parent / "older" / "guard-0.1.0.safetensors"
    path = path if version == "0.1.0" else g.Guard.load(path).save(tmp_path / "today.safetensors")
    whole, steps = artefact.load(path, "guard"), 32
    ran: list[Any] = []
    monkeypatch.setattr("os.system", ran.append)
    changes: list[tuple[tuple[str, ...], Any]] = [(("arrays", name), ...) for name in whole[0]]
    for name in whole[0]:
        changes += [(("arrays", name), np.zeros(shape)) for shape in ((0,), (5, 7), (2, 2, 2))]
    kept = {"threshold", "checked", "checked_online", "losses", "kind", "format"}
    changes += [((name,), value) for name in {*whole[1]} - kept for value in (..., None, 5.5, "x", [1], {"a": 1})]
    changes += [((part, "new"), 1) for part in ("spec", "anchors")]
    changes += [(("spec", "steps"), n) for n in (0, -1, 31, 10**12, "32", None, True)]
    if version == "today":
        changes += [((part, "alpha"), x) for part in ("threshold", "prefix") for x in (0, 1.5, None, float("nan"))]
        changes += [((part, "value"), x) for part in ("threshold", "prefix") for x in (None, "1", float("nan"))]
        changes += [(("threshold", "rule"), "none"), (("threshold", "n"), 0), (("threshold", "new"), 1)]
        names = [
            "os:system",
            "subprocess:Popen",
            "antigravity:x",
            "",
            "mean",
            "window",
            "isolation-forest",
            5,
            None,
            [],
        ]
        changes += [(("detector", "name"), name) for name in names]
        changes += [(("detector", "fields", "more"), 1), (("detector", "tuples"), ["weights"])]
        changes += [(("arrays", "prefix/scale"), -np.ones(steps))]
        changes += [(("arrays", f"prefix/{name}"), np.full(steps, np.inf)) for name in ("centre", "scale")]
    for at, value in changes:
        forged = artefact.save(tmp_path / "forged.safetensors", "guard", *_changed(whole, at, value))
        with pytest.raises(DemurError) as error:
            g.Guard.load(forged)
        assert "\n" not in str(error.value), at
        assert len(str(error.value)) < 500, at
    assert not ran
    assert "antigravity" not in sys.modules
    for at in (("later",), ("threshold", "later") if version == "0.1.0" else ("detector", "later")):
        if at[0] in whole[1] or len(at) == 1:
            g.Guard.load(artefact.save(tmp_path / "later.safetensors", "guard", *_changed(whole, at, 1)))


def test_a_guard_of_version_0_1_0_judges_as_it_did() -> None:
    """The file and what it said of six signals were written by version 0.1.0."""
    guard = g.Guard.load(Path(__file__).parent / "older" / "guard-0.1.0.safetensors")
    told = np.load(Path(__file__).parent / "older" / "guard-0.1.0.npz")
    verdicts = guard.judge_signals(told["sigma"], [False] * len(told["sigma"]))
    assert [verdict.score for verdict in verdicts] == pytest.approx(told["scores"].tolist(), rel=1e-9)
    assert [bool(verdict.flagged) for verdict in verdicts] == told["flagged"].tolist()
    assert guard.prefix.stops(told["sigma"]).tolist() == told["stops"].tolist()
    assert guard.promise == str(told["promise"])
    assert guard.n_fit == int(told["n_fit"])
