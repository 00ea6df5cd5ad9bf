"""Outcome rows: rated or preferred pieces of writing, and drafts with expert feedback.

Rows of one prompt share a `pair_id`; a pair counts where two labels of it differ.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from r2w_eval.reward_models.data.rows import POSITIVE, SEED, Row
from r2w_eval.reward_models.data.sources import LabelledSet
from r2w_eval.reward_models.items import ReflectionItem, WritingItem

ESSAY_PROMPT = "Write an argumentative essay about self-driving cars."
MAX_RUBRIC_TOTAL = 40.0
# feedback that shares more than this with one's own is no negative: the sentences are stock ones
MAX_SHARED_FEEDBACK = 0.5


def build_wpb(data: LabelledSet) -> Iterator[Row]:
    """Chinese answers rated 0 to 3 by a person (`final` ratings)."""
    for record in data.read("prompts_with_rated_responses.jsonl"):
        for response in record["responses"]:
            ratings = [r["score"] for r in response["human_ratings"] if r["file"] == "final"]
            if not ratings or not response["text"].strip():
                continue
            group = f"wpb:{record['prompt_id']}"
            item = WritingItem(f"{group}:{response['model']}", record["prompt"], response["text"])
            yield data.row(
                item, group, "rated", group, {"outcome": fmean(ratings) / 1.5 - 1.0},
                lang="zh", meta={"model": response["model"]},
            )  # fmt: skip


def build_argrewrite(data: LabelledSet) -> Iterator[Row]:
    """Essays with rubric totals; feedback with the next draft, and another writer's feedback."""
    writers = data.read("writers.jsonl")
    for index, record in enumerate(writers):
        rng = random.Random(f"{SEED}:{record['writer']}")
        group = f"argrewrite:{record['writer']}"
        for number in "123":
            kind = f"draft{number}"
            item = WritingItem(f"{group}:{kind}", ESSAY_PROMPT, record[kind])
            yield data.row(item, group, kind, group, {"outcome": _total(record, number)})
        yield from _feedback(index, writers, group, data, rng)


def _total(record: Mapping[str, Any], number: str) -> float:
    return float(record["scores"][number]["mean_total"]) / MAX_RUBRIC_TOTAL * 2 - 1


def _feedback(
    index: int,
    writers: list[Mapping[str, Any]],
    group: str,
    data: LabelledSet,
    rng: random.Random,
) -> Iterator[Row]:
    record = writers[index]
    own = record["expert_feedback_on_draft1"]["areas_to_improve"]
    if not own:
        return
    gain = (_total(record, "2") - _total(record, "1")) * 5
    base = f"{group}:feedback"
    item = ReflectionItem(
        f"{base}:pos", ESSAY_PROMPT, record["draft1"], " ".join(own), record["draft2"]
    )
    labels = {"relevance": 1.0, "constructiveness": 1.0, "effect": max(-1.0, min(1.0, gain))}
    yield data.row(item, group, POSITIVE, base, labels)
    for other in rng.sample(writers, len(writers)):
        theirs = other["expert_feedback_on_draft1"]["areas_to_improve"]
        if theirs and len(set(own) & set(theirs)) / len(theirs) <= MAX_SHARED_FEEDBACK:
            wrong = ReflectionItem(
                f"{base}:neg_feedback", ESSAY_PROMPT, record["draft1"], " ".join(theirs),
                record["draft2"],
            )  # fmt: skip
            labels = {"relevance": -1.0, "constructiveness": -0.5}
            yield data.row(wrong, group, "neg_feedback", base, labels, weight=0.7)
            return


def build_storyer(data: LabelledSet) -> Iterator[Row]:
    """Stories with more and fewer upvotes for one prompt (research only)."""
    for number, record in enumerate(data.read("upvote_pairs.jsonl")):
        pair = f"storyer:{number}"
        for kind, value in (("higher_upvoted", 0.3), ("lower_upvoted", -0.3)):
            if text := record.get(kind):
                item = WritingItem(f"{pair}:{kind}", record["prompt"], text)
                group = f"storyer:{record['prompt']}"
                yield data.row(item, group, kind, pair, {"outcome": value})


def build_autoj(data: LabelledSet) -> Iterator[Row]:
    """Preferred answers to writing tasks, ties left out (research only)."""
    for record in data.read("pairs.jsonl"):
        if record["label"] == 2:
            continue
        for place, name in enumerate(("response_1", "response_2")):
            item = WritingItem(f"{record['id']}:{place}", record["prompt"], record[name])
            value = 0.3 if record["label"] == place else -0.3
            group = f"autoj:{record['prompt']}"
            yield data.row(item, group, "answer", record["id"], {"outcome": value})
