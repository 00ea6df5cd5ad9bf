"""What a finished evaluation says, read back from its run folder: one headline a task and judge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r2w_eval.types import Cause

SHARED = ("task", "judge", "score_key")
BOUNDS = ("value", "low", "high", "n_scored", "n_expected")


def headlines(run: Path) -> Iterator[dict[str, Any]]:
    """Task, judge, identity of the score; headline with interval and numbers, and its value with
    the writer's failures at the lowest; tokens of the writer; verdicts that an endpoint did not
    give; measures of thinking as they were written, where there are any.
    """
    for result in json.loads((run / "results.json").read_bytes()):
        headline = next(metric for metric in result["metrics"] if metric["is_headline"])
        yield {
            **{name: result[name] for name in SHARED},
            **{name: headline[name] for name in BOUNDS},
            "floor": _value(result["metrics"], f"{headline['name']}:floor"),
            "completion_tokens": result["writer"]["completion_tokens"],
            "reflection": result.get("reflection"),
            "n_lost": _lost(result.get("judging")),
        }


def _value(metrics: Any, name: str) -> float | None:
    return next((metric["value"] for metric in metrics if metric["name"] == name), None)


def _lost(judging: Any) -> int:
    return int(judging["failures_by_cause"].get(Cause.INFRASTRUCTURE, 0)) if judging else 0


def measures_of(reflection: Any) -> dict[str, Any] | None:
    """The measures of thinking by name; None where no answer held any."""
    if not reflection:
        return None
    measures = {m["name"]: {name: m[name] for name in BOUNDS} for m in reflection["metrics"]}
    return {"n_reflections": reflection["n_reflections"], "measures": measures}
