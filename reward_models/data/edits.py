"""Rows from edited texts: TETRA's editors and their reasons, marked answers of FG-RLHF.

TETRA: a rationale belongs to its rewrite; a rationale of another edit of the same type in the same
paper by the same editor does not. The leading type words of a rationale name the type and are
removed (specification: reward model, section 5).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r2w_eval.reward_models.data.lamp import untouched_span
from r2w_eval.reward_models.data.rows import POSITIVE, SEED, Row, negative
from r2w_eval.reward_models.data.sources import LabelledSet
from r2w_eval.reward_models.items import ReflectionItem, WritingItem
from r2w_eval.reward_models.language.phrasing import phrase, say

PAPER_PROMPT = "Edit this section of a research paper."
CONTEXT_CHARS = 600
MIN_RATIONALE_WORDS = 2
ANSWER_CATEGORIES: Mapping[str, str] = {
    "Irrelevant": "irrelevant",
    "Wrong-Grounding": "factuality",
    "Unverifiable": "unsupported",
    "Redundant": "redundancy",
    "Incoherent": "incoherent",
}
_TYPE = (
    r"(?:word choice|word usage|word order|style|readability|clarity|grammar|punctuation|"
    r"hyphenation|conciseness|flow|capitali[sz]ation|spelling|redundancy|repetitiveness|"
    r"consistency|parallelism|register|tense)"
)
_LEADING_TYPE = re.compile(rf"^\s*{_TYPE}(?:\s*[/;,]\s*{_TYPE})*\s*[-–—/.:;]+\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Edit:
    type: str
    span: str
    rewrite: str
    rationale: str
    draft: str
    revision: str


def strip_type(rationale: str) -> str:
    """A rationale without the type words that it begins with.

    >>> strip_type("style / readability - it's more natural")
    "it's more natural"
    """
    return _LEADING_TYPE.sub("", rationale).strip()


def build_tetra(data: LabelledSet) -> Iterator[Row]:
    """Rationales with their rewrites, and rationales or rewrites of another edit."""
    for number, document in enumerate(data.read("docs.jsonl")):
        rng = random.Random(f"{SEED}:{document['doc']}:{document['editor']}")
        edits = [e for section in document["sections"] for e in _edits(section)]
        written = [e for e in edits if len(e.rationale.split()) >= MIN_RATIONALE_WORDS]
        for place, edit in enumerate(written):
            base = f"tetra:{number}:{place}"
            positive = _tetra_positive(base, f"tetra:{document['doc']}", edit, data)
            yield positive
            yield from _tetra_negatives(positive, edit, written, rng)


def _edits(section: Mapping[str, Any]) -> Iterator[_Edit]:
    original = section["original"]
    for edit in section["edits"]:
        start, end = edit["start"], edit["end"]
        if original[start:end] != edit["span"]:
            continue
        left, right = _window(original, start, end)
        draft = original[left:right]
        revised = f"{original[left:start]}{edit['rewrite']}{original[end:right]}"
        if not edit["span"]:
            revised = f"{original[left:start]} {edit['rewrite']} {original[end:right]}"
        rationale = strip_type(edit.get("rationale") or "")
        yield _Edit(edit["type"], edit["span"], edit["rewrite"], rationale, draft,
                    " ".join(revised.split()))  # fmt: skip


def _window(text: str, start: int, end: int) -> tuple[int, int]:
    """Sentence-like context of the edit, at most CONTEXT_CHARS wide on each side."""
    left = max(0, start - CONTEXT_CHARS)
    right = min(len(text), end + CONTEXT_CHARS)
    cut = text.find(". ", left, start) if left else -1
    stop = text.rfind(". ", end, right) if right < len(text) else -1
    return (cut + 2 if cut >= 0 else left), (stop + 1 if stop >= 0 else right)


def _tetra_positive(base: str, group: str, edit: _Edit, data: LabelledSet) -> Row:
    item = ReflectionItem(f"{base}:pos", PAPER_PROMPT, edit.draft, edit.rationale, edit.revision)
    labels = {"relevance": 1.0, "constructiveness": 1.0}
    meta = {"type": edit.type, "span": edit.span, "rewrite": edit.rewrite}
    return data.row(item, group, POSITIVE, base, labels, meta=meta)


def _tetra_negatives(
    positive: Row, edit: _Edit, written: Sequence[_Edit], rng: random.Random
) -> Iterator[Row]:
    wrong = {"relevance": -1.0, "constructiveness": -1.0}
    others = [e for e in written if e.type == edit.type and e.rationale != edit.rationale]
    if others:
        yield negative(positive, "neg_rationale", wrong, reflection=rng.choice(others).rationale)
        other = rng.choice(others)
        if swapped := _apply(edit.draft, other):
            yield negative(positive, "neg_rewrite", {"constructiveness": -1.0}, revision=swapped)
    far = [e for e in written if e.type != edit.type and e.rationale != edit.rationale]
    if far:
        yield negative(positive, "neg_other_type", wrong, reflection=rng.choice(far).rationale)
    yield negative(positive, "neg_praise", wrong, reflection=say("praise", "en", rng))
    yield negative(
        positive, "neg_unchanged", {"constructiveness": -0.5, "effect": -0.7},
        revision=edit.draft,
    )  # fmt: skip


def _apply(draft: str, edit: _Edit) -> str | None:
    """Another edit carried out in this draft, where its span occurs."""
    if len(edit.span) > 3 and edit.span in draft:
        return draft.replace(edit.span, edit.rewrite, 1)
    return None


def build_fgrlhf(data: LabelledSet) -> Iterator[Row]:
    """Marked spans of long answers with their type, and the corrected answer."""
    for record in data.read("dev_feedback.jsonl"):
        rng = random.Random(f"{SEED}:{record['id']}")
        group = f"fgrlhf:{record['question'].lower()}"
        yield from _answer_rows(record, group, data)
        marked = [
            e for e in record["errors"] if e["type"] in ANSWER_CATEGORIES and e["span"].strip()
        ]
        for place, error in enumerate(marked[:5]):
            base = f"{record['id']}:{place}"
            category = ANSWER_CATEGORIES[error["type"]]
            item = ReflectionItem(
                f"{base}:pos", record["question"], record["draft"],
                phrase(category, error["span"], "en", rng), record["human_corrected"] or None,
            )  # fmt: skip
            positive = data.row(
                item, group, POSITIVE, base, {"relevance": 1.0, "constructiveness": 1.0},
                meta={"category": category, "span": error["span"]},
            )  # fmt: skip
            yield positive
            yield from _answer_negatives(positive, marked, rng)


def _answer_rows(record: Mapping[str, Any], group: str, data: LabelledSet) -> Iterator[Row]:
    """Draft below correction: an outcome pair."""
    if not record["human_corrected"] or record["human_corrected"] == record["draft"]:
        return
    pair = f"{record['id']}:outcome"
    texts = (("draft", record["draft"], -0.3), ("revised", record["human_corrected"], 0.3))
    for kind, text, value in texts:
        item = WritingItem(f"{record['id']}:{kind}", record["question"], text)
        yield data.row(item, group, kind, pair, {"outcome": value}, weight=0.3)


def _answer_negatives(
    positive: Row, marked: Sequence[Mapping[str, Any]], rng: random.Random
) -> Iterator[Row]:
    item = positive.item
    assert isinstance(item, ReflectionItem)
    category, span = positive.meta["category"], positive.meta["span"]
    texts = [e["span"] for e in marked]
    if untouched := untouched_span(item.draft, texts, len(span), rng):
        yield negative(
            positive, "neg_span", {"relevance": -1.0, "constructiveness": -0.5}, 0.5,
            reflection=phrase(category, untouched, "en", rng),
        )  # fmt: skip
    wrong = rng.choice([c for c in ANSWER_CATEGORIES.values() if c != category])
    yield negative(
        positive, "neg_category", {"relevance": -0.3}, reflection=phrase(wrong, span, "en", rng)
    )
