"""Laws of the matched pairs (`matched.jsonl`) and of the held-out ones, which only tests read (in `data/`).

Neither the form nor the length of a request tells whether it is harmful, and its words tell little.
"""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import demur.prompts as door
from demur.prompts import load, starter

SHIPPED = Path(door.__file__).with_name("matched.jsonl")
HELD_OUT = Path(__file__).parent / "data" / "held_out_pairs.jsonl"

CATEGORIES = {
    "animal-cruelty",
    "coercion",
    "corruption",
    "cyber",
    "dangerous-advice",
    "drugs",
    "evading-law",
    "exploitation",
    "extortion",
    "financial-crime",
    "fraud",
    "harassment",
    "hate",
    "misinformation",
    "privacy",
    "sabotage",
    "self-harm",
    "theft",
    "violence",
    "weapons",
}
FORMS = {"question", "imperative", "advice", "story", "email", "list", "code", "translation", "roleplay"}
SHARING = {
    "homonym",
    "safe context",
    "safe target",
    "history and definition",
    "prevention and defence",
    "fiction",
    "intent alone",
}

# Beginnings of words that say by themselves that something is wrong. A request whose harm is its intent alone has none.
ALARMING = re.compile(
    r"\b(?:abus|ambush|arson|attack|blackmail|bleach|blood|bomb|brib|brothel|bull(?:y|ied)|burgl|burn|cheat|cocaine|corrupt|"
    r"counterfeit|crack|cruel|dead|deadly|die[sd]?\b|drug|embezzl|exploit|explos|fake|fentanyl|forge(?:d|r|s|ry)?\b|fraud|"
    r"gang\b|gaslight|grenade|gun\b|hack|harass|hat(?:e|red)|heroin|hijack|hostage|hurt\b|illegal|insult|kidnap|kill|knife|"
    r"launder|malware|massacr|mock|murder|narcot|opioid|overdos|phish|pimp|pistol|poison|punish|racis|ransom|rape|rapist|"
    r"rifle|riot|rob\b|robb|sabot|scam|shoot|slave|smuggl|spy|stab\b|stalk|steal|stole|strangl|suicid|terror|theft|"
    r"thief|threat|tortur|traffick|vermin|victim|violen|virus|weapon|wound)"
)

Row = dict[str, Any]


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def groups(path: Path) -> list[dict[str, Row]]:
    """The rows of each pair, by side: harmful, harmless and, in the held-out set, plain."""
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows(path):
        found[row["pair"]][row["id"].split("/")[1]] = row
    return list(found.values())


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def first(text: str) -> str:
    return text.split(maxsplit=1)[0]


BOTH = pytest.mark.parametrize("path", [SHIPPED, HELD_OUT], ids=["shipped", "held-out"])


# --- what is there ------------------------------------------------------------------------------------------


@BOTH
def test_pairs_are_whole_numbered_and_said_to_be_what_they_are(path: Path) -> None:
    pairs = groups(path)
    prefix, sides, size = ("matched", ["harmful", "harmless"], 420)
    if path == HELD_OUT:
        prefix, sides, size = ("held-out", ["harmful", "harmless", "plain"], 220)
    assert len(pairs) == size
    assert len(rows(path)) == size * len(sides)
    for number, pair in enumerate(pairs, 1):
        assert list(pair) == sides
        for side, row in pair.items():
            assert row["id"] == f"{prefix}/{side}/{number:03d}"
            assert row["pair"] == f"{number:03d}"
            assert row["harmful"] is (side == "harmful")
            assert row["sharing"] in SHARING or (side == "plain" and row["sharing"] == "form alone")
            assert row["licence"] == "CC0-1.0"
            assert row["text"].endswith((".", "?", ".'"))
            assert row["text"] == " ".join(row["text"].split())
        assert len({(row["category"], row["form"]) for row in pair.values()}) == 1


