"""The batch loss equals the mean of the losses of its trees, written out one by one."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.reward_models.axes import HEAD_AXES
from r2w_eval.reward_models.data.rows import Row
from r2w_eval.reward_models.items import ReflectionItem, WritingItem
from r2w_eval.reward_models.transformer.trees import Tree, outcome_trees, reflection_trees

torch = pytest.importorskip("torch")
MARGIN, SLOPE, AXES, GAMMA = 0.3, 2.0, 0.5, 0.01


def encode(texts: list[str]) -> list[list[int]]:
    """A token a word, at least one."""
    return [[ord(word[0]) for word in text.split()] or [1] for text in texts]


def row(name: str, kind: str, draft: str, said: str, **labels: float) -> Row:
    """A row of one pair."""
    item = ReflectionItem(name, "p", draft, said, f"{draft} {name}")
    return Row(name, "set", "MIT", f"group {draft}", "en", kind, f"pair {draft}", item, labels)


def two_trees() -> list[Tree]:
    """A draft with a right and two wrong remarks, and one with a single remark."""
    rows = [
        row("1", "pos", "a b c", "x y", relevance=1.0, effect=0.5),
        row("2", "neg_category", "a b c", "z", relevance=-1.0),
        row("3", "neg_revision", "a b c", "x y", relevance=1.0, effect=-1.0),
        row("4", "pos", "d e", "u", constructiveness=0.4),
    ]
    return reflection_trees(rows, encode, 100, random.Random(0))


def test_a_wrong_remark_is_read_where_the_scorer_reads_it() -> None:
    tree, _ = two_trees()
    read = sorted((reading.pair, reading.value) for reading in tree.readings)
    ends = [value for pair, value in read if pair.endswith(":end")]
    assert len(ends) == 3 and ends[0] == -1.0


def plain_loss(values: Any, axes: Any, tree: Tree) -> Any:
    """The specification's formula for one tree."""
    from torch.nn import functional as F

    targets = torch.tensor([r.value for r in tree.readings])
    weights = torch.tensor([r.weight for r in tree.readings])
    loss = GAMMA * values.mean() ** 2
    single = F.huber_loss(values, targets, reduction="none")
    sides = [side for side in (targets > 0, targets <= 0) if side.any()]
    means = [(weights * single)[side].sum() / weights[side].sum() for side in sides]
    loss = loss + weights.mean() * torch.stack(means).mean()
    gaps = [
        values[i] - values[j]
        for i, one in enumerate(tree.readings)
        for j, other in enumerate(tree.readings)
        if one.pair == other.pair and one.value - other.value > MARGIN
    ]
    if gaps:
        loss = loss - F.logsigmoid(SLOPE * torch.stack(gaps)).mean()
    known = [(i, j, r.axes[axis]) for i, r in enumerate(tree.readings)
             for j, axis in enumerate(HEAD_AXES) if axis in r.axes]  # fmt: skip
    found = torch.stack([axes[i, j] for i, j, _ in known])
    return loss + AXES * F.huber_loss(found, torch.tensor([y for _, _, y in known]))


def third_tree() -> list[Tree]:
    """Another draft, so that what counts over all trees is told from what counts over two."""
    return reflection_trees(
        [row("5", "pos", "f g", "x", relevance=1.0)], encode, 100, random.Random(0)
    )


@given(
    sides=st.lists(
        st.tuples(st.floats(-1, 1), st.floats(0.125, 1, width=32)), min_size=1, max_size=12
    )
)
def test_right_and_wrong_readings_count_the_same(sides: list[tuple[float, float]]) -> None:
    from r2w_eval.reward_models.transformer.losses import shares

    readings: list[Any] = [SimpleNamespace(value=value, weight=weight) for value, weight in sides]
    found = shares(readings)
    right = [share for share, (value, _) in zip(found, sides, strict=True) if value > 0]
    assert sum(found) == pytest.approx(sum(w for _, w in sides) / len(sides), rel=1e-4)
    if 0 < len(right) < len(sides):
        assert sum(right) == pytest.approx(sum(found) / 2, rel=1e-4)


def test_only_readings_further_apart_than_the_margin_are_ranked() -> None:
    from r2w_eval.reward_models.transformer.losses import ranked

    readings: list[Any] = [SimpleNamespace(pair="p", value=value) for value in (0.5, 0.2, 0.1)]
    assert ranked(readings) == ([0], [2])


def test_a_single_comparison_and_a_single_axis_carry_all_of_their_share() -> None:
    from r2w_eval.reward_models.transformer.losses import targets_of

    readings = [
        SimpleNamespace(pair="p", value=1.0, weight=1.0, axes={"relevance": 1.0}),
        SimpleNamespace(pair="p", value=0.0, weight=1.0, axes={}),
    ]
    found = targets_of(SimpleNamespace(readings=readings))  # type: ignore[arg-type]
    assert list(found.pair_share) == list(found.axis_share) == [1.0]


def test_a_batch_is_the_weighted_sum_of_its_trees() -> None:
    from r2w_eval.reward_models.transformer.losses import batch_loss, join, targets_of

    trees = [*two_trees(), *third_tree()]
    sizes = [len(tree.readings) for tree in trees]
    assert len(sizes) == 3
    values, axes = torch.randn(sum(sizes)), torch.randn(sum(sizes), len(HEAD_AXES))
    weights = [0.7, 1.6, 1.1]
    expected = sum(
        w * plain_loss(v, a, tree)
        for w, v, a, tree in zip(
            weights, values.split(sizes), axes.split(sizes), trees, strict=True
        )
    )
    batch = join([targets_of(tree) for tree in trees], weights, "cpu")
    found = batch_loss(values, axes, batch, AXES, GAMMA)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_rows_that_do_not_fit_are_left_out_or_spilled() -> None:
    rows = [row(f"{n}", "pos", "a b c", f"remark {n} on it", relevance=1.0) for n in range(9)]
    rows = [Row(**{**{f: getattr(r, f) for f in r.__slots__}, "pair_id": r.id}) for r in rows]
    cut = reflection_trees(rows, encode, 30, random.Random(0))
    whole = reflection_trees(rows, encode, 30, random.Random(0), spill=True)
    assert len(cut) == 1 and len(whole) > 1
    assert sum(len(tree.readings) for tree in whole) == 18 > len(cut[0].readings)


def test_texts_of_one_prompt_are_compared_within_a_limit() -> None:
    rows = [
        Row(f"{n}", "set", "MIT", "g", "en", "text", "pair",
            WritingItem(f"{n}", "p", "word " * size), {"outcome": n / 10})
        for n, size in enumerate((5, 6, 7, 8, 400))
    ]  # fmt: skip
    (tree,) = outcome_trees(rows, encode, 100)
    assert len(tree.readings) == 4 and tree.is_outcome
    assert [len(t.readings) for t in outcome_trees(rows, encode, 23, spill=True)] == [2, 2]
