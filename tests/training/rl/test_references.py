"""Stored references: the file, its order, and a schedule that survives a kill."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from r2w_eval.training.prompts import Prompt
from r2w_eval.training.rl.outcomes import JudgedOutcome
from r2w_eval.training.rl.reference_file import (
    Ranked,
    Reference,
    match_references,
    rank_references,
    read_reference_file,
)
from r2w_eval.training.rl.references import (
    SCHEDULE,
    AgainstReferences,
    ReferenceSchedule,
    RisingReferences,
    note_wins,
)
from r2w_eval.training.rl.settings import RLSettings
from strengths import Strengths, text_of

from r2w_eval.errors import DataError, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.models.endpoint import ClientSettings
from r2w_eval.run.opening import ModelOptions
from r2w_eval.run.patient import PatientJudge

QUICK = ModelOptions(client=ClientSettings(backoff_s=0.01, timeout_s=5.0))
PROMPTS = [Prompt("a", "en", "d", "Write a."), Prompt("b", "en", "d", "Write b.")]
RANKED = Ranked("a", tuple(map(text_of, (2, 4, 6, 8))))
BOTH = {"Write a.": RANKED, "Write b.": Ranked("b", (text_of(1), text_of(9)))}


def write(path: Path, *lines: Any) -> Path:
    rows = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{row}\n" for row in rows), "utf-8")
    return path


def test_references_are_ranked_by_score_or_else_by_their_order(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.jsonl",
        {"prompt_id": "a", "text": "good", "score": 7},
        {"prompt_id": "b", "text": "first"},
        {"prompt_id": "a", "text": "poor", "score": -1.5},
        {"prompt": "Write b.", "text": "second"},
        {"prompt": "Write a.", "text": "fair", "score": 3.0},
        "",
        {"prompt_id": "nobody", "text": "of another set"},
    )
    found = match_references(read_reference_file(path), PROMPTS)
    assert found == {
        "Write a.": Ranked("a", ("poor", "fair", "good")),
        "Write b.": Ranked("b", ("first", "second")),
    }


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "empty. Expected lines like"),
        (["{not json"], "line 1: not JSON"),
        ([{"prompt_id": "a", "text": "t"}, "[1]"], r"record 2: '\[1\]' is not an object"),
        ([{"prompt_id": "a"}], "text is 'None'"),
        ([{"prompt_id": "a", "text": " "}], "text is ' '"),
        ([{"text": "t"}], "prompt is 'None'"),
        ([{"prompt_id": 3, "text": "t"}], "prompt_id is '3'"),
        ([{"prompt_id": "a", "text": "t", "score": "7"}], "score is '7'"),
        ([{"prompt_id": "a", "text": "t", "score": True}], "score is 'True'"),
        (['{"prompt_id": "a", "text": "t", "score": NaN}'], "score is 'nan'"),
        (['{"prompt_id": "a", "text": "t", "score": 1e999}'], "score is 'inf'"),
    ],
)
def test_a_malformed_file_is_refused_by_the_line(
    tmp_path: Path, lines: Sequence[Any], words: str
) -> None:
    with pytest.raises((UsageError, DataError), match=words):
        read_reference_file(write(tmp_path / "r.jsonl", *lines))


def test_what_has_no_order_or_no_reference_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_reference_file(tmp_path / "none.jsonl")
    some = write(
        tmp_path / "r.jsonl",
        {"prompt_id": "a", "text": "t", "score": 1},
        {"prompt_id": "a", "text": "u"},
    )
    with pytest.raises(UsageError, match="'a': 1 of 2 have a score"):
        match_references(read_reference_file(some), PROMPTS)
    with pytest.raises(UsageError, match="1 of 2 prompts without a reference: 'b'. Give each"):
        match_references(
            read_reference_file(write(some, {"prompt": "Write a.", "text": "t"})), PROMPTS
        )
    many = [Prompt(f"x{i}", "en", "d", f"{i}") for i in range(9)]
    with pytest.raises(UsageError, match="'x0', 'x1', 'x2', 'x3', 'x4', …"):
        match_references(read_reference_file(some), many)


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=9))
def test_the_order_of_the_file_does_not_change_the_rank(scores: list[float]) -> None:
    own = [Reference("a", f"{score!r}", score) for score in scores]
    one = rank_references({"a": own}, "a", "p").texts
    assert [float(text) for text in one] == sorted(scores)


def test_settings_name_a_file_for_this_outcome_and_for_no_other() -> None:
    with pytest.raises(UsageError, match="outcome_form references: no file of them"):
        RLSettings(outcome_form="references")
    with pytest.raises(UsageError, match="with outcome_form scorer, which reads none"):
        RLSettings(references="r.jsonl")


def test_without_a_schedule_all_references_count_and_a_lost_one_costs_the_reward() -> None:
    judge: Any = Strengths()
    answers = [text_of(5), None, text_of(9), text_of(4)]
    found = asyncio.run(AgainstReferences(judge, BOTH)("Write a.", answers))
    assert found == [0.5, None, 1.0, (1 + 0.5) / 4]
    assert judge.asked == 3 * 4 * 2 and {(5, 2), (2, 5), (9, 8), (8, 9)} <= {*judge.shown}
    unread: Any = Strengths(frozenset([9]))
    assert asyncio.run(AgainstReferences(unread, BOTH)("Write a.", answers))[:3] == [
        0.5,
        None,
        None,
    ]


def at(step: int) -> Any:
    return SimpleNamespace(global_step=step)


def rising(judge: Any, path: Path) -> tuple[RisingReferences, ReferenceSchedule]:
    schedule = ReferenceSchedule(path)
    outcome = JudgedOutcome(judge, AgainstReferences(judge, BOTH, schedule), 2)
    return RisingReferences(outcome, schedule, BOTH, 2), schedule


def test_the_next_reference_comes_when_the_group_has_won(tmp_path: Path) -> None:
    outcome, schedule = rising(Strengths(), tmp_path / SCHEDULE)
    prompts, answers = ["Write a."] * 2 + ["Write b."] * 2, [*map(text_of, (5, 5, 1, 2))]
    log: dict[str, float] = {}
    found = [
        outcome(prompts, answers, trainer_state=at(step), log_metric=log.__setitem__)
        for step in range(4)
    ]
    # 5 against 2, 4, 6 and 6; a tie and a win are a win, and then 9 is not beaten
    assert [own[:2] for own in found] == [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert [own[2:] for own in found] == [[0.5, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    assert json.loads((tmp_path / SCHEDULE).read_bytes()) == {"a": [0, 1], "b": [0]}
    assert schedule.index(RANKED, 9) == 2 and log["outcome/reference"] == (2 + 1) / 2


def test_two_groups_of_a_prompt_in_one_step_are_one_rise(tmp_path: Path) -> None:
    outcome, schedule = rising(Strengths(), tmp_path / SCHEDULE)
    outcome(["Write a."] * 4, [text_of(9)] * 4, trainer_state=at(0))
    assert schedule.index(RANKED, 1) == 1


def test_a_judge_that_looks_at_the_order_alone_raises_nothing(tmp_path: Path) -> None:
    outcome, schedule = rising(Strengths(first_wins=True), tmp_path / SCHEDULE)
    for step in range(3):
        assert outcome(["Write a."] * 2, [text_of(9)] * 2, trainer_state=at(step)) == [0.5, 0.5]
    assert schedule.index(RANKED, 9) == 0


def test_lost_verdicts_raise_nothing(tmp_path: Path) -> None:
    outcome, schedule = rising(Strengths(frozenset([9])), tmp_path / SCHEDULE)
    assert outcome(["Write a."] * 2, [text_of(9)] * 2, trainer_state=at(0)) == [None, None]
    assert schedule.index(RANKED, 9) == 0


STEPS = st.lists(st.sets(st.sampled_from("ab")), min_size=1, max_size=12)


@given(STEPS, st.data())
def test_a_training_that_is_resumed_has_the_schedule_of_an_unbroken_one(
    won: list[set[str]], data: st.DataObject
) -> None:
    unbroken: dict[str, list[int]] = {}
    for step, own in enumerate(won):
        unbroken = note_wins(unbroken, step, own)
    killed_after = data.draw(st.integers(0, len(won) - 1))
    checkpoint = data.draw(st.integers(0, killed_after))
    resumed: dict[str, list[int]] = {}
    for step, own in enumerate(won[: killed_after + 1]):
        # another judge's mood, perhaps, in the steps that were lost
        resumed = note_wins(resumed, step, own if step < checkpoint else own ^ {"a"})
    for step in range(checkpoint, len(won)):
        resumed = note_wins(resumed, step, won[step])
    assert resumed == unbroken


@given(won=STEPS, n=st.integers(1, 4))
def test_an_index_rises_by_one_at_most_and_ends_at_the_strongest(
    won: list[set[str]], n: int, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("s") / SCHEDULE
    schedule = ReferenceSchedule(path)
    own = Ranked("a", tuple(map(str, range(n))))
    for step, names in enumerate(won):
        before = schedule.index(own, step)
        schedule.end_step(step, [own] if "a" in names else [])
        again = ReferenceSchedule(path)
        # within the step nothing changes; after it by one, and for a new process too
        assert schedule.index(own, step) == before
        assert again.index(own, step + 1) == min(before + ("a" in names), n - 1)


def test_a_malformed_schedule_is_named(tmp_path: Path) -> None:
    for text in ("{", "[1]", '{"a": 3}', '{"a": ["x"]}'):
        (tmp_path / SCHEDULE).write_text(text)
        with pytest.raises(DataError, match="not the schedule of references.*Move it away"):
            ReferenceSchedule(tmp_path / SCHEDULE)


def test_a_new_process_on_a_real_judge_goes_on_with_the_index_of_its_step(tmp_path: Path) -> None:
    file = write(
        tmp_path / "r.jsonl",
        *({"prompt_id": p, "text": f"{p}, draft {n}", "score": n} for p in "ab" for n in range(3)),
    )
    references = match_references(read_reference_file(file), PROMPTS)
    prompts = ["Write a."] * 2 + ["Write b."] * 2

    def life(server: FakeServer, steps: range, path: Path) -> dict[int, Any]:
        """What a process of its own would see."""
        judge = PatientJudge(f"{server.base_url}#judge-0", QUICK)
        schedule = ReferenceSchedule(path)
        outcome = JudgedOutcome(judge, AgainstReferences(judge, references, schedule), 2)
        whole = RisingReferences(outcome, schedule, references, 2)
        found = {}
        for step in steps:
            texts = [f"answer {step} {i}" for i in range(4)]
            whole.begin(prompts[:2], texts[:2], step)
            whole.begin(prompts[2:], texts[2:], step)
            found[step] = whole(prompts, texts, trainer_state=at(step))
        assert judge.asked == len(steps) * 4 * 2
        outcome.run(judge.close())
        return found

    unbroken, killed = tmp_path / "unbroken.json", tmp_path / "killed.json"
    with FakeServer() as server:
        whole = life(server, range(12), unbroken)
        life(server, range(8), killed)
        # killed in step 8; the newest checkpoint was of step 5
        assert life(server, range(5, 12), killed) == {step: whole[step] for step in range(5, 12)}
    assert unbroken.read_bytes() == killed.read_bytes()
    wins = json.loads(unbroken.read_bytes())
    assert wins and all(own == sorted({*own}) for own in wins.values())
    assert all(value in (0.0, 0.5, 1.0) for own in whole.values() for value in own)


def test_a_judge_whose_replies_cannot_be_read_gives_no_rewards(tmp_path: Path) -> None:
    with FakeServer() as server:
        judge = PatientJudge(f"{server.base_url}#judge-0+malformed=1", QUICK)
        schedule = ReferenceSchedule(tmp_path / SCHEDULE)
        outcome = JudgedOutcome(judge, AgainstReferences(judge, BOTH, schedule), 2)
        whole = RisingReferences(outcome, schedule, BOTH, 2)
        assert whole(["Write a."] * 2, ["x", "y"], trainer_state=at(0)) == [None, None]
        outcome.run(judge.close())
    assert json.loads((tmp_path / SCHEDULE).read_bytes()) == {}
