"""Packs: every branch sees itself and its ancestors only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.reward_models.packing import Segment, collate, lay_out

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
    packs = [lay_out([Segment((1, 2, 3), None)]), lay_out([Segment((4,), None)])]
    inputs = collate(packs, 9)
    assert inputs["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    short = inputs["attention_mask"][1, 0].numpy()
    assert np.array_equal(short, np.eye(3, dtype=bool))
