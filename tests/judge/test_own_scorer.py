"""Scorers of the user's own: loaded or refused in one sentence, and checked before storing."""

from __future__ import annotations

import asyncio
import importlib
import math
from pathlib import Path
from typing import Any

import pytest

from r2w_eval.errors import DataError, UsageError
from r2w_eval.judge.own_scorer import OwnScorer, load_scorer
from r2w_eval.judge.scorers import ScoreItem, Verdict
from r2w_eval.run.opening import ModelOptions, ModelPool
from r2w_eval.types import Decoding, JudgeRequest, JudgeStatus, Message, Score

MODULE = """
from r2w_eval.errors import DataError


class Judge:
    id = "own"
    is_closed = False

    def __call__(self):
        return 5.0

    def describe(self):
        return {}

    async def score(self, items):
        return []

    async def close(self):
        self.is_closed = True


judge = Judge()
make = lambda: Judge()
three = 3


def broken():
    raise DataError("weights.bin is not here")


def no_gpu():
    raise ValueError("no GPU")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / f"{name}_syntax.py").write_text("def x(:\n")
    (tmp_path / f"{name}_raises.py").write_text("raise ValueError('no GPU')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize("attribute", ["judge", "Judge", "make"])
def test_an_object_a_class_and_a_function_are_taken(module: str, attribute: str) -> None:
    assert load_scorer(f"{module}:{attribute}").id == "own"


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("{}_syntax:judge", "SyntaxError"),
        ("{}_raises:judge", "ValueError: no GPU"),
        ("{}_absent:judge", "ModuleNotFoundError"),
        ("{}:absent", "AttributeError"),
        ("{}:no_gpu", "ValueError: no GPU"),
        ("{}:three", "int is no scorer, it lacks id, describe, score, close"),
    ],
)
def test_an_object_that_is_not_a_scorer_is_refused(module: str, spec: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        load_scorer(spec.format(module))


def test_an_error_of_ours_keeps_its_own_words(module: str) -> None:
    with pytest.raises(DataError, match=r"^weights.bin is not here$"):
        load_scorer(f"{module}:broken")


class Says:
    """Gives these values, whatever it is asked."""

    id = "says"

    def __init__(self, values: list[float], facts: dict[str, Any]) -> None:
        self.values, self.facts = values, facts

    def describe(self) -> dict[str, Any]:
        return self.facts

    async def close(self) -> None: ...

    async def score(self, items: object) -> list[Verdict]:
        return [Verdict(Score(value)) for value in self.values]


def ask(values: list[float], **facts: Any) -> list[Score]:
    item = ScoreItem(
        JudgeRequest("c", (Message("user", "?"),)), Decoding(), lambda request, text: Score(1.0)
    )
    verdicts = asyncio.run(OwnScorer(Says(values, facts)).score([item] * 3))
    return [verdict.score for verdict in verdicts]


def test_a_value_that_is_not_a_number_in_range_is_lost() -> None:
    assert [s.status for s in ask([math.nan, math.inf, 50.0])] == [
        JudgeStatus.OUT_OF_RANGE, JudgeStatus.OUT_OF_RANGE, JudgeStatus.OK,
    ]  # fmt: skip
    low, inside, high = ask([-0.1, 3.0, 3.1], range=[0, 3])
    assert inside.value == 3.0 and low.value is high.value is None
    assert "3.1 is outside of the range 0.0 to 3.0" in high.reason


def test_too_few_verdicts_are_said() -> None:
    with pytest.raises(UsageError, match="2 verdicts on 3 items"):
        ask([1.0, 2.0])


def test_what_a_command_opens_it_closes(module: str) -> None:
    async def job() -> None:
        async with ModelPool(ModelOptions()) as pool:
            await pool.scorer(f"{module}:judge", "text")
            assert not importlib.import_module(module).judge.is_closed

    asyncio.run(job())
    assert importlib.import_module(module).judge.is_closed


def test_a_scorer_that_cannot_be_closed_costs_no_verdict(
    module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Awkward(Says):
        def close(self) -> None:  # type: ignore[override]
            """As if it were not asynchronous."""

    asyncio.run(OwnScorer(Awkward([1.0], {})).close())
    assert "says: close() failed with TypeError" in capsys.readouterr().err
