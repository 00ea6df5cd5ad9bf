"""The choice of prompts by difficulty: every rule, its order, and a trial on a real server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from r2w_eval.training.pipeline import commands
from r2w_eval.training.prompts import Criterion, Prompt, read_prompts, starter_prompts
from r2w_eval.training.rl.difficulty import DifficultySettings, Tried, choose, unfit

from r2w_eval.errors import UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.hashing import dump_line
from r2w_eval.store import iter_jsonl

SETTINGS = DifficultySettings()


def tried(*marks: float | None, reference: float | None = 9.0, name: str = "p") -> Tried:
    return Tried(Prompt(name, "en", "essay", name), marks, reference)


@pytest.mark.parametrize(
    "one, reason",
    [
        (tried(5.0, 6.0, 7.0, 6.0), None),
        (tried(5.0, 6.0, None, 6.0), None),
        (tried(5.0, None, None, 6.0), "unscored"),
        (tried(1.0, 2.0, 3.0, 2.0), "too_hard"),
        (tried(9.0, 8.0, 9.0, 9.0), "too_easy"),
        (tried(6.0, 6.0, 6.0, None), "no_spread"),
        (tried(5.0, 6.0, 7.0, 6.0, reference=None), "no_reference"),
        (tried(5.0, 6.0, 7.0, 6.0, reference=6.4), "narrow_margin"),
    ],
)
def test_each_rule_leaves_out_what_it_names(one: Tried, reason: str | None) -> None:
    assert unfit(one, SETTINGS, has_references=True) == reason


def test_the_widest_margins_fill_the_quota_and_the_rest_is_counted() -> None:
    many = [tried(5.0, 6.0, 7.0, reference=7.0 + i, name=f"p{i}") for i in range(3)]
    kept, left_out = choose(many, DifficultySettings(quota=2))
    # in their own order: the last of a file are held apart
    assert [one.prompt.id for one in kept] == ["p1", "p2"] and left_out == {"over_quota": 1}
    kept, left_out = choose([tried(5.0, 6.0, 7.0, reference=None)], SETTINGS)
    assert len(kept) == 1 and not left_out  # nobody has a reference: the margin is no rule


@pytest.mark.parametrize("given", [{"samples": 2}, {"low": 8.0, "high": 4.0}])
def test_a_choice_that_no_prompt_can_pass_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected at most choice"):
        DifficultySettings(**given)  # type: ignore[arg-type]


def test_a_trial_marks_every_answer_and_a_second_one_asks_nothing(
    tmp_path: Path, own_cache: Path
) -> None:
    prompts = starter_prompts(4)
    wide = DifficultySettings(samples=3, low=1.0, high=10.0)
    with FakeServer() as server:
        models = (f"{server.base_url}#gen-0", f"{server.base_url}#judge-0")
        asked = []
        for _ in range(2):
            found = asyncio.run(commands.run_choice(models, prompts, (wide, {}), tmp_path / "out"))
            asked.append(sum(found.tally.sent.values()))
    assert asked == [4 + 2 * 4 * 3, 0]
    told = json.loads((tmp_path / "out" / "choice.json").read_bytes())
    assert told["calls"] == {"mark": 12, "rubric": 4, "sample": 12} and told["completion_tokens"]
    # this policy always writes the same: a group of its answers would teach nothing
    assert found.left_out == {"no_spread": 4} and told["n_kept"] == 0
    rows = list(iter_jsonl(tmp_path / "out" / "tried.jsonl"))
    assert all(len(row["prompt"]["rubric"]) == 5 and len(row["marks"]) == 3 for row in rows)


def test_kept_prompts_are_a_prompt_file_and_traces_give_the_references(tmp_path: Path) -> None:
    prompt = Prompt("p", "zh", "essay", "写一封信", (Criterion("清楚", "读得懂", 2.0),))
    (tmp_path / "prompts.jsonl").write_bytes(dump_line(prompt))
    assert read_prompts(tmp_path / "prompts.jsonl") == [prompt]
    traces = [{"id": "p", "facts": {"mean_best": 8.5}}, {"id": "q", "facts": {}}]
    (tmp_path / "traces.jsonl").write_bytes(b"".join(map(dump_line, traces)))
    assert commands.read_references(tmp_path / "traces.jsonl") == {"p": 8.5}
    assert commands.read_references(None) == {}
