"""Links of a reflection: what it targets, what the revision did there, whether it was said before.

In: a `Trace`. Out: one `ReflectionLink` per reflection, in order. Pure functions, close to linear
in the text. Definitions: docs/reflection.md; uptake lift: specification r2write, section 6.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from rapidfuzz import fuzz

from r2w_eval.trace.cues import lowered
from r2w_eval.trace.diff import Changes, Edit, diff, words_of
from r2w_eval.trace.levels import (
    Level,
    is_praise_only,
    level_of,
    names_problem,
    states_change,
)
from r2w_eval.trace.patches import Allowance, is_patch, revise
from r2w_eval.trace.tags import stripped
from r2w_eval.trace.types import Kind, Span, Step, Trace, steps

# A quotation counts as found at this similarity (per cent of its characters)
MIN_QUOTE_MATCH = 80.0
# Longer drafts are searched for exact quotations only
MAX_FUZZY_CHARS = 20_000
MAX_QUOTES = 20
# A reflection repeats an earlier one above this similarity
REPEAT_SIMILARITY = 0.8
# A revision shorter than this share of its base replaces a part of it, not the whole
PATCH_SHARE = 0.6
# A sentence this like the beginning of a short revision is what it replaces (per cent)
MIN_PATCH_LIKENESS = 50.0

_QUOTED = re.compile(
    r"[\"“]([^\"“”\n]{2,300})[\"”]|「([^」\n]{1,200})」|『([^』\n]{1,200})』"
    r"|(?<![\w])'([^'\n]{3,200})'(?![\w])"
)
_ORDINALS = {
    "one": 0, "two": 1, "three": 2, "four": 3, "five": 4, "1": 0, "2": 1, "3": 2, "4": 3, "5": 4,
    "first": 0, "opening": 0, "second": 1, "third": 2, "fourth": 3, "fifth": 4, "last": -1,
    "final": -1, "closing": -1, "一": 0, "二": 1, "三": 2, "四": 3, "五": 4, "首": 0, "末": -1,
    "最后一": -1, "尾": -1,
}  # fmt: skip
_NAMED = re.compile(
    r"\b(first|second|third|fourth|fifth|last|final|opening|closing) "
    r"(lines?|sentences?|paragraphs?|stanzas?)"
    r"|\b(line|sentence|paragraph|stanza) (one|two|three|four|five|[1-5])\b"
    r"|(?:第([一二三四五])|(最后一)|(首)|(末)|(尾))(?:个)?(句|段|行|节)"
)
# "in the end", "by the end of the day" point at no text
_ENDS = re.compile(
    r"\bthe (opening|ending|title)\b"
    r"|(?<!\bin )(?<!\bby )\bthe (beginning|start|close|end)\b(?! of the day)"
    r"|(开头|开篇|结尾|末尾|标题|题目)"
)
_UNIT_SPLITS = {
    "line": re.compile(r"\n+"),
    "paragraph": re.compile(r"\n\s*\n"),
    "sentence": re.compile(r"(?<=[.!?…])[\"'”’)]*\s+|(?<=[。！？])[”’」』]*|\n+"),
}
_CHINESE_UNITS = {"句": "sentence", "段": "paragraph", "行": "line", "节": "paragraph"}


class TargetKind(StrEnum):
    """How a reflection points at its target."""

    QUOTED = "quoted"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class Target:
    """A stretch of the base text that a reflection speaks of (characters of the base text)."""

    kind: TargetKind
    span: Span


@dataclass(frozen=True, slots=True)
class Uptake:
    """What the next text did with the targets.

    `lift` = share of words changed inside the targets - share changed elsewhere, in [-1, 1]; None
    without targets, or where all of the text is target.
    """

    inside: float | None
    elsewhere: float | None
    lift: float | None

    @property
    def is_taken_up(self) -> bool | None:
        """At least one word of a target changed; None without a target."""
        return None if self.inside is None else self.inside > 0


@dataclass(frozen=True, slots=True)
class ReflectionLink:
    """Everything known about one reflection without a judge.

    `base` and `outcome` are full texts: a revision that replaces a part is put into its base where
    the reflection points. `in_answer`: the final answer is the outcome. `edits` turn base into
    outcome. `specificity` is the share of three marks: a target is found, a problem is named, a
    change is stated. `similarity` is the highest to an earlier reflection.
    """

    step: Step
    text: str
    base: str | None
    outcome: str | None
    in_answer: bool
    targets: tuple[Target, ...]
    n_misquoted: int
    edits: tuple[Edit, ...]
    uptake: Uptake
    level: Level | None
    specificity: float
    similarity: float
    is_praise: bool

    @property
    def is_repeat(self) -> bool:
        """Says again what an earlier reflection said."""
        return self.similarity > REPEAT_SIMILARITY

    @property
    def is_useless(self) -> bool:
        """A repeat, praise without more, or a reflection that nothing followed from."""
        return self.is_repeat or self.is_praise or not self.edits


def link_reflections(trace: Trace) -> tuple[ReflectionLink, ...]:
    """One link per reflection of a trace."""
    versions = full_texts(trace)
    # reflections that follow each other share their texts
    changes = lru_cache(maxsize=2)(lambda base, outcome: Changes(base, diff(base, outcome)))
    links = []
    grams: list[frozenset[tuple[str, ...]]] = []
    for step in steps(trace):
        text = trace.text_of(step.reflection)
        own = word_grams(text)
        similarity = similarity_to(own, grams[-len(step.earlier) :])
        links.append(_link(trace, step, versions, changes, similarity))
        grams.append(own)
    return tuple(links)


def _link(
    trace: Trace,
    step: Step,
    versions: dict[int, str],
    changes: Callable[[str, str], Changes],
    similarity: float,
) -> ReflectionLink:
    text = trace.text_of(step.reflection)
    base = None if step.base is None else versions[step.base.span.start]
    in_answer = step.outcome is None and bool(trace.answer)
    outcome = trace.answer if in_answer else None
    if step.outcome is not None:
        outcome = versions[step.outcome.span.start]
    targets, n_misquoted = find_targets(text, base) if base else ((), 0)
    change = changes(base, outcome) if base and outcome else None
    return ReflectionLink(
        step=step,
        text=text,
        base=base,
        outcome=outcome,
        in_answer=in_answer,
        targets=targets,
        n_misquoted=n_misquoted,
        edits=change.edits if change else (),
        uptake=measure_uptake(change, targets) if change else Uptake(None, None, None),
        level=level_of(text),
        specificity=(bool(targets) + names_problem(text) + states_change(text)) / 3,
        similarity=similarity,
        is_praise=is_praise_only(text),
    )


def full_texts(trace: Trace) -> dict[int, str]:
    """The whole text as it stands after each draft or revision, by where the segment begins.

    A draft stands for itself. A revision much shorter than the text before it replaces a part of
    it: the stretch that the reflection before it points at, else the most similar stretch; one with
    numbered paragraphs replaces those. A blank one leaves the text as it is. What all of them make
    is bounded (`Allowance`): beyond, a short revision stands for itself, and a patch changes
    nothing.
    """
    found: dict[int, str] = {}
    allowance = Allowance(len(trace.text))
    current = ""
    thought = ""
    for segment in trace.segments:
        text = trace.text_of(segment)
        if segment.kind is Kind.REFLECTION:
            thought = text
        if segment.kind is Kind.DRAFT:
            current = text
        elif segment.kind is Kind.REVISION:
            current = _revised(current, text, thought, allowance)
        if segment.kind in (Kind.DRAFT, Kind.REVISION):
            found[segment.span.start] = current
    return found


def _revised(base: str, revision: str, reflection: str, allowance: Allowance) -> str:
    if not revision.strip():
        return base
    if is_patch(revision):
        return revise(base, revision, allowance).text
    is_whole = not base.strip() or len(revision) >= PATCH_SHARE * len(base)
    if is_whole or not allowance.take(len(base)):
        return revision
    place = _place_of_patch(base, revision, reflection)
    return revision if place is None else base[: place.start] + revision + base[place.end :]


def _place_of_patch(base: str, revision: str, reflection: str) -> Span | None:
    """The sentences of the base that a short revision replaces; None when no place is likely.

    From the sentence most like the revision's first to the last one that the reflection points at.
    """
    sentences = split_units(base, "sentence")
    targets, _ = find_targets(reflection, base)
    places = [s for s in sentences if any(_overlap(s, t.span) for t in targets)]
    if len(base) <= MAX_FUZZY_CHARS:
        opening = split_units(revision, "sentence")[0].cut(revision)
        likeness, place = max((fuzz.ratio(s.cut(base), opening), s) for s in sentences)
        if likeness >= MIN_PATCH_LIKENESS:
            places.append(place)
    if not places:
        return None
    return Span(min(s.start for s in places), max(s.end for s in places))


def _overlap(a: Span, b: Span) -> bool:
    return a.start < b.end and b.start < a.end


def find_targets(reflection: str, base: str) -> tuple[tuple[Target, ...], int]:
    """Targets of a reflection in the base text, and how many quotations are not in it.

    >>> targets, missed = find_targets('"a red door" is dull', "There was a red door.")
    >>> targets[0].span, missed
    (Span(start=10, end=20), 0)
    """
    targets: list[Target] = []
    missed = 0
    for found in list(_QUOTED.finditer(reflection))[:MAX_QUOTES]:
        quote = next(group for group in found.groups() if group)
        span = locate(quote, base)
        if span is None:
            missed += 1
        else:
            targets.append(Target(TargetKind.QUOTED, span))
    targets.extend(Target(TargetKind.NAMED, span) for span in _named_spans(reflection, base))
    return tuple(dict.fromkeys(targets)), missed


def locate(quote: str, base: str) -> Span | None:
    """Where a quotation stands in a text: exactly, without case, or nearly (80 per cent)."""
    bare = quote.strip(" .,;:!?，。；：！？…")
    if not bare:
        return None
    place = base.find(bare)
    if place < 0:
        place = lowered(base).find(lowered(bare))
    if place >= 0:
        return Span(place, place + len(bare))
    if len(bare) < 6 or not len(bare) <= len(base) <= MAX_FUZZY_CHARS:
        return None
    near = fuzz.partial_ratio_alignment(bare, base, score_cutoff=MIN_QUOTE_MATCH)
    return None if near is None else Span(near.dest_start, near.dest_end)


def _named_spans(reflection: str, base: str) -> list[Span]:
    """ "the second line", "第二句", "the ending": the unit of the base text with that number."""
    found = []
    lower = reflection.lower()
    for match in list(_NAMED.finditer(lower))[:MAX_QUOTES]:
        name = next(group for group in (match[1], *match.groups()[3:9]) if group)
        unit = (match[2] or match[3] or _CHINESE_UNITS[match[10] or "句"]).rstrip("s")
        units = split_units(base, {"stanza": "paragraph"}.get(unit, unit))
        number = _ORDINALS[name]
        if -len(units) <= number < len(units):
            found.append(units[number])
    for match in list(_ENDS.finditer(lower))[:MAX_QUOTES]:
        sentences = split_units(base, "sentence")
        is_end = match[match.lastindex or 0] in ("ending", "close", "end", "结尾", "末尾")
        if sentences:
            found.append(sentences[-1 if is_end else 0])
    return found


@lru_cache(maxsize=8)
def split_units(text: str, unit: str) -> tuple[Span, ...]:
    """Sentences, lines or paragraphs of a text, without the white space around them."""
    spans = []
    position = 0
    for border in [*_UNIT_SPLITS[unit].finditer(text), None]:
        end = border.start() if border else len(text)
        piece = stripped(text, Span(position, end))
        if len(piece):
            spans.append(piece)
        position = border.end() if border else end
    return tuple(spans)


def measure_uptake(change: Changes, targets: Sequence[Target]) -> Uptake:
    """How much more the targets changed than the rest of the text.

    >>> change = Changes("a red door", diff("a red door", "a blue door"))
    >>> measure_uptake(change, [Target(TargetKind.QUOTED, Span(2, 5))]).lift
    1.0
    """
    if not targets:
        return Uptake(None, None, None)
    shares = change.shares([target.span for target in targets])
    has_both = shares.inside is not None and shares.outside is not None
    lift = (shares.inside or 0.0) - (shares.outside or 0.0) if has_both else None
    return Uptake(shares.inside, shares.outside, lift)


def word_grams(text: str, n: int = 3) -> frozenset[tuple[str, ...]]:
    """All n-grams of the words (single Chinese characters) of a text; of all words if fewer."""
    words = [word.text.lower() for word in words_of(text) if word.text[0].isalnum()]
    if not words:
        return frozenset()
    return frozenset(tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1)))


def similarity_to(
    own: frozenset[tuple[str, ...]], earlier: Sequence[frozenset[tuple[str, ...]]]
) -> float:
    """Highest share of the own n-grams that an earlier reflection holds; 0 without any."""
    if not own:
        return 0.0
    return max((len(own & other) / len(own) for other in earlier), default=0.0)
