"""Outcome rows: rated or preferred pieces of writing, and drafts with expert feedback.

Rows of one prompt share a `pair_id`; a pair counts where two labels of it differ.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

from r2w_eval.reward_models.data.rows import POSITIVE, Row
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
            base = f"wpb:{record['prompt_id']}:{response['model']}"
            yield Row(
                base, data.name, data.licence, f"wpb:{record['prompt_id']}", "zh", "rated",
                f"wpb:{record['prompt_id']}",
                WritingItem(base, record["prompt"], response["text"]),
                {"outcome": fmean(ratings) / 1.5 - 1.0}, meta={"model": response["model"]},
            )  # fmt: skip


def build_argrewrite(data: LabelledSet, seed: int = 0) -> Iterator[Row]:
    """Essays with rubric totals; feedback with the next draft, and another writer's feedback."""
    writers = data.read("writers.jsonl")
    for index, record in enumerate(writers):
        rng = random.Random(f"{seed}:{record['writer']}")
        group = f"argrewrite:{record['writer']}"
        for number in "123":
            base = f"{group}:draft{number}"
            yield Row(
                base, data.name, data.licence, group, "en", f"draft{number}", group,
                WritingItem(base, ESSAY_PROMPT, record[f"draft{number}"]),
                {"outcome": _total(record, number)},
            )  # fmt: skip
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
    yield Row(item.id, data.name, data.licence, group, "en", POSITIVE, base, item, labels)
    for other in rng.sample(writers, len(writers)):
        theirs = other["expert_feedback_on_draft1"]["areas_to_improve"]
        if theirs and len(set(own) & set(theirs)) / len(theirs) <= MAX_SHARED_FEEDBACK:
            wrong = ReflectionItem(
                f"{base}:neg_feedback", ESSAY_PROMPT, record["draft1"], " ".join(theirs),
                record["draft2"],
            )  # fmt: skip
            yield Row(
                wrong.id, data.name, data.licence, group, "en", "neg_feedback", base, wrong,
                {"relevance": -1.0, "constructiveness": -0.5}, 0.7,
            )  # fmt: skip
            return


def build_storyer(data: LabelledSet) -> Iterator[Row]:
    """Stories with more and fewer upvotes for one prompt (research only)."""
    for number, record in enumerate(data.read("upvote_pairs.jsonl")):
        pair = f"storyer:{number}"
        for kind, value in (("higher_upvoted", 0.3), ("lower_upvoted", -0.3)):
            if text := record.get(kind):
                item = WritingItem(f"{pair}:{kind}", record["prompt"], text)
                yield Row(item.id, data.name, data.licence, f"storyer:{record['prompt']}", "en",
                          kind, pair, item, {"outcome": value})  # fmt: skip


def build_autoj(data: LabelledSet) -> Iterator[Row]:
    """Preferred answers to writing tasks, ties left out (research only)."""
    for record in data.read("pairs.jsonl"):
        if record["label"] == 2:
            continue
        for place, name in enumerate(("response_1", "response_2")):
            item = WritingItem(f"{record['id']}:{place}", record["prompt"], record[name])
            value = 0.3 if record["label"] == place else -0.3
            yield Row(item.id, data.name, data.licence, f"autoj:{record['prompt']}", "en", "answer",
                      record["id"], item, {"outcome": value})  # fmt: skip
