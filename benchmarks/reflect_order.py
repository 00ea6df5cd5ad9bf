"""Order test on expert edits: does uptake tell the expert's revision from any other text?

    python benchmarks/reflect_order.py ../shared/reward_data/lamp_train [--out FILE.json]

Every draft of LAMP becomes a trace: the draft, one reflection per span that an expert marked, and
as revision (a) the expert's, (b) that of another draft of nearly the same length, (c) the draft.
Uptake and content kept should order a > b and a > c. Gains are differences of the experts' scores
of the texts; a score of a text alone cannot know whose draft it revises, so (b) is a control there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from r2w_eval.reflection import Analysis, TraceInput, analyse
from r2w_eval.reflection_measures import not_taken_up, uptake_lift
from r2w_eval.stats import compare, compare_scores, mean_estimate, measure
from r2w_eval.store import iter_jsonl
from r2w_eval.trace import Kind, TagSchema
from r2w_eval.trace_links import similarity_to, word_grams
from r2w_eval.trace_tags import write_tagged
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


def make_trace(row: Row, revision: str) -> Analysis:
    """Draft, one reflection a marked span, revision."""
    spans = row["expert_spans"]
    assert isinstance(spans, list)
    parts = [(Kind.DRAFT, str(row["paragraph"]))]
    for span in spans:
        parts.append(
            (Kind.REFLECTION, f"“{span['span']}”: {span['category']}. This should change.")
        )
    parts.append((Kind.REVISION, revision))
    name = str(row["id"])
    thinking = write_tagged(parts, TagSchema())
    return analyse(TraceInput(name, thinking, "", cluster=name))


def kept(row: Row, revision: str) -> float:
    """Share of the draft's word 3-grams that the revision still holds."""
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


def shown(metric: Metric) -> dict[str, object]:
    """Value, bounds and n."""
    return {"value": metric.value, "low": metric.low, "high": metric.high, "n": metric.n_scored}


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
    test = compare(uptake_lift(traces["expert"]), uptake_lift(traces["shuffled"]))
    result["uptake_lift expert - shuffled"] = {
        "difference": test.difference, "low": test.low, "high": test.high, "p": test.p_value,
    }  # fmt: skip
    own, control = gains(rows, rows), gains(rows, [by_revision[text] for text in others])
    result["human gain, expert"] = shown(measure(mean_estimate(own)))
    result["human gain, shuffled (control)"] = shown(measure(mean_estimate(control)))
    gap = compare_scores(own, control)
    result["human gain expert - shuffled"] = {
        "difference": gap.difference, "low": gap.low, "high": gap.high, "p": gap.p_value,
    }  # fmt: skip
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
