"""The shipped scorer, from Python, from the command line and as a judge of runs."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from r2w_eval.reward_models.items import Item, ItemScore, ItemStatus, ReflectionItem, WritingItem
from r2w_eval.reward_models.linear.heads import save_heads
from r2w_eval.reward_models.quality import QualityJudge, on_scale
from r2w_eval.reward_models.rules import RulesScorer
from r2w_eval.reward_models.scorer import (
    FORM_FILE,
    HEADS_FILE,
    PROSE_FILE,
    best_of_n,
    load_reward,
    open_scorer,
    score_all,
)
from r2w_eval.reward_models.serving.files import score_file

from r2w_eval.cli import cli
from r2w_eval.errors import CoverageTooLow, R2WError, UnknownName, UsageError
from r2w_eval.judge.scorers import ScoreItem
from r2w_eval.types import Decoding, JudgeRequest, JudgeStatus, Scale, Score

DRAFT = (
    "The ferry left at six. The silence was deafening and time stood still. "
    "Then the lamps of the town came up one by one."
)
FIXED = "The ferry left at six. Then the lamps of the town came up one by one."
RIGHT = 'In "The silence was deafening and time stood still." I see a cliché. I should cut it.'


def item(reflection: str = RIGHT, **fields: Any) -> ReflectionItem:
    return ReflectionItem("1", "Describe a crossing.", DRAFT, reflection,
                          fields.pop("revision", FIXED), **fields)  # fmt: skip


def value(reflection: str = RIGHT, **fields: Any) -> float:
    (score,) = load_reward().score([item(reflection, **fields)])
    assert score.value is not None
    return score.value


def test_the_right_remark_is_above_every_wrong_one() -> None:
    right = value()
    wrong = (
        "This reads very well and I am happy with it.",
        'In "The ferry left at six." the tense slips. I should keep one tense.',
        'The "crimson dragon" is a cliché. I should cut it.',
        "Score: 10",
        ":",
    )
    for reflection in wrong:
        assert value(reflection) < right, reflection


def test_a_revision_that_does_not_follow_scores_less() -> None:
    assert value(revision=DRAFT) < value()
    assert value(revision=DRAFT.replace("The ferry left at six. ", "")) < value()


def test_the_remark_written_under_a_text_is_no_uptake() -> None:
    assert value(revision=f"{FIXED} {RIGHT}") == value()
    assert value(revision=f"{DRAFT} {RIGHT}") == value(revision=DRAFT)


def test_each_repetition_scores_less() -> None:
    values = [value(earlier=(RIGHT,) * n) for n in range(4)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[1]


def test_chinese_items_are_scored() -> None:
    draft = "渡船六点开。空气仿佛在这一刻凝固了。后来镇上的灯亮了。"
    right = "“空气仿佛在这一刻凝固了。”这里是陈词滥调，我应该删掉套话。"
    items = [
        ReflectionItem("a", "写一次坐船。", draft, right, "渡船六点开。后来镇上的灯亮了。"),
        ReflectionItem("b", "写一次坐船。", draft, "写得很好，我很满意。", draft),
    ]
    first, second = load_reward().score(items)
    assert first.value is not None and second.value is not None
    assert first.value > second.value


def test_parts_name_the_axes_and_effect_only_with_a_revision() -> None:
    with_revision, without = load_reward().score([item(), item(revision=None)])
    assert set(with_revision.parts) == {"relevance", "constructiveness", "efficiency", "effect"}
    assert "effect" not in without.parts


def test_a_batch_with_some_invalid_items_keeps_order_and_count() -> None:
    items = [
        item(),
        ReflectionItem("2", "", " ", "r"),
        WritingItem("3", "", "A text."),
        ReflectionItem("4", "", "d", ""),
    ]
    scores = load_reward().score(items)
    assert [s.status for s in scores] == [
        ItemStatus.OK,
        ItemStatus.NO_DRAFT,
        ItemStatus.OK,
        ItemStatus.NO_SEGMENT,
    ]
    assert [s.id for s in scores] == ["1", "2", "3", "4"]


def test_a_huge_trace_says_what_was_not_read() -> None:
    (score,) = load_reward().score([ReflectionItem("1", "", "word " * 100_000, RIGHT)])
    assert score.parts["unread_chars"] == 440_000


def test_neighbours_do_not_matter() -> None:
    model = load_reward()
    alone = model.score([item()])[0]
    among = model.score([item(":"), item(), item("Great work.")])[1]
    assert alone.value == among.value


def test_carrying_out_a_remark_may_change_most_of_a_short_text() -> None:
    draft = "The ferry came. The fog was very thick and it was hard to see."
    revision = "The ferry came. Its horn arrived first, then a rope, then a hand."
    remark = '"hard to see" tells and does not show: give what a passenger would notice instead.'
    praise = "This is lovely and fits the request very well. Good work."
    asked, praised, elsewhere = load_reward().score(
        [
            ReflectionItem("1", "Two sentences about a ferry.", draft, remark, revision),
            ReflectionItem("2", "Two sentences about a ferry.", draft, praise),
            ReflectionItem("3", "Two sentences about a ferry.", draft, praise, revision),
        ]
    )
    assert asked.value is not None and praised.value is not None and elsewhere.value is not None
    assert asked.value > max(praised.value, elsewhere.value) + 0.3


def test_weights_that_are_not_there_or_not_finite(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=HEADS_FILE):
        load_reward(tmp_path)


def test_other_process_heads_are_another_reward_and_the_same_judge(tmp_path: Path) -> None:
    weights = Path(str(resources.files("r2w_eval.reward_models").joinpath("weights")))
    for name in (PROSE_FILE, FORM_FILE):
        shutil.copy(weights / name, tmp_path)
    heads = load_reward().heads
    save_heads(replace(heads, bias=heads.bias + 1), tmp_path / HEADS_FILE, {})
    refitted = load_reward(tmp_path)
    assert refitted.id != load_reward().id
    assert QualityJudge(refitted).id == QualityJudge().id


def test_scorers_resolve_by_name() -> None:
    assert open_scorer("r2w-rules").id == "r2w-rules"
    with pytest.raises(UnknownName, match="r2w-reward"):
        open_scorer("r2w-rewrad")
    with pytest.raises(UsageError, match="nowhere"):
        open_scorer("nowhere:scorer")
    with pytest.raises(UsageError, match="no r2w_rm.json"):
        open_scorer(str(Path(__file__).parent))


def test_best_of_n_takes_the_highest_value() -> None:
    items = [item("Great work."), item(), item("")]
    assert best_of_n(load_reward(), items) == 1
    assert best_of_n(load_reward(), [item("")]) is None


def test_rules_score_reflections_by_formula() -> None:
    scorer = RulesScorer()
    right, praise, text = scorer.score([item(), item("Great work."), WritingItem("3", "", "x")])
    assert right.value is not None and praise.value is not None
    assert right.value > 0.5 > praise.value
    assert text.status is ItemStatus.BAD_ITEM


def test_rules_hold_what_was_said_before_against_a_remark() -> None:
    half = "I see a cliché. I should cut it. The ending is a different matter altogether."
    first, again, half_new = RulesScorer().score(
        [item(), item(earlier=(RIGHT,)), item(earlier=(half,))]
    )
    assert first.parts["efficiency"] > half_new.parts["efficiency"] > again.parts["efficiency"]


def test_the_weights_of_an_artifact_are_hashed_once(tmp_path: Path) -> None:
    from r2w_eval.reward_models.transformer.scorer import ArtifactScorer

    (weights := tmp_path / "model.safetensors").write_bytes(b"weights")
    scorer = ArtifactScorer(tmp_path, None, None, None)
    name = scorer.id
    weights.unlink()
    assert scorer.id == name and name.startswith(f"{tmp_path.name}@")


def run_score(tmp_path: Path, lines: list[str], *more: str) -> tuple[Any, list[dict[str, Any]]]:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    arguments = ["score", "--input", str(source), "--output", str(target), *more]
    done = CliRunner().invoke(cli, arguments)
    written = target.read_text("utf-8").splitlines() if target.exists() else []
    return done, [json.loads(line) for line in written]


def test_the_command_writes_one_line_an_item(tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": "a", "prompt": "", "draft": DRAFT, "reflection": RIGHT}),
        "{not json",
        json.dumps({"id": "c", "response": "A text."}),
        json.dumps({"id": "d", "draft": DRAFT, "reflection": ""}),
    ]
    done, records = run_score(tmp_path, lines)
    assert done.exit_code == 0, done.output
    assert [r["id"] for r in records] == ["a", "2", "c", "d"]
    assert [r["status"] for r in records] == ["ok", "bad_item", "ok", "no_segment"]
    assert records[1]["value"] is None and records[1]["reason"]
    assert "2 ok" in done.output
    assert "First without a score: 2: bad_item: line 2 is not JSON" in done.output


def test_no_score_at_all_is_no_success(tmp_path: Path) -> None:
    done, records = run_score(tmp_path, ["{not json", json.dumps({"id": "d", "response": " "})])
    assert [r["value"] for r in records] == [None, None]
    assert isinstance(done.exception, CoverageTooLow)
    assert "none of its 2 lines has a score" in str(done.exception)


def test_a_second_run_keeps_what_was_scored(tmp_path: Path) -> None:
    lines = [json.dumps({"id": str(i), "response": f"Text {i}."}) for i in range(6)]
    _, first = run_score(tmp_path, lines)
    target = tmp_path / "out.jsonl"
    kept = target.read_bytes().splitlines(keepends=True)
    target.write_bytes(b"".join(kept[:3]) + kept[3][:5])
    source = tmp_path / "in.jsonl"
    done = CliRunner().invoke(
        cli, ["score", "--input", str(source), "--output", str(target), "--batch", "2"]
    )
    assert done.exit_code == 0, done.output
    assert [json.loads(line) for line in target.read_bytes().splitlines()] == first


def test_a_changed_input_is_scored_again(tmp_path: Path) -> None:
    run_score(tmp_path, [json.dumps({"id": "a", "response": "One."})])
    _, records = run_score(tmp_path, [json.dumps({"id": "b", "response": "Another one."})])
    assert [r["id"] for r in records] == ["b"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"PAR1\x15\x04PAR1", "--on ray"), (gzip.compress(b"{}"), "gunzip --keep")],
    # the compressed bytes hold the time, and processes must name their tests alike
    ids=["Parquet", "gzip"],
)
def test_a_file_that_is_no_text_is_refused_before_it_is_read(
    tmp_path: Path, content: bytes, words: str
) -> None:
    source, target = tmp_path / "in", tmp_path / "out.jsonl"
    source.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        score_file(load_reward(), str(source), str(target), 8)
    assert not target.exists()


def test_scores_are_written_to_files_that_grow_only() -> None:
    for target in ("/dev/null", "/dev/full"):
        with pytest.raises(UsageError, match=f"--output '{target}': expected a file"):
            score_file(load_reward(), __file__, target, 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "absent.jsonl", "--output", "x"], "no such file"),
        (["--scorer", "rw-reward", "--input", "a", "--output", "b"], "Did you mean r2w-reward"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], words: str) -> None:
    code = "import sys; from r2w_eval.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "score", *arguments],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_killed_run_loses_no_line(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    with source.open("w") as file:
        for i in range(4000):
            record = {"id": str(i), "draft": DRAFT, "reflection": RIGHT, "revision": FIXED}
            file.write(json.dumps(record) + "\n")
    command = [sys.executable, "-c", "from r2w_eval.cli.app import main; main()", "score",
               "--batch", "16", "--input", str(source), "--output", str(target)]  # fmt: skip
    process = subprocess.Popen(command)
    until = time.monotonic() + 60
    while time.monotonic() < until and (not target.exists() or target.stat().st_size < 2000):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = target.read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    assert 0 < whole.count(b"\n") < 4000
    subprocess.run([*command[:-2], "--output", str(target)], check=True)
    after = target.read_bytes()
    assert after.startswith(whole)
    assert after.count(b"\n") == 4000


SCALE = Scale("", {str(k): float(k) for k in range(1, 11)})


def test_the_judge_reads_the_answer_on_the_suites_scale() -> None:
    import asyncio

    judge = QualityJudge()
    request = JudgeRequest("style", (), SCALE)
    asked = [
        ScoreItem(request, Decoding(), lambda r, t: Score(1.0), prompt="p", answer=text)
        for text in (FIXED, "")
    ]
    first, second = asyncio.run(judge.score(asked))
    assert first.score.value is not None and 1.0 <= first.score.value <= 10.0
    assert second.score.value is None and "empty" in second.score.reason
    assert judge.id.startswith("r2w-quality@")
    assert "blind" in judge.describe()["reads"]
    no_scale = on_scale(load_reward().score([WritingItem("1", "", "x")])[0], None)
    assert no_scale.status is JudgeStatus.BAD_REQUEST


def test_items_that_could_not_be_read_pass_through_in_place() -> None:
    from r2w_eval.reward_models.items import failed

    broken = failed("x", ItemStatus.BAD_ITEM, "why")
    scores = list(score_all(load_reward(), [broken, item(), broken], batch=2))
    assert [s.id for s in scores] == ["x", "1", "x"]


@pytest.mark.parametrize("surplus", [-1, 1])
def test_a_wrong_number_of_scores_is_an_error_and_shifts_none(surplus: int) -> None:
    class Miscounting(RulesScorer):
        def score(self, items: Sequence[Item]) -> list[ItemScore]:
            return (super().score(items) * 2)[: len(items) + surplus]

    with pytest.raises(R2WError, match=rf"{2 + surplus} scores for 2 items"):
        list(score_all(Miscounting(), [item(), item()]))


def test_only_the_scores_that_a_judge_owes_are_asked_for_again_in_a_file(tmp_path: Path) -> None:
    asked: list[str] = []

    class Noting(RulesScorer):
        def score(self, items: Sequence[Item]) -> list[ItemScore]:
            asked.extend(one.id for one in items)
            return super().score(items)

    source, target = tmp_path / "items.jsonl", tmp_path / "scores.jsonl"
    records = [{"id": str(n), "prompt": "", "draft": DRAFT, "reflection": RIGHT} for n in range(9)]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    score_file(Noting(), str(source), str(target), 2)
    whole = target.read_bytes()
    lines = whole.splitlines(keepends=True)
    for place in (2, 5):
        lost = {"id": str(place), "value": None, "parts": {}, "status": "timeout", "reason": "late"}
        lines[place] = json.dumps(lost).encode() + b"\n"
    # the run broke off before the last line
    target.write_bytes(b"".join(lines[:-1]))
    asked.clear()
    score_file(Noting(), str(source), str(target), 2)
    assert asked == ["2", "5", "8"] and target.read_bytes() == whole


@pytest.mark.parametrize("damage", ["gone", "broken", "note"])
def test_scores_go_on_from_the_first_line_that_is_not_their_items(
    tmp_path: Path, damage: str
) -> None:
    source, target = tmp_path / "items.jsonl", tmp_path / "scores.jsonl"
    records = [{"id": str(n), "prompt": "", "draft": DRAFT, "reflection": RIGHT} for n in range(6)]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    score_file(RulesScorer(), str(source), str(target), 2)
    whole = target.read_bytes()
    lines = whole.splitlines(keepends=True)
    if damage == "note":
        (tmp_path / "scores.jsonl.run.json").write_text("{")
    else:
        lines[2:3] = [] if damage == "gone" else [b'{"id": \xff\n']
        target.write_bytes(b"".join(lines))
    score_file(RulesScorer(), str(source), str(target), 2)
    assert target.read_bytes() == whole


@pytest.mark.parametrize("target", ["items.jsonl", "notes.txt"])
def test_a_file_that_is_not_of_scores_is_never_written_over(tmp_path: Path, target: str) -> None:
    source, out = tmp_path / "items.jsonl", tmp_path / target
    source.write_text(json.dumps({"id": "1", "draft": DRAFT, "reflection": RIGHT}) + "\n")
    if out != source:
        out.write_text("somebody's own, without a last line break")
    before = out.read_bytes()
    with pytest.raises(UsageError, match=r"no r2w-eval score has written"):
        score_file(RulesScorer(), str(source), str(out), 2)
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"items.jsonl", target})
    # what is there and empty, as mktemp leaves it, is nobody's
    out.write_bytes(b"")
    if out != source:
        assert score_file(RulesScorer(), str(source), str(out), 2) == {"ok": 1}
