"""From a judge's readings of labelled texts to the figures of its card: pure, no calls.

In: `Readings`, one a set (scores of real and null answers, margins of pairs in both orders). Out:
agreement beside trivial rules, behaviour, null answers. Sources: harness A8, B1, B2, W3.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from r2w_eval.estimates import mean_of, share_of
from r2w_eval.judge_check.card import NullFigures, SetFigures
from r2w_eval.judge_check.labelled import LabelledItem, LabelledPair, LabelledSet, LabelledText
from r2w_eval.judge_check.nulls import DESCRIPTIONS, LONGEST, SHUFFLED, longest_text
from r2w_eval.stats.agreement import (
    Association,
    JudgedPair,
    Method,
    TieRule,
    associate,
    human_ceiling,
    mean_by_system,
    pair_accuracy,
)
from r2w_eval.stats.inference import compare, evaluate, measure
from r2w_eval.stats.orders import OrderPair, combined_label
from r2w_eval.types import Estimate, Metric

MAX_PARTS = 12
MIN_SYSTEMS = 4
HALF_TIES = "pairs that people tied are left out; a tie of the judge counts one half"


@dataclass(frozen=True)
class Readings:
    """One judge's verdicts on one labelled set.

    `scores[text_place(...)]` holds a value or None per repeat; `margins[pair_place(...)]` the
    margin of the text shown first, by order (`ab`: the first text of the pair is shown first).
    `scale` are the judge's lowest and highest score, None where it has no fixed scale.
    """

    labelled: LabelledSet
    scores: Mapping[str, Sequence[float | None]]
    margins: Mapping[str, Mapping[str, float | None]]
    probes: Sequence[LabelledItem]
    scale: tuple[float, float] | None

    def score(self, item: LabelledItem, text: str) -> float | None:
        """The first verdict on a text that was not lost."""
        return self.first(text_place(item, text))

    def first(self, place: str) -> float | None:
        """The first verdict at a place that was not lost."""
        return next((value for value in self.scores.get(place, ()) if value is not None), None)

    def cluster(self, item: LabelledItem) -> str:
        """What the bootstrap keeps together, unique over sets."""
        return f"{self.labelled.spec.name}/{item.cluster}"


def text_place(item: LabelledItem, text: str) -> str:
    """Where the verdicts on one text are found."""
    return f"{item.id}/{text}"


def null_place(item: LabelledItem, name: str) -> str:
    """Where the verdict on a null answer is found."""
    return text_place(item, f"null:{name}")


def pair_place(item: LabelledItem, pair: LabelledPair) -> str:
    """Where the two verdicts on a pair are found."""
    return text_place(item, f"{pair.first}|{pair.second}")


def pairs_of(labelled: LabelledSet) -> Iterator[tuple[LabelledItem, LabelledPair]]:
    """Every pair with its item."""
    return ((item, pair) for item in labelled.items for pair in item.pairs)


def score_pairs(readings: Readings) -> list[JudgedPair]:
    """All pairs, decided by the scores of their two texts."""
    pairs = []
    for item, pair in pairs_of(readings.labelled):
        first, second = readings.score(item, pair.first), readings.score(item, pair.second)
        gap = None if first is None or second is None else first - second
        pairs.append(JudgedPair(readings.cluster(item), pair.human, gap))
    return pairs


def order_pairs(readings: Readings) -> list[tuple[LabelledPair, OrderPair]]:
    """The pairs that were shown in both orders; margins are those of the pair's first text."""
    return [
        (pair, OrderPair.by_order(readings.cluster(item), pair.first, pair.second, margins))
        for item, pair in pairs_of(readings.labelled)
        if (margins := readings.margins.get(pair_place(item, pair))) is not None
    ]


def rule_margins(
    labelled: LabelledSet,
) -> dict[str, Callable[[LabelledItem, LabelledPair], float]]:
    """Trivial rules: a margin of the first text for any pair, from lengths and places alone."""
    wins = Counter(pair.human > 0 for _, pair in pairs_of(labelled) if pair.human)
    majority = 1.0 if wins[True] >= wins[False] else -1.0

    def longer(item: LabelledItem, pair: LabelledPair) -> float:
        return float(len(item.text(pair.first).text) - len(item.text(pair.second).text))

    return {
        "longer": longer,
        "shorter": lambda item, pair: -longer(item, pair),
        "first": lambda item, pair: 1.0,
        "majority": lambda item, pair: majority,
        "constant": lambda item, pair: 0.0,
    }