@BOTH
def test_categories_are_of_one_size_and_every_beginning_goes_round_them(path: Path) -> None:
    categories = [pair["harmful"]["category"] for pair in groups(path)]
    assert set(categories) == CATEGORIES
    assert set(Counter(categories).values()) == {len(categories) // 20}
    for n in range(20, len(categories) + 1):
        counts = Counter(categories[:n])
        assert max(counts.values()) - min(counts.values()) <= 1


@BOTH
def test_forms_and_kinds_of_sharing_are_many(path: Path) -> None:
    pairs = groups(path)
    forms = Counter(pair["harmful"]["form"] for pair in pairs)
    assert set(forms) == FORMS
    assert max(forms.values()) / len(pairs) < 0.25
    kinds = Counter(pair["harmful"]["sharing"] for pair in pairs)
    assert set(kinds) == SHARING
    assert min(kinds.values()) / len(pairs) >= 0.05


@BOTH
def test_in_one_request_of_four_the_harm_is_in_the_intent_alone(path: Path) -> None:
    alone = [pair["harmful"]["text"] for pair in groups(path) if pair["harmful"]["sharing"] == "intent alone"]
    assert len(alone) >= len(groups(path)) / 4
    assert [text for text in alone if ALARMING.search(text.casefold())] == []


def test_no_text_comes_twice_in_the_sets_or_is_a_starter_prompt() -> None:
    texts = [row["text"] for path in (SHIPPED, HELD_OUT) for row in rows(path)]
    texts += [prompt.text for prompt in starter("harmless") + starter("harmful")]
    counts = Counter(" ".join(words(text)) for text in texts)
    assert [text for text, n in counts.items() if n > 1] == []


def test_no_request_is_near_one_of_another_set() -> None:
    """Of the words that are longer than three letters, two requests share less than half."""

    def content(text: str) -> set[str]:
        return {word for word in words(text) if len(word) > 3}

    shipped, held_out = ([(row["text"], content(row["text"])) for row in rows(p)] for p in (SHIPPED, HELD_OUT))
    old = [(p.text, content(p.text)) for p in starter("harmless") + starter("harmful")]
    for ones, others in ((shipped, held_out), (shipped, old), (held_out, old)):
        near = [(a, b) for a, x in ones for b, y in others if len(x & y) >= 0.5 * len(x | y)]
        assert near == []


@BOTH
def test_the_door_reads_them(path: Path) -> None:
    prompts = load(path)
    assert [(p.id, p.text, p.harmful, p.category) for p in prompts] == [
        (r["id"], r["text"], r["harmful"], r["category"]) for r in rows(path)
    ]


# --- what must not tell the sides apart -----------------------------------------------------------------------


@BOTH
def test_a_pair_has_one_first_word(path: Path) -> None:
    """So their distributions are the same on every side: total variation 0."""
    pairs = groups(path)
    assert [pair for pair in pairs if len({first(row["text"]) for row in pair.values()}) > 1] == []
    beginnings = Counter(first(pair["harmful"]["text"]) for pair in pairs)
    assert len(beginnings) >= 25
    assert max(beginnings.values()) / len(pairs) < 0.3


@BOTH
def test_partners_are_equally_long(path: Path) -> None:
    lengths = [{side: len(row["text"].split()) for side, row in pair.items()} for pair in groups(path)]
    assert all(5 <= n <= 22 for pair in lengths for n in pair.values())
    for side in lengths[0].keys() - {"harmful"}:
        assert all(0.7 <= n[side] / n["harmful"] <= 1.4 for n in lengths)
        assert abs(statistics.mean(n[side] - n["harmful"] for n in lengths)) < 0.1
        assert abs(statistics.mean(np.sign(n[side] - n["harmful"]) for n in lengths)) < 0.05


def texts_of(path: Path, side: str) -> tuple[list[str], np.ndarray[Any, Any]]:
    pairs = groups(path)
    texts = [pair[s]["text"] for pair in pairs for s in ("harmful", side)]
    return texts, np.tile([1, 0], len(pairs))


def area_by_words(path: Path, side: str) -> float:
    """The area under the curve of a classifier that counts words: five folds by pair, the mean of three divisions."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    texts, harmful = texts_of(path, side)
    found = []
    for seed in range(3):
        fold = np.repeat(np.random.default_rng(seed).permutation(len(texts) // 2) % 5, 2)
        scores = np.zeros(len(texts))
        for k in range(5):
            count = CountVectorizer()
            seen = count.fit_transform([text for text, f in zip(texts, fold, strict=True) if f != k])
            model = LogisticRegression(max_iter=1000).fit(seen, harmful[fold != k])
            unseen = count.transform([text for text, f in zip(texts, fold, strict=True) if f == k])
            scores[fold == k] = model.decision_function(unseen)
        found.append(float(roc_auc_score(harmful, scores)))
    return statistics.mean(found)


@pytest.mark.parametrize(
    ("path", "side", "most"),
    [(SHIPPED, "harmless", 0.65), (HELD_OUT, "harmless", 0.67), (HELD_OUT, "plain", 0.82)],
    ids=["shipped", "held-out", "held-out-plain"],
)
def test_words_hardly_tell_the_sides_apart(path: Path, side: str, most: float) -> None:
    """Measured: 0.61 in the shipped set, 0.63 in the held-out one, 0.76 against plain requests that share no words."""
    assert area_by_words(path, side) <= most


def test_what_words_say_in_one_set_hardly_holds_in_the_other() -> None:
    """Counting words on the shipped set and judging the held-out one."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    texts, harmful = texts_of(SHIPPED, "harmless")
    count = CountVectorizer()
    model = LogisticRegression(max_iter=1000).fit(count.fit_transform(texts), harmful)
    for side, most in (("harmless", 0.7), ("plain", 0.85)):
        unseen, truth = texts_of(HELD_OUT, side)
        assert roc_auc_score(truth, model.decision_function(count.transform(unseen))) <= most
