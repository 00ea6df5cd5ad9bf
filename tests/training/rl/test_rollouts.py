"""Texts of a policy: where one ends, and what may be paid for its reflections."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from r2w_eval.training.rl.completions import ScorableReflection, to_segments

from r2w_eval.models.local import end_tokens
from r2w_eval.trace.types import Span


@pytest.mark.parametrize(
    ("listed", "expected"), [([5, 7], {2, 5, 7}), (5, {2, 5}), (None, {2}), ([2], {2})]
)
def test_every_end_of_the_policy_ends_a_text(listed: object, expected: set[int]) -> None:
    config, tokenizer = SimpleNamespace(eos_token_id=listed), SimpleNamespace(eos_token_id=2)
    assert end_tokens(config, tokenizer) == expected


def test_a_score_without_bounds_pays_at_most_one() -> None:
    found = [ScorableReflection(Span(i, i + 1), None) for i in range(3)]  # type: ignore[arg-type]
    assert [s.score for s in to_segments(found, [8.0, None, -2.0])] == [1.0, None, -1.0]
