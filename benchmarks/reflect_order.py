"""Order test on expert edits: does uptake tell the expert's revision from any other text?

    python benchmarks/reflect_order.py ../shared/reward_data/lamp_train [--out FILE.json]

Every draft of LAMP becomes a trace: the draft, one reflection per span that an expert marked, and
as revision (a) the expert's, (b) that of another draft of nearly the same length, (c) the draft.
Uptake and content kept should order a > b and a > c. Gains are differences of the experts' scores
of the texts; a score of a text alone cannot know whose draft it revises, so (b) is a control there.

The effect by r2w-reward is read on the drafts that its training held apart: its effect head sees
draft, reflection and revision at once; its outcome head sees one text alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from r2w_eval.reward_models.data.lamp import group_of
from r2w_eval.reward_models.data.rows import part_of
from r2w_eval.reward_models.items import ReflectionItem, WritingItem
from r2w_eval.reward_models.scorer import RewardModel, load_reward

from r2w_eval.reflection.analysis import Analysis, TraceInput, analyse
from r2w_eval.reflection.measures import not_taken_up, uptake_lift
from r2w_eval.stats.inference import (
    PairedComparison,
    compare,
    compare_scores,
    mean_estimate,
    measure,
)
from r2w_eval.store import iter_jsonl
from r2w_eval.trace.links import similarity_to, word_grams
from r2w_eval.trace.types import Kind, TagSchema
from r2w_eval.trace.writing import write_tagged
from r2w_eval.types import Metric

ARMS = ("expert", "shuffled", "unchanged")
Row = dict[str, object]


def shuffled(rows: Sequence[Row]) -> list[str]:
    """For each draft the revision of the one next to it when sorted by length; never its own."""
    order = sorted(range(len(rows)), key=lambda i: len(str(rows[i]["expert_revision"])))
    others = [""] * len(rows)
    for place, index in enumerate(order):
        other = order[place + 1] if place + 1 < len(order) else order[place - 1]
        others[index] = str(rows[other]["expert_revision"])
    return others


def remarks_of(row: Row) -> list[str]:
    """One reflection a span that the expert marked."""
    spans = row["expert_spans"]
    assert isinstance(spans, list)
    return [f"“{span['span']}”: {span['category']}. This should change." for span in spans]


def make_trace(row: Row, revision: str) -> Analysis:
    """Draft, one reflection a marked span, revision."""
    remarks = [(Kind.REFLECTION, text) for text in remarks_of(row)]
    parts = [(Kind.DRAFT, str(row["paragraph"])), *remarks, (Kind.REVISION, revision)]
    name = str(row["id"])
    thinking = write_tagged(parts, TagSchema()).text
    return analyse(TraceInput(name, thinking, "", cluster=name))


def kept(row: Row, revision: str) -> float:
    """Share of the draft's word 3-grams that the revision keeps."""
    return similarity_to(word_grams(str(row["paragraph"])), [word_grams(revision)])


def mean_score(row: Row, key: str) -> float | None:
    """Mean of the experts' scores (1 to 10)."""
    values = row.get(key)
    return sum(values) / len(values) if isinstance(values, list) and values else None


def gains(rows: Sequence[Row], others: Sequence[Row]) -> dict[str, float | None]:
    """Score of the revision of `others` minus the score of the draft of `rows`."""
    found: dict[str, float | None] = {}
    for row, other in zip(rows, others, strict=True):
        after, before = (
            mean_score(other, "revision_score_1to10"),
            mean_score(row, "draft_score_1to10"),
        )
        found[str(row["id"])] = None if after is None or before is None else after - before
    return found


def held_apart(rows: Sequence[Row], others: Sequence[str]) -> list[tuple[Row, str]]:
    """Drafts of the reward model's test part, each with its shuffled revision."""
    pairs = zip(rows, others, strict=True)
    return [(row, other) for row, other in pairs if part_of(group_of(row)) == "test"]


