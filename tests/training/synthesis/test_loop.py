"""The writer-judge loop: every stop rule, blindness of each part, restarts, and what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from r2w_eval.training.journal import DRAWN, Call, Journal, NoAnswer, Role, read_costs
from r2w_eval.training.judging.rubrics import complete_rubrics
from r2w_eval.training.prompts import Criterion, Prompt
from r2w_eval.training.synthesis.leaks import Leak
from r2w_eval.training.synthesis.loop import (
    Episode,
    Label,
    Roles,
    Stop,
    SynthSettings,
    label_of,
    synthesise,
)
from r2w_eval.training.synthesis.steps import loop_reflections
from r2w_eval.training.synthesis.traces import (
    Dropped,
    TrainingTrace,
    hands_over,
    near_duplicates,
    stitch,
    take_census,
)
from scripted import DRAFT, ScriptedModel, cut, mixed, step_of

from r2w_eval.errors import UsageError
from r2w_eval.models.chat import ChatRequest, Reply
from r2w_eval.models.thinking import ThinkTags
from r2w_eval.trace import segment_trace
from r2w_eval.trace.tags import parse_tagged
from r2w_eval.trace.types import Form, TagSchema
from r2w_eval.trace.units import units
from r2w_eval.types import Decoding

DEFAULT = SynthSettings()
RUBRIC = (Criterion("Clarity", "It is clear.", 2.0), Criterion("Pace", "It moves."))
PROMPT = Prompt("p1", "en", "story", "Write a scene at night.", RUBRIC)


def rising(step: float = 1.0, start: float = 5.0) -> Callable[[str], float]:
    """A mark that rises with every revision."""
    return lambda text: min(10.0, start + step * text.count("Better"))


def run(
    model: ScriptedModel, folder: Path, settings: SynthSettings = DEFAULT, n: int = 1
) -> list[Episode]:
    roles = Roles(model.role(), model.role(), model.role())
    prompts = [replace(PROMPT, id=f"p{i}") for i in range(n)]
    with Journal(folder / "steps.jsonl") as journal:
        return asyncio.run(synthesise(prompts, roles, journal, settings))


def test_a_text_that_is_good_enough_is_accepted_at_once(tmp_path: Path) -> None:
    model = ScriptedModel(lambda text: 9.0)
    model.severity = "minor"
    (episode,) = run(model, tmp_path)
    assert (episode.stop, episode.steps, episode.best) == (Stop.ACCEPT, [], DRAFT)


def test_a_major_problem_forbids_acceptance(tmp_path: Path) -> None:
    (episode,) = run(ScriptedModel(lambda text: 9.0), tmp_path)
    assert episode.stop is Stop.PLATEAU


def test_two_rounds_without_gain_are_a_plateau_and_the_base_stays(tmp_path: Path) -> None:
    (episode,) = run(ScriptedModel(), tmp_path)
    assert episode.stop is Stop.PLATEAU
    assert [step.label for step in episode.side] == [Label.NEUTRAL] * 2
    assert {step.base for step in episode.side} == {DRAFT} and episode.best == DRAFT


def test_a_revision_that_changes_nothing_is_neutral_however_the_marks_waver(tmp_path: Path) -> None:
    marks = iter([5.0, 9.0, 5.0, 9.0])
    model = ScriptedModel(lambda text: next(marks))
    answer = model._answer
    model._answer = lambda step, text: (  # type: ignore[method-assign]
        f"{cut(text, 'draft')}\n" if step == "revise" else answer(step, text)
    )
    (episode,) = run(model, tmp_path, SynthSettings(delta=0.0))
    assert episode.stop is Stop.PLATEAU and not episode.chain
    assert [(step.label, step.gain) for step in episode.side] == [(Label.NEUTRAL, 0.0)] * 2
    assert model.requests.count("judge") == 1


@pytest.mark.parametrize("step", ["judge", "rubric", "reflect"])
def test_an_empty_reply_is_asked_for_again(tmp_path: Path, step: str) -> None:
    model = ScriptedModel(rising())
    answer = model._answer
    model._answer = lambda asked, text: (  # type: ignore[method-assign]
        "" if asked == step and model.requests.count(step) == 1 else answer(asked, text)
    )
    role = model.role()
    with Journal(tmp_path / "steps.jsonl") as journal:
        prompt = replace(PROMPT, rubric=())
        (episode,) = asyncio.run(synthesise([prompt], Roles(role, role, role), journal, DEFAULT))
    assert episode.stop is Stop.MAX_ROUNDS and len(episode.chain) == 3
    assert episode.leaks == ([Leak.EMPTY] if step == "reflect" else [])


@pytest.mark.parametrize("lang", ["fr", "chinese"])
def test_a_prompt_in_a_language_that_is_not_read_is_refused_before_any_call(
    tmp_path: Path, lang: str
) -> None:
    model = ScriptedModel()
    role = model.role()
    prompts = [replace(PROMPT, lang="en-GB"), replace(PROMPT, id="p2", lang=lang)]
    with (
        Journal(tmp_path / "steps.jsonl") as journal,
        pytest.raises(UsageError, match=f"prompt 'p2': lang '{lang}'"),
    ):
        asyncio.run(synthesise(prompts, Roles(role, role, role), journal, DEFAULT))
    assert not model.requests


def test_a_text_that_is_handed_over_with_a_remark_is_no_trace(tmp_path: Path) -> None:
    model = ScriptedModel(rising())
    answer = model._answer
    model._answer = lambda step, text: (  # type: ignore[method-assign]
        ("Here is the revised piece:\n\n" if step == "revise" else "") + answer(step, text)
    )
    (episode,) = run(model, tmp_path, SynthSettings(rounds=1))
    assert episode.chain and stitch(episode) is Dropped.REMARK


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Sure! Here's the revised version of your story:\n\nRain.", True),
        ("**Okay, here is my second draft:**\nRain.", True),
        ("好的，以下是修改后的正文：\n\n雨。", True),
        ("下面是润色稿：\n雨。", True),
        ("Here is the text of the treaty, as they read it:\nPeace.", False),
        ("Here is a version of the story my mother told:\nOnce.", False),
        ("Dear Ana,\nhere is the revised draft:\nRain.", False),
        ("这是我家的正文：说来话长。", False),
    ],
)
def test_a_remark_that_hands_a_text_over_is_told_from_its_first_line(
    text: str, expected: bool
) -> None:
    assert hands_over(text) is expected


def test_a_worse_text_is_a_side_step(tmp_path: Path) -> None:
    (episode,) = run(ScriptedModel(rising(-1.0)), tmp_path)
    assert [step.label for step in episode.side] == [Label.DEGRADED] * 2 and not episode.chain


def test_rounds_are_limited(tmp_path: Path) -> None:
    (episode,) = run(ScriptedModel(rising()), tmp_path)
    assert episode.stop is Stop.MAX_ROUNDS and len(episode.chain) == 3
    assert episode.chain[2].base == episode.chain[1].text
    assert episode.fresh_gain == pytest.approx(3.0)


class GreedyJudge(ScriptedModel):
    """A judge whose greedy reply says something else than its drawn ones."""

    def __init__(self, greedy: Callable[[str], str], marks: Callable[[str], float]) -> None:
        super().__init__(marks)
        self.greedy = greedy
        self.temperatures: list[float | None] = []

    async def complete(self, request: ChatRequest) -> Reply:
        reply = await super().complete(request)
        self.temperatures.append(request.decoding.temperature)
        is_greedy = request.decoding.temperature == 0
        return replace(reply, text=self.greedy(reply.text)) if is_greedy else reply

    def role(self) -> Role:
        return Role(self, Decoding(temperature=0.0))


def run_judged(judge: GreedyJudge, folder: Path, settings: SynthSettings) -> Episode:
    writer = ScriptedModel()
    with Journal(folder / "steps.jsonl") as journal:
        roles = Roles(writer.role(), judge.role(), writer.role())
        return asyncio.run(synthesise([PROMPT], roles, journal, settings))[0]


def test_the_reported_gain_does_not_use_the_assessments_that_selected(tmp_path: Path) -> None:
    # the greedy reply flatters whatever was revised: 9 where its draws say 6
    judge = GreedyJudge(lambda reply: reply.replace("6.0", "9.0"), rising())
    judge.severity = "minor"
    episode = run_judged(judge, tmp_path, SynthSettings(rounds=1, fresh=3))
    assert episode.mean_first == 5.0 and episode.mean_best == 9.0
    assert episode.fresh_gain == pytest.approx(1.0)
    assert judge.temperatures == [0.0] * 2 + [DRAWN] * 6


class Thinker(ScriptedModel):
    """Cut in the thinking that its chat template has opened."""

    async def complete(self, request: ChatRequest) -> Reply:
        return Reply("Let me see. A storm, perhaps", "length")


@pytest.mark.parametrize("is_opened", [True, False])
def test_thoughts_that_a_template_opened_are_no_answer(tmp_path: Path, is_opened: bool) -> None:
    role = Role(Thinker(), Decoding(), ThinkTags(opened_by_template=is_opened))
    for reused in (0, 1):
        with (
            Journal(tmp_path / "steps.jsonl") as journal,
            pytest.raises(NoAnswer, match="unclosed_think" if is_opened else "truncated"),
        ):
            asyncio.run(journal.ask(role, Call("p", 0, "draft", "Write.")))
        assert journal.tally.reused == reused


def test_an_unreadable_reply_is_drawn_again(tmp_path: Path) -> None:
    judge = GreedyJudge(lambda reply: "I would rather not say.", rising())
    episode = run_judged(judge, tmp_path / "a", SynthSettings(rounds=1, fresh=1))
    assert episode.stop is Stop.MAX_ROUNDS and episode.fresh_gain == pytest.approx(1.0)
    assert judge.temperatures == [0.0, DRAWN] * 2 + [DRAWN] * 2
    with Journal(tmp_path / "b" / "steps.jsonl") as journal:
        bare = replace(PROMPT, rubric=())
        asked = complete_rubrics([bare], journal, judge.role())
        assert asyncio.run(asked)[bare.prompt][0].name == "Clarity"


def run_with_second(second: ScriptedModel, folder: Path) -> tuple[Episode, ScriptedModel]:
    model = ScriptedModel(rising())
    with Journal(folder / "steps.jsonl") as journal:
        roles = Roles(model.role(), model.role(), model.role(), second.role())
        return asyncio.run(synthesise([PROMPT], roles, journal, DEFAULT))[0], model


def test_a_second_judge_tells_the_gain_and_chooses_nothing(tmp_path: Path) -> None:
    # another scale: half the gain of the judge that chose
    second = ScriptedModel(rising(0.5, 3.0))
    second.id = "second"
    episode, model = run_with_second(second, tmp_path)
    assert episode.mean_best == 8.0 and episode.fresh_gain == pytest.approx(1.5)
    assert second.requests == ["judge"] * 4
    # the first draft and three revisions, and nothing after
    assert model.requests.count("judge") == 4
    assert read_costs(tmp_path / "steps.jsonl").calls["second_judge"] == 4


def test_a_second_judge_that_fails_gives_no_gain(tmp_path: Path) -> None:
    second = ScriptedModel(lambda text: 11.0)
    second.id = "second"
    episode, _ = run_with_second(second, tmp_path)
    assert episode.fresh_gain is None and episode.mean_best == 8.0
    census = take_census([episode], [replace(stitched(one_step(tmp_path / "a")), gain=None)], "x")
    assert (census.n_kept, census.n_fresh_gains, census.mean_fresh_gain) == (1, 0, None)


def test_without_fresh_assessments_there_is_no_gain(tmp_path: Path) -> None:
    (episode,) = run(ScriptedModel(rising()), tmp_path, SynthSettings(fresh=0))
    assert episode.chain and episode.fresh_gain is None
    with pytest.raises(UsageError, match="fresh -1"):
        SynthSettings(fresh=-1)


def test_long_thinking_is_ended(tmp_path: Path) -> None:
    (episode,) = run(ScriptedModel(rising()), tmp_path, SynthSettings(token_cap=40))
    assert episode.stop is Stop.TOKEN_CAP
    # the step that would go beyond it is none of the trace
    whole = run(ScriptedModel(rising()), tmp_path / "b", SynthSettings(rounds=2))[0]
    cap = whole.thinking_tokens() - 1
    (cut_short,) = run(ScriptedModel(rising()), tmp_path / "c", SynthSettings(token_cap=cap))
    assert (cut_short.stop, len(cut_short.chain), len(cut_short.side)) == (Stop.TOKEN_CAP, 1, 1)
    assert cut_short.thinking_tokens() <= cap and cut_short.best == cut_short.chain[0].text


@pytest.mark.parametrize(
    "step, stop", [("judge", Stop.JUDGE_FAILED), ("draft", Stop.WRITER_FAILED)]
)
def test_a_part_that_fails_ends_the_episode_without_a_mark(
    tmp_path: Path, step: str, stop: Stop
) -> None:
    model = ScriptedModel()
    model.fail = lambda name: name == step
    (episode,) = run(model, tmp_path)
    assert (episode.stop, episode.mean_first) == (stop, None)
    assert "reset" in episode.reason


def test_an_unreadable_judge_is_asked_again_and_then_gives_nothing(tmp_path: Path) -> None:
    model = ScriptedModel(lambda text: 11.0)
    (episode,) = run(model, tmp_path)
    assert episode.stop is Stop.JUDGE_FAILED and "outside 1 to 10" in episode.reason
    assert model.requests.count("judge") == 3


def test_a_leaking_reflection_is_refused_until_the_tries_are_spent(tmp_path: Path) -> None:
    model = ScriptedModel(rising())
    model.thoughts = lambda n: "The reviewer says I should change it."
    (episode,) = run(model, tmp_path)
    assert episode.stop is Stop.NO_REFLECTION and episode.leaks == [Leak.NAMES_A_JUDGE] * 3


def test_a_second_try_may_pass(tmp_path: Path) -> None:
    model = ScriptedModel(rising())
    honest = model.thoughts
    model.thoughts = lambda n: "Lovely." if n == 1 else honest(n)
    (episode,) = run(model, tmp_path, SynthSettings(rounds=1))
    assert len(episode.leaks) == 1 and len(episode.chain) == 1


def test_the_judge_sees_one_text_and_the_writer_no_verdict(tmp_path: Path) -> None:
    model = ScriptedModel(rising())
    (episode,) = run(model, tmp_path)
    for text in model.seen:
        if step_of(text) == "judge":
            assert text.count("dark and stormy") == 1
            assert not any(step.reflection in text for step in episode.chain)
        if step_of(text) == "revise":
            assert "worn. What would mend it" not in text and "another image" not in text


def test_a_missing_rubric_is_proposed_once(tmp_path: Path) -> None:
    model = ScriptedModel(rising())
    roles = Roles(model.role(), model.role(), model.role())
    with Journal(tmp_path / "steps.jsonl") as journal:
        bare = replace(PROMPT, rubric=())
        (episode,) = asyncio.run(synthesise([bare], roles, journal, SynthSettings()))
    assert [criterion.name for criterion in episode.rubric] == ["Clarity"]
    assert model.requests.count("rubric") == 1


def test_a_finished_synthesis_asks_nothing_and_gives_the_same(tmp_path: Path) -> None:
    first = run(ScriptedModel(rising()), tmp_path, n=3)
    again = ScriptedModel(rising())
    assert run(again, tmp_path, n=3) == first and again.requests == []


@pytest.mark.parametrize("after", [1, 4, 7])
def test_a_stopped_synthesis_goes_on_where_it_was(tmp_path: Path, after: int) -> None:
    whole = run(ScriptedModel(rising()), tmp_path / "a")
    broken = ScriptedModel(rising())
    broken.fail = lambda step: len(broken.requests) >= after
    run(broken, tmp_path / "b")
    rest = ScriptedModel(rising())
    # the scripted model numbers its texts by its own count
    rest.requests = list(broken.requests)
    assert run(rest, tmp_path / "b") == whole
    rows = (tmp_path / "a" / "steps.jsonl").read_text("utf-8").split("\n")[:-1]
    assert len(rest.requests) == len(rows)


def test_long_drafts_are_revised_by_patch(tmp_path: Path) -> None:
    model = ScriptedModel(rising())
    answer = model._answer
    model._answer = (  # type: ignore[method-assign]
        lambda step, text: "[2]\nBetter." if "paragraphs numbered" in text else answer(step, text)
    )
    (episode,) = run(model, tmp_path, SynthSettings(rounds=1, patch_tokens=5))
    (step,) = episode.chain
    assert step.written == "[2]\nBetter."
    assert step.text == "The night was dark and stormy.\n\nBetter."
    trace = stitched(episode)
    (unit,) = units(parse_tagged(trace.thinking, TagSchema()))
    assert "[2]" in trace.thinking
    assert (unit.draft, unit.revision) == (DRAFT, trace.answer)


def test_a_full_text_that_reads_as_a_patch_gives_no_trace(tmp_path: Path) -> None:
    model = ScriptedModel(rising())
    answer = model._answer
    model._answer = lambda step, text: (  # type: ignore[method-assign]
        "[2]\nBetter." if step == "revise" else answer(step, text)
    )
    (episode,) = run(model, tmp_path, SynthSettings(rounds=1))
    assert stitch(episode) is Dropped.READS_OTHERWISE


def test_an_unusable_patch_is_written_out_in_full(tmp_path: Path) -> None:
    model = ScriptedModel(rising())
    answer = model._answer
    model._answer = (  # type: ignore[method-assign]
        lambda step, text: "Better." if "paragraphs numbered" in text else answer(step, text)
    )
    (episode,) = run(model, tmp_path, SynthSettings(rounds=1, patch_tokens=5))
    assert episode.chain[0].written == episode.chain[0].text


def stitched(episode: Episode) -> TrainingTrace:
    trace = stitch(episode)
    assert isinstance(trace, TrainingTrace), trace
    return trace


def one_step(folder: Path) -> Episode:
    return run(ScriptedModel(rising()), folder, SynthSettings(rounds=1))[0]


def test_a_trace_holds_the_chain_and_parses_back(tmp_path: Path) -> None:
    trace = stitched(one_step(tmp_path))
    kinds = [part.kind for part in trace.segments]
    assert kinds == ["plan", "draft", "reflection", "revision"]
    texts = [trace.thinking[part.start : part.end] for part in trace.segments]
    assert texts[1] == DRAFT and texts[3] == trace.answer
    parsed = parse_tagged(trace.thinking, TagSchema())
    assert [parsed.text_of(s) for s in parsed.segments if s.kind != "other"] == texts


def test_a_trace_in_prose_is_read_as_it_was_written(tmp_path: Path) -> None:
    (episode,) = run(ScriptedModel(mixed), tmp_path, DEFAULT)
    tagged = stitched(episode)
    trace = stitch(episode, Form.PROSE)
    assert isinstance(trace, TrainingTrace)
    assert "<" not in trace.thinking and trace.answer == tagged.answer
    assert [part.kind for part in trace.segments] == [part.kind for part in tagged.segments]
    assert [part.level for part in trace.segments] == ["", "", "wording", "wording"]
    read = segment_trace(trace.thinking)
    assert [(s.span.start, s.span.end) for s in read.segments] == [
        (part.start, part.end) for part in trace.segments
    ]
    (unit,) = units(read)
    assert (unit.draft, unit.revision) == (DRAFT, trace.answer)
    assert unit.reflection.startswith("Rereading the text. I stumble")


def test_prose_that_would_be_read_otherwise_gives_no_trace(tmp_path: Path) -> None:
    episode = one_step(tmp_path)
    episode.plan = "I will write: a dark opening, then the storm."
    assert isinstance(stitch(episode), TrainingTrace)
    assert stitch(episode, Form.PROSE) is Dropped.READS_OTHERWISE
    # a tag would have the whole read by tags
    episode.plan = "A plan with <draft> in it"
    assert stitch(episode, Form.PROSE) is Dropped.TAG_IN_TEXT


def test_no_judge_text_reaches_a_trace(tmp_path: Path) -> None:
    trace = stitched(one_step(tmp_path))
    assert "What would mend it" not in trace.thinking and "another image" not in trace.thinking


@pytest.mark.parametrize("place", ["plan", "revision"])
def test_a_judge_in_any_part_of_a_trace_is_a_leak(tmp_path: Path, place: str) -> None:
    preamble = "Here is the version after the judges' feedback (6/10):\n\n"
    episode = one_step(tmp_path)
    if place == "plan":
        episode.plan = f"{preamble}{episode.plan}"
    else:
        (step,) = episode.chain
        text = f"{preamble}{step.text}"
        episode.chain = [replace(step, written=text, text=text)]
        episode.best = text
    assert stitch(episode) is Dropped.LEAK
    # who writes of judges may go on doing so
    episode.prompt = replace(PROMPT, prompt="A judge reads her feedback: 6/10.")
    assert isinstance(stitch(episode), TrainingTrace)


def test_what_gives_no_trace_says_why(tmp_path: Path) -> None:
    (flat,) = run(ScriptedModel(), tmp_path / "a")
    assert stitch(flat) is Dropped.UNFINISHED
    (same,) = run(ScriptedModel(rising()), tmp_path / "b")
    assert stitch(same) is Dropped.ONE_LEVEL
    tagged = one_step(tmp_path / "c")
    # the thinking would end, or begin, in the middle of a row
    for tag in ("<draft>", "</think>", "<think>"):
        tagged.plan = f"A plan with {tag} in it"
        assert stitch(tagged) is Dropped.TAG_IN_TEXT
    marked = one_step(tmp_path / "d")
    marked.plan = "I expect 9/10 for this."
    assert stitch(marked) is Dropped.LEAK
    looped = one_step(tmp_path / "e")
    looped.best = "again and again and " * 30
    assert stitch(looped) is Dropped.REPETITIVE


def test_the_census_counts_side_steps_too(tmp_path: Path) -> None:
    episodes = run(ScriptedModel(), tmp_path / "a") + [one_step(tmp_path / "b")]
    census = take_census(episodes, [stitch(episode) for episode in episodes], "judge scripted")
    assert (census.gain_judge, census.n_fresh_gains) == ("judge scripted", 1)
    assert census.labels == {"improved": 1, "neutral": 2} and census.n_kept == 1
    assert census.dropped == {"unfinished": 1}


def test_every_step_is_an_item_for_reward_models(tmp_path: Path) -> None:
    (episode,) = run(ScriptedModel(mixed), tmp_path)
    good, flat, bad = loop_reflections([episode])
    assert [(one.label, round(one.gain, 6)) for one in (good, flat, bad)] == [
        ("improved", 1.0),
        ("neutral", 0.1),
        ("degraded", -2.0),
    ]
    assert (good.draft, good.earlier) == (DRAFT, ())
    # side steps look back at the best text, behind the reflection that led there
    assert flat.draft == bad.draft == good.revision == episode.best
    assert flat.earlier == bad.earlier == (good.reflection,)
    assert bad.revision == f"{episode.best} Better 3."
    # what never became a trace is there too
    (lost,) = run(ScriptedModel(), tmp_path / "b")
    assert stitch(lost) is Dropped.UNFINISHED
    assert [one.label for one in loop_reflections([lost])] == ["neutral", "neutral"]


def test_a_step_that_mentions_the_judge_gives_no_item(tmp_path: Path) -> None:
    (episode,) = run(ScriptedModel(mixed), tmp_path)
    episode.side[0] = replace(episode.side[0], text="After the judge's feedback (6/10): Rain.")
    assert [one.label for one in loop_reflections([episode])] == ["improved", "degraded"]
    assert take_census([episode], [stitch(episode)], "x").n_leaking_steps == 1


@pytest.mark.parametrize(
    "gain, label", [(0.25, Label.IMPROVED), (0.24, Label.NEUTRAL), (-0.25, Label.DEGRADED)]
)
def test_labels_have_a_dead_band(gain: float, label: Label) -> None:
    assert label_of(gain, 0.25) is label


def test_near_duplicates_keep_the_first() -> None:
    base = "Write a letter to the council about the noise at the skate park behind the school"
    assert near_duplicates([base, f"{base} please", "Something else entirely, about boats"]) == {1}


def test_the_cut_of_the_script_is_true() -> None:
    assert cut("<draft>\nx\n</draft>", "draft") == "x"
