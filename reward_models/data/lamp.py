"""Rows from LAMP: spans that professional writers marked in drafts, their category, the revision.

Negatives share draft, frames and revision with the positive and differ in one respect. Labels of
an unmarked span weigh half: unmarked is not proven good (specification: reward model, section 5).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r2w_eval.reward_models.data.rows import POSITIVE, SEED, Row, negative
from r2w_eval.reward_models.data.sources import LabelledSet
from r2w_eval.reward_models.items import ReflectionItem, WritingItem
from r2w_eval.reward_models.language.phrasing import phrase, say

CATEGORIES: Mapping[str, str] = {
    "Awkward Word Choice and Phrasing": "awkward",
    "Poor Sentence Structure": "sentence",
    "Cliche": "cliche",
    "Unnecessary/Redundant Exposition": "exposition",
    "Lack of Specificity and Detail": "vague",
    "Purple Prose": "purple",
    "Tense Inconsistency": "tense",
    "Punctuation": "punctuation",
    "Capitalization": "capitalization",
    "Factuality": "factuality",
    "Lacks personality": "personality",
}
PROMPT = "Write a paragraph of {kind}."
NEGATIVES_PER_SPAN = 4
SPANS_PER_DRAFT = 6
# points of 10 that count as the whole effect
POINTS_OF_WHOLE_EFFECT = 3.0


@dataclass(frozen=True, slots=True)
class _Span:
    text: str
    category: str
    draft: int


def build_lamp(data: LabelledSet) -> Iterator[Row]:
    """Process rows of every marked span, and outcome rows of drafts and revisions."""
    records = data.read("span_edits_train.jsonl")
    held_out = {_normal(r["paragraph"]) for r in data.read("edit_traces_val.jsonl")}
    for name in ("paragraph", "paragraph1", "paragraph2"):
        held_out |= {_normal(r[name]) for r in data.read("pairs_and_scores_val.jsonl") if name in r}
    records = [r for r in records if _normal(r["paragraph"]) not in held_out]
    spans = [
        [
            _Span(s["span"], CATEGORIES[s["category"]], i)
            for s in r["expert_spans"]
            if s["span"].strip()
        ]
        for i, r in enumerate(records)
    ]
    pool = [span for own in spans for span in own]
    for record, own in zip(records, spans, strict=True):
        rng = random.Random(f"{SEED}:{record['id']}")
        yield from _outcomes(record, data)
        if record.get("expert_revision"):
            yield from _process(record, own, records, pool, data, rng)


def _normal(text: str) -> str:
    return " ".join(text.split())[:200].lower()


def group_of(record: Mapping[str, Any]) -> str:
    """Split group: the source draft, shared by several writers."""
    return f"lamp:{_normal(record['paragraph'])[:80]}"


def scaled(score: float) -> float:
    """A score of 1 to 10 in [-1, 1].

    >>> scaled(10), scaled(1)
    (1.0, -1.0)
    """
    return (min(max(score, 1.0), 10.0) - 5.5) / 4.5


def _outcomes(record: Mapping[str, Any], data: LabelledSet) -> Iterator[Row]:
    texts = (
        ("paragraph", "draft_score_1to10", "draft"),
        ("expert_revision", "revision_score_1to10", "revised"),
    )
    for key, score_key, kind in texts:
        scores = record.get(score_key)
        if not record.get(key) or not scores:
            continue
        item = WritingItem(f"{record['id']}:{kind}", PROMPT.format(kind="fiction"), record[key])
        labels = {"outcome": scaled(sum(scores) / len(scores))}
        yield data.row(item, group_of(record), kind, f"{record['id']}:outcome", labels)


def points_gained(record: Mapping[str, Any]) -> float | None:
    """Mean score of the revision minus that of the draft, both from 1 to 10; None without one."""
    before, after = record.get("draft_score_1to10"), record.get("revision_score_1to10")
    if not before or not after:
        return None
    return float(sum(after) / len(after) - sum(before) / len(before))


def _process(
    record: Mapping[str, Any],
    own: Sequence[_Span],
    records: Sequence[Mapping[str, Any]],
    pool: Sequence[_Span],
    data: LabelledSet,
    rng: random.Random,
) -> Iterator[Row]:
    """Rows for some of the marked spans of a draft, each with some of its negatives.

    `own` are the draft's spans, `pool` those of all `records`.
    """
    gain = points_gained(record)
    for place, span in enumerate(rng.sample(own, min(len(own), SPANS_PER_DRAFT))):
        pair = f"{record['id']}:{place}"
        item = ReflectionItem(
            f"{pair}:pos",
            PROMPT.format(kind="fiction"),
            record["paragraph"],
            phrase(span.category, span.text, "en", rng),
            record["expert_revision"],
        )
        labels = {"relevance": 1.0, "constructiveness": 1.0, "efficiency": 1.0}
        if gain is not None:
            labels["effect"] = max(-1.0, min(1.0, gain / POINTS_OF_WHOLE_EFFECT))
        meta = {"category": span.category, "span": span.text}
        positive = data.row(item, group_of(record), POSITIVE, pair, labels, meta=meta)
        yield positive
        negatives = list(_negatives(positive, span, own, records, pool, rng))
        yield from rng.sample(negatives, min(NEGATIVES_PER_SPAN, len(negatives)))


def _negatives(
    positive: Row,
    span: _Span,
    own: Sequence[_Span],
    records: Sequence[Mapping[str, Any]],
    pool: Sequence[_Span],
    rng: random.Random,
) -> Iterator[Row]:
    item = positive.item
    assert isinstance(item, ReflectionItem)
    other = rng.choice([s for s in rng.choices(pool, k=50) if s.draft != span.draft])
    wrong = next((s.category for s in rng.choices(pool, k=50) if s.category != span.category), "")
    yield negative(
        positive, "neg_category", {"relevance": -0.3},
        reflection=phrase(wrong, span.text, "en", rng),
    )  # fmt: skip
    if untouched := untouched_span(item.draft, [s.text for s in own], len(span.text), rng):
        yield negative(
            positive, "neg_span", {"relevance": -1.0, "constructiveness": -0.5}, 0.5,
            reflection=phrase(span.category, untouched, "en", rng),
        )  # fmt: skip
    absent = {"relevance": -1.0, "constructiveness": -1.0, "effect": -1.0}
    yield negative(
        positive, "neg_other_draft", absent,
        reflection=phrase(other.category, other.text, "en", rng),
    )  # fmt: skip
    if item.revision and span.text not in item.revision:
        yield negative(
            positive, "neg_fixed", {"relevance": -1.0, "effect": -1.0},
            draft=item.revision, revision=item.revision,
        )  # fmt: skip
    foreign = records[other.draft].get("expert_revision")
    if foreign:
        yield negative(
            positive, "neg_revision", {"constructiveness": -1.0, "effect": -1.0}, revision=foreign
        )
    yield negative(
        positive, "neg_unchanged", {"constructiveness": -0.5, "effect": -0.7}, revision=item.draft
    )
    yield negative(positive, "neg_praise", absent, reflection=say("praise", "en", rng))
    vague = {"relevance": -0.6, "constructiveness": -0.6, "efficiency": -0.5}
    yield negative(positive, "neg_generic", vague, reflection=say("generic", "en", rng))
    yield negative(
        positive, "neg_repeat", {"efficiency": -1.0},
        earlier=(phrase(span.category, span.text, "en", rng), item.reflection)[rng.randint(0, 1):],
    )  # fmt: skip
    yield negative(
        positive, "neg_no_change", {"constructiveness": 0.0},
        reflection=phrase(span.category, span.text, "en", rng, "without_change"),
    )  # fmt: skip


def untouched_span(
    draft: str, marked: Sequence[str], length: int, rng: random.Random
) -> str | None:
    """Whole words of about `length` characters that overlap no marked text; None if there are
    none.
    """
    taken = [False] * len(draft)
    for text in marked:
        start = draft.find(text)
        for index in range(start, start + len(text)) if start >= 0 else ():
            taken[index] = True
    starts = [0, *(i + 1 for i, c in enumerate(draft) if c == " ")]
    rng.shuffle(starts)
    for start in starts:
        end = draft.find(" ", start + max(4, length - 3))
        end = len(draft) if end < 0 else end
        if end - start <= length + 25 and not any(taken[start:end]) and end - start > 3:
            return draft[start:end].strip(" ,;")
    return None
