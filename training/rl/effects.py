"""The axis `effect` of a reflection: how much better is the text after it than the one before?

A scorer of writings gives each text a score S in judge points (1 to 10; specification: r2write.md
section 6.2). dS is the score after a reflection minus the score before it.

scored   clip(dS / D_ref, -1, 1), 0 within the dead band. The positive effects of a response are
         scaled down so that they sum to at most max(0, S(last text) - S(first draft)) / D_ref:
         damage that is then repaired earns nothing
ladder   +0.5 improved, +0.25 a good text left as good, 0 otherwise unchanged, -0.25 degraded
         (SRPO). For comparison: each cycle of damage and repair earns +0.25

If a text has no score, the effects of its steps are missing, not 0, and the other axes weigh more.
If the first or the last text has none, the positive effects are missing, since they cannot be
bounded.
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
    """How the effect of a reflection on the text is measured.

    form: `none` takes the process scorer's own; `scored`, or `ladder` for comparison (effects.py)
    scorer: of writings, as in r2w-eval score --scorer; judge:MODEL for an LLM. Values in [-1, 1]
        are mapped to 1 to 10 points
    reference: D_ref, the gain in points that counts as 1
    dead_band: changes of fewer points count as 0
    good: points from which an unchanged text earns something (ladder)
    """

    form: Literal["none", "scored", "ladder"] = "none"
    scorer: str = NAME
    reference: float = 1.0
    dead_band: float = DEAD_BAND
    good: float = 7.0

    def __post_init__(self) -> None:
        """Raises UsageError for a number out of its range."""
        allowed = {POSITIVE: ("reference",), NOT_NEGATIVE: ("dead_band",), FINITE: ("good",)}
        check_numbers("effect", self, allowed)


class Step(NamedTuple):
    """Scores of the texts before and after a reflection; None for a text without a score.

    has_after: a text follows, scored or not. None follows the last reflection of a response that
        breaks off; the text before it is then the last
    """

    before: float | None
    after: float | None
    has_after: bool = True

    @property
    def gain(self) -> float | None:
        """After minus before."""
        return None if self.before is None or self.after is None else self.after - self.before


def scored_effects(steps: Sequence[Step], settings: EffectSettings) -> list[float | None]:
    """Effects by the form `scored` of a response's reflections, in order.

    >>> scored_effects([Step(7, 3), Step(3, 7)], EffectSettings())
    [-1.0, 0.0]
    >>> scored_effects([Step(6, 6.5), Step(6.5, 7.5)], EffectSettings())
    [0.5, 1.0]
    >>> scored_effects([Step(5, 3), Step(3, 5), Step(5, None, False)], EffectSettings())
    [-1.0, 0.0, None]
    """
    effects = [_clipped(step.gain, settings) for step in steps]
    paid = math.fsum(effect for effect in effects if effect and effect > 0)
    if not paid:
        return effects
    last = next(step.after for step in reversed(steps) if step.has_after)
    whole = Step(steps[0].before, last).gain
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
    """Effects by the form `ladder` of a response's reflections, in order.

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
    """A process score with its effect axis replaced; `effect` None leaves the axis out.

    The scorer's own value stands for each of the three other axes, since the value, not the axes,
    is what the validity report covers. A score without a value stays without one: the effect alone
    would reward an empty remark that happens to precede a better text.
    """
    if score.value is None:
        return score
    parts = {name: part for name, part in score.parts.items() if name != EFFECT}
    own = {} if effect is None else {EFFECT: effect}
    others = dict.fromkeys((axis for axis in AXIS_WEIGHTS if axis != EFFECT), score.value)
    return replace(score, value=combine(others | own), parts=parts | own)


class WithEffects:
    """A process scorer whose effect axis comes from another scorer, applied to the texts.

    Reflections of one completion must be adjacent, with ids as `completions.reflections` makes
    them. Each distinct text of a call is scored once.
    """

    def __init__(self, process: ItemScorer, texts: ItemScorer, settings: EffectSettings) -> None:
        self._process = process
        self._texts = texts
        self._settings = settings

    @property
    def id(self) -> str:
        """Names of both scorers, and the form."""
        return f"{self._process.id}+{self._settings.form}:{self._texts.id}"

    def describe(self) -> Mapping[str, Any]:
        """Descriptions of both scorers, and the settings."""
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
            steps = [
                Step(
                    points[i.prompt, i.draft], points[i.prompt, i.revision], i.revision is not None
                )
                for i in own
            ]
            effects += form(steps, self._settings)
        return effects

    def _points(
        self, items: Sequence[ReflectionItem]
    ) -> dict[tuple[str, str | None], float | None]:
        """Judge points by (prompt, text); None if the text is missing or has no score."""
        versions = dict.fromkeys((i.prompt, text) for i in items for text in (i.draft, i.revision))
        known = [(prompt, text) for prompt, text in versions if text is not None]
        writings = [WritingItem(str(n), *version) for n, version in enumerate(known)]
        points: dict[tuple[str, str | None], float | None] = dict.fromkeys(versions)
        for version, score in zip(known, self._texts.score(writings), strict=True):
            points[version] = None if score.value is None else to_mark(score.value)
        return points


def _completion_of(item: ReflectionItem) -> str:
    """The name of the completion that a reflection belongs to (`completions.reflections`)."""
    return item.id.rpartition(":")[0]


def with_effects(process: ItemScorer, settings: EffectSettings, patience_s: float) -> ItemScorer:
    """The process scorer with effects as the settings say. Raises UsageError."""
    if settings.form == "none":
        return process
    return WithEffects(process, open_scorer(settings.scorer, patience_s), settings)
