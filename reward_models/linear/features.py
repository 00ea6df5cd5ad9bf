"""Features of a reflection item: named numbers, and word tokens that the caller hashes.

`reflection_features` finds what the reflection points at (its quotations, else the sentence that it
shares most words with), what kind of problem it names, and what the revision changed there. Pure
functions, language-neutral where possible.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from r2w_eval.reward_models.items import ReflectionItem
from r2w_eval.reward_models.language.claims import agreement, mention, place_kinds
from r2w_eval.reward_models.language.cues import cue, unquoted
from r2w_eval.reward_models.language.filler import clean, split_with_ends
from r2w_eval.reward_models.language.levels import named_categories
from r2w_eval.reward_models.language.repeats import BY_CHANCE_RUNS, BY_CHANCE_WORDS, overlap
from r2w_eval.reward_models.language.words import (
    Difference,
    containment,
    content_words,
    difference,
    find_spans,
    quotations,
    sentence_numbers,
    sentences,
    words,
)

MAX_TARGETS = 6
# share of content words below which a sentence says little
_USUAL_CONTENT = 0.45
_CLOSING = "\"'”’」』》）) \n"
# Longer texts are cut here before anything is read of them; the scorer says so.
MAX_CHARS = 60_000


@dataclass(frozen=True, slots=True)
class Features:
    """Dense features by name, and tokens of the sparse features."""

    dense: dict[str, float]
    sparse: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """What the reflection points at: text, its token spans in the draft, and how certain it is."""

    text: str
    spans: tuple[tuple[int, int], ...]
    is_quoted: bool
    strength: float


def find_targets(reflection: str, draft: str) -> list[Target]:
    """The quotations with their places in the draft, else the sentence with most shared words."""
    quoted = quotations(reflection)[:MAX_TARGETS]
    if quoted:
        return [Target(q, tuple(find_spans(q, draft)), True, 1.0) for q in quoted]
    own = set(content_words(reflection))
    best, strength = "", 0.0
    for sentence in sentences(draft):
        shared = own & set(content_words(sentence))
        share = len(shared) / math.sqrt(len(own) or 1) / math.sqrt(len(sentence.split()) or 1)
        if len(shared) > 1 and share > strength:
            best, strength = sentence, share
    return [Target(best, tuple(find_spans(best, draft)), False, strength)] if best else []


def reflection_features(item: ReflectionItem) -> Features:
    """All features of one reflection item."""
    draft, reflection = item.draft[:MAX_CHARS], clean(item.reflection[:MAX_CHARS])
    targets = find_targets(reflection, draft)
    categories = named_categories(unquoted(reflection))
    dense = {
        **_pointing(targets, item, draft, reflection),
        **_manner(reflection, categories),
        **_redundancy(reflection, item.latest),
    }
    structure = _structure(targets, draft, item.prompt)
    sparse = [f"r:{w}" for w in _grams(unquoted(reflection))]
    sparse += [f"c:{c}" for c in categories]
    flags = [*_bins(structure), *_shape(targets)]
    dense |= {f"t:{name}": value for name, value in structure.items()}
    for category in categories or ("none",):
        sparse += [f"cs:{category}:{name}" for name in flags or ["plain"]]
        sparse += [f"cw:{category}:{w}" for t in targets for w in set(content_words(t.text))]
    if item.revision is not None:
        revision = without_remark(item.revision[:MAX_CHARS], item.reflection, draft)
        change = difference(draft, clean(revision, draft))
        dense |= _uptake(targets, change, reflection)
        dense |= agreement(unquoted(reflection), change) | mention(reflection, change)
        kinds = sorted(place_kinds(change))
        sparse += [f"k:{k}" for k in kinds]
        sparse += [f"kc:{k}:{c}" for k in kinds for c in categories or ("none",)]
        if change.share < 0.3:
            near = set(content_words(unquoted(reflection)))
            sparse += [f"kr:{k}:{w}" for k in kinds for w in near]
    dense["has_revision"] = float(item.revision is not None)
    return Features(dense, tuple(sparse))


def without_remark(revision: str, remark: str, draft: str) -> str:
    """The revision without whole sentences of the remark, which are no change that it asks for: a
    policy that writes the remark under its text would be paid for uptake.

    >>> without_remark("He goes. The verb is wrong.", "The verb is wrong.", "He go.")
    'He goes.'
    """
    said = set(sentences(remark)) - set(sentences(draft))
    # a quotation that ends a sentence leaves its mark to the next one
    kept = [
        part for part in split_with_ends(revision) if part.lstrip(_CLOSING).rstrip() not in said
    ]
    return "".join(kept).strip() or revision


def _grams(text: str) -> list[str]:
    single = words(text)
    return [*dict.fromkeys(single), *dict.fromkeys(f"{a} {b}" for a, b in _pairs(single))]


def _pairs(items: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(items, items[1:], strict=False)


def _pointing(
    targets: Sequence[Target], item: ReflectionItem, draft: str, reflection: str
) -> dict[str, float]:
    """How the reflection refers to the draft and the prompt."""
    quoted = [t for t in targets if t.is_quoted]
    found = [t for t in quoted if t.spans]
    absent = [t for t in quoted if not t.spans]
    in_prompt = [t for t in absent if find_spans(t.text, item.prompt)]
    own = content_words(unquoted(reflection))
    return {
        "quotes": float(bool(quoted)),
        "quotes_found": len(found) / len(quoted) if quoted else 0.0,
        "quotes_absent": (len(absent) - len(in_prompt)) / len(quoted) if quoted else 0.0,
        "quotes_prompt": len(in_prompt) / len(quoted) if quoted else 0.0,
        "echo": max((t.strength for t in targets if not t.is_quoted), default=0.0),
        "overlap": containment(own, content_words(draft), 1),
        "overlap_prompt": containment(own, content_words(item.prompt), 1),
        "restates": containment(words(reflection), words(item.prompt), 4),
        "span_words": math.log1p(max((len(words(t.text)) for t in found), default=0)),
    }


def _manner(reflection: str, categories: frozenset[str]) -> dict[str, float]:
    bare = unquoted(reflection)
    names = ("request", "question", "praise", "generic", "hedge", "because", "negation")
    found = {f"has_{name}": float(bool(cue(name).search(bare))) for name in names}
    count = len(words(bare))
    return {
        **found,
        "categories": min(len(categories), 3) / 3,
        "no_category": float(not categories),
        "is_short": float(count < 4),
        "is_degenerate": float(_is_degenerate(reflection)),
        "specifics": min(3, len(cue("specific").findall(reflection))) / 3,
        "first_short": float(len(words(sentences(bare)[0] if sentences(bare) else "")) < 15),
    }


def _is_degenerate(text: str) -> bool:
    """Whether it cannot be a remark: fewer than three words, or few words over and over."""
    own = words(text)
    return len(own) < 3 or len(set(own)) / len(own) < 0.25


def _redundancy(reflection: str, earlier: Sequence[str]) -> dict[str, float]:
    near = [overlap(reflection, one) for one in earlier]
    # remarks share some words by chance; only more than that is repetition
    return {
        "repeated": max(0.0, max((o.runs for o in near), default=0.0) - BY_CHANCE_RUNS)
        / (1 - BY_CHANCE_RUNS),
        "repeated_words": max(0.0, max((o.words for o in near), default=0.0) - BY_CHANCE_WORDS)
        / (1 - BY_CHANCE_WORDS),
        "same_target": max((o.quotations for o in near), default=0.0),
        "times": min(sum(o.runs > 0.6 for o in near), 6) / 6,
    }


def _structure(targets: Sequence[Target], draft: str, prompt: str) -> dict[str, float]:
    """How the text pointed at differs from the rest of the draft."""
    if not targets:
        return {"no_target": 1.0}
    text = " ".join(t.text for t in targets)
    parts = sentences(draft)
    here = [i for i, s in enumerate(parts) if any(_holds(s, t.text) for t in targets)]
    rest = [s for i, s in enumerate(parts) if i not in here]
    twins = max((containment(words(text), words(s), 3) for s in rest), default=0.0)
    twice = max((draft.count(t.text) for t in targets if len(t.text) > 15), default=0) > 1
    near = max((containment(content_words(text), content_words(s), 1) for s in rest), default=0.0)
    return {
        "twin": max(twins, float(twice)),
        "near": near,
        "denied": float(near > 0.5 and _negations_differ(text, rest)),
        "authority": float(bool(cue("authority").search(text))),
        "cliche": min(1.0, len(cue("worn").findall(text)) / 2),
        "empty": _emptiness(text),
        "negated": float(bool(cue("negation").search(text))),
        "tense_off": _tense_gap(text, " ".join(rest)),
        "first": float(bool(here) and here[0] == 0),
        "last": float(bool(here) and here[-1] == len(parts) - 1),
        "sequence": float(bool(cue("sequence").search(text))),
        "in_prompt": containment(content_words(text), content_words(prompt), 1),
        "not_in_draft": float(all(not t.spans for t in targets)),
        "foreign": 1.0 - containment(content_words(text), content_words(" ".join(rest)), 1),
        "long": float(len(words(text)) > 25),
    }


def _bins(structure: dict[str, float]) -> list[str]:
    """The structure features as tokens, each at up to three levels."""
    found = []
    for name, value in structure.items():
        found += [f"{name}{step}" for step in (0.2, 0.4, 0.7) if value >= step]
    quiet = ("twin0.4", "authority0.7", "tense_off0.4", "not_in_draft0.7", "cliche0.2", "empty0.4")
    return found if any(name in found for name in quiet) else [*found, "unmarked"]


def _shape(targets: Sequence[Target]) -> list[str]:
    """Length and style of the text pointed at, as tokens."""
    text = " ".join(t.text for t in targets)
    size = len(words(text))
    found = [f"size{next((n for n in (2, 4, 8, 14, 22, 35) if size <= n), 99)}"]
    found += [f"commas{min(text.count(',') + text.count('，'), 3)}"]
    marks = ("simile", "abstract", "adverb", "emotion", "comment")
    found += [name for name in marks if cue(name).search(text)]
    if text[:1].isupper():
        found.append("starts")
    if text[-1:] in ".!?。！？":
        found.append("stops")
    return found


def _holds(sentence: str, text: str) -> bool:
    return bool(text) and (text in sentence or (len(sentence) > 10 and sentence in text))


def _negations_differ(text: str, others: Sequence[str]) -> bool:
    own = bool(cue("negation").search(text))
    marks = content_words(text)
    for other in others:
        if containment(marks, content_words(other), 1) > 0.5:
            return bool(cue("negation").search(other)) != own
    return False


def _emptiness(text: str) -> float:
    """How little a text says, from 0 to 1: by set phrases without content, or few content words."""
    own = words(text)
    share = len(content_words(text)) / len(own) if own else 0.0
    few = (_USUAL_CONTENT - share) / _USUAL_CONTENT if len(own) > 4 else 0.0
    return max(min(1.0, len(cue("idle").findall(text)) / 2), min(1.0, max(0.0, 2 * few)))


def _tense_gap(text: str, rest: str) -> float:
    """Absolute difference of the share of present-tense verbs between the text and the rest."""

    def present(part: str) -> float | None:
        now, then = len(cue("present").findall(part)), len(cue("past").findall(part))
        return now / (now + then) if now + then else None

    here, there = present(text), present(rest)
    return abs(here - there) if here is not None and there is not None else 0.0


def _uptake(targets: Sequence[Target], change: Difference, reflection: str) -> dict[str, float]:
    """Whether the revision changed what the reflection points at, and little else."""
    inside = _most_changed(targets, change)
    share = sum(change.changed[i] for i in inside) / len(inside) if inside else 0.0
    outside = len(change.changed) - len(set(inside))
    elsewhere = sum(change.changed) - sum(change.changed[i] for i in set(inside))
    lift = share - (elsewhere / outside if outside > 0 else 0.0)
    spilt = _spilt(change, inside)
    own = content_words(unquoted(reflection))
    moved = [w for w in words(" ".join((*change.removed, *change.added))) if len(w) > 1]
    absent = [t for t in targets if t.is_quoted and not t.spans]
    added = " ".join(change.added).lower()
    return {
        "unchanged": float(not change.hunks),
        "rewritten": max(0.0, spilt - 0.5) / 0.5,
        "replaced": float(spilt > 0.8),
        "uptake": share,
        "touched": float(share > 0),
        "missed": float(bool(inside) and share == 0 and bool(change.hunks)),
        "lift": lift,
        "added_wanted": float(any(t.text.lower() in added for t in absent)),
        "echo_change": containment(own, moved, 1),
        "quotes_change": float(any(set(words(t.text)) & set(moved) for t in targets)),
    }


def _spilt(change: Difference, inside: Sequence[int]) -> float:
    """Share of the draft that was changed; outside the sentences pointed at if that is less.

    Following a remark may change most of a short text, so only what was rewritten without being
    asked for counts against a revision.
    """
    numbers = sentence_numbers(change.draft)
    own = {numbers[i] for i in inside}
    rest = [was for was, number in zip(change.changed, numbers, strict=True) if number not in own]
    return min(change.share, sum(rest) / (len(rest) or 1))


def _most_changed(targets: Sequence[Target], change: Difference) -> list[int]:
    """Token indices of every target, at that of its places that was changed most."""
    chosen: list[int] = []
    for target in targets:
        if target.spans:
            best = max(target.spans, key=lambda span: sum(change.changed[span[0] : span[1]]))
            chosen += range(*best)
    return chosen
