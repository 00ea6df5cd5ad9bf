"""Both forms of the reward model in one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from r2w_eval.reward_models.ensemble import NAME, Ensemble
from r2w_eval.reward_models.items import (
    Item,
    ItemScore,
    ItemStatus,
    ReflectionItem,
    WritingItem,
    failed,
)
from r2w_eval.reward_models.rules import RulesScorer
from r2w_eval.reward_models.scorer import load_reward, open_scorer
from r2w_eval.reward_models.transformer.scorer import ArtifactScorer

DRAFT = "The ferry left at six. Time stood still. Nobody waved from the quay."
MENDED = "The ferry left at six. The clock over the quay had stopped. Nobody waved from the quay."
ITEMS: tuple[Item, ...] = (
    ReflectionItem("right", "", DRAFT, '"Time stood still" is a cliché: show a clock.', MENDED),
    ReflectionItem("open", "", DRAFT, "I like it."),
    WritingItem("text", "Write a scene.", MENDED),
    ReflectionItem("empty", "", DRAFT, ""),
    ReflectionItem("wrong", "", DRAFT, "The dialogue in the second chapter drags.", MENDED),
)


class Losing:
    """A transformer that loses one item."""

    id = "losing"

    def describe(self) -> Mapping[str, Any]:
        return {}

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        lost = failed("open", ItemStatus.TOO_LONG, "cut it")
        found = RulesScorer().score(items)
        return [lost if one.id == "open" else one for one in found]


def by_id(scores: Sequence[ItemScore]) -> dict[str, ItemScore]:
    return {score.id: score for score in scores}


@pytest.mark.parametrize("share", [0.0, 1 / 3, 1.0])
def test_a_reflection_gets_the_weighted_mean_and_a_text_the_first_value(share: float) -> None:
    ngrams, rules = load_reward(), RulesScorer()
    found = Ensemble(ngrams, rules, share).score(ITEMS)
    assert [score.id for score in found] == [item.id for item in ITEMS]
    first, second = by_id(ngrams.score(ITEMS)), by_id(rules.score(ITEMS))
    for name in ("right", "open", "wrong"):
        a, b = first[name].value, second[name].value
        assert a is not None and b is not None
        score = by_id(found)[name]
        assert score.value == pytest.approx((1 - share) * a + share * b, abs=1e-6)
        assert score.parts["ngrams"] == a and score.parts["transformer"] == b
        assert score.parts["relevance"] == first[name].parts["relevance"]
    assert by_id(found)["text"] == first["text"] and by_id(found)["empty"] == first["empty"]


def test_what_one_of_both_cannot_score_has_no_value() -> None:
    found = by_id(Ensemble(load_reward(), Losing()).score(ITEMS))
    assert found["open"] == failed("open", ItemStatus.TOO_LONG, "cut it")
    assert found["right"].value is not None


def test_its_name_follows_members_and_share() -> None:
    ngrams, rules = load_reward(), RulesScorer()
    names = [Ensemble(ngrams, rules).id, Ensemble(ngrams, Losing()).id]
    names.append(Ensemble(ngrams, rules, 0.5).id)
    assert len(set(names)) == 3 and all(name.startswith(f"{NAME}@") for name in names)
    assert set(Ensemble(ngrams, rules).describe()["members"]) == {ngrams.id, rules.id}


@pytest.fixture(scope="module")
def shipped() -> Ensemble:
    pytest.importorskip("torch", reason="needs the hf extra: pip install 'r2w-eval[hf]'")
    found = open_scorer(NAME)
    assert isinstance(found, Ensemble)
    return found


def test_the_shipped_ensemble_reads_both_shipped_forms(shipped: Ensemble) -> None:
    found = by_id(shipped.score(ITEMS))
    right, wrong = found["right"], found["wrong"]
    assert right.value is not None and wrong.value is not None and right.value > wrong.value
    (alone,) = shipped.transformer.score(ITEMS[:1])
    assert right.parts["transformer"] == pytest.approx(alone.value, abs=1e-4)
    assert shipped.id == open_scorer(NAME).id


def test_what_is_too_long_for_the_transformer_is_cut_and_says_so(shipped: Ensemble) -> None:
    assert isinstance(shipped.transformer, ArtifactScorer)
    short = replace(shipped, transformer=replace(shipped.transformer, max_tokens=120))
    (score,) = short.score([ReflectionItem("long", "", DRAFT * 9, "Too long by half.", MENDED)])
    assert score.value is not None and score.parts["cut_tokens"] > 0