def reward_scores(row: Row, revision: str, model: RewardModel) -> dict[str, float | None]:
    """Mean effect of a draft's reflections, and the gain of the revision by the outcome head."""
    name, draft = str(row["id"]), str(row["paragraph"])
    items = [ReflectionItem(name, "", draft, text, revision) for text in remarks_of(row)]
    scores = model.score([*items, WritingItem(name, "", draft), WritingItem(name, "", revision)])
    *steps, before, after = scores
    effects = [score.parts["effect"] for score in steps if score.value is not None]
    gain = None if before.value is None or after.value is None else after.value - before.value
    return {"effect": sum(effects) / len(effects) if effects else None, "outcome gain": gain}


def reward_test(rows: Sequence[Row], others: Sequence[str]) -> dict[str, object]:
    """Each reading of r2w-reward on every arm, and the paired differences to the expert's."""
    model = load_reward()
    chosen = held_apart(rows, others)
    texts = {
        "expert": [str(row["expert_revision"]) for row, _ in chosen],
        "shuffled": [other for _, other in chosen],
        "unchanged": [str(row["paragraph"]) for row, _ in chosen],
    }
    found = {
        arm: {
            str(row["id"]): reward_scores(row, text, model)
            for (row, _), text in zip(chosen, texts[arm], strict=True)
        }
        for arm in ARMS
    }
    result: dict[str, object] = {"scorer": model.id, "n_drafts": len(chosen)}
    for reading in ("effect", "outcome gain"):
        values = {arm: {k: v[reading] for k, v in own.items()} for arm, own in found.items()}
        for arm in ARMS:
            result[f"{reading}, {arm}"] = shown(measure(mean_estimate(values[arm])))
        for arm in ARMS[1:]:
            gap = compare_scores(values["expert"], values[arm])
            result[f"{reading} expert - {arm}"] = difference(gap)
    return result


def shown(metric: Metric) -> dict[str, object]:
    """Value, bounds and n."""
    return {"value": metric.value, "low": metric.low, "high": metric.high, "n": metric.n_scored}


def difference(gap: PairedComparison) -> dict[str, object]:
    """A paired difference with its bounds and p value."""
    return {"difference": gap.difference, "low": gap.low, "high": gap.high, "p": gap.p_value}


def main() -> None:
    """Run the test and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = [
        r for r in iter_jsonl(args.folder / "span_edits_train.jsonl") if r.get("expert_revision")
    ]
    others = shuffled(rows)
    by_revision = {str(row["expert_revision"]): row for row in rows}
    texts = {
        "expert": [str(row["expert_revision"]) for row in rows],
        "shuffled": others,
        "unchanged": [str(row["paragraph"]) for row in rows],
    }
    traces = {
        arm: [make_trace(r, t) for r, t in zip(rows, texts[arm], strict=True)] for arm in ARMS
    }
    result: dict[str, object] = {"n_drafts": len(rows)}
    for arm in ARMS:
        scores = {str(r["id"]): kept(r, t) for r, t in zip(rows, texts[arm], strict=True)}
        result[arm] = {
            "uptake_lift": shown(measure(uptake_lift(traces[arm]))),
            "not_taken_up": shown(measure(not_taken_up(traces[arm]))),
            "draft_kept": shown(measure(mean_estimate(scores))),
        }
    result["uptake_lift expert - shuffled"] = difference(
        compare(uptake_lift(traces["expert"]), uptake_lift(traces["shuffled"]))
    )
    own, control = gains(rows, rows), gains(rows, [by_revision[text] for text in others])
    result["human gain, expert"] = shown(measure(mean_estimate(own)))
    result["human gain, shuffled (control)"] = shown(measure(mean_estimate(control)))
    result["human gain expert - shuffled"] = difference(compare_scores(own, control))
    result["r2w-reward, drafts held apart"] = reward_test(rows, others)
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
