"""The axis `effect` of a reflection by scores: is the text after it better than the one before?

A step is a reflection between two texts; S is what a scorer of writings gives them, in judge points
(1 to 10; specification: r2write.md section 6.2).

scored   clip(dS / D_ref, -1, 1), 0 within the dead band. The positive effects of a response sum to
         max(0, S(last text) - S(first draft)) / D_ref at most: damage that is then repaired earns
         nothing
ladder   +0.5 improved, +0.25 a good text held, 0 none, -0.25 degraded (SRPO). It pays +0.25 for
         every cycle of damage and repair, and is here to be compared with

A text without a score leaves the effect of its steps missing, never 0: the other axes then weigh
more. Where the first or the last text has none, no gain can be vouched for, and gains are missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal, NamedTuple

from r2w_eval.reward_models.axes import AXIS_WEIGHTS, combine
from r2w_eval.reward_models.items import Item, ItemScore, ReflectionItem, WritingItem
from r2w_eval.reward_models.judge import to_mark
from r2w_eval.reward_models.scorer import NAME, ItemScorer, open_scorer
from r2w_eval.training.limits import FINITE, NOT_NEGATIVE, POSITIVE, check_numbers

from r2w_eval.reflection.analysis import DEAD_BAND

EFFECT = "effect"
IMPROVED, HELD, DEGRADED = 0.5, 0.25, -0.25


@dataclass(frozen=True)
class EffectSettings:
    """Who says what a reflection did to the text.

    form: `none` leaves it to the process scorer; `scored`, or `ladder` for comparison (effects.py)
    scorer: of writings, as in r2w-eval score --scorer; judge:MODEL for an LLM. Values in [-1, 1]
        stand for 1 to 10 points
    reference: D_ref, the gain that counts as 1; points
    dead_band: smaller changes are none; points
    good: from here on a text that is held is worth something (ladder); points
    """

    form: Literal["none", "scored", "ladder"] = "none"
    scorer: str = NAME
    reference: float = 1.0
    dead_band: float = DEAD_BAND
    good: float = 7.0

    def __post_init__(self) -> None:
        """Raises UsageError for a number that turns a gain into a loss."""
        allowed = {POSITIVE: ("reference",), NOT_NEGATIVE: ("dead_band",), FINITE: ("good",)}
        check_numbers("effect", self, allowed)


class Step(NamedTuple):
    """Scores of the text before a reflection and of that after it; None where there is none."""

    before: float | None
    after: float | None

    @property
    def gain(self) -> float | None:
        """After minus before."""
        return None if self.before is None or self.after is None else self.after - self.before


def scored_effects(steps: Sequence[Step], settings: EffectSettings) -> list[float | None]:
    """The effects of a response's reflections, in order, under the guard.

    >>> scored_effects([Step(7, 3), Step(3, 7)], EffectSettings())
    [-1.0, 0.0]
    >>> scored_effects([Step(6, 6.5), Step(6.5, 7.5)], EffectSettings())
    [0.5, 1.0]
    """
    effects = [_clipped(step.gain, settings) for step in steps]
    paid = math.fsum(effect for effect in effects if effect and effect > 0)
    if not paid:
        return effects
    whole = Step(steps[0].before, steps[-1].after).gain
    if whole is None:
        return [None if effect and effect > 0 else effect for effect in effects]
    share = min(1.0, max(0.0, whole) / settings.reference / paid)
    return [effect * share if effect and effect > 0 else effect for effect in effects]


def _clipped(gain: float | None, settings: EffectSettings) -> float | None:
    if gain is None:
        return None
    if abs(gain) < settings.dead_band:
        return 0.0
    return max(-1.0, min(1.0, gain / settings.reference))


def ladder_effects(steps: Sequence[Step], settings: EffectSettings) -> list[float | None]:
    """The same by SRPO's steps, without a guard.

    >>> ladder_effects([Step(8, 8), Step(8, 3), Step(3, 8), Step(3, None)], EffectSettings())
    [0.25, -0.25, 0.5, None]
    """
    return [_rung(step, settings) for step in steps]


def _rung(step: Step, settings: EffectSettings) -> float | None:
    if step.gain is None or step.before is None:
        return None
    if abs(step.gain) < settings.dead_band:
        return HELD if step.before >= settings.good else 0.0
    return IMPROVED if step.gain > 0 else DEGRADED


FORMS = {"scored": scored_effects, "ladder": ladder_effects}


def with_effect(score: ItemScore, effect: float | None) -> ItemScore:
    """A process score with this effect beside it; None: the axis is missing.

    The scorer's own value speaks for the three other axes: it is what the validity report is of,
    and a head of its own in a learned scorer, whose axes together order remarks otherwise. Without
    its value there is none: the effect alone would pay an empty remark before a better text.
    """
    if score.value is None:
        return score
    parts = {name: part for name, part in score.parts.items() if name != EFFECT}
    own = {} if effect is None else {EFFECT: effect}
    others = dict.fromkeys((axis for axis in AXIS_WEIGHTS if axis != EFFECT), score.value)
    return replace(score, value=combine(others | own), parts=parts | own)


class WithEffects:
    """A process scorer whose axis `effect` is by another scorer of the texts.

    Reflections of one completion follow each other, under ids as `completions.reflections` gives
    them. Every distinct text of a call is scored once.
    """

    def __init__(self, process: ItemScorer, texts: ItemScorer, settings: EffectSettings) -> None:
        self._process = process
        self._texts = texts
        self._settings = settings

    @property
    def id(self) -> str:
        """Both scorers' names, and the form."""
        return f"{self._process.id}+{self._settings.form}:{self._texts.id}"

    def describe(self) -> Mapping[str, Any]:
        """What changes either."""
        return {
            "process": dict(self._process.describe()),
            "texts": dict(self._texts.describe()),
            "effect": self._settings,
        }

    def score(self, items: Sequence[Item]) -> list[ItemScore]:
        """One score per item, in order."""
        scores = self._process.score(items)
        reflections = [item for item in items if isinstance(item, ReflectionItem)]
        effects = iter(self._effects(reflections))
        return [
            with_effect(score, next(effects)) if isinstance(item, ReflectionItem) else score
            for item, score in zip(items, scores, strict=True)
        ]

    def _effects(self, items: Sequence[ReflectionItem]) -> list[float | None]:
        points = self._points(items)
        form = FORMS[self._settings.form]
        effects: list[float | None] = []
        for _, own in groupby(items, _completion_of):
            steps = [Step(points[i.prompt, i.draft], points[i.prompt, i.revision]) for i in own]
            effects += form(steps, self._settings)
        return effects

    def _points(
        self, items: Sequence[ReflectionItem]
    ) -> dict[tuple[str, str | None], float | None]:
        """Judge points by prompt and text; None where a text is absent or has no score."""
        versions = dict.fromkeys((i.prompt, text) for i in items for text in (i.draft, i.revision))
        known = [(prompt, text) for prompt, text in versions if text is not None]
        writings = [WritingItem(str(n), *version) for n, version in enumerate(known)]
        points: dict[tuple[str, str | None], float | None] = dict.fromkeys(versions)
        for version, score in zip(known, self._texts.score(writings), strict=True):
            points[version] = None if score.value is None else to_mark(score.value)
        return points


def _completion_of(item: ReflectionItem) -> str:
    """What `completions.reflections` was told to call the completion."""
    return item.id.rpartition(":")[0]


def with_effects(process: ItemScorer, settings: EffectSettings, patience_s: float) -> ItemScorer:
    """The process scorer with the effects that the settings name. Raises UsageError."""
    if settings.form == "none":
        return process
    return WithEffects(process, open_scorer(settings.scorer, patience_s), settings)
