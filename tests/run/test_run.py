"""The whole job called as a function: identities, folders, budgets, judges added later."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT, ScriptedServer, completion

from r2w_eval.config import RunConfig
from r2w_eval.errors import (
    BudgetReached,
    CoverageTooLow,
    DataError,
    EndpointDown,
    IdentityMismatch,
    R2WError,
    UsageError,
)
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.models.client import HttpModel
from r2w_eval.models.replay import MissingRecord
from r2w_eval.run.job import Outcome, check_outcome, evaluate, judge_again
from r2w_eval.run.manifest import diff_fields
from r2w_eval.store import RunFolder, iter_jsonl, write_json


@pytest.fixture
def config(server: FakeServer, tmp_path: Path, own_cache: Path) -> RunConfig:
    return RunConfig(
        model=f"{server.base_url}#gen-0",
        judge=(f"{server.base_url}#judge-0",),
        out=str(tmp_path / "run"),
        limit=3,
        cache=False,
        timeout=10.0,
        judge_kwargs="temperature=1",
    )


@pytest.fixture
def prices(tmp_path: Path) -> str:
    """A price file for writer and judge."""
    path = tmp_path / "prices.yaml"
    path.write_text("gen-0: {input: 10, output: 10}\njudge-0: {input: 10, output: 10}\n")
    return str(path)


def run(config: RunConfig) -> Outcome:
    return asyncio.run(evaluate(config))


def sent(server: FakeServer) -> int:
    return server.stats().total.requests


def rows(outcome: Outcome, name: str) -> list[dict[str, Any]]:
    return list(iter_jsonl(outcome.folder.path / f"{name}.jsonl"))


def test_a_longer_run_in_the_same_folder_adds_only_what_is_new(
    server: FakeServer, config: RunConfig
) -> None:
    run(config)
    outcome = run(replace(config, limit=5))
    assert sent(server) == 5 * 6 and outcome.results[0].writer.n_expected == 5
    assert outcome.progress.sent == 12 and outcome.progress.reused == 18


def test_a_drawn_subset_is_the_same_for_every_model_and_grows_in_its_folder(
    server: FakeServer, config: RunConfig, tmp_path: Path
) -> None:
    def taken(outcome: Outcome) -> list[str]:
        return [row.sample_id for row in outcome.results[0].samples]

    drawn = replace(config, shuffle=True, limit=4)
    first = run(drawn)
    other = run(replace(drawn, model=f"{server.base_url}#other", out=str(tmp_path / "other")))
    assert (
        taken(first)
        == taken(other)
        != taken(run(replace(config, limit=4, out=str(tmp_path / "four"))))
    )
    named = replace(config, ids=tuple(taken(first)), limit=None, out=str(tmp_path / "named"))
    assert run(named).results[0].score_key == first.results[0].score_key
    again = asyncio.run(judge_again(first.folder, replace(drawn, judge=("none",)), reparse=True))
    assert taken(again) == taken(first) and again.progress.sent == 0
    grown = run(replace(drawn, limit=9))
    assert set(taken(first)) < set(taken(grown)) and grown.progress.sent == 5 * 6
    assert {sample_id.split("-")[1] for sample_id in taken(grown)} == {"en", "zh"}
    assert len({sample_id.split("-")[0] for sample_id in taken(grown)}) >= 5


def test_the_same_files_give_the_same_bytes(server: FakeServer, config: RunConfig) -> None:
    outcome = run(config)
    before = outcome.folder.results_path.read_bytes()
    outcome.folder.results_path.unlink()
    run(config)
    assert outcome.folder.results_path.read_bytes() == before and sent(server) == 18


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": 1}, "seed"),
        ({"mode": "parity"}, "mode"),
        ({"samples": 2}, "samples"),
        ({"repeats": 2}, "repeats"),
        ({"system_prompt": "Be brief."}, "writer.system_prompt"),
        ({"gen_kwargs": "temperature=0"}, "tasks.quickstart.decoding.temperature"),
        ({"judge_kwargs": "max_tokens=9"}, "tasks.quickstart.judge_decoding.max_tokens"),
        ({"omit": "top_p"}, "tasks.quickstart.decoding.top_p"),
        ({"think_tags": "<a>,</a>"}, "think_tags"),
    ],
)
def test_a_folder_of_another_configuration_is_refused_untouched(
    server: FakeServer, config: RunConfig, change: dict[str, Any], field: str
) -> None:
    outcome = run(config)
    before = {p.name: p.read_bytes() for p in outcome.folder.path.iterdir() if p.is_file()}
    with pytest.raises(IdentityMismatch, match=rf"(?m)^  {field}"):
        run(replace(config, **change))
    after = {p.name: p.read_bytes() for p in outcome.folder.path.iterdir() if p.is_file()}
    assert after == before and sent(server) == 18


@pytest.mark.parametrize("change", [{"max_connections": 3}, {"timeout": 9.0}, {"cache": True}])
def test_what_changes_no_answer_may_change(
    server: FakeServer, config: RunConfig, change: dict[str, Any]
) -> None:
    run(config)
    run(replace(config, **change))
    assert sent(server) == 18


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda inner: st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
)


@given(JSON, JSON)
def test_a_difference_is_reported_exactly_when_there_is_one(a: object, b: object) -> None:
    # a key that is absent and one that is null are the same setting: not set
    pruned = [json.dumps(_without_nulls(x), sort_keys=True) for x in (a, b)]
    if pruned[0] == pruned[1]:
        assert not list(diff_fields(a, a))
    elif a is not None and b is not None:
        assert list(diff_fields(a, b))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: _without_nulls(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v not in (None, {})}
    return value


def test_two_judges_have_their_own_results_and_keys(server: FakeServer, config: RunConfig) -> None:
    judges = (f"{server.base_url}#judge-0", f"{server.base_url}#judge-0+seed=5")
    outcome = run(replace(config, judge=judges, combine="none"))
    assert [r.judge for r in outcome.results] == ["judge-0", "judge-0+seed=5"]
    assert len({r.score_key for r in outcome.results}) == 2 and sent(server) == 3 + 2 * 15
    with pytest.raises(UsageError, match="the same judge twice"):
        run(replace(config, judge=judges[:1] * 2, out=config.out))


def test_a_judge_added_later_equals_one_named_at_once(
    server: FakeServer, config: RunConfig
) -> None:
    first, second = f"{server.base_url}#judge-0", f"{server.base_url}#judge-0+seed=5"
    assert config.out is not None
    apart = replace(config, combine="none")
    together = run(replace(apart, judge=(first, second), out=config.out + "2"))
    run(replace(config, judge=(first,)))
    added = asyncio.run(
        judge_again(RunFolder(Path(config.out)), replace(config, judge=(second,)), reparse=False)
    )
    both = [[(r.judge, r.score_key, r.metrics) for r in o.results] for o in (together, added)]
    assert both[0] == both[1]


def test_what_a_later_judge_lost_is_asked_again_and_nothing_else(
    server: FakeServer, config: RunConfig
) -> None:
    folder = run(config).folder
    lossy = replace(config, judge=(f"{server.base_url}#judge-0+http422=0.5",))

    def lost(settings: RunConfig) -> tuple[int, int]:
        """Verdicts that the lossy judge then owes, and the requests that this took."""
        before = sent(server)
        results = asyncio.run(judge_again(folder, settings, reparse=False)).results
        (own,) = (result for result in results if "http422" in result.judge)
        return sum(own.judging.failures.values()), sent(server) - before

    (first, _), (second, n_sent) = lost(lossy), lost(lossy)
    assert 0 < first == second and n_sent == 0
    third, n_sent = lost(replace(lossy, retry_failed=True))
    assert third < first and n_sent == first


def test_a_judge_that_another_process_adds_while_one_is_opened_is_not_lost(
    server: FakeServer, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(config).folder
    slow, quick = (replace(config, judge=(f"{server.base_url}#judge-0+seed={n}",)) for n in (5, 6))
    check, met = HttpModel.check, []

    async def meet(self: HttpModel) -> str | None:
        if self.id.endswith("seed=5"):
            with pytest.raises(UsageError, match="another process is writing it"):
                await judge_again(folder, quick, reparse=False)
            met.append(self.id)
        return await check(self)

    monkeypatch.setattr(HttpModel, "check", meet)
    asyncio.run(judge_again(folder, slow, reparse=False))
    added = asyncio.run(judge_again(folder, quick, reparse=False))
    assert met and len(added.results) == len(folder.manifest()["identity"]["judges"]) == 3


def test_the_first_command_goes_on_after_another_judge_was_added(
    server: FakeServer, config: RunConfig
) -> None:
    first, second = f"{server.base_url}#judge-0", f"{server.base_url}#judge-0+seed=5"
    folder = run(config).folder
    asyncio.run(judge_again(folder, replace(config, judge=(second,)), reparse=False))
    before = sent(server)
    longer = run(replace(config, limit=4))
    assert sent(server) - before == 1 + 5
    # the added judge has not read the new answer, which is no loss of this command
    assert [result.judging.n_valid for result in longer.results] == [20, 15]
    check_outcome(longer, 1.0)
    both = run(replace(config, limit=4, judge=(first, second)))
    assert [result.judging.n_valid for result in both.results] == [20, 20, 20]
    assert both.results[-1].ensemble is not None
    check_outcome(both, 1.0)
    again = run(replace(config, limit=5))
    assert [result.judging.n_valid for result in again.results] == [25, 20, 20]
    check_outcome(again, 1.0)
    with pytest.raises(
        IdentityMismatch, match="ensemble.combine: 'mean' -> 'median'.*\n.*judge .*run --judge J"
    ):
        run(replace(config, limit=4, judge=(first, second), combine="median"))


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (("tasks", "quickstart", "version"), r"quickstart.version: 'old' -> "),
        (("tasks", "quickstart", "prompts"), r"quickstart.prompts: 'old' -> "),
        (("judges", "judge-0", "weights"), r"judge-0.weights: 'old' -> None"),
    ],
)
def test_an_answer_is_not_judged_again_by_what_only_has_the_same_name(
    server: FakeServer, config: RunConfig, place: tuple[str, str, str], told: str
) -> None:
    folder = run(config).folder
    manifest = folder.manifest()
    group, name, fact = place
    manifest["identity"][group][name][fact] = "old"
    write_json(folder.manifest_path, manifest)
    before = folder.judgements_path.read_bytes(), folder.manifest_path.read_bytes(), sent(server)
    with pytest.raises(IdentityMismatch, match=told):
        asyncio.run(judge_again(folder, config, reparse=False))
    after = folder.judgements_path.read_bytes(), folder.manifest_path.read_bytes(), sent(server)
    assert after == before


def test_reparsing_sends_nothing_and_changes_nothing(server: FakeServer, config: RunConfig) -> None:
    judge = (f"{server.base_url}#judge-0+malformed=0.3+sticky",)
    outcome = run(replace(config, judge=judge))
    before = outcome.folder.results_path.read_bytes(), outcome.folder.judgements_path.read_bytes()
    count = sent(server)
    asyncio.run(judge_again(outcome.folder, replace(config, judge=judge), reparse=True))
    after = outcome.folder.results_path.read_bytes(), outcome.folder.judgements_path.read_bytes()
    assert after == before and sent(server) == count


def test_coverage_under_the_limit_is_said_after_the_results_are_written(
    server: FakeServer, config: RunConfig
) -> None:
    outcome = run(replace(config, judge=(f"{server.base_url}#judge-0+empty",)))
    assert outcome.folder.report_path.is_file()
    with pytest.raises(CoverageTooLow, match="0 of 15 verdicts"):
        check_outcome(outcome, 0.98)
    check_outcome(outcome, 0.0)
    # the way out that the message names: another judge, who is not held to what that one lost
    another = replace(config, judge=(f"{server.base_url}#judge-0",))
    again = asyncio.run(judge_again(outcome.folder, another, reparse=False))
    assert [result.judging.n_valid for result in again.results] == [0, 15]
    check_outcome(again, 0.98)


def test_what_failed_is_asked_again_although_the_cache_holds_the_bad_reply(
    server: FakeServer, config: RunConfig
) -> None:
    flaky = replace(
        config,
        model=f"{server.base_url}#gen-0+empty=0.4",
        judge=(f"{server.base_url}#judge-0+malformed=0.7",),
        limit=6,
        cache=True,
    )
    (first,) = run(flaky).results
    assert first.writer.statuses["empty"] and first.judging.failures["parse_error"]
    outcome = run(replace(flaky, retry_failed=True))
    (again,) = outcome.results
    assert again.writer.n_answered > first.writer.n_answered
    assert again.judging.n_valid > first.judging.n_valid
    assert not any(row["cached"] for row in rows(outcome, "responses"))
    assert not any(row["cached"] for row in rows(outcome, "judgements"))
    with pytest.raises(UsageError, match="--cache-dir X instead"):
        run(replace(flaky, retry_failed=True, replay="X"))


def test_what_a_writer_leaves_empty_is_its_own_result(
    server: FakeServer, config: RunConfig
) -> None:
    outcome = run(replace(config, model=f"{server.base_url}#gen-0+empty=0.5+sticky", limit=6))
    (result,) = outcome.results
    assert 0 < result.writer.statuses["empty"] < 6 and result.judging.coverage < 1.0
    check_outcome(outcome, 1.0)
    with pytest.raises(CoverageTooLow, match="answers have no score, over --max-unscored"):
        check_outcome(outcome, 1.0, max_unscored=0.0)


def test_answers_that_never_came_are_too_little_coverage_even_without_a_judge(
    server: FakeServer, config: RunConfig
) -> None:
    alone = replace(config, model=f"{server.base_url}#gen-0+http400=0.5", judge=("none",))
    outcome = run(alone)
    lost = outcome.results[0].writer.statuses["error"]
    assert 0 < lost < outcome.results[0].writer.n_expected
    with pytest.raises(CoverageTooLow, match=rf"{lost} of 3 answers never came"):
        check_outcome(outcome, 0.98)
    check_outcome(outcome, 0.0)


def test_answers_that_a_file_lacks_are_not_asked_for_again(
    config: RunConfig, tmp_path: Path
) -> None:
    given = tmp_path / "answers.jsonl"
    given.write_text('{"id": "story-en-1", "response": "Fog."}\n', encoding="utf-8")
    outcome = run(replace(config, model="agent", responses=str(given), judge=("none",)))
    with pytest.raises(CoverageTooLow, match=r"2 of 3 answers are not in .*--only-recorded"):
        check_outcome(outcome, 0.98)


def test_another_judge_of_an_unfinished_run_says_how_to_finish_it(config: RunConfig) -> None:
    folder = run(config).folder
    first = folder.responses_path.read_bytes().splitlines(keepends=True)[0]
    folder.responses_path.write_bytes(first)
    folder.judgements_path.unlink()
    outcome = asyncio.run(judge_again(folder, config, reparse=False))
    with pytest.raises(CoverageTooLow, match=r"2 of 3 answers were not asked for.*Finish the run"):
        check_outcome(outcome, 0.98)


def test_a_wrong_judge_key_stops_the_run_and_leaves_partial_results(
    server: FakeServer, config: RunConfig
) -> None:
    with pytest.raises(EndpointDown, match=r"\$R2W_JUDGE_API_KEY"):
        run(replace(config, judge=(f"{server.base_url}#judge-0+http401",)))
    assert config.out is not None
    (result,) = json.loads((Path(config.out) / "results.json").read_bytes())
    assert result["judging"]["n_valid"] == 0 and result["metrics"][0]["value"] is None


@pytest.mark.parametrize("name", ["responses", "judgements"])
def test_a_corrupt_line_in_the_middle_is_named_and_nothing_is_sent(
    server: FakeServer, config: RunConfig, name: str
) -> None:
    outcome = run(config)
    path = outcome.folder.path / f"{name}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + b"".join(lines[1:]))
    with pytest.raises(DataError, match=rf"{name}\.jsonl, .*mov|Mov"):
        run(config)
    assert sent(server) == 18
    path.write_bytes(b"".join(lines))
    run(config)
    assert sent(server) == 18


@pytest.mark.parametrize("name", ["responses", "judgements"])
@pytest.mark.parametrize("cut", [1, 20])
def test_a_truncated_last_line_costs_one_record(
    server: FakeServer, config: RunConfig, name: str, cut: int
) -> None:
    outcome = run(config)
    before = outcome.folder.results_path.read_bytes()
    path = outcome.folder.path / f"{name}.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    run(config)
    assert sent(server) == 19
    assert path.with_name(f"{name}.jsonl.partial").is_file()
    assert outcome.folder.results_path.read_bytes() == before


def test_a_lost_records_file_is_written_again(server: FakeServer, config: RunConfig) -> None:
    outcome = run(config)
    before = outcome.folder.results_path.read_bytes()
    outcome.folder.judgements_path.unlink()
    run(config)
    assert sent(server) == 18 + 15 and outcome.folder.results_path.read_bytes() == before


def test_one_permanent_refusal_among_many_is_one_lost_item_for_good(
    server: FakeServer, config: RunConfig
) -> None:
    prompt = rows(run(replace(config, out=f"{config.out}0")), "responses")[1]
    assert prompt["status"] == "ok"
    sample = json.loads((ROOT / "tasks/quickstart/samples.jsonl").read_text().split("\n")[1])
    marker = sample["prompt"].split("+")[0][:12]
    server.reset()
    marked = replace(config, model=f"{server.base_url}#gen-0+marker={marker}")
    outcome = run(marked)
    assert outcome.results[0].writer.statuses == {"error": 1, "ok": 2}
    assert sent(server) == 3 + 10
    run(marked)
    assert sent(server) == 3 + 10


def test_a_server_that_changes_its_model_is_reported(server: FakeServer, config: RunConfig) -> None:
    (result,) = run(replace(config, model=f"{server.base_url}#gen-0+newmodel=0.5")).results
    assert len(result.writer.models_returned) == 2
    assert any("2 model ids" in warning.text for warning in result.warnings)


def test_the_manifest_tells_how_sampling_differs_from_the_suites_own(config: RunConfig) -> None:
    outcome = run(replace(config, gen_kwargs="temperature=0", omit="top_p", judge_kwargs="top_k=1"))
    differs = outcome.manifest["identity"]["tasks"]["quickstart"]["differs"]
    assert differs == ["temperature 0.7 -> 0.0", "top_p 0.95 -> unset", "judge top_k unset -> 1"]


def test_omitted_parameters_are_not_sent(config: RunConfig) -> None:
    bodies: list[dict[str, Any]] = []
    with ScriptedServer((200, {}, completion('{"score": 5}'))) as odd:
        odd.on_body = bodies.append
        address = f"{odd.base_url}#m"
        run(
            replace(config, model=address, judge=(f"{odd.base_url}#j",), omit="top_p,seed", limit=1)
        )
    assert bodies and not {"top_p", "seed"} & {key for body in bodies for key in body}


def test_blanks_in_omit_do_not_matter(config: RunConfig) -> None:
    outcome = run(replace(config, omit="top_p, seed"))
    assert {row["seed"] for row in rows(outcome, "responses")} == {None}


def test_a_budget_holds_with_the_cache_too(config: RunConfig, prices: str) -> None:
    outcome = run(replace(config, cache=True, prices=prices, max_cost=0.01))
    with pytest.raises(BudgetReached):
        check_outcome(outcome, 0.0)


def test_a_budget_with_nothing_left_sends_nothing(
    server: FakeServer, config: RunConfig, prices: str
) -> None:
    outcome = run(replace(config, prices=prices, max_cost=0.0))
    assert sent(server) == 0 and outcome.progress.sent == 0
    with pytest.raises(BudgetReached):
        check_outcome(outcome, 0.0)


def test_a_cap_is_one_for_all_calls_into_a_folder(
    server: FakeServer, config: RunConfig, prices: str
) -> None:
    # one call at a time: what others in flight may cost is held back, and left over in the end
    capped = replace(config, limit=10, prices=prices, max_cost=0.2, max_connections=1)
    first = run(capped)
    assert first.budget is not None and 0 < first.budget.spent_usd <= 0.25
    before = sent(server)
    for again in (run(capped), asyncio.run(judge_again(first.folder, capped, reparse=False))):
        assert again.budget is not None
        assert again.budget.spent_usd == pytest.approx(first.budget.spent_usd)
        with pytest.raises(BudgetReached, match="earlier calls into the same folder included"):
            check_outcome(again, 0.0)
    assert sent(server) == before


@pytest.mark.parametrize("name", ["judge", "model"])
def test_an_address_with_a_key_in_it_never_reaches_the_disk(
    config: RunConfig, tmp_path: Path, name: str
) -> None:
    address = "http://127.0.0.1:9/v1?key=planted-secret#m"
    change: dict[str, Any] = {name: (address,) if name == "judge" else address}
    with pytest.raises(R2WError) as caught:
        run(replace(config, **change))
    assert "planted-secret" not in str(caught.value)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if b"planted-secret" in path.read_bytes()]


def test_without_a_judge_answers_are_written_and_nothing_is_owed(
    config: RunConfig, server: FakeServer
) -> None:
    outcome = run(replace(config, judge=("none",)))
    (result,) = outcome.results
    assert sent(server) == 3
    assert result.headline.value is None
    assert (result.judging.n_total, result.judging.coverage) == (0, 1.0)
    check_outcome(outcome, 0.98)


def test_a_replay_gives_the_same_files_without_a_connection_and_names_what_it_lacks(
    server: FakeServer, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = str(tmp_path / "records")
    first = run(replace(config, cache=True, cache_dir=records))
    monkeypatch.setattr(HttpModel, "_open", None)  # even an attempt to connect would fail
    again = replace(config, replay=records, out=str(tmp_path / "again"), max_cost=0.0)
    second = run(again)
    assert second.folder.results_path.read_bytes() == first.folder.results_path.read_bytes()
    later = replace(config, replay=records, judge_kwargs="temperature=0.5")
    with pytest.raises(MissingRecord, match=r"quickstart \S+, verdict '.+': .*judge-0 .*--cache-"):
        asyncio.run(judge_again(first.folder, later, reparse=False))
    with pytest.raises(MissingRecord, match="answer: .*gen-0"):
        run(replace(again, limit=4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replay": "nowhere"}, "no replies.sqlite there"),
        ({"replay": ".", "pages": "live", "tasks": "deepresearch_gym"}, "asks nobody"),
    ],
)
def test_a_replay_that_cannot_be_is_refused_before_any_request(
    server: FakeServer, config: RunConfig, change: dict[str, Any], message: str, benchmarks: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        run(replace(config, data_dir=str(benchmarks), **change))
    assert sent(server) == 0