def set_figures(readings: Readings) -> SetFigures:
    """Agreement with people on one set, beside the trivial rules."""
    labelled = readings.labelled
    judged = score_pairs(readings)
    estimate = pair_accuracy(judged)
    rules = {
        name: pair_accuracy(
            [
                JudgedPair(readings.cluster(item), pair.human, margin(item, pair))
                for item, pair in pairs_of(labelled)
            ],
            name=name,
        )
        for name, margin in rule_margins(labelled).items()
    }
    best = max(rules, key=lambda name: evaluate(rules[name]) or 0.0)
    baselines = [measure(rule) for rule in rules.values()]
    if labelled.spec.scale:
        baselines.append(_length_correlation(readings))
    spec = labelled.spec
    return SetFigures(
        name=spec.name,
        kind=spec.kind,
        language=spec.language,
        licence=spec.licence,
        sha256=spec.sha256,
        n_prompts=len({item.cluster for item in labelled.items}),
        n_texts=sum(len(item.texts) for item in labelled.items),
        n_pairs=sum(pair.human != 0 for _, pair in pairs_of(labelled)),
        metrics=tuple(_agreement(readings, judged, estimate)),
        baselines=tuple(baselines),
        best_baseline=best,
        lift=_lift(estimate, rules[best]),
        notes=tuple(filter(None, (spec.note, HALF_TIES))),
    )


def _agreement(
    readings: Readings, judged: Sequence[JudgedPair], estimate: Estimate
) -> Iterator[Metric]:
    yield measure(estimate)
    if any(pair.human == 0 for pair in judged):
        yield measure(pair_accuracy(judged, TieRule.THREE_WAY, "pair_accuracy:three_way"))
    yield from _by_part(readings)
    if shown := order_pairs(readings):
        preferred = [JudgedPair(own.item, pair.human, combined_label(own)) for pair, own in shown]
        yield measure(pair_accuracy(preferred, name="preference_accuracy"))
    if readings.labelled.spec.scale:
        yield from _correlations(readings)
        yield from _ceiling(readings)


def _by_part(readings: Readings) -> Iterator[Metric]:
    """Pair accuracy of each part of a set that has a few, where people told a pair apart."""
    parts: defaultdict[str, list[LabelledItem]] = defaultdict(list)
    for item in readings.labelled.items:
        parts[item.part].append(item)
    if not 1 < len(parts) <= MAX_PARTS:
        return
    for name, items in sorted(parts.items()):
        part = replace(readings, labelled=replace(readings.labelled, items=tuple(items)))
        if any(pair.human for item in items for pair in item.pairs):
            yield measure(pair_accuracy(score_pairs(part), name=f"pair_accuracy/{name}"))


def _rated(readings: Readings) -> list[tuple[LabelledItem, LabelledText, float]]:
    """All texts that people scored."""
    return [
        (item, text, text.rating)
        for item in readings.labelled.items
        for text in item.texts
        if text.rating is not None
    ]


def _correlations(readings: Readings) -> Iterator[Metric]:
    rated = _rated(readings)
    human = [rating for _, _, rating in rated]
    judge = [readings.score(item, text.id) for item, text, _ in rated]
    clusters = [readings.cluster(item) for item, _, _ in rated]
    for method in (Method.SPEARMAN, Method.KENDALL, Method.PEARSON):
        yield _as_metric(method, associate(human, judge, method, clusters=clusters), len(rated))
    if (scale := readings.labelled.spec.scale) and readings.scale:
        mapped = [None if v is None else rescale(v, readings.scale, scale) for v in judge]
        kappa = associate(human, mapped, Method.KAPPA, clusters=clusters)
        note = "the judge's scale mapped linearly to people's"
        yield _as_metric(Method.KAPPA, kappa, len(rated), note)
    yield from _by_system(rated, judge)


def _by_system(
    rated: Sequence[tuple[LabelledItem, LabelledText, float]], judge: Sequence[float | None]
) -> Iterator[Metric]:
    """Rank correlation of writers' mean scores."""
    both = [
        (text.system, rating, value)
        for (_, text, rating), value in zip(rated, judge, strict=True)
        if value is not None and text.system
    ]
    human = mean_by_system((system, rating) for system, rating, _ in both)
    own = mean_by_system((system, value) for system, _, value in both)
    if len(human) >= MIN_SYSTEMS:
        found = associate(list(human.values()), list(own.values()))
        yield _as_metric("spearman:systems", found, len(human), "n counts writers")


