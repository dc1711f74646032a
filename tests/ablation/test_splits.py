"""Which prompt serves what: sizes, and nothing that is both learnt from and tested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from demur.ablation.splits import Counts, apart, questions
from demur.types import DemurError, Prompt


def asked(name: str, n: int, parent: str = "") -> list[Prompt]:
    return [Prompt(f"{name}-{i}", f"{name} {i}", parent=f"{parent}-{i}" if parent else "") for i in range(n)]


def test_shares_shrink_aloud_and_never_under_the_papers_protocol() -> None:
    enough = questions(asked("good", 1000), asked("bad", 300), {}, {}, Counts.of(104))
    parts = enough.anchors, enough.fit, enough.calibrate, enough.plain
    assert [len(part) for part in parts] == [104, 416, 104, 104]
    assert len({prompt.id for part in parts for prompt in part}) == 728
    assert (len(enough.harmful), len(enough.plain_harmful)) == (104, 104)
    assert not {p.id for p in enough.harmful} & {p.id for p in enough.plain_harmful}
    assert enough.notes == ()
    few = questions(asked("good", 120), asked("bad", 110), {}, {}, Counts.of(104))
    assert sum(map(len, (few.anchors, few.fit, few.calibrate, few.plain))) <= 120
    assert (len(few.harmful), len(few.plain_harmful)) == (104, 6)
    assert "120 harmless prompts are fewer than 728" in few.notes[0]
    assert "110 harmful prompts are fewer than 208" in few.notes[1]
    paper = replace(Counts.of_the_paper(104), exact="--paper")
    whole = questions(asked("good", 2000), asked("bad", 450), {}, {}, paper)
    assert [len(part) for part in (whole.anchors, whole.fit, whole.calibrate, whole.plain)] == [400, 1200, 200, 104]
    assert len(whole.harmful) == 400
    with pytest.raises(DemurError, match="under --paper"):
        questions(asked("good", 120), asked("bad", 450), {}, {}, paper)


def test_a_seed_shuffles_before_the_split_and_each_request_counts_once() -> None:
    good, bad, counts = asked("good", 800), asked("bad", 300), Counts.of(104)
    one, same, other = (questions(good, bad, {}, {}, counts, seed) for seed in (1, 1, 2))
    assert one == same
    assert one.anchors != other.anchors
    twice = questions([*good, *good], bad, {}, {}, counts)
    assert twice == questions(good, bad, {}, {}, counts)


@pytest.mark.parametrize("order", [range(728), range(727, -1, -1)])
def test_sets_of_a_sorted_file_are_alike(order: Sequence[int]) -> None:
    """Sorted by topic, 91 requests a topic: no set may lack one, or have one alone."""
    every = asked("good", 728)
    found = questions([every[i] for i in order], asked("bad", 300), {}, {}, Counts.of(104))
    for part in (found.anchors, found.fit, found.calibrate, found.plain):
        topics = Counter(every.index(prompt) // 91 for prompt in part)
        assert len(topics) == 8
        assert max(topics.values()) < 0.35 * len(part)
    assert found == questions(every, asked("bad", 300), {}, {}, Counts.of(104))


def test_no_request_is_both_learnt_from_and_tested() -> None:
    known = asked("good", 10)
    apart("control prompts page", asked("page", 5, parent="other"), known)
    with pytest.raises(DemurError, match="control prompts page: 5 of 5"):
        apart("control prompts page", asked("page", 5, parent="good"), known)
    with pytest.raises(DemurError, match="attacked prompts page: 5 of 5"):
        questions(asked("good", 800), asked("bad", 300), {"page": asked("bad", 5)}, {}, Counts.of(104))
