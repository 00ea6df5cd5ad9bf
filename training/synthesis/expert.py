"""Makes traces without a language model: a draft, reflections on its problems, and a revision.

`expert_traces` uses the spans that an expert marked in a draft and the expert's revision, from a
permissively licensed set. `planted_traces` puts flaws into texts of this project and needs no data.
Problems are worded as first-person reflections by the reward model's phrasings.
"""

from __future__ import annotations

import difflib
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from r2w_eval.reward_models.data.flaws import build_flaws
from r2w_eval.reward_models.data.lamp import CATEGORIES, PROMPT, group_of, points_gained
from r2w_eval.reward_models.data.rows import POSITIVE, Row, part_of
from r2w_eval.reward_models.data.sources import LabelledSet
from r2w_eval.reward_models.items import ReflectionItem
from r2w_eval.reward_models.language.levels import level_of
from r2w_eval.reward_models.language.phrasing import phrase
from r2w_eval.reward_models.language.words import sentences
from r2w_eval.training.prompts import LANGUAGES
from r2w_eval.training.synthesis.traces import (
    Dropped,
    TracePart,
    TrainingTrace,
    place_parts,
    write_readable,
)

from r2w_eval.trace.types import Form, Kind

MAX_REFLECTIONS = 4
# of the wording of reflections, and of which planted flaws are taken
SEED = 0
# of the reward model's split: it is tested on drafts and texts of the others
PART = "train"


def expert_traces(
    data: LabelledSet, max_chars: int = 0, form: Form = Form.TAGGED
) -> Iterator[TrainingTrace]:
    """One trace per LAMP draft of the training part that has a revision.

    It has at most MAX_REFLECTIONS reflections, on the longest marked spans in the order of the
    text. With `max_chars` it is made of an excerpt of at most that many characters. Left out are
    drafts without such an excerpt, and traces that would be parsed into other parts than they were
    written from.
    """
    for record in data.read("span_edits_train.jsonl"):
        is_usable = record.get("expert_revision") and record["expert_spans"]
        if not is_usable or part_of(group_of(record)) != PART:
            continue
        chosen = excerpt(record, max_chars) if max_chars else record
        if chosen is None:
            continue
        made = _trace(chosen, random.Random(f"{SEED}:{record['id']}"), form)
        if made is not None:
            yield made


def excerpt(record: Mapping[str, Any], max_chars: int) -> Mapping[str, Any] | None:
    """The passage of at most `max_chars` characters with most marked spans; None without one.

    It begins and ends at sentence borders where draft and revision correspond, so that the same
    passage is cut out of both. Scores are left out, since readers scored the whole texts.
    """
    draft, revision = record["paragraph"], record["expert_revision"]
    cuts = _common_cuts(draft, revision)
    best: tuple[tuple[int, int], Mapping[str, Any]] | None = None
    for (start, new_start), (end, new_end) in itertools.combinations(cuts, 2):
        before, after = draft[start:end].rstrip(), revision[new_start:new_end].rstrip()
        inside = [s for s in record["expert_spans"] if start <= s["start"] and s["end"] <= end]
        if not inside or before == after or not after or max(len(before), len(after)) > max_chars:
            continue
        rank = min(len(inside), MAX_REFLECTIONS), len(before)
        if best is None or rank > best[0]:
            moved = [{**s, "start": s["start"] - start, "end": s["end"] - start} for s in inside]
            best = rank, {"paragraph": before, "expert_revision": after, "expert_spans": moved}
    return {"id": record["id"], **best[1]} if best else None


def _common_cuts(draft: str, revision: str) -> list[tuple[int, int]]:
    """Pairs of character offsets at which draft and revision correspond."""
    old, new = sentences(draft), sentences(revision)
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    places = {(0, 0)} | {(i + k, j + k) for i, j, n in blocks for k in range(n + 1)}
    in_old, in_new = _starts(draft, old), _starts(revision, new)
    return sorted((in_old[i], in_new[j]) for i, j in places)


def _starts(text: str, parts: Sequence[str]) -> list[int]:
    """Offsets of the sentences, and of the end of the text."""
    found, place = [], 0
    for part in parts:
        place = text.index(part, place)
        found.append(place)
        place += len(part)
    return [*found, len(text)]


def _trace(record: Mapping[str, Any], chance: random.Random, form: Form) -> TrainingTrace | None:
    draft, revision = record["paragraph"], record["expert_revision"]
    spans = sorted(record["expert_spans"], key=lambda s: s["start"] - s["end"])[:MAX_REFLECTIONS]
    spans.sort(key=lambda span: span["start"])
    categories = [CATEGORIES[span["category"]] for span in spans]
    thoughts = [
        phrase(category, span["span"], "en", chance)
        for category, span in zip(categories, spans, strict=True)
    ]
    stitched = _stitch((draft, thoughts, revision), categories, "en", form)
    if stitched is None:
        return None
    thinking, segments = stitched
    return TrainingTrace(
        id=record["id"],
        lang="en",
        domain="fiction",
        prompt=PROMPT.format(kind="fiction"),
        thinking=thinking,
        answer=revision,
        segments=segments,
        source="expert",
        gain=points_gained(record),
        facts={"categories": categories},
    )


def _stitch(
    texts: tuple[str, Sequence[str], str], categories: Sequence[str], language: str, form: Form
) -> tuple[str, tuple[TracePart, ...]] | None:
    """The thinking and its parts, from (draft, reflections, revision) and one category for each
    reflection. None if the result would be parsed into other parts.
    """
    draft, thoughts, revision = texts
    parts = [(Kind.DRAFT, draft), *((Kind.REFLECTION, thought) for thought in thoughts)]
    trace = write_readable([*parts, (Kind.REVISION, revision)], form, language)
    if isinstance(trace, Dropped):
        return None
    levels = [*(level_of()[category] for category in categories), ""]
    return trace.text, place_parts(trace, [(1, level) for level in levels])


def planted_traces(
    n: int, languages: Sequence[str] = LANGUAGES, form: Form = Form.TAGGED
) -> list[TrainingTrace]:
    """At most `n` different traces in which a planted flaw is found and mended.

    They are made from the texts and phrasings that the reward model is trained on.
    """
    built = build_flaws(1 + n // 4, SEED)
    rows = [
        row for row in built if row.kind == POSITIVE and row.part == PART and row.lang in languages
    ]
    chosen = random.Random(SEED).sample(rows, min(n, len(rows)))
    made = (_planted(row, form) for row in chosen)
    return [trace for trace in made if trace is not None]


def _planted(row: Row, form: Form) -> TrainingTrace | None:
    item, category = row.item, str(row.meta["category"])
    assert isinstance(item, ReflectionItem) and item.revision is not None
    texts = (item.draft, [item.reflection], item.revision)
    stitched = _stitch(texts, [category], row.lang, form)
    if stitched is None:
        return None
    thinking, segments = stitched
    return TrainingTrace(
        id=row.id,
        lang=row.lang,
        domain="planted",
        prompt=item.prompt,
        thinking=thinking,
        answer=item.revision,
        segments=segments,
        source="planted",
        gain=None,
        facts={"categories": [category]},
    )
