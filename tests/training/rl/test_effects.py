"""The axis effect by scores: the guard for every response, and what the ladder pays instead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.reward_models.axes import combine
from r2w_eval.reward_models.items import (
    Item,
    ItemScore,
    ItemStatus,
    ReflectionItem,
    WritingItem,
    failed,
)
from r2w_eval.reward_models.judge import ItemJudge, to_value
from r2w_eval.reward_models.rules import RulesScorer
from r2w_eval.training.recipe import read_settings
from r2w_eval.training.rl.advantages import LocalMapping
from r2w_eval.training.rl.effects import (
    EffectSettings,
    Step,
    WithEffects,
    ladder_effects,
    scored_effects,
    with_effect,
    with_effects,
)
from r2w_eval.training.rl.settings import RLSettings
from r2w_eval.training.rl.signal import score_groups
from r2w_eval.training.rl.train import reward_notes

from r2w_eval.errors import UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.models.endpoint import ClientSettings
from r2w_eval.run.opening import ModelOptions
from r2w_eval.run.patient import Background, Patience, PatientJudge

SCORED, LADDER = EffectSettings("scored"), EffectSettings("ladder")
POINTS = st.none() | st.floats(1, 10)
SETTINGS = st.builds(
    EffectSettings, st.just("scored"), reference=st.floats(0.1, 5), dead_band=st.floats(0, 2)
)


def chain(points: Sequence[float | None]) -> list[Step]:
    """Each text is the draft of the next reflection."""
    return [Step(a, b) for a, b in zip(points, points[1:], strict=False)]


@given(st.lists(POINTS, min_size=2, max_size=9), SETTINGS)
def test_gains_never_sum_to_more_than_the_response_gained(
    points: list[float | None], settings: EffectSettings
) -> None:
    effects = scored_effects(chain(points), settings)
    paid = math.fsum(effect for effect in effects if effect and effect > 0)
    first, last = points[0], points[-1]
    if first is None or last is None:
        assert paid == 0
    else:
        assert paid <= max(0.0, last - first) / settings.reference + 1e-9
    assert all(effect is None or -1 <= effect <= 1 for effect in effects)


@given(st.lists(st.builds(Step, POINTS, POINTS, st.just(True)), min_size=1, max_size=9), SETTINGS)
def test_the_guard_holds_where_texts_do_not_follow_each_other(
    steps: list[Step], settings: EffectSettings
) -> None:
    effects = scored_effects(steps, settings)
    whole = Step(steps[0].before, steps[-1].after).gain
    paid = math.fsum(effect for effect in effects if effect and effect > 0)
    assert paid <= max(0.0, whole or 0.0) / settings.reference + 1e-9
    for step, effect in zip(steps, effects, strict=True):
        if step.gain is None:
            assert effect is None
        elif step.gain < 0:
            # the guard takes gains and leaves losses alone
            lost = 0.0 if -step.gain < settings.dead_band else step.gain / settings.reference
            assert effect == max(-1.0, lost)


@given(st.integers(1, 6), st.floats(3, 10), st.floats(0.3, 2))
def test_damage_and_repair_earn_nothing_and_the_ladder_pays_each_cycle(
    cycles: int, good: float, damage: float
) -> None:
    steps = chain([good, *[good - damage, good] * cycles])
    paid = [effect for effect in scored_effects(steps, SCORED) if effect and effect > 0]
    assert not paid
    # net of the loss that it charges: +0.25 a cycle
    assert sum(effect or 0.0 for effect in ladder_effects(steps, LADDER)) == 0.25 * cycles


@given(st.lists(st.floats(-0.2, 0.2), min_size=1, max_size=8))
def test_small_losses_beneath_the_dead_band_do_not_pay_for_a_gain(losses: list[float]) -> None:
    points = [6.0]
    for loss in losses:
        points.append(points[-1] - abs(loss))
    effects = scored_effects(chain([*points, 6.0]), SCORED)
    assert all(effect is not None and effect <= 0 for effect in effects)


@pytest.mark.parametrize(
    ("points", "effects"),
    [
        ((5, 5.2), [0.0]),
        ((5, 5.25), [0.25]),
        ((5, 8), [1.0]),
        ((5, 4.5), [-0.5]),
        # half of what was gained is lost again
        ((5, 6, 5.5), [0.5, -0.5]),
        ((5, None, 6), [None, None]),
        # what comes before a lost text may have been better than what comes after it
        ((None, 3, 7), [None, None]),
        ((7, 3, None), [-1.0, None]),
    ],
)
def test_effects_by_hand(points: Sequence[float | None], effects: list[float | None]) -> None:
    assert scored_effects(chain(points), SCORED) == effects


def test_two_reflections_on_one_text_share_its_gain() -> None:
    assert scored_effects([Step(5, 5.8)] * 2, SCORED) == pytest.approx([0.4, 0.4])


def test_a_missing_effect_leaves_the_other_axes_their_weight() -> None:
    axes = {"relevance": 1.0, "constructiveness": 0.0, "efficiency": 0.5}
    # its value is a head of its own, which orders remarks as its report says
    learned = ItemScore("a", 0.9, {**axes, "effect": -1.0, "other": 3})
    bare = with_effect(learned, None)
    assert bare.value == pytest.approx(0.9) and "effect" not in bare.parts
    full = with_effect(learned, 0.5)
    assert full.value == pytest.approx(0.7 * 0.9 + 0.3 * 0.5) and full.parts["effect"] == 0.5
    # the rules name their axes, and their value is what these make: nothing else is paid
    rules = ItemScore("a", combine(axes), axes)
    assert with_effect(rules, 0.5).value == pytest.approx(combine({**axes, "effect": 0.5}))
    assert with_effect(ItemScore("a", 0.2), -1.0).value == pytest.approx(0.7 * 0.2 - 0.3)
    assert with_effect(ItemScore("a", 0.2), None).value == pytest.approx(0.2)
    lost = failed("a", ItemStatus.NO_SEGMENT, "empty")
    assert with_effect(lost, 1.0) is lost


class Shelf:
    """Scores of writings, by text; counts what it is asked."""

    id = "shelf"

    def __init__(self, **points: float) -> None:
        self.points = points
        self.asked: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {}

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        texts = [item.response for item in items if isinstance(item, WritingItem)]
        self.asked += texts
        return [
            ItemScore(item.id, to_value(self.points[text]))
            if text in self.points
            else failed(item.id, ItemStatus.TOO_LONG, "too long")
            for item, text in zip(items, texts, strict=True)
        ]


def remark(name: str, draft: str, revision: str | None, prompt: str = "p") -> ReflectionItem:
    return ReflectionItem(name, prompt, draft, f'"{draft}" is bare. Change it.', revision)


def test_each_text_is_scored_once_and_each_response_has_its_own_guard() -> None:
    shelf = Shelf(a=7, b=3, c=7)
    scorer = WithEffects(RulesScorer(), shelf, SCORED)
    items = [
        remark("0:0", "a", "b"), remark("0:1", "b", "c"),
        remark("1:0", "b", "c"), remark("2:0", "a", "z"), remark("2:1", "a", None),
    ]  # fmt: skip
    found = scorer.score(items)
    assert sorted(shelf.asked) == ["a", "b", "c", "z"]
    assert [score.parts.get("effect") for score in found] == [-1.0, 0.0, 1.0, None, None]
    alone = RulesScorer().score(items)
    assert found[4].value == pytest.approx(alone[4].value, abs=1e-6)
    assert abs((found[0].value or 0.0) - (alone[0].value or 0.0)) > 0.1
    assert [score.id for score in found] == [item.id for item in items]
    # the same words for another prompt are another text
    scorer.score([remark("0:0", "a", "b"), remark("1:0", "a", "b", "q")])
    assert sorted(shelf.asked[4:]) == ["a", "a", "b", "b"]
    assert scorer.id == "r2w-rules+scored:shelf" and scorer.describe()["effect"] == SCORED
    assert scorer.score([]) == []
    (text,) = scorer.score([WritingItem("w", "p", "a")])
    assert text.status is ItemStatus.BAD_ITEM


def test_none_is_the_process_scorer_itself() -> None:
    rules = RulesScorer()
    assert with_effects(rules, EffectSettings(), 1.0) is rules
    by_quality = with_effects(rules, SCORED, 1.0)
    draft, better = "It was very very good good.", "The ferry's horn came first, then a rope."
    (score,) = by_quality.score([remark("0:0", draft, better)])
    assert set(score.parts) == {"relevance", "constructiveness", "efficiency", "effect"}


def test_the_signal_is_of_the_scores_that_rl_would_see() -> None:
    def text(*versions: str) -> dict[str, str]:
        draft, *rest = versions
        steps = "".join(
            f"<reflection>change it {n}</reflection><revision>{one}</revision>"
            for n, one in enumerate(rest)
        )
        return {"prompt_id": "p", "prompt": "Write.",
                "text": f"<think><draft>{draft}</draft>{steps}</think>{versions[-1]}"}  # fmt: skip

    shelf = Shelf(a=7, b=3, c=7)
    whole = WithEffects(Constant(), shelf, SCORED)
    (group,) = score_groups([text("a", "b", "c"), text("b", "c")], shelf, whole)
    scores = [[segment.score for segment in one.segments] for one in group.rollouts]
    assert scores == [pytest.approx([-0.3, 0.0]), pytest.approx([0.3])]


class Constant(Shelf):
    """Nothing to say of any reflection but its effect."""

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        return [ItemScore(item.id, 0.0) for item in items]


@pytest.mark.parametrize("fault", ["malformed=1", "http429=0.3+retryafter=0", "malformed=0.6"])
def test_a_judge_that_fails_leaves_effects_missing_and_never_0(fault: str) -> None:
    quick = ModelOptions(client=ClientSettings(backoff_s=0.01, timeout_s=5.0))
    with FakeServer() as server:
        background = Background()
        patience = Patience(20.0, 0.05)
        judge = PatientJudge(f"{server.base_url}#judge-0+{fault}", quick, patience)
        texts = ItemJudge(judge, background)
        items = [remark(f"{n}:0", f"draft {n}", f"next {n}") for n in range(10)]
        found = WithEffects(Constant(), texts, EffectSettings("scored", dead_band=0.0)).score(items)
        texts.close()
    effects = [score.parts.get("effect") for score in found]
    if fault == "malformed=1":
        assert effects == [None] * 10 and all(score.value == 0.0 for score in found)
    elif "429" in fault:
        assert None not in effects
    else:
        assert 0 < effects.count(None) < 10
    assert judge.asked == 20


def test_settings_are_checked_and_missing_effects_are_reported() -> None:
    assert RLSettings().effect.form == "none"
    read = read_settings(RLSettings, {"effect": {"form": "ladder", "good": 6}}, "rl")
    assert read.effect == EffectSettings("ladder", good=6.0)
    for wrong in ({"form": "stairs"}, {"reference": 0}, {"dead_band": -1}, {"rung": 1}):
        with pytest.raises(UsageError, match="stairs|effect.reference 0|effect.dead_band|rung"):
            read_settings(RLSettings, {"effect": wrong}, "rl")
    log = [{"outcome/invalid": 0.0, "outcome/groups_without_reward": 0.0,
            "process/without_effect": 3.0}]  # fmt: skip
    (note,) = reward_notes(log, RLSettings(effect=SCORED))
    assert note.startswith("3 reflections had no effect") and not reward_notes(log, RLSettings())
    assert RLSettings().process_mapping == LocalMapping()
