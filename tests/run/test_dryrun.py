"""`--dry-run`: the calls it promises are the calls that a run makes."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from r2w_eval.config import RunConfig
from r2w_eval.errors import UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.models.cost import Price
from r2w_eval.run import evaluate
from r2w_eval.run.dryrun import Forecast, find_done, forecast, print_forecast
from r2w_eval.run.planning import plan_tasks


@pytest.mark.parametrize(
    ("samples", "repeats", "limit", "n_judges"), [(1, 1, 3, 1), (2, 3, 2, 2), (1, 1, None, 1)]
)
def test_what_is_promised_is_what_is_sent(
    tmp_path: Path, samples: int, repeats: int, limit: int | None, n_judges: int
) -> None:
    with FakeServer() as server:
        config = RunConfig(
            model=f"{server.base_url}#gen-0",
            judge=tuple(f"{server.base_url}#judge-0+seed={n}" for n in range(n_judges)),
            samples=samples,
            repeats=repeats,
            judge_kwargs="temperature=1",
            limit=limit,
            out=str(tmp_path / "run"),
            cache=False,
        )
        (plan,) = plan_tasks(config)
        writing, judging = forecast(plan, config)
        assert server.stats().total.requests == 0
        asyncio.run(evaluate(config))
        by_model = server.stats().by_model
    assert writing.calls == by_model["gen-0"].requests
    judged = sum(stats.requests for name, stats in by_model.items() if name != "gen-0")
    assert judging.calls == judged


def test_what_is_there_already_is_not_promised_again(tmp_path: Path, own_cache: Path) -> None:
    with FakeServer() as server:
        config = RunConfig(
            model=f"{server.base_url}#gen-0+empty=0.4+sticky",
            judge=(f"{server.base_url}#judge-0",),
            limit=5,
            out=str(tmp_path / "run"),
            cache=False,
        )
        longer = replace(config, limit=8)
        run = asyncio.run(evaluate(config))
        (plan,) = plan_tasks(longer)
        writing, judging = forecast(plan, longer, find_done(longer))
        assert (writing.calls, writing.done) == (3, 5)
        assert judging.done == run.results[0].judging.n_valid < 25
        healing = replace(longer, retry_failed=True)
        n_empty = run.results[0].writer.statuses["empty"]
        assert forecast(plan, healing, find_done(healing))[0].calls == 3 + n_empty > 3


def test_stages_without_calls_are_not_in_the_forecast(tmp_path: Path) -> None:
    unjudged = RunConfig(model="m", judge=("none",), limit=2)
    assert [row.stage for row in forecast(plan_tasks(unjudged)[0], unjudged)] == ["write"]
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"id": "x", "response": "Mine."}\n')
    given = RunConfig(responses=str(answers), limit=2)
    assert [row.stage for row in forecast(plan_tasks(given)[0], given)] == ["judge"]


def test_every_stage_of_a_suite_is_promised(
    benchmarks: Path, tmp_path: Path, own_cache: Path
) -> None:
    with FakeServer() as server:
        config = RunConfig(
            tasks="discox",
            model=f"{server.base_url}#gen-0",
            judge=(f"{server.base_url}#judge-0",),
            limit=2,
            data_dir=str(benchmarks),
            out=str(tmp_path / "run"),
        )
        (plan,) = plan_tasks(config)
        writing, *judging = forecast(plan, config)
        outcome = asyncio.run(evaluate(config))
        sent = server.stats().by_model["judge-0"].requests
    by_sample = Counter(j.sample_id for j in outcome.folder.judgements())
    n_refused = sum(count == 1 for count in by_sample.values())
    assert [(row.stage, row.calls) for row in judging] == [
        ("judge: 1", 2),
        ("judge: 2", 8),
        ("judge: 3", 2),
        ("judge: 4", 8),
    ]
    assert sent == 20 - 9 * n_refused, "the gate may end it early, which no forecast can know"
    assert all(row.completion_tokens >= 150 * row.calls for row in judging)


def test_token_estimates_grow_with_the_work() -> None:
    one, two = (RunConfig(model="m", limit=limit) for limit in (4, 8))
    few, many = (forecast(plan_tasks(config)[0], config) for config in (one, two))
    for a, b in zip(few, many, strict=True):
        assert (
            0 < a.prompt_tokens < b.prompt_tokens and b.completion_tokens == 2 * a.completion_tokens
        )


def test_an_unknown_price_is_not_zero() -> None:
    row = Forecast("t", "judge", 10, 1_000_000, 100_000)
    prices = {"m": Price(3.0, 15.0)}
    assert row.cost(prices, ["m"]) == "$4.50"
    assert row.cost(prices, ["m", "other"]) == row.cost(prices, []) == "n/a"


def test_it_writes_and_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R2W_CACHE", str(tmp_path / "cache"))
    # nothing listens there
    address = "http://127.0.0.1:9/v1#m"
    print_forecast(RunConfig(model=address, judge=(address,), limit=2))
    shown = capsys.readouterr().out
    assert "quickstart" in shown and "10" in shown and "n/a" in shown
    assert not list(tmp_path.iterdir())


def test_a_missing_price_file_is_named() -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml"):
        print_forecast(RunConfig(model="m", prices="nowhere.yaml"))


@pytest.mark.parametrize("field", ["model", "judge"])
def test_a_checkpoint_that_is_not_there_is_told_before_the_run(tmp_path: Path, field: str) -> None:
    for name in ("./absent", f"hf:{tmp_path}/absent"):
        named = {"model": "http://h/v1#m", field: (name,) if field == "judge" else name}
        with pytest.raises(UsageError, match="absent': no such folder"):
            print_forecast(RunConfig(**named))
    with pytest.raises(UsageError, match="API is named https://HOST/v1#NAME"):
        print_forecast(RunConfig(model="http://h/v1#m", judge=("gpt-4o",)))


@pytest.mark.usefixtures("with_data")
def test_it_tells_what_the_run_will_leave_out_and_look_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_forecast(RunConfig(model="someone/base", tasks="creative", judge=("none",), limit=1))
    *_, hub, left = capsys.readouterr().out.splitlines()
    assert hub == "someone/base: no such folder here; the run will look for it on the hub"
    assert left == "arena_hard_creative of the group creative is left out: it needs --baseline FILE"


def test_an_address_without_its_scheme_is_told_from_a_checkpoint() -> None:
    with pytest.raises(UsageError, match="Try: http://127.0.0.1:8000/v1#m"):
        print_forecast(RunConfig(model="127.0.0.1:8000/v1#m"))


def test_a_mistyped_folder_beside_others_is_no_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ckpts").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("ckpts/step-10", r"C:\ckpts\step-10"):
        with pytest.raises(UsageError, match="no such folder"):
            print_forecast(RunConfig(model=name))
