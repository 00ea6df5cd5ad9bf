"""Answers written elsewhere: every accepted form, and clear errors for the others."""

from __future__ import annotations

import asyncio
import gzip
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.errors import UsageError
from r2w_eval.hashing import dump_line, to_plain
from r2w_eval.models.chat import CallFailed, CallStatus, ChatRequest, Reply
from r2w_eval.models.thinking import ThinkTags, read_reply_text
from r2w_eval.records.recorded import RecordedResponses, open_recorded, read_responses
from r2w_eval.records.rows import make_response
from r2w_eval.results.lmeval_io import sample_row
from r2w_eval.types import Decoding, Message, Sample

SAMPLE = Sample("t", "1", (Message("user", "Write."),))


def written(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_bytes("\n".join(lines).encode())
    return path


def answer(recorded: RecordedResponses, repeat: int = 0) -> str:
    request = ChatRequest(SAMPLE.messages, Decoding(), repeat)
    return asyncio.run(recorded.generate(SAMPLE, request))[0].text


@pytest.mark.parametrize(
    "record",
    [
        {"id": "1", "response": "text"},
        {"index": 1, "response": "text"},
        {"prompt_id": 1, "answer": "text"},
        {"sample_id": "1", "raw": "text", "answer": "cut"},
        {"doc_id": 7, "doc": {"id": "1"}, "resps": [["text"]], "filtered_resps": ["cut"]},
    ],
)
def test_each_form_is_read(tmp_path: Path, record: dict[str, object]) -> None:
    assert answer(open_recorded(written(tmp_path, json.dumps(record)), "m", 1)) == "text"


def test_line_separators_inside_a_text_do_not_break_lines(tmp_path: Path) -> None:
    line = json.dumps({"id": "1", "text": "a\u2028b\u0085c"}, ensure_ascii=False)
    assert answer(open_recorded(written(tmp_path, line), "m", 1)) == "a\u2028b\u0085c"


def test_a_missing_answer_is_not_sent(tmp_path: Path) -> None:
    recorded = open_recorded(written(tmp_path, '{"id": "2", "text": "x"}'), "m", 1)
    with pytest.raises(CallFailed) as caught:
        answer(recorded)
    assert caught.value.status is CallStatus.NOT_SENT and "sample 1" in str(caught.value)


def test_repeats_are_kept_in_order_when_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, '{"id": "1", "text": "a"}', '{"id": "1", "text": "b"}')
    assert [answer(open_recorded(path, "m", 2), repeat) for repeat in (0, 1)] == ["a", "b"]
    with pytest.raises(UsageError, match="'1' stands 2 times"):
        open_recorded(path, "m", 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no record"),
        (b"not json", "line 1"),
        (b'{"id": "1", "text": "x"}\n[1]', "line 2: a list"),
        (b'{"id": "1"}', "Expected an id"),
        (b'{"text": "x"}', "Expected an id"),
        (b'{"id": "1", "text": "\xff\xfe"}', "in UTF-8"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        open_recorded(path, "m", 1)


def test_the_identity_is_the_content(tmp_path: Path) -> None:
    line = '{"id": "1", "text": "x"}'
    first = open_recorded(written(tmp_path, line), "m", 1).describe()
    renamed = tmp_path / "other.jsonl"
    renamed.write_text(line)
    assert open_recorded(renamed, "m", 1).describe() == first
    renamed.write_text(line.replace('"x"', '"y"'))
    assert open_recorded(renamed, "m", 1).describe() != first


def test_a_packed_file_is_the_file_in_it(tmp_path: Path) -> None:
    line = '{"id": "1", "text": "x"}'
    plain = open_recorded(written(tmp_path, line), "", 1)
    packed = tmp_path / "answers.jsonl.gz"
    packed.write_bytes(gzip.compress(line.encode()))
    assert open_recorded(packed, "", 1) == plain
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(UsageError, match="ended before"):
        open_recorded(packed, "", 1)
    packed.write_bytes(line.encode())
    with pytest.raises(UsageError, match="Not a gzipped file"):
        open_recorded(packed, "", 1)


OWN = {
    "key": "k",
    "task": "t",
    "sample_id": "1",
    "raw": "a",
    "status": "ok",
    "repeat": 0,
    "turn": 0,
}


def opened(tmp_path: Path, *records: dict[str, object], n_repeats: int = 1) -> RecordedResponses:
    return open_recorded(written(tmp_path, *map(json.dumps, records)), "m", n_repeats)


def reply(recorded: RecordedResponses, *messages: Message, repeat: int = 0) -> Reply:
    request = ChatRequest(messages or SAMPLE.messages, Decoding(), repeat)
    return asyncio.run(recorded.generate(SAMPLE, request))[0]


def test_our_own_lines_stand_where_they_say(tmp_path: Path) -> None:
    second = {**OWN, "repeat": 1, "raw": "b"}
    recorded = opened(tmp_path, second, OWN, {**OWN, "raw": "newer"}, n_repeats=2)
    assert [answer(recorded, repeat) for repeat in (0, 1)] == ["newer", "b"]
    with pytest.raises(UsageError, match="stands 2 times"):
        opened(tmp_path, second, OWN)


def test_a_failed_request_is_not_an_answer(tmp_path: Path) -> None:
    failed = {**OWN, "raw": "", "status": "error", "reason": "reset"}
    assert answer(opened(tmp_path, OWN, failed)) == "a"
    with pytest.raises(UsageError, match="no record"):
        opened(tmp_path, failed)


@pytest.mark.parametrize(
    ("status", "call"),
    [("too_long", CallStatus.CONTEXT), ("content_filter", CallStatus.FILTERED)],
)
def test_a_recorded_loss_keeps_its_cause(tmp_path: Path, status: str, call: CallStatus) -> None:
    with pytest.raises(CallFailed) as caught:
        answer(opened(tmp_path, {**OWN, "raw": "", "status": status, "reason": "why"}))
    assert (caught.value.status, str(caught.value)) == (call, "why")


def test_a_refusal_and_a_truncation_keep_their_status(tmp_path: Path) -> None:
    refused = reply(opened(tmp_path, {**OWN, "raw": "", "status": "refusal", "reason": "no"}))
    assert refused.refusal == "no"
    cut = reply(opened(tmp_path, {**OWN, "status": "truncated", "finish_reason": "length"}))
    assert cut.finish_reason == "length"


def test_turns_of_a_conversation_are_distinguished(tmp_path: Path) -> None:
    recorded = opened(tmp_path, OWN, {**OWN, "turn": 1, "raw": "then"})
    turns = (*SAMPLE.messages, Message("assistant", "a"), Message("user", "Go on."))
    assert (reply(recorded).text, reply(recorded, *turns).text) == ("a", "then")


def test_two_suites_with_equal_ids_are_not_mixed(tmp_path: Path) -> None:
    other = {**OWN, "task": "other", "raw": "not this"}
    assert answer(opened(tmp_path, OWN, other)) == "a"
    with pytest.raises(CallFailed):
        answer(opened(tmp_path, other))


def lm_eval_row(**changes: object) -> dict[str, object]:
    return {"doc_id": 0, "doc": {"id": "1"}, "resps": [["x"]], "filter": "none", **changes}


def test_filters_of_lm_eval_do_not_double_a_text(tmp_path: Path) -> None:
    rows = lm_eval_row(), lm_eval_row(filter="strip")
    assert answer(opened(tmp_path, *rows)) == "x"


def test_repeats_of_lm_eval_are_repeats(tmp_path: Path) -> None:
    row = lm_eval_row(resps=[["x", "y", "z"]])
    recorded = opened(tmp_path, row, n_repeats=3)
    assert [answer(recorded, repeat) for repeat in range(3)] == ["x", "y", "z"]
    with pytest.raises(UsageError, match="stands 3 times, .* or use --samples 3"):
        opened(tmp_path, row)


@pytest.mark.parametrize(
    "row",
    [
        lm_eval_row(doc={}),
        lm_eval_row(resps=[]),
        lm_eval_row(resps=[[["-1.5", "False"]]]),
        lm_eval_row(resps=[["a"], ["b"]]),
        lm_eval_row(r2w={"repeat": "0", "status": "ok"}),
        lm_eval_row(r2w={"repeat": 0, "status": {}}),
        {"doc": "text", "resps": [["x"]]},
        {**OWN, "status": "fine"},
        {**OWN, "repeat": None},
    ],
)
def test_a_row_of_another_kind_is_named(tmp_path: Path, row: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"answers\.jsonl, line 1"):
        opened(tmp_path, row)


def test_missing_thinking_is_unknown_and_not_absent(tmp_path: Path) -> None:
    def stated(record: dict[str, object]) -> object:
        return opened(tmp_path, record).describe()["reasoning"]

    assert stated({"id": "1", "text": "x"}) == "not recorded"
    assert stated({"id": "1", "text": "<think>a</think>x"}) == "recorded"
    assert stated({"id": "1", "text": "x", "reasoning": "a"}) == "recorded"
    assert stated({**OWN, "thinking": "a"}) == "recorded"


def test_thinking_in_the_text_is_not_repeated(tmp_path: Path) -> None:
    own = {**OWN, "raw": "<think>a</think>x", "thinking": "a"}
    assert reply(opened(tmp_path, own)).reasoning is None


SEED = ThinkTags("<seed>", "</seed>")


@pytest.mark.parametrize(
    ("sent", "by"),
    [
        (Reply("<think>plan goes on", "length"), ThinkTags()),
        (Reply("plan goes on", "stop"), ThinkTags(opened_by_template=True)),
        (Reply("<seed>plan</seed>Once", "stop"), SEED),
        (Reply("<seed>plan goes on", "length"), SEED),
        (Reply("<think>plan</think>", "stop"), ThinkTags()),
        (Reply("Once </think> is a tag", "stop", "plan"), ThinkTags()),
        (Reply("", "length", "plan goes on"), ThinkTags()),
        (Reply("Once", "length"), ThinkTags()),
    ],
)
@pytest.mark.parametrize("form", ["responses", "lm_eval"])
def test_a_run_reads_the_answers_of_another_as_that_one_did(
    tmp_path: Path, sent: Reply, by: ThinkTags, form: str
) -> None:
    facts = {"key": "k", "task": "t", "sample_id": "1", "model": "m"}
    before = make_response(sent, read_reply_text(sent, by), facts)
    row = to_plain(before) if form == "responses" else sample_row(before, SAMPLE, 0, {}, None)
    recorded = opened(tmp_path, row)
    for tags in (ThinkTags(), by):
        request = ChatRequest(SAMPLE.messages, Decoding())
        reply, split = asyncio.run(recorded.generate(SAMPLE, request, tags))
        after = make_response(reply, split, facts)
        told = ("raw", "thinking", "answer", "status")
        assert [getattr(after, name) for name in told] == [getattr(before, name) for name in told]


def test_thinking_that_a_run_did_not_see_is_read_by_the_tags_of_the_next(tmp_path: Path) -> None:
    own = {**OWN, "raw": "<seed>a</seed>x", "thinking": None, "answer": "<seed>a</seed>x"}
    request = ChatRequest(SAMPLE.messages, Decoding())
    _, split = asyncio.run(opened(tmp_path, own).generate(SAMPLE, request, SEED))
    assert (split.thinking, split.answer) == ("a", "x")


def test_a_folder_stands_for_its_newest_file(tmp_path: Path) -> None:
    model = tmp_path / "out" / "model"
    model.mkdir(parents=True)
    for day, text in ((1, "old"), (2, "new")):
        line = json.dumps(lm_eval_row(resps=[[text]]))
        (model / f"samples_my_task_2026-01-0{day}T00-00-00.jsonl").write_text(line)
    assert answer(open_recorded(tmp_path / "out", "m", 1)) == "new"
    (model / "samples_other_2026-01-01T00-00-00.jsonl").write_text("{}")
    with pytest.raises(UsageError, match="one task.*Found: .*my_task.*other.*Try: --responses"):
        open_recorded(tmp_path / "out", "m", 1)


def test_a_folder_without_answers_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Found: none"):
        open_recorded(tmp_path, "m", 1)
    with pytest.raises(UsageError, match="No such file"):
        open_recorded(tmp_path / "absent.jsonl", "m", 1)


@given(st.text(st.characters(exclude_categories=())))
def test_every_text_comes_back_as_it_went(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.jsonl"
        path.write_bytes(dump_line({"id": "1", "text": text}))
        assert answer(open_recorded(path, "m", 1)) == text


def test_answer_files_of_other_suites_are_read(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    lines = [
        {"uid": "a", "messages": [{"content": "q"}, {"content": {"answer": "One."}}]},
        {"id": 2, "messages": [{"role": "assistant", "content": "Two."}]},
        {"id": 3, "prompt": "q", "article": "Three.\u2028Still three."},
    ]
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), "utf-8")
    found = {answer.sample_id: answer.text for answer in read_responses(path)}
    assert found == {"a": "One.", "2": "Two.", "3": "Three.\u2028Still three."}
    for odd in ([], "text", [5], [{"content": {"answer": 5}}]):
        path.write_text(json.dumps({"id": 1, "messages": odd}), "utf-8")
        with pytest.raises(UsageError, match="or messages"):
            list(read_responses(path))


def test_reports_are_read_from_pairs_of_query_and_answer(tmp_path: Path) -> None:
    for name in ("1.q", "1.a", "22.a"):
        (tmp_path / name).write_text(f"text of {name}", encoding="utf-8")
    recorded = open_recorded(tmp_path, "m", 1)
    assert answer(recorded) == "text of 1.a" and recorded.texts.keys() == {"1", "22"}


def test_numbered_reports_are_read_and_other_than_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "idx-1.md").write_text("report", encoding="utf-8")
    (tmp_path / "notes.md").write_text("no report", encoding="utf-8")
    recorded = open_recorded(tmp_path, "m", 1)
    assert answer(recorded) == "report" and recorded.texts.keys() == {"1"}
    (tmp_path / "idx-1.md").rename(tmp_path / "idx-1.pdf")
    with pytest.raises(CallFailed, match=r"unsupported_input: idx-1\.pdf, expected \.md") as caught:
        answer(open_recorded(tmp_path, "m", 1))
    assert caught.value.status is CallStatus.BAD_REQUEST


def test_a_report_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.a").write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(UsageError, match=r"1\.a: .*Expected a UTF-8 text file"):
        open_recorded(tmp_path, "m", 1)


def test_two_reports_for_one_sample_are_refused(tmp_path: Path) -> None:
    for ending in ("md", "txt"):
        (tmp_path / f"idx-1.{ending}").write_text("report", encoding="utf-8")
    with pytest.raises(UsageError, match="stands 2 times"):
        open_recorded(tmp_path, "m", 1)


def test_articles_are_joined_by_their_prompt_as_upstream_does(tmp_path: Path) -> None:
    moved = {"id": 5, "prompt": "Write.", "article": "mine"}
    other = {"id": 1, "prompt": "Something else.", "article": "not mine"}
    recorded = opened(tmp_path, moved, other)
    assert answer(recorded) == "mine" and recorded.key(SAMPLE) == "5"
    assert not opened(tmp_path, other).find(SAMPLE)
    assert opened(tmp_path, {"id": 1, "article": "by id"}).find(SAMPLE)
