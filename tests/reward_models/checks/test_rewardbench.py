"""RewardBench 2: rows read, subsets scored by its formulas, a text without a value named in n."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from r2w_eval.reward_models.checks.rewardbench import bench_row, evaluate
from r2w_eval.reward_models.items import Item, ItemScore, ItemStatus, WritingItem, failed

from r2w_eval.errors import DataError


class Length:
    """Longer is better; an empty text has no value."""

    id = "length"

    def describe(self) -> Mapping[str, Any]:
        return {}

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        return [
            ItemScore(i.id, float(len(i.response)))
            if isinstance(i, WritingItem) and i.response
            else failed(i.id, ItemStatus.EMPTY, "nothing there")
            for i in items
        ]


def record(name: str, subset: str, chosen: list[str], rejected: list[str]) -> dict[str, Any]:
    return {"id": name, "subset": subset, "prompt": "p", "chosen": chosen, "rejected": rejected}


def test_subsets_are_scored_by_their_formulas() -> None:
    rows = [
        record("1", "Focus", ["aaaa"], ["a", "aa", "aaa"]),
        record("2", "Focus", ["aa"], ["a", "aa", "a"]),
        record("3", "Focus", ["a"], ["", "aa", "aaa"]),
        record("ref:1", "Ties", ["aaaa"], ["a"]),
        record("tied:1", "Ties", ["aaaa", "aaa"], ["a"]),
        record("tied:2", "Ties", ["aaaa", "aaa"], ["a"]),
    ]
    found = evaluate(Length(), [bench_row(row) for row in rows])
    focus, ties = found["Focus"], found["Ties"]
    assert (focus.value, focus.n_scored, focus.n_expected) == (0.75, 2, 3)
    # accuracies and both gap shares are 1, the spread is 1 and the smaller gap 2: tanh(2 / 1 - 1)
    assert ties.value == pytest.approx(1.0 + 0.01 * 0.761594, abs=1e-6)
    assert (ties.n_scored, ties.n_expected) == (2, 3)


@pytest.mark.parametrize("lacks", ["chosen", "id", "prompt"])
def test_a_row_of_another_shape_is_named(lacks: str) -> None:
    row = record("1", "Focus", ["a"], ["b"])
    del row[lacks]
    with pytest.raises(DataError, match=f"{lacks}.*reward-bench-2"):
        bench_row(row)
    with pytest.raises(DataError, match="a text each"):
        bench_row(record("1", "Focus", [], ["b"]))
