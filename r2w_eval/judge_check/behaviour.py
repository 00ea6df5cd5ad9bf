"""How a judge scores, whatever people say: leniency, spread, length, order, self-consistency.

Pure functions over `Readings`. Sources: harness B2 (length), W3 (order), E3 (repeats), A7 (alpha).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from r2w_eval.estimates import mean_of, share_of
from r2w_eval.judge_check.figures import Readings, order_pairs, rescale, text_place
from r2w_eval.judge_check.labelled import LabelledItem, LabelledText
from r2w_eval.stats.agreement import krippendorff_alpha
from r2w_eval.stats.inference import measure
from r2w_eval.stats.length_slope import LengthPoint, length_slope
from r2w_eval.stats.noise import Observation, noise_split
from r2w_eval.stats.orders import positions
from r2w_eval.types import Metric


def behaviour_figures(all_readings: Sequence[Readings]) -> tuple[Metric, ...]:
    """Every figure that the readings allow; what was not asked is not listed."""
    return (
        *_levels(all_readings),
        *_leniency(all_readings),
        *_slopes(all_readings),
        *_order_effects(all_readings),
        *_consistency(all_readings),
    )


def _texts(readings: Readings) -> Iterator[tuple[LabelledItem, LabelledText, float | None]]:
    for item in readings.labelled.items:
        for text in item.texts:
            yield item, text, readings.score(item, text.id)


def _levels(all_readings: Sequence[Readings]) -> Iterator[Metric]:
    """Mean score, and shares at the ends of the scale."""
    rows = [(r.cluster(item), value) for r in all_readings for item, _, value in _texts(r)]
    scored = [(cluster, value) for cluster, value in rows if value is not None]
    n_requests = len({cluster for cluster, _ in rows})
    yield measure(mean_of("mean_score", scored, n_requests))
    if all_readings and (scale := all_readings[0].scale):
        for name, bound in zip(("share_at_floor", "share_at_ceiling"), scale, strict=True):
            at = [(cluster, float(value == bound)) for cluster, value in scored]
            yield measure(share_of(name, at, n_requests))
    distinct = float(len({round(value, 1) for _, value in scored}))
    yield Metric("distinct_scores", distinct, None, None, len(scored), len(rows))


def _leniency(all_readings: Sequence[Readings]) -> Iterator[Metric]:
    """Judge minus people on rated texts, both mapped to 0 to 1; positive is lenient."""
    gaps: list[tuple[str, float]] = []
    expected: set[str] = set()
    for readings in all_readings:
        human_scale, own_scale = readings.labelled.spec.scale, readings.scale
        if human_scale is None or own_scale is None:
            continue
        for item, text, value in _texts(readings):
            if text.rating is not None:
                expected.add(readings.cluster(item))
            if text.rating is not None and value is not None:
                gap = rescale(value, own_scale, (0, 1)) - rescale(text.rating, human_scale, (0, 1))
                gaps.append((readings.cluster(item), gap))
    if expected:
        note = "judge minus people, as a share of each scale"
        yield measure(mean_of("leniency", gaps, len(expected), note=note))


def _slopes(all_readings: Sequence[Readings]) -> Iterator[Metric]:
    """Points per doubling of length among answers to one request; people's beside it."""
    own = [
        LengthPoint(text_place(item, "") + readings.cluster(item), value, len(text.text))
        for readings in all_readings
        for item, text, value in _texts(readings)
        if value is not None and text.text
    ]
    yield replace(length_slope(own), note="points per doubling of length, within a request")
    people = [
        LengthPoint(
            text_place(item, "") + readings.cluster(item),
            rescale(text.rating, readings.labelled.spec.scale, readings.scale),
            len(text.text),
        )
        for readings in all_readings
        if readings.labelled.spec.scale and readings.scale
        for item, text, _ in _texts(readings)
        if text.rating is not None and text.text
    ]
    if people:
        note = "the same of people's ratings, mapped to the judge's scale"
        yield replace(length_slope(people), name="length_slope:people", note=note)


def _order_effects(all_readings: Sequence[Readings]) -> Iterator[Metric]:
    pairs = [own for readings in all_readings for _, own in order_pairs(readings)]
    if pairs:
        found = positions(pairs)
        notes = {
            "first_wins": "share won by the text shown first; .5 is unbiased",
            "side_bias": "mean margin of the text shown first, labels -2 to 2; 0 is unbiased",
            "flip_rate": "winner changes with the order",
            "consistency": "same outcome in both orders",
        }
        for metric in (found.first_wins, found.side_bias, found.flip_rate, found.consistency):
            yield replace(metric, note=notes[metric.name])


def _consistency(all_readings: Sequence[Readings]) -> Iterator[Metric]:
    """What repeats of one question differ by; nothing without repeats."""
    repeated = [
        (readings.cluster(item), place, readings.scores[place])
        for readings in all_readings
        for item in readings.probes
        for text in item.texts
        if len(readings.scores.get(place := text_place(item, text.id), ())) > 1
    ]
    if not repeated:
        return
    alpha = krippendorff_alpha(
        [list(values) for _, _, values in repeated], clusters=[name for name, _, _ in repeated]
    )
    n = len(repeated)
    yield Metric("repeat_alpha", alpha.value, alpha.low, alpha.high, alpha.n_units, n)
    spans = [
        (cluster, max(present) - min(present))
        for cluster, _, values in repeated
        if len(present := [v for v in values if v is not None]) > 1
    ]
    n_requests = len({cluster for cluster, _, _ in repeated})
    note = "highest minus lowest of the repeats"
    yield measure(mean_of("repeat_range", spans, n_requests, note=note))
    rows = [
        Observation(f"{cluster}/{place}", value)
        for cluster, place, values in repeated
        for value in values
        if value is not None
    ]
    split = noise_split(rows) if len({row.item for row in rows}) > 1 else None
    if split is not None and split.var_sample is None and split.var_repeat is not None:
        note = "variance of repeats over all variance of scores"
        total = split.clipped[0] + split.clipped[2]
        share = split.clipped[2] / total if total else None
        yield Metric("repeat_variance_share", share, None, None, split.n_items, n, note=note)
