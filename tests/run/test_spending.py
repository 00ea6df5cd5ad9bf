"""What a run folder has cost, where the endpoint says how many tokens and where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2w_eval.config import RunConfig
from r2w_eval.models.cost import Budget
from r2w_eval.run.spending import add_spent
from r2w_eval.store import RunFolder
from r2w_eval.types import Judgement, Response, Score, Usage, WriterStatus

# 100 tokens each, by estimate
ANSWER, VERDICT = "word" * 100, "said" * 100


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(prompt_tokens=1000, completion_tokens=10), 2 * 1010 / 1e6),
        (Usage(), (100 + 100 + 100) / 1e6),
        (Usage(prompt_tokens=1000), (2 * 1000 + 100 + 100) / 1e6),
        (Usage(prompt_tokens=0, completion_tokens=0), 0.0),
    ],
    ids=["counted", "not counted", "half", "nothing"],
)
def test_tokens_that_no_endpoint_counted_are_estimated_from_the_texts(
    tmp_path: Path, usage: Usage, dollars: float
) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("m: {input: 1, output: 1}\nj: {input: 1, output: 1}\n")
    folder = RunFolder(tmp_path / "run")
    with folder.open_writers() as writers:
        writers.responses.append(
            Response("r", "t", "s", "m", ANSWER, ANSWER, None, WriterStatus.OK, usage=usage)
        )
        writers.judgements.append(
            Judgement("k", "r", "t", "s", "j", "c", Score(1.0), (VERDICT,), usage=usage)
        )
    budget = Budget(1.0)
    add_spent(budget, folder, RunConfig(model="m", prices=str(prices), max_cost=1.0))
    assert budget.spent_usd == pytest.approx(dollars)