def _ceiling(readings: Readings) -> Iterator[Metric]:
    """One person against the others, and the judge against the same others."""
    rated = _rated(readings)
    people = [text.ratings for _, text, _ in rated]
    judge = [readings.score(item, text.id) for item, text, _ in rated]
    if max(map(len, people), default=0) < 2:
        return
    found = human_ceiling(people, judge, clusters=[readings.cluster(item) for item, _, _ in rated])
    if not found.n_humans:
        return
    note = "Spearman with the people left over"
    for name, own in (("person", found.human), ("judge", found.judge)):
        yield _as_metric(f"left_out:{name}", own, len(rated), note)


def _length_correlation(readings: Readings) -> Metric:
    rated = _rated(readings)
    found = associate(
        [rating for _, _, rating in rated],
        [float(len(text.text)) for _, text, _ in rated],
        clusters=[readings.cluster(item) for item, _, _ in rated],
    )
    return _as_metric("spearman:length", found, len(rated))


def _as_metric(name: str, found: Association, n_expected: int, note: str = "") -> Metric:
    return Metric(str(name), found.value, found.low, found.high, found.n, n_expected, note=note)


def _lift(judge: Estimate, rule: Estimate) -> Metric:
    """Difference of two shares, with its interval clipped to [-1, 1]."""
    found = compare(judge, rule)
    low, high = (None if x is None else min(1.0, max(-1.0, x)) for x in (found.low, found.high))
    name = f"pair_accuracy minus {rule.name}"
    return Metric(name, found.difference, low, high, found.n_common, judge.n_expected)


def rescale(value: float, source: tuple[float, float], target: tuple[float, float]) -> float:
    """A value on another scale, linearly.

    >>> rescale(5.5, (1, 10), (0, 3))
    1.5
    """
    share = (value - source[0]) / (source[1] - source[0])
    return target[0] + share * (target[1] - target[0])


def language_figures(all_readings: Iterable[Readings]) -> tuple[Metric, ...]:
    """Pair accuracy by language, over all sets that have it."""
    by_language: defaultdict[str, list[JudgedPair]] = defaultdict(list)
    for readings in all_readings:
        by_language[readings.labelled.spec.language] += score_pairs(readings)
    return tuple(
        measure(pair_accuracy(pairs, name=f"pair_accuracy/{language}"))
        for language, pairs in sorted(by_language.items())
    )


def null_figures(all_readings: Sequence[Readings]) -> tuple[NullFigures, ...]:
    """Every kind of null answer against the real answers to the same requests."""
    return tuple(_null(name, all_readings) for name in DESCRIPTIONS)


def _null(name: str, all_readings: Sequence[Readings]) -> NullFigures:
    gaps: list[tuple[str, float]] = []
    below: list[tuple[str, float]] = []
    nulls, reals = [], []
    asked: set[str] = set()
    for readings in all_readings:
        for item in readings.probes:
            place, others = _duel(name, readings, item)
            cluster = readings.cluster(item)
            if place in readings.scores:
                asked.add(cluster)
            value = readings.first(place)
            real = [own for text in others if (own := readings.score(item, text.id)) is not None]
            if value is None or not real:
                continue
            mean = sum(real) / len(real)
            nulls.append(value)
            reals.append(mean)
            gaps.append((cluster, mean - value))
            wins = sum((own > value) + (own == value) / 2 for own in real)
            below.append((cluster, wins / len(real)))
    return NullFigures(
        name=name,
        description=DESCRIPTIONS[name],
        n_prompts=len(nulls),
        mean=fmean(nulls) if nulls else None,
        real_mean=fmean(reals) if reals else None,
        below=measure(share_of("share below real answers", below, len(asked))),
        gap=measure(mean_of("real minus null", gaps, len(asked))),
        weakest_system=None if name == LONGEST else _weakest_system(all_readings),
    )


def _duel(name: str, readings: Readings, item: LabelledItem) -> tuple[str, Sequence[LabelledText]]:
    """The place of the null answer's verdict, and the real answers that it is compared with."""
    if name == LONGEST:
        own = longest_text(item)
        return text_place(item, own), [text for text in item.texts if text.id != own]
    place = null_place(item, name)
    return place, item.texts[:1] if name == SHUFFLED else item.texts


def _weakest_system(all_readings: Iterable[Readings]) -> float | None:
    """Mean of the weakest writer on the probed requests, where writers are named."""
    rows = [
        (f"{readings.labelled.spec.name}/{text.system}", value)
        for readings in all_readings
        for item in readings.probes
        for text in item.texts
        if text.system and (value := readings.score(item, text.id)) is not None
    ]
    return min(mean_by_system(rows).values(), default=None)
