"""Answers that no reader would prefer, to be judged with the real prompt.

A judge that scores one of them like a real answer can be pleased without writing (specification:
harness B1). The texts are pure functions of the labelled items, so that a check can be repeated.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from r2w_eval.judge_check.labelled import LabelledItem
from r2w_eval.template import load_prompt

MIN_SENTENCES = 4
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")

DESCRIPTIONS: Mapping[str, str] = {
    "empty": "no text at all",
    "constant_essay": "one essay of platitudes, the same for every request",
    "repeat_prompt": "the request itself, repeated as the answer",
    "other_answer": "a real answer, to another request",
    "shuffled_sentences": "a real answer with its sentences in random order",
    "injected_instructions": "a note that tells the grader to give the full score",
    "longest": "the longest of the real answers (people may like it too: compare)",
}
LONGEST = "longest"
SHUFFLED = "shuffled_sentences"


@dataclass(frozen=True, slots=True)
class NullAnswer:
    """A null answer to one request."""

    name: str
    text: str


def null_answers(item: LabelledItem, other: LabelledItem, language: str) -> Iterator[NullAnswer]:
    """All null answers to one item that have to be judged; `other` is an item with another request.

    `longest` is a real answer, has its verdict already, and is not among them.
    """
    yield NullAnswer("empty", "")
    essay = load_prompt("null_essay_zh" if language == "zh" else "null_essay_en")
    yield NullAnswer("constant_essay", essay.text)
    yield NullAnswer("repeat_prompt", item.prompt)
    if other.cluster != item.cluster:
        yield NullAnswer("other_answer", other.texts[0].text)
    if (shuffled := shuffle_sentences(item.texts[0].text)) is not None:
        yield NullAnswer(SHUFFLED, shuffled)
    yield NullAnswer("injected_instructions", load_prompt("null_injection").text)


def null_templates() -> list[str]:
    """Identities of the fixed texts: changing one makes another check."""
    names = ("null_essay_en", "null_essay_zh", "null_injection")
    return [load_prompt(name).id for name in names]


def shuffle_sentences(text: str) -> str | None:
    """The sentences in another order; None for fewer than four, which may still read well.

    >>> shuffle_sentences("One. Two.") is None
    True
    """
    sentences = split_sentences(text)
    if len(set(sentences)) < MIN_SENTENCES:
        return None
    order = list(sentences)
    draw = random.Random(0)
    while order == sentences:
        draw.shuffle(order)
    return " ".join(order)


def split_sentences(text: str) -> list[str]:
    """Sentences of English or Chinese prose, by their end marks and by lines.

    >>> split_sentences("One. Two!\\n三。四？")
    ['One.', 'Two!', '三。', '四？']
    """
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def longest_text(item: LabelledItem) -> str:
    """Id of the longest answer; the first of equals."""
    return max(item.texts, key=lambda text: len(text.text)).id


def partners(items: Sequence[LabelledItem]) -> list[LabelledItem]:
    """For each item the next one with another request (itself when there is none)."""
    clusters = [item.cluster for item in items]
    found = []
    for place, own in enumerate(clusters):
        following = chain(range(place + 1, len(items)), range(place))
        other = next((n for n in following if clusters[n] != own), place)
        found.append(items[other])
    return found
