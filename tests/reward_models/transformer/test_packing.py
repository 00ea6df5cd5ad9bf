"""Packs: every branch sees itself and its ancestors only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.reward_models.transformer.packing import Segment, aligned, by_budget, collate, lay_out
from r2w_eval.reward_models.transformer.plans import plan, within
from r2w_eval.reward_models.transformer.render import Unit

sizes = st.lists(st.integers(1, 4), min_size=1, max_size=6)


@given(sizes, st.data())
def test_each_token_sees_its_own_branch(lengths: list[int], data: st.DataObject) -> None:
    parents = [None] + [data.draw(st.none() | st.integers(0, i)) for i in range(len(lengths) - 1)]
    segments = [
        Segment(tuple(range(100 * i, 100 * i + n)), p)
        for i, (n, p) in enumerate(zip(lengths, parents, strict=True))
    ]
    pack = lay_out(segments)
    for index, segment in enumerate(segments):
        branch: list[int] = []
        at: int | None = index
        while at is not None:
            branch = [*segments[at].ids, *branch]
            at = segments[at].parent
        seen = pack.ids[pack.allowed[pack.ends[index]]]
        assert seen.tolist() == branch
        assert pack.positions[pack.ends[index]] == len(branch) - 1
        assert segment.ids[-1] == pack.ids[pack.ends[index]]


def test_padding_attends_to_itself_only() -> None:
    pytest.importorskip("torch")
    fork = lay_out([Segment((1, 2), None), Segment((3,), 0), Segment((4,), 0)])
    inputs = collate([fork, lay_out([Segment((4,), None)])], 9)
    assert inputs["input_ids"].tolist() == [[1, 2, 3, 4, *[9] * 4], [4, *[9] * 7]]
    first, short = (inputs["attention_mask"][row, 0].numpy() for row in (0, 1))
    assert np.array_equal(short, np.eye(8, dtype=bool))
    assert np.array_equal(first[:4, :4], fork.allowed) and not first[:4, 4:].any()


def test_texts_without_branches_need_no_mask() -> None:
    pytest.importorskip("torch")
    chain = lay_out([Segment((1, 2), None), Segment((3,), 0)])
    assert chain.is_chain and set(collate([chain], 9)) == {"input_ids"}


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_batches_hold_every_pack_once_with_little_padding(lengths: list[int]) -> None:
    batches = list(by_budget(lengths, 512))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        sizes = [aligned(lengths[i]) for i in batch]
        assert len(batch) == 1 or len(batch) * max(sizes) <= 512
        assert min(sizes) * 8 >= max(sizes) * 7


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(0, 30))
def test_no_pack_is_longer_than_the_model_reads(revisions: list[int], head: int) -> None:
    limit = 100
    units = {i: Unit("h" if head else "", "r", f"v{n}") for i, n in enumerate(revisions)}
    tokens = {"h": (1,) * head, "r": (2,) * 10, **{f"v{n}": (3,) * n for n in revisions}}
    parts = list(within(list(units), units, tokens, limit))
    assert [i for part in parts for i in part] == list(units)
    sizes = [len(plan(part, units, tokens).pack.ids) for part in parts]
    assert max(sizes) <= limit
    following = [len(plan([part[0]], units, tokens).pack.ids) - head for part in parts[1:]]
    assert all(size + own > limit for size, own in zip(sizes, following, strict=False))
