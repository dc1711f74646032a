"""Public data sets of the Hugging Face hub as rows, offline from its cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from demur.extras import need
from demur.hub import takes_connection
from demur.prompts.rows import Row, Rows, Wants, first_line
from demur.types import DemurError


@dataclass(frozen=True)
class Public:
    """A public data set: its id on the Hugging Face hub, the column of the request, its label, configuration and split
    (empty: the one that is asked for), and the value that a column must have for a row to be taken.
    """

    name: str
    text: str
    harmful: bool
    config: str = ""
    split: str = ""
    only: tuple[str, str] | None = None


PUBLIC: Mapping[str, Public] = {
    "advbench": Public("walledai/AdvBench", "prompt", True),
    "alpaca": Public("tatsu-lab/alpaca", "instruction", False, only=("input", "")),
    "jailbreakbench": Public("JailbreakBench/JBB-Behaviors", "Goal", True, "behaviors", "harmful"),
    "jailbreakbench-benign": Public("JailbreakBench/JBB-Behaviors", "Goal", False, "behaviors", "benign"),
    "xstest": Public("walledai/XSTest", "prompt", False, split="test", only=("label", "safe")),
    "xstest-unsafe": Public("walledai/XSTest", "prompt", True, split="test", only=("label", "unsafe")),
    "or-bench-hard": Public("bench-llm/or-bench", "prompt", False, "or-bench-hard-1k", "train"),
    "or-bench-toxic": Public("bench-llm/or-bench", "prompt", True, "or-bench-toxic", "train"),
    "wildjailbreak": Public(
        "allenai/wildjailbreak", "adversarial", True, "eval", "train", ("data_type", "adversarial_harmful")
    ),
}
"""Public data sets by short name. ``wildjailbreak`` holds attacked prompts, of the evaluation part (Jiang et al.,
arXiv:2406.18510; gated), ``jailbreakbench`` the behaviours of Chao et al., arXiv:2404.01318. For over-refusal:
``xstest``, the safe half of Röttger et al., arXiv:2308.01263 (``xstest-unsafe`` the other), and ``or-bench-hard`` of
Cui et al., arXiv:2405.20947 (``or-bench-toxic`` its harmful ones)."""

SECONDS = 5.0
"""So long the hub may take to answer."""
_GIVE_A_FILE = "or give a local .jsonl, .json, .csv or .parquet file"


def hub_rows(name: str, config: str, split: str, limit: int | None, wants: Wants) -> Rows:
    """Rows of a data set of the Hugging Face hub, or of the hub's cache where the hub is out of reach; of its columns
    only those that are wanted.
    """
    datasets = need("datasets", "data", f"to read the data set {name}")
    offline = bool(datasets.config.HF_HUB_OFFLINE)
    reached = offline or takes_connection(datasets.config.HF_ENDPOINT, SECONDS)
    try:
        with _cache_only(datasets.config, offline or not reached):
            table = datasets.load_dataset(name, config or None, split=split, streaming=limit is not None)
        names = tuple(getattr(table, "column_names", None) or ())
        if wanted := [column for column in names if wants(column)]:
            table = table.select_columns(wanted)
        for number, values in enumerate(table, 1):
            yield Row(number, f"{name}, split {split}, row {number}", values, names)
    except Exception as error:  # what a download can raise is no closed list
        raise _hub_error(name, split, error, offline) from error


@contextmanager
def _cache_only(config: Any, wanted: bool) -> Iterator[None]:
    """`datasets` in its offline mode for as long as the context lasts."""
    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = wanted
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _hub_error(name: str, split: str, error: BaseException, offline: bool) -> DemurError:
    """What went wrong with the hub, in one line that says what to do.

    Errors are told apart by the names of their classes, along the chain of causes: they come from several
    packages and have moved between them.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    names = {kind.__name__ for link in chain for kind in type(link).__mro__}
    page = f"https://huggingface.co/datasets/{name}"
    if "GatedRepoError" in names or any("gated dataset" in str(link) for link in chain):
        return DemurError(
            f"the data set {name} is gated",
            "an account that has accepted its terms",
            f"accept them at {page} and run `hf auth login`, {_GIVE_A_FILE}",
        )
    if offline and names & {"ConnectionError", "OfflineModeIsEnabled"}:
        return DemurError(
            f"offline mode is on and the data set {name} is not in the cache",
            "a data set that was loaded before",
            f"unset HF_HUB_OFFLINE and HF_DATASETS_OFFLINE, {_GIVE_A_FILE}",
        )
    if names & {"DatasetNotFoundError", "RepositoryNotFoundError"}:
        return DemurError(
            f"the hub shows no data set {name}",
            "one that exists and that your account may read",
            f"check {page}, run `hf auth login` if it is private, {_GIVE_A_FILE}",
        )
    if names & {"ConnectionError", "TimeoutError", "TransportError", "LocalEntryNotFoundError"}:
        return DemurError(
            f"the Hugging Face hub is out of reach and the data set {name} is not in the cache",
            "a network connection",
            f"try again with one, {_GIVE_A_FILE}",
        )
    return DemurError(
        f"cannot load the data set {name} ({type(error).__name__}: {first_line(error)})",
        f"a data set with a split {split!r}",
        f"look at its splits and configurations (hf:{name}:<configuration>) at {page}, {_GIVE_A_FILE}",
    )
