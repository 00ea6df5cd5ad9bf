"""The stages as a user calls them: folders that hold one work, prompts that no benchmark has."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from r2w_eval.reward_models.commands import DataChoice
from r2w_eval.reward_models.commands import train as train_reward
from r2w_eval.reward_models.data.recipe import reflection_rows
from r2w_eval.reward_models.data.rows import Row, read_row
from r2w_eval.reward_models.data.synthesis import build_synthesis
from r2w_eval.reward_models.linear.fit import read_features
from r2w_eval.reward_models.linear.heads import HEADS, fit
from r2w_eval.training.journal import Call, Journal, NoAnswer
from r2w_eval.training.pipeline import commands
from r2w_eval.training.pipeline.display import show_census
from r2w_eval.training.pipeline.recipe import SECTIONS, TraceSettings
from r2w_eval.training.prompts import Criterion, Prompt, starter_prompts
from r2w_eval.training.rl.advantages import LocalMapping
from r2w_eval.training.rl.penalties import Penalties
from r2w_eval.training.rl.settings import RLSettings
from r2w_eval.training.synthesis.expert import excerpt, planted_traces
from r2w_eval.training.synthesis.loop import SynthSettings
from scripted import ScriptedModel, endpoint, mixed
from support import ScriptedServer, completion

from r2w_eval.errors import DataError, EndpointDown, IdentityMismatch, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.trace import segment_trace
from r2w_eval.trace.tags import parse_tagged
from r2w_eval.trace.types import Form, TagSchema


def test_a_folder_holds_one_work_and_says_what_differs(tmp_path: Path) -> None:
    commands.claim(tmp_path / "a", "sft", {"settings": {"epochs": 1}})
    commands.claim(tmp_path / "a", "sft", {"settings": {"epochs": 1}})
    with pytest.raises(IdentityMismatch, match="settings.epochs: 1 -> 2"):
        commands.claim(tmp_path / "a", "sft", {"settings": {"epochs": 2}})


def test_our_recipes_are_read() -> None:
    for name in ("smoke", "laptop", "small", "small-expert", "r2write-8b"):
        assert set(commands.settings_of(name)) == set(SECTIONS)


def test_a_benchmark_prompt_is_refused(
    benchmarks: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = benchmarks / "longbench_write" / "longbench_write.jsonl"
    query = json.loads(source.read_text("utf-8").split("\n")[3])["prompt"]
    path = tmp_path / "prompts.jsonl"
    record = {"id": "mine", "lang": "en", "domain": "x", "prompt": query}
    path.write_text(json.dumps(record) + "\n", "utf-8")
    # this suite alone: the index of all takes longer than the rest of these tests
    data = tmp_path / "data"
    data.mkdir()
    (data / "longbench_write").symlink_to(source.parent)
    with pytest.raises(UsageError, match="prompt 'mine'.*benchmark"):
        commands.choose_prompts(str(path), 0, 0, str(data))


def test_suites_that_could_not_be_compared_are_named(tmp_path: Path, own_cache: Path) -> None:
    prompts, notes = commands.choose_prompts(None, 4, 0, str(tmp_path))
    assert len(prompts) == 4 and "not compared with" in notes[-1]


def test_a_judge_that_writes_no_marks_ends_every_episode_typed(
    tmp_path: Path, own_cache: Path
) -> None:
    with FakeServer() as server:
        models = TraceSettings(writer=f"{server.base_url}#gen-0")
        made = asyncio.run(
            commands.run_synthesis(models, starter_prompts(2), SynthSettings(), tmp_path / "out")
        )
    assert made.census.stops == {"judge_failed": 2} and made.census.n_kept == 0
    lines: list[str] = []
    show_census(made, lines.append)
    assert "judge_failed 2" in lines[0] and "n/a" in lines[3]
    assert (tmp_path / "out" / commands.TRACES).read_bytes() == b""


@pytest.mark.parametrize("fault", ["dies", "hangs"])
def test_synthesis_ends_when_its_endpoint_is_dead_and_goes_on_from_there(
    tmp_path: Path, own_cache: Path, fault: str
) -> None:
    prompts = [Prompt("p", "en", "story", "Write.", (Criterion("Pace", "It moves."),))]
    settings = SynthSettings(patience_s=0.4, rounds=1)

    def synthesise(url: str, patience_s: float = 0.4) -> commands.Synthesis:
        own = replace(settings, patience_s=patience_s)
        models = TraceSettings(writer=f"{url}#m")
        return asyncio.run(commands.run_synthesis(models, prompts, own, tmp_path / "out"))

    def hang(headers: dict[str, str]) -> bytes:
        time.sleep(3)
        return b""

    plan, silence = (200, {}, completion("A plan.")), (503, {}, b"" if fault == "dies" else hang)
    started = time.monotonic()
    with (
        ScriptedServer(plan, silence) as server,
        pytest.raises(EndpointDown, match=r"answered nobody for .* run the same command again"),
    ):
        synthesise(server.base_url)
    # the patience, at most two requests of that length, and the pauses between
    assert time.monotonic() - started < 8
    # with another patience it is the same work
    with ScriptedServer((200, {}, completion("A draft."))) as server:
        made = synthesise(server.base_url, 60.0)
    assert made.tally.reused == 1 and made.census.stops == {"judge_failed": 1}


def test_one_call_that_always_fails_costs_its_prompt_alone(tmp_path: Path, own_cache: Path) -> None:
    model = ScriptedModel()
    model.fail = lambda step: True
    with Journal(tmp_path / "steps.jsonl", patience_s=0.05) as journal:
        call = Call("p", 0, "draft", "Write.")
        with pytest.raises(NoAnswer, match="transport"):
            asyncio.run(journal.ask(model.role(), call))
        assert journal.tally.failed["draft: transport"] > 1


def synthesise_mixed(folder: Path, n: int = 1) -> tuple[commands.Synthesis, ScriptedModel]:
    """The loop over HTTP with steps of every label; the second judge halves every gain."""
    rubric = (Criterion("Pace", "It moves."),)
    prompts = [
        Prompt(f"p{i}", "en", "story", f"Write scene {'abcdefgh'[i] * 9} at night.", rubric)
        for i in range(n)
    ]
    model, second = ScriptedModel(mixed), ScriptedModel(lambda text: 5 + (mixed(text) - 5) / 2)
    with endpoint(model) as one, endpoint(second) as other:
        models = TraceSettings(writer=f"{one.base_url}#m", second_judge=f"{other.base_url}#second")
        settings = SynthSettings(concurrency=1)
        made = asyncio.run(commands.run_synthesis(models, prompts, settings, folder))
    return made, second


def test_the_second_judges_gain_calls_and_name_are_reported(
    tmp_path: Path, own_cache: Path
) -> None:
    made, second = synthesise_mixed(tmp_path / "out", 2)
    census = made.census
    assert census.labels == {"degraded": 2, "improved": 2, "neutral": 2}
    assert (census.n_kept, census.n_fresh_gains) == (2, 2)
    assert census.mean_fresh_gain == pytest.approx(0.5)
    assert made.tally.sent["second_judge"] == len(second.requests) == 8
    lines: list[str] = []
    show_census(made, lines.append)
    assert lines[3].endswith("of the second judge second: +0.50 (2 of 2)")
    assert "second_judge 8" in lines[4]
    # r2write.md section 3.4: half of the levels at most
    assert lines[-1] == "levels: wording 6 ! more than half are of mechanics and wording"
    costs = json.loads((tmp_path / "out" / "costs.json").read_text())
    assert costs["calls"]["second_judge"] == 8


def test_a_second_judge_is_another(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is the judge itself"):
        TraceSettings(judge="a", second_judge="a")


def test_the_heads_learn_from_the_loops_own_steps(tmp_path: Path, own_cache: Path) -> None:
    made, _ = synthesise_mixed(tmp_path / "synth", 6)
    labels = {"improved": 6, "neutral": 6, "degraded": 6}
    assert made.census.labels == labels
    (tmp_path / "sets").mkdir()
    choice = DataChoice(str(tmp_path / "sets"), fillings=1, synth=(str(tmp_path / "synth"),))
    train_reward(choice, str(tmp_path / "out"), data_only=True, transformer=None)
    lines = (tmp_path / "out" / "data.jsonl").read_text("utf-8").splitlines()
    rows = [read_row(json.loads(line)) for line in lines]
    own = [row for row in rows if row.source == "own_synthesis"]
    assert Counter(row.kind for row in own) == labels
    effects = {"improved": 1.0, "neutral": 0.0, "degraded": -1.0}
    assert all(row.labels == {"effect": effects[row.kind]} for row in own)
    assert all(row.licence == "own data" and row.item.draft for row in own)  # type: ignore[union-attr]
    # a prompt's steps are in one part of the split, whatever prompts there are beside it
    assert len({row.split_group for row in own}) == 6
    card = (tmp_path / "out" / "data.md").read_text("utf-8")
    assert "| own_synthesis | own data | degraded | 6 |" in card and "manifest.json" in card

    def effect(rows: list[Row]) -> dict[str, float]:
        """The mean effect that heads fitted on the rows give the loop's steps, by their labels."""
        found = fit(rows, read_features(rows)).values(read_features(own))[:, HEADS.index("effect")]
        return {
            k: fmean(v for v, row in zip(found, own, strict=True) if row.kind == k) for k in labels
        }

    without = effect(reflection_rows([row for row in rows if row not in own]))
    learned = effect(reflection_rows(rows))
    assert learned["improved"] > learned["neutral"] > learned["degraded"]
    gap = learned["improved"] - learned["degraded"]
    assert gap > 0.3 + without["improved"] - without["degraded"]


