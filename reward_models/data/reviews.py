"""Rows from peer reviews: what is a request, what is substantiated, what the authors acted on.

F1000RD: requests (Todo) against recap, structure, praise and the rest. SubstanReview: negative
claims with a justification against bare ones, cut to windows of one length so that length carries
no label. DISAPERE (research only): criticism acted on against disputed criticism.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from r2w_eval.reward_models.data.rows import POSITIVE, Row
from r2w_eval.reward_models.data.sources import LabelledSet
from r2w_eval.reward_models.items import ReflectionItem

REVIEW_PROMPT = "Review this manuscript."
CONTEXT_SENTENCES = 2
WINDOW_CHARS = 320
# constructiveness of a sentence by its label: a request, a problem, anything else
REQUEST_VALUE: Mapping[str, float] = {"Todo": 1.0, "Weakness": 0.0}
_EDGE = re.compile(r"\s+\S*$")


def build_f1000rd(data: LabelledSet) -> Iterator[Row]:
    """One row per review sentence; the draft is the text before it."""
    for review in data.read("reviews.jsonl"):
        texts = [s["text"].strip() for s in review["sentences"]]
        for place, sentence in enumerate(review["sentences"]):
            if len(texts[place]) < 8:
                continue
            base = f"f1000rd:{review['review_id']}:{place}"
            label = sentence["label"]
            item = ReflectionItem(base, REVIEW_PROMPT, _context(texts, place), texts[place])
            kind = POSITIVE if label == "Todo" else f"neg_{label.lower()}"
            labels = {"constructiveness": REQUEST_VALUE.get(label, -1.0)}
            group = f"f1000rd:{review['submission']}"
            yield data.row(item, group, kind, base, labels, meta={"label": label})


def _context(texts: Sequence[str], place: int) -> str:
    before = " ".join(texts[max(0, place - CONTEXT_SENTENCES) : place])
    return before or "(start of the review)"


def build_substanreview(data: LabelledSet) -> Iterator[Row]:
    """One row per negative claim: with linked justification (+), or bare (-)."""
    for record in data.read("train.jsonl"):
        linked = {s["label"][8:] for s in record["spans"] if s["label"].startswith("Jus_neg_")}
        for span in record["spans"]:
            if not span["label"].startswith("Eval_neg_"):
                continue
            number = span["label"][9:]
            base = f"substan:{record['id']}:{number}:{span['start']}"
            justified = number in linked
            item = ReflectionItem(
                base, REVIEW_PROMPT, record["review"][: span["start"]][-600:].strip() or "(start)",
                claim_window(record["review"], span["start"], span["end"]),
            )  # fmt: skip
            kind, value = (POSITIVE, 0.6) if justified else ("neg_bare", -0.6)
            yield data.row(
                item, f"substan:{record['id']}", kind, base, {"constructiveness": value},
                meta={"claim": span["text"].strip()},
            )  # fmt: skip


def claim_window(review: str, start: int, end: int) -> str:
    """The claim and what follows, WINDOW_CHARS in all, ending at a word."""
    text = review[start : max(end, start + WINDOW_CHARS)]
    if start + len(text) < len(review):
        text = _EDGE.sub("", text) or text
    return text.strip()


def build_disapere(data: LabelledSet) -> Iterator[Row]:
    """Criticism that the authors acted on or conceded (+), or disputed (-)."""
    for review in data.read("reviews.jsonl"):
        segments: Sequence[Mapping[str, Any]] = review["segments"]
        texts = [s["text"].strip() for s in segments]
        for place, segment in enumerate(segments):
            label = segment["author_response"]
            if not segment["is_criticism"] or label not in ("acted_or_conceded", "disputed"):
                continue
            base = f"disapere:{review['review_id']}:{place}"
            acted = label == "acted_or_conceded"
            item = ReflectionItem(base, REVIEW_PROMPT, _context(texts, place), texts[place])
            kind, value = (POSITIVE, 0.5) if acted else ("neg_disputed", -0.5)
            group = f"disapere:{review['title']}"
            yield data.row(item, group, kind, base, {"constructiveness": value}, weight=0.5)
