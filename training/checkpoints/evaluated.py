"""Reads a finished evaluation back from its run folder: one headline per task and judge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r2w_eval.types import Cause

SHARED = ("task", "judge", "score_key")
BOUNDS = ("value", "low", "high", "n_scored", "n_expected")


def headlines(run: Path) -> Iterator[dict[str, Any]]:
    """For each task and judge: score key, headline value with interval and counts, the value when
    the writer's failures count as the lowest score (`floor`), the writer's tokens, verdicts lost to
    an endpoint (`n_lost`), and the measures of thinking, if any.
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
    """The measures of thinking by name; None if no answer contained thinking."""
    if not reflection:
        return None
    measures = {m["name"]: {name: m[name] for name in BOUNDS} for m in reflection["metrics"]}
    return {"n_reflections": reflection["n_reflections"], "measures": measures}