def test_a_malformed_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file. Expected the output folder"):
        list(build_synthesis(tmp_path))
    path = tmp_path / "reflections.jsonl"
    path.write_text("")
    with pytest.raises(DataError, match="the loop made no step"):
        list(build_synthesis(tmp_path))
    good = {"id": "p:1", "prompt": "x", "draft": "a", "reflection": "I see.", "revision": "b",
            "label": "improved", "gain": 0.5, "lang": "en", "level": "wording"}  # fmt: skip
    path.write_text(json.dumps(good) + "\n")
    assert [row.labels for row in build_synthesis(tmp_path)] == [{"effect": 0.5}]
    for change, told in (
        ({"gain": -0.5}, "of the same sign"),
        ({"gain": float("nan")}, "gain 'nan'"),
        ({"label": "better"}, "label 'better'"),
        ({"draft": ""}, "which is missing"),
        ({"revision": None}, "expected draft, reflection and revision"),
        ({"reflection": 1}, "reflection: expected text"),
    ):
        path.write_text(json.dumps(good) + "\n" + json.dumps({**good, **change}) + "\n")
        with pytest.raises(DataError, match=f"line 2.*{told}"):
            list(build_synthesis(tmp_path))


def test_expert_traces_parse_back_and_end_in_the_experts_text(
    reward_data: Path, tmp_path: Path
) -> None:
    chosen = TraceSettings(reward_data=str(reward_data))
    n = commands.write_expert_traces(chosen, tmp_path / "out")
    lines = (tmp_path / "out" / commands.TRACES).read_text("utf-8").split("\n")[:-1]
    assert len(lines) == n > 300
    for line in lines[:50]:
        trace = json.loads(line)
        found = parse_tagged(trace["thinking"], TagSchema())
        kinds = [str(s.kind) for s in found.segments if s.kind != "other"]
        assert kinds[0] == "draft" and kinds[-1] == "revision" and "reflection" in kinds
        assert found.text_of(found.segments[-1]) == trace["answer"].strip()


