"""Answers written elsewhere: every accepted form, and clear errors for the others."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from r2w_eval.chat import CallFailed, CallStatus, ChatRequest
from r2w_eval.errors import UsageError
from r2w_eval.recorded import RecordedResponses, open_recorded
from r2w_eval.types import Decoding, Message, Sample

SAMPLE = Sample("t", "1", (Message("user", "Write."),))


def written(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_bytes("\n".join(lines).encode())
    return path


def answer(recorded: RecordedResponses, repeat: int = 0) -> str:
    request = ChatRequest(SAMPLE.messages, Decoding(), repeat)
    return asyncio.run(recorded.generate(SAMPLE, request)).text


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