def test_planted_traces_in_prose_are_read_as_they_were_written() -> None:
    planted = planted_traces(200, form=Form.PROSE)
    assert [t.answer for t in planted] == [t.answer for t in planted_traces(200)]
    for trace in planted:
        found = segment_trace(trace.thinking).segments
        assert [(str(s.kind), s.span.start, s.span.end) for s in found] == [
            (part.kind, part.start, part.end) for part in trace.segments
        ]


def test_almost_every_expert_trace_can_be_written_in_prose(
    reward_data: Path, tmp_path: Path
) -> None:
    counts = {
        form: commands.write_expert_traces(
            TraceSettings(reward_data=str(reward_data), form=form), tmp_path / form
        )
        for form in ("tagged", "prose")
    }
    assert 0.99 * counts["tagged"] < counts["prose"] <= counts["tagged"]


def test_a_policy_taught_in_prose_is_paid_by_its_answers_alone(tmp_path: Path) -> None:
    model = str(tmp_path / "model")
    paid = RLSettings(model=model)
    commands.require_tags(paid)
    (tmp_path / "trained.json").write_text('{"n_rows": 5, "n_prose": 4}')
    with pytest.raises(UsageError, match="4 of 5 rows of its fine-tuning are in prose"):
        commands.require_tags(paid)
    plain = replace(paid, process_mapping=LocalMapping(weight=0.0))
    commands.require_tags(plain)
    with pytest.raises(UsageError, match="in prose"):
        commands.require_tags(replace(plain, penalties=Penalties(redundancy=0.1)))


def test_an_excerpt_cuts_draft_and_revision_where_both_have_the_same_sentence() -> None:
    draft = (
        "The sea was blue. The night was dark as night. Nobody spoke. It was a storm. All slept."
    )
    revision = "The sea was blue. One lamp was lit. Nobody spoke. Rain came. All slept."
    spans = [
        {"span": text, "category": "Cliche", "start": draft.index(text),
         "end": draft.index(text) + len(text)}
        for text in ("dark as night", "a storm")
    ]  # fmt: skip
    record = {"id": "1", "paragraph": draft, "expert_revision": revision, "expert_spans": spans}
    found = excerpt(record, 45)
    assert found is not None and found["paragraph"] == "The night was dark as night. Nobody spoke."
    assert found["expert_revision"] == "One lamp was lit. Nobody spoke."
    (span,) = found["expert_spans"]
    assert found["paragraph"][span["start"] : span["end"]] == span["span"]
    # more marked spans are better than a longer text, and nothing fits in ten characters
    whole = excerpt(record, 100)
    assert whole is not None and whole["paragraph"] == draft
    assert excerpt(record, 10) is None


def test_a_disk_that_is_full_while_weights_are_written_is_named(tmp_path: Path) -> None:
    from r2w_eval.training.trainer.faults import NotWritten, full_disk_named

    told = "Make room and run the same command again"
    with pytest.raises(NotWritten, match=told), full_disk_named(tmp_path):
        raise RuntimeError("basic_ios::clear: iostream error")
    with pytest.raises(RuntimeError, match="shapes"), full_disk_named(tmp_path):
        raise RuntimeError("shapes do not match")
